//! The SQLite store passes the suite of stores, on files and in memory, and keeps its own promises.

#![allow(clippy::unwrap_used, reason = "a step of a test that fails is a panic")]

#[path = "sqlite/folder.rs"]
mod folder;
#[path = "sqlite/migrations.rs"]
mod migrations;
#[path = "sqlite/own.rs"]
mod own;
#[path = "sqlite/simulation.rs"]
mod simulation;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use wa_core::conformance::store::StoreFactory;
use wa_core::store::AppStore;
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use self::folder::Folder;

/// Databases in files of folders that go with the factory.
#[derive(Default)]
struct Files {
    folders: Mutex<Vec<Arc<Folder>>>,
}

#[async_trait]
impl StoreFactory for Files {
    fn name(&self) -> &str {
        "sqlite file"
    }

    async fn fresh(&self) -> Arc<dyn AppStore> {
        let folder = Arc::new(Folder::new());
        let file = folder.path().join("wa.db");
        self.folders.lock().unwrap().push(folder);
        Arc::new(SqliteStore::open(SqliteOptions::file(file)).await.unwrap())
    }

    async fn reopen(&self, _store: &Arc<dyn AppStore>) -> Option<Arc<dyn AppStore>> {
        let file = self.folders.lock().unwrap().last()?.path().join("wa.db");
        Some(Arc::new(SqliteStore::open(SqliteOptions::file(file)).await.unwrap()))
    }
}

/// Databases in memory.
struct Memory;

#[async_trait]
impl StoreFactory for Memory {
    fn name(&self) -> &str {
        "sqlite memory"
    }

    async fn fresh(&self) -> Arc<dyn AppStore> {
        Arc::new(SqliteStore::open(SqliteOptions::memory()).await.unwrap())
    }
}

mod file {
    use super::Files;

    wa_core::store_conformance_tests!(Files::default());
}

mod memory {
    use super::Memory;

    wa_core::store_conformance_tests!(Memory);
}
