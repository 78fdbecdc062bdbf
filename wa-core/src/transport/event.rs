//! What a transport reports by itself.

use std::fmt;

use async_trait::async_trait;

use super::error::RestrictionScope;
use super::message::TransportMessageId;
use crate::domain::chat::ChatKind;
use crate::domain::delivery::Delivery;
use crate::domain::device::{LinkState, NewChats, RestrictionCause};
use crate::domain::phone::Phone;
use crate::id::{DeviceId, UserId};
use crate::store::{SessionOwner, StoreError};
use crate::time::Timestamp;

/// How an event names the message that it is about, most certain first.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageRef {
    /// By the id that we chose before the send (Wablas `ref_id`, WhatsApp message id).
    Ours(TransportMessageId),
    /// By the vendor's id, as in [`super::SendReceipt::provider_id`].
    Provider(TransportMessageId),
    /// By recipient alone: the newest message of the device to that number that has no receipt yet. Moves only delivery,
    /// never settles anything.
    NewestTo(Phone),
}

/// A message that somebody wrote to a device.
#[derive(Clone, PartialEq, Eq)]
pub struct InboundMessage {
    /// The vendor's id of it; repeated deliveries carry the same. When `from_me`, in the form of the ids under which we send, so that
    /// what we sent ourselves is recognised.
    pub provider_id: TransportMessageId,
    /// Who wrote, or, when `from_me`, to whom the device's own phone wrote.
    pub peer: Phone,
    /// The name that the person gave themselves.
    pub peer_name: Option<String>,
    /// What it is.
    pub kind: ChatKind,
    /// The text or caption.
    pub text: String,
    /// URL of media at the vendor, if any.
    pub media_url: Option<String>,
    /// Written on the device's own phone, not by us and not by the person.
    pub from_me: bool,
    /// When it was written.
    pub at: Option<Timestamp>,
}

/// What a chat held before the device was linked.
#[derive(Clone, PartialEq, Eq)]
pub struct ChatHistory {
    /// The person.
    pub peer: Phone,
    /// The name by which the phone knows the person.
    pub peer_name: Option<String>,
    /// The messages, in any order; only those with an instant count.
    pub messages: Vec<InboundMessage>,
    /// How many of the newest messages of the person nobody has read.
    pub unread: u32,
}

impl fmt::Debug for ChatHistory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChatHistory")
            .field("peer", &self.peer)
            .field("messages", &self.messages)
            .field("unread", &self.unread)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for InboundMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InboundMessage")
            .field("provider_id", &self.provider_id)
            .field("peer", &self.peer)
            .field("from_me", &self.from_me)
            .field("kind", &self.kind)
            .field("text_len", &self.text.len())
            .finish_non_exhaustive()
    }
}

/// What a transport reports by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportEvent {
    /// Somebody wrote.
    Inbound(InboundMessage),
    /// What was written before the device was linked; it fills the chat and has no other effect.
    History(ChatHistory),
    /// Something became known of a message that we sent.
    Receipt {
        /// Which message.
        message: MessageRef,
        /// What became known.
        delivery: Delivery,
        /// When, if the vendor says so.
        at: Option<Timestamp>,
        /// The vendor's note, for people.
        note: Option<String>,
    },
    /// The device's link changed.
    Link {
        /// The new state.
        state: LinkState,
        /// Why, for people.
        reason: Option<String>,
        /// The device's own number, if told.
        phone: Option<Phone>,
        /// The device's WhatsApp identity, if told, at most 100 characters.
        jid: Option<String>,
    },
    /// The vendor said whether the account is restricted.
    Restriction {
        /// Which messages it is about.
        scope: RestrictionScope,
        /// Until when they may not be sent; `None` when they may.
        until: Option<Timestamp>,
        /// Why not.
        cause: RestrictionCause,
    },
    /// WhatsApp said how many new chats the account may begin; `None` for no limit.
    NewChats(Option<NewChats>),
}

/// Takes the events of transports; the engine's handle is one.
#[async_trait]
pub trait TransportSink: Send + Sync {
    /// Takes events of one device; durable on return.
    ///
    /// Idempotent: an event that was taken already changes nothing.
    ///
    /// # Errors
    /// A [`StoreError`] means that nothing was taken: deliver the same events again.
    async fn accept(&self, user: UserId, device: DeviceId, events: Vec<TransportEvent>) -> Result<(), StoreError>;

    /// The same from the node that owns the device. What it says of link, restriction and new chats counts only while it does: a node
    /// that was away for longer than its lease must not put its state over that of the node after it. What became known of messages
    /// counts whoever says it.
    ///
    /// A sink that knows of no owners takes them as [`accept`](Self::accept) does, which is what it does by default.
    ///
    /// # Errors
    /// `Fenced`: the device is another's; all but its state was taken. Close its connection. Otherwise as for `accept`.
    async fn accept_owned(&self, owner: &SessionOwner, events: Vec<TransportEvent>) -> Result<(), StoreError> {
        self.accept(owner.user_id, owner.device_id, events).await
    }
}
