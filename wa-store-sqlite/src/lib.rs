//! Store of `wa-core` on SQLite: one file, nothing to install.
//!
//! # How it keeps the contract of [`wa_core::store`]
//!
//! - **Durable**: WAL with `synchronous = FULL`; an answer is given after the commit has reached the disk.
//! - **One writer**: all writes go through one connection with `BEGIN IMMEDIATE`, served by [`WriteClass`], so that a
//!   settlement never waits for more than the transaction that runs. A change set is atomic and is never split: who commits
//!   in bulk keeps pages small enough (a few hundred leads or messages) that one lasts at most about 20 ms.
//!   What waits when a transaction has done its work joins it, up to 32 sets that share one commit; what does not fit is
//!   undone alone, and nothing waits for what is less urgent.
//! - **Readers do not wait** for the writer: they read the last commit on connections of their own. A database in memory has
//!   one connection, on which reads take their turn.
//! - **All or nothing**: a transaction runs in a task of its own, which a caller that is dropped leaves to its end; what was
//!   not begun by then is left.
//! - **Constraints**: states, isolation of users and uniqueness are also CHECK, FOREIGN KEY and UNIQUE constraints; see
//!   `migrations/`.
//!
//! SQL stands in constants at the top of the file of its aggregate, each with the method and the index that it relies on;
//! a test asks SQLite for the plan of each.
//!
//! ```
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use wa_core::store::Store;
//! use wa_store_sqlite::{DataLock, SqliteOptions, SqliteStore};
//!
//! # let folder = std::env::temp_dir().join(format!("wa-store-sqlite-doc-{}", std::process::id()));
//! let lock = DataLock::acquire(&folder)?;
//! let store = SqliteStore::open(SqliteOptions::file(folder.join("wa.db")).lock(lock)).await?;
//! store.ready().await?;
//! # drop(store);
//! # std::fs::remove_dir_all(&folder)?;
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
//! ```

mod app;
mod archive;
mod begin;
mod campaigns;
mod chats;
mod commands;
mod commit;
mod commit_messages;
mod devices;
mod enrolments;
mod error;
mod flows;
mod insert;
mod leads;
mod leases;
mod live;
mod lock;
mod message_row;
mod options;
mod outbox;
#[cfg(test)]
mod plans;
mod pool;
mod readers;
mod row;
mod sequences;
mod sessions;
mod settle;
mod suppressions;
mod sweep;
mod tallies;
#[cfg(test)]
mod visits;
mod warmth;
mod writer;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use sqlx::ConnectOptions;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx_core::transaction::TransactionManager;
use wa_core::store::{ChangeSet, Committed, Store, StoreError, StoreErrorKind, WriteClass};
use wa_core::time::Timestamp;

use self::error::{Done, Fail};
pub use self::lock::{DataLock, LockError};
use self::options::Place;
pub use self::options::SqliteOptions;
use self::readers::{ReadConnection, Readers};
pub use self::writer::Transaction;
use self::writer::{Turn, Writer};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 256;

/// Rows that a connection reads ahead of whoever takes them.
const ROWS_AHEAD: usize = 256;

/// Pages in the write-ahead log after which a commit moves them into the file, where that was not done beside the writer: 16 MiB.
const CHECKPOINT_PAGES: &str = "4096";

/// A store on SQLite; a handle that is cheap to clone.
#[derive(Clone)]
pub struct SqliteStore {
    writer: Arc<Writer>,
    /// `None` in memory, where reads take their turn on the writer's connection.
    readers: Option<Arc<Readers>>,
    lock: Option<Arc<DataLock>>,
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("in_memory", &self.readers.is_none())
            .field("lock", &self.lock)
            .finish_non_exhaustive()
    }
}

/// A connection to read on.
enum Reader {
    Beside(ReadConnection),
    Writer(Turn),
}

impl Deref for Reader {
    type Target = SqliteConnection;
    fn deref(&self) -> &SqliteConnection {
        match self {
            Self::Beside(connection) => connection,
            Self::Writer(turn) => turn,
        }
    }
}

impl DerefMut for Reader {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        match self {
            Self::Beside(connection) => connection,
            Self::Writer(turn) => turn,
        }
    }
}

/// What a write is called in errors.
#[derive(Clone, Copy)]
struct Op(WriteClass, &'static str, &'static str);

impl SqliteStore {
    /// Opens a database and brings its schema up to date.
    ///
    /// # Errors
    /// `Unavailable` when the file cannot be opened or another process holds it, `Corrupt` when it is no database of this
    /// store, `Conflict` when the lock of the options is not on the folder of the file.
    pub async fn open(options: SqliteOptions) -> Result<Self, StoreError> {
        Self::open_inner(&options)
            .await
            .map_err(|fail| fail.of("open", "database"))
    }

    async fn open_inner(options: &SqliteOptions) -> Done<Self> {
        let base = SqliteConnectOptions::new()
            .foreign_keys(true)
            .busy_timeout(options.busy_timeout)
            .statement_cache_capacity(STATEMENTS_MAX)
            .pragma("temp_store", "MEMORY")
            .row_buffer_size(ROWS_AHEAD)
            .disable_statement_logging();
        let base = match &options.place {
            Place::Memory => base.in_memory(true).shared_cache(false).filename(":memory:"),
            Place::File(path) => {
                if options.lock.as_ref().is_some_and(|lock| !lock.covers(path)) {
                    return Err(Fail::conflict("data lock"));
                }
                create_private_file(path).map_err(sqlx::Error::Io)?;
                base.filename(path)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            }
        };
        let cached = |kib: u32| base.clone().pragma("cache_size", format!("-{kib}"));
        let mut connection = connect(cached(options.cache_kib)).await?;
        migrate(&mut connection).await?;
        let readers = match &options.place {
            Place::Memory => None,
            Place::File(_) => {
                let cached = cached(options.cache_kib / 4);
                let read_only = cached.create_if_missing(false).pragma("query_only", "ON");
                let readers = Readers::new(read_only, options.readers, options.read_timeout);
                // What cannot be read is no open store.
                drop(readers.acquire().await?);
                Some(readers)
            }
        };
        Ok(Self {
            writer: Writer::new(connection, readers.clone()),
            readers,
            lock: options.lock.clone(),
        })
    }

    /// Begins a transaction on the store's writer, for changes of an embedder's own tables beside a
    /// [`commit_in`](Self::commit_in). It waits for its turn by class.
    ///
    /// # Errors
    /// `Unavailable` when the database does not answer.
    pub async fn begin_tx(&self, class: WriteClass) -> Result<Transaction, StoreError> {
        self.writer
            .begin(class)
            .await
            .map_err(|fail| fail.of("begin_tx", "transaction"))
    }

    /// Applies a change set within a transaction from [`begin_tx`](Self::begin_tx): durable when that commits, undone when
    /// it does not. The owners of [`Committed::wake`] are for the caller to wake, after its commit.
    ///
    /// ```
    /// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// use wa_core::store::{ChangeSet, WriteClass};
    /// use wa_core::time::Timestamp;
    /// use wa_store_sqlite::{SqliteOptions, SqliteStore};
    ///
    /// let store = SqliteStore::open(SqliteOptions::memory()).await?;
    /// let mut tx = store.begin_tx(WriteClass::Api).await?;
    /// sqlx::query("CREATE TABLE orders (id INTEGER PRIMARY KEY, paid INTEGER NOT NULL) STRICT").execute(&mut *tx).await?;
    /// sqlx::query("INSERT INTO orders (paid) VALUES (1)").execute(&mut *tx).await?;
    /// let receipt = ChangeSet::default(); // … InsertMessages
    /// store.commit_in(&mut tx, receipt, Timestamp::from_millis(1_795_000_000_000)).await?;
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`Store::commit`]; nothing of the set is left in the transaction then, and what else it holds stays.
    /// `Unsupported` when the transaction is of another store.
    pub async fn commit_in(
        &self,
        tx: &mut Transaction,
        set: ChangeSet,
        now: Timestamp,
    ) -> Result<Committed, StoreError> {
        if !tx.is_of(&self.writer) {
            return Err(StoreError::new(StoreErrorKind::Unsupported, "commit_in", "transaction"));
        }
        let result = in_savepoint(tx, set, now).await;
        result.map_err(|fail| fail.of("commit_in", "change set"))
    }

    /// Closes the store, all handles of it: waits for what is being written and read, and until the file is closed, so that it can be
    /// copied or removed. What is asked of a handle afterwards fails as `Unavailable`.
    pub async fn close(self) {
        if let Some(readers) = &self.readers {
            readers.close().await;
        }
        self.writer.close().await;
    }

    /// Whether this process is the only one that uses the database.
    fn is_exclusive(&self) -> bool {
        self.readers.is_none() || self.lock.is_some()
    }

    /// A connection to read on.
    async fn reader(&self) -> Done<Reader> {
        match &self.readers {
            Some(readers) => readers.acquire().await.map(Reader::Beside),
            None => self.writer.turn(WriteClass::Api).await.map(Reader::Writer),
        }
    }

    /// A connection on which all statements read the same moment, for what is read with several and compared or added up.
    async fn snapshot(&self) -> Done<Reader> {
        match &self.readers {
            Some(readers) => readers.snapshot().await.map(Reader::Beside),
            None => self.reader().await,
        }
    }

    /// Runs a write transaction, in a task of its own.
    async fn write<T, W>(&self, op: Op, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'c> FnOnce(&'c mut SqliteConnection) -> BoxFuture<'c, Done<T>> + Send + 'static,
    {
        let Op(class, operation, entity) = op;
        let ran = self.writer.run(class, work).await;
        ran.map_err(|fail| fail.of(operation, entity))
    }
}

async fn in_savepoint(tx: &mut Transaction, set: ChangeSet, now: Timestamp) -> Done<Committed> {
    use sqlx::sqlite::SqliteTransactionManager as Manager;
    let mut savepoint = Savepoint {
        connection: tx,
        open: true,
    };
    Manager::begin(savepoint.connection, None).await?;
    match commit::commit(savepoint.connection, set, now).await {
        Ok(done) => {
            Manager::commit(savepoint.connection).await?;
            savepoint.open = false;
            Ok(done)
        }
        Err(fail) => {
            Manager::rollback(savepoint.connection).await?;
            savepoint.open = false;
            Err(fail)
        }
    }
}

/// Undoes a savepoint whose future is dropped.
struct Savepoint<'a> {
    connection: &'a mut SqliteConnection,
    open: bool,
}

impl Drop for Savepoint<'_> {
    fn drop(&mut self) {
        if self.open {
            sqlx::sqlite::SqliteTransactionManager::start_rollback(self.connection);
        }
    }
}

/// Creates a file that only its owner may read, unless it is there; SQLite gives its companions the same mode.
fn create_private_file(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        lock::create_private_folder(folder)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// Boxed, as `migrate` is, because only then the compiler sees that the future of `open` may move between threads.
fn connect(options: SqliteConnectOptions) -> BoxFuture<'static, sqlx::Result<SqliteConnection>> {
    Box::pin(async move { options.connect().await })
}

fn migrate(connection: &mut SqliteConnection) -> BoxFuture<'_, Done<()>> {
    use sqlx::migrate::MigrateError;
    Box::pin(async move {
        MIGRATIONS
            .run_direct(None, connection, false)
            .await
            .map_err(|error| match error {
                MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Fail::Sql(error),
                MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) | MigrateError::Dirty(_) => {
                    Fail::Unreadable("schema version")
                }
                other => Fail::Sql(sqlx::Error::Migrate(Box::new(other))),
            })
    })
}

/// `ready`: the newest migration that was applied.
const SCHEMA: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version DESC LIMIT 1";

#[async_trait]
impl Store for SqliteStore {
    async fn commit(&self, set: ChangeSet, class: WriteClass, now: Timestamp) -> Result<Committed, StoreError> {
        self.write(Op(class, "commit", "change set"), move |connection| {
            Box::pin(commit::commit(connection, set, now))
        })
        .await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let newest = MIGRATIONS.iter().map(|migration| migration.version).max();
        let check = async {
            let mut reader = self.reader().await?;
            let applied: Option<i64> = sqlx::query_scalar(SCHEMA).fetch_optional(&mut *reader).await?;
            Ok(applied == newest)
        };
        match check.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::new(StoreErrorKind::Unavailable, "ready", "schema")),
            Err(fail) => Err(Fail::of(fail, "ready", "database")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What makes every table and index, columns included.
    async fn tables(connection: &mut SqliteConnection) -> Vec<String> {
        let sql = "SELECT coalesce(sql, name) FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' AND tbl_name <> '_sqlx_migrations' ORDER BY name";
        sqlx::query_scalar(sql).fetch_all(connection).await.unwrap()
    }

    #[tokio::test]
    async fn migrations_walk_up_and_down_step_by_step() {
        let mut connection = connect(SqliteConnectOptions::new().in_memory(true)).await.unwrap();
        migrate(&mut connection).await.unwrap();
        let full = tables(&mut connection).await;
        let mut versions: Vec<i64> = MIGRATIONS
            .iter()
            .filter(|migration| migration.migration_type.is_up_migration())
            .map(|migration| migration.version)
            .collect();
        versions.insert(0, 0);
        for pair in versions.windows(2).rev() {
            let before = tables(&mut connection).await;
            MIGRATIONS.undo(&mut connection, pair[0]).await.unwrap();
            assert_ne!(tables(&mut connection).await, before, "{} changes something", pair[1]);
            MIGRATIONS.run_to(pair[1], &mut connection).await.unwrap();
            assert_eq!(tables(&mut connection).await, before, "{} brings it back", pair[1]);
            MIGRATIONS.undo(&mut connection, pair[0]).await.unwrap();
        }
        assert_eq!(tables(&mut connection).await, Vec::<String>::new());
        migrate(&mut connection).await.unwrap();
        assert_eq!(tables(&mut connection).await, full);
    }

    /// SQLite would search such a list, kept as a table, for every row that is written: three cost a quarter of what a begin and a settlement
    /// change in messages.
    #[tokio::test]
    async fn no_index_of_messages_compares_with_a_list_of_more_than_two() {
        let mut connection = connect(SqliteConnectOptions::new().in_memory(true)).await.unwrap();
        migrate(&mut connection).await.unwrap();
        let sql = "SELECT name FROM sqlite_master WHERE type = 'index' AND tbl_name = 'messages' AND sql LIKE '% IN (%,%,%)%'";
        let lists: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut connection).await.unwrap();
        assert_eq!(lists, [""; 0]);
    }

    #[tokio::test]
    async fn a_closed_store_has_left_its_file_whole_although_other_handles_are_kept() {
        let folder = std::env::temp_dir().join(format!("wa-close-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("wa.db");
        let store = SqliteStore::open(SqliteOptions::file(&file)).await.unwrap();
        let handle = store.clone();
        assert!(folder.join("wa.db-wal").exists());
        store.close().await;
        let companions: Vec<_> = ["wa.db-wal", "wa.db-shm"]
            .into_iter()
            .filter(|name| folder.join(name).exists())
            .collect();
        let written = handle.begin_tx(WriteClass::Api).await.map(|_| ());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(companions, [""; 0]);
        assert_eq!(written.unwrap_err().kind, StoreErrorKind::Unavailable);
    }

    #[tokio::test]
    async fn a_store_behind_its_schema_is_not_ready() {
        let store = SqliteStore::open(SqliteOptions::memory()).await.unwrap();
        store.ready().await.unwrap();
        let mut turn = store.writer.turn(WriteClass::Api).await.unwrap();
        MIGRATIONS.undo(&mut *turn, 2).await.unwrap();
        drop(turn);
        assert_eq!(store.ready().await.unwrap_err().kind, StoreErrorKind::Unavailable);
    }
}
