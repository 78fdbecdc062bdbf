//! Whom devices know, and what waits because they do not.

use std::time::Duration;

use super::stage::{Stage, failed, sent};
use super::world::World;
use crate::domain::message::{MessageScope, MessageState, Reason};
use crate::domain::phone::Phone;
use crate::domain::warmth::Warmth;
use crate::id::MessageId;
use crate::store::{Begun, Change, Settled, Stranger, Strangers, Verdict};
use crate::time::Timestamp;
use crate::transport::TransportMessageId;

fn wrote(stage: &Stage, phone: Phone, id: &str, at: Timestamp) -> Change {
    Change::Replied {
        user_id: stage.user,
        device_id: stage.device,
        phone,
        person: stage.world.rows.person(stage.user, &phone),
        provider_id: TransportMessageId::new(id).unwrap(),
        at,
    }
}

async fn warmth(stage: &Stage, id: MessageId) -> Warmth {
    let told = stage.world.store.warmth(&[id]).await.unwrap();
    assert_eq!(told.len(), 1);
    told[0]
}

async fn sent_to(stage: &Stage, phone: Phone, at: Timestamp) -> MessageId {
    let id = direct_to(stage, phone).await;
    let mut item = stage.item(id);
    item.attempted_at = at;
    assert_eq!(stage.try_begin(&item).await, Begun::Yes);
    let settled = stage.settle(id, item.attempt_id, sent()).await;
    assert_eq!(settled, Settled::Yes(MessageState::Sent));
    id
}

async fn direct_to(stage: &Stage, phone: Phone) -> MessageId {
    let message = stage.world.rows.direct_message(stage.user, Some(stage.device), phone);
    stage.world.insert(message).await
}

async fn strangers(stage: &Stage, scope: MessageScope, limit: u32) -> Vec<Stranger> {
    let asked = Strangers {
        user_id: stage.user,
        device_id: stage.device,
        scope,
        now: stage.world.at(10),
        limit,
        known_too: false,
    };
    stage.world.store.strangers(&asked).await.unwrap()
}

async fn put_off(stage: &Stage, id: MessageId, reason: Reason, until: Timestamp) {
    let mut item = stage.declined(id, MessageState::Queued);
    (item.reason, item.due_at) = (reason, Some(until));
    let moved = stage.world.store.decline(&[item], stage.now()).await.unwrap();
    assert_eq!(moved, 1);
}

pub(super) async fn who_wrote_or_was_sent_to_is_no_stranger_to_that_device(world: World) {
    let stage = world.stage().await;
    let (writer, reader) = (world.rows.fresh_phone(), world.rows.fresh_phone());
    let (to_writer, to_reader) = (stage.queued_to(writer).await, direct_to(&stage, reader).await);
    assert_eq!(warmth(&stage, to_writer).await, Warmth::Cold);
    world.commit(wrote(&stage, writer, "in-1", world.at(5))).await;
    assert_eq!(warmth(&stage, to_writer).await, Warmth::Warm);
    sent_to(&stage, reader, world.at(6)).await;
    assert_eq!(warmth(&stage, to_reader).await, Warmth::Warm);
    let store = &world.store;
    let other = world.rows.fresh_phone();
    let people = [other, reader, writer].map(|phone| (phone, world.rows.person(stage.user, &phone)));
    let known = store.acquainted(stage.device, &people).await.unwrap();
    assert_eq!(known, [people[1].1, people[2].1]);

    let another = world.device(stage.user).await;
    assert!(store.acquainted(another, &people).await.unwrap().is_empty());
    let elsewhere = world.rows.direct_message(stage.user, Some(another), writer);
    let elsewhere = world.insert(elsewhere).await;
    let nowhere = MessageId::new(world.rows.ids(), world.now());
    let told = store.warmth(&[elsewhere, nowhere, to_writer]).await.unwrap();
    assert_eq!(told, [Warmth::Cold, Warmth::Cold, Warmth::Warm]);
}

pub(super) async fn what_was_not_sent_makes_nobody_known(world: World) {
    let stage = world.stage().await;
    let phone = world.rows.fresh_phone();
    let next = direct_to(&stage, phone).await;
    for verdict in [failed(), super::stage::unknown(), super::stage::skipped()] {
        let id = direct_to(&stage, phone).await;
        let attempt = stage.begin(id).await;
        assert_eq!(warmth(&stage, next).await, Warmth::Cold, "being sent is not sent");
        stage.settle(id, attempt, verdict).await;
        assert_eq!(warmth(&stage, next).await, Warmth::Cold);
    }
}

pub(super) async fn strangers_of_a_lane_are_told_in_order_of_those_that_are_looked_at(world: World) {
    let stage = world.stage().await;
    let scope = MessageScope::Campaign(stage.campaign);
    let known = world.rows.fresh_phone();
    world.commit(wrote(&stage, known, "in-1", world.at(0))).await;
    let mut made = Vec::new();
    for seconds in [3, 1, 2] {
        let mut message = stage.message_to(world.rows.fresh_phone());
        message.due_at = world.at(seconds);
        let phone = message.phone;
        let message_id = world.insert(message).await;
        made.push(Stranger { message_id, phone });
    }
    let mut warm = stage.message_to(known);
    warm.due_at = world.at(2);
    world.insert(warm).await;
    let mut later = stage.message_to(world.rows.fresh_phone());
    later.due_at = world.now() + Duration::from_secs(60);
    world.insert(later).await;
    let phone = world.rows.fresh_phone();
    let direct = Stranger {
        message_id: direct_to(&stage, phone).await,
        phone: Some(phone),
    };
    let in_order = [made[1], made[2], made[0]];
    assert_eq!(strangers(&stage, scope, 10).await, in_order);
    assert_eq!(strangers(&stage, scope, 1).await, in_order[..1]);
    assert_eq!(strangers(&stage, MessageScope::Direct, 10).await, [direct]);
    let foreign = Strangers {
        user_id: world.user().await,
        device_id: stage.device,
        scope,
        now: world.at(10),
        limit: 10,
        known_too: true,
    };
    assert!(world.store.strangers(&foreign).await.unwrap().is_empty());
    let all = Strangers {
        user_id: stage.user,
        ..foreign
    };
    let all = world.store.strangers(&all).await.unwrap();
    let told: Vec<_> = all.iter().map(|one| one.phone).collect();
    // Two are due at the same time; the one that was made first is first.
    assert_eq!(told, [made[1].phone, made[2].phone, Some(known), made[0].phone]);
}

pub(super) async fn what_waits_for_a_stranger_is_found_and_goes_at_once_when_they_write(world: World) {
    let stage = world.stage().await;
    let now = world.now();
    let phone = world.rows.fresh_phone();
    let until = now + Duration::from_secs(86_400);
    let (first, second) = (stage.queued_to(phone).await, direct_to(&stage, phone).await);
    let (other, gone) = (stage.queued().await, stage.queued().await);
    put_off(&stage, first, Reason::Restricted, until).await;
    put_off(&stage, second, Reason::ColdPace, until).await;
    put_off(&stage, other, Reason::Restricted, until).await;
    put_off(&stage, gone, Reason::MediaGone, until).await;
    let store = &world.store;
    let waiting = store.put_off(stage.user, stage.device, now, 10).await.unwrap();
    assert_eq!(waiting, [first, second, other]);
    assert_eq!(
        store.put_off(stage.user, stage.device, now, 2).await.unwrap(),
        [first, second]
    );
    assert!(
        store
            .put_off(stage.user, stage.device, until, 10)
            .await
            .unwrap()
            .is_empty()
    );
    let stranger = world.user().await;
    assert!(store.put_off(stranger, stage.device, now, 10).await.unwrap().is_empty());

    let done = world.commit(wrote(&stage, phone, "in-1", now)).await;
    assert_eq!(done.wake, [stage.device]);
    for id in [first, second] {
        let row = stage.row(id).await;
        assert_eq!((row.due_at, row.reason, row.state), (now, None, MessageState::Queued));
    }
    let waiting = store.put_off(stage.user, stage.device, now, 10).await.unwrap();
    assert_eq!(waiting, [other]);
    assert_eq!(stage.row(gone).await.due_at, until, "it waits for something else");
}

pub(super) async fn time_put_off_for_strangers_does_not_count_for_the_expiry(world: World) {
    let stage = world.stage().await;
    let (now, span) = (world.now(), Duration::from_secs(86_400));
    let until = now + span;
    for (reason, moves) in [
        (Reason::Restricted, true),
        (Reason::ColdPace, true),
        (Reason::MediaGone, false),
    ] {
        let id = stage.queued().await;
        let before = stage.row(id).await;
        put_off(&stage, id, reason, until).await;
        let after = stage.row(id).await;
        let expected = if moves {
            before.expires_at + span
        } else {
            before.expires_at
        };
        assert_eq!((after.due_at, after.expires_at), (until, expected), "{reason:?}");
        put_off(&stage, id, reason, now).await;
        assert_eq!(
            stage.row(id).await.expires_at,
            expected,
            "brought forward it keeps its time"
        );
    }
    let (id, attempt) = stage.sending().await;
    let before = stage.row(id).await;
    let verdict = Verdict::Requeue {
        reason: Reason::Restricted,
        due_at: until,
        counts: false,
    };
    stage.settle(id, attempt, verdict).await;
    let after = stage.row(id).await;
    assert_eq!((after.due_at, after.expires_at), (until, before.expires_at + span));
}

pub(super) async fn attempts_to_strangers_are_told_as_it_stood_then(world: World) {
    let stage = world.stage().await;
    let [often, late, early] = [(); 3].map(|()| world.rows.fresh_phone());
    world.commit(wrote(&stage, early, "in-1", world.at(1))).await;
    sent_to(&stage, often, world.at(10)).await;
    sent_to(&stage, often, world.at(20)).await;
    sent_to(&stage, early, world.at(30)).await;
    sent_to(&stage, late, world.at(40)).await;
    world.commit(wrote(&stage, late, "in-2", world.at(45))).await;
    let (id, attempt) = stage.sending().await;
    stage.settle(id, attempt, failed()).await;
    let devices = [world.device(stage.user).await, stage.device];
    let told = world.store.cold_attempts(&devices, world.at(0)).await.unwrap();
    assert_eq!(told, [vec![], vec![world.at(10), world.at(40)]]);
    let told = world.store.cold_attempts(&devices[1..], world.at(15)).await.unwrap();
    assert_eq!(told, [[world.at(40)]]);
}
