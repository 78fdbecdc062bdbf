//! What only a server needs of a store.

use std::fmt;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::{Page, PageRequest, SessionStore, StoreError};
use crate::domain::access::{LoginSession, RequestScope, User};
use crate::id::{ImportId, UserId};
use crate::time::Timestamp;

/// People and their logins.
#[async_trait]
pub trait AccessStore: Send + Sync {
    /// Adds a user. `Conflict` when the login is taken.
    async fn insert_user(&self, user: &User) -> Result<(), StoreError>;
    /// Replaces a user whose version is still `user.version`; the store sets version + 1. `Conflict` otherwise.
    async fn update_user(&self, user: &User) -> Result<(), StoreError>;
    /// One user.
    async fn user(&self, id: UserId) -> Result<User, StoreError>;
    /// The user with a login, if any; the login is compared lower case.
    async fn user_by_login(&self, login: &str) -> Result<Option<User>, StoreError>;
    /// A page of users, by id.
    async fn users(&self, page: &PageRequest<UserId>) -> Result<Page<User, UserId>, StoreError>;

    /// Adds a login. `Conflict` when the token hash is known.
    async fn insert_session(&self, session: &LoginSession) -> Result<(), StoreError>;
    /// The login with a token hash that has not expired at `now`.
    async fn session(&self, token_hash: &[u8; 32], now: Timestamp) -> Result<Option<LoginSession>, StoreError>;
    /// Moves the end of a login; nothing happens when there is none.
    async fn extend_session(&self, token_hash: &[u8; 32], expires_at: Timestamp) -> Result<(), StoreError>;
    /// Ends one login.
    async fn delete_session(&self, token_hash: &[u8; 32]) -> Result<(), StoreError>;
    /// Ends all logins of a user, as after a new password; returns how many.
    async fn delete_sessions_of(&self, user: UserId) -> Result<u64, StoreError>;
    /// Removes logins that expired before `before`; returns how many.
    async fn prune_sessions(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// How far an import is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ImportState {
    /// Rows are being read. After a crash it is `Failed`; running the same file again adds nothing twice.
    Running = 1,
    /// All rows were read.
    Done = 2,
    /// A person stopped it; what was read stays.
    Cancelled = 3,
    /// It could not go on; `message` says why.
    Failed = 4,
}

impl ImportState {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Running),
            2 => Some(Self::Done),
            3 => Some(Self::Cancelled),
            4 => Some(Self::Failed),
            _ => None,
        }
    }
}

/// A long-running import and its counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRecord {
    /// Its id.
    pub id: ImportId,
    /// Its owner.
    pub user_id: UserId,
    /// What it is called: the file's name, at most 200 characters.
    pub name: String,
    /// How far it is.
    pub state: ImportState,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes in all, if known.
    pub bytes_total: Option<u64>,
    /// Rows read.
    pub rows: u64,
    /// Rows that became leads.
    pub inserted: u64,
    /// Rows that were there already.
    pub duplicates: u64,
    /// Rows refused.
    pub refused: u64,
    /// Why it failed.
    pub message: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last moved.
    pub updated_at: Timestamp,
}

/// One refused row.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRefusal {
    /// Its line in the file, from 1 with the header.
    pub line: u64,
    /// The field.
    pub field: String,
    /// What is wrong with it and what was expected.
    pub reason: String,
}

impl fmt::Debug for ImportRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportRefusal")
            .field("line", &self.line)
            .field("field", &self.field)
            .finish_non_exhaustive()
    }
}

/// Imports and their reports.
#[async_trait]
pub trait ImportStore: Send + Sync {
    /// Adds or replaces the record and appends refusals, in one transaction.
    async fn put_import(&self, record: &ImportRecord, refusals: &[ImportRefusal]) -> Result<(), StoreError>;
    /// One import within a request's scope.
    async fn import(&self, scope: &RequestScope, id: ImportId) -> Result<ImportRecord, StoreError>;
    /// A page of imports, newest first.
    async fn imports(
        &self,
        scope: &RequestScope,
        page: &PageRequest<ImportId>,
    ) -> Result<Page<ImportRecord, ImportId>, StoreError>;
    /// Refused rows after a line, in order of lines; those of one line in the order in which they were put.
    async fn import_refusals(
        &self,
        scope: &RequestScope,
        id: ImportId,
        after_line: u64,
        limit: u32,
    ) -> Result<Vec<ImportRefusal>, StoreError>;
    /// Marks imports that a crash left `Running` as failed, of those that last moved before `before`; returns how many. One that
    /// runs all the same is `Running` again when it moves next.
    async fn fail_running_imports(&self, message: &str, before: Timestamp, now: Timestamp) -> Result<u64, StoreError>;
}

/// What a server needs beside the engine's [`super::Store`]. Chats and webhooks will join as sub-traits.
pub trait AppStore: super::Store + AccessStore + ImportStore + SessionStore {}

impl<T: super::Store + AccessStore + ImportStore + SessionStore + ?Sized> AppStore for T {}
