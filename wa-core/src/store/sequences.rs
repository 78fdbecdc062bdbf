//! Sequences, their steps, and the enrolments that run through them.

use async_trait::async_trait;

use super::{Page, PageRequest, StoreError};
use crate::domain::access::RequestScope;
use crate::domain::enrolment::{Enrolment, EnrolmentCount, EnrolmentState, StepNumbers, ToAdvance};
use crate::domain::lead::Lead;
use crate::domain::phone::PersonKey;
use crate::domain::sequence::{Sequence, SequenceStatus, SequenceSteps};
use crate::domain::token::Token;
use crate::id::{EnrolmentId, LeadId, SequenceId, UserId};
use crate::time::Timestamp;

/// Which sequences a list shows; all conditions must hold. Deleted ones are never shown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceFilter {
    /// In one of these statuses; empty for any.
    pub statuses: Vec<SequenceStatus>,
    /// Whose name contains this text, case-folded; at most 100 characters.
    pub search: Option<String>,
}

/// Which enrolments a list shows; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EnrolmentFilter {
    /// Of this sequence.
    pub sequence_id: Option<SequenceId>,
    /// Of this lead.
    pub lead_id: Option<LeadId>,
    /// Of this person.
    pub person: Option<PersonKey>,
    /// In one of these states; empty for any.
    pub states: Vec<EnrolmentState>,
}

/// A span of time, from included to excluded; open where it says nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// At or after.
    pub from: Option<Timestamp>,
    /// Before.
    pub until: Option<Timestamp>,
}

impl Span {
    /// Whether it leaves everything in.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        self.from.is_none() && self.until.is_none()
    }

    /// Whether an instant lies in it.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }
}

/// The counts of a sequence: its messages per step and device, and its enrolments by where they stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SequenceCounts {
    /// Messages that are not superseded, by step, then the pool before devices.
    pub steps: Vec<StepNumbers>,
    /// Enrolments, by version, step, the pool before devices, state, reason; those that count nobody are left out.
    pub enrolments: Vec<EnrolmentCount>,
}

/// Reads sequences and enrolments. They are changed by `commit`, and enrolments by the outbox too:
///
/// - whatever settles a message of a flow (round 0, the active step of an open enrolment) marks its enrolment in the same
///   transaction: [`to_advance`](Self::to_advance) tells it until a change moves it on;
/// - the gate of a flow's message is its enrolment, then its sequence: ended when the enrolment is not open or the sequence
///   deleted, paused when the sequence does not run;
/// - it is paused too while an open message of a step is there that the enrolment reached before, because a person sends that
///   one again; steps stand in the order of their first messages, the active one last. When the earlier message is settled,
///   those that were held for it are queued in the same transaction.
#[async_trait]
pub trait SequenceStore: Send + Sync {
    /// One sequence within a request's scope; a deleted one is `NotFound`.
    async fn sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<Sequence, StoreError>;

    /// A page of sequences, newest first.
    async fn sequences(
        &self,
        scope: &RequestScope,
        filter: &SequenceFilter,
        page: &PageRequest<SequenceId>,
    ) -> Result<Page<Sequence, SequenceId>, StoreError>;

    /// Sequences of any user by id, deleted ones too, for the engine; those that do not exist are left out.
    async fn sequences_by_id(&self, ids: &[SequenceId]) -> Result<Vec<Sequence>, StoreError>;

    /// Versions of steps, for the engine; those that do not exist are left out.
    async fn steps(&self, versions: &[(SequenceId, i32)]) -> Result<Vec<SequenceSteps>, StoreError>;

    /// The sequences of a user, not deleted, in any status, whose newest steps have one of these tokens as an entry point or
    /// whose niche is one of them, by id.
    async fn sequences_by_entry(&self, user: UserId, tokens: &[Token]) -> Result<Vec<Sequence>, StoreError>;

    /// Leads of any user that gained a trigger or niche, or whose target status changed, and were not matched since, by id.
    ///
    /// To ensure correctness: set by `InsertLead`, `UpdateLead`, a merge and `ReplaceTrigger` in their commit; cleared by
    /// `Change::Matched` alone.
    async fn leads_to_match(&self, limit: u32) -> Result<Vec<Lead>, StoreError>;

    /// Active sequences of any user whose cursor is not done, by id.
    async fn sequences_matching(&self, limit: u32) -> Result<Vec<Sequence>, StoreError>;

    /// The next leads after a lead that have an entry trigger of the sequence's newest steps or its niche, and its target
    /// status, by id, each once.
    ///
    /// To ensure correctness: exact matching within the sequence's user.
    async fn match_page(&self, sequence: &Sequence, after: LeadId, limit: u32) -> Result<Vec<Lead>, StoreError>;

    /// Open enrolments, of any user, whose active step is settled and which were not moved on since, by (`settled_at` of the
    /// message, id).
    ///
    /// To ensure correctness: an enrolment of a sequence that does not run is told too: its next step is held.
    async fn to_advance(&self, limit: u32) -> Result<Vec<ToAdvance>, StoreError>;

    /// One enrolment within a request's scope.
    async fn enrolment(&self, scope: &RequestScope, id: EnrolmentId) -> Result<Enrolment, StoreError>;

    /// A page of enrolments within a request's scope, by id.
    async fn enrolments(
        &self,
        scope: &RequestScope,
        filter: &EnrolmentFilter,
        page: &PageRequest<EnrolmentId>,
    ) -> Result<Page<Enrolment, EnrolmentId>, StoreError>;

    /// Enrolments of any user by id, for the engine; those that do not exist are left out.
    async fn enrolments_by_id(&self, ids: &[EnrolmentId]) -> Result<Vec<Enrolment>, StoreError>;

    /// The counts of a sequence within a request's scope. For all time they come from tallies; in a span they are counted:
    /// messages settled and enrolments ended in it, with the open ones. `NotFound` for a sequence of another user.
    async fn sequence_counts(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        span: &Span,
    ) -> Result<SequenceCounts, StoreError>;

    /// Counts the rows of a sequence and tells the counts that its tallies should show.
    async fn recount_sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<SequenceCounts, StoreError>;
}
