//! Lets the engine work on a snapshot, in turns that are short enough for a server.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use super::options::{ForecastControl, ForecastOptions, ForecastPhase, Latency};
use super::report::{
    DeviceStand, Forecast, ForecastEnd, ForecastWarning, ForecastWarningCode, LatencySource, LatencyUsed,
    SequenceForecast,
};
use super::sending::{TimedTransport, UnloadedMedia};
use super::sequence_report::sequence_report;
use super::snapshot::{Snapshot, Target, cancelled, pass_the_turn};
use super::tally::{Tally, WaitWatch};
use crate::domain::campaign::{CampaignReason, CampaignStatus};
use crate::domain::device::LinkState;
use crate::domain::lane::Waits;
use crate::domain::message::{MessageState, Reason};
use crate::domain::platform::Platform;
use crate::domain::sequence::{SequenceReason, SequenceStatus};
use crate::engine::config::EngineConfig;
use crate::engine::core::{Core, EngineBuilder, OpenError};
use crate::engine::handle::HandleError;
use crate::engine::{Engine, Runner};
use crate::id::DeviceId;
use crate::seed::Seed;
use crate::simulation::clock::{Timeline, VirtualClock};
use crate::store::{Change, ChangeSet, MemoryStore, Store, WriteClass};
use crate::time::{Clock, Timestamp};
use crate::transport::Capabilities;

/// How often the engine is polled before others have their turn on the thread: about a millisecond of work.
const STEPS_PER_TURN: usize = 32;
/// How many turns lie between two tellings of how far it is, which counts over all devices.
const TURNS_PER_PROGRESS: u64 = 64;
/// How many messages are counted before others have their turn.
const COUNTED_PER_TURN: usize = 2_000;
/// How often the planner looks when nothing tells it to.
const PLAN_EVERY: Duration = Duration::from_secs(60);
/// The same while a campaign chooses devices by load: lanes are topped up for three messages at most.
const PLAN_POOLS_EVERY: Duration = Duration::from_secs(5);
/// How often lanes are looked at when nothing tells them to.
const LOOK_EVERY: Duration = Duration::from_secs(24 * 3_600);
/// The same where a campaign in its quiet hours may stand before another on a lane.
const LOOK_PAST_QUIET_EVERY: Duration = Duration::from_secs(60);
/// How often the one node of a simulation renews its lease, which nobody contests.
const BEAT_EVERY: Duration = Duration::from_secs(12 * 3_600);

#[derive(Default)]
struct Ready(AtomicBool);

impl Wake for Ready {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One engine on a virtual clock.
struct Simulation {
    timeline: Arc<Timeline>,
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
    ready: Arc<Ready>,
    waker: Waker,
}

impl Simulation {
    fn new(timeline: Arc<Timeline>, task: impl Future<Output = ()> + Send + 'static) -> Self {
        let ready = Arc::new(Ready(AtomicBool::new(true)));
        Self {
            timeline,
            task: Box::pin(task),
            waker: Waker::from(Arc::clone(&ready)),
            ready,
        }
    }

    /// Polls the engine, or lets the clock jump when it has nothing to do; `false` when it never will have.
    fn step(&mut self) -> bool {
        if self.ready.0.swap(false, Ordering::Relaxed) {
            let mut context = Context::from_waker(&self.waker);
            return self.task.as_mut().poll(&mut context).is_pending();
        }
        self.timeline.advance()
    }
}

fn config_of(core: &Core, snapshot: &Snapshot) -> EngineConfig {
    let mut config = core.config.clone();
    config.node_name = "forecast".to_owned();
    // One process, one node: whatever changes comes with a hint, so that nothing has to be looked for.
    config.plan_every = if snapshot.has_pool {
        PLAN_POOLS_EVERY
    } else {
        PLAN_EVERY
    };
    config.look_every = if snapshot.has_mixed_quiet {
        LOOK_PAST_QUIET_EVERY
    } else {
        LOOK_EVERY
    };
    config.beat_every = BEAT_EVERY;
    config.refresh_every = BEAT_EVERY;
    config.lease_for = BEAT_EVERY * 4;
    config.lease_margin = Duration::from_secs(5);
    config
}

/// How long sends over a platform take, and where that is known from.
fn latency_of(core: &Core, options: &ForecastOptions, platform: &Platform) -> (Latency, LatencySource) {
    if let Some(given) = options.latencies.get(platform) {
        return (given.clone(), LatencySource::Given);
    }
    match core.send_times.of(platform) {
        Some(measured) => (Latency::Measured(measured), LatencySource::Measured),
        None => (options.latency.clone(), LatencySource::Assumed),
    }
}

/// The same for those who read the forecast, of the platforms that the user's devices have.
fn latencies_used(transports: &[TimedTransport], snapshot: &Snapshot) -> Vec<LatencyUsed> {
    let used = transports
        .iter()
        .filter(|one| snapshot.platforms.contains(&one.platform));
    let used = used.map(|one| {
        let (least_ms, mean_ms, most_ms) = one.latency.range_ms();
        LatencyUsed {
            platform: one.platform.clone(),
            source: one.latency_source,
            measured: match (&one.latency, one.latency_source) {
                (Latency::Measured(spans), LatencySource::Measured) => spans.len() as u64,
                _ => 0,
            },
            least_ms,
            mean_ms,
            most_ms,
        }
    });
    used.collect()
}

fn transports(core: &Core, options: &ForecastOptions, timeline: &Arc<Timeline>) -> Vec<TimedTransport> {
    let seed = Seed::from_number(options.seed);
    let platforms = core.transports.platforms().cloned();
    platforms
        .filter_map(|platform| {
            let real = core.transports.get(&platform)?;
            let (latency, latency_source) = latency_of(core, options, &platform);
            Some(TimedTransport {
                capabilities: Capabilities {
                    // What is slower than the engine waits for stays unknown: there is no gateway to ask.
                    reconcile: false,
                    resend_same_id: false,
                    ..real.capabilities().clone()
                },
                latency,
                latency_source,
                failed_per_mille: options.failed_per_mille,
                timeline: Arc::clone(timeline),
                rng: Mutex::new(seed.rng(platform.as_str().as_bytes(), "forecast gateway")),
                platform,
            })
        })
        .collect()
}

/// The devices that come back, and when.
fn returning(snapshot: &Snapshot, options: &ForecastOptions) -> Option<(Timestamp, Vec<DeviceId>)> {
    let at = snapshot.made_at + options.offline_for?;
    let offline = snapshot
        .devices
        .iter()
        .filter(|(_, (_, stand))| *stand == DeviceStand::Offline);
    let ids: Vec<_> = offline.map(|(id, _)| *id).collect();
    (!ids.is_empty()).then_some((at, ids))
}

/// Lets a snapshot happen and tells what came of it.
pub(crate) async fn run(
    core: &Core,
    mut snapshot: Snapshot,
    options: &ForecastOptions,
    control: &ForecastControl,
) -> Result<Forecast, HandleError> {
    let (user, scope) = (snapshot.target.user(), snapshot.target.scope());
    let timeline = Timeline::new();
    let clock = Arc::new(VirtualClock::new(Arc::clone(&timeline), snapshot.made_at));
    let watch = Arc::new(WaitWatch::new(scope));
    let store = Arc::clone(&snapshot.store);
    let seed = Seed::from_number(options.seed);
    let ids = std::mem::replace(
        &mut snapshot.ids,
        crate::id::IdSource::seeded(seed.digest(b"", "forecast ids")),
    );
    let mut builder = EngineBuilder::new(
        Arc::clone(&store) as Arc<dyn Store>,
        Arc::clone(&clock) as Arc<dyn Clock>,
        config_of(core, &snapshot),
    )
    .ids(ids)
    .media(Arc::new(UnloadedMedia))
    .watch(Arc::clone(&watch) as _);
    let transports = transports(core, options, &timeline);
    let latencies = latencies_used(&transports, &snapshot);
    for transport in transports {
        builder = builder.transport(Arc::new(transport));
    }
    let simulated = builder.open().await.map_err(|error| match error {
        OpenError::Store(error) => HandleError::from(error),
        OpenError::Config(error) => unreachable!("a configuration that an engine runs with: {error}"),
    })?;
    let back = returning(&snapshot, options);
    let back_at = back.as_ref().map(|(at, _)| *at);
    let mut simulation = Simulation::new(Arc::clone(&timeline), async move {
        let returns = come_back(Arc::clone(&simulated), user, back);
        let engine = Engine::start(simulated).await.expect("the memory store takes a node");
        let runner = Runner::new(engine).run(std::future::pending());
        futures::future::join(runner, returns).await;
    });
    let stopped = drive(core, &mut simulation, &snapshot, options, control).await?;
    drop(simulation);

    control.tell(|progress| progress.phase = ForecastPhase::Counting);
    let end = snapshot.made_at + timeline.now();
    let mut tally = Tally::new(snapshot.target.time_zone(), end);
    let mut page = None;
    loop {
        let of = (user, scope);
        page = store.visit_messages(of, page, COUNTED_PER_TURN, |message| {
            if !snapshot.was_settled_before(message.id) {
                tally.add(message);
            }
        });
        if page.is_none() {
            break;
        }
        if control.is_cancelled() {
            return Err(cancelled());
        }
        pass_the_turn().await;
    }
    let sequence = match &snapshot.target {
        Target::Sequence(of) => Some(sequence_report(&store, of, &mut tally).await?),
        Target::Campaign(_) => None,
    };
    let mut forecast = report(snapshot, tally, &watch, stopped, back_at);
    forecast.latencies = latencies;
    if let Some(sequence) = sequence {
        forecast.warnings.splice(0..0, not_taken(&sequence));
        forecast.sequence = Some(sequence);
    }
    Ok(forecast)
}

async fn come_back(simulated: Arc<Core>, user: crate::id::UserId, back: Option<(Timestamp, Vec<DeviceId>)>) {
    let Some((at, devices)) = back else { return };
    let span = at.since(simulated.clock.wall());
    let until = simulated.clock.monotonic() + span;
    simulated.clock.sleep_until(until).await;
    for device_id in devices {
        let change = Change::SetDeviceLink {
            user_id: user,
            device_id,
            fence: None,
            state: LinkState::Ready,
            reason: None,
            phone: None,
            jid: None,
        };
        let done = simulated
            .store
            .commit(ChangeSet::one(change), WriteClass::Api, at)
            .await;
        done.expect("a device that was read is there");
        simulated.wake.changed(device_id);
    }
}

/// How it stands in the simulation when it does not run any more.
fn ended(store: &MemoryStore, snapshot: &Snapshot) -> Option<ForecastEnd> {
    let campaign = match &snapshot.target {
        Target::Campaign(campaign) => campaign,
        Target::Sequence(of) => {
            let stands = store.sequence_now(of.sequence.id, |now, through| (now.status, now.reason, through));
            return match stands {
                Some((SequenceStatus::Active, _, false)) => None,
                Some((SequenceStatus::Active, _, true)) => Some(ForecastEnd::Completed),
                Some((_, reason, _)) => {
                    let reason = reason.map(|reason| match reason {
                        SequenceReason::ByPerson => CampaignReason::ByPerson,
                        SequenceReason::ErrorRate => CampaignReason::ErrorRate,
                        SequenceReason::DeviceGone => CampaignReason::DeviceGone,
                    });
                    Some(ForecastEnd::Stopped { reason })
                }
                None => Some(ForecastEnd::Stopped { reason: None }),
            };
        }
    };
    let stands = store.campaign_now(campaign.id, |campaign| (campaign.status, campaign.reason));
    match stands {
        Some((CampaignStatus::Scheduled | CampaignStatus::Triggered, _)) => None,
        Some((CampaignStatus::Completed, _)) => Some(ForecastEnd::Completed),
        Some((_, reason)) => Some(ForecastEnd::Stopped { reason }),
        None => Some(ForecastEnd::Stopped { reason: None }),
    }
}

async fn drive(
    core: &Core,
    simulation: &mut Simulation,
    snapshot: &Snapshot,
    options: &ForecastOptions,
    control: &ForecastControl,
) -> Result<ForecastEnd, HandleError> {
    let begun = core.clock.monotonic();
    let first = snapshot.starts_at.max(snapshot.made_at);
    let horizon = (first + options.horizon).since(snapshot.made_at);
    let of = (snapshot.target.user(), snapshot.target.scope());
    let mut turns = 0_u64;
    loop {
        for _ in 0..STEPS_PER_TURN {
            if !simulation.step() || simulation.timeline.now() > horizon {
                return Ok(ended(&snapshot.store, snapshot).unwrap_or(ForecastEnd::Horizon));
            }
        }
        if let Some(end) = ended(&snapshot.store, snapshot) {
            return Ok(end);
        }
        if core.clock.monotonic().since(begun) > options.work_max {
            return Ok(ForecastEnd::OutOfTime);
        }
        if control.is_cancelled() {
            return Err(cancelled());
        }
        if turns.is_multiple_of(TURNS_PER_PROGRESS) {
            let (settled, planned) = snapshot.store.progress_of(of);
            let at = snapshot.made_at + simulation.timeline.now();
            control.tell(|progress| {
                progress.phase = ForecastPhase::Running;
                progress.settled = settled;
                progress.planned = planned;
                progress.simulated_at = Some(at);
            });
        }
        turns += 1;
        pass_the_turn().await;
    }
}

fn report(
    snapshot: Snapshot,
    tally: Tally,
    watch: &WaitWatch,
    end: ForecastEnd,
    back_at: Option<Timestamp>,
) -> Forecast {
    let from = snapshot.starts_at.max(snapshot.made_at);
    let numbers = tally.numbers;
    let days = tally.days();
    let not_sent = tally.not_sent();
    let last_settled_at = tally.last_settled_at;
    let devices = tally.devices(&snapshot.devices, watch.take(), from, back_at);
    let mut forecast = Forecast {
        scope: snapshot.target.scope(),
        made_at: snapshot.made_at,
        starts_at: snapshot.starts_at,
        end,
        first_sent_at: devices.iter().filter_map(|device| device.first_sent_at).min(),
        last_sent_at: devices.iter().filter_map(|device| device.last_sent_at).max(),
        ends_at: last_settled_at.filter(|_| end == ForecastEnd::Completed),
        time_zone: snapshot.target.time_zone(),
        before: snapshot.before,
        numbers: snapshot.before + numbers,
        days,
        waited: devices.iter().map(|device| device.waited).sum(),
        devices,
        not_sent,
        sequence: None,
        latencies: Vec::new(),
        warnings: snapshot.warnings,
    };
    let told = warnings(&forecast, numbers.remaining);
    forecast.warnings.extend(told);
    forecast
}

/// Leads that match and are not taken.
fn not_taken(sequence: &SequenceForecast) -> Vec<ForecastWarning> {
    let contacts = &sequence.contacts;
    let rows = [
        (contacts.suppressed, "they must not be written to"),
        (contacts.refused, "they were in it before"),
    ];
    let rows = rows.into_iter().filter(|(count, _)| *count > 0);
    let warnings = rows.map(|(count, why)| ForecastWarning {
        code: ForecastWarningCode::Skipped,
        message: format!("{count} leads that match do not enter: {why}"),
    });
    warnings.collect()
}

fn warnings(forecast: &Forecast, remaining: u64) -> Vec<ForecastWarning> {
    let mut warnings = Vec::new();
    let mut warn = |code, message| warnings.push(ForecastWarning { code, message });
    let cannot = forecast.devices.iter().filter(|device| {
        let stand = device.stand.is_some_and(|stand| stand != DeviceStand::Online);
        stand && device.numbers.should() > 0
    });
    let (mut devices, mut messages) = (0, 0);
    for device in cannot {
        devices += 1;
        messages += device.numbers.should();
    }
    if devices > 0 {
        let message =
            format!("{devices} devices with {messages} recipients cannot send now: offline, on hold or deleted");
        warn(ForecastWarningCode::DevicesOffline, message);
    }
    if forecast.last_sent_at.is_none() {
        warn(ForecastWarningCode::NobodyCanSend, "no message goes out".to_owned());
    }
    for row in &forecast.not_sent {
        match (row.state, row.reason) {
            (MessageState::Skipped, Some(Reason::Expired)) => {
                let message = format!("{} messages expire before their turn comes", row.count);
                warn(ForecastWarningCode::Expires, message);
            }
            (MessageState::Skipped, Some(reason)) => {
                let message = format!("{} recipients are skipped: {}", row.count, skipped_because(reason));
                warn(ForecastWarningCode::Skipped, message);
            }
            _ => {}
        }
    }
    match forecast.end {
        ForecastEnd::Completed => {}
        ForecastEnd::Stopped { .. } => {
            let message = format!("it would stop before its end, with {remaining} messages left");
            warn(ForecastWarningCode::Stops, message);
        }
        ForecastEnd::Horizon | ForecastEnd::OutOfTime => {
            let message = format!("{remaining} messages are left where the forecast ends");
            warn(ForecastWarningCode::Unfinished, message);
        }
    }
    let Waits {
        hour_cap_ms,
        day_cap_ms,
        warm_up_ms,
        ..
    } = forecast.waited;
    let capped = hour_cap_ms.saturating_add(day_cap_ms).saturating_add(warm_up_ms);
    if capped > forecast.waited.delay_ms.max(1) {
        let hours = capped / 3_600_000;
        let message = format!("caps cost more time than pauses: {hours} hours of waiting, added up over all devices");
        warn(ForecastWarningCode::Capped, message);
    }
    warnings
}

const fn skipped_because(reason: Reason) -> &'static str {
    match reason {
        Reason::Suppressed => "they must not be written to",
        Reason::Duplicate => "their number is in the campaign already",
        Reason::NotOnWhatsApp => "they are not on WhatsApp",
        Reason::TooLong => "their text is too long",
        Reason::DeviceGone => "their device was deleted",
        Reason::LeadGone => "they were deleted",
        Reason::NoDevice => "they have no device",
        Reason::DeviceLimit => "every device has reached the limit of the campaign",
        _ => "see the reason",
    }
}
