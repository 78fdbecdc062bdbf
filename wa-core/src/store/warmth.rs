//! Whom devices know: what lanes ask while messages to strangers keep rules of their own.

use super::StoreError;
use crate::domain::message::MessageScope;
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::warmth::Warmth;
use crate::id::{DeviceId, MessageId, UserId};
use crate::time::Timestamp;

/// Asks whom the next messages of a lane are for, those to people who do not know its device or all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strangers {
    /// The device's owner.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The campaign, sequence or kind of message.
    pub scope: MessageScope,
    /// Messages due until then.
    pub now: Timestamp,
    /// How many of the messages that are due are looked at; at most 1,000.
    pub limit: u32,
    /// Whether those to people who know the device are told too.
    pub known_too: bool,
}

/// A queued message to somebody who does not know its device, or to whoever is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stranger {
    /// The message.
    pub message_id: MessageId,
    /// Whom it is for; `None` once they were erased.
    pub phone: Option<Phone>,
}

/// Whom devices know, as [`Warmth`] defines it.
///
/// A lane that keeps no rules for cold messages asks nothing of it but whose numbers to check ahead ([`strangers`](Self::strangers)).
#[async_trait::async_trait]
pub trait WarmthStore: Send + Sync {
    /// How well the devices of these messages know the people that they are for, in the order asked; cold for messages that are gone
    /// or have no device. At most 1,000 messages.
    ///
    /// To ensure correctness: what the message itself became counts as little as what others became that were not sent.
    async fn warmth(&self, messages: &[MessageId]) -> Result<Vec<Warmth>, StoreError>;

    /// Of the first `limit` queued messages of a scope on a lane that are due, by (`due_at`, id), those to strangers, or all of
    /// them, in that order.
    async fn strangers(&self, asked: &Strangers) -> Result<Vec<Stranger>, StoreError>;

    /// Up to `limit` queued messages of a device that are not due because strangers were not to be written to
    /// ([`Reason::waits_for_warmth`](crate::domain::message::Reason::waits_for_warmth)), by id.
    async fn put_off(
        &self,
        user: UserId,
        device: DeviceId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<MessageId>, StoreError>;

    /// When devices started attempts to write to strangers since `since`, oldest first, at most 1,000 devices; one list per device, in
    /// the order asked. Those attempts alone that [`history`](super::OutboxStore::history) tells; who was a stranger is told as it
    /// stood then.
    async fn cold_attempts(&self, devices: &[DeviceId], since: Timestamp) -> Result<Vec<Vec<Timestamp>>, StoreError>;

    /// Which of these people a device knows, in the order asked; at most 1,000.
    async fn acquainted(&self, device: DeviceId, people: &[(Phone, PersonKey)]) -> Result<Vec<PersonKey>, StoreError>;
}
