//! Several servers as processes of their own, on one private Postgres and one private Redis: nodes that are killed, stopped, cut off
//! and wrong about the time lose nothing and double nothing.
//!
//! `KILLS=20` kills nodes 20 times instead of 4 and sends 20,000 messages instead of 3,000, `SEED=n` draws other moments.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use wa_bus_redis::{RedisBus, RedisOptions};
use wa_core::domain::access::RequestScope;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::message::{Message, MessageScope};
use wa_core::domain::pacing::DelayRange;
use wa_core::domain::summary::Numbers;
use wa_core::event::{EventBus as _, EventKind, Heard};
use wa_core::id::Incarnation;
use wa_core::seed::Seed;
use wa_core::store::{
    CampaignStore as _, Change, ChangeSet, LeaseStore as _, MessageFilter, NodeRecord, OutboxStore as _, PAGE_MAX,
    PageRequest, Store as _, WriteClass,
};
use wa_core::time::{Clock, SystemClock};
use wa_server_example::loopback::FaultShares;
use wa_store_postgres::PostgresStore;

use crate::kill_loop::number;
use crate::live::Screen;
use crate::play::{LOGIN, Play, Setting};
use crate::postgres::{Schema, Server as Postgres};
use crate::redis::RedisServer;
use crate::server_process::{DataDir, ServerProcess};
use crate::support::{Client, PASSWORD};

const LEASE: Duration = Duration::from_secs(4);
/// A sixth of the lease.
const BEAT: Duration = Duration::from_millis(667);
/// What a look of the test, and the answer of a busy machine, may take on top.
const TICK: Duration = Duration::from_millis(1_500);
/// How long gateways take at most to answer, which a lane that is handed over waits for.
const SEND_MAX: Duration = Duration::from_millis(500);
/// How long a campaign may take to its end.
const END_MAX: Duration = Duration::from_secs(480);

/// How nodes are set.
struct Scale {
    devices: usize,
    leads: usize,
    /// Seconds between two messages of a device; the pace of the demonstration makes a tenth of it.
    delay: (u64, u64),
}

struct Nodes {
    postgres: Postgres,
    redis: RedisServer,
    store: PostgresStore,
    play: Play,
    leads: u64,
}

impl Nodes {
    async fn set(scale: Scale) -> Self {
        let (postgres, redis) = (Postgres::own(), RedisServer::start());
        let options = crate::PostgresOptions::url(postgres.url()).connections(4);
        let store = PostgresStore::open(options).await.unwrap();
        let setting = Setting {
            devices: scale.devices,
            leads: scale.leads,
            seed: number("SEED", 1),
            faults: FaultShares::NONE,
        };
        let play = Play::set_on(Arc::new(store.clone()), DataDir::new(), setting).await;
        let nodes = Self {
            postgres,
            redis,
            store,
            play,
            leads: scale.leads as u64,
        };
        let mut campaign = nodes.campaign().await;
        campaign.delay =
            Some(DelayRange::new(Duration::from_secs(scale.delay.0)..=Duration::from_secs(scale.delay.1)).unwrap());
        let change = ChangeSet::one(Change::UpdateCampaign(Box::new(campaign)));
        let now = SystemClock::new().wall();
        nodes.store.commit(change, WriteClass::Api, now).await.unwrap();
        nodes
    }

    /// Starts the node of a name, whose wall clock is so many seconds wrong.
    async fn node(&self, name: &str, offset_s: i64) -> ServerProcess {
        self.play
            .server_with(&[
                ("DATABASE_URL", &self.postgres.url()),
                ("REDIS_URL", &self.redis.url()),
                ("NODE_NAME", name),
                ("LEASE_FOR", &format!("{}s", LEASE.as_secs())),
                ("PACING", "demo"),
                ("RECONCILE_EVERY", "1s"),
                ("CLOCK_OFFSET_S", &offset_s.to_string()),
            ])
            .await
    }

    async fn campaign(&self) -> wa_core::domain::campaign::Campaign {
        let scope = RequestScope::user(self.play.user_id);
        self.store.campaign(&scope, self.play.stage.campaign_id).await.unwrap()
    }

    async fn numbers(&self) -> Numbers {
        let scope = RequestScope::user(self.play.user_id);
        let of = MessageScope::Campaign(self.play.stage.campaign_id);
        let rows = self.store.numbers(&scope, of).await.unwrap();
        rows.into_iter().map(|row| row.numbers).sum()
    }

    async fn messages(&self) -> Vec<Message> {
        let scope = RequestScope::user(self.play.user_id);
        let filter = MessageFilter {
            scope: Some(MessageScope::Campaign(self.play.stage.campaign_id)),
            ..MessageFilter::default()
        };
        let mut all = Vec::new();
        let mut page = PageRequest::first(PAGE_MAX);
        loop {
            let read = self.store.messages(&scope, &filter, &page).await.unwrap();
            all.extend(read.rows);
            match read.next {
                Some(next) => page = PageRequest::after(next, PAGE_MAX),
                None => return all,
            }
        }
    }

    /// Waits until something holds of the nodes that are not fenced; says how long that took.
    async fn until(&self, what: &str, limit: Duration, holds: impl Fn(&[NodeRecord], u64) -> bool) -> Duration {
        let clock = SystemClock::new();
        let mut look = tokio::time::interval(Duration::from_millis(25));
        loop {
            look.tick().await;
            let mut nodes = self.store.nodes().await.unwrap();
            nodes.retain(|node| !node.fenced);
            let unowned = self.store.unowned().await.unwrap();
            let took = clock.monotonic().since_start();
            if holds(&nodes, unowned) {
                println!("  {what}: {took:?}");
                return took;
            }
            assert!(
                took < limit,
                "{what} is not so after {took:?}: {nodes:?}, unowned {unowned}"
            );
        }
    }

    /// The runs that are known, fenced ones too.
    async fn incarnations(&self) -> BTreeSet<Incarnation> {
        let nodes = self.store.nodes().await.unwrap();
        nodes.iter().map(|node| node.incarnation).collect()
    }

    /// Asks something of a device of a node through another one, and sees on a screen of that one that it was answered.
    async fn answer_on_a_screen(&self, of: &str, user: &Client, screen: &mut Screen) {
        let owned = self.store.devices_of(self.run_of(of).await).await.unwrap();
        let device = owned.first().expect("it has devices").device.id;
        let probe = format!("/api/devices/{device}/probe");
        let answer = user.call(Method::POST, &probe, json!({})).await.ok();
        assert_eq!(answer["state"], "done");
        let told = screen.next_of("DEVICE_ANSWERED").await;
        assert_eq!(told["results"]["command_id"], answer["id"]);
    }

    /// The run of the node of a name that is not fenced.
    async fn run_of(&self, name: &str) -> Incarnation {
        let nodes = self.store.nodes().await.unwrap();
        let mut runs = nodes.iter().filter(|node| !node.fenced && node.name == name);
        runs.next().expect("it is there").incarnation
    }

    /// Waits until two nodes, of which none is the one that is gone, hold about half of the devices each, within two beats of the
    /// moment when both are there.
    async fn until_even(&self, gone: Option<Incarnation>) {
        let total = self.play.stage.devices.len() as u64;
        let both = |nodes: &[NodeRecord]| nodes.len() == 2 && nodes.iter().all(|node| Some(node.incarnation) != gone);
        self.until("both are there", LEASE * 3, |nodes, _| both(nodes)).await;
        let half = total * 2 / 5..=total * 3 / 5;
        self.until("devices are shared out", BEAT * 2 + SEND_MAX + TICK, |nodes, _| {
            both(nodes) && nodes.iter().all(|node| half.contains(&node.device_count))
        })
        .await;
    }

    /// Waits until the one node that is left has all devices, within twice the lease.
    async fn until_taken_over(&self, left: &str) {
        let total = self.play.stage.devices.len() as u64;
        self.until("takeover", LEASE * 2 + TICK, |nodes, _| {
            nodes.len() == 1 && nodes[0].name == left && nodes[0].device_count == total
        })
        .await;
    }

    /// Waits until so many messages more have reached the gateways.
    async fn sent(&self, more: u64) {
        let count = self.play.recorded() + more;
        let mut look = tokio::time::interval(Duration::from_millis(20));
        let enough = async {
            while self.play.recorded() < count {
                look.tick().await;
            }
        };
        let waited = tokio::time::timeout(END_MAX, enough).await;
        assert!(waited.is_ok(), "{} of {count} messages were sent", self.play.recorded());
    }

    async fn until_the_end(&self) {
        let mut look = tokio::time::interval(Duration::from_millis(200));
        let ended = async {
            loop {
                look.tick().await;
                let campaign = self.campaign().await;
                if !campaign.is_expanding() && campaign.started_at.is_some() {
                    assert_eq!(self.numbers().await.should(), self.leads, "the numbers add up");
                }
                if campaign.status.has_ended() {
                    assert_eq!(campaign.status, CampaignStatus::Completed);
                    return;
                }
            }
        };
        if tokio::time::timeout(END_MAX, ended).await.is_err() {
            let numbers = self.numbers().await;
            let mut open = self.messages().await;
            open.retain(|message| message.state.is_open());
            panic!("the campaign did not end: {numbers:?}, open: {:?}", open.first());
        }
    }

    /// Nothing is lost and nothing doubled; says how many stay unknown.
    async fn check(&self) -> usize {
        let scope = RequestScope::user(self.play.user_id);
        let of = MessageScope::Campaign(self.play.stage.campaign_id);
        let rows = self.store.count(&scope, of).await.unwrap();
        let counted: Numbers = rows.into_iter().map(|row| row.numbers).sum();
        let numbers = self.numbers().await;
        assert_eq!(numbers, counted, "tallies and rows agree");
        assert_eq!(numbers.should(), self.leads);
        let unknown = self.play.check(&self.messages().await);
        println!("  {numbers:?}, {unknown} unknown at the gateway that cannot be asked");
        unknown
    }
}

fn other(name: &str) -> &'static str {
    if name == "a" { "b" } else { "a" }
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_that_are_killed_and_come_back_lose_nothing_and_double_nothing() {
    let kills = number("KILLS", 4);
    let full = kills > 10;
    let nodes = Nodes::set(Scale {
        devices: 200,
        leads: if full { 20_000 } else { 3_000 },
        delay: if full { (14, 28) } else { (18, 36) },
    })
    .await;
    let mut moments = Seed::from_number(number("SEED", 1)).rng(b"nodes", "kills of nodes");
    let mut servers = [Some(nodes.node("a", 0).await), Some(nodes.node("b", 0).await)];
    nodes.until_even(None).await;
    nodes.sent(50).await;
    for kill in 0..kills {
        let victim = moments.random_range(0..2_usize);
        let name = ["a", "b"][victim];
        // The moment is what is tested here, not a wait for something.
        tokio::time::sleep(Duration::from_millis(moments.random_range(100..1_500))).await;
        println!("kill {kill}: {name}, {} sent", nodes.play.recorded());
        let gone = nodes.run_of(name).await;
        servers[victim].take().unwrap().kill();
        if kill % 2 == 0 {
            // The other node has to find out by itself.
            nodes.until_taken_over(other(name)).await;
            servers[victim] = Some(nodes.node(name, 0).await);
        } else {
            // Its name proves that the old process is dead.
            servers[victim] = Some(nodes.node(name, 0).await);
        }
        nodes.until_even(Some(gone)).await;
    }
    let left = nodes.numbers().await.remaining;
    assert!(left > 0, "the campaign outlasts the kills");
    nodes.until_the_end().await;
    let at_a_time = nodes.play.stage.devices.len().div_ceil(3);
    assert!(nodes.check().await <= at_a_time * usize::try_from(kills).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stood_still_and_a_database_that_was_away_lose_nothing_and_double_nothing() {
    let mut nodes = Nodes::set(Scale {
        devices: 60,
        leads: 1_200,
        delay: (10, 20),
    })
    .await;
    let clock = SystemClock::new();
    let (a, b) = (nodes.node("a", 0).await, nodes.node("b", 0).await);
    nodes.until_even(None).await;
    nodes.sent(50).await;
    let gone = nodes.run_of("a").await;
    let stopped_at = clock.wall();
    a.signal("STOP");
    nodes.until_taken_over("b").await;
    nodes.sent(30).await;
    let continued_at = clock.wall();
    a.signal("CONT");
    nodes.until_even(Some(gone)).await;
    nodes.sent(30).await;
    // First what has arrived, whose begin is in the rows by then.
    let arrived = nodes.play.messages();
    let rows = nodes.messages().await;
    for sent in arrived.into_iter().filter(|sent| sent.received_at > continued_at) {
        let row = rows
            .iter()
            .find(|row| row.phone.is_some_and(|phone| phone.digits() == sent.number))
            .unwrap();
        let begun_at = row.attempt.as_ref().map(|attempt| attempt.attempted_at).unwrap();
        assert!(
            begun_at > stopped_at,
            "what was begun before the stop is sent after it: {row:?}"
        );
    }

    println!("redis goes away");
    let user = Client::login_at(a.address(), LOGIN).await;
    let (mut screen, _) = Screen::open(&user, "").await;
    screen.next_of("CAMPAIGN_PROGRESS").await;
    nodes.answer_on_a_screen("b", &user, &mut screen).await;
    nodes.redis.kill();
    nodes.answer_on_a_screen("b", &user, &mut screen).await;

    println!("postgres goes away");
    let clients = [&a, &b].map(client);
    nodes.postgres.crash();
    for client in &clients {
        until_ready(client, StatusCode::SERVICE_UNAVAILABLE).await;
        assert_eq!(
            client.get("/health").await.status,
            StatusCode::OK,
            "it lives all the same"
        );
    }
    nodes.postgres.start();
    for client in &clients {
        until_ready(client, StatusCode::OK).await;
    }
    nodes.sent(30).await;
    nodes.redis.restart();
    nodes.until_the_end().await;
    nodes.check().await;
}

fn client(node: &ServerProcess) -> Client {
    Client::at(node.address())
}

async fn until_ready(client: &Client, status: StatusCode) {
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let told = async {
        while client.get("/ready").await.status != status {
            look.tick().await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), told).await;
    assert!(waited.is_ok(), "/ready does not say {status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wall_clock_that_is_an_hour_wrong_changes_nothing_and_every_node_serves_all() {
    let nodes = Nodes::set(Scale {
        devices: 30,
        leads: 300,
        delay: (5, 10),
    })
    .await;
    let bus = RedisBus::start(
        RedisOptions::url(nodes.redis.url()).channel("wa:wa"),
        Arc::new(SystemClock::new()),
    );
    let bus = bus.unwrap();
    bus.connected().await;
    let mut heard = bus.listen();
    // The first one plans for all.
    let ahead = nodes.node("ahead", 3_600).await;
    nodes
        .until("it is the planner", LEASE, |nodes, _| {
            nodes.iter().any(|node| node.planner)
        })
        .await;
    let (behind, right) = (nodes.node("behind", -3_600).await, nodes.node("right", 0).await);
    let fair = nodes.play.stage.devices.len() as u64 / 3;
    nodes
        .until("devices are shared out", LEASE * 2, |nodes, _| {
            nodes.len() == 3 && nodes.iter().all(|node| node.device_count == fair)
        })
        .await;
    let began = SystemClock::new();

    let user = Client::login_at(behind.address(), LOGIN).await;
    let status = user.get("/api/workers/status").await.ok();
    assert_eq!(
        (&status["node"], &status["lanes"], &status["nodes"]),
        (&json!("behind"), &json!(fair), &Value::Null)
    );
    assert!(status["lease_left_ms"].as_u64().unwrap() > 0);
    // Requests to devices are answered by their owners, whichever node they are.
    let asked = nodes.play.stage.devices.iter().step_by(4).map(async |device| {
        let probe = format!("/api/devices/{}/probe", device.id);
        let answer = user.call(Method::POST, &probe, json!({})).await;
        assert_eq!(answer.body["results"]["state"], "done", "{}", answer.text);
    });
    futures::future::join_all(asked).await;

    nodes.until_the_end().await;
    let took = began.monotonic().since_start();
    println!("  it took {took:?}");
    assert!(took < Duration::from_secs(60), "lanes waited for another clock");
    assert_eq!(nodes.check().await, 0, "nobody died");
    assert_eq!(nodes.incarnations().await.len(), 3, "nobody was fenced");
    drop((ahead, behind, right));
    let mut told = 0;
    while let Some(Heard::Event(event)) = heard.try_next() {
        told += u32::from(matches!(event.kind, EventKind::CampaignProgress { .. }));
    }
    assert!(told > 0, "screens elsewhere were told of the progress");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_works_beside_a_running_node() {
    let schema = Schema::new();
    let store = PostgresStore::open(schema.options()).await.unwrap();
    let setting = Setting {
        devices: 3,
        leads: 12,
        seed: 1,
        faults: FaultShares::NONE,
    };
    let play = Play::set_on(Arc::new(store), DataDir::new(), setting).await;
    let url = Postgres::shared().url();
    let settings = [
        ("DATABASE_URL", url.as_str()),
        ("DATABASE_SCHEMA", schema.name()),
        ("USER_PASSWORD", PASSWORD),
    ];
    let node = play.server_with(&settings).await;
    let says = |words: &[&str]| {
        let output = play.data.command(&settings, words);
        let (out, err) = [output.stdout, output.stderr]
            .map(|text| String::from_utf8(text).unwrap())
            .into();
        assert!(output.status.success(), "{words:?}: {out}{err}");
        out
    };
    says(&["user", "add", "dora"]);
    Client::login_at(node.address(), "dora").await;
    let file = play.data.path().join("leads.csv");
    std::fs::write(&file, "name,phone\nAli,0123456789\nSiti,0123456780\n").unwrap();
    let (file, device) = (file.display().to_string(), play.stage.devices[0].id.to_string());
    let told = says(&["leads", "import", &file, "--user", LOGIN, "--device", &device]);
    assert!(told.contains("2 rows: 2 new"), "{told}");
    let user = Client::login_at(node.address(), LOGIN).await;
    assert_eq!(user.get("/api/leads/count").await.ok()["count"], 14);
    let exported = says(&["leads", "export", "--user", LOGIN]);
    assert_eq!(exported.lines().count(), 15, "{exported}");
    let campaign = play.stage.campaign_id.to_string();
    let status = says(&["campaign", "status", &campaign, "--user", LOGIN]);
    assert!(status.contains("Promosi hujung tahun"), "{status}");
    let draft = json!({"title": "Next", "message": "Hi {{name}}"});
    let draft = user.post("/api/campaigns", draft).await.ok();
    let id = draft["id"].as_str().unwrap().to_owned();
    let forecast = says(&["campaign", "forecast", &id, "--user", LOGIN, "--json"]);
    let forecast: Value = serde_json::from_str(&forecast).unwrap();
    assert!(forecast.is_object(), "{forecast}");
    let archived = says(&["archive"]);
    assert!(archived.contains("0 messages moved"), "{archived}");
}

#[test]
fn a_database_that_does_not_answer_is_named_without_its_password() {
    let data = DataDir::new();
    let settings = [("DATABASE_URL", "postgres://wa:hunter2@127.0.0.1:1/wa")];
    let output = data.command(&settings, &["serve"]);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the database cannot be used"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
