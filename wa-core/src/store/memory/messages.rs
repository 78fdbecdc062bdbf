//! The rows of the outbox with the indexes and tallies that follow from them.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use crate::domain::delivery::Delivery;
use crate::domain::message::{Attempt, IdempotencyKey, Message, MessageScope, MessageState, Reason};
use crate::domain::pacing::Priority;
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::summary::Numbers;
use crate::id::{CampaignId, DeviceId, EnrolmentId, LeadId, MessageId, SequenceId, StepId, UserId};
use crate::store::LaneHistory;
use crate::time::Timestamp;
use crate::transport::TransportMessageId;

/// After every id that is given out: where a range of messages ends.
pub(super) const LAST_MESSAGE: MessageId = MessageId::from_uuid(Uuid::max());
/// After every instant: where a range of instants ends.
pub(super) const LAST_INSTANT: Timestamp = Timestamp::from_millis(i64::MAX);

/// A scope as tallies name it: direct messages of two users are two scopes.
pub(super) type ScopeKey = (UserId, MessageScope);

/// A step on a device, as tallies name it.
pub(super) type StepKey = (SequenceId, StepId, Option<DeviceId>);

/// The outbox. Only [`replace`](Self::replace) changes a row, so that no index or tally can miss it.
#[derive(Default)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct Messages {
    /// Whether texts of attempts and the indexes of receipts, replies, lists and opt-outs are left out.
    pub(super) lean: bool,
    /// Whether it is kept all the same to whom devices have sent.
    pub(super) keeps_sent_to: bool,
    /// What lanes have sent before the first message that is kept here.
    pub(super) before: BTreeMap<DeviceId, LaneHistory>,
    /// What is only read: it has a place in no index but those of lists, and no key.
    archived: BTreeSet<MessageId>,
    /// The first attempt of each device in the archive that was or may have been sent.
    pub(super) first_archived: BTreeMap<DeviceId, Timestamp>,
    rows: BTreeMap<MessageId, Box<Message>>,
    keys: BTreeMap<IdempotencyKey, MessageId>,
    /// Attempts before the newest, oldest first.
    pub(super) earlier: BTreeMap<MessageId, Vec<Attempt>>,
    /// Queued, per lane, priority and campaign or sequence (the nil id for what belongs to none), by due time.
    pub(super) queued: BTreeSet<(DeviceId, Priority, Uuid, Timestamp, MessageId)>,
    /// Queued, by due time.
    pub(super) queued_at: BTreeSet<(Timestamp, MessageId)>,
    /// Queued, by the instant at which they expire.
    pub(super) expiring: BTreeSet<(Timestamp, MessageId)>,
    /// Queued without a device, per campaign or sequence, by due time.
    pub(super) pool: BTreeSet<(MessageScope, Timestamp, MessageId)>,
    /// Queued pool messages that have a device.
    pub(super) topped_up: BTreeSet<(DeviceId, MessageId)>,
    /// Open, per scope and state.
    pub(super) open_in: BTreeSet<(ScopeKey, MessageState, MessageId)>,
    /// Of flows, by step.
    of_flow: BTreeSet<(EnrolmentId, StepId, MessageId)>,
    /// Of flows, open.
    open_of: BTreeSet<(EnrolmentId, MessageId)>,
    /// Open, per device and state.
    pub(super) open_on: BTreeSet<(DeviceId, MessageState, MessageId)>,
    /// Being sent.
    pub(super) sending: BTreeSet<MessageId>,
    /// In doubt, by the next check.
    pub(super) doubts: BTreeSet<(Timestamp, MessageId)>,
    pub(super) of_user: BTreeSet<(UserId, MessageId)>,
    pub(super) of_scope: BTreeSet<(ScopeKey, MessageId)>,
    pub(super) of_person: BTreeSet<(UserId, PersonKey, MessageId)>,
    /// Persons of campaigns, skipped duplicates aside.
    pub(super) in_campaign: BTreeSet<(CampaignId, PersonKey, MessageId)>,
    /// Of campaigns, left over because every device had reached its limit.
    pub(super) left_over: BTreeSet<(CampaignId, MessageId)>,
    /// By lead.
    pub(super) of_lead: BTreeSet<(LeadId, MessageId)>,
    /// By our id of the newest attempt.
    pub(super) by_ours: BTreeSet<(DeviceId, TransportMessageId, MessageId)>,
    /// By the vendor's id of the newest attempt.
    pub(super) by_vendors: BTreeSet<(DeviceId, TransportMessageId, MessageId)>,
    /// Newest attempts that were or may have been sent, by their start.
    pub(super) attempted: BTreeSet<(DeviceId, Timestamp, MessageId)>,
    /// Newest attempts per person, by their start.
    pub(super) attempted_to: BTreeSet<(UserId, PersonKey, Timestamp, MessageId)>,
    /// Sent, per device and number, by the start of the attempt.
    pub(super) sent_to: BTreeSet<(DeviceId, Phone, Timestamp, MessageId)>,
    /// Sent, failed and unknown, per campaign or sequence.
    pub(super) settled_in: BTreeSet<(MessageScope, Timestamp, MessageId)>,
    /// Sent, failed and unknown, per device.
    pub(super) settled_on: BTreeSet<(DeviceId, Timestamp, MessageId)>,
    pub(super) tallies: BTreeMap<(ScopeKey, Option<DeviceId>), Numbers>,
    pub(super) step_tallies: BTreeMap<StepKey, Numbers>,
    pub(super) device_tallies: BTreeMap<DeviceId, Numbers>,
    /// How many rows are in each state.
    states: BTreeMap<MessageState, u64>,
    /// How many rows of a device are in each state.
    states_on: BTreeMap<(DeviceId, MessageState), u64>,
}

/// Moves the keys of a row in the indexes named, where they change.
macro_rules! keep {
    ($rows:ident, $old:ident, $new:ident; $($index:ident: $key:expr;)+) => {$(
        let key: fn(&Message) -> Option<_> = $key;
        let (from, to) = ($old.and_then(key), $new.and_then(key));
        if from != to {
            if let Some(from) = from {
                $rows.$index.remove(&from);
            }
            if let Some(to) = to {
                $rows.$index.insert(to);
            }
        }
    )+};
}

impl Messages {
    pub(super) fn get(&self, id: MessageId) -> Option<&Message> {
        self.rows.get(&id).map(Box::as_ref)
    }

    /// A row that is not in the archive.
    pub(super) fn live(&self, id: MessageId) -> Option<&Message> {
        self.get(id).filter(|_| !self.is_archived(id))
    }

    pub(super) fn is_archived(&self, id: MessageId) -> bool {
        self.archived.contains(&id)
    }

    /// Takes a row out of what is looked at while messages are sent.
    pub(super) fn archive(&mut self, id: MessageId) {
        let row = self.rows.remove(&id).expect("an index names only rows that exist");
        self.reindex_live(Some(&row), None);
        self.rows.insert(id, row);
        self.archived.insert(id);
    }

    /// A row that an index names.
    pub(super) fn row(&self, id: MessageId) -> &Message {
        self.get(id).expect("an index names only rows that exist")
    }

    pub(super) fn by_key(&self, key: IdempotencyKey) -> Option<MessageId> {
        self.keys.get(&key).copied()
    }

    pub(super) fn in_state(&self, state: MessageState) -> u64 {
        self.states.get(&state).copied().unwrap_or(0)
    }

    pub(super) fn in_state_on(&self, device: DeviceId, state: MessageState) -> u64 {
        self.states_on.get(&(device, state)).copied().unwrap_or(0)
    }

    /// Whether the newest attempt of a message of a device has this id.
    pub(super) fn has_ours(&self, device: DeviceId, id: &TransportMessageId) -> bool {
        let first = (device, id.clone(), MessageId::MIN);
        let last = (device, id.clone(), LAST_MESSAGE);
        self.by_ours.range(first..=last).next().is_some()
    }

    /// The message that a device is sending.
    pub(super) fn sending_on(&self, device: DeviceId) -> Option<MessageId> {
        first_of(&self.open_on, (device, MessageState::Sending))
    }

    pub(super) fn first_open_in(&self, scope: ScopeKey, state: MessageState) -> Option<MessageId> {
        first_of(&self.open_in, (scope, state))
    }

    pub(super) fn open_in(&self, scope: ScopeKey, state: MessageState) -> impl Iterator<Item = MessageId> {
        let all = (scope, state, MessageId::MIN)..=(scope, state, LAST_MESSAGE);
        self.open_in.range(all).map(|(_, _, id)| *id)
    }

    pub(super) fn open_on(&self, device: DeviceId, state: MessageState) -> Vec<MessageId> {
        let all = (device, state, MessageId::MIN)..=(device, state, LAST_MESSAGE);
        self.open_on.range(all).map(|(_, _, id)| *id).collect()
    }

    pub(super) fn first_open_on(&self, device: DeviceId, state: MessageState) -> Option<MessageId> {
        first_of(&self.open_on, (device, state))
    }

    pub(super) fn has_open(&self, scope: ScopeKey) -> bool {
        let first = (scope, MessageState::Queued, MessageId::MIN);
        let last = (scope, MessageState::Cancelled, LAST_MESSAGE);
        self.open_in.range(first..=last).next().is_some()
    }

    pub(super) fn of_person(&self, user: UserId, person: PersonKey) -> impl DoubleEndedIterator<Item = MessageId> {
        self.of_person
            .range((user, person, MessageId::MIN)..=(user, person, LAST_MESSAGE))
            .map(|(_, _, id)| *id)
    }

    pub(super) fn of_scope(&self, scope: ScopeKey, after: MessageId) -> impl Iterator<Item = MessageId> {
        self.of_scope
            .range((scope, after)..=(scope, LAST_MESSAGE))
            .map(|(_, id)| *id)
    }

    /// The messages of an enrolment, by step.
    pub(super) fn of_enrolment(&self, id: EnrolmentId) -> impl Iterator<Item = MessageId> {
        let last = (id, StepId::from_uuid(Uuid::max()), LAST_MESSAGE);
        self.of_flow
            .range((id, StepId::MIN, MessageId::MIN)..=last)
            .map(|(_, _, id)| *id)
    }

    /// The open messages of an enrolment.
    pub(super) fn open_of(&self, id: EnrolmentId) -> Vec<MessageId> {
        let all = (id, MessageId::MIN)..=(id, LAST_MESSAGE);
        self.open_of.range(all).map(|(_, id)| *id).collect()
    }

    pub(super) fn of_user(&self, user: UserId, after: MessageId) -> impl Iterator<Item = MessageId> {
        self.of_user
            .range((user, after)..=(user, LAST_MESSAGE))
            .map(|(_, id)| *id)
    }

    /// Puts a row in the place of another, of none, or nothing in its place; gives the row that was there.
    pub(super) fn replace(&mut self, id: MessageId, new: Option<Box<Message>>) -> Option<Box<Message>> {
        let old = self.rows.remove(&id);
        self.reindex(old.as_deref(), new.as_deref());
        if let Some(new) = new {
            self.rows.insert(id, new);
        }
        old
    }

    /// The same rows with indexes and tallies made anew.
    #[cfg(test)]
    pub(super) fn rebuilt(&self) -> Self {
        let mut fresh = Self {
            earlier: self.earlier.clone(),
            lean: self.lean,
            keeps_sent_to: self.keeps_sent_to,
            before: self.before.clone(),
            archived: self.archived.clone(),
            first_archived: self.first_archived.clone(),
            ..Self::default()
        };
        for (id, row) in &self.rows {
            fresh.replace(*id, Some(row.clone()));
        }
        fresh
    }

    fn reindex(&mut self, old: Option<&Message>, new: Option<&Message>) {
        let id = old.or(new).map(|m| m.id);
        if !id.is_some_and(|id| self.is_archived(id)) {
            self.reindex_live(old, new);
        }
        keep! { self, old, new;
            of_scope: |m| Some((scope_of(m), m.id));
            left_over: |m| Some((campaign(m).filter(|_| m.is_left_over())?, m.id));
        }
        if !self.lean {
            keep! { self, old, new;
                of_user: |m| Some((m.user_id, m.id));
                of_lead: |m| m.lead_id.map(|lead| (lead, m.id));
                of_person: |m| Some((m.user_id, m.person, m.id));
            }
        }
        self.tally(old, new);
    }

    /// The key, and the indexes that the archive does without.
    fn reindex_live(&mut self, old: Option<&Message>, new: Option<&Message>) {
        if let Some(old) = old {
            self.keys.remove(&old.key);
        }
        if let Some(new) = new {
            self.keys.insert(new.key, new.id);
        }
        keep! { self, old, new;
            queued: |m| Some((queued(m)?.device_id?, m.scope.priority(), turn(m), m.due_at, m.id));
            queued_at: |m| Some((queued(m)?.due_at, m.id));
            expiring: |m| Some((queued(m)?.expires_at, m.id));
            pool: |m| queued(m).filter(|m| m.device_id.is_none() && m.scope.is_bulk()).map(|m| (m.scope, m.due_at, m.id));
            of_flow: |m| m.flow.map(|flow| (flow.enrolment_id, flow.step_id, m.id));
            open_of: |m| m.flow.filter(|_| m.state.is_open()).map(|flow| (flow.enrolment_id, m.id));
            topped_up: |m| Some((queued(m).filter(|m| m.from_pool)?.device_id?, m.id));
            open_in: |m| m.state.is_open().then_some((scope_of(m), m.state, m.id));
            open_on: |m| Some((m.device_id.filter(|_| m.state.is_open())?, m.state, m.id));
            sending: |m| (m.state == MessageState::Sending).then_some(m.id);
            doubts: |m| (m.state == MessageState::InDoubt).then_some((m.doubt.map_or(m.due_at, |d| d.next_check_at), m.id));
            in_campaign: |m| Some((campaign(m).filter(|_| !is_skipped_duplicate(m))?, m.person, m.id));
            attempted: |m| m.attempt.as_ref().filter(|_| was_or_may_be_sent(m.state)).map(|a| (a.device_id, a.attempted_at, m.id));
            settled_in: |m| Some((Some(m.scope).filter(|scope| scope.is_bulk())?, outcome_at(m)?, m.id));
            settled_on: |m| Some((m.device_id?, outcome_at(m)?, m.id));
        }
        if !self.lean {
            keep! { self, old, new;
                by_ours: |m| m.attempt.as_ref().map(|a| (a.device_id, a.transport_message_id.clone(), m.id));
                by_vendors: |m| m.attempt.as_ref().and_then(|a| Some((a.device_id, a.provider_id.clone()?, m.id)));
                attempted_to: |m| m.attempt.as_ref().map(|a| (m.user_id, m.person, a.attempted_at, m.id));
            }
        }
        if !self.lean || self.keeps_sent_to {
            keep! { self, old, new;
                sent_to: |m| sent(m).and_then(|m| Some((m.device_id?, m.phone?, attempted_at(m), m.id)));
            }
        }
    }

    fn tally(&mut self, old: Option<&Message>, new: Option<&Message>) {
        type Counted = (
            ScopeKey,
            Option<DeviceId>,
            MessageState,
            Option<Delivery>,
            bool,
            Option<StepKey>,
        );
        let counted =
            |m: &Message| -> Counted { (scope_of(m), m.device_id, m.state, m.delivery, m.superseded, step_of(m)) };
        let (from, to) = (old.map(counted), new.map(counted));
        if from == to {
            return;
        }
        if let Some((scope, device, state, delivery, superseded, step)) = from {
            lower(&mut self.states, state);
            if let Some(device) = device {
                lower(&mut self.states_on, (device, state));
            }
            if !superseded {
                uncount(&mut self.tallies, (scope, device), state, delivery);
                if let Some(step) = step {
                    uncount(&mut self.step_tallies, step, state, delivery);
                }
                if let Some(device) = device {
                    uncount(&mut self.device_tallies, device, state, delivery);
                }
            }
        }
        if let Some((scope, device, state, delivery, superseded, step)) = to {
            *self.states.entry(state).or_default() += 1;
            if let Some(device) = device {
                *self.states_on.entry((device, state)).or_default() += 1;
            }
            if !superseded {
                self.tallies.entry((scope, device)).or_default().count(state, delivery);
                if let Some(step) = step {
                    self.step_tallies.entry(step).or_default().count(state, delivery);
                }
                if let Some(device) = device {
                    self.device_tallies.entry(device).or_default().count(state, delivery);
                }
            }
        }
    }
}

/// The scope of a message as tallies name it.
pub(super) fn scope_of(m: &Message) -> ScopeKey {
    (m.user_id, m.scope)
}

/// Whether the attempt of a message in this state was or may have been sent.
pub(super) fn was_or_may_be_sent(state: MessageState) -> bool {
    use MessageState::{InDoubt, Sending, Sent, Unknown};
    matches!(state, Sending | InDoubt | Sent | Unknown)
}

fn first_of<A: Ord + Copy, B: Ord + Copy>(set: &BTreeSet<(A, B, MessageId)>, (a, b): (A, B)) -> Option<MessageId> {
    set.range((a, b, MessageId::MIN)..=(a, b, LAST_MESSAGE))
        .next()
        .map(|(_, _, id)| *id)
}

fn queued(m: &Message) -> Option<&Message> {
    (m.state == MessageState::Queued).then_some(m)
}

fn sent(m: &Message) -> Option<&Message> {
    (m.state == MessageState::Sent).then_some(m)
}

fn campaign(m: &Message) -> Option<CampaignId> {
    match m.scope {
        MessageScope::Campaign(id) => Some(id),
        _ => None,
    }
}

/// Among what a lane takes turns: the campaign or sequence of a message, the nil id for what has no turns.
fn turn(m: &Message) -> Uuid {
    match m.scope {
        MessageScope::Campaign(id) => *id.as_uuid(),
        MessageScope::Sequence(id) => *id.as_uuid(),
        _ => Uuid::nil(),
    }
}

fn step_of(m: &Message) -> Option<StepKey> {
    match m.scope {
        MessageScope::Sequence(id) => m.flow.map(|flow| (id, flow.step_id, m.device_id)),
        _ => None,
    }
}

fn is_skipped_duplicate(m: &Message) -> bool {
    m.state == MessageState::Skipped && m.reason == Some(Reason::Duplicate)
}

pub(super) fn attempted_at(m: &Message) -> Timestamp {
    m.attempt.as_ref().map_or(m.created_at, |attempt| attempt.attempted_at)
}

fn outcome_at(m: &Message) -> Option<Timestamp> {
    use MessageState::{Failed, Sent, Unknown};
    m.settled_at.filter(|_| matches!(m.state, Sent | Failed | Unknown))
}

pub(super) fn lower<K: Ord>(counts: &mut BTreeMap<K, u64>, key: K) {
    if let Some(count) = counts.get_mut(&key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(&key);
        }
    }
}

fn uncount<K: Ord>(tallies: &mut BTreeMap<K, Numbers>, key: K, state: MessageState, delivery: Option<Delivery>) {
    let Some(have) = tallies.get_mut(&key) else { return };
    let mut one = Numbers::default();
    one.count(state, delivery);
    *have = Numbers {
        done: have.done - one.done,
        failed: have.failed - one.failed,
        skipped: have.skipped - one.skipped,
        unknown: have.unknown - one.unknown,
        cancelled: have.cancelled - one.cancelled,
        remaining: have.remaining - one.remaining,
        delivered: have.delivered - one.delivered,
        undelivered: have.undelivered - one.undelivered,
        read: have.read - one.read,
        replied: have.replied - one.replied,
    };
    if *have == Numbers::default() {
        tallies.remove(&key);
    }
}
