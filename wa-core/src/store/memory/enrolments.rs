//! Enrolments: their rows with indexes and counts, the changes that move them, and what messages of flows do to them.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::COMMIT;
use super::flaw::Flaw;
use super::messages::lower;
use super::state::{State, conflict, not_found, place};
use crate::domain::campaign::Routing;
use crate::domain::enrolment::{Enrolment, EnrolmentCount, EnrolmentReason, EnrolmentState, FlowRef};
use crate::domain::lead::Lead;
use crate::domain::message::{IdempotencyKey, Message, MessageState, Reason};
use crate::domain::phone::PersonKey;
use crate::domain::sequence::ReEntry;
use crate::id::{DeviceId, EnrolmentId, LeadId, MessageId, SequenceId, StepId, UserId};
use crate::plan::ScopeGate;
use crate::store::{Advance, Assignment, Committed, EnrolResult, NewEnrolment, StoreError};
use crate::time::Timestamp;

/// After every id that is given out: where a range of enrolments ends.
pub(super) const LAST_ENROLMENT: EnrolmentId = EnrolmentId::from_uuid(uuid::Uuid::max());

/// An enrolment with its mark.
#[derive(Clone, PartialEq)]
pub(super) struct EnrolmentRow {
    pub(super) enrolment: Enrolment,
    /// When its active step was settled, until it is moved on.
    pub(super) marked_at: Option<Timestamp>,
}

/// How an enrolment stands, by which it is counted: version, step, device, state, reason.
pub(super) type Standing = (i32, StepId, Option<DeviceId>, EnrolmentState, Option<EnrolmentReason>);

/// What enrolments are counted by.
pub(super) type CountKey = (SequenceId, Standing);

pub(super) fn count_key(one: &Enrolment) -> CountKey {
    let standing = (one.steps_version, one.step_id, one.device_id, one.state, one.reason);
    (one.sequence_id, standing)
}

/// The rows of counts, in their order.
pub(super) fn count_rows(counts: impl Iterator<Item = (CountKey, u64)>) -> Vec<EnrolmentCount> {
    counts
        .map(
            |((_, (steps_version, step_id, device_id, state, reason)), count)| EnrolmentCount {
                steps_version,
                step_id,
                device_id,
                state,
                reason,
                count,
            },
        )
        .collect()
}

/// All enrolments. Only [`replace`](Self::replace) changes a row, so that no index or count can miss it.
#[derive(Default)]
#[cfg_attr(test, derive(PartialEq))]
pub(super) struct Enrolments {
    rows: BTreeMap<EnrolmentId, Box<EnrolmentRow>>,
    pub(super) of_user: BTreeSet<(UserId, EnrolmentId)>,
    pub(super) of_sequence: BTreeSet<(SequenceId, EnrolmentId)>,
    of_lead: BTreeSet<(LeadId, EnrolmentId)>,
    of_person: BTreeSet<(UserId, PersonKey, EnrolmentId)>,
    /// Who ever entered a sequence.
    entered: BTreeSet<(SequenceId, PersonKey, EnrolmentId)>,
    open: BTreeSet<(SequenceId, EnrolmentId)>,
    pub(super) marked: BTreeSet<(Timestamp, EnrolmentId)>,
    /// Completed ones, by the one that followed.
    followed_by: BTreeSet<(EnrolmentId, EnrolmentId)>,
    pub(super) counts: BTreeMap<CountKey, u64>,
}

impl Enrolments {
    pub(super) fn get(&self, id: EnrolmentId) -> Option<&Enrolment> {
        self.rows.get(&id).map(|row| &row.enrolment)
    }

    /// A row that an index names.
    pub(super) fn row(&self, id: EnrolmentId) -> &EnrolmentRow {
        self.rows.get(&id).expect("an index names only rows that exist")
    }

    pub(super) fn first_open_in(&self, sequence: SequenceId) -> Option<EnrolmentId> {
        let all = (sequence, EnrolmentId::MIN)..=(sequence, LAST_ENROLMENT);
        self.open.range(all).next().map(|(_, id)| *id)
    }

    /// Those of a person in a sequence, oldest first.
    fn entered(&self, sequence: SequenceId, person: PersonKey) -> impl Iterator<Item = &Enrolment> {
        self.entered
            .range((sequence, person, EnrolmentId::MIN)..=(sequence, person, LAST_ENROLMENT))
            .map(|(_, _, id)| &self.row(*id).enrolment)
    }

    fn of_person(&self, user: UserId, person: PersonKey) -> Vec<EnrolmentId> {
        self.of_person
            .range((user, person, EnrolmentId::MIN)..=(user, person, LAST_ENROLMENT))
            .map(|(_, _, id)| *id)
            .collect()
    }

    fn of_lead(&self, lead: LeadId) -> Vec<EnrolmentId> {
        self.of_lead
            .range((lead, EnrolmentId::MIN)..=(lead, LAST_ENROLMENT))
            .map(|(_, id)| *id)
            .collect()
    }

    /// Puts a row in the place of another, of none, or nothing in its place; gives the row that was there.
    pub(super) fn replace(&mut self, id: EnrolmentId, new: Option<Box<EnrolmentRow>>) -> Option<Box<EnrolmentRow>> {
        let old = self.rows.remove(&id);
        macro_rules! keep {
            ($($index:ident: $key:expr;)+) => {$(
                let key: fn(&EnrolmentRow) -> Option<_> = $key;
                let (from, to) = (old.as_deref().and_then(key), new.as_deref().and_then(key));
                if from != to {
                    if let Some(from) = from {
                        self.$index.remove(&from);
                    }
                    if let Some(to) = to {
                        self.$index.insert(to);
                    }
                }
            )+};
        }
        keep! {
            of_user: |row| Some((row.enrolment.user_id, row.enrolment.id));
            of_sequence: |row| Some((row.enrolment.sequence_id, row.enrolment.id));
            of_lead: |row| Some((row.enrolment.lead_id, row.enrolment.id));
            of_person: |row| Some((row.enrolment.user_id, row.enrolment.person, row.enrolment.id));
            entered: |row| Some((row.enrolment.sequence_id, row.enrolment.person, row.enrolment.id));
            open: |row| is_open(&row.enrolment).then_some((row.enrolment.sequence_id, row.enrolment.id));
            marked: |row| row.marked_at.map(|at| (at, row.enrolment.id));
            followed_by: |row| row.enrolment.next_id.map(|next| (next, row.enrolment.id));
        }
        let (from, to) = (old.as_deref(), new.as_deref());
        let (from, to) = (
            from.map(|row| count_key(&row.enrolment)),
            to.map(|row| count_key(&row.enrolment)),
        );
        if from != to {
            if let Some(key) = from {
                lower(&mut self.counts, key);
            }
            if let Some(key) = to {
                *self.counts.entry(key).or_default() += 1;
            }
        }
        if let Some(new) = new {
            self.rows.insert(id, new);
        }
        old
    }

    /// The same rows with indexes and counts made anew.
    #[cfg(test)]
    pub(super) fn rebuilt(&self) -> Self {
        let mut fresh = Self::default();
        for (id, row) in &self.rows {
            fresh.replace(*id, Some(row.clone()));
        }
        fresh
    }
}

fn is_open(enrolment: &Enrolment) -> bool {
    enrolment.state == EnrolmentState::Open
}

/// How an enrolment ends.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    pub(super) state: EnrolmentState,
    pub(super) reason: Option<EnrolmentReason>,
    pub(super) next_id: Option<EnrolmentId>,
}

impl Ending {
    pub(super) const fn by(reason: EnrolmentReason) -> Self {
        Self {
            state: EnrolmentState::Ended,
            reason: Some(reason),
            next_id: None,
        }
    }
}

impl State {
    pub(super) fn enrol(
        &mut self,
        all: Vec<NewEnrolment>,
        now: Timestamp,
        done: &mut Committed,
    ) -> Result<(), StoreError> {
        for one in &all {
            self.check_enrolment(one)?;
        }
        for one in all {
            let (id, answer) = (one.enrolment.id, self.enrol_one(one, now, done)?);
            if !matches!(answer, EnrolResult::Enrolled(new) | EnrolResult::AlreadyIn(new) if new == id) {
                self.unchain(id);
            }
            done.enrolments.push(answer);
        }
        Ok(())
    }

    /// What is looked at of all enrolments of a change before anything else of any.
    fn check_enrolment(&self, new: &NewEnrolment) -> Result<(), StoreError> {
        let NewEnrolment { enrolment, first } = new;
        let user = enrolment.user_id;
        if let Some(known) = self.enrolments.get(enrolment.id) {
            // As with keys of messages: another user's is a mistake, and must tell nothing of theirs.
            return if known.user_id == user {
                Ok(())
            } else {
                Err(conflict(COMMIT, "enrolment"))
            };
        }
        let newest = self.sequence_of(user, enrolment.sequence_id)?.steps_version;
        if enrolment.steps_version != newest || flow_of(enrolment) != first.flow {
            return Err(conflict(COMMIT, "enrolment"));
        }
        Ok(())
    }

    fn enrol_one(
        &mut self,
        one: NewEnrolment,
        now: Timestamp,
        done: &mut Committed,
    ) -> Result<EnrolResult, StoreError> {
        let NewEnrolment { enrolment, first } = one;
        let (id, user) = (enrolment.id, enrolment.user_id);
        if self.enrolments.get(id).is_some() {
            return Ok(EnrolResult::AlreadyIn(id));
        }
        let re_entry = self.sequence_of(user, enrolment.sequence_id)?.re_entry;
        let lead = self.leads.get(&enrolment.lead_id).filter(|lead| lead.user_id == user);
        lead.ok_or(not_found(COMMIT, "lead"))?;
        if let Some(device) = enrolment.device_id {
            self.device_of(user, device).ok_or(not_found(COMMIT, "device"))?;
        }
        if self.suppressions.contains_key(&(user, enrolment.person)) {
            return Ok(EnrolResult::Suppressed);
        }
        if let Some(refused) = self.refusal(&enrolment, re_entry) {
            return Ok(refused);
        }
        self.put_enrolment(EnrolmentRow {
            enrolment,
            marked_at: None,
        });
        self.insert_message(first, now, done)?;
        Ok(EnrolResult::Enrolled(id))
    }

    /// Why a sequence does not take a person now.
    fn refusal(&self, new: &Enrolment, re_entry: ReEntry) -> Option<EnrolResult> {
        let earlier: Vec<&Enrolment> = self.enrolments.entered(new.sequence_id, new.person).collect();
        let open = earlier.iter().find(|one| is_open(one));
        if let Some(open) = open.filter(|_| !self.flawed(Flaw::EnrolsTwice)) {
            return Some(EnrolResult::AlreadyIn(open.id));
        }
        let refused = match re_entry {
            ReEntry::Never => !earlier.is_empty(),
            ReEntry::AfterCompletion => {
                let circles = !self.flawed(Flaw::ChainsRunInCircles);
                earlier.last().is_some_and(|one| one.state == EnrolmentState::Ended)
                    || circles && earlier.iter().any(|one| one.root_id == new.root_id)
            }
            ReEntry::Always => false,
        };
        (refused && !self.flawed(Flaw::ReEntryIsIgnored)).then_some(EnrolResult::ReEntryRefused)
    }

    /// A completed enrolment is not followed by one that was refused.
    fn unchain(&mut self, refused: EnrolmentId) {
        let all = (refused, EnrolmentId::MIN)..=(refused, LAST_ENROLMENT);
        let before: Vec<EnrolmentId> = self.enrolments.followed_by.range(all).map(|(_, id)| *id).collect();
        if self.flawed(Flaw::RefusedChainIsNotTold) {
            return;
        }
        for id in before {
            self.change_enrolment(id, |row| {
                row.enrolment.next_id = None;
                row.enrolment.reason = Some(EnrolmentReason::ReEntryRefused);
            });
        }
    }

    fn change_enrolment(&mut self, id: EnrolmentId, change: impl FnOnce(&mut EnrolmentRow)) {
        let mut row = self.enrolments.row(id).clone();
        change(&mut row);
        self.put_enrolment(row);
    }

    /// Notes on the enrolment of a pool message which device writes to it from now on.
    pub(super) fn stick(&mut self, item: &Assignment) {
        let flow = self.messages.row(item.message_id).flow;
        if let Some(flow) = flow {
            self.change_enrolment(flow.enrolment_id, |row| row.enrolment.device_id = Some(item.device_id));
        }
    }

    fn enrolment_of(&self, user: UserId, id: EnrolmentId) -> Result<&Enrolment, StoreError> {
        self.enrolments
            .get(id)
            .filter(|enrolment| enrolment.user_id == user)
            .ok_or(not_found(COMMIT, "enrolment"))
    }

    pub(super) fn advance_enrolment(
        &mut self,
        advance: Advance,
        now: Timestamp,
        done: &mut Committed,
    ) -> Result<(), StoreError> {
        self.enrolment_of(advance.user_id, advance.enrolment_id)?;
        if !self.fits(&advance) {
            return Err(conflict(COMMIT, "enrolment"));
        }
        self.move_on(advance, now, done)
    }

    /// Whether a move is of an enrolment as it stands.
    fn fits(&self, advance: &Advance) -> bool {
        let key = IdempotencyKey::flow(advance.enrolment_id, advance.from, 0);
        let settled = self.messages.by_key(key).map(|id| self.messages.row(id).state);
        let after = settled == Some(advance.after)
            || settled.is_some_and(|state| !state.is_open()) && self.flawed(Flaw::AdvanceIgnoresAfter);
        let newest = self
            .sequence_of(advance.user_id, advance.sequence_id)
            .is_ok_and(|sequence| sequence.steps_version == advance.to_version);
        let stands = self.enrolments.get(advance.enrolment_id).is_some_and(|one| {
            let own_device = |message: &Message| message.from_pool || message.device_id == one.device_id;
            is_open(one)
                && (one.user_id, one.sequence_id) == (advance.user_id, advance.sequence_id)
                && (one.step_id, one.steps_version) == (advance.from, advance.from_version)
                && advance.messages.iter().all(own_device)
        });
        let known = |message: &Message| self.messages.by_key(message.key).is_some();
        let stands = stands && !advance.messages.iter().any(known);
        stands && after && !advance.after.is_open() && (newest || self.flawed(Flaw::AdvanceIgnoresEdits))
    }

    fn move_on(&mut self, advance: Advance, now: Timestamp, done: &mut Committed) -> Result<(), StoreError> {
        self.change_enrolment(advance.enrolment_id, |row| {
            row.enrolment.step_id = advance.to;
            row.enrolment.steps_version = advance.to_version;
            row.enrolment.due_at = advance.due_at;
            row.marked_at = None;
        });
        let mut messages = advance.messages.into_iter();
        messages.try_for_each(|message| self.insert_message(message, now, done))
    }

    /// Moves the enrolment of a message that was just settled to its next step, where that fits. Whatever cannot be made leaves
    /// nothing behind but the mark, from which it is planned again: the outcome is a fact and stays.
    pub(super) fn follow(&mut self, id: MessageId, advance: &Advance, now: Timestamp) {
        let message = self.messages.row(id);
        let its_own = message.round == 0
            && message
                .flow
                .is_some_and(|flow| (flow.enrolment_id, flow.step_id) == (advance.enrolment_id, advance.from));
        if its_own && self.fits(advance) {
            let advance = advance.clone();
            self.attempt(|state| state.move_on(advance, now, &mut Committed::default()))
                .ok();
        }
    }

    pub(super) fn end_one_enrolment(
        &mut self,
        user: UserId,
        id: EnrolmentId,
        step: Option<StepId>,
        ending: Ending,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let enrolment = self.enrolment_of(user, id)?;
        let stands = is_open(enrolment) && step.is_none_or(|step| step == enrolment.step_id);
        if !stands || !enrolment.state.can_become(ending.state) {
            return Err(conflict(COMMIT, "enrolment"));
        }
        self.end_enrolment(COMMIT, id, ending, now)
    }

    /// Ends an open enrolment with its open messages.
    pub(super) fn end_enrolment(
        &mut self,
        operation: &'static str,
        id: EnrolmentId,
        ending: Ending,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.change_enrolment(id, |row| {
            row.enrolment.state = ending.state;
            row.enrolment.reason = ending.reason;
            row.enrolment.next_id = ending.next_id;
            row.enrolment.ended_at = Some(now);
            row.marked_at = None;
        });
        for id in self.messages.open_of(id) {
            let (state, reason) = match self.messages.row(id).state {
                MessageState::InDoubt => (MessageState::Unknown, Reason::EndedInDoubt),
                MessageState::Queued | MessageState::Held => (MessageState::Cancelled, Reason::ScopeEnded),
                _ => continue,
            };
            self.change_message(operation, id, |message| place(message, state, Some(reason), now))?;
        }
        Ok(())
    }

    /// Ends the open enrolments of a person.
    pub(super) fn end_enrolments_of(
        &mut self,
        (user, person): (UserId, PersonKey),
        reason: EnrolmentReason,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for id in self.enrolments.of_person(user, person) {
            if is_open(&self.enrolments.row(id).enrolment) {
                self.end_enrolment(COMMIT, id, Ending::by(reason), now)?;
            }
        }
        Ok(())
    }

    /// Ends the open enrolments of a person in sequences that a reply ends.
    pub(super) fn end_by_reply(
        &mut self,
        user: UserId,
        person: PersonKey,
        reason: EnrolmentReason,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        for id in self.enrolments.of_person(user, person) {
            let one = &self.enrolments.row(id).enrolment;
            let exits = self
                .sequences
                .get(one.sequence_id)
                .is_some_and(|sequence| sequence.exit_on_reply);
            if is_open(one) && exits && !self.flawed(Flaw::ReplyEndsNothing) {
                self.end_enrolment(COMMIT, id, Ending::by(reason), now)?;
            }
        }
        Ok(())
    }

    /// Takes the number out of the enrolments of a person and ends the open ones.
    pub(super) fn erase_enrolments(
        &mut self,
        user: UserId,
        person: PersonKey,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        self.end_enrolments_of((user, person), EnrolmentReason::Erased, now)?;
        for id in self.enrolments.of_person(user, person) {
            self.change_enrolment(id, |row| row.enrolment.phone = None);
        }
        Ok(())
    }

    /// Ends the open enrolments of a lead that is deleted.
    pub(super) fn end_with_lead(&mut self, lead: LeadId, now: Timestamp) -> Result<(), StoreError> {
        for id in self.enrolments.of_lead(lead) {
            if is_open(&self.enrolments.row(id).enrolment) {
                self.end_enrolment(COMMIT, id, Ending::by(EnrolmentReason::LeadGone), now)?;
            }
        }
        Ok(())
    }

    /// Gives the open enrolments of a lead its new device, where their sequence sends by the lead's own.
    pub(super) fn follow_lead(&mut self, lead: &Lead) {
        for id in self.enrolments.of_lead(lead.id) {
            let one = &self.enrolments.row(id).enrolment;
            let by_own = self
                .sequences
                .get(one.sequence_id)
                .is_some_and(|of| of.device_id.is_none() && of.routing == Routing::OwnDevice);
            if is_open(one) && by_own {
                self.change_enrolment(id, |row| row.enrolment.device_id = lead.device_id);
            }
        }
    }

    /// Marks the enrolment of a message that is settled now, if it stands at that step.
    pub(super) fn mark_enrolment(&mut self, operation: &'static str, id: MessageId) {
        let message = self.messages.row(id);
        let Some(flow) = message.flow.filter(|_| message.round == 0) else {
            return;
        };
        let stands = self
            .enrolments
            .get(flow.enrolment_id)
            .is_some_and(|one| is_open(one) && one.step_id == flow.step_id);
        let forgets = (operation == "decline" && self.flawed(Flaw::DeclineForgetsTheMark))
            || (operation == "sweep" && self.flawed(Flaw::SweepForgetsTheMark));
        if stands && !forgets {
            let marked_at = message.settled_at;
            self.change_enrolment(flow.enrolment_id, |row| row.marked_at = marked_at);
        }
    }

    /// Queues the messages that waited for one of an earlier step to be settled, which it is now.
    pub(super) fn release_later_steps(&mut self, operation: &'static str, id: MessageId) -> Result<(), StoreError> {
        let message = self.messages.row(id);
        let (Some(flow), Some(now)) = (message.flow, message.settled_at) else {
            return Ok(());
        };
        for id in self.messages.open_of(flow.enrolment_id) {
            let waiting = self.messages.row(id);
            let requeued = self.requeued(waiting);
            let reason = waiting.reason;
            if waiting.state == MessageState::Held && requeued.state == MessageState::Queued {
                self.change_message(operation, id, |message| {
                    requeued.apply(message, now);
                    message.reason = reason;
                })?;
            }
        }
        Ok(())
    }

    /// Whether the enrolment and the sequence of a message let it be sent.
    pub(super) fn flow_gate(&self, sequence: SequenceId, message: &Message) -> ScopeGate {
        let Some(flow) = message.flow else {
            return ScopeGate::Ended;
        };
        let open = self.enrolments.get(flow.enrolment_id).is_some_and(is_open);
        if !open && !self.flawed(Flaw::GateIgnoresEnrolment) {
            return ScopeGate::Ended;
        }
        match self.sequence_gate(sequence) {
            ScopeGate::Open if self.waits_for_earlier(message, flow) => ScopeGate::Paused,
            gate => gate,
        }
    }

    fn waits_for_earlier(&self, message: &Message, flow: FlowRef) -> bool {
        let mut open = self.messages.open_of(flow.enrolment_id).into_iter();
        open.any(|id| {
            let other = self.messages.row(id).flow;
            id != message.id && other.is_some_and(|other| self.reached(other) < self.reached(flow))
        }) && !self.flawed(Flaw::GateIgnoresEarlierSteps)
    }

    /// The place of a step among those that its enrolment has reached: by their first messages, the present one last.
    fn reached(&self, flow: FlowRef) -> (bool, Option<MessageId>) {
        let present = self
            .enrolments
            .get(flow.enrolment_id)
            .is_some_and(|one| one.step_id == flow.step_id);
        let first = IdempotencyKey::flow(flow.enrolment_id, flow.step_id, 0);
        (present, self.messages.by_key(first))
    }

    /// Whether a later step of the same enrolment has begun an attempt.
    pub(super) fn later_has_begun(&self, flow: FlowRef) -> bool {
        let mut theirs = self.messages.of_enrolment(flow.enrolment_id);
        theirs.any(|id| {
            let other = self.messages.row(id);
            let later = other.flow.is_some_and(|other| self.reached(other) > self.reached(flow));
            later && other.attempt.is_some()
        })
    }
}

/// The flow in which an enrolment stands.
fn flow_of(enrolment: &Enrolment) -> Option<FlowRef> {
    Some(FlowRef {
        enrolment_id: enrolment.id,
        step_id: enrolment.step_id,
        steps_version: enrolment.steps_version,
    })
}
