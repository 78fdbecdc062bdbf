//! Messages, receipts, backlog.

use std::sync::Arc;

use wa_loopback::{Answer, Handshake, Loopback, Options, Seen};
use whatsapp_rust::types::events::Event;
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Jid, SendOptions};

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
    let online = server
        .wait(LIMIT, "the reply to be put down", |record| match &record.seen {
            Seen::Delivered(message) if message.to == jid => Some(message.online),
            _ => None,
        })
        .await
        .unwrap();
    assert!(!online);

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
    let numbers = ["60133333333", "60144444444"].map(Jid::pn);
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

#[tokio::test]
async fn accounts_that_address_by_lid_are_written_to_and_answer() {
    let mut options = Options::new();
    options.lid_migrated = true;
    let server = Loopback::start(options);
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    let lid = server.lid("60111111111");
    let message = wa::Message {
        conversation: Some("dengan LID".to_owned()),
        ..Default::default()
    };
    let sent = device
        .client
        .send_message_with_options(lid, message, SendOptions::default())
        .await
        .unwrap();
    let received = person.next_message(LIMIT).await.unwrap();
    assert_eq!(received.text(), Some("dengan LID"));
    device.receipt(&sent.message_id, "Delivered").await;
    person.reply(&received, "ya").await.unwrap();
    device.hears("ya").await;
}

#[tokio::test]
async fn all_devices_of_an_account_get_a_message_and_the_own_phone_gets_a_copy() {
    let server = server();
    let owner = server.person("60122222222", "Kedai").await.unwrap();
    owner.connect().await.unwrap();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let companion = linked(&server, "60111111111").await;
    let device = linked(&server, "60122222222").await;

    let id = device.send("60111111111", "semua").await;
    assert_eq!(person.next_message(LIMIT).await.unwrap().id, id);
    assert_eq!(companion.hears("semua").await.id, id);
    let copy = owner.next_message(LIMIT).await.unwrap();
    assert!(copy.from_me);
    assert_eq!((copy.text(), copy.chat.user.as_str()), (Some("semua"), "60111111111"));

    for jid in [person.jid(), Jid::pn_device("60111111111", 1), owner.jid()] {
        server.wait_acknowledged(LIMIT, &jid).await.unwrap();
    }
    let by_hand = owner.send_text("60111111111", "saya ambil alih").await.unwrap();
    let seen = device.hears("saya ambil alih").await;
    assert!(seen.source.is_from_me);
    assert_eq!(seen.id, by_hand);
}

#[tokio::test]
async fn typing_is_shown_to_the_other_side() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    let typist = person.client().await.unwrap();
    typist
        .chatstate()
        .send_composing(&Jid::pn("60122222222"))
        .await
        .unwrap();
    device
        .wait("typing", |event| matches!(event, Event::ChatPresence(_)).then_some(()))
        .await;
}

#[tokio::test]
async fn a_device_of_another_process_is_let_in_if_its_keys_follow_from_the_seed() {
    let elsewhere = Loopback::start(Options::new());
    let backend = Arc::new(InMemoryBackend::new());
    let jid = elsewhere.seed_device("60122222222", &*backend).await.unwrap();
    let mut options = Options::new();
    options.admit_seeded = true;
    let here = Loopback::start(options);
    let device = Watched::start(&here, backend).await;
    device.connected().await;
    assert!(here.is_active(&jid));
}

#[tokio::test]
async fn many_clients_write_to_one_another_at_once() {
    let server = server();
    let phones: Vec<String> = (0..8).map(|number| format!("601500000{number:02}")).collect();
    let mut people = Vec::new();
    for phone in &phones {
        let person = server.person(phone, "Ramai").await.unwrap();
        person.connect().await.unwrap();
        people.push(person);
    }
    for person in &people {
        for phone in phones.iter().filter(|phone| *phone != person.phone()) {
            person
                .send_text(phone, &format!("dari {}", person.phone()))
                .await
                .unwrap();
        }
    }
    for person in &people {
        let mut senders = Vec::new();
        for _ in 1..phones.len() {
            senders.push(person.next_message(LIMIT).await.unwrap().text().unwrap().to_owned());
        }
        senders.sort();
        let mut expected: Vec<String> = phones
            .iter()
            .filter(|phone| *phone != person.phone())
            .map(|phone| format!("dari {phone}"))
            .collect();
        expected.sort();
        assert_eq!(senders, expected);
    }
}
