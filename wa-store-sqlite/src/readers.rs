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
        f.debug_struct("Readers").field("max", &self.max).finish_non_exhaustive()
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
