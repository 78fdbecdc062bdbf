//! A share of the simulation's seeds, on a real database.
//!
//! `SIM_POSTGRES_SEEDS=500` runs that many, `SIM_SEED=7` replays one.

use std::sync::Arc;

use futures::future::BoxFuture;
use wa_core::simulation::faulty_store::Drive;
use wa_core::simulation::scenario::Scenario;
use wa_core::simulation::world::Ground;
use wa_store_postgres::PostgresStore;

use crate::places::check_now;
use crate::server::Schema;

/// How many seeds run by default.
const SEEDS: u64 = 8;

/// Runs each operation to its end on a runtime of its own.
#[derive(Debug)]
struct OnRuntime(tokio::runtime::Runtime);

impl Drive for OnRuntime {
    fn drive(&self, work: BoxFuture<'_, ()>) {
        self.0.block_on(work);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_seed_breaks_an_invariant_on_postgres() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_POSTGRES_SEEDS").unwrap_or(SEEDS),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let schema = Schema::new();
        let store = runtime.block_on(PostgresStore::open(schema.options())).unwrap();
        let ground = Ground {
            store: Arc::new(store),
            drive: Arc::new(OnRuntime(runtime)),
            ..Ground::default()
        };
        let report = Scenario::draw(seed).run_on(ground);
        assert!(
            report.violations.is_empty(),
            "{report}replay: SIM_SEED={seed} cargo test -p wa-store-postgres on_postgres"
        );
        check_now(&schema);
    }
}
