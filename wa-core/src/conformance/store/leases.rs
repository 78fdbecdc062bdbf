//! Nodes, leases and epochs: who may write as the owner of a device.

use std::collections::BTreeMap;

use futures::future::join_all;

use super::stage::Stage;
use super::world::{World, assert_kind};
use crate::domain::device::Epoch;
use crate::domain::message::MessageState;
use crate::id::{DeviceId, Incarnation};
use crate::seed::Seed;
use crate::store::{NodeRecord, Settled, StoreErrorKind};

async fn node_of(world: &World, incarnation: Incarnation) -> Option<NodeRecord> {
    let nodes = world.store.nodes().await.unwrap();
    nodes.into_iter().find(|node| node.incarnation == incarnation)
}

pub(super) async fn the_first_seed_stays(world: World) {
    let (first, second) = (Seed::from_number(1), Seed::from_number(2));
    assert!(world.store.seed(&first).await.unwrap() == first);
    assert!(world.store.seed(&second).await.unwrap() == first);
}

pub(super) async fn nodes_that_start_at_once_get_one_seed(world: World) {
    let candidates: Vec<Seed> = (1..=5).map(Seed::from_number).collect();
    let seeds = join_all(candidates.iter().map(|seed| world.store.seed(seed))).await;
    let seeds: Vec<Seed> = seeds.into_iter().map(Result::unwrap).collect();
    assert!(seeds.iter().all(|seed| *seed == seeds[0]) && candidates.contains(&seeds[0]));
}

pub(super) async fn a_node_joins_once_beats_and_is_listed(world: World) {
    let incarnation = world.rows.incarnation();
    world.store.join(incarnation, "node-'ä'", world.now()).await.unwrap();
    assert_kind(
        world.store.join(incarnation, "twin", world.now()).await,
        StoreErrorKind::Conflict,
    );
    let joined = node_of(&world, incarnation).await.unwrap();
    assert_eq!(
        (joined.name.as_str(), joined.fenced, joined.planner),
        ("node-'ä'", false, false)
    );
    assert_eq!(joined.device_count, 0);
    world.store.beat(incarnation, world.at(5)).await.unwrap();
    let beaten = node_of(&world, incarnation).await.unwrap();
    assert!(beaten.beat > joined.beat, "a beat grows");
    assert_eq!(beaten.beat_at, world.at(5));
    world.store.beat(incarnation, world.at(5)).await.unwrap();
    let again = node_of(&world, incarnation).await.unwrap();
    assert!(again.beat > beaten.beat, "also when the wall clock stands still");
}

pub(super) async fn a_node_that_is_not_there_cannot_beat(world: World) {
    let stranger = world.rows.incarnation();
    assert_kind(world.store.beat(stranger, world.now()).await, StoreErrorKind::NotFound);
    let node = world.node().await;
    world.store.leave(node, world.now()).await.unwrap();
    assert_kind(world.store.beat(node, world.now()).await, StoreErrorKind::NotFound);
    assert_eq!(node_of(&world, node).await, None);
}

pub(super) async fn a_node_claims_free_devices_up_to_its_limit_and_their_epochs_grow(world: World) {
    let user = world.user().await;
    let devices = [
        world.device(user).await,
        world.device(user).await,
        world.device(user).await,
    ];
    let before: BTreeMap<DeviceId, Epoch> = epochs(&world, &devices).await;
    let node = world.node().await;
    let first = world.store.claim(node, 2, world.now()).await.unwrap();
    assert_eq!(first.len(), 2);
    let rest = world.store.claim(node, 10, world.now()).await.unwrap();
    assert_eq!(rest.len(), 1);
    assert!(world.store.claim(node, 10, world.now()).await.unwrap().is_empty());
    for owned in first.iter().chain(&rest) {
        assert_eq!(owned.owner, Some(node));
        assert!(owned.epoch > before[&owned.device.id]);
    }
    let mut owned = world.store.devices_of(node).await.unwrap();
    owned.sort_by_key(|owned| owned.device.id);
    assert_eq!(owned.iter().map(|owned| owned.device.id).collect::<Vec<_>>(), devices);
    assert_eq!(node_of(&world, node).await.unwrap().device_count, 3);
}

pub(super) async fn devices_that_nobody_owns_and_nobody_deleted_are_counted(world: World) {
    let user = world.user().await;
    assert_eq!(world.store.unowned().await.unwrap(), 0);
    let devices = [
        world.device(user).await,
        world.device(user).await,
        world.device(user).await,
    ];
    assert_eq!(world.store.unowned().await.unwrap(), 3);
    let deleted = crate::store::Change::DeleteDevice {
        user_id: user,
        device_id: devices[0],
    };
    world.commit(deleted).await;
    assert_eq!(world.store.unowned().await.unwrap(), 2);
    let node = world.node().await;
    let claimed = world.store.claim(node, 1, world.now()).await.unwrap();
    assert_eq!(world.store.unowned().await.unwrap(), 1);
    let back = [(claimed[0].device.id, claimed[0].epoch)];
    world.store.release(node, &back, world.now()).await.unwrap();
    assert_eq!(world.store.unowned().await.unwrap(), 2);
}

async fn epochs(world: &World, devices: &[DeviceId]) -> BTreeMap<DeviceId, Epoch> {
    let owned = world.store.owned(devices).await.unwrap();
    owned.into_iter().map(|owned| (owned.device.id, owned.epoch)).collect()
}

pub(super) async fn a_deleted_device_is_not_claimed_and_stays_with_its_owner(world: World) {
    let stage = world.stage().await;
    stage.delete_device().await;
    let owned = world.store.devices_of(stage.node).await.unwrap();
    assert_eq!(owned.len(), 1, "its owner still has to wind it up");
    let user = world.user().await;
    let device = world.device(user).await;
    world
        .commit(crate::store::Change::DeleteDevice {
            user_id: user,
            device_id: device,
        })
        .await;
    assert!(world.claim(stage.node).await.is_empty());
}

pub(super) async fn claimers_at_once_share_devices_without_owning_one_twice(world: World) {
    let user = world.user().await;
    for _ in 0..20 {
        world.device(user).await;
    }
    let mut nodes = Vec::new();
    for _ in 0..5 {
        nodes.push(world.node().await);
    }
    for round in 0..4 {
        let claims = join_all(nodes.iter().map(|node| world.store.claim(*node, 7, world.now()))).await;
        let mut owners: BTreeMap<DeviceId, Incarnation> = BTreeMap::new();
        let mut held: BTreeMap<Incarnation, Vec<(DeviceId, Epoch)>> = BTreeMap::new();
        for (node, claim) in nodes.iter().zip(claims) {
            for owned in claim.unwrap() {
                let twice = owners.insert(owned.device.id, *node);
                assert_eq!(twice, None, "round {round}: {} has two owners", owned.device.id);
                held.entry(*node).or_default().push((owned.device.id, owned.epoch));
            }
        }
        assert_eq!(owners.len(), 20, "round {round}: all are taken");
        for (node, devices) in held {
            let mut back = world.store.release(node, &devices, world.now()).await.unwrap();
            back.sort_unstable();
            let mut expected: Vec<_> = devices.iter().map(|(device, _)| *device).collect();
            expected.sort_unstable();
            assert_eq!(back, expected);
        }
    }
}

pub(super) async fn an_epoch_grows_with_every_change_of_owner(world: World) {
    let mut stage = world.stage().await;
    for _ in 0..3 {
        let next = stage.hand_over().await;
        assert!(next.epoch > stage.epoch);
        stage = next;
    }
    stage.take_over().await;
    let fenced = epochs(&world, &[stage.device]).await[&stage.device];
    assert!(fenced > stage.epoch, "fencing alone makes the old epoch old");
}

pub(super) async fn a_device_is_given_back_at_its_epoch_and_by_its_owner_alone(world: World) {
    let stage = world.stage().await;
    let stranger = world.node().await;
    let at = |epoch| [(stage.device, Epoch(epoch))];
    let release = |node, devices: [(DeviceId, Epoch); 1]| {
        let world = world.clone();
        async move { world.store.release(node, &devices, world.now()).await.unwrap() }
    };
    assert!(release(stage.node, at(stage.epoch.0 - 1)).await.is_empty());
    assert!(release(stage.node, at(stage.epoch.0 + 1)).await.is_empty());
    assert!(release(stranger, at(stage.epoch.0)).await.is_empty());
    assert_eq!(world.store.devices_of(stage.node).await.unwrap().len(), 1);
    assert_eq!(release(stage.node, at(stage.epoch.0)).await, [stage.device]);
    assert_eq!(world.store.owned(&[stage.device]).await.unwrap()[0].owner, None);
    assert!(release(stage.node, at(stage.epoch.0)).await.is_empty());
}

pub(super) async fn a_device_that_sends_is_not_given_back(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    let devices = [(stage.device, stage.epoch)];
    let back = world.store.release(stage.node, &devices, world.now()).await.unwrap();
    assert!(back.is_empty());
    stage.settle(id, attempt, super::stage::sent()).await;
    let back = world.store.release(stage.node, &devices, world.now()).await.unwrap();
    assert_eq!(back, [stage.device]);
}

pub(super) async fn a_takeover_frees_devices_and_puts_what_was_being_sent_in_doubt(world: World) {
    let stage = world.stage().await;
    world.store.plan_lease(stage.node, world.now()).await.unwrap();
    let queued = stage.queued().await;
    let mut item = stage.item(stage.queued().await);
    item.attempted_at = world.at(3);
    assert_eq!(stage.try_begin(&item).await, crate::store::Begun::Yes);

    let by = world.node().await;
    let seen = node_of(&world, stage.node).await.unwrap().beat;
    let taken = world.store.fence(by, stage.node, seen, world.at(40)).await.unwrap();
    assert_eq!(taken.len(), 1);
    assert_eq!(
        (taken[0].message_id, taken[0].device_id),
        (item.message_id, stage.device)
    );
    let row = stage.row(item.message_id).await;
    let doubt = row.doubt.unwrap();
    assert_eq!(row.state, MessageState::InDoubt);
    assert_eq!((doubt.since_at, doubt.next_check_at), (world.at(40), world.at(3)));
    assert_eq!((doubt.not_found_count, doubt.resend_count), (0, 0));
    assert_eq!(row.attempt.unwrap().id, item.attempt_id);
    assert_eq!(stage.state(queued).await, MessageState::Queued);

    let owned = world.store.owned(&[stage.device]).await.unwrap();
    assert_eq!(owned[0].owner, None);
    assert!(owned[0].epoch > stage.epoch);
    assert!(world.store.devices_of(stage.node).await.unwrap().is_empty());
    assert!(world.store.sending(stage.node).await.unwrap().is_empty());
    let fenced = node_of(&world, stage.node).await.unwrap();
    assert!(fenced.fenced && !fenced.planner);
    assert!(
        world.store.plan_lease(by, world.at(40)).await.unwrap(),
        "its planner lease ended"
    );
    let claimed = world.store.claim(by, 10, world.at(41)).await.unwrap();
    assert_eq!(claimed.len(), 1);
}

pub(super) async fn a_node_that_beats_is_not_taken_over(world: World) {
    let stage = world.stage().await;
    let by = world.node().await;
    let seen = node_of(&world, stage.node).await.unwrap().beat;
    world.store.beat(stage.node, world.at(1)).await.unwrap();
    let taken = world.store.fence(by, stage.node, seen, world.at(60)).await;
    assert_kind(taken, StoreErrorKind::Conflict);
    assert!(!node_of(&world, stage.node).await.unwrap().fenced);
    assert_eq!(world.store.devices_of(stage.node).await.unwrap().len(), 1);
}

pub(super) async fn a_takeover_can_be_repeated(world: World) {
    let stage = world.stage().await;
    stage.sending().await;
    let by = world.node().await;
    let seen = node_of(&world, stage.node).await.unwrap().beat;
    assert_eq!(
        world
            .store
            .fence(by, stage.node, seen, world.now())
            .await
            .unwrap()
            .len(),
        1
    );
    let after = epochs(&world, &[stage.device]).await;
    assert!(
        world
            .store
            .fence(by, stage.node, seen, world.now())
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(epochs(&world, &[stage.device]).await, after);
}

pub(super) async fn fenced_nodes_are_forgotten_after_a_while_and_no_others(world: World) {
    let (stage, second, third) = (world.stage().await, world.stage().await, world.node().await);
    let by = stage.take_over().await;
    second.take_over().await;
    let forget = async |seconds, limit| world.store.forget_nodes(world.at(seconds), limit).await.unwrap();
    assert_eq!(forget(0, 10).await, 0, "not before its time");
    assert_eq!(forget(1, 1).await, 1, "at most so many");
    assert_eq!(forget(1, 10).await, 1);
    assert_eq!(forget(1, 10).await, 0);
    assert_eq!(node_of(&world, stage.node).await, None);
    assert!(node_of(&world, by).await.is_some() && node_of(&world, third).await.is_some());
    assert_kind(
        world.store.beat(stage.node, world.now()).await,
        StoreErrorKind::NotFound,
    );
    assert_kind(
        world.store.claim(stage.node, 1, world.now()).await,
        StoreErrorKind::Fenced,
    );
}

pub(super) async fn a_fenced_node_takes_over_nobody(world: World) {
    let (stage, third) = (world.stage().await, world.node().await);
    stage.take_over().await;
    let seen = node_of(&world, third).await.unwrap().beat;
    let taken = world.store.fence(stage.node, third, seen, world.now()).await;
    assert_kind(taken, StoreErrorKind::Fenced);
    assert!(!node_of(&world, third).await.unwrap().fenced);
}

pub(super) async fn a_fenced_node_has_no_say_as_owner(world: World) {
    let stage = world.stage().await;
    stage.take_over().await;
    let (store, node, now) = (&world.store, stage.node, world.now());
    assert_kind(store.beat(node, now).await, StoreErrorKind::Fenced);
    assert_kind(store.claim(node, 1, now).await, StoreErrorKind::Fenced);
    assert_kind(store.plan_lease(node, now).await, StoreErrorKind::Fenced);
    let devices = [(stage.device, stage.epoch)];
    assert_kind(store.release(node, &devices, now).await, StoreErrorKind::Fenced);
    assert!(store.devices_of(node).await.unwrap().is_empty());
}

pub(super) async fn a_message_sent_again_when_its_node_died_keeps_its_count(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.in_doubt().await;
    let mut item = stage.item(id);
    item.attempt_id = attempt;
    item.again = true;
    assert_eq!(stage.try_begin(&item).await, crate::store::Begun::Yes);
    stage.take_over().await;
    let doubt = stage.row(id).await.doubt.unwrap();
    assert_eq!(
        doubt.resend_count, 1,
        "or a node that dies each time would send it for ever"
    );
}

pub(super) async fn leaving_gives_back_everything_and_doubts_what_was_being_sent(world: World) {
    let stage = world.stage().await;
    let (id, _) = stage.sending().await;
    assert!(world.store.plan_lease(stage.node, world.now()).await.unwrap());
    world.store.leave(stage.node, world.at(9)).await.unwrap();
    assert_eq!(node_of(&world, stage.node).await, None);
    let owned = world.store.owned(&[stage.device]).await.unwrap();
    assert_eq!(owned[0].owner, None);
    let row = stage.row(id).await;
    assert_eq!(row.state, MessageState::InDoubt);
    assert_eq!(row.doubt.unwrap().next_check_at, row.attempt.unwrap().attempted_at);
    let next = world.node().await;
    assert!(world.store.plan_lease(next, world.at(9)).await.unwrap());
    let claimed = world.claim(next).await;
    assert!(claimed[0].epoch > stage.epoch);
}

pub(super) async fn one_node_holds_the_planner_lease(world: World) {
    let (one, two) = (world.node().await, world.node().await);
    let take = |node| world.store.plan_lease(node, world.now());
    assert!(take(one).await.unwrap());
    assert!(take(one).await.unwrap(), "its holder keeps it");
    assert!(!take(two).await.unwrap());
    assert!(node_of(&world, one).await.unwrap().planner);
    assert!(!node_of(&world, two).await.unwrap().planner);
    let answers = join_all((0..6).map(|n| take(if n % 2 == 0 { one } else { two }))).await;
    for (n, answer) in answers.into_iter().enumerate() {
        assert_eq!(answer.unwrap(), n % 2 == 0);
    }
}

pub(super) async fn two_nodes_that_ask_at_once_get_one_planner_lease(world: World) {
    let nodes = [world.node().await, world.node().await, world.node().await];
    let answers = join_all(nodes.iter().map(|node| world.store.plan_lease(*node, world.now()))).await;
    let given = answers.into_iter().filter(|answer| *answer.as_ref().unwrap()).count();
    assert_eq!(given, 1);
}

pub(super) async fn the_dead_are_fenced_with_proof_or_not_at_all(world: World) {
    let stage: Stage = world.stage().await;
    let (id, _) = stage.sending().await;
    let by = world.node().await;
    match world.store.fence_the_dead(by, world.at(2)).await {
        Ok(taken) => {
            assert_eq!(taken.iter().map(|taken| taken.message_id).collect::<Vec<_>>(), [id]);
            assert_eq!(stage.state(id).await, MessageState::InDoubt);
            assert!(!node_of(&world, by).await.unwrap().fenced);
            assert_kind(world.store.beat(stage.node, world.at(2)).await, StoreErrorKind::Fenced);
            assert_eq!(world.claim(by).await.len(), 1);
        }
        Err(error) => {
            assert_eq!(error.kind, StoreErrorKind::Unsupported);
            assert_eq!(stage.state(id).await, MessageState::Sending);
            world.store.beat(stage.node, world.at(2)).await.unwrap();
        }
    }
}

pub(super) async fn wall_clocks_that_differ_decide_nothing(world: World) {
    let stage = world.stage().await;
    let by = world.node().await;
    // A node whose wall clock is a century behind still lives while it beats.
    let past = crate::time::Timestamp::from_millis(0);
    let seen = node_of(&world, stage.node).await.unwrap().beat;
    world.store.beat(stage.node, past).await.unwrap();
    assert_kind(
        world.store.fence(by, stage.node, seen, world.at(9_999)).await,
        StoreErrorKind::Conflict,
    );
    let seen = node_of(&world, stage.node).await.unwrap().beat;
    world.store.fence(by, stage.node, seen, past).await.unwrap();
    assert!(
        node_of(&world, stage.node).await.unwrap().fenced,
        "and dies by its beat alone"
    );
}

pub(super) async fn a_node_takes_over_neither_itself_nor_one_that_left(world: World) {
    let stage = world.stage().await;
    let seen = node_of(&world, stage.node).await.unwrap().beat;
    let itself = world.store.fence(stage.node, stage.node, seen, world.now()).await;
    assert_kind(itself, StoreErrorKind::Conflict);
    assert!(!node_of(&world, stage.node).await.unwrap().fenced);
    let by = world.node().await;
    world.store.leave(stage.node, world.now()).await.unwrap();
    let gone = world.store.fence(by, stage.node, seen, world.now()).await;
    assert_kind(gone, StoreErrorKind::NotFound);
}

pub(super) async fn giving_a_device_back_makes_its_epoch_old(world: World) {
    let stage = world.stage().await;
    let devices = [(stage.device, stage.epoch)];
    world.store.release(stage.node, &devices, world.now()).await.unwrap();
    let now = epochs(&world, &[stage.device]).await[&stage.device];
    assert!(now > stage.epoch);
}

pub(super) async fn leaving_twice_is_leaving(world: World) {
    let stage = world.stage().await;
    world.store.leave(stage.node, world.now()).await.unwrap();
    let after = epochs(&world, &[stage.device]).await;
    world.store.leave(stage.node, world.now()).await.unwrap();
    assert_eq!(epochs(&world, &[stage.device]).await, after);
}

pub(super) async fn devices_are_claimed_in_order_of_id(world: World) {
    let user = world.user().await;
    let devices = [
        world.device(user).await,
        world.device(user).await,
        world.device(user).await,
    ];
    let node = world.node().await;
    let claimed = world.store.claim(node, 2, world.now()).await.unwrap();
    let ids: Vec<_> = claimed.iter().map(|owned| owned.device.id).collect();
    assert_eq!(ids, devices[..2]);
}

pub(super) async fn what_a_takeover_doubts_of_an_ended_campaign_is_told_to_the_next_owner_who_ends_it(world: World) {
    let stage = world.stage().await;
    let (id, attempt) = stage.sending().await;
    stage.cancel().await;
    world.sweep_at(world.now()).await;
    let node = stage.take_over().await;
    let owned = world.claim(node).await;
    let next = Stage {
        node,
        epoch: owned[0].epoch,
        ..stage
    };
    let doubts = world.store.doubts(node, world.now(), 10).await.unwrap();
    assert_eq!(doubts.iter().map(|message| message.id).collect::<Vec<_>>(), [id]);
    let still = super::stage::doubt_until(world.at(90));
    assert_eq!(
        next.settle(id, attempt, still).await,
        Settled::Yes(MessageState::Unknown)
    );
}

pub(super) async fn what_a_takeover_doubts_on_a_deleted_device_does_not_wait_for_an_owner(world: World) {
    let stage = world.stage().await;
    let (id, _) = stage.sending().await;
    stage.delete_device().await;
    world.sweep_at(world.now()).await;
    stage.take_over().await;
    world.sweep_at(world.now()).await;
    assert_eq!(
        stage.state(id).await,
        MessageState::Unknown,
        "nobody will ever own the device again"
    );
}

pub(super) async fn what_leaving_doubts_on_a_deleted_device_does_not_wait_for_an_owner(world: World) {
    let stage = world.stage().await;
    let (id, _) = stage.sending().await;
    stage.delete_device().await;
    world.sweep_at(world.now()).await;
    world.store.leave(stage.node, world.now()).await.unwrap();
    world.sweep_at(world.now()).await;
    assert_eq!(
        stage.state(id).await,
        MessageState::Unknown,
        "nobody will ever own the device again"
    );
}
