//! Reads of the outbox within a request's scope, its numbers, and the sub-trait itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use async_trait::async_trait;

use super::MemoryStore;
use super::flaw::Flaw;
use super::messages::LAST_MESSAGE;
use super::state::{State, not_found};
use crate::domain::access::RequestScope;
use crate::domain::message::{Attempt, Message, MessageScope, MessageState};
use crate::domain::summary::{DeviceNumbers, Numbers};
use crate::id::{DeviceId, Incarnation, LeadId, MessageId, UserId};
use crate::store::{
    Archived, Assignment, Backlog, Begin, Begun, Decline, DeviceLoad, Due, Expired, LaneDue, LaneHistory, LeftOver,
    MessageFilter, OutboxStore, Page, PageRequest, PoolMessage, RecentOf, RecentOutcomes, SendingRow, Settle, Settled,
    StoreError, Swept,
};
use crate::time::Timestamp;

/// Whether a row with this device is within a scope; one that belongs to no device is not within a scope of some devices.
pub(super) fn sees(scope: &RequestScope, device: Option<DeviceId>) -> bool {
    device.map_or(scope.devices.is_none(), |device| scope.sees(device))
}

/// As what a message counts within a span of time, if at all.
fn state_within(message: &Message, within: &Range<Timestamp>) -> Option<MessageState> {
    match message.settled_at {
        _ if message.created_at >= within.end => None,
        Some(at) if at < within.start => None,
        Some(at) if at < within.end => Some(message.state),
        _ => Some(MessageState::Queued),
    }
}

impl State {
    fn message(&self, scope: &RequestScope, id: MessageId, operation: &'static str) -> Result<&Message, StoreError> {
        self.messages
            .get(id)
            .filter(|message| message.user_id == scope.user_id || self.flawed(Flaw::ForeignRowsShow))
            .filter(|message| sees(scope, message.device_id) || self.flawed(Flaw::DeviceScopeIsIgnored))
            .ok_or(not_found(operation, "message"))
    }

    fn page_of_messages(
        &self,
        scope: &RequestScope,
        filter: &MessageFilter,
        page: &PageRequest<MessageId>,
    ) -> Page<Message, MessageId> {
        let after = page.after.unwrap_or(MessageId::MIN);
        let user = scope.user_id;
        let ids: Box<dyn Iterator<Item = MessageId>> = match (filter.scope, filter.person) {
            _ if filter.enrolment_id.is_some() => {
                let of_enrolment = filter
                    .enrolment_id
                    .into_iter()
                    .flat_map(|id| self.messages.of_enrolment(id));
                let mut sorted: Vec<MessageId> = of_enrolment
                    .filter(|id| self.messages.row(*id).user_id == user)
                    .collect();
                sorted.sort_unstable();
                Box::new(sorted.into_iter())
            }
            (Some(of), _) => Box::new(self.messages.of_scope((user, of), after)),
            (None, Some(person)) => Box::new(self.messages.of_person(user, person)),
            (None, None) => Box::new(self.messages.of_user(user, after)),
        };
        let limit = page.clamped();
        let rows = ids
            .filter(|id| page.after.is_none_or(|after| *id > after))
            .map(|id| self.messages.row(id))
            .filter(|message| sees(scope, message.device_id) || self.flawed(Flaw::DeviceScopeIsIgnored))
            .filter(|message| shows(filter, message))
            .skip(usize::from(page.after.is_some() && self.flawed(Flaw::PageSkipsARow)))
            .take(limit + 1)
            .cloned()
            .collect();
        Page::cut(rows, limit, |message: &Message| message.id)
    }

    fn newest_of_leads(&self, scope: &RequestScope, leads: &[LeadId]) -> Vec<Message> {
        let leads: BTreeSet<LeadId> = leads.iter().copied().collect();
        let newest = |lead| {
            let theirs = self
                .messages
                .of_lead
                .range((lead, MessageId::MIN)..=(lead, LAST_MESSAGE));
            let mut rows = theirs.rev().map(|(_, id)| self.messages.row(*id));
            rows.find(|message| {
                matches!(message.scope, MessageScope::Campaign(_))
                    && (!message.superseded || self.flawed(Flaw::NewestOfLeadIsSuperseded))
                    && message.user_id == scope.user_id
                    && sees(scope, message.device_id)
            })
        };
        leads.into_iter().filter_map(newest).cloned().collect()
    }

    fn attempts(&self, scope: &RequestScope, id: MessageId) -> Result<Vec<Attempt>, StoreError> {
        let message = self.message(scope, id, "attempts")?;
        let earlier = self.messages.earlier.get(&id).into_iter().flatten();
        Ok(earlier.chain(&message.attempt).cloned().collect())
    }

    /// Numbers of a campaign or sequence are those of its user's; the other scopes are the user's own.
    fn check_scope(&self, scope: &RequestScope, of: MessageScope, operation: &'static str) -> Result<(), StoreError> {
        if let MessageScope::Campaign(id) = of {
            let campaign = self.campaigns.get(&id);
            campaign
                .filter(|campaign| campaign.user_id == scope.user_id)
                .ok_or(not_found(operation, "campaign"))?;
        }
        if let MessageScope::Sequence(id) = of {
            let sequence = self.sequences.get(id);
            sequence
                .filter(|sequence| sequence.user_id == scope.user_id)
                .ok_or(not_found(operation, "sequence"))?;
        }
        Ok(())
    }

    fn numbers(&self, scope: &RequestScope, of: MessageScope) -> Result<Vec<DeviceNumbers>, StoreError> {
        self.check_scope(scope, of, "numbers")?;
        let key = (scope.user_id, of);
        let tallies = self.messages.tallies.range((key, None)..);
        Ok(tallies
            .take_while(|((of, _), _)| *of == key)
            .filter(|((_, device), _)| sees(scope, *device))
            .map(|((_, device_id), numbers)| DeviceNumbers {
                device_id: *device_id,
                numbers: *numbers,
            })
            .collect())
    }

    /// Counts the rows of a scope, within a span of time if there is one.
    fn count(
        &self,
        scope: &RequestScope,
        of: MessageScope,
        within: Option<&Range<Timestamp>>,
    ) -> Result<Vec<DeviceNumbers>, StoreError> {
        self.check_scope(scope, of, "count")?;
        let mut counted: BTreeMap<Option<DeviceId>, Numbers> = BTreeMap::new();
        for id in self.messages.of_scope((scope.user_id, of), MessageId::MIN) {
            let message = self.messages.row(id);
            let state = match within {
                None => Some(message.state),
                Some(within) => state_within(message, within),
            };
            if let Some(state) = state.filter(|_| !message.superseded && sees(scope, message.device_id)) {
                let numbers = counted.entry(message.device_id).or_default();
                numbers.count(state, message.delivery);
            }
        }
        let rows = counted.into_iter();
        Ok(rows
            .map(|(device_id, numbers)| DeviceNumbers { device_id, numbers })
            .collect())
    }

    fn device_numbers(&self, scope: &RequestScope, device: DeviceId) -> Result<Numbers, StoreError> {
        if self.device_of(scope.user_id, device).is_none() || !scope.sees(device) {
            return Err(not_found("device_numbers", "device"));
        }
        Ok(self.messages.device_tallies.get(&device).copied().unwrap_or_default())
    }

    fn backlog(&self) -> Backlog {
        Backlog {
            queued: self.messages.in_state(MessageState::Queued),
            held: self.messages.in_state(MessageState::Held),
            sending: self.messages.in_state(MessageState::Sending),
            in_doubt: self.messages.in_state(MessageState::InDoubt),
            oldest_due_at: self.messages.queued_at.first().map(|(due_at, _)| *due_at),
        }
    }
}

fn shows(filter: &MessageFilter, message: &Message) -> bool {
    let flow = message.flow.as_ref();
    filter.scope.is_none_or(|scope| message.scope == scope)
        && filter
            .enrolment_id
            .is_none_or(|id| flow.is_some_and(|flow| flow.enrolment_id == id))
        && filter
            .step_id
            .is_none_or(|id| flow.is_some_and(|flow| flow.step_id == id))
        && filter.device_id.is_none_or(|device| message.device_id == Some(device))
        && filter.lead_id.is_none_or(|lead| message.lead_id == Some(lead))
        && filter.person.is_none_or(|person| message.person == person)
        && (filter.states.is_empty() || filter.states.contains(&message.state))
        && (filter.with_superseded || !message.superseded)
}

#[async_trait]
impl OutboxStore for MemoryStore {
    async fn due(&self, due: &Due) -> Result<Vec<LaneDue>, StoreError> {
        Ok(self.lock().due(due))
    }

    async fn begin(&self, begin: &Begin) -> Result<Vec<Begun>, StoreError> {
        self.lock().begin(begin)
    }

    async fn settle(&self, settle: &Settle) -> Result<Vec<Settled>, StoreError> {
        self.lock().settle(settle)
    }

    async fn decline(&self, items: &[Decline], now: Timestamp) -> Result<u64, StoreError> {
        self.lock().decline(items, now)
    }

    async fn sending(&self, incarnation: Incarnation) -> Result<Vec<SendingRow>, StoreError> {
        Ok(self.lock().sending(incarnation))
    }

    async fn doubts(&self, incarnation: Incarnation, now: Timestamp, limit: u32) -> Result<Vec<Message>, StoreError> {
        Ok(self.lock().doubts(incarnation, now, limit))
    }

    async fn sweep(&self, limit: u32, now: Timestamp) -> Result<Swept, StoreError> {
        self.lock().sweep(limit, now)
    }

    async fn expire(&self, limit: u32, now: Timestamp) -> Result<Expired, StoreError> {
        self.lock().expire(limit, now)
    }

    async fn archive(&self, limit: u32, ended_before: Timestamp, now: Timestamp) -> Result<Archived, StoreError> {
        Ok(self.lock().archive(limit, ended_before, now))
    }

    async fn pool(&self, incarnation: Incarnation, now: Timestamp, limit: u32) -> Result<Vec<PoolMessage>, StoreError> {
        Ok(self.lock().pool(incarnation, now, limit))
    }

    async fn assign(&self, items: &[Assignment], _now: Timestamp) -> Result<u64, StoreError> {
        self.lock().assign(items)
    }

    async fn leave_over(&self, items: &[LeftOver], now: Timestamp) -> Result<u64, StoreError> {
        self.lock().leave_over(items, now)
    }

    async fn unassign(&self, user: UserId, device: DeviceId) -> Result<u64, StoreError> {
        self.lock().unassign(user, device)
    }

    async fn loads(&self, user: UserId, now: Timestamp) -> Result<Vec<DeviceLoad>, StoreError> {
        Ok(self.lock().loads(user, now))
    }

    async fn history(&self, devices: &[DeviceId], since: Timestamp) -> Result<Vec<LaneHistory>, StoreError> {
        Ok(self.lock().history(devices, since))
    }

    async fn recent(&self, scope: RecentOf, since: Timestamp, limit: u32) -> Result<RecentOutcomes, StoreError> {
        Ok(self.lock().recent(scope, since, limit))
    }

    async fn message(&self, scope: &RequestScope, id: MessageId) -> Result<Message, StoreError> {
        self.lock().message(scope, id, "message").cloned()
    }

    async fn messages(
        &self,
        scope: &RequestScope,
        filter: &MessageFilter,
        page: &PageRequest<MessageId>,
    ) -> Result<Page<Message, MessageId>, StoreError> {
        Ok(self.lock().page_of_messages(scope, filter, page))
    }

    async fn newest_of_leads(&self, scope: &RequestScope, leads: &[LeadId]) -> Result<Vec<Message>, StoreError> {
        Ok(self.lock().newest_of_leads(scope, leads))
    }

    async fn attempts(&self, scope: &RequestScope, id: MessageId) -> Result<Vec<Attempt>, StoreError> {
        self.lock().attempts(scope, id)
    }

    async fn numbers(&self, scope: &RequestScope, of: MessageScope) -> Result<Vec<DeviceNumbers>, StoreError> {
        self.lock().numbers(scope, of)
    }

    async fn device_numbers(&self, scope: &RequestScope, device: DeviceId) -> Result<Numbers, StoreError> {
        self.lock().device_numbers(scope, device)
    }

    async fn count(&self, scope: &RequestScope, of: MessageScope) -> Result<Vec<DeviceNumbers>, StoreError> {
        self.lock().count(scope, of, None)
    }

    async fn count_within(
        &self,
        scope: &RequestScope,
        of: MessageScope,
        within: &Range<Timestamp>,
    ) -> Result<Vec<DeviceNumbers>, StoreError> {
        self.lock().count(scope, of, Some(within))
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        Ok(self.lock().backlog())
    }
}
