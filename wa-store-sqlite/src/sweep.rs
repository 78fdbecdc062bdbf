//! What follows a row flip in pages, and the pool.

use sqlx::sqlite::SqliteConnection;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::message::{MessageScope, MessageState, Reason};
use wa_core::domain::sequence::SequenceStatus;
use wa_core::id::{CampaignId, DeviceId, SequenceId, UserId};
use wa_core::plan::ScopeGate;
use wa_core::store::{Assignment, Expired, Swept};
use wa_core::time::Timestamp;

use crate::commit::Commit;
use crate::enrolments::{end_of_sequence, stick};
use crate::error::Done;
use crate::live::{Batch, Live, gate_of, live};
use crate::pool::room;
use crate::row::{Columns, blob, hex, int, json, read_all};
use crate::tallies::Tallies;

/// `sweep`: the marked campaigns, by `campaigns_sweep`.
pub(crate) const MARKED_CAMPAIGNS: &str =
    "SELECT id, status FROM campaigns INDEXED BY campaigns_sweep WHERE sweep = 1 ORDER BY id";
/// `sweep`: the marked sequences, by `sequences_sweep`.
pub(crate) const MARKED_SEQUENCES: &str = "
    SELECT id, status, deleted_at IS NOT NULL FROM sequences INDEXED BY sequences_sweep WHERE sweep = 1 ORDER BY id";
/// `sweep`: open messages of a sequence in a state, by `messages_open_flows`; those that another holds up stay held.
pub(crate) const OF_SEQUENCE: &str = concat!(
    live!("FROM messages m INDEXED BY messages_open_flows WHERE m.scope_kind = 2 AND m.state < 5 AND m.scope_id = ?"),
    " AND m.state = ?
    AND (m.state <> 2 OR (SELECT ",
    crate::flows::gate!("m.step_id"),
    " FROM enrolments fe CROSS JOIN sequences fq ON fq.id = fe.sequence_id WHERE fe.id = m.enrolment_id) <> 2)
    ORDER BY m.id LIMIT ?"
);
/// `sweep`: the marked devices, by `devices_sweep`.
pub(crate) const MARKED_DEVICES: &str =
    "SELECT id, owner IS NOT NULL FROM devices INDEXED BY devices_sweep WHERE sweep = 1 ORDER BY id";
/// `sweep`: open messages of a campaign in a state, which is never that of being sent, by `messages_open`.
pub(crate) const OF_CAMPAIGN: &str = live!(
    "FROM messages m INDEXED BY messages_open
    WHERE m.scope_kind = 1 AND m.state < 5 AND m.state <> 3 AND m.scope_id = ? AND m.state = ? ORDER BY m.id LIMIT ?"
);
/// `sweep`: queued messages of a device, by `messages_queue`, whose order is not that of ids.
pub(crate) const QUEUED_OF_DEVICE: &str = live!(
    "FROM messages m WHERE m.seq IN (
        SELECT w.seq FROM messages w INDEXED BY messages_queue WHERE w.device_id = ? AND w.state = 1
        ORDER BY w.id LIMIT ?
    ) ORDER BY m.id"
);
/// `sweep`: held messages of a device, by `messages_held`.
pub(crate) const HELD_OF_DEVICE: &str =
    live!("FROM messages m INDEXED BY messages_held WHERE m.device_id = ? AND m.state = 2 ORDER BY m.id LIMIT ?");
/// `sweep`: messages in doubt of a device, by `messages_doubt`.
pub(crate) const DOUBTS_OF_DEVICE: &str =
    live!("FROM messages m INDEXED BY messages_doubt WHERE m.device_id = ? AND m.state = 4 ORDER BY m.id LIMIT ?");
/// `sweep`: nothing is left to move. By the primary keys.
pub(crate) const FORGET_CAMPAIGN: &str = "UPDATE campaigns SET sweep = 0 WHERE id = ?";
pub(crate) const FORGET_SEQUENCE: &str = "UPDATE sequences SET sweep = 0 WHERE id = ?";
pub(crate) const FORGET_DEVICE: &str = "UPDATE devices SET sweep = 0 WHERE id = ?";

/// Something whose messages have to be moved.
enum Mark {
    Campaign(CampaignId, ScopeGate),
    Sequence(SequenceId, ScopeGate),
    Device { id: DeviceId, owned: bool },
}

impl Mark {
    /// The states in which messages have to move, in the order in which they do.
    fn states(&self) -> &'static [MessageState] {
        use MessageState::{Held, InDoubt, Queued};
        match self {
            Self::Campaign(_, ScopeGate::Open) | Self::Sequence(_, ScopeGate::Open) => &[Held],
            Self::Campaign(_, ScopeGate::Paused) | Self::Sequence(_, ScopeGate::Paused) => &[Queued],
            Self::Campaign(_, ScopeGate::Ended) => &[Queued, Held, InDoubt],
            // Their enrolments end with them.
            Self::Sequence(_, ScopeGate::Ended) => &[],
            // Without an owner nobody asks the gateway any more, so what is in doubt there would stay so for ever.
            Self::Device { owned: false, .. } => &[Queued, Held, InDoubt],
            Self::Device { owned: true, .. } => &[Queued, Held],
        }
    }

    async fn page(&self, connection: &mut SqliteConnection, state: MessageState, limit: u64) -> Done<Vec<Live>> {
        let statement = match self {
            Self::Campaign(id, _) => sqlx::query(OF_CAMPAIGN).bind(blob(id).to_vec()).bind(state as u8),
            Self::Sequence(id, _) => sqlx::query(OF_SEQUENCE).bind(blob(id).to_vec()).bind(state as u8),
            Self::Device { id, .. } => {
                let sql = match state {
                    MessageState::Queued => QUEUED_OF_DEVICE,
                    MessageState::Held => HELD_OF_DEVICE,
                    _ => DOUBTS_OF_DEVICE,
                };
                sqlx::query(sql).bind(blob(id).to_vec())
            }
        };
        Live::read_all(&statement.bind(int(limit)).fetch_all(connection).await?)
    }

    async fn forget(&self, connection: &mut SqliteConnection) -> Done<()> {
        let statement = match self {
            Self::Campaign(id, _) => sqlx::query(FORGET_CAMPAIGN).bind(blob(id).to_vec()),
            Self::Sequence(id, _) => sqlx::query(FORGET_SEQUENCE).bind(blob(id).to_vec()),
            Self::Device { id, .. } => sqlx::query(FORGET_DEVICE).bind(blob(id).to_vec()),
        };
        statement.execute(connection).await?;
        Ok(())
    }
}

async fn marks(connection: &mut SqliteConnection) -> Done<Vec<Mark>> {
    let mut marks = Vec::new();
    for row in sqlx::query(MARKED_CAMPAIGNS).fetch_all(&mut *connection).await? {
        let mut c = Columns::of(&row);
        let id = c.key("id")?;
        let status = c.kind("status", CampaignStatus::from_u8)?;
        marks.push(Mark::Campaign(id, gate_of(MessageScope::Campaign(id), Some(status))));
    }
    for row in sqlx::query(MARKED_DEVICES).fetch_all(&mut *connection).await? {
        let mut c = Columns::of(&row);
        marks.push(Mark::Device {
            id: c.key("id")?,
            owned: c.flag()?,
        });
    }
    for row in sqlx::query(MARKED_SEQUENCES).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let id = c.key("id")?;
        let runs = c.kind("status", SequenceStatus::from_u8)?.runs();
        let gate = match (c.flag()?, runs) {
            (true, _) => ScopeGate::Ended,
            (false, true) => ScopeGate::Open,
            (false, false) => ScopeGate::Paused,
        };
        marks.push(Mark::Sequence(id, gate));
    }
    Ok(marks)
}

pub(crate) async fn sweep(connection: &mut SqliteConnection, limit: u32, now: Timestamp) -> Done<Swept> {
    let limit = u64::from(limit);
    let mut swept = Swept::default();
    for mark in marks(connection).await? {
        let mut left = false;
        if let Mark::Sequence(id, ScopeGate::Ended) = mark {
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

/// `expire`: when the next queued message expires, by `messages_expiry`.
pub(crate) const NEXT_EXPIRY: &str = "SELECT min(expires_at) FROM messages INDEXED BY messages_expiry WHERE state = 1";
/// `expire`: the queued messages that have expired, by `messages_expiry`.
pub(crate) const EXPIRED: &str = live!(
    "FROM messages m INDEXED BY messages_expiry WHERE m.state = 1 AND m.expires_at <= ?
    ORDER BY m.expires_at, m.id LIMIT ?"
);

pub(crate) async fn next_expiry(connection: &mut SqliteConnection) -> Done<Option<Timestamp>> {
    let next: Option<i64> = sqlx::query_scalar(NEXT_EXPIRY).fetch_one(connection).await?;
    Ok(next.map(Timestamp::from_millis))
}

pub(crate) async fn expire(connection: &mut SqliteConnection, limit: u32, now: Timestamp) -> Done<Expired> {
    // One more than may be moved tells whether something is left.
    let rows = sqlx::query(EXPIRED)
        .bind(now.as_millis())
        .bind(int(u64::from(limit) + 1))
        .fetch_all(&mut *connection)
        .await?;
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
    ", v.device_id FROM (
        SELECT key, unhex(value->>0) AS user_id, unhex(value->>1) AS id, unhex(value->>2) AS device_id FROM json_each(?)
    ) AS v
    CROSS JOIN messages m ON m.id = v.id AND m.user_id = v.user_id
    CROSS JOIN devices d ON d.id = v.device_id AND d.user_id = v.user_id AND d.deleted_at IS NULL
    WHERE m.state = 1 AND m.from_pool = 1 AND m.device_id IS NULL ORDER BY v.key"
);
/// `assign`: gives devices. By the row id.
pub(crate) const ASSIGN: &str = "
    UPDATE messages SET device_id = v.d FROM (SELECT value->>0 AS q, unhex(value->>1) AS d FROM json_each(?)) AS v
    WHERE messages.seq = v.q";

pub(crate) async fn assign(connection: &mut SqliteConnection, items: &[Assignment]) -> Done<u64> {
    let list: Vec<(String, String, String)> = items
        .iter()
        .map(|item| {
            (
                hex(item.user_id.as_bytes()),
                hex(item.message_id.as_bytes()),
                hex(item.device_id.as_bytes()),
            )
        })
        .collect();
    let mut tallies = Tallies::default();
    let mut seen = std::collections::HashSet::new();
    let mut rows = Vec::new();
    let mut flows = Vec::new();
    let assignable = sqlx::query(ASSIGNABLE)
        .bind(json(&list))
        .fetch_all(&mut *connection)
        .await?;
    let assignable: Vec<(Live, DeviceId)> = read_all(&assignable, |c| Ok((Live::read(c)?, c.key("device_id")?)))?;
    let wanted = assignable.iter().map(|(live, device)| (live.scope, *device));
    let mut rooms = room(connection, wanted).await?;
    for (live, device) in assignable {
        let room = rooms.get_mut(&(live.scope, device));
        if room.as_ref().is_none_or(|room| **room > 0) && seen.insert(live.seq) {
            if let Some(room) = room {
                *room -= 1;
            }
            let mut to = live.counted();
            to.device_id = Some(device);
            tallies.change(live.counted(), to);
            rows.push((live.seq, hex(device.as_bytes())));
            flows.extend(live.flow.map(|flow| (flow.enrolment_id, device)));
        }
    }
    if !rows.is_empty() {
        sqlx::query(ASSIGN).bind(json(&rows)).execute(&mut *connection).await?;
        stick(connection, &mut tallies, &flows).await?;
        tallies.write(connection).await?;
    }
    Ok(crate::row::count(rows.len()))
}

/// `unassign`: queued pool messages of a device, by `messages_topped_up`.
pub(crate) const TOPPED_UP: &str = live!(
    "FROM messages m INDEXED BY messages_topped_up
    WHERE m.device_id = ? AND m.state = 1 AND m.from_pool = 1 AND m.user_id = ?"
);

pub(crate) async fn unassign(connection: &mut SqliteConnection, user: UserId, device: DeviceId) -> Done<u64> {
    let rows = sqlx::query(TOPPED_UP)
        .bind(blob(&device).to_vec())
        .bind(blob(&user).to_vec())
        .fetch_all(&mut *connection)
        .await?;
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
