//! Puts store, transports, engine and API together, and takes them apart again.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wa_bus_redis::{BusError, RedisBus, RedisOptions};
use wa_core::engine::core::{Core, EngineBuilder, Transports};
use wa_core::engine::handle::Handle;
use wa_core::engine::settings::AccessSettings;
use wa_core::engine::{Ended, Engine, OpenError, Runner};
use wa_core::event::{Event, EventBus, Listener, LocalBus};
use wa_core::store::{AccessStore, AppStore, Store, StoreError};
use wa_core::time::{Clock, SystemClock, Timestamp};
use wa_core::transport::Transport;
use wa_core::transport::net::HostPolicy;
use wa_store_postgres::{PostgresOptions, PostgresStore};
use wa_store_sqlite::{DataLock, LockError, SqliteOptions, SqliteStore};
use wa_transport_wablas::Wablas;
use wa_transport_whacenter::Whacenter;

use crate::access::{self, FirstAdmin};
use crate::app::{App, Parts};
use crate::clock::{MovedClock, SharedClock};
use crate::http::connections::{Connections, STALLED_MAX};
use crate::http::metrics::Meters;
use crate::http::router::router;
use crate::import;
use crate::media::FileMedia;
use crate::metered::Metered;
use crate::settings::{Database, PostgresDatabase, Settings, SqliteDatabase};

/// How long a failed start of the engine is left alone before it is tried again.
const ENGINE_RETRY_AFTER: Duration = Duration::from_secs(1);
/// How long listening for hints of other nodes is left alone when it broke.
const LISTEN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The database cannot be used.
    #[error("the database cannot be used")]
    Store(#[from] StoreError),
    /// Another server uses the folder of the database.
    #[error(transparent)]
    Locked(#[from] LockError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Something else that the settings ask for cannot be had.
    #[error("{0}")]
    Unusable(String),
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Store(error) => Self::Store(error),
            other => Self::Unusable(other.to_string()),
        }
    }
}

/// What a server runs on.
#[derive(Debug)]
pub struct Ports {
    /// Where rows are.
    pub store: Arc<dyn AppStore>,
    /// The same, where other nodes may put something into it.
    pub shared: Option<PostgresStore>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// What carries messages.
    pub transports: Vec<Arc<dyn Transport>>,
}

impl Ports {
    /// The ports that the settings name.
    ///
    /// # Errors
    /// The database or a transport cannot be used, or another server uses the folder.
    pub async fn open(settings: &Settings) -> Result<Self, StartError> {
        let (store, shared) = open_for_server(settings).await?;
        let mut clock: Arc<dyn Clock> = match settings.clock_offset_s {
            0 => Arc::new(SystemClock::new()),
            offset_s => Arc::new(MovedClock::new(offset_s)),
        };
        if let Some(shared) = &shared {
            clock = SharedClock::start(shared.clone(), clock).await?;
        }
        let mut transports = transports(settings)?;
        transports.push(crate::web::transport(&settings.web, store.clone(), Arc::clone(&clock))?);
        Ok(Self {
            store,
            shared,
            clock,
            transports,
        })
    }
}

/// The transports that need no store: those of the gateways.
///
/// # Errors
/// A setting cannot be used.
pub fn transports(settings: &Settings) -> Result<Vec<Arc<dyn Transport>>, StartError> {
    fn unusable(error: impl std::fmt::Display) -> StartError {
        StartError::Unusable(error.to_string())
    }
    let policy = |vendor: &[&'static str]| {
        HostPolicy::new(vendor.iter().copied())
            .and_then(|policy| policy.with_listed(&settings.gateway_hosts))
            .map_err(unusable)
    };
    let wablas = Wablas::builder()
        .host_policy(policy(&wa_transport_wablas::HOSTS)?)
        .build()
        .map_err(unusable)?;
    let whacenter = Whacenter::builder()
        .host_policy(policy(&wa_transport_whacenter::HOSTS)?)
        .build()
        .map_err(unusable)?;
    Ok(vec![Arc::new(wablas), Arc::new(whacenter)])
}

/// Opens the database for a server: the one that runs on it, or one of several where they may share it.
///
/// # Errors
/// It cannot be used, or another server uses its folder.
pub async fn open_for_server(settings: &Settings) -> Result<(Arc<dyn AppStore>, Option<PostgresStore>), StartError> {
    let options = match &settings.database {
        Database::Memory => SqliteOptions::memory(),
        Database::File(file) => options_of(file).lock(DataLock::acquire(folder_of(&file.path))?),
        Database::Postgres(database) => {
            let store = open_postgres(database, settings).await?;
            return Ok((Arc::new(store.clone()), Some(store)));
        }
    };
    Ok((Arc::new(SqliteStore::open(options).await?), None))
}

async fn open_postgres(database: &PostgresDatabase, settings: &Settings) -> Result<PostgresStore, StoreError> {
    let lease = settings.engine.lease_for;
    let options = PostgresOptions::url(database.url.expose_secret())
        .schema(&database.schema)
        .connections(database.connections)
        // A node that is stopped in a transaction must not keep others from taking over, and one that waits must beat in time.
        .idle_timeout(PostgresOptions::IDLE_TIMEOUT.min(lease / 3))
        .acquire_timeout(PostgresOptions::ACQUIRE_TIMEOUT.min(lease / 2));
    PostgresStore::open(options).await
}

/// Opens the database beside a server that may be running: without an engine, and without taking its place.
///
/// # Errors
/// It cannot be used.
pub async fn open_store(settings: &Settings) -> Result<Arc<dyn AppStore>, StartError> {
    let options = match &settings.database {
        Database::Memory => SqliteOptions::memory(),
        Database::File(file) => options_of(file),
        Database::Postgres(database) => return Ok(Arc::new(open_postgres(database, settings).await?)),
    };
    Ok(Arc::new(SqliteStore::open(options).await?))
}

fn options_of(database: &SqliteDatabase) -> SqliteOptions {
    SqliteOptions::file(&database.path).cache_kib(database.cache_kib)
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// The engine of this node; replaced when it lost its lease.
#[derive(Debug, Default)]
pub(crate) struct EngineSlot(RwLock<Option<Arc<Engine>>>);

impl EngineSlot {
    pub(crate) fn get(&self) -> Option<Arc<Engine>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, engine: Arc<Engine>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(engine);
    }
}

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    app: Arc<App>,
    first_admin: Option<FirstAdmin>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
    bus: Arc<dyn EventBus>,
}

impl Server {
    /// Starts everything and listens.
    ///
    /// # Errors
    /// [`StartError`] says what is missing.
    pub async fn start(settings: Settings, ports: Ports) -> Result<Self, StartError> {
        crate::tls::choose();
        let wanted = SocketAddr::new(settings.bind_address, settings.port);
        let listen = |source| StartError::Listen {
            address: wanted,
            source,
        };
        let listener = TcpListener::bind(wanted).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let meters = Arc::new(Meters::new());
        let bus: Arc<dyn EventBus> = Arc::new(CountedBus {
            bus: bus_of(&settings, &ports.clock)?,
            meters: Arc::clone(&meters),
        });
        let store: Arc<dyn Store> = ports.store.clone();
        let mut builder =
            EngineBuilder::new(store, Arc::clone(&ports.clock), settings.engine.clone()).bus(Arc::clone(&bus));
        let media = FileMedia::open(&settings, Arc::clone(&ports.clock))
            .map_err(|error| StartError::Unusable(format!("the folder of media cannot be used: {error}")))?;
        let media = Arc::new(media);
        let people: Arc<dyn AccessStore> = ports.store.clone();
        builder = builder
            .media(media.clone())
            .settings(Arc::new(AccessSettings::new(people)));
        let mut transports = Transports::default();
        for transport in ports.transports {
            let metered = Metered::new(transport, Arc::clone(&ports.clock), meters.clone());
            let transport: Arc<dyn Transport> = Arc::new(metered);
            transports.add(Arc::clone(&transport));
            builder = builder.transport(transport);
        }
        let core = builder.open().await?;
        clear_spool(&settings);
        let parts = Parts {
            store: ports.store,
            clock: ports.clock,
            handle: Handle::new(Arc::clone(&core)),
            transports,
            media,
            meters,
        };
        let app = Arc::new(App::new(parts, settings));
        let now = app.clock.wall();
        let before = if app.settings.is_shared() {
            now - import::STANDS_STILL
        } else {
            Timestamp::FAR_FUTURE
        };
        app.store.fail_running_imports(import::BROKEN_OFF, before, now).await?;
        let first_admin = access::first_users(&*app.store, &app.passwords, &app.ids, &app.settings, now).await?;

        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        if let Some(shared) = ports.shared {
            tasks.push(tokio::spawn(hear_others(Arc::clone(&app), shared, stopped.clone())));
        }
        let live = Arc::clone(&app.live);
        let (hints, until) = (bus.listen(), stopped.clone());
        tasks.push(tokio::spawn(async move { live.run(hints, wait_for(until)).await }));
        let engine = tokio::spawn(keep_engine(core, Arc::clone(&app), stopped.clone()));
        let router = router(Arc::clone(&app));
        let connections = Connections {
            most: app.settings.connections_max,
            header_timeout: app.settings.header_timeout,
            stalled_max: STALLED_MAX,
        };
        let stopped = wait_for(stopped).shared();
        let serving = tokio::spawn(async move {
            connections
                .serve(move |cx| listener.poll_accept(cx), router, stopped)
                .await
        });
        tasks.extend([engine, serving]);
        Ok(Self {
            address,
            app,
            first_admin,
            stop,
            tasks,
            bus,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What users do, for programs that run it themselves.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        &self.app.handle
    }

    /// The first admin, if this start made one.
    #[must_use]
    pub const fn first_admin(&self) -> Option<&FirstAdmin> {
        self.first_admin.as_ref()
    }

    /// The hints that the engines of all nodes give.
    #[must_use]
    pub fn bus(&self) -> &dyn EventBus {
        &*self.bus
    }

    /// Stops taking requests and starting sends, lets what is in flight finish, and gives the leases back; after
    /// `STOP_TIMEOUT` it leaves what is still open to the next start.
    pub async fn stop(self) {
        let timeout = self.app.settings.stop_timeout;
        let _ = self.stop.send(true);
        let aborts: Vec<_> = self.tasks.iter().map(JoinHandle::abort_handle).collect();
        let all = futures::future::join_all(self.tasks);
        if tokio::time::timeout(timeout, all).await.is_err() {
            tracing::warn!("not everything in flight ended in time; the next start finds out about it");
            aborts.iter().for_each(tokio::task::AbortHandle::abort);
        }
    }
}

/// Counts what this node publishes.
#[derive(Debug)]
struct CountedBus {
    bus: Arc<dyn EventBus>,
    meters: Arc<Meters>,
}

#[async_trait]
impl EventBus for CountedBus {
    async fn publish(&self, events: &[Event]) {
        events.iter().for_each(|event| self.meters.event(&event.kind));
        self.bus.publish(events).await;
    }

    fn listen(&self) -> Listener {
        self.bus.listen()
    }
}

/// Carries live events: between nodes where there is a Redis, else within this process.
fn bus_of(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Arc<dyn EventBus>, StartError> {
    let Some(url) = &settings.redis else {
        return Ok(Arc::new(LocalBus::new()));
    };
    // Installations that share a Redis are told apart by their schemas.
    let channel = match &settings.database {
        Database::Postgres(database) => format!("wa:{}", database.schema),
        Database::File(_) | Database::Memory => RedisOptions::CHANNEL.to_owned(),
    };
    let options = RedisOptions::url(url.expose_secret()).channel(channel);
    let unusable = |error: BusError| StartError::Unusable(error.to_string());
    let bus = RedisBus::start(options, Arc::clone(clock)).map_err(unusable)?;
    Ok(Arc::new(bus))
}

/// Removes files of imports that a crash left behind.
fn clear_spool(settings: &Settings) {
    if let Err(error) = std::fs::remove_dir_all(settings.spool())
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(%error, "files of earlier imports could not be removed");
    }
}

async fn wait_for(mut stopped: watch::Receiver<bool>) {
    // An error means that the server was dropped, which ends it as well.
    let _ = stopped.wait_for(|stop| *stop).await;
}

/// Keeps an engine running until the server stops; one that lost its lease is followed by a new one.
async fn keep_engine(core: Arc<Core>, app: Arc<App>, stopped: watch::Receiver<bool>) {
    while !*stopped.borrow() {
        let engine = match Engine::start(Arc::clone(&core)).await {
            Ok(engine) => engine,
            Err(error) => {
                tracing::error!(?error, "the engine could not start; it is tried again");
                let until = app.clock.monotonic() + ENGINE_RETRY_AFTER;
                tokio::select! {
                    () = app.clock.sleep_until(until) => continue,
                    () = wait_for(stopped.clone()) => return,
                }
            }
        };
        app.engine.set(Arc::clone(&engine));
        match Runner::new(engine).run(wait_for(stopped.clone())).await {
            Ended::Stopped => return,
            Ended::Fenced => tracing::warn!("this node lost its lease; a new engine starts"),
        }
    }
}

/// Wakes the lanes of devices that other nodes gave something to do; without such hints lanes look every second.
async fn hear_others(app: Arc<App>, store: PostgresStore, stopped: watch::Receiver<bool>) {
    let hear = async {
        loop {
            let heard = async {
                let mut wakes = store.wakes().await?;
                loop {
                    app.handle.wake(wakes.next().await?);
                }
            };
            let broken: Result<(), StoreError> = heard.await;
            tracing::debug!(?broken, "other nodes are not heard; it is tried again");
            app.clock.sleep_until(app.clock.monotonic() + LISTEN_RETRY_AFTER).await;
        }
    };
    tokio::select! {
        () = hear => {}
        () = wait_for(stopped) => {}
    }
}
