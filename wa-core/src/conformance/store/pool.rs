//! Messages that wait for a device, and how loaded devices are.

use super::stage::{Stage, requeue, sent};
use super::world::World;
use crate::domain::message::MessageState;
use crate::id::{DeviceId, MessageId};
use crate::store::{Assignment, Change, DeviceLoad};

async fn pooled(stage: &Stage, seconds: u64) -> MessageId {
    let rows = &stage.world.rows;
    let mut message = rows.campaign_message(stage.user, stage.campaign, None, rows.fresh_phone());
    message.due_at = stage.world.at(seconds);
    stage.world.insert(message).await
}

fn to(stage: &Stage, message_id: MessageId, device_id: DeviceId) -> Assignment {
    Assignment {
        user_id: stage.user,
        message_id,
        device_id,
    }
}

async fn waiting(stage: &Stage, limit: u32) -> Vec<MessageId> {
    let pool = stage
        .world
        .store
        .pool(stage.node, stage.world.at(60), limit)
        .await
        .unwrap();
    pool.iter().map(|message| message.message_id).collect()
}

pub(super) async fn the_pool_shows_due_messages_without_a_device_oldest_first(world: World) {
    let stage = world.stage().await;
    let (late, early) = (pooled(&stage, 20).await, pooled(&stage, 10).await);
    pooled(&stage, 61).await;
    stage.queued().await;
    assert_eq!(waiting(&stage, 10).await, [early, late]);
    assert_eq!(waiting(&stage, 1).await, [early]);
    let assigned = world
        .store
        .assign(&[to(&stage, early, stage.device)], world.now())
        .await
        .unwrap();
    assert_eq!(assigned, 1);
    assert_eq!(waiting(&stage, 10).await, [late]);
}

pub(super) async fn the_pool_tells_campaign_person_and_the_device_of_the_lead(world: World) {
    let stage = world.stage().await;
    let lead = world.lead(stage.user, Some(stage.device)).await;
    let mut message = world
        .rows
        .campaign_message(stage.user, stage.campaign, None, lead.phone);
    message.lead_id = Some(lead.id);
    let id = world.insert(message.clone()).await;
    let pool = world.store.pool(stage.node, world.now(), 10).await.unwrap();
    assert_eq!(pool.len(), 1);
    assert_eq!((pool[0].message_id, pool[0].user_id), (id, stage.user));
    assert_eq!(
        (pool[0].scope, pool[0].lead_device, pool[0].person),
        (message.scope, Some(stage.device), message.person)
    );
}

pub(super) async fn a_node_sees_the_pool_of_users_whose_devices_it_owns(world: World) {
    let stage = world.stage().await;
    let mine = pooled(&stage, 0).await;
    let other = world.stage().await;
    let theirs = pooled(&other, 0).await;
    assert_eq!(waiting(&stage, 10).await, [mine]);
    assert_eq!(waiting(&other, 10).await, [theirs]);
    let idle = world.node().await;
    assert!(world.store.pool(idle, world.at(60), 10).await.unwrap().is_empty());
}

pub(super) async fn a_campaign_with_a_large_pool_hides_no_other(world: World) {
    let stage = world.stage().await;
    let large = [
        pooled(&stage, 0).await,
        pooled(&stage, 1).await,
        pooled(&stage, 2).await,
    ];
    let campaign = world.campaign(stage.user).await;
    let second = Stage {
        world: world.clone(),
        campaign,
        ..stage
    };
    let small = pooled(&second, 10).await;
    assert_eq!(waiting(&second, 2).await, [large[0], large[1], small]);
}

pub(super) async fn the_pool_of_a_campaign_that_does_not_run_is_not_shown(world: World) {
    let stage = world.stage().await;
    let id = pooled(&stage, 0).await;
    stage.pause().await;
    assert!(waiting(&stage, 10).await.is_empty(), "not even before a sweep");
    stage.resume().await;
    assert_eq!(waiting(&stage, 10).await, [id]);
}

pub(super) async fn an_assigned_message_is_due_on_its_device(world: World) {
    let stage = world.stage().await;
    let id = pooled(&stage, 0).await;
    world
        .store
        .assign(&[to(&stage, id, stage.device)], world.now())
        .await
        .unwrap();
    let row = stage.row(id).await;
    assert_eq!(
        (row.device_id, row.from_pool, row.state),
        (Some(stage.device), true, MessageState::Queued)
    );
    assert_eq!(stage.due_at(world.now()).await[0].id, id);
    stage.begin(id).await;
}

pub(super) async fn only_what_waits_without_a_device_is_assigned(world: World) {
    let stage = world.stage().await;
    let other = world.device(stage.user).await;
    let own = stage.queued().await;
    let pooled_once = pooled(&stage, 0).await;
    let first = [to(&stage, pooled_once, stage.device)];
    assert_eq!(world.store.assign(&first, world.now()).await.unwrap(), 1);
    let cancelled = pooled(&stage, 0).await;
    world
        .commit(crate::store::Change::CancelMessage {
            user_id: stage.user,
            message_id: cancelled,
        })
        .await;
    let items = [
        to(&stage, own, other),
        to(&stage, pooled_once, other),
        to(&stage, cancelled, other),
    ];
    assert_eq!(world.store.assign(&items, world.now()).await.unwrap(), 0);
    assert_eq!(stage.row(own).await.device_id, Some(stage.device));
    assert_eq!(stage.row(pooled_once).await.device_id, Some(stage.device));
    assert_eq!(stage.row(cancelled).await.device_id, None);
}

pub(super) async fn a_message_is_never_assigned_to_another_users_or_a_deleted_device(world: World) {
    let stage = world.stage().await;
    let id = pooled(&stage, 0).await;
    let other = world.user().await;
    let foreign = world.device(other).await;
    let mine = to(&stage, id, foreign);
    let theirs = Assignment { user_id: other, ..mine };
    for item in [mine, theirs] {
        assert_eq!(world.store.assign(&[item], world.now()).await.unwrap(), 0);
    }
    stage.delete_device().await;
    let gone = to(&stage, id, stage.device);
    assert_eq!(world.store.assign(&[gone], world.now()).await.unwrap(), 0);
    assert_eq!(stage.row(id).await.device_id, None);
}

pub(super) async fn queued_pool_messages_go_back_and_no_others(world: World) {
    let stage = world.stage().await;
    let own = stage.queued().await;
    let (back, sending) = (pooled(&stage, 0).await, pooled(&stage, 0).await);
    let items = [to(&stage, back, stage.device), to(&stage, sending, stage.device)];
    assert_eq!(world.store.assign(&items, world.now()).await.unwrap(), 2);
    let attempt = stage.begin(sending).await;
    assert_eq!(world.store.unassign(stage.user, stage.device).await.unwrap(), 1);
    assert_eq!(stage.row(back).await.device_id, None);
    assert_eq!(stage.row(own).await.device_id, Some(stage.device));
    assert_eq!(stage.row(sending).await.device_id, Some(stage.device));
    stage.settle(sending, attempt, requeue(world.now())).await;
    assert_eq!(stage.row(sending).await.state, MessageState::Queued);
    assert_eq!(world.store.unassign(stage.user, stage.device).await.unwrap(), 1);
    let other = world.user().await;
    assert_eq!(world.store.unassign(other, stage.device).await.unwrap(), 0);
}

pub(super) async fn a_message_is_assigned_once_however_many_try(world: World) {
    let stage = world.stage().await;
    let devices = [
        stage.device,
        world.device(stage.user).await,
        world.device(stage.user).await,
    ];
    for _ in 0..5 {
        let id = pooled(&stage, 0).await;
        let items: Vec<_> = devices.iter().map(|device| [to(&stage, id, *device)]).collect();
        let tries = items.iter().map(|item| world.store.assign(item, world.now()));
        let assigned = futures::future::join_all(tries).await;
        let total: u64 = assigned.into_iter().map(Result::unwrap).sum();
        assert_eq!(total, 1);
    }
}

pub(super) async fn loads_tell_what_each_device_did_and_has_to_do(world: World) {
    let stage = world.stage().await;
    let idle = world.device(stage.user).await;
    let gone = world.device(stage.user).await;
    world
        .commit(Change::DeleteDevice {
            user_id: stage.user,
            device_id: gone,
        })
        .await;
    stage.sent().await;
    stage.unknown().await;
    let (failed, attempt) = stage.sending().await;
    stage.settle(failed, attempt, super::stage::failed()).await;
    let pool = pooled(&stage, 0).await;
    world
        .store
        .assign(&[to(&stage, pool, stage.device)], world.now())
        .await
        .unwrap();
    stage.queued().await;
    let (sending, attempt) = stage.sending().await;
    let load = |device_id, sent_this_hour, in_flight, topped_up| DeviceLoad {
        device_id,
        sent_this_hour,
        in_flight,
        topped_up,
    };
    let read = async |seconds| {
        let mut loads = world.store.loads(stage.user, world.at(seconds)).await.unwrap();
        loads.sort_by_key(|load| load.device_id);
        loads
    };
    // Sent, unknown and the one in the air; certainly not sent gives its place back.
    assert_eq!(read(0).await, [load(stage.device, 3, 3, 1), load(idle, 0, 0, 0)]);
    stage.settle(sending, attempt, sent()).await;
    assert_eq!(read(3_599).await, [load(stage.device, 3, 2, 1), load(idle, 0, 0, 0)]);
    assert_eq!(read(3_601).await, [load(stage.device, 0, 2, 1), load(idle, 0, 0, 0)]);
}

pub(super) async fn loads_count_no_backlog_to_its_end(world: World) {
    let stage = world.stage().await;
    let other = world.device(stage.user).await;
    let queue = async |device, count: u32| {
        let messages = (0..count).map(|_| {
            let phone = world.rows.fresh_phone();
            world.rows.direct_message(stage.user, Some(device), phone)
        });
        world.commit(Change::InsertMessages(messages.collect())).await;
    };
    queue(stage.device, DeviceLoad::QUEUED_MAX - 1).await;
    queue(other, 5).await;
    let in_flight = async || {
        let loads = world.store.loads(stage.user, world.now()).await.unwrap();
        let of = |device| loads.iter().find(|load| load.device_id == device).unwrap().in_flight;
        (of(stage.device), of(other))
    };
    assert_eq!(in_flight().await, (DeviceLoad::QUEUED_MAX - 1, 5));
    queue(stage.device, 3).await;
    assert_eq!(
        in_flight().await,
        (DeviceLoad::QUEUED_MAX, 5),
        "who has least to do still has"
    );
}
