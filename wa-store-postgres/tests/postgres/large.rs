//! Databases with a large history and a large backlog, and a node that sends from them, batch by batch.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use wa_core::domain::device::OwnedDevice;
use wa_core::id::{AttemptId, CampaignId, IdSource, Incarnation};
use wa_core::store::{
    Begin, BeginItem, Begun, Due, LaneDue, LaneLook, LeaseStore, OutboxStore, Outcome, Settle, Settled, Verdict,
};
use wa_core::time::Timestamp;
use wa_core::transport::TransportMessageId;

use crate::{PostgresOptions, PostgresStore};

/// Messages per begin: half of what is under way at one gateway by default.
pub const BATCH: usize = 32;

/// Adds so many closed and so many queued messages of a campaign to a database with its devices.
pub async fn fill(url: &str, campaign: CampaignId, now: Timestamp, [history, open]: [usize; 2]) {
    let sql = include_str!("fill.sql")
        .replace(":campaign", &campaign.to_string())
        .replace(":now", &format!("{}::bigint", now.as_millis()))
        .replace(":history", &format!("{history}::bigint"))
        .replace(":open", &format!("{open}::bigint"));
    let mut connection = PgConnection::connect(url).await.unwrap();
    for setting in ["search_path", "synchronous_commit"]
        .into_iter()
        .zip([PostgresOptions::SCHEMA, "off"])
    {
        let set = sqlx::query("SELECT set_config($1, $2, false)")
            .bind(setting.0)
            .bind(setting.1);
        set.execute(&mut connection).await.unwrap();
    }
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
    sqlx::raw_sql("VACUUM ANALYZE").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// A node that owns all devices.
pub struct Sender {
    pub store: PostgresStore,
    node: Incarnation,
    devices: Vec<OwnedDevice>,
    ids: IdSource,
    now: Timestamp,
    /// What it sends.
    pub text: String,
    /// Whether the vendor gives each message an id of its own.
    pub tells_ids: bool,
}

impl Sender {
    /// A sender whose ids are those of a number, which no other sender of the database has.
    pub async fn start(store: PostgresStore, now: Timestamp, number: u8) -> Self {
        let ids = IdSource::seeded([number; 32]);
        let node = Incarnation::new(&ids, now);
        store.join(node, "sender", now).await.unwrap();
        let devices = store.claim(node, 10_000, now).await.unwrap();
        Self {
            store,
            node,
            devices,
            ids,
            now,
            text: "Hi Ali bin Abu, buy it today".to_owned(),
            tells_ids: false,
        }
    }

    /// The heads of a batch of lanes. Batches go round, and devices of a batch are no neighbours.
    pub async fn look(&self, step: usize) -> Vec<LaneDue> {
        let lane = |at: usize| &self.devices[(step * BATCH + at) * 337 % self.devices.len()];
        let looks = (0..BATCH).map(lane).map(|owned| LaneLook {
            user_id: owned.device.user_id,
            device_id: owned.device.id,
            served: None,
            served_sequence: None,
        });
        let due = Due {
            lanes: looks.collect(),
            now: self.now,
        };
        self.store.due(&due).await.unwrap()
    }

    /// Begins what was found.
    pub async fn begin(&self, heads: &[LaneDue]) -> Vec<BeginItem> {
        let items = heads.iter().map(|lane| {
            let owned = self
                .devices
                .iter()
                .find(|owned| owned.device.id == lane.device_id)
                .unwrap();
            let attempt_id = AttemptId::new(&self.ids, self.now);
            BeginItem {
                user_id: owned.device.user_id,
                device_id: lane.device_id,
                epoch: owned.epoch,
                message_id: lane.heads.first().expect("every lane has a backlog").id,
                attempt_id,
                transport_message_id: TransportMessageId::from_attempt(attempt_id),
                text: self.text.clone(),
                greeting: None,
                attempted_at: self.now,
                again: false,
            }
        });
        let begin = Begin {
            incarnation: self.node,
            items: items.collect(),
            now: self.now,
        };
        let begun = self.store.begin(&begin).await.unwrap();
        assert!(begun.iter().all(|begun| *begun == Begun::Yes), "{begun:?}");
        begin.items
    }

    /// Settles what was begun: it was sent.
    pub async fn settle(&self, items: &[BeginItem]) {
        let outcomes = items.iter().map(|item| Outcome {
            user_id: item.user_id,
            device_id: item.device_id,
            epoch: item.epoch,
            message_id: item.message_id,
            attempt_id: item.attempt_id,
            verdict: Verdict::Sent {
                provider_id: self.tells_ids.then(|| item.transport_message_id.clone()),
                delivery: None,
            },
            detail: None,
            advance: None,
        });
        let settle = Settle {
            incarnation: self.node,
            outcomes: outcomes.collect(),
            now: self.now,
        };
        let settled = self.store.settle(&settle).await.unwrap();
        assert!(
            settled.iter().all(|settled| matches!(settled, Settled::Yes(_))),
            "{settled:?}"
        );
    }
}

/// Pages per message that looks, begins and settlements touch, in memory or not, of the tables and their indexes.
pub async fn pages(url: &str, now: Timestamp, steps: usize) -> [f64; 3] {
    let options = || PostgresOptions::url(url).quiet();
    let mut sender = Sender::start(PostgresStore::open(options()).await.unwrap(), now, 1).await;
    let mut touched = [0.0; 3];
    let mut looked = Vec::new();
    let mut begun = Vec::new();
    for (kind, pages) in touched.iter_mut().enumerate() {
        // What a connection touched is counted when it ends.
        sender.store.close().await;
        let before = so_far(url).await;
        sender.store = PostgresStore::open(options()).await.unwrap();
        for step in 0..steps {
            match kind {
                0 => looked.push(sender.look(step).await),
                1 => begun.push(sender.begin(&looked[step]).await),
                _ => sender.settle(&begun[step]).await,
            }
        }
        sender.store.close().await;
        let messages = f64::from(u32::try_from(steps * BATCH).unwrap());
        *pages = f64::from(u32::try_from(so_far(url).await - before).unwrap()) / messages;
        sender.store = PostgresStore::open(options()).await.unwrap();
    }
    sender.store.leave(sender.node, now).await.unwrap();
    sender.store.close().await;
    touched
}

async fn so_far(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'wa-store-postgres'";
    while sqlx::query_scalar::<_, i64>(others)
        .fetch_one(&mut connection)
        .await
        .unwrap()
        > 0
    {}
    let pages = "
        SELECT sum(heap_blks_read + heap_blks_hit + coalesce(idx_blks_read + idx_blks_hit, 0))::bigint FROM pg_statio_user_tables
        WHERE schemaname = $1";
    let pages = sqlx::query_scalar(pages)
        .bind(PostgresOptions::SCHEMA)
        .fetch_one(&mut connection)
        .await;
    connection.close().await.unwrap();
    pages.unwrap()
}
