//! The gate: what is begun, what is not, and where strays go.

use super::stage::{Stage, doubt_until, requeue, sent};
use super::world::{World, assert_kind, set_status};
use crate::domain::access::RequestScope;
use crate::domain::campaign::CampaignStatus;
use crate::domain::device::Epoch;
use crate::domain::message::{MessageState, Reason};
use crate::id::{AttemptId, MessageId};
use crate::store::{Begin, BeginItem, Begun, Settled, StoreErrorKind};
use crate::time::Timestamp;

/// The message was not begun and stands as before.
async fn untouched(stage: &Stage, item: &BeginItem, expected: Begun) {
    let before = stage.row(item.message_id).await;
    assert_eq!(stage.try_begin(item).await, expected);
    assert_eq!(stage.row(item.message_id).await, before);
}

pub(super) async fn a_begun_message_is_being_sent_and_its_attempt_is_written(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let mut item = stage.item(id);
    item.attempted_at = world.at(4);
    assert_eq!(stage.try_begin(&item).await, Begun::Yes);
    let row = stage.row(id).await;
    assert_eq!(
        (row.state, row.reason, row.settled_at),
        (MessageState::Sending, None, None)
    );
    let attempt = row.attempt.unwrap();
    assert_eq!((attempt.id, attempt.epoch), (item.attempt_id, stage.epoch));
    assert_eq!((attempt.text, attempt.greeting), (item.text, item.greeting));
    assert_eq!(attempt.transport_message_id, item.transport_message_id);
    assert_eq!(attempt.attempted_at, world.at(4));
}

pub(super) async fn a_begun_message_shows_in_what_its_node_is_sending(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let rows = world.store.sending(stage.node).await.unwrap();
    assert_eq!(rows.len(), 1);
    assert_eq!((rows[0].message_id, rows[0].attempt_id), (id, attempt));
    assert_eq!((rows[0].user_id, rows[0].device_id), (stage.user, stage.device));
    assert_eq!(rows[0].epoch, stage.epoch);
    let other = world.node().await;
    assert!(world.store.sending(other).await.unwrap().is_empty());
    stage.settle(id, attempt, sent()).await;
    assert!(world.store.sending(stage.node).await.unwrap().is_empty());
}

pub(super) async fn a_message_begins_once(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let begun = stage.try_begin(&stage.item(id)).await;
    assert_eq!(begun, Begun::Gone, "it is not queued any more");
    assert_eq!(stage.row(id).await.attempt.unwrap().id, attempt);
    let log = world.store.attempts(&RequestScope::user(stage.user), id).await.unwrap();
    assert_eq!(log.len(), 1);
}

pub(super) async fn a_message_begins_from_queued_alone(world: World) {
    for state in MessageState::ALL {
        if state == MessageState::Queued {
            continue;
        }
        let stage = world.stage().await;
        let id = super::outbox_insert::in_state(&stage, state).await;
        untouched(&stage, &stage.item(id), Begun::Gone).await;
    }
}

pub(super) async fn a_device_sends_one_message_at_a_time(world: World) {
    let stage = world.stage().await;
    let (first, attempt) = stage.sending().await;
    let second = stage.queued().await;
    untouched(&stage, &stage.item(second), Begun::NotOwner).await;
    stage.settle(first, attempt, sent()).await;
    stage.begin(second).await;
}

pub(super) async fn items_are_answered_one_by_one_in_order(world: World) {
    let stage = world.stage().await;
    let other = world.device(stage.user).await;
    let third = world.device(stage.user).await;
    let owned = world.claim(stage.node).await;
    let epoch = |device| owned.iter().find(|owned| owned.device.id == device).unwrap().epoch;
    let phone = || world.rows.fresh_phone();
    let on = |device| {
        world
            .rows
            .campaign_message(stage.user, stage.campaign, Some(device), phone())
    };
    let (good, stale, gone) = (on(stage.device), on(other), on(third));
    for message in [&good, &stale] {
        world.insert(message.clone()).await;
    }
    let items = vec![
        world.rows.begin_item(stage.user, gone.id, third, epoch(third)),
        world.rows.begin_item(stage.user, good.id, stage.device, stage.epoch),
        world
            .rows
            .begin_item(stage.user, stale.id, other, Epoch(epoch(other).0 - 1)),
    ];
    let begun = stage.begin_items(items).await.unwrap();
    assert_eq!(begun, [Begun::Gone, Begun::Yes, Begun::NotOwner]);
    assert!(stage.begin_items(Vec::new()).await.unwrap().is_empty());
}

pub(super) async fn a_message_begins_on_its_own_device_and_for_its_own_user_alone(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let (other_device, other_user) = (world.device(stage.user).await, world.user().await);
    let owned = world.claim(stage.node).await;
    let elsewhere = BeginItem {
        device_id: other_device,
        epoch: owned[0].epoch,
        ..stage.item(id)
    };
    untouched(&stage, &elsewhere, Begun::Gone).await;
    let foreign = BeginItem {
        user_id: other_user,
        ..stage.item(id)
    };
    untouched(&stage, &foreign, Begun::NotOwner).await;
    let their_device = world.device(other_user).await;
    let owned = world.claim(stage.node).await;
    let smuggled = BeginItem {
        user_id: other_user,
        device_id: their_device,
        epoch: owned[0].epoch,
        ..stage.item(id)
    };
    untouched(&stage, &smuggled, Begun::Gone).await;
}

pub(super) async fn a_message_in_the_pool_does_not_begin(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.fresh_phone();
    let id = world
        .insert(world.rows.campaign_message(stage.user, stage.campaign, None, phone))
        .await;
    untouched(&stage, &stage.item(id), Begun::Gone).await;
}

pub(super) async fn an_old_or_invented_epoch_begins_nothing(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    for epoch in [stage.epoch.0 - 1, stage.epoch.0 + 1] {
        let item = BeginItem {
            epoch: Epoch(epoch),
            ..stage.item(id)
        };
        untouched(&stage, &item, Begun::NotOwner).await;
    }
    let next = stage.hand_over().await;
    untouched(&stage, &stage.item(id), Begun::NotOwner).await;
    let borrowed = BeginItem {
        epoch: next.epoch,
        ..stage.item(id)
    };
    untouched(&stage, &borrowed, Begun::NotOwner).await;
    next.begin(id).await;
}

pub(super) async fn a_fenced_node_begins_nothing(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    stage.take_over().await;
    assert_kind(stage.begin_items(vec![stage.item(id)]).await, StoreErrorKind::Fenced);
    assert_eq!(stage.state(id).await, MessageState::Queued);
}

pub(super) async fn a_node_that_left_begins_nothing(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    world.store.leave(stage.node, world.now()).await.unwrap();
    assert_kind(stage.begin_items(vec![stage.item(id)]).await, StoreErrorKind::Fenced);
    let never_joined = Begin {
        incarnation: world.rows.incarnation(),
        items: vec![stage.item(id)],
        now: world.now(),
    };
    assert_kind(world.store.begin(&never_joined).await, StoreErrorKind::Fenced);
    assert_eq!(stage.state(id).await, MessageState::Queued);
}

pub(super) async fn a_device_on_hold_begins_nothing(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    stage.hold_device().await;
    untouched(&stage, &stage.item(id), Begun::NotOwner).await;
}

pub(super) async fn a_deleted_device_begins_nothing(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    stage.delete_device().await;
    untouched(&stage, &stage.item(id), Begun::NotOwner).await;
}

pub(super) async fn a_message_of_a_paused_campaign_is_held_by_the_gate(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    stage.pause().await;
    let begun = stage.try_begin(&stage.item(id)).await;
    assert_eq!(begun, Begun::Stray(MessageState::Held, None));
    let row = stage.row(id).await;
    assert_eq!((row.state, row.attempt), (MessageState::Held, None));
    assert_eq!(row.held_at, Some(world.now()));
}

pub(super) async fn a_message_of_an_ended_campaign_is_cancelled_by_the_gate(world: World) {
    for to in [CampaignStatus::Cancelled, CampaignStatus::Failed] {
        let stage = world.stage().await;
        let id = stage.queued().await;
        stage.status(&[CampaignStatus::Triggered], to).await;
        let begun = stage.try_begin(&stage.item(id)).await;
        let expected = (MessageState::Cancelled, Some(Reason::ScopeEnded));
        assert_eq!(begun, Begun::Stray(expected.0, expected.1), "{to:?}");
        let row = stage.row(id).await;
        assert_eq!((row.state, row.reason, row.attempt), (expected.0, expected.1, None));
        assert_eq!(row.settled_at, Some(world.now()));
    }
}

pub(super) async fn nothing_begins_to_a_suppressed_person(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    let mut meant = world.rows.direct_message(stage.user, Some(stage.device), phone);
    meant.override_suppression = true;
    let meant = world.insert(meant).await;
    world.suppress(stage.user, phone).await;
    assert_eq!(stage.state(meant).await, MessageState::Queued);
    let attempt = stage.begin(meant).await;
    // Put back while suppressed: the override stays one.
    let settled = stage.settle(meant, attempt, requeue(world.now())).await;
    assert_eq!(settled, Settled::Yes(MessageState::Queued));

    let other = world.rows.phone(2);
    let id = stage.queued_to(other).await;
    let attempt = stage.begin(id).await;
    world.suppress(stage.user, other).await;
    assert_eq!(stage.state(id).await, MessageState::Sending, "it is in the air");
    let settled = stage.settle(id, attempt, requeue(world.now())).await;
    assert_eq!(settled, Settled::Yes(MessageState::Skipped));
    untouched(&stage, &stage.item(id), Begun::Gone).await;
}

pub(super) async fn a_resumed_campaign_begins_again(world: World) {
    let stage = world.stage().await;
    let (held, queued) = (stage.queued().await, stage.queued().await);
    stage.pause().await;
    stage.try_begin(&stage.item(held)).await;
    stage.resume().await;
    let attempt = stage.begin(queued).await;
    stage.settle(queued, attempt, sent()).await;
    world.sweep_at(world.now()).await;
    stage.begin(held).await;
}

pub(super) async fn every_attempt_of_a_message_is_kept_oldest_first(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let mut made: Vec<AttemptId> = Vec::new();
    for n in 0..3 {
        let mut item = stage.item(id);
        item.text = format!("text {n}");
        assert_eq!(stage.try_begin(&item).await, Begun::Yes);
        made.push(item.attempt_id);
        if n < 2 {
            stage.settle(id, item.attempt_id, requeue(world.now())).await;
        }
    }
    let log = world.store.attempts(&RequestScope::user(stage.user), id).await.unwrap();
    assert_eq!(log.iter().map(|attempt| attempt.id).collect::<Vec<_>>(), made);
    let texts: Vec<_> = log.iter().map(|attempt| attempt.text.as_str()).collect();
    assert_eq!(texts, ["text 0", "text 1", "text 2"]);
    assert_eq!(log.last(), stage.row(id).await.attempt.as_ref());
}

pub(super) fn again(stage: &Stage, id: MessageId, attempt_id: AttemptId, at: Timestamp) -> BeginItem {
    BeginItem {
        attempt_id,
        transport_message_id: crate::transport::TransportMessageId::from_attempt(attempt_id),
        attempted_at: at,
        again: true,
        ..stage.item(id)
    }
}

pub(super) async fn a_message_in_doubt_begins_again_under_its_attempt(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.in_doubt().await;
    let before = stage.row(id).await;
    assert_eq!(
        stage.try_begin(&again(&stage, id, attempt, world.at(90))).await,
        Begun::Yes
    );
    let row = stage.row(id).await;
    assert_eq!(row.state, MessageState::Sending);
    let (old, new) = (before.attempt.unwrap(), row.attempt.unwrap());
    assert_eq!(
        (new.id, &new.transport_message_id, &new.text),
        (attempt, &old.transport_message_id, &old.text),
        "the same id and the same text, or it would be a second message"
    );
    assert_eq!(new.attempted_at, world.at(90));
    let log = world.store.attempts(&RequestScope::user(stage.user), id).await.unwrap();
    assert_eq!(log.len(), 1);
    let settled = stage.settle(id, attempt, doubt_until(world.at(180))).await;
    assert_eq!(settled, Settled::Yes(MessageState::InDoubt));
    let doubt = stage.row(id).await.doubt.unwrap();
    assert_eq!(doubt.resend_count, 1);
    assert_eq!(
        doubt.since_at,
        before.doubt.unwrap().since_at,
        "the doubt began with the first send"
    );
}

pub(super) async fn a_message_in_doubt_does_not_begin_under_another_attempt(world: World) {
    let stage = world.stage().await;
    let (id, _) = stage.in_doubt().await;
    let foreign = again(&stage, id, world.rows.attempt_id(), world.now());
    untouched(&stage, &foreign, Begun::Gone).await;
}

pub(super) async fn only_a_message_in_doubt_begins_again(world: World) {
    for state in MessageState::ALL {
        if state == MessageState::InDoubt {
            continue;
        }
        let stage = world.stage().await;
        let id = super::outbox_insert::in_state(&stage, state).await;
        let attempt = stage.row(id).await.attempt.map(|attempt| attempt.id);
        let attempt = attempt.unwrap_or_else(|| world.rows.attempt_id());
        untouched(&stage, &again(&stage, id, attempt, world.now()), Begun::Gone).await;
    }
}

pub(super) async fn a_message_in_doubt_of_an_ended_campaign_becomes_unknown_instead_of_beginning_again(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.in_doubt().await;
    let cancel = set_status(
        stage.user,
        stage.campaign,
        &[CampaignStatus::Triggered],
        CampaignStatus::Cancelled,
    );
    world.commit(cancel).await;
    let begun = stage.try_begin(&again(&stage, id, attempt, world.now())).await;
    let expected = (MessageState::Unknown, Some(Reason::EndedInDoubt));
    assert_eq!(begun, Begun::Stray(expected.0, expected.1));
    let row = stage.row(id).await;
    assert_eq!((row.state, row.reason), expected);
}

pub(super) async fn a_message_in_doubt_about_a_suppressed_person_becomes_unknown_instead_of_beginning_again(
    world: World,
) {
    // It was in the air when the person opted out, and its node died before the outcome.
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    stage.opt_out(id).await;
    let node = stage.take_over().await;
    assert_eq!(stage.state(id).await, MessageState::InDoubt);
    let owned = world.claim(node).await;
    let next = Stage {
        node,
        epoch: owned[0].epoch,
        ..stage
    };
    let begun = next.try_begin(&again(&next, id, attempt, world.now())).await;
    let expected = (MessageState::Unknown, Some(Reason::EndedInDoubt));
    assert_eq!(begun, Begun::Stray(expected.0, expected.1));
    let row = next.row(id).await;
    assert_eq!((row.state, row.reason), expected);
}

pub(super) async fn a_message_in_doubt_of_a_paused_campaign_waits_in_doubt(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.in_doubt().await;
    stage.pause().await;
    let before = stage.row(id).await;
    let begun = stage.try_begin(&again(&stage, id, attempt, world.now())).await;
    assert!(matches!(begun, Begun::Stray(MessageState::InDoubt, _)), "{begun:?}");
    assert_eq!(stage.row(id).await, before);
    stage.resume().await;
    assert_eq!(
        stage.try_begin(&again(&stage, id, attempt, world.now())).await,
        Begun::Yes
    );
}

pub(super) async fn a_message_in_doubt_begins_again_under_the_next_owner(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.in_doubt().await;
    let next = stage.hand_over().await;
    let item = again(&stage, id, attempt, world.now());
    untouched(&stage, &item, Begun::NotOwner).await;
    assert_eq!(
        next.try_begin(&again(&next, id, attempt, world.at(1))).await,
        Begun::Yes
    );
    assert_eq!(next.row(id).await.attempt.unwrap().epoch, next.epoch);
    assert_eq!(next.settle(id, attempt, sent()).await, Settled::Yes(MessageState::Sent));
}

pub(super) async fn the_gate_does_not_ask_when_a_message_is_due(world: World) {
    // Pacing decides when; the gate decides whether.
    let stage = world.stage().await;
    let mut message = stage.message_to(world.rows.fresh_phone());
    message.due_at = world.at(600);
    let id = world.insert(message).await;
    stage.begin(id).await;
}

pub(super) async fn two_nodes_begin_a_message_and_one_wins(world: World) {
    let stage = world.stage().await;
    for _ in 0..8 {
        let id = stage.queued().await;
        let begins: Vec<Begin> = (0..4)
            .map(|_| Begin {
                incarnation: stage.node,
                items: vec![stage.item(id)],
                now: world.now(),
            })
            .collect();
        let answers = futures::future::join_all(begins.iter().map(|begin| world.store.begin(begin))).await;
        let won: Vec<usize> = (0..4)
            .filter(|n| answers[*n].as_ref().unwrap()[0] == Begun::Yes)
            .collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let winner = begins[won[0]].items[0].attempt_id;
        assert_eq!(stage.row(id).await.attempt.unwrap().id, winner);
        stage.settle(id, winner, sent()).await;
    }
}
