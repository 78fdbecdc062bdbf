//! The model test: random operations on a store and on the memory store, and every answer and row compared.
//!
//! A failure names its seed; `agree(&factory, seed, operations)` repeats it exactly.

mod operations;
mod sequences;
mod state;

use std::fmt::Debug;
use std::sync::Arc;

use rand::Rng;

use super::factory::StoreFactory;
use crate::conformance::fixtures::Fixtures;
use crate::id::{CampaignId, CommandId, DeviceId, Incarnation, LeadId, SequenceId, UserId};
use crate::seed::{ChaCha8Rng, Seed};
use crate::store::{AppStore, MemoryStore, StoreError, StoreErrorKind};
use crate::time::Timestamp;

/// How many operations a run of the model has where nobody says otherwise.
pub const OPERATIONS: u32 = 400;

/// How many operations pass between two comparisons of the whole state.
const COMPARED_EVERY: u32 = 50;

/// Runs random operations of one seed on a fresh store and on a memory store.
///
/// # Panics
/// When an answer or a row differs; the message names seed, step and operation.
pub async fn agree(factory: &dyn StoreFactory, seed: u64, operations: u32) {
    let mut model = Model::new(factory.fresh().await, seed);
    model.set_the_stage().await;
    for step in 1..=operations {
        model.step = step;
        model.operate().await;
        if step % COMPARED_EVERY == 0 || step == operations {
            model.compare_everything().await;
        }
    }
    super::sound::assert_sound(model.subject.as_ref()).await;
}

/// Runs one seed on a runtime of its own.
///
/// # Panics
/// As [`agree`] does.
pub fn run_model(factory: &dyn StoreFactory, seed: u64) {
    crate::conformance::transport::run(agree(factory, seed, OPERATIONS));
}

/// Two stores that are told the same, and what the driver remembers.
struct Model {
    subject: Arc<dyn AppStore>,
    reference: Arc<MemoryStore>,
    rows: Fixtures,
    rng: ChaCha8Rng,
    seed: u64,
    step: u32,
    operation: &'static str,
    now: Timestamp,
    users: Vec<UserId>,
    devices: Vec<(UserId, DeviceId)>,
    leads: Vec<(UserId, LeadId)>,
    campaigns: Vec<(UserId, CampaignId)>,
    sequences: Vec<(UserId, SequenceId)>,
    nodes: Vec<Incarnation>,
    commands: Vec<(CommandId, DeviceId)>,
}

/// Asks both stores the same and compares what they say.
macro_rules! both {
    ($model:ident, $store:ident => $call:expr) => {{
        let subject = {
            let $store: &dyn $crate::store::AppStore = &*$model.subject;
            $call.await
        };
        let reference = {
            let $store: &dyn $crate::store::AppStore = &*$model.reference;
            $call.await
        };
        $model.same(subject, reference)
    }};
}
use both;

impl Model {
    fn new(subject: Arc<dyn AppStore>, seed: u64) -> Self {
        Self {
            subject,
            reference: Arc::new(MemoryStore::new()),
            rows: Fixtures::new(seed),
            rng: Seed::from_number(seed).rng(b"store", "model"),
            seed,
            step: 0,
            operation: "set the stage",
            now: Fixtures::START,
            users: Vec::new(),
            devices: Vec::new(),
            leads: Vec::new(),
            campaigns: Vec::new(),
            sequences: Vec::new(),
            nodes: Vec::new(),
            commands: Vec::new(),
        }
    }

    /// A number below another one.
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.rng.next_u32()).unwrap_or(0) % bound.max(1)
    }

    /// True so often in a hundred.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> Option<T> {
        let at = self.below(from.len());
        from.get(at).cloned()
    }

    fn place(&self) -> String {
        format!(
            "seed {}, step {} ({}), {}",
            self.seed, self.step, self.operation, self.now
        )
    }

    /// Compares two answers; errors by what a caller does next and by the operation.
    #[track_caller]
    fn same<T: PartialEq + Debug>(
        &self,
        subject: Result<T, StoreError>,
        reference: Result<T, StoreError>,
    ) -> Answer<T> {
        let plain = |answer: Result<T, StoreError>| answer.map_err(|error| (error.kind, error.operation));
        let (subject, reference) = (plain(subject), plain(reference));
        assert!(
            subject == reference,
            "{}:\n  the store: {subject:?}\n  the model: {reference:?}",
            self.place()
        );
        subject
    }
}

/// What both stores said.
type Answer<T> = Result<T, (StoreErrorKind, &'static str)>;
