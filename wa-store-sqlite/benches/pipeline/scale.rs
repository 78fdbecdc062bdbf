//! Steps of a sequence with many open enrolments beside the same with few: what is due is as much in both.

use std::collections::BTreeSet;
use std::time::Duration;

use wa_core::id::{DeviceId, StepId};
use wa_core::store::Settled;

use crate::begin::{BATCH, compared, turn};
use crate::engine::Rig;
use crate::enrol::active;
use crate::fill::Filler;
use crate::stage::{Folder, SEED, Stage};

/// Steps of the sequence.
const STEPS: usize = 3;
/// The few enrolments, all due within the last hour; of the many, as many are.
const FEW: usize = 10_000;
/// Longer than a run takes.
const LATER: Duration = Duration::from_secs(3_600);

/// Times of one kind of call, in milliseconds.
#[derive(Default)]
struct Times {
    plan: Vec<f64>,
    due: Vec<f64>,
    begin: Vec<f64>,
    settle: Vec<f64>,
}

/// An engine over a sequence that runs.
struct Side {
    stage: Stage,
    rig: Rig,
    times: Times,
}

impl Side {
    async fn build(folder: &Folder, name: &str, devices: usize, enrolments: usize) -> Self {
        let stage = Stage::build(folder, name, devices, 0, true).await;
        let (sequence, steps) = active(&stage, STEPS).await;
        let steps: Vec<StepId> = steps.steps.iter().map(|step| step.id).collect();
        let mut filler = Filler::open(&stage, stage.file()).await;
        filler.persons(&SEED, enrolments).await;
        filler.leads(enrolments, "cold").await;
        filler.enrolments(sequence.id, &steps, enrolments, FEW).await;
        filler.close().await;
        let rig = Rig::start(stage.file(), &stage, usize::MAX, BATCH).await;
        rig.plan().await;
        let side = Self {
            stage,
            rig,
            times: Times::default(),
        };
        side.rest().await;
        side
    }

    fn milliseconds(&self) -> f64 {
        self.stage.seconds() * 1_000.0
    }

    /// Puts off all lanes that would be looked at by themselves.
    async fn rest(&self) {
        for candidate in self.rig.engine.look().await.expect("the lanes are looked at") {
            self.rig.engine.drop_candidate(&candidate, LATER);
        }
    }

    /// Looks at a batch of lanes, sends what is due, settles it, and plans what follows.
    async fn step(&mut self, step: usize) {
        let engine = self.rig.engine.clone();
        let devices = &self.stage.devices;
        engine.beat().await.expect("the node beats");
        let lanes = (0..BATCH).map(|at| devices[turn(step, at) % devices.len()]);
        engine.wake(&lanes.collect::<BTreeSet<DeviceId>>());
        let started = self.milliseconds();
        let candidates = engine.look().await.expect("the lanes are looked at");
        self.times.due.push(self.milliseconds() - started);
        assert_eq!(candidates.len(), BATCH, "every lane has something due");
        let started = self.milliseconds();
        let dispatches = engine.begin(candidates).await.expect("the messages are begun");
        self.times.begin.push(self.milliseconds() - started);
        assert_eq!(dispatches.len(), BATCH);
        let mut finished = Vec::with_capacity(BATCH);
        for dispatch in dispatches {
            finished.push(dispatch.run().await);
        }
        let started = self.milliseconds();
        let settled = engine.settle(&finished).await.expect("the messages are settled");
        self.times.settle.push(self.milliseconds() - started);
        assert!(settled.iter().all(|settled| matches!(settled, Settled::Yes(_))));
        let started = self.milliseconds();
        let report = engine.plan().await.expect("a round of planning");
        self.times.plan.push(self.milliseconds() - started);
        assert!(!report.more, "one round plans what follows from a batch");
        self.rest().await;
    }
}

/// Sends in turn for few and for many, and prints how the medians compare.
pub async fn compare(folder: &Folder, devices: usize, many: usize, steps: usize) {
    let mut small = Side::build(folder, "few", devices, FEW).await;
    let started = small.milliseconds();
    let mut big = Side::build(folder, "many", devices, many).await;
    println!(
        "{many} open enrolments are there after {:.0} s",
        (small.milliseconds() - started) / 1_000.0
    );
    for step in 0..steps {
        small.step(step).await;
        big.step(step).await;
    }
    println!(
        "{steps} interleaved rounds of {BATCH} messages, {FEW} against {many} open enrolments of {STEPS} steps, {FEW} due; medians"
    );
    let pairs: [(&str, &[f64], &[f64]); 4] = [
        ("plan", &small.times.plan, &big.times.plan),
        ("due", &small.times.due, &big.times.due),
        ("begin", &small.times.begin, &big.times.begin),
        ("settle", &small.times.settle, &big.times.settle),
    ];
    for (name, few, many) in pairs {
        compared(name, few, many);
    }
}
