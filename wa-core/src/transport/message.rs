//! What a transport is given and what it gives back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::domain::content::MediaKind;
use crate::domain::phone::Phone;
use crate::domain::platform::Platform;
use crate::id::{AttemptId, DeviceId, MessageId, UserId};
use crate::time::Timestamp;

/// The id under which a transport or a vendor knows a message; at most 128 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransportMessageId(String);

impl TransportMessageId {
    /// Longest id, in bytes.
    pub const LEN_MAX: usize = 128;

    /// Takes an id of a vendor; `None` if it is empty, longer than [`Self::LEN_MAX`], or has the character of number 0, which
    /// databases do not take.
    pub fn new(id: impl Into<String>) -> Option<Self> {
        let id = id.into();
        let fits = !id.is_empty() && id.len() <= Self::LEN_MAX && !id.contains('\0');
        fits.then_some(Self(id))
    }

    /// The id that follows from an attempt where the transport has no form of its own.
    #[must_use]
    pub fn from_attempt(attempt: AttemptId) -> Self {
        Self(attempt.to_string())
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TransportMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for TransportMessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a transport needs to know of the device that sends.
#[derive(Clone)]
pub struct TransportDevice {
    /// The device.
    pub id: DeviceId,
    /// Its owner.
    pub user_id: UserId,
    /// Its platform.
    pub platform: Platform,
    /// Its own number, if known.
    pub phone: Option<Phone>,
    /// The gateway's credential: token and secret, or device key.
    pub credential: Option<SecretString>,
    /// The gateway's base URL, if the device has one of its own.
    pub base_url: Option<String>,
}

impl fmt::Debug for TransportDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TransportDevice")
            .field("id", &self.id)
            .field("platform", &self.platform)
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}

/// The circumstances of one send.
#[derive(Debug, Clone)]
pub struct SendContext {
    /// The device that sends; shared, because thousands of sends may be under way.
    pub device: Arc<TransportDevice>,
    /// How long the call may take at most.
    pub timeout: Duration,
}

/// Media as a transport gets it: by URL, by bytes, or both.
#[derive(Clone)]
pub struct OutgoingMedia {
    /// The kind.
    pub kind: MediaKind,
    /// MIME type, such as `image/jpeg`.
    pub mime: String,
    /// Name shown to the recipient.
    pub file_name: String,
    /// A URL that the vendor can fetch.
    pub url: Option<String>,
    /// The bytes.
    pub bytes: Option<Arc<[u8]>>,
}

impl fmt::Debug for OutgoingMedia {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutgoingMedia")
            .field("kind", &self.kind)
            .field("mime", &self.mime)
            .field("size", &self.bytes.as_ref().map(|bytes| bytes.len()))
            .finish_non_exhaustive()
    }
}

/// One message, rendered, to one person.
#[derive(Clone)]
pub struct OutgoingMessage {
    /// The row of the outbox.
    pub message_id: MessageId,
    /// This attempt.
    pub attempt_id: AttemptId,
    /// The id chosen before the send.
    pub transport_message_id: TransportMessageId,
    /// The recipient.
    pub to: Phone,
    /// The text, or the caption of the media; never empty without media.
    pub text: String,
    /// The media, if any.
    pub media: Option<OutgoingMedia>,
}

impl fmt::Debug for OutgoingMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutgoingMessage")
            .field("message_id", &self.message_id)
            .field("attempt_id", &self.attempt_id)
            .field("to", &self.to)
            .field("text_len", &self.text.len())
            .field("media", &self.media)
            .finish_non_exhaustive()
    }
}

/// The vendor took the message.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SendReceipt {
    /// The vendor's own id of it, by which its receipts will speak of it.
    pub provider_id: Option<TransportMessageId>,
    /// When the vendor took it, if it says so.
    pub accepted_at: Option<Timestamp>,
}
