//! Statistics that keep up with tables that grow fast.
//!
//! A plan is as good as what Postgres knows of its tables. Autovacuum finds out once a minute, and an import fills an empty table with
//! a hundred thousand rows in less: until then a statement could go through all leads of a user to find one. So
//! what a store has written makes it look, now and then, for tables that doubled since they were last analysed, and analyse them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sqlx::AssertSqlSafe;
use wa_core::store::WriteClass;

use crate::connections::Connections;
use crate::error::Done;
use crate::insert::query;
use crate::row::read_all;

/// Rows that are written between two looks.
const LOOK_EVERY: u64 = 1_000;

/// The tables of a schema that have twice the rows, or pages, that they had when they were last analysed. What a connection wrote
/// is counted as rows up to a second later; pages are there at once. Catalogues and sizes of files alone.
const GROWN: &str = "
    SELECT s.relname::text FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
    WHERE s.schemaname = $1 AND (
        s.n_live_tup > 500 + 2 * greatest(c.reltuples, 0) OR pg_relation_size(c.oid) / 8192 > 8 + 2 * greatest(c.relpages, 0)
    ) ORDER BY s.relname";

/// How closely a table is looked at: 300 rows for each of these, a tenth of what autovacuum reads. How many rows there are is what matters.
const SAMPLE: &str = "SET LOCAL default_statistics_target = 10";

/// What was written, and whether somebody looks.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    rows: AtomicU64,
    looking: AtomicBool,
}

impl Growth {
    /// Notes rows that were written, and looks, in a task of its own, where there were enough of them.
    pub(crate) fn note(self: &Arc<Self>, connections: &Connections, schema: &str, rows: u64) {
        let before = self.rows.fetch_add(rows, Ordering::Relaxed);
        if before / LOOK_EVERY == (before + rows) / LOOK_EVERY || self.looking.swap(true, Ordering::Acquire) {
            return;
        }
        let (growth, connections, schema) = (self.clone(), connections.clone(), schema.to_owned());
        tokio::spawn(async move {
            if let Err(fail) = analyse_grown(&connections, &schema).await {
                tracing::debug!(?fail, "statistics stay as they are");
            }
            growth.looking.store(false, Ordering::Release);
        });
    }
}

/// Analyses the tables that doubled, and names them. It stands in nobody's way: no statement waits for it but another of its kind, and
/// its connection is one of those for work in bulk.
async fn analyse_grown(connections: &Connections, schema: &str) -> Done<Vec<String>> {
    let mut connection = connections.writer(WriteClass::Bulk).await?;
    let rows = query(GROWN).bind(schema.to_owned()).fetch_all(&mut connection).await?;
    let tables = read_all(&rows, |c| c.text())?;
    for table in &tables {
        connection.begin(None).await?;
        query(SAMPLE).execute(&mut connection).await?;
        // The schema and the tables are the store's own, whose names need no quotes.
        let analyse = AssertSqlSafe(format!("ANALYZE {schema}.{table}"));
        query(analyse).execute(&mut connection).await?;
        connection.commit().await?;
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use wa_core::conformance::fixtures::Fixtures;
    use wa_core::store::{Change, ChangeSet, OnDuplicate, Store};

    use super::*;
    use crate::PostgresStore;
    use crate::server::Schema;

    #[tokio::test]
    async fn tables_that_grew_are_analysed_and_those_that_did_not_are_left_alone() {
        let schema = Schema::new();
        let store = PostgresStore::open(schema.options()).await.unwrap();
        let rows = Fixtures::new(1);
        let user = rows.user().id;
        let device = rows.device(user);
        let set = ChangeSet::one(Change::InsertDevice(Box::new(device.clone())));
        let set = (0..600).fold(set, |set, _| {
            set.and(Change::InsertLead {
                lead: Box::new(rows.lead(user, Some(device.id))),
                on_duplicate: OnDuplicate::Refuse,
            })
        });
        store.commit(set, WriteClass::Api, rows.start()).await.unwrap();
        // What a connection wrote is counted when it ends.
        store.close().await;
        let store = PostgresStore::open(schema.options()).await.unwrap();
        let mut analysed = Vec::new();
        while analysed.is_empty() {
            analysed = analyse_grown(&store.inner.connections, schema.name()).await.unwrap();
        }
        assert!(analysed.contains(&"leads".to_owned()), "{analysed:?}");
        assert!(!analysed.contains(&"devices".to_owned()), "{analysed:?}");
        assert_eq!(
            analyse_grown(&store.inner.connections, schema.name()).await.unwrap(),
            Vec::<String>::new()
        );
    }
}
