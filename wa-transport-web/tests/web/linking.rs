//! From the first code to the last word of a link.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::LinkState;
use wa_core::id::DeviceId;
use wa_core::store::{LeaseStore, PageRequest, SessionStore};
use wa_core::time::SystemClock;
use wa_core::transport::{HostedDevice, LinkStep, Linkable, MessageRef, Transport, TransportEvent};
use wa_loopback::{LoginFault, Rule, Seen, StreamFault};
use wa_transport_web::backend::Backend;
use wa_transport_web::vault::Vault;
use wa_transport_web::whatsapp_rust::traits::DeviceStore;

use crate::rig::{LIMIT, OWN, Rig, options, phone};
use crate::stage::NOW;

async fn values(rig: &Rig) -> usize {
    let page = PageRequest::first(1_000);
    rig.store
        .inner
        .scan_session(rig.owner.device_id, b"", &page)
        .await
        .unwrap()
        .rows
        .len()
}

#[tokio::test(flavor = "multi_thread")]
async fn linked_by_qr_back_after_a_restart_logged_out_and_linked_again_by_a_code() {
    let mut rig = Rig::new().await;
    let device = rig.owner.device_id;
    let person = rig.server.person(OWN, "Sales").await.unwrap();
    person.connect().await.unwrap();
    let qr = rig.qr().await;
    assert_eq!(rig.qr().await, qr, "asking again shows the same code");
    rig.heard.state(device, LinkState::QrReady).await;
    person.scan(&qr).await.unwrap();
    let own = rig
        .heard
        .wait_from(0, "the link", |_, event| match event {
            TransportEvent::Link {
                state: LinkState::Ready,
                phone,
                jid,
                ..
            } => Some(phone.zip(jid.clone())),
            _ => None,
        })
        .await;
    assert_eq!(own, Some((phone(OWN), format!("{OWN}:1@s.whatsapp.net"))));
    assert_eq!(
        rig.transport.link(&rig.context(), None).await.unwrap(),
        LinkStep::State(LinkState::Ready)
    );

    rig.transport.close(&rig.context()).await;
    let heard = rig.heard.len();
    rig.restart(options());
    rig.heard.state_from(heard, device, LinkState::Ready).await;

    rig.transport.logout(&rig.context()).await.unwrap();
    let reason = rig.heard.state(device, LinkState::LoggedOut).await.unwrap();
    assert!(reason.contains("Link the device again"), "{reason}");
    assert_eq!(values(&rig).await, 0, "the session is wiped");

    let heard = rig.heard.len();
    let LinkStep::PairCode { code, .. } = rig.transport.link(&rig.context(), Some(&phone(OWN))).await.unwrap() else {
        panic!("no code");
    };
    assert_eq!(code.len(), 8);
    person.enter_code(&code).await.unwrap();
    rig.heard.state_from(heard, device, LinkState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_linked_before_comes_online_by_itself() {
    let rig = Rig::linked().await;
    assert_eq!(
        rig.transport.refresh(&rig.context()).await.unwrap(),
        LinkStep::State(LinkState::Ready)
    );
    let report = rig.transport.as_probe().unwrap().probe(&rig.context()).await.unwrap();
    assert!(report.connected);
    assert_eq!(report.phone, Some(phone(OWN)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_was_disconnected_stays_so_until_it_is_connected_with_the_session_it_had() {
    let mut rig = Rig::linked().await;
    let own = rig.backend().load().await.unwrap().unwrap().pn.unwrap();
    rig.transport.disconnect(&rig.context()).await.unwrap();
    let (connects, heard) = (rig.server.connects(OWN).len(), rig.heard.len());
    rig.restart(options());
    // Answered after the device has begun.
    rig.transport.disconnect(&rig.context()).await.unwrap();
    // The server notices a closed connection a moment later.
    let gone = async {
        while rig.server.is_active(&own) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone)
        .await
        .expect("the connection is closed");
    assert_eq!(rig.server.connects(OWN).len(), connects);
    let reason = rig
        .heard
        .state_from(heard, rig.owner.device_id, LinkState::Disconnected)
        .await;
    assert!(reason.is_some_and(|reason| reason.contains("Connect it again")));
    // Whoever asks for a code gets the device back, not another link.
    let step = rig.transport.link(&rig.context(), None).await.unwrap();
    assert_eq!(step, LinkStep::State(LinkState::Ready));
    assert_eq!(rig.backend().load().await.unwrap().unwrap().pn, Some(own));
    rig.restart(options());
    let heard = rig.heard.len();
    rig.heard.state_from(heard, rig.owner.device_id, LinkState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_was_begun_can_be_stopped_and_begun_anew() {
    let rig = Rig::new().await;
    let first = rig.qr().await;
    rig.transport.disconnect(&rig.context()).await.unwrap();
    rig.heard.state(rig.owner.device_id, LinkState::Initializing).await;
    assert_ne!(rig.qr().await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_removed_on_the_phone_is_logged_out_and_its_session_gone() {
    let rig = Rig::linked().await;
    let own = rig.backend().load().await.unwrap().unwrap().pn.unwrap();
    rig.server.remove_device(&own);
    let reason = rig
        .heard
        .state(rig.owner.device_id, LinkState::LoggedOut)
        .await
        .unwrap();
    assert!(reason.contains("removed on the phone"), "{reason}");
    assert_eq!(values(&rig).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_use_elsewhere_is_an_error_that_says_so_and_keeps_the_session() {
    let rig = Rig::linked().await;
    let own = rig.backend().load().await.unwrap().unwrap().pn.unwrap();
    assert!(rig.server.end_stream(&own, StreamFault::Replaced));
    let reason = rig.heard.state(rig.owner.device_id, LinkState::Error).await.unwrap();
    assert!(reason.contains("somewhere else"), "{reason}");
    assert!(values(&rig).await > 0);
    let heard = rig.heard.len();
    assert_eq!(
        rig.transport.refresh(&rig.context()).await.unwrap(),
        LinkStep::State(LinkState::Ready)
    );
    rig.heard.state_from(heard, rig.owner.device_id, LinkState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refused_login_is_a_state_that_a_person_understands() {
    for (fault, state, says) in [
        (LoginFault::reason(405), LinkState::Error, "newer version"),
        (LoginFault::reason(403), LinkState::LoggedOut, "locked"),
        (LoginFault::reason(401), LinkState::LoggedOut, "removed"),
        (LoginFault::reason(409), LinkState::Error, "409"),
        (
            LoginFault::banned(101, 3_600),
            LinkState::Restricted,
            "banned the account until",
        ),
    ] {
        let mut rig = Rig::new().await;
        rig.seed(OWN).await;
        rig.server.fault(Rule::login(fault.clone()));
        rig.restart(options());
        let reason = rig.heard.state(rig.owner.device_id, state).await.unwrap();
        assert!(reason.contains(says), "{fault:?}: {reason}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_refused_is_tried_again_once_in_a_while_until_it_is_let_in() {
    let mut often = options();
    often.retry_every = Duration::from_millis(400);
    let mut rig = Rig::with(often.clone()).await;
    rig.seed(OWN).await;
    let rule = rig.server.fault(Rule::login(LoginFault::reason(409)).times(3));
    let before = rig.server.journal_end();
    rig.restart(often.clone());
    rig.heard.state(rig.owner.device_id, LinkState::Ready).await;
    assert_eq!(rig.server.fired(rule), 3);
    let journal = rig.server.journal_from(before);
    let tries = journal
        .iter()
        .filter(|record| matches!(record.seen, Seen::Refused { .. } | Seen::Connected { .. }));
    let tries: Vec<i64> = tries.map(|record| record.at_ms).collect();
    let gaps: Vec<i64> = tries.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let least = i64::try_from(often.retry_every.as_millis()).unwrap();
    assert_eq!(gaps.len(), 3, "{gaps:?}");
    assert!(gaps.iter().all(|gap| *gap >= least), "{gaps:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_passkey_that_is_asked_for_is_an_error_that_says_so_and_another_link_can_be_begun() {
    let rig = Rig::new().await;
    let device = rig.owner.device_id;
    let person = rig.server.person(OWN, "Sales").await.unwrap();
    person.connect().await.unwrap();
    let first = rig.qr().await;
    rig.server.demand_passkey(&first).unwrap();
    let reason = rig.heard.state(device, LinkState::Error).await.unwrap();
    assert!(reason.contains("passkey"), "{reason}");
    assert_eq!(values(&rig).await, 0, "nothing is left of it");
    let heard = rig.heard.len();
    let second = rig.qr().await;
    assert_ne!(second, first);
    person.scan(&second).await.unwrap();
    rig.heard.state_from(heard, device, LinkState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_loses_the_device_is_cut_off_and_writes_nothing() {
    let rig = Rig::linked().await;
    let own = rig.backend().load().await.unwrap().unwrap().pn.unwrap();
    // Another node takes over; this one does not know of it yet.
    rig.store.inner.leave(rig.owner.incarnation, NOW).await.unwrap();
    let before = values(&rig).await;
    // What it would send needs keys that it may not write any more: that is refused before a byte goes out, and tells it.
    rig.server.person("60120000009", "Stranger").await.unwrap();
    let late = rig.message(1, "60120000009", "late");
    rig.transport.send(&rig.context(), &late).await.unwrap_err();
    let gone = async {
        while rig.server.is_active(&own) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the connection is cut");
    assert_eq!(values(&rig).await, before);
    let late = rig.message(2, "60120000009", "later");
    rig.transport.send(&rig.context(), &late).await.unwrap_err();
    assert!(rig.server.sent().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_named_no_more_is_cut_at_once() {
    let rig = Rig::linked().await;
    let own = rig.backend().load().await.unwrap().unwrap().pn.unwrap();
    rig.host(&[]);
    let gone = async {
        while rig.server.is_active(&own) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the connection is cut");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_device_is_unlinked_and_wiped() {
    let rig = Rig::linked().await;
    let device = rig.context().device;
    let deleted = HostedDevice {
        device,
        epoch: rig.owner.epoch,
        deleted: true,
    };
    rig.transport.host(rig.owner.incarnation, vec![deleted]);
    let gone = async {
        while values(&rig).await > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("the session is wiped");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_acknowledged_only_when_it_is_committed() {
    let mut rig = Rig::linked().await;
    let person = rig.server.person("60120000003", "Ali").await.unwrap();
    person.connect().await.unwrap();
    rig.heard.refusing.store(true, Ordering::SeqCst);
    person.send_text(OWN, "STOP").await.unwrap();
    rig.heard.until_refused().await;
    rig.heard.refusing.store(false, Ordering::SeqCst);
    rig.restart(options());
    let message = rig
        .heard
        .wait_from(0, "the message", |_, event| match event {
            TransportEvent::Inbound(message) => Some(message.clone()),
            _ => None,
        })
        .await;
    assert_eq!(
        (message.text.as_str(), message.peer, message.from_me),
        ("STOP", phone("60120000003"), false)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_acknowledged_only_when_it_is_committed() {
    let mut rig = Rig::linked().await;
    let person = rig.server.person("60120000003", "Ali").await.unwrap();
    person.connect().await.unwrap();
    rig.heard.refusing.store(true, Ordering::SeqCst);
    let message = rig.message(1, "60120000003", "hello");
    rig.send(&message).await.unwrap();
    person.next_message(LIMIT).await.unwrap();
    rig.heard.until_refused().await;
    // The process dies before the store takes it.
    rig.restart(options());
    rig.heard.refusing.store(false, Ordering::SeqCst);
    let told = rig
        .heard
        .wait_from(0, "the receipt", |_, event| match event {
            TransportEvent::Receipt {
                message: MessageRef::Ours(id),
                delivery,
                ..
            } => Some((id.clone(), *delivery)),
            _ => None,
        })
        .await;
    assert_eq!(told, (message.transport_message_id, Delivery::Delivered));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_own_phone_writes_is_told_as_such() {
    let rig = Rig::linked().await;
    let own = rig.server.person(OWN, "Sales").await.unwrap();
    own.connect().await.unwrap();
    rig.server.add_account("60120000004", "Siti");
    own.send_text("60120000004", "I take over").await.unwrap();
    let message = rig
        .heard
        .wait_from(0, "the message", |_, event| match event {
            TransportEvent::Inbound(message) => Some(message.clone()),
            _ => None,
        })
        .await;
    assert!(message.from_me);
    assert_eq!(
        (message.text.as_str(), message.peer),
        ("I take over", phone("60120000004"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_all_lose_their_connections_wait_for_their_turns_to_come_back() {
    let mut options = options();
    options.connects_per_second = 1;
    options.turn_within = Duration::ZERO;
    let mut rig = Rig::with(options.clone()).await;
    let owners = [rig.owner, rig.another(2).await, rig.another(3).await];
    let numbers = ["60110000001", "60110000002", "60110000003"];
    let mut devices = Vec::new();
    for (owner, number) in owners.into_iter().zip(numbers) {
        let vault = Arc::new(Vault::plain());
        let backend = Backend::new(rig.store.clone(), vault, Arc::new(SystemClock::new()), owner);
        devices.push(rig.server.seed_device(number, &backend).await.unwrap());
    }
    rig.restart(options);
    rig.host(&owners);
    for owner in owners {
        rig.heard.state(owner.device_id, LinkState::Ready).await;
    }
    let cut = rig.heard.len();
    for device in &devices {
        assert!(rig.server.end_stream(device, StreamFault::Cut));
    }
    let waits = |_: &DeviceId, event: &TransportEvent| match event {
        TransportEvent::Link { reason, .. } => reason
            .as_ref()
            .filter(|why| why.contains("after those of other"))
            .cloned(),
        _ => None,
    };
    rig.heard
        .wait_from(cut, "a device that waits for its turn", waits)
        .await;
    for (owner, number) in owners.into_iter().zip(numbers) {
        rig.heard.state_from(cut, owner.device_id, LinkState::Ready).await;
        assert_eq!(
            rig.server.connects(number).len(),
            2,
            "nobody connects more often than needed"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_that_link_at_the_same_time_are_not_mixed_up() {
    let rig = Rig::new().await;
    let other = rig.another(2).await;
    rig.host(&[rig.owner, other]);
    let numbers = ["60110000001", "60110000002"];
    let (first, second) = (rig.context(), rig.context_of(&other));
    let (one, two) = tokio::join!(rig.transport.link(&first, None), rig.transport.link(&second, None));
    for (number, step) in numbers.iter().zip([one, two]) {
        let LinkStep::Qr { payload, .. } = step.unwrap() else {
            panic!("no code")
        };
        let person = rig.server.person(number, "Sales").await.unwrap();
        person.connect().await.unwrap();
        person.scan(&payload).await.unwrap();
    }
    for (number, device) in numbers.iter().zip([rig.owner.device_id, other.device_id]) {
        let own = rig
            .heard
            .wait_from(0, "the link", |of, event| match event {
                TransportEvent::Link {
                    state: LinkState::Ready,
                    phone,
                    ..
                } if *of == device => Some(*phone),
                _ => None,
            })
            .await;
        assert_eq!(own, Some(phone(number)));
    }
}
