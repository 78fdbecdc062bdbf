//! Sessions of devices that are linked to WhatsApp Web.

use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use wa_core::id::DeviceId;
use wa_core::store::{
    Page, PageRequest, SESSION_KEYS_MAX, SessionKey, SessionOwner, SessionRow, SessionStore, SessionWrite, StoreError,
    StoreErrorKind, WriteClass, session_batch, session_range,
};
use wa_core::time::Timestamp;

use crate::error::{Done, Fail};
use crate::insert::{gather, insert, query, run_over};
use crate::leases::check_node;
use crate::lock::{Mode, Space};
use crate::row::{Columns, int, read_all};
use crate::{Op, PostgresStore};

/// `session_values`: by the primary key, with the place in the list.
pub(crate) const VALUES: &str = "
    SELECT j.place, s.value FROM unnest($1::bytea[]) WITH ORDINALITY AS j (key, place)
    JOIN session_values s ON s.device_id = $2 AND s.key = j.key";
/// `scan_session`: a range of the primary key.
pub(crate) const SCAN: &str = "
    SELECT key, value, expires_at FROM session_values WHERE device_id = $1 AND key >= $2 AND key < $3
    ORDER BY key LIMIT $4";
/// `write_session`, `wipe_session`: the device, by the primary key.
pub(crate) const OWNED: &str = "SELECT 1 FROM devices WHERE id = $1 AND user_id = $2 AND owner = $3 AND epoch = $4";
/// `write_session`, by the primary key.
static PUT: LazyLock<String> = LazyLock::new(|| {
    insert(
        "INSERT INTO session_values (device_id, key, value, expires_at)",
        "uyyi",
        "ON CONFLICT (device_id, key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at",
    )
});
/// `write_session`, by the primary key.
pub(crate) const DELETE: &str = "
    DELETE FROM session_values s USING unnest($1::bytea[]) AS j (key) WHERE s.device_id = $2 AND s.key = j.key";
/// `wipe_session`, by the primary key.
pub(crate) const WIPE: &str = "DELETE FROM session_values WHERE device_id = $1";
/// `sweep_sessions`, by `session_values_expiry` and the primary key; what another node sweeps or writes just now is left to it.
pub(crate) const SWEEP: &str = "
    WITH ended AS MATERIALIZED (
        SELECT device_id, key FROM session_values WHERE expires_at < $1 ORDER BY expires_at, device_id, key LIMIT $2
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM session_values s USING ended e WHERE s.device_id = e.device_id AND s.key = e.key";

fn read_row(c: &mut Columns<'_>) -> Done<SessionRow> {
    Ok(SessionRow {
        key: SessionKey::new(c.bytes()?).ok_or(Fail::Unreadable("key"))?,
        value: c.bytes()?.to_vec(),
        expires_at: c.opt_at()?,
    })
}

async fn check_owner(connection: &mut PgConnection, space: Space, owner: &SessionOwner) -> Done<()> {
    let locks = space.locks().node(owner.incarnation, Mode::Shared);
    locks.users([&owner.user_id], Mode::Shared).take(connection).await?;
    check_node(connection, owner.incarnation).await?;
    let owned = query(OWNED)
        .bind(&owner.device_id)
        .bind(&owner.user_id)
        .bind(&owner.incarnation)
        .bind(owner.epoch.0)
        .exists(connection)
        .await?;
    if owned {
        Ok(())
    } else {
        Err(Fail::Refused(StoreErrorKind::Fenced, "device"))
    }
}

async fn write(connection: &mut PgConnection, space: Space, owner: &SessionOwner, writes: &[SessionWrite]) -> Done<()> {
    check_owner(connection, space, owner).await?;
    let (mut put, mut deleted) = (Vec::new(), Vec::new());
    for one in writes {
        match one {
            SessionWrite::Put(row) => put.push(row),
            SessionWrite::Delete(key) => deleted.push(key),
        }
    }
    run_over(connection, PUT.as_str(), put, |row, put| {
        row.bind(&owner.device_id)
            .bind(put.key.as_bytes().to_vec())
            .bind(put.value.clone())
            .bind(put.expires_at.map(Timestamp::as_millis))
    })
    .await?;
    if !deleted.is_empty() {
        gather(deleted, |row, key| row.bind(key.as_bytes().to_vec()))
            .into_statement(DELETE)
            .bind(&owner.device_id)
            .execute(connection)
            .await?;
    }
    Ok(())
}

#[async_trait]
impl SessionStore for PostgresStore {
    async fn session_values(&self, device: DeviceId, keys: &[SessionKey]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
        if keys.len() > SESSION_KEYS_MAX {
            let error = StoreError::new(StoreErrorKind::Unsupported, "session_values", "session keys");
            return Err(error);
        }
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let read = async {
            let mut reader = self.reader().await?;
            let rows = gather(keys, |row, key| row.bind(key.as_bytes().to_vec()))
                .into_statement(VALUES)
                .bind(&device)
                .fetch_all(&mut reader)
                .await?;
            let mut values = vec![None; keys.len()];
            for row in &rows {
                let mut c = Columns::of(row);
                let at = c.place()?;
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
            let rows = query(SCAN)
                .bind(&device)
                .bind(from)
                .bind(to)
                .bind(int(limit as u64 + 1))
                .fetch_all(&mut reader)
                .await?;
            read_all(&rows, read_row)
        };
        let rows = read.await.map_err(|fail: Fail| fail.of("scan_session", "session"))?;
        Ok(Page::cut(rows, limit, |row: &SessionRow| row.key.clone()))
    }

    async fn write_session(&self, owner: &SessionOwner, writes: &[SessionWrite]) -> Result<(), StoreError> {
        let writes: Vec<SessionWrite> = session_batch(writes)?.into_iter().cloned().collect();
        let (owner, space) = (*owner, self.space());
        self.write(Op(WriteClass::Settle, "write_session", "session"), move |connection| {
            let writes = writes.clone();
            Box::pin(async move { write(connection, space, &owner, &writes).await })
        })
        .await
    }

    async fn wipe_session(&self, owner: &SessionOwner) -> Result<u64, StoreError> {
        let (owner, space) = (*owner, self.space());
        self.write(Op(WriteClass::Api, "wipe_session", "session"), move |connection| {
            Box::pin(async move {
                check_owner(connection, space, &owner).await?;
                let wipe = query(WIPE).bind(&owner.device_id);
                Ok(wipe.execute(connection).await?.rows_affected())
            })
        })
        .await
    }

    async fn sweep_sessions(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(Op(WriteClass::Bulk, "sweep_sessions", "session"), move |connection| {
            Box::pin(async move {
                let sweep = query(SWEEP).bind(before.as_millis()).bind(limit);
                Ok(sweep.execute(connection).await?.rows_affected())
            })
        })
        .await
    }
}
