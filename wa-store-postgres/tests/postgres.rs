//! The Postgres store passes the suite of stores, on a private server, and keeps its own promises.

#![allow(clippy::unwrap_used, reason = "a step of a test that fails is a panic")]

#[path = "postgres/contest.rs"]
mod contest;
#[path = "postgres/faults.rs"]
mod faults;
#[path = "postgres/large.rs"]
mod large;
#[path = "postgres/migrations.rs"]
mod migrations;
#[path = "postgres/own.rs"]
mod own;
#[path = "postgres/places.rs"]
mod places;
#[path = "postgres/proxy.rs"]
mod proxy;
#[path = "postgres/scale.rs"]
mod scale;
#[path = "postgres/server.rs"]
#[allow(dead_code, reason = "the benchmark needs more of it")]
mod server;
#[path = "postgres/simulation.rs"]
mod simulation;
#[path = "postgres/wal.rs"]
mod wal;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use wa_core::conformance::store::StoreFactory;
use wa_core::store::AppStore;
use wa_store_postgres::{PostgresOptions, PostgresStore};

use self::server::Schema;

/// Stores on schemas that go with the factory.
#[derive(Default)]
struct Schemas {
    schemas: Mutex<Vec<Schema>>,
}

/// Whatever a case did: messages stand where their rows say.
impl Drop for Schemas {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let schemas = self.schemas.lock().unwrap();
            schemas.iter().for_each(self::places::check_now);
        }
    }
}

#[async_trait]
impl StoreFactory for Schemas {
    fn name(&self) -> &str {
        "postgres"
    }

    async fn fresh(&self) -> Arc<dyn AppStore> {
        let schema = Schema::new();
        let options = schema.options();
        self.schemas.lock().unwrap().push(schema);
        Arc::new(PostgresStore::open(options).await.unwrap())
    }

    async fn reopen(&self, _store: &Arc<dyn AppStore>) -> Option<Arc<dyn AppStore>> {
        let options = self.schemas.lock().unwrap().last()?.options();
        Some(Arc::new(PostgresStore::open(options).await.unwrap()))
    }
}

mod suite {
    use super::Schemas;

    wa_core::store_conformance_tests!(Schemas::default());
}
