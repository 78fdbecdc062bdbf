//! Begins and settlements over a large history and a large backlog, beside those over small ones.

use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use wa_core::domain::device::OwnedDevice;
use wa_core::id::{AttemptId, Incarnation};
use wa_core::store::{
    Begin, BeginItem, Begun, Due, LaneLook, LeaseStore, OutboxStore, Outcome, Settle, Settled, Verdict,
};
use wa_core::transport::TransportMessageId;
use wa_store_postgres::PostgresStore;

use crate::Size;
use crate::by_hand;
use crate::report::median;
use crate::server::Server;
use crate::stage::Stage;

/// Messages per begin: half of what is under way at one gateway by default.
const BATCH: usize = 32;
/// Batches by which pages are counted.
const PAGES_STEPS: usize = 20;
/// The small history and the small backlog.
const SMALL: usize = 10_000;

/// Closed messages of a campaign that ended, with their attempts, evenly over the devices; and queued ones of the campaign that runs.
/// Ids are as far apart in time as they would be.
pub const FILL: [&str; 3] = [
    "INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, lead_id, phone, person, name, device_id, from_pool,
        override_suppression, due_at, expires_at, state, settled_at, created_at, attempt_id, epoch)
    SELECT id_at($3 - ($1 - n), n), $4, 1, $5, 2, gen_random_uuid(), 0, gen_random_uuid(), '+6012' || lpad((n % 10000000)::text, 7, '0'),
        md5('person' || n % 1000000)::uuid, '', d.ids[1 + (n + n / cardinality(d.ids)) % cardinality(d.ids)], false, false, $3, $3, 5,
        $3 - ($1 - n), $3 - ($1 - n), id_at($3 - ($1 - n), -n), 1
    FROM generate_series(1::bigint, $1) n, (SELECT array_agg(id ORDER BY id) AS ids FROM devices) d WHERE $2::bigint IS NOT NULL",
    "INSERT INTO attempts (id, message_id, device_id, epoch, text, attempted_at)
    SELECT attempt_id, id, device_id, 1, 'Hi Ali bin Abu, buy it today', settled_at FROM messages WHERE state = 5",
    "INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, lead_id, phone, person, name, device_id, from_pool,
        override_suppression, due_at, expires_at, state, created_at)
    SELECT id_at($3, n), $4, 1, $5, 2, gen_random_uuid(), 0, gen_random_uuid(), '+6013' || lpad((n % 10000000)::text, 7, '0'),
        md5('person' || n % 1000000)::uuid, '', d.ids[1 + (n + n / cardinality(d.ids)) % cardinality(d.ids)], false, false, $3,
        $3 + 604800000, 1, $3
    FROM generate_series(1::bigint, $2) n, (SELECT array_agg(id ORDER BY id) AS ids FROM devices) d WHERE $1::bigint IS NOT NULL",
];

/// A UUIDv7 of an instant and a number.
const ID_AT: &str = "
    CREATE FUNCTION id_at(at bigint, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
        SELECT (lpad(to_hex(at), 12, '0') || '7' || substr(md5(n::text), 1, 3) || '8' || substr(md5(n::text), 4, 15))::uuid
    $$";

/// Every device has so many more to be sent than the tallies know.
const TALLIES: &str = "
    INSERT INTO tallies SELECT user_id, 1, scope_id, device_id, 0, 0, 0, 0, 0, count(*), 0, 0, 0, 0 FROM messages WHERE state = 1
    GROUP BY user_id, scope_id, device_id";

/// Pages that the statements of a database touched, in memory or not.
const PAGES: &str = "SELECT blks_hit + blks_read FROM pg_stat_database WHERE datname = current_database()";

/// Times of one kind of call, in milliseconds.
#[derive(Default)]
struct Times {
    due: Vec<f64>,
    begin: Vec<f64>,
    settle: Vec<f64>,
}

/// A node that sends the messages of a campaign, batch by batch.
struct Side {
    stage: Stage,
    store: PostgresStore,
    node: Incarnation,
    devices: Vec<OwnedDevice>,
    times: Times,
}

/// A database with so many closed and so many queued messages.
async fn filled(server: &Server, name: &str, devices: usize, [history, open]: [usize; 2]) -> Stage {
    let stage = Stage::build(server, name, devices, 0, true).await;
    let mut connection = by_hand::connect(&stage).await;
    by_hand::run(&mut connection, "SET synchronous_commit = off").await;
    by_hand::run(&mut connection, ID_AT).await;
    for sql in FILL {
        let mut statement = sqlx::query(sql);
        if sql.contains("$1") {
            statement = statement
                .bind(i64::try_from(history).expect("a small number"))
                .bind(i64::try_from(open).expect("a small number"))
                .bind(stage.now.as_millis())
                .bind(by_hand::uuid(stage.user.as_bytes()))
                .bind(by_hand::uuid(stage.campaign.as_bytes()));
        }
        statement.execute(&mut connection).await.expect("the rows go in");
    }
    by_hand::run(&mut connection, TALLIES).await;
    connection.close().await.expect("the database closes");
    stage.settle_down().await;
    stage
}

impl Side {
    async fn start(stage: Stage) -> Self {
        let store = stage.open().await;
        let node = Incarnation::new(&stage.ids, stage.now);
        store.join(node, "sender", stage.now).await.expect("the node joins");
        let devices = store.claim(node, 10_000, stage.now).await;
        Self {
            devices: devices.expect("the devices are claimed"),
            stage,
            store,
            node,
            times: Times::default(),
        }
    }

    fn milliseconds(&self) -> f64 {
        self.stage.seconds() * 1_000.0
    }

    /// Looks at a batch of lanes, begins their messages and settles them.
    async fn step(&mut self, step: usize) {
        let now = self.stage.now;
        // Batches go round, and devices of a batch are no neighbours.
        let lane = |at: usize| &self.devices[(step * BATCH + at) * 337 % self.devices.len()];
        let lanes: Vec<_> = (0..BATCH).map(lane).collect();
        let looks = lanes.iter().map(|owned| LaneLook {
            user_id: owned.device.user_id,
            device_id: owned.device.id,
            served: None,
            served_sequence: None,
        });
        let due = Due {
            lanes: looks.collect(),
            now,
        };
        let started = self.milliseconds();
        let heads = self.store.due(&due).await.expect("the lanes are looked at");
        let due_ms = self.milliseconds() - started;
        let items = heads.iter().zip(&lanes).map(|(lane, owned)| {
            let attempt_id = AttemptId::new(&self.stage.ids, now);
            BeginItem {
                user_id: self.stage.user,
                device_id: lane.device_id,
                epoch: owned.epoch,
                message_id: lane.heads.first().expect("every lane has a backlog").id,
                attempt_id,
                transport_message_id: TransportMessageId::from_attempt(attempt_id),
                text: "Hi Ali bin Abu, buy it today".to_owned(),
                greeting: None,
                attempted_at: now,
                again: false,
            }
        });
        let begin = Begin {
            incarnation: self.node,
            items: items.collect(),
            now,
        };
        let started = self.milliseconds();
        let begun = self.store.begin(&begin).await.expect("the messages are begun");
        let begin_ms = self.milliseconds() - started;
        assert!(begun.iter().all(|begun| *begun == Begun::Yes));
        let outcomes = begin.items.iter().map(|item| Outcome {
            user_id: item.user_id,
            device_id: item.device_id,
            epoch: item.epoch,
            message_id: item.message_id,
            attempt_id: item.attempt_id,
            verdict: Verdict::Sent {
                provider_id: None,
                delivery: None,
            },
            detail: None,
            advance: None,
        });
        let settle = Settle {
            incarnation: self.node,
            outcomes: outcomes.collect(),
            now,
        };
        let started = self.milliseconds();
        let settled = self.store.settle(&settle).await.expect("the messages are settled");
        let settle_ms = self.milliseconds() - started;
        assert!(settled.iter().all(|settled| matches!(settled, Settled::Yes(_))));
        self.times.due.push(due_ms);
        self.times.begin.push(begin_ms);
        self.times.settle.push(settle_ms);
    }

    /// Gives everything back.
    async fn end(self) {
        let left = self.store.leave(self.node, self.stage.now).await;
        left.expect("the node leaves");
        self.store.close().await;
    }
}

/// Pages touched by a node that comes, sends so many batches and goes.
async fn touched(stage: &Stage, steps: usize) -> f64 {
    let before = pages(stage).await;
    let mut side = Side::start(stage.clone()).await;
    for step in 0..steps {
        side.step(step).await;
    }
    side.end().await;
    pages(stage).await - before
}

/// Pages that a message touches from the look at its lane to its settlement.
async fn pages_each(stage: &Stage) -> f64 {
    let messages = f64::from(u32::try_from(PAGES_STEPS * BATCH).expect("a small number"));
    let coming_and_going = touched(stage, 0).await;
    (touched(stage, PAGES_STEPS).await - coming_and_going) / messages
}

/// The pages so far. What a connection did is counted when it ends.
async fn pages(stage: &Stage) -> f64 {
    let mut connection = PgConnection::connect(&stage.url()).await.expect("the database opens");
    let row = sqlx::query(PAGES).fetch_one(&mut connection).await;
    let pages: i64 = row.expect("Postgres counts its pages").get(0);
    connection.close().await.expect("the database closes");
    pages as f64
}

/// Begins in turn on small and on large tables, and prints how the medians compare.
pub async fn compare(server: &Server, size: Size) {
    let large = [size.history, size.open];
    let stages = [
        filled(server, "small", size.devices, [SMALL, SMALL * 2]).await,
        filled(server, "large", size.devices, large).await,
    ];
    let mut pages = Vec::new();
    for stage in &stages {
        pages.push(pages_each(stage).await);
    }
    println!(
        "pages per message (due, begin and settle): {:.1} against {:.1}: {:.2} times",
        pages[0],
        pages[1],
        pages[1] / pages[0]
    );
    let mut small = Side::start(stages[0].clone()).await;
    let mut big = Side::start(stages[1].clone()).await;
    for step in 0..size.begins {
        small.step(step).await;
        big.step(step).await;
    }
    println!(
        "{} interleaved rounds of {BATCH} messages, {SMALL} closed and as many open against {} and {}; medians",
        size.begins, size.history, size.open
    );
    let pairs: [(&str, &[f64], &[f64]); 3] = [
        ("begin", &small.times.begin, &big.times.begin),
        ("due", &small.times.due, &big.times.due),
        ("settle", &small.times.settle, &big.times.settle),
    ];
    for (name, few, many) in pairs {
        let (few, many) = (median(few), median(many));
        println!("{name:22} {few:.2} ms against {many:.2} ms: {:.2} times", many / few);
    }
    small.end().await;
    big.end().await;
}
