//! Campaigns, audiences and saved texts.

use std::ops::Bound;

use async_trait::async_trait;

use super::MemoryStore;
use super::flaw::Flaw;
use super::outbox_reads::sees;
use super::state::{State, folded, not_found};
use crate::domain::access::RequestScope;
use crate::domain::audience::{Audience, AudienceLead, CampaignEntry};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::lead::Lead;
use crate::domain::message::{MessageScope, MessageState};
use crate::domain::phone::PersonKey;
use crate::domain::saved_text::SavedText;
use crate::event::Event;
use crate::id::{CampaignId, EventId, LeadId, MessageId, TemplateId};
use crate::store::{CampaignFilter, CampaignStore, Page, PageRequest, PlannedRow, StoreError, Taken};
use crate::time::Timestamp;

impl State {
    pub(super) fn visible_campaign(&self, scope: &RequestScope, id: CampaignId) -> Option<&Campaign> {
        self.campaigns
            .get(&id)
            .map(Box::as_ref)
            .filter(|campaign| campaign.user_id == scope.user_id && sees(scope, campaign.device_id))
    }

    fn page_of_campaigns(
        &self,
        scope: &RequestScope,
        filter: &CampaignFilter,
        page: &PageRequest<CampaignId>,
    ) -> Page<Campaign, CampaignId> {
        let user = scope.user_id;
        let until = match page.after {
            Some(after) => Bound::Excluded((user, after)),
            None => Bound::Included((user, CampaignId::from_uuid(uuid::Uuid::max()))),
        };
        let limit = page.clamped();
        let rows = self
            .campaigns_of
            .range((Bound::Included((user, CampaignId::MIN)), until))
            .rev()
            .filter_map(|(_, id)| self.visible_campaign(scope, *id))
            .filter(|campaign| shows(filter, campaign))
            .take(limit + 1)
            .cloned()
            .collect();
        Page::cut(rows, limit, |campaign: &Campaign| campaign.id)
    }

    fn complete_campaigns(&mut self, events: &[EventId], now: Timestamp) -> Vec<Campaign> {
        let done: Vec<CampaignId> = self
            .campaigns_expanded
            .iter()
            .copied()
            .filter(|id| !self.has_open(*id))
            .take(events.len())
            .collect();
        done.into_iter()
            .zip(events)
            .map(|(id, event)| {
                let empty = self.messages.of_scope(self.key_of(id), MessageId::MIN).next().is_none();
                let mut campaign = Campaign::clone(&self.campaigns[&id]);
                campaign.status = CampaignStatus::Completed;
                campaign.reason = empty.then_some(CampaignReason::NobodyMatched);
                campaign.status_at = now;
                campaign.ended_at = Some(now);
                campaign.version += 1;
                self.put_campaign(campaign.clone());
                if !self.flawed(Flaw::CompletionIsNotTold) {
                    self.add_event(Event::campaign_status(*event, &campaign, now));
                }
                campaign
            })
            .collect()
    }

    fn has_open(&self, id: CampaignId) -> bool {
        let key = self.key_of(id);
        if self.flawed(Flaw::CompletionIgnoresDoubt) {
            let states = [MessageState::Queued, MessageState::Held, MessageState::Sending];
            let mut open = states.iter().map(|state| self.messages.first_open_in(key, *state));
            return open.any(|id| id.is_some());
        }
        if self.flawed(Flaw::CompletionIgnoresPool) {
            let rows = self.messages.of_scope(key, MessageId::MIN);
            let mut rows = rows.map(|id| self.messages.row(id));
            return rows.any(|message| message.state.is_open() && message.device_id.is_some());
        }
        self.messages.has_open(key)
    }

    fn key_of(&self, id: CampaignId) -> super::messages::ScopeKey {
        (self.campaigns[&id].user_id, MessageScope::Campaign(id))
    }

    /// The leads of an audience after a lead, by id; those that came after the campaign had started are left out.
    fn audience<'a>(
        &'a self,
        campaign: &'a Campaign,
        after: Option<LeadId>,
    ) -> Box<dyn Iterator<Item = &'a Lead> + 'a> {
        let user = campaign.user_id;
        let from = after.unwrap_or(LeadId::MIN);
        let ids: Box<dyn Iterator<Item = LeadId>> = match &campaign.audience {
            Audience::Entries => return Box::new(std::iter::empty()),
            Audience::Leads { niche: Some(niche), .. } | Audience::Pool { niche: Some(niche), .. }
                if !self.flawed(Flaw::AudienceMatchesParts) =>
            {
                Box::new(
                    self.leads_by_niche
                        .range((user, niche.clone(), from)..)
                        .take_while(move |(of, token, _)| *of == user && token == niche)
                        .map(|(_, _, id)| *id),
                )
            }
            Audience::Leads { .. } | Audience::Pool { .. } => Box::new(
                self.leads_of
                    .range((user, from)..)
                    .take_while(move |(of, _)| *of == user)
                    .map(|(_, id)| *id),
            ),
        };
        let in_time = |lead: &Lead| {
            let late = campaign.started_at.is_some_and(|started| lead.created_at > started);
            !late || self.flawed(Flaw::AudienceTakesLatecomers)
        };
        let has_part = |lead: &Lead| match &campaign.audience {
            Audience::Leads { niche: Some(niche), .. } if self.flawed(Flaw::AudienceMatchesParts) => {
                lead.niches.iter().any(|other| other.as_str().contains(niche.as_str()))
            }
            _ => false,
        };
        Box::new(
            ids.filter(move |id| after.is_none_or(|after| *id > after))
                .map(|id| self.leads[&id].as_ref())
                .filter(move |lead| {
                    let owned = lead.device_id.is_some() && campaign.audience.is_pool();
                    let matches = campaign.audience.matches(lead) || has_part(lead);
                    (matches || owned && self.flawed(Flaw::PoolTakesOwnedLeads)) && in_time(lead)
                }),
        )
    }

    fn visible_saved_text(&self, scope: &RequestScope, id: TemplateId) -> Option<&SavedText> {
        self.saved_texts
            .get(&id)
            .map(Box::as_ref)
            .filter(|saved| saved.user_id == scope.user_id && sees(scope, None))
    }
}

fn shows(filter: &CampaignFilter, campaign: &Campaign) -> bool {
    let at = campaign.scheduled_at;
    (filter.statuses.is_empty() || filter.statuses.contains(&campaign.status))
        && filter.from.is_none_or(|from| at.is_some_and(|at| at >= from))
        && filter.until.is_none_or(|until| at.is_some_and(|at| at < until))
        && filter
            .search
            .as_ref()
            .is_none_or(|text| folded(&campaign.title).contains(&folded(text)))
}

#[async_trait]
impl CampaignStore for MemoryStore {
    async fn campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<Campaign, StoreError> {
        let state = self.lock();
        state
            .visible_campaign(scope, id)
            .cloned()
            .ok_or(not_found("campaign", "campaign"))
    }

    async fn campaigns(
        &self,
        scope: &RequestScope,
        filter: &CampaignFilter,
        page: &PageRequest<CampaignId>,
    ) -> Result<Page<Campaign, CampaignId>, StoreError> {
        Ok(self.lock().page_of_campaigns(scope, filter, page))
    }

    async fn campaigns_by_id(&self, ids: &[CampaignId]) -> Result<Vec<Campaign>, StoreError> {
        let state = self.lock();
        let found = ids.iter().filter_map(|id| state.campaigns.get(id));
        Ok(found.map(|campaign| Campaign::clone(campaign)).collect())
    }

    async fn campaigns_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Campaign>, StoreError> {
        let state = self.lock();
        let due = state.campaigns_scheduled.iter().take_while(|(at, _)| *at <= now);
        Ok(due
            .take(limit as usize)
            .map(|(_, id)| Campaign::clone(&state.campaigns[id]))
            .collect())
    }

    async fn campaigns_expanding(&self, limit: u32) -> Result<Vec<Campaign>, StoreError> {
        let state = self.lock();
        let expanding = state.campaigns_expanding.iter().take(limit as usize);
        Ok(expanding.map(|id| Campaign::clone(&state.campaigns[id])).collect())
    }

    async fn complete_campaigns(&self, events: &[EventId], now: Timestamp) -> Result<Vec<Campaign>, StoreError> {
        Ok(self.lock().complete_campaigns(events, now))
    }

    async fn next_campaign_at(&self) -> Result<Option<Timestamp>, StoreError> {
        Ok(self.lock().campaigns_scheduled.first().map(|(at, _)| *at))
    }

    async fn audience_page(
        &self,
        campaign: &Campaign,
        after: LeadId,
        limit: u32,
    ) -> Result<Vec<AudienceLead>, StoreError> {
        let state = self.lock();
        let leads = state.audience(campaign, Some(after)).take(limit as usize);
        Ok(leads.map(AudienceLead::from).collect())
    }

    async fn entries_page(
        &self,
        campaign: CampaignId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<CampaignEntry>, StoreError> {
        let state = self.lock();
        let after = (
            Bound::Excluded((campaign, after)),
            Bound::Included((campaign, u32::MAX)),
        );
        let entries = state.entries.range(after).take(limit as usize);
        Ok(entries.map(|(_, entry)| CampaignEntry::clone(entry)).collect())
    }

    async fn audience_size(&self, campaign: &Campaign) -> Result<u64, StoreError> {
        let state = self.lock();
        let id = campaign.id;
        let size = match campaign.audience {
            Audience::Entries => state.entries.range((id, 0)..=(id, u32::MAX)).count(),
            Audience::Leads { .. } | Audience::Pool { .. } => state.audience(campaign, None).count(),
        };
        Ok(size as u64)
    }

    async fn persons_in(&self, campaign: CampaignId, persons: &[PersonKey]) -> Result<Vec<PersonKey>, StoreError> {
        let state = self.lock();
        let is_in = |person: &PersonKey| {
            let from = (campaign, *person, MessageId::MIN);
            let mut rows = state.messages.in_campaign.range(from..);
            rows.next()
                .is_some_and(|(of, who, _)| (*of, *who) == (campaign, *person))
        };
        Ok(persons.iter().copied().filter(is_in).collect())
    }

    async fn planned(&self, campaign: CampaignId, persons: &[PersonKey]) -> Result<Vec<PlannedRow>, StoreError> {
        Ok(self.lock().planned(campaign, persons))
    }

    async fn left_over(&self, campaign: CampaignId) -> Result<u64, StoreError> {
        Ok(self.lock().left_over(campaign))
    }

    async fn taken(&self, campaigns: &[CampaignId]) -> Result<Vec<Taken>, StoreError> {
        Ok(self.lock().taken(campaigns))
    }

    async fn saved_text(&self, scope: &RequestScope, id: TemplateId) -> Result<SavedText, StoreError> {
        let state = self.lock();
        state
            .visible_saved_text(scope, id)
            .cloned()
            .ok_or(not_found("saved_text", "saved text"))
    }

    async fn saved_texts(
        &self,
        scope: &RequestScope,
        page: &PageRequest<TemplateId>,
    ) -> Result<Page<SavedText, TemplateId>, StoreError> {
        let state = self.lock();
        let limit = page.clamped();
        let rows = state
            .saved_texts_of
            .range((scope.user_id, page.after.unwrap_or(TemplateId::MIN))..)
            .take_while(|(user, _)| *user == scope.user_id)
            .map(|(_, id)| *id)
            .filter(|id| page.after.is_none_or(|after| *id > after))
            .filter_map(|id| state.visible_saved_text(scope, id))
            .take(limit + 1)
            .cloned()
            .collect();
        Ok(Page::cut(rows, limit, |saved: &SavedText| saved.id))
    }
}
