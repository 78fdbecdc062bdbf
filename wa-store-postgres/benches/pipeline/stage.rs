//! The people, devices and the one campaign that every measurement starts from.

use std::sync::Arc;

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPool;
use wa_core::domain::audience::AudienceCursor;
use wa_core::domain::campaign::{Campaign, CampaignStatus};
use wa_core::domain::content::Content;
use wa_core::domain::device::Device;
use wa_core::domain::lead::Lead;
use wa_core::domain::message::{IdempotencyKey, Message, MessageScope, MessageState};
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::domain::platform::Platform;
use wa_core::id::{CampaignId, DeviceId, IdSource, LeadId, MessageId, UserId};
use wa_core::seed::Seed;
use wa_core::store::{Change, ChangeSet, LeaseStore, OnDuplicate, Store, WriteClass};
use wa_core::time::{Clock, SystemClock, Timestamp};
use wa_store_postgres::{PostgresOptions, PostgresStore};

use crate::server::Server;

/// Rows per change set, as the engine commits them.
pub const PAGE: usize = 500;

/// A database for one run, and what is in it.
#[derive(Clone)]
pub struct Stage {
    pub clock: Arc<SystemClock>,
    pub ids: Arc<IdSource>,
    pub now: Timestamp,
    pub user: UserId,
    pub campaign: CampaignId,
    pub devices: Arc<Vec<DeviceId>>,
    pub messages: Arc<Vec<Message>>,
    base: String,
    database: String,
}

impl Stage {
    /// Devices, leads spread over them, and a running campaign for all of them; where `expanded`, its cursor has passed them.
    pub async fn build(server: &Server, database: &str, devices: usize, leads: usize, expanded: bool) -> Self {
        let clock = Arc::new(SystemClock::new());
        let ids = IdSource::seeded([7; 32]);
        let now = clock.wall();
        let user = UserId::new(&ids, now);
        create(server, database, "template1").await;
        let base = server.url();
        let mut stage = Self {
            clock,
            ids: Arc::new(ids),
            now,
            user,
            campaign: CampaignId::MIN,
            devices: Arc::default(),
            messages: Arc::default(),
            base: base
                .strip_suffix("/postgres")
                .expect("the address names its database")
                .to_owned(),
            database: database.to_owned(),
        };
        let ids = &*stage.ids;
        let store = stage.open().await;
        let seed = store.seed(&Seed::from_number(1)).await.expect("the seed is kept");
        let devices: Vec<_> = (0..devices).map(|_| DeviceId::new(ids, now)).collect();
        for (page, chunk) in devices.chunks(PAGE).enumerate() {
            let changes = chunk.iter().enumerate().map(|(at, id)| {
                let name = format!("device {}", page * PAGE + at);
                Change::InsertDevice(Box::new(Device::new(*id, user, name, Platform::STUB, now)))
            });
            commit(&store, changes.collect(), now).await;
        }
        let campaign = CampaignId::new(ids, now);
        let mut draft = Campaign::draft(
            campaign,
            user,
            "offer",
            Content::text("Hi {{name}}, {buy|take} it today"),
            now,
        );
        draft.status = CampaignStatus::Triggered;
        draft.started_at = Some(now);
        if expanded {
            draft.cursor = AudienceCursor::Done;
        }
        let expires_at = now + draft.expires_after;
        commit(&store, vec![Change::InsertCampaign(Box::new(draft))], now).await;
        let mut messages = Vec::with_capacity(leads);
        let numbers: Vec<usize> = (0..leads).collect();
        for chunk in numbers.chunks(PAGE) {
            let mut changes = Vec::with_capacity(chunk.len());
            for number in chunk {
                let device = devices[number % devices.len()];
                let phone = Phone::from_e164(&format!("+6012{number:07}")).expect("the number is well formed");
                let mut lead = Lead::new(LeadId::new(ids, now), user, Some(device), phone, now);
                lead.name = format!("Ali bin Abu {number}");
                let person = PersonKey::of(&seed, user, &phone);
                messages.push(message(ids, now, expires_at, &lead, person, campaign));
                changes.push(Change::InsertLead {
                    lead: Box::new(lead),
                    on_duplicate: OnDuplicate::Refuse,
                });
            }
            commit(&store, changes, now).await;
        }
        store.close().await;
        stage.campaign = campaign;
        stage.devices = Arc::new(devices);
        stage.messages = Arc::new(messages);
        stage.settle_down().await;
        stage
    }

    /// As [`settle_down`].
    pub async fn settle_down(&self) {
        let pool = PgPool::connect(&self.url()).await.expect("the database opens");
        settle_down(&pool).await;
        pool.close().await;
    }

    /// A database with nothing in it, for other queues.
    #[allow(dead_code, reason = "the benchmark of other queues needs it")]
    pub async fn empty(server: &Server, like: &Self, database: &str) -> Self {
        create(server, database, "template1").await;
        Self {
            database: database.to_owned(),
            ..like.clone()
        }
    }

    /// The same in a database of its own. Nobody may use this one meanwhile.
    pub async fn copy(&self, server: &Server, database: &str) -> Self {
        create(server, database, &self.database).await;
        Self {
            database: database.to_owned(),
            ..self.clone()
        }
    }

    /// Removes its database.
    pub async fn drop(self, server: &Server) {
        let sql = AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", self.database));
        let mut connection = server.connect().await;
        let dropped = sqlx::query(sql).execute(&mut connection).await;
        dropped.expect("the database goes");
    }

    /// The store, as a program that embeds the engine opens it.
    pub async fn open(&self) -> PostgresStore {
        let options = PostgresOptions::url(self.url());
        PostgresStore::open(options).await.expect("the database opens")
    }

    /// The address of the database.
    pub fn url(&self) -> String {
        format!("{}/{}", self.base, self.database)
    }

    /// Seconds since the clock's start.
    pub fn seconds(&self) -> f64 {
        self.clock.monotonic().since_start().as_secs_f64()
    }
}

/// Analyses everything, as autovacuum has it after a while, and writes to the disk what a run would have to pay for otherwise.
pub async fn settle_down(pool: &PgPool) {
    for sql in ["VACUUM ANALYZE", "CHECKPOINT"] {
        let done = sqlx::query(sql).execute(pool).await;
        done.expect("the stage is set");
    }
}

async fn create(server: &Server, database: &str, template: &str) {
    let mut connection = server.connect().await;
    // As a file copy it ends with a checkpoint, so that every run starts from the same state of the disk.
    let sql = format!("CREATE DATABASE {database} TEMPLATE {template} STRATEGY file_copy");
    let created = sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await;
    created.expect("the database is made");
}

/// Commits what a measurement starts from.
pub async fn commit(store: &PostgresStore, changes: Vec<Change>, now: Timestamp) {
    let set = ChangeSet {
        changes,
        events: Vec::new(),
    };
    store
        .commit(set, WriteClass::Bulk, now)
        .await
        .expect("the stage is set");
}

fn message(
    ids: &IdSource,
    now: Timestamp,
    expires_at: Timestamp,
    lead: &Lead,
    person: PersonKey,
    campaign: CampaignId,
) -> Message {
    Message {
        id: MessageId::new(ids, now),
        user_id: lead.user_id,
        scope: MessageScope::Campaign(campaign),
        key: IdempotencyKey::campaign(campaign, person, 0),
        round: 0,
        supersedes: None,
        superseded: false,
        lead_id: Some(lead.id),
        phone: Some(lead.phone),
        person,
        name: String::new(),
        custom: Default::default(),
        device_id: lead.device_id,
        flow: None,
        from_pool: false,
        content: None,
        override_suppression: false,
        due_at: now,
        delay: None,
        expires_at,
        held_at: None,
        state: MessageState::Queued,
        reason: None,
        detail: None,
        refusal_count: 0,
        attempt: None,
        doubt: None,
        delivery: None,
        delivery_at: None,
        settled_at: None,
        created_at: now,
    }
}
