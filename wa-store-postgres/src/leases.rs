//! Nodes, leases and epochs.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use wa_core::domain::device::{Epoch, OwnedDevice};
use wa_core::id::{DeviceId, Incarnation, UserId};
use wa_core::seed::Seed;
use wa_core::store::{LeaseStore, NodeRecord, StoreError, StoreErrorKind, TakenOver, WriteClass};
use wa_core::time::Timestamp;

use crate::check_schema;
use crate::devices::{owned_devices, read_owned};
use crate::error::{Done, Fail};
use crate::insert::{Bound, query};
use crate::lock::{Mode, Space};
use crate::places::sent_by;
use crate::row::{Columns, keys, read_all};
use crate::settle::interrupt;
use crate::{Op, PostgresStore};

/// The node of every statement of an owner, by the primary key.
pub(crate) const NODE: &str = "SELECT fenced FROM nodes WHERE incarnation = $1";
/// `seed`: the first one stays. By the primary key.
pub(crate) const PUT_SEED: &str = "INSERT INTO meta (one, seed) VALUES (1, $1) ON CONFLICT DO NOTHING";
pub(crate) const SEED: &str = "SELECT seed FROM meta WHERE one = 1";
pub(crate) const JOIN: &str = "INSERT INTO nodes (incarnation, name, beat_at, named) VALUES ($1, $2, $3, $4)";
/// `beat`, by the primary key.
pub(crate) const BEAT: &str = "UPDATE nodes SET beat = beat + 1, beat_at = $1 WHERE incarnation = $2 AND NOT fenced";
/// `nodes`: all rows; `devices_owner` counts.
pub(crate) const NODES: &str = "
    SELECT n.incarnation, n.name, n.beat, n.beat_at, n.fenced,
        (SELECT count(*) FROM devices d WHERE d.owner = n.incarnation),
        EXISTS (SELECT 1 FROM planner WHERE planner.incarnation = n.incarnation)
    FROM nodes n ORDER BY n.incarnation";
/// `fence_the_dead`: the name of the node that asks, by the primary key.
pub(crate) const NAME: &str = "SELECT name FROM nodes WHERE incarnation = $1 AND NOT fenced";
/// `fence_the_dead`: nodes that had the lock of a name which another has now; nodes are few.
pub(crate) const NAMESAKES: &str = "
    SELECT incarnation, beat FROM nodes WHERE name = $1 AND incarnation <> $2 AND named AND NOT fenced ORDER BY incarnation";
/// `fence`: what is known of the target, whose beat waits from now on. By the primary key.
pub(crate) const TARGET: &str = "SELECT fenced, beat FROM nodes WHERE incarnation = $1 FOR UPDATE";
/// `fence`, `leave`: the devices of a node, by `devices_owner`.
pub(crate) const OWNED_IDS: &str = "SELECT id, user_id FROM devices WHERE owner = $1 ORDER BY id";
pub(crate) const FENCE: &str = "UPDATE nodes SET fenced = true WHERE incarnation = $1";
pub(crate) const END_PLANNER: &str = "DELETE FROM planner WHERE incarnation = $1";
/// `fence`, `release`, `leave`, `commit`: takes devices from their owner, so that nothing of the old owner's counts any more. What is in
/// doubt on a deleted device, which nobody claims, is for the sweep then. By the primary key.
pub(crate) const DISOWN: &str = "
    UPDATE devices SET owner = NULL, epoch = epoch + 1, sweep = sweep OR deleted_at IS NOT NULL
    WHERE id = ANY ($1::uuid[])";
/// `claim`: by `devices_unowned`; devices that another node takes just now are left to it.
pub(crate) const UNOWNED: &str = "
    SELECT id FROM devices WHERE owner IS NULL AND deleted_at IS NULL ORDER BY id LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED";
/// `unowned`: by `devices_unowned`.
pub(crate) const UNOWNED_COUNT: &str = "SELECT count(*) FROM devices WHERE owner IS NULL AND deleted_at IS NULL";
/// `claim`: by the primary key.
pub(crate) const CLAIM: &str = "
    UPDATE devices SET owner = $1, epoch = epoch + 1 WHERE id = ANY ($2::uuid[])";
/// `release`: the users of devices, by the primary key.
pub(crate) const USERS_OF: &str = "SELECT DISTINCT user_id FROM devices WHERE id = ANY ($1)";
/// `release`: those that may be given back, by the primary keys.
pub(crate) const RELEASABLE: &str = concat!(
    "SELECT d.id FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS j (id, epoch, key) JOIN devices d ON d.id = j.id
    WHERE d.owner = $3 AND d.epoch = j.epoch
        AND ",
    sent_by!("d.id"),
    " IS NULL
    ORDER BY j.key"
);
/// `plan_lease`: the first one stays. By the primary key.
pub(crate) const TAKE_PLAN: &str = "INSERT INTO planner (one, incarnation) VALUES (1, $1) ON CONFLICT DO NOTHING";
pub(crate) const PLANNER: &str = "SELECT incarnation FROM planner WHERE one = 1";
/// `forget_nodes`: nodes are few.
pub(crate) const FORGET: &str = "
    DELETE FROM nodes WHERE incarnation IN (
        SELECT incarnation FROM nodes WHERE fenced AND beat_at < $1 ORDER BY incarnation LIMIT $2 FOR UPDATE SKIP LOCKED
    )";
pub(crate) const LEAVE: &str = "DELETE FROM nodes WHERE incarnation = $1";

/// Whether a node may write as an owner: one that is fenced, has left or never joined may not. What follows holds as long as
/// the transaction has the node's lock.
pub(crate) async fn check_node(connection: &mut PgConnection, node: Incarnation) -> Done<()> {
    match query(NODE).bind(&node).number(connection).await? {
        Some(0) => Ok(()),
        _ => Err(Fail::fenced()),
    }
}

async fn ids(connection: &mut PgConnection, statement: Bound<'_>) -> Done<Vec<DeviceId>> {
    read_all(&statement.fetch_all(connection).await?, |c| c.key("id"))
}

/// Takes a device from its owner.
pub(crate) async fn disown(connection: &mut PgConnection, device: DeviceId) -> Done<()> {
    query(DISOWN).bind(keys(&[device])).execute(connection).await?;
    Ok(())
}

/// Fences a node and takes all that it had.
async fn take_over(
    connection: &mut PgConnection,
    space: Space,
    target: Incarnation,
    now: Timestamp,
) -> Done<Vec<TakenOver>> {
    // The lock of the node keeps it from giving a device back and from beginning anything meanwhile.
    let rows = query(OWNED_IDS).bind(&target).fetch_all(connection).await?;
    let owned: Vec<(DeviceId, UserId)> = read_all(&rows, |c| Ok((c.key("id")?, c.key("user_id")?)))?;
    let users: Vec<UserId> = owned.into_iter().map(|(_, user)| user).collect();
    space.locks().users(&users, Mode::Alone).take(connection).await?;
    // A device that became another account while these were waited for has no owner any more, or another.
    let rows = query(OWNED_IDS).bind(&target).fetch_all(connection).await?;
    let devices: Vec<DeviceId> = read_all(&rows, |c| c.key("id"))?;
    let mut taken: Vec<TakenOver> = interrupt(connection, &devices, now)
        .await?
        .into_iter()
        .map(|(message_id, device_id)| TakenOver { message_id, device_id })
        .collect();
    taken.sort_unstable_by_key(|row| (row.device_id, row.message_id));
    query(DISOWN).bind(keys(&devices)).execute(connection).await?;
    for sql in [FENCE, END_PLANNER] {
        query(sql).bind(&target).execute(connection).await?;
    }
    Ok(taken)
}

async fn fence(
    connection: &mut PgConnection,
    space: Space,
    by: Incarnation,
    (target, seen_beat): (Incarnation, i64),
    now: Timestamp,
) -> Done<Vec<TakenOver>> {
    let locks = space.locks().node(by, Mode::Shared).node(target, Mode::Alone);
    locks.take(connection).await?;
    check_node(connection, by).await?;
    let row = query(TARGET)
        .bind(&target)
        .fetch_optional(connection)
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
    take_over(connection, space, target, now).await
}

async fn claim(connection: &mut PgConnection, space: Space, node: Incarnation, limit: u32) -> Done<Vec<OwnedDevice>> {
    space.locks().node(node, Mode::Shared).take(connection).await?;
    check_node(connection, node).await?;
    let free = ids(connection, query(UNOWNED).bind(limit)).await?;
    query(CLAIM).bind(&node).bind(keys(&free)).execute(connection).await?;
    owned_devices(connection, &free).await
}

async fn release(
    connection: &mut PgConnection,
    space: Space,
    node: Incarnation,
    devices: &[(DeviceId, Epoch)],
) -> Done<Vec<DeviceId>> {
    let ids_of = keys(devices.iter().map(|(id, _)| id));
    // Whose devices they are never changes, so that it may be read before the locks.
    let rows = query(USERS_OF).bind(ids_of.clone()).fetch_all(connection).await?;
    let users: Vec<UserId> = read_all(&rows, |c| c.key("user_id"))?;
    let locks = space.locks().node(node, Mode::Shared).users(&users, Mode::Alone);
    locks.take(connection).await?;
    check_node(connection, node).await?;
    let epochs: Vec<i64> = devices.iter().map(|(_, epoch)| epoch.0).collect();
    let statement = query(RELEASABLE).bind(ids_of).bind(epochs).bind(&node);
    let released = ids(connection, statement).await?;
    query(DISOWN).bind(keys(&released)).execute(connection).await?;
    Ok(released)
}

async fn leave(connection: &mut PgConnection, space: Space, node: Incarnation, now: Timestamp) -> Done<()> {
    space.locks().node(node, Mode::Alone).take(connection).await?;
    take_over(connection, space, node, now).await?;
    query(LEAVE).bind(&node).execute(connection).await?;
    Ok(())
}

impl PostgresStore {
    /// Nodes that had the lock of the name of a node, with their beats; `None` where this process does not have it.
    async fn namesakes(&self, node: Incarnation) -> Done<Option<Vec<(Incarnation, i64)>>> {
        let mut reader = self.reader().await?;
        let row = query(NAME).bind(&node).fetch_optional(&mut reader).await?;
        let name = Columns::of(&row.ok_or(Fail::fenced())?).text()?;
        if !self.inner.name.holds(&name).await {
            return Ok(None);
        }
        let rows = query(NAMESAKES).bind(name).bind(&node).fetch_all(&mut reader).await?;
        read_all(&rows, |c| Ok((c.key("incarnation")?, c.int()?))).map(Some)
    }
}

/// The seed of the database, if it has one by now.
pub(crate) async fn known_seed(connection: &mut PgConnection) -> Done<Option<Seed>> {
    let Some(row) = query(SEED).fetch_optional(connection).await? else {
        return Ok(None);
    };
    let seed: Result<[u8; 32], _> = Columns::of(&row).bytes()?.try_into();
    seed.map(|seed| Some(Seed::from_bytes(seed)))
        .map_err(|_| Fail::Unreadable("seed"))
}

const fn op(name: &'static str) -> Op {
    Op(WriteClass::Settle, name, "node")
}

#[async_trait]
impl LeaseStore for PostgresStore {
    async fn seed(&self, candidate: &Seed) -> Result<Seed, StoreError> {
        let candidate = candidate.as_bytes().to_vec();
        let op = Op(WriteClass::Settle, "seed", "seed");
        self.write(op, move |connection| {
            let candidate = candidate.clone();
            Box::pin(async move {
                query(PUT_SEED).bind(candidate).execute(connection).await?;
                known_seed(connection).await?.ok_or(Fail::not_found("seed"))
            })
        })
        .await
    }

    async fn join(&self, incarnation: Incarnation, name: &str, now: Timestamp) -> Result<(), StoreError> {
        let name = name.to_owned();
        let named = self.inner.name.take(&name).await;
        self.write(op("join"), move |connection| {
            let name = name.clone();
            Box::pin(async move {
                check_schema(connection).await?;
                let statement = query(JOIN).bind(&incarnation).bind(name);
                let statement = statement.bind(now.as_millis()).bind(named);
                statement.execute(connection).await?;
                Ok(())
            })
        })
        .await
    }

    async fn beat(&self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
        self.inner.name.look_after();
        self.write_beat(op("beat"), move |connection| {
            Box::pin(async move {
                check_schema(connection).await?;
                let beat = query(BEAT).bind(now.as_millis()).bind(&incarnation);
                if beat.execute(connection).await?.rows_affected() == 1 {
                    return Ok(());
                }
                let fenced = query(NODE).bind(&incarnation).number(connection).await?;
                Err(fenced.map_or(Fail::not_found("node"), |_| Fail::fenced()))
            })
        })
        .await
    }

    async fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = query(NODES).fetch_all(&mut reader).await?;
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
            let count = query(UNOWNED_COUNT).number(&mut reader).await?;
            Ok(u64::try_from(count.unwrap_or(0)).unwrap_or(0))
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
        let space = self.space();
        self.write(op("fence"), move |connection| {
            Box::pin(fence(connection, space, by, (target, seen_beat), now))
        })
        .await
    }

    async fn fence_the_dead(&self, by: Incarnation, now: Timestamp) -> Result<Vec<TakenOver>, StoreError> {
        let targets = self.namesakes(by).await;
        let targets = targets.map_err(|fail| fail.of("fence_the_dead", "node"))?;
        // Of nodes with other names only their silence proves that they are dead.
        let unproven = StoreError::new(StoreErrorKind::Unsupported, "fence_the_dead", "node");
        let mut all = Vec::new();
        for (target, seen_beat) in targets.ok_or(unproven)? {
            match self.fence(by, target, seen_beat, now).await {
                Ok(taken) => all.extend(taken),
                // One that beats meanwhile lives in this very process, and one that left has nothing.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn claim(
        &self,
        incarnation: Incarnation,
        limit: u32,
        _now: Timestamp,
    ) -> Result<Vec<OwnedDevice>, StoreError> {
        let space = self.space();
        self.write(op("claim"), move |connection| {
            Box::pin(claim(connection, space, incarnation, limit))
        })
        .await
    }

    async fn release(
        &self,
        incarnation: Incarnation,
        devices: &[(DeviceId, Epoch)],
        _now: Timestamp,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let (space, devices) = (self.space(), devices.to_vec());
        self.write(op("release"), move |connection| {
            let devices = devices.clone();
            Box::pin(async move { release(connection, space, incarnation, &devices).await })
        })
        .await
    }

    async fn devices_of(&self, incarnation: Incarnation) -> Result<Vec<OwnedDevice>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = query(crate::devices::OWNED_BY)
                .bind(&incarnation)
                .fetch_all(&mut reader)
                .await?;
            read_all(&rows, read_owned)
        };
        read.await.map_err(|fail: Fail| fail.of("devices_of", "device"))
    }

    async fn plan_lease(&self, incarnation: Incarnation, _now: Timestamp) -> Result<bool, StoreError> {
        let space = self.space();
        self.write(op("plan_lease"), move |connection| {
            Box::pin(async move {
                space.locks().node(incarnation, Mode::Shared).take(connection).await?;
                check_node(connection, incarnation).await?;
                check_schema(connection).await?;
                query(TAKE_PLAN).bind(&incarnation).execute(connection).await?;
                let row = query(PLANNER).fetch_one(connection).await?;
                Ok(Columns::of(&row).key::<Incarnation>("incarnation")? == incarnation)
            })
        })
        .await
    }

    async fn forget_nodes(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(op("forget_nodes"), move |connection| {
            Box::pin(async move {
                let statement = query(FORGET).bind(before.as_millis()).bind(limit);
                Ok(statement.execute(connection).await?.rows_affected())
            })
        })
        .await
    }

    async fn leave(&self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
        let space = self.space();
        self.write(op("leave"), move |connection| {
            Box::pin(leave(connection, space, incarnation, now))
        })
        .await
    }
}
