//! Maps what SQLite says to what a caller does next; nowhere else.

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
    /// The task that held the transaction ended without an answer.
    Lost,
    /// A transaction that holds the work of several was not committed.
    Together(StoreErrorKind, String),
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

    /// What befell a transaction, for each of those whose work it held.
    pub(crate) fn together(error: &sqlx::Error) -> Self {
        let text = match error {
            sqlx::Error::Database(database) => database.message().to_owned(),
            other => other.to_string(),
        };
        Self::Together(kind_of(error), text)
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
            Self::Lost => StoreError::new(StoreErrorKind::Unavailable, operation, entity)
                .caused_by("the task of the transaction ended without an answer"),
            Self::Sql(error) => StoreError::new(kind_of(&error), operation, entity).caused_by(Quiet(error)),
            Self::Together(kind, cause) => StoreError::new(kind, operation, entity).caused_by(cause),
        }
    }
}

/// Result codes of SQLite, <https://sqlite.org/rescode.html>: the low byte is the primary code.
mod code {
    pub(super) const BUSY: i32 = 5;
    pub(super) const LOCKED: i32 = 6;
    pub(super) const READ_ONLY: i32 = 8;
    pub(super) const INTERRUPT: i32 = 9;
    pub(super) const IO: i32 = 10;
    pub(super) const CORRUPT: i32 = 11;
    pub(super) const FULL: i32 = 13;
    pub(super) const CANNOT_OPEN: i32 = 14;
    pub(super) const NOT_A_DATABASE: i32 = 26;
    pub(super) const CONSTRAINT_FOREIGN_KEY: i32 = 787;
    pub(super) const CONSTRAINT_PRIMARY_KEY: i32 = 1555;
    pub(super) const CONSTRAINT_UNIQUE: i32 = 2067;
}

fn kind_of(error: &sqlx::Error) -> StoreErrorKind {
    match error {
        sqlx::Error::Database(database) => {
            let code = database.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or(1);
            match (code, code & 0xff) {
                (code::CONSTRAINT_FOREIGN_KEY, _) => StoreErrorKind::NotFound,
                (code::CONSTRAINT_PRIMARY_KEY | code::CONSTRAINT_UNIQUE, _) => StoreErrorKind::Conflict,
                (_, code::CORRUPT | code::NOT_A_DATABASE) => StoreErrorKind::Corrupt,
                (
                    _,
                    code::BUSY
                    | code::LOCKED
                    | code::READ_ONLY
                    | code::INTERRUPT
                    | code::IO
                    | code::FULL
                    | code::CANNOT_OPEN,
                ) => StoreErrorKind::Unavailable,
                _ => StoreErrorKind::Backend,
            }
        }
        sqlx::Error::RowNotFound => StoreErrorKind::NotFound,
        sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => StoreErrorKind::Corrupt,
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::WorkerCrashed => {
            StoreErrorKind::Unavailable
        }
        _ => StoreErrorKind::Backend,
    }
}

/// An error of sqlx without anything that could show a value of a row: SQLite's own messages name columns only.
struct Quiet(sqlx::Error);

impl std::fmt::Display for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            sqlx::Error::Database(database) => f.write_str(database.message()),
            sqlx::Error::ColumnDecode { index, .. } => write!(f, "column {index} cannot be read"),
            sqlx::Error::Decode(_) => f.write_str("a value cannot be read"),
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
