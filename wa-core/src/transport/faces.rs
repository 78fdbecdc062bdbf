//! Optional abilities of a transport, found through its `as_…` methods.

use std::sync::Arc;

use async_trait::async_trait;

use super::error::SendError;
use super::event::{TransportEvent, TransportSink};
use super::message::{SendContext, TransportDevice, TransportMessageId};
use crate::domain::delivery::Delivery;
use crate::domain::device::{Epoch, LinkState};
use crate::domain::phone::Phone;
use crate::id::{AttemptId, Incarnation};
use crate::time::Timestamp;

/// Which attempt is asked about.
#[derive(Debug, Clone)]
pub struct ReconcileQuery {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The id chosen before the send.
    pub transport_message_id: TransportMessageId,
    /// The recipient.
    pub to: Phone,
    /// When the attempt began.
    pub attempted_at: Timestamp,
    /// When the question is asked.
    pub asked_at: Timestamp,
}

/// What the gateway knows of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reconciled {
    /// The gateway has it.
    Found {
        /// Its own id of it.
        provider_id: Option<TransportMessageId>,
        /// How far it came, if told.
        delivery: Option<Delivery>,
    },
    /// The gateway has it and gave it up or cancelled it: the recipient will not get it.
    FoundDead {
        /// What the gateway said.
        detail: String,
    },
    /// The gateway says in a well-formed answer that it has no such message.
    NotFound,
}

/// Asks a gateway what became of an attempt.
#[async_trait]
pub trait Reconcilable: Send + Sync {
    /// Looks up one attempt. Only reads; never sends.
    ///
    /// To ensure correctness: [`Reconciled::NotFound`] only for a well-formed, successful answer with an empty list;
    /// anything else that is not a match is an error.
    ///
    /// # Errors
    /// The gateway could not be asked; ask again later.
    async fn find(&self, context: &SendContext, query: &ReconcileQuery) -> Result<Reconciled, SendError>;
}

/// One step of linking a device, as a person sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkStep {
    /// Show this text as a QR code.
    Qr {
        /// The payload of the code.
        payload: String,
        /// When it stops being valid.
        expires_at: Timestamp,
    },
    /// Type this code on the phone.
    PairCode {
        /// Eight characters, without the dash.
        code: String,
        /// When it stops being valid.
        expires_at: Timestamp,
    },
    /// The link has this state now.
    State(LinkState),
}

/// A device that this node owns, for a transport that keeps connections.
#[derive(Debug, Clone)]
pub struct HostedDevice {
    /// The device.
    pub device: Arc<TransportDevice>,
    /// Its epoch: what names it in every write of the owner.
    pub epoch: Epoch,
    /// It was deleted: its link is removed and its session wiped.
    pub deleted: bool,
}

/// Links, refreshes and logs out devices, and keeps them connected while this node owns them.
#[async_trait]
pub trait Linkable: Send + Sync {
    /// Says which devices of the platform this node owns now, all of them. It is said again after every change and from time
    /// to time; without devices when the node has lost its lease.
    ///
    /// To ensure correctness: returns at once. The connection of a device that is not named any more, or at another epoch, is
    /// cut at once and writes nothing more. A device that has a session is connected.
    fn host(&self, node: Incarnation, devices: Vec<HostedDevice>);

    /// Says where its events go; the engine does when it starts, before it names devices. Only the first call counts.
    fn deliver_to(&self, sink: Arc<dyn TransportSink>);

    /// Starts to link the device; with a phone number by pair code, else by QR. Further steps arrive as events.
    ///
    /// # Errors
    /// The attempt could not be started.
    async fn link(&self, context: &SendContext, phone: Option<&Phone>) -> Result<LinkStep, SendError>;
    /// Connects again with the stored session.
    ///
    /// # Errors
    /// The session is gone or the network cannot be reached.
    async fn refresh(&self, context: &SendContext) -> Result<LinkStep, SendError>;
    /// Closes the connection and keeps the session. It stays closed until the device is linked or refreshed, also where the
    /// device is hosted next.
    ///
    /// # Errors
    /// That it stays closed could not be stored.
    async fn disconnect(&self, context: &SendContext) -> Result<(), SendError>;
    /// Removes the link at WhatsApp and wipes the session.
    ///
    /// # Errors
    /// WhatsApp could not be told; the session is wiped all the same.
    async fn logout(&self, context: &SendContext) -> Result<(), SendError>;
    /// Closes the connection and keeps the session; called when the device is handed to another node.
    async fn close(&self, context: &SendContext);
}

/// Whether a number is on WhatsApp.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberCheck {
    /// The number.
    pub phone: Phone,
    /// Whether it has an account.
    pub on_whatsapp: bool,
}

/// Tells whether numbers are on WhatsApp.
#[async_trait]
pub trait NumberChecker: Send + Sync {
    /// Checks up to 100 numbers in one request.
    ///
    /// # Errors
    /// The vendor could not be asked or did not answer for every number.
    async fn check(&self, context: &SendContext, phones: &[Phone]) -> Result<Vec<NumberCheck>, SendError>;

    /// How many numbers the engine is to check in one request, this one among them, before a message to it is
    /// [prepared](super::Transport::prepare): those to whom the device's next messages of the same campaign or sequence go.
    /// 0 or 1, and the default, for none.
    ///
    /// To ensure correctness: without waiting for anything, because it is asked before each message.
    fn check_ahead(&self, _context: &SendContext, _phone: &Phone) -> u32 {
        0
    }
}

/// How a vendor says a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Whether the device is connected to WhatsApp.
    pub connected: bool,
    /// Its own number, if told.
    pub phone: Option<Phone>,
    /// The messages left in the plan, as the vendor words it.
    pub quota: Option<String>,
    /// What else the vendor said, for people.
    pub detail: String,
}

/// Asks the vendor how a device is.
#[async_trait]
pub trait Probe: Send + Sync {
    /// Asks once.
    ///
    /// # Errors
    /// As [`super::Transport::send`], always `NotSent`.
    async fn probe(&self, context: &SendContext) -> Result<ProbeReport, SendError>;
}

/// A callback of a gateway, as the HTTP side received it.
#[derive(Clone)]
pub struct WebhookRequest<'a> {
    /// The last segment of its path: `inbound`, `tracking` or `device`.
    pub kind: &'a str,
    /// The query string without `?`.
    pub query: &'a str,
    /// The header `Content-Type`.
    pub content_type: Option<&'a str>,
    /// The body, already limited in size by the HTTP side.
    pub body: &'a [u8],
    /// The device whose secret path was called.
    pub device: &'a TransportDevice,
}

impl std::fmt::Debug for WebhookRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookRequest")
            .field("kind", &self.kind)
            .field("body_len", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A callback that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebhookError {
    /// There is no such callback.
    #[error("no callback of that name")]
    UnknownKind,
    /// The body is not what the vendor documents.
    #[error("callback cannot be read: {0}")]
    Unreadable(String),
    /// The callback speaks of another device than the one whose path was called.
    #[error("callback of another device")]
    WrongDevice,
}

/// Decodes the callbacks of a gateway, without I/O.
///
/// The HTTP side answers 200 with an empty body whatever comes out: a gateway sends non-empty answers to the customer.
pub trait Webhook: Send + Sync {
    /// What the callback reports; an empty list for one that is understood and of no interest, such as a group message.
    ///
    /// # Errors
    /// [`WebhookError`] for what cannot be understood; it is logged and dropped.
    fn decode(&self, request: &WebhookRequest<'_>) -> Result<Vec<TransportEvent>, WebhookError>;
}
