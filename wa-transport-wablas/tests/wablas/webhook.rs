//! Callbacks, from the bodies that the vendor documents.

use wa_core::domain::chat::ChatKind;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::LinkState;
use wa_core::time::Timestamp;
use wa_core::transport::{
    InboundMessage, MessageRef, Transport, TransportDevice, TransportEvent, TransportMessageId, WebhookError,
    WebhookRequest,
};
use wa_transport_wablas::Wablas;

use crate::rig::{PROVIDER_ID, device, fixture, phone};

fn decode_for(device: &TransportDevice, kind: &str, body: &str) -> Result<Vec<TransportEvent>, WebhookError> {
    let transport = Wablas::builder().build().unwrap();
    transport.as_webhook().unwrap().decode(&WebhookRequest {
        kind,
        query: "",
        content_type: Some("application/json"),
        body: body.as_bytes(),
        device,
    })
}

fn decode(kind: &str, body: &str) -> Result<Vec<TransportEvent>, WebhookError> {
    decode_for(&device("https://solo.wablas.com".to_owned()), kind, body)
}

#[test]
fn a_reply_is_read_whole() {
    let expected = InboundMessage {
        provider_id: TransportMessageId::new("3EB0C767D097B7C7A1").unwrap(),
        peer: phone("+60123456789"),
        peer_name: Some("Ali".to_owned()),
        kind: ChatKind::Text,
        text: "STOP\n".to_owned(),
        media_url: None,
        from_me: false,
        at: Some(Timestamp::from_millis(1_795_248_000_000)),
    };
    let events = decode("inbound", &fixture("webhook/inbound-text.json")).unwrap();
    assert_eq!(events, [TransportEvent::Inbound(expected)]);
}

#[test]
fn a_picture_carries_its_caption_and_its_url() {
    let events = decode("inbound", &fixture("webhook/inbound-image.json")).unwrap();
    let [TransportEvent::Inbound(message)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert_eq!((message.text.as_str(), message.kind), ("my receipt", ChatKind::Image));
    assert_eq!(
        message.media_url.as_deref(),
        Some("https://solo.wablas.com/image/receipt.jpeg")
    );
}

#[test]
fn what_the_own_phone_wrote_is_marked() {
    let events = decode("inbound", &fixture("webhook/inbound-from-me.json")).unwrap();
    let [TransportEvent::Inbound(message)] = events.as_slice() else {
        panic!("{events:?}");
    };
    assert!(message.from_me);
    assert_eq!(message.peer, phone("+60123456789"));
}

#[test]
fn groups_and_notes_to_oneself_are_of_no_interest() {
    let group = fixture("webhook/inbound-group.json");
    let text = fixture("webhook/inbound-text.json");
    for body in [
        group.clone(),
        group.replace("\"isGroup\":true", "\"isGroup\":\"true\""),
        text.replace("\"phone\":\"60123456789\"", "\"phone\":\"120363041234567890@g.us\""),
        text.replace("\"phone\":\"60123456789\"", "\"phone\":\"status@broadcast\""),
        text.replace("\"phone\":\"60123456789\"", "\"phone\":\"60122223333\""),
    ] {
        assert_eq!(decode("inbound", &body).unwrap(), [], "{body}");
    }
}

#[test]
fn a_callback_of_another_device_is_refused() {
    for (kind, file) in [
        ("inbound", "webhook/inbound-text.json"),
        ("tracking", "webhook/tracking.json"),
        ("device", "webhook/device-connected.json"),
    ] {
        let body = fixture(file)
            .replace("\"sender\":\"60122223333\"", "\"sender\":\"60198765432\"")
            .replace("STATUS", "read");
        assert_eq!(decode(kind, &body), Err(WebhookError::WrongDevice), "{kind}");
        let mut unknown = device("https://solo.wablas.com".to_owned());
        unknown.phone = None;
        assert!(
            decode_for(&unknown, kind, &body).is_ok(),
            "{kind}: without a known number"
        );
    }
}

#[test]
fn a_tracking_status_is_a_receipt() {
    for (status, delivery) in [
        ("delivered", Delivery::Delivered),
        ("received", Delivery::Delivered),
        ("read", Delivery::Read),
        ("cancel", Delivery::Undelivered),
        ("rejected", Delivery::Undelivered),
        ("reject", Delivery::Undelivered),
    ] {
        let body = fixture("webhook/tracking.json")
            .replace("STATUS", status)
            .replace("ID\"", &format!("{PROVIDER_ID}\""));
        let events = decode("tracking", &body).unwrap();
        let [
            TransportEvent::Receipt {
                message,
                delivery: seen,
                ..
            },
        ] = events.as_slice()
        else {
            panic!("{status}: {events:?}");
        };
        assert_eq!(*seen, delivery, "{status}");
        assert_eq!(
            *message,
            MessageRef::Provider(TransportMessageId::new(PROVIDER_ID).unwrap()),
            "{status}"
        );
    }
    for status in ["pending", "sent"] {
        let body = fixture("webhook/tracking.json").replace("STATUS", status);
        assert_eq!(decode("tracking", &body).unwrap(), [], "{status}");
    }
}

#[test]
fn a_tracking_id_that_is_not_of_a_send_tells_the_message_by_its_recipient() {
    let body = fixture("webhook/tracking.json").replace("STATUS", "read");
    for (body, expected) in [
        (
            body.replace("\"ID\"", "\"3EB0C767D097B7C7A1\""),
            MessageRef::NewestTo(phone("+60123456789")),
        ),
        (
            body.replace("\"ID\"", "\"3EB0C767D097B7C7A1\",\"ref_id\":\"ours\""),
            MessageRef::Ours(TransportMessageId::new("ours").unwrap()),
        ),
        (
            body.replace("60123456789", ""),
            MessageRef::Provider(TransportMessageId::new("ID").unwrap()),
        ),
    ] {
        let events = decode("tracking", &body).unwrap();
        assert!(
            matches!(events.as_slice(), [TransportEvent::Receipt { message, .. }] if *message == expected),
            "{events:?}"
        );
    }
}

#[test]
fn a_device_callback_is_a_change_of_the_link() {
    for (file, state, reason) in [
        ("webhook/device-connected.json", LinkState::Ready, None),
        (
            "webhook/device-disconnected.json",
            LinkState::Disconnected,
            Some("logged out from phone"),
        ),
    ] {
        let expected = TransportEvent::Link {
            state,
            reason: reason.map(str::to_owned),
            phone: Some(phone("+60122223333")),
            jid: None,
        };
        assert_eq!(decode("device", &fixture(file)).unwrap(), [expected]);
    }
}

#[test]
fn a_callback_without_what_it_needs_is_unreadable() {
    let text = fixture("webhook/inbound-text.json");
    for (kind, body) in [
        ("inbound", text.replace("\"id\":\"3EB0C767D097B7C7A1\"", "\"id\":\"\"")),
        (
            "inbound",
            text.replace("\"phone\":\"60123456789\"", "\"phone\":\"123\""),
        ),
        ("inbound", text.replace("\"phone\":", "\"fone\":")),
        (
            "tracking",
            fixture("webhook/tracking.json").replace("STATUS", "exploded"),
        ),
        (
            "device",
            fixture("webhook/device-connected.json").replace("connected", "exploded"),
        ),
        ("inbound", "not json".to_owned()),
    ] {
        assert!(
            matches!(decode(kind, &body), Err(WebhookError::Unreadable(_))),
            "{kind} {body}"
        );
    }
}
