//! People, their logins, and imports.

use std::sync::LazyLock;

use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::sqlite::SqliteConnection;
use wa_core::domain::access::{LoginSession, RequestScope, Role, User};
use wa_core::id::{ImportId, UserId};
use wa_core::store::{
    AccessStore, ImportRecord, ImportRefusal, ImportState, ImportStore, Page, PageRequest, StoreError, WriteClass,
};
use wa_core::time::Timestamp;

use crate::error::{Done, Fail};
use crate::insert::{Bound, Rows};
use crate::row::{Columns, blob, expose, int, json, opt_blob, read_all};
use crate::{Op, SqliteStore};

macro_rules! user {
    ($from:literal) => {
        concat!(
            "SELECT u.id, u.login, u.name, u.role, u.password_hash, u.active, u.settings, u.created_at, u.updated_at,
                u.version ",
            $from
        )
    };
}

/// `user`, by the unique index of ids.
pub(crate) const USER: &str = user!("FROM users u WHERE u.id = ?");
/// `user_by_login`, by the unique index of logins.
pub(crate) const BY_LOGIN: &str = user!("FROM users u WHERE u.login_key = ?");
/// `users`, by the unique index of ids.
pub(crate) const USERS: &str = user!("FROM users u WHERE u.id > ? ORDER BY u.id LIMIT ?");
pub(crate) const INSERT_USER: &str = "
    INSERT INTO users (login, login_key, name, role, password_hash, active, settings, created_at, updated_at, version, id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
/// `update_user`: one statement with its precondition, by the unique index of ids.
pub(crate) const UPDATE_USER: &str = "
    UPDATE users SET login = ?, login_key = ?, name = ?, role = ?, password_hash = ?, active = ?, settings = ?,
        created_at = ?, updated_at = ?, version = ?
    WHERE id = ? AND version = ?";
pub(crate) const USER_EXISTS: &str = "SELECT 1 FROM users WHERE id = ?";

pub(crate) const INSERT_SESSION: &str =
    "INSERT INTO login_sessions (token_hash, user_id, created_at, expires_at) VALUES (?, ?, ?, ?)";
/// `session`, by the primary key.
pub(crate) const SESSION: &str = "
    SELECT token_hash, user_id, created_at, expires_at FROM login_sessions WHERE token_hash = ? AND expires_at > ?";
/// `extend_session`, by the primary key.
pub(crate) const EXTEND_SESSION: &str = "UPDATE login_sessions SET expires_at = ? WHERE token_hash = ?";
/// `delete_session`, by the primary key.
pub(crate) const DELETE_SESSION: &str = "DELETE FROM login_sessions WHERE token_hash = ?";
/// `delete_sessions_of`, by `login_sessions_user`.
pub(crate) const DELETE_SESSIONS_OF: &str = "DELETE FROM login_sessions WHERE user_id = ?";
/// `prune_sessions`, by `login_sessions_expiry`.
pub(crate) const PRUNE_SESSIONS: &str = "DELETE FROM login_sessions WHERE expires_at < ?";

macro_rules! import {
    ($from:literal) => {
        concat!(
            "SELECT i.id, i.user_id, i.name, i.state, i.bytes_read, i.bytes_total, i.rows, i.inserted, i.duplicates,
                i.refused, i.message, i.created_at, i.updated_at ",
            $from
        )
    };
}

/// `import`, by the unique index of ids.
pub(crate) const IMPORT: &str = import!("FROM imports i WHERE i.id = ? AND i.user_id = ?");
/// `imports`, by `imports_user`, newest first.
pub(crate) const IMPORTS: &str =
    import!("FROM imports i WHERE i.user_id = ?1 AND (?2 IS NULL OR i.id < ?2) ORDER BY i.id DESC LIMIT ?3");
/// `put_import`: another user's import is not replaced. By the unique index of ids.
pub(crate) const PUT_IMPORT: &str = "
    INSERT INTO imports (id, user_id, name, state, bytes_read, bytes_total, rows, inserted, duplicates, refused, message,
        created_at, updated_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, state = excluded.state, bytes_read = excluded.bytes_read,
        bytes_total = excluded.bytes_total, rows = excluded.rows, inserted = excluded.inserted,
        duplicates = excluded.duplicates, refused = excluded.refused, message = excluded.message,
        created_at = excluded.created_at, updated_at = excluded.updated_at
    WHERE imports.user_id = excluded.user_id";
static INSERT_REFUSALS: LazyLock<Rows> =
    LazyLock::new(|| Rows::insert("INSERT INTO import_refusals (import_id, line, field, reason)", 4, ""));
/// `import_refusals`, by `import_refusals_line`.
pub(crate) const REFUSALS: &str = "
    SELECT line, field, reason FROM import_refusals WHERE import_id = ? AND line > ? ORDER BY line, rowid LIMIT ?";
/// `fail_running_imports`, by `imports_running`.
pub(crate) const FAIL_RUNNING: &str =
    "UPDATE imports SET state = 4, message = ?, updated_at = ? WHERE state = 1 AND updated_at < ?";

fn read_user(c: &mut Columns<'_>) -> Done<User> {
    Ok(User {
        id: c.key("id")?,
        login: c.text()?,
        name: c.text()?,
        role: c.kind("role", Role::from_u8)?,
        password_hash: SecretString::from(c.text()?),
        active: c.flag()?,
        settings: c.json("settings")?,
        created_at: c.at()?,
        updated_at: c.at()?,
        version: c.int()?,
    })
}

fn bind_user<'q>(statement: Bound<'q>, user: &User, version: i64) -> Bound<'q> {
    statement
        .bind(user.login.clone())
        .bind(user.login.to_lowercase())
        .bind(user.name.clone())
        .bind(user.role as u8)
        .bind(expose(&user.password_hash).to_owned())
        .bind(user.active)
        .bind(json(&user.settings))
        .bind(user.created_at.as_millis())
        .bind(user.updated_at.as_millis())
        .bind(version)
        .bind(blob(&user.id).to_vec())
}

async fn update_user(connection: &mut SqliteConnection, user: &User) -> Done<()> {
    let statement = bind_user(sqlx::query(UPDATE_USER), user, user.version + 1).bind(user.version);
    if statement.execute(&mut *connection).await?.rows_affected() == 1 {
        return Ok(());
    }
    let there: Option<i64> = sqlx::query_scalar(USER_EXISTS)
        .bind(blob(&user.id).to_vec())
        .fetch_optional(connection)
        .await?;
    Err(there.map_or(Fail::not_found("user"), |_| Fail::conflict("user")))
}

fn read_session(c: &mut Columns<'_>) -> Done<LoginSession> {
    Ok(LoginSession {
        token_hash: c.bytes()?.try_into().map_err(|_| Fail::Unreadable("token_hash"))?,
        user_id: c.key("user_id")?,
        created_at: c.at()?,
        expires_at: c.at()?,
    })
}

fn read_import(c: &mut Columns<'_>) -> Done<ImportRecord> {
    Ok(ImportRecord {
        id: c.key("id")?,
        user_id: c.key("user_id")?,
        name: c.text()?,
        state: c.kind("state", ImportState::from_u8)?,
        bytes_read: c.count()?,
        bytes_total: c.opt_int()?.map(|bytes| u64::try_from(bytes).unwrap_or(0)),
        rows: c.count()?,
        inserted: c.count()?,
        duplicates: c.count()?,
        refused: c.count()?,
        message: c.opt_text()?,
        created_at: c.at()?,
        updated_at: c.at()?,
    })
}

async fn put_import(connection: &mut SqliteConnection, record: &ImportRecord, refusals: &[ImportRefusal]) -> Done<()> {
    let put = sqlx::query(PUT_IMPORT)
        .bind(blob(&record.id).to_vec())
        .bind(blob(&record.user_id).to_vec())
        .bind(record.name.clone())
        .bind(record.state as u8)
        .bind(int(record.bytes_read))
        .bind(record.bytes_total.map(int))
        .bind(int(record.rows))
        .bind(int(record.inserted))
        .bind(int(record.duplicates))
        .bind(int(record.refused))
        .bind(record.message.clone())
        .bind(record.created_at.as_millis())
        .bind(record.updated_at.as_millis())
        .execute(&mut *connection)
        .await?;
    if put.rows_affected() == 0 {
        return Err(Fail::not_found("import"));
    }
    let id = record.id;
    INSERT_REFUSALS
        .run(connection, refusals, |statement, refusal| {
            statement
                .bind(blob(&id).to_vec())
                .bind(int(refusal.line))
                .bind(refusal.field.clone())
                .bind(refusal.reason.clone())
        })
        .await?;
    Ok(())
}

const fn api(operation: &'static str, entity: &'static str) -> Op {
    Op(WriteClass::Api, operation, entity)
}

impl SqliteStore {
    async fn one_user(&self, operation: &'static str, statement: Bound<'_>) -> Result<Option<User>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let row = statement.fetch_optional(&mut *reader).await?;
            row.map(|row| read_user(&mut Columns::of(&row))).transpose()
        };
        read.await.map_err(|fail: Fail| fail.of(operation, "user"))
    }

    async fn find_import(&self, scope: &RequestScope, id: ImportId) -> Done<ImportRecord> {
        // Imports are the whole user's: a scope of some devices sees none.
        if scope.devices.is_some() {
            return Err(Fail::not_found("import"));
        }
        let mut reader = self.reader().await?;
        let row = sqlx::query(IMPORT)
            .bind(blob(&id).to_vec())
            .bind(blob(&scope.user_id).to_vec())
            .fetch_optional(&mut *reader)
            .await?
            .ok_or(Fail::not_found("import"))?;
        read_import(&mut Columns::of(&row))
    }

    /// Runs one statement as a write; gives how many rows it changed.
    async fn change(&self, op: Op, statement: Bound<'static>) -> Result<u64, StoreError> {
        self.write(op, move |connection| {
            Box::pin(async move { Ok(statement.execute(connection).await?.rows_affected()) })
        })
        .await
    }
}

#[async_trait]
impl AccessStore for SqliteStore {
    async fn insert_user(&self, user: &User) -> Result<(), StoreError> {
        let statement = bind_user(sqlx::query(INSERT_USER), user, user.version);
        self.change(api("insert_user", "user"), statement).await?;
        Ok(())
    }

    async fn update_user(&self, user: &User) -> Result<(), StoreError> {
        let user = user.clone();
        self.write(api("update_user", "user"), move |connection| {
            Box::pin(async move { update_user(connection, &user).await })
        })
        .await
    }

    async fn user(&self, id: UserId) -> Result<User, StoreError> {
        let found = self
            .one_user("user", sqlx::query(USER).bind(blob(&id).to_vec()))
            .await?;
        found.ok_or_else(|| Fail::not_found("user").of("user", "user"))
    }

    async fn user_by_login(&self, login: &str) -> Result<Option<User>, StoreError> {
        let statement = sqlx::query(BY_LOGIN).bind(login.to_lowercase());
        self.one_user("user_by_login", statement).await
    }

    async fn users(&self, page: &PageRequest<UserId>) -> Result<Page<User, UserId>, StoreError> {
        let limit = page.clamped();
        let read = async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(USERS)
                .bind(opt_blob(page.after.as_ref()).unwrap_or_default().to_vec())
                .bind(int(limit as u64 + 1))
                .fetch_all(&mut *reader)
                .await?;
            read_all(&rows, read_user)
        };
        let rows = read.await.map_err(|fail: Fail| fail.of("users", "user"))?;
        Ok(Page::cut(rows, limit, |user: &User| user.id))
    }

    async fn insert_session(&self, session: &LoginSession) -> Result<(), StoreError> {
        let statement = sqlx::query(INSERT_SESSION)
            .bind(session.token_hash.to_vec())
            .bind(blob(&session.user_id).to_vec())
            .bind(session.created_at.as_millis())
            .bind(session.expires_at.as_millis());
        self.change(api("insert_session", "session"), statement).await?;
        Ok(())
    }

    async fn session(&self, token_hash: &[u8; 32], now: Timestamp) -> Result<Option<LoginSession>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let statement = sqlx::query(SESSION).bind(token_hash.to_vec()).bind(now.as_millis());
            let row = statement.fetch_optional(&mut *reader).await?;
            row.map(|row| read_session(&mut Columns::of(&row))).transpose()
        };
        read.await.map_err(|fail: Fail| fail.of("session", "session"))
    }

    async fn extend_session(&self, token_hash: &[u8; 32], expires_at: Timestamp) -> Result<(), StoreError> {
        let statement = sqlx::query(EXTEND_SESSION)
            .bind(expires_at.as_millis())
            .bind(token_hash.to_vec());
        self.change(api("extend_session", "session"), statement).await?;
        Ok(())
    }

    async fn delete_session(&self, token_hash: &[u8; 32]) -> Result<(), StoreError> {
        let statement = sqlx::query(DELETE_SESSION).bind(token_hash.to_vec());
        self.change(api("delete_session", "session"), statement).await?;
        Ok(())
    }

    async fn delete_sessions_of(&self, user: UserId) -> Result<u64, StoreError> {
        let statement = sqlx::query(DELETE_SESSIONS_OF).bind(blob(&user).to_vec());
        self.change(api("delete_sessions_of", "session"), statement).await
    }

    async fn prune_sessions(&self, before: Timestamp) -> Result<u64, StoreError> {
        let statement = sqlx::query(PRUNE_SESSIONS).bind(before.as_millis());
        self.change(Op(WriteClass::Bulk, "prune_sessions", "session"), statement)
            .await
    }
}

#[async_trait]
impl ImportStore for SqliteStore {
    async fn put_import(&self, record: &ImportRecord, refusals: &[ImportRefusal]) -> Result<(), StoreError> {
        let (record, refusals) = (record.clone(), refusals.to_vec());
        self.write(Op(WriteClass::Bulk, "put_import", "import"), move |connection| {
            Box::pin(async move { put_import(connection, &record, &refusals).await })
        })
        .await
    }

    async fn import(&self, scope: &RequestScope, id: ImportId) -> Result<ImportRecord, StoreError> {
        let found = self.find_import(scope, id).await;
        found.map_err(|fail| fail.of("import", "import"))
    }

    async fn imports(
        &self,
        scope: &RequestScope,
        page: &PageRequest<ImportId>,
    ) -> Result<Page<ImportRecord, ImportId>, StoreError> {
        let limit = page.clamped();
        let read = async {
            if scope.devices.is_some() {
                return Ok(Vec::new());
            }
            let mut reader = self.reader().await?;
            let rows = sqlx::query(IMPORTS)
                .bind(blob(&scope.user_id).to_vec())
                .bind(opt_blob(page.after.as_ref()).map(<[u8]>::to_vec))
                .bind(int(limit as u64 + 1))
                .fetch_all(&mut *reader)
                .await?;
            read_all(&rows, read_import)
        };
        let rows = read.await.map_err(|fail: Fail| fail.of("imports", "import"))?;
        Ok(Page::cut(rows, limit, |import: &ImportRecord| import.id))
    }

    async fn import_refusals(
        &self,
        scope: &RequestScope,
        id: ImportId,
        after_line: u64,
        limit: u32,
    ) -> Result<Vec<ImportRefusal>, StoreError> {
        let read = async {
            self.find_import(scope, id).await?;
            let mut reader = self.reader().await?;
            let statement = sqlx::query(REFUSALS)
                .bind(blob(&id).to_vec())
                .bind(int(after_line))
                .bind(limit);
            read_all(&statement.fetch_all(&mut *reader).await?, |c| {
                Ok(ImportRefusal {
                    line: c.count()?,
                    field: c.text()?,
                    reason: c.text()?,
                })
            })
        };
        read.await.map_err(|fail: Fail| fail.of("import_refusals", "import"))
    }

    async fn fail_running_imports(&self, message: &str, before: Timestamp, now: Timestamp) -> Result<u64, StoreError> {
        let statement = sqlx::query(FAIL_RUNNING).bind(message.to_owned()).bind(now.as_millis());
        let statement = statement.bind(before.as_millis());
        self.change(api("fail_running_imports", "import"), statement).await
    }
}
