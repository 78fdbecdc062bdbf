//! What follows a row flip in pages.

use super::stage::sent;
use super::world::World;
use crate::domain::campaign::CampaignStatus;
use crate::domain::message::{MessageState, Reason};
use crate::store::Change;
use std::time::Duration;

pub(super) async fn without_a_change_there_is_nothing_to_sweep(world: World) {
    let stage = world.stage().await;
    stage.queued().await;
    let swept = world.store.sweep(10, world.now()).await.unwrap();
    assert_eq!((swept.moved, swept.more), (0, false));
}

pub(super) async fn a_pause_holds_queued_messages_and_a_resume_releases_them(world: World) {
    let stage = world.stage().await;
    let (one, two) = (stage.queued().await, stage.queued().await);
    let direct = stage.direct().await;
    let due = stage.row(one).await.due_at;
    stage.pause().await;
    assert_eq!(world.sweep_at(world.at(1)).await, 2);
    for id in [one, two] {
        let row = stage.row(id).await;
        assert_eq!((row.state, row.held_at), (MessageState::Held, Some(world.at(1))));
    }
    assert_eq!(stage.state(direct).await, MessageState::Queued, "another scope goes on");
    stage.resume().await;
    let swept = world.store.sweep(10, world.at(2)).await.unwrap();
    assert_eq!(
        (swept.moved, swept.wake),
        (2, vec![stage.device]),
        "its lane has something to do"
    );
    for id in [one, two] {
        let row = stage.row(id).await;
        assert_eq!((row.state, row.held_at, row.due_at), (MessageState::Queued, None, due));
    }
}

pub(super) async fn time_on_hold_does_not_count_towards_expiry(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let expires_at = stage.row(id).await.expires_at;
    for (pause, resume) in [(10, 40), (100, 105)] {
        stage.pause().await;
        world.sweep_at(world.at(pause)).await;
        stage.resume().await;
        world.sweep_at(world.at(resume)).await;
    }
    assert_eq!(stage.row(id).await.expires_at, expires_at + Duration::from_secs(30 + 5));
}

pub(super) async fn ending_a_campaign_cancels_what_is_queued_and_held(world: World) {
    for (to, paused_before) in [
        (CampaignStatus::Cancelled, true),
        (CampaignStatus::Cancelled, false),
        (CampaignStatus::Failed, false),
    ] {
        let stage = world.stage().await;
        let (sent, _) = stage.sent().await;
        let held = stage.queued().await;
        if paused_before {
            stage.pause().await;
            world.sweep_at(world.now()).await;
            assert_eq!(stage.state(held).await, MessageState::Held);
        }
        let (other, _) = (stage.queued().await, ());
        let from = &[CampaignStatus::Paused, CampaignStatus::Triggered];
        stage.status(from, to).await;
        world.sweep_at(world.at(3)).await;
        for id in [held, other] {
            let row = stage.row(id).await;
            assert_eq!(
                (row.state, row.reason),
                (MessageState::Cancelled, Some(Reason::ScopeEnded))
            );
            assert_eq!((row.settled_at, row.held_at), (Some(world.at(3)), None));
        }
        assert_eq!(stage.state(sent).await, MessageState::Sent);
    }
}

pub(super) async fn what_is_being_sent_is_left_to_its_outcome(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    stage.cancel().await;
    world.sweep_at(world.now()).await;
    assert_eq!(stage.state(id).await, MessageState::Sending);
    stage.settle(id, attempt, sent()).await;
    assert_eq!(stage.state(id).await, MessageState::Sent);
}

pub(super) async fn a_sweep_moves_at_most_its_limit_and_says_whether_there_is_more(world: World) {
    let stage = world.stage().await;
    for _ in 0..7 {
        stage.queued().await;
    }
    stage.pause().await;
    for (moved, more) in [(3, true), (3, true), (1, false), (0, false)] {
        let swept = world.store.sweep(3, world.now()).await.unwrap();
        assert_eq!((swept.moved, swept.more), (moved, more));
    }
}

pub(super) async fn a_pause_taken_back_halfway_releases_what_was_held(world: World) {
    let stage = world.stage().await;
    let ids = [
        stage.queued().await,
        stage.queued().await,
        stage.queued().await,
        stage.queued().await,
    ];
    stage.pause().await;
    world.store.sweep(2, world.now()).await.unwrap();
    stage.resume().await;
    world.sweep_at(world.now()).await;
    for id in ids {
        assert_eq!(stage.state(id).await, MessageState::Queued);
    }
    stage.pause().await;
    world.sweep_at(world.now()).await;
    for id in ids {
        assert_eq!(stage.state(id).await, MessageState::Held);
    }
}

pub(super) async fn released_messages_to_suppressed_persons_are_skipped(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    stage.pause().await;
    world.sweep_at(world.now()).await;
    stage.opt_out(id).await;
    let row = stage.row(id).await;
    assert_eq!(
        (row.state, row.reason, row.held_at),
        (MessageState::Skipped, Some(Reason::Suppressed), None)
    );
    stage.resume().await;
    assert_eq!(world.sweep_at(world.now()).await, 0);
}

pub(super) async fn messages_of_a_deleted_device_are_skipped(world: World) {
    let stage = world.stage().await;
    let (queued, direct) = (stage.queued().await, stage.direct().await);
    let (sending, attempt) = {
        let id = stage.queued().await;
        (id, stage.begin(id).await)
    };
    stage.delete_device().await;
    world.sweep_at(world.at(4)).await;
    for id in [queued, direct] {
        let row = stage.row(id).await;
        assert_eq!(
            (row.state, row.reason),
            (MessageState::Skipped, Some(Reason::DeviceGone))
        );
        assert_eq!(row.settled_at, Some(world.at(4)));
    }
    assert_eq!(stage.state(sending).await, MessageState::Sending);
    assert_eq!(
        stage.settle(sending, attempt, sent()).await,
        crate::store::Settled::Yes(MessageState::Sent)
    );
}

pub(super) async fn held_messages_of_a_deleted_device_are_skipped_too(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    stage.pause().await;
    world.sweep_at(world.now()).await;
    stage.delete_device().await;
    world.sweep_at(world.now()).await;
    let row = stage.row(id).await;
    assert_eq!(
        (row.state, row.reason),
        (MessageState::Skipped, Some(Reason::DeviceGone))
    );
}

pub(super) async fn pool_messages_of_a_deleted_device_go_back_to_the_pool(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.fresh_phone();
    let id = world
        .insert(world.rows.campaign_message(stage.user, stage.campaign, None, phone))
        .await;
    let assignment = crate::store::Assignment {
        user_id: stage.user,
        message_id: id,
        device_id: stage.device,
    };
    world.store.assign(&[assignment], world.now()).await.unwrap();
    stage.delete_device().await;
    world.sweep_at(world.now()).await;
    let row = stage.row(id).await;
    assert_eq!(
        (row.state, row.device_id, row.from_pool),
        (MessageState::Queued, None, true)
    );
}

pub(super) async fn messages_of_a_campaign_that_fails_before_it_starts_are_cancelled(world: World) {
    let stage = world.stage().await;
    let campaign = world.draft(stage.user).await.id;
    let phone = world.rows.fresh_phone();
    let id = world
        .insert(
            world
                .rows
                .campaign_message(stage.user, campaign, Some(stage.device), phone),
        )
        .await;
    assert_eq!(stage.state(id).await, MessageState::Held);
    for to in [CampaignStatus::Scheduled, CampaignStatus::Triggered] {
        let change = super::world::set_status(stage.user, campaign, &CampaignStatus::ALL, to);
        world.commit(change).await;
    }
    world.sweep_at(world.now()).await;
    assert_eq!(
        stage.state(id).await,
        MessageState::Queued,
        "what waited for the start is released by it"
    );
}

pub(super) async fn any_number_of_nodes_may_sweep_at_once(world: World) {
    let stage = world.stage().await;
    for _ in 0..20 {
        stage.queued().await;
    }
    stage.pause().await;
    let sweeps = futures::future::join_all((0..8).map(|_| world.store.sweep(3, world.now()))).await;
    let moved: u64 = sweeps.into_iter().map(|swept| swept.unwrap().moved).sum();
    assert_eq!(
        moved + world.sweep_at(world.now()).await,
        20,
        "each message was moved once"
    );
    let user_id = stage.user;
    world
        .commit(Change::SetCampaignStatus {
            user_id,
            campaign_id: stage.campaign,
            from: &[CampaignStatus::Paused],
            to: CampaignStatus::Cancelled,
            reason: None,
        })
        .await;
    assert_eq!(world.sweep_at(world.now()).await, 20);
}

pub(super) async fn doubts_of_a_deleted_device_stay_with_its_owner_until_it_has_none(world: World) {
    let stage = world.stage().await;
    let (id, _) = stage.in_doubt().await;
    stage.delete_device().await;
    world.sweep_at(world.now()).await;
    assert_eq!(
        stage.state(id).await,
        MessageState::InDoubt,
        "its owner can still ask the gateway"
    );
    let devices = [(stage.device, stage.epoch)];
    world.store.release(stage.node, &devices, world.now()).await.unwrap();
    world.sweep_at(world.now()).await;
    let row = stage.row(id).await;
    assert_eq!(
        (row.state, row.reason),
        (MessageState::Unknown, Some(Reason::CannotTell))
    );
}

pub(super) async fn a_status_changed_by_an_edit_is_swept_too(world: World) {
    let stage = world.stage().await;
    let id = stage.queued().await;
    let mut campaign = world.campaign_of(stage.user, stage.campaign).await;
    campaign.status = CampaignStatus::Paused;
    world.commit(Change::UpdateCampaign(Box::new(campaign))).await;
    assert_eq!(world.sweep_at(world.now()).await, 1);
    assert_eq!(stage.state(id).await, MessageState::Held);
}
