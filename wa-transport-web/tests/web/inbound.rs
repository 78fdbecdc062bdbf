//! What people write reaches the sink, whatever the store does meanwhile and whatever they write.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use wa_core::domain::device::LinkState;
use wa_core::transport::{Linkable as _, TransportEvent};
use whatsapp_rust::prelude::{MessageBuilderExt, wa};
use whatsapp_rust::{Jid, SendOptions};

use crate::rig::{OWN, Rig, options};
use crate::town::until;

const PERSON: &str = "60120000001";

/// Waits for a text of somebody.
async fn written(rig: &Rig, text: &str) {
    rig.heard
        .wait_from(0, &format!("{text:.20}"), |_, event| match event {
            TransportEvent::Inbound(message) if message.text == text => Some(()),
            _ => None,
        })
        .await;
}

/// The ids under which a text of somebody came, of which whoever takes messages counts each once. A message may come again when the
/// process ends before it is written down that its copy is not needed any more.
fn ids(rig: &Rig, text: &str) -> HashSet<String> {
    let id = |event: &TransportEvent| match event {
        TransportEvent::Inbound(message) if message.text == text => Some(message.provider_id.as_str().to_owned()),
        _ => None,
    };
    rig.heard.events().iter().filter_map(id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_not_lost_when_the_store_fails_as_it_comes() {
    // Once, and for a few seconds whatever is written.
    for (namespace, failures) in [("pi", 1), ("", 8)] {
        let mut rig = Rig::linked().await;
        let person = rig.server.person(PERSON, "Aminah").await.unwrap();
        person.connect().await.unwrap();
        person.send_text(OWN, "hello").await.unwrap();
        written(&rig, "hello").await;
        rig.store.fail(namespace, failures);
        person.send_text(OWN, "STOP").await.unwrap();
        written(&rig, "STOP").await;
        assert!(rig.store.failed() > 0, "{namespace:?}");
        // A process after this one is not told again.
        until("the store to work", async || {
            (rig.store.failed() == failures).then_some(())
        })
        .await;
        rig.restart(options());
        person.send_text(OWN, "still there?").await.unwrap();
        written(&rig, "still there?").await;
        assert_eq!(ids(&rig, "STOP").len(), 1, "{namespace:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_the_sink_did_not_take_is_taken_on_the_same_connection_once_it_can_be() {
    let rig = Rig::linked().await;
    let person = rig.server.person(PERSON, "Aminah").await.unwrap();
    person.connect().await.unwrap();
    rig.heard.refusing.store(true, Ordering::SeqCst);
    person.send_text(OWN, "STOP").await.unwrap();
    // Six times by whoever brings it, then by the session.
    until("the sink to be asked again", async || {
        (rig.heard.refusals.load(Ordering::SeqCst) > 6).then_some(())
    })
    .await;
    rig.heard.refusing.store(false, Ordering::SeqCst);
    written(&rig, "STOP").await;
    assert_eq!(rig.server.connects(OWN).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_stored_as_it_is_stops_no_other() {
    let mut rig = Rig::linked().await;
    let person = rig.server.person(PERSON, "Aminah").await.unwrap();
    person.connect().await.unwrap();
    // They come together when the device is back.
    rig.transport.host(rig.owner.incarnation, Vec::new());
    let device = Jid::pn_device(OWN, 1);
    until("the device to be away", async || {
        (!rig.server.is_active(&device)).then_some(())
    })
    .await;
    let client = person.client().await.unwrap();
    let huge = "z".repeat(2 * 1024 * 1024);
    for (id, text) in [("A".repeat(600), "long id"), ("3EB0AA".to_owned(), huge.as_str())] {
        let options = SendOptions::default().with_message_id(id);
        let sent = client.send_message_with_options(Jid::pn(OWN), wa::Message::text(text), options);
        sent.await.unwrap();
    }
    person.send_text(OWN, "STOP").await.unwrap();
    let from = rig.heard.len();
    rig.restart(options());
    rig.heard.state_from(from, rig.owner.device_id, LinkState::Ready).await;
    written(&rig, "STOP").await;
    written(&rig, "long id").await;
    written(&rig, &huge[..65_536]).await;
}
