//! Sends: what is written, and what every recorded answer means.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use wa_core::conformance::transport::GatewayAnswer;
use wa_core::domain::content::MediaKind;
use wa_core::transport::{MaybeSentCause, NotSentKind, OutgoingMedia, OutgoingMessage, SendError, Transport};
use wa_transport_wablas::IMAGE_BYTES_MAX;

use crate::rig::{CREDENTIAL, PROVIDER_ID, Rig, TEXT, fixtures, message, recorded};

/// Every recorded refusal.
pub const REFUSALS: [(&str, NotSentKind); 15] = [
    ("refused/500-token-invalid.json", NotSentKind::Unauthenticated),
    ("refused/400-token-invalid.json", NotSentKind::Unauthenticated),
    ("refused/200-device-disconnected.json", NotSentKind::DeviceOffline),
    ("refused/400-device-disconnected.json", NotSentKind::DeviceOffline),
    ("refused/200-secret-key-invalid.json", NotSentKind::Unauthenticated),
    ("refused/200-need-secret-key.json", NotSentKind::Unauthenticated),
    ("refused/401-not-authorized.json", NotSentKind::Unauthenticated),
    ("refused/200-device-not-found.json", NotSentKind::Unauthenticated),
    ("refused/400-param-invalid.json", NotSentKind::InvalidRecipient),
    ("refused/400-format-phone-invalid.json", NotSentKind::InvalidRecipient),
    ("refused/200-package-limitations.json", NotSentKind::Unsupported),
    ("refused/200-id-invalid-in-messages.json", NotSentKind::Rejected),
    ("refused/200-rejected-in-messages.json", NotSentKind::Rejected),
    ("refused/200-reason-not-documented.json", NotSentKind::Rejected),
    (
        "refused/429-too-many-requests.json",
        NotSentKind::RateLimited { retry_after: None },
    ),
];

/// Every recorded acceptance, and whether it names the message.
const ACCEPTANCES: [(&str, bool); 7] = [
    ("send/200-messages-array.json", true),
    ("send/200-message-array.json", true),
    ("send/200-list-of-messages-object.json", true),
    ("send/200-list-of-message-object.json", true),
    ("send/200-image.json", true),
    ("send/200-link-with-error-0.json", true),
    ("send/200-without-data.json", false),
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
    for (file, named) in ACCEPTANCES {
        let receipt = Rig::answering(recorded(file)).await.send().await.unwrap();
        let id = receipt.provider_id.map(|id| id.to_string());
        assert_eq!(id.as_deref(), named.then_some(PROVIDER_ID), "{file}");
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
        (200, r#"{"status":"ok"}"#, MaybeSentCause::Unreadable),
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
async fn a_refused_message_whose_text_reads_like_a_refusal_is_rejected_and_nothing_else() {
    let text = "Your device expired? Renew now";
    for item in [
        json!({"id": PROVIDER_ID, "phone": "60123456789", "message": text, "status": "reject"}),
        json!({"id": PROVIDER_ID, "message": "device expired", "status": "reject"}),
        json!({"phone": "60123456789", "message": "device expired", "status": "reject"}),
        json!({"message": text, "status": "reject"}),
        json!({"message": "Your device expired?", "status": false}),
        json!({"message": format!("{text} -- sent by a trial"), "status": false}),
    ] {
        let body = json!({"status": true, "message": "pending", "data": {"messages": [item]}}).to_string();
        let rig = Rig::answering(GatewayAnswer::json(200, body)).await;
        let message = OutgoingMessage {
            text: text.to_owned(),
            ..message(&rig.transport)
        };
        match rig.transport.send(&rig.context(), &message).await {
            Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, NotSentKind::Rejected, "{item}"),
            other => panic!("{item}: {other:?}"),
        }
    }
    let body = json!({"status": true, "data": {"messages": [{"message": "device expired", "status": false}]}});
    match Rig::answering(GatewayAnswer::json(200, body.to_string()))
        .await
        .send()
        .await
    {
        Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, NotSentKind::Unauthenticated),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_rate_limit_that_was_read_carries_the_wait() {
    let mut answer = recorded("refused/429-too-many-requests.json");
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
    let rig = Rig::answering(recorded("send/200-messages-array.json")).await;
    rig.send().await.unwrap();
    let request = rig.request();
    assert_eq!(
        (request.method.as_str(), request.target.as_str()),
        ("POST", "/api/send-message")
    );
    assert_eq!(request.header("authorization"), Some(CREDENTIAL));
    assert_eq!(
        request.header("content-type"),
        Some("application/x-www-form-urlencoded")
    );
    let form = [
        ("phone", "60123456789"),
        ("message", TEXT),
        ("ref_id", "01900000-0000-7000-8000-000000000001"),
        ("retry", "false"),
    ];
    for (name, value) in form {
        assert_eq!(request.field(name).as_deref(), Some(value), "{name}");
    }
    for name in ["secret", "priority", "random", "spintax", "isGroup", "token"] {
        assert_eq!(request.field(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_base_url_may_have_a_path_and_a_slash() {
    for (suffix, target) in [("/", "/api/send-message"), ("/gate/", "/gate/api/send-message")] {
        let rig = Rig::answering(recorded("send/200-messages-array.json")).await;
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
    let rig = Rig::answering(recorded("send/200-image.json")).await;
    send_picture(&rig, picture(Some("https://cdn.example.com/a.jpg"), Some(b"bytes")))
        .await
        .unwrap();
    let request = rig.request();
    assert_eq!(request.target, "/api/send-image");
    assert_eq!(request.field("image").as_deref(), Some("https://cdn.example.com/a.jpg"));
    assert_eq!(request.field("caption").as_deref(), Some(TEXT));
    assert_eq!(request.field("retry").as_deref(), Some("false"));
    assert_eq!(request.field("message"), None);
}

#[tokio::test]
async fn a_picture_without_a_public_url_goes_as_bytes() {
    for url in [None, Some("http://10.0.0.1/a.jpg"), Some("http://localhost/a.jpg")] {
        let rig = Rig::answering(recorded("send/200-image.json")).await;
        send_picture(&rig, picture(url, Some(b"bytes"))).await.unwrap();
        let request = rig.request();
        assert_eq!(request.target, "/api/send-image-from-local");
        assert_eq!(request.field("file").as_deref(), Some("Ynl0ZXM="));
        let data: serde_json::Value = serde_json::from_str(&request.field("data").unwrap()).unwrap();
        assert_eq!(data["name"], "offer.jpg");
        assert_eq!(request.field("caption").as_deref(), Some(TEXT));
        assert_eq!(request.field("image"), None);
    }
}

#[tokio::test]
async fn a_picture_that_cannot_go_is_refused_without_a_request() {
    let rig = Rig::answering(recorded("send/200-image.json")).await;
    let large = vec![0; usize::try_from(IMAGE_BYTES_MAX).unwrap() + 1];
    let webp = OutgoingMedia {
        mime: "image/webp".to_owned(),
        ..picture(None, Some(b"bytes"))
    };
    for (media, kind) in [
        (picture(None, None), NotSentKind::Rejected),
        (picture(Some("http://127.0.0.1/a.jpg"), None), NotSentKind::Rejected),
        (picture(Some("no url"), None), NotSentKind::Rejected),
        (picture(None, Some(&large)), NotSentKind::Rejected),
        (webp, NotSentKind::Unsupported),
    ] {
        match send_picture(&rig, media).await {
            Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, kind),
            other => panic!("{other:?}"),
        }
    }
    assert!(rig.gateway.requests().is_empty());
}
