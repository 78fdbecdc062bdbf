//! What happens to the store's connections when others stand in the way, callers are dropped, or the database falls silent.

use std::collections::BTreeSet;
use std::task::Poll;
use std::time::Duration;

use futures::future::join_all;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Executor};
use wa_core::domain::access::RequestScope;
use wa_core::store::{
    CampaignStore, LeaseStore, OutboxStore, PageRequest, SequenceStore, Settle, Store, StoreErrorKind, WriteClass,
};
use wa_store_postgres::PostgresStore;

use crate::own::{Stage, embedder};
use crate::proxy::Proxy;
use crate::server::Server;

/// Longer than anything here takes that does not hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// Sessions that wait for a lock of another session, with the instants since which each waits.
const WAITING: &str = "
    SELECT l.pid, coalesce(l.waitstart::text, '') FROM pg_locks l WHERE NOT l.granted AND $1 = ANY (pg_blocking_pids(l.pid))";

/// Waits until as many waits for locks of a session were seen as are wanted; one that is given up and begun again is another.
async fn seen_waiting(blocker: i32, wanted: usize) {
    let mut look = Server::shared().connect().await;
    let mut seen = BTreeSet::new();
    let all = async {
        while seen.len() < wanted {
            let waits: Vec<(i32, String)> = sqlx::query_as(WAITING)
                .bind(blocker)
                .fetch_all(&mut look)
                .await
                .unwrap();
            // A wait has no instant yet just after it began.
            seen.extend(waits.into_iter().filter(|(_, since)| !since.is_empty()));
            tokio::task::yield_now().await;
        }
    };
    let all = tokio::time::timeout(PATIENCE, all).await;
    assert!(all.is_ok(), "only {} waits were seen", seen.len());
}

async fn pid(connection: &mut PgConnection) -> i32 {
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()");
    pid.fetch_one(connection).await.unwrap()
}

/// Polls a future as often as it is woken, but not more than so many times, and drops it.
async fn polled<F: Future>(times: usize, future: F) {
    let mut future = std::pin::pin!(future);
    let mut left = times;
    std::future::poll_fn(move |context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        if left == 0 { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Commits in bulk that are run again while another transaction has their user.
async fn bulk_that_is_run_again(connections: u32, commits: usize) {
    let stage = Stage::new().await;
    let options = stage.schema.options().connections(connections);
    let options = options.lock_timeout(Duration::from_millis(50)).retries(10_000);
    let store = PostgresStore::open(options).await.unwrap();
    let pool = embedder().await;
    let mut tx = pool.begin().await.unwrap();
    let blocker = pid(&mut tx).await;
    let now = stage.rows.start();
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    let bulk: Vec<_> = (0..commits)
        .map(|_| {
            let (store, set) = (store.clone(), stage.message());
            tokio::spawn(async move { store.commit(set, WriteClass::Bulk, now).await })
        })
        .collect();
    seen_waiting(blocker, 4 * commits).await;
    tx.commit().await.unwrap();
    let done = tokio::time::timeout(PATIENCE, join_all(bulk)).await;
    for commit in done.expect("they go on when nobody is in their way") {
        commit.unwrap().unwrap();
    }
    assert_eq!(stage.queued().await, commits as u64 + 1);
}

#[tokio::test]
async fn work_in_bulk_that_is_run_again_does_not_wait_for_its_own_share() {
    bulk_that_is_run_again(2, 1).await;
}

#[tokio::test]
async fn works_in_bulk_that_are_run_again_at_once_do_not_wait_for_each_other() {
    bulk_that_is_run_again(8, 2).await;
}

#[tokio::test]
async fn slow_reads_leave_connections_for_beats_and_settlements() {
    let stage = Stage::new().await;
    let options = stage.schema.options().lock_timeout(Duration::ZERO);
    let store = PostgresStore::open(options).await.unwrap();
    let now = stage.rows.start();
    let node = stage.rows.incarnation();
    store.join(node, "node", now).await.unwrap();
    let mut slow = Server::shared().connect().await;
    let blocker = pid(&mut slow).await;
    let mut lock = slow.begin().await.unwrap();
    let table = format!(
        "LOCK TABLE {}.saved_texts IN ACCESS EXCLUSIVE MODE",
        stage.schema.name()
    );
    lock.execute(sqlx::AssertSqlSafe(table)).await.unwrap();
    let reads: Vec<_> = (0..16)
        .map(|_| {
            let (store, scope) = (store.clone(), RequestScope::user(stage.user));
            tokio::spawn(async move { store.saved_texts(&scope, &PageRequest::first(10)).await })
        })
        .collect();
    seen_waiting(blocker, 5).await;
    let meanwhile = async {
        for _ in 0..10 {
            store.beat(node, now).await.unwrap();
            let settle = Settle {
                incarnation: node,
                outcomes: Vec::new(),
                now,
            };
            store.settle(&settle).await.unwrap();
            store.commit(stage.message(), WriteClass::Api, now).await.unwrap();
        }
    };
    let done = tokio::time::timeout(Duration::from_secs(5), meanwhile).await;
    done.expect("they do not wait for the reads");
    lock.rollback().await.unwrap();
    for read in join_all(reads).await {
        read.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_beat_finds_a_connection_whatever_waits_for_locks() {
    let stage = Stage::new().await;
    let options = stage.schema.options().connections(2).lock_timeout(Duration::ZERO);
    let store = PostgresStore::open(options).await.unwrap();
    let now = stage.rows.start();
    let node = stage.rows.incarnation();
    store.join(node, "node", now).await.unwrap();
    let pool = embedder().await;
    let mut tx = pool.begin().await.unwrap();
    let blocker = pid(&mut tx).await;
    stage.store.commit_in(&mut tx, stage.message(), now).await.unwrap();
    let writes: Vec<_> = (0..4)
        .map(|_| {
            let (store, set) = (store.clone(), stage.message());
            tokio::spawn(async move { store.commit(set, WriteClass::Api, now).await })
        })
        .collect();
    seen_waiting(blocker, 2).await;
    let beat = tokio::time::timeout(Duration::from_secs(5), store.beat(node, now)).await;
    beat.expect("it does not wait for the writes").unwrap();
    tx.commit().await.unwrap();
    for write in join_all(writes).await {
        write.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_caller_that_is_dropped_anywhere_leaves_no_transaction_open_on_a_connection() {
    let stage = Stage::new().await;
    let options = stage.schema.options().connections(2).idle_timeout(Duration::ZERO);
    let store = PostgresStore::open(options).await.unwrap();
    // One connection is left, so that whatever is done to it is seen by the next call.
    let kept = store.begin_tx().await.unwrap();
    let now = stage.rows.start();
    let scope = RequestScope::user(stage.user);
    let (sequence, _) = stage.rows.sequence(stage.user, &[]);
    for polls in 1..24 {
        let before = store.backlog().await.unwrap().queued;
        match polls % 3 {
            0 => polled(polls / 3, store.recount_sequence(&scope, sequence.id)).await,
            1 => polled(polls / 3, store.begin_tx()).await,
            _ => polled(polls / 3, store.commit(stage.message(), WriteClass::Bulk, now)).await,
        }
        let after = async {
            store.commit(stage.message(), WriteClass::Bulk, now).await.unwrap();
            store.commit(stage.message(), WriteClass::Api, now).await.unwrap();
            store.backlog().await.unwrap().queued
        };
        let after = tokio::time::timeout(PATIENCE, after)
            .await
            .expect("the connection is free");
        assert!(
            after >= before + 2,
            "{before} and two more are not {after} after {polls} polls"
        );
        assert_eq!(after, stage.queued().await, "others see them too after {polls} polls");
    }
    drop(kept);
}

/// A store behind a way that can fall silent, with how long it waits for an answer.
async fn behind(proxy: &Proxy, stage: &Stage) -> (PostgresStore, Duration) {
    let (statement, margin) = (Duration::from_millis(1_500), Duration::from_millis(500));
    let options = proxy.options(&stage.schema).connections(2);
    let options = options.statement_timeout(statement).answer_margin(margin);
    let options = options
        .lock_timeout(Duration::ZERO)
        .acquire_timeout(Duration::from_secs(5));
    (PostgresStore::open(options).await.unwrap(), statement + margin)
}

/// All connections of a store of two can be had at once.
async fn nothing_is_missing(store: &PostgresStore) {
    let all = async {
        let one = store.begin_tx().await.unwrap();
        let two = store.begin_tx().await.unwrap();
        one.rollback().await.unwrap();
        two.rollback().await.unwrap();
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .expect("both connections can be had");
}

/// Does what falls silent, and does not wait for it much longer than the limit.
async fn ends_within<T>(limit: Duration, call: impl Future<Output = T>) -> T {
    // As much again for a busy machine.
    let done = tokio::time::timeout(2 * limit + Duration::from_secs(3), call).await;
    done.expect("the call ends although nothing is heard any more")
}

#[tokio::test]
async fn a_database_that_falls_silent_in_the_middle_of_a_statement_is_unavailable_and_its_connections_are_replaced() {
    let (stage, proxy) = (Stage::new().await, Proxy::new().await);
    let (store, limit) = behind(&proxy, &stage).await;
    let now = stage.rows.start();
    let mut other = Server::shared().connect().await;
    let blocker = pid(&mut other).await;
    for reads in [false, true, false, true] {
        nothing_is_missing(&store).await;
        let mut lock = other.begin().await.unwrap();
        let schema = stage.schema.name();
        let table = format!("LOCK TABLE {schema}.saved_texts, {schema}.messages IN ACCESS EXCLUSIVE MODE");
        lock.execute(sqlx::AssertSqlSafe(table)).await.unwrap();
        let opened = proxy.opened();
        let call = async {
            if reads {
                let scope = RequestScope::user(stage.user);
                let read = store.saved_texts(&scope, &PageRequest::first(10)).await;
                read.map(|_| ())
            } else {
                store.commit(stage.message(), WriteClass::Bulk, now).await.map(|_| ())
            }
        };
        let silence = async {
            seen_waiting(blocker, 1).await;
            proxy.silence();
        };
        let (done, ()) = ends_within(limit, async { futures::join!(call, silence) }).await;
        assert_eq!(done.unwrap_err().kind, StoreErrorKind::Unavailable);
        lock.rollback().await.unwrap();
        ends_within(limit, store.backlog()).await.unwrap();
        let next = store.commit(stage.message(), WriteClass::Bulk, now);
        ends_within(limit, next).await.unwrap();
        assert!(proxy.opened() > opened, "through another connection");
    }
    nothing_is_missing(&store).await;
    assert_eq!(stage.queued().await, 4, "what was not committed is not there");
}

#[tokio::test]
async fn a_commit_whose_answer_is_never_heard_is_unavailable_and_may_have_been_made() {
    let (stage, proxy) = (Stage::new().await, Proxy::new().await);
    let (store, limit) = behind(&proxy, &stage).await;
    let now = stage.rows.start();
    for round in 1..4 {
        proxy.silence_at_commit();
        let commit = store.commit(stage.message(), WriteClass::Bulk, now);
        let lost = ends_within(limit, commit).await.unwrap_err();
        assert_eq!(lost.kind, StoreErrorKind::Unavailable);
        // It was, and once.
        assert_eq!(ends_within(limit, store.backlog()).await.unwrap().queued, 2 * round - 1);
        let next = store.commit(stage.message(), WriteClass::Bulk, now);
        ends_within(limit, next).await.unwrap();
        assert_eq!(stage.queued().await, 2 * round);
    }
    nothing_is_missing(&store).await;
}

#[tokio::test]
async fn connections_that_fall_silent_while_nobody_uses_them_hold_nobody_up() {
    let (stage, proxy) = (Stage::new().await, Proxy::new().await);
    let (store, limit) = behind(&proxy, &stage).await;
    let (node, now) = (stage.rows.incarnation(), stage.rows.start());
    store.join(node, "silent", now).await.unwrap();
    store.beat(node, now).await.unwrap();
    store.fence_the_dead(node, now).await.unwrap();
    for _ in 0..2 {
        // Both connections of the pool, and that of beats.
        let (read, written, beaten) = futures::join!(
            store.backlog(),
            store.commit(stage.message(), WriteClass::Api, now),
            store.beat(node, now)
        );
        assert!(read.is_ok() && written.is_ok() && beaten.is_ok());
        proxy.silence();
        // Who uses them first may be who learns of it.
        let beat = async { while store.beat(node, now).await.is_err() {} };
        ends_within(3 * limit, beat).await;
        // The server may still take the session that has the lock of the name for alive.
        let _ = ends_within(2 * limit, store.fence_the_dead(node, now)).await;
        let again = async {
            while store.backlog().await.is_err() {}
            while store.commit(stage.message(), WriteClass::Api, now).await.is_err() {}
        };
        ends_within(3 * limit, again).await;
    }
    nothing_is_missing(&store).await;
}
