//! What waits too long where no lane looks.

use std::time::Duration;

use super::stage::Stage;
use super::world::World;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::message::{Message, MessageState, Reason};
use crate::id::MessageId;
use crate::store::Expired;
use crate::time::Timestamp;

/// A queued message that expires so many seconds after the start.
async fn expiring(stage: &Stage, after: u64) -> MessageId {
    let phone = stage.world.rows.fresh_phone();
    let expires_at = stage.world.at(after);
    let message = Message {
        expires_at,
        ..stage.message_to(phone)
    };
    stage.world.insert(message).await
}

async fn expire(world: &World, limit: u32, now: Timestamp) -> Expired {
    world.store.expire(limit, now).await.unwrap()
}

pub(super) async fn what_has_expired_is_skipped_wherever_it_waits(world: World) {
    let stage = world.stage().await;
    let on_a_lane = expiring(&stage, 10).await;
    let phone = world.rows.fresh_phone();
    let in_a_pool = Message {
        expires_at: world.at(10),
        ..world.rows.campaign_message(stage.user, stage.campaign, None, phone)
    };
    let in_a_pool = world.insert(in_a_pool).await;
    let phone = world.rows.fresh_phone();
    let by_hand = Message {
        expires_at: world.at(10),
        ..world.rows.direct_message(stage.user, Some(stage.device), phone)
    };
    let by_hand = world.insert(by_hand).await;
    stage.hold_device().await;
    let done = expire(&world, 100, world.at(10)).await;
    assert_eq!((done.moved, done.more, done.next_at), (3, false, None));
    for id in [on_a_lane, in_a_pool, by_hand] {
        let row = stage.row(id).await;
        assert_eq!((row.state, row.reason), (MessageState::Skipped, Some(Reason::Expired)));
        assert_eq!(row.settled_at, Some(world.at(10)));
    }
    assert_eq!(expire(&world, 100, world.at(10)).await, Expired::default());
}

pub(super) async fn what_has_not_expired_says_when_it_will(world: World) {
    let stage = world.stage().await;
    assert_eq!(expire(&world, 100, world.at(0)).await, Expired::default());
    let (later, soon) = (expiring(&stage, 20).await, expiring(&stage, 10).await);
    let just_before = world.at(10) - Duration::from_millis(1);
    let none = Expired {
        next_at: Some(world.at(10)),
        ..Expired::default()
    };
    assert_eq!(expire(&world, 100, just_before).await, none);
    assert_eq!(stage.state(soon).await, MessageState::Queued);
    let done = expire(&world, 100, world.at(10)).await;
    assert_eq!((done.moved, done.next_at), (1, Some(world.at(20))));
    assert_eq!(stage.state(later).await, MessageState::Queued);
}

pub(super) async fn an_expiry_moves_at_most_its_limit_the_longest_expired_first(world: World) {
    let stage = world.stage().await;
    let mut ids = Vec::new();
    for after in [50, 10, 40, 20, 30] {
        ids.push(expiring(&stage, after).await);
    }
    for (moved, more, left) in [(2, true, 3), (2, true, 1), (1, false, 0), (0, false, 0)] {
        let done = expire(&world, 2, world.at(60)).await;
        assert_eq!((done.moved, done.more), (moved, more));
        let mut queued = Vec::new();
        for id in &ids {
            queued.extend((stage.state(*id).await == MessageState::Queued).then_some(*id));
        }
        assert_eq!(queued.len(), left);
        if left == 1 {
            assert_eq!(queued, [ids[0]], "the last to expire is the last to go");
        }
    }
}

pub(super) async fn an_expiry_leaves_alone_what_is_held_sent_or_in_doubt(world: World) {
    let stage = world.stage().await;
    let never = world.now() + Campaign::EXPIRES_AFTER * 2;
    let (in_doubt, _) = stage.in_doubt().await;
    let (sent, _) = stage.sent().await;
    let (sending, _) = stage.sending().await;
    let held = expiring(&stage, 10).await;
    stage.pause().await;
    world.sweep_at(world.at(4)).await;
    assert_eq!(expire(&world, 100, never).await, Expired::default());
    for (id, state) in [
        (in_doubt, MessageState::InDoubt),
        (sent, MessageState::Sent),
        (sending, MessageState::Sending),
        (held, MessageState::Held),
    ] {
        assert_eq!(stage.state(id).await, state);
    }
    stage.resume().await;
    world.sweep_at(world.at(104)).await;
    assert_eq!(
        expire(&world, 100, world.at(109)).await.moved,
        0,
        "time on hold does not count"
    );
    assert_eq!(expire(&world, 100, world.at(110)).await.moved, 1);
}

pub(super) async fn what_expires_in_a_paused_or_ended_campaign_goes_where_its_campaign_asks(world: World) {
    let stage = world.stage().await;
    let id = expiring(&stage, 10).await;
    stage.pause().await;
    assert_eq!(expire(&world, 100, world.at(20)).await.moved, 1);
    let row = stage.row(id).await;
    assert_eq!((row.state, row.held_at), (MessageState::Held, Some(world.at(20))));
    let stage = world.stage().await;
    let id = expiring(&stage, 10).await;
    stage.cancel().await;
    assert_eq!(expire(&world, 100, world.at(20)).await.moved, 1);
    let row = stage.row(id).await;
    assert_eq!(
        (row.state, row.reason),
        (MessageState::Cancelled, Some(Reason::ScopeEnded))
    );
}

pub(super) async fn a_campaign_whose_messages_have_expired_completes(world: World) {
    let stage = world.stage().await;
    expiring(&stage, 10).await;
    assert!(world.complete(10, world.at(10)).await.is_empty());
    expire(&world, 100, world.at(10)).await;
    let done = world.complete(10, world.at(10)).await;
    assert_eq!(done[0].status, CampaignStatus::Completed);
}
