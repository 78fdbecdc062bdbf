//! Sequences: their rows with indexes, and the changes that people and matching make to them.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::COMMIT;
use super::flaw::Flaw;
use super::state::{Mark, State, conflict, not_found};
use crate::domain::lead::Lead;
use crate::domain::message::MessageScope;
use crate::domain::sequence::{MatchCursor, Sequence, SequenceReason, SequenceStatus, SequenceSteps};
use crate::domain::token::{Token, TokenSet};
use crate::id::{LeadId, SequenceId, UserId};
use crate::plan::ScopeGate;
use crate::store::StoreError;
use crate::time::Timestamp;

/// All sequences and the versions of their steps. Only [`replace`](Self::replace) changes a row, so that no index can miss it.
#[derive(Default)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct Sequences {
    rows: BTreeMap<SequenceId, Box<Sequence>>,
    pub(super) steps: BTreeMap<(SequenceId, i32), Box<SequenceSteps>>,
    /// Not deleted.
    pub(super) of_user: BTreeSet<(UserId, SequenceId)>,
    /// Not deleted, by the triggers of the entry points of their newest steps and by their niche.
    pub(super) by_entry: BTreeSet<(UserId, Token, SequenceId)>,
    pub(super) running: BTreeSet<SequenceId>,
    pub(super) matching: BTreeSet<SequenceId>,
}

impl Sequences {
    pub(super) fn get(&self, id: SequenceId) -> Option<&Sequence> {
        self.rows.get(&id).map(Box::as_ref)
    }

    pub(super) fn newest_steps(&self, sequence: &Sequence) -> Option<&SequenceSteps> {
        let key = (sequence.id, sequence.steps_version);
        self.steps.get(&key).map(Box::as_ref)
    }

    /// The tokens by which leads enter.
    pub(super) fn entries(&self, sequence: &Sequence) -> BTreeSet<Token> {
        let steps = self.newest_steps(sequence).into_iter();
        let triggers = steps.flat_map(|steps| steps.entry_points().map(|(token, _)| token.clone()));
        triggers.chain(sequence.niche.clone()).collect()
    }

    /// Puts a row in the place of another, of none, or nothing in its place; gives the row that was there.
    pub(super) fn replace(&mut self, id: SequenceId, new: Option<Box<Sequence>>) -> Option<Box<Sequence>> {
        let old = self.rows.remove(&id);
        if let Some(old) = old.as_deref().filter(|old| old.deleted_at.is_none()) {
            self.of_user.remove(&(old.user_id, id));
            for token in self.entries(old) {
                self.by_entry.remove(&(old.user_id, token, id));
            }
        }
        self.running.remove(&id);
        self.matching.remove(&id);
        if let Some(new) = new {
            if new.deleted_at.is_none() {
                self.of_user.insert((new.user_id, id));
                for token in self.entries(&new) {
                    self.by_entry.insert((new.user_id, token, id));
                }
                if new.status.runs() {
                    self.running.insert(id);
                }
                if new.status.runs() && new.cursor != MatchCursor::Done {
                    self.matching.insert(id);
                }
            }
            self.rows.insert(id, new);
        }
        old
    }

    /// The same rows with indexes made anew.
    #[cfg(test)]
    pub(super) fn rebuilt(&self) -> Self {
        let mut fresh = Self {
            steps: self.steps.clone(),
            ..Self::default()
        };
        for (id, row) in &self.rows {
            fresh.replace(*id, Some(row.clone()));
        }
        fresh
    }
}

/// Whether a lead got a token or another target status, so that it may match where it did not before.
pub(super) fn may_match_anew(before: Option<&Lead>, lead: &Lead) -> bool {
    let Some(before) = before else {
        return !(lead.triggers.is_empty() && lead.niches.is_empty());
    };
    let gained = |had: &TokenSet, has: &TokenSet| has.iter().any(|token| !had.contains(token));
    gained(&before.triggers, &lead.triggers)
        || gained(&before.niches, &lead.niches)
        || before.target_status != lead.target_status
}

impl State {
    /// A sequence of a user that is not deleted.
    pub(super) fn sequence_of(&self, user: UserId, id: SequenceId) -> Result<&Sequence, StoreError> {
        self.sequences
            .get(id)
            .filter(|sequence| sequence.user_id == user && sequence.deleted_at.is_none())
            .ok_or(not_found(COMMIT, "sequence"))
    }

    /// Whether a sequence lets its messages be sent, their enrolments aside.
    pub(super) fn sequence_gate(&self, id: SequenceId) -> ScopeGate {
        match self.sequences.get(id) {
            Some(sequence) if sequence.deleted_at.is_none() => {
                if sequence.status.runs() {
                    ScopeGate::Open
                } else {
                    ScopeGate::Paused
                }
            }
            _ => ScopeGate::Ended,
        }
    }

    /// The device that a sequence names belongs to its user; one that it named before may be deleted.
    fn check_sequence_device(&self, sequence: &Sequence) -> Result<(), StoreError> {
        if let Some(device) = sequence.device_id {
            let row = self.device_of(sequence.user_id, device);
            row.ok_or(not_found(COMMIT, "device"))?;
        }
        Ok(())
    }

    pub(super) fn insert_sequence(
        &mut self,
        sequence: Sequence,
        steps: Option<SequenceSteps>,
    ) -> Result<(), StoreError> {
        let version = steps.as_ref().map_or(0, |steps| steps.version);
        let first = steps.as_ref().is_none_or(|steps| steps.version == 1);
        if self.sequences.get(sequence.id).is_some() || !first || sequence.steps_version != version {
            return Err(conflict(COMMIT, "sequence"));
        }
        self.check_sequence_device(&sequence)?;
        self.add_steps_of(sequence.id, steps)?;
        self.put_sequence(sequence);
        Ok(())
    }

    fn add_steps_of(&mut self, id: SequenceId, steps: Option<SequenceSteps>) -> Result<(), StoreError> {
        let Some(steps) = steps else { return Ok(()) };
        if steps.sequence_id != id {
            return Err(conflict(COMMIT, "sequence"));
        }
        self.add_steps(steps);
        Ok(())
    }

    pub(super) fn update_sequence(
        &mut self,
        sequence: Sequence,
        steps: Option<SequenceSteps>,
    ) -> Result<(), StoreError> {
        let old = self.sequence_of(sequence.user_id, sequence.id)?.clone();
        let stale = old.version != sequence.version && !self.flawed(Flaw::VersionIsIgnored);
        let steps_version = steps.as_ref().map_or(old.steps_version, |steps| steps.version);
        if stale || (steps.is_some() && steps_version != old.steps_version + 1) {
            return Err(conflict(COMMIT, "sequence"));
        }
        self.check_sequence_device(&sequence)?;
        self.add_steps_of(sequence.id, steps)?;
        let mut new = Sequence {
            status: old.status,
            reason: old.reason,
            status_at: old.status_at,
            steps_version,
            cursor: old.cursor,
            started_at: old.started_at,
            resumed_at: old.resumed_at,
            paused_at: old.paused_at,
            created_at: old.created_at,
            deleted_at: None,
            version: old.version + 1,
            ..sequence
        };
        let matches_anew =
            new.target != old.target || new.niche != old.niche || self.entry_points(&new) != self.entry_points(&old);
        if new.status.runs() && matches_anew && !self.flawed(Flaw::EditKeepsTheCursor) {
            new.cursor = MatchCursor::Start;
        }
        self.put_sequence(new);
        Ok(())
    }

    fn entry_points(&self, sequence: &Sequence) -> Vec<(Token, crate::id::StepId)> {
        let steps = self.sequences.newest_steps(sequence).into_iter();
        let entries = steps.flat_map(SequenceSteps::entry_points);
        entries.map(|(token, step)| (token.clone(), step)).collect()
    }

    pub(super) fn delete_sequence(&mut self, user: UserId, id: SequenceId, now: Timestamp) -> Result<(), StoreError> {
        let mut sequence = self.sequence_of(user, id)?.clone();
        sequence.deleted_at = Some(now);
        sequence.cursor = MatchCursor::Done;
        sequence.version += 1;
        self.put_sequence(sequence);
        self.mark(Mark::Sequence(id));
        Ok(())
    }

    pub(super) fn set_sequence_status(
        &mut self,
        user: UserId,
        id: SequenceId,
        from: &[SequenceStatus],
        (to, reason): (SequenceStatus, Option<SequenceReason>),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut sequence = self.sequence_of(user, id)?.clone();
        let before = sequence.status;
        let expected = from.contains(&before) || self.flawed(Flaw::StatusIsForced);
        let has_steps = self
            .sequences
            .newest_steps(&sequence)
            .is_some_and(|of| !of.steps.is_empty());
        if !expected || (before != to && !before.can_become(to)) || (to.runs() && !has_steps) {
            return Err(conflict(COMMIT, "sequence"));
        }
        sequence.status = to;
        sequence.reason = reason;
        sequence.status_at = now;
        sequence.version += 1;
        if before != to {
            sequence.cursor = MatchCursor::Done;
            match to {
                SequenceStatus::Active => {
                    sequence.started_at.get_or_insert(now);
                    sequence.resumed_at = Some(now);
                    sequence.cursor = MatchCursor::Start;
                }
                SequenceStatus::Paused => sequence.paused_at = Some(now),
                SequenceStatus::Draft | SequenceStatus::Inactive => {}
            }
        }
        self.put_sequence(sequence);
        if before != to && self.messages.has_open((user, MessageScope::Sequence(id))) {
            self.mark(Mark::Sequence(id));
        }
        Ok(())
    }

    pub(super) fn move_match_cursor(
        &mut self,
        id: SequenceId,
        steps_version: i32,
        from: MatchCursor,
        to: MatchCursor,
    ) -> Result<(), StoreError> {
        let sequence = self.sequences.get(id).ok_or(not_found(COMMIT, "sequence"))?;
        let runs = sequence.status.runs() && sequence.deleted_at.is_none();
        let stands = sequence.cursor == from || self.flawed(Flaw::CursorIsIgnored);
        if !runs || !stands || sequence.steps_version != steps_version {
            return Err(conflict(COMMIT, "sequence"));
        }
        let mut sequence = sequence.clone();
        sequence.cursor = to;
        self.put_sequence(sequence);
        Ok(())
    }

    pub(super) fn matched(&mut self, user: UserId, id: LeadId, version: i64) {
        let lead = self.leads.get(&id).filter(|lead| lead.user_id == user);
        if lead.is_some_and(|lead| lead.version == version || self.flawed(Flaw::MatchedIgnoresVersions)) {
            self.set_unmatched(id, false);
        }
    }

    pub(super) fn replace_trigger(
        &mut self,
        user: UserId,
        id: LeadId,
        (remove, add): (Option<Token>, Option<Token>),
        now: Timestamp,
    ) {
        let Some(lead) = self.leads.get(&id).filter(|lead| lead.user_id == user) else {
            return;
        };
        let mut lead = Lead::clone(lead);
        let before = lead.triggers.clone();
        if let Some(token) = remove {
            lead.triggers.remove(&token);
            if self.flawed(Flaw::TriggerRemovalRemovesAll) {
                lead.triggers = TokenSet::new();
            }
        }
        if let Some(token) = add {
            // A full set takes no more: what a lead may carry is limited.
            lead.triggers.insert(token).ok();
        }
        if lead.triggers != before {
            lead.version += 1;
            lead.updated_at = now;
            self.put_lead(lead);
        }
    }
}
