//! What a message costs the write-ahead log, by table and index, from the insert to the settlement.

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::engine;
use crate::large::Sender;
use crate::server::Server;
use crate::stage::Stage;

/// Messages per device.
const EACH: usize = 8;

/// Bytes per record and relation between two places in the log, without images of whole pages.
const BYTES: &str = "
    SELECT coalesce(c.relname::text, 'commits and others'), w.resource_manager || ' ' || w.record_type, count(*),
        sum(w.record_length - w.fpi_length)::bigint
    FROM pg_get_wal_records_info($1::pg_lsn, $2::pg_lsn) w
    LEFT JOIN pg_class c ON pg_relation_filenode(c.oid)::text = substring(w.block_ref FROM '(?:rel|#0:) [0-9]+/[0-9]+/([0-9]+)')
    GROUP BY 1, 2 ORDER BY 4 DESC";

async fn place(connection: &mut PgConnection) -> String {
    let place = sqlx::query_scalar("SELECT pg_current_wal_insert_lsn()::text")
        .fetch_one(connection)
        .await;
    place.expect("the log has an end")
}

/// Prints what the steps of messages cost.
pub async fn measure(server: &Server, devices: usize) {
    let stage = Stage::build(server, "wal", devices, devices * EACH, true).await;
    let mut watch = PgConnection::connect(&stage.url()).await.expect("the database opens");
    let made = sqlx::query("CREATE EXTENSION pg_walinspect").execute(&mut watch).await;
    made.expect("Postgres 15 or newer with its contributed modules");
    let store = stage.open().await;
    let mut places = vec![place(&mut watch).await];
    engine::enqueue(&store, &stage, stage.messages.to_vec()).await;
    places.push(place(&mut watch).await);
    let mut sender = Sender::start(store, stage.now, 1).await;
    sender.text = "x".repeat(200);
    sender.tells_ids = true;
    let messages = stage.messages.len();
    let (mut begun, mut settled) = (Vec::new(), Vec::new());
    for step in 0..messages / crate::large::BATCH {
        let heads = sender.look(step).await;
        let start = place(&mut watch).await;
        let items = sender.begin(&heads).await;
        let middle = place(&mut watch).await;
        sender.settle(&items).await;
        begun.push((start, middle.clone()));
        settled.push((middle, place(&mut watch).await));
    }
    sender.store.close().await;
    let enqueued = [(places[0].clone(), places[1].clone())];
    for (name, spans) in [("enqueue", &enqueued[..]), ("begin", &begun), ("settle", &settled)] {
        let mut sums = std::collections::BTreeMap::<(String, String), (i64, i64)>::new();
        for (from, to) in spans {
            let rows = sqlx::query_as(BYTES).bind(from).bind(to).fetch_all(&mut watch).await;
            let rows: Vec<(String, String, i64, i64)> = rows.expect("the log is read");
            for (relation, record, count, bytes) in rows {
                let sum = sums.entry((relation, record)).or_default();
                *sum = (sum.0 + count, sum.1 + bytes);
            }
        }
        let messages = messages as f64;
        let all: i64 = sums.values().map(|sum| sum.1).sum();
        println!("{name}: {:.0} bytes a message", all as f64 / messages);
        let mut sums: Vec<_> = sums.into_iter().collect();
        sums.sort_by_key(|(_, (_, bytes))| -bytes);
        for ((relation, record), (count, bytes)) in sums {
            let (count, bytes) = (count as f64 / messages, bytes as f64 / messages);
            if bytes >= 1.0 {
                println!("  {bytes:6.0} bytes, {count:5.2} records: {relation}, {record}");
            }
        }
    }
}
