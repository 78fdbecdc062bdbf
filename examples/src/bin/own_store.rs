//! An own store, and the suite that proves it.
//!
//! This one keeps an audit of every commit in front of another store. A store over a database of one's own implements the
//! same traits, and is proved by the same line. `cargo run -p wa-examples --bin own_store`

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use wa_core::conformance::store::{StoreFactory, run_all};
use wa_core::store::{AppStore, ChangeSet, Committed, MemoryStore, Store, StoreError, WriteClass};
use wa_core::time::Timestamp;

/// Counts what was committed and what was refused.
#[derive(Debug, Default)]
struct Audited {
    inner: MemoryStore,
    committed: AtomicU64,
    refused: AtomicU64,
}

wa_core::forward_store!(Audited => inner);
wa_core::forward_app_store!(Audited => inner);

#[async_trait]
impl Store for Audited {
    async fn commit(&self, set: ChangeSet, class: WriteClass, now: Timestamp) -> Result<Committed, StoreError> {
        let done = self.inner.commit(set, class, now).await;
        let counter = if done.is_ok() { &self.committed } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
        done
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.inner.ready().await
    }

    fn bulk_rows(&self) -> u32 {
        self.inner.bulk_rows()
    }
}

struct Fresh;

#[async_trait]
impl StoreFactory for Fresh {
    fn name(&self) -> &str {
        "audited"
    }

    async fn fresh(&self) -> Arc<dyn AppStore> {
        Arc::new(Audited::default())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let report = run_all(&Fresh).await;
    println!("{report}");
    assert!(report.failures.is_empty(), "the store passes the whole suite");
}

#[cfg(test)]
#[tokio::test]
async fn the_audited_store_passes_the_whole_suite() {
    let report = run_all(&Fresh).await;
    assert!(report.failures.is_empty() && report.passed > 200, "{report}");
}
