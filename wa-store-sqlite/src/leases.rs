//! Nodes, leases and epochs.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use wa_core::domain::device::{Epoch, OwnedDevice};
use wa_core::id::{DeviceId, Incarnation};
use wa_core::seed::Seed;
use wa_core::store::{LeaseStore, NodeRecord, StoreError, StoreErrorKind, TakenOver, WriteClass};
use wa_core::time::Timestamp;

use crate::devices::{owned_devices, read_owned};
use crate::error::{Done, Fail};
use crate::row::{Columns, blob, hex, hex_list, json, read_all};
use crate::settle::interrupt_node;
use crate::{Op, SqliteStore};

/// The node of every statement of an owner, by the primary key.
pub(crate) const NODE: &str = "SELECT fenced FROM nodes WHERE incarnation = ?";
/// `seed`: the first one stays. By the primary key.
pub(crate) const PUT_SEED: &str = "INSERT INTO meta (one, seed) VALUES (1, ?) ON CONFLICT DO NOTHING";
pub(crate) const SEED: &str = "SELECT seed FROM meta WHERE one = 1";
pub(crate) const JOIN: &str = "INSERT INTO nodes (incarnation, name, beat_at) VALUES (?, ?, ?)";
/// `beat`, by the primary key.
pub(crate) const BEAT: &str = "UPDATE nodes SET beat = beat + 1, beat_at = ? WHERE incarnation = ? AND fenced = 0";
/// `nodes`: all rows; `devices_owner` counts.
pub(crate) const NODES: &str = "
    SELECT n.incarnation, n.name, n.beat, n.beat_at, n.fenced,
        (SELECT count(*) FROM devices d WHERE d.owner = n.incarnation),
        EXISTS (SELECT 1 FROM planner WHERE planner.incarnation = n.incarnation)
    FROM nodes n ORDER BY n.incarnation";
/// `fence`: what is known of the target, by the primary key.
pub(crate) const TARGET: &str = "SELECT fenced, beat FROM nodes WHERE incarnation = ?";
/// `fence_the_dead`: the others.
pub(crate) const OTHERS: &str =
    "SELECT incarnation FROM nodes WHERE incarnation <> ? AND fenced = 0 ORDER BY incarnation";
/// `fence`, `leave`: takes all its devices from a node, as [`DISOWN`] does. By `devices_owner`.
pub(crate) const DISOWN_ALL: &str = "
    UPDATE devices INDEXED BY devices_owner
    SET owner = NULL, epoch = epoch + 1, sweep = max(sweep, deleted_at IS NOT NULL) WHERE owner = ?";
pub(crate) const FENCE: &str = "UPDATE nodes SET fenced = 1 WHERE incarnation = ?";
pub(crate) const END_PLANNER: &str = "DELETE FROM planner WHERE incarnation = ?";
/// `release`, `commit`: takes devices from their owner, so that nothing of the old owner's counts any more. What is in
/// doubt on a deleted device, which nobody claims, is for the sweep then. By the primary key.
pub(crate) const DISOWN: &str = "
    UPDATE devices SET owner = NULL, epoch = epoch + 1, sweep = max(sweep, deleted_at IS NOT NULL)
    WHERE id IN (SELECT unhex(value) FROM json_each(?))";
/// `claim`: by `devices_unowned`.
pub(crate) const UNOWNED: &str = "
    SELECT id FROM devices INDEXED BY devices_unowned WHERE owner IS NULL AND deleted_at IS NULL ORDER BY id LIMIT ?";
/// `unowned`: by `devices_unowned`.
pub(crate) const UNOWNED_COUNT: &str =
    "SELECT count(*) FROM devices INDEXED BY devices_unowned WHERE owner IS NULL AND deleted_at IS NULL";
/// `claim`: by the primary key.
pub(crate) const CLAIM: &str = "
    UPDATE devices SET owner = ?, epoch = epoch + 1 WHERE id IN (SELECT unhex(value) FROM json_each(?))";
/// `release`: those that may be given back, by the primary key and `messages_sending`.
pub(crate) const RELEASABLE: &str = "
    SELECT d.id FROM json_each(?) j CROSS JOIN devices d ON d.id = unhex(j.value->>0)
    WHERE d.owner = ? AND d.epoch = j.value->>1
        AND NOT EXISTS (
            SELECT 1 FROM messages m INDEXED BY messages_sending WHERE m.device_id = d.id AND m.state = 3
        )
    ORDER BY j.key";
/// `plan_lease`: the first one stays. By the primary key.
pub(crate) const TAKE_PLAN: &str = "INSERT INTO planner (one, incarnation) VALUES (1, ?) ON CONFLICT DO NOTHING";
pub(crate) const PLANNER: &str = "SELECT incarnation FROM planner WHERE one = 1";
/// `forget_nodes`: nodes are few.
pub(crate) const FORGET: &str = "
    DELETE FROM nodes WHERE incarnation IN (
        SELECT incarnation FROM nodes WHERE fenced = 1 AND beat_at < ? ORDER BY incarnation LIMIT ?
    )";
pub(crate) const LEAVE: &str = "DELETE FROM nodes WHERE incarnation = ?";

/// Whether a node may write as an owner: one that is fenced, has left or never joined may not.
pub(crate) async fn check_node(connection: &mut SqliteConnection, node: Incarnation) -> Done<()> {
    let fenced: Option<i64> = sqlx::query_scalar(NODE)
        .bind(blob(&node).to_vec())
        .fetch_optional(connection)
        .await?;
    if fenced == Some(0) { Ok(()) } else { Err(Fail::fenced()) }
}

async fn ids<'q, P>(connection: &mut SqliteConnection, sql: &'static str, parameter: P) -> Done<Vec<DeviceId>>
where
    P: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    let rows = sqlx::query(sql).bind(parameter).fetch_all(connection).await?;
    read_all(&rows, |c| c.key("id"))
}

/// Takes a device from its owner.
pub(crate) async fn disown(connection: &mut SqliteConnection, device: DeviceId) -> Done<()> {
    sqlx::query(DISOWN)
        .bind(hex_list(&[device]))
        .execute(connection)
        .await?;
    Ok(())
}

/// Fences a node and takes all that it had.
async fn take_over(connection: &mut SqliteConnection, target: Incarnation, now: Timestamp) -> Done<Vec<TakenOver>> {
    let mut taken: Vec<TakenOver> = interrupt_node(connection, target, now)
        .await?
        .into_iter()
        .map(|(message_id, device_id)| TakenOver { message_id, device_id })
        .collect();
    taken.sort_unstable_by_key(|row| (row.device_id, row.message_id));
    for sql in [DISOWN_ALL, FENCE, END_PLANNER] {
        sqlx::query(sql)
            .bind(blob(&target).to_vec())
            .execute(&mut *connection)
            .await?;
    }
    Ok(taken)
}

async fn fence(
    connection: &mut SqliteConnection,
    by: Incarnation,
    target: Incarnation,
    seen_beat: i64,
    now: Timestamp,
) -> Done<Vec<TakenOver>> {
    check_node(connection, by).await?;
    let row = sqlx::query(TARGET)
        .bind(blob(&target).to_vec())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(Fail::not_found("node"))?;
    let mut c = Columns::of(&row);
    let (fenced, beat) = (c.flag()?, c.int()?);
    if fenced {
        return Ok(Vec::new());
    }
    if by == target || beat != seen_beat {
        return Err(Fail::conflict("node"));
    }
    take_over(connection, target, now).await
}

async fn fence_the_dead(connection: &mut SqliteConnection, by: Incarnation, now: Timestamp) -> Done<Vec<TakenOver>> {
    check_node(connection, by).await?;
    let rows = sqlx::query(OTHERS)
        .bind(blob(&by).to_vec())
        .fetch_all(&mut *connection)
        .await?;
    let mut taken = Vec::new();
    for target in read_all(&rows, |c| c.key("incarnation"))? {
        taken.extend(take_over(connection, target, now).await?);
    }
    Ok(taken)
}

async fn claim(connection: &mut SqliteConnection, node: Incarnation, limit: u32) -> Done<Vec<OwnedDevice>> {
    check_node(connection, node).await?;
    let free = ids(connection, UNOWNED, limit).await?;
    let list = hex_list(&free);
    sqlx::query(CLAIM)
        .bind(blob(&node).to_vec())
        .bind(list)
        .execute(&mut *connection)
        .await?;
    owned_devices(connection, &free).await
}

async fn release(
    connection: &mut SqliteConnection,
    node: Incarnation,
    devices: &[(DeviceId, Epoch)],
) -> Done<Vec<DeviceId>> {
    check_node(connection, node).await?;
    let list: Vec<(String, i64)> = devices
        .iter()
        .map(|(id, epoch)| (hex(id.as_bytes()), epoch.0))
        .collect();
    let rows = sqlx::query(RELEASABLE)
        .bind(json(&list))
        .bind(blob(&node).to_vec())
        .fetch_all(&mut *connection)
        .await?;
    let released: Vec<DeviceId> = read_all(&rows, |c| c.key("id"))?;
    sqlx::query(DISOWN)
        .bind(hex_list(&released))
        .execute(connection)
        .await?;
    Ok(released)
}

async fn leave(connection: &mut SqliteConnection, node: Incarnation, now: Timestamp) -> Done<()> {
    take_over(connection, node, now).await?;
    sqlx::query(LEAVE)
        .bind(blob(&node).to_vec())
        .execute(connection)
        .await?;
    Ok(())
}

/// The seed of the database, if it has one by now.
pub(crate) async fn known_seed(connection: &mut SqliteConnection) -> Done<Option<Seed>> {
    let seed: Option<Vec<u8>> = sqlx::query_scalar(SEED).fetch_optional(connection).await?;
    seed.map(read_seed).transpose()
}

fn read_seed(seed: Vec<u8>) -> Done<Seed> {
    let seed: Result<[u8; 32], _> = seed.try_into();
    seed.map(Seed::from_bytes).map_err(|_| Fail::Unreadable("seed"))
}

const fn op(name: &'static str) -> Op {
    Op(WriteClass::Settle, name, "node")
}

#[async_trait]
impl LeaseStore for SqliteStore {
    async fn seed(&self, candidate: &Seed) -> Result<Seed, StoreError> {
        let candidate = candidate.as_bytes().to_vec();
        let op = Op(WriteClass::Settle, "seed", "seed");
        let seed: Vec<u8> = self
            .write(op, move |connection| {
                Box::pin(async move {
                    sqlx::query(PUT_SEED).bind(candidate).execute(&mut *connection).await?;
                    Ok(sqlx::query_scalar(SEED).fetch_one(connection).await?)
                })
            })
            .await?;
        read_seed(seed).map_err(|fail| fail.of("seed", "seed"))
    }

    async fn join(&self, incarnation: Incarnation, name: &str, now: Timestamp) -> Result<(), StoreError> {
        let name = name.to_owned();
        self.write(op("join"), move |connection| {
            Box::pin(async move {
                let statement = sqlx::query(JOIN).bind(blob(&incarnation).to_vec()).bind(name);
                statement.bind(now.as_millis()).execute(connection).await?;
                Ok(())
            })
        })
        .await
    }

    async fn beat(&self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
        self.write(op("beat"), move |connection| {
            Box::pin(async move {
                let node = blob(&incarnation).to_vec();
                let beat = sqlx::query(BEAT).bind(now.as_millis()).bind(node.clone());
                if beat.execute(&mut *connection).await?.rows_affected() == 1 {
                    return Ok(());
                }
                let fenced: Option<i64> = sqlx::query_scalar(NODE).bind(node).fetch_optional(connection).await?;
                Err(fenced.map_or(Fail::not_found("node"), |_| Fail::fenced()))
            })
        })
        .await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(NODES).fetch_all(&mut *reader).await?;
            read_all(&rows, |c| {
                Ok(NodeRecord {
                    incarnation: c.key("incarnation")?,
                    name: c.text()?,
                    beat: c.int()?,
                    beat_at: c.at()?,
                    fenced: c.flag()?,
                    device_count: c.count()?,
                    planner: c.flag()?,
                })
            })
        };
        read.await.map_err(|fail: Fail| fail.of("nodes", "node"))
    }

    async fn unowned(&self) -> Result<u64, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let count: i64 = sqlx::query_scalar(UNOWNED_COUNT).fetch_one(&mut *reader).await?;
            Ok(u64::try_from(count).unwrap_or(0))
        };
        read.await.map_err(|fail: Fail| fail.of("unowned", "device"))
    }

    async fn fence(
        &self,
        by: Incarnation,
        target: Incarnation,
        seen_beat: i64,
        now: Timestamp,
    ) -> Result<Vec<TakenOver>, StoreError> {
        self.write(op("fence"), move |connection| {
            Box::pin(fence(connection, by, target, seen_beat, now))
        })
        .await
    }

    async fn fence_the_dead(&self, by: Incarnation, now: Timestamp) -> Result<Vec<TakenOver>, StoreError> {
        if !self.is_exclusive() {
            return Err(StoreError::new(StoreErrorKind::Unsupported, "fence_the_dead", "node"));
        }
        self.write(op("fence_the_dead"), move |connection| {
            Box::pin(fence_the_dead(connection, by, now))
        })
        .await
    }

    async fn claim(
        &self,
        incarnation: Incarnation,
        limit: u32,
        _now: Timestamp,
    ) -> Result<Vec<OwnedDevice>, StoreError> {
        self.write(op("claim"), move |connection| {
            Box::pin(claim(connection, incarnation, limit))
        })
        .await
    }

    async fn release(
        &self,
        incarnation: Incarnation,
        devices: &[(DeviceId, Epoch)],
        _now: Timestamp,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let devices = devices.to_vec();
        self.write(op("release"), move |connection| {
            Box::pin(async move { release(connection, incarnation, &devices).await })
        })
        .await
    }

    async fn devices_of(&self, incarnation: Incarnation) -> Result<Vec<OwnedDevice>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(crate::devices::OWNED_BY)
                .bind(blob(&incarnation).to_vec())
                .fetch_all(&mut *reader)
                .await?;
            read_all(&rows, read_owned)
        };
        read.await.map_err(|fail: Fail| fail.of("devices_of", "device"))
    }

    async fn plan_lease(&self, incarnation: Incarnation, _now: Timestamp) -> Result<bool, StoreError> {
        self.write(op("plan_lease"), move |connection| {
            Box::pin(async move {
                check_node(connection, incarnation).await?;
                let node = blob(&incarnation).to_vec();
                sqlx::query(TAKE_PLAN)
                    .bind(node.clone())
                    .execute(&mut *connection)
                    .await?;
                let holder: Vec<u8> = sqlx::query_scalar(PLANNER).fetch_one(connection).await?;
                Ok(holder == node)
            })
        })
        .await
    }

    async fn forget_nodes(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(op("forget_nodes"), move |connection| {
            Box::pin(async move {
                let statement = sqlx::query(FORGET).bind(before.as_millis()).bind(limit);
                Ok(statement.execute(connection).await?.rows_affected())
            })
        })
        .await
    }

    async fn leave(&self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
        self.write(op("leave"), move |connection| {
            Box::pin(leave(connection, incarnation, now))
        })
        .await
    }
}
