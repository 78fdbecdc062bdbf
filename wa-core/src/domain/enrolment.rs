//! One lead's run through a sequence, and its flows: the tracking records of one lead and one step each.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::message::{Message, MessageState};
use super::phone::{PersonKey, Phone};
use super::token::Token;
use crate::id::{DeviceId, EnrolmentId, LeadId, SequenceId, StepId, UserId};
use crate::time::Timestamp;

/// Where an enrolment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum EnrolmentState {
    /// A step is active. A crash changes nothing: what is due is in the outbox, what is to be done next is marked.
    Open = 1,
    /// Every step is settled and the trigger is gone from the lead.
    Completed = 2,
    /// Ended before its last step; the reason says why. Steps that were not active by then count as cancelled.
    Ended = 3,
}

impl EnrolmentState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Open, Self::Completed, Self::Ended];

    /// From the number that stores keep.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }

    /// The one table of transitions.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        matches!((self, next), (Self::Open, Self::Completed | Self::Ended))
    }
}

/// Why an enrolment ended, or what its end could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum EnrolmentReason {
    /// The person wrote back, and the sequence ends by a reply.
    Replied = 1,
    /// The person must not be written to.
    Suppressed = 2,
    /// A person ended it.
    ByPerson = 3,
    /// The sequence was deleted.
    SequenceDeleted = 4,
    /// The number has no WhatsApp account, or cannot be a recipient.
    NotOnWhatsApp = 5,
    /// A step failed or expired, and the sequence stops then.
    StepFailed = 6,
    /// The lead was deleted.
    LeadGone = 7,
    /// The person's data was erased.
    Erased = 8,
    /// The device that was to send was deleted.
    DeviceGone = 9,
    /// The lead has no device.
    NoDevice = 10,
    /// A human wrote to the person on the device's own phone, and the sequence ends by a reply.
    TakenOver = 11,
    /// Completed, but not chained on: no active sequence has the next trigger as an entry point.
    NobodyHasTrigger = 20,
    /// Completed, but not chained on: the next sequence does not take the person again.
    ReEntryRefused = 21,
    /// Completed, but not chained on: the lead was changed or deleted in the meantime.
    LeadChanged = 22,
}

impl EnrolmentReason {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::Replied,
        Self::Suppressed,
        Self::ByPerson,
        Self::SequenceDeleted,
        Self::NotOnWhatsApp,
        Self::StepFailed,
        Self::LeadGone,
        Self::Erased,
        Self::DeviceGone,
        Self::NoDevice,
        Self::TakenOver,
        Self::NobodyHasTrigger,
        Self::ReEntryRefused,
        Self::LeadChanged,
    ];

    /// From the number that stores keep.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u8 == number)
    }
}

/// One lead's run through a sequence.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrolment {
    /// Its id.
    pub id: EnrolmentId,
    /// Its owner.
    pub user_id: UserId,
    /// The sequence.
    pub sequence_id: SequenceId,
    /// The lead.
    pub lead_id: LeadId,
    /// The number; `None` once the person's data was erased.
    pub phone: Option<Phone>,
    /// The person; at most one open enrolment per sequence and person.
    pub person: PersonKey,
    /// The device that writes; `None` while it waits in the pool.
    pub device_id: Option<DeviceId>,
    /// The trigger of the lead by which it entered and which its completion removes; `None` when it came by niche or by hand.
    pub token: Option<Token>,
    /// The first enrolment of the chain that led here; its own id when it came by itself.
    pub root_id: EnrolmentId,
    /// The step at which it entered.
    pub entry_step_id: StepId,
    /// The version of the steps that its pending flows are listed from.
    pub steps_version: i32,
    /// The step that is active, or was last.
    pub step_id: StepId,
    /// When that step was planned to be due, before pacing made it later.
    pub due_at: Timestamp,
    /// Where it stands.
    pub state: EnrolmentState,
    /// Why it ended; of a completed one, why it was not chained on.
    pub reason: Option<EnrolmentReason>,
    /// The enrolment that its completion led to.
    pub next_id: Option<EnrolmentId>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was completed or ended.
    pub ended_at: Option<Timestamp>,
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment")
            .field("id", &self.id)
            .field("sequence_id", &self.sequence_id)
            .field("lead_id", &self.lead_id)
            .field("step_id", &self.step_id)
            .field("steps_version", &self.steps_version)
            .field("state", &self.state)
            .field("reason", &self.reason)
            .field("due_at", &self.due_at)
            .finish_non_exhaustive()
    }
}

/// Which flow a message is: what ties a row of the outbox to an enrolment and a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FlowRef {
    /// The enrolment.
    pub enrolment_id: EnrolmentId,
    /// The step.
    pub step_id: StepId,
    /// The version of the steps that its content is read from: a step that was reached keeps what it was.
    pub steps_version: i32,
}

/// What people see of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    /// Listed, not yet its turn; it has no row of its own.
    Pending,
    /// Its message is queued, held, being sent or in doubt.
    Active,
    /// Sent.
    Sent,
    /// Certainly not sent.
    Failed,
    /// Will not be sent; the reason says why.
    Skipped,
    /// May have been sent and nobody can tell.
    Unknown,
    /// Its enrolment or its step ended first.
    Cancelled,
}

impl From<MessageState> for FlowState {
    fn from(state: MessageState) -> Self {
        match state {
            MessageState::Queued | MessageState::Held | MessageState::Sending | MessageState::InDoubt => Self::Active,
            MessageState::Sent => Self::Sent,
            MessageState::Failed => Self::Failed,
            MessageState::Skipped => Self::Skipped,
            MessageState::Unknown => Self::Unknown,
            MessageState::Cancelled => Self::Cancelled,
        }
    }
}

/// How many enrolments of a sequence stand alike, kept in the commit that moves them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnrolmentCount {
    /// The version of the steps that they are listed from.
    pub steps_version: i32,
    /// The step that is active, or was last.
    pub step_id: StepId,
    /// Their device; `None` is the pool.
    pub device_id: Option<DeviceId>,
    /// Where they stand.
    pub state: EnrolmentState,
    /// Why they ended; of completed ones, why they were not chained on.
    pub reason: Option<EnrolmentReason>,
    /// How many.
    pub count: u64,
}

/// The numbers of the messages of one step on one device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepNumbers {
    /// The step.
    pub step_id: StepId,
    /// The device; `None` is the pool.
    pub device_id: Option<DeviceId>,
    /// Its numbers.
    pub numbers: super::summary::Numbers,
}

/// An enrolment whose active step is settled, with the message that settled it.
#[derive(Debug, Clone)]
pub struct ToAdvance {
    /// The enrolment.
    pub enrolment: Enrolment,
    /// The message of its active step: round 0, settled.
    pub message: Message,
}
