//! What goes over the wire: the form of a send, and the answers in every shape that the vendor documents.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use url::Url;
use wa_core::transport::net::HostPolicy;
use wa_core::transport::{Capabilities, NotSentKind, OutgoingMedia, OutgoingMessage, SendError};

/// A send: the last segment of the call's path, and the form.
pub(crate) struct Outgoing<'a> {
    pub(crate) call: &'static str,
    pub(crate) form: Vec<(&'static str, Cow<'a, str>)>,
}

/// The form of a message.
///
/// `retry=false` always, else the vendor may send again behind the outbox. Never `secret` or `priority`, which its
/// documentation describes in two ways, nor `random`, which sends from another device.
pub(crate) fn outgoing<'a>(
    message: &'a OutgoingMessage,
    capabilities: &Capabilities,
    policy: &HostPolicy,
) -> Result<Outgoing<'a>, SendError> {
    let mut form: Vec<(&'static str, Cow<'a, str>)> = vec![
        ("phone", message.to.digits().into()),
        ("ref_id", message.transport_message_id.as_str().into()),
        ("retry", "false".into()),
    ];
    let Some(media) = &message.media else {
        form.push(("message", message.text.as_str().into()));
        return Ok(Outgoing {
            call: "send-message",
            form,
        });
    };
    check_media(media, capabilities)?;
    form.push(("caption", message.text.as_str().into()));
    let call = match (public_url(media, policy), &media.bytes) {
        (Some(url), _) => {
            form.push(("image", url.to_string().into()));
            "send-image"
        }
        (None, Some(bytes)) => {
            form.push(("file", STANDARD.encode(bytes).into()));
            form.push((
                "data",
                json!({ "name": media.file_name, "type": media.mime })
                    .to_string()
                    .into(),
            ));
            "send-image-from-local"
        }
        (None, None) => {
            let detail = "the picture has neither a public URL nor bytes";
            return Err(SendError::not_sent(NotSentKind::Rejected, detail));
        }
    };
    Ok(Outgoing { call, form })
}

fn check_media(media: &OutgoingMedia, capabilities: &Capabilities) -> Result<(), SendError> {
    let limit = capabilities
        .media(media.kind)
        .ok_or_else(|| SendError::not_sent(NotSentKind::Unsupported, format!("{:?} cannot be carried", media.kind)))?;
    if !limit.mimes.contains(&media.mime.as_str()) {
        let detail = format!("a picture must be one of {}", limit.mimes.join(", "));
        return Err(SendError::not_sent(NotSentKind::Unsupported, detail));
    }
    let size = media.bytes.as_ref().map_or(0, |bytes| bytes.len());
    if u64::try_from(size).unwrap_or(u64::MAX) > limit.size_max_bytes {
        let detail = format!(
            "the picture has {size} bytes, at most {} are taken",
            limit.size_max_bytes
        );
        return Err(SendError::not_sent(NotSentKind::Rejected, detail));
    }
    Ok(())
}

/// The URL of the picture, if the vendor can be expected to reach it.
fn public_url(media: &OutgoingMedia, policy: &HostPolicy) -> Option<Url> {
    let url = Url::parse(media.url.as_deref()?).ok()?;
    policy.vet_public_url(&url).is_ok().then_some(url)
}

/// The vendor's success flag, which is not always a boolean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flag {
    Yes,
    No,
    /// Missing, or nothing documented.
    Unclear,
}

impl Flag {
    pub(crate) fn of(value: Option<&Value>) -> Self {
        match value {
            Some(Value::Bool(true)) => Self::Yes,
            Some(Value::Bool(false)) => Self::No,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Self::Yes,
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Self::No,
            _ => Self::Unclear,
        }
    }

    /// The flag of answers to questions, where `200` and `"success"` were seen too.
    pub(crate) fn of_answer(value: Option<&Value>) -> Self {
        match value {
            Some(Value::Number(number)) if number.as_u64() == Some(200) => Self::Yes,
            Some(Value::String(text)) if text == "200" || text.eq_ignore_ascii_case("success") => Self::Yes,
            other => Self::of(other),
        }
    }
}

/// What became of one message of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub(crate) id: Option<String>,
    pub(crate) failed: bool,
    /// Why it failed. The `message` of an item that has an id or a number is the text that was sent, and no reason.
    pub(crate) reason: Option<String>,
}

/// The answer to a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: Flag,
    pub(crate) message: String,
    pub(crate) items: Vec<Item>,
}

/// Reads the answer to a send; `None` when it is no JSON object.
pub(crate) fn reply(body: &[u8]) -> Option<Reply> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let object = value.as_object()?;
    Some(Reply {
        status: Flag::of(object.get("status")),
        message: object.get("message").and_then(text).unwrap_or_default(),
        items: object.get("data").map(items).unwrap_or_default(),
    })
}

/// The messages in `data`, in all documented shapes: `{messages: […]}`, `{message: […]}`, and a list whose elements hold
/// one message each as `messages` or `message`, or are one.
fn items(data: &Value) -> Vec<Item> {
    let mut items = Vec::new();
    for holder in elements(data) {
        let nested: Vec<&Value> = ["messages", "message"]
            .into_iter()
            .filter_map(|name| holder.get(name))
            .flat_map(elements)
            .filter(|value| value.is_object())
            .collect();
        if nested.is_empty() {
            items.extend(item(holder));
        } else {
            items.extend(nested.into_iter().filter_map(item));
        }
    }
    items
}

fn elements(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(values) => values.iter().collect(),
        other => vec![other],
    }
}

fn item(value: &Value) -> Option<Item> {
    let object = value.as_object()?;
    let (id, status) = (object.get("id"), object.get("status"));
    if id.is_none() && status.is_none() {
        return None;
    }
    let id = id.and_then(text);
    let is_message = id.is_some() || object.get("phone").and_then(text).is_some();
    Some(Item {
        id,
        failed: Flag::of(status) == Flag::No || status.and_then(text).is_some_and(|status| is_dead(&status)),
        reason: object.get("message").and_then(text).filter(|_| !is_message),
    })
}

/// Whether a status means that the vendor gave the message up.
pub(crate) fn is_dead(status: &str) -> bool {
    ["cancel", "canceled", "cancelled", "reject", "rejected", "failed"]
        .iter()
        .any(|dead| status.trim().eq_ignore_ascii_case(dead))
}

/// A text or a number as text; `None` for an empty one.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
