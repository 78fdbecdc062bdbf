//! Messages in doubt: when they are looked at, and by whom.

use super::outbox_begin::again;
use super::stage::{Stage, doubt_until, sent, unknown};
use super::world::World;
use crate::domain::device::{Credential, LinkState};
use crate::domain::message::{MessageState, Reason};
use crate::domain::platform::Platform;
use crate::store::{Begun, Change, Settled, Verdict};
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

pub(super) async fn what_is_in_doubt_on_a_device_that_becomes_another_account_is_asked_of_nobody(world: World) {
    for changed in 0..3 {
        let stage = world.stage().await;
        let (doubtful, _) = stage.in_doubt().await;
        let (sending, attempt) = stage.sending().await;
        let before = stage.owned().await;
        let mut device = before.device.clone();
        match changed {
            0 => device.credential = Credential::new("the token of another account"),
            1 => device.base_url = Some("https://gateway.example".to_owned()),
            _ => device.platform = "another".parse().unwrap(),
        }
        world.commit(Change::UpdateDevice(Box::new(device))).await;
        for id in [doubtful, sending] {
            let row = stage.row(id).await;
            let doubt = row.doubt.unwrap();
            assert_eq!(row.state, MessageState::InDoubt, "{changed}");
            assert_eq!(doubt.cause, Some(MaybeSentCause::AccountChanged), "{changed}");
            assert_eq!(doubt.next_check_at, world.now(), "it is looked at at once");
        }
        let after = stage.owned().await;
        assert_eq!(after.owner, None, "no node goes on with the account that it knew");
        assert!(after.epoch > before.epoch);
        let late = stage.settle(sending, attempt, doubt_until(world.at(60))).await;
        assert_eq!(late, Settled::Lost(false), "the outcome of the other account");
        let late = stage.settle(sending, attempt, sent()).await;
        assert_eq!(late, Settled::Lost(true), "evidence still settles it");
        let claimed = world.store.claim(stage.node, 10, world.now()).await.unwrap();
        assert_eq!(claimed.len(), 1);
        let doubts = world.store.doubts(stage.node, world.now(), 10).await.unwrap();
        let theirs = doubts.iter().filter(|row| row.device_id == Some(stage.device));
        assert_eq!(theirs.map(|row| row.id).collect::<Vec<_>>(), [doubtful]);
    }
}

pub(super) async fn other_settings_of_a_device_leave_what_is_in_doubt_as_it_is(world: World) {
    let stage = world.stage().await;
    let (doubtful, _) = stage.in_doubt().await;
    let (row, before) = (stage.row(doubtful).await, stage.owned().await);
    let mut device = before.device.clone();
    device.description = "another".to_owned();
    world.commit(Change::UpdateDevice(Box::new(device))).await;
    assert_eq!(stage.row(doubtful).await, row);
    let after = stage.owned().await;
    assert_eq!((after.owner, after.epoch), (before.owner, before.epoch));
}

pub(super) async fn what_was_sent_from_another_number_is_not_sent_again(world: World) {
    let stage = world.stage().await;
    let linked = |number| Change::SetDeviceLink {
        user_id: stage.user,
        device_id: stage.device,
        fence: None,
        state: LinkState::Ready,
        reason: None,
        phone: Some(world.rows.phone(number)),
        jid: None,
    };
    let mut device = stage.owned().await.device;
    device.platform = Platform::WHATSAPP_WEB;
    world.commit(Change::UpdateDevice(Box::new(device))).await;
    world.commit(linked(1)).await;
    let claimed = world.store.claim(stage.node, 10, world.now()).await.unwrap();
    let epoch = claimed[0].epoch;
    let stage = Stage { epoch, ..stage };
    let (id, attempt) = stage.in_doubt().await;
    let row = stage.row(id).await;
    world.commit(linked(1)).await;
    assert_eq!(stage.row(id).await, row, "it is the same account");
    world.commit(linked(2)).await;
    let doubt = stage.row(id).await.doubt.unwrap();
    assert_eq!(doubt.cause, Some(MaybeSentCause::AccountChanged));
    let item = again(&stage, id, attempt, world.now());
    assert_eq!(stage.try_begin(&item).await, Begun::Gone);
    let told = stage.settle(id, attempt, doubt_until(world.at(60))).await;
    assert_eq!(told, Settled::Yes(MessageState::InDoubt));
    assert_eq!(stage.row(id).await.doubt, Some(doubt), "nobody forgets whose it was");
    let given_up = stage.settle(id, attempt, unknown()).await;
    assert_eq!(given_up, Settled::Yes(MessageState::Unknown));
}
