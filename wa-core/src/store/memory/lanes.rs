//! What lanes and routing read of the outbox.

use uuid::Uuid;

use super::flaw::Flaw;
use super::messages::{LAST_INSTANT, LAST_MESSAGE};
use super::state::State;
use crate::domain::message::{Message, MessageScope, MessageState};
use crate::domain::pacing::Priority;
use crate::id::{DeviceId, Incarnation, MessageId, UserId};
use crate::plan::ScopeGate;
use crate::store::{
    DeviceLoad, Due, DueMessage, LaneDue, LaneHistory, LaneLook, PoolMessage, RecentOf, RecentOutcomes, SendingRow,
};
use crate::time::Timestamp;

const FIRST_INSTANT: Timestamp = Timestamp::from_millis(i64::MIN);
const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

type Head = (Timestamp, MessageId);

impl State {
    pub(super) fn due(&self, due: &Due) -> Vec<LaneDue> {
        due.lanes.iter().map(|look| self.lane_due(look, due.now)).collect()
    }

    fn lane_due(&self, look: &LaneLook, now: Timestamp) -> LaneDue {
        let mut lane = LaneDue {
            device_id: look.device_id,
            heads: Vec::new(),
            next_due_at: None,
        };
        if self.device_of(look.user_id, look.device_id).is_none() {
            return lane;
        }
        let now = if self.flawed(Flaw::DueTellsTheFuture) {
            LAST_INSTANT
        } else {
            now
        };
        for priority in [Priority::Interactive, Priority::Sequence, Priority::Campaign] {
            match self.head(look, priority, now) {
                Ok((_, id)) => lane.heads.push(self.due_message(id)),
                Err(Some(due_at)) => lane.next_due_at = Some(lane.next_due_at.map_or(due_at, |at| at.min(due_at))),
                Err(None) => {}
            }
        }
        if lane.heads.is_empty() && self.flawed(Flaw::DueTellsOthers) {
            let other = self.messages.queued_at.first().filter(|(due_at, _)| *due_at <= now);
            lane.heads.extend(other.map(|(_, id)| self.due_message(*id)));
        }
        lane
    }

    /// The head of one priority that is due, else when the next one is.
    fn head(&self, look: &LaneLook, priority: Priority, now: Timestamp) -> Result<Head, Option<Timestamp>> {
        let mut next = None;
        let mut wrapped = None;
        let served = match priority {
            Priority::Campaign => look.served.map(|id| *id.as_uuid()),
            Priority::Sequence => look.served_sequence.map(|id| *id.as_uuid()),
            _ => None,
        };
        for (turn, head) in self.heads(look.device_id, priority) {
            if head.0 > now {
                next = Some(next.map_or(head.0, |at: Timestamp| at.min(head.0)));
            } else if served.is_none_or(|served| turn > served) || self.flawed(Flaw::DueForgetsTurns) {
                return Ok(head);
            } else {
                wrapped = wrapped.or(Some(head));
            }
        }
        wrapped.ok_or(next)
    }

    /// The earliest queued message of each campaign or sequence on a lane, by its id; one in all of what has no turns.
    fn heads(&self, device: DeviceId, priority: Priority) -> impl Iterator<Item = (Uuid, Head)> {
        let first_from = move |from| {
            self.messages
                .queued
                .range(from..)
                .next()
                .filter(|(of, at, ..)| (*of, *at) == (device, priority))
        };
        let start = (device, priority, Uuid::nil(), FIRST_INSTANT, MessageId::MIN);
        std::iter::successors(first_from(start), move |(_, _, turn, _, _)| {
            let past = (device, priority, *turn, LAST_INSTANT, LAST_MESSAGE);
            first_from(past)
        })
        .map(|(_, _, turn, due_at, id)| (*turn, (*due_at, *id)))
    }

    fn due_message(&self, id: MessageId) -> DueMessage {
        let message = self.messages.row(id);
        let to = (message.user_id, message.person);
        let newest = self
            .messages
            .attempted_to
            .range((to.0, to.1, FIRST_INSTANT, MessageId::MIN)..=(to.0, to.1, LAST_INSTANT, LAST_MESSAGE))
            .next_back();
        let attempt = newest.and_then(|(_, _, _, id)| self.messages.row(*id).attempt.as_ref());
        let lead = message.lead_id.and_then(|id| self.leads.get(&id));
        let lead = lead.filter(|lead| lead.user_id == message.user_id);
        let greeting = attempt.and_then(|attempt| attempt.greeting.clone());
        DueMessage::of(message, lead.map(Box::as_ref), greeting)
    }

    /// Most rows that [`sending`](Self::sending) tells.
    const SENDING_MAX: usize = 10_000;

    pub(super) fn sending(&self, incarnation: Incarnation) -> Vec<SendingRow> {
        let rows = self.messages.sending.iter().filter_map(|id| {
            let message = self.messages.row(*id);
            let attempt = message.attempt.as_ref()?;
            let device = self.devices.get(&attempt.device_id)?;
            (device.owner == Some(incarnation)).then_some(SendingRow {
                user_id: message.user_id,
                device_id: attempt.device_id,
                epoch: attempt.epoch,
                message_id: message.id,
                attempt_id: attempt.id,
            })
        });
        rows.take(Self::SENDING_MAX).collect()
    }

    pub(super) fn doubts(&self, incarnation: Incarnation, now: Timestamp, limit: u32) -> Vec<Message> {
        let now = if self.flawed(Flaw::DoubtsComeEarly) {
            LAST_INSTANT
        } else {
            now
        };
        self.messages
            .doubts
            .range(..=(now, LAST_MESSAGE))
            .map(|(_, id)| self.messages.row(*id))
            .filter(|message| {
                let device = message.device_id.and_then(|id| self.devices.get(&id));
                device.is_some_and(|row| row.owner == Some(incarnation))
                    && (self.gate(message) != ScopeGate::Paused || self.flawed(Flaw::DoubtsIgnorePause))
            })
            .take(limit as usize)
            .cloned()
            .collect()
    }

    pub(super) fn pool(&self, incarnation: Incarnation, now: Timestamp, limit: u32) -> Vec<PoolMessage> {
        let serves = |user: UserId| {
            self.served_by
                .range((incarnation, user, DeviceId::MIN)..)
                .next()
                .is_some_and(|(node, of, _)| (*node, *of) == (incarnation, user))
        };
        let campaigns = self.campaigns_expanding.iter().chain(&self.campaigns_expanded);
        let campaigns = campaigns
            .filter(|id| serves(self.campaigns[id].user_id))
            .map(|id| MessageScope::Campaign(*id));
        let sequences = self.sequences.running.iter();
        let sequences = sequences
            .filter(|id| {
                self.sequences
                    .get(**id)
                    .is_some_and(|sequence| serves(sequence.user_id))
            })
            .map(|id| MessageScope::Sequence(*id));
        let mut waiting: Vec<(Timestamp, MessageId)> = campaigns
            .chain(sequences)
            .flat_map(|scope| {
                let due = (scope, FIRST_INSTANT, MessageId::MIN)..=(scope, now, LAST_MESSAGE);
                self.messages.pool.range(due).take(limit as usize)
            })
            .map(|(_, due_at, id)| (*due_at, *id))
            .collect();
        waiting.sort_unstable();
        if self.flawed(Flaw::PoolForgetsTurns) {
            waiting.truncate(limit as usize);
        }
        let rows = waiting.into_iter().map(|(_, id)| self.messages.row(id));
        rows.map(|message| {
            let lead = message.lead_id.and_then(|id| self.leads.get(&id));
            PoolMessage {
                message_id: message.id,
                user_id: message.user_id,
                scope: message.scope,
                lead_device: lead.and_then(|lead| lead.device_id),
                sticky: message
                    .flow
                    .and_then(|flow| self.enrolments.get(flow.enrolment_id)?.device_id),
                person: message.person,
            }
        })
        .collect()
    }

    pub(super) fn loads(&self, user: UserId, now: Timestamp) -> Vec<DeviceLoad> {
        self.live_devices_of(user)
            .map(|device_id| {
                let counted = DeviceLoad::QUEUED_MAX;
                let queued = self.messages.in_state_on(device_id, MessageState::Queued);
                let queued = queued.min(u64::from(counted));
                let sending = self.messages.in_state_on(device_id, MessageState::Sending);
                DeviceLoad {
                    device_id,
                    sent_this_hour: narrow(
                        self.attempted(device_id, now - HOUR).count()
                            + self.attempted_before(device_id, now - HOUR).len(),
                    ),
                    in_flight: u32::try_from(queued + sending).unwrap_or(u32::MAX),
                    topped_up: narrow(self.topped_up(device_id).take(counted as usize).count()),
                }
            })
            .collect()
    }

    pub(super) fn live_devices_of(&self, user: UserId) -> impl Iterator<Item = DeviceId> {
        self.live_devices
            .range((user, DeviceId::MIN)..)
            .take_while(move |(of, _)| *of == user)
            .map(|(_, id)| *id)
    }

    fn attempted(&self, device: DeviceId, since: Timestamp) -> impl Iterator<Item = Timestamp> {
        self.messages
            .attempted
            .range((device, since, MessageId::MIN)..=(device, LAST_INSTANT, LAST_MESSAGE))
            .filter(|(_, _, id)| {
                self.messages.row(*id).state != MessageState::Unknown || !self.flawed(Flaw::HistoryForgetsUnknown)
            })
            .map(|(_, at, _)| *at)
    }

    /// Of the attempts that were made before the first message that is kept here, those since an instant.
    fn attempted_before(&self, device: DeviceId, since: Timestamp) -> &[Timestamp] {
        let before = self.messages.before.get(&device);
        let attempts = before.map_or(&[][..], |before| &before.attempts);
        &attempts[attempts.partition_point(|at| *at < since)..]
    }

    pub(super) fn history(&self, devices: &[DeviceId], since: Timestamp) -> Vec<LaneHistory> {
        let lane = |device_id: &DeviceId| LaneHistory {
            device_id: *device_id,
            attempts: self
                .attempted_before(*device_id, since)
                .iter()
                .copied()
                .chain(self.attempted(*device_id, since))
                .collect(),
            last_attempt_at: self.last_attempts.get(device_id).copied().max(
                self.messages
                    .before
                    .get(device_id)
                    .and_then(|before| before.last_attempt_at),
            ),
            first_attempt_at: self
                .messages
                .before
                .get(device_id)
                .and_then(|before| before.first_attempt_at)
                .or_else(|| {
                    let archived = self.messages.first_archived.get(device_id).copied();
                    archived
                        .into_iter()
                        .chain(self.attempted(*device_id, FIRST_INSTANT).next())
                        .min()
                }),
        };
        devices.iter().map(lane).collect()
    }

    pub(super) fn recent(&self, of: RecentOf, since: Timestamp, limit: u32) -> RecentOutcomes {
        let mut recent = RecentOutcomes::default();
        let mut count = |id: MessageId| {
            let bad = matches!(
                self.messages.row(id).state,
                MessageState::Failed | MessageState::Unknown
            );
            recent.settled += 1;
            recent.bad += u32::from(bad);
        };
        let limit = limit as usize;
        let scope = match of {
            RecentOf::Campaign(id) => Ok(MessageScope::Campaign(id)),
            RecentOf::Sequence(id) => Ok(MessageScope::Sequence(id)),
            RecentOf::Device(id) => Err(id),
        };
        match scope {
            Ok(scope) => self
                .messages
                .settled_in
                .range((scope, since, MessageId::MIN)..=(scope, LAST_INSTANT, LAST_MESSAGE))
                .rev()
                .take(limit)
                .for_each(|(_, _, id)| count(*id)),
            Err(id) => self
                .messages
                .settled_on
                .range((id, since, MessageId::MIN)..=(id, LAST_INSTANT, LAST_MESSAGE))
                .rev()
                .take(limit)
                .for_each(|(_, _, id)| count(*id)),
        }
        recent
    }
}

fn narrow(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
