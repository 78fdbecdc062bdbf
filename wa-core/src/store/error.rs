//! The one error of every store.

use std::fmt;

/// What a caller does next about a [`StoreError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreErrorKind {
    /// There is no such row within the scope asked for: tell the person.
    NotFound,
    /// A precondition failed (version, status, unique name) and nothing was changed: read again.
    Conflict,
    /// This node's lease was taken: stop writing as owner.
    Fenced,
    /// The database did not answer, or asks to try again; it may or may not have committed: try again, idempotently.
    Unavailable,
    /// A row cannot be read: alarm.
    Corrupt,
    /// The store does not do this.
    Unsupported,
    /// Any other failure of the database: alarm.
    Backend,
}

/// A store operation failed.
#[derive(thiserror::Error)]
#[error("{operation} {entity}: {}", describe(.kind))]
pub struct StoreError {
    /// What to do next.
    pub kind: StoreErrorKind,
    /// The trait method.
    pub operation: &'static str,
    /// What it was about.
    pub entity: &'static str,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

const fn describe(kind: &StoreErrorKind) -> &'static str {
    match kind {
        StoreErrorKind::NotFound => "not found",
        StoreErrorKind::Conflict => "changed in the meantime or already there",
        StoreErrorKind::Fenced => "the lease of this node was taken",
        StoreErrorKind::Unavailable => "the database did not answer",
        StoreErrorKind::Corrupt => "the row cannot be read",
        StoreErrorKind::Unsupported => "not supported by this store",
        StoreErrorKind::Backend => "the database failed",
    }
}

impl StoreError {
    /// An error without a cause.
    #[must_use]
    pub const fn new(kind: StoreErrorKind, operation: &'static str, entity: &'static str) -> Self {
        Self {
            kind,
            operation,
            entity,
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Whether there is no such row.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// Whether a precondition failed.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.kind == StoreErrorKind::Conflict
    }

    /// Whether it says nothing against what was asked: the database did not answer, or this node lost its lease.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self.kind, StoreErrorKind::Unavailable | StoreErrorKind::Fenced)
    }

    /// Whether this node lost its lease.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.kind == StoreErrorKind::Fenced
    }
}

impl fmt::Debug for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        Ok(())
    }
}
