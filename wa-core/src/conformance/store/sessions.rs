//! Sessions of linked devices, as keys and values.

use futures::future::join_all;

use super::stage::Stage;
use super::world::{World, assert_kind};
use crate::domain::device::Epoch;
use crate::id::DeviceId;
use crate::store::{
    PageRequest, SESSION_KEY_BYTES_MAX, SESSION_KEYS_MAX, SESSION_VALUE_BYTES_MAX, SessionKey, SessionOwner,
    SessionRow, SessionWrite, StoreErrorKind,
};
use crate::time::Timestamp;

fn key(bytes: impl AsRef<[u8]>) -> SessionKey {
    SessionKey::new(bytes.as_ref()).unwrap()
}

fn put(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> SessionWrite {
    put_until(name, value, None)
}

fn put_until(name: impl AsRef<[u8]>, value: impl AsRef<[u8]>, expires_at: Option<Timestamp>) -> SessionWrite {
    SessionWrite::Put(SessionRow {
        key: key(name),
        value: value.as_ref().to_vec(),
        expires_at,
    })
}

fn owner(stage: &Stage) -> SessionOwner {
    SessionOwner {
        incarnation: stage.node,
        user_id: stage.user,
        device_id: stage.device,
        epoch: stage.epoch,
    }
}

/// The values of keys, empty where there are none.
async fn values(world: &World, device: DeviceId, names: &[&str]) -> Vec<Vec<u8>> {
    let keys: Vec<SessionKey> = names.iter().map(key).collect();
    let values = world.store.session_values(device, &keys).await.unwrap();
    values.into_iter().map(Option::unwrap_or_default).collect()
}

/// All rows below a prefix, read in pages.
async fn scanned(world: &World, device: DeviceId, prefix: &[u8], limit: u32) -> Vec<SessionRow> {
    let mut rows = Vec::new();
    let mut page = PageRequest::first(limit);
    loop {
        let found = world.store.scan_session(device, prefix, &page).await.unwrap();
        assert!(found.rows.len() <= limit as usize);
        rows.extend(found.rows);
        let Some(next) = found.next else { return rows };
        page.after = Some(next);
    }
}

fn names(rows: &[SessionRow]) -> Vec<&[u8]> {
    rows.iter().map(|row| row.key.as_bytes()).collect()
}

pub(super) async fn values_are_read_in_the_order_of_the_keys_asked_for(world: World) {
    let stage = world.stage().await;
    let writes = [put("a", "1"), put("b", "2"), put("c", "3")];
    world.store.write_session(&owner(&stage), &writes).await.unwrap();
    let found = values(&world, stage.device, &["c", "nothing", "a", "c"]).await;
    assert_eq!(found, [b"3".to_vec(), Vec::new(), b"1".to_vec(), b"3".to_vec()]);
    assert!(world.store.session_values(stage.device, &[]).await.unwrap().is_empty());
}

pub(super) async fn a_batch_is_written_as_a_whole_and_the_last_write_of_a_key_counts(world: World) {
    let stage = world.stage().await;
    let owner = owner(&stage);
    world
        .store
        .write_session(&owner, &[put("old", "1"), put("kept", "1")])
        .await
        .unwrap();
    let writes = [
        put("twice", "first"),
        SessionWrite::Delete(key("old")),
        put("gone", "1"),
        put("twice", "last"),
        SessionWrite::Delete(key("gone")),
        SessionWrite::Delete(key("never there")),
        SessionWrite::Delete(key("back")),
        put("back", "2"),
    ];
    world.store.write_session(&owner, &writes).await.unwrap();
    world.store.write_session(&owner, &[]).await.unwrap();
    let rows = scanned(&world, stage.device, b"", 10).await;
    let rows: Vec<(&[u8], &[u8])> = rows
        .iter()
        .map(|row| (row.key.as_bytes(), row.value.as_slice()))
        .collect();
    assert_eq!(rows, [(&b"back"[..], &b"2"[..]), (b"kept", b"1"), (b"twice", b"last")]);
}

pub(super) async fn a_scan_gives_what_begins_with_the_prefix_page_by_page(world: World) {
    let stage = world.stage().await;
    let keys: [&[u8]; 8] = [b"a", b"a\0", b"a\0\0", b"a\xff", b"a\xff\xff", b"b", b"ab", b"\xff\xff"];
    let writes: Vec<SessionWrite> = keys.iter().map(|name| put(name, name)).collect();
    world.store.write_session(&owner(&stage), &writes).await.unwrap();
    for limit in [1, 2, 3, 100] {
        let below_a = scanned(&world, stage.device, b"a", limit).await;
        let expected: [&[u8]; 6] = [b"a", b"a\0", b"a\0\0", b"ab", b"a\xff", b"a\xff\xff"];
        assert_eq!(names(&below_a), expected, "in pages of {limit}");
        assert_eq!(
            names(&scanned(&world, stage.device, b"a\xff", limit).await),
            expected[4..]
        );
        assert_eq!(
            names(&scanned(&world, stage.device, b"\xff", limit).await),
            [b"\xff\xff"]
        );
        assert_eq!(scanned(&world, stage.device, b"", limit).await.len(), keys.len());
        assert!(scanned(&world, stage.device, b"nothing", limit).await.is_empty());
    }
    let before = PageRequest::after(key("Z"), 10);
    let found = world.store.scan_session(stage.device, b"a", &before).await.unwrap();
    assert_eq!(found.rows.len(), 6, "a page after a key before the prefix is the first");
    let behind = PageRequest::after(key("c"), 10);
    let found = world.store.scan_session(stage.device, b"a", &behind).await.unwrap();
    assert!(found.rows.is_empty() && found.next.is_none());
}

pub(super) async fn devices_share_no_value(world: World) {
    let (one, other) = two_stages(&world).await;
    for (stage, value) in [(&one, "of one"), (&other, "of the other")] {
        let writes = [put("same", value)];
        world.store.write_session(&owner(stage), &writes).await.unwrap();
    }
    assert_eq!(values(&world, one.device, &["same"]).await, [b"of one"]);
    assert_eq!(values(&world, other.device, &["same"]).await, [b"of the other"]);
    assert_eq!(scanned(&world, one.device, b"", 10).await.len(), 1);
    let delete = [SessionWrite::Delete(key("same"))];
    world.store.write_session(&owner(&one), &delete).await.unwrap();
    assert_eq!(values(&world, other.device, &["same"]).await, [b"of the other"]);
}

/// Two devices of different users and nodes.
async fn two_stages(world: &World) -> (Stage, Stage) {
    (world.stage().await, world.stage().await)
}

pub(super) async fn a_node_that_does_not_own_the_device_at_that_epoch_writes_nothing(world: World) {
    let (stage, other) = two_stages(&world).await;
    let right = owner(&stage);
    world.store.write_session(&right, &[put("a", "1")]).await.unwrap();
    let wrong = [
        SessionOwner {
            epoch: Epoch(right.epoch.0 - 1),
            ..right
        },
        SessionOwner {
            epoch: Epoch(right.epoch.0 + 1),
            ..right
        },
        SessionOwner {
            incarnation: other.node,
            ..right
        },
        SessionOwner {
            user_id: other.user,
            ..right
        },
        SessionOwner {
            device_id: other.device,
            ..right
        },
        SessionOwner {
            incarnation: world.rows.incarnation(),
            ..right
        },
    ];
    for owner in &wrong {
        let writes = [put("a", "2"), put("b", "2")];
        assert_kind(world.store.write_session(owner, &writes).await, StoreErrorKind::Fenced);
        assert_kind(world.store.wipe_session(owner).await, StoreErrorKind::Fenced);
    }
    assert_eq!(
        values(&world, stage.device, &["a", "b"]).await,
        [b"1".to_vec(), Vec::new()]
    );
    assert!(scanned(&world, other.device, b"", 10).await.is_empty());

    let heir = stage.hand_over().await;
    assert_kind(
        world.store.write_session(&right, &[put("a", "2")]).await,
        StoreErrorKind::Fenced,
    );
    assert_eq!(
        values(&world, stage.device, &["a"]).await,
        [b"1"],
        "the session goes with the device"
    );
    world
        .store
        .write_session(&owner(&heir), &[put("a", "3")])
        .await
        .unwrap();
    assert_eq!(values(&world, stage.device, &["a"]).await, [b"3"]);
}

pub(super) async fn a_node_that_was_fenced_or_has_left_writes_nothing(world: World) {
    let (stage, other) = two_stages(&world).await;
    let by = world.node().await;
    let nodes = world.store.nodes().await.unwrap();
    let seen = nodes.iter().find(|node| node.incarnation == stage.node).unwrap().beat;
    world.store.fence(by, stage.node, seen, world.now()).await.unwrap();
    world.store.leave(other.node, world.now()).await.unwrap();
    for stage in [&stage, &other] {
        let owner = owner(stage);
        assert_kind(
            world.store.write_session(&owner, &[put("a", "1")]).await,
            StoreErrorKind::Fenced,
        );
        assert_kind(world.store.wipe_session(&owner).await, StoreErrorKind::Fenced);
        assert!(scanned(&world, stage.device, b"", 10).await.is_empty());
    }
}

pub(super) async fn a_wipe_takes_the_session_of_one_device(world: World) {
    let (stage, other) = two_stages(&world).await;
    for stage in [&stage, &other] {
        let writes = [put("a", "1"), put_until("b", "1", Some(world.at(60)))];
        world.store.write_session(&owner(stage), &writes).await.unwrap();
    }
    stage.delete_device().await;
    assert_eq!(
        world.store.wipe_session(&owner(&stage)).await.unwrap(),
        2,
        "the owner of a deleted device still winds it up"
    );
    assert_eq!(world.store.wipe_session(&owner(&stage)).await.unwrap(), 0);
    assert!(scanned(&world, stage.device, b"", 10).await.is_empty());
    assert_eq!(scanned(&world, other.device, b"", 10).await.len(), 2);
    assert_eq!(world.store.sweep_sessions(world.at(61), 10).await.unwrap(), 1);
}

pub(super) async fn a_sweep_takes_what_ended_of_all_devices_up_to_its_limit(world: World) {
    let (stage, other) = two_stages(&world).await;
    for (stage, ends) in [(&stage, [10, 30, 50]), (&other, [20, 40, 60])] {
        let mut writes: Vec<SessionWrite> = ends
            .iter()
            .map(|end| put_until(format!("at {end}"), "1", Some(world.at(*end))))
            .collect();
        writes.push(put("without end", "1"));
        world.store.write_session(&owner(stage), &writes).await.unwrap();
    }
    assert_eq!(
        world.store.sweep_sessions(world.at(10), 10).await.unwrap(),
        0,
        "not before its end"
    );
    assert_eq!(
        values(&world, stage.device, &["at 10"]).await,
        [b"1"],
        "it is there until a sweep"
    );
    assert_eq!(world.store.sweep_sessions(world.at(41), 3).await.unwrap(), 3);
    assert_eq!(world.store.sweep_sessions(world.at(41), 3).await.unwrap(), 1);
    assert_eq!(world.store.sweep_sessions(world.at(41), 3).await.unwrap(), 0);
    assert_eq!(
        names(&scanned(&world, stage.device, b"", 10).await),
        [&b"at 50"[..], b"without end"]
    );
    assert_eq!(
        names(&scanned(&world, other.device, b"", 10).await),
        [&b"at 60"[..], b"without end"]
    );
}

pub(super) async fn what_is_put_again_has_its_new_end(world: World) {
    let stage = world.stage().await;
    let owner = owner(&stage);
    let ends = |seconds: Option<u64>| seconds.map(|seconds| world.at(seconds));
    let first = [
        put_until("later", "1", ends(Some(10))),
        put_until("sooner", "1", ends(Some(90))),
        put_until("never", "1", ends(Some(10))),
        put_until("deleted", "1", ends(Some(10))),
    ];
    let second = [
        put_until("later", "2", ends(Some(90))),
        put_until("sooner", "2", ends(Some(10))),
        put_until("never", "2", None),
        SessionWrite::Delete(key("deleted")),
    ];
    world.store.write_session(&owner, &first).await.unwrap();
    world.store.write_session(&owner, &second).await.unwrap();
    let rows = scanned(&world, stage.device, b"", 10).await;
    let told: Vec<_> = rows.iter().map(|row| (row.key.as_bytes(), row.expires_at)).collect();
    let expected = [
        (&b"later"[..], ends(Some(90))),
        (b"never", None),
        (b"sooner", ends(Some(10))),
    ];
    assert_eq!(told, expected);
    assert_eq!(world.store.sweep_sessions(world.at(50), 10).await.unwrap(), 1);
    assert_eq!(
        names(&scanned(&world, stage.device, b"", 10).await),
        [&b"later"[..], b"never"]
    );
}

pub(super) async fn keys_and_values_of_any_bytes_come_back_as_they_were(world: World) {
    let stage = world.stage().await;
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let longest = [vec![7; SESSION_KEY_BYTES_MAX - 1], vec![0]].concat();
    let large: Vec<u8> = (0..SESSION_VALUE_BYTES_MAX).map(|at| (at % 251) as u8).collect();
    let rows = [
        (every_byte.clone(), Vec::new()),
        (longest, large),
        (vec![0], every_byte),
        ("schlüssel '\"\\%_".into(), "\0null".into()),
    ];
    let writes: Vec<SessionWrite> = rows.iter().map(|(name, value)| put(name, value)).collect();
    world.store.write_session(&owner(&stage), &writes).await.unwrap();
    let keys: Vec<SessionKey> = rows.iter().map(|(name, _)| key(name)).collect();
    let found = world.store.session_values(stage.device, &keys).await.unwrap();
    for ((_, value), found) in rows.iter().zip(found) {
        assert!(
            found.as_ref() == Some(value),
            "a value of {} bytes changed",
            value.len()
        );
    }
    let mut names: Vec<&[u8]> = keys.iter().map(SessionKey::as_bytes).collect();
    names.sort_unstable();
    let scanned = scanned(&world, stage.device, b"", 2).await;
    assert!(self::names(&scanned) == names, "keys are ordered bytewise");
}

pub(super) async fn what_passes_the_limits_is_refused_as_a_whole(world: World) {
    let stage = world.stage().await;
    let owner = owner(&stage);
    assert_eq!(SessionKey::new(Vec::new()), None);
    assert_eq!(SessionKey::new(vec![1; SESSION_KEY_BYTES_MAX + 1]), None);
    let long = [put("a", "1"), put("long", vec![1; SESSION_VALUE_BYTES_MAX + 1])];
    assert_kind(
        world.store.write_session(&owner, &long).await,
        StoreErrorKind::Unsupported,
    );
    let many: Vec<SessionWrite> = (0..=SESSION_KEYS_MAX).map(|at| put(at.to_string(), "1")).collect();
    assert_kind(
        world.store.write_session(&owner, &many).await,
        StoreErrorKind::Unsupported,
    );
    assert!(scanned(&world, stage.device, b"", 10).await.is_empty());
    world.store.write_session(&owner, &many[1..]).await.unwrap();
    let keys: Vec<SessionKey> = many.iter().map(|write| write.key().clone()).collect();
    let found = world.store.session_values(stage.device, &keys[1..]).await.unwrap();
    assert!(found.iter().all(Option::is_some));
    assert_kind(
        world.store.session_values(stage.device, &keys).await,
        StoreErrorKind::Unsupported,
    );
    assert_eq!(scanned(&world, stage.device, b"", 999).await.len(), SESSION_KEYS_MAX);
}

pub(super) async fn writers_at_once_lose_nothing(world: World) {
    let stage = world.stage().await;
    let owner = owner(&stage);
    let batches: Vec<Vec<SessionWrite>> = (0..8)
        .map(|writer: u8| {
            let mut own: Vec<SessionWrite> = (0..10).map(|at| put([writer, at], [writer])).collect();
            own.push(put("shared a", [writer]));
            own.push(put("shared b", [writer]));
            if writer.is_multiple_of(2) {
                own.reverse();
            }
            own
        })
        .collect();
    let writing = batches.iter().map(|writes| world.store.write_session(&owner, writes));
    for written in join_all(writing).await {
        written.unwrap();
    }
    assert_eq!(scanned(&world, stage.device, b"", 1_000).await.len(), 82);
    let shared = values(&world, stage.device, &["shared a", "shared b"]).await;
    assert_eq!(shared[0], shared[1], "a batch is seen as a whole");
}
