//! The storage of a device against the client's own in memory: the same operations give the same answers.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wa_core::domain::device::Epoch;
use wa_core::seed::Seed;
use wa_core::store::{LeaseStore, PageRequest, SessionOwner, SessionStore};
use wa_core::time::SystemClock;
use wa_transport_web::backend::Backend;
use wa_transport_web::vault::Vault;
use wa_transport_web::whatsapp_rust::bytes::Bytes;
use wa_transport_web::whatsapp_rust::traits::{
    AppStateSyncKey, AppSyncStore, DeviceInfo, DeviceListRecord, DeviceStore, LidPnMappingEntry, MsgSecretEntry,
    MsgSecretStore, PendingInboundKey, PendingInboundRow, ProtocolStore, SignalStore, TcTokenEntry,
};
use wa_transport_web::whatsapp_rust::wacore::appstate::hash::HashState;
use wa_transport_web::whatsapp_rust::wacore::appstate::processor::AppStateMutationMAC;
use wa_transport_web::whatsapp_rust::wacore::store::{Device, InMemoryBackend};

use crate::stage::{Counted, stage};
use crate::town::until;

fn key(byte: u8) -> Vault {
    Vault::with_key(&STANDARD.encode([byte; 32]).into()).unwrap()
}

fn backend(store: &Arc<Counted>, owner: SessionOwner, vault: Vault) -> Backend {
    Backend::new(store.clone(), Arc::new(vault), Arc::new(SystemClock::new()), owner)
}

/// Asks both the same and compares what they say.
macro_rules! both {
    ($subject:ident, $model:ident, $place:expr, $store:ident => $call:expr) => {{
        let ours = {
            let $store = &$subject;
            format!("{:?}", $call)
        };
        let theirs = {
            let $store = &$model;
            format!("{:?}", $call)
        };
        assert_eq!(ours, theirs, "{}", $place);
    }};
}

/// In an order that does not depend on the store.
fn sorted<T: std::fmt::Debug>(rows: Vec<T>) -> Vec<String> {
    let mut rows: Vec<String> = rows.iter().map(|row| format!("{row:?}")).collect();
    rows.sort_unstable();
    rows
}

async fn agree(seed: u64, vault: Vault) {
    use rand::Rng as _;
    let (store, owner) = stage().await;
    let subject = backend(&store, owner, vault);
    let model = InMemoryBackend::new();
    let mut rng = Seed::from_number(seed).rng(b"backend", "model");
    let mut below = |bound: u32| rng.next_u32() % bound;
    for step in 0..600 {
        let operation = below(34);
        let place = format!("seed {seed}, step {step}, operation {operation}");
        let users = ["6012", "60123", "60124", "1000"];
        let user = users[below(4) as usize];
        let other = users[below(4) as usize];
        let address = match below(3) {
            0 => format!("{user}@s.whatsapp.net"),
            1 => format!("{user}:{}@s.whatsapp.net", below(3)),
            _ => format!("{user}@lid"),
        };
        let shared: Arc<str> = address.as_str().into();
        let (value, id, at) = (
            vec![below(256) as u8; below(40) as usize],
            below(5),
            i64::from(below(100)),
        );
        let identity = [below(256) as u8; 32];
        let message = format!("3EB0{id}");
        match operation {
            0 => both!(subject, model, place, s => s.put_identity(&address, identity).await.unwrap()),
            1 => {
                both!(subject, model, place, s => s.put_identities_batch(&[(shared.clone(), identity)]).await.unwrap())
            }
            2 => both!(subject, model, place, s => s.load_identity(&address).await.unwrap()),
            3 => both!(subject, model, place, s => s.delete_identity(&address).await.unwrap()),
            4 => both!(subject, model, place, s => s.put_session(&address, &value).await.unwrap()),
            5 => {
                let batch = [
                    (shared.clone(), Bytes::from(value.clone())),
                    (other.into(), Bytes::from(value.clone())),
                ];
                both!(subject, model, place, s => s.put_sessions_batch(&batch).await.unwrap());
            }
            6 => {
                both!(subject, model, place, s => (s.get_session(&address).await.unwrap(), s.has_session(&address).await.unwrap()))
            }
            7 => both!(subject, model, place, s => s.delete_session(&address).await.unwrap()),
            8 => both!(subject, model, place, s => s.has_signal_state_for_user(user).await.unwrap()),
            9 => {
                both!(subject, model, place, s => s.store_prekeys_batch(&[(id * 77, value.clone().into()), (300, value.clone().into())], false).await.unwrap())
            }
            10 => both!(subject, model, place, s => sorted(s.load_prekeys_batch(&[0, 77, 154, 300]).await.unwrap())),
            11 => {
                both!(subject, model, place, s => { s.mark_prekeys_uploaded(&[id * 77]).await.unwrap(); s.remove_prekey(id * 77).await.unwrap(); s.load_prekey(id * 77).await.unwrap() })
            }
            12 => both!(subject, model, place, s => s.get_max_prekey_id().await.unwrap()),
            13 => {
                both!(subject, model, place, s => { s.store_signed_prekey(id, &value).await.unwrap(); sorted(s.load_all_signed_prekeys().await.unwrap()) })
            }
            14 => {
                both!(subject, model, place, s => { s.remove_signed_prekey(id).await.unwrap(); s.load_signed_prekey(id).await.unwrap() })
            }
            15 => {
                both!(subject, model, place, s => { s.put_sender_key(&address, &value).await.unwrap(); s.get_sender_key(other).await.unwrap() })
            }
            16 => {
                both!(subject, model, place, s => { s.delete_sender_key(&address).await.unwrap(); s.get_sender_key(&address).await.unwrap() })
            }
            17 => {
                let sync_key = AppStateSyncKey {
                    key_data: value.clone(),
                    fingerprint: vec![0],
                    timestamp: at,
                };
                both!(subject, model, place, s => { s.set_sync_key(&[0, id as u8], sync_key.clone()).await.unwrap(); s.get_latest_sync_key_id().await.unwrap() });
                both!(subject, model, place, s => s.get_sync_key(&[0, 1]).await.unwrap().map(|key| key.key_data));
            }
            18 => {
                let state = HashState {
                    version: at as u64,
                    ..HashState::default()
                };
                both!(subject, model, place, s => { s.set_version(user, state.clone()).await.unwrap(); s.get_version(other).await.unwrap().version });
            }
            19 => {
                let mac = |byte: u8| AppStateMutationMAC {
                    index_mac: vec![byte; 32],
                    value_mac: value.clone(),
                };
                both!(subject, model, place, s => s.put_mutation_macs(user, 1, &[mac(id as u8), mac(0)]).await.unwrap());
                both!(subject, model, place, s => sorted(s.get_mutation_macs(other, &[[0; 32], [1; 32], [2; 32]]).await.unwrap().into_iter().collect()));
            }
            20 => {
                both!(subject, model, place, s => { s.delete_mutation_macs(user, &[vec![id as u8; 32]]).await.unwrap(); s.get_mutation_mac(user, &[id as u8; 32]).await.unwrap() })
            }
            21 => both!(subject, model, place, s => s.clear_mutation_macs(user).await.unwrap()),
            22 => {
                both!(subject, model, place, s => s.set_sender_key_status(user, &[(&address, at > 50), (other, true)]).await.unwrap())
            }
            23 => both!(subject, model, place, s => sorted(s.get_sender_key_devices(user).await.unwrap())),
            24 => match below(8) {
                0 => both!(subject, model, place, s => s.clear_all_sender_key_devices().await.unwrap()),
                1 => both!(subject, model, place, s => s.clear_sender_key_devices(user).await.unwrap()),
                _ => {
                    both!(subject, model, place, s => s.delete_sender_key_device_rows(&[&address, other]).await.unwrap())
                }
            },
            25 => {
                let entry = |lid: &str, phone: &str| LidPnMappingEntry {
                    lid: lid.to_owned(),
                    phone_number: phone.to_owned(),
                    created_at: at,
                    updated_at: at,
                    learning_source: "usync".to_owned(),
                };
                let entries = [entry(user, &format!("p{id}")), entry(other, &format!("p{}", at % 3))];
                both!(subject, model, place, s => s.put_lid_mappings(&entries).await.unwrap());
            }
            26 => {
                both!(subject, model, place, s => s.get_lid_mapping(user).await.unwrap().map(|known| known.phone_number));
                both!(subject, model, place, s => s.get_pn_mapping(&format!("p{id}")).await.unwrap().map(|known| known.lid));
                both!(subject, model, place, s => sorted(s.get_all_lid_mappings().await.unwrap()));
            }
            27 => {
                both!(subject, model, place, s => { s.save_base_key(&address, &message, &value).await.unwrap(); s.has_same_base_key(other, &message, &value).await.unwrap() })
            }
            28 => {
                both!(subject, model, place, s => { s.delete_base_key(&address, &message).await.unwrap(); s.has_same_base_key(&address, &message, &value).await.unwrap() })
            }
            29 => {
                let record = |user: &str| DeviceListRecord {
                    user: user.to_owned(),
                    devices: vec![DeviceInfo::new(id, None)],
                    timestamp: at,
                    phash: None,
                    raw_id: Some(id),
                };
                both!(subject, model, place, s => s.update_device_lists(vec![record(user), record(other)]).await.unwrap());
                both!(subject, model, place, s => { if at > 80 { s.delete_devices(other).await.unwrap(); } s.get_devices(other).await.unwrap().map(|known| known.timestamp) });
            }
            30 => {
                let entry = TcTokenEntry {
                    token: value.clone(),
                    token_timestamp: at,
                    sender_timestamp: (id > 2).then_some(at),
                };
                match below(4) {
                    0 => both!(subject, model, place, s => s.put_tc_token(user, &entry).await.unwrap()),
                    1 => both!(subject, model, place, s => s.touch_tc_token_sender_timestamp(user, at).await.unwrap()),
                    2 => both!(subject, model, place, s => s.store_received_tc_token(user, &value, at).await.unwrap()),
                    _ => both!(subject, model, place, s => s.delete_tc_token(other).await.unwrap()),
                }
                both!(subject, model, place, s => format!("{:?}", s.get_tc_token(user).await.unwrap()));
            }
            31 => {
                both!(subject, model, place, s => s.delete_expired_tc_tokens(at, at / 2).await.unwrap());
                both!(subject, model, place, s => sorted(s.get_all_tc_token_jids().await.unwrap()));
            }
            32 => {
                both!(subject, model, place, s => s.store_sent_message(user, &message, &value).await.unwrap());
                both!(subject, model, place, s => s.take_sent_message(other, &message).await.unwrap());
                both!(subject, model, place, s => s.take_sent_message(other, &message).await.unwrap());
                let row = PendingInboundRow {
                    chat: user,
                    sender: &address,
                    id: &message,
                    message: &value,
                };
                both!(subject, model, place, s => s.store_pending_inbound_batch(&[row]).await.unwrap());
                both!(subject, model, place, s => s.get_pending_inbound(other, &address, &message).await.unwrap());
                let gone = PendingInboundKey {
                    chat: other,
                    sender: &address,
                    id: &message,
                };
                both!(subject, model, place, s => s.delete_pending_inbound_batch(&[gone]).await.unwrap());
                both!(subject, model, place, s => { s.put_group_metadata(user, &value).await.unwrap(); s.get_group_metadata(other).await.unwrap() });
            }
            _ => {
                let entry = |id: &str, expires_at, message_ts| MsgSecretEntry {
                    chat: user.into(),
                    sender: other.into(),
                    msg_id: id.into(),
                    secret: identity,
                    expires_at,
                    message_ts,
                };
                let entries = vec![
                    entry(&message, at, 0),
                    entry("twice", 0, at),
                    entry("twice", at, at / 2),
                ];
                both!(subject, model, place, s => s.put_msg_secrets(entries.clone()).await.unwrap());
                both!(subject, model, place, s => s.get_msg_secret_with_ts(other, user, &message).await.unwrap());
                both!(subject, model, place, s => s.get_msg_secret(user, other, "twice").await.unwrap());
            }
        }
    }
}

#[tokio::test]
async fn random_operations_give_what_the_clients_own_storage_gives() {
    for seed in 1..=12 {
        agree(seed, Vault::plain()).await;
    }
    agree(13, key(1)).await;
}

#[tokio::test]
async fn a_device_is_made_once_and_comes_back_as_it_was_saved() {
    let (store, owner) = stage().await;
    let mut one = backend(&store, owner, key(1));
    assert!(!one.exists().await.unwrap() && one.load().await.unwrap().is_none());
    one.create().await.unwrap();
    let made = one.load().await.unwrap().unwrap();
    one.create().await.unwrap();
    let shown = |device: &Device| serde_json::to_value(device).unwrap();
    assert_eq!(
        shown(&one.load().await.unwrap().unwrap()),
        shown(&made),
        "the second call keeps the identity"
    );
    let mut named = made.clone();
    named.push_name = "Sales".to_owned();
    one.save(&named).await.unwrap();
    let again = backend(&store, owner, key(1));
    assert_eq!(shown(&again.load().await.unwrap().unwrap()), shown(&named));
    one.wipe().await.unwrap();
    assert!(!again.exists().await.unwrap());
}

#[tokio::test]
async fn with_a_key_nothing_in_the_store_shows_and_another_key_is_a_clear_error() {
    let (store, owner) = stage().await;
    let one = backend(&store, owner, key(1));
    let mut device = Device::new();
    device.push_name = "a name to look for".to_owned();
    one.save(&device).await.unwrap();
    let rows = store
        .inner
        .scan_session(owner.device_id, b"", &PageRequest::first(10))
        .await
        .unwrap()
        .rows;
    let shows = |row: &[u8]| row.windows(6).any(|part| part == b"a name");
    assert!(rows.len() == 1 && !shows(&rows[0].value));
    for other in [key(2), Vault::plain()] {
        let error = backend(&store, owner, other).load().await.err().unwrap();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("key"), "{cause}");
    }
    let plain = backend(&store, owner, Vault::plain());
    plain.save(&device).await.unwrap();
    let rows = store
        .inner
        .scan_session(owner.device_id, b"", &PageRequest::first(10))
        .await
        .unwrap()
        .rows;
    assert!(shows(&rows[0].value), "the check finds what is not sealed");
}

#[tokio::test]
async fn a_node_that_lost_the_device_writes_no_session_key_and_hears_of_it() {
    let (store, owner) = stage().await;
    let late = backend(
        &store,
        SessionOwner {
            epoch: Epoch(owner.epoch.0 - 1),
            ..owner
        },
        Vault::plain(),
    );
    late.put_session("6012@s.whatsapp.net", b"session").await.unwrap_err();
    assert!(late.is_lost());
    late.lost().await;
    let one = backend(&store, owner, Vault::plain());
    one.put_session("6012@s.whatsapp.net", b"session").await.unwrap();
    assert!(!one.is_lost());
    store.inner.leave(owner.incarnation, crate::stage::NOW).await.unwrap();
    one.put_session("6012@s.whatsapp.net", b"other").await.unwrap_err();
    assert!(one.is_lost());
    assert_eq!(
        one.get_session("6012@s.whatsapp.net").await.unwrap().unwrap(),
        b"session".as_slice()
    );
}

#[tokio::test]
async fn batches_are_one_write_and_the_sweeps_of_a_client_none() {
    let (store, owner) = stage().await;
    let one = backend(&store, owner, Vault::plain());
    let sessions: Vec<(Arc<str>, Bytes)> = (0..50)
        .map(|at| (format!("{at}@lid").into(), Bytes::from_static(b"s")))
        .collect();
    one.put_sessions_batch(&sessions).await.unwrap();
    assert_eq!(store.since(), (0, 1));
    let keys: Vec<(u32, Bytes)> = (0..50).map(|id| (id, Bytes::from_static(b"k"))).collect();
    one.store_prekeys_batch(&keys, true).await.unwrap();
    one.mark_prekeys_uploaded(&[1, 2, 3]).await.unwrap();
    assert_eq!(store.since(), (0, 1));
    assert_eq!(
        one.load_prekeys_batch(&(0..50).collect::<Vec<_>>())
            .await
            .unwrap()
            .len(),
        50
    );
    one.has_signal_state_for_user("7").await.unwrap();
    assert_eq!(store.since(), (2, 0));
    one.delete_expired_sent_messages(i64::MAX).await.unwrap();
    one.delete_expired_msg_secrets(i64::MAX).await.unwrap();
    one.delete_expired_pending_inbound(i64::MAX).await.unwrap();
    assert_eq!(store.since(), (0, 0));
}

/// A secret of a message of its own.
fn secret(id: &str) -> MsgSecretEntry {
    MsgSecretEntry {
        chat: "1@s.whatsapp.net".into(),
        sender: "2@s.whatsapp.net".into(),
        msg_id: id.into(),
        secret: [7; 32],
        expires_at: 0,
        message_ts: 0,
    }
}

async fn has_secret(backend: &Backend, id: &str) -> bool {
    let entry = secret(id);
    let found = backend.get_msg_secret(&entry.chat, &entry.sender, id).await;
    found.unwrap().is_some()
}

#[tokio::test]
async fn secrets_of_messages_go_with_the_next_write_or_by_themselves_after_a_while() {
    let (store, owner) = stage().await;
    let (one, later) = (backend(&store, owner, key(1)), backend(&store, owner, key(1)));
    one.put_msg_secrets(vec![secret("a")]).await.unwrap();
    assert_eq!(store.since().1, 0, "it waits");
    assert!(has_secret(&one, "a").await && !has_secret(&later, "a").await);
    one.put_session("a@lid", b"s").await.unwrap();
    assert_eq!(store.since().1, 1, "it went along");
    assert!(has_secret(&later, "a").await);
    one.put_msg_secrets(vec![secret("b")]).await.unwrap();
    until("the secret to be written", async || {
        has_secret(&later, "b").await.then_some(())
    })
    .await;
    one.put_msg_secrets(vec![secret("c")]).await.unwrap();
    one.flush().await.unwrap();
    assert!(has_secret(&later, "c").await);
    let many = (0..100).map(|id| secret(&id.to_string())).collect();
    one.put_msg_secrets(many).await.unwrap();
    assert!(has_secret(&later, "99").await, "so many wait for nothing");
}

#[tokio::test]
async fn secrets_that_wait_when_a_session_is_wiped_are_not_written_into_the_next() {
    let (store, owner) = stage().await;
    let mut new = backend(&store, owner, key(1));
    let old = new.clone();
    old.put_msg_secrets(vec![secret("a")]).await.unwrap();
    new.wipe().await.unwrap();
    assert!(old.put_msg_secrets(vec![secret("b")]).await.is_err());
    new.put_session("a@lid", b"s").await.unwrap();
    new.flush().await.unwrap();
    for id in ["a", "b"] {
        assert!(!has_secret(&new, id).await, "{id}");
    }
}

#[tokio::test]
async fn what_ends_is_taken_by_the_sweep_of_the_store_and_what_does_not_stays() {
    let (store, owner) = stage().await;
    let one = backend(&store, owner, Vault::plain());
    one.store_sent_message("a@lid", "1", b"m").await.unwrap();
    one.store_pending_inbound("a@lid", "a@lid", "1", b"m").await.unwrap();
    one.put_session("a@lid", b"s").await.unwrap();
    let far = wa_core::time::Timestamp::FAR_FUTURE;
    assert_eq!(
        store
            .inner
            .sweep_sessions(
                crate::stage::NOW.minus(std::time::Duration::from_secs(86_400 * 3_000)),
                100
            )
            .await
            .unwrap(),
        0
    );
    assert_eq!(store.inner.sweep_sessions(far, 100).await.unwrap(), 2);
    assert!(one.take_sent_message("a@lid", "1").await.unwrap().is_none());
    assert!(one.get_session("a@lid").await.unwrap().is_some());
}
