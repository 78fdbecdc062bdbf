//! Leads.

use async_trait::async_trait;

use super::{Page, PageRequest, StoreError};
use crate::domain::access::RequestScope;
use crate::domain::audience::TargetFilter;
use crate::domain::lead::{Lead, LeadIdentity};
use crate::domain::phone::Phone;
use crate::domain::token::Token;
use crate::id::{DeviceId, LeadId, UserId};

/// Which leads a list shows; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeadFilter {
    /// Of this device.
    pub device_id: Option<DeviceId>,
    /// Without a device, in the pool.
    pub without_device: bool,
    /// With this niche, exactly.
    pub niche: Option<Token>,
    /// With this trigger, exactly.
    pub trigger: Option<Token>,
    /// With this tag, exactly.
    pub tag: Option<Token>,
    /// By target status.
    pub target: TargetFilter,
    /// With this number.
    pub phone: Option<Phone>,
    /// Whose name or number contains this text, case-folded; at most 100 characters.
    pub search: Option<String>,
}

/// Reads leads. They are changed by `commit`.
#[async_trait]
pub trait LeadStore: Send + Sync {
    /// One lead within a request's scope.
    async fn lead(&self, scope: &RequestScope, id: LeadId) -> Result<Lead, StoreError>;

    /// A page of leads, by id.
    async fn leads(
        &self,
        scope: &RequestScope,
        filter: &LeadFilter,
        page: &PageRequest<LeadId>,
    ) -> Result<Page<Lead, LeadId>, StoreError>;

    /// How many leads a filter shows.
    async fn lead_count(&self, scope: &RequestScope, filter: &LeadFilter) -> Result<u64, StoreError>;

    /// The leads with these ids that exist, of one user, in any order; at most 1,000.
    async fn leads_by_id(&self, user: UserId, ids: &[LeadId]) -> Result<Vec<Lead>, StoreError>;

    /// The lead with an identity, if it exists.
    async fn lead_by_identity(&self, identity: &LeadIdentity) -> Result<Option<Lead>, StoreError>;

    /// The niches of the leads within a request's scope, sorted, with how many leads have each; at most 1,000,
    /// each in the spelling of the oldest lead, by id, that has it.
    async fn niches(&self, scope: &RequestScope) -> Result<Vec<(Token, u64)>, StoreError>;
}
