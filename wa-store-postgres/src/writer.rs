//! Transactions that write, and running them again when others stood in the way.
//!
//! What two transactions do to the same rows is for the locks ([`crate::lock`]); what these cannot foresee, Postgres answers with a
//! deadlock or a serialization failure, after which nothing is left of the transaction and it is run again, on the same connection.

use futures::future::BoxFuture;
use sqlx::postgres::PgConnection;

use crate::connections::Loan;
use crate::error::{Done, Fail};

/// What runs transactions.
#[derive(Debug)]
pub(crate) struct Writer {
    /// How often one is run again.
    retries: u32,
    /// How many connections may turn out to be broken, one after the other, before a transaction gives up.
    connections: u32,
}

impl Writer {
    pub(crate) const fn new(connections: u32, retries: u32) -> Self {
        Self { retries, connections }
    }

    /// Runs work in a transaction until it is neither refused nor in anybody's way.
    pub(crate) async fn run<T, W>(&self, mut loan: Loan, work: &W) -> Done<T>
    where
        W: for<'c> Fn(&'c mut PgConnection) -> BoxFuture<'c, Done<T>>,
    {
        let mut retries = self.retries;
        loop {
            self.begin(&mut loan).await?;
            let fail = match loan.work(work).await {
                Ok(value) => return loan.commit().await.map(|()| value),
                Err(fail) => fail,
            };
            // Where even this fails, the connection is not used again.
            if !loan.is_broken() {
                let _ = loan.rollback().await;
            }
            if !fail.passes() || retries == 0 {
                return Err(fail);
            }
            retries -= 1;
            tracing::debug!(fail = ?fail, "a transaction is run again");
            if loan.is_broken() {
                loan.exchange().await?;
            }
        }
    }

    /// Begins a transaction. A connection that broke while it was idle is left for another.
    async fn begin(&self, loan: &mut Loan) -> Done<()> {
        let mut broken = 0;
        loop {
            match loan.begin(None).await {
                Err(Fail::Sql(sqlx::Error::Io(_))) if broken < self.connections => broken += 1,
                begun => return begun,
            }
            loan.exchange().await?;
        }
    }
}
