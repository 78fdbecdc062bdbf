use std::time::Duration;

use super::*;
use crate::domain::content::Content;
use crate::domain::schedule::TimeZone;
use crate::domain::token::TokenSet;
use crate::id::{SequenceId, UserId};

const HOUR: Duration = Duration::from_secs(3_600);

struct Plan {
    ids: IdSource,
    seed: Seed,
    sequence: Sequence,
    steps: SequenceSteps,
}

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

impl Plan {
    /// Three steps, the first an entry point, sent by the lead's own device.
    fn new() -> Self {
        let ids = IdSource::seeded([3; 32]);
        let (id, user) = (SequenceId::new(&ids, now()), UserId::new(&ids, now()));
        let step = |trigger| Step {
            id: StepId::new(&ids, now()),
            day: 1,
            trigger: token(trigger),
            next_trigger: None,
            entry_point: trigger == "COLD",
            wait: Step::WAIT,
            content: Content::text("Hi"),
            send_time: None,
            delay: None,
        };
        let steps = SequenceSteps {
            sequence_id: id,
            version: 1,
            steps: ["COLD", "WARM", "HOT"].map(step).into(),
        };
        let mut sequence = Sequence::draft(id, user, "a", now());
        sequence.steps_version = 1;
        Self {
            seed: Seed::from_number(1),
            ids,
            sequence,
            steps,
        }
    }

    fn context(&self) -> EnrolmentContext<'_> {
        EnrolmentContext {
            ids: &self.ids,
            seed: &self.seed,
            now: now(),
        }
    }

    fn lead(&self) -> Lead {
        let phone = Phone::from_e164("+60123456789").unwrap();
        let device = DeviceId::new(&self.ids, now());
        let id = LeadId::new(&self.ids, now());
        let mut lead = Lead::new(id, self.sequence.user_id, Some(device), phone, now());
        lead.triggers = TokenSet::parse("COLD").unwrap();
        lead
    }

    fn entry(&self) -> Entry<'_> {
        Entry {
            sequence: &self.sequence,
            steps: &self.steps,
            step_id: self.steps.steps[0].id,
            token: Some(&self.steps.steps[0].trigger),
        }
    }

    fn enrolled(&self) -> NewEnrolment {
        enrol(&self.lead(), self.entry(), self.context())
    }

    /// What follows when the first step ended so, an hour after it was due.
    fn after(&self, new: &NewEnrolment, state: MessageState, reason: Option<Reason>) -> Followed {
        let end = StepEnd {
            name: &new.first.name,
            state,
            reason,
            at: new.enrolment.due_at + HOUR,
        };
        let course = Course {
            sequence: &self.sequence,
            from: &self.steps,
            to: &self.steps,
            passed: &BTreeSet::from([new.enrolment.step_id]),
        };
        follow(&new.enrolment, end, course, self.context())
    }
}

fn now() -> Timestamp {
    Timestamp::from_millis(1_795_248_000_000)
}

fn advanced(followed: Followed) -> Advance {
    match followed {
        Followed::Advance(advance) => *advance,
        other => panic!("it does not go on: {other:?}"),
    }
}

#[test]
fn an_enrolment_begins_with_the_message_of_its_entry() {
    let plan = Plan::new();
    let lead = plan.lead();
    let NewEnrolment { enrolment, first } = enrol(&lead, plan.entry(), plan.context());
    assert_eq!((enrolment.lead_id, enrolment.device_id), (lead.id, lead.device_id));
    assert_eq!(enrolment.token, Some(token("COLD")));
    assert_eq!(enrolment.root_id, enrolment.id, "it came by itself");
    assert_eq!(
        (enrolment.step_id, enrolment.entry_step_id),
        (plan.steps.steps[0].id, enrolment.step_id)
    );
    assert_eq!((enrolment.due_at, first.due_at), (now(), now()));
    assert_eq!(first.expires_at, now() + plan.sequence.expires_after);
    assert_eq!(
        (first.state, first.device_id, first.from_pool),
        (MessageState::Queued, lead.device_id, false)
    );
    assert_eq!(first.key, IdempotencyKey::flow(enrolment.id, enrolment.step_id, 0));
    let flow = first.flow.unwrap();
    assert_eq!(
        (flow.enrolment_id, flow.step_id, flow.steps_version),
        (enrolment.id, enrolment.step_id, 1)
    );
}

#[test]
fn the_sequence_says_which_device_writes() {
    let mut plan = Plan::new();
    let mut lead = plan.lead();
    let only = DeviceId::new(&plan.ids, now());
    plan.sequence.device_id = Some(only);
    let new = enrol(&lead, plan.entry(), plan.context());
    assert_eq!((new.enrolment.device_id, new.first.device_id), (Some(only), Some(only)));
    plan.sequence.device_id = None;
    plan.sequence.routing = Routing::Balanced;
    let new = enrol(&lead, plan.entry(), plan.context());
    assert_eq!(
        (new.enrolment.device_id, new.first.device_id, new.first.from_pool),
        (None, None, true)
    );
    assert_eq!(new.first.state, MessageState::Queued, "it waits in the pool");
    plan.sequence.routing = Routing::OwnDevice;
    lead.device_id = None;
    let new = enrol(&lead, plan.entry(), plan.context());
    assert_eq!(
        (new.first.state, new.first.reason, new.first.settled_at),
        (MessageState::Skipped, Some(Reason::NoDevice), Some(now()))
    );
}

#[test]
fn the_time_and_delay_of_a_step_come_before_those_of_its_sequence() {
    let mut plan = Plan::new();
    plan.sequence.time_zone = TimeZone::UTC;
    plan.sequence.send_time = Some("09:00".parse().unwrap());
    let at = |plan: &Plan| send_at(&plan.sequence, &plan.steps.steps[0]).map(|(time, _)| time);
    assert_eq!(at(&plan), Some("09:00".parse().unwrap()));
    plan.steps.steps[0].send_time = Some("21:30".parse().unwrap());
    assert_eq!(at(&plan), Some("21:30".parse().unwrap()));
    plan.sequence.send_time = None;
    plan.steps.steps[0].send_time = None;
    assert_eq!(at(&plan), None);
}

#[test]
fn sent_and_unknown_go_on_to_the_next_step() {
    let plan = Plan::new();
    let new = plan.enrolled();
    for state in [MessageState::Sent, MessageState::Unknown] {
        let advance = advanced(plan.after(&new, state, None));
        assert_eq!(
            (advance.from, advance.to),
            (plan.steps.steps[0].id, plan.steps.steps[1].id)
        );
        assert_eq!((advance.after, advance.from_version, advance.to_version), (state, 1, 1));
        let due_at = now() + HOUR + Step::WAIT;
        let [message] = advance.messages.as_slice() else {
            panic!("one message")
        };
        assert_eq!(
            (advance.due_at, message.due_at),
            (due_at, due_at),
            "the wait counts from the send"
        );
        assert_eq!(message.key, IdempotencyKey::flow(new.enrolment.id, advance.to, 0));
        assert_eq!(message.flow.unwrap().step_id, advance.to);
        assert_eq!(message.device_id, new.enrolment.device_id);
    }
}

#[test]
fn what_failed_goes_on_or_stops_as_the_sequence_says() {
    let mut plan = Plan::new();
    let new = plan.enrolled();
    let ends = [
        (MessageState::Failed, Reason::Rejected),
        (MessageState::Skipped, Reason::Expired),
        (MessageState::Skipped, Reason::TooLong),
        (MessageState::Failed, Reason::RefusedTooOften),
    ];
    for (state, reason) in ends {
        plan.sequence.on_failure = FailurePolicy::Continue;
        assert_eq!(advanced(plan.after(&new, state, Some(reason))).after, state);
        plan.sequence.on_failure = FailurePolicy::Stop;
        let stopped = plan.after(&new, state, Some(reason));
        assert!(
            matches!(stopped, Followed::End(EnrolmentReason::StepFailed)),
            "{reason:?}"
        );
    }
}

#[test]
fn what_a_person_took_out_or_what_came_late_never_ends_an_enrolment() {
    let mut plan = Plan::new();
    plan.sequence.on_failure = FailurePolicy::Stop;
    let new = plan.enrolled();
    advanced(plan.after(&new, MessageState::Skipped, Some(Reason::Late)));
    advanced(plan.after(&new, MessageState::Cancelled, Some(Reason::ByPerson)));
}

#[test]
fn what_says_that_nobody_can_write_to_the_person_ends_the_enrolment() {
    let plan = Plan::new();
    let new = plan.enrolled();
    for (state, reason, expected) in [
        (MessageState::Skipped, Reason::Suppressed, EnrolmentReason::Suppressed),
        (MessageState::Skipped, Reason::Erased, EnrolmentReason::Erased),
        (MessageState::Skipped, Reason::LeadGone, EnrolmentReason::LeadGone),
        (MessageState::Skipped, Reason::DeviceGone, EnrolmentReason::DeviceGone),
        (MessageState::Skipped, Reason::NoDevice, EnrolmentReason::NoDevice),
        (
            MessageState::Skipped,
            Reason::NotOnWhatsApp,
            EnrolmentReason::NotOnWhatsApp,
        ),
        (
            MessageState::Failed,
            Reason::NotOnWhatsApp,
            EnrolmentReason::NotOnWhatsApp,
        ),
        (
            MessageState::Failed,
            Reason::InvalidRecipient,
            EnrolmentReason::NotOnWhatsApp,
        ),
    ] {
        match plan.after(&new, state, Some(reason)) {
            Followed::End(reason) => assert_eq!(reason, expected),
            other => panic!("{reason:?} goes on: {other:?}"),
        }
    }
}

#[test]
fn the_last_step_completes() {
    let mut plan = Plan::new();
    plan.steps.steps.truncate(1);
    let new = plan.enrolled();
    let followed = plan.after(&new, MessageState::Sent, None);
    assert!(matches!(followed, Followed::Complete { removed } if removed.is_empty()));
}

#[test]
fn an_edit_takes_effect_behind_the_active_step_which_keeps_its_wait() {
    let plan = Plan::new();
    let new = plan.enrolled();
    let mut edited = plan.steps.clone();
    edited.version = 2;
    edited.steps[0].wait = 99 * Step::WAIT;
    let removed = edited.steps.remove(1);
    let end = StepEnd {
        name: &new.first.name,
        state: MessageState::Sent,
        reason: None,
        at: now(),
    };
    let course = Course {
        sequence: &plan.sequence,
        from: &plan.steps,
        to: &edited,
        passed: &BTreeSet::from([new.enrolment.step_id]),
    };
    let advance = advanced(follow(&new.enrolment, end, course, plan.context()));
    assert_eq!(
        (advance.to, advance.from_version, advance.to_version),
        (edited.steps[1].id, 1, 2)
    );
    assert_eq!(advance.due_at, now() + Step::WAIT);
    let [gone, next] = advance.messages.as_slice() else {
        panic!("the removed step and the next one")
    };
    assert_eq!(
        (gone.flow.unwrap().step_id, gone.flow.unwrap().steps_version),
        (removed.id, 1)
    );
    assert_eq!(
        (gone.state, gone.reason, gone.settled_at),
        (MessageState::Cancelled, Some(Reason::StepRemoved), Some(now()))
    );
    assert_eq!(
        (next.flow.unwrap().step_id, next.flow.unwrap().steps_version),
        (advance.to, 2)
    );
}

#[test]
fn a_step_ends_when_it_was_sent_else_when_it_was_settled() {
    let plan = Plan::new();
    let mut message = plan.enrolled().first;
    message.state = MessageState::Failed;
    message.settled_at = Some(now() + HOUR);
    message.attempt = Some(crate::domain::message::Attempt {
        id: crate::id::AttemptId::new(&plan.ids, now()),
        transport_message_id: crate::transport::TransportMessageId::new("a").unwrap(),
        provider_id: None,
        device_id: DeviceId::MIN,
        epoch: crate::domain::device::Epoch(1),
        text: String::new(),
        greeting: None,
        attempted_at: now(),
    });
    assert_eq!(StepEnd::of(&message).at, now() + HOUR, "its attempt sent nothing");
    for state in [MessageState::Sent, MessageState::Unknown] {
        message.state = state;
        assert_eq!(StepEnd::of(&message).at, now());
    }
}

/// A completion of the last step, which names a next trigger or none.
fn completed(plan: &Plan, next_trigger: Option<&str>, lead: Option<&Lead>, next: Option<&Plan>) -> Vec<Change> {
    let new = plan.enrolled();
    let mut last = plan.steps.steps[0].clone();
    last.next_trigger = next_trigger.map(token);
    let end = StepEnd {
        name: &new.first.name,
        state: MessageState::Sent,
        reason: None,
        at: now() + HOUR,
    };
    let completed = Completed {
        enrolment: &new.enrolment,
        last: &last,
        end,
        removed: Vec::new(),
        lead,
    };
    let candidates: Vec<Candidate<'_>> = next.iter().map(|one| (&one.sequence, &one.steps)).collect();
    complete(completed, &candidates, plan.context()).changes
}

/// What a set says of the end: reason and what follows; then the exchange of triggers; then who enters what.
type Told = (
    (Option<EnrolmentReason>, Option<EnrolmentId>),
    (Option<Token>, Option<Token>),
    Vec<NewEnrolment>,
);

fn told(changes: Vec<Change>) -> Told {
    let mut told = Told::default();
    for change in changes {
        match change {
            Change::EndEnrolment {
                state, reason, next_id, ..
            } => {
                assert_eq!(state, EnrolmentState::Completed);
                told.0 = (reason, next_id);
            }
            Change::ReplaceTrigger { remove, add, .. } => told.1 = (remove, add),
            Change::Enrol(enrolled) => told.2 = enrolled,
            other => panic!("no part of a completion: {other:?}"),
        }
    }
    told
}

#[test]
fn a_completion_takes_the_trigger_by_which_its_lead_entered() {
    let plan = Plan::new();
    let (end, exchange, enrolled) = told(completed(&plan, None, Some(&plan.lead()), None));
    assert_eq!(end, (None, None));
    assert_eq!(exchange, (Some(token("COLD")), None));
    assert!(enrolled.is_empty());
}

#[test]
fn a_completion_chains_on_in_the_same_set() {
    let plan = Plan::new();
    let mut next = Plan::new();
    next.sequence.user_id = plan.sequence.user_id;
    next.sequence.status = crate::domain::sequence::SequenceStatus::Active;
    next.steps.steps[0].trigger = token("NEXT");
    let lead = plan.lead();
    let (end, exchange, enrolled) = told(completed(&plan, Some("NEXT"), Some(&lead), Some(&next)));
    let [one] = enrolled.as_slice() else {
        panic!("{enrolled:?}")
    };
    assert_eq!(end, (None, Some(one.enrolment.id)));
    assert_eq!(exchange, (Some(token("COLD")), Some(token("NEXT"))));
    assert_ne!(one.enrolment.root_id, one.enrolment.id, "one chain");
    assert_eq!(one.enrolment.sequence_id, next.sequence.id);
    assert_eq!(
        one.first.due_at,
        now() + HOUR + Step::WAIT,
        "the last step's wait later"
    );
}

#[test]
fn a_completion_that_cannot_chain_on_says_why_and_replaces_the_trigger_all_the_same() {
    let plan = Plan::new();
    let lead = plan.lead();
    for (lead, expected) in [
        (Some(&lead), EnrolmentReason::NobodyHasTrigger),
        (None, EnrolmentReason::LeadChanged),
    ] {
        let (end, exchange, enrolled) = told(completed(&plan, Some("NEXT"), lead, None));
        assert_eq!(end, (Some(expected), None));
        assert_eq!(exchange, (Some(token("COLD")), Some(token("NEXT"))));
        assert!(enrolled.is_empty());
    }
}

#[test]
fn an_end_names_the_step_at_which_it_was_planned() {
    let plan = Plan::new();
    let enrolment = plan.enrolled().enrolment;
    let set = end(&enrolment, EnrolmentReason::ByPerson);
    let [
        Change::EndEnrolment {
            step, state, reason, ..
        },
    ] = set.changes.as_slice()
    else {
        panic!("{set:?}")
    };
    assert_eq!((*step, *state), (Some(enrolment.step_id), EnrolmentState::Ended));
    assert_eq!(*reason, Some(EnrolmentReason::ByPerson));
}
