//! Begins with a large backlog beside begins with a small one.

use wa_core::domain::device::OwnedDevice;
use wa_core::id::{AttemptId, Incarnation};
use wa_core::store::{
    Begin, BeginItem, Begun, Due, LaneLook, LeaseStore, OutboxStore, Outcome, Settle, Settled, Verdict,
};
use wa_core::transport::TransportMessageId;
use wa_store_sqlite::SqliteStore;

use crate::fill::Filler;
use crate::report::median;
use crate::stage::{Folder, SEED, Stage, open};

/// Messages per begin: half of what is under way at one gateway by default.
pub const BATCH: usize = 32;
/// The place of a device in a batch, among all: batches go round, and devices of a batch are no neighbours, as their rows would
/// be too.
pub const fn turn(step: usize, at: usize) -> usize {
    (step * BATCH + at) * 337
}

/// The small backlog.
const SMALL: usize = 10_000;

/// Times of one kind of call, in milliseconds.
#[derive(Default)]
pub struct Times {
    pub due: Vec<f64>,
    pub begin: Vec<f64>,
    pub settle: Vec<f64>,
}

/// A node that sends the messages of a campaign, batch by batch.
pub struct Side<'a> {
    stage: &'a Stage,
    store: SqliteStore,
    node: Incarnation,
    devices: Vec<OwnedDevice>,
    pub times: Times,
}

impl<'a> Side<'a> {
    pub async fn start(stage: &'a Stage, store: SqliteStore) -> Self {
        let node = Incarnation::new(&stage.ids, stage.now);
        store.join(node, "sender", stage.now).await.expect("the node joins");
        let devices = store
            .claim(node, 10_000, stage.now)
            .await
            .expect("the devices are claimed");
        Self {
            stage,
            store,
            node,
            devices,
            times: Times::default(),
        }
    }

    fn milliseconds(&self) -> f64 {
        self.stage.seconds() * 1_000.0
    }

    /// Looks at a batch of lanes, begins their messages and settles them.
    pub async fn step(&mut self, step: usize) {
        let now = self.stage.now;
        let lanes: Vec<_> = (0..BATCH)
            .map(|at| &self.devices[turn(step, at) % self.devices.len()])
            .collect();
        let due = Due {
            lanes: lanes
                .iter()
                .map(|owned| LaneLook {
                    user_id: owned.device.user_id,
                    device_id: owned.device.id,
                    served: None,
                    served_sequence: None,
                })
                .collect(),
            now,
        };
        let started = self.milliseconds();
        let heads = self.store.due(&due).await.expect("the lanes are looked at");
        let due_ms = self.milliseconds() - started;
        let items: Vec<_> = heads
            .iter()
            .zip(&lanes)
            .map(|(lane, owned)| {
                let message = lane.heads.first().expect("every lane has a backlog");
                let attempt_id = AttemptId::new(&self.stage.ids, now);
                BeginItem {
                    user_id: self.stage.user,
                    device_id: lane.device_id,
                    epoch: owned.epoch,
                    message_id: message.id,
                    attempt_id,
                    transport_message_id: TransportMessageId::from_attempt(attempt_id),
                    text: "Hi Ali bin Abu, buy it today".to_owned(),
                    greeting: None,
                    attempted_at: now,
                    again: false,
                }
            })
            .collect();
        let begin = Begin {
            incarnation: self.node,
            items,
            now,
        };
        let started = self.milliseconds();
        let begun = self.store.begin(&begin).await.expect("the messages are begun");
        let begin_ms = self.milliseconds() - started;
        assert!(begun.iter().all(|begun| *begun == Begun::Yes));
        let outcomes = begin.items.iter().map(|item| Outcome {
            user_id: item.user_id,
            device_id: item.device_id,
            epoch: item.epoch,
            message_id: item.message_id,
            attempt_id: item.attempt_id,
            verdict: Verdict::Sent {
                provider_id: None,
                delivery: None,
            },
            detail: None,
            advance: None,
        });
        let settle = Settle {
            incarnation: self.node,
            outcomes: outcomes.collect(),
            now,
        };
        let started = self.milliseconds();
        let settled = self.store.settle(&settle).await.expect("the messages are settled");
        let settle_ms = self.milliseconds() - started;
        assert!(settled.iter().all(|settled| matches!(settled, Settled::Yes(_))));
        self.times.due.push(due_ms);
        self.times.begin.push(begin_ms);
        self.times.settle.push(settle_ms);
    }
}

/// A campaign whose messages are all queued.
async fn queued(folder: &Folder, name: &str, devices: usize, rows: usize) -> Stage {
    let stage = Stage::build(folder, name, devices, 0, true).await;
    let mut filler = Filler::open(&stage, stage.file()).await;
    filler.persons(&SEED, rows).await;
    filler.leads(rows, "").await;
    filler.campaign(rows).await;
    filler.close().await;
    stage
}

/// Begins in turn on a small and on a large backlog, and prints how the medians compare.
pub async fn compare(folder: &Folder, devices: usize, large: usize, begins: usize) {
    let stages = [
        queued(folder, "small", devices, SMALL).await,
        queued(folder, "large", devices, large).await,
    ];
    let mut small = Side::start(&stages[0], open(stages[0].file()).await).await;
    let mut big = Side::start(&stages[1], open(stages[1].file()).await).await;
    for step in 0..begins {
        small.step(step).await;
        big.step(step).await;
    }
    println!("{begins} interleaved begins of {BATCH} messages, {SMALL} against {large} rows queued; medians");
    let pairs: [(&str, &[f64], &[f64]); 3] = [
        ("begin", &small.times.begin, &big.times.begin),
        ("due", &small.times.due, &big.times.due),
        ("settle", &small.times.settle, &big.times.settle),
    ];
    for (name, few, many) in pairs {
        compared(name, few, many);
    }
    small.store.close().await;
    big.store.close().await;
}

/// Prints how the medians compare of what was measured in turn.
pub fn compared(name: &str, few: &[f64], many: &[f64]) {
    let (few, many) = (median(few), median(many));
    println!("{name:22} {few:.2} ms against {many:.2} ms: {:.2} times", many / few);
}
