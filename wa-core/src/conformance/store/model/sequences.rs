//! The operations of the model on sequences: mostly as people and planners do them, often late, sometimes wrong.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Model, both};
use crate::domain::access::RequestScope;
use crate::domain::audience::TargetFilter;
use crate::domain::campaign::Routing;
use crate::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState};
use crate::domain::message::{IdempotencyKey, Message, MessageState};
use crate::domain::sequence::{
    FailurePolicy, MatchCursor, ReEntry, Sequence, SequenceReason, SequenceStatus, SequenceSteps,
};
use crate::domain::token::{Token, TokenSet};
use crate::id::{EnrolmentId, LeadId, SequenceId, StepId, UserId};
use crate::plan::enrolment::{Course, EnrolmentContext, Followed, StepEnd, follow};
use crate::store::{
    Advance, Change, ChangeSet, EnrolmentFilter, LeadStore, MessageFilter, NewEnrolment, OutboxStore, PAGE_MAX,
    PageRequest, SequenceFilter, SequenceStore, Span,
};

/// By what leads of the model enter; one is a part of another.
const TRIGGERS: [&str; 3] = ["exa", "exama", "emas"];

impl Model {
    pub(super) async fn insert_sequence(&mut self, user: UserId) {
        let entry = TRIGGERS[self.below(TRIGGERS.len())];
        let (mut sequence, mut steps) = self.rows.sequence(user, &[entry, "two", "three", "four"]);
        sequence.created_at = self.now;
        sequence.re_entry = [ReEntry::Never, ReEntry::AfterCompletion, ReEntry::Always][self.below(3)];
        sequence.exit_on_reply = self.chance(50);
        if self.chance(30) {
            sequence.on_failure = FailurePolicy::Stop;
        }
        if self.chance(30) {
            sequence.routing = Routing::Balanced;
        }
        if self.chance(30) {
            sequence.niche = Token::parse("exa").ok();
        }
        let (owner, device) = self.device();
        if self.chance(20) && (owner == user || self.chance(10)) {
            sequence.device_id = Some(device);
        }
        if self.chance(20) {
            steps.steps[1].entry_point = true;
        }
        let id = sequence.id;
        let with_steps = !self.chance(5);
        sequence.steps_version = i32::from(with_steps || self.chance(20));
        self.sequences.push((user, id));
        self.commit(Change::InsertSequence {
            sequence: Box::new(sequence),
            steps: with_steps.then(|| Box::new(steps)),
        })
        .await;
        if self.chance(80) {
            self.set_sequence_status((user, id), SequenceStatus::Active).await;
        }
    }

    pub(super) async fn sequence_status(&mut self) {
        let sequences = self.sequences.clone();
        let Some(sequence) = self.pick(&sequences) else { return };
        let to = if self.chance(50) {
            SequenceStatus::Active
        } else {
            SequenceStatus::ALL[self.below(4)]
        };
        self.set_sequence_status(sequence, to).await;
    }

    async fn set_sequence_status(&mut self, (user_id, sequence_id): (UserId, SequenceId), to: SequenceStatus) {
        let from: &'static [SequenceStatus] = if self.chance(90) {
            &SequenceStatus::ALL
        } else {
            &[SequenceStatus::Active]
        };
        let reasons = [None, Some(SequenceReason::ByPerson), Some(SequenceReason::ErrorRate)];
        let reason = reasons[self.below(3)];
        self.commit(Change::SetSequenceStatus {
            user_id,
            sequence_id,
            from,
            to,
            reason,
        })
        .await;
    }

    /// A sequence of the model, deleted ones too.
    async fn read_sequence(&mut self) -> Option<Sequence> {
        let sequences = self.sequences.clone();
        let (_, id) = self.pick(&sequences)?;
        self.reference.sequences_by_id(&[id]).await.unwrap().pop()
    }

    async fn read_steps(&self, id: SequenceId, version: i32) -> Option<SequenceSteps> {
        self.reference.steps(&[(id, version)]).await.unwrap().pop()
    }

    pub(super) async fn edit_sequence(&mut self) {
        let Some(mut sequence) = self.read_sequence().await else {
            return;
        };
        let (user_id, sequence_id) = (sequence.user_id, sequence.id);
        if self.chance(25) {
            return self.commit(Change::DeleteSequence { user_id, sequence_id }).await;
        }
        sequence.name = format!("edited at {}", self.now);
        sequence.updated_at = self.now;
        if self.chance(20) {
            sequence.target = [TargetFilter::All, TargetFilter::Prospect, TargetFilter::Customer][self.below(3)];
        }
        if self.chance(20) {
            sequence.niche = Token::parse(TRIGGERS[self.below(3)]).ok();
        }
        if self.chance(30) {
            sequence.exit_on_reply = !sequence.exit_on_reply;
        }
        if self.chance(15) {
            sequence.version -= 1;
        }
        if self.chance(4) {
            sequence.user_id = *self.users.iter().find(|other| **other != user_id).unwrap();
        }
        let steps = match self.read_steps(sequence_id, sequence.steps_version).await {
            Some(steps) if self.chance(60) => Some(Box::new(self.edited(steps))),
            _ => None,
        };
        self.commit(Change::UpdateSequence {
            sequence: Box::new(sequence),
            steps,
        })
        .await;
    }

    /// Steps one of which was removed, added, moved or made an entry point.
    fn edited(&mut self, mut steps: SequenceSteps) -> SequenceSteps {
        steps.version += if self.chance(95) { 1 } else { 2 };
        let count = steps.steps.len();
        match self.below(4) {
            0 if count > 1 => drop(steps.steps.remove(self.below(count))),
            1 => {
                let added = self.rows.step(&format!("added{}", self.step));
                let at = self.below(count + 1);
                steps.steps.insert(at, added);
            }
            2 if count > 1 => steps.steps.swap(self.below(count), self.below(count)),
            _ => {
                let at = self.below(count);
                if let Some(step) = steps.steps.get_mut(at) {
                    step.entry_point = !step.entry_point;
                }
            }
        }
        steps
    }

    pub(super) async fn enrol(&mut self) {
        let Some(sequence) = self.read_sequence().await else {
            return;
        };
        let Some(newest) = self.read_steps(sequence.id, sequence.steps_version).await else {
            return;
        };
        if newest.first_entry().is_none() {
            return;
        }
        let leads: Vec<(UserId, LeadId)> = self.leads.clone();
        let mut new: Vec<NewEnrolment> = Vec::new();
        for _ in 0..1 + self.below(2) {
            let Some((user, lead)) = self.pick(&leads) else { return };
            let found = self.reference.leads_by_id(user, &[lead]).await.unwrap();
            let own = user == sequence.user_id || self.chance(3);
            if let Some(lead) = found.first().filter(|_| own) {
                let mut one = self.rows.enrolling(lead, &sequence, &newest, self.now);
                if self.chance(30) {
                    one.enrolment.root_id = self.known_enrolment(user).await.unwrap_or(one.enrolment.root_id);
                }
                new.push(one);
            }
        }
        if self.chance(8) {
            new.iter_mut().for_each(|one| one.enrolment.steps_version -= 1);
        }
        let mut set = ChangeSet::default();
        if let Some(before) = self
            .enrolment_in(&[EnrolmentState::Open])
            .await
            .filter(|_| self.step.is_multiple_of(4))
        {
            let next_id = new.first().map(|one| one.enrolment.id);
            set = set.and(ending(&before, EnrolmentState::Completed, None, next_id));
        }
        let set = set.and(Change::Enrol(new));
        self.commit(set.clone()).await;
        if self.chance(15) {
            self.commit(set).await;
        }
    }

    async fn known_enrolment(&mut self, user: UserId) -> Option<EnrolmentId> {
        let page = PageRequest::first(PAGE_MAX);
        let scope = RequestScope::user(user);
        let rows = self
            .reference
            .enrolments(&scope, &EnrolmentFilter::default(), &page)
            .await
            .unwrap()
            .rows;
        self.pick(&rows).map(|one| one.root_id)
    }

    /// An enrolment in one of these states, if there is one.
    async fn enrolment_in(&mut self, states: &[EnrolmentState]) -> Option<Enrolment> {
        let user = self.user();
        let filter = EnrolmentFilter {
            states: states.to_vec(),
            ..EnrolmentFilter::default()
        };
        let page = PageRequest::first(PAGE_MAX);
        let rows = self
            .reference
            .enrolments(&RequestScope::user(user), &filter, &page)
            .await
            .unwrap()
            .rows;
        self.pick(&rows)
    }

    /// Where the enrolment of a message goes when that ends in a state, as a planner sees it now.
    pub(super) async fn plan_advance(&mut self, message: &Message, state: MessageState) -> Option<Box<Advance>> {
        let flow = message.flow?;
        let enrolment = self
            .reference
            .enrolments_by_id(&[flow.enrolment_id])
            .await
            .unwrap()
            .pop()?;
        let sequence = self
            .reference
            .sequences_by_id(&[enrolment.sequence_id])
            .await
            .unwrap()
            .pop()?;
        let from = self.read_steps(sequence.id, enrolment.steps_version).await?;
        let to = self.read_steps(sequence.id, sequence.steps_version).await?;
        let filter = MessageFilter {
            enrolment_id: Some(enrolment.id),
            ..MessageFilter::default()
        };
        let scope = RequestScope::user(enrolment.user_id);
        let rows = self
            .reference
            .messages(&scope, &filter, &PageRequest::first(PAGE_MAX))
            .await
            .unwrap()
            .rows;
        // One that forgets what was passed now and then plans what is refused.
        let forgets = self.chance(5);
        let passed: BTreeSet<StepId> = rows
            .iter()
            .filter(|_| !forgets)
            .filter_map(|row| Some(row.flow?.step_id))
            .collect();
        let end = StepEnd {
            name: &message.name,
            state,
            reason: None,
            at: self.now,
        };
        let course = Course {
            sequence: &sequence,
            from: &from,
            to: &to,
            passed: &passed,
        };
        let context = EnrolmentContext {
            ids: self.rows.ids(),
            seed: self.rows.seed(),
            now: self.now,
        };
        match follow(&enrolment, end, course, context) {
            Followed::Advance(mut advance) => {
                // Days are long in the model: the next step is due soon.
                advance.due_at = self.now + Duration::from_secs(self.below(60) as u64);
                advance
                    .messages
                    .iter_mut()
                    .for_each(|message| message.due_at = advance.due_at);
                Some(advance)
            }
            _ => None,
        }
    }

    pub(super) async fn advance(&mut self) {
        let marked = self.reference.to_advance(PAGE_MAX).await.unwrap();
        let message = if self.chance(85) {
            self.pick(&marked).map(|one| one.message)
        } else {
            self.message_in(&MessageState::ALL).await
        };
        let Some(message) = message else { return };
        let state = if self.chance(95) {
            message.state
        } else {
            MessageState::Sent
        };
        match self.plan_advance(&message, state).await {
            Some(mut advance) => {
                if self.chance(4) {
                    advance.to_version += 1;
                }
                self.commit(Change::AdvanceEnrolment(advance)).await;
            }
            None => self.complete_flow(&message).await,
        }
    }

    async fn complete_flow(&mut self, message: &Message) {
        let Some(flow) = message.flow else { return };
        let found = self.reference.enrolments_by_id(&[flow.enrolment_id]).await.unwrap();
        let Some(one) = found.first() else { return };
        let add = self.chance(30).then(|| Token::parse(TRIGGERS[self.below(3)]).unwrap());
        let set = ChangeSet::one(ending(one, EnrolmentState::Completed, None, None)).and(Change::ReplaceTrigger {
            user_id: one.user_id,
            lead_id: one.lead_id,
            remove: one.token.clone(),
            add,
            matched: self.chance(30),
        });
        self.commit(set).await;
    }

    pub(super) async fn end_enrolment(&mut self) {
        let any = self.chance(20);
        let states: &[EnrolmentState] = if any {
            &EnrolmentState::ALL
        } else {
            &[EnrolmentState::Open]
        };
        let Some(one) = self.enrolment_in(states).await else {
            return;
        };
        let state = EnrolmentState::ALL[1 + self.below(2)];
        let reason = (state == EnrolmentState::Ended).then_some(EnrolmentReason::ByPerson);
        self.commit(ending(&one, state, reason, None)).await;
    }

    /// A step of an enrolment is sent again, or its first message put in a second time.
    pub(super) async fn resend_flow(&mut self) {
        let any = self.chance(15);
        let states: &[MessageState] = if any {
            &MessageState::ALL
        } else {
            &[MessageState::Failed, MessageState::Unknown]
        };
        let mut flows = Vec::new();
        for user in self.users.clone() {
            let filter = MessageFilter {
                states: states.to_vec(),
                ..MessageFilter::default()
            };
            let page = PageRequest::first(PAGE_MAX);
            let rows = self
                .reference
                .messages(&RequestScope::user(user), &filter, &page)
                .await
                .unwrap()
                .rows;
            for row in rows {
                let Some(flow) = row.flow else { continue };
                let of = self.reference.enrolments_by_id(&[flow.enrolment_id]).await.unwrap();
                let open = of.first().is_some_and(|one| one.state == EnrolmentState::Open);
                if open || self.chance(5) {
                    flows.push(row);
                }
            }
        }
        let Some(of) = self.pick(&flows) else { return };
        let mut again = self.rows.resend(&of);
        again.created_at = self.now;
        again.due_at = self.now;
        if self.chance(10)
            && let Some(flow) = again.flow
        {
            again.key = IdempotencyKey::flow(flow.enrolment_id, flow.step_id, 0);
        }
        self.commit(Change::InsertMessages(vec![again])).await;
    }

    pub(super) async fn match_leads(&mut self) {
        both!(self, store => store.leads_to_match(3)).unwrap();
        let leads = self.reference.leads_to_match(3).await.unwrap();
        for lead in leads {
            let version = lead.version - i64::from(self.chance(20));
            self.commit(Change::Matched {
                user_id: lead.user_id,
                lead_id: lead.id,
                version,
            })
            .await;
        }
        let matching = both!(self, store => store.sequences_matching(PAGE_MAX)).unwrap();
        let Some(sequence) = self.pick(&matching) else { return };
        let after = match sequence.cursor {
            MatchCursor::Lead(lead) => lead,
            MatchCursor::Start | MatchCursor::Done => LeadId::MIN,
        };
        let page = both!(self, store => store.match_page(&sequence, after, 2)).unwrap();
        let to = page.last().map_or(MatchCursor::Done, |lead| MatchCursor::Lead(lead.id));
        let moved = Change::MoveMatchCursor {
            sequence_id: sequence.id,
            steps_version: sequence.steps_version - i32::from(self.chance(10)),
            from: if self.chance(90) {
                sequence.cursor
            } else {
                MatchCursor::Done
            },
            to,
        };
        self.commit(moved).await;
    }

    /// Everything that can be read of the sequences of a user, compared.
    pub(super) async fn compare_sequences(&self, user: UserId) {
        let scope = RequestScope::user(user);
        let stranger = RequestScope::user(*self.users.iter().find(|other| **other != user).unwrap());
        for limit in [2, PAGE_MAX] {
            let mut page = PageRequest::first(limit);
            loop {
                let filter = SequenceFilter::default();
                let got = both!(self, store => store.sequences(&scope, &filter, &page)).unwrap();
                let Some(next) = got.next else { break };
                page.after = Some(next);
            }
            let mut page = PageRequest::first(limit);
            loop {
                let filter = EnrolmentFilter::default();
                let got = both!(self, store => store.enrolments(&scope, &filter, &page)).unwrap();
                for one in &got.rows {
                    let of_flow = MessageFilter {
                        enrolment_id: Some(one.id),
                        with_superseded: true,
                        ..MessageFilter::default()
                    };
                    both!(self, store => store.messages(&scope, &of_flow, &PageRequest::first(PAGE_MAX))).unwrap();
                    both!(self, store => store.enrolment(&stranger, one.id)).unwrap_err();
                }
                let Some(next) = got.next else { break };
                page.after = Some(next);
            }
        }
        let tokens: Vec<Token> = TokenSet::parse(&TRIGGERS.join(",")).unwrap().iter().cloned().collect();
        both!(self, store => store.sequences_by_entry(user, &tokens)).unwrap();
        both!(self, store => store.sequences_by_entry(user, &tokens[..1])).unwrap();
        for (_, id) in self.sequences.iter().filter(|(owner, _)| *owner == user) {
            let of = crate::domain::message::MessageScope::Sequence(*id);
            let _numbers = both!(self, store => store.numbers(&scope, of));
            let _counted = both!(self, store => store.count(&scope, of));
            let _read = both!(self, store => store.sequence(&scope, *id));
            for span in [
                Span::default(),
                Span {
                    from: Some(self.now.minus(Duration::from_secs(600))),
                    until: Some(self.now.minus(Duration::from_secs(60))),
                },
            ] {
                let _counts = both!(self, store => store.sequence_counts(&scope, *id, &span));
            }
            let _recount = both!(self, store => store.recount_sequence(&scope, *id));
            let recent = crate::store::RecentOf::Sequence(*id);
            both!(self, store => store.recent(recent, crate::time::Timestamp::EPOCH, 20)).unwrap();
            let versions = [(*id, 1), (*id, 2), (*id, 3)];
            both!(self, store => async {
                let mut steps = store.steps(&versions).await?;
                steps.sort_by_key(|one| one.version);
                Ok(steps)
            })
            .unwrap();
        }
    }

    /// What the engine reads of sequences, compared.
    pub(super) async fn compare_marks(&self) {
        let ids: Vec<SequenceId> = self.sequences.iter().map(|(_, id)| *id).collect();
        both!(self, store => async {
            let mut found = store.sequences_by_id(&ids).await?;
            found.sort_by_key(|one| one.id);
            Ok(found)
        })
        .unwrap();
        both!(self, store => async {
            let marked = store.to_advance(PAGE_MAX).await?;
            Ok(marked.into_iter().map(|one| (one.enrolment, one.message)).collect::<Vec<_>>())
        })
        .unwrap();
        both!(self, store => store.leads_to_match(PAGE_MAX)).unwrap();
        for sequence in both!(self, store => store.sequences_matching(PAGE_MAX)).unwrap() {
            both!(self, store => store.match_page(&sequence, LeadId::MIN, PAGE_MAX)).unwrap();
        }
    }
}

fn ending(
    one: &Enrolment,
    state: EnrolmentState,
    reason: Option<EnrolmentReason>,
    next_id: Option<EnrolmentId>,
) -> Change {
    Change::EndEnrolment {
        user_id: one.user_id,
        enrolment_id: one.id,
        step: None,
        state,
        reason,
        next_id,
    }
}
