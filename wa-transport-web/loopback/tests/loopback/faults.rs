//! Every fault, and what a client sees of it.

use wa_loopback::{Answer, MessageFault, Rule, Seen};
use whatsapp_rust::types::events::Event;

use crate::support::{LIMIT, linked, server};

#[tokio::test]
async fn a_nack_refuses_the_message_that_the_script_names_and_no_other() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    let rule = server.fault(Rule::message(MessageFault::Nack(463)).of("60122222222").nth(2));
    let mut answers = Vec::new();
    for text in ["satu", "dua", "tiga"] {
        let id = device.send("60111111111", text).await;
        answers.push(device.answer(&id).await);
    }
    assert_eq!(answers, [None, Some("463".to_owned()), None]);
    assert_eq!(server.fired(rule), 1);
    let mut texts = Vec::new();
    for _ in 0..2 {
        texts.push(person.next_message(LIMIT).await.unwrap().text().unwrap().to_owned());
    }
    assert_eq!(texts, ["satu", "tiga"]);
}

#[tokio::test]
async fn a_swallowed_acknowledgement_leaves_the_sender_without_a_word_although_the_message_arrives() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    server.fault(Rule::message(MessageFault::SwallowAck));
    let id = device.send("60111111111", "halo").await;
    assert_eq!(person.next_message(LIMIT).await.unwrap().id, id);
    device.receipt(&id, "Delivered").await;
    assert_eq!(server.answers(&id), [Answer::Swallowed]);
    assert_eq!(
        device.count(|event| matches!(event, Event::ServerAck(ack) if ack.class.as_deref() == Some("message"))),
        0
    );
}

#[tokio::test]
async fn a_message_cut_off_on_its_way_in_is_lost_and_the_client_comes_back() {
    let server = server();
    server.add_account("60111111111", "Aminah");
    let device = linked(&server, "60122222222").await;
    server.fault(Rule::message(MessageFault::CutBefore));
    let before = server.journal_end();
    let id = device.send("60111111111", "halo").await;
    server
        .wait_from(before, LIMIT, "the client to come back", |record| {
            matches!(&record.seen, Seen::Active { device } if device.user == "60122222222").then_some(())
        })
        .await
        .unwrap();
    assert_eq!(server.answers(&id), [Answer::Lost]);
    assert!(server.delivered_to("60111111111").is_empty());
    assert_eq!(server.connects("60122222222").len(), 2);
}

#[tokio::test]
async fn a_message_cut_off_after_it_was_taken_arrives_without_an_acknowledgement() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    server.fault(Rule::message(MessageFault::CutAfter));
    let id = device.send("60111111111", "halo").await;
    assert_eq!(person.next_message(LIMIT).await.unwrap().id, id);
    device.receipt(&id, "Delivered").await;
    assert_eq!(server.answers(&id), [Answer::Swallowed]);
}
