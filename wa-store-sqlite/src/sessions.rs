//! Sessions of devices that are linked to WhatsApp Web.

use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use wa_core::id::DeviceId;
use wa_core::store::{
    Page, PageRequest, SESSION_KEYS_MAX, SessionKey, SessionOwner, SessionRow, SessionStore, SessionWrite, StoreError,
    StoreErrorKind, WriteClass, session_batch, session_range,
};
use wa_core::time::Timestamp;

use crate::error::{Done, Fail};
use crate::insert::Rows;
use crate::leases::check_node;
use crate::row::{Columns, blob, hex, int, read_all};
use crate::{Op, SqliteStore};

/// `session_values`: by the primary key, with the place in the list.
pub(crate) const VALUES: &str = "
    SELECT j.key, s.value FROM json_each(?) j CROSS JOIN session_values s ON s.device_id = ? AND s.key = unhex(j.value)";
/// `scan_session`: a range of the primary key.
pub(crate) const SCAN: &str = "
    SELECT key, value, expires_at FROM session_values WHERE device_id = ? AND key >= ? AND key < ? ORDER BY key LIMIT ?";
/// `write_session`, `wipe_session`: the device, and that its owner is not fenced, by the primary keys.
pub(crate) const OWNED: &str = "
    SELECT 1 FROM devices d CROSS JOIN nodes n ON n.incarnation = d.owner AND NOT n.fenced
    WHERE d.id = ? AND d.user_id = ? AND d.owner = ? AND d.epoch = ?";
/// `write_session`, by the primary key.
static PUT: LazyLock<Rows> = LazyLock::new(|| {
    Rows::insert(
        "INSERT INTO session_values (device_id, key, value, expires_at)",
        4,
        "ON CONFLICT (device_id, key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at",
    )
});
/// `write_session`, by the primary key.
pub(crate) const DELETE: &str = "
    DELETE FROM session_values WHERE device_id = ? AND key IN (SELECT unhex(value) FROM json_each(?))";
/// `wipe_session`, by the primary key.
pub(crate) const WIPE: &str = "DELETE FROM session_values WHERE device_id = ?";
/// `sweep_sessions`, by `session_values_expiry`.
pub(crate) const SWEEP: &str = "
    DELETE FROM session_values WHERE (device_id, key) IN (
        SELECT device_id, key FROM session_values INDEXED BY session_values_expiry
        WHERE expires_at < ? ORDER BY expires_at, device_id, key LIMIT ?
    )";

/// Keys as a JSON list.
fn key_list<'a>(keys: impl IntoIterator<Item = &'a SessionKey>) -> String {
    let digits: Vec<String> = keys.into_iter().map(|key| hex(key.as_bytes())).collect();
    crate::row::json(&digits)
}

fn read_row(c: &mut Columns<'_>) -> Done<SessionRow> {
    Ok(SessionRow {
        key: SessionKey::new(c.bytes()?).ok_or(Fail::Unreadable("key"))?,
        value: c.bytes()?.to_vec(),
        expires_at: c.opt_at()?,
    })
}

async fn check_owner(connection: &mut SqliteConnection, owner: &SessionOwner) -> Done<()> {
    let owned = sqlx::query(OWNED)
        .bind(blob(&owner.device_id).to_vec())
        .bind(blob(&owner.user_id).to_vec())
        .bind(blob(&owner.incarnation).to_vec())
        .bind(owner.epoch.0)
        .fetch_optional(&mut *connection)
        .await?;
    if owned.is_none() {
        check_node(connection, owner.incarnation).await?;
        return Err(Fail::Refused(StoreErrorKind::Fenced, "device"));
    }
    Ok(())
}

async fn write(connection: &mut SqliteConnection, owner: &SessionOwner, put: &[SessionRow], deleted: &str) -> Done<()> {
    check_owner(connection, owner).await?;
    PUT.run(connection, put, |statement, row| {
        statement
            .bind(blob(&owner.device_id).to_vec())
            .bind(row.key.as_bytes().to_vec())
            .bind(row.value.clone())
            .bind(row.expires_at.map(Timestamp::as_millis))
    })
    .await?;
    if deleted != "[]" {
        sqlx::query(DELETE)
            .bind(blob(&owner.device_id).to_vec())
            .bind(deleted.to_owned())
            .execute(connection)
            .await?;
    }
    Ok(())
}

#[async_trait]
impl SessionStore for SqliteStore {
    async fn session_values(&self, device: DeviceId, keys: &[SessionKey]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if keys.len() > SESSION_KEYS_MAX {
            let error = StoreError::new(StoreErrorKind::Unsupported, "session_values", "session keys");
            return Err(error);
        }
        let read = async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(VALUES)
                .bind(key_list(keys))
                .bind(blob(&device).to_vec())
                .fetch_all(&mut *reader)
                .await?;
            let mut values = vec![None; keys.len()];
            for row in &rows {
                let mut c = Columns::of(row);
                let at: usize = c.small("place")?;
                values[at] = Some(c.bytes()?.to_vec());
            }
            Ok(values)
        };
        read.await.map_err(|fail: Fail| fail.of("session_values", "session"))
    }

    async fn scan_session(
        &self,
        device: DeviceId,
        prefix: &[u8],
        page: &PageRequest<SessionKey>,
    ) -> Result<Page<SessionRow, SessionKey>, StoreError> {
        let limit = page.clamped();
        let (from, to) = session_range(prefix, page);
        let read = async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(SCAN)
                .bind(blob(&device).to_vec())
                .bind(from)
                .bind(to)
                .bind(int(limit as u64 + 1))
                .fetch_all(&mut *reader)
                .await?;
            read_all(&rows, read_row)
        };
        let rows = read.await.map_err(|fail: Fail| fail.of("scan_session", "session"))?;
        Ok(Page::cut(rows, limit, |row: &SessionRow| row.key.clone()))
    }

    async fn write_session(&self, owner: &SessionOwner, writes: &[SessionWrite]) -> Result<(), StoreError> {
        let (mut put, mut deleted) = (Vec::new(), Vec::new());
        for one in session_batch(writes)? {
            match one {
                SessionWrite::Put(row) => put.push(row.clone()),
                SessionWrite::Delete(key) => deleted.push(key),
            }
        }
        let (owner, deleted) = (*owner, key_list(deleted));
        self.write(Op(WriteClass::Settle, "write_session", "session"), move |connection| {
            Box::pin(async move { write(connection, &owner, &put, &deleted).await })
        })
        .await
    }

    async fn wipe_session(&self, owner: &SessionOwner) -> Result<u64, StoreError> {
        let owner = *owner;
        self.write(Op(WriteClass::Api, "wipe_session", "session"), move |connection| {
            Box::pin(async move {
                check_owner(connection, &owner).await?;
                let wipe = sqlx::query(WIPE).bind(blob(&owner.device_id).to_vec());
                Ok(wipe.execute(connection).await?.rows_affected())
            })
        })
        .await
    }

    async fn sweep_sessions(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(Op(WriteClass::Bulk, "sweep_sessions", "session"), move |connection| {
            Box::pin(async move {
                let sweep = sqlx::query(SWEEP).bind(before.as_millis()).bind(limit);
                Ok(sweep.execute(connection).await?.rows_affected())
            })
        })
        .await
    }
}
