//! What follows a row flip in pages, and the pool.

use std::collections::BTreeSet;

use sqlx::postgres::PgConnection;
use uuid::Uuid;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::message::{MessageScope, MessageState, Reason};
use wa_core::domain::sequence::SequenceStatus;
use wa_core::id::{CampaignId, DeviceId, SequenceId, UserId};
use wa_core::plan::ScopeGate;
use wa_core::store::{Assignment, Expired, Swept};
use wa_core::time::Timestamp;

use crate::commit::Commit;
use crate::connections::Line;
use crate::enrolments::{end_of_sequence, stick};
use crate::error::Done;
use crate::insert::{gather, query, run_over};
use crate::live::{Batch, Live, gate_of, live};
use crate::lock::{Mode, Space};
use crate::places::Moves;
use crate::pool::room;
use crate::row::{Columns, int, keys, read_all};
use crate::tallies::Tallies;

/// `sweep`: the marked campaigns, by `campaigns_sweep`.
pub(crate) const MARKED_CAMPAIGNS: &str = "SELECT id, user_id, status FROM campaigns WHERE sweep ORDER BY id";
/// `sweep`: the marked sequences, by `sequences_sweep`.
pub(crate) const MARKED_SEQUENCES: &str = "
    SELECT id, user_id, status, deleted_at IS NOT NULL FROM sequences WHERE sweep ORDER BY id";
/// `sweep`: the marked devices, by `devices_sweep`.
pub(crate) const MARKED_DEVICES: &str = "SELECT id, user_id, owner IS NOT NULL FROM devices WHERE sweep ORDER BY id";
/// `sweep`: queued messages of a campaign or sequence, of the devices that its tallies name by the queue.
pub(crate) const QUEUED_OF_SCOPE: &str = live!(
    "FROM messages m WHERE m.id IN (
        SELECT w.message_id FROM tallies t CROSS JOIN LATERAL (
            SELECT q.message_id FROM queue q WHERE q.device_id = t.device_id AND q.priority = $4 AND q.scope_id = $1 LIMIT $5
        ) AS w
        WHERE t.user_id = $2 AND t.scope_kind = $3 AND t.scope_id = $1 AND t.remaining > 0 LIMIT $5
    ) ORDER BY m.id"
);
/// `sweep`: messages of a campaign that are held or in doubt, by `parked_scope`.
pub(crate) const PARKED_OF_CAMPAIGN: &str = live!(
    "FROM messages m WHERE m.id IN (
        SELECT p.message_id FROM parked p WHERE p.scope_id = $1 AND p.state = $2 ORDER BY p.message_id LIMIT $3
    ) ORDER BY m.id"
);
/// `sweep`: messages of a sequence that are held, by `parked_scope`; those that another holds up stay so.
pub(crate) const HELD_OF_SEQUENCE: &str = concat!(
    live!("FROM parked p JOIN messages m ON m.id = p.message_id WHERE p.scope_id = $1 AND p.state = $2"),
    " AND (SELECT ",
    crate::flows::gate!("m.step_id"),
    " FROM enrolments fe JOIN sequences fq ON fq.id = fe.sequence_id WHERE fe.id = m.enrolment_id) <> 2
    ORDER BY p.message_id LIMIT $3"
);
/// `sweep`: queued messages of a device, by the queue, whose order is not that of ids.
pub(crate) const QUEUED_OF_DEVICE: &str = live!(
    "FROM messages m WHERE m.id IN (
        SELECT q.message_id FROM queue q WHERE q.device_id = $1 ORDER BY q.message_id LIMIT $2
    ) ORDER BY m.id"
);
/// `sweep`: messages of a device that are held or in doubt, by `parked_device`.
pub(crate) const PARKED_OF_DEVICE: &str = live!(
    "FROM messages m WHERE m.id IN (
        SELECT p.message_id FROM parked p WHERE p.device_id = $1 AND p.state = $2
        ORDER BY p.next_check_at, p.message_id LIMIT $3
    ) ORDER BY m.id"
);
/// `sweep`: nothing is left to move. By the primary keys.
pub(crate) const FORGET_CAMPAIGN: &str = "UPDATE campaigns SET sweep = false WHERE id = $1";
pub(crate) const FORGET_SEQUENCE: &str = "UPDATE sequences SET sweep = false WHERE id = $1";
pub(crate) const FORGET_DEVICE: &str = "UPDATE devices SET sweep = false WHERE id = $1";

/// Something whose messages have to be moved.
enum Mark {
    Campaign(UserId, CampaignId, ScopeGate),
    Sequence(UserId, SequenceId, ScopeGate),
    Device { id: DeviceId, owned: bool },
}

impl Mark {
    /// The states in which messages have to move, in the order in which they do.
    fn states(&self) -> &'static [MessageState] {
        use MessageState::{Held, InDoubt, Queued};
        match self {
            Self::Campaign(.., ScopeGate::Open) | Self::Sequence(.., ScopeGate::Open) => &[Held],
            Self::Campaign(.., ScopeGate::Paused) | Self::Sequence(.., ScopeGate::Paused) => &[Queued],
            Self::Campaign(.., ScopeGate::Ended) => &[Queued, Held, InDoubt],
            // Their enrolments end with them.
            Self::Sequence(.., ScopeGate::Ended) => &[],
            // Without an owner nobody asks the gateway any more, so what is in doubt there would stay so for ever.
            Self::Device { owned: false, .. } => &[Queued, Held, InDoubt],
            Self::Device { owned: true, .. } => &[Queued, Held],
        }
    }

    async fn page(&self, connection: &mut PgConnection, state: MessageState, limit: u64) -> Done<Vec<Live>> {
        let queued = |user: &UserId, scope: MessageScope| {
            let id = Uuid::from_bytes(scope.id_bytes(user));
            let statement = query(QUEUED_OF_SCOPE).bind(id).bind(user);
            statement.bind(scope.kind()).bind(scope.priority().as_u8())
        };
        let statement = match (self, state) {
            (Self::Campaign(user, id, _), MessageState::Queued) => queued(user, MessageScope::Campaign(*id)),
            (Self::Sequence(user, id, _), MessageState::Queued) => queued(user, MessageScope::Sequence(*id)),
            (Self::Campaign(_, id, _), _) => query(PARKED_OF_CAMPAIGN).bind(id).bind(state as u8),
            (Self::Sequence(_, id, _), _) => query(HELD_OF_SEQUENCE).bind(id).bind(state as u8),
            (Self::Device { id, .. }, MessageState::Queued) => query(QUEUED_OF_DEVICE).bind(id),
            (Self::Device { id, .. }, _) => query(PARKED_OF_DEVICE).bind(id).bind(state as u8),
        };
        Live::read_all(&statement.bind(int(limit)).fetch_all(connection).await?)
    }

    async fn forget(&self, connection: &mut PgConnection) -> Done<()> {
        let statement = match self {
            Self::Campaign(_, id, _) => query(FORGET_CAMPAIGN).bind(id),
            Self::Sequence(_, id, _) => query(FORGET_SEQUENCE).bind(id),
            Self::Device { id, .. } => query(FORGET_DEVICE).bind(id),
        };
        statement.execute(connection).await?;
        Ok(())
    }
}

async fn marks(connection: &mut PgConnection) -> Done<Vec<(UserId, Mark)>> {
    let mut marks = Vec::new();
    for row in query(MARKED_CAMPAIGNS).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let (id, user) = (c.key("id")?, c.key("user_id")?);
        let status = c.kind("status", CampaignStatus::from_u8)?;
        let gate = gate_of(MessageScope::Campaign(id), Some(status));
        marks.push((user, Mark::Campaign(user, id, gate)));
    }
    for row in query(MARKED_DEVICES).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let (id, user) = (c.key("id")?, c.key("user_id")?);
        let owned = c.flag()?;
        marks.push((user, Mark::Device { id, owned }));
    }
    for row in query(MARKED_SEQUENCES).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let (id, user) = (c.key("id")?, c.key("user_id")?);
        let runs = c.kind("status", SequenceStatus::from_u8)?.runs();
        let gate = match (c.flag()?, runs) {
            (true, _) => ScopeGate::Ended,
            (false, true) => ScopeGate::Open,
            (false, false) => ScopeGate::Paused,
        };
        marks.push((user, Mark::Sequence(user, id, gate)));
    }
    Ok(marks)
}

/// The marks of users that this transaction has alone from now on.
async fn own_marks(connection: &mut PgConnection, space: Space) -> Done<Vec<Mark>> {
    let users: BTreeSet<UserId> = marks(connection).await?.into_iter().map(|(user, _)| user).collect();
    if users.is_empty() {
        return Ok(Vec::new());
    }
    space.locks().users(&users, Mode::Alone).take(connection).await?;
    // What was marked may have changed until the locks were there.
    let marked = marks(connection).await?.into_iter();
    Ok(marked
        .filter(|(user, _)| users.contains(user))
        .map(|(_, mark)| mark)
        .collect())
}

pub(crate) async fn sweep(connection: &mut PgConnection, space: Space, limit: u32, now: Timestamp) -> Done<Swept> {
    let limit = u64::from(limit);
    let mut swept = Swept::default();
    for mark in own_marks(connection, space).await? {
        let mut left = false;
        if let Mark::Sequence(_, id, ScopeGate::Ended) = mark {
            let mut commit = Commit::new(&mut *connection, now);
            let (moved, more) = end_of_sequence(&mut commit, id, limit.saturating_sub(swept.moved)).await?;
            commit.tallies.write(commit.connection).await?;
            swept.moved += moved;
            if more {
                swept.more = true;
                continue;
            }
        }
        for state in mark.states() {
            // One more than may be moved tells whether something is left.
            let room = limit.saturating_sub(swept.moved);
            let mut page = mark.page(connection, *state, room + 1).await?;
            if page.len() as u64 > room {
                page.truncate(usize::try_from(room).unwrap_or(usize::MAX));
                left = true;
            }
            let moved = page.len() as u64;
            let mut batch = Batch::default();
            for live in page {
                move_one(&mut batch, live, now)?;
            }
            swept.wake.append(&mut batch.wake);
            let mut tallies = Tallies::default();
            batch.write(connection, &mut tallies).await?;
            tallies.write(connection).await?;
            swept.moved += moved;
            if left {
                break;
            }
        }
        if left {
            swept.more = true;
        } else {
            mark.forget(connection).await?;
        }
    }
    swept.wake.sort_unstable();
    swept.wake.dedup();
    Ok(swept)
}

/// Moves a message where the one rule wants it.
pub(crate) fn move_one(batch: &mut Batch, live: Live, now: Timestamp) -> Done<()> {
    if live.state == MessageState::InDoubt {
        let reason = if live.doubt_has_ended() {
            Reason::EndedInDoubt
        } else {
            Reason::CannotTell
        };
        batch.change(live, |live| live.place(MessageState::Unknown, Some(reason), now))?;
        return Ok(());
    }
    let to = live.requeued();
    batch.change(live, |live| {
        let waits_for = live.reason;
        live.go(&to, now);
        if live.state.is_open() {
            live.reason = waits_for;
        }
    })?;
    Ok(())
}

/// `expire`: when the next queued message expires, by `queue_expiry`.
pub(crate) const NEXT_EXPIRY: &str = "SELECT min(expires_at) FROM queue";
/// `expire`: the users of those that have expired, by `queue_expiry`.
pub(crate) const EXPIRED_USERS: &str = "
    SELECT DISTINCT m.user_id FROM (
        SELECT q.message_id FROM queue q WHERE q.expires_at <= $1 ORDER BY q.expires_at, q.message_id LIMIT $2
    ) AS e JOIN messages m ON m.id = e.message_id";
/// `expire`: the queued messages that have expired, by `queue_expiry`.
pub(crate) const EXPIRED: &str = live!(
    "FROM queue q JOIN messages m ON m.id = q.message_id
    WHERE q.expires_at <= $1 AND m.user_id = ANY ($3) ORDER BY q.expires_at, q.message_id LIMIT $2"
);

pub(crate) async fn next_expiry(connection: &mut impl Line) -> Done<Option<Timestamp>> {
    let next = query(NEXT_EXPIRY).number(connection).await?;
    Ok(next.map(Timestamp::from_millis))
}

pub(crate) async fn expire(connection: &mut PgConnection, space: Space, limit: u32, now: Timestamp) -> Done<Expired> {
    // One more than may be moved tells whether something is left.
    let look = int(u64::from(limit) + 1);
    let statement = query(EXPIRED_USERS).bind(now.as_millis()).bind(look);
    let rows = statement.fetch_all(connection).await?;
    let users: Vec<UserId> = read_all(&rows, |c| c.key("user_id"))?;
    space.locks().users(&users, Mode::Alone).take(connection).await?;
    let statement = query(EXPIRED).bind(now.as_millis()).bind(look).bind(keys(&users));
    let rows = statement.fetch_all(connection).await?;
    let mut page = Live::read_all(&rows)?;
    let more = page.len() > limit as usize;
    page.truncate(limit as usize);
    let moved = crate::row::count(page.len());
    let mut batch = Batch::default();
    for live in page {
        if live.requeued().state == MessageState::Queued {
            let expired = Some(Reason::Expired);
            batch.change(live, |live| live.place(MessageState::Skipped, expired, now))?;
        } else {
            move_one(&mut batch, live, now)?;
        }
    }
    let mut tallies = Tallies::default();
    batch.write(connection, &mut tallies).await?;
    tallies.write(connection).await?;
    let next_at = if more { None } else { next_expiry(connection).await? };
    Ok(Expired { moved, more, next_at })
}

/// `assign`: pool messages that still wait and whose device exists, by the unique index of ids.
pub(crate) const ASSIGNABLE: &str = live!(
    ", v.device_id
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[]) WITH ORDINALITY AS v (user_id, id, device_id, key)
    JOIN messages m ON m.id = v.id AND m.user_id = v.user_id
    JOIN devices d ON d.id = v.device_id AND d.user_id = v.user_id AND d.deleted_at IS NULL
    WHERE m.state = 1 AND m.from_pool AND m.device_id IS NULL ORDER BY v.key"
);
/// `assign`: gives devices. By the unique index of ids.
pub(crate) const ASSIGN: &str = "
    UPDATE messages SET device_id = v.device_id FROM unnest($1::uuid[], $2::uuid[]) AS v (id, device_id)
    WHERE messages.id = v.id";

pub(crate) async fn assign(connection: &mut PgConnection, space: Space, items: &[Assignment]) -> Done<u64> {
    if items.is_empty() {
        return Ok(0);
    }
    let users = items.iter().map(|item| &item.user_id);
    space.locks().users(users, Mode::Alone).take(connection).await?;
    let list = gather(items, |row, item| {
        row.bind(&item.user_id).bind(&item.message_id).bind(&item.device_id)
    });
    let mut tallies = Tallies::default();
    let mut seen = std::collections::HashSet::new();
    let mut rows = Vec::new();
    let mut flows = Vec::new();
    let assignable = list.into_statement(ASSIGNABLE).fetch_all(connection).await?;
    let assignable: Vec<(Live, DeviceId)> = read_all(&assignable, |c| Ok((Live::read(c)?, c.key("device_id")?)))?;
    let wanted = assignable.iter().map(|(live, device)| (live.scope, *device));
    let mut rooms = room(connection, wanted).await?;
    for (live, device) in assignable {
        let room = rooms.get_mut(&(live.scope, device));
        if room.as_ref().is_none_or(|room| **room > 0) && seen.insert(live.id) {
            if let Some(room) = room {
                *room -= 1;
            }
            let mut to = live.counted();
            to.device_id = Some(device);
            tallies.change(live.counted(), to);
            rows.push((live.id, device));
            flows.extend(live.flow.map(|flow| (flow.enrolment_id, device)));
        }
    }
    if !rows.is_empty() {
        let mut moves = Moves::default();
        rows.iter().for_each(|(message, _)| moves.requeue(*message));
        moves.leave(connection).await?;
        run_over(connection, ASSIGN, &rows, |row, (message, device)| {
            row.bind(message).bind(device)
        })
        .await?;
        moves.enter(connection).await?;
        stick(connection, &mut tallies, &flows).await?;
        tallies.write(connection).await?;
    }
    Ok(crate::row::count(rows.len()))
}

/// `unassign`: queued pool messages of a device, by `queue_topped_up`.
pub(crate) const TOPPED_UP: &str = live!(
    "FROM queue q JOIN messages m ON m.id = q.message_id
    WHERE q.device_id = $1 AND q.from_pool AND q.device_id <> '00000000-0000-0000-0000-000000000000'::uuid AND m.user_id = $2"
);

pub(crate) async fn unassign(connection: &mut PgConnection, space: Space, user: UserId, device: DeviceId) -> Done<u64> {
    space.locks().users([&user], Mode::Alone).take(connection).await?;
    let rows = query(TOPPED_UP).bind(&device).bind(&user).fetch_all(connection).await?;
    let mut batch = Batch::default();
    for live in Live::read_all(&rows)? {
        batch.change(live, |live| live.device_id = None)?;
    }
    let moved = crate::row::count(batch.len());
    let mut tallies = Tallies::default();
    batch.write(connection, &mut tallies).await?;
    tallies.write(connection).await?;
    Ok(moved)
}
