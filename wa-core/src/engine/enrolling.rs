//! The planner's side of sequences: enrols whom they take, and moves enrolments on.
//!
//! Nothing here reads more than a page of marks: leads that changed, sequences that became active, enrolments whose active
//! step is settled. What is committed takes its mark away, so stopping anywhere loses nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::flow::{ParsedSteps, Sequences};
use super::node::Engine;
use crate::domain::access::RequestScope;
use crate::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState, ToAdvance};
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope};
use crate::domain::phone::PersonKey;
use crate::domain::sequence::{MatchCursor, Sequence, SequenceReason, SequenceStatus, Step};
use crate::domain::token::Token;
use crate::event::{Event, EventKind};
use crate::id::{LeadId, SequenceId, StepId, UserId};
use crate::plan::enrolment::{
    Candidate, Completed, Course, EnrolmentContext, Followed, StepEnd, complete, end, enrol, follow, matches,
};
use crate::store::{
    Change, ChangeSet, Committed, EnrolResult, MessageFilter, NewEnrolment, PageRequest, StoreError, StoreErrorKind,
    WriteClass,
};

/// How many pages of one kind are committed in one round, before lanes and leases get their turn again.
const PAGES_PER_ROUND: u32 = 4;
/// How many sequences are matched against all leads in one round.
const SEQUENCES_PER_ROUND: u32 = 32;
/// How many messages of an enrolment are read at once.
const ROWS_PER_READ: u32 = 500;

/// Sequences of one user, each with its newest steps.
type Takers = Vec<(Arc<Sequence>, Arc<ParsedSteps>)>;

fn candidates(takers: &Takers) -> impl Iterator<Item = Candidate<'_>> {
    takers.iter().map(|(sequence, steps)| (&**sequence, &steps.steps))
}

/// The enrolments that a set asks for, in order.
fn enrolments(set: &ChangeSet) -> impl Iterator<Item = &NewEnrolment> {
    set.changes.iter().flat_map(|change| match change {
        Change::Enrol(new) => new.as_slice(),
        _ => &[],
    })
}

/// Sets as one. Its enrolments come last and together, because a store takes a page of them in few statements.
fn together(sets: &[ChangeSet]) -> ChangeSet {
    let mut all = ChangeSet::default();
    let mut new = Vec::new();
    for set in sets {
        for change in &set.changes {
            match change {
                Change::Enrol(some) => new.extend(some.iter().cloned()),
                other => all.changes.push(other.clone()),
            }
        }
        all.events.extend(set.events.iter().cloned());
    }
    if new.is_empty() {
        all
    } else {
        all.and(Change::Enrol(new))
    }
}

impl Engine {
    fn enrolment_context(&self) -> EnrolmentContext<'_> {
        EnrolmentContext {
            ids: &self.core.ids,
            seed: &self.core.seed,
            now: self.core.now(),
        }
    }

    /// Enrols whom active sequences take and moves on enrolments whose active step is settled; says whether there is more.
    pub(super) async fn plan_sequences(&self) -> Result<bool, StoreError> {
        let mut more = match self.advance_enrolments().await {
            // A store without sequences has none to plan.
            Err(error) if error.kind == StoreErrorKind::Unsupported => return Ok(false),
            other => other?,
        };
        more |= self.match_leads().await?;
        more |= self.match_sequences().await?;
        Ok(more)
    }

    /// Matches leads that changed against all sequences of their users.
    async fn match_leads(&self) -> Result<bool, StoreError> {
        let limit = self.core.config.enrol_page;
        for _ in 0..PAGES_PER_ROUND {
            let leads = self.core.store.leads_to_match(limit).await?;
            if leads.is_empty() {
                return Ok(false);
            }
            let takers = self.takers_of(&leads).await?;
            let set_of = |lead: &Lead| {
                let of_user = takers.get(&lead.user_id);
                let new = matches(lead, of_user.into_iter().flat_map(candidates));
                let new = new
                    .into_iter()
                    .map(|entry| enrol(lead, entry, self.enrolment_context()));
                let new: Vec<_> = new.collect();
                let matched = Change::Matched {
                    user_id: lead.user_id,
                    lead_id: lead.id,
                    version: lead.version,
                };
                let set = if new.is_empty() {
                    ChangeSet::default()
                } else {
                    ChangeSet::one(Change::Enrol(new))
                };
                set.and(matched)
            };
            let done = self.commit_sets(leads.iter().map(set_of).collect()).await?;
            // What was changed by others in the meantime is read again in the next round, not at once.
            if done == 0 || leads.len() < limit as usize {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The sequences that may take some of these leads, by user.
    async fn takers_of(&self, leads: &[Lead]) -> Result<BTreeMap<UserId, Takers>, StoreError> {
        let mut tokens: BTreeMap<UserId, BTreeSet<&Token>> = BTreeMap::new();
        for lead in leads {
            let of_user = tokens.entry(lead.user_id).or_default();
            of_user.extend(lead.triggers.iter().chain(lead.niches.iter()));
        }
        let mut takers = BTreeMap::new();
        for (user, tokens) in tokens.into_iter().filter(|(_, tokens)| !tokens.is_empty()) {
            let tokens: Vec<Token> = tokens.into_iter().cloned().collect();
            takers.insert(user, self.takers(user, &tokens).await?);
        }
        Ok(takers)
    }

    /// The active sequences of a user that some of these tokens enter.
    async fn takers(&self, user: UserId, tokens: &[Token]) -> Result<Takers, StoreError> {
        let mut read = self.core.store.sequences_by_entry(user, tokens).await?;
        read.retain(|sequence| sequence.status.runs());
        let sequences = self.sequences_of(read, []).await?;
        let taker = |sequence: &Arc<Sequence>| {
            let steps = sequences.newest(sequence)?;
            Some((Arc::clone(sequence), Arc::clone(steps)))
        };
        Ok(sequences.by_id.values().filter_map(taker).collect())
    }

    /// Matches sequences that became active, or whose entries changed, against all leads.
    async fn match_sequences(&self) -> Result<bool, StoreError> {
        let read = self.core.store.sequences_matching(SEQUENCES_PER_ROUND).await?;
        let sequences = self.sequences_of(read, []).await?;
        let mut more = false;
        for sequence in sequences.by_id.values() {
            let Some(steps) = sequences.newest(sequence) else {
                continue;
            };
            let taker = vec![(Arc::clone(sequence), Arc::clone(steps))];
            more |= self.match_sequence(sequence, &taker).await?;
        }
        Ok(more)
    }

    async fn match_sequence(&self, sequence: &Sequence, taker: &Takers) -> Result<bool, StoreError> {
        let limit = self.core.config.enrol_page;
        let mut cursor = sequence.cursor;
        for _ in 0..PAGES_PER_ROUND {
            let after = match cursor {
                MatchCursor::Start => LeadId::MIN,
                MatchCursor::Lead(id) => id,
                MatchCursor::Done => return Ok(false),
            };
            let leads = self.core.store.match_page(sequence, after, limit).await?;
            let to = match leads.last() {
                Some(last) if leads.len() >= limit as usize => MatchCursor::Lead(last.id),
                _ => MatchCursor::Done,
            };
            let new = leads.iter().flat_map(|lead| {
                let entries = matches(lead, candidates(taker));
                entries
                    .into_iter()
                    .map(|entry| enrol(lead, entry, self.enrolment_context()))
            });
            let new: Vec<_> = new.collect();
            let set = ChangeSet::one(Change::MoveMatchCursor {
                sequence_id: sequence.id,
                steps_version: sequence.steps_version,
                from: cursor,
                to,
            });
            let set = if new.is_empty() {
                set
            } else {
                set.and(Change::Enrol(new))
            };
            match self.commit_set(set).await {
                Ok(()) => cursor = to,
                // A pause, an edit, another planner's page, a lead that was just deleted: read again in the next round.
                Err(error) if error.is_conflict() || error.is_not_found() => return Ok(false),
                Err(error) => return Err(self.note(error)),
            }
        }
        Ok(cursor != MatchCursor::Done)
    }

    /// Moves on enrolments whose active step is settled.
    async fn advance_enrolments(&self) -> Result<bool, StoreError> {
        let limit = self.core.config.enrol_page;
        for _ in 0..PAGES_PER_ROUND {
            let marked = self.core.store.to_advance(limit).await?;
            if marked.is_empty() {
                return Ok(false);
            }
            let sets = self.followed(&marked).await?;
            let done = self.commit_sets(sets).await?;
            if done == 0 || marked.len() < limit as usize {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What follows for these enrolments, each on its own.
    async fn followed(&self, marked: &[ToAdvance]) -> Result<Vec<ChangeSet>, StoreError> {
        let ids: BTreeSet<SequenceId> = marked.iter().map(|one| one.enrolment.sequence_id).collect();
        let ids: Vec<_> = ids.into_iter().collect();
        let read = self.core.store.sequences_by_id(&ids).await?;
        let versions = marked
            .iter()
            .map(|one| (one.enrolment.sequence_id, one.enrolment.steps_version));
        let sequences = self.sequences_of(read, versions).await?;
        let mut sets = Vec::with_capacity(marked.len());
        for one in marked {
            match self.next_of(one, &sequences).await? {
                Some(set) => sets.push(set),
                None => tracing::warn!(enrolment = %one.enrolment.id, "its sequence or steps are gone: it stands"),
            }
        }
        Ok(sets)
    }

    async fn next_of(&self, one: &ToAdvance, sequences: &Sequences) -> Result<Option<ChangeSet>, StoreError> {
        let ToAdvance { enrolment, message } = one;
        let Some(sequence) = sequences.by_id.get(&enrolment.sequence_id) else {
            return Ok(None);
        };
        if sequence.deleted_at.is_some() {
            let reason = EnrolmentReason::SequenceDeleted;
            let set = end(enrolment, reason);
            return Ok(Some(self.ended(enrolment, EnrolmentState::Ended, Some(reason), set)));
        }
        let from = sequences.steps.get(&(enrolment.sequence_id, enrolment.steps_version));
        let (Some(from), Some(to)) = (from, sequences.newest(sequence)) else {
            return Ok(None);
        };
        let passed = self.passed(enrolment, sequence).await?;
        let step_end = StepEnd::of(message);
        let course = Course {
            sequence,
            from: &from.steps,
            to: &to.steps,
            passed: &passed,
        };
        let set = match follow(enrolment, step_end, course, self.enrolment_context()) {
            Followed::Advance(advance) => ChangeSet::one(Change::AdvanceEnrolment(advance)),
            Followed::End(reason) => self.ended(enrolment, EnrolmentState::Ended, Some(reason), end(enrolment, reason)),
            Followed::Complete { removed } => {
                let Some(sent) = from.steps.step(enrolment.step_id) else {
                    return Ok(None);
                };
                // The wait of the step as it was sent; what comes after the last step is the sequence's as it stands.
                let stands = to.steps.step(sent.id).unwrap_or(sent);
                let last = Step {
                    next_trigger: stands.next_trigger.clone(),
                    ..sent.clone()
                };
                let set = self.completed(enrolment, &last, step_end, removed).await?;
                self.ended(enrolment, EnrolmentState::Completed, None, set)
            }
        };
        Ok(Some(set))
    }

    /// The steps that an enrolment has had. While a sequence has its first steps, they are those before the active one.
    async fn passed(&self, enrolment: &Enrolment, sequence: &Sequence) -> Result<BTreeSet<StepId>, StoreError> {
        let mut passed = BTreeSet::new();
        if sequence.steps_version <= 1 {
            return Ok(passed);
        }
        let scope = RequestScope::user(enrolment.user_id);
        let filter = MessageFilter {
            scope: Some(MessageScope::Sequence(enrolment.sequence_id)),
            enrolment_id: Some(enrolment.id),
            with_superseded: true,
            ..MessageFilter::default()
        };
        let mut page = PageRequest::first(ROWS_PER_READ);
        loop {
            let rows = self.core.store.messages(&scope, &filter, &page).await?;
            passed.extend(rows.rows.iter().filter_map(|row| row.flow).map(|flow| flow.step_id));
            match rows.next {
                Some(next) => page = PageRequest::after(next, ROWS_PER_READ),
                None => return Ok(passed),
            }
        }
    }

    async fn completed(
        &self,
        enrolment: &Enrolment,
        last: &Step,
        end: StepEnd<'_>,
        removed: Vec<Message>,
    ) -> Result<ChangeSet, StoreError> {
        let mut leads = self
            .core
            .store
            .leads_by_id(enrolment.user_id, &[enrolment.lead_id])
            .await?;
        let same = |lead: &Lead| PersonKey::of(&self.core.seed, lead.user_id, &lead.phone) == enrolment.person;
        let lead = leads.pop().filter(same);
        let takers = match &last.next_trigger {
            Some(trigger) => self.takers(enrolment.user_id, std::slice::from_ref(trigger)).await?,
            None => Takers::new(),
        };
        let candidates: Vec<_> = candidates(&takers).collect();
        let completed = Completed {
            enrolment,
            last,
            end,
            removed,
            lead: lead.as_ref(),
        };
        Ok(complete(completed, &candidates, self.enrolment_context()))
    }

    fn ended(
        &self,
        enrolment: &Enrolment,
        state: EnrolmentState,
        reason: Option<EnrolmentReason>,
        set: ChangeSet,
    ) -> ChangeSet {
        let event = self.core.event(
            enrolment.user_id,
            EventKind::EnrolmentEnded {
                enrolment_id: enrolment.id,
                sequence_id: enrolment.sequence_id,
                lead_id: enrolment.lead_id,
                state,
                reason,
            },
        );
        set.tell(event)
    }

    /// Commits sets together, or where that fails each on its own; returns how many were committed. What others changed in the
    /// meantime keeps its mark and is read again.
    async fn commit_sets(&self, mut sets: Vec<ChangeSet>) -> Result<usize, StoreError> {
        let count = sets.len();
        if count > 1 {
            match self.commit_set(together(&sets)).await {
                Ok(()) => return Ok(count),
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(self.note(error)),
            }
        }
        let mut done = 0;
        for set in sets.drain(..) {
            match self.commit_set(set).await {
                Ok(()) => done += 1,
                Err(error) if error.is_conflict() || error.is_not_found() => {
                    tracing::debug!(%error, "others were first; it is read again");
                }
                Err(error) => return Err(self.note(error)),
            }
        }
        Ok(done)
    }

    async fn commit_set(&self, set: ChangeSet) -> Result<(), StoreError> {
        let now = self.core.now();
        let done = self.core.store.commit(set.clone(), WriteClass::Bulk, now).await?;
        let mut events = set.events.clone();
        events.extend(self.started(&set, &done));
        if !events.is_empty() {
            self.core.bus.publish(&events).await;
        }
        self.wake(&done.wake.into_iter().collect());
        Ok(())
    }

    /// Who was really enrolled.
    fn started<'a>(&'a self, set: &'a ChangeSet, done: &'a Committed) -> impl Iterator<Item = Event> + 'a {
        enrolments(set).zip(&done.enrolments).filter_map(|(new, result)| {
            let Enrolment {
                id,
                user_id,
                sequence_id,
                lead_id,
                ..
            } = new.enrolment;
            let kind = EventKind::EnrolmentStarted {
                enrolment_id: id,
                sequence_id,
                lead_id,
            };
            (*result == EnrolResult::Enrolled(id)).then(|| self.core.event(user_id, kind))
        })
    }

    /// Pauses a sequence of whose last messages too many failed or stayed unknown.
    pub(super) async fn pause_for_errors(&self, sequence: &Sequence) -> Result<(), StoreError> {
        let (status, reason) = (SequenceStatus::Paused, Some(SequenceReason::ErrorRate));
        let event = self.core.event(
            sequence.user_id,
            EventKind::SequenceStatus {
                sequence_id: sequence.id,
                status,
                reason,
            },
        );
        let set = ChangeSet::one(Change::SetSequenceStatus {
            user_id: sequence.user_id,
            sequence_id: sequence.id,
            from: &[SequenceStatus::Active],
            to: status,
            reason,
        });
        let set = set.tell(event.clone());
        match self.core.store.commit(set, WriteClass::Api, self.core.now()).await {
            Ok(_) => {
                self.core.bus.publish(&[event]).await;
                Ok(())
            }
            Err(error) if error.is_conflict() || error.is_not_found() => Ok(()),
            Err(error) => Err(self.note(error)),
        }
    }
}
