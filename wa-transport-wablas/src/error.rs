//! The one mapping from what the gateway answered to what the engine must know.

use secrecy::ExposeSecret;
use wa_core::transport::{
    MaybeSentCause, NotSentKind, OutgoingMessage, SendError, SendReceipt, TransportDevice, TransportMessageId,
    vendor_text,
};

use crate::http::{Answer, CallError};
use crate::wire::{self, Flag};

/// Refusals that the vendor documents or that its clients recorded, by a part of their message in lower case; the first
/// match counts, whatever the HTTP status.
const REFUSALS: [(&str, NotSentKind); 11] = [
    ("token invalid", NotSentKind::Unauthenticated),
    ("device expired", NotSentKind::Unauthenticated),
    ("secret key invalid", NotSentKind::Unauthenticated),
    ("need secret key", NotSentKind::Unauthenticated),
    ("not authorized", NotSentKind::Unauthenticated),
    // The token belongs to another server, or to no device.
    ("device not found", NotSentKind::Unauthenticated),
    ("device disconnected", NotSentKind::DeviceOffline),
    ("format phone invalid", NotSentKind::InvalidRecipient),
    ("param invalid", NotSentKind::InvalidRecipient),
    ("package limitation", NotSentKind::Unsupported),
    ("package not support", NotSentKind::Unsupported),
];

/// What an answer to a send means.
///
/// Sent: 2xx, the flag, and no message marked as failed. Not sent: the documented refusal was read. Everything else may
/// have been sent.
pub(crate) fn verdict(answer: &Answer, sent: &OutgoingMessage, secrets: &[String]) -> Result<SendReceipt, SendError> {
    let reply = wire::reply(&answer.body);
    match &reply {
        Some(reply) if reply.status == Flag::No => Err(refusal(answer, &reply.message, secrets)),
        Some(reply) if reply.status == Flag::Yes && answer.is_success() => {
            match reply.items.iter().find(|item| item.failed) {
                Some(item) => {
                    let reason = item.reason.as_deref().filter(|reason| !repeats(reason, &sent.text));
                    Err(refusal(answer, reason.unwrap_or_default(), secrets))
                }
                None => Ok(SendReceipt {
                    provider_id: reply
                        .items
                        .first()
                        .and_then(|item| item.id.clone())
                        .and_then(TransportMessageId::new),
                    accepted_at: None,
                }),
            }
        }
        _ => Err(doubt(answer)),
    }
}

/// Whether what stands in an answer is the text that was sent, or a part of it, and so tells nothing of why it was refused.
fn repeats(reason: &str, sent: &str) -> bool {
    let sent = sent.trim();
    sent.contains(reason) || (!sent.is_empty() && reason.contains(sent))
}

fn refusal(answer: &Answer, message: &str, secrets: &[String]) -> SendError {
    let folded = message.to_lowercase();
    let known = REFUSALS
        .iter()
        .find(|(part, _)| folded.contains(part))
        .map(|(_, kind)| kind.clone());
    let kind = match (known, answer.status) {
        (Some(kind), _) => kind,
        (None, 401) => NotSentKind::Unauthenticated,
        (None, 429) => NotSentKind::RateLimited {
            retry_after: answer.retry_after,
        },
        // A failure inside the gateway may have come after it queued the message.
        (None, 500..) => return doubt_because(MaybeSentCause::ServerError, answer, message, secrets),
        (None, _) => NotSentKind::Rejected,
    };
    SendError::not_sent(kind, said(answer, message, secrets))
}

fn doubt(answer: &Answer) -> SendError {
    let cause = match answer.status {
        429 | 500.. => MaybeSentCause::ServerError,
        _ => MaybeSentCause::Unreadable,
    };
    doubt_because(cause, answer, "", &[])
}

fn doubt_because(cause: MaybeSentCause, answer: &Answer, message: &str, secrets: &[String]) -> SendError {
    SendError::maybe_sent(cause, said(answer, message, secrets))
}

fn said(answer: &Answer, message: &str, secrets: &[String]) -> String {
    let message = vendor_text(message, secrets.iter().map(String::as_str));
    let status = answer.status;
    if message.is_empty() {
        format!("HTTP {status} without a readable reason")
    } else {
        format!("HTTP {status}: {message}")
    }
}

/// What a failed call means for a send.
pub(crate) fn unanswered(error: CallError) -> SendError {
    match error {
        CallError::NotWritten(detail) => SendError::not_sent(NotSentKind::Unavailable, detail),
        CallError::Written(cause, detail) => SendError::maybe_sent(cause, detail),
    }
}

/// The same for a question: a question sends nothing, however it fails.
pub(crate) fn nothing_sent(error: SendError) -> SendError {
    match error {
        SendError::MaybeSent(doubt) => SendError::not_sent(NotSentKind::Unavailable, doubt.detail),
        not_sent => not_sent,
    }
}

/// Why an answer to a question is none: the refusal of the account or device, or the gateway cannot be asked now.
pub(crate) fn unusable(answer: &Answer, secrets: &[String]) -> SendError {
    let error = match wire::reply(&answer.body) {
        Some(reply) if reply.status == Flag::No => refusal(answer, &reply.message, secrets),
        _ => doubt(answer),
    };
    match nothing_sent(error) {
        SendError::NotSent(refused)
            if !matches!(
                refused.kind,
                NotSentKind::Unauthenticated | NotSentKind::DeviceOffline | NotSentKind::RateLimited { .. }
            ) =>
        {
            SendError::not_sent(NotSentKind::Unavailable, refused.detail)
        }
        error => error,
    }
}

/// What must not be shown of an answer, since vendors repeat what they were given.
pub(crate) fn secrets(device: &TransportDevice, message: Option<&OutgoingMessage>) -> Vec<String> {
    let mut secrets = Vec::new();
    if let Some(credential) = &device.credential {
        let credential = credential.expose_secret();
        secrets.push(credential.to_owned());
        secrets.extend(credential.split('.').map(str::to_owned));
    }
    if let Some(message) = message {
        secrets.push(message.text.clone());
        secrets.push(message.to.digits().to_owned());
        secrets.extend(message.media.as_ref().and_then(|media| media.url.clone()));
    }
    secrets
}
