//! The load generator: campaigns, bursts and devices that come and go, in any number, against the fake gateways of this crate.
//!
//! Everything is real but the gateways: the server of this crate with its API and engine, and a store, which is wrapped to see
//! when messages are enqueued and settled. Messages travel over HTTP. Gateways and those who make the load run on threads of
//! their own, so that what the server uses of the processor is told apart from what the load uses.

mod child;
mod fleet;
mod gauges;
mod linked;
mod load;
mod measured;
mod options;
mod process;
mod report;
mod world;

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use wa_core::domain::access::{RequestScope, Role};
use wa_core::domain::message::MessageScope;
use wa_core::domain::summary::Numbers;
use wa_core::id::{CampaignId, IdSource, UserId};
use wa_core::store::{AppStore, StoreError};
use wa_core::time::{Clock, Monotonic, SystemClock};

pub use self::fleet::ChurnCounts;
pub use self::gauges::Summary;
pub use self::linked::{Connected, LinkedBenchArgs, LinkedReport, Sent, run as run_linked};
pub use self::load::CallCounts;
pub use self::options::{BenchArgs, BurstOf, Pace};
pub use self::report::{Check, Ended, Report};

use self::fleet::{Fleet, Side};
use self::gauges::Gauges;
use self::load::{Caller, Load, Parts};
use self::measured::{MeasuredSends, MeasuredStore};
use self::process::ProcessorTime;
use self::report::{GatewaySide, Gathered, Used};
use self::world::World;
use crate::access::{self, NewUser};
use crate::assemble::{Ports, Server};
use crate::demo::folder::Folder;
use crate::demo::stage::Gateways;
use crate::http::workers::memory_bytes;
use crate::loopback::{FaultShares, GatewayScript, Latency, LoopbackGateway, RunningGateway, Vendor};
use crate::metered::Metered;
use crate::password::{self, Passwords};
use crate::settings::{Database, PostgresDatabase, Settings, SqliteDatabase};

/// Login of the user whose devices and leads they are.
const LOGIN: &str = "bench";
/// Name of the threads of gateways and load.
const LOAD_THREAD: &str = "wa-load";
/// How many there are.
const LOAD_THREADS: usize = 2;
/// How often it is looked whether everything has ended.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a line is written where no terminal shows a bar.
const WRITE_EVERY: Duration = Duration::from_secs(2);

/// Anything that ends a run early.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A database that is gone when the run has ended.
struct Scratch {
    folder: Folder,
    schema: Option<PostgresDatabase>,
}

impl Scratch {
    /// What holds the rows of this run: a new schema where a Postgres was named for it, else a file in a new folder.
    fn new(named: Option<Database>, ids: &IdSource, now: wa_core::time::Timestamp) -> Result<Self, Failure> {
        let schema = match named {
            None => None,
            Some(Database::Postgres(database)) => Some(PostgresDatabase {
                schema: format!("wa_bench_{}", ids.uuid(now).simple()),
                ..database
            }),
            Some(_) => {
                return Err(
                    "--database-url must name a Postgres; without it a file of SQLite is made for the run and removed"
                        .into(),
                );
            }
        };
        let folder = Folder::new("bench", ids, now)?;
        Ok(Self { folder, schema })
    }

    fn database(&self) -> Database {
        match &self.schema {
            Some(schema) => Database::Postgres(schema.clone()),
            None => Database::File(SqliteDatabase::new(self.folder.path().join("wa.db"))),
        }
    }

    const fn name(&self) -> &'static str {
        if self.schema.is_some() { "postgres" } else { "sqlite" }
    }

    /// Drops the schema.
    async fn clear(&self) -> Result<(), Failure> {
        let Some(database) = &self.schema else { return Ok(()) };
        let mut connection = PgConnection::connect(database.url.expose_secret()).await?;
        // Its name was made here, of letters, digits and _.
        let drop = AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {} CASCADE", database.schema));
        sqlx::raw_sql(drop).execute(&mut connection).await?;
        connection.close().await?;
        Ok(())
    }
}

/// What a gateway does, before it knows a device.
fn script(vendor: Vendor, args: &BenchArgs) -> GatewayScript {
    let (part, rest) = (args.faults / 4, args.faults % 4);
    let faults = match vendor {
        Vendor::Wablas => FaultShares {
            refused: part + rest,
            server_error: part,
            cut_before: part,
            cut_after: part,
            ..FaultShares::NONE
        },
        // Its only documented refusal means that the device is offline, which holds up its lane.
        Vendor::Whacenter => FaultShares {
            server_error: part + rest,
            cut_before: part,
            cut_after: 2 * part,
            ..FaultShares::NONE
        },
    };
    GatewayScript::new(vendor, args.seed)
        .latency(Latency::between(args.latency_ms / 10, args.latency_ms))
        .faults(faults)
}

/// The settings of a run: those given, but with its own database, pace and gateways, and without limits per address, because
/// the whole load comes from one.
fn settings(mut settings: Settings, args: &BenchArgs, scratch: &Scratch, gateways: [&RunningGateway; 2]) -> Settings {
    settings.data_dir = scratch.folder.path().to_owned();
    settings.database = scratch.database();
    settings.redis = None;
    settings.bind_address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    settings.port = 0;
    settings.public_base_url = None;
    settings.basic_auth.clear();
    settings.api_per_minute = 0;
    settings.lead_webhook_per_minute = 0;
    settings.gateway_hosts = gateways.map(|gateway| gateway.address().to_string()).join(",");
    settings.engine.pacing = args.pace.policy();
    settings.engine.reconcile_after = Duration::from_secs(3);
    settings.engine.reconcile_every = Duration::from_secs(2);
    // Failures on purpose must not pause what is measured.
    settings.engine.error_rate.percent = 0;
    settings
}

/// Runs a load, shows its progress and what came of it, and tells whether everything added up. A Postgres is used only where
/// it was named for this run.
///
/// # Errors
/// It could not be set up, or its store failed.
pub async fn run(args: BenchArgs, given: Settings, named: Option<Database>) -> Result<bool, Failure> {
    args.check()?;
    let ids = IdSource::from_entropy();
    let scratch = Scratch::new(named, &ids, SystemClock::new().wall())?;
    // Dropping a runtime waits for its threads, which a task must not do: it is ended in the background.
    let load = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(LOAD_THREADS)
        .thread_name(LOAD_THREAD)
        .enable_all()
        .build()?;
    let ran = run_on(&args, given, &scratch, &ids, &load).await;
    load.shutdown_background();
    let cleared = scratch.clear().await;
    let report = ran?;
    cleared?;
    if args.json {
        say(&serde_json::to_string_pretty(&report)?);
    } else {
        say(&report.table());
    }
    Ok(report.adds_up)
}

async fn start_gateway(load: &Runtime, script: GatewayScript) -> Result<Arc<RunningGateway>, Failure> {
    Ok(Arc::new(load.spawn(LoopbackGateway::start(script)).await??))
}

async fn run_on(
    args: &BenchArgs,
    given: Settings,
    scratch: &Scratch,
    ids: &IdSource,
    load: &Runtime,
) -> Result<Report, Failure> {
    let [of_wablas, of_whacenter] = [Vendor::Wablas, Vendor::Whacenter].map(|vendor| script(vendor, args));
    let wablas = start_gateway(load, of_wablas.clone()).await?;
    let whacenter = start_gateway(load, of_whacenter.clone()).await?;
    let settings = settings(given, args, scratch, [&wablas, &whacenter]);
    let mut ports = Ports::open(&settings).await?;
    let (clock, gauges) = (Arc::clone(&ports.clock), Arc::new(Gauges::new()));
    let store = Arc::clone(&ports.store);
    ports.store = Arc::new(MeasuredStore::new(
        Arc::clone(&store),
        Arc::clone(&clock),
        Arc::clone(&gauges),
    ));
    let sends = Arc::new(MeasuredSends {
        clock: Arc::clone(&clock),
        gauges: Arc::clone(&gauges),
    });
    let measured = ports
        .transports
        .into_iter()
        .map(|transport| -> Arc<dyn wa_core::transport::Transport> {
            Arc::new(Metered::new(transport, Arc::clone(&clock), sends.clone()))
        });
    ports.transports = measured.collect();

    let secret = password::generate();
    let user = NewUser {
        login: LOGIN.to_owned(),
        name: "Load generator".to_owned(),
        role: Role::Admin,
        password: secret.clone(),
    };
    let user_id = access::add_user(&*store, &Passwords::new(), ids, &settings, user, clock.wall())
        .await?
        .id;
    let screen = Screen::new(args, &clock);
    let world = World {
        store: &store,
        clock: &*clock,
        ids,
        user_id,
        args,
    };
    let urls = Gateways {
        wablas: wablas.base_url(),
        whacenter: whacenter.base_url(),
    };
    let devices = world.devices(&urls).await?;
    world.leads(&devices, |leads| screen.filled(leads)).await?;
    let sides = [
        Side::new(Arc::clone(&wablas), of_wablas),
        Side::new(Arc::clone(&whacenter), of_whacenter),
    ];
    let [at_wablas, at_whacenter] = sides;
    let fleet = Fleet::new(at_wablas, at_whacenter, &devices);

    let server = Server::start(settings, ports).await?;
    let base = format!("http://{}", server.address());
    let caller = Caller::login(&base, LOGIN, &secret).await?;
    let mut used = Used::begin();
    let began = clock.monotonic();
    let campaigns = world.campaigns().await?;
    let load_beside = Arc::new(Load::new(Parts {
        caller,
        clock: Arc::clone(&clock),
        gauges: Arc::clone(&gauges),
        args: args.clone(),
        user_id,
        campaigns: campaigns.clone(),
        fleet,
    }));
    let (stop, stopped) = watch::channel(false);
    let making = load.spawn({
        let load_beside = Arc::clone(&load_beside);
        async move { load_beside.run(stopped).await }
    });
    let watched = Watched {
        store: &store,
        clock: &*clock,
        gauges: &gauges,
        screen: &screen,
        campaigns: &campaigns,
        until: args.run_for.map(|span| began + span),
    };
    let ended = tokio::select! {
        ended = watched.run(&mut used, stop, making) => ended?,
        signal = tokio::signal::ctrl_c() => { signal?; Ended::Interrupted }
    };
    used.end();
    let took = clock.monotonic().since(began);
    screen.finish();
    // What is in flight ends first, so that what is counted stands still.
    server.stop().await;
    let gathered = Gathered {
        ended,
        took,
        database: scratch.name(),
        sums: sums(&*store, user_id, &campaigns).await?,
        gateways: [GatewaySide::of(&wablas), GatewaySide::of(&whacenter)],
        looks: load_beside.looks(),
        bursts: load_beside.bursts(),
        churn: load_beside.churn(),
        used,
    };
    Ok(Report::new(args, &gauges, gathered))
}

/// The numbers of everything, twice: as the tallies have them and as counting the rows tells.
async fn sums(store: &dyn AppStore, user_id: UserId, campaigns: &[CampaignId]) -> Result<report::Sums, StoreError> {
    let scope = RequestScope::user(user_id);
    let mut sums = report::Sums::default();
    let of_campaigns = campaigns.iter().map(|id| MessageScope::Campaign(*id));
    for of in of_campaigns.chain([MessageScope::Direct]) {
        let tallied: Numbers = store
            .numbers(&scope, of)
            .await?
            .into_iter()
            .map(|row| row.numbers)
            .sum();
        let counted: Numbers = store.count(&scope, of).await?.into_iter().map(|row| row.numbers).sum();
        sums.add(of, tallied, counted);
    }
    for campaign in store.campaigns_by_id(campaigns).await? {
        sums.expanding +=
            u64::from(!campaign.status.has_ended() && (campaign.is_expanding() || campaign.started_at.is_none()));
    }
    Ok(sums)
}

/// Looks at a run until it has ended.
struct Watched<'a> {
    store: &'a Arc<dyn AppStore>,
    clock: &'a dyn Clock,
    gauges: &'a Gauges,
    screen: &'a Screen,
    campaigns: &'a [CampaignId],
    until: Option<Monotonic>,
}

impl Watched<'_> {
    /// Until all campaigns have ended, the load beside them too, and nothing is open; or until the time is over.
    async fn run(
        &self,
        used: &mut Used,
        stop: watch::Sender<bool>,
        making: tokio::task::JoinHandle<()>,
    ) -> Result<Ended, Failure> {
        let mut making = Some(making);
        loop {
            let now = self.clock.monotonic();
            used.look();
            self.screen.show(self.gauges, now);
            let is_over = self.until.is_some_and(|until| until <= now);
            if is_over || (making.is_some() && self.campaigns_have_ended().await?) {
                let _ = stop.send(true);
                if let Some(making) = making.take() {
                    making.await?;
                }
            }
            if is_over {
                return Ok(Ended::Time);
            }
            if making.is_none() && self.is_empty().await? {
                return Ok(Ended::Done);
            }
            self.clock.sleep_until(now + LOOK_EVERY).await;
        }
    }

    async fn campaigns_have_ended(&self) -> Result<bool, StoreError> {
        let campaigns = self.store.campaigns_by_id(self.campaigns).await?;
        Ok(campaigns.iter().all(|campaign| campaign.status.has_ended()))
    }

    async fn is_empty(&self) -> Result<bool, StoreError> {
        let backlog = self.store.backlog().await?;
        Ok(backlog.queued + backlog.held + backlog.sending + backlog.in_doubt == 0)
    }
}

/// Where progress is shown: a bar on a terminal, else lines; beside JSON on standard error.
struct Screen {
    bar: Option<ProgressBar>,
    to_error: bool,
    leads: u64,
    clock: Arc<dyn Clock>,
    written: std::sync::Mutex<(Monotonic, u64)>,
}

impl Screen {
    fn new(args: &BenchArgs, clock: &Arc<dyn Clock>) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{elapsed_precise} {bar:30.green/black} {pos}/{len} {wide_msg}");
            ProgressBar::with_draw_target(Some(args.leads.into()), ProgressDrawTarget::stderr())
                .with_style(style.expect("the template is valid"))
        });
        let screen = Self {
            bar,
            to_error: args.json,
            leads: args.leads.into(),
            clock: Arc::clone(clock),
            written: std::sync::Mutex::new((clock.monotonic(), 0)),
        };
        screen.line(&format!(
            "{} devices, {} leads, {} campaigns, seed {}; gateways on this machine that take at most {} ms",
            args.devices, args.leads, args.campaigns, args.seed, args.latency_ms
        ));
        screen
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(text)),
            None if self.to_error => tell(text),
            None => say(text),
        }
    }

    /// How many leads are there.
    fn filled(&self, leads: u64) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(leads);
                bar.set_message("leads made");
            }
            None if leads == self.leads => self.line(&format!("{leads} leads made")),
            None => {}
        }
    }

    fn show(&self, gauges: &Gauges, now: Monotonic) {
        let (enqueued, sent) = (gauges.enqueued().count, gauges.sent().count);
        let mut written = self.written.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let since = now.since(written.0);
        if self.bar.is_none() && since < WRITE_EVERY {
            return;
        }
        let late = gauges.late.summary();
        let text = format!(
            "enqueued {enqueued}, sent {sent}, late at most {:.0} ms (half of them {:.0} ms)",
            late.max_ms, late.p50_ms
        );
        if let Some(bar) = &self.bar {
            bar.set_length(enqueued.max(self.leads));
            bar.set_position(sent);
            bar.set_message(text);
            return;
        }
        let rate = (sent - written.1) as f64 / since.as_secs_f64();
        self.line(&format!("{text}, {rate:.0} a second now"));
        *written = (self.clock.monotonic(), sent);
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Writes to standard output; somebody who does not read any more cannot be told so.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Writes to standard error.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

impl GatewaySide {
    fn of(gateway: &RunningGateway) -> Self {
        let messages = gateway.messages();
        let people: BTreeSet<&str> = messages.iter().map(|message| message.number.as_str()).collect();
        Self {
            counts: gateway.counts(),
            twice: (messages.len() - people.len()) as u64,
        }
    }
}

impl Used {
    fn begin() -> Self {
        Self {
            memory_begin: memory_bytes(),
            memory_peak: memory_bytes(),
            processor: ProcessorTime::now(LOAD_THREAD),
            spent: None,
        }
    }

    fn look(&mut self) {
        self.memory_peak = self.memory_peak.max(memory_bytes());
    }

    fn end(&mut self) {
        self.look();
        let now = ProcessorTime::now(LOAD_THREAD);
        self.spent = self.processor.zip(now).map(|(begin, now)| now.since(begin));
    }
}
