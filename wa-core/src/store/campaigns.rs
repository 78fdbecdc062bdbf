//! Campaigns, their audiences and saved texts.

use async_trait::async_trait;

use super::{Page, PageRequest, StoreError};
use crate::domain::access::RequestScope;
use crate::domain::audience::{AudienceLead, CampaignEntry};
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::phone::PersonKey;
use crate::domain::saved_text::SavedText;
#[cfg(doc)]
use crate::event::Event;
use crate::id::{CampaignId, EventId, LeadId, TemplateId};
use crate::time::Timestamp;

/// Which campaigns a list shows; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CampaignFilter {
    /// In one of these statuses; empty for any.
    pub statuses: Vec<CampaignStatus>,
    /// Scheduled at or after.
    pub from: Option<Timestamp>,
    /// Scheduled before.
    pub until: Option<Timestamp>,
    /// Whose title contains this text, case-folded; at most 100 characters.
    pub search: Option<String>,
}

/// Reads campaigns. They are changed by `commit`.
#[async_trait]
pub trait CampaignStore: Send + Sync {
    /// One campaign within a request's scope.
    async fn campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<Campaign, StoreError>;

    /// A page of campaigns, newest first.
    async fn campaigns(
        &self,
        scope: &RequestScope,
        filter: &CampaignFilter,
        page: &PageRequest<CampaignId>,
    ) -> Result<Page<Campaign, CampaignId>, StoreError>;

    /// Campaigns of any user by id, for the engine; those that do not exist are left out.
    async fn campaigns_by_id(&self, ids: &[CampaignId]) -> Result<Vec<Campaign>, StoreError>;

    /// Scheduled campaigns whose time has come, of any user, oldest first; those whose reason is `LateAsk` are left out.
    async fn campaigns_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Campaign>, StoreError>;

    /// Triggered campaigns whose audience is not yet expanded to the end, of any user, by id.
    async fn campaigns_expanding(&self, limit: u32) -> Result<Vec<Campaign>, StoreError>;

    /// Completes triggered, fully expanded campaigns without open messages, by id, as many as there are ids for their events,
    /// and returns them as they are now: `completed`, with reason `NobodyMatched` if they have no message at all.
    ///
    /// To ensure correctness, in one transaction: never one with an open message; each with its durable
    /// [`Event::campaign_status`], which takes the ids in the order of the answer.
    async fn complete_campaigns(&self, events: &[EventId], now: Timestamp) -> Result<Vec<Campaign>, StoreError>;

    /// When the next scheduled campaign is due, over all users.
    async fn next_campaign_at(&self) -> Result<Option<Timestamp>, StoreError>;

    /// The next leads of a campaign's audience after a lead, by id.
    ///
    /// To ensure correctness: exact matching within the campaign's user; leads created after `campaign.started_at` are left out.
    async fn audience_page(
        &self,
        campaign: &Campaign,
        after: LeadId,
        limit: u32,
    ) -> Result<Vec<AudienceLead>, StoreError>;

    /// The next entries of a campaign after a position.
    async fn entries_page(
        &self,
        campaign: CampaignId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<CampaignEntry>, StoreError>;

    /// How many leads or entries the audience of a campaign has now; an estimate until it is started.
    async fn audience_size(&self, campaign: &Campaign) -> Result<u64, StoreError>;

    /// Which of these persons have a message in the campaign that is not a skipped duplicate.
    async fn persons_in(&self, campaign: CampaignId, persons: &[PersonKey]) -> Result<Vec<PersonKey>, StoreError>;

    /// One saved text within a request's scope.
    async fn saved_text(&self, scope: &RequestScope, id: TemplateId) -> Result<SavedText, StoreError>;

    /// A page of saved texts, by id.
    async fn saved_texts(
        &self,
        scope: &RequestScope,
        page: &PageRequest<TemplateId>,
    ) -> Result<Page<SavedText, TemplateId>, StoreError>;
}
