//! Campaigns, their audiences and saved texts.

use async_trait::async_trait;

use super::{Page, PageRequest, StoreError};
use crate::domain::access::RequestScope;
use crate::domain::audience::{AudienceLead, CampaignEntry};
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::message::{Message, MessageState, Reason};
use crate::domain::phone::PersonKey;
use crate::domain::saved_text::SavedText;
#[cfg(doc)]
use crate::event::Event;
use crate::id::{CampaignId, DeviceId, EventId, LeadId, MessageId, TemplateId};
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

/// A message of a campaign, as planning its audience once more sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedRow {
    /// The message.
    pub message_id: MessageId,
    /// The person.
    pub person: PersonKey,
    /// The lead.
    pub lead_id: Option<LeadId>,
    /// Its round.
    pub round: u16,
    /// Where it stands.
    pub state: MessageState,
    /// Why.
    pub reason: Option<Reason>,
}

impl PlannedRow {
    /// Whether it was left over, as [`Message::is_left_over`] says of a message.
    #[must_use]
    pub fn is_left_over(&self) -> bool {
        self.state == MessageState::Skipped && self.reason == Some(Reason::DeviceLimit)
    }
}

impl From<&Message> for PlannedRow {
    fn from(message: &Message) -> Self {
        Self {
            message_id: message.id,
            person: message.person,
            lead_id: message.lead_id,
            round: message.round,
            state: message.state,
            reason: message.reason,
        }
    }
}

/// What a device has taken of a campaign since that was last triggered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// The campaign.
    pub campaign_id: CampaignId,
    /// The device.
    pub device_id: DeviceId,
    /// How many messages it took.
    pub taken: u32,
    /// How many messages of the campaign are open on it.
    pub open: u32,
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
    /// To ensure correctness: exact matching within the campaign's user; leads created after `campaign.started_at` are left out. Fewer than
    /// `limit` mean that there are no more, so that a store gives as many as there are up to `limit`, which is at most
    /// [`EngineConfig::EXPAND_PAGE_MAX`](crate::engine::config::EngineConfig::EXPAND_PAGE_MAX).
    async fn audience_page(
        &self,
        campaign: &Campaign,
        after: LeadId,
        limit: u32,
    ) -> Result<Vec<AudienceLead>, StoreError>;

    /// The next entries of a campaign after a position; as with [`audience_page`](Self::audience_page), fewer than `limit` mean that there
    /// are no more.
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

    /// The messages of a campaign to these persons, skipped duplicates among them and superseded ones not, by id.
    async fn planned(&self, campaign: CampaignId, persons: &[PersonKey]) -> Result<Vec<PlannedRow>, StoreError>;

    /// How many messages of a campaign are left over ([`Message::is_left_over`]).
    async fn left_over(&self, campaign: CampaignId) -> Result<u64, StoreError>;

    /// How many messages of these campaigns each device has taken since they were last triggered, by (campaign, device); devices
    /// that took none are left out.
    ///
    /// To ensure correctness: taken are those that are open on the device, sent, failed or unknown and not superseded, less what
    /// it had of them when the campaign was triggered again; one that replaces a message of before takes that one's place.
    async fn taken(&self, campaigns: &[CampaignId]) -> Result<Vec<Taken>, StoreError>;

    /// One saved text within a request's scope.
    async fn saved_text(&self, scope: &RequestScope, id: TemplateId) -> Result<SavedText, StoreError>;

    /// A page of saved texts, by id.
    async fn saved_texts(
        &self,
        scope: &RequestScope,
        page: &PageRequest<TemplateId>,
    ) -> Result<Page<SavedText, TemplateId>, StoreError>;
}
