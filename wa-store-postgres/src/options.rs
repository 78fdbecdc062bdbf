//! How a store is opened.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

use crate::error::{Done, Fail};
use crate::row::expose;

/// How a [`PostgresStore`](crate::PostgresStore) is opened.
#[derive(Clone)]
#[must_use]
pub struct PostgresOptions {
    url: SecretString,
    pub(crate) schema: String,
    pub(crate) connections: u32,
    pub(crate) acquire_timeout: Duration,
    statement_timeout: Duration,
    pub(crate) answer_margin: Duration,
    lock_timeout: Duration,
    idle_timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) notify: bool,
}

impl fmt::Debug for PostgresOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresOptions")
            .field("schema", &self.schema)
            .field("connections", &self.connections)
            .field("statement_timeout", &self.statement_timeout)
            .field("answer_margin", &self.answer_margin)
            .field("lock_timeout", &self.lock_timeout)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

impl PostgresOptions {
    /// The schema by default.
    pub const SCHEMA: &'static str = "wa";
    /// Connections of the pool, by default.
    pub const CONNECTIONS: u32 = 10;
    /// Most connections of the pool.
    pub const CONNECTIONS_MAX: u32 = 256;
    /// How long an operation waits for a free connection, by default: 10 s.
    pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(10);
    /// How long one statement may run, by default: 30 s.
    pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(30);
    /// How much longer than a statement may run the store waits for its answer, by default: 5 s.
    pub const ANSWER_MARGIN: Duration = Duration::from_secs(5);
    /// How long the statements of a beat may run, where those of the others may run longer: 5 s.
    pub const BEAT_TIMEOUT: Duration = Duration::from_secs(5);
    /// How long one statement waits for a lock, by default: 5 s.
    pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
    /// How long a transaction may stand still, by default: 4 s, less than others wait for its locks.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
    /// How often a transaction is run again that others stood in the way of, by default.
    pub const RETRIES: u32 = 20;

    /// A database by its address, `postgres://user:password@host:port/database?sslmode=require`; everything that libpq's
    /// addresses know and sqlx reads. TLS is rustls with the roots that it carries; `sslrootcert` names others.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            url: SecretString::from(url.into()),
            schema: Self::SCHEMA.to_owned(),
            connections: Self::CONNECTIONS,
            acquire_timeout: Self::ACQUIRE_TIMEOUT,
            statement_timeout: Self::STATEMENT_TIMEOUT,
            answer_margin: Self::ANSWER_MARGIN,
            lock_timeout: Self::LOCK_TIMEOUT,
            idle_timeout: Self::IDLE_TIMEOUT,
            retries: Self::RETRIES,
            notify: true,
        }
    }

    /// The schema in which all tables stand, with the table of migrations; made if it is missing. A name of 1 to 50 small
    /// letters, digits and `_` that does not begin with a digit or `pg_`; opening refuses any other.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// Connections of the pool, 2 to [`Self::CONNECTIONS_MAX`] (clamped). Work in bulk gets at most a quarter of them, and reads get
    /// what is left but one; of two, each may have one. A store has up to three more beside the pool: for beats, for the lock of the
    /// node's name, and for [`wakes`](crate::PostgresStore::wakes).
    pub fn connections(mut self, connections: u32) -> Self {
        self.connections = connections.clamp(2, Self::CONNECTIONS_MAX);
        self
    }

    /// How long an operation waits for a free connection before it fails with `Unavailable`.
    pub const fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// How long one statement may run before it fails with `Unavailable`; whole milliseconds, zero for no end, also for the
    /// [margin](Self::answer_margin).
    pub const fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout;
        self
    }

    /// How much longer than a statement may run the store waits for the answer of the server, which ends what runs too long by itself.
    /// When that is over the server, or the way to it, is taken for gone: the connection is closed, and the operation fails with
    /// `Unavailable`. What was about to be committed may have been committed then. An idle connection is given the margin alone to
    /// say that it is still there. Migrations have no limit.
    pub const fn answer_margin(mut self, margin: Duration) -> Self {
        self.answer_margin = margin;
        self
    }

    /// How long one statement waits for a lock before its transaction is run again; whole milliseconds, zero for no end.
    pub const fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.lock_timeout = timeout;
        self
    }

    /// How long a transaction of this store may stand still before the server ends it; whole milliseconds, zero for no end. A
    /// process that is stopped, or a machine that is gone, in the middle of a transaction holds its locks no longer, so
    /// that other nodes can take over its devices: keep it well below the lease, and below the lock timeout, so that who waits
    /// for these locks gets them before it gives up.
    pub const fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = timeout;
        self
    }

    /// How often a transaction is run again that others stood in the way of, before it fails with `Unavailable`.
    pub const fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Tells no other node of new messages: each finds them when it looks next, within a second.
    pub const fn quiet(mut self) -> Self {
        self.notify = false;
        self
    }

    /// Whether a schema may have that name: it can stand in a search path as it is.
    #[must_use]
    pub fn is_schema(name: &str) -> bool {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let bytes = name.as_bytes();
        (1..=50).contains(&bytes.len())
            && letter(bytes[0])
            && !name.starts_with("pg_")
            && bytes.iter().all(|byte| letter(*byte) || byte.is_ascii_digit())
    }

    /// How connections of the store are opened.
    ///
    /// Plans never depend on a value, tables are joined in the order in which a statement names them, and one is walked from end to
    /// end only where there is no other way: the statements are written for indexes, and statistics that lag behind a table which
    /// grew fast must not talk the planner out of them.
    pub(crate) fn connect_options(&self) -> Done<PgConnectOptions> {
        let options = self.plain_options()?;
        Ok(options.options([
            ("statement_timeout", self.statement_timeout.as_millis().to_string()),
            ("lock_timeout", self.lock_timeout.as_millis().to_string()),
            (
                "idle_in_transaction_session_timeout",
                self.idle_timeout.as_millis().to_string(),
            ),
            ("plan_cache_mode", "force_generic_plan".to_owned()),
            ("enable_seqscan", "off".to_owned()),
            ("enable_hashjoin", "off".to_owned()),
            ("enable_mergejoin", "off".to_owned()),
            ("join_collapse_limit", "1".to_owned()),
            ("jit", "off".to_owned()),
        ]))
    }

    /// How the connection of beats is opened, by how the others are.
    pub(crate) fn beat_options(&self, options: PgConnectOptions) -> PgConnectOptions {
        options.options([("statement_timeout", self.beat_timeout().as_millis().to_string())])
    }

    /// How long the database may keep silent.
    pub(crate) fn limit(&self) -> Option<Duration> {
        (!self.statement_timeout.is_zero()).then(|| self.statement_timeout + self.answer_margin)
    }

    /// How long the database may keep silent about a beat.
    pub(crate) fn beat_limit(&self) -> Duration {
        self.beat_timeout() + self.answer_margin
    }

    fn beat_timeout(&self) -> Duration {
        let timeout = Some(self.statement_timeout).filter(|timeout| !timeout.is_zero());
        timeout.map_or(Self::BEAT_TIMEOUT, |timeout| timeout.min(Self::BEAT_TIMEOUT))
    }

    /// How the connection is opened that migrates: without limits in time.
    pub(crate) fn plain_options(&self) -> Done<PgConnectOptions> {
        if !Self::is_schema(&self.schema) {
            return Err(Fail::conflict("schema name"));
        }
        let options = PgConnectOptions::from_str(expose(&self.url))?
            .application_name("wa-store-postgres")
            .statement_cache_capacity(STATEMENTS_MAX)
            .disable_statement_logging();
        Ok(options.options([
            ("search_path", self.schema.as_str()),
            ("default_transaction_isolation", "read committed"),
            // An address may switch it off for a whole server; an attempt that is not durable is sent twice after a crash.
            ("synchronous_commit", "on"),
            ("client_min_messages", "warning"),
        ]))
    }
}

/// Statements that a connection keeps prepared.
const STATEMENTS_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_has_a_name_that_needs_no_quotes() {
        for name in ["wa", "tenant_7", "_x"] {
            assert!(PostgresOptions::is_schema(name), "{name}");
        }
        for name in ["", "Wa", "7up", "a b", "a,public", "pg_temp", "a\"b", &"x".repeat(51)] {
            assert!(!PostgresOptions::is_schema(name), "{name}");
        }
    }

    #[test]
    fn what_stands_still_ends_before_others_give_up_waiting_for_it() {
        assert!(PostgresOptions::IDLE_TIMEOUT < PostgresOptions::LOCK_TIMEOUT);
    }

    #[test]
    fn options_show_no_password() {
        let options = PostgresOptions::url("postgres://wa:s3cret@localhost/wa");
        assert!(!format!("{options:?}").contains("s3cret"));
    }
}
