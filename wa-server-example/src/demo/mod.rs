//! The demonstration: a campaign and then a sequence over fake gateways and a simulated WhatsApp, shown live from their start to
//! their end.
//!
//! Everything is real but these: the server of this crate, its engine and an SQLite database, in a folder of its own
//! that is removed at the end. Nothing leaves this machine, and no data of an installation is touched.

mod drip;
pub(crate) mod folder;
mod linked;
pub(crate) mod people;
mod screen;
pub(crate) mod snapshot;
pub mod stage;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use wa_core::domain::access::{RequestScope, Role};
use wa_core::domain::message::MessageScope;
use wa_core::domain::pacing::PacingPolicy;
use wa_core::engine::handle::Handle;
use wa_core::id::{CampaignId, IdSource, UserId};
use wa_core::store::{AppStore, PAGE_MAX, PageRequest, StoreError};
use wa_core::time::{Clock, Monotonic, SystemClock};

use self::drip::{Drip, has_ended, order};
use self::folder::Folder;
use self::linked::Linked;
use self::screen::{Screen, TEXTS};
use self::snapshot::{Shown, Snapshot, faults, sum};
use self::stage::{Gateways, Scale, Stage, StagedLead};
use crate::access::{self, NewUser};
use crate::assemble::{Ports, Server};
use crate::loopback::{
    FaultShares, GatewayScript, Inbound, Latency, LoopbackGateway, Receipts, RunningGateway, Vendor,
};
use crate::password::{self, Passwords};
use crate::settings::{Database, Settings, SqliteDatabase};

/// Login of the demonstration's user.
const LOGIN: &str = "demo";
/// Where the server takes callbacks.
const HOOKS: &str = "/hook";
/// How often somebody who was not written to yet opts out.
const OPT_OUT_EVERY: Duration = Duration::from_millis(2_500);
/// How often the numbers of the sequence are written.
const DRIP_LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long each part may take at the default size.
const TIME_MAX: Duration = Duration::from_secs(600);

/// Shows a campaign and a sequence over fake gateways on this machine, from their start to their end.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// How many devices there are at gateways, two thirds at Wablas and the others at Whacenter.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=300))]
    devices: u32,
    /// How many more devices are linked to a simulated WhatsApp, whose people decrypt what they get.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=100))]
    linked: u32,
    /// How many leads there are.
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    leads: u32,
    /// Where people, latencies and failures are drawn from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// End with the sequence, with status 0 if everything added up and 1 if not, instead of serving until Ctrl-C.
    #[arg(long)]
    exit: bool,
}

/// Anything that ends the demonstration early.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The settings of the demonstration: those given, but with its own folder, pace and gateways, and with a free port if that
/// of the settings is taken.
fn settings(mut settings: Settings, folder: &Folder, gateways: [&RunningGateway; 2], linked: &Linked) -> Settings {
    settings.data_dir = folder.path().to_owned();
    settings.database = Database::File(SqliteDatabase::new(folder.path().join("wa.db")));
    // Else its events would be told to the screens of this installation.
    settings.redis = None;
    settings.bind_address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // A server of this installation may be running on it.
    if std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, settings.port)).is_err() {
        settings.port = 0;
    }
    settings.public_base_url = None;
    settings.gateway_hosts = gateways.map(|gateway| gateway.address().to_string()).join(",");
    settings.web.loopback = Some(linked.ports());
    (settings.web.session_key, settings.web.version) = (None, None);
    settings.engine.pacing = PacingPolicy::demo();
    settings.engine.reconcile_after = Duration::from_secs(3);
    settings.engine.reconcile_every = Duration::from_secs(2);
    settings.engine.send_timeout = Duration::from_secs(5);
    settings.engine.step_wait_min = Duration::from_secs(1);
    settings
}

fn script(vendor: Vendor, seed: u64) -> GatewayScript {
    let refused = match vendor {
        Vendor::Wablas => 10,
        // Whacenter's only documented refusal means that the device is offline, which holds up its lane.
        Vendor::Whacenter => 0,
    };
    GatewayScript::new(vendor, seed)
        .latency(Latency::between(20, 500))
        .faults(FaultShares {
            refused,
            server_error: 4,
            too_many: 4,
            cut_before: 2,
            cut_after: 4,
            ..FaultShares::NONE
        })
        .receipts(Receipts {
            stop: 8,
            reply: 60,
            read: 550,
            delivered: 930,
            step_max_ms: 4_000,
        })
}

/// Runs the demonstration and tells whether everything added up.
///
/// # Errors
/// It could not be set up, or its store failed.
pub async fn run(args: DemoArgs, given: Settings) -> Result<bool, Failure> {
    let clock = SystemClock::new();
    let ids = IdSource::from_entropy();
    let folder = Folder::new("demo", &ids, clock.wall())?;
    let wablas = LoopbackGateway::start(script(Vendor::Wablas, args.seed)).await?;
    let whacenter = LoopbackGateway::start(script(Vendor::Whacenter, args.seed)).await?;
    let mut linked = Linked::start(args.seed).await?;
    let settings = settings(given, &folder, [&wablas, &whacenter], &linked);
    let ports = Ports::open(&settings).await?;
    let store = Arc::clone(&ports.store);

    let secret = password::generate();
    let user = NewUser {
        login: LOGIN.to_owned(),
        name: "Demo".to_owned(),
        role: Role::Admin,
        password: secret.clone(),
    };
    let user = access::add_user(&*store, &Passwords::new(), &ids, &settings, user, clock.wall()).await?;
    let screen = Screen::new(args.leads.into());
    screen.say(&format!(
        "Demonstration: {} devices at gateways and {} linked to WhatsApp, {} leads, seed {}; all on this machine, pace ten times human",
        args.devices, args.linked, args.leads, args.seed
    ));
    let scale = Scale::of(args.devices as usize, args.leads as usize, args.seed).with_linked(args.linked as usize);
    let gateways = Gateways {
        wablas: wablas.base_url(),
        whacenter: whacenter.base_url(),
    };
    let stage = stage::set(&store, &ids, user.id, scale, &gateways, clock.wall()).await?;
    linked.link(&store, &ids, &stage).await?;
    linked.bring(&stage, args.seed).await?;
    let server = Server::start(settings, ports).await?;
    let base = format!("http://{}", server.address());
    for (gateway, vendor) in [(&wablas, Vendor::Wablas), (&whacenter, Vendor::Whacenter)] {
        let devices = stage.devices.iter().filter(|device| device.vendor == vendor);
        let hook = |token: &str| format!("{base}{}/{token}", HOOKS);
        gateway.set_script(
            script(vendor, args.seed).devices(devices.map(|device| device.at_gateway(Some(hook(&device.hook_token))))),
        );
    }

    let mut show = Show {
        store,
        handle: server.handle().clone(),
        clock,
        user_id: user.id,
        campaign_id: stage.campaign_id,
        leads: args.leads.into(),
        wablas,
        whacenter,
        linked,
        screen,
    };
    let watched = tokio::select! {
        watched = show.watch() => Some(watched?),
        never = show.opt_outs(&stage) => match never {},
        signal = tokio::signal::ctrl_c() => { signal?; None }
    };
    show.screen.finish();
    let Some(problems) = watched else {
        server.stop().await;
        return Ok(true);
    };
    let campaign_adds_up = show.sum_up(problems).await?;
    let drip = Drip::begin(&show.handle, &RequestScope::user(user.id), &stage.leads).await?;
    show.screen.say(&format!(
        "\nA sequence of {} steps for {} of them, {} s after each other; whoever opted out gets none",
        drip::STEPS,
        drip.people,
        drip::WAIT_SECS
    ));
    let dripped = tokio::select! {
        dripped = show.watch_drip(&drip) => dripped?,
        signal = tokio::signal::ctrl_c() => {
            signal?;
            server.stop().await;
            return Ok(true);
        }
    };
    let adds_up = show.sum_up_drip(&drip, dripped).await? && campaign_adds_up;
    show.screen.say(&format!(
        "\nExplore while this runs:\n  API and its pages   {base}/api/docs\n  login               {LOGIN}, password {}\n  campaign            {base}/api/campaigns/{}\n  sequence            {base}/api/sequences/{}/progress\n  gateways            {}/control/counts  {}/control/counts",
        secret.expose_secret(),
        stage.campaign_id,
        drip.id,
        gateways.wablas,
        gateways.whacenter,
    ));
    if !args.exit {
        show.screen.say("Ctrl-C ends it and removes its data.");
        tokio::signal::ctrl_c().await?;
    }
    server.stop().await;
    Ok(adds_up)
}

/// What is looked at while the campaign runs.
struct Show {
    store: Arc<dyn AppStore>,
    handle: Handle,
    clock: SystemClock,
    user_id: UserId,
    campaign_id: CampaignId,
    leads: u64,
    wablas: RunningGateway,
    whacenter: RunningGateway,
    linked: Linked,
    screen: Screen,
}

impl Show {
    /// Shows the campaign until it ends; tells how often something did not add up.
    async fn watch(&self) -> Result<u64, Failure> {
        let started = self.clock.monotonic();
        let mut problems = 0;
        loop {
            let snapshot = self.snapshot(started).await?;
            if let Some(problem) = snapshot.problem() {
                problems += 1;
                self.screen.say(&format!("!!! THE NUMBERS DO NOT ADD UP: {problem}"));
            }
            self.screen.show(&snapshot);
            if snapshot.has_ended() {
                return Ok(problems);
            }
            if snapshot.elapsed > TIME_MAX {
                return Err(format!("the campaign did not end within {} s", TIME_MAX.as_secs()).into());
            }
            let until = self.clock.monotonic() + self.screen.every();
            self.clock.sleep_until(until).await;
        }
    }

    async fn snapshot(&self, started: Monotonic) -> Result<Snapshot, StoreError> {
        let scope = RequestScope::user(self.user_id);
        let of = MessageScope::Campaign(self.campaign_id);
        // The campaign first: an expansion that ends meanwhile only adds messages.
        let campaign = self.store.campaign(&scope, self.campaign_id).await?;
        let numbers = self.store.numbers(&scope, of).await?;
        let counted = self.store.count(&scope, of).await?;
        let gateways = [&self.wablas, &self.whacenter];
        let counts = gateways.map(RunningGateway::counts);
        let mut last: Vec<_> = gateways.iter().flat_map(|gateway| gateway.newest(TEXTS)).collect();
        last.sort_by_key(|message| std::cmp::Reverse(message.recorded_at));
        let first = PageRequest::first(PAGE_MAX);
        let opted_out = self.store.suppressions(&scope, &first).await?.rows.len() as u64;
        Ok(Snapshot {
            elapsed: self.clock.monotonic().since(started),
            status: campaign.status,
            expanding: campaign.is_expanding(),
            leads: self.leads,
            numbers: numbers.into_iter().map(|row| row.numbers).sum(),
            counted: counted.into_iter().map(|row| row.numbers).sum(),
            recorded: counts.iter().map(|counts| counts.recorded).sum::<u64>() + self.linked.recorded(),
            faults: counts.iter().map(faults).sum::<u64>() + self.linked.faults(),
            opted_out,
            last: last.iter().take(TEXTS).map(Shown::of).collect(),
        })
    }

    /// Lets people at the end of the queue opt out, one after the other.
    async fn opt_outs(&self, stage: &Stage) -> std::convert::Infallible {
        for lead in stage.leads.iter().rev().step_by(7) {
            let until = self.clock.monotonic() + OPT_OUT_EVERY;
            self.clock.sleep_until(until).await;
            self.opt_out(stage, lead).await;
        }
        std::future::pending().await
    }

    async fn opt_out(&self, stage: &Stage, lead: &StagedLead) {
        let at_gateway = stage.devices.iter().find(|device| device.id == lead.device_id);
        let linked = stage.linked.iter().find(|device| device.id == lead.device_id);
        let taken = match (at_gateway, linked) {
            (Some(device), _) => {
                let gateway = match device.vendor {
                    Vendor::Wablas => &self.wablas,
                    Vendor::Whacenter => &self.whacenter,
                };
                gateway
                    .inbound(Inbound::new(device.serial(), &lead.digits, "STOP"))
                    .await
            }
            (None, Some(device)) => self.linked.write(&lead.digits, device, "STOP").await,
            (None, None) => return,
        };
        if !taken {
            self.screen.say("!!! an opt-out was not taken by the server");
        }
    }

    /// Says how it went: what the store says against what the gateways recorded.
    async fn sum_up(&self, problems: u64) -> Result<bool, Failure> {
        let snapshot = self.snapshot(self.clock.monotonic()).await?;
        let mut wrong = problems > 0;
        let mut check = |right: bool, text: String| {
            self.screen.say(&format!("{} {text}", if right { "✓" } else { "✗" }));
            wrong |= !right;
        };
        check(
            snapshot.problem().is_none(),
            format!("{} · campaign {:?}", snapshot.sum(), snapshot.status),
        );
        let n = snapshot.numbers;
        let recorded = snapshot.recorded;
        check(
            (n.done..=n.done + n.unknown).contains(&recorded),
            format!(
                "gateways and WhatsApp recorded {recorded} messages: {} done, {} unknown",
                n.done, n.unknown
            ),
        );
        for gateway in [&self.wablas, &self.whacenter] {
            let messages = gateway.messages();
            let numbers: std::collections::BTreeSet<_> = messages.iter().map(|message| &message.number).collect();
            check(
                numbers.len() == messages.len(),
                format!("{} messages to {} people, nobody twice", messages.len(), numbers.len()),
            );
            let counts = gateway.counts();
            check(
                counts.malformed == 0 && counts.unauthorized == 0,
                format!(
                    "{} requests, {} of them failed on purpose, none malformed",
                    counts.requests,
                    faults(&counts)
                ),
            );
        }
        let received = self.linked.settled(&self.clock).await;
        let numbers: std::collections::BTreeSet<_> = received.iter().map(|(number, ..)| number).collect();
        check(
            numbers.len() == received.len() && received.len() as u64 == self.linked.recorded(),
            format!(
                "{} of {} people on WhatsApp have decrypted a message, {} messages in all, {} of them failed on purpose",
                numbers.len(),
                self.linked.people(),
                received.len(),
                self.linked.faults()
            ),
        );
        if problems > 0 {
            self.screen.say(&format!("✗ {problems} times something did not add up"));
        }
        Ok(!wrong)
    }

    /// Shows the sequence until everybody is through; tells how often something did not add up.
    async fn watch_drip(&self, drip: &Drip) -> Result<u64, Failure> {
        let scope = RequestScope::user(self.user_id);
        let started = self.clock.monotonic();
        let mut problems = 0;
        loop {
            let moment = drip.look(&self.handle, &*self.store, &scope).await?;
            if let Some(wrong) = &moment.wrong {
                problems += 1;
                self.screen.say(&format!("!!! THE NUMBERS DO NOT ADD UP: {wrong}"));
            }
            let (contacts, elapsed) = (&moment.numbers.contacts, self.clock.monotonic().since(started));
            self.screen.say(&format!(
                "{:>4} s  {} · {} of {} people through, {} ended before",
                elapsed.as_secs(),
                sum(&moment.numbers.total),
                contacts.completed,
                contacts.total,
                contacts.ended
            ));
            if has_ended(&moment.numbers) {
                return Ok(problems);
            }
            if elapsed > TIME_MAX {
                return Err(format!("the sequence did not end within {} s", TIME_MAX.as_secs()).into());
            }
            self.clock.sleep_until(self.clock.monotonic() + DRIP_LOOK_EVERY).await;
        }
    }

    /// Says how the sequence went: what the store says against what the gateways recorded.
    async fn sum_up_drip(&self, drip: &Drip, problems: u64) -> Result<bool, Failure> {
        let scope = RequestScope::user(self.user_id);
        let n = drip.look(&self.handle, &*self.store, &scope).await?.numbers.total;
        let messages = [self.wablas.messages(), self.whacenter.messages()].concat();
        let decrypted = self.linked.settled(&self.clock).await;
        let rows = messages
            .iter()
            .map(|one| (one.number.as_str(), one.text.as_str(), one.recorded_at));
        let linked = decrypted
            .iter()
            .map(|(number, text, at)| (number.as_str(), text.as_str(), *at));
        let (recorded, wrong) = order(rows.chain(linked));
        let checks = [
            (problems == 0, sum(&n)),
            (
                (n.done..=n.done + n.unknown).contains(&recorded),
                format!("gateways and people on WhatsApp got {recorded} messages of its steps"),
            ),
            (
                wrong.is_none(),
                wrong.unwrap_or_else(|| "everybody got the steps once each and in order".to_owned()),
            ),
        ];
        for (right, text) in &checks {
            self.screen.say(&format!("{} {text}", if *right { "✓" } else { "✗" }));
        }
        Ok(checks.iter().all(|(right, _)| *right))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Source;

    #[tokio::test]
    async fn nothing_of_this_installation_is_used_but_what_the_demonstration_may_share() {
        let given = Source::default()
            .with("DATABASE_URL", "postgres://wa:secret@db.example/wa")
            .with("REDIS_URL", "redis://cache.example")
            .with("PUBLIC_BASE_URL", "https://wa.example.com");
        let (ids, clock) = (IdSource::from_entropy(), SystemClock::new());
        let folder = Folder::new("demo-test", &ids, clock.wall()).unwrap();
        let wablas = LoopbackGateway::start(script(Vendor::Wablas, 1)).await.unwrap();
        let whacenter = LoopbackGateway::start(script(Vendor::Whacenter, 1)).await.unwrap();
        let linked = Linked::start(1).await.unwrap();
        let settings = settings(Settings::read(&given).unwrap(), &folder, [&wablas, &whacenter], &linked);
        assert!(settings.redis.is_none() && settings.public_base_url.is_none());
        assert!(matches!(&settings.database, Database::File(file) if file.path.starts_with(folder.path())));
    }
}
