//! Requests to devices, and durable events.

use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use uuid::Uuid;
use wa_core::domain::access::RequestScope;
use wa_core::domain::command::{DeviceAnswer, DeviceCommand};
use wa_core::event::{Event, EventKind};
use wa_core::id::{CommandId, EventId, Incarnation};
use wa_core::store::{CommandStore, EventStore, Fence, PAGE_MAX, StoreError, WriteClass};
use wa_core::time::Timestamp;

use crate::commit::check_fence;
use crate::connections::Line;
use crate::devices::live_device;
use crate::error::{Done, Fail};
use crate::insert::{insert, query, run_over};
use crate::row::{Columns, device_list, int, json, read_all, uuid};
use crate::{Op, PostgresStore};

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
    "FROM device_commands k WHERE k.id = $1 AND k.user_id = $2
    AND ($3::uuid[] IS NULL OR k.device_id = ANY ($3))"
);
/// `AnswerCommand`, by the unique index of ids.
pub(crate) const ONE: &str = command!("FROM device_commands k WHERE k.id = $1");
/// `commands`: by `devices_owner` and `device_commands_waiting`.
pub(crate) const WAITING: &str = command!(
    "FROM devices d
    JOIN device_commands k ON k.device_id = d.id AND NOT k.answered
    WHERE d.owner = $1 AND k.expires_at > $2 ORDER BY k.created_at, k.id LIMIT $3"
);
/// `prune_commands`: a page, by `device_commands_expiry`.
pub(crate) const PRUNE: &str = "
    DELETE FROM device_commands USING (
        SELECT id AS old FROM device_commands WHERE expires_at < $1
        ORDER BY expires_at LIMIT $2 FOR UPDATE SKIP LOCKED
    ) AS p WHERE id = p.old";
pub(crate) const INSERT: &str = "
    INSERT INTO device_commands (id, user_id, device_id, ask, answer, answered, created_at, expires_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
/// `AnswerCommand`: the first answer stays. By the unique index of ids.
pub(crate) const ANSWER: &str =
    "UPDATE device_commands SET answer = $1, answered = true WHERE id = $2 AND NOT answered";

/// `events`: the place of the last one read, by the primary key.
pub(crate) const PLACE: &str = "SELECT seq FROM events WHERE id = $1 AND user_id = $2";
/// `events`: by `events_user`. Whoever commits an event has its user alone until the commit can be seen, so that places of a user are
/// seen in their order.
pub(crate) const EVENTS: &str = "SELECT seq, body FROM events WHERE user_id = $1 AND seq > $2 ORDER BY seq LIMIT $3";
/// `newest_event`: by `events_user`.
pub(crate) const NEWEST: &str = "SELECT id FROM events WHERE user_id = $1 ORDER BY seq DESC LIMIT 1";
/// `prune_events`: a page, by `events_age`.
pub(crate) const PRUNE_EVENTS: &str = "
    DELETE FROM events USING (SELECT id AS old FROM events WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED) AS p WHERE id = p.old";
/// `prune_replies`: a page, by `replies_age`.
pub(crate) const PRUNE_REPLIES: &str = "
    DELETE FROM replies USING (
        SELECT device_id AS whose, provider_id AS old FROM replies WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
    ) AS p WHERE device_id = p.whose AND provider_id = p.old";
/// `commit`: an event that is there already stays.
static INSERT_EVENTS: LazyLock<String> = LazyLock::new(|| {
    insert(
        "INSERT INTO events (id, user_id, body, at)",
        "uuti",
        "ON CONFLICT DO NOTHING",
    )
});

/// `events` of a limited scope: what the scope sees of campaigns and leads. By the unique indexes of ids.
pub(crate) const SEES_CAMPAIGN: &str = "
    SELECT 1 FROM campaigns WHERE id = $1 AND user_id = $2
        AND device_id = ANY ($3::uuid[])";
pub(crate) const SEES_LEAD: &str = "
    SELECT 1 FROM leads WHERE id = $1 AND user_id = $2 AND device_id = ANY ($3::uuid[])";

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
pub(crate) async fn insert_command(connection: &mut PgConnection, command: &DeviceCommand) -> Done<()> {
    live_device(connection, command.user_id, command.device_id).await?;
    query(INSERT)
        .bind(&command.id)
        .bind(&command.user_id)
        .bind(&command.device_id)
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
    connection: &mut PgConnection,
    id: CommandId,
    fence: Fence,
    answer: &DeviceAnswer,
) -> Done<()> {
    let row = query(ONE)
        .bind(&id)
        .fetch_optional(connection)
        .await?
        .ok_or(Fail::not_found("device command"))?;
    let command = read_command(&mut Columns::of(&row))?;
    check_fence(connection, command.device_id, fence).await?;
    if *answer != DeviceAnswer::Waiting {
        query(ANSWER).bind(json(answer)).bind(&id).execute(connection).await?;
    }
    Ok(())
}

/// Adds events.
pub(crate) async fn insert_events(connection: &mut PgConnection, events: &[Event]) -> Done<()> {
    run_over(connection, INSERT_EVENTS.as_str(), events, |row, event| {
        row.bind(&event.id)
            .bind(&event.user_id)
            .bind(json(event))
            .bind(event.at.as_millis())
    })
    .await?;
    Ok(())
}

/// Whether a scope of some devices sees an event.
async fn sees(connection: &mut impl Line, scope: &RequestScope, devices: &[Uuid], event: &Event) -> Done<bool> {
    let (sql, id) = match &event.kind {
        EventKind::CampaignStatus { campaign_id, .. } | EventKind::CampaignProgress { campaign_id } => {
            (SEES_CAMPAIGN, uuid(campaign_id))
        }
        EventKind::LeadCreated { lead_id }
        | EventKind::EnrolmentStarted { lead_id, .. }
        | EventKind::EnrolmentEnded { lead_id, .. } => (SEES_LEAD, uuid(lead_id)),
        EventKind::OptedOut {
            lead_id: Some(lead_id), ..
        } => (SEES_LEAD, uuid(lead_id)),
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
    let statement = query(sql).bind(id).bind(&scope.user_id).bind(devices.to_owned());
    statement.exists(connection).await
}

impl PostgresStore {
    async fn read_events(&self, scope: &RequestScope, after: EventId, limit: u32) -> Done<Vec<Event>> {
        let mut reader = self.reader().await?;
        let devices = device_list(scope);
        let place = query(PLACE).bind(&after).bind(&scope.user_id);
        let mut after = place.number(&mut reader).await?.unwrap_or(0);
        let mut found = Vec::new();
        let wanted = limit as usize;
        let page = if devices.is_some() { PAGE_MAX } else { limit };
        while found.len() < wanted {
            let rows = query(EVENTS)
                .bind(&scope.user_id)
                .bind(after)
                .bind(page)
                .fetch_all(&mut reader)
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
        let row = query(NEWEST).bind(&scope.user_id).fetch_optional(&mut reader).await?;
        row.map(|row| Columns::of(&row).key("id")).transpose()
    }

    /// Removes rows from before an instant, a page per transaction, so that nobody waits long.
    async fn prune(&self, op: Op, sql: &'static str, before: Timestamp) -> Result<u64, StoreError> {
        let mut pruned = 0;
        loop {
            let page = self
                .write(op, move |connection| {
                    Box::pin(async move {
                        let statement = query(sql).bind(before.as_millis()).bind(PAGE_MAX);
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
impl CommandStore for PostgresStore {
    async fn command(&self, scope: &RequestScope, id: CommandId) -> Result<DeviceCommand, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let row = query(VISIBLE)
                .bind(&id)
                .bind(&scope.user_id)
                .bind(device_list(scope))
                .fetch_optional(&mut reader)
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
            let rows = query(WAITING)
                .bind(&incarnation)
                .bind(now.as_millis())
                .bind(int(u64::from(limit)))
                .fetch_all(&mut reader)
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
impl EventStore for PostgresStore {
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
