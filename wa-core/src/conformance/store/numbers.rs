//! Numbers that people read, and those that pacing reads.

use std::time::Duration;

use super::stage::{Stage, failed, requeue, sent};
use super::world::World;
use crate::domain::access::RequestScope;
use crate::domain::delivery::Delivery;
use crate::domain::device::OwnedDevice;
use crate::domain::message::{Message, MessageScope, MessageState};
use crate::domain::summary::{DeviceNumbers, Numbers};
use crate::store::{
    BeginItem, Begun, Change, MessageFilter, Outcome, PageRequest, RecentOf, RecentOutcomes, Settle, Settled, Verdict,
};
use crate::time::Timestamp;
use crate::transport::{MessageRef, TransportMessageId};

pub(super) async fn numbers_add_up_over_every_state_and_delivery(world: World) {
    let stage = world.stage().await;
    stage.sent().await;
    for delivery in [
        Delivery::Undelivered,
        Delivery::Delivered,
        Delivery::Read,
        Delivery::Replied,
    ] {
        let (id, attempt) = stage.sending().await;
        let verdict = Verdict::Sent {
            provider_id: None,
            delivery: Some(delivery),
        };
        stage.settle(id, attempt, verdict).await;
    }
    for state in [
        MessageState::Failed,
        MessageState::Unknown,
        MessageState::Skipped,
        MessageState::Cancelled,
        MessageState::InDoubt,
        MessageState::Queued,
        MessageState::Sending,
    ] {
        super::outbox_insert::in_state(&stage, state).await;
    }
    let scope = RequestScope::user(stage.user);
    let of = MessageScope::Campaign(stage.campaign);
    let numbers = world.store.numbers(&scope, of).await.unwrap();
    let expected = Numbers {
        done: 5,
        failed: 1,
        unknown: 1,
        skipped: 1,
        cancelled: 1,
        remaining: 3,
        delivered: 3,
        undelivered: 1,
        read: 2,
        replied: 1,
    };
    let device_id = Some(stage.device);
    assert_eq!(
        numbers,
        [DeviceNumbers {
            device_id,
            numbers: expected
        }]
    );
    assert_eq!(world.store.count(&scope, of).await.unwrap(), numbers);
    let whole = world.store.device_numbers(&scope, stage.device).await.unwrap();
    assert_eq!(whole, expected);
}

pub(super) async fn a_span_of_time_counts_what_was_completed_in_it_and_what_was_open_at_its_end(world: World) {
    let stage = world.stage().await;
    for (seconds, verdict) in [(100, sent()), (200, failed())] {
        let (id, attempt) = stage.sending().await;
        let settle = Settle {
            incarnation: stage.node,
            outcomes: vec![stage.outcome(id, attempt, verdict)],
            now: world.at(seconds),
        };
        world.store.settle(&settle).await.unwrap();
    }
    for state in [
        MessageState::Failed,
        MessageState::Skipped,
        MessageState::Cancelled,
        MessageState::Queued,
        MessageState::InDoubt,
    ] {
        super::outbox_insert::in_state(&stage, state).await;
    }
    let of = MessageScope::Campaign(stage.campaign);
    let scope = RequestScope::user(stage.user);
    let (filter, first) = (MessageFilter::default(), PageRequest::first(100));
    let rows = world.store.messages(&scope, &filter, &first).await.unwrap().rows;
    assert_eq!(rows.len(), 7);
    let late = rows.iter().filter(|row| row.settled_at > Some(row.created_at));
    assert!(late.count() >= 2, "some were open for a while");
    let mut instants: Vec<Timestamp> = rows
        .iter()
        .flat_map(|row| [Some(row.created_at), row.settled_at])
        .flatten()
        .flat_map(|at| [at - Duration::from_millis(1), at, at + Duration::from_millis(1)])
        .collect();
    instants.sort_unstable();
    instants.dedup();
    for at in 0..instants.len() * instants.len() {
        let (from, until) = (instants[at / instants.len()], instants[at % instants.len()]);
        let mut expected = Numbers::default();
        for row in rows.iter().filter(|row| row.created_at < until) {
            match row.settled_at {
                Some(at) if at < from => {}
                Some(at) if at < until => expected.count(row.state, row.delivery),
                _ => expected.remaining += 1,
            }
        }
        let counted = world.store.count_within(&scope, of, &(from..until)).await.unwrap();
        let sum: Numbers = counted.iter().map(|row| row.numbers).sum();
        assert_eq!(sum, expected, "{from} to {until}");
    }
    let ever = instants[0]..*instants.last().unwrap();
    let all = world.store.count_within(&scope, of, &ever).await.unwrap();
    assert_eq!(all, world.store.numbers(&scope, of).await.unwrap());
    let other = RequestScope::user(world.user().await);
    super::world::assert_kind(
        world.store.count_within(&other, of, &ever).await,
        crate::store::StoreErrorKind::NotFound,
    );
    let none = RequestScope {
        devices: Some(Vec::new()),
        ..scope
    };
    assert_eq!(world.store.count_within(&none, of, &ever).await.unwrap(), []);
}

pub(super) async fn numbers_are_kept_per_device_and_follow_a_message_out_of_the_pool(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.fresh_phone();
    let id = world
        .insert(world.rows.campaign_message(stage.user, stage.campaign, None, phone))
        .await;
    stage.queued().await;
    let scope = RequestScope::user(stage.user);
    let of = MessageScope::Campaign(stage.campaign);
    let remaining = async || {
        let numbers = super::sound::by_device(world.store.numbers(&scope, of).await.unwrap());
        let of = |device| numbers.get(&device).map_or(0, |numbers: &Numbers| numbers.remaining);
        (of(None), of(Some(stage.device)))
    };
    assert_eq!(remaining().await, (1, 1));
    let item = crate::store::Assignment {
        user_id: stage.user,
        message_id: id,
        device_id: stage.device,
    };
    world.store.assign(&[item], world.now()).await.unwrap();
    assert_eq!(remaining().await, (0, 2));
    world.store.unassign(stage.user, stage.device).await.unwrap();
    assert_eq!(remaining().await, (1, 1));
}

pub(super) async fn numbers_of_hand_written_messages_are_the_users_own(world: World) {
    let (stage, other) = (world.stage().await, world.stage().await);
    stage.direct().await;
    other.direct().await;
    other.direct().await;
    let scope = RequestScope::user(stage.user);
    let numbers = world.store.numbers(&scope, MessageScope::Direct).await.unwrap();
    assert_eq!(numbers.iter().map(|row| row.numbers.remaining).sum::<u64>(), 1);
    assert!(
        world
            .store
            .numbers(&scope, MessageScope::Chat)
            .await
            .unwrap()
            .is_empty()
    );
}

pub(super) async fn a_superseded_message_counts_nowhere(world: World) {
    let stage = world.stage().await;
    let (first, _) = stage.unknown().await;
    let second = world.insert(world.rows.resend(&stage.row(first).await)).await;
    let attempt = stage.begin(second).await;
    stage.settle(second, attempt, sent()).await;
    let scope = RequestScope::user(stage.user);
    let whole = world.store.device_numbers(&scope, stage.device).await.unwrap();
    assert_eq!((whole.should(), whole.done, whole.unknown), (1, 1, 0));
    // Evidence about the earlier row is kept and changes no number.
    let ours = stage.row(first).await.attempt.unwrap().transport_message_id;
    let receipt = Change::Receipt {
        user_id: stage.user,
        device_id: stage.device,
        message: MessageRef::Ours(ours),
        delivery: Delivery::Read,
        at: world.at(1),
    };
    world.commit(receipt).await;
    assert_eq!(stage.state(first).await, MessageState::Sent);
    assert_eq!(world.store.device_numbers(&scope, stage.device).await.unwrap(), whole);
}

async fn attempt_at(stage: &Stage, seconds: u64, verdict: Verdict) {
    let id = stage.queued().await;
    let mut item = stage.item(id);
    item.attempted_at = stage.world.at(seconds);
    assert_eq!(stage.try_begin(&item).await, crate::store::Begun::Yes);
    stage.settle(id, item.attempt_id, verdict).await;
}

pub(super) async fn the_history_of_a_lane_holds_what_was_or_may_have_been_sent(world: World) {
    let stage = world.stage().await;
    let idle = world.device(stage.user).await;
    attempt_at(&stage, 1, sent()).await;
    attempt_at(&stage, 2, failed()).await;
    attempt_at(&stage, 3, super::stage::unknown()).await;
    attempt_at(&stage, 4, super::stage::doubt_until(world.at(90))).await;
    attempt_at(&stage, 5, requeue(world.now())).await;
    let read = async |since: u64| {
        let devices = [stage.device, idle];
        let mut lanes = world.store.history(&devices, world.at(since)).await.unwrap();
        lanes.sort_by_key(|lane| lane.device_id);
        lanes
    };
    let lanes = read(0).await;
    assert_eq!(
        lanes.iter().map(|lane| lane.device_id).collect::<Vec<_>>(),
        [stage.device, idle]
    );
    assert_eq!(lanes[0].attempts, [world.at(1), world.at(3), world.at(4)]);
    assert_eq!(
        lanes[0].last_attempt_at,
        Some(world.at(5)),
        "the pause is kept after any attempt"
    );
    assert_eq!((lanes[1].attempts.len(), lanes[1].last_attempt_at), (0, None));
    assert_eq!(read(3).await[0].attempts, [world.at(3), world.at(4)]);
    assert_eq!(
        read(3).await[0].first_attempt_at,
        Some(world.at(1)),
        "its warm-up began then"
    );
    assert_eq!(lanes[1].first_attempt_at, None);
}

pub(super) async fn recent_outcomes_count_failed_and_unknown_and_leave_out_skipped(world: World) {
    let stage = world.stage().await;
    let settle = async |verdict: Verdict, seconds: u64| {
        let id = stage.queued().await;
        let attempt = stage.begin(id).await;
        let settle = crate::store::Settle {
            incarnation: stage.node,
            outcomes: vec![stage.outcome(id, attempt, verdict)],
            now: world.at(seconds),
        };
        world.store.settle(&settle).await.unwrap();
    };
    settle(failed(), 1).await;
    settle(sent(), 2).await;
    settle(super::stage::unknown(), 3).await;
    settle(super::stage::skipped(), 4).await;
    settle(sent(), 5).await;
    stage.queued().await;
    let recent = async |of, since: Timestamp, limit| world.store.recent(of, since, limit).await.unwrap();
    let counted = |settled, bad| RecentOutcomes { settled, bad };
    for of in [RecentOf::Campaign(stage.campaign), RecentOf::Device(stage.device)] {
        assert_eq!(recent(of, world.now(), 50).await, counted(4, 2));
        assert_eq!(recent(of, world.now(), 2).await, counted(2, 1), "the newest");
        assert_eq!(recent(of, world.at(2), 50).await, counted(3, 1));
        assert_eq!(recent(of, world.at(6), 50).await, counted(0, 0));
    }
    let other = world.campaign(stage.user).await;
    assert_eq!(recent(RecentOf::Campaign(other), world.now(), 50).await, counted(0, 0));
}

pub(super) async fn recent_outcomes_that_are_recorded_together_are_counted_one_by_one(world: World) {
    let stage = world.stage().await;
    for _ in 0..230 {
        world.device(stage.user).await;
    }
    let others = world.claim(stage.node).await;
    assert_eq!(others.len(), 230);
    let send = async |count: usize, seconds: u64| {
        let owned = &others[..count];
        let message = |owned: &OwnedDevice| {
            let phone = world.rows.fresh_phone();
            let device = Some(owned.device.id);
            world.rows.campaign_message(stage.user, stage.campaign, device, phone)
        };
        let messages: Vec<_> = owned.iter().map(message).collect();
        world.commit(Change::InsertMessages(messages.clone())).await;
        let item = |(message, owned): (&Message, &OwnedDevice)| {
            let (device, epoch) = (owned.device.id, owned.epoch);
            world.rows.begin_item(stage.user, message.id, device, epoch)
        };
        let items: Vec<_> = messages.iter().zip(owned).map(item).collect();
        let begun = stage.begin_items(items.clone()).await.unwrap();
        assert!(begun.iter().all(|begun| *begun == Begun::Yes));
        let outcome = |(at, item): (usize, &BeginItem)| Outcome {
            device_id: item.device_id,
            epoch: item.epoch,
            ..stage.outcome(
                item.message_id,
                item.attempt_id,
                Verdict::Sent {
                    provider_id: TransportMessageId::new(format!("vendor-{seconds}-{at}")),
                    delivery: None,
                },
            )
        };
        let settle = Settle {
            incarnation: stage.node,
            outcomes: items.iter().enumerate().map(outcome).collect(),
            now: world.at(seconds),
        };
        let settled = world.store.settle(&settle).await.unwrap();
        assert!(settled.iter().all(|one| *one == Settled::Yes(MessageState::Sent)));
        messages
    };
    let first = send(230, 1).await;
    let id = stage.queued().await;
    let attempt = stage.begin(id).await;
    let settle = Settle {
        incarnation: stage.node,
        outcomes: vec![stage.outcome(id, attempt, failed())],
        now: world.at(2),
    };
    world.store.settle(&settle).await.unwrap();
    send(2, 3).await;
    send(1, 4).await;

    let of = RecentOf::Campaign(stage.campaign);
    for (since, limit, settled, bad) in [
        (0, 1_000, 234, 1),
        (0, 3, 3, 0),
        (0, 4, 4, 1),
        (0, 50, 50, 1),
        (0, 150, 150, 1),
        (2, 1_000, 4, 1),
        (3, 1_000, 3, 0),
        (5, 1_000, 0, 0),
    ] {
        let recent = world.store.recent(of, world.at(since), limit).await.unwrap();
        assert_eq!(recent, RecentOutcomes { settled, bad }, "{limit} since {since}");
    }

    // The vendor knows each of them.
    let receipt = Change::Receipt {
        user_id: stage.user,
        device_id: others[123].device.id,
        message: MessageRef::Provider(TransportMessageId::new("vendor-1-123").unwrap()),
        delivery: Delivery::Read,
        at: world.at(9),
    };
    assert_eq!(world.commit(receipt).await.matched, [first[123].id]);
}

pub(super) async fn the_backlog_counts_what_is_open_over_all_users(world: World) {
    let (stage, other) = (world.stage().await, world.stage().await);
    let empty = world.store.backlog().await.unwrap();
    assert_eq!(empty, crate::store::Backlog::default());
    stage.sent().await;
    stage.in_doubt().await;
    stage.sending().await;
    let mut early = other.message_to(world.rows.phone(1));
    early.due_at = world.at(5);
    world.insert(early).await;
    let mut late = other.message_to(world.rows.phone(2));
    late.due_at = world.at(9);
    world.insert(late).await;
    let read = world.store.backlog().await.unwrap();
    assert_eq!((read.queued, read.held, read.sending, read.in_doubt), (2, 0, 1, 1));
    assert_eq!(read.oldest_due_at, Some(world.at(5)));
    other.pause().await;
    world.sweep_at(world.now()).await;
    let read = world.store.backlog().await.unwrap();
    assert_eq!((read.queued, read.held, read.oldest_due_at), (0, 2, None));
}
