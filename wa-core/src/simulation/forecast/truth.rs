//! A world to forecast and then to live through, with other draws: what a forecast is worth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use super::{Forecast, ForecastControl, ForecastOptions};
use crate::domain::access::RequestScope;
use crate::domain::campaign::{Campaign, CampaignStatus, Routing};
use crate::domain::content::Content;
use crate::domain::device::{Device, Hold, HoldReason, LinkState};
use crate::domain::lead::Lead;
use crate::domain::message::{MessageScope, MessageState};
use crate::domain::pacing::{Caps, PacingPolicy};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::platform::Platform;
use crate::domain::schedule::{LocalDate, QuietHours, TimeZone};
use crate::domain::sequence::{Sequence, SequenceSteps, Step};
use crate::domain::summary::Numbers;
use crate::domain::suppression::{Suppression, SuppressionReason};
use crate::domain::token::{Token, TokenSet};
use crate::engine::config::EngineConfig;
use crate::engine::handle::{Handle, HandleError};
use crate::engine::{Engine, EngineBuilder, Runner};
use crate::id::{CampaignId, DeviceId, IdSource, LeadId, SequenceId, StepId, UserId};
use crate::seed::Seed;
use crate::simulation::{
    GatewayFaults, GatewayKind, Gateways, History, Scheduler, SimTransport, Timeline, VirtualClock,
};
use crate::store::{
    CampaignStore, Change, ChangeSet, LeaseStore, MemoryStore, OnDuplicate, SequenceStore, Span, Store, WriteClass,
};
use crate::time::{Clock, Timestamp};

/// 2026-11-21, 8 in the morning in Kuala Lumpur.
pub const START: Timestamp = Timestamp::from_millis(1_795_219_200_000);

/// The trigger by which some of a world enter its sequences.
pub const TRIGGER: &str = "FITNESS";

/// How long steps of its sequences may wait.
const EXPIRES_AFTER: Duration = Duration::from_secs(36 * 3_600);

/// How a world is made.
#[derive(Debug, Clone)]
pub struct TruthPlan {
    /// Devices of the one user.
    pub devices: usize,
    /// The first so many of them are busy.
    pub busy: usize,
    /// Recipients in a thousand that belong to the busy ones.
    pub busy_per_mille: usize,
    /// Recipients.
    pub leads: usize,
    /// Every so many devices one is offline, another on hold; 0: none.
    pub every_idle: usize,
    /// Caps of every device.
    pub caps: Caps,
    /// When the campaign must not send.
    pub quiet_hours: Option<QuietHours>,
    /// Which device writes to whom.
    pub routing: Routing,
    /// How long after the start it begins.
    pub begins_after: Duration,
    /// How long its messages may wait.
    pub expires_after: Duration,
    /// Every so many recipients one has the trigger [`TRIGGER`]; 0: none.
    pub every_trigger: usize,
    /// Names everything that is drawn.
    pub seed: u64,
}

impl TruthPlan {
    /// A world without quiet hours, offline devices and busy ones, with caps of 80 and 800.
    #[must_use]
    pub fn plain(devices: usize, leads: usize) -> Self {
        Self {
            devices,
            busy: 0,
            busy_per_mille: 0,
            leads,
            every_idle: 0,
            caps: Caps::default(),
            quiet_hours: None,
            routing: Routing::OwnDevice,
            begins_after: Duration::ZERO,
            expires_after: Campaign::EXPIRES_AFTER,
            every_trigger: 0,
            seed: 1,
        }
    }

    /// Which device a recipient belongs to.
    fn device_of(&self, number: usize) -> usize {
        let busy_leads = self.leads * self.busy_per_mille / 1_000;
        if number < busy_leads && self.busy > 0 {
            number % self.busy
        } else {
            self.busy + (number - busy_leads) % (self.devices - self.busy).max(1)
        }
    }
}

/// What really happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Truth {
    /// Messages sent, by local day.
    pub days: BTreeMap<LocalDate, u64>,
    /// When the last message went out.
    pub last_sent_at: Option<Timestamp>,
    /// How it ended.
    pub numbers: Numbers,
    /// Where the campaign stood then; `None` of a sequence.
    pub status: Option<CampaignStatus>,
}

/// A world with one campaign that waits for its time.
#[derive(Debug)]
pub struct TruthWorld {
    /// Its store.
    pub store: Arc<MemoryStore>,
    /// Its user.
    pub scope: RequestScope,
    /// The campaign.
    pub campaign: CampaignId,
    timeline: Arc<Timeline>,
    seed: Seed,
}

fn now<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("the memory store never waits")
}

impl TruthWorld {
    /// Makes a world.
    ///
    /// # Panics
    /// When the plan makes no sense.
    #[must_use]
    pub fn new(plan: &TruthPlan) -> Self {
        let store = Arc::new(MemoryStore::new());
        let seed = now(store.seed(&Seed::from_number(plan.seed))).expect("the memory store has a seed");
        let ids = IdSource::seeded(seed.digest(b"", "ids"));
        let user = UserId::new(&ids, START);
        let commit = |set: ChangeSet| {
            now(store.commit(set, WriteClass::Bulk, START)).expect("the rows are new");
        };
        let mut devices = Vec::with_capacity(plan.devices);
        let mut set = ChangeSet::default();
        for number in 0..plan.devices {
            let id = DeviceId::new(&ids, START);
            let kind = GatewayKind::ALL[number % 3];
            let mut device = Device::new(id, user, format!("device {number}"), kind.platform(), START);
            device.link_state = LinkState::Ready;
            device.caps = Some(plan.caps);
            let idle = number.checked_rem(plan.every_idle);
            if idle == Some(1) && device.platform == Platform::WHATSAPP_WEB {
                device.link_state = LinkState::Disconnected;
            } else if idle == Some(2) && device.platform != Platform::WHATSAPP_WEB {
                device.hold = Some(Hold {
                    reason: HoldReason::ByPerson,
                    since_at: START,
                    detail: None,
                });
            }
            devices.push(id);
            set = set.and(Change::InsertDevice(Box::new(device)));
        }
        commit(set);
        for first in (0..plan.leads).step_by(1_000) {
            let mut set = ChangeSet::default();
            for number in first..plan.leads.min(first + 1_000) {
                let phone = Phone::from_e164(&format!("+6012{number:07}")).expect("a Malaysian mobile number");
                let device = devices[plan.device_of(number)];
                let mut lead = Lead::new(LeadId::new(&ids, START), user, Some(device), phone, START);
                lead.name = "Aminah".to_owned();
                if number.checked_rem(plan.every_trigger) == Some(0) {
                    let triggers = TokenSet::parse(TRIGGER);
                    lead.triggers = triggers.expect("a trigger");
                }
                if number % 500 == 7 {
                    set = set.and(Change::Suppress(Suppression {
                        user_id: user,
                        person: PersonKey::of(&seed, user, &phone),
                        phone: Some(phone),
                        reason: SuppressionReason::ByPerson,
                        note: String::new(),
                        since_at: START,
                    }));
                }
                set = set.and(Change::InsertLead {
                    lead: Box::new(lead),
                    on_duplicate: OnDuplicate::Refuse,
                });
            }
            commit(set);
        }
        let id = CampaignId::new(&ids, START);
        let content = Content::text("{{name}}, {come and see|have a look at} what is new.");
        let mut campaign = Campaign::draft(id, user, "news", content, START);
        campaign.status = CampaignStatus::Scheduled;
        campaign.scheduled_at = Some(START + plan.begins_after);
        campaign.quiet_hours = plan.quiet_hours;
        campaign.routing = plan.routing;
        campaign.expires_after = plan.expires_after;
        commit(ChangeSet::one(Change::InsertCampaign(Box::new(campaign))));
        Self {
            store,
            scope: RequestScope::user(user),
            campaign: id,
            timeline: Timeline::new(),
            seed,
        }
    }

    fn builder(&self, draws: u64) -> (EngineBuilder, Arc<Gateways>) {
        let timeline = &self.timeline;
        let seed = Seed::from_number(draws);
        let gateways = Gateways::new(
            Arc::clone(timeline),
            History::new(Arc::clone(timeline)),
            GatewayFaults::NONE,
            seed.rng(b"", "gateways"),
        )
        .counting_only();
        let clock = Arc::new(VirtualClock::new(Arc::clone(timeline), START));
        let mut config = EngineConfig::new("truth").pacing(PacingPolicy::human());
        // In one process nothing comes without a hint, and nobody contests the lease: the simulated days cost less so.
        config.look_every = Duration::from_secs(300);
        config.refresh_every = Duration::from_secs(300);
        config.plan_every = Duration::from_secs(10);
        config.lease_for = Duration::from_secs(300);
        config.beat_every = Duration::from_secs(60);
        let store = Arc::clone(&self.store) as Arc<dyn Store>;
        let ids = IdSource::seeded(seed.digest(self.seed.as_bytes(), "node ids"));
        let mut builder = EngineBuilder::new(store, clock as Arc<dyn Clock>, config).ids(ids);
        for kind in GatewayKind::ALL {
            builder = builder.transport(Arc::new(SimTransport::new(kind, Arc::clone(&gateways))));
        }
        (builder, gateways)
    }

    /// The handle that a server would have.
    ///
    /// # Panics
    /// Never: the memory store opens.
    #[must_use]
    pub fn handle(&self) -> Handle {
        let (builder, _) = self.builder(1);
        Handle::new(now(builder.open()).expect("the memory store opens"))
    }

    /// Forecasts the campaign.
    ///
    /// # Errors
    /// Those of the forecast.
    pub async fn forecast(&self, options: &ForecastOptions) -> Result<Forecast, HandleError> {
        let control = ForecastControl::new();
        let handle = self.handle();
        handle
            .forecast_campaign(&self.scope, self.campaign, options, &control)
            .await
    }

    /// Adds a sequence as a draft. Each of its steps has a text and comes so long after the one before; the first is entered by a
    /// trigger, the last one gives the next trigger.
    ///
    /// # Panics
    /// When a trigger is none.
    #[must_use]
    pub fn add_sequence(&self, entry: &str, waits: &[Duration], next: Option<&str>) -> SequenceId {
        let token = |text: &str| Token::parse(text).expect("a trigger");
        let ids = IdSource::seeded(self.seed.digest(entry.as_bytes(), "sequence ids"));
        let id = SequenceId::new(&ids, START);
        let mut sequence = Sequence::draft(id, self.scope.user_id, entry, START);
        sequence.steps_version = 1;
        sequence.expires_after = EXPIRES_AFTER;
        let step = |(place, wait): (usize, &Duration)| Step {
            id: StepId::new(&ids, START),
            day: u16::try_from(place + 1).expect("few steps"),
            trigger: token(&if place == 0 {
                entry.to_owned()
            } else {
                format!("{entry}_{place}")
            }),
            next_trigger: next.filter(|_| place + 1 == waits.len()).map(token),
            entry_point: place == 0,
            wait: *wait,
            content: Content::text("{{name}}, {a new day|the next day}."),
            send_time: None,
            delay: None,
        };
        let steps = SequenceSteps {
            sequence_id: id,
            version: 1,
            steps: waits.iter().enumerate().map(step).collect(),
        };
        let insert = Change::InsertSequence {
            sequence: Box::new(sequence),
            steps: Some(Box::new(steps)),
        };
        now(self.store.commit(ChangeSet::one(insert), WriteClass::Api, START)).expect("the sequence is new");
        id
    }

    /// Forecasts a sequence.
    ///
    /// # Errors
    /// Those of the forecast.
    pub async fn forecast_sequence(&self, id: SequenceId, options: &ForecastOptions) -> Result<Forecast, HandleError> {
        let control = ForecastControl::new();
        self.handle()
            .forecast_sequence(&self.scope, id, options, &control)
            .await
    }

    /// Lives through it as [`live`](Self::live) does, until nobody is in a sequence any more, and tells what happened to that.
    ///
    /// # Panics
    /// Never: the memory store does not fail.
    #[must_use]
    pub fn live_sequence(&self, id: SequenceId, draws: u64, until: Duration) -> Truth {
        let through = || self.store.sequence_now(id, |_, through| through) == Some(true);
        self.run(draws, until, || !through());
        let sequence = now(self.store.sequence(&self.scope, id)).expect("the sequence is there");
        let mut truth = self.tell(MessageScope::Sequence(id), sequence.time_zone);
        // A flow that nobody got to has no message.
        let numbers = now(self.handle().sequence_numbers(&self.scope, id, &Span::default()));
        truth.numbers = numbers.expect("the sequence is there").total;
        truth
    }

    /// Lives through it until so long after the start of the world, with draws of its own, and tells what happened.
    ///
    /// # Panics
    /// Never: the memory store does not fail.
    #[must_use]
    pub fn live(&self, draws: u64, until: Duration) -> Truth {
        let stands = || self.store.campaign_now(self.campaign, |campaign| campaign.status);
        let runs = || matches!(stands(), Some(CampaignStatus::Scheduled | CampaignStatus::Triggered));
        self.run(draws, until, runs);
        let campaign = now(self.store.campaign(&self.scope, self.campaign)).expect("the campaign is there");
        let mut truth = self.tell(MessageScope::Campaign(self.campaign), campaign.time_zone);
        truth.status = stands();
        truth
    }

    fn run(&self, draws: u64, until: Duration, runs: impl Fn() -> bool) {
        let (builder, gateways) = self.builder(draws);
        let seed = Seed::from_number(draws);
        let mut scheduler = Scheduler::new(Arc::clone(&self.timeline), seed.rng(b"", "scheduler"));
        // Told to stop it ends what it has begun, so that nothing stays in doubt.
        let stop = self.timeline.sleep_until(until);
        let task = scheduler.spawn(async move {
            let core = builder.open().await.expect("the memory store opens");
            let engine = Engine::start(core).await.expect("the memory store takes a node");
            Runner::new(engine).run(stop).await;
        });
        while scheduler.is_alive(task) && runs() && scheduler.step() {
            let _ = gateways.work();
        }
    }

    fn tell(&self, scope: MessageScope, zone: TimeZone) -> Truth {
        let mut truth = Truth {
            days: BTreeMap::new(),
            last_sent_at: None,
            numbers: Numbers::default(),
            status: None,
        };
        let of = (self.scope.user_id, scope);
        let _ = self.store.visit_messages(of, None, usize::MAX, |message| {
            truth.numbers.count(message.state, None);
            let attempt = message.attempt.as_ref().filter(|_| message.state == MessageState::Sent);
            if let Some(at) = attempt.map(|attempt| attempt.attempted_at) {
                *truth.days.entry(zone.local_date(at)).or_default() += 1;
                truth.last_sent_at = truth.last_sent_at.max(Some(at));
            }
        });
        truth
    }
}
