//! What lanes cost that send at a human pace, and how well they keep it, on any store.
//!
//! Each lane has a queue that does not run dry. An attempt of a lane should start when the pause drawn for its message has passed
//! since the attempt before started; later than that is late, and earlier must never happen. The pauses are drawn here again from
//! seed, device and message. The first 15 s, in which every lane sends its first message, are left out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use wa_core::domain::access::RequestScope;
use wa_core::domain::audience::AudienceCursor;
use wa_core::domain::campaign::{Campaign, CampaignStatus};
use wa_core::domain::content::Content;
use wa_core::domain::device::Device;
use wa_core::domain::message::{IdempotencyKey, Message, MessageScope, MessageState};
use wa_core::domain::pacing::{DelaySettings, PacingPolicy};
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::domain::platform::Platform;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::{Ended, Engine, EngineBuilder, Runner};
use wa_core::id::{CampaignId, DeviceId, IdSource, MessageId, UserId};
use wa_core::seed::Seed;
use wa_core::store::{Change, ChangeSet, MessageFilter, PAGE_MAX, PageRequest, Store, WriteClass};
use wa_core::time::{Clock, SystemClock, Timestamp};
use wa_core::transport::{
    Capabilities, InvalidDevice, OutgoingMessage, SendContext, SendError, SendReceipt, StubTransport, Transport,
    TransportDevice,
};

/// How many lanes there are.
pub const LANES: usize = 4_000;
/// How long it takes until every lane is between two messages: the longest pause.
const WARM_UP: Duration = Duration::from_secs(15);
/// The shortest pause.
const DELAY_MIN: Duration = Duration::from_secs(5);
/// By how much the time between two instants that are kept in whole milliseconds may look shorter than it was.
const GRAIN_MS: i64 = 1;
/// Rows of one commit.
const PAGE: usize = 500;

/// Lets lanes send for the warm-up and for `span`, and prints what it took of this process.
pub async fn measure(name: &str, store: Arc<dyn Store>, span: Duration) {
    let clock = Arc::new(SystemClock::new());
    let ids = IdSource::seeded([5; 32]);
    let user = UserId::new(&ids, clock.wall());
    let each = usize::try_from((WARM_UP + span).as_secs() / DELAY_MIN.as_secs()).expect("a small number") + 1;
    fill(&*store, &ids, user, each, clock.wall()).await;
    let seed = store.seed(&Seed::from_number(1)).await.expect("the seed is kept");
    let transport = Arc::new(Timed {
        inner: StubTransport::new().forgetful(),
        clock: clock.clone(),
        handed: Mutex::new(HashMap::with_capacity(LANES * each)),
    });
    let builder = EngineBuilder::new(store.clone(), clock.clone(), EngineConfig::new("bench"));
    let core = builder
        .transport(transport.clone())
        .open()
        .await
        .expect("the engine opens");
    let before = resident();
    let engine = Engine::start(core).await.expect("the engine starts");
    let lanes_bytes = resident().saturating_sub(before);
    assert_eq!(engine.status().lanes, LANES, "all devices are taken over");

    let from = clock.monotonic() + WARM_UP;
    let spent = Arc::new(Mutex::new(None));
    let stop = {
        let (clock, spent) = (clock.clone(), spent.clone());
        async move {
            clock.sleep_until(from).await;
            let (begin, began_at) = (processor_time(), clock.wall());
            clock.sleep_until(from + span).await;
            let used = processor_time() - begin;
            *spent.lock().expect("nobody panics with it") = Some((used, began_at));
        }
    };
    let ended = Runner::new(engine).run(stop).await;
    assert_eq!(ended, Ended::Stopped);
    let (used, since) = spent.lock().expect("nobody panics with it").expect("the run has ended");
    let handed = transport.handed.lock().expect("nobody panics with it").clone();
    let kept = read(&*store, user, &seed, &handed, since).await;
    let late = |share: usize| kept.late_ms[(kept.late_ms.len() - 1) * share / 100];
    println!("{LANES} lanes on {name}, pauses of 5 to 15 s, {} s", span.as_secs());
    println!(
        "  {} messages; earliest {} ms after its pause; late: p50 {} ms, p95 {} ms, p99 {} ms, longest {} ms",
        kept.late_ms.len(),
        kept.earliest_ms,
        late(50),
        late(95),
        late(99),
        late(100)
    );
    println!(
        "  {:.1} % of one core, {:.2} ms a message; {} bytes more for each lane after the take-over",
        used.as_secs_f64() / span.as_secs_f64() * 100.0,
        used.as_secs_f64() * 1_000.0 / kept.late_ms.len() as f64,
        lanes_bytes / LANES
    );
    assert!(
        kept.earliest_ms >= -GRAIN_MS,
        "a message started before its pause was over"
    );
}

/// How well pauses were kept.
struct Kept {
    /// The least time between the end of a pause and the start of the attempt.
    earliest_ms: i64,
    /// The time between the end of a pause and the call of the transport, sorted.
    late_ms: Vec<i64>,
}

/// Compares what the store has of attempts with the pauses.
async fn read(
    store: &dyn Store,
    user: UserId,
    seed: &Seed,
    handed: &HashMap<MessageId, Timestamp>,
    since: Timestamp,
) -> Kept {
    let scope = RequestScope::user(user);
    let mut lanes: HashMap<DeviceId, Vec<(Timestamp, MessageId)>> = HashMap::new();
    let mut page = PageRequest::first(PAGE_MAX);
    let filter = MessageFilter {
        states: vec![MessageState::Sent],
        ..MessageFilter::default()
    };
    loop {
        let read = store.messages(&scope, &filter, &page).await.expect("the rows are read");
        for message in read.rows {
            let attempt = message.attempt.expect("what was sent has an attempt");
            lanes
                .entry(attempt.device_id)
                .or_default()
                .push((attempt.attempted_at, message.id));
        }
        let Some(next) = read.next else { break };
        page = PageRequest::after(next, PAGE_MAX);
    }
    let policy = PacingPolicy::default();
    let range = policy.delay_range(DelaySettings::default());
    let mut kept = Kept {
        earliest_ms: i64::MAX,
        late_ms: Vec::new(),
    };
    for (device, attempts) in &mut lanes {
        attempts.sort_unstable();
        for pair in attempts.windows(2) {
            let [(before, _), (started, message)] = *pair else {
                unreachable!("windows of two")
            };
            let pause = policy.draw_delay(range, seed, *device, message).as_duration();
            let allowed = before + pause;
            kept.earliest_ms = kept.earliest_ms.min(started.as_millis() - allowed.as_millis());
            if allowed >= since {
                kept.late_ms.push(handed[&message].as_millis() - allowed.as_millis());
            }
        }
    }
    kept.late_ms.sort_unstable();
    kept
}

async fn fill(store: &dyn Store, ids: &IdSource, user: UserId, each: usize, now: Timestamp) {
    let seed = store.seed(&Seed::from_number(1)).await.expect("the seed is kept");
    let devices: Vec<_> = (0..LANES).map(|_| DeviceId::new(ids, now)).collect();
    for (page, chunk) in devices.chunks(PAGE).enumerate() {
        let changes = chunk.iter().enumerate().map(|(at, id)| {
            let name = format!("device {}", page * PAGE + at);
            Change::InsertDevice(Box::new(Device::new(*id, user, name, Platform::STUB, now)))
        });
        commit(store, changes.collect(), now).await;
    }
    let campaign = CampaignId::new(ids, now);
    let mut draft = Campaign::draft(campaign, user, "offer", Content::text("Hi, {buy|take} it today"), now);
    draft.status = CampaignStatus::Triggered;
    draft.started_at = Some(now);
    draft.cursor = AudienceCursor::Done;
    commit(store, vec![Change::InsertCampaign(Box::new(draft))], now).await;
    let numbers: Vec<usize> = (0..LANES * each).collect();
    for chunk in numbers.chunks(PAGE) {
        let rows = chunk.iter().map(|number| {
            let phone = Phone::from_e164(&format!("+6012{number:07}")).expect("the number is well formed");
            let person = PersonKey::of(&seed, user, &phone);
            let mut message = queued(ids, user, devices[number % LANES], (phone, person), now);
            message.scope = MessageScope::Campaign(campaign);
            message.key = IdempotencyKey::campaign(campaign, person, 0);
            message
        });
        commit(store, vec![Change::InsertMessages(rows.collect())], now).await;
    }
}

async fn commit(store: &dyn Store, changes: Vec<Change>, now: Timestamp) {
    let set = ChangeSet {
        changes,
        events: Vec::new(),
    };
    let done = store.commit(set, WriteClass::Bulk, now).await;
    done.expect("the rows go in");
}

/// A direct message that waits for its device.
pub fn queued(ids: &IdSource, user: UserId, device: DeviceId, to: (Phone, PersonKey), at: Timestamp) -> Message {
    let id = MessageId::new(ids, at);
    Message {
        id,
        user_id: user,
        scope: MessageScope::Direct,
        key: IdempotencyKey::unique(id),
        round: 0,
        supersedes: None,
        superseded: false,
        lead_id: None,
        phone: Some(to.0),
        person: to.1,
        name: String::new(),
        custom: Default::default(),
        device_id: Some(device),
        flow: None,
        from_pool: false,
        content: None,
        override_suppression: false,
        due_at: at,
        delay: None,
        expires_at: at + Duration::from_secs(7 * 24 * 3_600),
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
        created_at: at,
    }
}

/// Bytes of memory that the process really has, as Linux counts them: 4 KiB pages.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux tells the resident set");
    let pages: usize = statm
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse().ok())
        .expect("the second word is a number");
    pages * 4_096
}

/// Processor time of this process so far, of all its threads, in ticks of 10 ms.
fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells the processor time");
    let (_, rest) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks: u32 = rest
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|word| word.parse::<u32>().expect("ticks are numbers"))
        .sum();
    Duration::from_millis(10) * ticks
}

/// The forgetful stub, which notes when it was given what.
#[derive(Debug)]
struct Timed {
    inner: StubTransport,
    clock: Arc<SystemClock>,
    handed: Mutex<HashMap<MessageId, Timestamp>>,
}

#[async_trait]
impl Transport for Timed {
    fn platform(&self) -> Platform {
        self.inner.platform()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn check_device(&self, device: &TransportDevice) -> Result<(), InvalidDevice> {
        self.inner.check_device(device)
    }

    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        let now = self.clock.wall();
        self.handed
            .lock()
            .expect("nobody panics with it")
            .insert(message.message_id, now);
        self.inner.send(context, message).await
    }
}
