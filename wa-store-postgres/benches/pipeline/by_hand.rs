//! The same work in SQL written for this one purpose: no gate, no events, no locks, no idempotency beyond the schema's own, rows
//! ready in memory; the store's schema, settings and durability, one connection, statements prepared once.

use futures::TryStreamExt;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, Row};
use uuid::Uuid;
use wa_core::domain::message::Message;
use wa_core::id::AttemptId;
use wa_store_postgres::PostgresOptions;

use crate::stage::Stage;

/// Rows per statement and transaction.
pub const ROWS: usize = 1_000;

/// A connection as the store has them.
pub async fn connect(stage: &Stage) -> PgConnection {
    let options: PgConnectOptions = stage.url().parse().expect("an address");
    options
        .options([
            ("search_path", PostgresOptions::SCHEMA),
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("join_collapse_limit", "1"),
            ("jit", "off"),
        ])
        .disable_statement_logging()
        .connect()
        .await
        .expect("the database opens")
}

/// Runs a statement without parameters.
pub async fn run(connection: &mut PgConnection, sql: &'static str) {
    sqlx::query(sql).execute(connection).await.expect("the statement runs");
}

/// An id as a parameter.
pub fn uuid(bytes: &[u8; 16]) -> Uuid {
    Uuid::from_bytes(*bytes)
}

const ENQUEUE: &str = "
    WITH added AS (
        INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, lead_id, phone, person, name, device_id,
            from_pool, override_suppression, due_at, expires_at, state, created_at)
        SELECT i.id, $8, 1, $9, 2, i.key, 0, i.lead_id, i.phone, i.person, '', i.device_id, false, false, $7, i.expires_at, 1, $7
        FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[], $5::uuid[], $6::uuid[], $10::bigint[])
            AS i (id, key, lead_id, phone, person, device_id, expires_at)
        RETURNING id, device_id, scope_id, due_at, expires_at
    )
    INSERT INTO queue (device_id, priority, scope_id, due_at, message_id, expires_at, from_pool)
    SELECT n.device_id, 2, n.scope_id, n.due_at, n.id, n.expires_at, false FROM added n";

const COUNT: &str = "
    INSERT INTO tallies (user_id, scope_kind, scope_id, device_id, remaining, done, failed, skipped, unknown, cancelled, delivered,
        undelivered, read, replied)
    SELECT $2, 1, $3, i.device_id, count(*), 0, 0, 0, 0, 0, 0, 0, 0, 0 FROM unnest($1::uuid[]) AS i (device_id)
    GROUP BY i.device_id
    ON CONFLICT (scope_id, device_id, scope_kind) DO UPDATE SET remaining = tallies.remaining + excluded.remaining";

/// Writes queued messages with their tallies, [`ROWS`] per transaction.
pub async fn enqueue(connection: &mut PgConnection, stage: &Stage, messages: &[Message]) {
    for page in messages.chunks(ROWS) {
        let of = |key: fn(&Message) -> Option<Uuid>| page.iter().map(key).collect::<Vec<_>>();
        let devices = of(|m| m.device_id.map(|id| uuid(id.as_bytes())));
        run(connection, "BEGIN").await;
        sqlx::query(ENQUEUE)
            .bind(of(|m| Some(uuid(m.id.as_bytes()))))
            .bind(of(|m| Some(uuid(m.key.as_bytes()))))
            .bind(of(|m| m.lead_id.map(|id| uuid(id.as_bytes()))))
            .bind(
                page.iter()
                    .map(|m| m.phone.map(|phone| phone.as_e164().to_owned()))
                    .collect::<Vec<_>>(),
            )
            .bind(of(|m| Some(uuid(m.person.as_bytes()))))
            .bind(&devices)
            .bind(stage.now.as_millis())
            .bind(uuid(stage.user.as_bytes()))
            .bind(uuid(stage.campaign.as_bytes()))
            .bind(page.iter().map(|m| m.expires_at.as_millis()).collect::<Vec<_>>())
            .execute(&mut *connection)
            .await
            .expect("the rows go in");
        sqlx::query(COUNT)
            .bind(&devices)
            .bind(uuid(stage.user.as_bytes()))
            .bind(uuid(stage.campaign.as_bytes()))
            .execute(&mut *connection)
            .await
            .expect("the tallies go in");
        run(connection, "COMMIT").await;
    }
}

/// The columns of messages that are written: all but those that are made of others.
const COLUMNS: &str = "
    SELECT string_agg(column_name, ', ' ORDER BY ordinal_position)::text FROM information_schema.columns
    WHERE table_schema = current_schema() AND table_name = $1 AND is_generated = 'NEVER'";

/// What an expansion writes.
const EXPANDED: [&str; 3] = ["messages", "queue", "tallies"];

async fn columns(connection: &mut PgConnection, table: &str) -> String {
    let columns = sqlx::query_scalar(COLUMNS).bind(table).fetch_one(connection).await;
    columns.expect("the table has columns")
}

/// The rows of an expansion, per table, in the binary format of COPY.
pub async fn copy_out(connection: &mut PgConnection) -> Vec<Vec<u8>> {
    let mut tables = Vec::new();
    for table in EXPANDED {
        let sql = format!(
            "COPY {table} ({}) TO STDOUT (FORMAT binary)",
            columns(connection, table).await
        );
        let rows = connection.copy_out_raw(&sql).await.expect("the rows are read");
        let parts: Vec<_> = rows.try_collect().await.expect("the rows are read");
        tables.push(parts.concat());
    }
    tables
}

/// Writes such rows, all in one transaction.
pub async fn copy_in(connection: &mut PgConnection, tables: Vec<Vec<u8>>) {
    run(connection, "BEGIN").await;
    for (table, rows) in EXPANDED.into_iter().zip(tables) {
        let sql = format!(
            "COPY {table} ({}) FROM STDIN (FORMAT binary)",
            columns(connection, table).await
        );
        let mut copy = connection.copy_in_raw(&sql).await.expect("the rows are taken");
        for part in rows.chunks(COPY_PART) {
            copy.send(part).await.expect("the rows are taken");
        }
        copy.finish().await.expect("the rows are written");
    }
    run(connection, "COMMIT").await;
}

/// Bytes that are sent at a time.
const COPY_PART: usize = 1 << 20;

/// The head of each lane, with the name that its text needs.
const HEADS: &str = "
    SELECT m.id, m.device_id, l.name
    FROM unnest($1::uuid[]) AS lane (device_id)
    CROSS JOIN LATERAL (
        SELECT q.message_id FROM queue q WHERE q.device_id = lane.device_id
        ORDER BY q.priority, q.scope_id, q.due_at, q.message_id LIMIT 1
    ) AS h
    JOIN messages m ON m.id = h.message_id JOIN leads l ON l.id = m.lead_id";

const BEGIN: &str = "
    WITH i AS MATERIALIZED (
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) AS i (id, attempt_id, device_id, text)
    ), begun AS (
        UPDATE messages m SET state = 3, attempt_id = i.attempt_id, epoch = 1 FROM i WHERE m.id = i.id AND m.state = 1
        RETURNING m.id, m.device_id, m.priority, m.scope_id, m.due_at
    ), taken AS (
        DELETE FROM queue q USING begun b
        WHERE q.device_id = b.device_id AND q.priority = b.priority AND q.scope_id = b.scope_id AND q.due_at = b.due_at
            AND q.message_id = b.id
    ), occupied AS (
        UPDATE lanes l SET message_id = b.id, turn = l.turn + 1 FROM begun b WHERE l.device_id = b.device_id
    )
    INSERT INTO attempts (id, message_id, device_id, epoch, text, attempted_at)
    SELECT i.attempt_id, i.id, i.device_id, 1, i.text, $5 FROM i";

const SETTLE: &str = "
    WITH sent AS (
        UPDATE messages m SET state = 5, settled_at = $2 FROM unnest($1::uuid[]) AS i (id)
        WHERE m.id = i.id AND m.state = 3 RETURNING m.id, m.device_id
    ), noted AS (
        INSERT INTO outcomes (message_id, scope_id, settled_at) SELECT s.id, $4, $2 FROM sent s
    )
    UPDATE tallies t SET done = t.done + 1, remaining = t.remaining - 1 FROM sent s
    WHERE t.user_id = $3 AND t.scope_kind = 1 AND t.scope_id = $4 AND t.device_id = s.device_id";

/// Sends everything that is queued, a round of one message per lane at a time, of which `rows` are begun and settled together;
/// gives how many.
pub async fn drain(connection: &mut PgConnection, stage: &Stage, rows: usize) -> usize {
    let lanes: Vec<Uuid> = stage.devices.iter().map(|id| uuid(id.as_bytes())).collect();
    let now = stage.now.as_millis();
    let mut sent = 0;
    loop {
        let found = sqlx::query(HEADS).bind(&lanes).fetch_all(&mut *connection).await;
        let heads: Vec<(Uuid, Uuid, Uuid, String)> = found
            .expect("the heads are read")
            .iter()
            .map(|row| {
                let attempt = AttemptId::new(&stage.ids, stage.now);
                let text = format!("Hi {}, buy it today", row.get::<&str, _>(2));
                (row.get(0), uuid(attempt.as_bytes()), row.get(1), text)
            })
            .collect();
        if heads.is_empty() {
            return sent;
        }
        for chunk in heads.chunks(rows) {
            let ids: Vec<Uuid> = chunk.iter().map(|head| head.0).collect();
            sqlx::query(BEGIN)
                .bind(&ids)
                .bind(chunk.iter().map(|head| head.1).collect::<Vec<_>>())
                .bind(chunk.iter().map(|head| head.2).collect::<Vec<_>>())
                .bind(chunk.iter().map(|head| head.3.clone()).collect::<Vec<_>>())
                .bind(now)
                .execute(&mut *connection)
                .await
                .expect("the messages are begun");
            sqlx::query(SETTLE)
                .bind(&ids)
                .bind(now)
                .bind(uuid(stage.user.as_bytes()))
                .bind(uuid(stage.campaign.as_bytes()))
                .execute(&mut *connection)
                .await
                .expect("the messages are settled");
        }
        sent += heads.len();
    }
}

/// How many messages are queued and sent, as the rows and as the tallies have it.
pub async fn numbers(stage: &Stage) -> [i64; 4] {
    let mut connection = connect(stage).await;
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM messages WHERE state = 1), (SELECT count(*) FROM messages WHERE state = 5),
            (SELECT coalesce(sum(remaining), 0)::bigint FROM tallies), (SELECT coalesce(sum(done), 0)::bigint FROM tallies)",
    );
    let row = row.fetch_one(&mut connection).await.expect("the numbers are read");
    [row.get(0), row.get(1), row.get(2), row.get(3)]
}
