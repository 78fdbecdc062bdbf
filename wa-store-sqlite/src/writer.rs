//! The one connection that writes, and the queue before it.
//!
//! SQLite has one writer at a time. Instead of letting statements fight for its lock, all writes of a store go through one
//! connection that is handed from transaction to transaction, urgent classes first. Within a class it is first come, first
//! served. Nothing is taken away from a transaction that runs: who writes in bulk bounds the size of a transaction.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::sqlite::{SqliteConnection, SqliteTransactionManager};
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlitePool};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::oneshot;
use wa_core::store::{StoreError, WriteClass};

use crate::error::{Done, Fail};

type Connection = Box<SqliteConnection>;

const CLASSES: usize = 4;

const BEGIN: &str = "BEGIN IMMEDIATE";

/// Moves what it can of the write-ahead log into the file without holding anyone up.
const MOVE_LOG: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// How much is written before the log is moved, in transactions; one in bulk counts as [`BULK`] of them. That is a few MiB:
/// the more is moved at once, the longer a commit waits for the disk meanwhile.
const MOVE_AFTER: u32 = 128;
const BULK: u32 = 32;

#[derive(Default)]
struct Queue {
    idle: Option<Connection>,
    waiting: [VecDeque<oneshot::Sender<Turn>>; CLASSES],
}

/// What moves the write-ahead log into the file beside the writer, so that hardly ever a commit has to.
struct Log {
    readers: SqlitePool,
    written: AtomicU32,
    moving: AtomicBool,
}

/// The writer's connection and whoever waits for it.
pub(crate) struct Writer {
    queue: Mutex<Queue>,
    /// `None` in memory, where there is no log.
    log: Option<Log>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    pub(crate) fn new(connection: SqliteConnection, readers: Option<SqlitePool>) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue {
                idle: Some(Box::new(connection)),
                waiting: Default::default(),
            }),
            log: readers.map(|readers| Log {
                readers,
                written: AtomicU32::new(0),
                moving: AtomicBool::new(false),
            }),
        })
    }

    /// Counts a transaction, and has the log moved when enough was written.
    fn wrote(self: &Arc<Self>, class: WriteClass) {
        let Some(log) = &self.log else { return };
        let weight = if class == WriteClass::Bulk { BULK } else { 1 };
        let written = log.written.fetch_add(weight, Ordering::Relaxed) + weight;
        if written < MOVE_AFTER || log.moving.swap(true, Ordering::Relaxed) {
            return;
        }
        log.written.store(0, Ordering::Relaxed);
        let writer = self.clone();
        tokio::spawn(async move {
            if let Err(fail) = writer.move_log().await {
                let error = fail.of("checkpoint", "log");
                tracing::debug!(%error, "the write-ahead log was not moved into the file: a later commit does it");
            }
            if let Some(log) = &writer.log {
                log.moving.store(false, Ordering::Relaxed);
            }
        });
    }

    async fn move_log(self: &Arc<Self>) -> Done<()> {
        let Some(log) = &self.log else { return Ok(()) };
        let mut reader = log.readers.acquire().await?;
        sqlx::query(MOVE_LOG).execute(&mut *reader).await?;
        drop(reader);
        // What was written meanwhile is little. With it moved too, and nobody writing, the log begins anew.
        let mut turn = self.turn(WriteClass::Begin).await?;
        heal(&mut turn).await?;
        sqlx::query(MOVE_LOG).execute(&mut *turn).await?;
        Ok(())
    }

    /// Waits for the connection; dropping the future gives up the place in the queue.
    pub(crate) async fn turn(self: &Arc<Self>, class: WriteClass) -> Done<Turn> {
        let wait = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(connection) = queue.idle.take() {
                return Ok(Turn {
                    connection: Some(connection),
                    writer: self.clone(),
                });
            }
            let (pass, wait) = oneshot::channel();
            queue.waiting[class as usize].push_back(pass);
            wait
        };
        wait.await.map_err(|_| Fail::Lost)
    }

    /// Begins a transaction that takes the write lock at once, so that nothing it has read can change before it writes.
    pub(crate) async fn begin(self: &Arc<Self>, class: WriteClass) -> Done<Transaction> {
        let mut turn = self.turn(class).await?;
        heal(&mut turn).await?;
        SqliteTransactionManager::begin(&mut turn, Some(BEGIN.into_sql_str())).await?;
        Ok(Transaction {
            turn,
            class,
            open: true,
        })
    }

    fn pass_on(self: &Arc<Self>, connection: Connection) {
        let mut turn = Turn {
            connection: Some(connection),
            writer: self.clone(),
        };
        loop {
            let next = {
                let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
                match queue.waiting.iter_mut().find_map(VecDeque::pop_front) {
                    Some(next) => next,
                    None => {
                        queue.idle = turn.connection.take();
                        return;
                    }
                }
            };
            match next.send(turn) {
                Ok(()) => return,
                Err(back) => turn = back,
            }
        }
    }
}

/// Brings sqlx's count of open transactions back to what SQLite has.
///
/// On a full disk or a failed read SQLite undoes a transaction by itself; sqlx still counts it, because its own ROLLBACK then
/// fails, and would refuse every further BEGIN. A transaction that is begun unseen, with sqlx's savepoints,
/// gives that ROLLBACK something to undo.
async fn heal(connection: &mut SqliteConnection) -> Done<()> {
    if SqliteTransactionManager::get_transaction_depth(connection) == 0 {
        return Ok(());
    }
    // Waits until everything that a dropped transaction left at the worker is done.
    sqlx::Connection::ping(connection).await?;
    let depth = SqliteTransactionManager::get_transaction_depth(connection);
    if depth == 0 {
        return Ok(());
    }
    // These fail where SQLite is in a transaction after all, which the ROLLBACKs then end.
    let _ = sqlx::query(BEGIN).execute(&mut *connection).await;
    for savepoint in 1..depth {
        let sql = AssertSqlSafe(format!("SAVEPOINT _sqlx_savepoint_{savepoint}"));
        let _ = sqlx::query(sql).execute(&mut *connection).await;
    }
    for _ in 0..depth {
        SqliteTransactionManager::rollback(connection).await?;
    }
    Ok(())
}

/// The right to use the writer's connection.
pub(crate) struct Turn {
    connection: Option<Connection>,
    writer: Arc<Writer>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            let writer = self.writer.clone();
            writer.pass_on(connection);
        }
    }
}

impl Deref for Turn {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        self.connection
            .as_ref()
            .expect("a turn has the connection until it is dropped")
    }
}

impl DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection
            .as_mut()
            .expect("a turn has the connection until it is dropped")
    }
}

/// A write transaction on the store's writer, from [`SqliteStore::begin_tx`](crate::SqliteStore::begin_tx).
///
/// It is the connection of sqlx inside it: run own statements on `&mut *tx`. While it is open nothing else writes, so keep
/// it short. Dropped without [`commit`](Self::commit) it is rolled back.
pub struct Transaction {
    turn: Turn,
    class: WriteClass,
    open: bool,
}

impl Transaction {
    /// Commits: durable on return.
    ///
    /// # Errors
    /// `Unavailable` leaves it open whether it happened.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.finish().await.map_err(|fail| fail.of("commit", "transaction"))
    }

    pub(crate) async fn finish(mut self) -> Done<()> {
        SqliteTransactionManager::commit(&mut self.turn).await?;
        self.open = false;
        self.turn.writer.wrote(self.class);
        Ok(())
    }

    /// Undoes everything since the transaction began.
    ///
    /// # Errors
    /// `Unavailable` when the database does not answer; the transaction is undone all the same.
    pub async fn rollback(self) -> Result<(), StoreError> {
        self.undo().await.map_err(|fail| fail.of("rollback", "transaction"))
    }

    pub(crate) async fn undo(mut self) -> Done<()> {
        SqliteTransactionManager::rollback(&mut self.turn).await?;
        self.open = false;
        Ok(())
    }

    pub(crate) fn is_of(&self, writer: &Arc<Writer>) -> bool {
        Arc::ptr_eq(&self.turn.writer, writer)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if self.open {
            // Queued at the connection's worker thread, before whatever the next in turn asks of it; one for each savepoint.
            for _ in 0..SqliteTransactionManager::get_transaction_depth(&self.turn).max(1) {
                SqliteTransactionManager::start_rollback(&mut self.turn);
            }
        }
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}

impl Deref for Transaction {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        &self.turn
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        &mut self.turn
    }
}

#[cfg(test)]
mod tests {
    use wa_core::store::WriteClass;

    use crate::{SqliteOptions, SqliteStore};

    /// Pages in the log, those that were moved included.
    async fn pages(store: &SqliteStore) -> i64 {
        let mut tx = store.writer.turn(WriteClass::Api).await.unwrap();
        let (_, pages, _): (i64, i64, i64) = sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)")
            .fetch_one(&mut *tx)
            .await
            .unwrap();
        pages
    }

    async fn insert(store: &SqliteStore, rows: u32) {
        for _ in 0..rows {
            let mut tx = store.begin_tx(WriteClass::Api).await.unwrap();
            sqlx::query("CREATE TABLE IF NOT EXISTS own (text TEXT)")
                .execute(&mut *tx)
                .await
                .unwrap();
            sqlx::query("INSERT INTO own VALUES (hex(zeroblob(2000)))")
                .execute(&mut *tx)
                .await
                .unwrap();
            tx.commit().await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_log_that_was_moved_beside_the_writer_begins_anew() {
        let folder = std::env::temp_dir().join(format!("wa-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let store = SqliteStore::open(SqliteOptions::file(folder.join("wa.db")))
            .await
            .unwrap();
        insert(&store, super::MOVE_AFTER / 2).await;
        store.writer.move_log().await.unwrap();
        insert(&store, 1).await;
        let pages = pages(&store).await;
        store.close().await;
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(pages < i64::from(super::MOVE_AFTER / 4), "{pages} pages");
    }
}
