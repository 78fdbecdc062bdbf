//! The same life in other centuries: a store never reads a clock, so no date is special.

use super::stage::{doubt_until, requeue};
use super::world::World;
use crate::conformance::fixtures::Fixtures;
use crate::domain::access::RequestScope;
use crate::domain::campaign::CampaignStatus;
use crate::domain::message::MessageState;
use crate::id::EventId;
use crate::store::{Begun, ChangeSet, Settled};
use crate::time::Timestamp;

/// 2000-02-28T23:59:30Z: into a leap day that centuries mostly lack.
const YEAR_2000: Timestamp = Timestamp::from_millis(951_782_370_000);
/// 2100-02-28T23:59:30Z: into a first of March without a leap day, past 32 bits of seconds.
const YEAR_2100: Timestamp = Timestamp::from_millis(4_107_542_370_000);

pub(super) async fn a_campaign_lives_in_the_year_2000_as_it_does_today(world: World) {
    whole_life(world, YEAR_2000).await;
}

pub(super) async fn a_campaign_lives_in_the_year_2100_as_it_does_today(world: World) {
    whole_life(world, YEAR_2100).await;
}

/// Scheduled, due, expanded, paused, resumed, sent, doubted, taken over, completed: all around midnight.
async fn whole_life(world: World, start: Timestamp) {
    let world = World {
        rows: Fixtures::starting_at(7, start).into(),
        ..world
    };
    let user = world.user().await;
    let device = world.device(user).await;
    world.lead(user, Some(device)).await;
    let draft = world.draft(user).await;
    let schedule = super::world::set_status(user, draft.id, &[CampaignStatus::Draft], CampaignStatus::Scheduled);
    world.commit(schedule).await;
    assert_eq!(world.store.next_campaign_at().await.unwrap(), Some(start));
    let early = Timestamp::from_millis(start.as_millis() - 1);
    assert!(world.store.campaigns_due(early, 10).await.unwrap().is_empty());
    assert_eq!(world.store.campaigns_due(start, 10).await.unwrap().len(), 1);

    let stage = world.stage().await;
    let campaign = world.campaign_of(stage.user, stage.campaign).await;
    assert_eq!(campaign.started_at, Some(start));
    let ids = [
        stage.queued().await,
        stage.queued().await,
        stage.queued().await,
        stage.queued().await,
    ];
    let expires_at = stage.row(ids[3]).await.expires_at;
    stage
        .status_at(&[CampaignStatus::Triggered], CampaignStatus::Paused, world.at(20))
        .await;
    world.sweep_at(world.at(20)).await;
    stage
        .status_at(&[CampaignStatus::Paused], CampaignStatus::Triggered, world.at(50))
        .await;
    world.sweep_at(world.at(50)).await;
    let row = stage.row(ids[3]).await;
    assert_eq!(row.expires_at, expires_at + std::time::Duration::from_secs(30));

    let attempt = async |id, seconds| {
        let mut item = stage.item(id);
        item.attempted_at = world.at(seconds);
        assert_eq!(stage.try_begin(&item).await, Begun::Yes);
        item.attempt_id
    };
    let first = attempt(ids[0], 60).await;
    stage.settle(ids[0], first, super::stage::sent()).await;
    let second = attempt(ids[1], 70).await;
    stage.settle(ids[1], second, doubt_until(world.at(160))).await;
    assert!(
        world
            .store
            .doubts(stage.node, world.at(159), 10)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(
        world.store.doubts(stage.node, world.at(160), 10).await.unwrap().len(),
        1
    );
    stage.settle(ids[1], second, super::stage::sent()).await;
    let third = attempt(ids[2], 80).await;
    stage.settle(ids[2], third, requeue(world.at(80))).await;
    assert_eq!(stage.row(ids[2]).await.due_at, world.at(140));
    let history = world.store.history(&[stage.device], start).await.unwrap();
    assert_eq!(history[0].attempts, [world.at(60), world.at(70)]);
    assert_eq!(history[0].last_attempt_at, Some(world.at(80)));

    attempt(ids[3], 90).await;
    stage.take_over().await;
    let doubt = stage.row(ids[3]).await.doubt.unwrap();
    assert_eq!(doubt.next_check_at, world.at(90));
    stage
        .status_at(&[CampaignStatus::Triggered], CampaignStatus::Cancelled, world.at(100))
        .await;
    world.sweep_at(world.at(100)).await;
    let states: [MessageState; 4] = [
        stage.state(ids[0]).await,
        stage.state(ids[1]).await,
        stage.state(ids[2]).await,
        stage.state(ids[3]).await,
    ];
    use MessageState::{Cancelled, Sent, Unknown};
    assert_eq!(states, [Sent, Sent, Cancelled, Unknown]);

    let event = world.rows.event(stage.user, world.at(100));
    world.commit(ChangeSet::default().tell(event.clone())).await;
    let scope = RequestScope::user(stage.user);
    assert_eq!(world.store.events(&scope, EventId::MIN, 10).await.unwrap(), [event]);
    assert_eq!(world.store.prune_events(world.at(100)).await.unwrap(), 0);
    assert_eq!(world.store.prune_events(world.at(101)).await.unwrap(), 1);

    let completing = world.campaign(stage.user).await;
    let done = world.complete(10, world.at(110)).await;
    assert_eq!(done.len(), 1);
    assert_eq!((done[0].id, done[0].ended_at), (completing, Some(world.at(110))));
}

pub(super) async fn time_that_goes_back_breaks_nothing(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let past = Timestamp::from_millis(world.now().as_millis() - 3_600_000);
    let settle = crate::store::Settle {
        incarnation: stage.node,
        outcomes: vec![stage.outcome(id, attempt, super::stage::sent())],
        now: past,
    };
    let settled = world.store.settle(&settle).await.unwrap();
    assert_eq!(settled, [Settled::Yes(MessageState::Sent)]);
    let held = stage.queued().await;
    let expires_at = stage.row(held).await.expires_at;
    stage.pause().await;
    world.sweep_at(world.now()).await;
    stage.resume().await;
    world.sweep_at(past).await;
    assert_eq!(
        stage.row(held).await.expires_at,
        expires_at,
        "time on hold is never negative"
    );
}
