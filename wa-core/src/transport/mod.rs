//! Port to the networks that carry messages.
//!
//! A [`Transport`] is thin: one call sends one message once and says truthfully what is known of it afterwards. Retries,
//! pacing, routing and bookkeeping are the engine's. The contract:
//!
//! - [`Transport::send`] makes at most one attempt. It never retries, follows redirects, uses an ambient proxy, or sleeps.
//! - [`SendError::NotSent`] is a promise that the recipient cannot have got the message. Whatever leaves room for doubt (a
//!   time-out after the request was written, a 5xx without a readable body, an answer that cannot be parsed) is
//!   [`SendError::MaybeSent`].
//! - Bodies and credentials are never logged; phone numbers only masked.
//! - Answers of a vendor are mapped once, in the transport's `error.rs`.
//!
//! `wa_core::conformance::transport` (feature `conformance`) checks all of it.

mod capabilities;
mod error;
mod event;
mod faces;
mod message;
pub mod net;
mod redact;
mod stub;

use std::fmt;

use async_trait::async_trait;

pub use self::capabilities::{Capabilities, DoubtPolicy, MediaLimit};
pub use self::error::{Doubt, MaybeSentCause, NotSentKind, Refusal, RestrictionScope, SendError};
pub use self::event::{ChatHistory, InboundMessage, MessageRef, TransportEvent, TransportSink};
pub use self::faces::{
    HostedDevice, LinkStep, Linkable, NumberCheck, NumberChecker, Probe, ProbeReport, Reconcilable, ReconcileQuery,
    Reconciled, Webhook, WebhookError, WebhookRequest,
};
pub use self::message::{
    OutgoingMedia, OutgoingMessage, SendContext, SendReceipt, TransportDevice, TransportMessageId,
};
pub use self::redact::vendor_text;
pub use self::stub::{StubTransport, Stubbed};
use crate::domain::platform::Platform;
use crate::id::AttemptId;

/// A setting of a device that its transport cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {expected}")]
#[non_exhaustive]
pub struct InvalidDevice {
    /// The field, as the API names it: `credential`, `base_url`.
    pub field: &'static str,
    /// What was expected instead.
    pub expected: String,
}

impl InvalidDevice {
    /// A refusal of `field`, saying what was expected.
    pub fn new(field: &'static str, expected: impl Into<String>) -> Self {
        Self {
            field,
            expected: expected.into(),
        }
    }
}

/// Carries messages of one platform.
///
/// Object-safe and shared: one instance serves all devices of its platform.
#[async_trait]
pub trait Transport: Send + Sync + fmt::Debug {
    /// The platform whose devices it carries; constant.
    fn platform(&self) -> Platform;

    /// What it can carry and what can be known afterwards; constant for the life of the instance.
    fn capabilities(&self) -> &Capabilities;

    /// Checks the settings of a device before they are saved; no I/O.
    ///
    /// # Errors
    /// [`InvalidDevice`] names the first field that cannot work.
    fn check_device(&self, device: &TransportDevice) -> Result<(), InvalidDevice>;

    /// The id under which the transport will know the attempt, chosen before anything is sent.
    ///
    /// To ensure correctness: a function of the attempt id alone, so that it is the same after a crash.
    fn message_id(&self, attempt: AttemptId) -> TransportMessageId {
        TransportMessageId::from_attempt(attempt)
    }

    /// Does what is slow and harmless before the attempt is promised: uploads media, checks the number.
    ///
    /// To ensure correctness: nothing that the recipient could notice. Idempotent; may be dropped at any await.
    ///
    /// # Errors
    /// Only [`SendError::NotSent`].
    async fn prepare(&self, _context: &SendContext, _message: &OutgoingMessage) -> Result<(), SendError> {
        Ok(())
    }

    /// Whether [`prepare`](Self::prepare) of this message does anything; when not, the engine skips it.
    fn needs_prepare(&self, _message: &OutgoingMessage) -> bool {
        false
    }

    /// Sends one message once.
    ///
    /// To ensure correctness:
    /// - returns within `context.timeout`;
    /// - `Ok` only when the vendor said so in the documented way (2xx **and** the success flag);
    /// - `NotSent` only when the recipient cannot have got it.
    ///
    /// Cancellation: a future dropped after its first poll counts as maybe sent; the engine takes care of it.
    ///
    /// # Errors
    /// [`SendError::NotSent`] when it certainly was not sent, else [`SendError::MaybeSent`].
    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError>;

    /// The face that asks what became of an attempt; present if and only if [`Capabilities::reconcile`].
    fn as_reconcilable(&self) -> Option<&dyn Reconcilable> {
        None
    }

    /// The face that links, refreshes and logs out devices; present if and only if [`Capabilities::pairing`].
    fn as_linkable(&self) -> Option<&dyn Linkable> {
        None
    }

    /// The face that decodes callbacks of a gateway; present if it sends any.
    fn as_webhook(&self) -> Option<&dyn Webhook> {
        None
    }

    /// The face that tells whether numbers are on WhatsApp; present if and only if [`Capabilities::number_check`].
    fn as_number_checker(&self) -> Option<&dyn NumberChecker> {
        None
    }

    /// The face that asks the vendor how a device is; called only when a person asks for it.
    fn as_probe(&self) -> Option<&dyn Probe> {
        None
    }
}
