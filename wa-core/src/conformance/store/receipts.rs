//! Receipts and replies.

use super::stage::{Stage, sent};
use super::world::World;
use crate::domain::access::RequestScope;
use crate::domain::delivery::Delivery;
use crate::domain::message::MessageState;
use crate::id::{EventId, MessageId};
use crate::store::{Change, ChangeSet, Committed, Verdict};
use crate::transport::{MessageRef, TransportMessageId};

fn vendor(id: &str) -> TransportMessageId {
    TransportMessageId::new(id).unwrap()
}

async fn receipt(stage: &Stage, message: MessageRef, delivery: Delivery, seconds: u64) -> Committed {
    let change = Change::Receipt {
        user_id: stage.user,
        device_id: stage.device,
        message,
        delivery,
        at: stage.world.at(seconds),
    };
    stage.world.commit(change).await
}

/// Sent, with an id of the vendor's own.
async fn accepted(stage: &Stage, provider_id: &str) -> MessageId {
    let (id, attempt) = stage.sending().await;
    let verdict = Verdict::Sent {
        provider_id: Some(vendor(provider_id)),
        delivery: None,
    };
    stage.settle(id, attempt, verdict).await;
    id
}

async fn ours(stage: &Stage, id: MessageId) -> MessageRef {
    MessageRef::Ours(stage.row(id).await.attempt.unwrap().transport_message_id)
}

pub(super) async fn a_receipt_moves_delivery_forward_only(world: World) {
    let stage = world.stage().await;
    let id = accepted(&stage, "v1").await;
    let of = ours(&stage, id).await;
    for (delivery, seconds, expected, at) in [
        (Delivery::Undelivered, 1, Delivery::Undelivered, 1),
        (Delivery::Delivered, 2, Delivery::Delivered, 2),
        (Delivery::Undelivered, 3, Delivery::Delivered, 2),
        (Delivery::Read, 4, Delivery::Read, 4),
        (Delivery::Delivered, 5, Delivery::Read, 4),
        (Delivery::Read, 6, Delivery::Read, 4),
        (Delivery::Replied, 7, Delivery::Replied, 7),
    ] {
        let done = receipt(&stage, of.clone(), delivery, seconds).await;
        assert_eq!(done.matched, [id]);
        let row = stage.row(id).await;
        assert_eq!((row.delivery, row.delivery_at), (Some(expected), Some(world.at(at))));
        assert_eq!(row.state, MessageState::Sent);
    }
}

pub(super) async fn a_receipt_finds_its_message_by_our_id_or_the_vendors(world: World) {
    let stage = world.stage().await;
    let (one, two) = (accepted(&stage, "v1").await, accepted(&stage, "v2").await);
    let done = receipt(&stage, MessageRef::Provider(vendor("v2")), Delivery::Read, 1).await;
    assert_eq!(done.matched, [two]);
    let by_ours = ours(&stage, one).await;
    assert_eq!(receipt(&stage, by_ours, Delivery::Delivered, 1).await.matched, [one]);
    assert_eq!(stage.row(one).await.delivery, Some(Delivery::Delivered));
    assert_eq!(stage.row(two).await.delivery, Some(Delivery::Read));
}

pub(super) async fn a_receipt_that_finds_nothing_is_ignored(world: World) {
    let stage = world.stage().await;
    let id = accepted(&stage, "v1").await;
    let before = stage.row(id).await;
    for message in [
        MessageRef::Ours(vendor("v1")),
        MessageRef::Provider(vendor("v2")),
        MessageRef::NewestTo(world.rows.phone(1)),
    ] {
        let done = receipt(&stage, message, Delivery::Read, 1).await;
        assert!(done.matched.is_empty());
    }
    // Ids of vendors are unique per device at best.
    let other = world.stage().await;
    let done = receipt(&other, MessageRef::Provider(vendor("v1")), Delivery::Read, 1).await;
    assert!(done.matched.is_empty());
    assert_eq!(stage.row(id).await, before);
}

pub(super) async fn a_receipt_proves_that_a_message_in_doubt_was_sent(world: World) {
    for unknown in [false, true] {
        let stage = world.stage().await;
        let (id, _) = if unknown {
            stage.unknown().await
        } else {
            stage.in_doubt().await
        };
        let of = ours(&stage, id).await;
        let done = receipt(&stage, of, Delivery::Delivered, 8).await;
        assert_eq!(done.matched, [id]);
        let row = stage.row(id).await;
        assert_eq!((row.state, row.doubt), (MessageState::Sent, None));
        assert_eq!(
            (row.delivery, row.delivery_at),
            (Some(Delivery::Delivered), Some(world.at(8)))
        );
    }
}

pub(super) async fn a_receipt_leaves_what_was_not_sent_alone(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    stage.settle(id, attempt, super::stage::failed()).await;
    let before = stage.row(id).await;
    let of = ours(&stage, id).await;
    receipt(&stage, of, Delivery::Delivered, 1).await;
    assert_eq!(stage.row(id).await, before, "terminal stays terminal");
}

pub(super) async fn a_receipt_by_recipient_moves_the_newest_and_settles_nothing(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    let mut made = Vec::new();
    for n in 0..3 {
        let message = world.rows.direct_message(stage.user, Some(stage.device), phone);
        let id = world.insert(message).await;
        let mut item = stage.item(id);
        item.attempted_at = world.at(n);
        assert_eq!(stage.try_begin(&item).await, crate::store::Begun::Yes);
        let verdict = if n < 2 {
            sent()
        } else {
            super::stage::doubt_until(world.at(90))
        };
        stage.settle(id, item.attempt_id, verdict).await;
        made.push(id);
    }
    let to = || MessageRef::NewestTo(phone);
    assert_eq!(receipt(&stage, to(), Delivery::Delivered, 1).await.matched, [made[1]]);
    assert_eq!(receipt(&stage, to(), Delivery::Read, 2).await.matched, [made[0]]);
    assert!(receipt(&stage, to(), Delivery::Read, 3).await.matched.is_empty());
    assert_eq!(
        stage.state(made[2]).await,
        MessageState::InDoubt,
        "a guess is no evidence"
    );
}

fn replied(stage: &Stage, phone: crate::domain::phone::Phone, id: &str, seconds: u64) -> Change {
    Change::Replied {
        user_id: stage.user,
        device_id: stage.device,
        phone,
        person: stage.world.rows.person(stage.user, &phone),
        provider_id: vendor(id),
        at: stage.world.at(seconds),
    }
}

pub(super) async fn a_reply_is_counted_once_for_the_newest_message_and_told_to_leads(world: World) {
    let stage = world.stage().await;
    let lead = world.lead(stage.user, Some(stage.device)).await;
    let mut elsewhere = world.rows.lead(stage.user, None);
    elsewhere.phone = lead.phone;
    world.insert_lead(&elsewhere).await;
    let bystander = world.lead(stage.user, None).await;
    let mut made = Vec::new();
    for n in 0..2 {
        let message = world.rows.direct_message(stage.user, Some(stage.device), lead.phone);
        let id = world.insert(message).await;
        let mut item = stage.item(id);
        item.attempted_at = world.at(n);
        assert_eq!(stage.try_begin(&item).await, crate::store::Begun::Yes);
        stage.settle(id, item.attempt_id, sent()).await;
        made.push(id);
    }
    let done = world.commit(replied(&stage, lead.phone, "in-1", 30)).await;
    assert!(done.reply_is_new);
    assert_eq!(done.matched, [made[1]]);
    assert_eq!(stage.row(made[1]).await.delivery, Some(Delivery::Replied));
    assert_eq!(stage.row(made[0]).await.delivery, None);
    for id in [lead.id, elsewhere.id] {
        let read = world.lead_of(stage.user, id).await;
        assert_eq!(read.last_interaction_at, Some(world.at(30)));
        assert_eq!(read.version, 1, "it makes no edit of a person late");
    }
    assert_eq!(world.lead_of(stage.user, bystander.id).await.last_interaction_at, None);

    let again = world.commit(replied(&stage, lead.phone, "in-1", 99)).await;
    assert!(!again.reply_is_new && again.matched.is_empty());
    let read = world.lead_of(stage.user, lead.id).await;
    assert_eq!(read.last_interaction_at, Some(world.at(30)));
}

pub(super) async fn a_reply_of_a_stranger_is_new_and_matches_nothing(world: World) {
    let (stage, other) = (world.stage().await, world.stage().await);
    let phone = world.rows.phone(9);
    let done = world.commit(replied(&stage, phone, "in-1", 1)).await;
    assert!(done.reply_is_new && done.matched.is_empty());
    let elsewhere = world.commit(replied(&other, phone, "in-1", 1)).await;
    assert!(elsewhere.reply_is_new, "another device has ids of its own");
}

pub(super) async fn replies_recorded_long_ago_are_forgotten_and_younger_ones_are_not(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(9);
    // What counts is when they were recorded, not what they say of themselves.
    world.commit_at(replied(&stage, phone, "old", 90), world.at(10)).await;
    world.commit_at(replied(&stage, phone, "young", 1), world.at(20)).await;
    assert_eq!(world.store.prune_replies(world.at(20)).await.unwrap(), 1);
    assert_eq!(world.store.prune_replies(world.at(20)).await.unwrap(), 0);
    for (id, is_new) in [("young", false), ("old", true)] {
        let done = world.commit_at(replied(&stage, phone, id, 95), world.at(30)).await;
        assert_eq!(done.reply_is_new, is_new, "{id}");
    }
}

pub(super) async fn a_late_reply_does_not_set_an_interaction_back(world: World) {
    let stage = world.stage().await;
    let lead = world.lead(stage.user, Some(stage.device)).await;
    world.commit(replied(&stage, lead.phone, "in-2", 50)).await;
    world.commit(replied(&stage, lead.phone, "in-1", 20)).await;
    let read = world.lead_of(stage.user, lead.id).await;
    assert_eq!(read.last_interaction_at, Some(world.at(50)));
}

pub(super) async fn a_reply_seen_before_takes_its_whole_set_with_it(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(9);
    let suppression = world.rows.suppression(stage.user, phone);
    let opt_out = || {
        ChangeSet::one(replied(&stage, phone, "in-1", 1))
            .and(Change::Suppress(suppression.clone()))
            .tell(world.rows.event(stage.user, world.now()))
    };
    let suppressed = || {
        world
            .store
            .suppressed(stage.user, std::slice::from_ref(&suppression.person))
    };
    let scope = RequestScope::user(stage.user);
    let events = || world.store.events(&scope, EventId::MIN, 10);
    assert!(world.commit(opt_out()).await.reply_is_new);
    assert_eq!(
        (suppressed().await.unwrap().len(), events().await.unwrap().len()),
        (1, 1)
    );
    let opt_in = Change::Unsuppress {
        user_id: stage.user,
        person: suppression.person,
    };
    world.commit(opt_in).await;
    assert!(!world.commit(opt_out()).await.reply_is_new);
    assert!(suppressed().await.unwrap().is_empty(), "the opt-in stands");
    assert_eq!(events().await.unwrap().len(), 1, "nothing is told twice");
}

pub(super) async fn a_receipt_that_overtakes_the_outcome_decides_it(world: World) {
    for verdict in [
        sent(),
        super::stage::failed(),
        super::stage::unknown(),
        super::stage::requeue(world.now()),
        super::stage::doubt_until(world.now()),
    ] {
        let stage = world.stage().await;
        let (id, attempt) = stage.sending().await;
        let of = ours(&stage, id).await;
        receipt(&stage, of, Delivery::Delivered, 2).await;
        let row = stage.row(id).await;
        assert_eq!(row.state, MessageState::Sending, "its device still sends it");
        assert_eq!(
            (row.delivery, row.delivery_at),
            (Some(Delivery::Delivered), Some(world.at(2)))
        );
        let settled = stage.settle(id, attempt, verdict.clone()).await;
        assert_eq!(settled, crate::store::Settled::Yes(MessageState::Sent), "{verdict:?}");
        assert_eq!(stage.row(id).await.delivery, Some(Delivery::Delivered));
    }
}

pub(super) async fn a_takeover_leaves_no_doubt_about_what_a_receipt_has_proved(world: World) {
    let stage = world.stage().await;
    let (id, _) = stage.sending().await;
    let of = ours(&stage, id).await;
    receipt(&stage, of, Delivery::Read, 2).await;
    let (by, nodes) = (world.node().await, world.store.nodes().await.unwrap());
    let seen = nodes.iter().find(|node| node.incarnation == stage.node).unwrap().beat;
    let taken = world.store.fence(by, stage.node, seen, world.now()).await.unwrap();
    assert!(taken.is_empty());
    assert_eq!(stage.state(id).await, MessageState::Sent);
}

pub(super) async fn a_receipt_proves_that_a_requeued_message_was_sent(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    stage.settle(id, attempt, super::stage::requeue(world.now())).await;
    let of = ours(&stage, id).await;
    assert_eq!(receipt(&stage, of, Delivery::Delivered, 3).await.matched, [id]);
    assert_eq!(
        stage.state(id).await,
        MessageState::Sent,
        "sending it again would be a second message"
    );
    assert!(stage.due_at(world.at(600)).await.is_empty());
}
