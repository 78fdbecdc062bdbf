//! Enrols leads into sequences and moves enrolments on from step to step.

use std::collections::BTreeSet;

use super::timing::{SendAt, first_due, next_due};
use crate::domain::campaign::Routing;
use crate::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState, FlowRef};
use crate::domain::lead::Lead;
use crate::domain::message::{IdempotencyKey, Message, MessageScope, MessageState, Reason};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::sequence::{FailurePolicy, Sequence, SequenceSteps, Step, step_move};
use crate::domain::token::Token;
use crate::id::{DeviceId, EnrolmentId, IdSource, LeadId, MessageId, StepId};
use crate::seed::Seed;
use crate::store::{Advance, Change, ChangeSet, NewEnrolment};
use crate::time::Timestamp;

/// What enrolments are planned with.
#[derive(Debug, Clone, Copy)]
pub struct EnrolmentContext<'a> {
    /// Where new ids come from.
    pub ids: &'a IdSource,
    /// The seed of the database.
    pub seed: &'a Seed,
    /// Now.
    pub now: Timestamp,
}

/// Where somebody enters a sequence.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// The sequence.
    pub sequence: &'a Sequence,
    /// Its newest steps.
    pub steps: &'a SequenceSteps,
    /// The step.
    pub step_id: StepId,
    /// The trigger by which they enter.
    pub token: Option<&'a Token>,
}

/// From where a chain leads into a sequence.
#[derive(Debug, Clone, Copy)]
struct Chained {
    root_id: EnrolmentId,
    /// When the first step would be due without a send time.
    planned_due_at: Timestamp,
    sent_at: Timestamp,
    wait: std::time::Duration,
}

/// At which local time a step of a sequence is sent.
#[must_use]
pub fn send_at(sequence: &Sequence, step: &Step) -> SendAt {
    let time = step.send_time.or(sequence.send_time)?;
    Some((time, sequence.time_zone))
}

/// The enrolment of a lead that enters at a step, with the message of that step.
///
/// # Panics
/// When the steps do not have the step that is entered: a caller takes both from one version.
#[must_use]
pub fn enrol(lead: &Lead, entry: Entry<'_>, context: EnrolmentContext<'_>) -> NewEnrolment {
    new_enrolment(lead, entry, None, context)
}

fn new_enrolment(
    lead: &Lead,
    entry: Entry<'_>,
    chained: Option<Chained>,
    context: EnrolmentContext<'_>,
) -> NewEnrolment {
    let Entry {
        sequence,
        steps,
        step_id,
        token,
    } = entry;
    let step = steps
        .step(step_id)
        .expect("a step that is entered is in the version that it was found in");
    let at = send_at(sequence, step);
    let due_at = match chained {
        None => first_due(context.now, at),
        Some(one) => next_due(one.planned_due_at, one.sent_at, one.wait, at),
    };
    let id = EnrolmentId::new(context.ids, context.now);
    let person = PersonKey::of(context.seed, lead.user_id, &lead.phone);
    let device_id = match (sequence.device_id, sequence.routing) {
        (Some(only), _) => Some(only),
        (None, Routing::OwnDevice) => lead.device_id,
        (None, _) => None,
    };
    let enrolment = Enrolment {
        id,
        user_id: lead.user_id,
        sequence_id: sequence.id,
        lead_id: lead.id,
        phone: Some(lead.phone),
        person,
        device_id,
        token: token.cloned(),
        root_id: chained.map_or(id, |one| one.root_id),
        entry_step_id: step_id,
        steps_version: steps.version,
        step_id,
        due_at,
        state: EnrolmentState::Open,
        reason: None,
        next_id: None,
        created_at: context.now,
        ended_at: None,
    };
    let recipient = Recipient {
        lead_id: lead.id,
        phone: Some(lead.phone),
        person,
        name: lead.name.clone(),
        device_id,
    };
    let mut first = message(recipient, &enrolment, step, sequence, context);
    if device_id.is_none() && !first.from_pool {
        settle_as(&mut first, (MessageState::Skipped, Reason::NoDevice), context.now);
    }
    NewEnrolment { enrolment, first }
}

struct Recipient {
    lead_id: LeadId,
    phone: Option<Phone>,
    person: PersonKey,
    name: String,
    device_id: Option<DeviceId>,
}

fn settle_as(message: &mut Message, (state, reason): (MessageState, Reason), now: Timestamp) {
    message.state = state;
    message.reason = Some(reason);
    message.settled_at = Some(now);
}

/// The queued message of a step, due when its enrolment says.
fn message(
    recipient: Recipient,
    enrolment: &Enrolment,
    step: &Step,
    sequence: &Sequence,
    context: EnrolmentContext<'_>,
) -> Message {
    let flow = FlowRef {
        enrolment_id: enrolment.id,
        step_id: step.id,
        steps_version: enrolment.steps_version,
    };
    Message {
        id: MessageId::new(context.ids, context.now),
        user_id: enrolment.user_id,
        scope: MessageScope::Sequence(sequence.id),
        flow: Some(flow),
        key: IdempotencyKey::flow(enrolment.id, step.id, 0),
        round: 0,
        supersedes: None,
        superseded: false,
        lead_id: Some(recipient.lead_id),
        phone: recipient.phone,
        person: recipient.person,
        name: recipient.name,
        custom: Default::default(),
        device_id: recipient.device_id,
        from_pool: sequence.device_id.is_none() && sequence.routing.is_pool(),
        content: None,
        override_suppression: false,
        due_at: enrolment.due_at,
        delay: step.delay.or(sequence.delay),
        expires_at: enrolment.due_at + sequence.expires_after,
        held_at: None,
        state: MessageState::Queued,
        reason: None,
        detail: None,
        refusal_count: 0,
        attempt: None,
        doubt: None,
        delivery: None,
        delivery_at: None,
        settled_at: None,
        created_at: context.now,
    }
}

/// How the active step of an enrolment ended.
#[derive(Debug, Clone, Copy)]
pub struct StepEnd<'a> {
    /// The name in the message of the step, for lists.
    pub name: &'a str,
    /// How it ended.
    pub state: MessageState,
    /// Why.
    pub reason: Option<Reason>,
    /// When it was sent, or else when it ended.
    pub at: Timestamp,
}

impl<'a> StepEnd<'a> {
    /// The end of a message that is settled.
    #[must_use]
    pub fn of(message: &'a Message) -> Self {
        let sent = matches!(message.state, MessageState::Sent | MessageState::Unknown);
        let attempted_at = message.attempt.as_ref().map(|attempt| attempt.attempted_at);
        Self {
            name: &message.name,
            state: message.state,
            reason: message.reason,
            at: attempted_at
                .filter(|_| sent)
                .or(message.settled_at)
                .unwrap_or(message.due_at),
        }
    }
}

/// The steps that an enrolment goes on with.
#[derive(Debug, Clone, Copy)]
pub struct Course<'a> {
    /// The sequence as it stands.
    pub sequence: &'a Sequence,
    /// The version that the enrolment has.
    pub from: &'a SequenceSteps,
    /// The newest version.
    pub to: &'a SequenceSteps,
    /// The steps that the enrolment has had, those recorded as removed too; needed only where the sequence has had more than one
    /// version.
    pub passed: &'a BTreeSet<StepId>,
}

/// What follows for an enrolment whose active step is settled.
#[derive(Debug, Clone)]
pub enum Followed {
    /// Its next step.
    Advance(Box<Advance>),
    /// Nothing more: every step is settled.
    Complete {
        /// Settled rows for steps that an edit removed before they were reached.
        removed: Vec<Message>,
    },
    /// It ends before its last step.
    End(EnrolmentReason),
}

/// What the end of a step means for its enrolment: `sent` and `unknown` go on; `failed` and what was skipped for its own sake
/// follow the sequence's policy; what says that this person cannot be written to ends it.
#[must_use]
pub fn follow(enrolment: &Enrolment, end: StepEnd<'_>, course: Course<'_>, context: EnrolmentContext<'_>) -> Followed {
    if let Some(reason) = ends_by(end.state, end.reason, course.sequence.on_failure) {
        return Followed::End(reason);
    }
    let Course { sequence, from, to, .. } = course;
    let course = step_move(from, enrolment.step_id, to, course.passed);
    let recipient = |device_id| Recipient {
        lead_id: enrolment.lead_id,
        phone: enrolment.phone,
        person: enrolment.person,
        name: end.name.to_owned(),
        device_id,
    };
    // Steps that the edit took away were listed: their rows say why they never come.
    let removed = course.removed.iter().filter_map(|id| from.step(*id)).map(|step| {
        let mut gone = message(recipient(enrolment.device_id), enrolment, step, sequence, context);
        settle_as(&mut gone, (MessageState::Cancelled, Reason::StepRemoved), context.now);
        gone
    });
    let mut messages: Vec<Message> = removed.collect();
    let Some(next) = course.remaining.first().and_then(|id| to.step(*id)) else {
        return Followed::Complete { removed: messages };
    };
    // The wait of the step as it was sent: a step that was reached keeps what it was.
    let wait = from.step(enrolment.step_id).map_or(Step::WAIT, |step| step.wait);
    let due_at = next_due(enrolment.due_at, end.at, wait, send_at(sequence, next));
    let moved = Enrolment {
        steps_version: to.version,
        step_id: next.id,
        due_at,
        ..enrolment.clone()
    };
    // Of a pool: it waits there until it is due, and goes to the device that the enrolment had, if that can send by then.
    let is_pool = sequence.device_id.is_none() && sequence.routing.is_pool();
    let device_id = enrolment.device_id.filter(|_| !is_pool);
    let mut next_message = message(recipient(device_id), &moved, next, sequence, context);
    if next_message.device_id.is_none() && !next_message.from_pool {
        settle_as(
            &mut next_message,
            (MessageState::Skipped, Reason::NoDevice),
            context.now,
        );
    }
    messages.push(next_message);
    Followed::Advance(Box::new(Advance {
        user_id: enrolment.user_id,
        sequence_id: sequence.id,
        enrolment_id: enrolment.id,
        from: enrolment.step_id,
        from_version: enrolment.steps_version,
        after: end.state,
        to: next.id,
        to_version: to.version,
        due_at,
        messages,
    }))
}

fn ends_by(state: MessageState, reason: Option<Reason>, policy: FailurePolicy) -> Option<EnrolmentReason> {
    match (state, reason) {
        (MessageState::Skipped, Some(Reason::Suppressed)) => Some(EnrolmentReason::Suppressed),
        (MessageState::Skipped, Some(Reason::Erased)) => Some(EnrolmentReason::Erased),
        (MessageState::Skipped, Some(Reason::LeadGone)) => Some(EnrolmentReason::LeadGone),
        (MessageState::Skipped, Some(Reason::DeviceGone)) => Some(EnrolmentReason::DeviceGone),
        (MessageState::Skipped, Some(Reason::NoDevice)) => Some(EnrolmentReason::NoDevice),
        (MessageState::Skipped, Some(Reason::NotOnWhatsApp))
        | (MessageState::Failed, Some(Reason::NotOnWhatsApp | Reason::InvalidRecipient)) => {
            Some(EnrolmentReason::NotOnWhatsApp)
        }
        // A person took one message out, or it was late by a policy that skips: the rest goes on.
        (MessageState::Skipped, Some(Reason::Late)) | (MessageState::Cancelled, Some(Reason::ByPerson)) => None,
        (MessageState::Failed | MessageState::Skipped, _) => {
            (policy == FailurePolicy::Stop).then_some(EnrolmentReason::StepFailed)
        }
        _ => None,
    }
}

/// The end of an enrolment that ends before its last step.
pub fn end(enrolment: &Enrolment, reason: EnrolmentReason) -> ChangeSet {
    ChangeSet::one(Change::EndEnrolment {
        user_id: enrolment.user_id,
        enrolment_id: enrolment.id,
        step: Some(enrolment.step_id),
        state: EnrolmentState::Ended,
        reason: Some(reason),
        next_id: None,
    })
}

/// A sequence with its newest steps, where a lead may enter.
pub type Candidate<'a> = (&'a Sequence, &'a SequenceSteps);

/// Where a lead enters by a match: every active sequence among `candidates` that has an entry for it.
pub fn matches<'a>(lead: &'a Lead, candidates: impl IntoIterator<Item = Candidate<'a>>) -> Vec<Entry<'a>> {
    let entry = |(sequence, steps): Candidate<'a>| {
        let (step_id, token) = sequence.entry_for(lead, steps)?;
        Some(Entry {
            sequence,
            steps,
            step_id,
            token,
        })
    };
    let takes = |(sequence, _): &Candidate<'a>| sequence.status.runs() && sequence.deleted_at.is_none();
    candidates.into_iter().filter(takes).filter_map(entry).collect()
}

/// Where a trigger leads: the entry points that have exactly it.
fn exact<'a>(lead: &Lead, trigger: &'a Token, candidates: &[Candidate<'a>]) -> Vec<Entry<'a>> {
    let entry = |(sequence, steps): &Candidate<'a>| {
        let (_, step_id) = steps.entry_points().find(|(token, _)| *token == trigger)?;
        let takes = sequence.status.runs() && sequence.deleted_at.is_none();
        let meant = sequence.user_id == lead.user_id && sequence.target.matches(lead.target_status);
        (takes && meant).then_some(Entry {
            sequence,
            steps,
            step_id,
            token: Some(trigger),
        })
    };
    candidates.iter().filter_map(entry).collect()
}

/// A completed enrolment, and what its completion is planned with.
#[derive(Debug)]
pub struct Completed<'a> {
    /// The enrolment.
    pub enrolment: &'a Enrolment,
    /// Its last step: the wait as it was sent, the next trigger as the newest version has it.
    pub last: &'a Step,
    /// How that ended.
    pub end: StepEnd<'a>,
    /// Rows for steps that an edit removed.
    pub removed: Vec<Message>,
    /// Its lead as it stands; `None` when that is gone or has another number by now.
    pub lead: Option<&'a Lead>,
}

/// The triggers that a completion takes from a lead and gives to it.
fn exchange(enrolment: &Enrolment, last: &Step) -> (Option<Token>, Option<Token>) {
    let (remove, add) = (enrolment.token.clone(), last.next_trigger.clone());
    // One that comes back at once does not go.
    (remove.filter(|token| Some(token) != add.as_ref()), add)
}

/// The completion of an enrolment: its trigger goes from the lead, or is replaced by the last step's next trigger, by which the
/// lead enters every active sequence that has it as an entry point, its first step due the last step's wait after that was
/// sent. One commit.
///
/// `candidates` are the sequences that have an entry for the next trigger. The lead is not marked for it: what a chain is
/// refused would else be entered by a match, as if the chain had never been there.
pub fn complete(completed: Completed<'_>, candidates: &[Candidate<'_>], context: EnrolmentContext<'_>) -> ChangeSet {
    let Completed {
        enrolment,
        last,
        end,
        removed,
        lead,
    } = completed;
    let chained = Chained {
        root_id: enrolment.root_id,
        planned_due_at: enrolment.due_at,
        sent_at: end.at,
        wait: last.wait,
    };
    let (remove, add) = exchange(enrolment, last);
    let enrolled: Vec<NewEnrolment> = match (lead, &last.next_trigger) {
        (Some(lead), Some(trigger)) => {
            let chain = |entry| new_enrolment(lead, entry, Some(chained), context);
            exact(lead, trigger, candidates).into_iter().map(chain).collect()
        }
        _ => Vec::new(),
    };
    let next_id = enrolled.first().map(|one| one.enrolment.id);
    let reason = match (&last.next_trigger, lead, next_id) {
        (None, ..) | (Some(_), Some(_), Some(_)) => None,
        (Some(_), None, _) => Some(EnrolmentReason::LeadChanged),
        (Some(_), Some(_), None) => Some(EnrolmentReason::NobodyHasTrigger),
    };
    let mut set = ChangeSet::one(Change::EndEnrolment {
        user_id: enrolment.user_id,
        enrolment_id: enrolment.id,
        step: Some(enrolment.step_id),
        state: EnrolmentState::Completed,
        reason,
        next_id,
    });
    if !removed.is_empty() {
        set = set.and(Change::InsertMessages(removed));
    }
    if remove.is_some() || add.is_some() {
        set = set.and(Change::ReplaceTrigger {
            user_id: enrolment.user_id,
            lead_id: enrolment.lead_id,
            remove,
            add,
            matched: true,
        });
    }
    if !enrolled.is_empty() {
        set = set.and(Change::Enrol(enrolled));
    }
    set
}

#[cfg(test)]
mod tests;
