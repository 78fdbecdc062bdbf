//! Durable events, and requests to devices.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;

use super::world::World;
use crate::domain::access::RequestScope;
use crate::domain::command::DeviceAnswer;
use crate::domain::device::Epoch;
use crate::id::EventId;
use crate::store::{Change, ChangeSet, Fence, StoreErrorKind};

pub(super) async fn events_are_read_after_one_in_order_and_up_to_a_limit(world: World) {
    let user = world.user().await;
    let events: Vec<_> = (0..5).map(|n| world.rows.event(user, world.at(n))).collect();
    for event in &events {
        world.commit(ChangeSet::default().tell(event.clone())).await;
    }
    let scope = RequestScope::user(user);
    let read = |after, limit| world.store.events(&scope, after, limit);
    assert_eq!(read(EventId::MIN, 10).await.unwrap(), events);
    assert_eq!(read(EventId::MIN, 2).await.unwrap(), events[..2]);
    assert_eq!(read(events[1].id, 2).await.unwrap(), events[2..4]);
    assert!(read(events[4].id, 10).await.unwrap().is_empty());
}

pub(super) async fn who_reads_on_misses_no_event_that_is_committed_later_whatever_its_id(world: World) {
    let user = world.user().await;
    let mut events: Vec<_> = (0..3).map(|n| world.rows.event(user, world.at(n))).collect();
    // The node that made the first id commits last.
    events.rotate_left(1);
    let scope = RequestScope::user(user);
    let mut last = EventId::MIN;
    for event in &events {
        world.commit(ChangeSet::default().tell(event.clone())).await;
        let read = world.store.events(&scope, last, 10).await.unwrap();
        assert_eq!(read, std::slice::from_ref(event));
        last = event.id;
    }
    assert_eq!(world.store.events(&scope, EventId::MIN, 10).await.unwrap(), events);
    world.store.prune_events(world.at(2)).await.unwrap();
    let kept = world.store.events(&scope, events[2].id, 10).await.unwrap();
    assert_eq!(
        kept,
        [events[1].clone()],
        "who read last what is gone reads all that is kept"
    );
}

pub(super) async fn who_reads_on_while_many_commit_at_once_misses_nothing(world: World) {
    let user = world.user().await;
    let events: Vec<_> = (0..60).map(|n| world.rows.event(user, world.at(n % 7))).collect();
    let scope = RequestScope::user(user);
    let commits = events.chunks(10).map(async |mine| {
        // Later ids first.
        for event in mine.iter().rev() {
            world.commit(ChangeSet::default().tell(event.clone())).await;
        }
    });
    let done = AtomicBool::new(false);
    let committing = async {
        join_all(commits).await;
        done.store(true, Ordering::SeqCst);
    };
    let mut read = Vec::new();
    let reading = async {
        let mut last = EventId::MIN;
        while read.len() <= events.len() {
            let was_done = done.load(Ordering::SeqCst);
            let page = world.store.events(&scope, last, 7).await.unwrap();
            if page.is_empty() && was_done {
                break;
            }
            last = page.last().map_or(last, |event| event.id);
            read.extend(page);
            // A store that answers at once would let nobody commit.
            tokio::task::yield_now().await;
        }
    };
    futures::join!(reading, committing);
    read.sort_by_key(|event| event.id);
    assert_eq!(read, events);
}

pub(super) async fn the_newest_event_is_the_one_that_was_committed_last(world: World) {
    let (user, other) = (world.user().await, world.user().await);
    let scope = RequestScope::user(user);
    assert_eq!(world.store.newest_event(&scope).await.unwrap(), None);
    let mut events: Vec<_> = (0..3).map(|n| world.rows.event(user, world.at(n))).collect();
    // The node that made the highest id commits first.
    events.reverse();
    for event in &events {
        world.commit(ChangeSet::default().tell(event.clone())).await;
        assert_eq!(world.store.newest_event(&scope).await.unwrap(), Some(event.id));
    }
    let of_other = world.rows.event(other, world.at(5));
    world.commit(ChangeSet::default().tell(of_other)).await;
    assert_eq!(
        world.store.newest_event(&scope).await.unwrap(),
        Some(events[2].id),
        "not that of another user"
    );
}

pub(super) async fn events_are_committed_with_what_they_tell_of_or_not_at_all(world: World) {
    let user = world.user().await;
    let lead = world.lead(user, None).await;
    let set = ChangeSet::one(super::world::insert_lead(&lead)).tell(world.rows.event(user, world.now()));
    world.refused(set, StoreErrorKind::Conflict).await;
    let read = world
        .store
        .events(&RequestScope::user(user), EventId::MIN, 10)
        .await
        .unwrap();
    assert!(read.is_empty());
}

pub(super) async fn old_events_are_removed_and_younger_ones_stay(world: World) {
    let user = world.user().await;
    let events: Vec<_> = (0..4).map(|n| world.rows.event(user, world.at(n * 10))).collect();
    let mut set = ChangeSet::default();
    for event in &events {
        set = set.tell(event.clone());
    }
    world.commit(set).await;
    assert_eq!(world.store.prune_events(world.at(20)).await.unwrap(), 2);
    let read = world
        .store
        .events(&RequestScope::user(user), EventId::MIN, 10)
        .await
        .unwrap();
    assert_eq!(read, events[2..]);
}

pub(super) async fn a_node_sees_the_waiting_requests_to_its_devices_oldest_first(world: World) {
    let stage = world.stage().await;
    let elsewhere = world.device(stage.user).await;
    let (first, second) = (
        world.rows.command(stage.user, stage.device),
        world.rows.command(stage.user, stage.device),
    );
    let foreign = world.rows.command(stage.user, elsewhere);
    for command in [&first, &foreign, &second] {
        world.commit(Change::InsertCommand(Box::new(command.clone()))).await;
    }
    let waiting = |limit| world.store.commands(stage.node, world.at(1), limit);
    assert_eq!(waiting(10).await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(waiting(1).await.unwrap(), [first]);
    let later = world.store.commands(stage.node, world.at(61), 10).await.unwrap();
    assert!(later.is_empty(), "nobody waits for an answer any more");
}

pub(super) async fn a_request_is_answered_once_and_by_the_owner_alone(world: World) {
    let stage = world.stage().await;
    let command = world.rows.command(stage.user, stage.device);
    world.commit(Change::InsertCommand(Box::new(command.clone()))).await;
    let answer = |epoch, message: &str| Change::AnswerCommand {
        command_id: command.id,
        fence: Fence {
            incarnation: stage.node,
            epoch,
        },
        answer: DeviceAnswer::Refused {
            message: message.to_owned(),
        },
    };
    world
        .refused(answer(Epoch(stage.epoch.0 - 1), "stale"), StoreErrorKind::Conflict)
        .await;
    world.commit(answer(stage.epoch, "first")).await;
    world.commit(answer(stage.epoch, "second")).await;
    let read = world
        .store
        .command(&RequestScope::user(stage.user), command.id)
        .await
        .unwrap();
    let first = DeviceAnswer::Refused {
        message: "first".to_owned(),
    };
    assert_eq!(read.answer, first);
    let waiting = world.store.commands(stage.node, world.now(), 10).await.unwrap();
    assert!(waiting.is_empty(), "it is answered");
}

pub(super) async fn expired_requests_are_removed(world: World) {
    let stage = world.stage().await;
    let old = world.rows.command(stage.user, stage.device);
    let mut young = world.rows.command(stage.user, stage.device);
    young.expires_at = world.at(600);
    for command in [&old, &young] {
        world.commit(Change::InsertCommand(Box::new(command.clone()))).await;
    }
    assert_eq!(world.store.prune_commands(world.at(61)).await.unwrap(), 1);
    let scope = RequestScope::user(stage.user);
    super::world::assert_kind(world.store.command(&scope, old.id).await, StoreErrorKind::NotFound);
    assert_eq!(world.store.command(&scope, young.id).await.unwrap(), young);
}

pub(super) async fn an_event_that_is_known_stays_as_it_is(world: World) {
    let user = world.user().await;
    let event = world.rows.event(user, world.now());
    world.commit(ChangeSet::default().tell(event.clone())).await;
    let mut again = world.rows.event(user, world.at(9));
    again.id = event.id;
    world.commit(ChangeSet::default().tell(again)).await;
    let read = world
        .store
        .events(&RequestScope::user(user), EventId::MIN, 10)
        .await
        .unwrap();
    assert_eq!(read, [event]);
}

pub(super) async fn a_request_wakes_the_owner_of_its_device(world: World) {
    let stage = world.stage().await;
    let command = world.rows.command(stage.user, stage.device);
    let done = world.commit(Change::InsertCommand(Box::new(command))).await;
    assert_eq!(done.wake, [stage.device]);
}
