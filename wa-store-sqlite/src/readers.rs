//! The connections that read beside the writer.
//!
//! The one that was used last is taken first: it has what it read, and the statements that read it, still at hand, and no more are opened
//! than are in use at one moment. sqlx's own pool takes the one that was idle longest, and opens another where the last one is still on
//! its way back.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use sqlx::ConnectOptions as _;
use sqlx::Connection as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteTransactionManager};
use sqlx_core::transaction::TransactionManager as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Done, Fail};

/// Connections that read, opened when they are needed.
pub(crate) struct Readers {
    options: SqliteConnectOptions,
    max: u32,
    /// One for each connection that may be in use; closed with the store.
    permits: Arc<Semaphore>,
    /// How long one is waited for.
    timeout: Duration,
    idle: Mutex<Vec<SqliteConnection>>,
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
        Arc::new(Self {
            options,
            max,
            permits: Arc::new(Semaphore::new(usize::try_from(max).unwrap_or(usize::MAX))),
            timeout,
            idle: Mutex::default(),
        })
    }

    /// A connection, as soon as one is free.
    pub(crate) async fn acquire(self: &Arc<Self>) -> Done<ReadConnection> {
        let permit = tokio::time::timeout(self.timeout, self.permits.clone().acquire_owned()).await;
        let permit = permit
            .map_err(|_| Fail::Sql(sqlx::Error::PoolTimedOut))?
            .map_err(|_| Fail::Sql(sqlx::Error::PoolClosed))?;
        let connection = match self.take_idle() {
            Some(connection) => connection,
            None => self.options.connect().await?,
        };
        Ok(ReadConnection {
            connection: Some(connection),
            snapshot: false,
            readers: Arc::clone(self),
            _permit: permit,
        })
    }

    /// The connection that was used last of those whose thread still runs.
    fn take_idle(&self) -> Option<SqliteConnection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut connection = idle.pop()?;
            // Nothing is waited for: where nobody takes the question, it fails at once.
            match connection.ping().now_or_never() {
                Some(Err(error)) => tracing::warn!(%error, "a connection that reads is opened anew"),
                _ => return Some(connection),
            }
        }
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
        // Whoever waits comes before this, and whoever comes later behind it.
        let all = self.permits.acquire_many(self.max).await;
        self.permits.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::warn!(%error, "a connection that read was not closed as it should be");
            }
        }
    }
}

/// A connection that reads, until it is dropped.
pub(crate) struct ReadConnection {
    connection: Option<SqliteConnection>,
    /// Whether a transaction is open, which ends with it.
    snapshot: bool,
    readers: Arc<Readers>,
    // Dropped last, so that whoever waits for it finds the connection.
    _permit: OwnedSemaphorePermit,
}

impl Drop for ReadConnection {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if self.snapshot {
            // Queued at the connection's worker thread, before whatever is asked of it next.
            SqliteTransactionManager::start_rollback(&mut connection);
        }
        let mut idle = self.readers.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(connection);
    }
}

impl Deref for ReadConnection {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        self.connection.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for ReadConnection {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect("it is there until it is dropped")
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
        readers.idle.lock().unwrap().len()
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn reads_one_after_the_other_open_one_connection_and_reads_at_once_one_each() {
        let database = Database::new("reuse").await;
        let readers = database.readers(4, LONG);
        for _ in 0..10 {
            assert_eq!(number(&mut *readers.acquire().await.unwrap()).await, 1);
        }
        assert_eq!(idle(&readers), 1);
        let (one, two) = (readers.acquire().await.unwrap(), readers.acquire().await.unwrap());
        assert_eq!(idle(&readers), 0);
        drop((one, two));
        assert_eq!(idle(&readers), 2);
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
            async move { number(&mut *readers.acquire().await.unwrap()).await }
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
            number(&mut *readers.acquire().await.unwrap()).await,
            2,
            "the same connection reads anew"
        );
        let mut snapshot = readers.snapshot().await.unwrap();
        assert_eq!(number(&mut snapshot).await, 2);
        assert_eq!(SqliteTransactionManager::get_transaction_depth(&snapshot), 1);
    }

    #[tokio::test]
    async fn a_read_that_is_given_up_leaves_its_connection_to_others() {
        let database = Database::new("dropped").await;
        let readers = database.readers(1, LONG);
        let long =
            "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n LIMIT 300000) SELECT count(*) FROM n";
        let mut reader = readers.acquire().await.unwrap();
        assert!(sqlx::query(long).fetch_one(&mut *reader).now_or_never().is_none());
        drop(reader);
        assert!(
            readers.snapshot().now_or_never().is_none(),
            "its BEGIN waits behind the statement"
        );
        assert_eq!(number(&mut *readers.acquire().await.unwrap()).await, 1);
        assert_eq!(idle(&readers), 1);
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
        assert!(!closes.is_finished());
        assert_eq!(number(&mut reader).await, 1);
        drop(reader);
        closes.await.unwrap();
        assert_eq!(idle(&readers), 0);
        let refused = readers.acquire().await.map(|_| ());
        assert!(
            matches!(refused, Err(Fail::Sql(sqlx::Error::PoolClosed))),
            "{refused:?}"
        );
        readers.close().await;
    }
}
