//! What a device tells of its connection, where its client says nothing of it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;
use wa_core::domain::device::LinkState;
use wa_core::time::Clock;
use wa_core::transport::{LinkStep, Linkable as _, RestrictionScope, TransportEvent};
use wa_loopback::{LoginFault, Rule, StreamFault};
use whatsapp_rust::Jid;

use crate::rig::{OWN, Rig, options};
use crate::town::until;

fn own() -> Jid {
    Jid::pn_device(OWN, 1)
}

/// Waits until the client has tried so often that it waits for long before it tries again: 8 s and more.
async fn until_it_rests(rig: &Rig) {
    until("the client to rest", async || {
        (rig.line.wanted.load(Ordering::SeqCst) >= 6).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_ends_without_a_word_of_the_client_is_told_as_lost_and_as_there_again() {
    let rig = Rig::linked().await;
    let from = rig.heard.len();
    rig.line.close();
    // The client opens another at once, which fails; it says nothing of either.
    assert!(rig.server.end_stream(&own(), StreamFault::Code(515)));
    let device = rig.owner.device_id;
    rig.heard.state_from(from, device, LinkState::Disconnected).await;
    let from = rig.heard.len();
    rig.line.open();
    rig.heard.state_from(from, device, LinkState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_opens_a_connection_whose_client_would_wait_for_long() {
    let rig = Rig::linked().await;
    rig.line.close();
    assert!(rig.server.end_stream(&own(), StreamFault::Cut));
    until_it_rests(&rig).await;
    rig.line.open();
    let start = Instant::now();
    let step = rig.transport.refresh(&rig.context()).await.unwrap();
    assert_eq!(step, LinkStep::State(LinkState::Ready));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_while_linking_brings_the_code_to_who_waits_for_it() {
    let rig = Rig::new().await;
    rig.line.close();
    let context = rig.context();
    let linking = rig.transport.link(&context, None);
    let refreshed = async {
        until_it_rests(&rig).await;
        rig.line.open();
        let start = Instant::now();
        let step = rig.transport.refresh(&rig.context()).await.unwrap();
        assert_eq!(step, LinkStep::State(LinkState::QrReady));
        start
    };
    let (step, start) = futures::join!(linking, refreshed);
    assert!(matches!(step.unwrap(), LinkStep::Qr { .. }));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_beyond_the_limit_for_a_code_is_told_so_at_once() {
    let rig = Rig::new().await;
    rig.line.close();
    let context = rig.context();
    // The orders of a device have a limit of their own; they are taken one after the other.
    let ask = || async { rig.transport.link(&context, None).await };
    let mut asked = Vec::new();
    let refused = until("somebody to be refused", async || {
        let mut one = Box::pin(ask());
        match tokio::time::timeout(Duration::from_millis(20), &mut one).await {
            Ok(answer) => Some((asked.len(), answer.unwrap_err())),
            Err(_) => {
                asked.push(one);
                None
            }
        }
    })
    .await;
    assert_eq!(refused.0, 64);
    assert!(refused.1.to_string().contains("too many"), "{}", refused.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_of_a_device_that_is_online_tells_so_again() {
    let rig = Rig::linked().await;
    let from = rig.heard.len();
    let step = rig.transport.refresh(&rig.context()).await.unwrap();
    assert_eq!(step, LinkStep::State(LinkState::Ready));
    rig.heard.state_from(from, rig.owner.device_id, LinkState::Ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_word_does_not_count_any_more_cuts_the_connection() {
    let rig = Rig::linked().await;
    rig.heard.fenced.store(true, Ordering::SeqCst);
    // What it tells is refused, and the connection may be cut before this is answered.
    let _ = rig.transport.refresh(&rig.context()).await;
    until("the connection to be cut", async || {
        (!rig.server.is_active(&own())).then_some(())
    })
    .await;
    rig.transport.refresh(&rig.context()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ban_without_an_end_lasts_a_minute_at_least() {
    let rig = Rig::linked().await;
    rig.server
        .fault(Rule::login(LoginFault::banned(101, 0)).of(OWN).always());
    let before = rig.clock.wall();
    assert!(rig.server.end_stream(&own(), StreamFault::Cut));
    let until_at = rig
        .heard
        .wait_from(0, "the ban", |_, event| match event {
            TransportEvent::Restriction {
                scope: RestrictionScope::All,
                until: Some(until),
                ..
            } => Some(*until),
            _ => None,
        })
        .await;
    assert!(until_at >= before + Duration::from_secs(60), "{until_at}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_whose_client_gave_up_to_save_it_gets_a_new_one_once_the_store_works() {
    let rig = Rig::linked_with(options()).await;
    rig.store.fail("dv", u64::MAX);
    // Each connection changes the device.
    let mut connects = rig.server.connects(OWN).len();
    // It gives up after ten failures; those beyond are of who looks whether the store works again.
    for _ in 0..40 {
        if rig.store.failed() >= 12 {
            break;
        }
        let from = rig.heard.len();
        assert!(rig.server.end_stream(&own(), StreamFault::Code(515)));
        rig.heard.state_from(from, rig.owner.device_id, LinkState::Ready).await;
        connects = rig.server.connects(OWN).len();
    }
    let from = rig.heard.len();
    rig.store.fail("dv", 0);
    rig.heard.state_from(from, rig.owner.device_id, LinkState::Ready).await;
    assert!(
        rig.server.connects(OWN).len() > connects,
        "nobody else ended the connection"
    );
}
