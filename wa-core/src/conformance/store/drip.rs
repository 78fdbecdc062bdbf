//! The place where most cases of sequences play: a stage with an active sequence of three steps.

use std::collections::BTreeSet;

use super::stage::Stage;
use super::world::World;
use crate::domain::access::RequestScope;
use crate::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState, ToAdvance};
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState};
use crate::domain::sequence::{Sequence, SequenceStatus, SequenceSteps};
use crate::domain::token::{Token, TokenSet};
use crate::id::{EnrolmentId, MessageId, SequenceId, StepId, UserId};
use crate::plan::enrolment::{Course, Followed, StepEnd, follow};
use crate::store::{
    Advance, Change, ChangeSet, Committed, EnrolResult, MessageFilter, NewEnrolment, PageRequest, SequenceCounts,
    Settled, Span, StoreErrorKind, Verdict,
};

/// A stage with an active sequence of three steps, COLD being its entry point.
pub(super) struct Drip {
    pub stage: Stage,
    pub id: SequenceId,
}

pub(super) fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

pub(super) fn tokens(text: &str) -> TokenSet {
    TokenSet::parse(text).unwrap()
}

impl World {
    pub async fn insert_sequence(&self, sequence: &Sequence, steps: Option<&SequenceSteps>) {
        self.commit(insert_sequence(sequence, steps)).await;
    }

    /// An active sequence with a step per trigger.
    pub async fn sequence(&self, user: UserId, triggers: &[&str]) -> SequenceId {
        let (sequence, steps) = self.rows.sequence(user, triggers);
        self.insert_sequence(&sequence, Some(&steps)).await;
        self.activate(user, sequence.id).await;
        sequence.id
    }

    pub async fn activate(&self, user: UserId, id: SequenceId) {
        self.commit(set_sequence_status(user, id, SequenceStatus::Active)).await;
    }

    /// A sequence as the engine sees it, deleted or not.
    pub async fn sequence_of(&self, id: SequenceId) -> Sequence {
        self.store.sequences_by_id(&[id]).await.unwrap().remove(0)
    }

    pub async fn newest_steps(&self, sequence: &Sequence) -> SequenceSteps {
        let versions = [(sequence.id, sequence.steps_version)];
        self.store.steps(&versions).await.unwrap().remove(0)
    }

    pub async fn enrolment(&self, id: EnrolmentId) -> Enrolment {
        self.store.enrolments_by_id(&[id]).await.unwrap().remove(0)
    }

    /// A lead enters a sequence, as a planner enrols it now.
    pub async fn enrolling(&self, lead: &Lead, sequence: SequenceId) -> NewEnrolment {
        let sequence = self.sequence_of(sequence).await;
        let steps = self.newest_steps(&sequence).await;
        self.rows.enrolling(lead, &sequence, &steps, self.now())
    }

    pub async fn enrol(&self, lead: &Lead, sequence: SequenceId) -> EnrolResult {
        let new = self.enrolling(lead, sequence).await;
        let mut done = self.commit(Change::Enrol(vec![new])).await;
        done.enrolments.remove(0)
    }

    /// Enrols a lead that the sequence takes.
    pub async fn enrolled(&self, lead: &Lead, sequence: SequenceId) -> EnrolmentId {
        match self.enrol(lead, sequence).await {
            EnrolResult::Enrolled(id) => id,
            other => panic!("not enrolled: {other:?}"),
        }
    }

    /// All messages of an enrolment, by id.
    pub async fn messages_of(&self, user: UserId, enrolment: EnrolmentId) -> Vec<Message> {
        let filter = MessageFilter {
            enrolment_id: Some(enrolment),
            with_superseded: true,
            ..MessageFilter::default()
        };
        let page = PageRequest::first(500);
        let found = self.store.messages(&RequestScope::user(user), &filter, &page).await;
        found.unwrap().rows
    }

    /// What the store tells of enrolments to be moved on.
    pub async fn marked(&self) -> Vec<ToAdvance> {
        self.store.to_advance(1_000).await.unwrap()
    }

    pub async fn marked_ids(&self) -> Vec<EnrolmentId> {
        self.marked().await.iter().map(|one| one.enrolment.id).collect()
    }

    pub async fn counts(&self, user: UserId, id: SequenceId) -> SequenceCounts {
        let all = Span::default();
        self.store
            .sequence_counts(&RequestScope::user(user), id, &all)
            .await
            .unwrap()
    }

    pub async fn end(&self, enrolment: &Enrolment) -> Committed {
        self.commit(end_enrolment(
            enrolment,
            EnrolmentState::Ended,
            Some(EnrolmentReason::ByPerson),
        ))
        .await
    }
}

pub(super) fn insert_sequence(sequence: &Sequence, steps: Option<&SequenceSteps>) -> Change {
    Change::InsertSequence {
        sequence: Box::new(sequence.clone()),
        steps: steps.map(|steps| Box::new(steps.clone())),
    }
}

pub(super) fn update_sequence(sequence: &Sequence, steps: Option<&SequenceSteps>) -> Change {
    Change::UpdateSequence {
        sequence: Box::new(sequence.clone()),
        steps: steps.map(|steps| Box::new(steps.clone())),
    }
}

pub(super) fn set_sequence_status(user_id: UserId, sequence_id: SequenceId, to: SequenceStatus) -> Change {
    Change::SetSequenceStatus {
        user_id,
        sequence_id,
        from: &SequenceStatus::ALL,
        to,
        reason: None,
    }
}

pub(super) fn end_enrolment(enrolment: &Enrolment, state: EnrolmentState, reason: Option<EnrolmentReason>) -> Change {
    Change::EndEnrolment {
        user_id: enrolment.user_id,
        enrolment_id: enrolment.id,
        step: None,
        state,
        reason,
        next_id: None,
    }
}

impl Drip {
    pub async fn new(world: &World) -> Self {
        let stage = world.stage().await;
        let id = world.sequence(stage.user, &["COLD", "WARM", "HOT"]).await;
        Self { stage, id }
    }

    pub fn world(&self) -> &World {
        &self.stage.world
    }

    pub fn user(&self) -> UserId {
        self.stage.user
    }

    pub const fn scope(&self) -> MessageScope {
        MessageScope::Sequence(self.id)
    }

    /// A lead of the device with triggers.
    pub async fn lead(&self, triggers: &str) -> Lead {
        let lead = self
            .world()
            .rows
            .lead_with(self.user(), Some(self.stage.device), triggers);
        self.world().insert_lead(&lead).await;
        lead
    }

    /// Somebody new in the sequence, with the message of the first step.
    pub async fn enrolled(&self) -> (EnrolmentId, MessageId) {
        let lead = self.lead("COLD").await;
        self.enrol(&lead).await
    }

    pub async fn enrol(&self, lead: &Lead) -> (EnrolmentId, MessageId) {
        let id = self.world().enrolled(lead, self.id).await;
        (id, self.active(id).await.id)
    }

    pub async fn enrolment(&self, id: EnrolmentId) -> Enrolment {
        self.world().enrolment(id).await
    }

    pub async fn steps(&self) -> SequenceSteps {
        let sequence = self.world().sequence_of(self.id).await;
        self.world().newest_steps(&sequence).await
    }

    pub async fn messages(&self, id: EnrolmentId) -> Vec<Message> {
        self.world().messages_of(self.user(), id).await
    }

    /// The first message of the step at which an enrolment stands.
    pub async fn active(&self, id: EnrolmentId) -> Message {
        let step = self.enrolment(id).await.step_id;
        let of_step = |message: &Message| message.round == 0 && message.flow.is_some_and(|flow| flow.step_id == step);
        self.messages(id).await.into_iter().find(of_step).unwrap()
    }

    /// Begins a message and records what became of it.
    pub async fn tried(&self, message: MessageId, verdict: Verdict) {
        let attempt = self.stage.begin(message).await;
        assert!(matches!(
            self.stage.settle(message, attempt, verdict).await,
            Settled::Yes(_)
        ));
    }

    /// Where an enrolment would go once its message ended in a state.
    pub async fn advance_after(&self, id: EnrolmentId, state: MessageState) -> Advance {
        let rows = self.messages(id).await;
        let passed = rows.iter().filter_map(|one| Some(one.flow?.step_id)).collect();
        self.advance_past(id, state, &passed).await
    }

    /// Where it would go if it had had these steps.
    pub async fn advance_past(&self, id: EnrolmentId, state: MessageState, passed: &BTreeSet<StepId>) -> Advance {
        let (enrolment, message) = (self.enrolment(id).await, self.active(id).await);
        let end = StepEnd {
            state,
            reason: None,
            at: self.stage.now(),
            ..StepEnd::of(&message)
        };
        let sequence = self.world().sequence_of(self.id).await;
        let versions = [(self.id, enrolment.steps_version), (self.id, sequence.steps_version)];
        let steps = self.world().store.steps(&versions).await.unwrap();
        let course = Course {
            sequence: &sequence,
            from: &steps[0],
            to: &steps[1],
            passed,
        };
        match follow(&enrolment, end, course, self.world().rows.planning(self.stage.now())) {
            Followed::Advance(advance) => *advance,
            other => panic!("nothing follows: {other:?}"),
        }
    }

    /// Sends the active step and moves on; gives the next message.
    pub async fn step(&self, id: EnrolmentId) -> MessageId {
        let message = self.active(id).await;
        self.tried(message.id, super::stage::sent()).await;
        self.advance(id).await
    }

    /// Moves on from a settled step; gives the next message.
    pub async fn advance(&self, id: EnrolmentId) -> MessageId {
        let state = self.active(id).await.state;
        let advance = self.advance_after(id, state).await;
        self.world().commit(Change::AdvanceEnrolment(Box::new(advance))).await;
        self.active(id).await.id
    }

    pub async fn status(&self, to: SequenceStatus) {
        let set = set_sequence_status(self.user(), self.id, to);
        self.world().commit(set).await;
    }

    pub async fn pause(&self) {
        self.status(SequenceStatus::Paused).await;
    }

    pub async fn delete(&self) {
        let delete = Change::DeleteSequence {
            user_id: self.user(),
            sequence_id: self.id,
        };
        self.world().commit(delete).await;
    }

    /// Edits the sequence as a person does.
    pub async fn edit(&self, edit: impl FnOnce(&mut Sequence)) {
        let mut sequence = self.world().sequence_of(self.id).await;
        edit(&mut sequence);
        self.world().commit(update_sequence(&sequence, None)).await;
    }

    /// Gives it a new version of its steps.
    pub async fn edit_steps(&self, edit: impl FnOnce(&mut SequenceSteps)) {
        let sequence = self.world().sequence_of(self.id).await;
        let mut steps = self.world().newest_steps(&sequence).await;
        steps.version += 1;
        edit(&mut steps);
        self.world().commit(update_sequence(&sequence, Some(&steps))).await;
    }

    pub async fn refused(&self, set: impl Into<ChangeSet>, kind: StoreErrorKind) {
        self.world().refused(set, kind).await;
    }

    /// The enrolment ended in this way, and is not marked any more.
    pub async fn assert_ended(&self, id: EnrolmentId, reason: EnrolmentReason) {
        let enrolment = self.enrolment(id).await;
        assert_eq!(
            (enrolment.state, enrolment.reason),
            (EnrolmentState::Ended, Some(reason))
        );
        assert!(enrolment.ended_at.is_some(), "it says when");
        assert!(!self.world().marked_ids().await.contains(&id), "nothing follows");
    }
}
