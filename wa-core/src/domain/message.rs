//! A row of the outbox: one text to one person, with all that happened to it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::content::Content;
use super::delivery::Delivery;
use super::device::Epoch;
use super::enrolment::FlowRef;
use super::pacing::{DelayRange, Priority};
use super::phone::{PersonKey, Phone};
use crate::id::{AttemptId, CampaignId, DeviceId, EnrolmentId, LeadId, MessageId, SequenceId, StepId, UserId};
use crate::time::Timestamp;
use crate::transport::{MaybeSentCause, TransportMessageId};

/// What a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
#[non_exhaustive]
pub enum MessageScope {
    /// A campaign.
    Campaign(CampaignId),
    /// A sequence; [`Message::flow`] says which enrolment and step.
    Sequence(SequenceId),
    /// Sent by hand or by the API to one person.
    Direct,
    /// An answer in a chat.
    Chat,
    /// An answer of a bot.
    Bot,
}

impl MessageScope {
    /// The number that stores keep for its kind.
    #[must_use]
    pub const fn kind(self) -> u8 {
        match self {
            Self::Campaign(_) => 1,
            Self::Sequence(_) => 2,
            Self::Direct => 3,
            Self::Chat => 4,
            Self::Bot => 5,
        }
    }

    /// The id that stores keep beside the kind: the campaign's or sequence's, else that of the user.
    #[must_use]
    pub const fn id_bytes(&self, user: &UserId) -> [u8; 16] {
        match self {
            Self::Campaign(id) => *id.as_bytes(),
            Self::Sequence(id) => *id.as_bytes(),
            _ => *user.as_bytes(),
        }
    }

    /// Back from what stores keep.
    #[must_use]
    pub fn from_parts(kind: u8, id: &[u8]) -> Option<Self> {
        match kind {
            1 => CampaignId::from_slice(id).map(Self::Campaign),
            2 => SequenceId::from_slice(id).map(Self::Sequence),
            3 => Some(Self::Direct),
            4 => Some(Self::Chat),
            5 => Some(Self::Bot),
            _ => None,
        }
    }

    /// Whether its texts get greeting and randomizer, and obey quiet hours and bulk caps.
    #[must_use]
    pub const fn is_bulk(self) -> bool {
        matches!(self, Self::Campaign(_) | Self::Sequence(_))
    }

    /// How urgent its messages are.
    #[must_use]
    pub const fn priority(self) -> Priority {
        match self {
            Self::Campaign(_) => Priority::Campaign,
            Self::Sequence(_) => Priority::Sequence,
            _ => Priority::Interactive,
        }
    }
}

/// What makes a message unique: enqueuing a known key changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdempotencyKey([u8; 16]);

impl IdempotencyKey {
    /// A campaign's message to a person in one round.
    #[must_use]
    pub fn campaign(campaign: CampaignId, person: PersonKey, round: u16) -> Self {
        Self::digest(&[
            b"campaign",
            campaign.as_bytes(),
            person.as_bytes(),
            &round.to_be_bytes(),
        ])
    }

    /// The row that records that a lead or entry of a campaign was skipped as a duplicate; `place` tells them apart.
    #[must_use]
    pub fn campaign_duplicate(campaign: CampaignId, place: &[u8]) -> Self {
        Self::digest(&[b"campaign-duplicate", campaign.as_bytes(), place])
    }

    /// A flow's message in one round.
    #[must_use]
    pub fn flow(enrolment: EnrolmentId, step: StepId, round: u16) -> Self {
        Self::digest(&[b"flow", enrolment.as_bytes(), step.as_bytes(), &round.to_be_bytes()])
    }

    /// A direct message, by the key that its caller gave.
    #[must_use]
    pub fn caller(user: UserId, key: &str) -> Self {
        Self::digest(&[b"caller", user.as_bytes(), key.as_bytes()])
    }

    /// A message that has no key of its own.
    #[must_use]
    pub fn unique(message: MessageId) -> Self {
        Self::digest(&[b"unique", message.as_bytes()])
    }

    /// Round n+1 of a message that a person sends again.
    #[must_use]
    pub fn resend(of: MessageId, round: u16) -> Self {
        Self::digest(&[b"resend", of.as_bytes(), &round.to_be_bytes()])
    }

    fn digest(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Self(key)
    }

    /// The 16 bytes that stores keep.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Back from the bytes of a row.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }
}

impl fmt::Debug for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("key:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Where a message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum MessageState {
    /// Made by a planner; begin moves it to `Sending`. A crash changes nothing.
    Queued = 1,
    /// Its scope is paused; resuming moves it to `Queued`. A crash changes nothing.
    Held = 2,
    /// Begun by its device's owner just before the network call. A crash or a lost lease moves it to `InDoubt`.
    Sending = 3,
    /// May have been sent and may still be found out, as the transport allows.
    InDoubt = 4,
    /// The transport accepted it.
    Sent = 5,
    /// Certainly not sent, and no sense in trying again.
    Failed = 6,
    /// May have been sent and nobody can tell; never resent by itself.
    Unknown = 7,
    /// Will not be sent; the reason says why.
    Skipped = 8,
    /// Its scope ended first.
    Cancelled = 9,
}

impl MessageState {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Queued,
        Self::Held,
        Self::Sending,
        Self::InDoubt,
        Self::Sent,
        Self::Failed,
        Self::Unknown,
        Self::Skipped,
        Self::Cancelled,
    ];

    /// From the number that stores keep.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// Whether something may still happen to it by itself.
    #[must_use]
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Queued | Self::Held | Self::Sending | Self::InDoubt)
    }

    /// Whether a person may send it again as a new round: it failed, or nobody can tell.
    #[must_use]
    pub const fn may_be_resent(self) -> bool {
        matches!(self, Self::Failed | Self::Unknown)
    }

    /// The one table of transitions.
    ///
    /// `Queued` and `Held` become `Sent` or `Failed` only by late evidence of an earlier attempt, `Unknown` by evidence or
    /// by a person; the other terminal states never change.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        use MessageState::{Cancelled, Failed, Held, InDoubt, Queued, Sending, Sent, Skipped, Unknown};
        match self {
            Queued => matches!(next, Held | Sending | Sent | Failed | Skipped | Cancelled),
            Held => matches!(next, Queued | Sent | Failed | Skipped | Cancelled),
            Sending => matches!(
                next,
                Queued | Held | InDoubt | Sent | Failed | Unknown | Skipped | Cancelled
            ),
            InDoubt => matches!(
                next,
                Queued | Held | Sending | Sent | Failed | Unknown | Skipped | Cancelled
            ),
            Unknown => matches!(next, Sent | Failed),
            Sent | Failed | Skipped | Cancelled => false,
        }
    }
}

/// Why a message stands where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum Reason {
    /// The person must not be written to.
    Suppressed = 1,
    /// The number is in this campaign already.
    Duplicate = 2,
    /// The number has no WhatsApp account.
    NotOnWhatsApp = 3,
    /// It waited longer than its scope allows.
    Expired = 4,
    /// The rendered text is longer than the transport takes.
    TooLong = 5,
    /// Its device was deleted.
    DeviceGone = 6,
    /// Its lead was deleted.
    LeadGone = 7,
    /// The vendor refused it for good.
    Rejected = 8,
    /// The number cannot be a recipient.
    InvalidRecipient = 9,
    /// The transport cannot carry its media.
    Unsupported = 10,
    /// Refused as not sent too often while others of its lane passed.
    RefusedTooOften = 11,
    /// Nothing is left of its text after rendering.
    Empty = 12,
    /// Its media cannot be loaded.
    MediaGone = 13,
    /// Its scope ended.
    ScopeEnded = 14,
    /// A person marked it.
    ByPerson = 15,
    /// The transport cannot tell what became of it.
    CannotTell = 16,
    /// The gateway gave no usable answer in time.
    NoAnswer = 17,
    /// It was in doubt when its scope ended or the person opted out.
    EndedInDoubt = 18,
    /// Sent again with the same id as often as is allowed.
    ResentTooOften = 19,
    /// The lead has no device.
    NoDevice = 20,
    /// Its step was removed from the sequence before it was reached.
    StepRemoved = 23,
    /// Nobody was there to send it in time, and its sequence skips what is late.
    Late = 24,
    /// Every device of the user has reached the limit that the campaign sets.
    DeviceLimit = 25,
    /// The gateway found it dead: given up or cancelled there.
    GatewayGaveUp = 21,
    /// The person's data was erased.
    Erased = 22,
    /// Waits: the gateway asks to slow down.
    RateLimited = 30,
    /// Waits: the device has no connection.
    DeviceOffline = 31,
    /// Waits: the gateway cannot be reached.
    GatewayUnavailable = 32,
    /// Waits: the credential is not accepted.
    Unauthenticated = 33,
    /// Waits: the account is restricted.
    Restricted = 34,
    /// Waits: those who do not know the device are written to slowly.
    ColdPace = 37,
    /// Waits: its begin was never followed by a send.
    NeverHandedOver = 35,
    /// Waits: the gateway says that it never had it.
    NotFoundAtGateway = 36,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 33] = [
        Self::Suppressed,
        Self::Duplicate,
        Self::NotOnWhatsApp,
        Self::Expired,
        Self::TooLong,
        Self::DeviceGone,
        Self::LeadGone,
        Self::Rejected,
        Self::InvalidRecipient,
        Self::Unsupported,
        Self::RefusedTooOften,
        Self::Empty,
        Self::MediaGone,
        Self::ScopeEnded,
        Self::ByPerson,
        Self::CannotTell,
        Self::NoAnswer,
        Self::EndedInDoubt,
        Self::ResentTooOften,
        Self::NoDevice,
        Self::StepRemoved,
        Self::Late,
        Self::DeviceLimit,
        Self::GatewayGaveUp,
        Self::Erased,
        Self::RateLimited,
        Self::DeviceOffline,
        Self::GatewayUnavailable,
        Self::Unauthenticated,
        Self::Restricted,
        Self::ColdPace,
        Self::NeverHandedOver,
        Self::NotFoundAtGateway,
    ];

    /// From the number that stores keep.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }

    /// Whether a queued message waits because its person does not know the device: it may go at once when that changes.
    #[must_use]
    pub const fn waits_for_warmth(self) -> bool {
        matches!(self, Self::Restricted | Self::ColdPace)
    }

    /// When a message expires that was due at `due_at` and is put off to `until` for this reason: the time in which the account may
    /// not write to strangers does not count.
    #[must_use]
    pub fn expiry_put_off(
        self,
        expires_at: Timestamp,
        due_at: Timestamp,
        until: Timestamp,
        now: Timestamp,
    ) -> Timestamp {
        if self.waits_for_warmth() {
            expires_at + until.since(due_at.max(now))
        } else {
            expires_at
        }
    }
}

/// One try to send a message.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its id.
    pub id: AttemptId,
    /// The id under which the transport knows it, chosen before the send.
    pub transport_message_id: TransportMessageId,
    /// The vendor's id, once told.
    pub provider_id: Option<TransportMessageId>,
    /// The device that made it.
    pub device_id: DeviceId,
    /// The device's epoch when it was begun.
    pub epoch: Epoch,
    /// The text really handed over.
    pub text: String,
    /// The greeting that the text begins with, as the greeting set names it.
    pub greeting: Option<String>,
    /// When it was begun; sent again with the same id, when it was begun again.
    pub attempted_at: Timestamp,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attempt")
            .field("id", &self.id)
            .field("device_id", &self.device_id)
            .field("epoch", &self.epoch)
            .field("attempted_at", &self.attempted_at)
            .finish_non_exhaustive()
    }
}

/// The record of a message in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InDoubt {
    /// Since when.
    pub since_at: Timestamp,
    /// Why.
    pub cause: Option<MaybeSentCause>,
    /// When it is looked at next.
    pub next_check_at: Timestamp,
    /// How often the gateway said that it never had it.
    pub not_found_count: u8,
    /// How often it was sent again with the same id.
    pub resend_count: u8,
}

impl InDoubt {
    /// The record after an attempt or a question that left it open; since when it is in doubt and how often it was sent again stay. One
    /// of an account that is gone stays as it is.
    #[must_use]
    pub fn told(
        before: Option<Self>,
        cause: MaybeSentCause,
        next_check_at: Timestamp,
        not_found_count: u8,
        now: Timestamp,
    ) -> Self {
        match before {
            Some(doubt) if doubt.is_of_other_account() => doubt,
            _ => Self {
                since_at: before.map_or(now, |doubt| doubt.since_at),
                cause: Some(cause),
                next_check_at,
                not_found_count,
                resend_count: before.map_or(0, |doubt| doubt.resend_count),
            },
        }
    }

    /// The record when its device has become another account.
    #[must_use]
    pub fn with_account_changed(self, now: Timestamp) -> Self {
        Self {
            cause: Some(MaybeSentCause::AccountChanged),
            next_check_at: now,
            ..self
        }
    }

    /// Whether the account that may have sent it is not that of its device any more: nobody can be asked, and nothing be repeated.
    #[must_use]
    pub fn is_of_other_account(&self) -> bool {
        self.cause == Some(MaybeSentCause::AccountChanged)
    }
}

/// A row of the outbox.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Its id.
    pub id: MessageId,
    /// Its owner.
    pub user_id: UserId,
    /// What it belongs to.
    pub scope: MessageScope,
    /// The enrolment and step that it belongs to; set if and only if its scope is a sequence.
    pub flow: Option<FlowRef>,
    /// What makes it unique.
    pub key: IdempotencyKey,
    /// 0 at first; grows when a person sends it again, or triggers again a campaign that left it over.
    pub round: u16,
    /// The row that it replaces in all numbers: one that a person sent again, or that was left over.
    pub supersedes: Option<MessageId>,
    /// Whether a later row replaces it in all numbers.
    pub superseded: bool,
    /// The lead, if there is one.
    pub lead_id: Option<LeadId>,
    /// The number; `None` once the person's data was erased.
    pub phone: Option<Phone>,
    /// The person, as suppression knows them.
    pub person: PersonKey,
    /// The name as it was when the message was planned, for lists; rendering uses it only when there is no lead.
    pub name: String,
    /// Own fields for `{{custom.key}}` when there is no lead.
    pub custom: BTreeMap<String, String>,
    /// The device that sends it; `None` while it waits in the pool.
    pub device_id: Option<DeviceId>,
    /// Whether its device is chosen by load, and may be changed while it is queued.
    pub from_pool: bool,
    /// What is sent; `None` for the scope's content.
    pub content: Option<Content>,
    /// Whether a person explicitly writes although the recipient is suppressed; direct messages only.
    pub override_suppression: bool,
    /// When it may go at the earliest.
    pub due_at: Timestamp,
    /// Own delay before it, else the device's.
    pub delay: Option<DelayRange>,
    /// After this it is no longer sent; moves on by the time on hold.
    pub expires_at: Timestamp,
    /// Since when it is on hold.
    pub held_at: Option<Timestamp>,
    /// Where it stands.
    pub state: MessageState,
    /// Why.
    pub reason: Option<Reason>,
    /// What the vendor said, for people; at most 300 characters.
    pub detail: Option<String>,
    /// How often it was refused as not sent by its own fault.
    pub refusal_count: u16,
    /// The newest attempt.
    pub attempt: Option<Attempt>,
    /// Set while it is in doubt, and while it is sent again from there.
    pub doubt: Option<InDoubt>,
    /// What receipts reported; while it is being sent, one that came before the outcome.
    pub delivery: Option<Delivery>,
    /// When that was.
    pub delivery_at: Option<Timestamp>,
    /// When it first reached a state that is not open.
    pub settled_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
}

impl Message {
    /// Most refusals by its own fault before it fails with [`Reason::RefusedTooOften`].
    pub const REFUSALS_MAX: u16 = 5;

    /// Whether it was left over because every device had reached the limit of its campaign: triggering that again takes it up.
    #[must_use]
    pub fn is_left_over(&self) -> bool {
        self.state == MessageState::Skipped && self.reason == Some(Reason::DeviceLimit) && !self.superseded
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("user_id", &self.user_id)
            .field("scope", &self.scope)
            .field("round", &self.round)
            .field("phone", &self.phone)
            .field("device_id", &self.device_id)
            .field("state", &self.state)
            .field("reason", &self.reason)
            .field("attempt", &self.attempt)
            .field("due_at", &self.due_at)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_transitions_of_the_table_are_allowed() {
        use MessageState::*;
        let allowed: &[(MessageState, &[MessageState])] = &[
            (Queued, &[Held, Sending, Sent, Failed, Skipped, Cancelled]),
            (Held, &[Queued, Sent, Failed, Skipped, Cancelled]),
            (
                Sending,
                &[Queued, Held, InDoubt, Sent, Failed, Unknown, Skipped, Cancelled],
            ),
            (
                InDoubt,
                &[Queued, Held, Sending, Sent, Failed, Unknown, Skipped, Cancelled],
            ),
            (Sent, &[]),
            (Failed, &[]),
            (Unknown, &[Sent, Failed]),
            (Skipped, &[]),
            (Cancelled, &[]),
        ];
        for from in MessageState::ALL {
            let next = allowed
                .iter()
                .find(|(state, _)| *state == from)
                .expect("every state is listed")
                .1;
            for to in MessageState::ALL {
                assert_eq!(from.can_become(to), next.contains(&to), "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn keys_of_different_parts_differ() {
        let person = PersonKey::from_slice(&[1; 16]).unwrap();
        let campaign = CampaignId::MIN;
        let key = IdempotencyKey::campaign(campaign, person, 0);
        assert_eq!(key, IdempotencyKey::campaign(campaign, person, 0));
        assert_ne!(key, IdempotencyKey::campaign(campaign, person, 1));
        assert_ne!(
            IdempotencyKey::caller(UserId::MIN, "a"),
            IdempotencyKey::caller(UserId::MIN, "b")
        );
    }

    #[test]
    fn every_reason_keeps_its_number() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_u8(reason as u8), Some(reason));
        }
    }
}
