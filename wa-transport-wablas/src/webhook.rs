//! The vendor's callbacks, decoded without I/O.

use serde_json::{Map, Value};
use wa_core::domain::chat::ChatKind;
use wa_core::domain::device::LinkState;
use wa_core::domain::phone::{Phone, Region};
use wa_core::time::Timestamp;
use wa_core::transport::{
    InboundMessage, MessageRef, TransportDevice, TransportEvent, TransportMessageId, Webhook, WebhookError,
    WebhookRequest,
};

use crate::reconcile::delivery;
use crate::transport::Wablas;
use crate::wire::{is_dead, text};

impl Webhook for Wablas {
    fn decode(&self, request: &WebhookRequest<'_>) -> Result<Vec<TransportEvent>, WebhookError> {
        let event = match request.kind {
            "inbound" => inbound(&Callback::read(request)?)?,
            "tracking" => tracking(&Callback::read(request)?)?,
            "device" => device(&Callback::read(request)?)?,
            _ => return Err(WebhookError::UnknownKind),
        };
        Ok(event.into_iter().collect())
    }
}

fn unreadable(why: &str) -> WebhookError {
    WebhookError::Unreadable(why.to_owned())
}

/// A number as the vendor writes it: international digits without `+`, or a WhatsApp address.
pub(crate) fn vendor_phone(text: &str) -> Option<Phone> {
    let text = text.trim();
    let international = if text.contains('@') || text.starts_with('+') {
        text.to_owned()
    } else {
        format!("+{text}")
    };
    Phone::parse(&international, &Region::default()).ok()
}

/// The fields of a callback, of a device that it may speak of.
struct Callback {
    fields: Map<String, Value>,
    own: Option<Phone>,
}

impl Callback {
    fn read(request: &WebhookRequest<'_>) -> Result<Self, WebhookError> {
        let fields = match serde_json::from_slice(request.body) {
            Ok(Value::Object(fields)) => fields,
            _ => return Err(unreadable("not a JSON object")),
        };
        let mut callback = Self { fields, own: None };
        callback.own = callback.own_number(request.device)?;
        Ok(callback)
    }

    /// The device's own number. The vendor's `deviceId` is unknown to us, its number may be known.
    fn own_number(&self, device: &TransportDevice) -> Result<Option<Phone>, WebhookError> {
        let told = self.text("sender").and_then(|sender| vendor_phone(&sender));
        match (told, device.phone) {
            (Some(told), Some(known)) if told != known => Err(WebhookError::WrongDevice),
            (told, known) => Ok(known.or(told)),
        }
    }

    fn text(&self, name: &str) -> Option<String> {
        self.fields.get(name).and_then(text)
    }

    fn is_true(&self, name: &str) -> bool {
        match self.fields.get(name) {
            Some(Value::Bool(value)) => *value,
            Some(value) => text(value).is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1"),
            None => false,
        }
    }

    /// Whether it speaks of a group, a list or a channel instead of a person.
    fn is_group(&self, phone: &str) -> bool {
        self.is_true("isGroup")
            || phone
                .split_once('@')
                .is_some_and(|(_, server)| matches!(server, "g.us" | "broadcast" | "newsletter"))
    }

    fn id(&self) -> Option<TransportMessageId> {
        self.text("id").and_then(TransportMessageId::new)
    }

    /// What the message is, by the vendor's word; words that are not known are text.
    fn kind(&self) -> ChatKind {
        match self.text("messageType").as_deref() {
            Some("image" | "sticker") => ChatKind::Image,
            Some("video") => ChatKind::Video,
            Some("audio" | "voice" | "ptt") => ChatKind::Audio,
            Some("document" | "file") => ChatKind::Document,
            Some("location") => ChatKind::Location,
            Some("contact" | "vcard") => ChatKind::Contact,
            Some("reaction") => ChatKind::Reaction,
            _ => ChatKind::Text,
        }
    }

    fn at(&self) -> Option<Timestamp> {
        serde_json::from_value(self.fields.get("timestamp")?.clone()).ok()
    }
}

fn inbound(callback: &Callback) -> Result<Option<TransportEvent>, WebhookError> {
    let phone = callback.text("phone").ok_or_else(|| unreadable("phone is missing"))?;
    if callback.is_group(&phone) {
        return Ok(None);
    }
    let peer = vendor_phone(&phone).ok_or_else(|| unreadable("phone is no phone number"))?;
    if callback.own == Some(peer) {
        return Ok(None);
    }
    let provider_id = callback.id().ok_or_else(|| unreadable("id is missing"))?;
    Ok(Some(TransportEvent::Inbound(InboundMessage {
        provider_id,
        peer,
        peer_name: callback.text("pushName"),
        kind: callback.kind(),
        // Blanks and line breaks at the ends are the person's own.
        text: match callback.fields.get("message") {
            Some(Value::String(text)) => text.clone(),
            Some(other) => text(other).unwrap_or_default(),
            None => String::new(),
        },
        media_url: callback
            .text("url")
            .or_else(|| callback.text("file"))
            .filter(|url| url.starts_with("https://") || url.starts_with("http://")),
        from_me: callback.is_true("isFromMe"),
        at: callback.at(),
    })))
}

fn tracking(callback: &Callback) -> Result<Option<TransportEvent>, WebhookError> {
    let status = callback.text("status").ok_or_else(|| unreadable("status is missing"))?;
    let phone = callback.text("phone").unwrap_or_default();
    if callback.is_group(&phone) {
        return Ok(None);
    }
    let Some(delivery) = delivery(&status) else {
        let on_its_way = ["pending", "sent"]
            .iter()
            .any(|known| status.eq_ignore_ascii_case(known));
        return if on_its_way {
            Ok(None)
        } else {
            Err(unreadable("status is none of the documented ones"))
        };
    };
    let message = message_ref(callback, &phone)?;
    let note = callback
        .text("note")
        .or_else(|| is_dead(&status).then(|| status.to_ascii_lowercase()));
    Ok(Some(TransportEvent::Receipt {
        message,
        delivery,
        at: callback.at(),
        note,
    }))
}

/// Which message a tracking callback speaks of.
///
/// Whether its `id` is that of the send's answer is not documented. The answer's is a UUID: so is a UUID here taken for
/// it, and with any other id, such as a WhatsApp one, only the recipient tells the message.
fn message_ref(callback: &Callback, phone: &str) -> Result<MessageRef, WebhookError> {
    if let Some(ours) = callback.text("ref_id").and_then(TransportMessageId::new) {
        return Ok(MessageRef::Ours(ours));
    }
    match (callback.id(), vendor_phone(phone)) {
        (Some(id), _) if is_uuid(id.as_str()) => Ok(MessageRef::Provider(id)),
        (_, Some(phone)) => Ok(MessageRef::NewestTo(phone)),
        (Some(id), None) => Ok(MessageRef::Provider(id)),
        (None, None) => Err(unreadable("neither id nor phone is there")),
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

fn device(callback: &Callback) -> Result<Option<TransportEvent>, WebhookError> {
    let status = callback.text("status").ok_or_else(|| unreadable("status is missing"))?;
    let state = match status.to_ascii_lowercase().as_str() {
        "connected" => LinkState::Ready,
        "disconnected" => LinkState::Disconnected,
        _ => return Err(unreadable("status is none of the documented ones")),
    };
    Ok(Some(TransportEvent::Link {
        state,
        reason: callback.text("note"),
        phone: callback.text("sender").and_then(|sender| vendor_phone(&sender)),
        jid: None,
    }))
}
