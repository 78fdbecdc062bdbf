//! Rows by the million: made by SQL inside the database, without care for durability, and the indexes after them.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use wa_core::domain::lead::TargetStatus;
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::id::{SequenceId, StepId, UserId};
use wa_core::seed::Seed;

use crate::by_hand::{ROWS, run, values};
use crate::stage::Stage;

/// The tables that are filled: their indexes are made when the rows are in.
const TABLES: &str = "('leads', 'lead_tokens', 'messages', 'attempts', 'enrolments')";

/// The numbers from 0 on.
const NUMBERS: &str = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?1) ";

/// Which device a lead has: such that any regular choice of leads is spread over all devices.
const DEVICE: &str = "device d ON d.n = (i + i / (SELECT count(*) FROM device)) % (SELECT count(*) FROM device)";

/// The number of a lead, from 0 to 9,999,999.
pub fn phone(number: usize) -> Phone {
    Phone::from_e164(&format!("+6012{number:07}")).expect("the number is well formed")
}

/// A database that is being filled.
pub struct Filler<'a> {
    stage: &'a Stage,
    connection: SqliteConnection,
    indexes: Vec<String>,
}

impl<'a> Filler<'a> {
    /// Opens a database that nobody else uses.
    pub async fn open(stage: &'a Stage, file: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .foreign_keys(false)
            .journal_mode(SqliteJournalMode::Off)
            .synchronous(SqliteSynchronous::Off)
            .pragma("temp_store", "MEMORY")
            .pragma("cache_size", "-1048576")
            .disable_statement_logging();
        let mut connection = options.connect().await.expect("the database opens");
        let sql = format!(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN {TABLES}"
        );
        let found: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(sql))
            .fetch_all(&mut connection)
            .await
            .expect("the indexes are listed");
        for (name, _) in &found {
            let drop = sqlx::query(AssertSqlSafe(format!("DROP INDEX {name}")));
            drop.execute(&mut connection).await.expect("the index goes");
        }
        run(
            &mut connection,
            "CREATE TEMP TABLE device (n INTEGER PRIMARY KEY, id BLOB)",
        )
        .await;
        run(
            &mut connection,
            "CREATE TEMP TABLE person (n INTEGER PRIMARY KEY, id BLOB)",
        )
        .await;
        run(
            &mut connection,
            "INSERT INTO device SELECT row_number() OVER (ORDER BY id) - 1, id FROM devices",
        )
        .await;
        Self {
            stage,
            connection,
            indexes: found.into_iter().map(|(_, sql)| sql).collect(),
        }
    }

    /// Makes the indexes and closes the database.
    pub async fn close(mut self) {
        for sql in &self.indexes {
            let create = sqlx::query(AssertSqlSafe(sql.clone()));
            create.execute(&mut self.connection).await.expect("the index is made");
        }
        run(&mut self.connection, "PRAGMA journal_mode = WAL").await;
        self.connection.close().await.expect("the database closes");
    }

    async fn run<'q>(&mut self, sql: String, bind: impl FnOnce(Query<'q>) -> Query<'q>) {
        let statement = bind(sqlx::query(AssertSqlSafe(sql)));
        statement.execute(&mut self.connection).await.expect("the rows go in");
    }

    /// Leads, with one trigger or none, matched already.
    pub async fn leads(&mut self, count: usize, trigger: &'static str) {
        let (user, now) = (self.stage.user, self.stage.now.as_millis());
        let sql = format!(
            "{NUMBERS} INSERT INTO leads (id, user_id, device_id, name, name_key, phone, niches, triggers, tags, target_status,
                journey, pipeline_status, created_at, updated_at, version)
            SELECT unhex(printf('01900000000010008000%012x', i)), ?2, d.id, 'Ali bin Abu ' || i, 'ali bin abu ' || i,
                printf('+6012%07d', i), '', ?3, '', ?4, '', '', ?5, ?5, 1
            FROM n CROSS JOIN {DEVICE}"
        );
        self.run(sql, |statement| {
            statement
                .bind(i64::try_from(count).expect("a small number"))
                .bind(user.as_bytes().to_vec())
                .bind(trigger)
                .bind(TargetStatus::default() as u8)
                .bind(now)
        })
        .await;
        if !trigger.is_empty() {
            let words =
                "INSERT INTO lead_tokens (user_id, kind, token, lead_id) SELECT user_id, 2, triggers, id FROM leads";
            self.run(words.to_owned(), |statement| statement).await;
        }
    }

    /// The persons behind the numbers, which SQL cannot make.
    pub async fn persons(&mut self, seed: &Seed, count: usize) {
        let user: UserId = self.stage.user;
        let numbers: Vec<usize> = (0..count).collect();
        for page in numbers.chunks(ROWS) {
            let sql = format!("INSERT INTO person VALUES {}", values("(?,?)", page.len()));
            let keys = page.iter().map(|number| PersonKey::of(seed, user, &phone(*number)));
            let keys: Vec<_> = keys.map(|key| key.as_bytes().to_vec()).collect();
            self.run(sql, |statement| {
                page.iter().zip(keys).fold(statement, |statement, (number, key)| {
                    statement
                        .bind(i64::try_from(*number).expect("a small number"))
                        .bind(key)
                })
            })
            .await;
        }
    }

    /// Queued messages of the campaign to the first leads, all due.
    pub async fn campaign(&mut self, count: usize) {
        let Stage {
            user, campaign, now, ..
        } = *self.stage;
        let sql = format!(
            "{NUMBERS} INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, lead_id, phone, person,
                name, device_id, from_pool, override_suppression, due_at, expires_at, state, created_at)
            SELECT unhex(printf('01900000000070008000%012x', i)), ?2, 1, ?3, 2, randomblob(16), 0, l.id, l.phone, p.id,
                '', l.device_id, 0, 0, ?4, ?4 + 604800000, 1, ?4
            FROM n CROSS JOIN person p ON p.n = i CROSS JOIN leads l ON l.id = unhex(printf('01900000000010008000%012x', i))"
        );
        self.run(sql, |statement| {
            statement
                .bind(i64::try_from(count).expect("a small number"))
                .bind(user.as_bytes().to_vec())
                .bind(campaign.as_bytes().to_vec())
                .bind(now.as_millis())
        })
        .await;
        self.tallies(1).await;
    }

    async fn tallies(&mut self, scope_kind: u8) {
        let sql = "
            INSERT INTO tallies (user_id, scope_kind, scope_id, device_id, done, failed, skipped, unknown, cancelled, remaining,
                delivered, undelivered, read, replied)
            SELECT user_id, scope_kind, scope_id, device_id, sum(state = 5), 0, 0, 0, 0, sum(state < 5), 0, 0, 0, 0
            FROM messages WHERE scope_kind = ?1 GROUP BY user_id, scope_kind, scope_id, device_id";
        self.run(sql.to_owned(), |statement| statement.bind(scope_kind)).await;
    }

    /// An open enrolment of each lead in a sequence, equally many at each step: with the sent messages and the attempts of
    /// the steps before, days ago, and the queued message of the active one. So many are due, within the last hour, the
    /// others one after the other from now on: who was enrolled in the same hour is due in the same hour.
    pub async fn enrolments(&mut self, sequence: SequenceId, steps: &[StepId], count: usize, due: usize) {
        let Stage { user, now, .. } = *self.stage;
        run(
            &mut self.connection,
            "CREATE TEMP TABLE step (n INTEGER PRIMARY KEY, id BLOB)",
        )
        .await;
        for (number, id) in steps.iter().enumerate() {
            let number = i64::try_from(number).expect("a small number");
            let id = id.as_bytes().to_vec();
            self.run("INSERT INTO step VALUES (?, ?)".to_owned(), |statement| {
                statement.bind(number).bind(id)
            })
            .await;
        }
        let whole = |number: usize| i64::try_from(number).expect("a small number");
        let length = whole(steps.len());
        // So many are at each step, and so many of them due.
        let (block, due) = (whole(count.div_ceil(steps.len())), whole(due.div_ceil(steps.len())));
        let sql = format!(
            "{NUMBERS} INSERT INTO enrolments (id, user_id, sequence_id, lead_id, phone, person, device_id, token, root_id,
                entry_step_id, steps_version, step_id, due_at, state, created_at)
            SELECT unhex(printf('01900000000050008000%012x', i)), ?2, ?3, l.id, l.phone, p.id, l.device_id, 'cold',
                unhex(printf('01900000000050008000%012x', i)), (SELECT id FROM step WHERE n = 0), 1, s.id,
                ?5 - 3600000 + i % ?4 * 3600000 / ?6, 1, ?5 - 864000000
            FROM n CROSS JOIN person p ON p.n = i CROSS JOIN step s ON s.n = i / ?4
            CROSS JOIN leads l ON l.id = unhex(printf('01900000000010008000%012x', i))"
        );
        self.run(sql, |statement| {
            statement
                .bind(whole(count))
                .bind(user.as_bytes().to_vec())
                .bind(sequence.as_bytes().to_vec())
                .bind(block)
                .bind(now.as_millis())
                .bind(due)
        })
        .await;
        for step in 0..steps.len() {
            self.step(whole(step), length, block).await;
        }
        self.tallies(2).await;
        for sql in [
            "INSERT INTO step_tallies (sequence_id, step_id, device_id, done, failed, skipped, unknown, cancelled, remaining,
                delivered, undelivered, read, replied)
            SELECT scope_id, step_id, device_id, sum(state = 5), 0, 0, 0, 0, sum(state < 5), 0, 0, 0, 0
            FROM messages WHERE scope_kind = 2 GROUP BY scope_id, step_id, device_id",
            "INSERT INTO enrolment_counts (sequence_id, steps_version, step_id, device_id, state, reason, count)
            SELECT sequence_id, steps_version, step_id, device_id, state, 0, count(*) FROM enrolments
            GROUP BY sequence_id, steps_version, step_id, device_id, state",
            "UPDATE sequences SET cursor_kind = 3, cursor_lead = NULL",
        ] {
            self.run(sql.to_owned(), |statement| statement).await;
        }
    }

    /// The messages of one step, and the attempts where it is passed. Ids come in the order of steps.
    async fn step(&mut self, step: i64, length: i64, block: i64) {
        let now = self.stage.now.as_millis();
        let days = 86_400_000 * (length - step) * 3;
        let number = "CAST(substr(l.phone, 6) AS INTEGER)";
        let at_step = format!("{number} / ?3");
        let sql = format!(
            "INSERT INTO messages (id, user_id, scope_kind, scope_id, enrolment_id, step_id, steps_version, priority, key, round,
                lead_id, phone, person, name, device_id, from_pool, override_suppression, due_at, expires_at, state, attempt_id,
                epoch, settled_at, created_at)
            SELECT unhex(printf('0190000000{step:02}70008000%012x', {number})), e.user_id, 2, e.sequence_id, e.id, s.id, 1, 1,
                randomblob(16), 0, l.id, l.phone, e.person, l.name, e.device_id, 0, 0,
                iif({at_step} = ?2, e.due_at, ?1 - ?4), ?1 + 864000000, iif({at_step} = ?2, 1, 5),
                iif({at_step} = ?2, NULL, unhex(printf('0190000000{step:02}90008000%012x', {number}))),
                iif({at_step} = ?2, NULL, 1), iif({at_step} = ?2, NULL, ?1 - ?4), ?1 - ?4 - 86400000
            FROM enrolments e CROSS JOIN leads l ON l.id = e.lead_id CROSS JOIN step s ON s.n = ?2
            WHERE {at_step} >= ?2 ORDER BY e.id"
        );
        self.run(sql, |statement| statement.bind(now).bind(step).bind(block).bind(days))
            .await;
        let sql = "
            INSERT INTO attempts (id, message_id, device_id, epoch, text, attempted_at)
            SELECT m.attempt_id, m.id, m.device_id, 1, 'Hi Ali bin Abu, buy it today', m.settled_at FROM messages m
            WHERE m.step_id = (SELECT id FROM step WHERE n = ?1) AND m.state = 5 ORDER BY m.seq";
        self.run(sql.to_owned(), |statement| statement.bind(step)).await;
    }
}

type Query<'q> = sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>;
