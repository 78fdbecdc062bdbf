//! Many devices that are linked to a simulated WhatsApp: what an idle one costs, how fast all connect, what a message takes of the
//! processor.
//!
//! The simulated WhatsApp is in this process and the server is a process of its own, as `serve` starts it: what is measured is that
//! process alone. It runs twice. The first time nothing is linked yet, which tells what devices without a connection take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use wa_core::domain::access::{RequestScope, Role};
use wa_core::domain::device::Device;
use wa_core::domain::lead::Lead;
use wa_core::domain::message::MessageScope;
use wa_core::domain::platform::Platform;
use wa_core::domain::summary::Numbers;
use wa_core::domain::token::TokenSet;
use wa_core::id::{CampaignId, DeviceId, IdSource, LeadId, UserId};
use wa_core::store::{AppStore, Change, ChangeSet, OnDuplicate, StoreError, WriteClass};
use wa_core::time::{Clock, Monotonic, SystemClock};
use wa_loopback::{Answer, Loopback, Options, Seen, StreamFault};
use wa_transport_web::WebOptions;
use wa_transport_web::whatsapp_rust::Jid;

use super::child::ServerChild;
use super::report::Check;
use super::{Failure, Scratch, say, tell, world};
use crate::access::{self, NewUser};
use crate::assemble::open_store;
use crate::demo::people::people;
use crate::demo::stage::PAGE;
use crate::password::{self, Passwords};
use crate::settings::{Database, Settings};
use crate::web::loopback::{LoopbackPorts, link};

/// Login of the user whose devices and leads they are.
const LOGIN: &str = "bench";
/// How long one part of a run may make no progress before it is given up.
const STANDSTILL_MAX: Duration = Duration::from_secs(15 * 60);
/// How often it is looked how far things are.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often a line says so.
const WRITE_EVERY: Duration = Duration::from_secs(10);
/// Over which time connections are counted to compare them with the gate: single ones come together by chance.
const GATE_WINDOW: Duration = Duration::from_secs(10);
/// By how much more than the gate lets through a window may have, in percent: a connection takes a while after its turn.
const GATE_SLACK_PERCENT: u64 = 15;
/// Records of what the simulated WhatsApp saw; a message makes about ten.
const JOURNAL_MAX: usize = 20_000_000;

/// How many devices are linked, and what they do.
#[derive(Debug, Clone, clap::Args)]
pub struct LinkedBenchArgs {
    /// How many devices there are.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub devices: u32,
    /// How many people each device writes to, twice.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=45))]
    pub people: u32,
    /// How long devices are left alone, in seconds, before the server is looked at: before they are linked, and once all are
    /// connected.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub idle: u32,
    /// Where keys and people are drawn from.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the result as JSON to standard output, and progress to standard error.
    #[arg(long)]
    pub json: bool,
}

/// How connections were opened, all at once.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Connected {
    /// From the first moment on which they could be opened to the last that was, in seconds.
    pub seconds: f64,
    /// The most within ten seconds, per second.
    pub per_second_most: f64,
}

/// What messages took.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Sent {
    /// How many.
    pub messages: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Processor time of the server per message, in milliseconds.
    pub cpu_ms_per_message: f64,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LinkedReport {
    /// How many devices.
    pub devices: u32,
    /// `sqlite` or `postgres`.
    pub database: &'static str,
    /// Memory of the server with all devices and no connection: its own, without pages of the program's file.
    pub memory_unlinked: u64,
    /// The same with all connected, after they were left alone.
    pub memory_linked: u64,
    /// The difference per device.
    pub memory_per_client: u64,
    /// How all connected when the server started.
    pub connect_all: Connected,
    /// Share of one core that the idle server used, in percent.
    pub idle_cpu_percent: f64,
    /// The first message to each person: the number is checked, keys are fetched, a session begins.
    pub first: Sent,
    /// The second one.
    pub known: Sent,
    /// Memory of the server after both.
    pub memory_after: u64,
    /// How all connected again after all connections were cut at once.
    pub reconnect_all: Connected,
    /// What must hold.
    pub checks: Vec<Check>,
    /// Whether all of it does.
    pub adds_up: bool,
}

impl LinkedReport {
    /// The report as a table.
    #[must_use]
    pub fn table(&self) -> String {
        let mb = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
        let connected = |of: Connected| format!("{:.1} s, at most {:.1} a second", of.seconds, of.per_second_most);
        let sent = |of: Sent| {
            format!(
                "{} in {:.1} s, {:.2} ms of processor time each",
                of.messages, of.seconds, of.cpu_ms_per_message
            )
        };
        let rows = [
            ("devices", format!("{} on {}", self.devices, self.database)),
            ("memory, none linked", mb(self.memory_unlinked)),
            ("memory, all idle", mb(self.memory_linked)),
            (
                "memory per client",
                format!("{:.1} kB", self.memory_per_client as f64 / 1e3),
            ),
            ("memory, after messages", mb(self.memory_after)),
            ("connecting all", connected(self.connect_all)),
            ("idle", format!("{:.2} % of a core", self.idle_cpu_percent)),
            ("first messages", sent(self.first)),
            ("second messages", sent(self.known)),
            ("connecting all again", connected(self.reconnect_all)),
        ];
        let mut table: String = rows
            .iter()
            .map(|(name, value)| format!("{name:<24}{value}\n"))
            .collect();
        for check in &self.checks {
            let mark = if check.holds { "ok" } else { "NOT OK" };
            table.push_str(&format!("{mark:<8}{}\n", check.what));
        }
        table
    }
}

/// Runs it, shows how far it is and what came of it, and tells whether everything added up.
///
/// # Errors
/// It could not be set up, a part stood still, or the system does not tell what a process uses.
pub async fn run(args: LinkedBenchArgs, given: Settings, named: Option<Database>) -> Result<bool, Failure> {
    let ids = IdSource::from_entropy();
    let scratch = Scratch::new(named, &ids, SystemClock::new().wall())?;
    let ran = run_on(&args, given, &scratch, &ids).await;
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

async fn run_on(
    args: &LinkedBenchArgs,
    mut settings: Settings,
    scratch: &Scratch,
    ids: &IdSource,
) -> Result<LinkedReport, Failure> {
    let mut options = Options::new();
    options.seed = args.seed;
    options.journal_max = JOURNAL_MAX;
    let whatsapp = Loopback::start(options);
    let listener = whatsapp.listen().await?;
    let ports = LoopbackPorts {
        clients: listener.websocket_port(),
        media: listener.media_port(),
    };
    settings.data_dir = scratch.folder.path().to_owned();
    settings.database = scratch.database();
    let store = open_store(&settings).await?;
    let clock = SystemClock::new();
    let user = NewUser {
        login: LOGIN.to_owned(),
        name: "Load generator".to_owned(),
        role: Role::Admin,
        password: password::generate(),
    };
    let user_id = access::add_user(&*store, &Passwords::new(), ids, &settings, user, clock.wall())
        .await?
        .id;
    let mut fleet = Linked {
        args,
        store,
        clock,
        ids,
        user_id,
        whatsapp,
        devices: Vec::new(),
    };
    fleet.add_devices().await?;

    let server = ServerChild::start(scratch, ports).await?;
    fleet
        .until("devices with an owner", u64::from(args.devices), async |fleet| {
            Ok(u64::from(args.devices) - fleet.store.unowned().await?)
        })
        .await?;
    let idle = Duration::from_secs(args.idle.into());
    fleet.wait(idle).await;
    let memory_unlinked = server.memory()?;
    server.stop()?;

    fleet.link().await?;
    fleet.add_leads().await?;
    let from = fleet.whatsapp.journal_end();
    let server = ServerChild::start(scratch, ports).await?;
    let connect_all = fleet.connected(from).await?;
    let (cpu, began) = (server.processor_time()?, fleet.clock.monotonic());
    fleet.wait(idle).await;
    let idle_s = fleet.clock.monotonic().since(began).as_secs_f64();
    let idle_cpu_percent = (server.processor_time()? - cpu).as_secs_f64() / idle_s * 100.0;
    let memory_linked = server.memory()?;

    let (first_of, first) = fleet.campaign(0, &server).await?;
    let (known_of, known) = fleet.campaign(1, &server).await?;
    let memory_after = server.memory()?;

    let from = fleet.whatsapp.journal_end();
    for (_, jid) in &fleet.devices {
        fleet.whatsapp.end_stream(jid, StreamFault::Cut);
    }
    let reconnect_all = fleet.connected(from).await?;
    server.stop()?;

    let checks = fleet
        .checks(&[first_of, known_of], [connect_all, reconnect_all])
        .await?;
    Ok(LinkedReport {
        devices: args.devices,
        database: scratch.name(),
        memory_unlinked,
        memory_linked,
        memory_per_client: memory_linked.saturating_sub(memory_unlinked) / u64::from(args.devices),
        connect_all,
        idle_cpu_percent,
        first,
        known,
        memory_after,
        reconnect_all,
        adds_up: checks.iter().all(|check| check.holds),
        checks,
    })
}

/// Devices, those they write to, and the simulated WhatsApp.
struct Linked<'a> {
    args: &'a LinkedBenchArgs,
    store: Arc<dyn AppStore>,
    clock: SystemClock,
    ids: &'a IdSource,
    user_id: UserId,
    whatsapp: Loopback,
    /// Each with its address at WhatsApp, once it is linked.
    devices: Vec<(DeviceId, Jid)>,
}

impl Linked<'_> {
    fn line(&self, text: &str) {
        if self.args.json {
            tell(text);
        } else {
            say(text);
        }
    }

    async fn wait(&self, span: Duration) {
        self.clock.sleep_until(self.clock.monotonic() + span).await;
    }

    /// Waits until a count is reached, and says how far it is; gives up when it stands still.
    async fn until(
        &self,
        what: &str,
        goal: u64,
        mut count: impl AsyncFnMut(&Self) -> Result<u64, Failure>,
    ) -> Result<(), Failure> {
        let mut best = 0;
        let (mut moved, mut written): (Monotonic, Monotonic) = (self.clock.monotonic(), self.clock.monotonic());
        loop {
            let reached = count(self).await?;
            let now = self.clock.monotonic();
            if reached >= goal {
                self.line(&format!("{what}: {reached} of {goal}"));
                return Ok(());
            }
            if reached > best {
                (best, moved) = (reached, now);
            }
            if now.since(moved) > STANDSTILL_MAX {
                return Err(format!(
                    "{what}: {reached} of {goal}, and no more for {} s",
                    STANDSTILL_MAX.as_secs()
                )
                .into());
            }
            if now.since(written) > WRITE_EVERY {
                self.line(&format!("{what}: {reached} of {goal}"));
                written = now;
            }
            self.clock.sleep_until(now + LOOK_EVERY).await;
        }
    }

    async fn add_devices(&mut self) -> Result<(), StoreError> {
        let numbers: Vec<u32> = (0..self.args.devices).collect();
        for page in numbers.chunks(PAGE) {
            let now = self.clock.wall();
            let mut changes = ChangeSet::default();
            for number in page {
                let id = DeviceId::new(self.ids, now);
                let name = format!("WhatsApp {number}");
                let device = Device::new(id, self.user_id, name, Platform::WHATSAPP_WEB, now);
                changes = changes.and(Change::InsertDevice(Box::new(device)));
                self.devices.push((id, Jid::pn(format!("60110{number:06}"))));
            }
            self.store.commit(changes, WriteClass::Bulk, now).await?;
        }
        Ok(())
    }

    /// Links the devices, while no server owns them.
    async fn link(&mut self) -> Result<(), StoreError> {
        let devices = self.devices.iter().map(|(id, jid)| (*id, jid.user.as_str()));
        let linked = link(&self.whatsapp, &self.store, self.ids, devices).await?;
        for ((_, jid), linked) in self.devices.iter_mut().zip(linked) {
            *jid = linked;
        }
        self.line(&format!("{} devices linked", self.devices.len()));
        Ok(())
    }

    async fn add_leads(&self) -> Result<(), StoreError> {
        let count = self.devices.len() * self.args.people as usize;
        let people = people(self.args.seed, count);
        for (page, people) in people.chunks(PAGE).enumerate() {
            let now = self.clock.wall();
            let mut changes = ChangeSet::default();
            for (place, person) in people.iter().enumerate() {
                let (device_id, _) = &self.devices[(page * PAGE + place) % self.devices.len()];
                self.whatsapp.add_account(person.phone.digits(), &person.name);
                let id = LeadId::new(self.ids, now);
                let mut lead = Lead::new(id, self.user_id, Some(*device_id), person.phone, now);
                lead.name.clone_from(&person.name);
                let niches = [world::niche(0), world::niche(1)].join(",");
                lead.niches = TokenSet::parse(&niches).expect("the niches are short");
                changes = changes.and(Change::InsertLead {
                    lead: Box::new(lead),
                    on_duplicate: OnDuplicate::Refuse,
                });
            }
            self.store.commit(changes, WriteClass::Bulk, now).await?;
        }
        Ok(())
    }

    /// Waits until all devices have connected since a place in the journal, and tells how that went.
    async fn connected(&self, from: u64) -> Result<Connected, Failure> {
        let began = self.clock.monotonic();
        let (mut next, mut online, mut logins_ms) = (from, BTreeSet::new(), Vec::new());
        self.until("connected", self.devices.len() as u64, async |fleet| {
            for record in fleet.whatsapp.journal_from(next) {
                next = record.index + 1;
                match record.seen {
                    Seen::Connected { .. } => logins_ms.push(record.at_ms),
                    Seen::Active { device } => drop(online.insert(device.to_string())),
                    Seen::Disconnected { device } => drop(online.remove(&device.to_string())),
                    _ => {}
                }
            }
            Ok(online.len() as u64)
        })
        .await?;
        Ok(Connected {
            seconds: self.clock.monotonic().since(began).as_secs_f64(),
            per_second_most: most_within(&logins_ms, GATE_WINDOW) as f64 / GATE_WINDOW.as_secs_f64(),
        })
    }

    /// Runs a campaign to everybody, and tells what it took of the server.
    async fn campaign(&self, place: usize, server: &ServerChild) -> Result<(CampaignId, Sent), Failure> {
        let now = self.clock.wall();
        let id = CampaignId::new(self.ids, now);
        let campaign = world::campaign(id, self.user_id, place, now);
        let change = ChangeSet::one(Change::InsertCampaign(Box::new(campaign)));
        let (cpu, began) = (server.processor_time()?, self.clock.monotonic());
        self.store.commit(change, WriteClass::Api, now).await?;
        let goal = self.devices.len() as u64 * u64::from(self.args.people);
        self.until("sent", goal, async |fleet| {
            let numbers = fleet.numbers(id).await?;
            let ended = numbers.done + numbers.failed + numbers.skipped + numbers.unknown + numbers.cancelled;
            Ok(ended)
        })
        .await?;
        let spent = server.processor_time()? - cpu;
        let sent = Sent {
            messages: goal,
            seconds: self.clock.monotonic().since(began).as_secs_f64(),
            cpu_ms_per_message: spent.as_secs_f64() * 1e3 / goal as f64,
        };
        Ok((id, sent))
    }

    async fn numbers(&self, id: CampaignId) -> Result<Numbers, StoreError> {
        let scope = RequestScope::user(self.user_id);
        let rows = self.store.numbers(&scope, MessageScope::Campaign(id)).await?;
        Ok(rows.into_iter().map(|row| row.numbers).sum())
    }

    async fn checks(&self, campaigns: &[CampaignId], connected: [Connected; 2]) -> Result<Vec<Check>, Failure> {
        let (mut checks, goal) = (Vec::new(), self.devices.len() as u64 * u64::from(self.args.people));
        for id in campaigns {
            let numbers = self.numbers(*id).await?;
            checks.push(Check {
                holds: numbers.done == goal,
                what: format!("{} of {goal} messages of a campaign are sent", numbers.done),
            });
        }
        let sent = self.whatsapp.sent();
        let mut ids_of: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for message in sent
            .iter()
            .filter(|message| !message.peer && message.answer == Answer::Acked)
        {
            ids_of.entry(message.to.user.as_str()).or_default().insert(&message.id);
        }
        let wrong = ids_of.values().filter(|ids| ids.len() != campaigns.len()).count();
        checks.push(Check {
            holds: ids_of.len() as u64 == goal && wrong == 0,
            what: format!(
                "{} of {goal} people got messages, {wrong} of them not {} each",
                ids_of.len(),
                campaigns.len()
            ),
        });
        let gate = WebOptions::default().connects_per_second;
        let most = f64::from(gate) * (100 + GATE_SLACK_PERCENT) as f64 / 100.0;
        for connected in connected {
            checks.push(Check {
                holds: connected.per_second_most <= most,
                what: format!(
                    "at most {:.1} connections a second within {} s, the gate lets {gate} through",
                    connected.per_second_most,
                    GATE_WINDOW.as_secs()
                ),
            });
        }
        Ok(checks)
    }
}

/// The most moments, which are in order, within one window.
fn most_within(at_ms: &[i64], window: Duration) -> usize {
    let window = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
    let mut begin = 0;
    let counts = at_ms.iter().enumerate().map(|(end, at)| {
        while at_ms[begin] <= at - window {
            begin += 1;
        }
        end + 1 - begin
    });
    counts.max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_what_is_less_than_its_length_apart() {
        let second = Duration::from_secs(1);
        assert_eq!(most_within(&[], second), 0);
        assert_eq!(most_within(&[0, 1_000, 2_000], second), 1);
        assert_eq!(most_within(&[0, 999, 1_000, 1_500, 3_000], second), 3);
    }
}
