//! The vendor's callback, decoded without I/O.
//!
//! Nothing of it is documented, and its readers disagree; so it is read under every name that they use, from JSON, a form
//! or the query.

use secrecy::ExposeSecret;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use url::form_urlencoded;
use wa_core::domain::chat::ChatKind;
use wa_core::domain::phone::{Phone, Region};
use wa_core::time::Timestamp;
use wa_core::transport::{
    InboundMessage, TransportDevice, TransportEvent, TransportMessageId, Webhook, WebhookError, WebhookRequest,
};

use crate::transport::Whacenter;
use crate::wire::text;

const DEVICE: [&str; 2] = ["device_id", "device"];
const ID: [&str; 4] = ["id", "message_id", "messageId", "msgId"];
const FROM: [&str; 4] = ["from", "sender", "phone", "number"];
const TEXT: [&str; 3] = ["message", "body", "text"];
const NAME: [&str; 2] = ["pushName", "name"];
const GROUP: [&str; 2] = ["isGroup", "is_group"];
const FROM_ME: [&str; 3] = ["isFromMe", "fromMe", "from_me"];
const MEDIA: [&str; 5] = ["media", "media_url", "mediaUrl", "url", "file"];
const AT: [&str; 2] = ["timestamp", "time"];

impl Webhook for Whacenter {
    fn decode(&self, request: &WebhookRequest<'_>) -> Result<Vec<TransportEvent>, WebhookError> {
        if request.kind != "inbound" {
            return Err(WebhookError::UnknownKind);
        }
        let callback = Callback::read(request)?;
        callback.check_device(request.device)?;
        Ok(inbound(&callback, request.device)?.into_iter().collect())
    }
}

fn unreadable(why: &str) -> WebhookError {
    WebhookError::Unreadable(why.to_owned())
}

/// A number as the vendor writes it: international digits without `+`, an Indonesian number with a leading zero, or a
/// WhatsApp address.
pub(crate) fn vendor_phone(text: &str) -> Option<Phone> {
    let text = text.trim();
    if text.starts_with('0') {
        return Phone::parse(text, &"ID".parse().ok()?).ok();
    }
    let international = if text.contains('@') || text.starts_with('+') {
        text.to_owned()
    } else {
        format!("+{text}")
    };
    Phone::parse(&international, &Region::default()).ok()
}

/// The fields of a callback.
struct Callback(Map<String, Value>);

impl Callback {
    /// The fields of the body, and of the query where the body lacks them.
    fn read(request: &WebhookRequest<'_>) -> Result<Self, WebhookError> {
        let form = |bytes: &[u8]| -> Map<String, Value> {
            form_urlencoded::parse(bytes)
                .map(|(name, value)| (name.into_owned(), Value::String(value.into_owned())))
                .collect()
        };
        let mut fields = form(request.query.as_bytes());
        let is_form = request
            .content_type
            .is_some_and(|kind| kind.trim_start().starts_with("application/x-www-form-urlencoded"));
        if is_form {
            fields.extend(form(request.body));
        } else if !request.body.trim_ascii().is_empty() {
            match serde_json::from_slice(request.body) {
                Ok(Value::Object(body)) => fields.extend(body),
                _ => return Err(unreadable("neither a JSON object nor a form")),
            }
        }
        Ok(Self(fields))
    }

    fn text(&self, names: &[&str]) -> Option<String> {
        names.iter().find_map(|name| self.0.get(*name).and_then(text))
    }

    fn is_true(&self, names: &[&str]) -> bool {
        names.iter().any(|name| match self.0.get(*name) {
            Some(Value::Bool(value)) => *value,
            Some(value) => text(value).is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1"),
            None => false,
        })
    }

    /// Refuses what names another device: by the device id, which is the credential, or by the number.
    fn check_device(&self, device: &TransportDevice) -> Result<(), WebhookError> {
        let known = device.credential.as_ref().map(ExposeSecret::expose_secret);
        let (Some(told), Some(known)) = (self.text(&DEVICE), known) else {
            return Ok(());
        };
        if told == known {
            return Ok(());
        }
        // Under the name `device` some gateways send a number or a name instead.
        let is_id = self.0.contains_key("device_id");
        let other_number = vendor_phone(&told).is_some_and(|told| device.phone.is_some_and(|own| own != told));
        if is_id || other_number {
            return Err(WebhookError::WrongDevice);
        }
        Ok(())
    }

    /// The message's id, or one that follows from its content, so that a callback that is delivered twice is known again.
    ///
    /// The cost: without id and timestamp, two equal texts of one person are one message.
    fn id(&self) -> TransportMessageId {
        if let Some(id) = self.text(&ID).and_then(TransportMessageId::new) {
            return id;
        }
        let mut digest = Sha256::new();
        for names in [&FROM[..], &TEXT, &MEDIA, &AT, &FROM_ME] {
            let value = self.text(names).unwrap_or_default();
            digest.update(value.len().to_le_bytes());
            digest.update(value.as_bytes());
        }
        let hex: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        TransportMessageId::new(format!("sha256-{hex}")).expect("71 characters are a valid id")
    }

    /// RFC 3339, or seconds or milliseconds since 1970.
    fn at(&self) -> Option<Timestamp> {
        /// Seconds reach this number in the year 5138, milliseconds did in 1973.
        const MILLIS_FROM: i64 = 100_000_000_000;
        let text = self.text(&AT)?;
        match text.parse::<i64>() {
            Ok(number) if number <= 0 => None,
            Ok(number) if number < MILLIS_FROM => Some(Timestamp::from_millis(number * 1000)),
            Ok(number) => Some(Timestamp::from_millis(number)),
            Err(_) => serde_json::from_value(Value::String(text)).ok(),
        }
    }
}

fn inbound(callback: &Callback, device: &TransportDevice) -> Result<Option<TransportEvent>, WebhookError> {
    let from = callback
        .text(&FROM)
        .ok_or_else(|| unreadable("the sender is missing"))?;
    let is_group = callback.is_true(&GROUP)
        || from
            .split_once('@')
            .is_some_and(|(_, server)| matches!(server, "g.us" | "broadcast" | "newsletter"));
    if is_group {
        return Ok(None);
    }
    let peer = vendor_phone(&from).ok_or_else(|| unreadable("the sender is no phone number"))?;
    let media_url = callback
        .text(&MEDIA)
        .filter(|url| url.starts_with("https://") || url.starts_with("http://"));
    let words = TEXT.iter().find_map(|name| match callback.0.get(*name) {
        // Blanks and line breaks at the ends are the person's own.
        Some(Value::String(words)) if !words.is_empty() => Some(words.clone()),
        Some(other) => text(other),
        None => None,
    });
    if device.phone == Some(peer) || (words.is_none() && media_url.is_none()) {
        return Ok(None);
    }
    Ok(Some(TransportEvent::Inbound(InboundMessage {
        provider_id: callback.id(),
        peer,
        peer_name: callback.text(&NAME),
        // The vendor does not say what a file is; most are pictures.
        kind: if media_url.is_some() {
            ChatKind::Image
        } else {
            ChatKind::Text
        },
        text: words.unwrap_or_default(),
        media_url,
        from_me: callback.is_true(&FROM_ME),
        at: callback.at(),
    })))
}
