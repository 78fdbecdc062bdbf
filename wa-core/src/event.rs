//! Events: durable ones, committed with what they tell of, and hints to screens.

mod local;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use self::local::{Heard, Listener, LocalBus};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::device::{HoldReason, LinkState, NewChatsWarning, Restriction, RestrictionCause};
use crate::domain::enrolment::{EnrolmentReason, EnrolmentState};
use crate::domain::message::{MessageState, Reason};
use crate::domain::sequence::{SequenceReason, SequenceStatus};
use crate::domain::suppression::SuppressionReason;
use crate::id::{CampaignId, ChatId, CommandId, DeviceId, EnrolmentId, EventId, LeadId, MessageId, SequenceId, UserId};
use crate::time::Timestamp;
use crate::transport::RestrictionScope;

/// What happened. Holds ids and states, never texts, numbers or credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// A campaign changed its status.
    CampaignStatus {
        /// The campaign.
        campaign_id: CampaignId,
        /// Its new status.
        status: CampaignStatus,
        /// Why.
        reason: Option<CampaignReason>,
    },
    /// Numbers of a campaign changed; a hint, never durable.
    CampaignProgress {
        /// The campaign.
        campaign_id: CampaignId,
    },
    /// A sequence changed its status.
    SequenceStatus {
        /// The sequence.
        sequence_id: SequenceId,
        /// Its new status.
        status: SequenceStatus,
        /// Why.
        reason: Option<SequenceReason>,
    },
    /// Numbers of a sequence changed; a hint, never durable.
    SequenceProgress {
        /// The sequence.
        sequence_id: SequenceId,
    },
    /// A lead entered a sequence; a hint, never durable, because only the commit knows whom a sequence takes.
    EnrolmentStarted {
        /// The enrolment.
        enrolment_id: EnrolmentId,
        /// The sequence.
        sequence_id: SequenceId,
        /// The lead.
        lead_id: LeadId,
    },
    /// A run through a sequence was completed, or ended before its last step.
    EnrolmentEnded {
        /// The enrolment.
        enrolment_id: EnrolmentId,
        /// The sequence.
        sequence_id: SequenceId,
        /// The lead.
        lead_id: LeadId,
        /// `Completed` or `Ended`.
        state: EnrolmentState,
        /// Why it ended before its last step.
        reason: Option<EnrolmentReason>,
    },
    /// A message reached a new state.
    MessageState {
        /// The message.
        message_id: MessageId,
        /// Its device.
        device_id: Option<DeviceId>,
        /// Its new state.
        state: MessageState,
        /// Why.
        reason: Option<Reason>,
    },
    /// A lead was created.
    LeadCreated {
        /// The lead.
        lead_id: LeadId,
    },
    /// Somebody must not be written to any more.
    OptedOut {
        /// The lead, if there is one.
        lead_id: Option<LeadId>,
        /// Why.
        reason: SuppressionReason,
    },
    /// A person wrote to a device.
    Reply {
        /// The device.
        device_id: DeviceId,
        /// The newest message that they answer to, if any.
        message_id: Option<MessageId>,
        /// The chat; missing in events that are older than chats.
        #[serde(default)]
        chat_id: Option<ChatId>,
    },
    /// A chat changed otherwise than by a message of its person: it was read, or written in from here or from the device's own phone,
    /// or its past became known. A hint, never durable.
    ChatUpdate {
        /// The device.
        device_id: DeviceId,
        /// The chat; `None` for several.
        chat_id: Option<ChatId>,
    },
    /// A human wrote to a person on the device's own phone.
    TakenOver {
        /// The device.
        device_id: DeviceId,
    },
    /// A device's link changed.
    DeviceLink {
        /// The device.
        device_id: DeviceId,
        /// Its new state.
        state: LinkState,
    },
    /// A device was put on hold, or the hold ended (`None`).
    DeviceHold {
        /// The device.
        device_id: DeviceId,
        /// Why it is on hold.
        reason: Option<HoldReason>,
    },
    /// An account was restricted, or its restriction changed or ended.
    DeviceRestriction {
        /// The device.
        device_id: DeviceId,
        /// Which messages it concerns.
        scope: RestrictionScope,
        /// Why.
        cause: RestrictionCause,
        /// Until when; the time of the event when it ended.
        until_at: Timestamp,
    },
    /// WhatsApp told another limit of new chats, or warns of it in another way.
    DeviceNewChats {
        /// The device.
        device_id: DeviceId,
        /// How near the limit is; `None` when there is no limit any more.
        warning: Option<NewChatsWarning>,
    },
    /// A request to a device was answered.
    DeviceAnswered {
        /// The request.
        command_id: CommandId,
        /// The device.
        device_id: DeviceId,
    },
}

impl EventKind {
    /// Whether it is only a hint, which is in no store.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::CampaignProgress { .. }
                | Self::SequenceProgress { .. }
                | Self::EnrolmentStarted { .. }
                | Self::ChatUpdate { .. }
        )
    }

    /// Tells of the restriction that an account has now.
    #[must_use]
    pub fn restriction(device_id: DeviceId, restriction: &Restriction) -> Self {
        Self::DeviceRestriction {
            device_id,
            scope: restriction.scope,
            cause: restriction.cause,
            until_at: restriction.until_at,
        }
    }
}

/// Something that happened to a user's data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its id.
    pub id: EventId,
    /// Whose data.
    pub user_id: UserId,
    /// What.
    #[serde(flatten)]
    pub kind: EventKind,
    /// When.
    pub at: Timestamp,
}

impl Event {
    /// Tells where a campaign stands.
    #[must_use]
    pub fn campaign_status(id: EventId, campaign: &Campaign, at: Timestamp) -> Self {
        Self {
            id,
            user_id: campaign.user_id,
            kind: EventKind::CampaignStatus {
                campaign_id: campaign.id,
                status: campaign.status,
                reason: campaign.reason,
            },
            at,
        }
    }
}

/// Carries hints to screens. Losing one loses nothing: what is durable is in the store.
///
/// To ensure correctness:
/// - `publish` neither fails nor waits, for a reader or for another machine;
/// - who listens hears each event of its own node once, in the order in which they were published, and those of other nodes in
///   the order of each node as long as the bus is not away;
/// - who may have missed something is told [`Heard::Missed`], and reads the store again.
///
/// [`LocalBus`] serves one process; `wa_core::conformance::bus` (feature `conformance`) checks the contract.
#[async_trait]
pub trait EventBus: Send + Sync + std::fmt::Debug {
    /// Passes events on to whoever listens now, on any node.
    async fn publish(&self, events: &[Event]);

    /// Listens from now on to what all nodes publish.
    fn listen(&self) -> Listener;
}

/// A bus on which nobody listens.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoBus;

#[async_trait]
impl EventBus for NoBus {
    async fn publish(&self, _events: &[Event]) {}

    fn listen(&self) -> Listener {
        LocalBus::new().listen()
    }
}
