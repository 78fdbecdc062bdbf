//! What happened in a simulation, in the order in which it happened: the truth that invariants are checked against.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::clock::Timeline;
use super::gateway::GatewayKind;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::device::Epoch;
use crate::domain::enrolment::{Enrolment, EnrolmentState};
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageState};
use crate::domain::pacing::PacingPolicy;
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::sequence::{Sequence, SequenceStatus, SequenceSteps};
use crate::domain::summary::Numbers;
use crate::id::{AttemptId, CampaignId, DeviceId, EnrolmentId, Incarnation, LeadId, MessageId, SequenceId, UserId};
use crate::seed::Seed;
use crate::store::{Begun, SequenceCounts, Settled, Verdict};
use crate::time::Timestamp;
use crate::transport::{Reconciled, SendError, TransportMessageId};

/// An attempt to begin, as the store answered it.
#[derive(Debug, Clone)]
pub struct BeginSeen {
    /// The node.
    pub incarnation: Incarnation,
    /// The device.
    pub device_id: DeviceId,
    /// Its epoch as the node knew it.
    pub epoch: Epoch,
    /// The message.
    pub message_id: MessageId,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Whether a message in doubt was to be sent again with the same id.
    pub again: bool,
    /// When the node asked, in true time: the start of the attempt.
    pub asked_at: Duration,
    /// The start of the attempt on the node's wall clock.
    pub attempted_at: Timestamp,
    /// The store's answer, whether or not it reached the node.
    pub answer: Begun,
}

/// A settlement, as the store answered it.
#[derive(Debug, Clone)]
pub struct SettleSeen {
    /// The node.
    pub incarnation: Incarnation,
    /// The device.
    pub device_id: DeviceId,
    /// The epoch of the attempt.
    pub epoch: Epoch,
    /// The message.
    pub message_id: MessageId,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// What was to be recorded.
    pub verdict: Verdict,
    /// The store's answer, whether or not it reached the node.
    pub answer: Settled,
}

/// A request to send, as the gateway saw it.
#[derive(Clone)]
pub struct CallSeen {
    /// The device.
    pub device_id: DeviceId,
    /// The device's owner.
    pub user_id: UserId,
    /// The message.
    pub message_id: MessageId,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Its id at the gateway.
    pub transport_message_id: TransportMessageId,
    /// The recipient.
    pub to: Phone,
    /// The text.
    pub text: String,
}

impl fmt::Debug for CallSeen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallSeen")
            .field("device_id", &self.device_id)
            .field("message_id", &self.message_id)
            .field("attempt_id", &self.attempt_id)
            .field("to", &self.to)
            .finish_non_exhaustive()
    }
}

/// The numbers of a campaign at one moment: as the tallies tell them and as its rows count.
#[derive(Debug, Clone, Copy)]
pub struct NumbersSeen {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The sum of its tallies.
    pub told: Numbers,
    /// The sum of its rows.
    pub counted: Numbers,
    /// How many rows it has that are not superseded.
    pub rows: u64,
}

/// The counts of a sequence at one moment: as the tallies tell them and as its rows count.
#[derive(Debug, Clone)]
pub struct SequenceSeen {
    /// The sequence.
    pub sequence_id: SequenceId,
    /// From its tallies.
    pub told: SequenceCounts,
    /// From its rows.
    pub counted: SequenceCounts,
    /// How many messages it has that are not superseded.
    pub rows: u64,
    /// How many enrolments it has.
    pub enrolments: u64,
}

/// One enrolment at one moment.
#[derive(Debug, Clone, Copy)]
pub struct EnrolmentSeen {
    /// The enrolment.
    pub enrolment_id: EnrolmentId,
    /// Its sequence.
    pub sequence_id: SequenceId,
    /// The person.
    pub person: PersonKey,
    /// Where it stands.
    pub state: EnrolmentState,
}

/// One row of the outbox at one moment.
#[derive(Debug, Clone, Copy)]
pub struct RowSeen {
    /// The message.
    pub message_id: MessageId,
    /// Its state.
    pub state: MessageState,
}

/// What happened.
#[derive(Debug, Clone)]
pub enum What {
    /// A node asked to begin.
    Begin(BeginSeen),
    /// A node recorded an outcome.
    Settle(SettleSeen),
    /// A campaign got a status.
    Status(CampaignId, CampaignStatus),
    /// A campaign over the pool was triggered once more.
    TriggeredAgain(CampaignId),
    /// A sequence got a status.
    SequenceStatus(SequenceId, SequenceStatus),
    /// A sequence was deleted.
    SequenceDeleted(SequenceId),
    /// A run through a sequence was ended or completed by a change of its own.
    EnrolmentEnded(EnrolmentId),
    /// A person must not be written to from here on.
    Suppressed(UserId, PersonKey),
    /// A person wrote to a device.
    Wrote(DeviceId, Phone),
    /// A person may be written to again.
    Unsuppressed(UserId, PersonKey),
    /// A device was put on hold (`true`) or the hold ended.
    Held(DeviceId, bool),
    /// A device was deleted.
    Deleted(DeviceId),
    /// A lead was deleted.
    LeadDeleted(LeadId),
    /// A node gave a device back.
    Released(DeviceId),
    /// A node took a device.
    Claimed(Incarnation, DeviceId, Epoch),
    /// A node lost its lease to another, or left.
    Fenced(Incarnation),
    /// The gateway was asked to send: a process really made the call.
    Called(CallSeen),
    /// The gateway accepted a request: its recipient gets the message.
    Received(CallSeen),
    /// The gateway dropped a repeated id.
    Dropped(CallSeen),
    /// The caller was told this about its request.
    Answered(AttemptId, Result<(), SendError>),
    /// The gateway was asked what became of an attempt, and answered this.
    Asked(AttemptId, Option<Reconciled>),
    /// The rows of the outbox.
    Rows(Vec<RowSeen>),
    /// The numbers of a campaign.
    Numbers(NumbersSeen),
    /// The counts of a sequence.
    Counts(Box<SequenceSeen>),
    /// The enrolments.
    Enrolments(Vec<EnrolmentSeen>),
    /// Faults end here.
    FaultsEnd,
    /// Anything else worth reading in a trace.
    Note(String),
}

/// Something that happened, and when in true time.
#[derive(Debug, Clone)]
pub struct Moment {
    /// True time since the start.
    pub at: Duration,
    /// What happened.
    pub what: What,
}

/// Records what happens.
#[derive(Debug)]
pub struct History {
    timeline: Arc<Timeline>,
    moments: Mutex<Vec<Moment>>,
}

impl History {
    /// An empty history of a simulation.
    #[must_use]
    pub fn new(timeline: Arc<Timeline>) -> Arc<Self> {
        Arc::new(Self {
            timeline,
            moments: Mutex::default(),
        })
    }

    /// Records that something happens now.
    pub fn add(&self, what: What) {
        let at = self.timeline.now();
        self.lock().push(Moment { at, what });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Moment>> {
        self.moments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes everything recorded so far.
    #[must_use]
    pub fn take(&self) -> Vec<Moment> {
        std::mem::take(&mut *self.lock())
    }
}

/// What was so from the start.
#[derive(Debug)]
pub struct Facts {
    /// The seed of the database.
    pub seed: Seed,
    /// Delays and caps of all nodes.
    pub policy: PacingPolicy,
    /// What the gateway of each device can do in doubt.
    pub kinds: BTreeMap<DeviceId, GatewayKind>,
    /// What every text of a user contains.
    pub tags: BTreeMap<UserId, String>,
    /// Whose each device is.
    pub owners: BTreeMap<DeviceId, UserId>,
    /// The leads of each campaign's audience.
    pub leads: BTreeMap<CampaignId, Vec<LeadId>>,
    /// How many entries each campaign with entries has.
    pub entries: BTreeMap<CampaignId, usize>,
    /// Whether all wall clocks show true time.
    pub wall_is_true: bool,
    /// Whether everything ended in bounded time after the end of the faults.
    pub bounded: bool,
    /// Messages that stand open at the end for a reason that a person sees and has to act upon.
    pub excused: Vec<MessageId>,
    /// Enrolments that stand open at the end for such a reason.
    pub excused_enrolments: Vec<EnrolmentId>,
}

impl Default for Facts {
    fn default() -> Self {
        Self {
            seed: Seed::from_number(0),
            policy: PacingPolicy::default(),
            kinds: BTreeMap::new(),
            tags: BTreeMap::new(),
            owners: BTreeMap::new(),
            leads: BTreeMap::new(),
            entries: BTreeMap::new(),
            wall_is_true: true,
            bounded: true,
            excused: Vec::new(),
            excused_enrolments: Vec::new(),
        }
    }
}

/// Everything that an invariant is checked against.
#[derive(Debug, Default)]
pub struct Record {
    /// What happened.
    pub moments: Vec<Moment>,
    /// The outbox at the end, superseded rows too.
    pub rows: Vec<Message>,
    /// The campaigns at the end.
    pub campaigns: Vec<Campaign>,
    /// The sequences at the end, deleted ones too.
    pub sequences: Vec<Sequence>,
    /// All versions of their steps.
    pub steps: Vec<SequenceSteps>,
    /// The enrolments at the end.
    pub enrolments: Vec<Enrolment>,
    /// The leads at the end.
    pub leads: Vec<Lead>,
    /// What was so from the start.
    pub facts: Facts,
}
