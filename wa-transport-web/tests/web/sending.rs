//! What becomes of a message, by what the server does with it.

use std::io::Cursor;
use std::time::Duration;

use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::LinkState;
use wa_core::transport::{
    Linkable, MaybeSentCause, MessageRef, NotSentKind, NumberChecker, RestrictionScope, SendError, Transport,
    TransportEvent,
};
use wa_loopback::{Answer, MessageFault, QueryFault, Rule, Seen};
use wa_transport_web::PICTURE_BYTES_MAX;

use crate::rig::{LIMIT, OWN, Rig, options, phone};

const PERSON: &str = "60120000001";

fn not_sent(result: Result<impl std::fmt::Debug, SendError>) -> NotSentKind {
    match result {
        Err(SendError::NotSent(refusal)) => refusal.kind,
        other => panic!("{other:?}"),
    }
}

fn maybe_sent(result: Result<impl std::fmt::Debug, SendError>) -> MaybeSentCause {
    match result {
        Err(SendError::MaybeSent(doubt)) => doubt.cause,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_reads_exactly_what_was_sent_and_the_receipts_say_so() {
    let rig = Rig::linked().await;
    let person = rig.server.person(PERSON, "Aminah").await.unwrap();
    person.connect().await.unwrap();
    let text = "Salam Puan Aminah 👋\n*Offer*: RM 12.50 https://example.com/a?b=c";
    let message = rig.message(1, PERSON, text);
    rig.send(&message).await.unwrap();
    let received = person.next_message(LIMIT).await.unwrap();
    assert_eq!(received.text(), Some(text));
    assert_eq!(received.id, message.transport_message_id.as_str());
    let receipt = |wanted: Delivery| {
        let id = message.transport_message_id.clone();
        rig.heard.wait_from(0, "a receipt", move |_, event| match event {
            TransportEvent::Receipt {
                message: MessageRef::Ours(of),
                delivery,
                ..
            } => (*of == id && *delivery == wanted).then_some(()),
            _ => None,
        })
    };
    receipt(Delivery::Delivered).await;
    person.mark_read(&received).await.unwrap();
    receipt(Delivery::Read).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swallowed_answer_leaves_doubt_and_the_same_id_sent_again_shows_once() {
    let mut quick = options();
    quick.ack_within = Duration::from_secs(2);
    let rig = Rig::linked_with(quick).await;
    let person = rig.server.person(PERSON, "Aminah").await.unwrap();
    person.connect().await.unwrap();
    rig.server.fault(Rule::message(MessageFault::SwallowAck));
    let message = rig.message(1, PERSON, "once");
    assert_eq!(maybe_sent(rig.send(&message).await), MaybeSentCause::Timeout);
    rig.send(&message).await.unwrap();
    let last = rig.message(2, PERSON, "last");
    rig.send(&last).await.unwrap();
    person
        .message_where(LIMIT, "the last one", |received| received.text() == Some("last"))
        .await
        .unwrap();
    let texts: Vec<String> = person
        .inbox()
        .iter()
        .filter_map(|received| received.text().map(str::to_owned))
        .collect();
    assert_eq!(texts, ["once", "last"]);
    let id = message.transport_message_id.as_str();
    assert_eq!(rig.server.answers(id), [Answer::Swallowed, Answer::Repeated]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_leaves_doubt_and_comes_back() {
    let rig = Rig::linked().await;
    rig.server.add_account(PERSON, "Aminah");
    for (number, fault) in [(1, MessageFault::CutBefore), (2, MessageFault::CutAfter)] {
        let message = rig.message(number, PERSON, "hello");
        rig.transport.prepare(&rig.context(), &message).await.unwrap();
        rig.server.fault(Rule::message(fault));
        let heard = rig.heard.len();
        assert_eq!(
            maybe_sent(rig.transport.send(&rig.context(), &message).await),
            MaybeSentCause::ConnectionLost
        );
        rig.heard.state_from(heard, rig.owner.device_id, LinkState::Ready).await;
        rig.transport.send(&rig.context(), &message).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refusal_has_its_meaning() {
    let rig = Rig::linked().await;
    rig.server.add_account(PERSON, "Aminah");
    let cold = NotSentKind::Restricted {
        until: None,
        scope: RestrictionScope::Cold,
    };
    for (number, code, kind) in [
        (1, 463, cold),
        (2, 429, NotSentKind::RateLimited { retry_after: None }),
        (3, 479, NotSentKind::Rejected),
    ] {
        rig.server.fault(Rule::message(MessageFault::Nack(code)));
        assert_eq!(
            not_sent(rig.send(&rig.message(number, PERSON, "hello")).await),
            kind,
            "{code}"
        );
    }
    rig.server.fault(Rule::message(MessageFault::Nack(503)));
    assert_eq!(
        maybe_sent(rig.send(&rig.message(4, PERSON, "hello")).await),
        MaybeSentCause::ServerError
    );
    rig.send(&rig.message(5, PERSON, "hello")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_checked_once_before_its_first_message() {
    let rig = Rig::linked().await;
    rig.server.add_account(PERSON, "Aminah");
    let nobody = "60129999999";
    assert_eq!(
        not_sent(rig.send(&rig.message(1, nobody, "hello")).await),
        NotSentKind::NotOnWhatsApp
    );
    rig.send(&rig.message(2, PERSON, "hello")).await.unwrap();
    // Now that both are known, nobody is asked.
    let rule = rig
        .server
        .fault(Rule::query("usync", QueryFault::rate_limited(None)).always());
    assert_eq!(
        not_sent(rig.send(&rig.message(3, nobody, "hello")).await),
        NotSentKind::NotOnWhatsApp
    );
    rig.send(&rig.message(4, PERSON, "hello")).await.unwrap();
    assert_eq!(rig.server.fired(rule), 0);
    let other = rig.message(5, "60120000002", "hello");
    assert_eq!(
        not_sent(rig.send(&other).await),
        NotSentKind::RateLimited { retry_after: None }
    );
    rig.server.clear_fault(rule);
    let phones = [phone(PERSON), phone(nobody)];
    let checks = rig.transport.check(&rig.context(), &phones).await.unwrap();
    assert_eq!(
        checks.iter().map(|check| check.on_whatsapp).collect::<Vec<_>>(),
        [true, false]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_known_of_a_number_lasts_for_days_and_that_it_is_absent_for_one() {
    let mut rig = Rig::linked().await;
    let absent = "60129999999";
    rig.server.add_account(PERSON, "Aminah");
    let questions = |rig: &Rig| {
        let journal = rig.server.journal();
        let asked = |record: &&wa_loopback::Record| matches!(&record.seen, Seen::Query { xmlns, what, .. } if xmlns == "usync" && what.starts_with("usync 1"));
        journal.iter().filter(asked).count()
    };
    let check = async |rig: &Rig, number: &str| {
        let before = questions(rig);
        let checks = rig.transport.check(&rig.context(), &[phone(number)]).await.unwrap();
        (checks[0].on_whatsapp, questions(rig) - before)
    };
    let day = Duration::from_secs(24 * 60 * 60);
    assert_eq!(check(&rig, PERSON).await, (true, 1));
    assert_eq!(check(&rig, absent).await, (false, 1));
    rig.clock.advance(day * 6 / 7);
    assert_eq!(check(&rig, PERSON).await, (true, 0));
    assert_eq!(check(&rig, absent).await, (false, 0));
    // A connection after this one knows it too.
    let heard = rig.heard.len();
    rig.restart(options());
    rig.heard.state_from(heard, rig.owner.device_id, LinkState::Ready).await;
    assert_eq!(check(&rig, PERSON).await, (true, 0));
    rig.clock.advance(day / 7);
    rig.server.add_account(absent, "Raju");
    assert_eq!(check(&rig, absent).await, (true, 1));
    rig.clock.advance(day * 7);
    assert_eq!(check(&rig, PERSON).await, (true, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_asked_for_together_are_one_question() {
    let rig = Rig::linked().await;
    let numbers: Vec<String> = (0..30).map(|number| format!("6012000{number:04}")).collect();
    for number in numbers.iter().step_by(2) {
        rig.server.add_account(number, "Aminah");
    }
    let phones: Vec<_> = numbers.iter().map(|number| phone(number)).collect();
    let before = rig.server.journal_end();
    let checks = rig.transport.check(&rig.context(), &phones).await.unwrap();
    for (place, check) in checks.iter().enumerate() {
        assert_eq!((check.phone, check.on_whatsapp), (phones[place], place % 2 == 0));
    }
    let journal = rig.server.journal_from(before);
    // A client asks for its own devices too, at some time after it connects.
    let asked = |record: &&wa_loopback::Record| matches!(&record.seen, Seen::Query { xmlns, what, .. } if xmlns == "usync" && what == "usync 30");
    assert_eq!(journal.iter().filter(asked).count(), 1, "{journal:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn typing_is_shown_before_a_message_where_that_is_wanted_and_not_otherwise() {
    for typing_for in [None, Some(Duration::from_millis(200))] {
        let mut typing = options();
        typing.typing_for = typing_for;
        let rig = Rig::linked_with(typing).await;
        rig.server.add_account(PERSON, "Aminah");
        rig.send(&rig.message(1, PERSON, "hello")).await.unwrap();
        let (mut shown_at_ms, mut sent_at_ms) = (None, None);
        for record in rig.server.journal() {
            match &record.seen {
                Seen::ChatState { to, state, .. } if to.user == PERSON && state == "composing" => {
                    shown_at_ms = Some(record.at_ms);
                }
                Seen::Sent(sent) if !sent.peer => sent_at_ms = Some(record.at_ms),
                _ => {}
            }
        }
        assert_eq!(shown_at_ms.is_some(), typing_for.is_some());
        if let (Some(shown), Some(sent), Some(typing_for)) = (shown_at_ms, sent_at_ms, typing_for) {
            let least = i64::try_from(typing_for.as_millis()).unwrap() - 50;
            assert!(sent - shown >= least, "{} ms", sent - shown);
        }
    }
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut state = 1_u32;
    let picture = image::RgbImage::from_fn(width, height, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, red, green, blue] = state.to_be_bytes();
        image::Rgb([red, green, blue])
    });
    let mut file = Cursor::new(Vec::new());
    picture.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_uploaded_once_made_small_and_decrypts_at_every_recipient() {
    let mut rig = Rig::linked().await;
    let source = png(700, 500);
    assert!(source.len() > PICTURE_BYTES_MAX);
    let mut files = Vec::new();
    for (number, who) in [(1, "60120000001"), (2, "60120000002")] {
        let person = rig.server.person(who, "Aminah").await.unwrap();
        person.connect().await.unwrap();
        rig.send(&rig.picture(number, who, "Look", &source)).await.unwrap();
        let received = person.next_message(LIMIT).await.unwrap();
        assert_eq!(received.text(), Some("Look"));
        assert!(
            received
                .image()
                .unwrap()
                .jpeg_thumbnail
                .as_ref()
                .is_some_and(|preview| preview.len() > 100)
        );
        files.push((
            received.image().unwrap().direct_path.clone(),
            person.download(&received).await.unwrap(),
        ));
        let heard = rig.heard.len();
        rig.restart(options());
        rig.heard.state_from(heard, rig.owner.device_id, LinkState::Ready).await;
    }
    assert_eq!(files[0], files[1], "one upload serves all, also after a restart");
    assert!(files[0].1.len() <= PICTURE_BYTES_MAX);
    let shown = image::load_from_memory(&files[0].1).unwrap();
    assert!(shown.width() > 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_use_is_a_clear_refusal_and_sends_nothing() {
    let rig = Rig::linked().await;
    rig.server.add_account(PERSON, "Aminah");
    let own = rig.send(&rig.message(1, OWN, "to myself")).await;
    assert_eq!(not_sent(own), NotSentKind::InvalidRecipient);
    let fake = rig
        .send(&rig.picture(2, PERSON, "", b"\xff\xd8\xff\xe0 not a picture"))
        .await;
    assert_eq!(not_sent(fake), NotSentKind::Rejected);
    let large = rig.send(&rig.picture(3, PERSON, "", &vec![0; 50 * 1024 * 1024])).await;
    assert_eq!(not_sent(large), NotSentKind::Rejected);
    assert!(
        rig.server.sent().iter().all(|message| message.peer),
        "{:?}",
        rig.server.sent()
    );

    let unlinked = Rig::new().await;
    assert_eq!(
        not_sent(unlinked.send(&unlinked.message(1, PERSON, "hello")).await),
        NotSentKind::DeviceOffline
    );
    assert_eq!(
        not_sent(unlinked.transport.refresh(&unlinked.context()).await),
        NotSentKind::DeviceOffline
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_to_a_known_person_cost_the_store_two_reads_and_two_writes_each() {
    let rig = Rig::linked().await;
    let person = rig.server.person(PERSON, "Aminah").await.unwrap();
    person.connect().await.unwrap();
    // An answer makes the session one that both sides use.
    rig.send(&rig.message(1, PERSON, "first")).await.unwrap();
    let first = person.next_message(LIMIT).await.unwrap();
    person.reply(&first, "yes").await.unwrap();
    rig.heard
        .wait_from(0, "the reply", |_, event| {
            matches!(event, TransportEvent::Inbound(_)).then_some(())
        })
        .await;
    rig.send(&rig.message(2, PERSON, "second")).await.unwrap();
    rig.store.since();
    for number in 0..64 {
        rig.send(&rig.message(100 + number, PERSON, "known")).await.unwrap();
    }
    let (reads, writes) = rig.store.since();
    println!("64 messages to a known person: {reads} reads, {writes} writes");
    assert!(reads as f64 / 64.0 <= 2.1, "{reads} reads");
    assert!(writes as f64 / 64.0 <= 2.1, "{writes} writes");
}
