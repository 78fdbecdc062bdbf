//! Sends: what is written, and what every recorded answer means.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use wa_core::conformance::transport::GatewayAnswer;
use wa_core::domain::content::MediaKind;
use wa_core::transport::{MaybeSentCause, NotSentKind, OutgoingMedia, OutgoingMessage, SendError, Transport};

use crate::rig::{CREDENTIAL, Rig, TEXT, fixtures, message, recorded};

/// Every recorded refusal.
pub const REFUSALS: [(&str, NotSentKind); 3] = [
    ("refused/200-device-not-connected.json", NotSentKind::DeviceOffline),
    ("refused/401-invalid-api-key.json", NotSentKind::Unauthenticated),
    ("refused/200-reason-not-documented.json", NotSentKind::Rejected),
];

/// Every recorded acceptance, and the id in it.
const ACCEPTANCES: [(&str, Option<&str>); 2] = [
    ("send/200-message-sent.json", Some("110864596")),
    ("send/200-without-id.json", None),
];

fn files(folder: &str) -> BTreeSet<String> {
    std::fs::read_dir(fixtures().join(folder))
        .unwrap()
        .map(|entry| format!("{folder}/{}", entry.unwrap().file_name().into_string().unwrap()))
        .collect()
}

#[test]
fn every_recorded_answer_is_tested() {
    assert_eq!(
        files("refused"),
        REFUSALS.iter().map(|(file, _)| (*file).to_owned()).collect()
    );
    assert_eq!(
        files("send"),
        ACCEPTANCES.iter().map(|(file, _)| (*file).to_owned()).collect()
    );
}

#[tokio::test]
async fn every_recorded_acceptance_is_one_under_2xx_alone() {
    for (file, expected) in ACCEPTANCES {
        let receipt = Rig::answering(recorded(file)).await.send().await.unwrap();
        let id = receipt.provider_id.map(|id| id.to_string());
        assert_eq!(id.as_deref(), expected, "{file}");
        for (status, cause) in [
            (302, MaybeSentCause::Unreadable),
            (404, MaybeSentCause::Unreadable),
            (429, MaybeSentCause::ServerError),
            (500, MaybeSentCause::ServerError),
        ] {
            let rig = Rig::answering(GatewayAnswer {
                status,
                ..recorded(file)
            })
            .await;
            match rig.send().await {
                Err(SendError::MaybeSent(doubt)) => assert_eq!(doubt.cause, cause, "{file} {status}"),
                other => panic!("{file} {status}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn answers_without_the_documented_flag_are_in_doubt() {
    for (status, body, cause) in [
        (401, "<html>unauthorized</html>", MaybeSentCause::Unreadable),
        (200, "", MaybeSentCause::Unreadable),
        (200, "OK", MaybeSentCause::Unreadable),
        (200, "[]", MaybeSentCause::Unreadable),
        (200, "{}", MaybeSentCause::Unreadable),
        (200, r#"{"message":"sent"}"#, MaybeSentCause::Unreadable),
        (
            200,
            r#"{"status":null,"message":"token invalid"}"#,
            MaybeSentCause::Unreadable,
        ),
        (200, r#"{"success":true}"#, MaybeSentCause::Unreadable),
        (200, r#"{"status":1}"#, MaybeSentCause::Unreadable),
        (404, "<html>not found</html>", MaybeSentCause::Unreadable),
        (429, "slow down", MaybeSentCause::ServerError),
        (
            500,
            r#"{"status":false,"message":"SQLSTATE[HY000]"}"#,
            MaybeSentCause::ServerError,
        ),
        (502, "<html>bad gateway</html>", MaybeSentCause::ServerError),
        (504, "", MaybeSentCause::ServerError),
    ] {
        match Rig::answering(GatewayAnswer::json(status, body)).await.send().await {
            Err(SendError::MaybeSent(doubt)) => assert_eq!(doubt.cause, cause, "{status} {body}"),
            other => panic!("{status} {body}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_rate_limit_that_was_read_carries_the_wait() {
    let mut answer = GatewayAnswer::json(429, r#"{"status":false,"message":"too many requests"}"#);
    answer.headers.push(("Retry-After", "90".to_owned()));
    match Rig::answering(answer).await.send().await {
        Err(SendError::NotSent(refusal)) => assert_eq!(
            refusal.kind,
            NotSentKind::RateLimited {
                retry_after: Some(Duration::from_secs(90))
            }
        ),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_text_is_sent_as_documented() {
    let rig = Rig::answering(recorded("send/200-message-sent.json")).await;
    rig.send().await.unwrap();
    let request = rig.request();
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/api/send")
    );
    assert_eq!(
        request.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    for (name, value) in [("device_id", CREDENTIAL), ("number", "60123456789"), ("message", TEXT)] {
        assert_eq!(request.field(name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(request.field("file"), None);
}

#[tokio::test]
async fn a_base_url_may_have_a_path_and_a_slash() {
    for (suffix, target) in [("/", "/api/send"), ("/gate/", "/gate/api/send")] {
        let rig = Rig::answering(recorded("send/200-message-sent.json")).await;
        let mut context = rig.context();
        let device = Arc::make_mut(&mut context.device);
        device.base_url = Some(format!("{}{suffix}", rig.gateway.base_url()));
        rig.transport.send(&context, &message(&rig.transport)).await.unwrap();
        assert_eq!(rig.request().target, target);
    }
}

fn picture(url: Option<&str>, bytes: Option<&[u8]>) -> OutgoingMedia {
    OutgoingMedia {
        kind: MediaKind::Image,
        mime: "image/jpeg".to_owned(),
        file_name: "offer.jpg".to_owned(),
        url: url.map(str::to_owned),
        bytes: bytes.map(Arc::from),
    }
}

async fn send_picture(rig: &Rig, media: OutgoingMedia) -> Result<wa_core::transport::SendReceipt, SendError> {
    let message = OutgoingMessage {
        media: Some(media),
        ..message(&rig.transport)
    };
    rig.transport.send(&rig.context(), &message).await
}

#[tokio::test]
async fn a_picture_goes_by_its_public_url() {
    let rig = Rig::answering(recorded("send/200-message-sent.json")).await;
    send_picture(&rig, picture(Some("https://cdn.example.com/a.jpg"), Some(b"bytes")))
        .await
        .unwrap();
    let request = rig.request();
    assert_eq!(request.target, "/api/send");
    assert_eq!(request.field("file").as_deref(), Some("https://cdn.example.com/a.jpg"));
    assert_eq!(request.field("message").as_deref(), Some(TEXT));
}

#[tokio::test]
async fn a_picture_that_cannot_go_is_refused_without_a_request() {
    let rig = Rig::answering(recorded("send/200-message-sent.json")).await;
    let webp = OutgoingMedia {
        mime: "image/webp".to_owned(),
        ..picture(None, Some(b"bytes"))
    };
    for (media, kind) in [
        (picture(None, None), NotSentKind::Rejected),
        (picture(Some("http://127.0.0.1/a.jpg"), None), NotSentKind::Rejected),
        (picture(Some("no url"), None), NotSentKind::Rejected),
        (picture(None, Some(b"bytes")), NotSentKind::Rejected),
        (webp, NotSentKind::Unsupported),
    ] {
        match send_picture(&rig, media).await {
            Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, kind),
            other => panic!("{other:?}"),
        }
    }
    assert!(rig.gateway.requests().is_empty());
}
