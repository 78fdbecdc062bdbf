//! The connections that read beside the writer.
//!
//! The one that was used last is taken first: it has what it read, and the statements that read it, still at hand, and no more are opened
//! than are in use at one moment. sqlx's own pool takes the one that was idle longest, and opens another where the last one is still on
//! its way back.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, select};
use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteTransactionManager};
use sqlx_core::transaction::TransactionManager as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::error::{Done, Fail};

/// How long the connection that was used last is waited for before another is opened: its thread answers as soon as it gets a processor,
/// unless it still runs a statement whose reader has gone. With 1 ms more were opened than are needed where processors are scarce.
const SOON: Duration = Duration::from_millis(10);

/// A connection that is open.
struct Open {
    connection: SqliteConnection,
    // Given back when it is closed.
    _slot: OwnedSemaphorePermit,
}

/// Ready as soon as the connection is free for the next reader; with nothing where it is of no use any more.
type Idle = BoxFuture<'static, Option<Open>>;

/// Connections that read, opened when they are needed.
pub(crate) struct Readers {
    options: SqliteConnectOptions,
    max: u32,
    /// One for each read at a time; closed with the store.
    permits: Arc<Semaphore>,
    /// One for each connection that may be open.
    slots: Arc<Semaphore>,
    /// How long one is waited for.
    timeout: Duration,
    /// Last that which was used last.
    idle: Mutex<Vec<Idle>>,
    /// That there is one more.
    returned: Notify,
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers")
            .field("max", &self.max)
            .finish_non_exhaustive()
    }
}

impl Readers {
    pub(crate) fn new(options: SqliteConnectOptions, max: u32, timeout: Duration) -> Arc<Self> {
        let count = usize::try_from(max).unwrap_or(usize::MAX);
        Arc::new(Self {
            options,
            max,
            permits: Arc::new(Semaphore::new(count)),
            slots: Arc::new(Semaphore::new(count)),
            timeout,
            idle: Mutex::default(),
            returned: Notify::new(),
        })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection, as soon as one is free.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Done<ReadConnection> {
        let acquire = async {
            let permit = self.permits.clone().acquire_owned().await;
            let permit = permit.map_err(|_| sqlx::Error::PoolClosed)?;
            Ok(ReadConnection {
                open: Some(self.open().await?),
                snapshot: false,
                readers: Arc::clone(self),
                _permit: permit,
            })
        };
        let acquired = tokio::time::timeout(self.timeout, acquire).await;
        acquired.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(Fail::Sql)
    }

    /// A connection that is open and free, or a new one. Each that asks has a permit and holds one connection at most, so there is always
    /// one more, be it to open.
    async fn open(&self) -> sqlx::Result<Open> {
        loop {
            if let Some(open) = self.take_free() {
                return Ok(open);
            }
            let newest = self.idle().pop();
            if let Some(mut newest) = newest {
                match tokio::time::timeout(SOON, &mut newest).await {
                    Ok(Some(open)) => return Ok(open),
                    Ok(None) => continue,
                    Err(_) => self.idle().insert(0, newest),
                }
            }
            if let Ok(slot) = self.slots.clone().try_acquire_owned() {
                return Ok(Open {
                    connection: self.options.connect().await?,
                    _slot: slot,
                });
            }
            let oldest = {
                let mut idle = self.idle();
                (!idle.is_empty()).then(|| idle.remove(0))
            };
            let Some(mut oldest) = oldest else {
                // Somebody else holds it for a moment.
                tokio::task::yield_now().await;
                continue;
            };
            match select(&mut oldest, pin!(self.returned.notified())).await {
                Either::Left((Some(open), _)) => return Ok(open),
                Either::Left((None, _)) => {}
                // Another may be free before.
                Either::Right(_) => self.idle().insert(0, oldest),
            }
        }
    }

    /// The connection that was used last of those that are free.
    fn take_free(&self) -> Option<Open> {
        let mut idle = self.idle();
        let mut at = idle.len();
        while at > 0 {
            at -= 1;
            if let Poll::Ready(open) = look_at(&mut idle[at]) {
                drop(idle.remove(at));
                if open.is_some() {
                    return open;
                }
            }
        }
        None
    }

    /// A connection whose statements all read the same moment.
    pub(crate) async fn snapshot(self: &Arc<Self>) -> Done<ReadConnection> {
        let mut reader = self.acquire().await?;
        SqliteTransactionManager::begin(&mut reader, None).await?;
        reader.snapshot = true;
        Ok(reader)
    }

    /// Closes all of them once they are no longer in use; nobody gets one afterwards.
    pub(crate) async fn close(&self) {
        // Whoever waits comes before this, and whoever comes later behind it, be it to close.
        let all = self.permits.acquire_many(self.max).await;
        let idle = std::mem::take(&mut *self.idle());
        for free in idle {
            if let Some(open) = free.await
                && let Err(error) = open.connection.close().await
            {
                tracing::warn!(%error, "a connection that read was not closed as it should be");
            }
        }
        self.permits.close();
        drop(all);
    }
}

/// Whether a connection is free, without waiting for it.
fn look_at(idle: &mut Idle) -> Poll<Option<Open>> {
    Pin::new(idle).poll(&mut Context::from_waker(Waker::noop()))
}

/// A connection that reads, until it is dropped.
pub(crate) struct ReadConnection {
    open: Option<Open>,
    /// Whether a transaction is open, which ends with it.
    snapshot: bool,
    readers: Arc<Readers>,
    // Dropped last, so that whoever waits for it finds the connection.
    _permit: OwnedSemaphorePermit,
}

impl Drop for ReadConnection {
    fn drop(&mut self) {
        let Some(mut open) = self.open.take() else {
            return;
        };
        if self.snapshot {
            // Queued at the connection's worker thread, before whatever is asked of it next.
            SqliteTransactionManager::start_rollback(&mut open.connection);
        }
        let mut free = async move {
            // Answered when a statement whose reader has gone, and that rollback, are done.
            let alive = open.connection.ping().await;
            // SQLite ends a transaction by itself after some errors, and sqlx goes on counting it: such a connection would never read anew.
            let depth = SqliteTransactionManager::get_transaction_depth(&open.connection);
            (alive.is_ok() && depth == 0).then_some(open)
        }
        .boxed();
        // Asks it; what is free at once waits for nobody.
        match look_at(&mut free) {
            Poll::Pending => self.readers.idle().push(free),
            Poll::Ready(Some(open)) => self.readers.idle().push(std::future::ready(Some(open)).boxed()),
            Poll::Ready(None) => {}
        }
        self.readers.returned.notify_one();
    }
}

impl Deref for ReadConnection {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.open.as_ref().expect("it is there until it is dropped").connection
    }
}

impl DerefMut for ReadConnection {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.open.as_mut().expect("it is there until it is dropped").connection
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use sqlx::sqlite::SqliteJournalMode;

    use super::*;

    /// A database with one number in it, in a folder that goes away with its value.
    struct Database {
        folder: PathBuf,
        writer: SqliteConnection,
    }

    impl Database {
        async fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("wa-readers-{name}-{}", std::process::id()));
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            let options = SqliteConnectOptions::new().filename(folder.join("db"));
            let wal = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
            let mut writer = wal.connect().await.unwrap();
            let sql = "CREATE TABLE one (number INTEGER NOT NULL) STRICT; INSERT INTO one VALUES (1)";
            sqlx::raw_sql(sql).execute(&mut writer).await.unwrap();
            Self { folder, writer }
        }

        fn readers(&self, max: u32, timeout: Duration) -> Arc<Readers> {
            Readers::new(
                SqliteConnectOptions::new().filename(self.folder.join("db")),
                max,
                timeout,
            )
        }

        async fn add_one(&mut self) {
            let sql = "UPDATE one SET number = number + 1";
            sqlx::query(sql).execute(&mut self.writer).await.unwrap();
        }
    }

    impl Drop for Database {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }

    async fn number(reader: &mut SqliteConnection) -> i64 {
        sqlx::query_scalar("SELECT number FROM one")
            .fetch_one(reader)
            .await
            .unwrap()
    }

    fn idle(readers: &Readers) -> usize {
        readers.idle().len()
    }

    /// Runs for seconds.
    const ENDLESS: &str =
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 20000000) SELECT count(*) FROM n";
    /// Runs for longer than anybody waits to see whether it does.
    const LENGTHY: &str =
        "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 300000) SELECT count(*) FROM n";

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn reads_one_after_the_other_open_one_connection_and_reads_at_once_one_each() {
        let database = Database::new("reuse").await;
        let readers = database.readers(4, LONG);
        for _ in 0..10 {
            assert_eq!(number(&mut readers.acquire().await.unwrap()).await, 1);
        }
        assert_eq!(idle(&readers), 1);
        let (one, two) = (readers.acquire().await.unwrap(), readers.acquire().await.unwrap());
        assert_eq!(idle(&readers), 0);
        drop((one, two));
        assert_eq!(idle(&readers), 2);
        assert_eq!(readers.slots.available_permits(), 2, "two were opened");
    }

    #[tokio::test]
    async fn whoever_finds_none_free_waits_for_one_and_not_longer_than_it_may() {
        let database = Database::new("wait").await;
        let readers = database.readers(1, Duration::from_millis(50));
        let first = readers.acquire().await.unwrap();
        let refused = readers.acquire().await.map(|_| ());
        assert!(
            matches!(refused, Err(Fail::Sql(sqlx::Error::PoolTimedOut))),
            "{refused:?}"
        );
        let readers = database.readers(1, LONG);
        let second = readers.acquire().await.unwrap();
        let waits = tokio::spawn({
            let readers = Arc::clone(&readers);
            async move { number(&mut readers.acquire().await.unwrap()).await }
        });
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        drop((first, second));
        assert_eq!(waits.await.unwrap(), 1);
    }

    #[tokio::test]
    async fn a_snapshot_reads_one_moment_and_ends_with_its_value() {
        let mut database = Database::new("snapshot").await;
        let readers = database.readers(1, LONG);
        let mut snapshot = readers.snapshot().await.unwrap();
        assert_eq!(number(&mut snapshot).await, 1);
        database.add_one().await;
        assert_eq!(number(&mut snapshot).await, 1, "what is written meanwhile is not seen");
        drop(snapshot);
        assert_eq!(
            number(&mut readers.acquire().await.unwrap()).await,
            2,
            "the same connection reads anew"
        );
        let mut snapshot = readers.snapshot().await.unwrap();
        assert_eq!(number(&mut snapshot).await, 2);
        assert_eq!(SqliteTransactionManager::get_transaction_depth(&snapshot), 1);
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_holds_up_nobody_while_there_are_other_connections() {
        let database = Database::new("abandoned").await;
        let readers = database.readers(2, LONG);
        let mut reader = readers.acquire().await.unwrap();
        assert!(sqlx::query(LENGTHY).fetch_one(&mut *reader).now_or_never().is_none());
        drop(reader);
        let mut other = readers.acquire().await.unwrap();
        assert_eq!(number(&mut other).await, 1);
        let waits = readers.acquire();
        drop(other);
        assert_eq!(number(&mut waits.await.unwrap()).await, 1);
        assert_eq!(idle(&readers), 2);
        assert_eq!(readers.slots.available_permits(), 0);
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_is_not_waited_for_when_another_connection_gets_free_before() {
        let database = Database::new("before").await;
        let readers = database.readers(2, LONG);
        let mut reader = readers.acquire().await.unwrap();
        assert!(sqlx::query(ENDLESS).fetch_one(&mut *reader).now_or_never().is_none());
        drop(reader);
        let other = readers.acquire().await.unwrap();
        let waits = tokio::spawn({
            let readers = Arc::clone(&readers);
            async move { number(&mut readers.acquire().await.unwrap()).await }
        });
        while readers.permits.available_permits() > 0 || idle(&readers) > 0 {
            tokio::task::yield_now().await;
        }
        drop(other);
        assert_eq!(waits.await.unwrap(), 1);
        assert!(
            readers.idle().iter_mut().any(|one| look_at(one).is_pending()),
            "the other still runs"
        );
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_is_waited_for_where_there_is_no_other_connection() {
        let database = Database::new("only").await;
        let readers = database.readers(1, LONG);
        let mut reader = readers.acquire().await.unwrap();
        assert!(sqlx::query(LENGTHY).fetch_one(&mut *reader).now_or_never().is_none());
        drop(reader);
        assert_eq!(number(&mut readers.snapshot().await.unwrap()).await, 1);
        assert_eq!(number(&mut readers.acquire().await.unwrap()).await, 1);
        assert_eq!(idle(&readers), 1);
    }

    #[tokio::test]
    async fn a_connection_whose_transaction_cannot_be_ended_is_not_used_again() {
        let database = Database::new("counted").await;
        let readers = database.readers(1, LONG);
        let mut reader = readers.snapshot().await.unwrap();
        // SQLite ends the transaction, and sqlx counts it still: its ROLLBACK fails.
        sqlx::query("ROLLBACK").execute(&mut *reader).await.unwrap();
        drop(reader);
        let reader = readers.snapshot().await.unwrap();
        assert_eq!(SqliteTransactionManager::get_transaction_depth(&reader), 1);
        drop(reader);
        assert_eq!(number(&mut readers.acquire().await.unwrap()).await, 1);
    }

    #[tokio::test]
    async fn closing_waits_for_who_reads_and_refuses_who_comes_later() {
        let database = Database::new("close").await;
        let readers = database.readers(2, LONG);
        let mut reader = readers.acquire().await.unwrap();
        let closes = tokio::spawn({
            let readers = Arc::clone(&readers);
            async move { readers.close().await }
        });
        tokio::task::yield_now().await;
        let closes_too = tokio::spawn({
            let readers = Arc::clone(&readers);
            async move {
                readers.close().await;
                readers.slots.available_permits()
            }
        });
        tokio::task::yield_now().await;
        assert!(!closes.is_finished());
        assert_eq!(number(&mut reader).await, 1);
        drop(reader);
        closes.await.unwrap();
        assert_eq!(closes_too.await.unwrap(), 2, "all are closed for whoever closes");
        assert_eq!(idle(&readers), 0);
        let refused = readers.acquire().await.map(|_| ());
        assert!(
            matches!(refused, Err(Fail::Sql(sqlx::Error::PoolClosed))),
            "{refused:?}"
        );
        readers.close().await;
    }
}
