//! The one mapping from what WhatsApp answers to what the engine must know.

use std::time::Duration;

use wa_core::time::Timestamp;
use wa_core::transport::{MaybeSentCause, NotSentKind, RestrictionScope, SendError};
use whatsapp_rust::{ClientError, IqError, SendError as ClientSendError};

/// What a refusal of a message by the server means, by its code.
pub(crate) fn refused(code: &str) -> SendError {
    let not_sent =
        |kind, detail: &str| SendError::not_sent(kind, format!("WhatsApp refused the message ({code}): {detail}"));
    match code {
        "463" => {
            let kind = NotSentKind::Restricted {
                until: None,
                scope: RestrictionScope::Cold,
            };
            not_sent(
                kind,
                "the account may not write to people who have not written to it just now",
            )
        }
        "429" => not_sent(NotSentKind::RateLimited { retry_after: None }, "too many messages"),
        "401" => not_sent(NotSentKind::DeviceOffline, "the device is not logged in"),
        "404" => not_sent(NotSentKind::NotOnWhatsApp, "there is no such recipient"),
        "500" | "501" | "502" | "503" | "504" => SendError::maybe_sent(
            MaybeSentCause::ServerError,
            format!("WhatsApp answered with a failure of its own ({code})"),
        ),
        _ => not_sent(NotSentKind::Rejected, "it is not accepted"),
    }
}

/// Whether the account is restricted.
pub(crate) fn is_restricted(error: &SendError) -> bool {
    matches!(error, SendError::NotSent(refusal) if matches!(refusal.kind, NotSentKind::Restricted { .. }))
}

/// The same refusal because of a restriction, with its end.
pub(crate) fn restricted_until(error: SendError, end: Option<Timestamp>) -> SendError {
    match error {
        SendError::NotSent(mut refusal) => {
            if let NotSentKind::Restricted { until, .. } = &mut refusal.kind {
                *until = end;
            }
            SendError::NotSent(refusal)
        }
        other => other,
    }
}

/// What a failed question means; nothing was sent.
pub(crate) fn unanswered(error: &IqError) -> SendError {
    match error {
        IqError::ServerError { code: 429, backoff, .. } => SendError::not_sent(
            NotSentKind::RateLimited {
                retry_after: backoff.map(|seconds| Duration::from_secs(seconds.into())),
            },
            "WhatsApp says that it was asked too often (429)",
        ),
        IqError::ServerError { code, .. } => SendError::not_sent(
            NotSentKind::Unavailable,
            format!("WhatsApp refused a question ({code})"),
        ),
        IqError::NotConnected | IqError::Disconnected(_) => offline("the connection to WhatsApp was lost"),
        _ => SendError::not_sent(NotSentKind::Unavailable, "WhatsApp did not answer a question"),
    }
}

/// The device has no connection.
pub(crate) fn offline(why: &str) -> SendError {
    SendError::not_sent(NotSentKind::DeviceOffline, why)
}

/// What a send means that failed on this side. The client writes the message to the connection as the last thing that can fail,
/// so that all but a failure of the connection came before it.
pub(crate) fn not_written(error: &ClientSendError) -> SendError {
    match error {
        ClientSendError::NotLoggedIn
        | ClientSendError::Client(ClientError::NotLoggedIn | ClientError::NotConnected) => {
            offline("the device is not connected to WhatsApp")
        }
        ClientSendError::Iq(error) | ClientSendError::Client(ClientError::Iq(error)) => unanswered(error),
        ClientSendError::Client(ClientError::Socket(_) | ClientError::EncryptSend(_)) => SendError::maybe_sent(
            MaybeSentCause::ConnectionLost,
            "the connection to WhatsApp was lost while the message was written",
        ),
        ClientSendError::InvalidRequest(_) => {
            SendError::not_sent(NotSentKind::Rejected, "the message cannot be sent in this form")
        }
        _ => SendError::not_sent(
            NotSentKind::Unavailable,
            "the message could not be encrypted for its recipient",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_of_a_refusal_has_its_meaning() {
        let kind = |code| match refused(code) {
            SendError::NotSent(refusal) => Some(refusal.kind),
            SendError::MaybeSent(_) => None,
        };
        let cold = NotSentKind::Restricted {
            until: None,
            scope: RestrictionScope::Cold,
        };
        assert_eq!(kind("463"), Some(cold));
        assert_eq!(kind("429"), Some(NotSentKind::RateLimited { retry_after: None }));
        assert_eq!(kind("404"), Some(NotSentKind::NotOnWhatsApp));
        for code in ["400", "403", "405", "479", "487", "unheard of"] {
            assert_eq!(kind(code), Some(NotSentKind::Rejected), "{code}");
        }
        for code in ["500", "503"] {
            assert_eq!(kind(code), None, "{code} says nothing of the message");
        }
    }
}
