//! The one error of the handle.

use std::fmt;

use crate::plan::FieldError;
use crate::store::{StoreError, StoreErrorKind};

/// Why a request was not done; nothing was changed, but for `Store` of kind `Unavailable`, which leaves it open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HandleError {
    /// Fields cannot be taken as they were given: all problems at once. Correct them.
    #[error("{}", Listed(.0))]
    Invalid(Vec<FieldError>),
    /// There is no such thing within the request's scope.
    #[error("there is no such {entity}")]
    NotFound {
        /// What was looked for: `device`, `lead`, `campaign`.
        entity: &'static str,
    },
    /// It is not in a state that allows this, or was changed in the meantime: read it again.
    #[error("{entity}: {why}")]
    Conflict {
        /// What it was about.
        entity: &'static str,
        /// The state it is in and what is allowed, for people.
        why: String,
    },
    /// The store did not do it.
    #[error(transparent)]
    Store(StoreError),
}

impl HandleError {
    /// One field that cannot be taken.
    #[must_use]
    pub fn field(error: FieldError) -> Self {
        Self::Invalid(vec![error])
    }

    pub(super) const fn not_found(entity: &'static str) -> Self {
        Self::NotFound { entity }
    }

    pub(super) fn conflict(entity: &'static str, why: impl Into<String>) -> Self {
        Self::Conflict {
            entity,
            why: why.into(),
        }
    }

    /// That somebody else changed the row since it was read.
    pub(super) fn stale(entity: &'static str, given: i64, current: i64) -> Self {
        let why = format!("it was changed in the meantime: version {given} was given, it is at version {current}");
        Self::Conflict { entity, why }
    }
}

impl From<StoreError> for HandleError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::NotFound => Self::not_found(error.entity),
            StoreErrorKind::Conflict => Self::conflict(error.entity, "it was changed in the meantime"),
            _ => Self::Store(error),
        }
    }
}

impl From<Vec<FieldError>> for HandleError {
    fn from(errors: Vec<FieldError>) -> Self {
        Self::Invalid(errors)
    }
}

impl From<FieldError> for HandleError {
    fn from(error: FieldError) -> Self {
        Self::field(error)
    }
}

struct Listed<'a>(&'a [FieldError]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        Ok(())
    }
}
