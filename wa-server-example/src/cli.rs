//! The command line. Its commands open the database without an engine: beside a running server there is never a second one.

mod archive;
mod campaign;
mod forecast;
mod leads;
mod sequence;
mod serve;
mod user;

use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand};
use wa_core::domain::access::RequestScope;
use wa_core::domain::summary::Numbers;
use wa_core::engine::core::EngineBuilder;
use wa_core::engine::handle::Handle;
use wa_core::engine::settings::AccessSettings;
use wa_core::store::{AccessStore, AppStore, Store};
use wa_core::time::{Clock, SystemClock};

use crate::assemble::{open_store, transports};
#[cfg(feature = "demo")]
use crate::bench::{self, BenchArgs, LinkedBenchArgs};
#[cfg(feature = "demo")]
use crate::demo::{self, DemoArgs};
#[cfg(feature = "demo")]
use crate::loopback::GatewayArgs;
use crate::settings::{SettingArgs, Settings, Source};
use crate::{access, logs, settings};

/// Sends WhatsApp campaigns through many devices: nothing lost, nothing doubled, at a human pace.
#[derive(Debug, Parser)]
#[command(name = "wa-server", version, propagate_version = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    settings: SettingArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server; the default.
    Serve,
    /// Add users and give them new passwords.
    #[command(subcommand)]
    User(user::UserCommand),
    /// Import and export leads.
    #[command(subcommand)]
    Leads(leads::LeadsCommand),
    /// Show how campaigns are doing, and what they will do.
    #[command(subcommand)]
    Campaign(campaign::CampaignCommand),
    /// Show how sequences are doing, and what they will do.
    #[command(subcommand)]
    Sequence(sequence::SequenceCommand),
    /// Move messages of campaigns that ended long ago to the archive now; a running server does it by itself (ARCHIVE_AFTER).
    Archive(archive::ArchiveArgs),
    /// Show a campaign over fake gateways on this machine, from its start to its end.
    #[cfg(feature = "demo")]
    Demo(DemoArgs),
    /// Measure this server under a load of any size, with fake gateways on this machine.
    ///
    /// Devices, leads and campaigns are made up in a database of their own: a file among the temporary files, which is removed at the end,
    /// or with --database-url a new schema on a Postgres, which is dropped at the end. The database of this installation is not touched.
    /// The status is 0 if everything added up, and 1 if not.
    #[cfg(feature = "demo")]
    Bench(BenchArgs),
    /// Measure this server with many devices that are linked to a simulated WhatsApp on this machine.
    ///
    /// Shows what an idle device takes of memory and processor, how long it takes until all are connected, at first and after all
    /// connections were cut at once, and what a message takes. The server runs as a process of its own, in a database as for bench.
    /// Needs Linux. The status is 0 if everything added up, and 1 if not.
    #[cfg(feature = "demo")]
    BenchLinked(LinkedBenchArgs),
    /// Run a fake gateway on this machine, for trials.
    #[cfg(feature = "demo")]
    #[command(hide = true)]
    Gateway(GatewayArgs),
    /// Print the list of settings as Markdown.
    Settings,
}

/// Anything that ends a command.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Runs a command line.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match start(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

fn start(cli: Cli) -> Result<(), Failure> {
    let source = Source::gather(&cli.settings, |name| std::env::var(name).ok())?;
    let command = cli.command.unwrap_or(Command::Serve);
    #[cfg(feature = "demo")]
    // Failures are part of the show, and the terminal belongs to it.
    let source = match (&command, source.get("LOG")) {
        (Command::Demo(_) | Command::Bench(_) | Command::BenchLinked(_), None) => source.with("LOG", "error"),
        _ => source,
    };
    let settings = Settings::read(&source)?;
    if let Command::Settings = command {
        say(&settings::table::markdown());
        return Ok(());
    }
    logs::start(&settings);
    #[cfg(feature = "demo")]
    // A database that the environment or a file names is this installation's, and no place for a load.
    let named = cli.settings.get("DATABASE_URL").map(|_| settings.database.clone());
    for name in &settings.unused {
        tracing::warn!(name, "this setting is accepted and not used yet");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            Command::Serve => serve::serve(settings).await,
            Command::User(command) => user::run(command, settings).await,
            Command::Leads(command) => leads::run(command, settings).await,
            Command::Campaign(command) => campaign::run(command, settings).await,
            Command::Sequence(command) => sequence::run(command, settings).await,
            Command::Archive(args) => archive::run(args, settings).await,
            #[cfg(feature = "demo")]
            Command::Demo(args) => match demo::run(args, settings).await? {
                true => Ok(()),
                false => Err("something did not add up".into()),
            },
            #[cfg(feature = "demo")]
            Command::Bench(args) => match bench::run(args, settings, named).await? {
                true => Ok(()),
                false => Err("something did not add up".into()),
            },
            #[cfg(feature = "demo")]
            Command::BenchLinked(args) => match bench::run_linked(args, settings, named).await? {
                true => Ok(()),
                false => Err("something did not add up".into()),
            },
            #[cfg(feature = "demo")]
            Command::Gateway(args) => Ok(args.run(|base| say(&format!("Listening on {base}"))).await?),
            Command::Settings => Ok(()),
        }
    })
}

/// What a command without an engine works with.
struct Offline {
    store: Arc<dyn AppStore>,
    clock: SystemClock,
    settings: Settings,
}

impl Offline {
    async fn open(settings: Settings) -> Result<Self, Failure> {
        Ok(Self {
            store: open_store(&settings).await?,
            clock: SystemClock::new(),
            settings,
        })
    }

    fn now(&self) -> wa_core::time::Timestamp {
        self.clock.wall()
    }

    /// The scope of a user by login.
    async fn scope(&self, login: &str) -> Result<RequestScope, Failure> {
        let login = access::login_name(login).map_err(|problem| format!("login {problem}"))?;
        let user = self.store.user_by_login(&login).await?;
        let user = user.ok_or_else(|| format!("there is no user {login}"))?;
        Ok(RequestScope::user(user.id))
    }

    /// The operations of an engine that does not run.
    async fn handle(&self) -> Result<Handle, Failure> {
        let core = self.builder().open().await?;
        Ok(Handle::new(core))
    }

    /// The same, with the transports, which tell what they can carry.
    async fn handle_with_transports(&self) -> Result<Handle, Failure> {
        crate::tls::choose();
        let mut builder = self.builder();
        for transport in transports(&self.settings)? {
            builder = builder.transport(transport);
        }
        Ok(Handle::new(builder.open().await?))
    }

    fn builder(&self) -> EngineBuilder {
        let store: Arc<dyn Store> = self.store.clone();
        let people: Arc<dyn AccessStore> = self.store.clone();
        let builder = EngineBuilder::new(store, Arc::new(self.clock.clone()), self.settings.engine.clone());
        builder.settings(Arc::new(AccessSettings::new(people)))
    }
}

/// One line of numbers.
fn row(name: &str, numbers: &Numbers) -> String {
    format!(
        "{name:<40} should {:>7}  done {:>7}  failed {:>6}  skipped {:>6}  unknown {:>6}  cancelled {:>6}  remaining {:>7}",
        numbers.should(),
        numbers.done,
        numbers.failed,
        numbers.skipped,
        numbers.unknown,
        numbers.cancelled,
        numbers.remaining
    )
}

/// Writes to the terminal: the answer of a command.
#[allow(clippy::print_stdout, reason = "the answer of a command goes to standard output")]
fn say(text: &str) {
    println!("{text}");
}

#[allow(clippy::print_stderr, reason = "the failure of a command goes to standard error")]
fn complain(error: &(dyn std::error::Error + 'static)) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        eprintln!("  because: {error}");
        cause = error.source();
    }
}
