//! The cases, one function each; their names are the contract.

#![allow(missing_docs, reason = "the name of a case says what it shows")]

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::{Behaviour, GRACE, TIMEOUT_LONG, TIMEOUT_SHORT, TransportFixture};
use crate::domain::content::MediaKind;
use crate::domain::phone::Phone;
use crate::id::{AttemptId, MessageId};
use crate::time::Timestamp;
use crate::transport::{
    MaybeSentCause, NotSentKind, OutgoingMedia, OutgoingMessage, ReconcileQuery, Reconciled, SendContext, SendError,
    SendReceipt, Transport, TransportMessageId, WebhookError, WebhookRequest,
};

const TEXT: &str = "Salam Puan Kancil,\nyour parcel 7731 waits at the counter";

fn recipient() -> Phone {
    Phone::from_e164("+60123456789").expect("a phone in E.164 form")
}

fn message(transport: &dyn Transport, number: u128) -> OutgoingMessage {
    let attempt_id = AttemptId::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + number));
    OutgoingMessage {
        message_id: MessageId::from_uuid(Uuid::from_u128(number)),
        attempt_id,
        transport_message_id: transport.message_id(attempt_id),
        to: recipient(),
        text: TEXT.to_owned(),
        media: None,
    }
}

fn context<F: TransportFixture>(fixture: &F, timeout: Duration) -> SendContext {
    SendContext {
        device: Arc::new(fixture.device()),
        timeout,
    }
}

async fn within<T>(timeout: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(timeout + GRACE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not return within {timeout:?}"),
    }
}

async fn send<F: TransportFixture>(fixture: &F, timeout: Duration) -> Result<SendReceipt, SendError> {
    let message = message(fixture.transport(), 1);
    let result = within(
        timeout,
        "send",
        fixture.transport().send(&context(fixture, timeout), &message),
    )
    .await;
    if let Err(error) = &result {
        assert_shows_nothing_secret(fixture, &format!("{error} {error:?}"), "a send error");
    }
    result
}

/// Starts a fixture that behaves so; `None` when that makes no sense for it.
async fn start<F: TransportFixture>(behaviour: Behaviour) -> Option<F> {
    let fixture = F::start().await;
    fixture.supports(behaviour).then(|| {
        fixture.script(behaviour);
        fixture
    })
}

#[track_caller]
fn assert_in_doubt(result: &Result<SendReceipt, SendError>, causes: &[MaybeSentCause]) {
    match result {
        Err(SendError::MaybeSent(doubt)) if causes.is_empty() || causes.contains(&doubt.cause) => {}
        other => panic!("expected maybe sent {causes:?}, got {other:?}"),
    }
}

#[track_caller]
fn assert_shows_nothing_secret<F: TransportFixture>(fixture: &F, shown: &str, what: &str) {
    let credential = fixture.device().credential;
    let mut secrets = vec![TEXT.to_owned(), recipient().digits().to_owned()];
    secrets.extend(TEXT.lines().map(str::to_owned));
    if let Some(credential) = &credential {
        secrets.push(credential.expose_secret().to_owned());
    }
    for (index, secret) in secrets.iter().enumerate() {
        assert!(!shown.contains(secret.as_str()), "{what} shows secret {index}: {shown}");
    }
}

pub async fn an_accepted_message_is_ok_after_one_request<F: TransportFixture>() {
    let fixture = start::<F>(Behaviour::Accept).await.expect("every vendor accepts");
    send(&fixture, TIMEOUT_LONG).await.expect("an accepted message is ok");
    assert_eq!(fixture.requests(), 1);
}

pub async fn a_slow_acceptance_is_an_acceptance<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::AcceptSlowly).await else {
        return;
    };
    send(&fixture, TIMEOUT_LONG).await.expect("a slow acceptance is one");
    assert_eq!(fixture.requests(), 1);
}

pub async fn a_connection_closed_after_an_answer_does_not_put_the_next_message_in_doubt<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::AcceptThenClose).await else {
        return;
    };
    for count in 1..=10 {
        send(&fixture, TIMEOUT_LONG).await.expect("each message is accepted");
        assert_eq!(fixture.requests(), count);
    }
}

pub async fn many_messages_at_once_are_one_request_each<F: TransportFixture>() {
    const COUNT: usize = 20;
    let fixture = start::<F>(Behaviour::Accept).await.expect("every vendor accepts");
    let context = context(&fixture, TIMEOUT_LONG);
    let messages: Vec<_> = (1..=COUNT as u128)
        .map(|number| message(fixture.transport(), number))
        .collect();
    let sends = messages
        .iter()
        .map(|message| fixture.transport().send(&context, message));
    for result in within(TIMEOUT_LONG, "sending at once", join_all(sends)).await {
        result.expect("each message is accepted");
    }
    assert_eq!(fixture.requests(), COUNT);
}

pub async fn an_acceptance_under_an_error_status_is_in_doubt<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::AcceptUnderErrorStatus).await else {
        return;
    };
    assert_in_doubt(&send(&fixture, TIMEOUT_LONG).await, &[]);
    assert_eq!(fixture.requests(), 1);
}

pub async fn every_documented_refusal_is_not_sent_after_one_request<F: TransportFixture>() {
    let fixture = F::start().await;
    let refusals = fixture.refusals();
    assert!(!refusals.is_empty(), "a vendor without refusals is none");
    for (index, expected) in refusals.iter().enumerate() {
        fixture.script(Behaviour::Refuse(index));
        match send(&fixture, TIMEOUT_LONG).await {
            Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, expected.kind, "{}", expected.name),
            other => panic!("{}: expected not sent, got {other:?}", expected.name),
        }
        assert_eq!(fixture.requests(), index + 1, "{}", expected.name);
    }
}

pub async fn a_vendor_that_nobody_can_reach_has_not_sent<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::Unreachable).await else {
        return;
    };
    match send(&fixture, TIMEOUT_LONG).await {
        Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, NotSentKind::Unavailable),
        other => panic!("expected not sent, got {other:?}"),
    }
    assert_eq!(fixture.requests(), 0);
}

pub async fn a_hanging_vendor_is_in_doubt_within_the_timeout<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::Hang).await else {
        return;
    };
    assert_in_doubt(&send(&fixture, TIMEOUT_SHORT).await, &[MaybeSentCause::Timeout]);
    assert_eq!(fixture.requests(), 1);
}

pub async fn an_answer_that_trickles_is_in_doubt_within_the_timeout<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::Trickle).await else {
        return;
    };
    assert_in_doubt(&send(&fixture, TIMEOUT_SHORT).await, &[MaybeSentCause::Timeout]);
    assert_eq!(fixture.requests(), 1);
}

pub async fn an_answer_without_end_is_in_doubt_before_the_timeout<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::Flood).await else {
        return;
    };
    assert_in_doubt(&send(&fixture, TIMEOUT_LONG).await, &[MaybeSentCause::Unreadable]);
    assert_eq!(fixture.requests(), 1);
}

pub async fn a_connection_cut_before_reading_is_no_success<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::CutBeforeReading).await else {
        return;
    };
    let result = send(&fixture, TIMEOUT_LONG).await;
    assert!(result.is_err(), "{result:?}");
    assert!(fixture.requests() <= 1, "tried {} times", fixture.requests());
}

pub async fn a_connection_cut_after_reading_is_in_doubt<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::CutAfterReading).await else {
        return;
    };
    assert_in_doubt(&send(&fixture, TIMEOUT_LONG).await, &[MaybeSentCause::ConnectionLost]);
    assert_eq!(fixture.requests(), 1);
}

pub async fn an_answer_cut_in_the_middle_is_in_doubt<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::CutAnswering).await else {
        return;
    };
    assert_in_doubt(
        &send(&fixture, TIMEOUT_LONG).await,
        &[MaybeSentCause::ConnectionLost, MaybeSentCause::Unreadable],
    );
    assert_eq!(fixture.requests(), 1);
}

pub async fn an_answer_that_cannot_be_understood_is_in_doubt<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::Garbage).await else {
        return;
    };
    assert_in_doubt(&send(&fixture, TIMEOUT_LONG).await, &[MaybeSentCause::Unreadable]);
    assert_eq!(fixture.requests(), 1);
}

pub async fn a_server_error_without_a_reason_is_in_doubt<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::ServerError).await else {
        return;
    };
    assert_in_doubt(&send(&fixture, TIMEOUT_LONG).await, &[MaybeSentCause::ServerError]);
    assert_eq!(fixture.requests(), 1);
}

pub async fn a_redirect_is_not_followed<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::Redirect).await else {
        return;
    };
    let result = send(&fixture, TIMEOUT_LONG).await;
    assert!(result.is_err(), "{result:?}");
    assert_eq!(fixture.requests(), 1);
}

pub async fn a_dropped_send_gives_up_the_connection_and_does_not_come_back<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::Hang).await else {
        return;
    };
    let context = context(&fixture, TIMEOUT_LONG);
    let message = message(fixture.transport(), 1);
    tokio::select! {
        result = fixture.transport().send(&context, &message) => panic!("a hanging vendor answered: {result:?}"),
        () = within(TIMEOUT_LONG, "the request", fixture.arrived(1)) => {}
    }
    within(TIMEOUT_SHORT, "giving up the connection", fixture.given_up()).await;
    assert_eq!(fixture.requests(), 1);
}

pub async fn a_send_that_was_never_polled_makes_no_request<F: TransportFixture>() {
    let fixture = start::<F>(Behaviour::Accept).await.expect("every vendor accepts");
    let context = context(&fixture, TIMEOUT_LONG);
    let dropped = message(fixture.transport(), 1);
    drop(fixture.transport().send(&context, &dropped));
    // The second one arrives after whatever the first one could have set off.
    send(&fixture, TIMEOUT_LONG).await.expect("an accepted message is ok");
    assert_eq!(fixture.requests(), 1);
}

pub async fn the_message_id_is_a_function_of_the_attempt_alone<F: TransportFixture>() {
    let (one, other) = (F::start().await, F::start().await);
    let mut seen = HashSet::new();
    for number in 1..=200_u128 {
        let attempt = AttemptId::from_uuid(Uuid::from_u128(number << 64 | number));
        let id = one.transport().message_id(attempt);
        assert_eq!(id, one.transport().message_id(attempt), "the same instance");
        assert_eq!(id, other.transport().message_id(attempt), "another instance");
        assert!(
            TransportMessageId::new(id.as_str()).is_some(),
            "an id of a valid length"
        );
        assert!(seen.insert(id), "another attempt has another id");
    }
}

pub async fn capabilities_agree_with_the_faces_and_with_themselves<F: TransportFixture>() {
    let fixture = F::start().await;
    let transport = fixture.transport();
    let capabilities = transport.capabilities();
    assert_eq!(capabilities, transport.capabilities(), "constant");
    assert_eq!(transport.platform(), transport.platform(), "constant");
    assert_eq!(fixture.device().platform, transport.platform());
    assert_eq!(
        capabilities.reconcile,
        transport.as_reconcilable().is_some(),
        "reconcile"
    );
    assert_eq!(capabilities.pairing, transport.as_linkable().is_some(), "pairing");
    assert_eq!(
        capabilities.number_check,
        transport.as_number_checker().is_some(),
        "number check"
    );
    if transport.as_webhook().is_some() {
        assert!(
            capabilities.inbound || capabilities.receipts,
            "callbacks bring something"
        );
    }
    assert!(capabilities.text_len_max > 0, "it carries text");
    let mut kinds = HashSet::new();
    for limit in &capabilities.media {
        assert!(kinds.insert(limit.kind), "{:?} twice", limit.kind);
        assert!(limit.by_url || limit.by_bytes, "{:?} by neither way", limit.kind);
        assert!(
            limit.size_max_bytes > 0 && !limit.mimes.is_empty(),
            "{:?} takes nothing",
            limit.kind
        );
    }
}

pub async fn devices_that_can_work_are_told_from_those_that_cannot<F: TransportFixture>() {
    let fixture = F::start().await;
    fixture
        .transport()
        .check_device(&fixture.device())
        .expect("the fixture's device can work");
    for (field, device) in fixture.invalid_devices() {
        let refused = fixture
            .transport()
            .check_device(&device)
            .expect_err("a device that cannot work is refused");
        assert_eq!(refused.field, field, "{refused}");
        if let Some(credential) = &device.credential
            && credential.expose_secret().len() >= 4
        {
            assert!(
                !refused.to_string().contains(credential.expose_secret()),
                "shows the credential"
            );
        }
    }
    assert_eq!(fixture.requests(), 0, "checking makes no request");
}

pub async fn a_message_that_cannot_be_carried_is_refused_without_a_request<F: TransportFixture>() {
    let fixture = F::start().await;
    let transport = fixture.transport();
    let context = context(&fixture, TIMEOUT_LONG);
    for kind in [
        MediaKind::Image,
        MediaKind::Video,
        MediaKind::Audio,
        MediaKind::Document,
    ] {
        if transport.capabilities().media(kind).is_some() {
            continue;
        }
        let mut message = message(transport, 1);
        message.media = Some(OutgoingMedia {
            kind,
            mime: "application/octet-stream".to_owned(),
            file_name: "file.bin".to_owned(),
            url: Some("https://media.example.com/file.bin".to_owned()),
            bytes: Some(Arc::from(&b"bytes"[..])),
        });
        match within(TIMEOUT_LONG, "send", transport.send(&context, &message)).await {
            Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, NotSentKind::Unsupported, "{kind:?}"),
            other => panic!("{kind:?}: expected not sent, got {other:?}"),
        }
    }
    assert_eq!(fixture.requests(), 0);
}

pub async fn preparing_fails_only_as_not_sent<F: TransportFixture>() {
    for behaviour in [
        Behaviour::Accept,
        Behaviour::Hang,
        Behaviour::CutAfterReading,
        Behaviour::Garbage,
        Behaviour::ServerError,
        Behaviour::Unreachable,
    ] {
        let Some(fixture) = start::<F>(behaviour).await else {
            continue;
        };
        let transport = fixture.transport();
        let message = message(transport, 1);
        let needed = transport.needs_prepare(&message);
        let context = context(&fixture, TIMEOUT_SHORT);
        match within(TIMEOUT_SHORT, "prepare", transport.prepare(&context, &message)).await {
            Ok(()) | Err(SendError::NotSent(_)) => {}
            other => panic!("{behaviour:?}: {other:?}"),
        }
        if !needed {
            assert_eq!(fixture.requests(), 0, "what needs no preparing makes no request");
        }
    }
}

pub async fn nothing_secret_is_shown<F: TransportFixture>() {
    let Some(fixture) = start::<F>(Behaviour::RefuseEchoing).await else {
        return;
    };
    let context = context(&fixture, TIMEOUT_LONG);
    let message = message(fixture.transport(), 1);
    // `send` looks into the error itself.
    let error = send(&fixture, TIMEOUT_LONG).await.expect_err("a refusal");
    for (what, shown) in [
        ("the transport", format!("{:?}", fixture.transport())),
        ("the context", format!("{context:?}")),
        ("the device", format!("{:?}", fixture.device())),
        ("the message", format!("{message:?}")),
        ("the error", format!("{error} {error:?} {error:#?}")),
    ] {
        assert_shows_nothing_secret(&fixture, &shown, what);
    }
}

async fn find<F: TransportFixture>(fixture: &F, timeout: Duration) -> Option<Result<Reconciled, SendError>> {
    let message = message(fixture.transport(), 1);
    let query = ReconcileQuery {
        attempt_id: message.attempt_id,
        transport_message_id: message.transport_message_id,
        to: message.to,
        attempted_at: Timestamp::from_millis(1_795_000_000_000),
        asked_at: Timestamp::from_millis(1_795_000_000_000),
    };
    let face = fixture.transport().as_reconcilable()?;
    let result = within(timeout, "find", face.find(&context(fixture, timeout), &query)).await;
    if let Err(error) = &result {
        assert_shows_nothing_secret(fixture, &format!("{error} {error:?}"), "a lookup error");
    }
    Some(result)
}

pub async fn a_lookup_finds_only_the_message_asked_for<F: TransportFixture>() {
    let fixture = F::start().await;
    if fixture.transport().as_reconcilable().is_none() {
        return;
    }
    fixture.script(Behaviour::ReportFound);
    let found = find(&fixture, TIMEOUT_LONG).await;
    assert!(matches!(found, Some(Ok(Reconciled::Found { .. }))), "{found:?}");
    fixture.script(Behaviour::ReportDead);
    let found = find(&fixture, TIMEOUT_LONG).await;
    assert!(matches!(found, Some(Ok(Reconciled::FoundDead { .. }))), "{found:?}");
    fixture.script(Behaviour::ReportForeign);
    let found = find(&fixture, TIMEOUT_LONG).await;
    assert!(matches!(found, Some(Err(_))), "{found:?}");
    assert_eq!(fixture.requests(), 3);
}

pub async fn a_lookup_says_not_found_only_for_a_clean_empty_report<F: TransportFixture>() {
    let fixture = F::start().await;
    if fixture.transport().as_reconcilable().is_none() {
        return;
    }
    fixture.script(Behaviour::ReportEmpty);
    assert_eq!(find(&fixture, TIMEOUT_LONG).await, Some(Ok(Reconciled::NotFound)));
    for behaviour in [
        Behaviour::ReportEmptyUnderErrorStatus,
        Behaviour::Garbage,
        Behaviour::ServerError,
        Behaviour::Redirect,
        Behaviour::CutBeforeReading,
        Behaviour::CutAfterReading,
        Behaviour::CutAnswering,
        Behaviour::Hang,
        Behaviour::Trickle,
        Behaviour::Flood,
        Behaviour::Unreachable,
        Behaviour::Refuse(0),
        Behaviour::RefuseEchoing,
    ] {
        fixture.script(behaviour);
        let timeout = match behaviour {
            Behaviour::Hang | Behaviour::Trickle => TIMEOUT_SHORT,
            _ => TIMEOUT_LONG,
        };
        let found = find(&fixture, timeout).await;
        assert!(matches!(found, Some(Err(_))), "{behaviour:?}: {found:?}");
    }
}

pub async fn a_probe_answers_or_fails_as_not_sent_within_the_timeout<F: TransportFixture>() {
    for behaviour in [
        Behaviour::Hang,
        Behaviour::Garbage,
        Behaviour::ServerError,
        Behaviour::CutAfterReading,
        Behaviour::RefuseEchoing,
        Behaviour::Unreachable,
    ] {
        let Some(fixture) = start::<F>(behaviour).await else {
            continue;
        };
        let Some(face) = fixture.transport().as_probe() else {
            return;
        };
        let context = context(&fixture, TIMEOUT_SHORT);
        let result = within(TIMEOUT_SHORT, "probe", face.probe(&context)).await;
        assert_shows_nothing_secret(&fixture, &format!("{result:?}"), "a probe");
        match result {
            Ok(report) => assert!(!report.connected, "{behaviour:?}: {report:?}"),
            Err(SendError::NotSent(_)) => {}
            Err(SendError::MaybeSent(doubt)) => panic!("{behaviour:?}: a probe sends nothing: {doubt:?}"),
        }
    }
}

pub async fn callbacks_of_any_content_are_decoded_or_refused<F: TransportFixture>() {
    let fixture = F::start().await;
    let device = fixture.device();
    let Some(face) = fixture.transport().as_webhook() else {
        return;
    };
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 12] = [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\"text\"",
        b"{\"phone\":{\"a\":[1]},\"message\":7,\"id\":true}",
        b"{\"phone\":\"\",\"id\":\"\"}",
        b"{\"timestamp\":1e400,\"phone\":\"60123456789\"}",
        b"\xff\xfe\x00",
        b"a=1&a=2&%zz=%",
        b"{\"id\":\"1\",\"id\":\"2\"",
        deep.as_bytes(),
    ];
    for kind in ["inbound", "tracking", "device", "no_such_kind", ""] {
        for body in bodies {
            for content_type in [
                None,
                Some("application/json"),
                Some("application/x-www-form-urlencoded"),
            ] {
                let decoded = face.decode(&WebhookRequest {
                    kind,
                    query: "a=%ff&=&b",
                    content_type,
                    body,
                    device: &device,
                });
                if !matches!(kind, "inbound" | "tracking" | "device") {
                    assert_eq!(decoded, Err(WebhookError::UnknownKind), "{kind:?}");
                }
            }
        }
    }
    assert_eq!(fixture.requests(), 0, "decoding makes no request");
}
