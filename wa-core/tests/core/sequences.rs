//! Sequences from end to end on the virtual clock: one node, the memory store, days that pass in a moment.

#![expect(clippy::unwrap_used, reason = "a test that cannot set its scene has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use wa_core::domain::access::RequestScope;
use wa_core::domain::campaign::Routing;
use wa_core::domain::content::Content;
use wa_core::domain::device::{Device, Hold, HoldReason};
use wa_core::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState};
use wa_core::domain::lead::Lead;
use wa_core::domain::message::{Message, MessageScope, MessageState, Reason};
use wa_core::domain::pacing::{DelayRange, PacingPolicy};
use wa_core::domain::phone::Phone;
use wa_core::domain::platform::Platform;
use wa_core::domain::schedule::{LatePolicy, LocalTime, TimeZone};
use wa_core::domain::sequence::{
    FailurePolicy, ReEntry, Sequence, SequenceReason, SequenceStatus, SequenceSteps, Step,
};
use wa_core::domain::token::{Token, TokenSet};
use wa_core::engine::config::EngineConfig;
use wa_core::engine::{Engine, EngineBuilder, Runner};
use wa_core::id::{DeviceId, IdSource, LeadId, SequenceId, StepId, UserId};
use wa_core::seed::Seed;
use wa_core::simulation::{Scheduler, TaskId, Timeline, VirtualClock};
use wa_core::store::{
    Change, ChangeSet, EnrolmentFilter, LeadStore, MemoryStore, MessageFilter, OnDuplicate, OutboxStore, PageRequest,
    SequenceStore, Store, WriteClass,
};
use wa_core::time::Timestamp;
use wa_core::transport::{NotSentKind, SendError, StubTransport};

const ZONE: TimeZone = TimeZone::KUALA_LUMPUR;
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

fn at(date: &str, time: &str) -> Timestamp {
    ZONE.instant(date.parse().unwrap(), time.parse().unwrap())
}

fn nine() -> Option<LocalTime> {
    LocalTime::from_hm(9, 0)
}

fn token(text: &str) -> Token {
    Token::parse(text).unwrap()
}

/// One node over a memory store, on a clock that jumps.
struct World {
    store: Arc<MemoryStore>,
    timeline: Arc<Timeline>,
    scheduler: Scheduler,
    transport: Arc<StubTransport>,
    ids: Arc<IdSource>,
    start: Timestamp,
    user: UserId,
    device: DeviceId,
    node: TaskId,
    policy: PacingPolicy,
}

impl World {
    /// A node that runs from `start` on, with a user who has one device.
    fn new(start: Timestamp, policy: PacingPolicy) -> Self {
        let timeline = Timeline::new();
        let seed = Seed::from_number(3);
        let mut scheduler = Scheduler::new(Arc::clone(&timeline), seed.rng(b"", "scheduler"));
        let ids = Arc::new(IdSource::seeded([9; 32]));
        let (user, device) = (UserId::new(&ids, start), DeviceId::new(&ids, start));
        let node = scheduler.spawn(async {});
        let mut world = Self {
            store: Arc::new(MemoryStore::new()),
            timeline,
            scheduler,
            transport: Arc::new(StubTransport::new()),
            ids,
            start,
            user,
            device,
            node,
            policy,
        };
        world.insert_device(user, device);
        world.start_node();
        world
    }

    fn unpaced(start: Timestamp) -> Self {
        Self::new(start, PacingPolicy::unpaced())
    }

    fn start_node(&mut self) {
        let mut config = EngineConfig::new("node-1").pacing(self.policy.clone());
        // Days pass here: what is looked at every second elsewhere is looked at every five minutes.
        config.look_every = Duration::from_secs(300);
        config.plan_every = Duration::from_secs(300);
        config.refresh_every = Duration::from_secs(900);
        config.beat_every = Duration::from_secs(900);
        config.lease_for = Duration::from_secs(4 * 3_600);
        let clock = Arc::new(VirtualClock::new(Arc::clone(&self.timeline), self.start));
        let (store, transport) = (self.store.clone(), self.transport.clone());
        self.node = self.scheduler.spawn(async move {
            let builder = EngineBuilder::new(store, clock, config).transport(transport);
            let core = builder.ids(IdSource::seeded([4; 32])).open().await.unwrap();
            let engine = Engine::start(core).await.unwrap();
            Runner::new(engine).run(std::future::pending()).await;
        });
    }

    fn now(&self) -> Timestamp {
        self.start + self.timeline.now()
    }

    fn run_until(&mut self, until: Timestamp) {
        let timeline = Arc::clone(&self.timeline);
        let span = Duration::from_millis(u64::try_from(until.as_millis() - self.start.as_millis()).unwrap());
        let alarm = self.scheduler.spawn(async move { timeline.sleep_until(span).await });
        while self.scheduler.is_alive(alarm) {
            assert!(self.scheduler.step(), "the alarm is always ahead");
        }
    }

    fn run_for(&mut self, span: Duration) {
        self.run_until(self.now() + span);
    }

    fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        work.now_or_never().expect("the memory store never waits")
    }

    fn commit(&self, set: ChangeSet) {
        self.wait(self.store.commit(set, WriteClass::Api, self.now())).unwrap();
    }

    fn insert_device(&self, user: UserId, id: DeviceId) {
        let device = Device::new(id, user, format!("{id}"), Platform::STUB, self.now());
        self.commit(ChangeSet::one(Change::InsertDevice(Box::new(device))));
    }

    fn lead(&self, number: u32, triggers: &str) -> LeadId {
        self.lead_of(self.user, Some(self.device), number, triggers)
    }

    fn lead_of(&self, user: UserId, device: Option<DeviceId>, number: u32, triggers: &str) -> LeadId {
        let id = LeadId::new(&self.ids, self.now());
        let phone = Phone::from_e164(&format!("+6012{number:07}")).unwrap();
        let mut lead = Lead::new(id, user, device, phone, self.now());
        lead.name = "Ali".to_owned();
        lead.triggers = TokenSet::parse(triggers).unwrap();
        self.commit(ChangeSet::one(Change::InsertLead {
            lead: Box::new(lead),
            on_duplicate: OnDuplicate::Refuse,
        }));
        id
    }

    /// Steps with these triggers, the first an entry point.
    fn steps(&self, triggers: &[&str], wait: Duration) -> Vec<Step> {
        let step = |(place, trigger): (usize, &&str)| Step {
            id: StepId::new(&self.ids, self.now()),
            day: u16::try_from(place).unwrap() + 1,
            trigger: token(trigger),
            next_trigger: None,
            entry_point: place == 0,
            wait,
            content: Content::text(format!("Hi {{{{name}}}}, {trigger}")),
            send_time: None,
            delay: None,
        };
        triggers.iter().enumerate().map(step).collect()
    }

    fn sequence(&self, steps: Vec<Step>, edit: impl FnOnce(&mut Sequence)) -> SequenceId {
        let id = SequenceId::new(&self.ids, self.now());
        let mut sequence = Sequence::draft(id, self.user, steps[0].trigger.as_str(), self.now());
        sequence.time_zone = ZONE;
        sequence.steps_version = 1;
        edit(&mut sequence);
        let steps = SequenceSteps {
            sequence_id: id,
            version: 1,
            steps,
        };
        self.commit(
            ChangeSet::one(Change::InsertSequence {
                sequence: Box::new(sequence),
                steps: Some(Box::new(steps)),
            })
            .and(self.status(id, &[SequenceStatus::Draft], SequenceStatus::Active)),
        );
        id
    }

    fn status(&self, sequence_id: SequenceId, from: &'static [SequenceStatus], to: SequenceStatus) -> Change {
        Change::SetSequenceStatus {
            user_id: self.user,
            sequence_id,
            from,
            to,
            reason: Some(SequenceReason::ByPerson),
        }
    }

    /// Replaces the steps of a sequence by what `edit` makes of them.
    fn edit(&self, id: SequenceId, edit: impl FnOnce(&mut Vec<Step>)) {
        let sequence = self.read(id);
        let mut steps = self
            .wait(self.store.steps(&[(id, sequence.steps_version)]))
            .unwrap()
            .remove(0);
        steps.version += 1;
        edit(&mut steps.steps);
        self.commit(ChangeSet::one(Change::UpdateSequence {
            sequence: Box::new(sequence),
            steps: Some(Box::new(steps)),
        }));
    }

    fn read(&self, id: SequenceId) -> Sequence {
        self.wait(self.store.sequences_by_id(&[id])).unwrap().remove(0)
    }

    fn read_lead(&self, user: UserId, id: LeadId) -> Lead {
        self.wait(self.store.leads_by_id(user, &[id])).unwrap().remove(0)
    }

    fn triggers(&self, lead: LeadId) -> BTreeSet<String> {
        let lead = self.read_lead(self.user, lead);
        lead.triggers
            .iter()
            .map(|token| token.as_str().to_lowercase())
            .collect()
    }

    fn enrolments(&self, sequence: SequenceId) -> Vec<Enrolment> {
        let filter = EnrolmentFilter {
            sequence_id: Some(sequence),
            ..EnrolmentFilter::default()
        };
        let scope = RequestScope::user(self.user);
        let page = PageRequest::first(1_000);
        self.wait(self.store.enrolments(&scope, &filter, &page)).unwrap().rows
    }

    fn messages(&self, sequence: SequenceId) -> Vec<Message> {
        let filter = MessageFilter {
            scope: Some(MessageScope::Sequence(sequence)),
            with_superseded: true,
            ..MessageFilter::default()
        };
        let scope = RequestScope::user(self.user);
        let mut rows = Vec::new();
        let mut page = PageRequest::first(1_000);
        loop {
            let read = self.wait(self.store.messages(&scope, &filter, &page)).unwrap();
            rows.extend(read.rows);
            match read.next {
                Some(next) => page = PageRequest::after(next, 1_000),
                None => return rows,
            }
        }
    }

    /// The messages of each lead in the order in which they were sent.
    fn timelines(&self, sequence: SequenceId) -> BTreeMap<LeadId, Vec<Message>> {
        let mut of: BTreeMap<LeadId, Vec<Message>> = BTreeMap::new();
        for message in self.messages(sequence) {
            of.entry(message.lead_id.unwrap()).or_default().push(message);
        }
        for rows in of.values_mut() {
            rows.sort_by_key(|row| (sent_at(row), row.due_at));
        }
        of
    }
}

fn sent_at(message: &Message) -> Option<Timestamp> {
    message.attempt.as_ref().map(|attempt| attempt.attempted_at)
}

fn fitness_triggers(days: usize) -> Vec<String> {
    let name = |day| match day {
        1 => "fitness".to_owned(),
        day => format!("fitness_day{day}"),
    };
    (1..=days).map(name).collect()
}

/// The month of fitness, at nine each morning; with what the last step leads to.
fn fitness(world: &World, days: usize, next: Option<&str>, edit: impl FnOnce(&mut Sequence)) -> SequenceId {
    let triggers = fitness_triggers(days);
    let triggers: Vec<&str> = triggers.iter().map(String::as_str).collect();
    let mut steps = world.steps(&triggers, DAY);
    steps.last_mut().unwrap().next_trigger = next.map(token);
    world.sequence(steps, |sequence| {
        sequence.send_time = nine();
        edit(sequence);
    })
}

#[test]
fn thirty_days_of_fitness_reach_every_lead_at_nine_however_late_the_last_one_gets_each() {
    let mut world = World::unpaced(at("2026-11-21", "20:00"));
    // Twelve leads, half an hour apart: the last one gets hers at half past two.
    let half = HOUR / 2;
    let id = fitness(&world, 30, None, |sequence| {
        sequence.delay = Some(DelayRange::new(half..=half).unwrap());
    });
    let leads: Vec<_> = (0..12)
        .map(|number| world.lead(number, "VIP, fitness, COLDVITAC"))
        .collect();
    world.run_until(at("2026-12-22", "00:00"));
    let timelines = world.timelines(id);
    assert_eq!(timelines.keys().copied().collect::<Vec<_>>(), leads);
    let triggers = fitness_triggers(30);
    let first = "2026-11-22".parse::<wa_core::domain::schedule::LocalDate>().unwrap();
    for rows in timelines.values() {
        assert_eq!(rows.len(), 30);
        for (day, row) in rows.iter().enumerate() {
            let due_at = ZONE.instant(first.plus_days(u32::try_from(day).unwrap()), nine().unwrap());
            assert_eq!((row.state, row.due_at), (MessageState::Sent, due_at), "day {day}");
            let late = sent_at(row).unwrap().as_millis() - due_at.as_millis();
            assert!((0..=6 * 3_600_000).contains(&late), "day {day}: {late} ms late");
            assert!(row.attempt.as_ref().unwrap().text.contains(&triggers[day]), "day {day}");
        }
    }
    assert_eq!(world.transport.sent().len(), 12 * 30);
    for lead in leads {
        let left: Vec<_> = world.triggers(lead).into_iter().collect();
        assert_eq!(
            left,
            ["coldvitac", "vip"],
            "exactly the one by which it entered is gone"
        );
    }
    assert!(
        world
            .enrolments(id)
            .iter()
            .all(|one| one.state == EnrolmentState::Completed && one.reason.is_none())
    );
}

#[test]
fn the_last_step_leads_on_to_the_next_sequence_its_wait_later() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let id = fitness(&world, 3, Some("advanced"), |_| {});
    let next = world.sequence(world.steps(&["advanced", "advanced_day2"], DAY), |sequence| {
        sequence.send_time = nine()
    });
    let lead = world.lead(1, "fitness, vip");
    world.run_until(at("2026-11-23", "12:00"));
    assert_eq!(
        world.triggers(lead),
        BTreeSet::from(["advanced".to_owned(), "vip".to_owned()])
    );
    let done = world.enrolments(id).remove(0);
    let follows = world.enrolments(next).remove(0);
    assert_eq!(
        (done.state, done.reason, done.next_id),
        (EnrolmentState::Completed, None, Some(follows.id))
    );
    assert_eq!((follows.state, follows.root_id), (EnrolmentState::Open, done.id));
    assert_eq!(follows.due_at, at("2026-11-24", "09:00"));
    world.run_until(at("2026-11-26", "12:00"));
    let due: Vec<_> = world.messages(next).iter().map(|row| row.due_at).collect();
    assert_eq!(due, [at("2026-11-24", "09:00"), at("2026-11-25", "09:00")]);
    assert_eq!(world.triggers(lead), BTreeSet::from(["vip".to_owned()]));
    assert_eq!((world.enrolments(id).len(), world.enrolments(next).len()), (1, 1));
}

#[test]
fn a_lead_in_two_sequences_has_two_timelines() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let morning = fitness(&world, 4, None, |_| {});
    let quick = world.sequence(world.steps(&["sale", "sale_2", "sale_3"], 5 * HOUR), |_| {});
    let lead = world.lead(1, "sale, fitness");
    world.run_until(at("2026-11-21", "20:00"));
    let sent: Vec<_> = world.messages(quick).iter().filter_map(sent_at).collect();
    assert_eq!(sent.len(), 3);
    assert!(sent.windows(2).all(|pair| {
        let gap = pair[1].as_millis() - pair[0].as_millis();
        (5 * 3_600_000..5 * 3_600_000 + 120_000).contains(&gap)
    }));
    assert_eq!(world.triggers(lead), BTreeSet::from(["fitness".to_owned()]));
    assert_eq!(world.enrolments(morning)[0].state, EnrolmentState::Open);
    world.run_until(at("2026-11-25", "10:00"));
    assert_eq!(
        world
            .messages(morning)
            .iter()
            .filter(|row| row.state == MessageState::Sent)
            .count(),
        4
    );
    assert!(world.triggers(lead).is_empty());
}

#[test]
fn a_trigger_that_only_begins_alike_does_not_enter_and_case_does_not_matter() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let cold = world.sequence(world.steps(&["COLD", "COLD_2"], DAY), |_| {});
    world.lead(1, "COLDVITAC");
    let in_it = world.lead(2, "vip, cold");
    world.run_for(2 * HOUR);
    let leads: Vec<_> = world.enrolments(cold).iter().map(|one| one.lead_id).collect();
    assert_eq!(leads, [in_it]);
}

#[test]
fn leads_of_another_user_with_the_same_number_and_trigger_are_not_touched() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let (other, device) = (
        UserId::new(&world.ids, world.now()),
        DeviceId::new(&world.ids, world.now()),
    );
    world.insert_device(other, device);
    let own = world.lead(1, "fitness");
    let foreign = world.lead_of(other, Some(device), 1, "fitness");
    let before = world.read_lead(other, foreign);
    let id = fitness(&world, 2, None, |_| {});
    world.run_until(at("2026-11-23", "10:00"));
    assert_eq!(world.messages(id).len(), 2);
    assert!(world.triggers(own).is_empty());
    assert_eq!(world.read_lead(other, foreign), before);
    let scope = RequestScope::user(other);
    let page = PageRequest::first(10);
    let rows = world
        .wait(world.store.messages(&scope, &MessageFilter::default(), &page))
        .unwrap();
    assert!(rows.rows.is_empty());
}

#[test]
fn leads_that_are_there_already_enter_when_a_sequence_becomes_active_and_so_do_those_that_come_by_niche() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let by_trigger = world.lead(1, "fitness");
    let by_niche = world.lead(2, "");
    let mut lead = world.read_lead(world.user, by_niche);
    lead.niches = TokenSet::parse("gym").unwrap();
    world.commit(ChangeSet::one(Change::UpdateLead(Box::new(lead))));
    world.lead(3, "other");
    world.run_for(HOUR / 2);
    let id = fitness(&world, 2, None, |sequence| sequence.niche = Some(token("GYM")));
    world.run_for(HOUR / 4);
    let mut leads: Vec<_> = world.enrolments(id).iter().map(|one| one.lead_id).collect();
    leads.sort_unstable();
    assert_eq!(leads, [by_trigger, by_niche]);
}

#[test]
fn a_chain_that_leads_back_is_stopped_by_the_re_entry_policy_and_says_so() {
    for (re_entry, times) in [(ReEntry::Never, 1), (ReEntry::AfterCompletion, 1), (ReEntry::Always, 6)] {
        let mut world = World::unpaced(at("2026-11-21", "08:00"));
        let ring = |own: &str, next: &str| {
            let mut steps = world.steps(&[own], HOUR);
            steps[0].next_trigger = Some(token(next));
            world.sequence(steps, |sequence| sequence.re_entry = re_entry)
        };
        let (first, second) = (ring("a", "b"), ring("b", "a"));
        world.lead(1, "a, vip");
        world.run_for(9 * HOUR + HOUR / 2);
        let of_first = world.enrolments(first);
        assert_eq!(of_first.len(), times, "{re_entry:?}");
        let last = world.enrolments(second).pop().unwrap();
        if re_entry == ReEntry::Always {
            assert_eq!(last.reason, None);
        } else {
            let end = (last.state, last.reason, last.next_id);
            let refused = Some(EnrolmentReason::ReEntryRefused);
            assert_eq!(end, (EnrolmentState::Completed, refused, None), "{re_entry:?}");
        }
    }
}

#[test]
fn a_chain_to_a_trigger_that_no_active_sequence_has_says_so() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let id = fitness(&world, 1, Some("nowhere"), |_| {});
    let lead = world.lead(1, "fitness");
    world.run_until(at("2026-11-21", "10:00"));
    let done = world.enrolments(id).remove(0);
    assert_eq!(
        (done.state, done.reason),
        (EnrolmentState::Completed, Some(EnrolmentReason::NobodyHasTrigger))
    );
    assert_eq!(world.triggers(lead), BTreeSet::from(["nowhere".to_owned()]));
}

#[test]
fn an_edit_while_it_runs_skips_what_was_removed_and_brings_what_was_added() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let id = fitness(&world, 4, None, |_| {});
    let lead = world.lead(1, "fitness");
    world.run_until(at("2026-11-22", "12:00"));
    let added = world.steps(&["added"], DAY).remove(0);
    let added_id = added.id;
    world.edit(id, |steps| {
        steps.remove(3);
        steps.push(Step {
            entry_point: false,
            ..added
        });
    });
    world.run_until(at("2026-11-26", "12:00"));
    let rows = &world.timelines(id)[&lead];
    let of = |state| rows.iter().filter(|row| row.state == state).collect::<Vec<_>>();
    let sent = of(MessageState::Sent);
    let removed = of(MessageState::Cancelled);
    assert_eq!((sent.len(), removed.len()), (4, 1));
    assert_eq!(removed[0].reason, Some(Reason::StepRemoved));
    assert_eq!(sent[3].flow.unwrap().step_id, added_id);
    // Day 3 was the active step when the edit came: it kept its place, its text and its hour.
    let due: Vec<_> = sent.iter().map(|row| row.due_at).collect();
    assert_eq!(due[2], at("2026-11-23", "09:00"));
    assert_eq!(world.enrolments(id)[0].state, EnrolmentState::Completed);
}

#[test]
fn steps_that_change_places_are_sent_once_each() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let id = fitness(&world, 4, None, |_| {});
    world.lead(1, "fitness");
    world.run_until(at("2026-11-22", "12:00"));
    // Days 1 and 2 are sent, day 3 is active. Now day 1 comes after day 3.
    world.edit(id, |steps| {
        let first = steps.remove(0);
        steps.insert(
            2,
            Step {
                entry_point: false,
                ..first
            },
        );
        steps[0].entry_point = true;
    });
    world.run_until(at("2026-11-27", "12:00"));
    let rows = world.messages(id);
    let steps: BTreeSet<_> = rows.iter().map(|row| row.flow.unwrap().step_id).collect();
    assert_eq!((rows.len(), steps.len()), (4, 4));
    assert!(rows.iter().all(|row| row.state == MessageState::Sent));
    assert_eq!(world.enrolments(id)[0].state, EnrolmentState::Completed);
}

#[test]
fn a_pause_holds_what_is_due_and_a_resumed_sequence_goes_on_where_it_stood() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let id = fitness(&world, 3, None, |_| {});
    world.lead(1, "fitness");
    world.run_until(at("2026-11-21", "10:00"));
    world.commit(ChangeSet::one(world.status(
        id,
        &[SequenceStatus::Active],
        SequenceStatus::Paused,
    )));
    let later = world.lead(2, "fitness");
    world.run_until(at("2026-11-24", "10:00"));
    assert_eq!(world.transport.sent().len(), 1);
    assert!(world.messages(id).iter().any(|row| row.state == MessageState::Held));
    assert_eq!(world.enrolments(id).len(), 1, "nobody enters while it is paused");
    world.commit(ChangeSet::one(world.status(
        id,
        &[SequenceStatus::Paused],
        SequenceStatus::Active,
    )));
    world.run_until(at("2026-11-24", "10:10"));
    assert_eq!(world.transport.sent().len(), 2, "the step that was held goes at once");
    world.run_until(at("2026-11-25", "10:00"));
    assert_eq!(world.timelines(id)[&later].len(), 2);
    world.run_until(at("2026-11-28", "10:00"));
    assert!(
        world
            .enrolments(id)
            .iter()
            .all(|one| one.state == EnrolmentState::Completed)
    );
    assert_eq!(world.transport.sent().len(), 6);
}

#[test]
fn a_failed_step_is_followed_by_the_next_or_ends_the_run_as_the_sequence_says() {
    for (policy, sent, state) in [
        (FailurePolicy::Continue, 2, EnrolmentState::Completed),
        (FailurePolicy::Stop, 0, EnrolmentState::Ended),
    ] {
        let mut world = World::unpaced(at("2026-11-21", "08:00"));
        world
            .transport
            .answer_next(Err(SendError::not_sent(NotSentKind::Rejected, "no")));
        let id = fitness(&world, 3, None, |sequence| sequence.on_failure = policy);
        let lead = world.lead(1, "fitness");
        world.run_until(at("2026-11-25", "10:00"));
        let rows = world.messages(id);
        assert_eq!(
            rows.iter().filter(|row| row.state == MessageState::Sent).count(),
            sent,
            "{policy:?}"
        );
        let run = world.enrolments(id).remove(0);
        assert_eq!(run.state, state, "{policy:?}");
        assert_eq!(
            run.reason,
            (policy == FailurePolicy::Stop).then_some(EnrolmentReason::StepFailed)
        );
        let keeps = policy == FailurePolicy::Stop;
        assert_eq!(world.triggers(lead).contains("fitness"), keeps, "{policy:?}");
    }
}

#[test]
fn a_sequence_of_whose_messages_too_many_fail_pauses_itself() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    for _ in 0..12 {
        world
            .transport
            .answer_next(Err(SendError::not_sent(NotSentKind::Rejected, "no")));
    }
    let id = fitness(&world, 2, None, |_| {});
    for number in 0..30 {
        world.lead(number, "fitness");
    }
    world.run_until(at("2026-11-21", "09:30"));
    let sequence = world.read(id);
    assert_eq!(
        (sequence.status, sequence.reason),
        (SequenceStatus::Paused, Some(SequenceReason::ErrorRate))
    );
}

#[test]
fn what_was_due_while_nobody_was_there_is_skipped_or_sent_as_the_sequence_says() {
    for (policy, first) in [
        (LatePolicy::Skip, MessageState::Skipped),
        (LatePolicy::Run, MessageState::Sent),
    ] {
        let mut world = World::unpaced(at("2026-11-21", "08:00"));
        let id = fitness(&world, 2, None, |sequence| sequence.late_policy = policy);
        world.lead(1, "fitness");
        world.run_until(at("2026-11-21", "08:30"));
        world.scheduler.kill(world.node);
        world.run_until(at("2026-11-21", "12:00"));
        world.start_node();
        world.run_until(at("2026-11-22", "12:00"));
        let rows = world.messages(id);
        let states: Vec<_> = rows.iter().map(|row| row.state).collect();
        assert_eq!(states, [first, MessageState::Sent], "{policy:?}");
        if policy == LatePolicy::Skip {
            assert_eq!(rows[0].reason, Some(Reason::Late));
        }
        assert_eq!(rows[1].due_at, at("2026-11-22", "09:00"), "{policy:?}");
    }
}

#[test]
fn a_balanced_sequence_keeps_the_device_of_each_lead_and_goes_elsewhere_when_that_cannot_send() {
    let mut world = World::unpaced(at("2026-11-21", "08:00"));
    let second = DeviceId::new(&world.ids, world.now());
    world.insert_device(world.user, second);
    let id = fitness(&world, 4, None, |sequence| sequence.routing = Routing::RoundRobin);
    for number in 0..6 {
        world.lead_of(world.user, None, number, "fitness");
    }
    world.run_until(at("2026-11-23", "12:00"));
    let devices = |world: &World| -> BTreeMap<LeadId, Vec<DeviceId>> {
        let device = |row: &Message| row.attempt.as_ref().map(|attempt| attempt.device_id);
        let timelines = world.timelines(id).into_iter();
        timelines
            .map(|(lead, rows)| (lead, rows.iter().filter_map(device).collect()))
            .collect()
    };
    let so_far = devices(&world);
    let used: BTreeSet<_> = so_far.values().flatten().copied().collect();
    assert_eq!(used, BTreeSet::from([world.device, second]), "both devices have work");
    assert!(
        so_far
            .values()
            .all(|one| one.len() == 3 && one.iter().all(|id| *id == one[0])),
        "{so_far:?}"
    );
    let hold = Hold {
        reason: HoldReason::ByPerson,
        since_at: world.now(),
        detail: None,
    };
    world.commit(ChangeSet::one(Change::SetDeviceHold {
        user_id: world.user,
        device_id: second,
        hold: Some(hold),
    }));
    world.run_until(at("2026-11-24", "12:00"));
    assert!(
        devices(&world)
            .values()
            .all(|one| one.len() == 4 && one[3] == world.device)
    );
}
