//! What becomes of message and device by each fault that the loopback server knows. The table of them is in its README.

use std::time::Duration;

use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::{DeviceStatus, LinkState};
use wa_core::domain::message::{Message, MessageScope, MessageState, Reason};
use wa_core::transport::{NotSentKind, SendError, Transport};
use wa_loopback::{Answer, LoginFault, MediaFault, MessageFault, QueryFault, Rule, Seen, StreamFault};
use wa_transport_web::WebOptions;
use wa_transport_web::whatsapp_rust::Jid;

use crate::rig::{LIMIT, OWN, Rig, options};
use crate::town::{Town, picture, seconds_from_now, until};

const PERSON: &str = "60120000001";

/// Answers are waited for so long.
const ACK_WITHIN: Duration = Duration::from_secs(2);

fn quick() -> WebOptions {
    let mut quick = options();
    quick.ack_within = ACK_WITHIN;
    quick
}

/// A device, and somebody who takes messages and tells nothing of them.
async fn town() -> Town {
    let town = Town::with(quick()).await;
    town.server.add_account(PERSON, "Aminah");
    town.lead(PERSON, "Aminah").await;
    town
}

/// Starts a campaign to the one person.
async fn write(town: &Town) -> MessageScope {
    MessageScope::Campaign(town.campaign("Offer", "Hi {{name}}").await)
}

/// The id with which the message was sent, of which there is one.
async fn one_id(town: &Town, message: &Message) -> String {
    use wa_core::store::OutboxStore as _;
    let attempts = town.store.attempts(&town.user, message.id).await.unwrap();
    assert_eq!(attempts.len(), 1, "sent again with the same id it is one attempt");
    attempts[0].transport_message_id.as_str().to_owned()
}

fn own() -> Jid {
    Jid::pn_device(OWN, 1)
}

async fn assert_online(town: &Town) {
    let device = town.device().await;
    assert_eq!((device.link_state, device.hold.is_some()), (LinkState::Ready, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_without_an_answer_is_sent_again_with_its_id_and_the_device_stays_online() {
    let late = MessageFault::SlowAck(ACK_WITHIN * 2);
    for (fault, answers) in [
        (MessageFault::Lose, [Answer::Lost, Answer::Acked]),
        (MessageFault::SwallowAck, [Answer::Swallowed, Answer::Repeated]),
        (MessageFault::CutBefore, [Answer::Lost, Answer::Acked]),
        (MessageFault::CutAfter, [Answer::Swallowed, Answer::Repeated]),
        (late, [Answer::Acked, Answer::Repeated]),
    ] {
        let town = town().await;
        town.server.fault(Rule::message(fault));
        let scope = write(&town).await;
        let message = town.wait_message(scope, PERSON, MessageState::Sent).await;
        let id = one_id(&town, &message).await;
        assert_eq!(town.server.answers(&id), answers, "{fault:?}");
        let copies = town.server.delivered_to(PERSON);
        assert!(copies.iter().all(|copy| copy.id == id), "{fault:?}: {copies:?}");
        assert_online(&town).await;
        town.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_slow_is_waited_for() {
    let town = town().await;
    town.server.fault(Rule::message(MessageFault::SlowAck(ACK_WITHIN / 4)));
    let scope = write(&town).await;
    let message = town.wait_message(scope, PERSON, MessageState::Sent).await;
    let id = one_id(&town, &message).await;
    assert_eq!(town.server.answers(&id), [Answer::Acked]);
    assert_online(&town).await;
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_cannot_be_decrypted_is_asked_for_again_and_is_delivered() {
    let town = Town::new().await;
    let (person, _) = town.person(PERSON, "Aminah").await;
    town.server.fault(Rule::message(MessageFault::Corrupt));
    let scope = write(&town).await;
    assert_eq!(person.next_message(LIMIT).await.unwrap().text(), Some("Hi Aminah"));
    until("it to be delivered", async || {
        let message = town.message_to(scope, PERSON).await?;
        (message.state == MessageState::Sent && message.delivery == Some(Delivery::Delivered)).then_some(())
    })
    .await;
    let copies = town.server.delivered_to(PERSON);
    assert_eq!(copies.iter().map(|copy| copy.retry).collect::<Vec<_>>(), [false, true]);
    assert_eq!(person.inbox().len(), 1);
    assert_online(&town).await;
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_for_good_ends_and_the_device_stays_online() {
    for (code, state, reason) in [
        (479, MessageState::Failed, Reason::Rejected),
        (400, MessageState::Failed, Reason::Rejected),
        (404, MessageState::Skipped, Reason::NotOnWhatsApp),
    ] {
        let town = town().await;
        town.server.fault(Rule::message(MessageFault::Nack(code)));
        let scope = write(&town).await;
        let message = town.wait_message(scope, PERSON, state).await;
        assert_eq!(message.reason, Some(reason), "{code}");
        assert_eq!(town.server.sent().len(), 1, "{code}: it is not tried again");
        assert_online(&town).await;
        town.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_refused_for_now_goes_later_and_the_device_stays_online() {
    for (code, attempts) in [(429, 2), (401, 2), (503, 1)] {
        let town = town().await;
        town.server.fault(Rule::message(MessageFault::Nack(code)));
        let scope = write(&town).await;
        let message = town.wait_message(scope, PERSON, MessageState::Sent).await;
        let ids: std::collections::BTreeSet<_> = town.server.sent().into_iter().map(|sent| sent.id).collect();
        assert_eq!(
            ids.len(),
            attempts,
            "{code}: what certainly was not sent is a new attempt, what may have been has its id"
        );
        assert_eq!(message.refusal_count, 0, "{code}");
        assert_eq!(town.server.delivered_to(PERSON).len(), 1, "{code}");
        assert_online(&town).await;
        town.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_ends_is_opened_again_and_messages_wait_for_it() {
    for fault in [StreamFault::Code(515), StreamFault::Code(503), StreamFault::Cut] {
        let town = town().await;
        assert!(town.server.end_stream(&own(), fault));
        let scope = write(&town).await;
        town.wait_message(scope, PERSON, MessageState::Sent).await;
        assert_eq!(town.server.connects(OWN).len(), 2, "{fault:?}");
        assert_eq!(town.server.sent().len(), 1, "{fault:?}");
        assert_online(&town).await;
        town.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_rated_too_fast_and_left_open_is_opened_again_after_a_while() {
    let rig = Rig::linked().await;
    rig.server.add_account(PERSON, "Aminah");
    assert!(rig.server.end_stream(&own(), StreamFault::Code(429)));
    let message = rig.message(1, PERSON, "hello");
    let mut refused = 0;
    until("the message to go", async || match rig.send(&message).await {
        Ok(_) => Some(()),
        Err(SendError::NotSent(refusal)) => {
            assert_eq!(refusal.kind, NotSentKind::DeviceOffline);
            refused += 1;
            None
        }
        Err(SendError::MaybeSent(doubt)) => panic!("{doubt:?}"),
    })
    .await;
    assert!(refused > 0, "it did not go before");
    assert_eq!(rig.server.connects(OWN).len(), 2);
    assert_eq!(rig.server.sent().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_rated_too_fast_while_nothing_is_sent_is_opened_again_too() {
    let town = town().await;
    assert!(town.server.end_stream(&own(), StreamFault::Code(429)));
    until("another connection", async || {
        (town.server.connects(OWN).len() > 1).then_some(())
    })
    .await;
    town.wait_link(LinkState::Ready).await;
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_in_use_elsewhere_is_an_error_and_messages_wait_until_it_is_connected_again() {
    let town = town().await;
    assert!(town.server.end_stream(&own(), StreamFault::Replaced));
    let device = town.wait_link(LinkState::Error).await;
    assert!(
        device
            .link_reason
            .is_some_and(|reason| reason.contains("somewhere else"))
    );
    let scope = write(&town).await;
    let message = town.wait_message(scope, PERSON, MessageState::Queued).await;
    assert!(message.attempt.is_none());
    town.refresh().await;
    town.wait_message(scope, PERSON, MessageState::Sent).await;
    assert_online(&town).await;
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_removed_on_the_phone_is_logged_out_and_its_messages_wait() {
    let town = town().await;
    town.server.remove_device(&own());
    let device = town.wait_link(LinkState::LoggedOut).await;
    assert!(
        device
            .link_reason
            .is_some_and(|reason| reason.contains("removed on the phone"))
    );
    let scope = write(&town).await;
    let message = town.wait_message(scope, PERSON, MessageState::Queued).await;
    assert!(message.attempt.is_none() && town.server.sent().is_empty());
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_refused_login_has_its_state_and_messages_wait() {
    for (fault, state, says) in [
        (LoginFault::reason(401), LinkState::LoggedOut, "removed on the phone"),
        (LoginFault::reason(403), LinkState::LoggedOut, "locked the account"),
        (LoginFault::reason(406), LinkState::LoggedOut, "removed on the phone"),
        (LoginFault::reason(405), LinkState::Error, "newer version"),
        (LoginFault::reason(409), LinkState::Error, "409"),
        (LoginFault::banned(101, 3_600), LinkState::Restricted, "banned"),
        (LoginFault::banned(104, 3_600), LinkState::Restricted, "banned"),
        (LoginFault::reason(402), LinkState::Error, "402"),
    ] {
        let town = town().await;
        town.server.fault(Rule::login(fault.clone()).of(OWN));
        assert!(town.server.end_stream(&own(), StreamFault::Cut));
        let device = town.wait_link(state).await;
        let reason = device.link_reason.clone().unwrap_or_default();
        assert!(reason.contains(says), "{fault:?}: {reason}");
        assert_eq!(device.status(), DeviceStatus::Offline, "{fault:?}");
        let scope = write(&town).await;
        let message = town.wait_message(scope, PERSON, MessageState::Queued).await;
        assert!(message.attempt.is_none() && town.server.sent().is_empty(), "{fault:?}");
        town.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_fails_at_the_server_is_tried_again_and_messages_go() {
    for reason in [500, 503] {
        let town = town().await;
        let rule = town.server.fault(Rule::login(LoginFault::reason(reason)).of(OWN));
        assert!(town.server.end_stream(&own(), StreamFault::Cut));
        let scope = write(&town).await;
        town.wait_message(scope, PERSON, MessageState::Sent).await;
        assert_eq!(town.server.fired(rule), 1);
        assert_eq!(town.server.connects(OWN).len(), 2, "{reason}");
        assert_online(&town).await;
        town.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_is_answered_late_or_cut_off_holds_a_message_up_and_no_more() {
    for fault in [QueryFault::Slow(Duration::from_secs(1)), QueryFault::Cut] {
        let town = town().await;
        let rule = town.server.fault(Rule::query("usync", fault.clone()).of(OWN));
        let scope = write(&town).await;
        let message = town.wait_message(scope, PERSON, MessageState::Sent).await;
        assert_eq!((town.server.fired(rule), message.refusal_count), (1, 0), "{fault:?}");
        assert_eq!(town.server.sent().len(), 1, "{fault:?}");
        assert_online(&town).await;
        town.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_that_fails_puts_its_message_off_and_the_device_stays_online() {
    let failing = QueryFault::Error {
        code: 500,
        text: "internal-server-error".to_owned(),
        backoff_s: None,
    };
    for fault in [failing, QueryFault::Swallow] {
        let town = Town::with(quick()).await;
        town.server.add_account(PERSON, "Aminah");
        town.lead(PERSON, "Aminah").await;
        town.server.fault(Rule::query("usync", fault.clone()).of(OWN).always());
        let scope = write(&town).await;
        let message = until("it to be put off", async || {
            let message = town.message_to(scope, PERSON).await?;
            (message.reason == Some(Reason::GatewayUnavailable)).then_some(message)
        })
        .await;
        assert_eq!(message.state, MessageState::Queued, "{fault:?}");
        let due_s = message.due_at.as_millis() / 1_000;
        assert!(due_s > seconds_from_now(Duration::from_secs(15)), "{fault:?}: {due_s}");
        assert!(message.attempt.is_none() && town.server.sent().is_empty(), "{fault:?}");
        assert_online(&town).await;
        town.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_asks_too_much_waits_and_its_messages_go_later() {
    let town = town().await;
    let rule = town
        .server
        .fault(Rule::query("usync", QueryFault::rate_limited(Some(1))).of(OWN));
    let scope = write(&town).await;
    let message = town.wait_message(scope, PERSON, MessageState::Sent).await;
    assert_eq!((town.server.fired(rule), message.refusal_count), (1, 0));
    assert_eq!(town.server.sent().len(), 1);
    assert_online(&town).await;
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_of_a_campaign_are_asked_for_together_and_not_too_fast() {
    let mut few = quick();
    few.numbers_at_once = 20;
    let every = few.numbers_every;
    let town = Town::with(few).await;
    for number in 0..60 {
        let phone = format!("601200001{number:02}");
        if number % 10 > 0 {
            town.server.add_account(&phone, "Ali");
        }
        town.lead(&phone, "Ali").await;
    }
    let before = town.server.journal_end();
    let scope = write(&town).await;
    until("the campaign to end", async || {
        let messages = town.messages(Some(scope)).await;
        (messages.len() == 60 && messages.iter().all(|message| !message.state.is_open())).then_some(())
    })
    .await;
    let messages = town.messages(Some(scope)).await;
    let skipped = |message: &&Message| message.reason == Some(Reason::NotOnWhatsApp);
    assert_eq!(messages.iter().filter(skipped).count(), 6);
    assert_eq!(town.server.sent().len(), 54);
    let journal = town.server.journal_from(before);
    let together = journal.iter().filter(
        |record| matches!(&record.seen, Seen::Query { xmlns, what, .. } if xmlns == "usync" && what == "usync 20"),
    );
    let asked_at_ms: Vec<i64> = together.map(|record| record.at_ms).collect();
    assert_eq!(asked_at_ms.len(), 3, "{journal:?}");
    let every_ms = i64::try_from(every.as_millis()).unwrap();
    let gaps = asked_at_ms.windows(2).map(|pair| pair[1] - pair[0]);
    // What is asked is written down when it arrives.
    assert!(gaps.min().unwrap() >= every_ms - 200, "{asked_at_ms:?}");
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_on_questions_is_met_once_and_not_by_every_message() {
    let town = town().await;
    for number in 2..8 {
        let phone = format!("6012000000{number}");
        town.server.add_account(&phone, "Ali");
        town.lead(&phone, "Ali").await;
    }
    let before = town.server.journal_end();
    town.server.limit_queries(OWN, "usync", 0, Duration::from_secs(3_600));
    let scope = write(&town).await;
    let refused_at_ms = until("the limit to be met twice", async || {
        let records = town.server.journal_from(before);
        let refused = records
            .iter()
            .filter(|record| matches!(&record.seen, Seen::Query { xmlns, error: Some(_), .. } if xmlns == "usync"));
        let refused: Vec<i64> = refused.map(|record| record.at_ms).collect();
        (refused.len() >= 2).then_some(refused)
    })
    .await;
    assert!(refused_at_ms[1] - refused_at_ms[0] >= 4_900, "{refused_at_ms:?}");
    let messages = town.messages(Some(scope)).await;
    assert_eq!(messages.len(), 7);
    let queued = messages.iter().filter(|message| message.state == MessageState::Queued);
    assert_eq!(queued.clone().count(), 7, "{messages:?}");
    assert!(queued.clone().all(|message| message.refusal_count == 0));
    assert_online(&town).await;
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_cannot_be_had_make_a_message_wait_and_the_device_stays_online() {
    let town = town().await;
    let refused = QueryFault::Error {
        code: 500,
        text: "internal-server-error".to_owned(),
        backoff_s: None,
    };
    let rule = town.server.fault(Rule::query("encrypt", refused).of(OWN).times(2));
    let scope = write(&town).await;
    town.wait_message(scope, PERSON, MessageState::Sent).await;
    assert!(town.server.fired(rule) > 0);
    assert_eq!(town.server.delivered_to(PERSON).len(), 1);
    assert_online(&town).await;
    town.close().await;
}

/// How many uploads were tried, and how many of them succeeded.
fn uploads(town: &Town) -> (usize, usize) {
    let journal = town.server.journal();
    let statuses = journal.iter().filter_map(|record| match record.seen {
        Seen::Uploaded { status, .. } => Some(status),
        _ => None,
    });
    let statuses: Vec<u16> = statuses.collect();
    (statuses.len(), statuses.iter().filter(|status| **status == 200).count())
}

/// How long a message with a picture that could not be uploaded waits, and a little more.
const PUT_OFF: Duration = Duration::from_secs(31);

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_cannot_be_uploaded_waits_with_the_reason_and_goes_once_it_can() {
    for (fault, says) in [
        (MediaFault::Status(500), "HTTP status 500"),
        (MediaFault::Status(404), "HTTP status 404"),
        (MediaFault::Broken, "no answer"),
    ] {
        let town = Town::with(quick()).await;
        let (person, _) = town.person(PERSON, "Aminah").await;
        town.server.add_account("60120000002", "Ali");
        town.lead("60120000002", "Ali").await;
        let rule = town.server.fault(Rule::upload(fault).always());
        let day = Duration::from_secs(24 * 60 * 60);
        let scope = MessageScope::Campaign(town.picture_campaign("Look", day).await);
        let messages = until("both to be put off", async || {
            let messages = town.messages(Some(scope)).await;
            let put_off = |message: &&Message| message.reason == Some(Reason::GatewayUnavailable);
            (messages.iter().filter(put_off).count() == 2).then_some(messages)
        })
        .await;
        for message in &messages {
            assert_eq!(message.state, MessageState::Queued, "{fault:?}");
            assert!(message.attempt.is_none(), "{fault:?}");
            let detail = message.detail.as_deref().unwrap_or_default();
            assert!(detail.contains(says), "{fault:?}: {detail}");
        }
        let tried = town.server.fired(rule);
        assert!(
            tried <= 2,
            "{fault:?}: one picture is tried once, not once for each message: {tried}"
        );
        assert!(town.server.sent().is_empty(), "{fault:?}");
        // What has no picture goes meanwhile.
        let text = write(&town).await;
        town.wait_message(text, PERSON, MessageState::Sent).await;
        assert_online(&town).await;

        town.server.clear_fault(rule);
        town.clock.advance(PUT_OFF);
        for phone in [PERSON, "60120000002"] {
            let message = town.wait_message(scope, phone, MessageState::Sent).await;
            assert_eq!(message.refusal_count, 0, "{fault:?}");
        }
        assert_eq!(uploads(&town).1, 1, "{fault:?}: one upload serves both");
        let shows = |received: &wa_loopback::Received| received.image().is_some();
        let received = person.message_where(LIMIT, "the picture", shows).await.unwrap();
        assert!(received.text().unwrap().ends_with("Look"));
        assert!(!person.download(&received).await.unwrap().is_empty());
        assert_online(&town).await;
        town.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_that_can_never_be_uploaded_ends_its_message_when_its_time_is_over() {
    let town = town().await;
    town.server.fault(Rule::upload(MediaFault::Status(500)).always());
    let minute = Duration::from_secs(60);
    let scope = MessageScope::Campaign(town.picture_campaign("Look", minute).await);
    until("it to be put off", async || {
        let message = town.message_to(scope, PERSON).await?;
        (message.reason == Some(Reason::GatewayUnavailable)).then_some(())
    })
    .await;
    town.clock.advance(minute * 2);
    let message = town.wait_message(scope, PERSON, MessageState::Skipped).await;
    assert_eq!(message.reason, Some(Reason::Expired));
    assert!(message.attempt.is_none() && town.server.sent().is_empty());
    assert_eq!(uploads(&town).1, 0);
    assert_online(&town).await;
    let text = write(&town).await;
    town.wait_message(text, PERSON, MessageState::Sent).await;
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_uploaded_once_for_all_campaigns_and_again_when_its_link_has_expired() {
    let town = Town::with(quick()).await;
    let (person, _) = town.person(PERSON, "Aminah").await;
    let day = Duration::from_secs(24 * 60 * 60);
    for (text, wait, uploaded) in [
        ("first", Duration::ZERO, 1),
        ("the same link", day, 1),
        ("a new link", options().uploads_kept_for, 2),
    ] {
        town.clock.advance(wait);
        if uploaded == 2 {
            town.server.expire_media();
        }
        let scope = MessageScope::Campaign(town.picture_campaign(text, day).await);
        town.wait_message(scope, PERSON, MessageState::Sent).await;
        assert_eq!(uploads(&town), (uploaded, uploaded), "{text}");
        let says = |received: &wa_loopback::Received| received.text().is_some_and(|said| said.ends_with(text));
        let received = person.message_where(LIMIT, text, says).await.unwrap();
        assert!(!person.download(&received).await.unwrap().is_empty(), "{text}");
    }
    assert_online(&town).await;
    town.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_fails_makes_the_message_wait_with_nothing_sent_and_the_device_online() {
    for fault in [MediaFault::Status(500), MediaFault::Status(404), MediaFault::Broken] {
        let mut at_once = options();
        at_once.upload_again_after = Duration::ZERO;
        let rig = Rig::linked_with(at_once).await;
        rig.server.add_account(PERSON, "Aminah");
        let rule = rig.server.fault(Rule::upload(fault).always());
        let message = rig.picture(1, PERSON, "Look", &picture());
        match rig.send(&message).await {
            Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, NotSentKind::Unavailable, "{fault:?}"),
            other => panic!("{fault:?}: {other:?}"),
        }
        assert!(rig.server.sent().is_empty(), "{fault:?}");
        let probe = rig.transport.as_probe().unwrap();
        assert!(probe.probe(&rig.context()).await.unwrap().connected, "{fault:?}");
        rig.server.clear_fault(rule);
        rig.send(&message).await.unwrap();
        assert_eq!(rig.server.sent().len(), 1, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_whose_permission_has_ended_is_done_with_a_new_one_and_the_message_goes() {
    let rig = Rig::linked().await;
    rig.server.add_account(PERSON, "Aminah");
    for status in [401, 403] {
        let rule = rig.server.fault(Rule::upload(MediaFault::Status(status)));
        let mut source = picture();
        // Another picture each time, or it would be known.
        source.extend([u8::try_from(status % 256).unwrap(); 4]);
        rig.send(&rig.picture(u128::from(status), PERSON, "Look", &source))
            .await
            .unwrap();
        assert_eq!(rig.server.fired(rule), 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_that_fails_is_the_recipients_and_the_message_stays_sent() {
    let rig = Rig::linked().await;
    let person = rig.server.person(PERSON, "Aminah").await.unwrap();
    person.connect().await.unwrap();
    rig.send(&rig.picture(1, PERSON, "Look", &picture())).await.unwrap();
    let received = person.next_message(LIMIT).await.unwrap();
    for fault in [MediaFault::Status(404), MediaFault::Broken] {
        let rule = rig.server.fault(Rule::download(fault).always());
        assert!(person.download(&received).await.is_err(), "{fault:?}");
        rig.server.clear_fault(rule);
    }
    assert!(!person.download(&received).await.unwrap().is_empty());
    rig.send(&rig.picture(2, PERSON, "Look again", &picture()))
        .await
        .unwrap();
}

/// The names of the tests of a file.
fn tests_of(file: &str) -> Vec<&str> {
    let functions = file.split("\nasync fn ").skip(1);
    functions
        .filter_map(|rest| rest.split_once("()"))
        .map(|(name, _)| name)
        .collect()
}

#[test]
fn every_fault_is_in_the_table_with_a_test_that_there_is() {
    let readme = include_str!("../../loopback/README.md");
    let known = [
        include_str!("faults.rs"),
        include_str!("sending.rs"),
        include_str!("linking.rs"),
    ];
    let known: Vec<_> = known.into_iter().flat_map(tests_of).collect();
    let rows: Vec<Vec<&str>> = readme
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for row in &rows {
        let [_, test, message, device] = row[..] else {
            panic!("{row:?}")
        };
        let named = test.trim_matches('`');
        assert!(known.contains(&named), "there is no test {named}");
        assert!(!message.is_empty() && !device.is_empty(), "{row:?}");
    }
    let faults = include_str!("../../loopback/src/fault.rs");
    for kind in ["MessageFault", "QueryFault", "MediaFault", "StreamFault"] {
        let (_, body) = faults.split_once(&format!("pub enum {kind} {{")).unwrap();
        let (body, _) = body.split_once("\n}").unwrap();
        for line in body
            .lines()
            .filter(|line| line.starts_with("    ") && line[4..].starts_with(char::is_uppercase))
        {
            let variant: String = line.trim().chars().take_while(|one| one.is_alphanumeric()).collect();
            let name = format!("`{kind}::{variant}");
            assert!(
                rows.iter().any(|row| row[0].contains(&name)),
                "{name} is not in the table"
            );
        }
    }
}
