//! Requests to devices, and durable events.

use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use wa_core::domain::access::RequestScope;
use wa_core::domain::command::{DeviceAnswer, DeviceCommand};
use wa_core::event::{Event, EventKind};
use wa_core::id::{CommandId, EventId, Incarnation};
use wa_core::store::{CommandStore, EventStore, Fence, PAGE_MAX, StoreError, WriteClass};
use wa_core::time::Timestamp;

use crate::commit::check_fence;
use crate::devices::live_device;
use crate::error::{Done, Fail};
use crate::insert::Rows;
use crate::row::{Columns, blob, device_list, int, json, read_all};
use crate::{Op, SqliteStore};

macro_rules! command {
    ($from:literal) => {
        concat!(
            "SELECT k.id, k.user_id, k.device_id, k.ask, k.answer, k.created_at, k.expires_at ",
            $from
        )
    };
}

/// `command`, by the unique index of ids.
pub(crate) const VISIBLE: &str = command!(
    "FROM device_commands k WHERE k.id = ?1 AND k.user_id = ?2
    AND (?3 IS NULL OR k.device_id IN (SELECT unhex(value) FROM json_each(?3)))"
);
/// `AnswerCommand`, by the unique index of ids.
pub(crate) const ONE: &str = command!("FROM device_commands k WHERE k.id = ?");
/// `commands`: by `devices_owner` and `device_commands_waiting`.
pub(crate) const WAITING: &str = command!(
    "FROM devices d INDEXED BY devices_owner
    CROSS JOIN device_commands k INDEXED BY device_commands_waiting ON k.device_id = d.id AND k.answered = 0
    WHERE d.owner = ? AND k.expires_at > ? ORDER BY k.created_at, k.id LIMIT ?"
);
/// `prune_commands`: a page, by `device_commands_expiry`.
pub(crate) const PRUNE: &str = "
    DELETE FROM device_commands WHERE id IN (
        SELECT id FROM device_commands INDEXED BY device_commands_expiry WHERE expires_at < ?
        ORDER BY expires_at LIMIT ?)";
pub(crate) const INSERT: &str = "
    INSERT INTO device_commands (id, user_id, device_id, ask, answer, answered, created_at, expires_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
/// `AnswerCommand`: the first answer stays. By the unique index of ids.
pub(crate) const ANSWER: &str = "UPDATE device_commands SET answer = ?, answered = 1 WHERE id = ? AND answered = 0";

/// `events`: the place of the last one read, by the unique index of ids.
pub(crate) const PLACE: &str = "SELECT rowid FROM events WHERE id = ? AND user_id = ?";
/// `events`: by `events_user_order`. Rows come one commit after the other, so that their numbers are in the order of commits.
pub(crate) const EVENTS: &str = "
    SELECT rowid, body FROM events INDEXED BY events_user_order WHERE user_id = ? AND rowid > ? ORDER BY rowid LIMIT ?";
/// `newest_event`: by `events_user_order`.
pub(crate) const NEWEST: &str = "
    SELECT id FROM events INDEXED BY events_user_order WHERE user_id = ? ORDER BY rowid DESC LIMIT 1";
/// `prune_events`: a page, by `events_age`.
pub(crate) const PRUNE_EVENTS: &str = "
    DELETE FROM events WHERE id IN (SELECT id FROM events INDEXED BY events_age WHERE at < ? ORDER BY at LIMIT ?)";
/// `prune_replies`: a page, by `replies_age`.
pub(crate) const PRUNE_REPLIES: &str = "
    DELETE FROM replies WHERE (device_id, provider_id) IN (
        SELECT device_id, provider_id FROM replies INDEXED BY replies_age WHERE at < ? ORDER BY at LIMIT ?
    )";
/// `commit`: an event that is there already stays.
static INSERT_EVENTS: LazyLock<Rows> = LazyLock::new(|| {
    Rows::insert(
        "INSERT INTO events (id, user_id, body, at)",
        4,
        "ON CONFLICT DO NOTHING",
    )
});

/// `events` of a limited scope: what the scope sees of campaigns and leads. By the unique indexes of ids.
pub(crate) const SEES_CAMPAIGN: &str = "
    SELECT 1 FROM campaigns WHERE id = ?1 AND user_id = ?2
        AND device_id IN (SELECT unhex(value) FROM json_each(?3))";
pub(crate) const SEES_LEAD: &str = "
    SELECT 1 FROM leads WHERE id = ?1 AND user_id = ?2 AND device_id IN (SELECT unhex(value) FROM json_each(?3))";

fn read_command(c: &mut Columns<'_>) -> Done<DeviceCommand> {
    Ok(DeviceCommand {
        id: c.key("id")?,
        user_id: c.key("user_id")?,
        device_id: c.key("device_id")?,
        ask: c.json("ask")?,
        answer: c.json("answer")?,
        created_at: c.at()?,
        expires_at: c.at()?,
    })
}

/// Adds a request.
pub(crate) async fn insert_command(connection: &mut SqliteConnection, command: &DeviceCommand) -> Done<()> {
    live_device(connection, command.user_id, command.device_id).await?;
    sqlx::query(INSERT)
        .bind(blob(&command.id).to_vec())
        .bind(blob(&command.user_id).to_vec())
        .bind(blob(&command.device_id).to_vec())
        .bind(json(&command.ask))
        .bind(json(&command.answer))
        .bind(command.answer != DeviceAnswer::Waiting)
        .bind(command.created_at.as_millis())
        .bind(command.expires_at.as_millis())
        .execute(connection)
        .await?;
    Ok(())
}

/// Answers a request.
pub(crate) async fn answer_command(
    connection: &mut SqliteConnection,
    id: CommandId,
    fence: Fence,
    answer: &DeviceAnswer,
) -> Done<()> {
    let row = sqlx::query(ONE)
        .bind(blob(&id).to_vec())
        .fetch_optional(&mut *connection)
        .await?
        .ok_or(Fail::not_found("device command"))?;
    let command = read_command(&mut Columns::of(&row))?;
    check_fence(connection, command.device_id, fence).await?;
    if *answer != DeviceAnswer::Waiting {
        sqlx::query(ANSWER)
            .bind(json(answer))
            .bind(blob(&id).to_vec())
            .execute(connection)
            .await?;
    }
    Ok(())
}

/// Adds events.
pub(crate) async fn insert_events(connection: &mut SqliteConnection, events: &[Event]) -> Done<()> {
    INSERT_EVENTS
        .run(connection, events, |statement, event| {
            statement
                .bind(blob(&event.id).to_vec())
                .bind(blob(&event.user_id).to_vec())
                .bind(json(event))
                .bind(event.at.as_millis())
        })
        .await?;
    Ok(())
}

/// Whether a scope of some devices sees an event.
async fn sees(connection: &mut SqliteConnection, scope: &RequestScope, devices: &str, event: &Event) -> Done<bool> {
    let (sql, id) = match &event.kind {
        EventKind::CampaignStatus { campaign_id, .. } | EventKind::CampaignProgress { campaign_id } => {
            (SEES_CAMPAIGN, blob(campaign_id).to_vec())
        }
        EventKind::LeadCreated { lead_id }
        | EventKind::EnrolmentStarted { lead_id, .. }
        | EventKind::EnrolmentEnded { lead_id, .. } => (SEES_LEAD, blob(lead_id).to_vec()),
        EventKind::OptedOut {
            lead_id: Some(lead_id), ..
        } => (SEES_LEAD, blob(lead_id).to_vec()),
        EventKind::OptedOut { lead_id: None, .. } => return Ok(false),
        EventKind::MessageState { device_id, .. } => return Ok(device_id.is_some_and(|id| scope.sees(id))),
        EventKind::Reply { device_id, .. }
        | EventKind::TakenOver { device_id }
        | EventKind::ChatUpdate { device_id, .. }
        | EventKind::DeviceLink { device_id, .. }
        | EventKind::DeviceHold { device_id, .. }
        | EventKind::DeviceRestriction { device_id, .. }
        | EventKind::DeviceNewChats { device_id, .. }
        | EventKind::DeviceAnswered { device_id, .. } => return Ok(scope.sees(*device_id)),
        // A kind that is newer than this store is told to whole users only.
        _ => return Ok(false),
    };
    let seen: Option<i64> = sqlx::query_scalar(sql)
        .bind(id)
        .bind(blob(&scope.user_id).to_vec())
        .bind(devices.to_owned())
        .fetch_optional(connection)
        .await?;
    Ok(seen.is_some())
}

impl SqliteStore {
    async fn read_events(&self, scope: &RequestScope, after: EventId, limit: u32) -> Done<Vec<Event>> {
        let mut reader = self.reader().await?;
        let devices = device_list(scope);
        let place = sqlx::query_scalar(PLACE)
            .bind(blob(&after).to_vec())
            .bind(blob(&scope.user_id).to_vec());
        let mut after: i64 = place.fetch_optional(&mut *reader).await?.unwrap_or(0);
        let mut found = Vec::new();
        let wanted = limit as usize;
        let page = if devices.is_some() { PAGE_MAX } else { limit };
        while found.len() < wanted {
            let rows = sqlx::query(EVENTS)
                .bind(blob(&scope.user_id).to_vec())
                .bind(after)
                .bind(page)
                .fetch_all(&mut *reader)
                .await?;
            let events = read_all(&rows, |c| Ok((c.int()?, c.json::<Event>("body")?)))?;
            let Some((last, _)) = events.last() else { break };
            after = *last;
            for (_, event) in events {
                let seen = match &devices {
                    None => true,
                    Some(devices) => sees(&mut reader, scope, devices, &event).await?,
                };
                if seen && found.len() < wanted {
                    found.push(event);
                }
            }
        }
        Ok(found)
    }

    async fn read_newest_event(&self, scope: &RequestScope) -> Done<Option<EventId>> {
        let mut reader = self.reader().await?;
        let newest = sqlx::query(NEWEST).bind(blob(&scope.user_id).to_vec());
        let row = newest.fetch_optional(&mut *reader).await?;
        row.map(|row| Columns::of(&row).key("id")).transpose()
    }

    /// Removes rows from before an instant, a page per transaction, so that nobody waits long.
    async fn prune(&self, op: Op, sql: &'static str, before: Timestamp) -> Result<u64, StoreError> {
        let mut pruned = 0;
        loop {
            let page = self
                .write(op, move |connection| {
                    Box::pin(async move {
                        let statement = sqlx::query(sql).bind(before.as_millis()).bind(PAGE_MAX);
                        Ok(statement.execute(connection).await?.rows_affected())
                    })
                })
                .await?;
            pruned += page;
            if page < u64::from(PAGE_MAX) {
                return Ok(pruned);
            }
        }
    }
}

#[async_trait]
impl CommandStore for SqliteStore {
    async fn command(&self, scope: &RequestScope, id: CommandId) -> Result<DeviceCommand, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let row = sqlx::query(VISIBLE)
                .bind(blob(&id).to_vec())
                .bind(blob(&scope.user_id).to_vec())
                .bind(device_list(scope))
                .fetch_optional(&mut *reader)
                .await?
                .ok_or(Fail::not_found("device command"))?;
            read_command(&mut Columns::of(&row))
        };
        read.await.map_err(|fail: Fail| fail.of("command", "device command"))
    }

    async fn commands(
        &self,
        incarnation: Incarnation,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<DeviceCommand>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(WAITING)
                .bind(blob(&incarnation).to_vec())
                .bind(now.as_millis())
                .bind(int(u64::from(limit)))
                .fetch_all(&mut *reader)
                .await?;
            read_all(&rows, read_command)
        };
        read.await.map_err(|fail: Fail| fail.of("commands", "device command"))
    }

    async fn prune_commands(&self, before: Timestamp) -> Result<u64, StoreError> {
        let op = Op(WriteClass::Bulk, "prune_commands", "device command");
        self.prune(op, PRUNE, before).await
    }
}

#[async_trait]
impl EventStore for SqliteStore {
    async fn events(&self, scope: &RequestScope, after: EventId, limit: u32) -> Result<Vec<Event>, StoreError> {
        let found = self.read_events(scope, after, limit).await;
        found.map_err(|fail| fail.of("events", "event"))
    }

    async fn newest_event(&self, scope: &RequestScope) -> Result<Option<EventId>, StoreError> {
        let found = self.read_newest_event(scope).await;
        found.map_err(|fail| fail.of("newest_event", "event"))
    }

    async fn prune_events(&self, before: Timestamp) -> Result<u64, StoreError> {
        let op = Op(WriteClass::Bulk, "prune_events", "event");
        self.prune(op, PRUNE_EVENTS, before).await
    }

    async fn prune_replies(&self, before: Timestamp) -> Result<u64, StoreError> {
        let op = Op(WriteClass::Bulk, "prune_replies", "reply");
        self.prune(op, PRUNE_REPLIES, before).await
    }
}
