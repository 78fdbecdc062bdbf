//! The connections of a store, and who may have how many of them at once.
//!
//! Work in bulk has at most a quarter of the pool, and reads have what is left of it but [`RESERVE`], so that a settlement never waits
//! for a connection behind an import or behind people who look at lists. Beats have a connection of their own, outside the
//! pool: whatever the others wait for, no node is taken for dead because of it.
//!
//! A connection is given back only where nothing is left on it that the next one would meet. One that fell silent, that a caller
//! dropped in the middle of BEGIN or COMMIT, or whose transaction nobody knows is closed instead, at once and without a word to the
//! server: the next one opens another in its place.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions, PgTransactionManager};
use sqlx::{Connection, Postgres, SqlSafeStr, Transaction};
use sqlx_core::transaction::TransactionManager;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wa_core::store::WriteClass;

use crate::error::{Done, Fail};
use crate::limit::within;
use crate::options::PostgresOptions;

/// After this long without use a connection is asked whether it still answers before it is used.
const IDLE_UNTESTED: Duration = Duration::from_secs(1);

/// Connections that neither reads nor work in bulk get, where there are more than two.
const RESERVE: u32 = 1;

/// A transaction of which all statements read the same moment.
const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// The connections of a store; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Connections {
    pool: PgPool,
    /// The one connection of beats.
    beats: PgPool,
    reads: Arc<Semaphore>,
    bulk: Arc<Semaphore>,
    /// How many connections the pool has at most.
    most: u32,
    /// How long one waits for a connection.
    wait: Duration,
    /// How long the database may keep silent.
    limit: Option<Duration>,
    beat_limit: Duration,
}

fn pool_of(options: &PostgresOptions, connections: u32) -> PgPoolOptions {
    let ping_for = options.answer_margin.min(options.acquire_timeout / 2);
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(options.acquire_timeout)
        .test_before_acquire(false)
        .before_acquire(move |connection, meta| {
            Box::pin(async move {
                if meta.idle_for > IDLE_UNTESTED {
                    let answer = tokio::time::timeout(ping_for, connection.ping()).await;
                    answer.map_err(std::io::Error::from)??;
                }
                Ok(true)
            })
        })
}

impl Connections {
    /// Opens the pool, with one connection to see that there is a database.
    pub(crate) async fn open(options: &PostgresOptions, connect: PgConnectOptions) -> Done<Self> {
        let beats = pool_of(options, 1).connect_lazy_with(options.beat_options(connect.clone()));
        let pool = pool_of(options, options.connections).connect_with(connect).await?;
        let bulk = (options.connections / 4).max(1);
        let reads = options.connections.saturating_sub(bulk + RESERVE).max(1);
        Ok(Self {
            pool,
            beats,
            reads: Arc::new(Semaphore::new(reads as usize)),
            bulk: Arc::new(Semaphore::new(bulk as usize)),
            most: options.connections,
            wait: options.acquire_timeout,
            limit: options.limit(),
            beat_limit: options.beat_limit(),
        })
    }

    /// How long the database may keep silent.
    pub(crate) const fn limit(&self) -> Option<Duration> {
        self.limit
    }

    /// A transaction of an embedder. A connection that broke while it was idle is left for another.
    pub(crate) async fn transaction(&self) -> Done<Transaction<'static, Postgres>> {
        let mut broken = 0;
        loop {
            match self.lend(None).await?.into_transaction().await {
                Err(fail) if fail.breaks() && broken < self.most => broken += 1,
                begun => return begun,
            }
        }
    }

    /// A connection to read on.
    pub(crate) async fn reader(&self) -> Done<Loan> {
        let lend = async {
            let share = self.reads.clone().acquire_owned().await.map_err(|_| Fail::Lost)?;
            self.lend(Some(share)).await
        };
        let lent = tokio::time::timeout(self.wait, lend).await;
        lent.unwrap_or(Err(Fail::Sql(sqlx::Error::PoolTimedOut)))
    }

    /// A connection on which all statements read the same moment.
    pub(crate) async fn snapshot(&self) -> Done<Loan> {
        let mut loan = self.reader().await?;
        loan.begin(Some(SNAPSHOT)).await?;
        Ok(loan)
    }

    /// A connection to write on; work in bulk waits for its turn, however long that takes.
    pub(crate) async fn writer(&self, class: WriteClass) -> Done<Loan> {
        let share = match class {
            WriteClass::Bulk => Some(self.bulk.clone().acquire_owned().await.map_err(|_| Fail::Lost)?),
            WriteClass::Settle | WriteClass::Begin | WriteClass::Api => None,
        };
        self.lend(share).await
    }

    /// The connection of beats.
    pub(crate) async fn beat(&self) -> Done<Loan> {
        Loan::of(self.beats.clone(), Some(self.beat_limit), None).await
    }

    async fn lend(&self, share: Option<OwnedSemaphorePermit>) -> Done<Loan> {
        Loan::of(self.pool.clone(), self.limit, share).await
    }

    /// Waits for all that is lent, and closes all connections.
    pub(crate) async fn close(&self) {
        futures::join!(self.pool.close(), self.beats.close());
    }
}

/// What a statement runs on.
pub(crate) trait Line: Send {
    /// The connection, with how long it may keep silent; no limit where somebody looks after the whole work.
    fn parts(&mut self) -> (&mut PgConnection, Option<Duration>);

    /// Takes note of how a statement failed.
    fn note(&mut self, fail: &Fail);
}

impl Line for PgConnection {
    fn parts(&mut self) -> (&mut PgConnection, Option<Duration>) {
        (self, None)
    }

    fn note(&mut self, _fail: &Fail) {}
}

impl Line for Loan {
    fn parts(&mut self) -> (&mut PgConnection, Option<Duration>) {
        let limit = self.limit;
        (self.connection(), limit)
    }

    fn note(&mut self, fail: &Fail) {
        self.broken |= fail.breaks();
    }
}

/// A connection on loan, with its share of the pool.
pub(crate) struct Loan {
    connection: Option<PoolConnection<Postgres>>,
    pool: PgPool,
    limit: Option<Duration>,
    share: Option<OwnedSemaphorePermit>,
    /// Whether it is closed and not given back.
    broken: bool,
}

impl Loan {
    async fn of(pool: PgPool, limit: Option<Duration>, share: Option<OwnedSemaphorePermit>) -> Done<Self> {
        let connection = Some(pool.acquire().await?);
        Ok(Self {
            connection,
            pool,
            limit,
            share,
            broken: false,
        })
    }

    /// The connection itself, for which nobody keeps the limit.
    pub(crate) fn connection(&mut self) -> &mut PgConnection {
        self.connection.as_mut().expect("it is there until the loan ends")
    }

    /// Whether it is of no more use.
    pub(crate) const fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes another connection for one that broke, and keeps its share.
    pub(crate) async fn exchange(&mut self) -> Done<()> {
        self.end();
        let connection = self.pool.acquire().await?;
        self.connection = Some(connection);
        self.broken = false;
        Ok(())
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&mut self, statement: Option<&'static str>) -> Done<()> {
        let statement = statement.map(SqlSafeStr::into_sql_str);
        self.step(|connection| Box::pin(PgTransactionManager::begin(connection, statement)))
            .await
    }

    /// Commits the transaction. Where it fails the transaction may have been committed.
    pub(crate) async fn commit(&mut self) -> Done<()> {
        self.step(|connection| Box::pin(PgTransactionManager::commit(connection)))
            .await
    }

    /// Undoes the transaction.
    pub(crate) async fn rollback(&mut self) -> Done<()> {
        self.step(|connection| Box::pin(PgTransactionManager::rollback(connection)))
            .await
    }

    /// Hands the connection over as a transaction of an embedder. It is asked for an answer first: from then on nobody keeps the limit.
    async fn into_transaction(mut self) -> Done<Transaction<'static, Postgres>> {
        self.step(|connection| Box::pin(connection.ping())).await?;
        let connection = self.connection.take().expect("it is there until the loan ends");
        Ok(Transaction::begin(connection, None).await?)
    }

    /// A step of a transaction, after which sqlx and the server agree on whether one is open, or the connection is of no more use.
    async fn step(
        &mut self,
        step: impl for<'c> FnOnce(&'c mut PgConnection) -> BoxFuture<'c, sqlx::Result<()>> + Send,
    ) -> Done<()> {
        let limit = self.limit;
        self.broken = true;
        within(limit, step(self.connection())).await?;
        self.broken = false;
        Ok(())
    }

    /// Does work in the transaction that is open.
    pub(crate) async fn work<'c, T, F>(&'c mut self, work: impl FnOnce(&'c mut PgConnection) -> F) -> Done<T>
    where
        F: Future<Output = Done<T>>,
    {
        let Self {
            connection,
            limit,
            broken,
            ..
        } = self;
        let connection = connection.as_mut().expect("it is there until the loan ends");
        let done = within(*limit, work(connection)).await;
        if let Err(fail) = &done {
            *broken |= fail.breaks();
        }
        done
    }

    /// Gives the connection back, or closes it.
    fn end(&mut self) {
        let Some(mut connection) = self.connection.take() else {
            return;
        };
        if self.broken {
            drop(connection.detach());
            return;
        }
        for _ in 0..PgTransactionManager::get_transaction_depth(&connection) {
            PgTransactionManager::start_rollback(&mut connection);
        }
        // It is asked whether it still answers, and what was left on it is ended. Dropped in the middle of that, it is closed.
        let back = connection.return_to_pool();
        let (limit, share) = (self.limit, self.share.take());
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _share = share;
                let back = async {
                    back.await;
                    Done::Ok(())
                };
                if within(limit, back).await.is_err() {
                    tracing::debug!("a connection that fell silent is closed");
                }
            });
        }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.end();
    }
}
