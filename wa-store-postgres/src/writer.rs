//! Transactions that write: their connections, and running them again when others stood in the way.
//!
//! Work in bulk has a share of the pool of its own, so that a settlement never waits for a connection behind an import. What two
//! transactions do to the same rows is for the locks ([`crate::lock`]); what these cannot foresee, Postgres answers with a
//! deadlock or a serialization failure, after which nothing is left of the transaction and it is run again.

use std::sync::Arc;

use futures::future::BoxFuture;
use sqlx::postgres::{PgConnection, PgPool};
use sqlx::{Postgres, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wa_core::store::WriteClass;

use crate::error::{Done, Fail};

/// The connections that write.
#[derive(Debug)]
pub(crate) struct Writer {
    pool: PgPool,
    /// How many transactions of [`WriteClass::Bulk`] run at once.
    bulk: Arc<Semaphore>,
    retries: u32,
}

/// A transaction that runs, with its share of the pool.
pub(crate) struct Running {
    tx: Transaction<'static, Postgres>,
    share: Option<OwnedSemaphorePermit>,
}

impl Writer {
    pub(crate) fn new(pool: PgPool, connections: u32, retries: u32) -> Self {
        let bulk = (connections / 4).max(1) as usize;
        Self {
            pool,
            bulk: Arc::new(Semaphore::new(bulk)),
            retries,
        }
    }

    /// Begins a transaction on a connection of the pool. One that broke while it was idle is left for another.
    pub(crate) async fn begin_tx(&self) -> Done<Transaction<'static, Postgres>> {
        let mut broken = 0;
        loop {
            match self.pool.begin().await {
                Err(sqlx::Error::Io(_)) if broken < self.pool.size() => broken += 1,
                begun => return Ok(begun?),
            }
        }
    }

    /// Begins a transaction of a class.
    pub(crate) async fn begin(&self, class: WriteClass) -> Done<Running> {
        let share = match class {
            WriteClass::Bulk => Some(self.bulk.clone().acquire_owned().await.map_err(|_| Fail::Lost)?),
            WriteClass::Settle | WriteClass::Begin | WriteClass::Api => None,
        };
        let tx = self.begin_tx().await?;
        Ok(Running { tx, share })
    }

    /// Runs work in a transaction until it is neither refused nor in anybody's way.
    pub(crate) async fn run<T, W>(&self, running: Running, work: &W) -> Done<T>
    where
        W: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Done<T>>,
    {
        let mut retries = self.retries;
        let Running { mut tx, share: _share } = running;
        loop {
            let fail = match work(&mut tx).await {
                Ok(value) => return tx.commit().await.map(|()| value).map_err(Fail::Sql),
                Err(fail) => fail,
            };
            // Where even this fails, the connection is not used again.
            let _ = tx.rollback().await;
            if !fail.passes() || retries == 0 {
                return Err(fail);
            }
            retries -= 1;
            tracing::debug!(fail = ?fail, "a transaction is run again");
            // It keeps its share: another one would be waited for while this one is held.
            tx = self.begin_tx().await?;
        }
    }
}
