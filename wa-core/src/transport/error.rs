//! What can be said of a send that did not succeed.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// Why a message certainly was not sent; named by what the engine does next.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotSentKind {
    /// The vendor refuses this message for good.
    Rejected,
    /// The number cannot be a recipient.
    InvalidRecipient,
    /// The number has no WhatsApp account.
    NotOnWhatsApp,
    /// Too many requests; the lane waits.
    RateLimited {
        /// How long the vendor asks to wait.
        retry_after: Option<Duration>,
    },
    /// The account is restricted; the lane waits.
    Restricted {
        /// Until when, if known.
        until: Option<Timestamp>,
        /// Which messages it concerns.
        scope: RestrictionScope,
    },
    /// The credential is not accepted; the device pauses until it changes.
    Unauthenticated,
    /// The device has no connection to WhatsApp; its messages wait.
    DeviceOffline,
    /// The gateway cannot be reached or refuses before reading; the lane backs off.
    Unavailable,
    /// The transport cannot carry this kind of message.
    Unsupported,
}

/// Which messages a restriction of an account concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RestrictionScope {
    /// Only first messages to people who never wrote.
    Cold,
    /// All messages.
    All,
}

/// A message that certainly was not sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Why, for the engine.
    pub kind: NotSentKind,
    /// What the vendor said, for people: at most [`Refusal::DETAIL_MAX`] characters, without bodies and credentials.
    pub detail: String,
}

impl Refusal {
    /// Longest detail kept, in characters.
    pub const DETAIL_MAX: usize = 300;
}

/// What leaves it open whether a message was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MaybeSentCause {
    /// No answer in time after the request was written.
    Timeout,
    /// The connection ended after the request was (partly) written.
    ConnectionLost,
    /// A server error that says nothing of the message.
    ServerError,
    /// An answer that cannot be understood.
    Unreadable,
    /// The dispatch was dropped or panicked while sending.
    Interrupted,
    /// The device became another account, so that nobody can be asked any more and nothing be repeated. Told by stores, not by
    /// transports.
    AccountChanged,
}

/// A message that may have been sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Why nobody knows.
    pub cause: MaybeSentCause,
    /// What was seen, for people: at most [`Refusal::DETAIL_MAX`] characters, without bodies and credentials.
    pub detail: String,
}

/// The result of a send that did not succeed.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The recipient cannot have got it.
    #[error("not sent ({:?}): {}", .0.kind, .0.detail)]
    NotSent(Refusal),
    /// The recipient may have got it.
    #[error("maybe sent ({:?}): {}", .0.cause, .0.detail)]
    MaybeSent(Doubt),
}

fn clip(detail: impl Into<String>) -> String {
    let mut text: String = detail.into();
    if let Some((at, _)) = text.char_indices().nth(Refusal::DETAIL_MAX) {
        text.truncate(at);
    }
    text
}

impl SendError {
    /// Certainly not sent; the detail is cut to [`Refusal::DETAIL_MAX`].
    pub fn not_sent(kind: NotSentKind, detail: impl Into<String>) -> Self {
        Self::NotSent(Refusal {
            kind,
            detail: clip(detail),
        })
    }

    /// Maybe sent; the detail is cut to [`Refusal::DETAIL_MAX`].
    pub fn maybe_sent(cause: MaybeSentCause, detail: impl Into<String>) -> Self {
        Self::MaybeSent(Doubt {
            cause,
            detail: clip(detail),
        })
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.detail)
    }
}

impl fmt::Debug for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.cause, self.detail)
    }
}
