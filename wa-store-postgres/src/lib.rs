//! Store of `wa-core` on Postgres 14 and newer: for several nodes on one database.
//!
//! # How it keeps the contract of [`wa_core::store`]
//!
//! - **Durable**: `synchronous_commit = on`; an answer is given after the commit has reached the disk.
//! - **Gates hold between transactions**: READ COMMITTED with one lock per user that stands for all that decides whether a message
//!   may go. `begin` and `settle` share it with each other, a commit has it alone, so that what reads and then writes
//!   does so as if it were alone. Nodes are locked before users, users before rows, all in ascending order; the table of
//!   who locks what is in `src/lock.rs`.
//! - **No caller sees a deadlock**: whatever the locks do not foresee is run again, [`PostgresOptions::RETRIES`] times.
//! - **No call waits for ever**: a database that falls silent is given up a little later than a statement may run
//!   ([`PostgresOptions::answer_margin`]); what was about to be committed may have been committed then. Who has how many connections is in
//!   `src/connections.rs`.
//! - **All or nothing**: a transaction runs in a task of its own, which a caller that is dropped leaves to its end.
//! - **Constraints**: states, isolation of users and uniqueness are also CHECK, FOREIGN KEY and UNIQUE constraints, but for the devices of
//!   messages, which whoever writes messages has looked at; see `migrations/`.
//! - **Schema**: all tables stand in one schema, with the table of migrations; nodes that start at once migrate once, and a node of
//!   before beats no more (`Unsupported`), so that its devices go to those that know the new schema.
//!
//! It needs sessions of its own, for prepared statements, settings and notifications: not a pooler that deals out transactions.
//!
//! SQL stands in constants at the top of the file of its aggregate, each with the method and the index that it relies on, and in
//! files of the same names as those of the store on SQLite; a test asks Postgres for the plan of each.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use wa_core::store::Store;
//! use wa_store_postgres::{PostgresOptions, PostgresStore};
//!
//! let options = PostgresOptions::url("postgres://wa:secret@localhost/wa?sslmode=require").schema("wa").connections(20);
//! let store = PostgresStore::open(options).await?;
//! store.ready().await?;
//! // Gives what other nodes enqueue to the engine at once: handle.wake(devices).
//! let mut wakes = store.wakes().await?;
//! let devices = wakes.next().await?;
//! # Ok(())
//! # }
//! ```

mod app;
mod archive;
mod begin;
mod campaigns;
mod chats;
mod commands;
mod commit;
mod commit_messages;
mod connections;
mod copy;
mod devices;
mod enrolments;
mod error;
mod flows;
mod growth;
mod insert;
mod leads;
mod leases;
mod limit;
mod live;
mod lock;
mod message_row;
mod name;
mod options;
mod outbox;
mod places;
#[cfg(test)]
mod plans;
mod pool;
mod row;
mod sequences;
#[cfg(test)]
#[path = "../tests/postgres/server.rs"]
#[allow(dead_code, reason = "the tests outside need more of it")]
mod server;
mod sessions;
mod settle;
mod suppressions;
mod sweep;
mod tallies;
mod wake;
mod warmth;
mod writer;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::future::BoxFuture;
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Postgres, Transaction};
use wa_core::store::{ChangeSet, Committed, Store, StoreError, StoreErrorKind, WriteClass};
use wa_core::time::Timestamp;

use self::commit::Whose;
use self::connections::{Connections, Loan};
use self::error::{Done, Fail};
use self::growth::Growth;
use self::insert::query;
use self::limit::within;
use self::lock::{Mode, Space};
use self::name::NameLock;
pub use self::options::PostgresOptions;
pub use self::wake::Wakes;
use self::wake::{Notifier, channel, notify};
use self::writer::Writer;

static MIGRATIONS: Migrator = sqlx::migrate!();

/// A store on Postgres; a handle that is cheap to clone.
#[derive(Clone)]
pub struct PostgresStore {
    inner: Arc<Inner>,
}

struct Inner {
    connections: Connections,
    writer: Writer,
    space: Space,
    schema: String,
    notifier: Option<Arc<Notifier>>,
    growth: Arc<Growth>,
    connect: PgConnectOptions,
    name: Arc<NameLock>,
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("schema", &self.inner.schema)
            .finish_non_exhaustive()
    }
}

/// What a write is called in errors.
#[derive(Clone, Copy)]
struct Op(WriteClass, &'static str, &'static str);

impl PostgresStore {
    /// Opens a database and brings its schema up to date; several nodes may do so at once.
    ///
    /// # Errors
    /// `Unavailable` when the database does not answer, `Corrupt` when its schema is newer than this store or was changed,
    /// `Conflict` when the name of the schema is none.
    pub async fn open(options: PostgresOptions) -> Result<Self, StoreError> {
        Self::open_inner(&options)
            .await
            .map_err(|fail| fail.of("open", "database"))
    }

    async fn open_inner(options: &PostgresOptions) -> Done<Self> {
        let space = Space::of(&options.schema);
        let connect = options.connect_options()?;
        migrate(options, space).await?;
        let connections = Connections::open(options, connect.clone()).await?;
        let notifier = options
            .notify
            .then(|| Notifier::new(connections.clone(), &options.schema));
        Ok(Self {
            inner: Arc::new(Inner {
                writer: Writer::new(options.connections, options.retries),
                connections,
                space,
                schema: options.schema.clone(),
                notifier,
                name: NameLock::new(connect.clone(), options.beat_limit(), space),
                growth: Arc::default(),
                connect,
            }),
        })
    }

    /// Begins a transaction on a connection of the store, whose search path is its schema, for changes of an embedder's own
    /// tables beside a [`commit_in`](Self::commit_in). How long its statements, its commit and its return to the pool wait for an
    /// answer is for the embedder to limit.
    ///
    /// # Errors
    /// `Unavailable` when the database does not answer.
    pub async fn begin_tx(&self) -> Result<Transaction<'static, Postgres>, StoreError> {
        let connections = self.inner.connections.clone();
        // In a task, because a caller that is dropped in the middle of BEGIN would leave a connection in a transaction.
        let task = tokio::spawn(async move { connections.transaction().await });
        let begun = task.await.unwrap_or(Err(Fail::Lost));
        begun.map_err(|fail| fail.of("begin_tx", "transaction"))
    }

    /// Applies a change set within a transaction of the embedder, on any connection to the same database: durable when that commits,
    /// undone when it does not. Other nodes are notified when it commits; the owners of [`Committed::wake`] in this process
    /// are for the caller to wake then.
    ///
    /// The transaction holds the locks of the set's users until its end, and nothing of theirs is sent meanwhile: keep it short. One
    /// that takes in sets of several users may be chosen to end a deadlock.
    ///
    /// ```no_run
    /// # async fn run(store: wa_store_postgres::PostgresStore, pool: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
    /// use wa_core::store::ChangeSet;
    /// use wa_core::time::Timestamp;
    ///
    /// let mut tx = pool.begin().await?;
    /// sqlx::query("INSERT INTO public.orders (paid) VALUES (1)").execute(&mut *tx).await?;
    /// let receipt = ChangeSet::default(); // … InsertMessages
    /// store.commit_in(&mut tx, receipt, Timestamp::from_millis(1_795_000_000_000)).await?;
    /// tx.commit().await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`Store::commit`]; nothing of the set is left in the transaction then, and what else it holds stays. Where it is
    /// `Unavailable`, the transaction is to be given up.
    ///
    /// # Cancellation
    /// Where the future is dropped before it is done, how much of the set is in the transaction is not known: it is to be given up too,
    /// and its connection is best closed.
    pub async fn commit_in(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        set: ChangeSet,
        now: Timestamp,
    ) -> Result<Committed, StoreError> {
        let result = within(self.inner.connections.limit(), self.in_savepoint(tx, set, now)).await;
        result.map_err(|fail| fail.of("commit_in", "change set"))
    }

    async fn in_savepoint(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        set: ChangeSet,
        now: Timestamp,
    ) -> Done<Committed> {
        let mut savepoint = tx.begin().await?;
        let connection: &mut PgConnection = &mut savepoint;
        let row = query(ENTER).fetch_one(connection).await?;
        let path = row::Columns::of(&row).text()?;
        query(SEARCH)
            .bind(self.inner.schema.clone())
            .execute(connection)
            .await?;
        let done = commit::commit(connection, self.inner.space, set, now, Whose::Embedder).await?;
        if self.inner.notifier.is_some() {
            notify(connection, &channel(&self.inner.schema), &done.wake).await?;
        }
        query(SEARCH).bind(path).execute(connection).await?;
        savepoint.commit().await?;
        Ok(done)
    }

    /// Listens for devices that other nodes, or transactions of an embedder, gave something to do; on a connection of its own.
    ///
    /// # Errors
    /// `Unavailable` when the database does not answer.
    pub async fn wakes(&self) -> Result<Wakes, StoreError> {
        let listen = async {
            let pool = PgPoolOptions::new().max_connections(1);
            let pool = pool.connect_lazy_with(self.inner.connect.clone());
            Wakes::listen(&pool, &self.inner.schema).await
        };
        listen.await.map_err(|fail: Fail| fail.of("wakes", "notification"))
    }

    /// What time it is by the clock of the database, for nodes that have to agree on it. No statement of the store reads that clock.
    ///
    /// # Errors
    /// `Unavailable` when the database does not answer.
    pub async fn time(&self) -> Result<Timestamp, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let row = query(TIME).fetch_one(&mut reader).await?;
            row::Columns::of(&row).at()
        };
        read.await.map_err(|fail: Fail| fail.of("time", "database"))
    }

    /// Closes the store: waits for what is being written and read.
    pub async fn close(self) {
        self.inner.connections.close().await;
    }

    /// A connection to read on.
    async fn reader(&self) -> Done<Loan> {
        self.inner.connections.reader().await
    }

    /// A connection on which all statements read the same moment, for what is read with several and compared or added up.
    async fn snapshot(&self) -> Done<Loan> {
        self.inner.connections.snapshot().await
    }

    /// The keys of the locks.
    fn space(&self) -> Space {
        self.inner.space
    }

    /// Tells other nodes of devices that got something to do.
    fn tell(&self, devices: &[wa_core::id::DeviceId]) {
        if let Some(notifier) = &self.inner.notifier {
            notifier.tell(devices);
        }
    }

    /// Notes rows that were written, so that the statistics keep up with them.
    fn wrote(&self, rows: u64) {
        let inner = &self.inner;
        inner.growth.note(&inner.connections, &inner.schema, rows);
    }

    /// Runs a write transaction in a task of its own, so that a caller that is dropped leaves all of it or nothing; again, where
    /// others stood in its way.
    async fn write<T, W>(&self, op: Op, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Done<T>> + Send + Sync + 'static,
    {
        let Op(class, operation, entity) = op;
        let done = self.try_write(class, work).await;
        done.map_err(|fail| fail.of(operation, entity))
    }

    /// As [`write`](Self::write), of what may share its users with others: it is told whether it does, and has them alone
    /// where it turns out that it must.
    async fn write_shared<T, W>(&self, op: Op, mode: Mode, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'c> Fn(&'c mut PgConnection, Mode) -> BoxFuture<'c, Done<T>> + Clone + Send + Sync + 'static,
    {
        let Op(class, operation, entity) = op;
        let first = work.clone();
        let done = match self.try_write(class, move |connection| first(connection, mode)).await {
            Err(Fail::NeedsAlone) => {
                self.try_write(class, move |connection| work(connection, Mode::Alone))
                    .await
            }
            done => done,
        };
        done.map_err(|fail| fail.of(operation, entity))
    }

    async fn try_write<T, W>(&self, class: WriteClass, work: W) -> Done<T>
    where
        T: Send + 'static,
        W: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Done<T>> + Send + Sync + 'static,
    {
        let loan = self.inner.connections.writer(class).await?;
        self.run(loan, work).await
    }

    /// As [`write`](Self::write), on the connection of beats.
    async fn write_beat<T, W>(&self, op: Op, work: W) -> Result<T, StoreError>
    where
        T: Send + 'static,
        W: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Done<T>> + Send + Sync + 'static,
    {
        let Op(_, operation, entity) = op;
        let done = async { self.run(self.inner.connections.beat().await?, work).await };
        done.await.map_err(|fail| fail.of(operation, entity))
    }

    async fn run<T, W>(&self, loan: Loan, work: W) -> Done<T>
    where
        T: Send + 'static,
        W: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Done<T>> + Send + Sync + 'static,
    {
        let inner = self.inner.clone();
        let task = tokio::spawn(async move { inner.writer.run(loan, &work).await });
        task.await.unwrap_or(Err(Fail::Lost))
    }
}

/// `commit_in`: the embedder's search path, to be restored.
const ENTER: &str = "SELECT current_setting('search_path')";
/// `commit_in`: sets it until the end of the transaction.
const SEARCH: &str = "SELECT set_config('search_path', $1, true)";

/// Boxed, because only then the compiler sees that the future of `open` may move between threads.
fn migrate(options: &PostgresOptions, space: Space) -> BoxFuture<'_, Done<()>> {
    Box::pin(async move {
        let plain = options.plain_options()?;
        let mut connection = within(Some(options.acquire_timeout), plain.connect()).await?;
        let migrated = migrate_on(&mut connection, &options.schema, space).await;
        // The lock of the session ends with it.
        let _ = connection.close().await;
        migrated
    })
}

async fn migrate_on(connection: &mut PgConnection, schema: &str, space: Space) -> Done<()> {
    use sqlx::migrate::MigrateError;
    // Not sqlx's own lock, which is one for the whole database and not taken before the schema is made.
    query("SELECT pg_advisory_lock($1)")
        .bind(space.migration())
        .execute(connection)
        .await?;
    let create = AssertSqlSafe(format!("CREATE SCHEMA IF NOT EXISTS {schema}"));
    query(create).execute(connection).await?;
    let migrator = Migrator {
        locking: false,
        migrations: MIGRATIONS.migrations.clone(),
        ..Migrator::DEFAULT
    };
    let migrated = migrator.run_direct(None, connection, false).await;
    migrated.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => Fail::Sql(error),
        MigrateError::VersionMissing(_) | MigrateError::VersionMismatch(_) | MigrateError::Dirty(_) => {
            Fail::Unreadable("schema version")
        }
        other => Fail::Sql(sqlx::Error::Migrate(Box::new(other))),
    })
}

/// How many rows in bulk are written together: about 50 ms of work, for which settlements of the same user wait. Beyond that hardly
/// anything is faster.
const BULK_ROWS: u32 = 2_000;

/// `time`: of the moment, not of the transaction.
const TIME: &str = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// `ready`, `join`, `beat`: the newest migration that was applied.
const SCHEMA: &str = "SELECT version FROM _sqlx_migrations WHERE success ORDER BY version DESC LIMIT 1";

/// The newest migration that this store knows.
fn newest() -> Option<i64> {
    MIGRATIONS.iter().map(|migration| migration.version).max()
}

/// No node goes on beside one that has migrated further: it would leave out what the newer one keeps beside its rows.
async fn check_schema(connection: &mut PgConnection) -> Done<()> {
    if query(SCHEMA).number(connection).await? > newest() {
        return Err(Fail::Newer);
    }
    Ok(())
}

#[async_trait]
impl Store for PostgresStore {
    async fn commit(&self, set: ChangeSet, class: WriteClass, now: Timestamp) -> Result<Committed, StoreError> {
        let space = self.space();
        let done = self
            .write(Op(class, "commit", "change set"), move |connection| {
                Box::pin(commit::commit(connection, space, set.clone(), now, Whose::Ours))
            })
            .await?;
        self.tell(&done.wake);
        self.wrote(done.messages_inserted + row::count(done.leads.len()) + done.chat_messages);
        Ok(done)
    }

    async fn ready(&self) -> Result<(), StoreError> {
        let check = async {
            let mut reader = self.reader().await?;
            Ok(query(SCHEMA).number(&mut reader).await? == newest())
        };
        match check.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StoreError::new(StoreErrorKind::Unavailable, "ready", "schema")),
            Err(fail) => Err(Fail::of(fail, "ready", "database")),
        }
    }

    fn bulk_rows(&self) -> u32 {
        BULK_ROWS
    }
}

#[cfg(test)]
mod tests {
    use super::server::Schema;
    use super::*;

    /// What makes every table, column, index and constraint of a schema.
    async fn tables(connection: &mut PgConnection, schema: &str) -> Vec<String> {
        let sql = "
            SELECT format('%s.%s %s %s', table_name, column_name, data_type, is_nullable) FROM information_schema.columns
            WHERE table_schema = $1 AND table_name <> '_sqlx_migrations'
            UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = $1 AND tablename <> '_sqlx_migrations'
            UNION ALL SELECT conname || pg_get_constraintdef(oid) FROM pg_constraint
            WHERE connamespace = $1::regnamespace AND conrelid <> '_sqlx_migrations'::regclass
            ORDER BY 1";
        sqlx::query_scalar(sql)
            .bind(schema)
            .fetch_all(connection)
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn migrations_walk_up_and_down_step_by_step() {
        let schema = Schema::new();
        let name = schema.name();
        let options = schema.options().plain_options().unwrap();
        migrate(&schema.options(), Space::of(name)).await.unwrap();
        let mut connection = options.connect().await.unwrap();
        let full = tables(&mut connection, name).await;
        let mut versions: Vec<i64> = MIGRATIONS
            .iter()
            .filter(|migration| migration.migration_type.is_up_migration())
            .map(|migration| migration.version)
            .collect();
        versions.insert(0, 0);
        for pair in versions.windows(2).rev() {
            let before = tables(&mut connection, name).await;
            MIGRATIONS.undo(&mut connection, pair[0]).await.unwrap();
            assert_ne!(tables(&mut connection, name).await, before, "{} is undone", pair[1]);
            MIGRATIONS.run_to(pair[1], &mut connection).await.unwrap();
            assert_eq!(
                tables(&mut connection, name).await,
                before,
                "{} brings it back",
                pair[1]
            );
            MIGRATIONS.undo(&mut connection, pair[0]).await.unwrap();
        }
        assert_eq!(tables(&mut connection, name).await, Vec::<String>::new());
        migrate(&schema.options(), Space::of(name)).await.unwrap();
        assert_eq!(tables(&mut connection, name).await, full);
    }
}
