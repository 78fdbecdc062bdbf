//! People, their logins, and imports.

use std::sync::LazyLock;

use async_trait::async_trait;
use secrecy::SecretString;
use sqlx::postgres::PgConnection;
use uuid::Uuid;
use wa_core::domain::access::{LoginSession, RequestScope, Role, User};
use wa_core::id::{ImportId, UserId};
use wa_core::store::{
    AccessStore, ImportRecord, ImportRefusal, ImportState, ImportStore, Page, PageRequest, StoreError, WriteClass,
};
use wa_core::time::Timestamp;

use crate::error::{Done, Fail};
use crate::insert::{Bound, insert, query, run_over};
use crate::row::{Columns, expose, int, json, read_all, uuid};
use crate::{Op, PostgresStore};

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
pub(crate) const USER: &str = user!("FROM users u WHERE u.id = $1");
/// `user_by_login`, by the unique index of logins.
pub(crate) const BY_LOGIN: &str = user!("FROM users u WHERE u.login_key = $1");
/// `users`, by the unique index of ids.
pub(crate) const USERS: &str = user!("FROM users u WHERE u.id > $1 ORDER BY u.id LIMIT $2");
pub(crate) const INSERT_USER: &str = "
    INSERT INTO users (login, login_key, name, role, password_hash, active, settings, created_at, updated_at, version, id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
/// `update_user`: one statement with its precondition, by the unique index of ids.
pub(crate) const UPDATE_USER: &str = "
    UPDATE users SET login = $1, login_key = $2, name = $3, role = $4, password_hash = $5, active = $6, settings = $7,
        created_at = $8, updated_at = $9, version = $10
    WHERE id = $11 AND version = $12";
pub(crate) const USER_EXISTS: &str = "SELECT 1 FROM users WHERE id = $1";

pub(crate) const INSERT_SESSION: &str =
    "INSERT INTO login_sessions (token_hash, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)";
/// `session`, by the primary key.
pub(crate) const SESSION: &str = "
    SELECT token_hash, user_id, created_at, expires_at FROM login_sessions WHERE token_hash = $1 AND expires_at > $2";
/// `extend_session`, by the primary key.
pub(crate) const EXTEND_SESSION: &str = "UPDATE login_sessions SET expires_at = $1 WHERE token_hash = $2";
/// `delete_session`, by the primary key.
pub(crate) const DELETE_SESSION: &str = "DELETE FROM login_sessions WHERE token_hash = $1";
/// `delete_sessions_of`, by `login_sessions_user`.
pub(crate) const DELETE_SESSIONS_OF: &str = "DELETE FROM login_sessions WHERE user_id = $1";
/// `prune_sessions`, by `login_sessions_expiry`.
pub(crate) const PRUNE_SESSIONS: &str = "DELETE FROM login_sessions WHERE expires_at < $1";

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
pub(crate) const IMPORT: &str = import!("FROM imports i WHERE i.id = $1 AND i.user_id = $2");
/// `imports`, by `imports_user`, newest first.
pub(crate) const IMPORTS: &str =
    import!("FROM imports i WHERE i.user_id = $1 AND ($2::uuid IS NULL OR i.id < $2) ORDER BY i.id DESC LIMIT $3");
/// `put_import`: another user's import is not replaced. By the unique index of ids.
pub(crate) const PUT_IMPORT: &str = "
    INSERT INTO imports (id, user_id, name, state, bytes_read, bytes_total, rows, inserted, duplicates, refused, message,
        created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
    ON CONFLICT (id) DO UPDATE SET name = excluded.name, state = excluded.state, bytes_read = excluded.bytes_read,
        bytes_total = excluded.bytes_total, rows = excluded.rows, inserted = excluded.inserted,
        duplicates = excluded.duplicates, refused = excluded.refused, message = excluded.message,
        created_at = excluded.created_at, updated_at = excluded.updated_at
    WHERE imports.user_id = excluded.user_id";
static INSERT_REFUSALS: LazyLock<String> = LazyLock::new(|| {
    insert(
        "INSERT INTO import_refusals (import_id, line, field, reason)",
        "uitt",
        "",
    )
});
/// `import_refusals`, by `import_refusals_line`.
pub(crate) const REFUSALS: &str = "
    SELECT line, field, reason FROM import_refusals WHERE import_id = $1 AND line > $2 ORDER BY line, seq LIMIT $3";
/// `fail_running_imports`, by `imports_running`.
pub(crate) const FAIL_RUNNING: &str =
    "UPDATE imports SET state = 4, message = $1, updated_at = $2 WHERE state = 1 AND updated_at < $3";

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
        .bind(&user.id)
}

async fn update_user(connection: &mut PgConnection, user: &User) -> Done<()> {
    let statement = bind_user(query(UPDATE_USER), user, user.version + 1).bind(user.version);
    if statement.execute(connection).await?.rows_affected() == 1 {
        return Ok(());
    }
    let there = query(USER_EXISTS).bind(&user.id).exists(connection).await?;
    Err(if there {
        Fail::conflict("user")
    } else {
        Fail::not_found("user")
    })
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

async fn put_import(connection: &mut PgConnection, record: &ImportRecord, refusals: &[ImportRefusal]) -> Done<()> {
    let put = query(PUT_IMPORT)
        .bind(&record.id)
        .bind(&record.user_id)
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
        .execute(connection)
        .await?;
    if put.rows_affected() == 0 {
        return Err(Fail::not_found("import"));
    }
    let id = record.id;
    run_over(connection, INSERT_REFUSALS.as_str(), refusals, |row, refusal| {
        row.bind(&id)
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

impl PostgresStore {
    async fn one_user(&self, operation: &'static str, statement: Bound<'_>) -> Result<Option<User>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let row = statement.fetch_optional(&mut reader).await?;
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
        let row = query(IMPORT)
            .bind(&id)
            .bind(&scope.user_id)
            .fetch_optional(&mut reader)
            .await?
            .ok_or(Fail::not_found("import"))?;
        read_import(&mut Columns::of(&row))
    }

    /// Runs one statement as a write; gives how many rows it changed.
    async fn change(
        &self,
        op: Op,
        statement: impl Fn() -> Bound<'static> + Send + Sync + 'static,
    ) -> Result<u64, StoreError> {
        self.write(op, move |connection| {
            let statement = statement();
            Box::pin(async move { Ok(statement.execute(connection).await?.rows_affected()) })
        })
        .await
    }
}

#[async_trait]
impl AccessStore for PostgresStore {
    async fn insert_user(&self, user: &User) -> Result<(), StoreError> {
        let user = user.clone();
        let statement = move || bind_user(query(INSERT_USER), &user, user.version);
        self.change(api("insert_user", "user"), statement).await?;
        Ok(())
    }

    async fn update_user(&self, user: &User) -> Result<(), StoreError> {
        let user = user.clone();
        self.write(api("update_user", "user"), move |connection| {
            let user = user.clone();
            Box::pin(async move { update_user(connection, &user).await })
        })
        .await
    }

    async fn user(&self, id: UserId) -> Result<User, StoreError> {
        let found = self.one_user("user", query(USER).bind(&id)).await?;
        found.ok_or_else(|| Fail::not_found("user").of("user", "user"))
    }

    async fn user_by_login(&self, login: &str) -> Result<Option<User>, StoreError> {
        let statement = query(BY_LOGIN).bind(login.to_lowercase());
        self.one_user("user_by_login", statement).await
    }

    async fn users(&self, page: &PageRequest<UserId>) -> Result<Page<User, UserId>, StoreError> {
        let limit = page.clamped();
        let read = async {
            let mut reader = self.reader().await?;
            let rows = query(USERS)
                .bind(page.after.as_ref().map_or(Uuid::nil(), uuid))
                .bind(int(limit as u64 + 1))
                .fetch_all(&mut reader)
                .await?;
            read_all(&rows, read_user)
        };
        let rows = read.await.map_err(|fail: Fail| fail.of("users", "user"))?;
        Ok(Page::cut(rows, limit, |user: &User| user.id))
    }

    async fn insert_session(&self, session: &LoginSession) -> Result<(), StoreError> {
        let session = session.clone();
        let statement = move || {
            query(INSERT_SESSION)
                .bind(session.token_hash.to_vec())
                .bind(&session.user_id)
                .bind(session.created_at.as_millis())
                .bind(session.expires_at.as_millis())
        };
        self.change(api("insert_session", "session"), statement).await?;
        Ok(())
    }

    async fn session(&self, token_hash: &[u8; 32], now: Timestamp) -> Result<Option<LoginSession>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let statement = query(SESSION).bind(token_hash.to_vec()).bind(now.as_millis());
            let row = statement.fetch_optional(&mut reader).await?;
            row.map(|row| read_session(&mut Columns::of(&row))).transpose()
        };
        read.await.map_err(|fail: Fail| fail.of("session", "session"))
    }

    async fn extend_session(&self, token_hash: &[u8; 32], expires_at: Timestamp) -> Result<(), StoreError> {
        let token_hash = token_hash.to_vec();
        let statement = move || {
            query(EXTEND_SESSION)
                .bind(expires_at.as_millis())
                .bind(token_hash.clone())
        };
        self.change(api("extend_session", "session"), statement).await?;
        Ok(())
    }

    async fn delete_session(&self, token_hash: &[u8; 32]) -> Result<(), StoreError> {
        let token_hash = token_hash.to_vec();
        let statement = move || query(DELETE_SESSION).bind(token_hash.clone());
        self.change(api("delete_session", "session"), statement).await?;
        Ok(())
    }

    async fn delete_sessions_of(&self, user: UserId) -> Result<u64, StoreError> {
        let statement = move || query(DELETE_SESSIONS_OF).bind(&user);
        self.change(api("delete_sessions_of", "session"), statement).await
    }

    async fn prune_sessions(&self, before: Timestamp) -> Result<u64, StoreError> {
        let statement = move || query(PRUNE_SESSIONS).bind(before.as_millis());
        self.change(Op(WriteClass::Bulk, "prune_sessions", "session"), statement)
            .await
    }
}

#[async_trait]
impl ImportStore for PostgresStore {
    async fn put_import(&self, record: &ImportRecord, refusals: &[ImportRefusal]) -> Result<(), StoreError> {
        let (record, refusals) = (record.clone(), refusals.to_vec());
        self.write(Op(WriteClass::Bulk, "put_import", "import"), move |connection| {
            let (record, refusals) = (record.clone(), refusals.clone());
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
            let rows = query(IMPORTS)
                .bind(&scope.user_id)
                .bind(page.after.as_ref())
                .bind(int(limit as u64 + 1))
                .fetch_all(&mut reader)
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
            let statement = query(REFUSALS).bind(&id).bind(int(after_line)).bind(limit);
            read_all(&statement.fetch_all(&mut reader).await?, |c| {
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
        let message = message.to_owned();
        let statement = move || {
            let statement = query(FAIL_RUNNING).bind(message.clone());
            statement.bind(now.as_millis()).bind(before.as_millis())
        };
        self.change(api("fail_running_imports", "import"), statement).await
    }
}
