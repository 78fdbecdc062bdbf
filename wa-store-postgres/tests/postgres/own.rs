//! What the suite of stores cannot ask: the schema, the server, embedded transactions, notifications, and transactions side by side.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, PgPool};
use wa_core::conformance::fixtures::Fixtures;
use wa_core::domain::access::RequestScope;
use wa_core::domain::sequence::SequenceStatus;
use wa_core::id::{DeviceId, UserId};
use wa_core::store::{
    Change, ChangeSet, DeviceStore, LeadFilter, LeadStore, LeaseStore, OnDuplicate, OutboxStore, PageRequest, Store,
    StoreErrorKind, WriteClass,
};
use wa_store_postgres::{PostgresOptions, PostgresStore};

use crate::server::{Schema, Server};

/// A store with one device of one user.
pub(crate) struct Stage {
    pub(crate) store: PostgresStore,
    pub(crate) rows: Fixtures,
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) schema: Schema,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let schema = Schema::new();
        let store = PostgresStore::open(schema.options()).await.unwrap();
        let rows = Fixtures::new(1);
        let user = rows.user().id;
        let device = rows.device(user);
        let set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
        store.commit(set, WriteClass::Api, rows.start()).await.unwrap();
        Self {
            store,
            rows,
            user,
            device: device.id,
            schema,
        }
    }

    pub(crate) fn message(&self) -> ChangeSet {
        let phone = self.rows.fresh_phone();
        let message = self.rows.direct_message(self.user, Some(self.device), phone);
        ChangeSet::one(Change::InsertMessages(vec![message]))
    }

    pub(crate) fn lead(&self) -> Change {
        Change::InsertLead {
            lead: Box::new(self.rows.lead(self.user, Some(self.device))),
            on_duplicate: OnDuplicate::Refuse,
        }
    }

    pub(crate) async fn queued(&self) -> u64 {
        self.store.backlog().await.unwrap().queued
    }

    pub(crate) async fn leads(&self) -> u64 {
        let scope = RequestScope::user(self.user);
        self.store.lead_count(&scope, &LeadFilter::default()).await.unwrap()
    }
}

/// A pool of an embedder, whose search path is not the store's.
pub(crate) async fn embedder() -> PgPool {
    let pool = PgPoolOptions::new().max_connections(2);
    pool.connect(&Server::shared().url()).await.unwrap()
}

#[tokio::test]
async fn nodes_that_start_at_once_migrate_once() {
    let schema = Schema::new();
    let opened = join_all((0..6).map(|_| PostgresStore::open(schema.options()))).await;
    for store in opened {
        store.unwrap().ready().await.unwrap();
    }
    let count = AssertSqlSafe(format!("SELECT count(*) FROM {}._sqlx_migrations", schema.name()));
    let applied: i64 = sqlx::query_scalar(count).fetch_one(&embedder().await).await.unwrap();
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
    let ups = files.filter(|file| file.as_ref().unwrap().path().to_string_lossy().ends_with(".up.sql"));
    assert_eq!(usize::try_from(applied).unwrap(), ups.count());
}

#[tokio::test]
async fn schemas_beside_each_other_share_nothing() {
    let (one, two) = (Stage::new().await, Stage::new().await);
    one.store
        .commit(one.message(), WriteClass::Api, one.rows.start())
        .await
        .unwrap();
    assert_eq!((one.queued().await, two.queued().await), (1, 0));
}

#[tokio::test]
async fn a_schema_of_a_strange_name_is_refused() {
    Server::shared();
    let options = PostgresOptions::url(Server::shared().url()).schema("a; DROP TABLE x");
    let refused = PostgresStore::open(options).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Conflict);
}

#[tokio::test]
async fn a_store_behind_its_schema_is_not_ready() {
    let stage = Stage::new().await;
    stage.store.ready().await.unwrap();
    let mut tx = stage.store.begin_tx().await.unwrap();
    sqlx::query("DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    assert_eq!(stage.store.ready().await.unwrap_err().kind, StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_node_whose_schema_was_brought_further_by_a_newer_one_beats_no_more() {
    let stage = Stage::new().await;
    let (node, now) = (stage.rows.incarnation(), stage.rows.start());
    stage.store.join(node, "old", now).await.unwrap();
    stage.store.beat(node, now).await.unwrap();
    let mut tx = stage.store.begin_tx().await.unwrap();
    sqlx::query("INSERT INTO _sqlx_migrations SELECT 9999, 'newer', now(), true, '', 0")
        .execute(&mut *tx)
        .await
        .unwrap();
    tx.commit().await.unwrap();
    let refused = stage.store.beat(node, now).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Unsupported);
    let told = format!("{refused:?}");
    assert!(told.contains("newer"), "{told}");
    let refused = stage.store.join(stage.rows.incarnation(), "old", now).await;
    assert_eq!(refused.unwrap_err().kind, StoreErrorKind::Unsupported);
}

#[tokio::test]
async fn an_embedded_change_set_lives_and_dies_with_its_transaction() {
    let stage = Stage::new().await;
    let now = stage.rows.start();
    let pool = embedder().await;

    let mut tx = pool.begin().await.unwrap();
    let path: String = sqlx::query_scalar("SHOW search_path")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    let done = stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    assert_eq!((done.messages_inserted, done.wake), (1, vec![stage.device]));
    let after: String = sqlx::query_scalar("SHOW search_path")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert_eq!(after, path, "the embedder's own statements find their tables");
    tx.rollback().await.unwrap();
    assert_eq!(stage.queued().await, 0);

    let mut tx = pool.begin().await.unwrap();
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    drop(tx);
    assert_eq!(stage.queued().await, 0, "dropped is undone");

    let mut tx = pool.begin().await.unwrap();
    sqlx::query("CREATE TEMPORARY TABLE orders (id integer)")
        .execute(&mut *tx)
        .await
        .unwrap();
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    assert_eq!(stage.queued().await, 0, "nobody sees it before the commit");
    tx.commit().await.unwrap();
    assert_eq!(stage.queued().await, 1);
}

#[tokio::test]
async fn a_refused_change_set_leaves_the_rest_of_the_callers_transaction() {
    let stage = Stage::new().await;
    let now = stage.rows.start();
    let pool = embedder().await;
    let mut tx = pool.begin().await.unwrap();
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    let stranger = Change::DeleteDevice {
        user_id: stage.rows.user().id,
        device_id: stage.device,
    };
    let refused = stage
        .store
        .commit_in(&mut tx, stage.message().and(stranger), now)
        .await
        .unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::NotFound);
    let path: String = sqlx::query_scalar("SHOW search_path")
        .fetch_one(&mut *tx)
        .await
        .unwrap();
    assert_ne!(path, stage.schema.name());
    tx.commit().await.unwrap();
    assert_eq!(stage.queued().await, 1, "the message of the refused set is gone");
}

#[tokio::test]
async fn a_commit_wakes_the_other_nodes() {
    let stage = Stage::new().await;
    let other = PostgresStore::open(stage.schema.options()).await.unwrap();
    let mut wakes = other.wakes().await.unwrap();
    stage
        .store
        .commit(stage.message(), WriteClass::Api, stage.rows.start())
        .await
        .unwrap();
    assert_eq!(wakes.next().await.unwrap(), [stage.device]);
}

#[tokio::test]
async fn an_embedded_change_set_wakes_when_its_transaction_commits() {
    let stage = Stage::new().await;
    let mut wakes = stage.store.wakes().await.unwrap();
    let pool = embedder().await;
    let now = stage.rows.start();
    let mut undone = pool.begin().await.unwrap();
    stage.store.commit_in(&mut undone, stage.message(), now).await.unwrap();
    undone.rollback().await.unwrap();
    let second = stage.rows.device(stage.user);
    let mut tx = pool.begin().await.unwrap();
    let set = ChangeSet::one(Change::InsertDevice(Box::new(second.clone())));
    let phone = stage.rows.fresh_phone();
    let message = stage.rows.direct_message(stage.user, Some(second.id), phone);
    let set = set.and(Change::InsertMessages(vec![message]));
    stage.store.commit_in(&mut tx, set, now).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(wakes.next().await.unwrap(), [second.id], "what was undone wakes nobody");
}

#[tokio::test]
async fn a_caller_that_is_dropped_leaves_all_or_nothing() {
    let stage = Stage::new().await;
    for polls in 0..40 {
        let set = ChangeSet::one(stage.lead()).and(stage.lead());
        let mut commit = stage.store.commit(set, WriteClass::Api, stage.rows.start());
        for _ in 0..polls {
            if futures::poll!(&mut commit).is_ready() {
                break;
            }
            tokio::task::yield_now().await;
        }
        drop(commit);
        let leads = stage.leads().await;
        assert!(
            leads.is_multiple_of(2),
            "{leads} leads after {polls} polls, of which each call adds 2"
        );
    }
}

#[tokio::test]
async fn work_in_bulk_leaves_connections_for_settlements() {
    let stage = Stage::new().await;
    let options = stage.schema.options().connections(2).lock_timeout(Duration::ZERO);
    let small = PostgresStore::open(options).await.unwrap();
    // All commits of the user wait for this one.
    let pool = embedder().await;
    let mut tx = pool.begin().await.unwrap();
    let now = stage.rows.start();
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    let bulk: Vec<_> = (0..4)
        .map(|_| {
            let (small, set) = (small.clone(), stage.message());
            tokio::spawn(async move { small.commit(set, WriteClass::Bulk, now).await.unwrap() })
        })
        .collect();
    tokio::task::yield_now().await;
    let (other, device) = (stage.rows.user().id, DeviceId::from_slice(&[1; 16]).unwrap());
    small.unassign(other, device).await.unwrap();
    tx.commit().await.unwrap();
    for task in bulk {
        task.await.unwrap();
    }
    assert_eq!(stage.queued().await, 5);
}

#[tokio::test]
async fn a_statement_that_waits_too_long_for_a_lock_is_unavailable() {
    let stage = Stage::new().await;
    let options = stage.schema.options().lock_timeout(Duration::from_millis(50));
    let hasty = PostgresStore::open(options).await.unwrap();
    let pool = embedder().await;
    let mut tx = pool.begin().await.unwrap();
    let now = stage.rows.start();
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    let refused = hasty.commit(stage.message(), WriteClass::Api, now).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{refused:?}");
    tx.commit().await.unwrap();
    hasty.commit(stage.message(), WriteClass::Api, now).await.unwrap();
}

#[tokio::test]
async fn a_node_that_stops_in_the_middle_of_a_transaction_holds_nobody_up_for_long() {
    let stage = Stage::new().await;
    let options = stage.schema.options().idle_timeout(Duration::from_millis(200));
    let stopped = PostgresStore::open(options).await.unwrap();
    let now = stage.rows.start();
    let mut tx = stopped.begin_tx().await.unwrap();
    stopped.commit_in(&mut tx, stage.message(), now).await.unwrap();
    stage.store.commit(stage.message(), WriteClass::Api, now).await.unwrap();
    tx.commit().await.unwrap_err();
    assert_eq!(stage.queued().await, 1, "what stood still is undone");
    stopped.commit(stage.message(), WriteClass::Api, now).await.unwrap();
}

#[tokio::test]
async fn transactions_of_embedders_that_block_each_other_end() {
    let (stage, pool) = (Stage::new().await, embedder().await);
    let now = stage.rows.start();
    let mut other = stage.rows.device(stage.rows.user().id);
    // Another stripe of the locks than the first user's.
    other.user_id = UserId::from_slice(&stage.user.as_bytes().map(|byte| byte.wrapping_add(1))).unwrap();
    let set = ChangeSet::one(Change::InsertDevice(Box::new(other.clone())));
    stage.store.commit(set, WriteClass::Api, now).await.unwrap();
    let to = |user, device| {
        let message = stage.rows.direct_message(user, Some(device), stage.rows.fresh_phone());
        ChangeSet::one(Change::InsertMessages(vec![message]))
    };
    let (mut one, mut two) = (pool.begin().await.unwrap(), pool.begin().await.unwrap());
    let store = &stage.store;
    store
        .commit_in(&mut one, to(stage.user, stage.device), now)
        .await
        .unwrap();
    store
        .commit_in(&mut two, to(other.user_id, other.id), now)
        .await
        .unwrap();
    let first = async {
        let done = store.commit_in(&mut one, to(other.user_id, other.id), now).await;
        one.rollback().await.unwrap();
        done
    };
    let second = async {
        let done = store.commit_in(&mut two, to(stage.user, stage.device), now).await;
        two.rollback().await.unwrap();
        done
    };
    let (first, second) = futures::join!(first, second);
    let lost: Vec<_> = [first, second].into_iter().filter_map(Result::err).collect();
    assert_eq!(lost.len(), 1, "{lost:?}");
    assert_eq!(lost[0].kind, StoreErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_that_crashes_and_starts_again_is_unavailable_meanwhile_and_keeps_what_was_committed() {
    let server = Server::own();
    let options = PostgresOptions::url(server.url()).acquire_timeout(Duration::from_secs(2));
    let store = PostgresStore::open(options).await.unwrap();
    let rows = Fixtures::new(1);
    let (now, user) = (rows.start(), rows.user().id);
    let device = rows.device(user);
    let set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
    store.commit(set, WriteClass::Api, now).await.unwrap();
    let message = || {
        let message = rows.direct_message(user, Some(device.id), rows.fresh_phone());
        ChangeSet::one(Change::InsertMessages(vec![message]))
    };
    store.commit(message(), WriteClass::Api, now).await.unwrap();
    server.crash();
    for _ in 0..2 {
        let refused = store.commit(message(), WriteClass::Api, now).await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{refused:?}");
        let refused = store.ready().await.unwrap_err();
        assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{refused:?}");
    }
    server.start();
    let mut tries = 0;
    while let Err(refused) = store.commit(message(), WriteClass::Api, now).await {
        assert_eq!(refused.kind, StoreErrorKind::Unavailable, "{refused:?}");
        tries += 1;
        assert!(tries < 20, "connections that broke are given up one after the other");
    }
    // Of those that read, too.
    while store.ready().await.is_err() {
        tries += 1;
        assert!(tries < 20, "connections that broke are given up one after the other");
    }
    assert_eq!(store.backlog().await.unwrap().queued, 2);
    let page = PageRequest::first(10);
    let devices = store.devices(&RequestScope::user(user), &page).await.unwrap();
    assert_eq!(devices.rows.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_of_many_users_at_once_never_fail_and_lose_nothing() {
    let schema = Schema::new();
    let store = PostgresStore::open(schema.options()).await.unwrap();
    let rows = Arc::new(Fixtures::new(1));
    let now = rows.start();
    let mut devices = Vec::new();
    for _ in 0..8 {
        let device = rows.device(rows.user().id);
        let set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
        store.commit(set, WriteClass::Api, now).await.unwrap();
        devices.push(device);
    }
    let devices = Arc::new(devices);
    let tasks = (0..16_usize).map(|task| {
        let (store, rows, devices) = (store.clone(), rows.clone(), devices.clone());
        tokio::spawn(async move {
            for round in 0..10_usize {
                // Each time of three users, in another order.
                let messages = (0..3).map(|n| {
                    let device = &devices[(task * 5 + round * 3 + n * 7) % 8];
                    rows.direct_message(device.user_id, Some(device.id), rows.fresh_phone())
                });
                let set = ChangeSet::one(Change::InsertMessages(messages.collect()));
                store.commit(set, WriteClass::Api, now).await.unwrap();
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    assert_eq!(store.backlog().await.unwrap().queued, 480);
    for device in devices.iter() {
        let scope = RequestScope::user(device.user_id);
        let direct = wa_core::domain::message::MessageScope::Direct;
        assert_eq!(
            store.numbers(&scope, direct).await.unwrap(),
            store.count(&scope, direct).await.unwrap()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_begins_after_an_opt_out_or_a_hold_is_committed() {
    use wa_core::domain::device::{Hold, HoldReason};
    use wa_core::store::{Begin, Begun, LeaseStore};
    let stage = Stage::new().await;
    let now = stage.rows.start();
    let node = stage.rows.incarnation();
    stage.store.join(node, "node", now).await.unwrap();
    let epoch = stage.store.claim(node, 10, now).await.unwrap()[0].epoch;
    for round in 0..20 {
        let phone = stage.rows.fresh_phone();
        let message = stage.rows.direct_message(stage.user, Some(stage.device), phone);
        let set = ChangeSet::one(Change::InsertMessages(vec![message.clone()]));
        stage.store.commit(set, WriteClass::Api, now).await.unwrap();
        let forbid = if round % 2 == 0 {
            Change::Suppress(stage.rows.suppression(stage.user, phone))
        } else {
            Change::SetDeviceHold {
                user_id: stage.user,
                device_id: stage.device,
                hold: Some(Hold {
                    reason: HoldReason::ByPerson,
                    since_at: now,
                    detail: None,
                }),
            }
        };
        let forbidden = Arc::new(AtomicBool::new(false));
        let item = stage.rows.begin_item(stage.user, message.id, stage.device, epoch);
        let begin = Begin {
            incarnation: node,
            items: vec![item.clone()],
            now,
        };
        let opting = {
            let (store, forbidden) = (stage.store.clone(), forbidden.clone());
            tokio::spawn(async move {
                store
                    .commit(ChangeSet::one(forbid), WriteClass::Api, now)
                    .await
                    .unwrap();
                forbidden.store(true, Ordering::SeqCst);
            })
        };
        let beginning = {
            let store = stage.store.clone();
            tokio::spawn(async move {
                let late = forbidden.load(Ordering::SeqCst);
                (late, store.begin(&begin).await.unwrap()[0])
            })
        };
        let ((), (late, begun)) = (opting.await.unwrap(), beginning.await.unwrap());
        assert!(!(late && begun == Begun::Yes), "round {round}");
        if begun == Begun::Yes {
            let outcome = wa_core::store::Outcome {
                user_id: stage.user,
                device_id: stage.device,
                epoch,
                message_id: message.id,
                attempt_id: item.attempt_id,
                verdict: wa_core::store::Verdict::Sent {
                    provider_id: None,
                    delivery: None,
                },
                detail: None,
                advance: None,
            };
            let settle = wa_core::store::Settle {
                incarnation: node,
                outcomes: vec![outcome],
                now,
            };
            stage.store.settle(&settle).await.unwrap();
        }
        let free = Change::SetDeviceHold {
            user_id: stage.user,
            device_id: stage.device,
            hold: None,
        };
        stage
            .store
            .commit(ChangeSet::one(free), WriteClass::Api, now)
            .await
            .unwrap();
        stage.store.unassign(stage.user, stage.device).await.unwrap();
    }
}

#[tokio::test]
async fn the_database_itself_refuses_what_must_never_be() {
    let stage = Stage::new().await;
    let other_user = stage.rows.user().id;
    let start = stage.rows.start();
    for _ in 0..2 {
        stage
            .store
            .commit(stage.message(), WriteClass::Api, start)
            .await
            .unwrap();
    }
    let campaign = stage.rows.campaign(stage.user);
    let of_campaign = stage
        .rows
        .campaign_message(stage.user, campaign.id, None, stage.rows.fresh_phone());
    let set = ChangeSet::one(Change::InsertCampaign(Box::new(campaign)))
        .and(Change::InsertMessages(vec![of_campaign]))
        .and(stage.lead());
    stage.store.commit(set, WriteClass::Api, start).await.unwrap();
    let (mut sequence, steps) = stage.rows.sequence(stage.user, &["buyer"]);
    sequence.status = SequenceStatus::Active;
    let lead = stage.rows.lead_with(stage.user, Some(stage.device), "buyer");
    let enrolment = stage.rows.enrolling(&lead, &sequence, &steps, start);
    let set = ChangeSet::one(Change::InsertLead {
        lead: Box::new(lead),
        on_duplicate: OnDuplicate::Refuse,
    })
    .and(Change::InsertSequence {
        sequence: Box::new(sequence),
        steps: Some(Box::new(steps)),
    })
    .and(Change::Enrol(vec![enrolment]));
    stage.store.commit(set, WriteClass::Api, start).await.unwrap();
    let foreign = format!("user_id = '{}'", other_user.as_uuid());
    let sending = "attempt_id = gen_random_uuid(), epoch = 1";
    let first = "id = (SELECT id FROM messages ORDER BY id LIMIT 1)";
    let bad = [
        (
            "two messages being sent by one device",
            "UPDATE lanes SET message_id = gen_random_uuid(), turn = -1".into(),
        ),
        (
            "a message twice in the queue",
            "INSERT INTO queue SELECT * FROM queue".into(),
        ),
        (
            "parked but queued",
            "INSERT INTO parked (message_id, scope_id, state) VALUES (gen_random_uuid(), gen_random_uuid(), 1)".into(),
        ),
        (
            "sending without an attempt",
            format!("UPDATE messages SET state = 3 WHERE {first}"),
        ),
        (
            "sending without a device",
            format!("UPDATE messages SET state = 3, device_id = NULL, {sending} WHERE {first}"),
        ),
        (
            "in doubt without a next check",
            format!("UPDATE messages SET state = 4, {sending} WHERE {first}"),
        ),
        (
            "held without a time",
            format!("UPDATE messages SET state = 2 WHERE {first}"),
        ),
        (
            "settled without a time",
            format!("UPDATE messages SET state = 5 WHERE {first}"),
        ),
        (
            "open with a time of settlement",
            format!("UPDATE messages SET settled_at = 0 WHERE {first}"),
        ),
        (
            "an unknown state",
            format!("UPDATE messages SET state = 10, settled_at = 0 WHERE {first}"),
        ),
        (
            "a key twice",
            "UPDATE messages SET key = '09090909-0909-0909-0909-090909090909'".into(),
        ),
        (
            "another user's campaign in a message",
            format!("UPDATE messages SET scope_kind = 1 WHERE {first}"),
        ),
        (
            "another user's campaign in a new message",
            "INSERT INTO messages (id, user_id, scope_id, key, person, due_at, expires_at, created_at, round, scope_kind, priority,
                from_pool, override_suppression, state, name)
            SELECT gen_random_uuid(), gen_random_uuid(), m.scope_id, gen_random_uuid(), m.person, 0, 0, 0, 0, 1, 2, true, false, 1, ''
            FROM messages m WHERE m.scope_kind = 1"
                .into(),
        ),
        (
            "messages without their campaign",
            "DELETE FROM campaigns".into(),
        ),
        (
            "another sequence than that of the enrolment",
            "UPDATE messages SET scope_id = gen_random_uuid() WHERE scope_kind = 2".into(),
        ),
        (
            "another sequence than that of the enrolment in a new message",
            "INSERT INTO messages (id, user_id, scope_id, key, person, due_at, expires_at, created_at, round, scope_kind, priority,
                from_pool, override_suppression, state, name, enrolment_id, step_id, steps_version)
            SELECT gen_random_uuid(), m.user_id, gen_random_uuid(), gen_random_uuid(), m.person, 0, 0, 0, 1, 2, 1, false, false, 1, '',
                m.enrolment_id, m.step_id, m.steps_version
            FROM messages m WHERE m.scope_kind = 2"
                .into(),
        ),
        ("another user's device of a lead", format!("UPDATE leads SET {foreign}")),
        ("a phone that is none", "UPDATE leads SET phone = '0123456789'".into()),
        ("an unknown campaign status", "UPDATE campaigns SET status = 8".into()),
        (
            "a cursor without its lead",
            "UPDATE campaigns SET cursor_kind = 1".into(),
        ),
        (
            "an owner that is no node",
            "UPDATE devices SET owner = gen_random_uuid()".into(),
        ),
        ("numbers below zero", "UPDATE tallies SET remaining = -1".into()),
    ];
    for (what, sql) in bad {
        let mut tx = stage.store.begin_tx().await.unwrap();
        let result = sqlx::query(AssertSqlSafe(sql)).execute(&mut *tx).await;
        let code = result
            .err()
            .and_then(|error| Some(error.as_database_error()?.code()?.into_owned()))
            .unwrap_or_default();
        // Class 23: integrity constraint violation.
        assert!(code.starts_with("23"), "{what}: {code:?}");
        tx.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn who_is_started_again_under_a_name_fences_the_process_before_when_that_is_dead_and_nobody_else() {
    let stage = Stage::new().await;
    let (first, second, third) = (
        stage.rows.incarnation(),
        stage.rows.incarnation(),
        stage.rows.incarnation(),
    );
    let now = stage.rows.start();
    let open = || PostgresStore::open(stage.schema.options());
    let dead = open().await.unwrap();
    dead.join(first, "shop", now).await.unwrap();
    assert_eq!(dead.claim(first, 10, now).await.unwrap().len(), 1);
    let other = open().await.unwrap();
    other.join(stage.rows.incarnation(), "else", now).await.unwrap();
    let twin = open().await.unwrap();
    twin.join(second, "shop", now).await.unwrap();
    let refused = twin.fence_the_dead(second, now).await.unwrap_err();
    assert_eq!(refused.kind, StoreErrorKind::Unsupported, "the process before lives");

    dead.close().await;
    let next = open().await.unwrap();
    next.join(third, "shop", now).await.unwrap();
    next.fence_the_dead(third, now).await.unwrap();
    let nodes = next.nodes().await.unwrap();
    let fenced: Vec<_> = nodes
        .iter()
        .filter(|node| node.fenced)
        .map(|node| node.incarnation)
        .collect();
    assert_eq!(
        fenced,
        [first],
        "neither the twin, which never had the name, nor others"
    );
    assert_eq!(next.unowned().await.unwrap(), 1);
}

#[tokio::test]
async fn the_lock_of_a_name_is_taken_again_when_its_session_broke() {
    let server = Server::own();
    let store = PostgresStore::open(PostgresOptions::url(server.url())).await.unwrap();
    let rows = Fixtures::new(1);
    let (node, now) = (rows.incarnation(), rows.start());
    store.join(node, "shop", now).await.unwrap();
    store.fence_the_dead(node, now).await.unwrap();
    server.crash();
    server.start();
    let mut look = tokio::time::interval(Duration::from_millis(20));
    let again = async {
        while store.beat(node, now).await.is_err() || store.fence_the_dead(node, now).await.is_err() {
            look.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), again)
        .await
        .expect("it is taken again");
}
