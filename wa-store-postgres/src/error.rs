//! Maps what Postgres says to what a caller does next; nowhere else.

use wa_core::store::{StoreError, StoreErrorKind};

/// Why a statement or a transaction did not succeed, before the trait method is known.
#[derive(Debug)]
pub(crate) enum Fail {
    /// The database refused or could not.
    Sql(sqlx::Error),
    /// A row does not read as what it should be; names the column or value.
    Unreadable(&'static str),
    /// A precondition failed, about an entity.
    Refused(StoreErrorKind, &'static str),
    /// The transaction shares its users with others and turns out to need them alone: it is run again so.
    NeedsAlone,
    /// The task that held the transaction ended without an answer.
    Lost,
    /// The database kept silent for as long as it may.
    Silent,
    /// A newer version of this store has changed the schema.
    Newer,
}

/// What statements and transactions inside the crate return.
pub(crate) type Done<T> = Result<T, Fail>;

impl From<sqlx::Error> for Fail {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

impl Fail {
    /// There is no such row within the scope asked for.
    pub(crate) const fn not_found(entity: &'static str) -> Self {
        Self::Refused(StoreErrorKind::NotFound, entity)
    }

    /// A precondition does not hold.
    pub(crate) const fn conflict(entity: &'static str) -> Self {
        Self::Refused(StoreErrorKind::Conflict, entity)
    }

    /// Whether it says that something does not fit, and not that the database failed.
    pub(crate) fn is_refusal(&self) -> bool {
        match self {
            Self::Refused(..) => true,
            Self::Sql(error) => matches!(kind_of(error), StoreErrorKind::NotFound | StoreErrorKind::Conflict),
            _ => false,
        }
    }

    /// Whether the same transaction may well succeed when it is run again at once: another one was in its way, and nothing
    /// of this one is left.
    pub(crate) fn passes(&self) -> bool {
        let Self::Sql(sqlx::Error::Database(database)) = self else {
            return false;
        };
        match database.code().as_deref() {
            Some(code::SERIALIZATION_FAILURE | code::DEADLOCK_DETECTED | code::LOCK_NOT_AVAILABLE) => true,
            // Two begins for one device: the second looks again and finds the first.
            Some(code::CHECK_VIOLATION) => database.constraint() == Some("lanes_one_at_a_time"),
            _ => false,
        }
    }

    /// Whether the connection is of no more use: it may be closed, an answer may still be on its way, or it is in a transaction that
    /// nobody knows of.
    pub(crate) fn breaks(&self) -> bool {
        match self {
            Self::Silent => true,
            Self::Sql(sqlx::Error::Database(database)) => {
                let code = database.code().unwrap_or_default();
                code::OF_A_STRANGE_TRANSACTION.contains(&code.as_ref())
            }
            Self::Sql(error) => matches!(
                error,
                sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::BeginFailed
            ),
            _ => false,
        }
    }

    /// The node has no authority.
    pub(crate) const fn fenced() -> Self {
        Self::Refused(StoreErrorKind::Fenced, "node")
    }

    /// The error of a trait method; `entity` where the failure names none itself.
    pub(crate) fn of(self, operation: &'static str, entity: &'static str) -> StoreError {
        match self {
            Self::Refused(kind, about) => StoreError::new(kind, operation, about),
            Self::Unreadable(column) => StoreError::new(StoreErrorKind::Corrupt, operation, entity)
                .caused_by(format!("{column} cannot be read")),
            Self::NeedsAlone => StoreError::new(StoreErrorKind::Unavailable, operation, entity)
                .caused_by("another transaction was in the way"),
            Self::Lost => StoreError::new(StoreErrorKind::Unavailable, operation, entity)
                .caused_by("the task of the transaction ended without an answer"),
            Self::Silent => StoreError::new(StoreErrorKind::Unavailable, operation, entity)
                .caused_by("nothing was heard from the database for as long as it may keep silent"),
            Self::Newer => StoreError::new(StoreErrorKind::Unsupported, operation, entity)
                .caused_by("the schema of the database is newer than this program: bring it up to date, or stop it"),
            Self::Sql(error) => StoreError::new(kind_of(&error), operation, entity).caused_by(Quiet(error)),
        }
    }
}

/// Error codes of Postgres, <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
mod code {
    pub(super) const READ_ONLY_TRANSACTION: &str = "25006";
    pub(super) const NO_ACTIVE_TRANSACTION: &str = "25P01";
    pub(super) const FAILED_TRANSACTION: &str = "25P02";
    pub(super) const IDLE_IN_TRANSACTION: &str = "25P03";
    pub(super) const FOREIGN_KEY_VIOLATION: &str = "23503";
    pub(super) const UNIQUE_VIOLATION: &str = "23505";
    pub(super) const CHECK_VIOLATION: &str = "23514";
    pub(super) const SERIALIZATION_FAILURE: &str = "40001";
    pub(super) const DEADLOCK_DETECTED: &str = "40P01";
    pub(super) const LOCK_NOT_AVAILABLE: &str = "55P03";
    pub(super) const DATA_CORRUPTED: &str = "XX001";
    pub(super) const INDEX_CORRUPTED: &str = "XX002";

    /// What only a transaction answers that the store did not begin as it is, or that the server has ended.
    pub(super) const OF_A_STRANGE_TRANSACTION: [&str; 3] =
        [READ_ONLY_TRANSACTION, FAILED_TRANSACTION, IDLE_IN_TRANSACTION];

    /// Connection failures, missing resources, and what an operator or a crash does to a session.
    pub(super) const PASSING_CLASSES: [&str; 4] = ["08", "53", "57", "58"];
}

fn kind_of(error: &sqlx::Error) -> StoreErrorKind {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().unwrap_or_default();
            match code.as_ref() {
                code::FOREIGN_KEY_VIOLATION => StoreErrorKind::NotFound,
                code::UNIQUE_VIOLATION => StoreErrorKind::Conflict,
                code::DATA_CORRUPTED | code::INDEX_CORRUPTED => StoreErrorKind::Corrupt,
                code::NO_ACTIVE_TRANSACTION => StoreErrorKind::Unsupported,
                code::READ_ONLY_TRANSACTION
                | code::FAILED_TRANSACTION
                | code::IDLE_IN_TRANSACTION
                | code::SERIALIZATION_FAILURE
                | code::DEADLOCK_DETECTED
                | code::LOCK_NOT_AVAILABLE => StoreErrorKind::Unavailable,
                code if code::PASSING_CLASSES.iter().any(|class| code.starts_with(class)) => {
                    StoreErrorKind::Unavailable
                }
                _ => StoreErrorKind::Backend,
            }
        }
        sqlx::Error::RowNotFound => StoreErrorKind::NotFound,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreErrorKind::Corrupt,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::BeginFailed
        | sqlx::Error::WorkerCrashed => StoreErrorKind::Unavailable,
        _ => StoreErrorKind::Backend,
    }
}

/// An error of sqlx without anything that could show a value of a row: Postgres puts values into its details, and only its
/// primary messages, which name constraints and relations, are told.
struct Quiet(sqlx::Error);

impl std::fmt::Display for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            sqlx::Error::Database(database) => {
                // Syntax errors of a value (class 22) repeat the value.
                let code = database.code().unwrap_or_default();
                if code.starts_with("22") {
                    return write!(f, "a value was refused, SQLSTATE {code}");
                }
                write!(f, "{}, SQLSTATE {code}", database.message())
            }
            sqlx::Error::ColumnDecode { index, .. } => write!(f, "column {index} cannot be read"),
            sqlx::Error::Decode(_) => f.write_str("a value cannot be read"),
            // The address of a database may hold its password.
            sqlx::Error::Configuration(_) => f.write_str("the address of the database cannot be read"),
            other => std::fmt::Display::fmt(other, f),
        }
    }
}

impl std::fmt::Debug for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for Quiet {}
