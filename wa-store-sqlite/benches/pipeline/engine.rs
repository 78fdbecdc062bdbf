//! The same work through the store and the engine, as a program that embeds them does it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use wa_core::domain::message::Message;
use wa_core::domain::pacing::PacingPolicy;
use wa_core::domain::platform::Platform;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::{Engine, EngineBuilder, Runner};
use wa_core::store::{Change, ChangeSet, Store, WriteClass};
use wa_core::transport::{
    Capabilities, InvalidDevice, OutgoingMessage, SendContext, SendError, SendReceipt, StubTransport, Transport,
    TransportDevice,
};
use wa_store_sqlite::SqliteStore;

use crate::report::Cost;
use crate::stage::{PAGE, Stage, open};

/// Commits messages in pages.
pub async fn enqueue(store: &SqliteStore, stage: &Stage, messages: Vec<Message>) {
    let mut messages = messages.into_iter().peekable();
    while messages.peek().is_some() {
        let page: Vec<_> = messages.by_ref().take(PAGE).collect();
        let set = ChangeSet::one(Change::InsertMessages(page));
        let done = store.commit(set, WriteClass::Bulk, stage.now).await;
        assert!(done.expect("the page is committed").duplicates.is_empty());
    }
}

/// An engine over a database, with a stub that tells when it has been given the last message.
pub struct Rig {
    pub engine: Arc<Engine>,
    pub store: SqliteStore,
    transport: Arc<Counting>,
}

impl Rig {
    pub async fn start(file: &Path, stage: &Stage, expected: usize, in_flight_max: usize) -> Self {
        Self::on(open(file).await, stage, expected, in_flight_max).await
    }

    /// Beside whatever else uses the store.
    pub async fn on(store: SqliteStore, stage: &Stage, expected: usize, in_flight_max: usize) -> Self {
        let transport = Arc::new(Counting {
            inner: StubTransport::new().forgetful(),
            left: AtomicUsize::new(expected),
            done: Notify::new(),
        });
        let mut config = EngineConfig::new("bench").pacing(PacingPolicy::unpaced());
        config.in_flight_max = in_flight_max;
        let builder = EngineBuilder::new(Arc::new(store.clone()), stage.clock.clone(), config);
        let core = builder
            .transport(transport.clone())
            .open()
            .await
            .expect("the engine opens");
        let engine = Engine::start(core).await.expect("the engine starts");
        Self {
            engine,
            store,
            transport,
        }
    }

    /// Plans until there is nothing more to do at once.
    pub async fn plan(&self) {
        while self.engine.plan().await.expect("a round of planning").more {}
    }

    /// Runs until everything is sent and settled; gives what it took up to the last settlement, give or take a millisecond.
    pub async fn drain(self, stage: &Stage) -> Cost {
        let started = Cost::so_far(stage);
        let (transport, engine) = (self.transport.clone(), self.engine.clone());
        let mut took = None;
        let settled = async {
            transport.done.notified().await;
            while engine.status().in_flight > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            took = Some(Cost::since(stage, started));
        };
        let ended = Runner::new(self.engine).run(settled).await;
        assert_eq!(ended, wa_core::engine::Ended::Stopped);
        self.store.close().await;
        took.expect("the drain has come to its end")
    }
}

/// The forgetful stub, counting down.
#[derive(Debug)]
struct Counting {
    inner: StubTransport,
    left: AtomicUsize,
    done: Notify,
}

#[async_trait]
impl Transport for Counting {
    fn platform(&self) -> Platform {
        self.inner.platform()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn check_device(&self, device: &TransportDevice) -> Result<(), InvalidDevice> {
        self.inner.check_device(device)
    }

    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        let receipt = self.inner.send(context, message).await;
        if self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.done.notify_one();
        }
        receipt
    }
}
