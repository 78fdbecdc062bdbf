//! Steps of archiving beside what sends, and what they leave behind.

use std::time::Duration;

use futures::future::join_all;
use sqlx::{AssertSqlSafe, ConnectOptions};
use wa_core::conformance::fixtures::Fixtures;
use wa_core::domain::access::RequestScope;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::device::Epoch;
use wa_core::domain::message::{Attempt, Message, MessageScope, MessageState, Reason};
use wa_core::id::{CampaignId, DeviceId, Incarnation, MessageId, UserId};
use wa_core::store::{
    Archived, Begin, Begun, Change, ChangeSet, Due, LaneLook, LeaseStore, MessageFilter, OutboxStore, Outcome,
    PageRequest, Settle, Settled, Store, StoreErrorKind, Verdict, WriteClass,
};
use wa_core::transport::TransportMessageId;

use crate::server::Schema;
use crate::{MIGRATIONS, PostgresStore};

/// A user with a device that a node owns, and a campaign of so many messages that has ended.
struct Stage {
    store: PostgresStore,
    rows: Fixtures,
    user: UserId,
    device: DeviceId,
    node: Incarnation,
    epoch: Epoch,
    campaign: CampaignId,
    messages: Vec<MessageId>,
    schema: Schema,
}

impl Stage {
    async fn new(count: usize) -> Self {
        let schema = Schema::new();
        let store = PostgresStore::open(schema.options()).await.unwrap();
        let rows = Fixtures::new(1);
        let (now, user, node) = (rows.start(), rows.user().id, rows.incarnation());
        let device = rows.device(user);
        let set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
        store.commit(set, WriteClass::Api, now).await.unwrap();
        store.join(node, "node", now).await.unwrap();
        let epoch = store.claim(node, 1, now).await.unwrap()[0].epoch;
        let mut stage = Self {
            store,
            rows,
            user,
            device: device.id,
            node,
            epoch,
            campaign: CampaignId::MIN,
            messages: Vec::new(),
            schema,
        };
        stage.campaign = stage.started().await;
        let messages: Vec<Message> = (0..count).map(|n| stage.settled(n)).collect();
        stage.messages = messages.iter().map(|message| message.id).collect();
        stage.commit(Change::InsertMessages(messages)).await;
        let from = &[CampaignStatus::Triggered];
        stage.status(stage.campaign, from, CampaignStatus::Completed).await;
        stage
    }

    async fn commit(&self, change: Change) {
        let set = ChangeSet::one(change);
        self.store
            .commit(set, WriteClass::Api, self.rows.start())
            .await
            .unwrap();
    }

    async fn status(&self, campaign_id: CampaignId, from: &'static [CampaignStatus], to: CampaignStatus) {
        let user_id = self.user;
        let change = Change::SetCampaignStatus {
            user_id,
            campaign_id,
            from,
            to,
            reason: None,
        };
        self.commit(change).await;
    }

    async fn started(&self) -> CampaignId {
        let campaign = self.rows.campaign(self.user);
        let id = campaign.id;
        self.commit(Change::InsertCampaign(Box::new(campaign))).await;
        self.status(id, &[CampaignStatus::Draft], CampaignStatus::Scheduled)
            .await;
        self.status(id, &[CampaignStatus::Scheduled], CampaignStatus::Triggered)
            .await;
        id
    }

    fn message(&self, campaign: CampaignId) -> Message {
        let phone = self.rows.fresh_phone();
        self.rows
            .campaign_message(self.user, campaign, Some(self.device), phone)
    }

    /// Sent, or every fourth of them unknown.
    fn settled(&self, n: usize) -> Message {
        let id = self.rows.attempt_id();
        let unknown = n % 4 == 3;
        Message {
            state: if unknown {
                MessageState::Unknown
            } else {
                MessageState::Sent
            },
            reason: unknown.then_some(Reason::CannotTell),
            settled_at: Some(self.rows.at(n as u64 / 3)),
            attempt: Some(Attempt {
                id,
                transport_message_id: TransportMessageId::from_attempt(id),
                provider_id: TransportMessageId::new(format!("vendor-{n}")),
                device_id: self.device,
                epoch: self.epoch,
                text: "Hello".to_owned(),
                greeting: None,
                attempted_at: self.rows.start(),
            }),
            ..self.message(self.campaign)
        }
    }

    /// A store of another process that waits for no lock.
    async fn hasty(&self) -> PostgresStore {
        let options = self.schema.options().lock_timeout(Duration::from_millis(50)).retries(0);
        PostgresStore::open(options).await.unwrap()
    }

    fn outcome(&self, message_id: MessageId, attempt_id: wa_core::id::AttemptId) -> Settle {
        let outcome = Outcome {
            user_id: self.user,
            device_id: self.device,
            epoch: self.epoch,
            message_id,
            attempt_id,
            verdict: Verdict::Sent {
                provider_id: TransportMessageId::new("vendor-late"),
                delivery: None,
            },
            detail: None,
            advance: None,
        };
        Settle {
            incarnation: self.node,
            outcomes: vec![outcome],
            now: self.rows.start(),
        }
    }

    async fn archive(&self, limit: u32) -> Archived {
        let now = self.rows.at(1_000);
        self.store.archive(limit, now, now).await.unwrap()
    }

    async fn listed(&self) -> Vec<Message> {
        let filter = MessageFilter {
            scope: Some(MessageScope::Campaign(self.campaign)),
            ..MessageFilter::default()
        };
        let (scope, page) = (RequestScope::user(self.user), PageRequest::first(1_000));
        self.store.messages(&scope, &filter, &page).await.unwrap().rows
    }

    /// Notes outcomes as those that were recorded together.
    async fn gather(&self) {
        let sql = "
            WITH single AS (DELETE FROM outcomes WHERE scope_id IS NOT NULL RETURNING message_id, scope_id, settled_at)
            INSERT INTO outcomes (scope_id, settled_at, message_ids)
            SELECT scope_id, settled_at, array_agg(message_id) FROM single GROUP BY 1, 2";
        let mut reader = self.store.reader().await.unwrap();
        sqlx::raw_sql(sql).execute(reader.connection()).await.unwrap();
    }

    async fn count(&self, table: &str) -> i64 {
        let mut reader = self.store.reader().await.unwrap();
        let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
        sqlx::query_scalar(sql).fetch_one(reader.connection()).await.unwrap()
    }
}

#[tokio::test]
async fn a_lane_sends_in_the_middle_of_a_step() {
    let stage = Stage::new(100).await;
    let running = stage.started().await;
    let queued = stage.message(running);
    stage.commit(Change::InsertMessages(vec![queued.clone()])).await;
    let hasty = stage.hasty().await;
    let now = stage.rows.at(1_000);

    let mut tx = stage.store.begin_tx().await.unwrap();
    let step = super::archive(&mut tx, stage.store.space(), 100, now, now)
        .await
        .unwrap();
    assert_eq!(step.moved, 100);
    let due = Due {
        lanes: vec![LaneLook {
            user_id: stage.user,
            device_id: stage.device,
            served: None,
            served_sequence: None,
        }],
        now,
    };
    let heads = hasty.due(&due).await.unwrap().remove(0).heads;
    assert_eq!(heads.iter().map(|head| head.id).collect::<Vec<_>>(), [queued.id]);
    let item = stage.rows.begin_item(stage.user, queued.id, stage.device, stage.epoch);
    let begin = Begin {
        incarnation: stage.node,
        items: vec![item.clone()],
        now,
    };
    assert_eq!(hasty.begin(&begin).await.unwrap(), [Begun::Yes]);
    let settle = stage.outcome(queued.id, item.attempt_id);
    assert_eq!(hasty.settle(&settle).await.unwrap(), [Settled::Yes(MessageState::Sent)]);
    // What decides over messages of the user waits for the step, as it does for any settlement; others do not.
    let set = ChangeSet::one(Change::InsertMessages(vec![stage.message(running)]));
    let waits = hasty.commit(set.clone(), WriteClass::Api, now).await.unwrap_err();
    assert_eq!(waits.kind, StoreErrorKind::Unavailable);
    let mut other = stage.rows.device(stage.user);
    other.user_id = UserId::from_slice(&stage.user.as_bytes().map(|byte| byte.wrapping_add(1))).unwrap();
    let foreign = ChangeSet::one(Change::InsertDevice(Box::new(other)));
    hasty.commit(foreign, WriteClass::Api, now).await.unwrap();
    assert_eq!(stage.listed().await.len(), 100, "readers see what was before");
    tx.commit().await.unwrap();

    hasty.commit(set, WriteClass::Api, now).await.unwrap();
    assert_eq!(stage.listed().await.len(), 100);
    assert_eq!(stage.count("archived_messages").await, 100);
    assert_eq!(
        stage.count("outcomes").await,
        1,
        "that of the message that was sent meanwhile"
    );
}

#[tokio::test]
async fn a_list_of_outcomes_goes_with_the_last_of_its_messages() {
    let stage = Stage::new(20).await;
    stage.gather().await;
    let lists = "outcomes WHERE cardinality(message_ids) > 1";
    let all = stage.count(lists).await;
    assert!(all > 0);
    assert!(stage.archive(1).await.more);
    assert_eq!(stage.count(lists).await, all, "others of its messages are here");
    while stage.archive(7).await.more {}
    assert_eq!(stage.count("outcomes").await, 0);
    assert_eq!(stage.count("archived_messages").await, 20);
}

#[tokio::test]
async fn an_outcome_that_comes_in_the_middle_of_a_step_finds_its_message_archived() {
    let stage = Stage::new(4).await;
    let unknown = stage
        .listed()
        .await
        .into_iter()
        .find(|message| message.state == MessageState::Unknown);
    let unknown = unknown.unwrap();
    let now = stage.rows.at(1_000);
    let mut tx = stage.store.begin_tx().await.unwrap();
    super::archive(&mut tx, stage.store.space(), 100, now, now)
        .await
        .unwrap();
    let settle = stage.outcome(unknown.id, unknown.attempt.as_ref().unwrap().id);
    let committed = async {
        tx.commit().await.unwrap();
    };
    let (settled, ()) = futures::join!(stage.store.settle(&settle), committed);
    assert_eq!(settled.unwrap(), [Settled::NotSending]);
    let found = stage
        .listed()
        .await
        .into_iter()
        .find(|message| message.id == unknown.id);
    assert_eq!(found.unwrap(), unknown);
}

#[tokio::test]
async fn a_step_leaves_what_another_has_locked_to_the_next() {
    let stage = Stage::new(5).await;
    let mut other = stage.store.begin_tx().await.unwrap();
    let lock = sqlx::query("SELECT id FROM messages WHERE id = $1 FOR NO KEY UPDATE");
    let first = *stage.messages[0].as_uuid();
    lock.bind(first).fetch_one(&mut *other).await.unwrap();
    assert_eq!(stage.archive(10).await, Archived { moved: 4, more: true });
    assert_eq!(stage.archive(10).await, Archived { moved: 0, more: true });
    other.rollback().await.unwrap();
    assert_eq!(stage.archive(10).await, Archived { moved: 1, more: true });
    assert_eq!(stage.archive(10).await, Archived::default());
    assert_eq!(stage.listed().await.len(), 5);
}

#[tokio::test]
async fn nodes_that_archive_at_once_move_everything_once() {
    let stage = Stage::new(60).await;
    let now = stage.rows.at(1_000);
    let nodes = (0..4).map(|_| async {
        let store = PostgresStore::open(stage.schema.options()).await.unwrap();
        let mut moved = 0;
        loop {
            let archived = store.archive(7, now, now).await.unwrap();
            moved += archived.moved;
            if !archived.more {
                return moved;
            }
        }
    });
    assert_eq!(join_all(nodes).await.into_iter().sum::<u64>(), 60);
    assert_eq!(stage.count("archived_messages").await, 60);
    assert_eq!(stage.count("archived_attempts").await, 60);
    for table in ["messages", "attempts", "outcomes"] {
        assert_eq!(stage.count(table).await, 0, "{table}");
    }
    assert_eq!(stage.listed().await.len(), 60);
}

#[tokio::test]
async fn the_archive_keeps_every_column() {
    let stage = Stage::new(0).await;
    let mut reader = stage.store.reader().await.unwrap();
    let sql = "
        SELECT table_name || '.' || column_name FROM information_schema.columns c
        WHERE table_schema = current_schema() AND table_name IN ('messages', 'attempts') AND is_generated = 'NEVER'
            AND NOT EXISTS (
                SELECT 1 FROM information_schema.columns a
                WHERE a.table_schema = c.table_schema AND a.table_name = 'archived_' || c.table_name
                    AND a.column_name = c.column_name
            )";
    let missing: Vec<String> = sqlx::query_scalar(sql).fetch_all(reader.connection()).await.unwrap();
    assert_eq!(missing, Vec::<String>::new());
    for (columns, table) in [
        (message_columns!(), "archived_messages"),
        (attempt_columns!(), "archived_attempts"),
    ] {
        let sql = AssertSqlSafe(format!(
            "SELECT count(*) FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = '{table}'"
        ));
        let count: i64 = sqlx::query_scalar(sql).fetch_one(reader.connection()).await.unwrap();
        assert_eq!(columns.split(',').count(), usize::try_from(count).unwrap(), "{table}");
    }
}

#[tokio::test]
async fn a_step_back_to_the_schema_before_brings_messages_back() {
    let stage = Stage::new(8).await;
    let before = stage.listed().await;
    while stage.archive(3).await.more {}
    assert_eq!(stage.count("messages").await, 0);
    let versions = MIGRATIONS.iter().filter(|one| one.migration_type.is_up_migration());
    let archive = versions
        .clone()
        .find(|one| one.description == "archive")
        .unwrap()
        .version;
    let earlier = versions
        .map(|one| one.version)
        .filter(|version| *version < archive)
        .max();
    let options = stage.schema.options().plain_options().unwrap();
    let mut connection = options.connect().await.unwrap();
    MIGRATIONS.undo(&mut connection, earlier.unwrap()).await.unwrap();
    MIGRATIONS.run(&mut connection).await.unwrap();
    assert_eq!(stage.listed().await, before);
    assert_eq!(stage.count("messages").await, 8);
    assert_eq!(stage.count("outcomes").await, 8);
    // Lists too, which came later.
    stage.gather().await;
    assert!(stage.count("outcomes WHERE message_ids IS NOT NULL").await > 0);
    let narrow = MIGRATIONS.iter().find(|one| one.description == "narrow").unwrap();
    MIGRATIONS.undo(&mut connection, narrow.version).await.unwrap();
    assert_eq!(
        stage
            .count("outcomes WHERE message_id IS NOT NULL AND scope_id IS NOT NULL")
            .await,
        8
    );
    MIGRATIONS.run(&mut connection).await.unwrap();
    while stage.archive(3).await.more {}
    assert_eq!(stage.listed().await, before);
}
