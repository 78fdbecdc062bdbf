//! Messages, receipts, backlog.

use std::sync::Arc;

use wa_loopback::{Answer, Handshake, Seen};
use whatsapp_rust::wacore::store::InMemoryBackend;

use crate::support::{LIMIT, Watched, linked, server};

#[tokio::test]
async fn a_seeded_device_connects_with_the_short_handshake_and_texts_go_both_ways() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;

    let id = device.send("60111111111", "selamat pagi").await;
    let received = person.next_message(LIMIT).await.unwrap();
    assert_eq!(
        (received.id.as_str(), received.text()),
        (id.as_str(), Some("selamat pagi"))
    );
    assert_eq!(device.answer(&id).await, None);
    device.receipt(&id, "Delivered").await;
    person.mark_read(&received).await.unwrap();
    device.receipt(&id, "Read").await;

    person.reply(&received, "pagi juga").await.unwrap();
    let info = device.hears("pagi juga").await;
    assert!(!info.source.is_from_me && !info.is_offline);

    let shaken: Vec<Handshake> = server
        .journal()
        .into_iter()
        .filter_map(|record| match record.seen {
            Seen::Connected { handshake, .. } => Some(handshake),
            _ => None,
        })
        .collect();
    assert_eq!(shaken, [Handshake::Ik, Handshake::Ik]);
    assert_eq!(server.answers(&id), [Answer::Acked]);
}

#[tokio::test]
async fn what_is_sent_to_a_phone_that_is_offline_waits_for_it_in_order() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    let device = linked(&server, "60122222222").await;
    for text in ["satu", "dua", "tiga"] {
        let id = device.send("60111111111", text).await;
        assert_eq!(device.answer(&id).await, None);
    }
    assert!(server.delivered_to("60111111111").iter().all(|message| !message.online));
    assert!(server.waiting_for(&person.jid()) >= 3);

    person.connect().await.unwrap();
    for text in ["satu", "dua", "tiga"] {
        let message = person.next_message(LIMIT).await.unwrap();
        assert_eq!(message.text(), Some(text));
        assert!(message.offline);
    }
}

#[tokio::test]
async fn receipts_and_replies_wait_for_a_device_that_restarts_from_its_store() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let backend = Arc::new(InMemoryBackend::new());
    let jid = server.seed_device("60122222222", &*backend).await.unwrap();
    let device = Watched::start(&server, backend.clone()).await;
    device.connected().await;
    let id = device.send("60111111111", "halo").await;
    device.receipt(&id, "Delivered").await;
    device.handle.shutdown().await;

    let received = person.next_message(LIMIT).await.unwrap();
    person.mark_read(&received).await.unwrap();
    person.reply(&received, "ya?").await.unwrap();
    server
        .wait(LIMIT, "the reply to be put down", |record| match &record.seen {
            Seen::Delivered(message) if message.to == jid => Some(assert!(!message.online)),
            _ => None,
        })
        .await
        .unwrap();

    let device = Watched::start(&server, backend).await;
    device.connected().await;
    assert!(device.hears("ya?").await.is_offline);
    device.receipt(&id, "Read").await;
}

#[tokio::test]
async fn an_account_without_a_client_acknowledges_nothing_but_can_be_written_to() {
    let server = server();
    server.add_account("60133333333", "Nobody");
    let device = linked(&server, "60122222222").await;
    let id = device.send("60133333333", "halo").await;
    assert_eq!(device.answer(&id).await, None);
    assert_eq!(server.delivered_to("60133333333").len(), 1);
}

#[tokio::test]
async fn a_number_that_is_not_on_whatsapp_is_told_apart() {
    let server = server();
    server.add_account("60133333333", "Nobody");
    let device = linked(&server, "60122222222").await;
    let numbers = ["60133333333", "60144444444"].map(whatsapp_rust::Jid::pn);
    let answers = device.client.contacts().is_on_whatsapp(&numbers).await.unwrap();
    let known: Vec<(String, bool)> = answers
        .iter()
        .map(|answer| (answer.jid.user.to_string(), answer.is_registered))
        .collect();
    assert_eq!(
        known,
        [("60133333333".to_owned(), true), ("60144444444".to_owned(), false)]
    );
    assert_eq!(
        answers[0].lid.as_ref().map(|lid| lid.user.clone()),
        Some(server.lid("60133333333").user)
    );
}

#[tokio::test]
async fn a_message_that_comes_again_is_acknowledged_and_not_delivered_again() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    let id = device.send("60111111111", "sekali").await;
    person.next_message(LIMIT).await.unwrap();
    device.send_as(&id, "60111111111", "sekali").await;
    server
        .wait(LIMIT, "the second copy", |record| match &record.seen {
            Seen::Sent(message) if message.answer == Answer::Repeated => Some(()),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(server.delivered_to("60111111111").len(), 1);
}
