//! People who must not be written to.

use async_trait::async_trait;

use super::{Page, PageRequest, StoreError};
use crate::domain::access::RequestScope;
use crate::domain::phone::PersonKey;
use crate::domain::suppression::Suppression;
use crate::id::UserId;

/// Reads suppressions. They are changed by `commit` and enforced by `begin`.
#[async_trait]
pub trait SuppressionStore: Send + Sync {
    /// Which of these persons are suppressed for a user; at most 1,000.
    async fn suppressed(&self, user: UserId, persons: &[PersonKey]) -> Result<Vec<Suppression>, StoreError>;

    /// A page of the list, by the bytes of the person's key.
    async fn suppressions(
        &self,
        scope: &RequestScope,
        page: &PageRequest<PersonKey>,
    ) -> Result<Page<Suppression, PersonKey>, StoreError>;
}
