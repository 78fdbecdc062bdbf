//! Linked devices that send for a long time while everything goes wrong at random: memory and tasks stay level, and every message
//! ends, or says why it does not.
//!
//! `SOAK_SECS=3600` for an hour instead of a minute, `SOAK_DEVICES=n` for another number of devices, `SEED=n` draws other faults.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use futures::StreamExt as _;
use rand::{Rng, RngExt as _};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::Instant;
use wa_core::seed::Seed;
use wa_core::time::{Clock as _, SystemClock, Timestamp};
use wa_loopback::{LoginFault, MediaFault, MessageFault, QueryFault, Rule, StreamFault};
use wa_transport_web::whatsapp_rust::Jid;

use crate::kill_loop::number;
use crate::linked::Linked;
use crate::server_process::ServerProcess;
use crate::support::Client;

/// How often something is sent and something goes wrong.
const TICK: Duration = Duration::from_millis(200);
/// So many devices share one message of a tick.
const DEVICES_PER_MESSAGE: usize = 100;
/// How often memory and open messages are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Most faults that wait for their moment.
const FAULTS_MAX: usize = 50;
/// People who are written to; few enough that each device knows all of them before half of an hour is over.
const PEOPLE: usize = 12;
/// By how much memory may be more in the last third than in the second, in KiB, beside a twentieth of it.
const MEMORY_MORE_KIB: u64 = 6 * 1_024;
/// Within what time everything has ended when nothing goes wrong any more.
const SETTLE_MAX: Duration = Duration::from_secs(120);
/// Within what time the tasks of what has ended are gone.
const TASKS_MAX: Duration = Duration::from_secs(30);
/// How long the devices may take to come online.
const BEGIN_MAX: Duration = Duration::from_secs(240);
/// Most devices that are asked at a time.
const AT_ONCE: usize = 16;
/// States of messages that have not ended.
const OPEN: [&str; 4] = ["queued", "held", "sending", "in_doubt"];

/// A fault of the next moment that fits.
fn fault(rng: &mut impl Rng, device: &str) -> Rule {
    let message = |fault| Rule::message(fault).of(device);
    let query = |xmlns, fault| Rule::query(xmlns, fault).of(device);
    match rng.random_range(0..15) {
        0 => message(MessageFault::Nack(429)),
        1 => message(MessageFault::Nack(479)),
        2 => message(MessageFault::Nack(503)),
        3 => message(MessageFault::SwallowAck),
        4 => message(MessageFault::Lose),
        5 => message(MessageFault::CutBefore),
        6 => message(MessageFault::CutAfter),
        7 => message(MessageFault::Corrupt),
        8 => message(MessageFault::SlowAck(Duration::from_millis(700))),
        9 => query("usync", QueryFault::rate_limited(Some(2))),
        10 => query("usync", QueryFault::Cut),
        11 => query("encrypt", QueryFault::Slow(Duration::from_millis(700))),
        12 => query("w:p", QueryFault::Swallow),
        13 => Rule::upload(MediaFault::Status(500)),
        _ => Rule::login(LoginFault::reason(503)).of(device),
    }
}

/// A number that the server tells of itself.
async fn gauge(ann: &Client, name: &str) -> u64 {
    let text = ann.get("/metrics").await.text;
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().parse::<f64>().unwrap() as u64
}

/// How many messages have not ended.
async fn open(ann: &Client) -> u64 {
    let text = ann.get("/metrics").await.text;
    let state = |state: &str| {
        let name = format!("wa_outbox_messages{{state=\"{state}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(name.as_str()));
        count.unwrap().trim().parse::<f64>().unwrap() as u64
    };
    OPEN.into_iter().map(state).sum()
}

/// All things of a list that has pages.
async fn listed(ann: &Client, path: &str) -> Vec<Value> {
    let mut all = Vec::new();
    let mut page = format!("{path}?limit=1000");
    loop {
        let read = ann.get(&page).await.ok();
        all.extend(read["items"].as_array().unwrap().iter().cloned());
        match read["next"].as_str() {
            Some(next) => page = format!("{path}?limit=1000&cursor={next}"),
            None => return all,
        }
    }
}

fn median(values: &[u64]) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}

/// Devices, people and the user to whom all belongs.
struct Soak {
    linked: Linked,
    server: ServerProcess,
    ann: Client,
    devices: Vec<String>,
    /// A picture that some messages show.
    picture: Value,
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_and_tasks_stay_level_while_everything_goes_wrong_and_every_message_ends() {
    let span = Duration::from_secs(number("SOAK_SECS", 60));
    let count = usize::try_from(number("SOAK_DEVICES", 200)).unwrap();
    let start = Instant::now();
    let soak = tokio::time::timeout(BEGIN_MAX, Soak::begin(count)).await;
    let soak = soak.unwrap_or_else(|_| panic!("{count} devices were not online within {BEGIN_MAX:?}"));
    let tasks_before = gauge(&soak.ann, "wa_tasks ").await;
    println!(
        "{count} devices online after {:?}, {tasks_before} tasks",
        start.elapsed()
    );

    let mut rng = Seed::from_number(number("SEED", 1)).rng(b"linked soak", "soak");
    let memory = soak.run(span, &mut rng).await;
    let (left, took) = soak.settle().await;
    println!("settled after another {took:?}");
    let counts = soak.check().await;
    println!("{} s of {count} devices: {counts:?}, {left} open", span.as_secs());
    let sent = counts.get("sent").copied().unwrap_or_default();
    let all: usize = counts.values().sum();
    assert!(
        all > 0 && sent * 10 > all * 7,
        "most are sent whatever goes wrong: {counts:?}"
    );

    let third = memory.len() / 3;
    let (second, last) = (median(&memory[third..third * 2]), median(&memory[third * 2..]));
    let minutes: Vec<_> = memory.iter().step_by(60).collect();
    println!("memory of its own, KiB minute by minute: {minutes:?}");
    println!("memory of its own: {second} KiB in the second third, {last} KiB in the last");
    assert!(
        last <= second + second / 20 + MEMORY_MORE_KIB,
        "memory grows from {second} to {last} KiB: {memory:?}"
    );
    let most = tasks_before + 5 + tasks_before / 20;
    let mut tasks = gauge(&soak.ann, "wa_tasks ").await;
    let (ended, mut ticks) = (Instant::now(), tokio::time::interval(LOOK_EVERY));
    while tasks > most && ended.elapsed() < TASKS_MAX {
        ticks.tick().await;
        tasks = gauge(&soak.ann, "wa_tasks ").await;
    }
    println!("tasks: {tasks_before} before, {tasks} afterwards");
    assert!(
        tasks <= most,
        "tasks are left over: {tasks_before} before, {tasks} afterwards"
    );
    soak.server.kill();
}

impl Soak {
    /// Devices that are online, and people who are.
    async fn begin(devices: usize) -> Self {
        let (linked, server) = Linked::set(devices, PEOPLE).await;
        Linked::connect(linked.people.iter()).await;
        // Whoever wrote last to a device keeps a task of it, from the beginning on.
        for place in 0..devices {
            let person = &linked.people[place % PEOPLE];
            person.send_text(&Linked::own_number(place), "Hello?").await.unwrap();
        }
        for place in 0..devices {
            let own = Jid::pn_device(Linked::own_number(place), 1);
            linked.whatsapp.wait_acknowledged(BEGIN_MAX, &own).await.unwrap();
        }
        let mut ann = Client::login_at(server.address(), "ann").await;
        // On a busy machine an answer may take longer than elsewhere.
        ann.http = reqwest::Client::builder()
            .no_proxy()
            .timeout(SETTLE_MAX)
            .build()
            .unwrap();
        let mut file = std::io::Cursor::new(Vec::new());
        let picture = image::RgbImage::from_pixel(60, 40, image::Rgb([20, 90, 160]));
        picture.write_to(&mut file, image::ImageFormat::Png).unwrap();
        let kept = ann.request(Method::POST, "/api/media").body(file.into_inner());
        let picture = Client::send(kept).await.ok()["id"].clone();
        Self {
            picture,
            devices: linked.devices.iter().map(ToString::to_string).collect(),
            linked,
            server,
            ann,
        }
    }

    /// Sends and lets things go wrong for a time; gives how much memory the server had, second by second.
    async fn run(&self, span: Duration, rng: &mut impl Rng) -> Vec<u64> {
        let (start, whatsapp) = (Instant::now(), &self.linked.whatsapp);
        let mut ticks = tokio::time::interval(TICK);
        let mut memory = vec![self.server.memory_kib()];
        let mut look_at = start + LOOK_EVERY;
        let mut faults = VecDeque::new();
        while start.elapsed() < span {
            ticks.tick().await;
            let own = Linked::own_number(rng.random_range(0..self.devices.len()));
            faults.push_back(whatsapp.fault(fault(rng, &own)));
            if faults.len() > FAULTS_MAX
                && let Some(oldest) = faults.pop_front()
            {
                whatsapp.clear_fault(oldest);
            }
            match rng.random_range(0..20) {
                0..2 => {
                    let ends = [StreamFault::Cut, StreamFault::Code(503), StreamFault::Code(515)];
                    let end = ends[rng.random_range(0..ends.len())];
                    whatsapp.end_stream(&Jid::pn_device(own, 1), end);
                }
                2..6 => {
                    let person = &self.linked.people[rng.random_range(0..PEOPLE)];
                    person.send_text(&own, "How much is it?").await.unwrap();
                }
                _ => {}
            }
            for _ in 0..self.devices.len().div_ceil(DEVICES_PER_MESSAGE) {
                let device = &self.devices[rng.random_range(0..self.devices.len())];
                let person = &self.linked.people[rng.random_range(0..PEOPLE)];
                let mut body = json!({"phone": format!("+{}", person.phone()), "message": "hello"});
                if rng.random_range(0..10) == 0 {
                    body["media"] = json!({"id": self.picture});
                }
                let path = format!("/api/devices/{device}/send");
                self.ann.post(&path, body).await.ok();
            }
            if Instant::now() >= look_at {
                memory.push(self.server.memory_kib());
                look_at += LOOK_EVERY;
            }
        }
        faults.into_iter().for_each(|rule| whatsapp.clear_fault(rule));
        memory
    }

    /// Waits until no message is under way any more, or it takes too long; gives how many are, and how long that took.
    async fn settle(&self) -> (u64, Duration) {
        let start = Instant::now();
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        loop {
            ticks.tick().await;
            let left = open(&self.ann).await;
            if left == 0 || start.elapsed() > SETTLE_MAX {
                return (left, start.elapsed());
            }
            // Who was offline for long is tried again by the quarter of an hour; a person need not wait for that.
            self.connect().await;
        }
    }

    /// Asks the devices that are offline to connect.
    async fn connect(&self) {
        let devices = listed(&self.ann, "/api/devices").await;
        let offline = devices.iter().filter(|device| device["status"] != "online");
        let connected = futures::stream::iter(offline).for_each_concurrent(AT_ONCE, async |device| {
            let path = format!("/api/devices/{}/refresh", device["id"].as_str().unwrap());
            self.ann.post(&path, json!({})).await.ok();
        });
        connected.await;
    }

    /// How many messages there are in each state; each has ended with a reason, or says why it waits.
    async fn check(&self) -> BTreeMap<String, usize> {
        let now = SystemClock::new().wall();
        let devices = listed(&self.ann, "/api/devices").await;
        let devices: HashMap<&str, &Value> = devices
            .iter()
            .map(|device| (device["id"].as_str().unwrap(), device))
            .collect();
        let mut counts = BTreeMap::new();
        let mut unexplained = Vec::new();
        for message in listed(&self.ann, "/api/messages").await {
            let state = message["status"].as_str().unwrap();
            *counts.entry(state.to_owned()).or_default() += 1;
            let device = devices[message["device_id"].as_str().unwrap()];
            let due_at: Timestamp = serde_json::from_value(message["due_at"].clone()).unwrap();
            let explained = match state {
                "sent" => true,
                "queued" if device["status"] != "online" => !device["link_reason"].is_null(),
                "queued" => !message["reason"].is_null() && due_at > now,
                "held" | "sending" | "in_doubt" => false,
                _ => !message["reason"].is_null(),
            };
            if !explained {
                let names = ["status", "reason", "detail", "due_at", "attempted_at", "created_at"];
                let told = names.map(|name| format!("{name} {}", message[name]));
                let link = (&device["link_state"], &device["link_reason"]);
                unexplained.push(format!("{}: {}, device {link:?}", message["id"], told.join(", ")));
            }
        }
        assert!(
            unexplained.is_empty(),
            "{} messages neither ended nor say why, at {now}:\n{}",
            unexplained.len(),
            unexplained.join("\n")
        );
        counts
    }
}
