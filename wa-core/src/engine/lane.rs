//! One device as its owner runs it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::flow::FlowSource;
use crate::domain::content::Media;
use crate::domain::device::{Device, Epoch, OnDoubt};
use crate::domain::lane::{LanePacing, LaneReason, Waits};
use crate::domain::message::{Message, MessageScope};
use crate::domain::pacing::{Caps, DelayRange};
use crate::domain::schedule::Quiet;
use crate::id::{CampaignId, DeviceId, MessageId, SequenceId, UserId};
use crate::time::{Monotonic, Timestamp};
use crate::transport::TransportDevice;

/// What a lane is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LanePhase {
    /// Nothing; its timer says when it is looked at.
    Idle,
    /// Its next message is read, rendered or prepared.
    Preparing,
    /// A message is begun, sent or settled.
    Sending,
}

/// Most messages in doubt that a lane holds, to be sent again one after the other.
pub(crate) const AGAIN_MAX: usize = 32;

/// A message in doubt that is to be sent again with the same id, with what its campaign or step says.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) message: Message,
    pub(crate) quiet: Option<Quiet>,
    pub(crate) media: Option<Media>,
    pub(crate) flow: Option<Arc<FlowSource>>,
}

/// One device as its owner runs it. Kept small: thousands live in one process.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) user_id: UserId,
    pub(crate) epoch: Epoch,
    pub(crate) device: Arc<TransportDevice>,
    /// The version of the settings that `device` comes from.
    pub(crate) version: i64,
    /// Which sends share a limit: platform and gateway host.
    pub(crate) host: Arc<str>,
    pub(crate) may_send: bool,
    /// Deleted: only what is left of it is wound up.
    pub(crate) deleted: bool,
    pub(crate) on_doubt: OnDoubt,
    pub(crate) delay: Option<DelayRange>,
    pub(crate) caps: Option<Caps>,
    pub(crate) pacing: LanePacing,
    pub(crate) phase: LanePhase,
    /// The campaign served last: others come first.
    pub(crate) served: Option<CampaignId>,
    /// The same of sequences.
    pub(crate) served_sequence: Option<SequenceId>,
    /// Whether the last message passed: only then a refusal counts against the next.
    pub(crate) passing: bool,
    /// Whether its device had no connection when it was last asked to send, whatever is recorded of the device.
    pub(crate) away: bool,
    /// What it waits for, for people.
    pub(crate) waiting: Option<(LaneReason, Timestamp)>,
    /// Messages in doubt that are to be sent again with the same id, before anything newer.
    pub(crate) again: VecDeque<Box<Again>>,
    /// The message in doubt that it prepares or sends again; of no meaning while it is idle.
    pub(crate) repeating: Option<MessageId>,
    /// When its pool messages were last given back because it cannot send.
    pub(crate) emptied_at: Option<Monotonic>,
    /// When this node took it over, on the wall clock: sequences may skip what was due long before.
    pub(crate) taken_at: Timestamp,
    /// Bad outcomes from before do not count for its error rate.
    pub(crate) errors_since: Timestamp,
    /// How long it waited for what since its last attempt, up to the last look.
    pub(crate) waited: Waits,
    /// When it was last looked at, in anchored time.
    pub(crate) looked_at: Timestamp,
    /// The end of the line in which messages to strangers stand, in anchored time.
    pub(crate) cold_line: Timestamp,
    /// The restriction for which its pool messages were given back, by its end in anchored time.
    pub(crate) emptied_for: Option<Timestamp>,
    /// Whether messages that were put off because of strangers may go earlier than they were told.
    pub(crate) recall: bool,
}

impl Lane {
    /// Whether it prepares or sends a message again.
    pub(crate) fn repeats(&self, message: MessageId) -> bool {
        self.phase != LanePhase::Idle && self.repeating == Some(message)
    }

    /// Notes whose turn it was among the campaigns or sequences of the lane.
    pub(crate) fn serve(&mut self, scope: MessageScope) {
        match scope {
            MessageScope::Campaign(id) => self.served = Some(id),
            MessageScope::Sequence(id) => self.served_sequence = Some(id),
            _ => {}
        }
    }

    /// Counts the time since the last look to what it waited for; what it waits for now is to be found out.
    pub(crate) fn stop_waiting(&mut self, now: Timestamp) {
        if let Some((reason, _)) = self.waiting.take() {
            self.waited.add(reason, now.since(self.looked_at));
        }
        self.looked_at = now;
    }

    /// Takes over what the settings of the device say.
    pub(crate) fn set(&mut self, device: &Device, can_carry: bool) {
        self.device = Arc::new(device.for_transport());
        self.version = device.version;
        let host = host_of(device);
        // Most keep theirs, which they share with others.
        if host != self.host {
            self.host = host;
        }
        self.may_send = can_carry && device.may_send();
        self.deleted = device.deleted_at.is_some();
        self.on_doubt = device.on_doubt;
        self.delay = device.delay;
        self.caps = device.caps;
    }
}

/// Which sends share a limit: those over one platform to one gateway host.
pub(crate) fn host_of(device: &Device) -> Arc<str> {
    let host = device
        .base_url
        .as_deref()
        .and_then(|url| url::Url::parse(url).ok())
        .and_then(|url| {
            url.host_str()
                .map(|host| format!("{host}:{}", url.port_or_known_default().unwrap_or(0)))
        })
        .unwrap_or_default();
    format!("{}/{host}", device.platform).into()
}

/// A lane, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LaneStatus {
    /// Its device.
    pub device_id: DeviceId,
    /// The device's owner.
    pub user_id: UserId,
    /// What it is doing.
    pub phase: LanePhase,
    /// Whether it may send at all.
    pub may_send: bool,
    /// What it waits for.
    pub waits_for: Option<LaneReason>,
    /// Until when, on the wall clock as it stands now.
    pub waits_until: Option<Timestamp>,
    /// Messages that count for the cap of the hour.
    pub sent_this_hour: u32,
    /// Messages that count for the cap of the day.
    pub sent_this_day: u32,
}
