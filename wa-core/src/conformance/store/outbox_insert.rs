//! Enqueuing: idempotency keys, the state that a message begins in, rounds; and what a person does to a message.

use super::stage::Stage;
use super::world::{World, set_status};
use crate::domain::campaign::CampaignStatus;
use crate::domain::message::{Message, MessageState, Reason};
use crate::id::MessageId;
use crate::store::{Change, ChangeSet, StoreErrorKind};

fn insert(messages: &[Message]) -> Change {
    Change::InsertMessages(messages.to_vec())
}

pub(super) async fn a_known_key_is_a_reported_no_op(world: World) {
    let stage = world.stage().await;
    let (first, second) = (
        stage.message_to(world.rows.phone(1)),
        stage.message_to(world.rows.phone(2)),
    );
    world.commit(insert(std::slice::from_ref(&first))).await;
    let mut again = stage.message_to(world.rows.phone(1));
    again.name = "Another".to_owned();
    let done = world.commit(insert(&[again, second.clone()])).await;
    assert_eq!(done.duplicates, [(first.key, first.id)]);
    assert_eq!(done.messages_inserted, 1, "the others are inserted all the same");
    assert_eq!(stage.row(first.id).await, first);
    assert_eq!(stage.row(second.id).await, second);
}

pub(super) async fn the_same_commit_twice_enqueues_once_whatever_became_of_the_messages(world: World) {
    let stage = world.stage().await;
    let messages: Vec<Message> = (1..=4).map(|n| stage.message_to(world.rows.phone(n))).collect();
    world.commit(insert(&messages)).await;
    let attempt = stage.begin(messages[0].id).await;
    stage.settle(messages[0].id, attempt, super::stage::sent()).await;
    stage.begin(messages[1].id).await;
    stage.opt_out(messages[2].id).await;
    let done = world.commit(insert(&messages)).await;
    let expected: Vec<_> = messages.iter().map(|message| (message.key, message.id)).collect();
    assert_eq!(done.duplicates, expected);
    assert_eq!(done.messages_inserted, 0);
    for (message, state) in messages.iter().zip([
        MessageState::Sent,
        MessageState::Sending,
        MessageState::Skipped,
        MessageState::Queued,
    ]) {
        assert_eq!(stage.state(message.id).await, state);
    }
}

pub(super) async fn a_key_twice_in_one_batch_is_enqueued_once(world: World) {
    let stage = world.stage().await;
    let (first, twin) = (
        stage.message_to(world.rows.phone(1)),
        stage.message_to(world.rows.phone(1)),
    );
    let done = world.commit(insert(&[first.clone(), twin])).await;
    assert_eq!(done.messages_inserted, 1);
    assert_eq!(done.duplicates, [(first.key, first.id)]);
}

pub(super) async fn a_message_begins_in_the_state_that_its_scope_asks_for(world: World) {
    use CampaignStatus::{Cancelled, Completed, Draft, Failed, Paused, Scheduled, Triggered};
    let user = world.user().await;
    let device = Some(world.device(user).await);
    for (way, expected) in [
        (&[][..], (MessageState::Held, None)),
        (&[Scheduled], (MessageState::Held, None)),
        (&[Scheduled, Triggered], (MessageState::Queued, None)),
        (&[Scheduled, Triggered, Paused], (MessageState::Held, None)),
        (
            &[Scheduled, Triggered, Completed],
            (MessageState::Cancelled, Some(Reason::ScopeEnded)),
        ),
        (
            &[Scheduled, Failed],
            (MessageState::Cancelled, Some(Reason::ScopeEnded)),
        ),
        (&[Cancelled], (MessageState::Cancelled, Some(Reason::ScopeEnded))),
    ] {
        let campaign = world.draft(user).await.id;
        for to in way {
            world
                .commit(set_status(user, campaign, &CampaignStatus::ALL, *to))
                .await;
        }
        let message = world
            .rows
            .campaign_message(user, campaign, device, world.rows.fresh_phone());
        let id = world.insert(message).await;
        let row = world.message(user, id).await;
        assert_eq!((row.state, row.reason), expected, "after {Draft:?} {way:?}");
    }
}

pub(super) async fn a_message_to_a_suppressed_person_begins_skipped(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    world.suppress(stage.user, phone).await;
    let campaign = stage.queued_to(phone).await;
    let direct = world.rows.direct_message(stage.user, Some(stage.device), phone);
    let direct = world.insert(direct).await;
    for id in [campaign, direct] {
        let row = stage.row(id).await;
        assert_eq!(
            (row.state, row.reason),
            (MessageState::Skipped, Some(Reason::Suppressed))
        );
        assert_eq!(row.settled_at, Some(world.now()));
    }
    let mut meant = world.rows.direct_message(stage.user, Some(stage.device), phone);
    meant.override_suppression = true;
    let meant = world.insert(meant).await;
    assert_eq!(
        stage.state(meant).await,
        MessageState::Queued,
        "an explicit override is one"
    );
}

pub(super) async fn an_override_means_nothing_in_a_campaign(world: World) {
    let stage = world.stage().await;
    let (before, after) = (world.rows.phone(1), world.rows.phone(2));
    let meant = |phone| Message {
        override_suppression: true,
        ..stage.message_to(phone)
    };
    world.suppress(stage.user, before).await;
    let late = world.insert(meant(before)).await;
    assert_eq!(stage.state(late).await, MessageState::Skipped);
    let early = world.insert(meant(after)).await;
    world.suppress(stage.user, after).await;
    assert_eq!(stage.state(early).await, MessageState::Skipped);
}

pub(super) async fn a_message_on_a_deleted_device_begins_skipped(world: World) {
    let stage = world.stage().await;
    stage.delete_device().await;
    let row = stage.row(stage.queued().await).await;
    assert_eq!(
        (row.state, row.reason),
        (MessageState::Skipped, Some(Reason::DeviceGone))
    );
}

pub(super) async fn a_message_that_a_planner_settled_keeps_its_state_and_reason(world: World) {
    let stage = world.stage().await;
    for (n, reason) in [Reason::Duplicate, Reason::NoDevice].into_iter().enumerate() {
        let mut message = stage.message_to(world.rows.phone(n as u32));
        message.device_id = None;
        message.state = MessageState::Skipped;
        message.reason = Some(reason);
        message.settled_at = Some(world.now());
        let id = world.insert(message.clone()).await;
        assert_eq!(stage.row(id).await, message);
    }
}

pub(super) async fn a_message_is_never_inserted_as_if_it_were_being_sent(world: World) {
    let stage = world.stage().await;
    for state in [MessageState::Sending, MessageState::InDoubt] {
        let mut message = stage.message_to(world.rows.phone(1));
        message.state = state;
        world.refused(insert(&[message]), StoreErrorKind::Conflict).await;
    }
}

/// A message in each state, by the way that leads there.
pub(super) async fn in_state(stage: &Stage, state: MessageState) -> MessageId {
    let rows = &stage.world.rows;
    let id = match state {
        MessageState::Queued => stage.queued().await,
        MessageState::Held => {
            let user = stage.user;
            let campaign = stage.world.campaign(user).await;
            let pause = set_status(user, campaign, &[CampaignStatus::Triggered], CampaignStatus::Paused);
            stage.world.commit(pause).await;
            let message = rows.campaign_message(user, campaign, Some(stage.device), rows.fresh_phone());
            stage.world.insert(message).await
        }
        MessageState::Sending => stage.sending().await.0,
        MessageState::InDoubt => stage.in_doubt().await.0,
        MessageState::Sent => stage.sent().await.0,
        MessageState::Unknown => stage.unknown().await.0,
        MessageState::Failed => {
            let (id, attempt) = stage.sending().await;
            stage.settle(id, attempt, super::stage::failed()).await;
            id
        }
        MessageState::Skipped => {
            let id = stage.queued().await;
            stage.opt_out(id).await;
            id
        }
        MessageState::Cancelled => {
            let id = stage.queued().await;
            stage.world.commit(cancel(stage, id)).await;
            id
        }
    };
    assert_eq!(stage.state(id).await, state);
    id
}

fn cancel(stage: &Stage, message_id: MessageId) -> Change {
    Change::CancelMessage {
        user_id: stage.user,
        message_id,
    }
}

pub(super) async fn a_person_cancels_what_is_open_and_not_being_sent(world: World) {
    for state in MessageState::ALL {
        let stage = world.stage().await;
        let id = in_state(&stage, state).await;
        let before = stage.row(id).await;
        if matches!(state, MessageState::Queued | MessageState::Held) {
            world.commit_at(cancel(&stage, id), world.at(3)).await;
            let row = stage.row(id).await;
            assert_eq!(
                (row.state, row.reason),
                (MessageState::Cancelled, Some(Reason::ByPerson))
            );
            assert_eq!(row.settled_at, Some(world.at(3)));
        } else {
            world.refused(cancel(&stage, id), StoreErrorKind::Conflict).await;
            assert_eq!(stage.row(id).await, before);
        }
    }
}

pub(super) async fn a_person_marks_what_nobody_can_tell_and_nothing_else(world: World) {
    for state in MessageState::ALL {
        for sent in [true, false] {
            let stage = world.stage().await;
            let id = in_state(&stage, state).await;
            let before = stage.row(id).await;
            let mark = Change::MarkMessage {
                user_id: stage.user,
                message_id: id,
                sent,
            };
            if state == MessageState::Unknown {
                world.commit(mark).await;
                let row = stage.row(id).await;
                let expected = if sent { MessageState::Sent } else { MessageState::Failed };
                assert_eq!((row.state, row.reason), (expected, Some(Reason::ByPerson)));
            } else {
                world.refused(mark, StoreErrorKind::Conflict).await;
                assert_eq!(stage.row(id).await, before);
            }
        }
    }
}

pub(super) async fn a_message_sent_again_by_hand_takes_the_place_of_the_earlier_one(world: World) {
    let stage = world.stage().await;
    let (first, _) = stage.unknown().await;
    let second = world.rows.resend(&stage.row(first).await);
    let id = world.insert(second.clone()).await;
    assert!(stage.row(first).await.superseded);
    let row = stage.row(id).await;
    assert_eq!((row.round, row.supersedes, row.superseded), (1, Some(first), false));
    let scope = crate::domain::access::RequestScope::user(stage.user);
    let of = second.scope;
    let numbers = world.store.numbers(&scope, of).await.unwrap();
    assert_eq!(numbers.len(), 1);
    assert_eq!((numbers[0].numbers.should(), numbers[0].numbers.remaining), (1, 1));
    let again = world
        .commit(insert(&[world.rows.resend(&stage.row(first).await)]))
        .await;
    assert_eq!(
        again.duplicates,
        [(second.key, id)],
        "sending the same one again twice makes one row"
    );
}

pub(super) async fn one_campaign_has_one_message_per_person_and_round(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    let (in_one, elsewhere) = (stage.message_to(phone), world.campaign(stage.user).await);
    let other = world
        .rows
        .campaign_message(stage.user, elsewhere, Some(stage.device), phone);
    let done = world
        .commit(ChangeSet::one(insert(&[in_one.clone(), other])).and(insert(&[stage.message_to(phone)])))
        .await;
    assert_eq!(
        done.messages_inserted, 2,
        "another campaign may write to the same person"
    );
    assert_eq!(done.duplicates, [(in_one.key, in_one.id)]);
}

pub(super) async fn an_open_message_that_would_wait_for_ever_is_refused(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.phone(1);
    let nowhere = world.rows.direct_message(stage.user, None, phone);
    let mut no_pool = world.rows.campaign_message(stage.user, stage.campaign, None, phone);
    no_pool.from_pool = false;
    for message in [nowhere, no_pool] {
        world.refused(insert(&[message]), StoreErrorKind::Conflict).await;
    }
}

pub(super) async fn a_key_of_another_user_tells_nothing_of_theirs(world: World) {
    let (stage, other) = (world.stage().await, world.stage().await);
    let theirs = other.message_to(world.rows.phone(1));
    world.commit(insert(std::slice::from_ref(&theirs))).await;
    let mut mine = stage.message_to(world.rows.phone(1));
    mine.key = theirs.key;
    world.refused(insert(&[mine]), StoreErrorKind::Conflict).await;
    assert_eq!(other.row(theirs.id).await, theirs);
}

pub(super) async fn only_a_failed_or_unknown_message_of_the_same_scope_is_sent_again_and_once(world: World) {
    let stage = world.stage().await;
    for state in MessageState::ALL.into_iter().filter(|state| !state.may_be_resent()) {
        let stage = world.stage().await;
        let id = in_state(&stage, state).await;
        let again = world.rows.resend(&stage.row(id).await);
        world.refused(insert(&[again]), StoreErrorKind::Conflict).await;
        assert!(!stage.row(id).await.superseded, "{state:?}");
    }
    let (settled, _) = stage.unknown().await;
    let mut elsewhere = world.rows.resend(&stage.row(settled).await);
    elsewhere.scope = crate::domain::message::MessageScope::Direct;
    world.refused(insert(&[elsewhere]), StoreErrorKind::Conflict).await;
    world.insert(world.rows.resend(&stage.row(settled).await)).await;
    let mut twice = world.rows.resend(&stage.row(settled).await);
    twice.key = crate::domain::message::IdempotencyKey::unique(twice.id);
    world.refused(insert(&[twice]), StoreErrorKind::Conflict).await;
}
