//! What a transport can do, as plain data.

use serde::Serialize;

use crate::domain::content::MediaKind;

/// What the transport takes of one kind of media.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MediaLimit {
    /// The kind.
    pub kind: MediaKind,
    /// MIME types that are taken.
    pub mimes: Vec<&'static str>,
    /// Largest size, in bytes.
    pub size_max_bytes: u64,
    /// Longest caption, in characters.
    pub caption_max: usize,
    /// Whether it can be given as a public URL.
    pub by_url: bool,
    /// Whether it can be given as bytes.
    pub by_bytes: bool,
}

/// What may be done with a message of which nobody knows whether it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DoubtPolicy {
    /// Send again with the same id and text, which the network drops if it had it.
    ResendSameId,
    /// Ask the gateway.
    Reconcile,
    /// Nothing: it becomes `unknown`.
    Unknown,
}

/// What a transport can carry and what can be known afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capabilities {
    /// The kinds of media that it carries.
    pub media: Vec<MediaLimit>,
    /// Longest text, in characters (Unicode scalar values).
    pub text_len_max: usize,
    /// A repeated id is dropped by the network, so that sending again is harmless.
    pub resend_same_id: bool,
    /// The gateway can be asked what became of an attempt.
    pub reconcile: bool,
    /// Delivery and read receipts arrive.
    pub receipts: bool,
    /// Replies arrive.
    pub inbound: bool,
    /// Devices are linked by QR or code.
    pub pairing: bool,
    /// It can tell whether a number is on WhatsApp.
    pub number_check: bool,
    /// It can show "typing".
    pub presence: bool,
}

impl Capabilities {
    /// A transport of text alone, with a limit in characters; everything else off.
    #[must_use]
    pub fn text(text_len_max: usize) -> Self {
        Self {
            media: Vec::new(),
            text_len_max,
            resend_same_id: false,
            reconcile: false,
            receipts: false,
            inbound: false,
            pairing: false,
            number_check: false,
            presence: false,
        }
    }

    /// What may be done with a message in doubt.
    #[must_use]
    pub fn doubt(&self) -> DoubtPolicy {
        if self.reconcile {
            DoubtPolicy::Reconcile
        } else if self.resend_same_id {
            DoubtPolicy::ResendSameId
        } else {
            DoubtPolicy::Unknown
        }
    }

    /// The limits of one kind of media; `None` if it cannot be carried.
    #[must_use]
    pub fn media(&self, kind: MediaKind) -> Option<&MediaLimit> {
        self.media.iter().find(|limit| limit.kind == kind)
    }
}
