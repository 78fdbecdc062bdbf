//! Runs a scenario: nodes with real engines over one store, people, gateways, and somebody who watches.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::oneshot;
use rand::RngExt as _;

use super::clock::{Timeline, VirtualClock};
use super::faulty_store::{Drive, FaultyParts, FaultyStore, InOnePoll, PlannerFlaw, Switch};
use super::gateway::{GatewayKind, Gateways, SimTransport};
use super::history::{EnrolmentSeen, Facts, History, NumbersSeen, Record, RowSeen, SequenceSeen, What};
use super::invariants::{self, Violation};
use super::scenario::{CampaignPlan, Deed, Scenario, SequenceDeed, SequencePlan};
use super::scheduler::{Scheduler, TaskId};
use crate::domain::access::RequestScope;
use crate::domain::audience::{Audience, CampaignEntry, TargetFilter};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::content::Content;
use crate::domain::device::{Device, Hold, HoldReason, LinkState};
use crate::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState};
use crate::domain::lead::Lead;
use crate::domain::message::{IdempotencyKey, Message, MessageScope, MessageState};
use crate::domain::pacing::{Caps, DelayRange, PacingPolicy};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::schedule::{LatePolicy, LocalTime, QuietHours};
use crate::domain::sequence::{Sequence, SequenceReason, SequenceStatus, SequenceSteps, Step};
use crate::domain::summary::Numbers;
use crate::domain::suppression::{Suppression, SuppressionReason};
use crate::domain::token::Token;
use crate::engine::config::EngineConfig;
use crate::engine::{Core, Ended, Engine, EngineBuilder, OpenError, Runner};
use crate::id::{
    AttemptId, CampaignId, DeviceId, EnrolmentId, IdSource, LeadId, MessageId, SequenceId, StepId, UserId,
};
use crate::seed::{ChaCha8Rng, Seed};
use crate::store::{
    CampaignStore, Change, ChangeSet, EnrolmentFilter, MemoryStore, MessageFilter, OnDuplicate, OutboxStore,
    PageRequest, SequenceStore, Span, Store, StoreError, StoreErrorKind, WriteClass,
};
use crate::time::{Clock, Timestamp};
use crate::transport::TransportMessageId;

/// 2026-11-21, 8 in the morning in Kuala Lumpur.
pub const START: Timestamp = Timestamp::from_millis(1_795_219_200_000);

/// How often the watcher looks at the rows, in steps of the scheduler.
const STEPS_PER_LOOK: u64 = 97;
/// How often it is checked whether everything has ended, once faults are off.
const CHECK_EVERY: Duration = Duration::from_secs(7);
/// How many violations a report shows.
const SHOWN: usize = 6;
/// Most steps of one simulation; a run that takes more spins.
const STEPS_MAX: u64 = 5_000_000;

/// What a simulation came to.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// The number of the scenario.
    pub seed: u64,
    /// What is broken; empty when all invariants hold.
    pub violations: Vec<Violation>,
    /// What happened.
    pub record: Record,
    /// How many steps it took.
    pub steps: u64,
    /// How long it lasted, in true time.
    pub lasted: Duration,
}

impl Report {
    /// What happened, line by line.
    #[must_use]
    pub fn trace(&self) -> String {
        let mut lines = String::new();
        for moment in &self.record.moments {
            if matches!(
                moment.what,
                What::Rows(_) | What::Numbers(_) | What::Counts(_) | What::Enrolments(_)
            ) {
                continue;
            }
            lines.push_str(&format!("{:>12.3} {:?}\n", moment.at.as_secs_f64(), moment.what));
        }
        for row in &self.record.rows {
            lines.push_str(&format!("{row:?} {:?}\n", row.doubt));
        }
        for campaign in &self.record.campaigns {
            lines.push_str(&format!("{campaign:?}\n"));
        }
        for sequence in &self.record.sequences {
            lines.push_str(&format!("{sequence:?}\n"));
        }
        for enrolment in &self.record.enrolments {
            lines.push_str(&format!("{enrolment:?}\n"));
        }
        lines
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}: {} violations", self.seed, self.violations.len())?;
        self.violations
            .iter()
            .take(SHOWN)
            .try_for_each(|violation| writeln!(f, "  {violation}"))
    }
}

/// What a scenario runs on.
pub struct Ground {
    /// The store that all nodes share.
    pub store: Arc<dyn Store>,
    /// How an operation of it is run.
    pub drive: Arc<dyn Drive>,
    /// What the planners do wrong.
    pub planner_flaw: Option<PlannerFlaw>,
}

impl fmt::Debug for Ground {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ground").finish_non_exhaustive()
    }
}

impl Default for Ground {
    fn default() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            drive: Arc::new(InOnePoll),
            planner_flaw: None,
        }
    }
}

impl Scenario {
    /// Runs it on a memory store.
    pub fn run(&self) -> Report {
        self.run_on(Ground::default())
    }

    /// Runs it on an empty store.
    pub fn run_on(&self, ground: Ground) -> Report {
        World::new(self.clone(), ground).run()
    }
}

struct Node {
    task: Option<TaskId>,
    stop: Option<oneshot::Sender<()>>,
    runs: u32,
    wall_shift: Arc<AtomicI64>,
    crash_in: Option<u32>,
}

/// Rows that people name by place.
#[derive(Debug, Clone)]
struct Cast {
    users: Vec<UserId>,
    devices: Vec<(UserId, DeviceId)>,
    leads: Vec<(UserId, LeadId, Phone)>,
    campaigns: Vec<(UserId, CampaignId)>,
    sequences: Vec<(UserId, SequenceId)>,
}

enum Order {
    Do(Deed),
    OutageEnds,
    FaultsEnd,
    Check,
}

struct World {
    scenario: Scenario,
    seed: Seed,
    ground: Ground,
    timeline: Arc<Timeline>,
    history: Arc<History>,
    switch: Arc<Switch>,
    gateways: Arc<Gateways>,
    scheduler: Scheduler,
    nodes: Vec<Node>,
    cast: Arc<Cast>,
    ids: Arc<IdSource>,
    orders: Arc<Mutex<VecDeque<Order>>>,
    person_runs: u32,
    policy: PacingPolicy,
    facts: Facts,
    steps: u64,
}

impl World {
    fn new(scenario: Scenario, ground: Ground) -> Self {
        let seed = Seed::from_number(scenario.seed);
        let timeline = Timeline::new();
        let history = History::new(Arc::clone(&timeline));
        let gateways = Gateways::new(
            Arc::clone(&timeline),
            Arc::clone(&history),
            scenario.gateway_faults,
            seed.rng(b"", "gateways"),
        );
        let scheduler = Scheduler::new(Arc::clone(&timeline), seed.rng(b"", "scheduler"));
        let mut caps = Caps::default()
            .with_hour_max(scenario.hour_max)
            .expect("scenarios draw caps within limits");
        if !scenario.sequences.is_empty() {
            caps = caps
                .with_day_max(Caps::DAY_MAX_LIMIT)
                .expect("the limit is within itself");
        }
        let policy = PacingPolicy::builder()
            .default_delay(delay(scenario.delay_ms))
            .default_caps(caps)
            .build()
            .expect("scenarios draw a policy within limits");
        let nodes = scenario
            .wall_shifts
            .iter()
            .map(|shift| Node {
                task: None,
                stop: None,
                runs: 0,
                wall_shift: Arc::new(AtomicI64::new(*shift)),
                crash_in: None,
            })
            .collect();
        let facts = Facts {
            seed: seed.clone(),
            policy: policy.clone(),
            wall_is_true: scenario.wall_is_true(),
            ..Facts::default()
        };
        let mut world = Self {
            ids: Arc::new(IdSource::seeded(seed.digest(b"", "ids"))),
            cast: Arc::new(Cast {
                users: Vec::new(),
                devices: Vec::new(),
                leads: Vec::new(),
                campaigns: Vec::new(),
                sequences: Vec::new(),
            }),
            orders: Arc::default(),
            switch: Arc::default(),
            person_runs: 0,
            steps: 0,
            scenario,
            seed,
            ground,
            timeline,
            history,
            gateways,
            scheduler,
            nodes,
            policy,
            facts,
        };
        world.people_the_store();
        world
    }

    /// Runs an operation on the store underneath, without faults.
    fn raw<T: Send>(&self, work: impl Future<Output = Result<T, StoreError>> + Send) -> T {
        let mut answer = None;
        self.ground.drive.drive(Box::pin(async {
            answer = Some(work.await);
        }));
        answer
            .expect("the store underneath has answered")
            .expect("the store underneath does not fail")
    }

    fn commit_raw(&self, set: ChangeSet) {
        let _ = self.raw(self.ground.store.commit(set, WriteClass::Api, START));
    }

    fn people_the_store(&mut self) {
        let _ = self.raw(self.ground.store.seed(&self.seed));
        let mut cast = Cast::clone(&self.cast);
        let ids = Arc::clone(&self.ids);
        let mut set = ChangeSet::default();
        for (place, kinds) in self.scenario.devices.iter().enumerate() {
            let user = UserId::new(&ids, START);
            cast.users.push(user);
            self.facts.tags.insert(user, format!("of user{place} "));
            let first = cast.devices.len();
            for (number, kind) in kinds.iter().enumerate() {
                let id = DeviceId::new(&ids, START);
                let mut device = Device::new(id, user, format!("d{number}"), kind.platform(), START);
                device.link_state = LinkState::Ready;
                if self.scenario.offline == Some(cast.devices.len()) {
                    // Gateway devices count as online whatever their link says, so it is also on hold.
                    device.link_state = LinkState::Disconnected;
                    device.hold = Some(Hold {
                        reason: HoldReason::ByPerson,
                        since_at: START,
                        detail: None,
                    });
                }
                cast.devices.push((user, id));
                self.facts.kinds.insert(id, *kind);
                self.facts.owners.insert(id, user);
                set = set.and(Change::InsertDevice(Box::new(device)));
            }
            for (number, device) in &self.scenario.leads[place] {
                let id = LeadId::new(&ids, START);
                let phone = phone(place, *number);
                let device = device.map(|device| cast.devices[first + device].1);
                let mut lead = Lead::new(id, user, device, phone, START);
                // Leads with one number differ in their niche, else they would be the same lead.
                let _ = lead.niches.insert(niche_of(cast.leads.len()));
                lead.name = format!("user{place}");
                for sequence in self.scenario.triggers.get(cast.leads.len()).into_iter().flatten() {
                    let _ = lead.triggers.insert(entry_of(*sequence));
                }
                cast.leads.push((user, id, phone));
                set = set.and(Change::InsertLead {
                    lead: Box::new(lead),
                    on_duplicate: OnDuplicate::Refuse,
                });
            }
        }
        self.commit_raw(set);
        for (place, plan) in self.scenario.campaigns.clone().iter().enumerate() {
            self.add_campaign(&mut cast, place, plan);
        }
        for (place, plan) in self.scenario.sequences.clone().iter().enumerate() {
            self.add_sequence(&mut cast, place, plan);
        }
        self.cast = Arc::new(cast);
    }

    fn add_campaign(&mut self, cast: &mut Cast, place: usize, plan: &CampaignPlan) {
        let user = cast.users[plan.user];
        let id = CampaignId::new(&self.ids, START);
        let text = format!("{{{{name}}}} of user{} reads campaign {place}", plan.user);
        let mut campaign = Campaign::draft(id, user, format!("c{place}"), Content::text(text), START);
        campaign.routing = plan.routing;
        campaign.delay = plan.delay_ms.map(delay);
        campaign.expires_after = plan.expires_after;
        campaign.quiet_hours = plan.quiet.map(quiet_hours);
        campaign.dressing.greeting = place.is_multiple_of(2);
        let own = cast.devices.iter().find(|(owner, _)| *owner == user).map(|(_, id)| *id);
        campaign.device_id = own.filter(|_| plan.one_device);
        let mut entries = Vec::new();
        if plan.entries {
            campaign.audience = Audience::Entries;
            for (position, (number, _)) in self.scenario.leads[plan.user].iter().enumerate() {
                entries.push(CampaignEntry {
                    campaign_id: id,
                    position: u32::try_from(position).unwrap_or(0) + 1,
                    phone: phone(plan.user, *number),
                    name: format!("user{}", plan.user),
                    text: None,
                    custom: BTreeMap::new(),
                });
            }
            self.facts.entries.insert(id, entries.len());
        } else if let Some(limit) = plan.device_limit {
            campaign.audience = Audience::Pool {
                niche: None,
                target: TargetFilter::All,
            };
            campaign.device_limit = Some(limit);
            // Beside another over the same pool, whom that reaches first is out of it before this one looks.
            let plans = self.scenario.campaigns.iter();
            if plans
                .filter(|one| one.user == plan.user && one.device_limit.is_some())
                .count()
                == 1
            {
                let devices = self.scenario.leads[plan.user].iter().map(|(_, device)| *device);
                let of_user = cast.leads.iter().filter(|(owner, _, _)| *owner == user);
                let in_pool = of_user.zip(devices).filter(|(_, device)| device.is_none());
                let leads = in_pool.map(|((_, lead, _), _)| *lead).collect();
                self.facts.leads.insert(id, leads);
            }
        } else {
            let of_user = cast.leads.iter().filter(|(owner, _, _)| *owner == user);
            self.facts.leads.insert(id, of_user.map(|(_, lead, _)| *lead).collect());
        }
        let mut scheduled = campaign.clone();
        scheduled.status = CampaignStatus::Scheduled;
        scheduled.scheduled_at = Some(START + plan.start_after);
        let set = ChangeSet::one(Change::InsertCampaign(Box::new(campaign)))
            .and(Change::InsertEntries(entries))
            .and(Change::UpdateCampaign(Box::new(scheduled)));
        self.commit_raw(set);
        cast.campaigns.push((user, id));
    }

    fn add_sequence(&self, cast: &mut Cast, place: usize, plan: &SequencePlan) {
        let user = cast.users[plan.user];
        let id = SequenceId::new(&self.ids, START);
        let own = cast.devices.iter().find(|(owner, _)| *owner == user).map(|(_, id)| *id);
        let mut sequence = Sequence::draft(id, user, format!("s{place}"), START);
        sequence.device_id = own.filter(|_| plan.one_device);
        sequence.routing = plan.routing;
        sequence.delay = plan.delay_ms.map(delay);
        sequence.expires_after = plan.expires_after;
        sequence.on_failure = plan.on_failure;
        sequence.exit_on_reply = plan.exit_on_reply;
        sequence.re_entry = plan.re_entry;
        sequence.dressing.greeting = place.is_multiple_of(2);
        if plan.skips_late {
            sequence.late_policy = LatePolicy::Skip;
        }
        sequence.quiet_hours = plan.quiet.map(quiet_hours);
        sequence.niche = plan.niche_of.map(niche_of);
        sequence.steps_version = 1;
        let count = plan.waits.len();
        let step = |(at, wait): (usize, &Duration)| Step {
            id: StepId::new(&self.ids, START),
            day: u16::try_from(at).unwrap_or(0) + 1,
            trigger: if at == 0 {
                entry_of(place)
            } else {
                Token::parse(&format!("s{place} day {at}")).expect("a plain word is a token")
            },
            next_trigger: plan.next.filter(|_| at + 1 == count).map(entry_of),
            entry_point: at == 0 || plan.second_entry == Some(at),
            wait: *wait,
            content: step_content(plan.user, &format!("{place} step {at}")),
            send_time: plan.send_time.filter(|_| at == 0).map(local_time),
            delay: None,
        };
        let steps = SequenceSteps {
            sequence_id: id,
            version: 1,
            steps: plan.waits.iter().enumerate().map(step).collect(),
        };
        self.commit_raw(ChangeSet::one(Change::InsertSequence {
            sequence: Box::new(sequence),
            steps: Some(Box::new(steps)),
        }));
        cast.sequences.push((user, id));
    }

    fn store(&self, rng: ChaCha8Rng) -> Arc<FaultyStore> {
        let parts = FaultyParts {
            inner: Arc::clone(&self.ground.store),
            drive: Arc::clone(&self.ground.drive),
            timeline: Arc::clone(&self.timeline),
            history: Arc::clone(&self.history),
            switch: Arc::clone(&self.switch),
            faults: self.scenario.store_faults,
            planner_flaw: self.ground.planner_flaw,
        };
        Arc::new(FaultyStore::new(parts, rng))
    }

    fn spawn_node(&mut self, index: usize, after: Duration) {
        let node = &mut self.nodes[index];
        node.runs += 1;
        let key = [index as u8, node.runs as u8];
        let mut rng = self.seed.rng(&key, "node");
        let wall_shift = Arc::clone(&node.wall_shift);
        let (stop, stopped) = oneshot::channel();
        node.stop = Some(stop);
        let clock = Arc::new(
            VirtualClock::new(Arc::clone(&self.timeline), START)
                .with_monotonic_start(Duration::from_micros(rng.random_range(0..1_000_000_000)))
                .with_wall_shift(wall_shift),
        );
        let name = if rng.random_bool(0.5) {
            format!("n{index}")
        } else {
            format!("n{index}-{}", self.nodes[index].runs)
        };
        let config = config(name, &self.policy, &self.scenario, &mut rng);
        let store = self.store(self.seed.rng(&key, "store"));
        let gateways = Arc::clone(&self.gateways);
        let timeline = Arc::clone(&self.timeline);
        let id_seed = self.seed.digest(&key, "node ids");
        let history = Arc::clone(&self.history);
        let task = self.scheduler.spawn(async move {
            timeline.sleep(after).await;
            let parts = NodeParts {
                store,
                clock,
                config,
                gateways,
                timeline,
                id_seed,
                history,
            };
            parts.main(stopped).await;
        });
        self.nodes[index].task = Some(task);
    }

    fn spawn_director(&mut self) {
        let timeline = Arc::clone(&self.timeline);
        let orders = Arc::clone(&self.orders);
        let mut plan: Vec<(Duration, Order)> = Vec::new();
        for (at, deed) in &self.scenario.deeds {
            plan.push((*at, Order::Do(*deed)));
            if let Deed::Outage(span) = deed {
                plan.push((*at + *span, Order::OutageEnds));
            }
        }
        plan.push((self.scenario.faults_for, Order::FaultsEnd));
        plan.sort_by_key(|(at, _)| *at);
        self.scheduler.spawn(async move {
            let give = |order| orders.lock().unwrap_or_else(PoisonError::into_inner).push_back(order);
            for (at, order) in plan {
                timeline.sleep_until(at).await;
                give(order);
            }
            loop {
                timeline.sleep(CHECK_EVERY).await;
                give(Order::Check);
            }
        });
    }

    fn spawn_courier(&mut self) {
        let timeline = Arc::clone(&self.timeline);
        let gateways = Arc::clone(&self.gateways);
        let store = self.store(self.seed.rng(b"", "courier"));
        self.scheduler.spawn(async move {
            loop {
                gateways.wait().await;
                for receipt in gateways.work() {
                    let change = Change::Receipt {
                        user_id: receipt.user_id,
                        device_id: receipt.device_id,
                        message: receipt.message,
                        delivery: receipt.delivery,
                        at: START + timeline.now(),
                    };
                    let _ = commit(&store, &timeline, ChangeSet::one(change), START + timeline.now()).await;
                }
            }
        });
    }

    fn run(mut self) -> Report {
        for index in 0..self.nodes.len() {
            let after = Duration::from_millis(u64::try_from(index).unwrap_or(0) * 700);
            self.spawn_node(index, after);
        }
        self.spawn_director();
        self.spawn_courier();
        let mut ended = None;
        let mut bounded = true;
        loop {
            if !self.scheduler.step() {
                break;
            }
            self.steps += 1;
            self.crash_those_due();
            if self.steps.is_multiple_of(STEPS_PER_LOOK) {
                self.look();
            }
            let orders = std::mem::take(&mut *self.orders.lock().unwrap_or_else(PoisonError::into_inner));
            for order in orders {
                match order {
                    Order::Do(deed) => self.act(deed),
                    Order::OutageEnds => self.switch.set_outage(false),
                    Order::FaultsEnd => self.end_faults(),
                    Order::Check => {
                        self.take_care();
                        // What waited for a person may go on by itself, when its doubt is resolved.
                        ended = self.has_ended().then(|| ended.unwrap_or(self.timeline.now()));
                    }
                }
            }
            // A little longer, so that what comes too late comes still.
            if ended.is_some_and(|at| self.timeline.now() > at + Duration::from_secs(60)) {
                break;
            }
            if self.steps > STEPS_MAX || self.timeline.now() > self.scenario.faults_for + self.scenario.bound() {
                bounded = false;
                break;
            }
        }
        self.look();
        self.facts.bounded = bounded;
        self.facts.excused = self.excused();
        self.facts.excused_enrolments = self.excused_enrolments(&self.facts.excused);
        self.report()
    }

    fn report(self) -> Report {
        let mut rows = Vec::new();
        for user in &self.cast.users {
            rows.extend(self.rows_of(*user));
        }
        let ids: Vec<_> = self.cast.campaigns.iter().map(|(_, id)| *id).collect();
        let campaigns = self.raw(self.ground.store.campaigns_by_id(&ids));
        let sequences = self.sequences();
        let versions = sequences
            .iter()
            .flat_map(|one| (1..=one.steps_version).map(|version| (one.id, version)));
        let steps = self.raw(self.ground.store.steps(&versions.collect::<Vec<_>>()));
        let mut leads = Vec::new();
        for user in &self.cast.users {
            let ids: Vec<_> = self
                .cast
                .leads
                .iter()
                .filter(|(of, ..)| of == user)
                .map(|(_, id, _)| *id)
                .collect();
            leads.extend(self.raw(self.ground.store.leads_by_id(*user, &ids)));
        }
        let enrolments = self
            .cast
            .users
            .iter()
            .flat_map(|user| self.enrolments_of(*user))
            .collect();
        let record = Record {
            moments: self.history.take(),
            rows,
            campaigns,
            sequences,
            steps,
            enrolments,
            leads,
            facts: self.facts,
        };
        Report {
            seed: self.scenario.seed,
            violations: invariants::check(&record),
            record,
            steps: self.steps,
            lasted: self.timeline.now(),
        }
    }

    fn crash_those_due(&mut self) {
        for index in 0..self.nodes.len() {
            match self.nodes[index].crash_in {
                Some(0) => self.crash(index),
                Some(count) => self.nodes[index].crash_in = Some(count - 1),
                None => {}
            }
        }
    }

    fn crash(&mut self, index: usize) {
        self.nodes[index].crash_in = None;
        if let Some(task) = self.nodes[index].task.take() {
            self.scheduler.kill(task);
        }
        self.history.add(What::Note(format!("node {index} crashes")));
        let mut rng = self.seed.rng(&[index as u8, self.nodes[index].runs as u8], "restart");
        let after = Duration::from_millis(rng.random_range(0..60_000));
        self.spawn_node(index, after);
    }

    fn act(&mut self, deed: Deed) {
        self.history.add(What::Note(format!("{deed:?}")));
        match deed {
            Deed::Crash(node, polls) => self.nodes[node].crash_in = Some(polls),
            Deed::Stall(node, span) => {
                if let Some(task) = self.nodes[node].task {
                    self.scheduler.stall(task, span);
                }
            }
            Deed::Stop(node) => {
                if let Some(stop) = self.nodes[node].stop.take() {
                    let _ = stop.send(());
                }
                self.spawn_node(node, Duration::from_secs(20));
            }
            Deed::WallJump(node, millis) => {
                self.nodes[node].wall_shift.fetch_add(millis, Ordering::Relaxed);
            }
            Deed::Outage(_) => self.switch.set_outage(true),
            Deed::Release(device) if self.scenario.offline == Some(device) => {}
            person => self.spawn_person(person),
        }
    }

    fn spawn_person(&mut self, deed: Deed) {
        self.person_runs += 1;
        let person = Person {
            store: self.store(self.seed.rng(&self.person_runs.to_be_bytes(), "person")),
            timeline: Arc::clone(&self.timeline),
            ids: Arc::clone(&self.ids),
            cast: Arc::clone(&self.cast),
            seed: self.seed.clone(),
        };
        self.scheduler.spawn(async move {
            // What cannot be done any more is left: the campaign has ended, the device is gone.
            let _ = person.act(deed).await;
        });
    }

    fn end_faults(&mut self) {
        self.switch.turn_off();
        self.gateways.calm();
        for node in &mut self.nodes {
            node.crash_in = None;
        }
        if self.scenario.fresh_node {
            for index in 0..self.nodes.len() {
                if let Some(task) = self.nodes[index].task.take() {
                    self.scheduler.kill(task);
                }
            }
            self.history.add(What::Note("one fresh node has to finish".to_owned()));
            self.spawn_node(0, Duration::from_secs(5));
        }
        self.history.add(What::FaultsEnd);
    }

    /// Once faults are off, somebody resumes what is paused, unless everybody has left.
    fn take_care(&mut self) {
        if self.scenario.left_alone {
            return;
        }
        let now = START + self.timeline.now();
        for campaign in self.campaigns() {
            let from: &'static [CampaignStatus] = match (campaign.status, campaign.reason) {
                (CampaignStatus::Paused, _) => &[CampaignStatus::Paused],
                (CampaignStatus::Scheduled, Some(CampaignReason::LateAsk)) => &[CampaignStatus::Scheduled],
                _ => continue,
            };
            self.history.add(What::Status(campaign.id, CampaignStatus::Triggered));
            let _ = self.raw(self.ground.store.commit(
                ChangeSet::one(Change::SetCampaignStatus {
                    user_id: campaign.user_id,
                    campaign_id: campaign.id,
                    from,
                    to: CampaignStatus::Triggered,
                    reason: None,
                }),
                WriteClass::Api,
                now,
            ));
        }
        for sequence in self.sequences() {
            if sequence.status.runs() || sequence.deleted_at.is_some() {
                continue;
            }
            self.history
                .add(What::SequenceStatus(sequence.id, SequenceStatus::Active));
            let change = Change::SetSequenceStatus {
                user_id: sequence.user_id,
                sequence_id: sequence.id,
                from: &NOT_ACTIVE,
                to: SequenceStatus::Active,
                reason: None,
            };
            let _ = self.raw(self.ground.store.commit(ChangeSet::one(change), WriteClass::Api, now));
        }
        for device in self
            .devices()
            .into_iter()
            .filter(|device| !self.is_offline(device.id))
            .filter(|device| device.hold.is_some() || device.restriction.is_some())
        {
            self.history.add(What::Held(device.id, false));
            let (user_id, device_id) = (device.user_id, device.id);
            let set = ChangeSet::one(Change::SetDeviceHold {
                user_id,
                device_id,
                hold: None,
            })
            .and(Change::SetDeviceRestriction {
                user_id,
                device_id,
                restriction: None,
            });
            let _ = self.raw(self.ground.store.commit(set, WriteClass::Api, now));
        }
    }

    fn is_offline(&self, id: DeviceId) -> bool {
        let offline = self.scenario.offline.and_then(|place| self.cast.devices.get(place));
        offline.is_some_and(|(_, device)| *device == id)
    }

    fn campaigns(&self) -> Vec<Campaign> {
        let ids: Vec<_> = self.cast.campaigns.iter().map(|(_, id)| *id).collect();
        self.raw(self.ground.store.campaigns_by_id(&ids))
    }

    fn sequences(&self) -> Vec<Sequence> {
        let ids: Vec<_> = self.cast.sequences.iter().map(|(_, id)| *id).collect();
        self.raw(self.ground.store.sequences_by_id(&ids))
    }

    fn enrolments_of(&self, user: UserId) -> Vec<Enrolment> {
        if self.cast.sequences.is_empty() {
            return Vec::new();
        }
        let (scope, page) = (RequestScope::user(user), PageRequest::first(1_000));
        let filter = EnrolmentFilter::default();
        self.raw(self.ground.store.enrolments(&scope, &filter, &page)).rows
    }

    /// Enrolments that stand open because a message of theirs does, or their sequence.
    fn excused_enrolments(&self, excused: &[MessageId]) -> Vec<EnrolmentId> {
        let sequences = self.sequences();
        let stands = |id: SequenceId| sequences.iter().any(|one| one.id == id && !one.status.runs());
        let mut open = Vec::new();
        for user in &self.cast.users {
            let waiting: Vec<_> = self
                .rows_of(*user)
                .into_iter()
                .filter(|row| excused.contains(&row.id))
                .filter_map(|row| row.flow)
                .map(|flow| flow.enrolment_id)
                .collect();
            let theirs = self.enrolments_of(*user).into_iter();
            let theirs = theirs.filter(|one| one.state == EnrolmentState::Open);
            let theirs = theirs.filter(|one| waiting.contains(&one.id) || stands(one.sequence_id));
            open.extend(theirs.map(|one| one.id));
        }
        open
    }

    fn devices(&self) -> Vec<Device> {
        let mut devices = Vec::new();
        for user in &self.cast.users {
            let scope = RequestScope::user(*user);
            let page = PageRequest::first(1_000);
            devices.extend(self.raw(self.ground.store.devices(&scope, &page)).rows);
        }
        devices
    }

    fn rows_of(&self, user: UserId) -> Vec<Message> {
        let filter = MessageFilter {
            with_superseded: true,
            ..MessageFilter::default()
        };
        let scope = RequestScope::user(user);
        let page = PageRequest::first(1_000);
        self.raw(self.ground.store.messages(&scope, &filter, &page)).rows
    }

    /// Looks at rows and numbers.
    fn look(&self) {
        for user in &self.cast.users {
            let rows = self.rows_of(*user);
            let scope = RequestScope::user(*user);
            for (_, id) in self.cast.campaigns.iter().filter(|(owner, _)| owner == user) {
                let of = MessageScope::Campaign(*id);
                let sum = |all: Vec<crate::domain::summary::DeviceNumbers>| -> Numbers {
                    all.iter().map(|one| one.numbers).sum()
                };
                let told = sum(self.raw(self.ground.store.numbers(&scope, of)));
                let counted = sum(self.raw(self.ground.store.count(&scope, of)));
                let rows = rows.iter().filter(|row| row.scope == of && !row.superseded).count() as u64;
                self.history.add(What::Numbers(NumbersSeen {
                    campaign_id: *id,
                    told,
                    counted,
                    rows,
                }));
            }
            let seen = rows.iter().map(|row| RowSeen {
                message_id: row.id,
                state: row.state,
            });
            self.history.add(What::Rows(seen.collect()));
            self.look_at_sequences(*user, &rows);
        }
    }

    fn look_at_sequences(&self, user: UserId, rows: &[Message]) {
        let enrolments = self.enrolments_of(user);
        let scope = RequestScope::user(user);
        let deleted: Vec<_> = self
            .sequences()
            .into_iter()
            .filter(|one| one.deleted_at.is_some())
            .collect();
        for (_, id) in self.cast.sequences.iter().filter(|(owner, _)| *owner == user) {
            if deleted.iter().any(|one| one.id == *id) {
                continue;
            }
            let told = self.raw(self.ground.store.sequence_counts(&scope, *id, &Span::default()));
            let counted = self.raw(self.ground.store.recount_sequence(&scope, *id));
            let of = MessageScope::Sequence(*id);
            self.history.add(What::Counts(Box::new(SequenceSeen {
                sequence_id: *id,
                told,
                counted,
                rows: rows.iter().filter(|row| row.scope == of && !row.superseded).count() as u64,
                enrolments: enrolments.iter().filter(|one| one.sequence_id == *id).count() as u64,
            })));
        }
        if !enrolments.is_empty() {
            let seen = enrolments.iter().map(|one| EnrolmentSeen {
                enrolment_id: one.id,
                sequence_id: one.sequence_id,
                person: one.person,
                state: one.state,
            });
            self.history.add(What::Enrolments(seen.collect()));
        }
    }

    /// Messages that stand open for a reason that a person can see and has to act upon.
    fn excused(&self) -> Vec<MessageId> {
        let paused: Vec<CampaignId> = self
            .campaigns()
            .iter()
            .filter(|campaign| campaign.status == CampaignStatus::Paused)
            .map(|campaign| campaign.id)
            .collect();
        let standing: Vec<SequenceId> = self
            .sequences()
            .iter()
            .filter(|sequence| !sequence.status.runs() && sequence.deleted_at.is_none())
            .map(|sequence| sequence.id)
            .collect();
        let devices = self.devices();
        let sends = |id: &DeviceId| devices.iter().any(|device| device.id == *id && device.may_send());
        // No wait for a device is for ever: what expires well within the bound has to end without anybody, whatever the wall
        // clocks do.
        let soon = START + self.scenario.faults_for + self.scenario.bound() / 2;
        let mut excused = Vec::new();
        for user in &self.cast.users {
            let anything_sends = devices
                .iter()
                .any(|device| device.user_id == *user && device.may_send());
            for row in self.rows_of(*user).into_iter().filter(|row| row.state.is_open()) {
                let campaign_waits = match row.scope {
                    MessageScope::Campaign(id) => paused.contains(&id),
                    MessageScope::Sequence(id) => standing.contains(&id),
                    _ => false,
                };
                let expires = row.state == MessageState::Queued && row.expires_at < soon;
                let device_waits = !expires && row.device_id.map_or(!anything_sends, |device| !sends(&device));
                let held_or_doubt = row.state != MessageState::Sending;
                if held_or_doubt && (campaign_waits || device_waits) {
                    excused.push(row.id);
                }
            }
        }
        // A step waits behind one of its run that is sent again.
        for user in self.cast.users.iter().filter(|_| !self.cast.sequences.is_empty()) {
            let rows = self.rows_of(*user);
            let waits = |row: &&Message| row.state.is_open() && row.flow.is_some() && excused.contains(&row.id);
            let runs: Vec<_> = rows.iter().filter(waits).filter_map(|row| row.flow).collect();
            let behind = rows
                .iter()
                .filter(|row| row.state == MessageState::Held && !excused.contains(&row.id));
            let behind = behind.filter(|row| {
                row.flow
                    .is_some_and(|flow| runs.iter().any(|one| one.enrolment_id == flow.enrolment_id))
            });
            let behind: Vec<_> = behind.map(|row| row.id).collect();
            excused.extend(behind);
        }
        excused
    }

    /// Whether nobody is still to be enrolled and no run can go on.
    fn sequences_have_ended(&self, excused: &[MessageId]) -> bool {
        let waiting = self.excused_enrolments(excused);
        let open = |one: &Enrolment| one.state == EnrolmentState::Open && !waiting.contains(&one.id);
        let store = &self.ground.store;
        self.raw(store.leads_to_match(1)).is_empty()
            && self.raw(store.sequences_matching(1)).is_empty()
            && !self
                .cast
                .users
                .iter()
                .any(|user| self.enrolments_of(*user).iter().any(open))
    }

    fn has_ended(&self) -> bool {
        let excused = self.excused();
        if !self.cast.sequences.is_empty() && !self.sequences_have_ended(&excused) {
            return false;
        }
        let mut open = self
            .cast
            .users
            .iter()
            .flat_map(|user| self.rows_of(*user))
            .filter(|row| row.state.is_open());
        let mut waiting: Vec<CampaignId> = Vec::new();
        for row in open.by_ref() {
            if !excused.contains(&row.id) {
                return false;
            }
            if let MessageScope::Campaign(id) = row.scope {
                waiting.push(id);
            }
        }
        self.campaigns().iter().all(|campaign| {
            campaign.status.has_ended()
                || campaign.status == CampaignStatus::Paused
                || campaign.reason == Some(CampaignReason::LateAsk)
                || waiting.contains(&campaign.id)
        })
    }
}

struct NodeParts {
    store: Arc<FaultyStore>,
    clock: Arc<VirtualClock>,
    config: EngineConfig,
    gateways: Arc<Gateways>,
    timeline: Arc<Timeline>,
    id_seed: [u8; 32],
    history: Arc<History>,
}

impl NodeParts {
    /// One process: starts engines until one was stopped.
    async fn main(self, stopped: oneshot::Receiver<()>) {
        use futures::FutureExt;
        let stopped = async move {
            // A sender that is gone is no request to stop.
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        }
        .shared();
        let mut core = None;
        loop {
            match self.start(&mut core).await {
                Ok(engine) => {
                    self.history.add(What::Note(format!(
                        "{} runs as {}",
                        self.config.node_name,
                        engine.incarnation()
                    )));
                    if Runner::new(engine).run(stopped.clone()).await == Ended::Stopped {
                        self.history
                            .add(What::Note(format!("{} stopped", self.config.node_name)));
                        return;
                    }
                    self.history
                        .add(What::Note(format!("{} was fenced", self.config.node_name)));
                }
                Err(_) => self.timeline.sleep(Duration::from_millis(500)).await,
            }
        }
    }

    /// Starts an engine; all of one process share what they are made of.
    async fn start(&self, core: &mut Option<Arc<Core>>) -> Result<Arc<Engine>, StoreError> {
        if let Some(core) = core {
            return Engine::start(Arc::clone(core)).await;
        }
        let store: Arc<dyn Store> = Arc::clone(&self.store) as _;
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let mut builder = EngineBuilder::new(store, clock, self.config.clone()).ids(IdSource::seeded(self.id_seed));
        for kind in GatewayKind::ALL {
            builder = builder.transport(Arc::new(SimTransport::new(kind, Arc::clone(&self.gateways))));
        }
        let made = builder.open().await.map_err(|error| match error {
            OpenError::Store(error) => error,
            OpenError::Config(error) => panic!("scenarios draw a configuration within limits: {error}"),
        })?;
        Engine::start(Arc::clone(core.insert(made))).await
    }
}

fn config(name: String, policy: &PacingPolicy, scenario: &Scenario, rng: &mut ChaCha8Rng) -> EngineConfig {
    let mut config = EngineConfig::new(name).pacing(policy.clone());
    // What lasts for hours is looked at less often.
    let far = |deed: &Deed| matches!(deed, Deed::WallJump(_, millis) if millis.unsigned_abs() > 600_000);
    let wall_is_far =
        scenario.wall_shifts.iter().any(|shift| *shift != 0) || scenario.deeds.iter().any(|(_, deed)| far(deed));
    let slow = scenario.hour_max < 80 || wall_is_far || scenario.has_send_times();
    let mut seconds = |from: u64, until: u64| {
        let factor = if slow { 20 } else { 1 };
        Duration::from_millis(rng.random_range(from * 1_000..until * 1_000) * factor)
    };
    config.plan_every = seconds(1, 4);
    config.look_every = seconds(1, 3);
    config.refresh_every = seconds(4, 12);
    config.reconcile_after = Duration::from_secs(20);
    config.reconcile_every = Duration::from_secs(15);
    config.doubt_max = Duration::from_secs(900);
    config.send_timeout = Duration::from_secs(15);
    config.expand_page = Some(rng.random_range(1..5));
    config.sweep_page = rng.random_range(1..5);
    config.in_flight_max = scenario.in_flight_max;
    config.batch_max = if rng.random_bool(0.2) { 1 } else { 500 };
    config.error_rate.window = rng.random_range(5..20);
    config.error_rate.percent = if rng.random_bool(0.5) { 0 } else { 40 };
    config.enrol_page = rng.random_range(1..5);
    // Late is what is meant to be, where a whole scenario lasts minutes.
    config.late_grace = if scenario.sequences.is_empty() {
        config.late_grace
    } else {
        Duration::from_secs(30)
    };
    config
}

fn delay((from, until): (u64, u64)) -> DelayRange {
    DelayRange::new(Duration::from_millis(from)..=Duration::from_millis(until))
        .expect("scenarios draw delays within limits")
}

const NOT_ACTIVE: [SequenceStatus; 3] = [SequenceStatus::Draft, SequenceStatus::Paused, SequenceStatus::Inactive];

fn local_time(minutes: u16) -> LocalTime {
    LocalTime::from_hm(minutes / 60, minutes % 60).expect("a time of day")
}

fn quiet_hours((from, until): (u16, u16)) -> QuietHours {
    QuietHours::new(local_time(from), local_time(until)).expect("both ends differ")
}

/// The niche that only one lead has, by place.
fn niche_of(lead: usize) -> Token {
    Token::parse(&format!("niche {lead}")).expect("a plain word is a token")
}

/// The trigger by which leads enter a sequence.
fn entry_of(sequence: usize) -> Token {
    Token::parse(&format!("s{sequence}")).expect("a plain word is a token")
}

fn step_content(user: usize, text: &str) -> Content {
    Content::text(format!("{{{{name}}}} of user{user} reads sequence {text}"))
}

fn phone(user: usize, number: u32) -> Phone {
    Phone::from_e164(&format!("+6012{user}{number:06}")).expect("a Malaysian mobile number")
}

/// Commits until the store says yes or no.
async fn commit(
    store: &FaultyStore,
    timeline: &Arc<Timeline>,
    set: ChangeSet,
    now: Timestamp,
) -> Result<(), StoreError> {
    loop {
        match store.commit(set.clone(), WriteClass::Api, now).await {
            Err(error) if error.kind == StoreErrorKind::Unavailable => timeline.sleep(Duration::from_secs(1)).await,
            other => return other.map(|_| ()),
        }
    }
}

struct Person {
    store: Arc<FaultyStore>,
    timeline: Arc<Timeline>,
    ids: Arc<IdSource>,
    cast: Arc<Cast>,
    seed: Seed,
}

impl Person {
    fn now(&self) -> Timestamp {
        START + self.timeline.now()
    }

    async fn commit(&self, change: Change) -> Result<(), StoreError> {
        self.commit_all(ChangeSet::one(change)).await
    }

    async fn commit_all(&self, set: ChangeSet) -> Result<(), StoreError> {
        commit(&self.store, &self.timeline, set, self.now()).await
    }

    async fn set_status(
        &self,
        campaign: usize,
        from: &'static [CampaignStatus],
        to: CampaignStatus,
    ) -> Result<(), StoreError> {
        let (user_id, campaign_id) = self.cast.campaigns[campaign];
        self.commit(Change::SetCampaignStatus {
            user_id,
            campaign_id,
            from,
            to,
            reason: Some(CampaignReason::ByPerson),
        })
        .await
    }

    async fn act(&self, deed: Deed) -> Result<(), StoreError> {
        use CampaignStatus::{Cancelled, Paused, Scheduled, Triggered};
        match deed {
            Deed::Pause(campaign) => self.set_status(campaign, &[Triggered], Paused).await,
            Deed::Resume(campaign) => self.set_status(campaign, &[Paused], Triggered).await,
            Deed::Cancel(campaign) => {
                self.set_status(campaign, &[Scheduled, Triggered, Paused], Cancelled)
                    .await
            }
            Deed::Edit(campaign) => self.edit(campaign).await,
            Deed::Resend(campaign) => self.resend(campaign).await,
            Deed::Mark(campaign) => self.mark(campaign).await,
            Deed::OptOut(lead) => {
                let (user_id, _, phone) = self.cast.leads[lead];
                self.commit(Change::Suppress(Suppression {
                    user_id,
                    person: PersonKey::of(&self.seed, user_id, &phone),
                    phone: Some(phone),
                    reason: SuppressionReason::OptOutWord,
                    note: "stop".to_owned(),
                    since_at: self.now(),
                }))
                .await
            }
            Deed::OptIn(lead) => {
                let (user_id, _, phone) = self.cast.leads[lead];
                let person = PersonKey::of(&self.seed, user_id, &phone);
                self.commit(Change::Unsuppress { user_id, person }).await
            }
            Deed::DeleteLead(lead) => {
                let (user_id, lead_id, _) = self.cast.leads[lead];
                self.commit(Change::DeleteLead { user_id, lead_id }).await
            }
            Deed::DeleteDevice(device) => {
                let (user_id, device_id) = self.cast.devices[device];
                self.commit(Change::DeleteDevice { user_id, device_id }).await
            }
            Deed::Sequence(place, deed) => self.act_on(place, deed).await,
            Deed::Trigger(lead, sequence) => {
                let (user_id, lead_id, _) = self.cast.leads[lead];
                self.commit(Change::ReplaceTrigger {
                    user_id,
                    lead_id,
                    remove: None,
                    add: Some(entry_of(sequence)),
                    matched: false,
                })
                .await
            }
            Deed::Reply(lead) => {
                let (user_id, _, phone) = self.cast.leads[lead];
                let own = self.cast.devices.iter().find(|(owner, _)| *owner == user_id);
                let (_, device_id) = own.expect("every user has a device");
                self.commit(Change::Replied {
                    user_id,
                    device_id: *device_id,
                    phone,
                    person: PersonKey::of(&self.seed, user_id, &phone),
                    provider_id: TransportMessageId::from_attempt(AttemptId::new(&self.ids, self.now())),
                    at: self.now(),
                })
                .await
            }
            Deed::Again(campaign) => {
                let (user_id, campaign_id) = self.cast.campaigns[campaign];
                self.commit(Change::TriggerAgain { user_id, campaign_id }).await
            }
            Deed::Hold(device) => self.hold(device, true).await,
            Deed::Release(device) => self.hold(device, false).await,
            _ => Ok(()),
        }
    }

    async fn act_on(&self, place: usize, deed: SequenceDeed) -> Result<(), StoreError> {
        use SequenceStatus::{Active, Inactive, Paused};
        let (user_id, sequence_id) = self.cast.sequences[place];
        let status = |from: &'static [SequenceStatus], to| Change::SetSequenceStatus {
            user_id,
            sequence_id,
            from,
            to,
            reason: Some(SequenceReason::ByPerson),
        };
        match deed {
            SequenceDeed::Activate => self.commit(status(&NOT_ACTIVE, Active)).await,
            SequenceDeed::Pause => self.commit(status(&[Active], Paused)).await,
            SequenceDeed::Retire => self.commit(status(&[Active, Paused], Inactive)).await,
            SequenceDeed::Edit => self.edit_steps(place).await,
            SequenceDeed::Resend => self.resend_steps(place).await,
            SequenceDeed::EndRun => {
                let filter = EnrolmentFilter {
                    sequence_id: Some(sequence_id),
                    states: vec![EnrolmentState::Open],
                    ..EnrolmentFilter::default()
                };
                let (scope, page) = (RequestScope::user(user_id), PageRequest::first(1));
                for one in self.store.enrolments(&scope, &filter, &page).await?.rows {
                    self.commit(Change::EndEnrolment {
                        user_id,
                        enrolment_id: one.id,
                        step: None,
                        state: EnrolmentState::Ended,
                        reason: Some(EnrolmentReason::ByPerson),
                        next_id: None,
                    })
                    .await?;
                }
                Ok(())
            }
            SequenceDeed::Delete => self.commit(Change::DeleteSequence { user_id, sequence_id }).await,
        }
    }

    async fn edit_steps(&self, place: usize) -> Result<(), StoreError> {
        let (user, id) = self.cast.sequences[place];
        let number = self.cast.users.iter().position(|one| *one == user).unwrap_or(0);
        let sequence = self.store.sequence(&RequestScope::user(user), id).await?;
        let Some(mut steps) = self.store.steps(&[(id, sequence.steps_version)]).await?.pop() else {
            return Ok(());
        };
        steps.version += 1;
        let version = steps.version;
        let count = steps.steps.len();
        let middle = count / 2;
        match version % 4 {
            // The last one keeps its place: what follows the sequence hangs on it.
            0 if count > 2 => drop(steps.steps.remove(middle)),
            1 => {
                let added = Step {
                    id: StepId::new(&self.ids, self.now()),
                    trigger: Token::parse(&format!("s{place} version {version}")).expect("a plain word is a token"),
                    next_trigger: None,
                    entry_point: false,
                    send_time: None,
                    content: step_content(number, &format!("{place}, added in {version}")),
                    ..steps.steps[0].clone()
                };
                // Before the last, on which what follows the sequence hangs.
                steps.steps.insert(count - 1, added);
            }
            3 if count > 3 => steps.steps.swap(middle, middle - 1),
            _ => steps
                .steps
                .iter_mut()
                .for_each(|step| step.content.text.push_str(", edited")),
        }
        self.commit(Change::UpdateSequence {
            sequence: Box::new(sequence),
            steps: Some(Box::new(steps)),
        })
        .await
    }

    async fn resend_steps(&self, place: usize) -> Result<(), StoreError> {
        let (user, id) = self.cast.sequences[place];
        let filter = MessageFilter {
            scope: Some(MessageScope::Sequence(id)),
            states: vec![MessageState::Failed, MessageState::Unknown],
            ..MessageFilter::default()
        };
        let page = PageRequest::first(1_000);
        let rows = self
            .store
            .messages(&RequestScope::user(user), &filter, &page)
            .await?
            .rows;
        for row in rows {
            // One by one: where a later step has begun it is refused.
            let again = self.again(row);
            let _ = self.commit(Change::InsertMessages(vec![again])).await;
        }
        Ok(())
    }

    fn again(&self, row: Message) -> Message {
        let now = self.now();
        Message {
            id: MessageId::new(&self.ids, now),
            key: IdempotencyKey::resend(row.id, row.round + 1),
            round: row.round + 1,
            supersedes: Some(row.id),
            device_id: row.device_id.filter(|_| !row.from_pool),
            due_at: now,
            expires_at: now + Campaign::EXPIRES_AFTER,
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
            created_at: now,
            ..row
        }
    }

    async fn hold(&self, device: usize, on: bool) -> Result<(), StoreError> {
        let (user_id, device_id) = self.cast.devices[device];
        let hold = Hold {
            reason: HoldReason::ByPerson,
            since_at: self.now(),
            detail: None,
        };
        self.commit(Change::SetDeviceHold {
            user_id,
            device_id,
            hold: on.then_some(hold),
        })
        .await
    }

    async fn edit(&self, campaign: usize) -> Result<(), StoreError> {
        self.set_status(campaign, &[CampaignStatus::Triggered], CampaignStatus::Paused)
            .await?;
        let (user, id) = self.cast.campaigns[campaign];
        let mut edited = self.store.campaign(&RequestScope::user(user), id).await?;
        edited.content.text.push_str(", edited");
        edited.content_version += 1;
        self.commit(Change::UpdateCampaign(Box::new(edited))).await?;
        self.set_status(campaign, &[CampaignStatus::Paused], CampaignStatus::Triggered)
            .await
    }

    async fn rows(&self, campaign: usize, states: &[MessageState]) -> Result<Vec<Message>, StoreError> {
        let (user, id) = self.cast.campaigns[campaign];
        let filter = MessageFilter {
            scope: Some(MessageScope::Campaign(id)),
            states: states.to_vec(),
            ..MessageFilter::default()
        };
        let page = PageRequest::first(1_000);
        Ok(self
            .store
            .messages(&RequestScope::user(user), &filter, &page)
            .await?
            .rows)
    }

    async fn resend(&self, campaign: usize) -> Result<(), StoreError> {
        let (user_id, campaign_id) = self.cast.campaigns[campaign];
        let again: Vec<Message> = self
            .rows(campaign, &[MessageState::Failed, MessageState::Unknown])
            .await?
            .into_iter()
            .map(|row| self.again(row))
            .collect();
        if again.is_empty() {
            return Ok(());
        }
        let campaign = self.store.campaign(&RequestScope::user(user_id), campaign_id).await?;
        let insert = Change::InsertMessages(again);
        let set = if campaign.status == CampaignStatus::Completed {
            ChangeSet::one(Change::SetCampaignStatus {
                user_id,
                campaign_id,
                from: &[CampaignStatus::Completed],
                to: CampaignStatus::Triggered,
                reason: None,
            })
            .and(insert)
        } else {
            ChangeSet::one(insert)
        };
        self.commit_all(set).await
    }

    async fn mark(&self, campaign: usize) -> Result<(), StoreError> {
        for row in self.rows(campaign, &[MessageState::Unknown]).await?.into_iter().take(1) {
            self.commit(Change::MarkMessage {
                user_id: row.user_id,
                message_id: row.id,
                sent: row.id.as_bytes()[15] % 2 == 0,
            })
            .await?;
        }
        Ok(())
    }
}
