//! The same work in SQL written for this one purpose: no gate, no events, no idempotency beyond the schema's own, rows
//! ready in memory; the store's schema, pragmas and durability, statements prepared once per connection.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Row};
use wa_core::domain::message::Message;
use wa_core::id::AttemptId;
use wa_store_sqlite::SqliteOptions;

use crate::stage::Stage;

/// Rows per statement and transaction.
pub const ROWS: usize = 1_000;

/// A connection as the store's writer has it.
pub async fn connect(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(file)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", "4096")
        .pragma("temp_store", "MEMORY")
        .pragma("cache_size", format!("-{}", SqliteOptions::CACHE_KIB))
        .disable_statement_logging()
        .connect()
        .await
        .expect("the database opens")
}

/// Moves everything from the log into the file, so that the file alone can be copied.
pub async fn checkpoint(file: &Path) {
    let mut connection = connect(file).await;
    let busy: i64 = sqlx::query_scalar("PRAGMA wal_checkpoint(TRUNCATE)")
        .fetch_one(&mut connection)
        .await
        .expect("the log is moved");
    assert_eq!(busy, 0, "nobody else uses the database");
    connection.close().await.expect("the database closes");
}

/// Runs a statement without parameters.
pub async fn run(connection: &mut SqliteConnection, sql: &'static str) {
    sqlx::query(sql).execute(connection).await.expect("the statement runs");
}

/// So many rows of parameters.
pub fn values(row: &str, rows: usize) -> String {
    vec![row; rows].join(",")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn json(words: impl Iterator<Item = String>) -> String {
    let words: Vec<_> = words.map(|word| format!("\"{word}\"")).collect();
    format!("[{}]", words.join(","))
}

/// Writes queued messages: one statement per [`ROWS`] rows, with their tallies in the same transaction.
pub async fn enqueue(connection: &mut SqliteConnection, messages: &[Message]) {
    for page in messages.chunks(ROWS) {
        let sql = format!(
            "INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, lead_id, phone, person, name,
                device_id, from_pool, override_suppression, due_at, expires_at, state, created_at) VALUES {}",
            values("(?,?,1,?,2,?,0,?,?,?,'',?,0,0,?,?,1,?)", page.len())
        );
        run(connection, "BEGIN IMMEDIATE").await;
        let mut insert = sqlx::query(AssertSqlSafe(sql));
        for m in page {
            insert = insert
                .bind(m.id.as_bytes().as_slice())
                .bind(m.user_id.as_bytes().as_slice())
                .bind(m.scope.id_bytes(&m.user_id).to_vec())
                .bind(m.key.as_bytes().as_slice())
                .bind(m.lead_id.as_ref().map(|id| id.as_bytes().as_slice()))
                .bind(m.phone.as_ref().map(|phone| phone.as_e164()))
                .bind(m.person.as_bytes().as_slice())
                .bind(m.device_id.as_ref().map(|id| id.as_bytes().as_slice()))
                .bind(m.due_at.as_millis())
                .bind(m.expires_at.as_millis())
                .bind(m.created_at.as_millis());
        }
        insert.execute(&mut *connection).await.expect("the rows go in");
        let mut counts = std::collections::BTreeMap::new();
        for device in page.iter().filter_map(|m| m.device_id) {
            *counts.entry(device).or_insert(0_i64) += 1;
        }
        let sql = format!(
            "INSERT INTO tallies (user_id, scope_kind, scope_id, device_id, remaining, done, failed, skipped, unknown,
                cancelled, delivered, undelivered, read, replied)
            VALUES {} ON CONFLICT DO UPDATE SET remaining = remaining + excluded.remaining",
            values("(?,1,?,?,?,0,0,0,0,0,0,0,0,0)", counts.len())
        );
        let mut tallies = sqlx::query(AssertSqlSafe(sql));
        for (device, count) in &counts {
            tallies = tallies
                .bind(page[0].user_id.as_bytes().as_slice())
                .bind(page[0].scope.id_bytes(&page[0].user_id).to_vec())
                .bind(device.as_bytes().as_slice())
                .bind(count);
        }
        tallies.execute(&mut *connection).await.expect("the tallies go in");
        run(connection, "COMMIT").await;
    }
}

/// The head of each lane, with the name that its text needs.
const HEADS: &str = "
    SELECT m.seq, m.id, m.device_id, l.name
    FROM json_each(?) j
    CROSS JOIN messages m ON m.seq = (
        SELECT h.seq FROM messages h INDEXED BY messages_queue WHERE h.state = 1 AND h.device_id = unhex(j.value)
        ORDER BY h.priority, h.scope_id, h.due_at, h.id LIMIT 1)
    CROSS JOIN leads l ON l.id = m.lead_id";

const SENT: &str =
    "UPDATE messages SET state = 5, settled_at = ?2 WHERE seq IN (SELECT value FROM json_each(?1)) AND state = 3";

const TALLY: &str = "
    UPDATE tallies SET done = done + 1, remaining = remaining - 1
    WHERE user_id = ?1 AND scope_kind = 1 AND scope_id = ?2 AND device_id IN (SELECT unhex(value) FROM json_each(?3))";

struct Head {
    seq: i64,
    id: Vec<u8>,
    device: Vec<u8>,
    attempt: AttemptId,
    text: String,
}

/// Sends everything that is queued, a round of one message per lane at a time, of which `rows` are begun and settled together;
/// gives how many.
pub async fn drain(connection: &mut SqliteConnection, stage: &Stage, rows: usize) -> usize {
    let lanes = json(stage.devices.iter().map(|id| hex(id.as_bytes())));
    let now = stage.now.as_millis();
    let mut sent = 0;
    loop {
        let found = sqlx::query(HEADS).bind(&lanes).fetch_all(&mut *connection).await;
        let heads: Vec<Head> = found
            .expect("the heads are read")
            .iter()
            .map(|row| Head {
                seq: row.get(0),
                id: row.get(1),
                device: row.get(2),
                attempt: AttemptId::new(&stage.ids, stage.now),
                text: format!("Hi {}, buy it today", row.get::<&str, _>(3)),
            })
            .collect();
        if heads.is_empty() {
            return sent;
        }
        for chunk in heads.chunks(rows) {
            begin(connection, chunk, now).await;
            settle(connection, stage, chunk, now).await;
        }
        sent += heads.len();
    }
}

async fn begin(connection: &mut SqliteConnection, heads: &[Head], now: i64) {
    run(connection, "BEGIN IMMEDIATE").await;
    let sql = format!(
        "UPDATE messages SET state = 3, attempt_id = v.column2, epoch = 1 FROM (VALUES {}) v
        WHERE messages.seq = v.column1",
        values("(?,?)", heads.len())
    );
    let mut update = sqlx::query(AssertSqlSafe(sql));
    for head in heads {
        update = update.bind(head.seq).bind(head.attempt.as_bytes().as_slice());
    }
    update.execute(&mut *connection).await.expect("the messages are begun");
    let sql = format!(
        "INSERT INTO attempts (id, message_id, device_id, epoch, text, attempted_at) VALUES {}",
        values("(?,?,?,1,?,?)", heads.len())
    );
    let mut insert = sqlx::query(AssertSqlSafe(sql));
    for head in heads {
        insert = insert
            .bind(head.attempt.as_bytes().as_slice())
            .bind(&head.id)
            .bind(&head.device)
            .bind(&head.text)
            .bind(now);
    }
    insert.execute(&mut *connection).await.expect("the attempts go in");
    run(connection, "COMMIT").await;
}

async fn settle(connection: &mut SqliteConnection, stage: &Stage, heads: &[Head], now: i64) {
    run(connection, "BEGIN IMMEDIATE").await;
    let list: Vec<_> = heads.iter().map(|head| head.seq.to_string()).collect();
    let update = sqlx::query(SENT).bind(format!("[{}]", list.join(","))).bind(now);
    update
        .execute(&mut *connection)
        .await
        .expect("the messages are settled");
    let devices = json(heads.iter().map(|head| hex(&head.device)));
    let update = sqlx::query(TALLY)
        .bind(stage.user.as_bytes().as_slice())
        .bind(stage.campaign.as_bytes().as_slice())
        .bind(devices);
    update.execute(&mut *connection).await.expect("the tallies follow");
    run(connection, "COMMIT").await;
}

/// How many messages are queued and sent, as the rows and as the tallies have it.
pub async fn numbers(file: &Path) -> [i64; 4] {
    let mut connection = connect(file).await;
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM messages WHERE state = 1), (SELECT count(*) FROM messages WHERE state = 5),
            (SELECT coalesce(sum(remaining), 0) FROM tallies), (SELECT coalesce(sum(done), 0) FROM tallies)",
    );
    let row = row.fetch_one(&mut connection).await.expect("the numbers are read");
    connection.close().await.expect("the database closes");
    [row.get(0), row.get(1), row.get(2), row.get(3)]
}
