//! What one more lane costs in memory, and with `pace` what 4,000 lanes cost that send at a human pace.
//!
//! `cargo bench -p wa-core --bench lanes [-- quick | pace [SECONDS]]`
//!
//! An engine takes over devices whose last hour is full to the cap of 80. Of the day a lane keeps a count per quarter of
//! an hour in a fixed place, so 80 attempts cost what 800 do. The resident set is read before and after: two waves of
//! lanes are taken over, and the second is what counts, because it reuses whatever the first left free behind it. Before
//! each, small blocks fill the holes that the heap has, so that lanes cannot hide in them.

#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints its results")]

#[path = "lanes/pace.rs"]
mod pace;

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use wa_core::domain::device::{Credential, Device, Epoch};
use wa_core::domain::message::{Attempt, Message, MessageState};
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::domain::platform::Platform;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::{Engine, EngineBuilder};
use wa_core::id::{AttemptId, DeviceId, IdSource, UserId};
use wa_core::seed::Seed;
use wa_core::store::{Change, ChangeSet, LeaseStore, MemoryStore, Store, WriteClass};
use wa_core::time::{Clock, SystemClock, Timestamp};
use wa_core::transport::{StubTransport, TransportMessageId};

use self::pace::{queued, resident};

/// Attempts of the last hour, per device: the default cap.
const ATTEMPTS: u32 = 80;
/// How many lanes the first wave has.
const WAVE: usize = 10_000;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let words: Vec<String> = std::env::args().collect();
    let Some(place) = words.iter().position(|word| word == "pace") else {
        runtime.expect("a runtime starts").block_on(measure());
        return;
    };
    let seconds = words.get(place + 1).and_then(|word| word.parse().ok()).unwrap_or(60);
    let paced = pace::measure(
        "the memory store",
        Arc::new(MemoryStore::new()),
        Duration::from_secs(seconds),
    );
    runtime.expect("a runtime starts").block_on(paced);
}

async fn measure() {
    let quick = std::env::args().any(|word| word == "quick");
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SystemClock::new());
    let now = clock.wall();
    let devices = if quick { WAVE + WAVE / 10 } else { 2 * WAVE };
    let ids = IdSource::seeded([3; 32]);
    let user = UserId::new(&ids, now);
    fill(&store, &ids, user, 0..WAVE, now).await;
    let config = EngineConfig::new("bench");
    let builder = EngineBuilder::new(store.clone(), clock, config).transport(Arc::new(StubTransport::new()));
    let core = builder.open().await.expect("the engine opens");

    let mut blocks = Vec::new();
    let before = settled_resident(&mut blocks);
    let engine = Engine::start(core).await.expect("the engine starts");
    let first = engine.status().lanes;
    let after_first = resident();
    fill(&store, &ids, user, WAVE..devices, now).await;
    let between = settled_resident(&mut blocks);
    engine.balance().await.expect("the rest is taken over");
    let second = engine.status().lanes - first;
    let after_second = resident();
    assert_eq!(first + second, devices);
    assert!(engine.lanes(None).iter().all(|lane| lane.sent_this_hour == ATTEMPTS));
    println!("{} lanes, {ATTEMPTS} attempts in the last hour each", first + second);
    println!(
        "first wave  {first:6} lanes: {} bytes each, with all that the take-over left free",
        each(before, after_first, first)
    );
    println!(
        "second wave {second:6} lanes: {} bytes each",
        each(between, after_second, second)
    );
    drop(blocks);
}

fn each(before: usize, after: usize, lanes: usize) -> usize {
    after.saturating_sub(before) / lanes
}

/// Fills the holes of the heap with blocks that stay, until small blocks of every size make it grow.
fn settled_resident(blocks: &mut Vec<Vec<u8>>) -> usize {
    for size in [1_024, 512, 256, 128, 64, 32] {
        let start = resident();
        while resident() < start + (1 << 20) {
            blocks.extend((0..1_000).map(|_| vec![1; size]));
        }
    }
    resident()
}

async fn fill(store: &MemoryStore, ids: &IdSource, user: UserId, numbers: Range<usize>, now: Timestamp) {
    let seed = store.seed(&Seed::from_number(1)).await.expect("the seed is kept");
    for number in numbers {
        let id = DeviceId::new(ids, now);
        let mut device = Device::new(id, user, format!("device {number}"), Platform::STUB, now);
        device.credential = Credential::new(format!("{number:064}.{number:08}"));
        device.base_url = Some("https://kudus.wablas.com".to_owned());
        device.phone = Phone::from_e164(&format!("+6011{number:08}")).ok();
        let phone = Phone::from_e164(&format!("+6012{number:08}")).expect("the number is well formed");
        let person = PersonKey::of(&seed, user, &phone);
        let messages = (0..ATTEMPTS).map(|at| {
            let sent_at = now.minus(Duration::from_secs(u64::from(at + 1) * 40));
            message(ids, user, id, (phone, person), sent_at)
        });
        let set =
            ChangeSet::one(Change::InsertDevice(Box::new(device))).and(Change::InsertMessages(messages.collect()));
        store
            .commit(set, WriteClass::Bulk, now)
            .await
            .expect("the device is there");
    }
}

fn message(ids: &IdSource, user: UserId, device: DeviceId, to: (Phone, PersonKey), at: Timestamp) -> Message {
    let attempt = AttemptId::new(ids, at);
    Message {
        state: MessageState::Sent,
        attempt: Some(Attempt {
            id: attempt,
            transport_message_id: TransportMessageId::from_attempt(attempt),
            provider_id: None,
            device_id: device,
            epoch: Epoch(1),
            text: String::new(),
            greeting: None,
            attempted_at: at,
        }),
        settled_at: Some(at),
        ..queued(ids, user, device, to, at)
    }
}
