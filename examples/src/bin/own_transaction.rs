//! A message that is enqueued together with something of one's own, in one transaction: both or neither.
//!
//! `cargo run -p wa-examples --bin own_transaction`

use std::sync::Arc;

use wa_core::domain::access::RequestScope;
use wa_core::engine::EngineBuilder;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::handle::Handle;
use wa_core::id::{IdSource, UserId};
use wa_core::plan::{DeviceDraft, DirectDraft};
use wa_core::store::{Change, ChangeSet, MessageFilter, PageRequest, WriteClass};
use wa_core::time::{Clock, SystemClock};
use wa_core::transport::StubTransport;
use wa_store_sqlite::{SqliteOptions, SqliteStore};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let clock = Arc::new(SystemClock::new());
    let store = Arc::new(SqliteStore::open(SqliteOptions::memory()).await?);
    let user = RequestScope::user(UserId::new(&IdSource::from_entropy(), clock.wall()));
    let core = EngineBuilder::new(store.clone(), clock, EngineConfig::new("node-1"))
        .transport(Arc::new(StubTransport::new()))
        .open()
        .await?;
    let handle = Handle::new(core);
    let device = DeviceDraft {
        name: Some("Shop".into()),
        platform: Some("stub".into()),
        ..Default::default()
    };
    let device = handle.create_device(&user, &device).await?;

    let mut tx = store.begin_tx(WriteClass::Api).await?;
    sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY, item TEXT NOT NULL) STRICT")
        .execute(&mut *tx)
        .await?;
    tx.commit().await?;

    for (item, goes_through) in [("lamp", false), ("chair", true)] {
        let draft = DirectDraft {
            device_id: Some(device.id),
            phone: Some("012-345 6789".into()),
            message: Some(format!("Thank you for ordering a {item}.")),
            ..Default::default()
        };
        let message = handle.plan_direct(&user, &draft).await?;
        let mut tx = store.begin_tx(WriteClass::Api).await?;
        sqlx::query("INSERT INTO orders (item) VALUES (?)")
            .bind(item)
            .execute(&mut *tx)
            .await?;
        let receipt = ChangeSet::one(Change::InsertMessages(vec![message]));
        let done = store.commit_in(&mut tx, receipt, handle.now()).await?;
        if goes_through {
            tx.commit().await?;
            handle.wake(done.wake);
        }
        // Dropped without a commit: neither the order nor its message is there.
    }
    let queued = store_messages(&handle, &user).await?;
    println!("messages in the outbox: {queued}");
    assert_eq!(queued, 1);
    Ok(())
}

async fn store_messages(handle: &Handle, user: &RequestScope) -> Result<usize, wa_core::store::StoreError> {
    let page = handle
        .store()
        .messages(user, &MessageFilter::default(), &PageRequest::first(10))
        .await?;
    Ok(page.rows.len())
}
