//! Linking a client, by QR code and by pairing code.

use std::sync::Arc;

use wa_loopback::{Handshake, PairingError, Seen};
use whatsapp_rust::types::events::Event;
use whatsapp_rust::wacore::store::InMemoryBackend;

use crate::support::{LIMIT, Watched, server};

async fn qr(client: &Watched) -> String {
    client
        .wait("a QR code", |event| match event {
            Event::PairingQrCode(qr) => Some(qr.code.clone()),
            _ => None,
        })
        .await
}

#[tokio::test]
async fn a_client_is_linked_by_qr_code_and_comes_back_without_one() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let owner = server.person("60122222222", "Kedai").await.unwrap();
    owner.connect().await.unwrap();

    let backend = Arc::new(InMemoryBackend::new());
    let client = Watched::start(&server, backend.clone()).await;
    let jid = owner.scan(&qr(&client).await).await.unwrap();
    client
        .wait("the client to know that it is linked", |event| {
            matches!(event, Event::PairSuccess(_)).then_some(())
        })
        .await;
    client.connected().await;
    let id = client.send("60111111111", "dari kedai").await;
    assert_eq!(person.next_message(LIMIT).await.unwrap().text(), Some("dari kedai"));
    client.receipt(&id, "Delivered").await;
    assert_eq!(owner.next_message(LIMIT).await.unwrap().text(), Some("dari kedai"));
    client.handle.shutdown().await;

    let client = Watched::start(&server, backend).await;
    client.connected().await;
    let shaken: Vec<Handshake> = server
        .journal()
        .into_iter()
        .filter_map(|record| match record.seen {
            Seen::Connected { device, handshake } if device == jid => Some(handshake),
            _ => None,
        })
        .collect();
    assert_eq!(shaken, [Handshake::Xx, Handshake::Ik]);
}

#[tokio::test]
async fn a_code_of_nobody_is_refused() {
    let server = server();
    assert_eq!(
        server.scan("60122222222", "no code").await,
        Err(PairingError::Unreadable)
    );
    let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    let stale = format!("loopback-9,{key},{key},{key},1");
    assert_eq!(server.scan("60122222222", &stale).await, Err(PairingError::Expired));
}
