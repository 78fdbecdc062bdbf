//! Callbacks, under the names and in the forms that their readers know.

use wa_core::time::Timestamp;
use wa_core::transport::{InboundMessage, Transport, TransportDevice, TransportEvent, WebhookError, WebhookRequest};
use wa_transport_whacenter::Whacenter;

use crate::rig::{device, fixture, phone};

fn decode_for(
    device: &TransportDevice,
    content_type: Option<&str>,
    query: &str,
    body: &str,
) -> Result<Vec<TransportEvent>, WebhookError> {
    let transport = Whacenter::builder().build().unwrap();
    transport.as_webhook().unwrap().decode(&WebhookRequest {
        kind: "inbound",
        query,
        content_type,
        body: body.as_bytes(),
        device,
    })
}

fn own() -> TransportDevice {
    device("https://api.whacenter.com".to_owned())
}

fn decode(body: &str) -> Result<Vec<TransportEvent>, WebhookError> {
    decode_for(&own(), Some("application/json"), "", body)
}

#[track_caller]
fn message(events: Result<Vec<TransportEvent>, WebhookError>) -> InboundMessage {
    match events.unwrap().as_slice() {
        [TransportEvent::Inbound(message)] => message.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reply_is_read_in_every_form() {
    const FORM: &str =
        "device_id=device-id-placeholder-0001&from=60123456789&message=STOP%0A&pushName=Ali&timestamp=1795248000000";
    let form_type = Some("application/x-www-form-urlencoded; charset=utf-8");
    for events in [
        decode(&fixture("webhook/inbound.json")),
        decode(&fixture("webhook/inbound-other-names.json")),
        decode_for(&own(), form_type, "", FORM),
        decode_for(&own(), None, FORM, ""),
        decode_for(
            &own(),
            Some("application/json"),
            "device_id=device-id-placeholder-0001",
            &fixture("webhook/inbound.json"),
        ),
    ] {
        let message = message(events);
        assert_eq!(message.peer, phone("+60123456789"));
        assert_eq!(message.text, "STOP\n");
        assert_eq!(message.peer_name.as_deref(), Some("Ali"));
        assert_eq!(message.at, Some(Timestamp::from_millis(1_795_248_000_000)));
        assert!(!message.from_me);
        assert_eq!(message.media_url, None);
    }
}

#[test]
fn a_callback_delivered_twice_has_the_same_id_and_another_message_another() {
    let body = fixture("webhook/inbound.json");
    let id = |body: &str| message(decode(body)).provider_id;
    assert_eq!(id(&body), id(&body));
    assert_ne!(id(&body), id(&body.replace("1795248000", "1795248001")));
    assert_ne!(id(&body), id(&body.replace("STOP", "START")));
    assert_ne!(id(&body), id(&body.replace("60123456789", "60198765432")));
    let named = body.replace("\"isGroup\"", "\"id\":\"3EB0C767D097B7C7A1\",\"isGroup\"");
    assert_eq!(id(&named).as_str(), "3EB0C767D097B7C7A1");
}

#[test]
fn a_number_with_a_leading_zero_is_an_indonesian_one() {
    let body = fixture("webhook/inbound.json").replace("60123456789", "081234567890");
    assert_eq!(message(decode(&body)).peer, phone("+6281234567890"));
}

#[test]
fn a_picture_carries_its_url() {
    let body = fixture("webhook/inbound.json")
        .replace("STOP\\n", "")
        .replace("\"isGroup\"", "\"url\":\"https://cdn.example.com/a.jpg\",\"isGroup\"");
    let message = message(decode(&body));
    assert_eq!(message.media_url.as_deref(), Some("https://cdn.example.com/a.jpg"));
    assert_eq!(message.text, "");
}

#[test]
fn groups_notes_to_oneself_and_empty_callbacks_are_of_no_interest() {
    let body = fixture("webhook/inbound.json");
    for body in [
        body.replace("\"isGroup\":false", "\"isGroup\":true"),
        body.replace("\"isGroup\":false", "\"isGroup\":\"1\""),
        body.replace("60123456789", "120363041234567890@g.us"),
        body.replace("60123456789", "60122223333"),
        body.replace("STOP\\n", ""),
    ] {
        assert_eq!(decode(&body).unwrap(), [], "{body}");
    }
}

#[test]
fn a_callback_of_another_device_is_refused() {
    let body = fixture("webhook/inbound.json");
    let other = body.replace("placeholder-0001", "placeholder-0002");
    assert_eq!(decode(&other), Err(WebhookError::WrongDevice));
    let by_number = body.replace(
        "\"device_id\":\"device-id-placeholder-0001\"",
        "\"device\":\"60198765432\"",
    );
    assert_eq!(decode(&by_number), Err(WebhookError::WrongDevice));
    for unclear in ["\"device\":\"Front desk\"", "\"device\":\"60122223333\"", "\"x\":1"] {
        let body = body.replace("\"device_id\":\"device-id-placeholder-0001\"", unclear);
        assert!(decode(&body).is_ok(), "{unclear}");
    }
    let query = "device_id=device-id-placeholder-0002&from=60123456789&message=x";
    assert_eq!(decode_for(&own(), None, query, ""), Err(WebhookError::WrongDevice));
}

#[test]
fn a_callback_without_a_sender_is_unreadable() {
    let body = fixture("webhook/inbound.json");
    for body in [
        body.replace("\"from\"", "\"fromm\""),
        body.replace("60123456789", "no number"),
        "not json".to_owned(),
        "[]".to_owned(),
    ] {
        assert!(matches!(decode(&body), Err(WebhookError::Unreadable(_))), "{body}");
    }
}
