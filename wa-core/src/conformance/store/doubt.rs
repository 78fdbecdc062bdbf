//! Messages in doubt: when they are looked at, and by whom.

use super::stage::{doubt_until, sent};
use super::world::World;
use crate::domain::message::{MessageState, Reason};
use crate::store::{Settled, Verdict};
use crate::transport::MaybeSentCause;

pub(super) async fn a_message_in_doubt_is_looked_at_when_its_time_has_come(world: World) {
    let stage = world.stage().await;
    let mut doubtful = Vec::new();
    for seconds in [30, 10, 20] {
        let (id, attempt) = stage.sending().await;
        stage.settle(id, attempt, doubt_until(world.at(seconds))).await;
        doubtful.push(id);
    }
    stage.unknown().await;
    stage.queued().await;
    let look = |seconds, limit| {
        let world = world.clone();
        let node = stage.node;
        async move {
            let doubts = world.store.doubts(node, world.at(seconds), limit).await.unwrap();
            doubts.iter().map(|message| message.id).collect::<Vec<_>>()
        }
    };
    assert!(look(9, 10).await.is_empty());
    assert_eq!(look(10, 10).await, [doubtful[1]]);
    assert_eq!(look(30, 10).await, [doubtful[1], doubtful[2], doubtful[0]]);
    assert_eq!(look(30, 2).await, [doubtful[1], doubtful[2]]);
    let rows = world.store.doubts(stage.node, world.at(10), 1).await.unwrap();
    assert_eq!(rows[0], stage.row(doubtful[1]).await);
}

pub(super) async fn a_node_looks_at_the_doubts_of_its_own_devices_alone(world: World) {
    let stage = world.stage().await;
    let (id, _) = stage.in_doubt().await;
    let other = world.node().await;
    assert!(world.store.doubts(other, world.at(60), 10).await.unwrap().is_empty());
    let next = stage.hand_over().await;
    assert!(
        world
            .store
            .doubts(stage.node, world.at(60), 10)
            .await
            .unwrap()
            .is_empty()
    );
    let theirs = world.store.doubts(next.node, world.at(60), 10).await.unwrap();
    assert_eq!(theirs.iter().map(|message| message.id).collect::<Vec<_>>(), [id]);
}

pub(super) async fn a_look_that_found_nothing_is_counted_and_the_doubt_keeps_its_beginning(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.in_doubt().await;
    for count in 1..=2 {
        let verdict = Verdict::InDoubt {
            cause: MaybeSentCause::ConnectionLost,
            next_check_at: world.at(60 * u64::from(count)),
            not_found_count: count,
        };
        assert_eq!(
            stage.settle(id, attempt, verdict).await,
            Settled::Yes(MessageState::InDoubt)
        );
        let doubt = stage.row(id).await.doubt.unwrap();
        assert_eq!(doubt.not_found_count, count);
        assert_eq!(doubt.next_check_at, world.at(60 * u64::from(count)));
        assert_eq!(doubt.since_at, world.now());
    }
}

pub(super) async fn a_message_in_doubt_is_queued_again_only_because_its_gateway_never_had_it(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.in_doubt().await;
    let before = stage.row(id).await;
    for reason in [Reason::NeverHandedOver, Reason::DeviceOffline, Reason::RateLimited] {
        let verdict = Verdict::Requeue {
            reason,
            due_at: world.at(9),
            counts: true,
        };
        assert_eq!(
            stage.settle(id, attempt, verdict).await,
            Settled::NotSending,
            "{reason:?}"
        );
        assert_eq!(stage.row(id).await, before, "{reason:?}");
    }
    let settled = stage.settle(id, attempt, super::stage::not_found(world.at(9))).await;
    assert_eq!(settled, Settled::Yes(MessageState::Queued));
}

pub(super) async fn a_doubt_of_an_ended_campaign_becomes_unknown(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.in_doubt().await;
    stage.cancel().await;
    world.sweep_at(world.at(5)).await;
    let row = stage.row(id).await;
    assert_eq!(
        (row.state, row.reason),
        (MessageState::Unknown, Some(Reason::EndedInDoubt))
    );
    assert_eq!((row.doubt, row.settled_at), (None, Some(world.at(5))));
    assert_eq!(
        stage.settle(id, attempt, sent()).await,
        Settled::Yes(MessageState::Sent),
        "evidence still settles it"
    );
}

pub(super) async fn a_doubt_of_a_paused_campaign_stays_one(world: World) {
    let stage = world.stage().await;
    let (id, _) = stage.in_doubt().await;
    stage.pause().await;
    world.sweep_at(world.now()).await;
    assert_eq!(stage.state(id).await, MessageState::InDoubt);
    let waits = world.store.doubts(stage.node, world.at(60), 10).await.unwrap();
    assert!(waits.is_empty(), "it is not looked at before the campaign goes on");
    stage.resume().await;
    world.sweep_at(world.now()).await;
    assert_eq!(stage.state(id).await, MessageState::InDoubt);
    let doubts = world.store.doubts(stage.node, world.at(60), 10).await.unwrap();
    assert_eq!(doubts.len(), 1);
}

pub(super) async fn a_doubt_about_a_person_who_opted_out_becomes_unknown(world: World) {
    let stage = world.stage().await;
    let (id, _) = stage.in_doubt().await;
    stage.opt_out(id).await;
    let row = stage.row(id).await;
    assert_eq!(
        (row.state, row.reason),
        (MessageState::Unknown, Some(Reason::EndedInDoubt))
    );
}
