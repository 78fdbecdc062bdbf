//! What becomes of the store's connections when others stand in the way.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::future::join_all;
use sqlx::postgres::PgConnection;
use wa_core::store::{Store, WriteClass};
use wa_store_postgres::PostgresStore;

use crate::own::{Stage, embedder};
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
