//! Devices, leads, suppressions, commands and events.

use std::collections::BTreeMap;

use async_trait::async_trait;

use super::MemoryStore;
use super::flaw::Flaw;
use super::outbox_reads::sees;
use super::state::{State, digest, folded, not_found};
use crate::domain::access::RequestScope;
use crate::domain::command::DeviceCommand;
use crate::domain::device::{Device, OwnedDevice};
use crate::domain::lead::{Lead, LeadIdentity};
use crate::domain::phone::PersonKey;
use crate::domain::suppression::Suppression;
use crate::domain::token::Token;
use crate::event::{Event, EventKind};
use crate::id::{CommandId, DeviceId, EventId, Incarnation, LeadId, UserId};
use crate::store::{
    CommandStore, DeviceStore, EventStore, LeadFilter, LeadStore, PAGE_MAX, Page, PageRequest, StoreError,
    SuppressionStore,
};
use crate::time::Timestamp;

impl State {
    fn visible_device(&self, scope: &RequestScope, id: DeviceId) -> Option<&Device> {
        self.device_of(scope.user_id, id)
            .filter(|row| row.is_live() && scope.sees(id))
            .map(|row| &row.device)
    }

    fn visible_lead(&self, scope: &RequestScope, id: LeadId) -> Option<&Lead> {
        self.leads
            .get(&id)
            .map(Box::as_ref)
            .filter(|lead| lead.user_id == scope.user_id || self.flawed(Flaw::ForeignRowsShow))
            .filter(|lead| sees(scope, lead.device_id) || self.flawed(Flaw::DeviceScopeIsIgnored))
    }

    /// The leads that a filter shows, by id.
    fn shown_leads<'a>(
        &'a self,
        scope: &'a RequestScope,
        filter: &'a LeadFilter,
        after: Option<LeadId>,
    ) -> impl Iterator<Item = &'a Lead> {
        let user = scope.user_id;
        let from = after.unwrap_or(LeadId::MIN);
        let ids: Box<dyn Iterator<Item = LeadId>> = match (&filter.phone, &filter.niche) {
            (Some(phone), _) => Box::new(
                self.leads_by_phone
                    .range((user, *phone, from)..)
                    .take_while(move |(of, number, _)| (*of, number) == (user, phone))
                    .map(|(_, _, id)| *id),
            ),
            (None, Some(niche)) => Box::new(
                self.leads_by_niche
                    .range((user, niche.clone(), from)..)
                    .take_while(move |(of, token, _)| (*of, token) == (user, niche))
                    .map(|(_, _, id)| *id),
            ),
            (None, None) => Box::new(
                self.leads_of
                    .range((user, from)..)
                    .take_while(move |(of, _)| *of == user)
                    .map(|(_, id)| *id),
            ),
        };
        let search = filter.search.as_deref().map(folded);
        ids.filter(move |id| after.is_none_or(|after| *id > after))
            .filter_map(|id| self.visible_lead(scope, id))
            .filter(move |lead| shows(filter, search.as_deref(), lead))
            .skip(usize::from(after.is_some() && self.flawed(Flaw::PageSkipsARow)))
    }

    fn visible_command(&self, scope: &RequestScope, id: CommandId) -> Option<&DeviceCommand> {
        self.commands
            .get(&id)
            .map(Box::as_ref)
            .filter(|command| command.user_id == scope.user_id && scope.sees(command.device_id))
    }

    fn visible_event(&self, scope: &RequestScope, event: &Event) -> bool {
        if scope.devices.is_none() {
            return true;
        }
        match &event.kind {
            EventKind::CampaignStatus { campaign_id, .. } | EventKind::CampaignProgress { campaign_id } => {
                self.visible_campaign(scope, *campaign_id).is_some()
            }
            EventKind::LeadCreated { lead_id }
            | EventKind::EnrolmentStarted { lead_id, .. }
            | EventKind::EnrolmentEnded { lead_id, .. } => self.visible_lead(scope, *lead_id).is_some(),
            // Told to whole users only.
            EventKind::SequenceStatus { .. } | EventKind::SequenceProgress { .. } => false,
            EventKind::OptedOut { lead_id, .. } => lead_id.is_some_and(|id| self.visible_lead(scope, id).is_some()),
            EventKind::MessageState { device_id, .. } => sees(scope, *device_id),
            EventKind::Reply { device_id, .. }
            | EventKind::TakenOver { device_id }
            | EventKind::ChatUpdate { device_id, .. }
            | EventKind::DeviceLink { device_id, .. }
            | EventKind::DeviceHold { device_id, .. }
            | EventKind::DeviceRestriction { device_id, .. }
            | EventKind::DeviceNewChats { device_id, .. }
            | EventKind::DeviceAnswered { device_id, .. } => scope.sees(*device_id),
        }
    }
}

fn shows(filter: &LeadFilter, search: Option<&str>, lead: &Lead) -> bool {
    filter.device_id.is_none_or(|device| lead.device_id == Some(device))
        && !(filter.without_device && lead.device_id.is_some())
        && filter.niche.as_ref().is_none_or(|niche| lead.niches.contains(niche))
        && filter
            .trigger
            .as_ref()
            .is_none_or(|trigger| lead.triggers.contains(trigger))
        && filter.tag.as_ref().is_none_or(|tag| lead.tags.contains(tag))
        && filter.target.matches(lead.target_status)
        && filter.phone.is_none_or(|phone| lead.phone == phone)
        && search.is_none_or(|text| folded(&lead.name).contains(text) || lead.phone.as_e164().contains(text))
}

#[async_trait]
impl DeviceStore for MemoryStore {
    async fn device(&self, scope: &RequestScope, id: DeviceId) -> Result<Device, StoreError> {
        let state = self.lock();
        state
            .visible_device(scope, id)
            .cloned()
            .ok_or(not_found("device", "device"))
    }

    async fn devices(
        &self,
        scope: &RequestScope,
        page: &PageRequest<DeviceId>,
    ) -> Result<Page<Device, DeviceId>, StoreError> {
        let state = self.lock();
        let limit = page.clamped();
        let rows = state
            .live_devices_of(scope.user_id)
            .filter(|id| page.after.is_none_or(|after| *id > after))
            .filter_map(|id| state.visible_device(scope, id))
            .take(limit + 1)
            .cloned()
            .collect();
        Ok(Page::cut(rows, limit, |device: &Device| device.id))
    }

    async fn device_by_hook(&self, token: &str) -> Result<Device, StoreError> {
        let state = self.lock();
        let id = state.hooks.get(&digest(token));
        id.map(|id| state.devices[id].device.clone())
            .ok_or(not_found("device_by_hook", "device"))
    }

    async fn owned(&self, ids: &[DeviceId]) -> Result<Vec<OwnedDevice>, StoreError> {
        let state = self.lock();
        let found = ids.iter().filter_map(|id| state.devices.get(id));
        Ok(found.map(|row| row.owned()).collect())
    }

    async fn users_with_devices(&self, page: &PageRequest<UserId>) -> Result<Page<UserId, UserId>, StoreError> {
        let state = self.lock();
        let limit = page.clamped();
        let last = DeviceId::from_uuid(uuid::Uuid::max());
        let next = |after: Option<UserId>| {
            let from = match after {
                Some(user) => std::ops::Bound::Excluded((user, last)),
                None => std::ops::Bound::Unbounded,
            };
            let mut rows = state.live_devices.range((from, std::ops::Bound::Unbounded));
            rows.next().map(|(user, _)| *user)
        };
        let rows = std::iter::successors(next(page.after), |user| next(Some(*user)));
        Ok(Page::cut(rows.take(limit + 1).collect(), limit, |user| *user))
    }
}

#[async_trait]
impl LeadStore for MemoryStore {
    async fn lead(&self, scope: &RequestScope, id: LeadId) -> Result<Lead, StoreError> {
        let state = self.lock();
        state.visible_lead(scope, id).cloned().ok_or(not_found("lead", "lead"))
    }

    async fn leads(
        &self,
        scope: &RequestScope,
        filter: &LeadFilter,
        page: &PageRequest<LeadId>,
    ) -> Result<Page<Lead, LeadId>, StoreError> {
        let state = self.lock();
        let limit = page.clamped();
        let leads = state.shown_leads(scope, filter, page.after);
        let rows = leads.take(limit + 1).cloned().collect();
        Ok(Page::cut(rows, limit, |lead: &Lead| lead.id))
    }

    async fn lead_count(&self, scope: &RequestScope, filter: &LeadFilter) -> Result<u64, StoreError> {
        Ok(self.lock().shown_leads(scope, filter, None).count() as u64)
    }

    async fn leads_by_id(&self, user: UserId, ids: &[LeadId]) -> Result<Vec<Lead>, StoreError> {
        let state = self.lock();
        let found = ids.iter().filter_map(|id| state.leads.get(id));
        Ok(found
            .filter(|lead| lead.user_id == user)
            .map(|lead| Lead::clone(lead))
            .collect())
    }

    async fn lead_by_identity(&self, identity: &LeadIdentity) -> Result<Option<Lead>, StoreError> {
        let state = self.lock();
        let id = state.lead_identities.get(identity);
        Ok(id.map(|id| Lead::clone(&state.leads[id])))
    }

    async fn niches(&self, scope: &RequestScope) -> Result<Vec<(Token, u64)>, StoreError> {
        let state = self.lock();
        let mut niches: BTreeMap<&Token, u64> = BTreeMap::new();
        for (_, id) in state.leads_of.range((scope.user_id, LeadId::MIN)..) {
            if state.leads[id].user_id != scope.user_id {
                break;
            }
            let niches_of = state.visible_lead(scope, *id).map(|lead| &lead.niches);
            for niche in niches_of.into_iter().flat_map(|of_lead| of_lead.iter()) {
                *niches.entry(niche).or_default() += 1;
            }
        }
        let niches = niches.into_iter().take(PAGE_MAX as usize);
        Ok(niches.map(|(niche, count)| (niche.clone(), count)).collect())
    }
}

#[async_trait]
impl SuppressionStore for MemoryStore {
    async fn suppressed(&self, user: UserId, persons: &[PersonKey]) -> Result<Vec<Suppression>, StoreError> {
        let state = self.lock();
        let found = persons
            .iter()
            .filter_map(|person| state.suppressions.get(&(user, *person)));
        Ok(found.map(|suppression| Suppression::clone(suppression)).collect())
    }

    async fn suppressions(
        &self,
        scope: &RequestScope,
        page: &PageRequest<PersonKey>,
    ) -> Result<Page<Suppression, PersonKey>, StoreError> {
        let state = self.lock();
        let limit = page.clamped();
        let first = PersonKey::from_slice(&[0; 16]).expect("a key has 16 bytes");
        let rows = state
            .suppressions
            .range((scope.user_id, page.after.unwrap_or(first))..)
            .take_while(|((user, _), _)| *user == scope.user_id && sees(scope, None))
            .filter(|((_, person), _)| page.after.is_none_or(|after| *person > after))
            .take(limit + 1)
            .map(|(_, suppression)| Suppression::clone(suppression))
            .collect();
        Ok(Page::cut(rows, limit, |suppression: &Suppression| suppression.person))
    }
}

#[async_trait]
impl CommandStore for MemoryStore {
    async fn command(&self, scope: &RequestScope, id: CommandId) -> Result<DeviceCommand, StoreError> {
        let state = self.lock();
        state
            .visible_command(scope, id)
            .cloned()
            .ok_or(not_found("command", "device command"))
    }

    async fn commands(
        &self,
        incarnation: Incarnation,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeviceCommand>, StoreError> {
        let state = self.lock();
        let waiting = state.commands_waiting.iter().map(|(_, id)| &state.commands[id]);
        Ok(waiting
            .filter(|command| command.expires_at > now)
            .filter(|command| state.owned_by.contains(&(incarnation, command.device_id)))
            .take(limit as usize)
            .map(|command| DeviceCommand::clone(command))
            .collect())
    }

    async fn prune_commands(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.lock();
        let mut pruned = 0;
        while let Some((_, id)) = state.commands_expiring.first().copied().filter(|(at, _)| *at < before) {
            state.replace_command(id, None);
            pruned += 1;
        }
        Ok(pruned)
    }
}

#[async_trait]
impl EventStore for MemoryStore {
    async fn events(&self, scope: &RequestScope, after: EventId, limit: u32) -> Result<Vec<Event>, StoreError> {
        let state = self.lock();
        let user = scope.user_id;
        let place = state.event_places.get(&(user, after)).copied().unwrap_or(0);
        let events = state.events.range((user, place + 1)..);
        let mut events: Vec<_> = events.take_while(|((of, _), _)| *of == user).collect();
        if state.flawed(Flaw::EventsAreReadById) {
            let all = state.events.range((user, 0)..).take_while(|((of, _), _)| *of == user);
            events = all.filter(|(_, event)| event.id > after).collect();
            events.sort_by_key(|(_, event)| event.id);
        }
        Ok(events
            .into_iter()
            .map(|(_, event)| event)
            .filter(|event| state.visible_event(scope, event))
            .take(limit as usize)
            .cloned()
            .collect())
    }

    async fn newest_event(&self, scope: &RequestScope) -> Result<Option<EventId>, StoreError> {
        let state = self.lock();
        let user = scope.user_id;
        let mut events = state.events.range((user, 0)..=(user, u64::MAX));
        if state.flawed(Flaw::NewestEventIsTheOneOfTheHighestId) {
            return Ok(events.map(|(_, event)| event.id).max());
        }
        Ok(events.next_back().map(|(_, event)| event.id))
    }

    async fn prune_events(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.lock();
        let mut pruned = 0;
        while let Some((_, user, id)) = state.events_at.first().copied().filter(|(at, ..)| *at < before) {
            state.remove_event(user, id);
            pruned += 1;
        }
        Ok(pruned)
    }

    async fn prune_replies(&self, before: Timestamp) -> Result<u64, StoreError> {
        let mut state = self.lock();
        let mut pruned = 0;
        while let Some((_, device, id)) = state.heard_at.first().cloned().filter(|(at, ..)| *at < before) {
            state.forget_heard(device, id);
            pruned += 1;
        }
        Ok(pruned)
    }
}
