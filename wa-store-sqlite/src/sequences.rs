//! Sequences, steps and enrolments.

use async_trait::async_trait;
use wa_core::domain::access::RequestScope;
use wa_core::domain::enrolment::{Enrolment, ToAdvance};
use wa_core::domain::lead::Lead;
use wa_core::domain::sequence::{Sequence, SequenceSteps};
use wa_core::domain::token::Token;
use wa_core::id::{EnrolmentId, LeadId, SequenceId, UserId};
use wa_core::store::{
    EnrolmentFilter, Page, PageRequest, SequenceCounts, SequenceFilter, SequenceStore, Span, StoreError, StoreErrorKind,
};

use crate::SqliteStore;

fn unsupported(operation: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Unsupported, operation, "sequence")
}

#[async_trait]
impl SequenceStore for SqliteStore {
    async fn sequence(&self, _scope: &RequestScope, _id: SequenceId) -> Result<Sequence, StoreError> {
        Err(unsupported("sequence"))
    }
    async fn sequences(
        &self,
        _scope: &RequestScope,
        _filter: &SequenceFilter,
        _page: &PageRequest<SequenceId>,
    ) -> Result<Page<Sequence, SequenceId>, StoreError> {
        Err(unsupported("sequences"))
    }
    async fn sequences_by_id(&self, _ids: &[SequenceId]) -> Result<Vec<Sequence>, StoreError> {
        Err(unsupported("sequences_by_id"))
    }
    async fn steps(&self, _versions: &[(SequenceId, i32)]) -> Result<Vec<SequenceSteps>, StoreError> {
        Err(unsupported("steps"))
    }
    async fn sequences_by_entry(&self, _user: UserId, _tokens: &[Token]) -> Result<Vec<Sequence>, StoreError> {
        Err(unsupported("sequences_by_entry"))
    }
    async fn leads_to_match(&self, _limit: u32) -> Result<Vec<Lead>, StoreError> {
        Err(unsupported("leads_to_match"))
    }
    async fn sequences_matching(&self, _limit: u32) -> Result<Vec<Sequence>, StoreError> {
        Err(unsupported("sequences_matching"))
    }
    async fn match_page(&self, _sequence: &Sequence, _after: LeadId, _limit: u32) -> Result<Vec<Lead>, StoreError> {
        Err(unsupported("match_page"))
    }
    async fn to_advance(&self, _limit: u32) -> Result<Vec<ToAdvance>, StoreError> {
        Err(unsupported("to_advance"))
    }
    async fn enrolment(&self, _scope: &RequestScope, _id: EnrolmentId) -> Result<Enrolment, StoreError> {
        Err(unsupported("enrolment"))
    }
    async fn enrolments(
        &self,
        _scope: &RequestScope,
        _filter: &EnrolmentFilter,
        _page: &PageRequest<EnrolmentId>,
    ) -> Result<Page<Enrolment, EnrolmentId>, StoreError> {
        Err(unsupported("enrolments"))
    }
    async fn enrolments_by_id(&self, _ids: &[EnrolmentId]) -> Result<Vec<Enrolment>, StoreError> {
        Err(unsupported("enrolments_by_id"))
    }
    async fn sequence_counts(
        &self,
        _scope: &RequestScope,
        _id: SequenceId,
        _span: &Span,
    ) -> Result<SequenceCounts, StoreError> {
        Err(unsupported("sequence_counts"))
    }
    async fn recount_sequence(&self, _scope: &RequestScope, _id: SequenceId) -> Result<SequenceCounts, StoreError> {
        Err(unsupported("recount_sequence"))
    }
}
