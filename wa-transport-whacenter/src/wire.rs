//! What goes over the wire: the form of a send, and the answers in the shapes that were captured.

use std::borrow::Cow;

use secrecy::{ExposeSecret, SecretString};
use serde_json::Value;
use url::Url;
use wa_core::transport::net::HostPolicy;
use wa_core::transport::{Capabilities, NotSentKind, OutgoingMedia, OutgoingMessage, SendError};

/// The fields of a form.
pub(crate) type Form<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// The form of a message. The device id goes in the body, so that no proxy's log of URLs holds it.
pub(crate) fn form<'a>(
    device_id: &'a SecretString,
    message: &'a OutgoingMessage,
    capabilities: &Capabilities,
    policy: &HostPolicy,
) -> Result<Form<'a>, SendError> {
    let mut form: Form<'a> = vec![
        ("device_id", device_id.expose_secret().into()),
        ("number", message.to.digits().into()),
        ("message", message.text.as_str().into()),
    ];
    if let Some(media) = &message.media {
        check_media(media, capabilities)?;
        let url = public_url(media, policy).ok_or_else(|| {
            SendError::not_sent(
                NotSentKind::Rejected,
                "the picture has no public URL, and the gateway takes no bytes",
            )
        })?;
        form.push(("file", url.to_string().into()));
    }
    Ok(form)
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
}

/// The answer to a send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: Flag,
    pub(crate) message: String,
    pub(crate) id: Option<String>,
}

/// Reads an answer; `None` when it is no JSON object. `data` is an object, or an empty list when there is nothing to say.
pub(crate) fn reply(body: &[u8]) -> Option<Reply> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let object = value.as_object()?;
    Some(Reply {
        status: Flag::of(object.get("status")),
        message: object.get("message").and_then(text).unwrap_or_default(),
        id: object.get("data").and_then(|data| data.get("id")).and_then(text),
    })
}

/// A text or a number as text; `None` for an empty one.
pub(crate) fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
