//! Every fault, and what a client sees of it.

use std::sync::Arc;
use std::time::Duration;

use wa_loopback::{Answer, LoginFault, Loopback, MessageFault, QueryFault, Rule, Seen, StreamFault};
use whatsapp_rust::Jid;
use whatsapp_rust::types::events::Event;
use whatsapp_rust::wacore::store::InMemoryBackend;

use crate::support::{LIMIT, Watched, linked, server};

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

#[tokio::test]
async fn a_lost_message_reaches_nobody_and_is_not_answered() {
    let server = server();
    server.add_account("60111111111", "Aminah");
    let device = linked(&server, "60122222222").await;
    server.fault(Rule::message(MessageFault::Lose).to("60111111111"));
    let lost = device.send("60111111111", "satu").await;
    let next = device.send("60111111111", "dua").await;
    assert_eq!(device.answer(&next).await, None);
    assert_eq!(server.answers(&lost), [Answer::Lost]);
    let delivered: Vec<String> = server
        .delivered_to("60111111111")
        .into_iter()
        .map(|message| message.id)
        .collect();
    assert_eq!(delivered, [next]);
}

#[tokio::test]
async fn a_corrupt_message_is_asked_for_again_and_arrives() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    server.fault(Rule::message(MessageFault::Corrupt));
    let id = device.send("60111111111", "rosak").await;
    let received = person.next_message(LIMIT).await.unwrap();
    assert_eq!((received.id.as_str(), received.text()), (id.as_str(), Some("rosak")));
    device.receipt(&id, "Delivered").await;
    let copies = server.delivered_to("60111111111");
    assert_eq!(copies.iter().map(|copy| copy.retry).collect::<Vec<_>>(), [false, true]);
}

#[tokio::test]
async fn a_slow_acknowledgement_comes_after_its_time_and_not_before() {
    let server = server();
    let person = server.person("60111111111", "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let device = linked(&server, "60122222222").await;
    let slow = Duration::from_millis(700);
    server.fault(Rule::message(MessageFault::SlowAck(slow)));
    let id = device.send("60111111111", "perlahan").await;
    person.next_message(LIMIT).await.unwrap();
    let sent_at_ms = server
        .wait(LIMIT, "the message", |record| match &record.seen {
            Seen::Sent(message) if message.id == id => Some(record.at_ms),
            _ => None,
        })
        .await
        .unwrap();
    assert_eq!(device.answer(&id).await, None);
    let took_ms = whatsapp_rust::wacore::time::now_millis() - sent_at_ms;
    assert!(took_ms >= 690, "{took_ms} ms");
}

/// A linked device whose login the rule refuses, not yet connected.
async fn refused(server: &Loopback, fault: LoginFault) -> Watched {
    let backend = Arc::new(InMemoryBackend::new());
    server.seed_device("60122222222", &*backend).await.unwrap();
    server.fault(Rule::login(fault).of("60122222222").device(1));
    Watched::start(server, backend).await
}

#[tokio::test]
async fn logins_refused_with_401_403_and_406_log_the_client_out() {
    for reason in [401, 403, 406] {
        let server = server();
        let device = refused(&server, LoginFault::reason(reason)).await;
        device
            .wait("the client to be logged out", |event| {
                matches!(event, Event::LoggedOut(_)).then_some(())
            })
            .await;
        assert!(server.connects("60122222222").is_empty());
        let refusals = server
            .journal()
            .into_iter()
            .filter(|record| matches!(record.seen, Seen::Refused { .. }));
        assert_eq!(refusals.count(), 1, "{reason}");
    }
}

#[tokio::test]
async fn a_ban_says_why_and_for_how_long() {
    let server = server();
    let device = refused(&server, LoginFault::banned(101, 3600)).await;
    let ban = device
        .wait("the ban", |event| match event {
            Event::TemporaryBan(ban) => Some(format!("{ban:?}")),
            _ => None,
        })
        .await;
    assert!(ban.contains("3600"), "{ban}");
}

#[tokio::test]
async fn a_client_that_is_outdated_is_told_so() {
    let server = server();
    let device = refused(&server, LoginFault::reason(405)).await;
    device
        .wait("the client to be outdated", |event| {
            matches!(event, Event::ClientOutdated(_)).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_login_refused_with_503_is_tried_again() {
    let server = server();
    let device = refused(&server, LoginFault::reason(503)).await;
    device.connected().await;
    assert_eq!(device.count(|event| matches!(event, Event::ConnectFailure(_))), 1);
    assert_eq!(server.connects("60122222222").len(), 1);
}

#[tokio::test]
async fn other_refusals_end_the_client() {
    let server = server();
    let device = refused(&server, LoginFault::reason(409)).await;
    device
        .wait("the failure", |event| {
            matches!(event, Event::ConnectFailure(_)).then_some(())
        })
        .await;
    tokio::time::timeout(LIMIT, device.handle)
        .await
        .expect("the client ends by itself");
}

#[tokio::test]
async fn a_session_that_is_replaced_ends_the_first_client() {
    let server = server();
    let backend = Arc::new(InMemoryBackend::new());
    let jid = server.seed_device("60122222222", &*backend).await.unwrap();
    let first = Watched::start(&server, backend.clone()).await;
    first.connected().await;
    let second = Watched::start(&server, backend).await;
    second.connected().await;
    first
        .wait("the first to be replaced", |event| {
            matches!(event, Event::StreamReplaced(_)).then_some(())
        })
        .await;
    assert!(server.is_active(&jid));
}

#[tokio::test]
async fn a_device_removed_on_the_phone_is_logged_out_and_cannot_come_back() {
    let server = server();
    let backend = Arc::new(InMemoryBackend::new());
    let jid = server.seed_device("60122222222", &*backend).await.unwrap();
    let device = Watched::start(&server, backend.clone()).await;
    device.connected().await;
    server.remove_device(&jid);
    device
        .wait("the device to be logged out", |event| {
            matches!(event, Event::LoggedOut(_)).then_some(())
        })
        .await;
    let again = Watched::start(&server, backend).await;
    again
        .wait("the login to be refused", |event| {
            matches!(event, Event::LoggedOut(_)).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_device_that_logs_out_is_taken_off_its_account() {
    let server = server();
    let device = linked(&server, "60122222222").await;
    device.client.logout().await;
    server
        .wait(LIMIT, "the device to be removed", |record| {
            matches!(record.seen, Seen::Removed { .. }).then_some(())
        })
        .await
        .unwrap();
}

#[tokio::test]
async fn streams_end_in_each_way_and_the_client_does_what_it_should() {
    let server = server();
    let jid = Jid::pn_device("60122222222", 1);
    let device = linked(&server, "60122222222").await;
    for fault in [StreamFault::Code(515), StreamFault::Code(503), StreamFault::Cut] {
        let before = server.journal_end();
        assert!(server.end_stream(&jid, fault));
        server
            .wait_from(before, LIMIT, "the client to come back", |record| {
                matches!(record.seen, Seen::Active { .. }).then_some(())
            })
            .await
            .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
    }
    assert!(server.end_stream(&jid, StreamFault::Code(429)));
    assert!(server.is_active(&jid), "the connection stays");
    device.handle.shutdown().await;
}

#[tokio::test]
async fn a_query_is_refused_swallowed_or_late_as_the_script_says() {
    let server = server();
    server.add_account("60111111111", "Aminah");
    let device = linked(&server, "60122222222").await;
    let ask = || async { device.client.contacts().is_on_whatsapp(&[Jid::pn("60111111111")]).await };
    server.fault(Rule::query("usync", QueryFault::rate_limited(Some(60))).of("60122222222"));
    let error = ask().await.unwrap_err();
    assert!(format!("{error:?}").contains("429"), "{error:?}");
    let slow = server.fault(Rule::query("usync", QueryFault::Slow(Duration::from_millis(50))));
    assert!(ask().await.unwrap()[0].is_registered);
    assert_eq!(server.fired(slow), 1);
    let cut = server.fault(Rule::query("usync", QueryFault::Cut));
    assert!(ask().await.is_err());
    assert_eq!(server.fired(cut), 1);
}

#[tokio::test]
async fn an_account_that_asks_too_much_is_refused_until_its_time_has_passed() {
    let server = server();
    server.add_account("60111111111", "Aminah");
    let device = linked(&server, "60122222222").await;
    let before = server.journal_end();
    server.limit_queries("60122222222", "usync", 2, Duration::from_secs(3600));
    for _ in 0..4 {
        if let Err(error) = device.client.contacts().is_on_whatsapp(&[Jid::pn("60111111111")]).await {
            assert!(format!("{error:?}").contains("429"), "{error:?}");
        }
    }
    // The client may ask for something of its own in between.
    let answers: Vec<bool> = server
        .journal_from(before)
        .into_iter()
        .filter_map(|record| match record.seen {
            Seen::Query { xmlns, error, .. } if xmlns == "usync" => Some(error.is_none()),
            _ => None,
        })
        .collect();
    assert_eq!(answers[..4], [true, true, false, false]);
}
