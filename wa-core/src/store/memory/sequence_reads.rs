//! Reads of sequences and enrolments, and the sub-trait itself.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::task::Poll;

use async_trait::async_trait;

use super::MemoryStore;
use super::enrolments::{CountKey, LAST_ENROLMENT, count_key, count_rows};
use super::flaw::Flaw;
use super::outbox_reads::sees;
use super::state::{State, folded, not_found};
use crate::domain::access::RequestScope;
use crate::domain::enrolment::{Enrolment, EnrolmentState, StepNumbers, ToAdvance};
use crate::domain::lead::Lead;
use crate::domain::message::{IdempotencyKey, MessageScope};
use crate::domain::sequence::{Sequence, SequenceSteps};
use crate::domain::summary::Numbers;
use crate::domain::token::Token;
use crate::id::{DeviceId, EnrolmentId, LeadId, MessageId, SequenceId, StepId, UserId};
use crate::store::{
    EnrolmentFilter, Page, PageRequest, SequenceCounts, SequenceFilter, SequenceStore, Span, StoreError,
};

const LAST_SEQUENCE: SequenceId = SequenceId::from_uuid(uuid::Uuid::max());
const LAST_LEAD: LeadId = LeadId::from_uuid(uuid::Uuid::max());

impl State {
    fn visible_sequence(&self, scope: &RequestScope, id: SequenceId) -> Option<&Sequence> {
        self.sequences
            .get(id)
            .filter(|sequence| sequence.user_id == scope.user_id && sequence.deleted_at.is_none())
            .filter(|sequence| sees(scope, sequence.device_id))
    }

    fn page_of_sequences(
        &self,
        scope: &RequestScope,
        filter: &SequenceFilter,
        page: &PageRequest<SequenceId>,
    ) -> Page<Sequence, SequenceId> {
        let user = scope.user_id;
        let until = match page.after {
            Some(after) => Bound::Excluded((user, after)),
            None => Bound::Included((user, LAST_SEQUENCE)),
        };
        let limit = page.clamped();
        let rows = self
            .sequences
            .of_user
            .range((Bound::Included((user, SequenceId::MIN)), until))
            .rev()
            .filter_map(|(_, id)| self.visible_sequence(scope, *id))
            .filter(|sequence| shows_sequence(filter, sequence))
            .take(limit + 1)
            .cloned()
            .collect();
        Page::cut(rows, limit, |sequence: &Sequence| sequence.id)
    }

    fn sequences_by_entry(&self, user: UserId, tokens: &[Token]) -> BTreeSet<SequenceId> {
        if self.flawed(Flaw::EntriesMatchParts) {
            let theirs = self.sequences.by_entry.iter().filter(|(of, ..)| *of == user);
            let found =
                theirs.filter(|(_, entry, _)| tokens.iter().any(|token| token.as_str().contains(entry.as_str())));
            return found.map(|(_, _, id)| *id).collect();
        }
        let of_token = |token: &Token| {
            let all = (user, token.clone(), SequenceId::MIN)..=(user, token.clone(), LAST_SEQUENCE);
            self.sequences.by_entry.range(all).map(|(_, _, id)| *id)
        };
        tokens.iter().flat_map(of_token).collect()
    }

    /// The next leads that match a sequence.
    fn match_page(&self, sequence: &Sequence, after: LeadId, limit: usize) -> Vec<Lead> {
        let user = sequence.user_id;
        let Some(steps) = self.sequences.newest_steps(sequence) else {
            return Vec::new();
        };
        let targeted = |id: &LeadId| sequence.target.matches(self.leads[id].target_status);
        let mut found: BTreeSet<LeadId> = BTreeSet::new();
        for (token, _) in steps.entry_points() {
            let of_token = self.leads_by_trigger.range((
                Bound::Excluded((user, token.clone(), after)),
                Bound::Included((user, token.clone(), LAST_LEAD)),
            ));
            found.extend(of_token.map(|(_, _, id)| *id).filter(targeted).take(limit));
            if self.flawed(Flaw::EntriesMatchParts) {
                let partly = self
                    .leads_by_trigger
                    .iter()
                    .filter(|(of, own, id)| *of == user && *id > after && own.as_str().starts_with(token.as_str()));
                found.extend(partly.map(|(_, _, id)| *id));
            }
        }
        if let (Some(niche), true) = (&sequence.niche, steps.first_entry().is_some()) {
            let of_niche = self.leads_by_niche.range((
                Bound::Excluded((user, niche.clone(), after)),
                Bound::Included((user, niche.clone(), LAST_LEAD)),
            ));
            found.extend(of_niche.map(|(_, _, id)| *id).filter(targeted).take(limit));
        }
        found
            .into_iter()
            .take(limit)
            .map(|id| Lead::clone(&self.leads[&id]))
            .collect()
    }

    fn to_advance(&self, limit: usize) -> Vec<ToAdvance> {
        let marked = self.enrolments.marked.iter().take(limit);
        marked
            .filter_map(|(_, id)| {
                let enrolment = self.enrolments.get(*id)?.clone();
                let key = IdempotencyKey::flow(*id, enrolment.step_id, 0);
                let message = self.messages.row(self.messages.by_key(key)?).clone();
                Some(ToAdvance { enrolment, message })
            })
            .collect()
    }

    fn visible_enrolment(&self, scope: &RequestScope, id: EnrolmentId) -> Option<&Enrolment> {
        self.enrolments
            .get(id)
            .filter(|one| one.user_id == scope.user_id || self.flawed(Flaw::ForeignRowsShow))
            .filter(|one| sees(scope, one.device_id) || self.flawed(Flaw::DeviceScopeIsIgnored))
    }

    fn page_of_enrolments(
        &self,
        scope: &RequestScope,
        filter: &EnrolmentFilter,
        page: &PageRequest<EnrolmentId>,
    ) -> Page<Enrolment, EnrolmentId> {
        let after = |id: EnrolmentId| match page.after {
            Some(_) => Bound::Excluded(id),
            None => Bound::Included(id),
        };
        let from = page.after.unwrap_or(EnrolmentId::MIN);
        let ids: Box<dyn Iterator<Item = EnrolmentId>> = match filter.sequence_id {
            Some(sequence) => {
                let all = (
                    after(from).map(|id| (sequence, id)),
                    Bound::Included((sequence, LAST_ENROLMENT)),
                );
                Box::new(self.enrolments.of_sequence.range(all).map(|(_, id)| *id))
            }
            None => {
                let user = scope.user_id;
                let all = (
                    after(from).map(|id| (user, id)),
                    Bound::Included((user, LAST_ENROLMENT)),
                );
                Box::new(self.enrolments.of_user.range(all).map(|(_, id)| *id))
            }
        };
        let limit = page.clamped();
        let rows = ids
            .filter_map(|id| self.visible_enrolment(scope, id))
            .filter(|one| shows_enrolment(filter, one))
            .skip(usize::from(page.after.is_some() && self.flawed(Flaw::PageSkipsARow)))
            .take(limit + 1)
            .cloned()
            .collect();
        Page::cut(rows, limit, |one: &Enrolment| one.id)
    }

    /// A sequence whose numbers a scope may read, a deleted one too: its numbers stay.
    fn counted_sequence(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        operation: &'static str,
    ) -> Result<(), StoreError> {
        let sequence = self
            .sequences
            .get(id)
            .filter(|sequence| sequence.user_id == scope.user_id);
        sequence.map(|_| ()).ok_or(not_found(operation, "sequence"))
    }

    fn sequence_counts(&self, scope: &RequestScope, id: SequenceId) -> SequenceCounts {
        let first_step = (id, StepId::MIN, None);
        let steps = self.messages.step_tallies.range(first_step..);
        let steps = steps
            .take_while(|((of, ..), _)| *of == id)
            .map(|((_, step, device), numbers)| ((*step, *device), *numbers));
        let first = (id, (i32::MIN, StepId::MIN, None, EnrolmentState::Open, None));
        let enrolments = self.enrolments.counts.range(first..);
        let enrolments = enrolments
            .take_while(|((of, ..), _)| *of == id)
            .map(|(key, count)| (*key, *count))
            .filter(|((_, (.., state, _)), _)| {
                *state != EnrolmentState::Ended || !self.flawed(Flaw::CountsForgetEnded)
            });
        counts(scope, steps, enrolments)
    }

    /// Counts the rows of a sequence, those of a span of time.
    fn counted(&self, scope: &RequestScope, id: SequenceId, span: &Span) -> SequenceCounts {
        let mut steps: BTreeMap<(StepId, Option<DeviceId>), Numbers> = BTreeMap::new();
        let key = (scope.user_id, MessageScope::Sequence(id));
        for id in self.messages.of_scope(key, MessageId::MIN) {
            let message = self.messages.row(id);
            let within = message.settled_at.is_none_or(|at| span.contains(at));
            if let Some(flow) = message.flow.filter(|_| within && !message.superseded) {
                let numbers = steps.entry((flow.step_id, message.device_id)).or_default();
                numbers.count(message.state, message.delivery);
            }
        }
        let mut enrolments: BTreeMap<CountKey, u64> = BTreeMap::new();
        let all = (id, EnrolmentId::MIN)..=(id, LAST_ENROLMENT);
        for (_, id) in self.enrolments.of_sequence.range(all) {
            let one = &self.enrolments.row(*id).enrolment;
            if one.ended_at.is_none_or(|at| span.contains(at)) {
                *enrolments.entry(count_key(one)).or_default() += 1;
            }
        }
        counts(scope, steps.into_iter(), enrolments.into_iter())
    }
}

fn counts(
    scope: &RequestScope,
    steps: impl Iterator<Item = ((StepId, Option<DeviceId>), Numbers)>,
    enrolments: impl Iterator<Item = (CountKey, u64)>,
) -> SequenceCounts {
    let steps = steps.filter(|((_, device), _)| sees(scope, *device));
    SequenceCounts {
        steps: steps
            .map(|((step_id, device_id), numbers)| StepNumbers {
                step_id,
                device_id,
                numbers,
            })
            .collect(),
        enrolments: count_rows(enrolments.filter(|((_, (_, _, device, ..)), _)| sees(scope, *device))),
    }
}

fn shows_sequence(filter: &SequenceFilter, sequence: &Sequence) -> bool {
    (filter.statuses.is_empty() || filter.statuses.contains(&sequence.status))
        && filter
            .search
            .as_ref()
            .is_none_or(|text| folded(&sequence.name).contains(&folded(text)))
}

fn shows_enrolment(filter: &EnrolmentFilter, one: &Enrolment) -> bool {
    filter.sequence_id.is_none_or(|sequence| one.sequence_id == sequence)
        && filter.lead_id.is_none_or(|lead| one.lead_id == lead)
        && filter.person.is_none_or(|person| one.person == person)
        && (filter.states.is_empty() || filter.states.contains(&one.state))
}

#[async_trait]
impl SequenceStore for MemoryStore {
    async fn sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<Sequence, StoreError> {
        let state = self.lock();
        let found = state.visible_sequence(scope, id).cloned();
        found.ok_or(not_found("sequence", "sequence"))
    }

    async fn sequences(
        &self,
        scope: &RequestScope,
        filter: &SequenceFilter,
        page: &PageRequest<SequenceId>,
    ) -> Result<Page<Sequence, SequenceId>, StoreError> {
        Ok(self.lock().page_of_sequences(scope, filter, page))
    }

    async fn sequences_by_id(&self, ids: &[SequenceId]) -> Result<Vec<Sequence>, StoreError> {
        let state = self.lock();
        Ok(ids.iter().filter_map(|id| state.sequences.get(*id)).cloned().collect())
    }

    async fn steps(&self, versions: &[(SequenceId, i32)]) -> Result<Vec<SequenceSteps>, StoreError> {
        let state = self.lock();
        let found = versions.iter().filter_map(|key| state.sequences.steps.get(key));
        Ok(found.map(|steps| SequenceSteps::clone(steps)).collect())
    }

    async fn sequences_by_entry(&self, user: UserId, tokens: &[Token]) -> Result<Vec<Sequence>, StoreError> {
        let state = self.lock();
        let ids = state.sequences_by_entry(user, tokens).into_iter();
        Ok(ids.filter_map(|id| state.sequences.get(id)).cloned().collect())
    }

    async fn leads_to_match(&self, limit: u32) -> Result<Vec<Lead>, StoreError> {
        let state = self.lock();
        let ids = state.leads_unmatched.iter().take(limit as usize);
        Ok(ids.map(|id| Lead::clone(&state.leads[id])).collect())
    }

    async fn sequences_matching(&self, limit: u32) -> Result<Vec<Sequence>, StoreError> {
        let state = self.lock();
        let ids = state.sequences.matching.iter().take(limit as usize);
        Ok(ids.filter_map(|id| state.sequences.get(*id)).cloned().collect())
    }

    async fn match_page(&self, sequence: &Sequence, after: LeadId, limit: u32) -> Result<Vec<Lead>, StoreError> {
        Ok(self.lock().match_page(sequence, after, limit as usize))
    }

    async fn to_advance(&self, limit: u32) -> Result<Vec<ToAdvance>, StoreError> {
        Ok(self.lock().to_advance(limit as usize))
    }

    async fn enrolment(&self, scope: &RequestScope, id: EnrolmentId) -> Result<Enrolment, StoreError> {
        let state = self.lock();
        let found = state.visible_enrolment(scope, id).cloned();
        found.ok_or(not_found("enrolment", "enrolment"))
    }

    async fn enrolments(
        &self,
        scope: &RequestScope,
        filter: &EnrolmentFilter,
        page: &PageRequest<EnrolmentId>,
    ) -> Result<Page<Enrolment, EnrolmentId>, StoreError> {
        Ok(self.lock().page_of_enrolments(scope, filter, page))
    }

    async fn enrolments_by_id(&self, ids: &[EnrolmentId]) -> Result<Vec<Enrolment>, StoreError> {
        let state = self.lock();
        Ok(ids.iter().filter_map(|id| state.enrolments.get(*id)).cloned().collect())
    }

    async fn sequence_counts(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        span: &Span,
    ) -> Result<SequenceCounts, StoreError> {
        let counts = {
            let state = self.lock();
            state.counted_sequence(scope, id, "sequence_counts")?;
            if span.is_all() {
                state.sequence_counts(scope, id)
            } else {
                state.counted(scope, id, span)
            }
        };
        if self.lock().flawed(Flaw::CountsAreOfTwoMoments) {
            let mut waits = true;
            std::future::poll_fn(|context| {
                context.waker().wake_by_ref();
                if std::mem::take(&mut waits) {
                    Poll::Pending
                } else {
                    Poll::Ready(())
                }
            })
            .await;
            let enrolments = self.lock().sequence_counts(scope, id).enrolments;
            return Ok(SequenceCounts { enrolments, ..counts });
        }
        Ok(counts)
    }

    async fn recount_sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<SequenceCounts, StoreError> {
        let state = self.lock();
        state.counted_sequence(scope, id, "recount_sequence")?;
        Ok(state.counted(scope, id, &Span::default()))
    }
}
