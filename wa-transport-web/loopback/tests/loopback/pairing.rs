//! Linking a client, by QR code and by pairing code.

use std::sync::Arc;

use wa_loopback::{Handshake, Loopback, Options, PairingError, PastChat, Seen};
use whatsapp_rust::pair_code::PairCodeOptions;
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

#[tokio::test]
async fn a_client_is_linked_by_a_pairing_code_and_learns_the_old_chats() {
    let server = server();
    let owner = server.person("60122222222", "Kedai").await.unwrap();
    owner.connect().await.unwrap();
    let client = Watched::start(&server, Arc::new(InMemoryBackend::new())).await;
    qr(&client).await;
    let options = PairCodeOptions {
        phone_number: "60122222222".to_owned(),
        ..Default::default()
    };
    let code = client.client.pair_with_code(options).await.unwrap();

    let jid = owner.enter_code(&code).await.unwrap();
    client.connected().await;
    let chat = PastChat::with("60111111111")
        .they_wrote("A1", 1_700_000_000, "berapa?")
        .i_wrote("A2", 1_700_000_060, "RM5");
    owner.share_history(&jid, vec![chat]).await.unwrap();
    let texts = client
        .wait("the old chats", |event| match event {
            Event::HistorySync(history) => history.get().map(|history| {
                let messages = history.conversations[0].messages.iter();
                messages
                    .filter_map(|message| message.message.as_option()?.message.as_option()?.conversation.clone())
                    .collect::<Vec<String>>()
            }),
            _ => None,
        })
        .await;
    assert_eq!(texts, ["berapa?", "RM5"]);
}

#[tokio::test]
async fn a_wrong_pairing_code_links_nothing() {
    let server = server();
    let client = Watched::start(&server, Arc::new(InMemoryBackend::new())).await;
    qr(&client).await;
    let options = PairCodeOptions {
        phone_number: "60122222222".to_owned(),
        ..Default::default()
    };
    let code = client.client.pair_with_code(options).await.unwrap();
    let wrong = if code.starts_with('A') { "BBBBBBBB" } else { "AAAAAAAA" };
    assert_eq!(
        server.enter_code("60133333333", &code).await,
        Err(PairingError::Expired)
    );
    assert_eq!(
        server.enter_code("60122222222", wrong).await,
        Err(PairingError::Refused)
    );
    assert_eq!(client.count(|event| matches!(event, Event::PairSuccess(_))), 0);
}

#[tokio::test]
async fn two_clients_that_are_linked_at_the_same_time_do_not_swap() {
    let server = server();
    let first = Watched::start(&server, Arc::new(InMemoryBackend::new())).await;
    let second = Watched::start(&server, Arc::new(InMemoryBackend::new())).await;
    let (first_qr, second_qr) = (qr(&first).await, qr(&second).await);
    let (second_jid, first_jid) = tokio::join!(
        server.scan("60122222222", &second_qr),
        server.scan("60111111111", &first_qr)
    );
    let told = |client: &Watched| {
        let client = client.client.clone();
        async move { client.pn().map(|jid| jid.to_string()) }
    };
    for client in [&first, &second] {
        client
            .wait("the client to be linked", |event| {
                matches!(event, Event::PairSuccess(_)).then_some(())
            })
            .await;
    }
    assert_eq!(told(&first).await, Some(first_jid.unwrap().to_string()));
    assert_eq!(told(&second).await, Some(second_jid.unwrap().to_string()));
}

#[tokio::test]
async fn a_client_that_was_removed_is_linked_again_as_another_device() {
    let server = server();
    let first = Watched::start(&server, Arc::new(InMemoryBackend::new())).await;
    let jid = server.scan("60122222222", &qr(&first).await).await.unwrap();
    server.remove_device(&jid);
    let second = Watched::start(&server, Arc::new(InMemoryBackend::new())).await;
    let again = server.scan("60122222222", &qr(&second).await).await.unwrap();
    assert_eq!((jid.device, again.device), (1, 2));
}

#[tokio::test]
async fn a_client_that_remembers_another_server_falls_back_and_is_refused_as_a_stranger() {
    let mut options = Options::new();
    options.seed = 2;
    let elsewhere = Loopback::start(options);
    let backend = Arc::new(InMemoryBackend::new());
    elsewhere.seed_device("60122222222", &*backend).await.unwrap();
    let mut options = Options::new();
    options.admit_seeded = true;
    let server = Loopback::start(options);
    let stranger = Watched::start(&server, backend).await;
    stranger
        .wait("the stranger to be refused", |event| {
            matches!(event, Event::LoggedOut(_)).then_some(())
        })
        .await;
    assert!(server.connects("60122222222").is_empty());
}
