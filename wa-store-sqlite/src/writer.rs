//! The one connection that writes, and the queue before it.
//!
//! SQLite has one writer at a time. Instead of letting statements fight for its lock, all writes of a store go through one
//! connection that is handed from transaction to transaction, urgent classes first. Within a class it is first come, first
//! served. Nothing is taken away from a transaction that runs: who writes in bulk bounds the size of a transaction.
//!
//! What waits when a transaction has done its work joins it, behind a savepoint of its own: one commit, so one write to the log and one
//! wait for the disk, is for all of them. Work in bulk has its transactions to itself.

use std::collections::VecDeque;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;
use sqlx::sqlite::{SqliteConnection, SqliteTransactionManager};
use sqlx::{AssertSqlSafe, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::oneshot;
use wa_core::store::{StoreError, WriteClass};

use crate::error::{Done, Fail};
use crate::readers::Readers;

type Connection = Box<SqliteConnection>;

const CLASSES: usize = 4;

const BEGIN: &str = "BEGIN IMMEDIATE";

/// Moves what it can of the write-ahead log into the file without holding anyone up.
const MOVE_LOG: &str = "PRAGMA wal_checkpoint(PASSIVE)";

/// How much is written before the log is moved, in transactions; one in bulk counts as [`BULK`] of them. That is a few MiB:
/// the more is moved at once, the longer a commit waits for the disk meanwhile.
const MOVE_AFTER: u32 = 128;
const BULK: u32 = 32;

/// Most pieces of work that one transaction holds.
const TOGETHER_MAX: usize = 32;

#[derive(Default)]
struct Queue {
    idle: Option<Connection>,
    waiting: [VecDeque<Waiting>; CLASSES],
    /// Whether the connection is no more.
    closed: bool,
}

struct Waiting {
    pass: oneshot::Sender<Turn>,
    /// Whether it may be given a connection on which a transaction is open.
    joins: bool,
}

/// Those whose work is in the transaction that is open; each is told when it is committed.
#[derive(Default)]
struct Together {
    members: Vec<(WriteClass, oneshot::Sender<Done<()>>)>,
}

impl Together {
    /// The class that waits for nothing less urgent.
    fn most_urgent(&self) -> Option<WriteClass> {
        self.members.iter().map(|(class, _)| *class).min()
    }
}

/// What moves the write-ahead log into the file beside the writer, so that hardly ever a commit has to.
struct Log {
    readers: Arc<Readers>,
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
    pub(crate) fn new(connection: SqliteConnection, readers: Option<Arc<Readers>>) -> Arc<Self> {
        Arc::new(Self {
            queue: Mutex::new(Queue {
                idle: Some(Box::new(connection)),
                ..Queue::default()
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
        self.place(class, false).await
    }

    async fn place(self: &Arc<Self>, class: WriteClass, joins: bool) -> Done<Turn> {
        let wait = {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            if queue.closed {
                return Err(Fail::Sql(sqlx::Error::PoolClosed));
            }
            if let Some(connection) = queue.idle.take() {
                return Ok(Turn::of(connection, self));
            }
            let (pass, wait) = oneshot::channel();
            queue.waiting[class as usize].push_back(Waiting { pass, joins });
            wait
        };
        wait.await.map_err(|_| Fail::Lost)
    }

    /// Runs work in a transaction, of its own or together with that of others, and in a task of its own: a caller that is dropped leaves
    /// all of it or nothing. What one of several does not succeed in is undone alone.
    pub(crate) async fn run<T, W>(self: &Arc<Self>, class: WriteClass, work: W) -> Done<T>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Done<T>> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let writer = self.clone();
        tokio::spawn(async move {
            let result = match writer.place(class, class != WriteClass::Bulk).await {
                // Whoever asked has gone.
                Ok(turn) if answer.is_closed() => return turn.pass_or_commit().await,
                Ok(turn) => turn.run(class, work).await,
                Err(fail) => Err(fail),
            };
            // Who has gone since is not told.
            let _ = answer.send(result);
        });
        answered.await.unwrap_or(Err(Fail::Lost))
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

    /// Closes the connection after what waits for it, and waits until the file is closed: as the last connection it moves the log into it.
    pub(crate) async fn close(self: &Arc<Self>) {
        let Ok(mut turn) = self.turn(WriteClass::Bulk).await else {
            return;
        };
        {
            let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
            queue.closed = true;
            // Who came meanwhile is told that there is no connection any more.
            queue.waiting = Default::default();
        }
        if let Some(connection) = turn.connection.take()
            && let Err(error) = sqlx::Connection::close(*connection).await
        {
            tracing::warn!(%error, "the database was not closed as it should be");
        }
    }

    fn pass_on(self: &Arc<Self>, connection: Connection) {
        let mut turn = Turn::of(connection, self);
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
            match next.pass.send(turn) {
                Ok(()) => return,
                Err(back) => turn = back,
            }
        }
    }

    /// Whoever is next, if it may join a transaction that holds work of a class, which waits for nothing less urgent than itself.
    fn next_to_join(&self, class: WriteClass) -> Option<oneshot::Sender<Turn>> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let up_to = &mut queue.waiting[..=class as usize];
        let next = up_to.iter_mut().find(|waiting| !waiting.is_empty())?;
        Some(next.pop_front_if(|waiting| waiting.joins)?.pass)
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
    /// Whether a transaction of [`Writer::run`] is open.
    open: bool,
    together: Together,
}

impl Turn {
    fn of(connection: Connection, writer: &Arc<Writer>) -> Self {
        Self {
            connection: Some(connection),
            writer: writer.clone(),
            open: false,
            together: Together::default(),
        }
    }

    /// Does a piece of work, in the transaction that is open or in a new one; returns when it is committed.
    async fn run<T, W>(mut self, class: WriteClass, work: W) -> Done<T>
    where
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Done<T>>,
    {
        let first = !self.open;
        if first {
            heal(&mut self).await?;
            SqliteTransactionManager::begin(&mut self, Some(BEGIN.into_sql_str())).await?;
            self.open = true;
        } else if let Err(error) = SqliteTransactionManager::begin(&mut self, None).await {
            self.undo(&error).await;
            return Err(error.into());
        }
        match work(&mut self).await {
            Ok(value) => {
                if !first && let Err(error) = SqliteTransactionManager::commit(&mut self).await {
                    self.undo(&error).await;
                    return Err(error.into());
                }
                let (tell, committed) = oneshot::channel();
                self.together.members.push((class, tell));
                self.pass_or_commit().await;
                committed.await.unwrap_or(Err(Fail::Lost)).map(|()| value)
            }
            Err(fail) => {
                match SqliteTransactionManager::rollback(&mut self).await {
                    Ok(()) => {
                        self.open = !first;
                        self.pass_or_commit().await;
                    }
                    // SQLite has undone everything by itself.
                    Err(error) => self.undo(&error).await,
                }
                Err(fail)
            }
        }
    }

    /// Lets whoever is next join the transaction that is open, or commits it.
    async fn pass_or_commit(mut self) {
        while let Some(class) = self.together.most_urgent()
            && class != WriteClass::Bulk
            && self.together.members.len() < TOGETHER_MAX
            && let Some(next) = self.writer.next_to_join(class)
        {
            match next.send(self) {
                Ok(()) => return,
                Err(back) => self = back,
            }
        }
        if !self.open {
            return;
        }
        match SqliteTransactionManager::commit(&mut self).await {
            Ok(()) => {
                self.open = false;
                for (class, member) in std::mem::take(&mut self.together).members {
                    self.writer.wrote(class);
                    // Who has gone is not told.
                    let _ = member.send(Ok(()));
                }
            }
            Err(error) => self.undo(&error).await,
        }
    }

    /// Undoes the transaction that is open, with the work of all, because of an error.
    async fn undo(mut self, error: &sqlx::Error) {
        // What fails here is undone before the next transaction begins.
        while SqliteTransactionManager::get_transaction_depth(&self) > 0
            && SqliteTransactionManager::rollback(&mut self).await.is_ok()
        {}
        self.open = false;
        for (_, member) in std::mem::take(&mut self.together).members {
            let _ = member.send(Err(Fail::together(error)));
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.open && self.connection.is_some() {
            // Work ended without an end: its task was aborted, or it panicked.
            for _ in 0..SqliteTransactionManager::get_transaction_depth(self).max(1) {
                SqliteTransactionManager::start_rollback(self);
            }
        }
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
    use futures::FutureExt as _;
    use futures::future::join_all;
    use wa_core::store::WriteClass;

    use super::*;
    use crate::{SqliteOptions, SqliteStore};

    /// A store in memory with a table for numbers.
    async fn store() -> SqliteStore {
        let store = SqliteStore::open(SqliteOptions::memory()).await.unwrap();
        let mut turn = store.writer.turn(WriteClass::Api).await.unwrap();
        let sql = "CREATE TABLE numbers (number INTEGER PRIMARY KEY)";
        sqlx::query(sql).execute(&mut *turn).await.unwrap();
        drop(turn);
        store
    }

    /// Adds a number, and gives how deep in transactions: 1 for the first piece of work of one, 2 for those that joined it.
    async fn add(store: &SqliteStore, class: WriteClass, number: i64) -> Done<usize> {
        let run = store.writer.run(class, move |connection| {
            Box::pin(async move {
                let insert = sqlx::query("INSERT INTO numbers VALUES (?)").bind(number);
                insert.execute(&mut *connection).await?;
                assert!(number != 13, "work that panics");
                Ok(SqliteTransactionManager::get_transaction_depth(connection))
            })
        });
        run.await
    }

    async fn numbers(store: &SqliteStore) -> Vec<i64> {
        let mut turn = store.writer.turn(WriteClass::Api).await.unwrap();
        let sql = "SELECT number FROM numbers ORDER BY number";
        sqlx::query_scalar(sql).fetch_all(&mut *turn).await.unwrap()
    }

    /// Runs work that waits in this order, and only then gets its turn.
    async fn at_once(store: &SqliteStore, work: &[(WriteClass, i64)]) -> Vec<Done<usize>> {
        let turn = store.writer.turn(WriteClass::Settle).await.unwrap();
        let work: Vec<_> = work.iter().map(|(class, number)| add(store, *class, *number)).collect();
        let count = work.len();
        let release = async {
            while waiting(store) < count {
                tokio::task::yield_now().await;
            }
            drop(turn);
        };
        futures::join!(join_all(work), release).0
    }

    fn waiting(store: &SqliteStore) -> usize {
        store
            .writer
            .queue
            .lock()
            .unwrap()
            .waiting
            .iter()
            .map(VecDeque::len)
            .sum()
    }

    fn depths(results: &[Done<usize>]) -> Vec<Option<usize>> {
        results.iter().map(|result| result.as_ref().ok().copied()).collect()
    }

    #[tokio::test]
    async fn what_waits_joins_a_transaction_and_what_fails_is_undone_alone() {
        let store = store().await;
        let done = at_once(&store, &[1, 2, 1, 3].map(|number| (WriteClass::Api, number))).await;
        assert_eq!(depths(&done), [Some(1), Some(2), None, Some(2)]);
        assert!(done[2].as_ref().unwrap_err().is_refusal());
        assert_eq!(numbers(&store).await, [1, 2, 3]);

        let done = at_once(&store, &[2, 4, 5].map(|number| (WriteClass::Api, number))).await;
        assert_eq!(depths(&done), [None, Some(1), Some(2)]);
        assert_eq!(numbers(&store).await, [1, 2, 3, 4, 5]);
    }

    #[tokio::test]
    async fn nothing_waits_for_what_is_less_urgent_nor_for_work_in_bulk() {
        let store = store().await;
        use WriteClass::{Api, Begin, Bulk, Settle};
        let work = [Bulk, Api, Api, Begin, Settle, Settle, Bulk];
        let work: Vec<_> = work.into_iter().zip(1..).collect();
        let done = at_once(&store, &work).await;
        let depth = [Some(1), Some(1), Some(2), Some(1), Some(1), Some(2), Some(1)];
        assert_eq!(depths(&done), depth);
        assert_eq!(numbers(&store).await, [1, 2, 3, 4, 5, 6, 7]);
    }

    #[tokio::test]
    async fn a_transaction_holds_so_many_pieces_of_work_and_no_more() {
        let store = store().await;
        let most = i64::try_from(TOGETHER_MAX).unwrap();
        let work: Vec<_> = (0..=most).map(|number| (WriteClass::Settle, 100 + number)).collect();
        let done = at_once(&store, &work).await;
        let first = done.iter().filter(|result| matches!(result, Ok(1))).count();
        assert_eq!((first, done.len()), (2, TOGETHER_MAX + 1));
    }

    #[tokio::test]
    async fn work_that_panics_takes_along_those_it_shares_a_transaction_with_and_no_others() {
        let store = store().await;
        let done = at_once(&store, &[1, 13, 2].map(|number| (WriteClass::Api, number))).await;
        assert_eq!(depths(&done), [None, None, Some(1)]);
        assert!(matches!(done[0], Err(Fail::Lost)));
        assert_eq!(numbers(&store).await, [2]);
    }

    #[tokio::test]
    async fn work_of_a_caller_that_has_gone_is_not_begun() {
        let store = store().await;
        let turn = store.writer.turn(WriteClass::Settle).await.unwrap();
        let mut gone = Box::pin(add(&store, WriteClass::Settle, 1));
        let mut stays = Box::pin(add(&store, WriteClass::Settle, 2));
        while waiting(&store) < 2 {
            assert!((&mut gone).now_or_never().is_none() && (&mut stays).now_or_never().is_none());
            tokio::task::yield_now().await;
        }
        drop(gone);
        drop(turn);
        assert_eq!(stays.await.unwrap(), 1);
        assert_eq!(numbers(&store).await, [2]);
    }

    #[tokio::test]
    async fn a_transaction_that_is_not_committed_is_told_to_all_whose_work_it_holds() {
        let store = store().await;
        let mut turn = store.writer.turn(WriteClass::Api).await.unwrap();
        for sql in [
            "CREATE TABLE owners (id INTEGER PRIMARY KEY)",
            "CREATE TABLE owned (owner INTEGER REFERENCES owners (id) DEFERRABLE INITIALLY DEFERRED)",
        ] {
            sqlx::query(sql).execute(&mut *turn).await.unwrap();
        }
        drop(turn);
        let turn = store.writer.turn(WriteClass::Settle).await.unwrap();
        let orphan = store.writer.run(WriteClass::Settle, |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO owned VALUES (1)").execute(connection).await?;
                Ok(1)
            })
        });
        let release = async {
            while waiting(&store) < 2 {
                tokio::task::yield_now().await;
            }
            drop(turn);
        };
        let (orphan, other, ()) = futures::join!(orphan, add(&store, WriteClass::Settle, 1), release);
        for fail in [orphan.unwrap_err(), other.unwrap_err()] {
            assert!(matches!(fail, Fail::Together(..)), "{fail:?}");
        }
        assert_eq!(add(&store, WriteClass::Settle, 2).await.unwrap(), 1);
        assert_eq!(numbers(&store).await, [2]);
    }

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
