//! Made-up histories.

use std::time::Duration;

use super::Violation;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::content::Content;
use crate::domain::device::Epoch;
use crate::domain::enrolment::{Enrolment, EnrolmentState, FlowRef};
use crate::domain::message::{IdempotencyKey, Message, MessageScope, MessageState};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::sequence::{Sequence, SequenceStatus, SequenceSteps, Step};
use crate::domain::token::Token;
use crate::id::{
    AttemptId, CampaignId, DeviceId, EnrolmentId, IdSource, Incarnation, LeadId, MessageId, SequenceId, StepId, UserId,
};
use crate::simulation::gateway::GatewayKind;
use crate::simulation::history::{BeginSeen, CallSeen, Moment, Record, SettleSeen, What};
use crate::store::{Begun, Settled, Verdict};
use crate::time::Timestamp;
use crate::transport::TransportMessageId;

/// One user with one device and one triggered campaign.
pub(super) struct Story {
    pub(super) record: Record,
    pub(super) user: UserId,
    pub(super) device: DeviceId,
    pub(super) campaign: CampaignId,
    pub(super) node: Incarnation,
    ids: IdSource,
    people: u32,
}

pub(super) const T0: Timestamp = Timestamp::from_millis(1_795_219_200_000);

impl Story {
    pub(super) fn of(kind: GatewayKind) -> Self {
        let ids = IdSource::seeded([5; 32]);
        let user = UserId::new(&ids, T0);
        let device = DeviceId::new(&ids, T0);
        let campaign_id = CampaignId::new(&ids, T0);
        let node = Incarnation::new(&ids, T0);
        let mut campaign = Campaign::draft(campaign_id, user, "c", Content::text("x"), T0);
        campaign.status = CampaignStatus::Triggered;
        let mut record = Record {
            campaigns: vec![campaign],
            ..Record::default()
        };
        record.facts.kinds.insert(device, kind);
        record.facts.owners.insert(device, user);
        record.facts.tags.insert(user, "tag".to_owned());
        let mut story = Self {
            record,
            user,
            device,
            campaign: campaign_id,
            node,
            ids,
            people: 0,
        };
        story.add(0.0, What::Status(campaign_id, CampaignStatus::Triggered));
        story.add(0.0, What::Claimed(node, device, Epoch(1)));
        story
    }

    pub(super) fn add(&mut self, seconds: f64, what: What) {
        let at = Duration::from_secs_f64(seconds);
        self.record.moments.push(Moment { at, what });
    }

    /// Adds a row to another person.
    pub(super) fn row(&mut self, state: MessageState) -> MessageId {
        self.people += 1;
        let id = MessageId::new(&self.ids, T0);
        let phone = Phone::from_e164(&format!("+6012{:07}", self.people)).unwrap();
        let person = PersonKey::of(&self.record.facts.seed, self.user, &phone);
        self.record.rows.push(Message {
            id,
            user_id: self.user,
            scope: MessageScope::Campaign(self.campaign),
            key: IdempotencyKey::campaign(self.campaign, person, 0),
            round: 0,
            supersedes: None,
            superseded: false,
            lead_id: None,
            phone: Some(phone),
            person,
            name: String::new(),
            custom: Default::default(),
            device_id: Some(self.device),
            flow: None,
            from_pool: false,
            content: None,
            override_suppression: false,
            due_at: T0,
            delay: None,
            expires_at: T0 + Campaign::EXPIRES_AFTER,
            held_at: None,
            state,
            reason: None,
            detail: None,
            refusal_count: 0,
            attempt: None,
            doubt: None,
            delivery: None,
            delivery_at: None,
            settled_at: None,
            created_at: T0,
        });
        id
    }

    /// Adds the run of another person through a sequence of two steps, made with the first run. It stands at the first.
    pub(super) fn enrolment(&mut self, state: EnrolmentState) -> EnrolmentId {
        if self.record.sequences.is_empty() {
            let id = SequenceId::new(&self.ids, T0);
            let mut sequence = Sequence::draft(id, self.user, "s", T0);
            sequence.status = SequenceStatus::Active;
            sequence.steps_version = 1;
            let step = |day: u16| Step {
                id: StepId::new(&self.ids, T0),
                day,
                trigger: Token::parse(if day == 1 { "in" } else { "on" }).unwrap(),
                next_trigger: (day == 2).then(|| Token::parse("next").unwrap()),
                entry_point: day == 1,
                wait: Step::WAIT,
                content: Content::text("x"),
                send_time: None,
                delay: None,
            };
            let steps = vec![step(1), step(2)];
            self.record.sequences.push(sequence);
            self.record.steps.push(SequenceSteps {
                sequence_id: id,
                version: 1,
                steps,
            });
        }
        self.people += 1;
        let id = EnrolmentId::new(&self.ids, T0);
        let phone = Phone::from_e164(&format!("+6012{:07}", self.people)).unwrap();
        let step_id = self.record.steps[0].steps[0].id;
        self.record.enrolments.push(Enrolment {
            id,
            user_id: self.user,
            sequence_id: self.record.sequences[0].id,
            lead_id: LeadId::MIN,
            phone: Some(phone),
            person: PersonKey::of(&self.record.facts.seed, self.user, &phone),
            device_id: Some(self.device),
            token: None,
            root_id: id,
            entry_step_id: step_id,
            steps_version: 1,
            step_id,
            due_at: T0,
            state,
            reason: None,
            next_id: None,
            created_at: T0,
            ended_at: None,
        });
        id
    }

    /// Adds a message of a run.
    pub(super) fn flow(&mut self, run: EnrolmentId, step: usize, state: MessageState) -> MessageId {
        let id = self.row(state);
        let steps = &self.record.steps[0];
        let flow = FlowRef {
            enrolment_id: run,
            step_id: steps.steps[step].id,
            steps_version: steps.version,
        };
        let scope = MessageScope::Sequence(steps.sequence_id);
        let person = self.record.enrolments.iter().find(|one| one.id == run).unwrap().person;
        self.change(id, |row| {
            (row.scope, row.flow, row.person) = (scope, Some(flow), person);
            row.key = IdempotencyKey::unique(id);
        });
        id
    }

    pub(super) fn change(&mut self, id: MessageId, change: impl FnOnce(&mut Message)) {
        change(self.record.rows.iter_mut().find(|row| row.id == id).unwrap());
    }

    pub(super) fn attempt(&self) -> AttemptId {
        AttemptId::new(&self.ids, T0)
    }

    pub(super) fn begin(&mut self, seconds: f64, message: MessageId, attempt: AttemptId) {
        let begun = BeginSeen {
            incarnation: self.node,
            device_id: self.device,
            epoch: Epoch(1),
            message_id: message,
            attempt_id: attempt,
            again: false,
            asked_at: Duration::from_secs_f64(seconds),
            attempted_at: T0 + Duration::from_secs_f64(seconds),
            answer: Begun::Yes,
        };
        self.add(seconds, What::Begin(begun));
    }

    pub(super) fn call(&self, message: MessageId, attempt: AttemptId) -> CallSeen {
        let row = self.record.rows.iter().find(|row| row.id == message).unwrap();
        CallSeen {
            device_id: self.device,
            user_id: self.user,
            message_id: message,
            attempt_id: attempt,
            transport_message_id: TransportMessageId::from_attempt(attempt),
            to: row.phone.unwrap(),
            text: "with tag".to_owned(),
        }
    }

    pub(super) fn called(&mut self, seconds: f64, message: MessageId, attempt: AttemptId) {
        let call = self.call(message, attempt);
        self.add(seconds, What::Called(call));
    }

    pub(super) fn received(&mut self, seconds: f64, message: MessageId, attempt: AttemptId) {
        let call = self.call(message, attempt);
        self.add(seconds, What::Received(call));
    }

    pub(super) fn settled(&mut self, seconds: f64, epoch: Epoch, verdict: Verdict, answer: Settled) {
        let settled = SettleSeen {
            incarnation: self.node,
            device_id: self.device,
            epoch,
            message_id: MessageId::MIN,
            attempt_id: AttemptId::MIN,
            verdict,
            answer,
        };
        self.add(seconds, What::Settle(settled));
    }
}

pub(super) fn assert_holds(violations: &[Violation]) {
    assert!(violations.is_empty(), "{violations:?}");
}

pub(super) fn assert_broken(violations: &[Violation], times: usize) {
    assert_eq!(violations.len(), times, "{violations:?}");
}
