//! The flows of one enrolment: every step that it has had, has, and is to have.

use std::collections::BTreeSet;

use serde::Serialize;

use super::enrolment::{StepEnd, send_at};
use super::timing::next_due;
use crate::domain::delivery::Delivery;
use crate::domain::enrolment::{Enrolment, EnrolmentState, FlowState};
use crate::domain::message::{Message, MessageState, Reason};
use crate::domain::sequence::{Sequence, SequenceSteps, Step};
use crate::domain::token::Token;
use crate::id::{DeviceId, MessageId, StepId};
use crate::time::Timestamp;

/// The tracking record of one lead and one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Flow {
    /// The step.
    pub step_id: StepId,
    /// Its day and trigger as they are for this lead; `None` when that version of the steps is not known any more.
    pub step: Option<(u16, Token)>,
    /// Where it stands.
    pub state: FlowState,
    /// Where its message stands; `None` when it has none.
    pub message_state: Option<MessageState>,
    /// Its message; `None` when it was not active yet, or never was.
    pub message_id: Option<MessageId>,
    /// How often a person had it sent again.
    pub round: u16,
    /// Why it stands where it does.
    pub reason: Option<Reason>,
    /// The device that sent it, or is to; `None` for the pool.
    pub device_id: Option<DeviceId>,
    /// When it is or was due. Of one that is pending: when, if everything before it goes out when it is due.
    pub due_at: Option<Timestamp>,
    /// When its newest attempt began.
    pub attempted_at: Option<Timestamp>,
    /// When it was settled.
    pub completed_at: Option<Timestamp>,
    /// What receipts reported.
    pub delivery: Option<Delivery>,
}

/// All flows of an enrolment, in order: those with a message, oldest first, then those that are listed alone.
///
/// `messages` are its messages that are not superseded, `versions` the versions of the steps that they and the enrolment name.
#[must_use]
pub fn flows(
    enrolment: &Enrolment,
    messages: &[Message],
    versions: &[SequenceSteps],
    sequence: &Sequence,
    now: Timestamp,
) -> Vec<Flow> {
    let version = |number: i32| {
        let of_sequence = |steps: &&SequenceSteps| steps.sequence_id == enrolment.sequence_id;
        versions
            .iter()
            .filter(of_sequence)
            .find(|steps| steps.version == number)
    };
    let mut had: Vec<&Message> = messages.iter().filter(|message| !message.superseded).collect();
    had.sort_by_key(|message| message.id);
    let mut flows: Vec<Flow> = Vec::with_capacity(had.len());
    // A step that was sent again keeps its place.
    let mut rounds: Vec<&Message> = Vec::new();
    for message in had {
        if message.round == 0 {
            flows.push(of_message(message, &version))
        } else {
            rounds.push(message)
        }
    }
    let pinned = version(enrolment.steps_version);
    for message in rounds {
        let flow = of_message(message, &version);
        let place = |id: StepId| pinned.and_then(|steps| steps.position(id));
        let later = flows.iter().position(|one| place(one.step_id) > place(flow.step_id));
        flows.insert(later.unwrap_or(flows.len()), flow);
    }
    let seen: BTreeSet<StepId> = flows.iter().map(|flow| flow.step_id).collect();
    let state = match enrolment.state {
        EnrolmentState::Open => FlowState::Pending,
        EnrolmentState::Ended => FlowState::Cancelled,
        EnrolmentState::Completed => return flows,
    };
    let Some(pinned) = pinned else { return flows };
    let active = messages.iter().find(|message| {
        let flow = message.flow.map(|flow| flow.step_id);
        message.round == 0 && flow == Some(enrolment.step_id)
    });
    // When the step before was or will be sent, and how long the next one waits from there.
    let mut planned = enrolment.due_at;
    let mut sent = match active {
        Some(message) if !message.state.is_open() => StepEnd::of(message).at,
        Some(message) => message.due_at.max(now),
        None => enrolment.due_at.max(now),
    };
    let mut wait = pinned.step(enrolment.step_id).map_or(Step::WAIT, |step| step.wait);
    for step in pinned
        .after(enrolment.step_id)
        .iter()
        .filter(|step| !seen.contains(&step.id))
    {
        let due_at = next_due(planned, sent, wait, send_at(sequence, step));
        (planned, sent, wait) = (due_at, due_at.max(now), step.wait);
        flows.push(Flow {
            step_id: step.id,
            step: Some((step.day, step.trigger.clone())),
            state,
            message_state: None,
            message_id: None,
            round: 0,
            reason: None,
            device_id: enrolment.device_id,
            due_at: (state == FlowState::Pending).then_some(due_at),
            attempted_at: None,
            completed_at: enrolment.ended_at,
            delivery: None,
        });
    }
    flows
}

fn of_message<'a>(message: &Message, version: &impl Fn(i32) -> Option<&'a SequenceSteps>) -> Flow {
    let flow = message.flow.expect("a message of a sequence has a flow");
    let step = version(flow.steps_version).and_then(|steps| steps.step(flow.step_id));
    Flow {
        step_id: flow.step_id,
        step: step.map(|step| (step.day, step.trigger.clone())),
        state: message.state.into(),
        message_state: Some(message.state),
        message_id: Some(message.id),
        round: message.round,
        reason: message.reason,
        device_id: message.device_id,
        due_at: Some(message.due_at),
        attempted_at: message.attempt.as_ref().map(|attempt| attempt.attempted_at),
        completed_at: message.settled_at,
        delivery: message.delivery,
    }
}
