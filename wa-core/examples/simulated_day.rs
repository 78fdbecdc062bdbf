//! A simulated day: 3,000 devices write to 100,000 leads at a human pace, in seconds.
//!
//! 200 users start a campaign each, one after the other over the day. The engine is the real one, with its real limits;
//! only lanes without anything to send are looked at less often, since in one process nothing comes without a hint.
//!
//! ```text
//! cargo run --release -p wa-core --example simulated_day
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use wa_core::domain::campaign::{Campaign, CampaignStatus};
use wa_core::domain::content::Content;
use wa_core::domain::device::{Device, LinkState};
use wa_core::domain::lead::Lead;
use wa_core::domain::phone::Phone;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::{Engine, EngineBuilder, Runner};
use wa_core::id::{CampaignId, DeviceId, IdSource, LeadId, UserId};
use wa_core::seed::Seed;
use wa_core::simulation::{
    GatewayFaults, GatewayKind, Gateways, History, Scheduler, SimTransport, Timeline, VirtualClock,
};
use wa_core::store::{CampaignStore, Change, ChangeSet, LeaseStore, MemoryStore, OnDuplicate, Store, WriteClass};
use wa_core::time::{Clock, SystemClock, Timestamp};

const USERS: usize = 200;
const DEVICES: usize = 3_000;
const LEADS: usize = 100_000;
const CAMPAIGN_EVERY: Duration = Duration::from_secs(6 * 60);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// 2026-11-21, 8 in the morning in Kuala Lumpur.
const START: Timestamp = Timestamp::from_millis(1_795_219_200_000);

fn now<T>(work: impl Future<Output = T>) -> T {
    work.now_or_never().expect("the memory store never waits")
}

fn commit(store: &MemoryStore, set: ChangeSet) {
    now(store.commit(set, WriteClass::Bulk, START)).expect("the rows are new");
}

/// Adds users, devices, leads and one campaign per user.
fn people(store: &MemoryStore, ids: &IdSource) -> Vec<CampaignId> {
    let users: Vec<UserId> = (0..USERS).map(|_| UserId::new(ids, START)).collect();
    let mut devices: BTreeMap<usize, Vec<DeviceId>> = BTreeMap::new();
    let mut set = ChangeSet::default();
    for number in 0..DEVICES {
        let user = number % USERS;
        let id = DeviceId::new(ids, START);
        let kind = GatewayKind::ALL[number % 3];
        let mut device = Device::new(id, users[user], format!("device {number}"), kind.platform(), START);
        device.link_state = LinkState::Ready;
        devices.entry(user).or_default().push(id);
        set = set.and(Change::InsertDevice(Box::new(device)));
    }
    commit(store, set);
    let mut set = ChangeSet::default();
    for number in 0..LEADS {
        let user = number % USERS;
        let own = &devices[&user];
        let phone = Phone::from_e164(&format!("+6012{number:07}")).expect("a Malaysian mobile number");
        let device = own[(number / USERS) % own.len()];
        let mut lead = Lead::new(LeadId::new(ids, START), users[user], Some(device), phone, START);
        lead.name = "Aminah".to_owned();
        set = set.and(Change::InsertLead {
            lead: Box::new(lead),
            on_duplicate: OnDuplicate::Refuse,
        });
    }
    commit(store, set);
    let campaigns = users.iter().enumerate().map(|(place, user)| {
        let id = CampaignId::new(ids, START);
        let content = Content::text("{{name}}, {come and see|have a look at} what is new.");
        let mut campaign = Campaign::draft(id, *user, "news", content, START);
        campaign.status = CampaignStatus::Scheduled;
        campaign.scheduled_at = Some(START + CAMPAIGN_EVERY * u32::try_from(place).unwrap_or(0));
        commit(store, ChangeSet::one(Change::InsertCampaign(Box::new(campaign))));
        id
    });
    campaigns.collect()
}

#[allow(clippy::print_stdout, reason = "an example tells people")]
fn main() {
    let real = SystemClock::new();
    let seed = Seed::from_number(1);
    let store = Arc::new(MemoryStore::new());
    now(store.seed(&seed)).expect("the memory store has a seed");
    let ids = IdSource::seeded(seed.digest(b"", "ids"));
    let campaigns = people(&store, &ids);
    let prepared = real.monotonic();

    let timeline = Timeline::new();
    let history = History::new(Arc::clone(&timeline));
    let gateways = Gateways::new(
        Arc::clone(&timeline),
        history,
        GatewayFaults::NONE,
        seed.rng(b"", "gateways"),
    )
    .counting_only();
    let mut scheduler = Scheduler::new(Arc::clone(&timeline), seed.rng(b"", "scheduler"));
    let clock = Arc::new(VirtualClock::new(Arc::clone(&timeline), START));
    let mut config = EngineConfig::new("day");
    config.look_every = Duration::from_secs(60);
    config.refresh_every = Duration::from_secs(60);
    config.plan_every = Duration::from_secs(5);
    let mut builder =
        EngineBuilder::new(Arc::clone(&store) as _, clock, config).ids(IdSource::seeded(seed.digest(b"", "node ids")));
    for kind in GatewayKind::ALL {
        builder = builder.transport(Arc::new(SimTransport::new(kind, Arc::clone(&gateways))));
    }
    scheduler.spawn(async move {
        let core = builder.open().await.expect("the memory store opens");
        let engine = Engine::start(core).await.expect("the memory store takes a node");
        Runner::new(engine).run(std::future::pending()).await;
    });
    let mut steps = 0_u64;
    while timeline.now() < DAY && scheduler.step() {
        steps += 1;
        let _ = gateways.work();
    }
    let took = real.monotonic().since(prepared);
    let counts: Vec<u32> = gateways.received_per_device().into_values().collect();
    let sent: u64 = counts.iter().copied().map(u64::from).sum();
    let (least, most) = (counts.iter().min().unwrap_or(&0), counts.iter().max().unwrap_or(&0));
    println!("{DEVICES} devices, {LEADS} leads, {USERS} campaigns");
    println!("received: {sent} messages, per device {least} to {most}");
    let ended = now(store.campaigns_by_id(&campaigns)).expect("the memory store reads");
    let ended = ended
        .iter()
        .filter(|campaign| campaign.status == CampaignStatus::Completed);
    println!("completed: {} campaigns in 24 simulated hours", ended.count());
    println!("took {:.1} s for {steps} steps", took.as_secs_f64());
}
