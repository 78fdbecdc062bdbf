//! Campaigns, their audiences and saved texts.

use std::collections::HashSet;
use std::sync::LazyLock;
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};
use wa_core::domain::access::RequestScope;
use wa_core::domain::audience::{Audience, AudienceCursor, AudienceLead, CampaignEntry};
use wa_core::domain::campaign::{Campaign, CampaignReason, CampaignStatus, Dressing, Routing};
use wa_core::domain::content::Content;
use wa_core::domain::pacing::DelayRange;
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::domain::saved_text::SavedText;
use wa_core::domain::schedule::{LatePolicy, LocalDate, LocalTime, QuietHours, TimeZone};
use wa_core::event::Event;
use wa_core::id::{CampaignId, EventId, LeadId, TemplateId, UserId};
use wa_core::store::{
    CampaignFilter, CampaignStore, LeadFilter, Page, PageRequest, PlannedRow, StoreError, Taken, WriteClass,
};
use wa_core::time::Timestamp;

use crate::commands::insert_events;
use crate::devices::{device_of, folded};
use crate::error::{Done, Fail};
use crate::insert::{Bound, Rows};
use crate::leads::Wanted;
use crate::pool::{self, note_taken};
use crate::row::{Columns, blob, custom_json, device_list, hex_list, int, json, opt_blob, read_all};
use crate::{Op, SqliteStore};

macro_rules! campaign {
    ($from:literal) => {
        concat!(
            "SELECT c.id, c.user_id, c.device_id, c.body, c.status, c.reason, c.status_at, c.scheduled_at, c.cursor_kind,
                c.cursor_lead, c.cursor_entry, c.started_at, c.resumed_at, c.paused_at, c.ended_at, c.created_at,
                c.updated_at, c.version, c.device_limit, c.archived_at ",
            $from
        )
    };
}

/// `campaign`, by the unique index of ids.
pub(crate) const VISIBLE: &str = campaign!(
    "FROM campaigns c WHERE c.id = ?1 AND c.user_id = ?2
    AND (?3 IS NULL OR c.device_id IN (SELECT unhex(value) FROM json_each(?3)))"
);
/// `campaigns_by_id`, by the unique index of ids, in the order asked.
pub(crate) const BY_ID: &str =
    campaign!("FROM json_each(?) j CROSS JOIN campaigns c ON c.id = unhex(j.value) ORDER BY j.key");
/// `campaigns_due`, by `campaigns_scheduled`.
pub(crate) const DUE: &str = campaign!(
    "FROM campaigns c INDEXED BY campaigns_scheduled
    WHERE c.status = 2 AND c.reason IS NOT 3 AND c.scheduled_at <= ? ORDER BY c.scheduled_at, c.id LIMIT ?"
);
/// `next_campaign_at`, by `campaigns_scheduled`.
pub(crate) const NEXT: &str = "
    SELECT scheduled_at FROM campaigns INDEXED BY campaigns_scheduled
    WHERE status = 2 AND reason IS NOT 3 AND scheduled_at IS NOT NULL ORDER BY scheduled_at LIMIT 1";
/// `campaigns_expanding`, by `campaigns_running`.
pub(crate) const EXPANDING: &str = campaign!(
    "FROM campaigns c INDEXED BY campaigns_running
    WHERE c.status = 3 AND c.cursor_kind <> 3 ORDER BY c.id LIMIT ?"
);
/// Whether campaign `c` has open messages, by `messages_open`; by the tallies and `messages_sending` those that are being sent.
macro_rules! has_open {
    () => {
        "(EXISTS (
            SELECT 1 FROM messages m INDEXED BY messages_open
            WHERE m.scope_kind = 1 AND m.state < 5 AND m.state <> 3 AND m.scope_id = c.id
        ) OR EXISTS (
            SELECT 1 FROM tallies t CROSS JOIN messages s INDEXED BY messages_sending
                ON s.state = 3 AND s.device_id = t.device_id AND s.scope_kind = 1 AND s.scope_id = c.id
            WHERE t.user_id = c.user_id AND t.scope_kind = 1 AND t.scope_id = c.id AND t.remaining > 0
        ))"
    };
}

/// `complete_campaigns`: running, expanded and without open messages, by `campaigns_running` and as [`HAS_OPEN`]; whether
/// each has messages at all, by `messages_scope`.
pub(crate) const COMPLETE: &str = concat!(
    "
    UPDATE campaigns SET status = 5, status_at = ?1, ended_at = ?1, version = version + 1,
        reason = CASE WHEN EXISTS (
            SELECT 1 FROM messages m INDEXED BY messages_scope WHERE m.scope_kind = 1 AND m.scope_id = campaigns.id
        ) THEN NULL ELSE 5 END
    WHERE id IN (
        SELECT c.id FROM campaigns c INDEXED BY campaigns_running
        WHERE c.status = 3 AND c.cursor_kind = 3 AND NOT ",
    has_open!(),
    "
        ORDER BY c.id LIMIT ?2
    )
    RETURNING id"
);
/// `persons_in`, by `messages_person`, in the order asked.
pub(crate) const PERSONS_IN: &str = "
    SELECT unhex(j.value) FROM json_each(?1) j WHERE EXISTS (
        SELECT 1 FROM messages m INDEXED BY messages_person
        WHERE m.person = unhex(j.value) AND m.scope_kind = 1 AND m.scope_id = ?2
            AND NOT (m.state = 8 AND m.reason IS 2)
    ) ORDER BY j.key";
/// `entries_page`, by the primary key.
pub(crate) const ENTRIES: &str = "
    SELECT campaign_id, position, phone, name, text, custom FROM campaign_entries
    WHERE campaign_id = ? AND position > ? ORDER BY position LIMIT ?";
/// `audience_size` of entries, by the primary key.
pub(crate) const ENTRY_COUNT: &str = "SELECT count(*) FROM campaign_entries WHERE campaign_id = ?";

/// `commit`: by the unique index of ids.
pub(crate) const ONE: &str = campaign!("FROM campaigns c WHERE c.id = ?");
pub(crate) const INSERT: &str = "
    INSERT INTO campaigns (title_key, device_id, body, status, reason, status_at, scheduled_at, cursor_kind, cursor_lead,
        cursor_entry, started_at, resumed_at, paused_at, ended_at, created_at, updated_at, version, device_limit, id, user_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
/// `commit`: by the unique index of ids.
pub(crate) const UPDATE: &str = "
    UPDATE campaigns SET title_key = ?, device_id = ?, body = ?, status = ?, reason = ?, status_at = ?, scheduled_at = ?,
        cursor_kind = ?, cursor_lead = ?, cursor_entry = ?, started_at = ?, resumed_at = ?, paused_at = ?, ended_at = ?,
        created_at = ?, updated_at = ?, version = ?, device_limit = ?
    WHERE id = ? AND user_id = ?";
/// `AdvanceCursor`: one statement with its preconditions, by the unique index of ids.
pub(crate) const ADVANCE: &str = "
    UPDATE campaigns SET cursor_kind = ?1, cursor_lead = ?2, cursor_entry = ?3, version = version + 1
    WHERE id = ?4 AND status = 3 AND cursor_kind = ?5 AND cursor_lead IS ?6 AND cursor_entry IS ?7";
pub(crate) const EXISTS: &str = "SELECT 1 FROM campaigns WHERE id = ?";
/// `commit`: whether a campaign has open messages. Campaign by the unique index of ids, messages by `messages_open`, `messages_sending`
/// and the primary key of tallies.
pub(crate) const HAS_OPEN: &str = concat!(
    "SELECT EXISTS (SELECT 1 FROM campaigns c WHERE c.id = ? AND ",
    has_open!(),
    ")"
);
/// `commit`: whether a campaign has messages, by `messages_scope`.
pub(crate) const HAS_MESSAGES: &str = "
    SELECT EXISTS (SELECT 1 FROM messages INDEXED BY messages_scope WHERE scope_kind = 1 AND scope_id = ?)";
/// `commit`: leaves the mark for `sweep`. By the unique index of ids.
pub(crate) const MARK: &str = "UPDATE campaigns SET sweep = 1 WHERE id = ?";
/// `DeleteCampaign`: entries go with it. By the unique index of ids.
pub(crate) const DELETE: &str = "DELETE FROM campaigns WHERE id = ?";
/// `ErasePerson`: by `campaign_entries_phone` and the unique index of ids.
pub(crate) const ERASE_ENTRIES: &str = "
    DELETE FROM campaign_entries WHERE phone = ?1
        AND (SELECT c.user_id FROM campaigns c WHERE c.id = campaign_entries.campaign_id) = ?2";
/// `InsertEntries`: a position that is there already is left alone.
static INSERT_ENTRIES: LazyLock<Rows> = LazyLock::new(|| {
    Rows::insert(
        "INSERT INTO campaign_entries (campaign_id, position, phone, name, text, custom)",
        6,
        "ON CONFLICT DO NOTHING",
    )
});

macro_rules! saved {
    ($from:literal) => {
        concat!(
            "SELECT t.id, t.user_id, t.name, t.content, t.created_at, t.updated_at, t.version ",
            $from
        )
    };
}

/// `saved_text`, `commit`: by the unique index of ids.
pub(crate) const SAVED: &str = saved!("FROM saved_texts t WHERE t.id = ? AND t.user_id = ?");
/// `saved_texts`, by the unique index of user and id.
pub(crate) const SAVED_PAGE: &str = saved!("FROM saved_texts t WHERE t.user_id = ? AND t.id > ? ORDER BY t.id LIMIT ?");
pub(crate) const INSERT_SAVED: &str = "
    INSERT INTO saved_texts (name, name_key, content, created_at, updated_at, version, id, user_id)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?)";
pub(crate) const UPDATE_SAVED: &str = "
    UPDATE saved_texts SET name = ?, name_key = ?, content = ?, created_at = ?, updated_at = ?, version = ?
    WHERE id = ? AND user_id = ?";
pub(crate) const DELETE_SAVED: &str = "DELETE FROM saved_texts WHERE id = ? AND user_id = ?";

/// What a person writes of a campaign: the part of the row of which nothing is asked.
#[derive(Serialize, Deserialize)]
struct Body {
    title: String,
    content: Content,
    content_version: i32,
    audience: Audience,
    routing: Routing,
    time_zone: TimeZone,
    date: Option<LocalDate>,
    time: Option<LocalTime>,
    late_policy: LatePolicy,
    delay: Option<DelayRange>,
    quiet_hours: Option<QuietHours>,
    dressing: Dressing,
    expires_after: Duration,
}

/// The columns of a cursor.
fn cursor_columns(cursor: AudienceCursor) -> (u8, Option<Vec<u8>>, Option<u32>) {
    match cursor {
        AudienceCursor::Start => (0, None, None),
        AudienceCursor::Lead(lead) => (1, Some(blob(&lead).to_vec()), None),
        AudienceCursor::Entry(position) => (2, None, Some(position)),
        AudienceCursor::Done => (3, None, None),
    }
}

fn read_cursor(c: &mut Columns<'_>) -> Done<AudienceCursor> {
    let kind = c.int()?;
    let lead: Option<LeadId> = c.opt_key("cursor_lead")?;
    let entry = c.opt_int()?.and_then(|position| u32::try_from(position).ok());
    match (kind, lead, entry) {
        (0, None, None) => Ok(AudienceCursor::Start),
        (1, Some(lead), None) => Ok(AudienceCursor::Lead(lead)),
        (2, None, Some(position)) => Ok(AudienceCursor::Entry(position)),
        (3, None, None) => Ok(AudienceCursor::Done),
        _ => Err(Fail::Unreadable("cursor")),
    }
}

fn read_campaign(c: &mut Columns<'_>) -> Done<Campaign> {
    let (id, user_id, device_id) = (c.key("id")?, c.key("user_id")?, c.opt_key("device_id")?);
    let body: Body = c.json("body")?;
    Ok(Campaign {
        id,
        user_id,
        title: body.title,
        content: body.content,
        content_version: body.content_version,
        audience: body.audience,
        device_id,
        routing: body.routing,
        time_zone: body.time_zone,
        date: body.date,
        time: body.time,
        late_policy: body.late_policy,
        delay: body.delay,
        quiet_hours: body.quiet_hours,
        dressing: body.dressing,
        expires_after: body.expires_after,
        status: c.kind("status", CampaignStatus::from_u8)?,
        reason: c.opt_kind("reason", CampaignReason::from_u8)?,
        status_at: c.at()?,
        scheduled_at: c.opt_at()?,
        cursor: read_cursor(c)?,
        started_at: c.opt_at()?,
        resumed_at: c.opt_at()?,
        paused_at: c.opt_at()?,
        ended_at: c.opt_at()?,
        created_at: c.at()?,
        updated_at: c.at()?,
        version: c.int()?,
        device_limit: c.opt_int()?.and_then(|limit| u32::try_from(limit).ok()),
        archived_at: c.opt_at()?,
    })
}

fn bind<'q>(statement: Bound<'q>, campaign: &Campaign) -> Bound<'q> {
    let body = Body {
        title: campaign.title.clone(),
        content: campaign.content.clone(),
        content_version: campaign.content_version,
        audience: campaign.audience.clone(),
        routing: campaign.routing,
        time_zone: campaign.time_zone,
        date: campaign.date,
        time: campaign.time,
        late_policy: campaign.late_policy,
        delay: campaign.delay,
        quiet_hours: campaign.quiet_hours,
        dressing: campaign.dressing.clone(),
        expires_after: campaign.expires_after,
    };
    let (kind, lead, entry) = cursor_columns(campaign.cursor);
    statement
        .bind(folded(&campaign.title))
        .bind(opt_blob(campaign.device_id.as_ref()).map(<[u8]>::to_vec))
        .bind(json(&body))
        .bind(campaign.status as u8)
        .bind(campaign.reason.map(|reason| reason as u8))
        .bind(campaign.status_at.as_millis())
        .bind(campaign.scheduled_at.map(Timestamp::as_millis))
        .bind(kind)
        .bind(lead)
        .bind(entry)
        .bind(campaign.started_at.map(Timestamp::as_millis))
        .bind(campaign.resumed_at.map(Timestamp::as_millis))
        .bind(campaign.paused_at.map(Timestamp::as_millis))
        .bind(campaign.ended_at.map(Timestamp::as_millis))
        .bind(campaign.created_at.as_millis())
        .bind(campaign.updated_at.as_millis())
        .bind(campaign.version)
        .bind(campaign.device_limit)
        .bind(blob(&campaign.id).to_vec())
        .bind(blob(&campaign.user_id).to_vec())
}

/// A campaign of a user that may be changed.
async fn campaign_of(connection: &mut SqliteConnection, user: UserId, id: CampaignId) -> Done<Campaign> {
    let row = sqlx::query(ONE)
        .bind(blob(&id).to_vec())
        .fetch_optional(connection)
        .await?;
    let campaign = row.map(|row| read_campaign(&mut Columns::of(&row))).transpose()?;
    let own = campaign.filter(|campaign| campaign.user_id == user);
    let campaign = own.ok_or(Fail::not_found("campaign"))?;
    match campaign.archived_at {
        None => Ok(campaign),
        Some(_) => Err(Fail::conflict("archived campaign")),
    }
}

/// The devices that a campaign names belong to its user; one that it named before may be deleted.
async fn check_devices(connection: &mut SqliteConnection, campaign: &Campaign) -> Done<()> {
    let audience_device = match &campaign.audience {
        Audience::Leads { device_id, .. } => *device_id,
        _ => None,
    };
    for device in campaign.device_id.into_iter().chain(audience_device) {
        device_of(connection, campaign.user_id, device).await?;
    }
    Ok(())
}

/// Adds a campaign; a taken id is refused by the unique index.
pub(crate) async fn insert_campaign(connection: &mut SqliteConnection, campaign: &Campaign) -> Done<()> {
    check_devices(connection, campaign).await?;
    bind(sqlx::query(INSERT), campaign).execute(connection).await?;
    Ok(())
}

/// Replaces what a person edits.
pub(crate) async fn update_campaign(connection: &mut SqliteConnection, campaign: Campaign) -> Done<()> {
    let old = campaign_of(connection, campaign.user_id, campaign.id).await?;
    let moves = old.status != campaign.status;
    if old.version != campaign.version || (moves && !old.status.can_become(campaign.status)) {
        return Err(Fail::conflict("campaign"));
    }
    let new = Campaign {
        created_at: old.created_at,
        version: old.version + 1,
        ..campaign
    };
    check_devices(connection, &new).await?;
    put_campaign(connection, &new, old.status).await
}

/// Writes a campaign whose status may have changed, with the mark that makes `sweep` move its messages; one with open
/// messages is not completed.
async fn put_campaign(connection: &mut SqliteConnection, campaign: &Campaign, before: CampaignStatus) -> Done<()> {
    bind(sqlx::query(UPDATE), campaign).execute(&mut *connection).await?;
    if campaign.status != before && is_there(connection, HAS_OPEN, campaign.id).await? {
        if campaign.status == CampaignStatus::Completed {
            return Err(Fail::conflict("campaign"));
        }
        sqlx::query(MARK)
            .bind(blob(&campaign.id).to_vec())
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn is_there(connection: &mut SqliteConnection, sql: &'static str, id: CampaignId) -> Done<bool> {
    let statement = sqlx::query_scalar::<_, i64>(sql).bind(blob(&id).to_vec());
    Ok(statement.fetch_one(connection).await? != 0)
}

/// Deletes a campaign that never started.
pub(crate) async fn delete_campaign(connection: &mut SqliteConnection, user: UserId, id: CampaignId) -> Done<()> {
    let campaign = campaign_of(connection, user, id).await?;
    let never_started = campaign.started_at.is_none()
        && matches!(
            campaign.status,
            CampaignStatus::Draft | CampaignStatus::Scheduled | CampaignStatus::Cancelled
        );
    if !never_started || is_there(connection, HAS_MESSAGES, id).await? {
        return Err(Fail::conflict("campaign"));
    }
    sqlx::query(DELETE).bind(blob(&id).to_vec()).execute(connection).await?;
    Ok(())
}

/// Moves a campaign to a status.
pub(crate) async fn set_status(
    connection: &mut SqliteConnection,
    (user, id): (UserId, CampaignId),
    from: &[CampaignStatus],
    (to, reason): (CampaignStatus, Option<CampaignReason>),
    now: Timestamp,
) -> Done<()> {
    let mut campaign = campaign_of(connection, user, id).await?;
    let before = campaign.status;
    if !from.contains(&before) || (before != to && !before.can_become(to)) {
        return Err(Fail::conflict("campaign"));
    }
    campaign.status = to;
    campaign.reason = reason;
    campaign.status_at = now;
    campaign.version += 1;
    if before != to {
        match to {
            CampaignStatus::Triggered if before == CampaignStatus::Scheduled => {
                campaign.started_at.get_or_insert(now);
            }
            CampaignStatus::Triggered => {
                campaign.resumed_at = Some(now);
                campaign.ended_at = None;
            }
            CampaignStatus::Paused => campaign.paused_at = Some(now),
            CampaignStatus::Completed | CampaignStatus::Failed | CampaignStatus::Cancelled => {
                campaign.ended_at = Some(now);
            }
            CampaignStatus::Draft | CampaignStatus::Scheduled => {}
        }
    }
    put_campaign(connection, &campaign, before).await
}

/// Triggers a completed campaign whose audience is the pool again.
pub(crate) async fn trigger_again(
    connection: &mut SqliteConnection,
    user: UserId,
    id: CampaignId,
    now: Timestamp,
) -> Done<()> {
    let before = campaign_of(connection, user, id).await?;
    if before.status != CampaignStatus::Completed || !before.audience.is_pool() {
        return Err(Fail::conflict("campaign"));
    }
    let status = before.status;
    let again = Campaign {
        status: CampaignStatus::Triggered,
        reason: None,
        status_at: now,
        cursor: AudienceCursor::Start,
        started_at: Some(now),
        resumed_at: None,
        paused_at: None,
        ended_at: None,
        version: before.version + 1,
        ..before
    };
    note_taken(connection, user, id).await?;
    put_campaign(connection, &again, status).await
}

/// Adds uploaded recipients to drafts.
pub(crate) async fn insert_entries(connection: &mut SqliteConnection, entries: &[CampaignEntry]) -> Done<()> {
    let campaigns: HashSet<CampaignId> = entries.iter().map(|entry| entry.campaign_id).collect();
    for id in campaigns {
        let row = sqlx::query(ONE)
            .bind(blob(&id).to_vec())
            .fetch_optional(&mut *connection)
            .await?
            .ok_or(Fail::not_found("campaign"))?;
        if read_campaign(&mut Columns::of(&row))?.status != CampaignStatus::Draft {
            return Err(Fail::conflict("campaign"));
        }
    }
    INSERT_ENTRIES
        .run(connection, entries, |statement, entry| {
            statement
                .bind(blob(&entry.campaign_id).to_vec())
                .bind(entry.position)
                .bind(entry.phone.as_e164().to_owned())
                .bind(entry.name.clone())
                .bind(entry.text.clone())
                .bind(custom_json(&entry.custom))
        })
        .await?;
    Ok(())
}

/// Moves the cursor of a running campaign.
pub(crate) async fn advance_cursor(
    connection: &mut SqliteConnection,
    id: CampaignId,
    from: AudienceCursor,
    to: AudienceCursor,
) -> Done<()> {
    let (from, to) = (cursor_columns(from), cursor_columns(to));
    let moved = sqlx::query(ADVANCE)
        .bind(to.0)
        .bind(to.1)
        .bind(to.2)
        .bind(blob(&id).to_vec())
        .bind(from.0)
        .bind(from.1)
        .bind(from.2)
        .execute(&mut *connection)
        .await?;
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    let there: Option<i64> = sqlx::query_scalar(EXISTS)
        .bind(blob(&id).to_vec())
        .fetch_optional(connection)
        .await?;
    Err(there.map_or(Fail::not_found("campaign"), |_| Fail::conflict("campaign")))
}

/// Deletes the entries of a user's campaigns with a number.
pub(crate) async fn erase_entries(connection: &mut SqliteConnection, user: UserId, phone: Phone) -> Done<()> {
    sqlx::query(ERASE_ENTRIES)
        .bind(phone.as_e164().to_owned())
        .bind(blob(&user).to_vec())
        .execute(connection)
        .await?;
    Ok(())
}

fn read_entry(c: &mut Columns<'_>) -> Done<CampaignEntry> {
    Ok(CampaignEntry {
        campaign_id: c.key("campaign_id")?,
        position: c.small("position")?,
        phone: Phone::from_e164(c.str()?).map_err(|_| Fail::Unreadable("phone"))?,
        name: c.text()?,
        text: c.opt_text()?,
        custom: c.opt_json("custom")?.unwrap_or_default(),
    })
}

fn read_saved(c: &mut Columns<'_>) -> Done<SavedText> {
    Ok(SavedText {
        id: c.key("id")?,
        user_id: c.key("user_id")?,
        name: c.text()?,
        content: c.json("content")?,
        created_at: c.at()?,
        updated_at: c.at()?,
        version: c.int()?,
    })
}

fn bind_saved<'q>(statement: Bound<'q>, saved: &SavedText) -> Bound<'q> {
    statement
        .bind(saved.name.clone())
        .bind(folded(&saved.name))
        .bind(json(&saved.content))
        .bind(saved.created_at.as_millis())
        .bind(saved.updated_at.as_millis())
        .bind(saved.version)
        .bind(blob(&saved.id).to_vec())
        .bind(blob(&saved.user_id).to_vec())
}

async fn saved_text_of(connection: &mut SqliteConnection, user: UserId, id: TemplateId) -> Done<SavedText> {
    let row = sqlx::query(SAVED)
        .bind(blob(&id).to_vec())
        .bind(blob(&user).to_vec())
        .fetch_optional(connection)
        .await?
        .ok_or(Fail::not_found("saved text"))?;
    read_saved(&mut Columns::of(&row))
}

/// Adds a saved text; a taken name or id is refused by the unique indexes.
pub(crate) async fn insert_saved_text(connection: &mut SqliteConnection, saved: &SavedText) -> Done<()> {
    bind_saved(sqlx::query(INSERT_SAVED), saved).execute(connection).await?;
    Ok(())
}

/// Replaces a saved text.
pub(crate) async fn update_saved_text(connection: &mut SqliteConnection, saved: SavedText) -> Done<()> {
    let old = saved_text_of(connection, saved.user_id, saved.id).await?;
    if old.version != saved.version {
        return Err(Fail::conflict("saved text"));
    }
    let new = SavedText {
        created_at: old.created_at,
        version: old.version + 1,
        ..saved
    };
    bind_saved(sqlx::query(UPDATE_SAVED), &new).execute(connection).await?;
    Ok(())
}

/// Deletes a saved text.
pub(crate) async fn delete_saved_text(connection: &mut SqliteConnection, user: UserId, id: TemplateId) -> Done<()> {
    let statement = sqlx::query(DELETE_SAVED)
        .bind(blob(&id).to_vec())
        .bind(blob(&user).to_vec());
    let deleted = statement.execute(connection).await?.rows_affected();
    if deleted == 0 {
        Err(Fail::not_found("saved text"))
    } else {
        Ok(())
    }
}

async fn complete(connection: &mut SqliteConnection, events: &[EventId], now: Timestamp) -> Done<Vec<Campaign>> {
    let rows = sqlx::query(COMPLETE)
        .bind(now.as_millis())
        .bind(int(events.len() as u64))
        .fetch_all(&mut *connection)
        .await?;
    let mut ids: Vec<CampaignId> = read_all(&rows, |c| c.key("id"))?;
    ids.sort_unstable();
    let rows = sqlx::query(BY_ID)
        .bind(hex_list(&ids))
        .fetch_all(&mut *connection)
        .await?;
    let completed = read_all(&rows, read_campaign)?;
    let told = completed.iter().zip(events);
    let told: Vec<Event> = told
        .map(|(campaign, id)| Event::campaign_status(*id, campaign, now))
        .collect();
    insert_events(connection, &told).await?;
    Ok(completed)
}

/// The statement of a page of campaigns, newest first, by `campaigns_user`.
pub(crate) fn page_statement(
    scope: &RequestScope,
    filter: &CampaignFilter,
    page: &PageRequest<CampaignId>,
) -> QueryBuilder<Sqlite> {
    let mut sql = QueryBuilder::new(campaign!(
        "FROM campaigns c INDEXED BY campaigns_user WHERE c.user_id = "
    ));
    sql.push_bind(blob(&scope.user_id).to_vec());
    if let Some(after) = &page.after {
        sql.push(" AND c.id < ").push_bind(blob(after).to_vec());
    }
    if let Some(devices) = device_list(scope) {
        sql.push(" AND c.device_id IN (SELECT unhex(value) FROM json_each(")
            .push_bind(devices)
            .push("))");
    }
    if !filter.statuses.is_empty() {
        let statuses = crate::row::number_list(filter.statuses.iter().map(|status| *status as u8));
        sql.push(" AND c.status IN (SELECT value FROM json_each(")
            .push_bind(statuses)
            .push("))");
    }
    if let Some(from) = filter.from {
        sql.push(" AND c.scheduled_at >= ").push_bind(from.as_millis());
    }
    if let Some(until) = filter.until {
        sql.push(" AND c.scheduled_at < ").push_bind(until.as_millis());
    }
    if let Some(text) = &filter.search {
        sql.push(" AND instr(c.title_key, ")
            .push_bind(folded(text))
            .push(") > 0");
    }
    sql.push(" ORDER BY c.id DESC LIMIT ")
        .push_bind(int(page.clamped() as u64 + 1));
    sql
}

/// The filter and the latest creation of the leads of an audience; `None` for entries.
fn audience_filter(campaign: &Campaign) -> Option<(LeadFilter, Option<Timestamp>)> {
    match &campaign.audience {
        Audience::Leads {
            niche,
            target,
            device_id,
        } => {
            let filter = LeadFilter {
                niche: niche.clone(),
                target: *target,
                device_id: *device_id,
                ..LeadFilter::default()
            };
            Some((filter, campaign.started_at))
        }
        Audience::Pool { niche, target } => {
            let filter = LeadFilter {
                niche: niche.clone(),
                target: *target,
                without_device: true,
                ..LeadFilter::default()
            };
            Some((filter, campaign.started_at))
        }
        _ => None,
    }
}

impl SqliteStore {
    async fn many(&self, operation: &'static str, statement: Bound<'_>) -> Result<Vec<Campaign>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            read_all(&statement.fetch_all(&mut *reader).await?, read_campaign)
        };
        read.await.map_err(|fail: Fail| fail.of(operation, "campaign"))
    }

    async fn find_campaign(&self, scope: &RequestScope, id: CampaignId) -> Done<Campaign> {
        let mut reader = self.reader().await?;
        let row = sqlx::query(VISIBLE)
            .bind(blob(&id).to_vec())
            .bind(blob(&scope.user_id).to_vec())
            .bind(device_list(scope))
            .fetch_optional(&mut *reader)
            .await?
            .ok_or(Fail::not_found("campaign"))?;
        read_campaign(&mut Columns::of(&row))
    }

    async fn read_audience(&self, campaign: &Campaign, after: LeadId, limit: u32) -> Done<Vec<AudienceLead>> {
        let Some((filter, created_until)) = audience_filter(campaign) else {
            return Ok(Vec::new());
        };
        let mut reader = self.reader().await?;
        let wanted = Wanted {
            user_id: campaign.user_id,
            filter: &filter,
            devices: None,
            created_until,
            after: Some(after),
        };
        wanted.read_members(&mut reader, u64::from(limit)).await
    }

    async fn count_audience(&self, campaign: &Campaign) -> Done<u64> {
        let mut reader = self.reader().await?;
        let Some((filter, created_until)) = audience_filter(campaign) else {
            let statement = sqlx::query_scalar::<_, i64>(ENTRY_COUNT).bind(blob(&campaign.id).to_vec());
            return Ok(u64::try_from(statement.fetch_one(&mut *reader).await?).unwrap_or(0));
        };
        let wanted = Wanted {
            user_id: campaign.user_id,
            filter: &filter,
            devices: None,
            created_until,
            after: None,
        };
        wanted.read_count(&mut reader).await
    }
}

#[async_trait]
impl CampaignStore for SqliteStore {
    async fn campaign(&self, scope: &RequestScope, id: CampaignId) -> Result<Campaign, StoreError> {
        let found = self.find_campaign(scope, id).await;
        found.map_err(|fail| fail.of("campaign", "campaign"))
    }

    async fn campaigns(
        &self,
        scope: &RequestScope,
        filter: &CampaignFilter,
        page: &PageRequest<CampaignId>,
    ) -> Result<Page<Campaign, CampaignId>, StoreError> {
        let mut statement = page_statement(scope, filter, page);
        let rows = self.many("campaigns", statement.build()).await?;
        Ok(Page::cut(rows, page.clamped(), |campaign: &Campaign| campaign.id))
    }

    async fn campaigns_by_id(&self, ids: &[CampaignId]) -> Result<Vec<Campaign>, StoreError> {
        self.many("campaigns_by_id", sqlx::query(BY_ID).bind(hex_list(ids)))
            .await
    }

    async fn campaigns_due(&self, now: Timestamp, limit: u32) -> Result<Vec<Campaign>, StoreError> {
        let statement = sqlx::query(DUE).bind(now.as_millis()).bind(limit);
        self.many("campaigns_due", statement).await
    }

    async fn campaigns_expanding(&self, limit: u32) -> Result<Vec<Campaign>, StoreError> {
        self.many("campaigns_expanding", sqlx::query(EXPANDING).bind(limit))
            .await
    }

    async fn complete_campaigns(&self, events: &[EventId], now: Timestamp) -> Result<Vec<Campaign>, StoreError> {
        let op = Op(WriteClass::Bulk, "complete_campaigns", "campaign");
        let events = events.to_vec();
        self.write(op, move |connection| {
            Box::pin(async move { complete(connection, &events, now).await })
        })
        .await
    }

    async fn next_campaign_at(&self) -> Result<Option<Timestamp>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let next: Option<i64> = sqlx::query_scalar(NEXT).fetch_optional(&mut *reader).await?;
            Ok(next.map(Timestamp::from_millis))
        };
        read.await.map_err(|fail: Fail| fail.of("next_campaign_at", "campaign"))
    }

    async fn audience_page(
        &self,
        campaign: &Campaign,
        after: LeadId,
        limit: u32,
    ) -> Result<Vec<AudienceLead>, StoreError> {
        let found = self.read_audience(campaign, after, limit).await;
        found.map_err(|fail| fail.of("audience_page", "lead"))
    }

    async fn entries_page(
        &self,
        campaign: CampaignId,
        after: u32,
        limit: u32,
    ) -> Result<Vec<CampaignEntry>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let statement = sqlx::query(ENTRIES)
                .bind(blob(&campaign).to_vec())
                .bind(after)
                .bind(limit);
            read_all(&statement.fetch_all(&mut *reader).await?, read_entry)
        };
        read.await.map_err(|fail: Fail| fail.of("entries_page", "entry"))
    }

    async fn audience_size(&self, campaign: &Campaign) -> Result<u64, StoreError> {
        let found = self.count_audience(campaign).await;
        found.map_err(|fail| fail.of("audience_size", "lead"))
    }

    async fn persons_in(&self, campaign: CampaignId, persons: &[PersonKey]) -> Result<Vec<PersonKey>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let statement = sqlx::query(PERSONS_IN)
                .bind(hex_list(persons))
                .bind(blob(&campaign).to_vec());
            read_all(&statement.fetch_all(&mut *reader).await?, |c| c.key("person"))
        };
        read.await.map_err(|fail: Fail| fail.of("persons_in", "message"))
    }

    async fn planned(&self, campaign: CampaignId, persons: &[PersonKey]) -> Result<Vec<PlannedRow>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            pool::planned(&mut reader, campaign, persons).await
        };
        read.await.map_err(|fail: Fail| fail.of("planned", "message"))
    }

    async fn left_over(&self, campaign: CampaignId) -> Result<u64, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            pool::left_over(&mut reader, campaign).await
        };
        read.await.map_err(|fail: Fail| fail.of("left_over", "message"))
    }

    async fn taken(&self, campaigns: &[CampaignId]) -> Result<Vec<Taken>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            pool::taken(&mut reader, campaigns).await
        };
        read.await.map_err(|fail: Fail| fail.of("taken", "campaign"))
    }

    async fn saved_text(&self, scope: &RequestScope, id: TemplateId) -> Result<SavedText, StoreError> {
        let read = async {
            // Saved texts are the whole user's: a scope of some devices sees none.
            if scope.devices.is_some() {
                return Err(Fail::not_found("saved text"));
            }
            let mut reader = self.reader().await?;
            saved_text_of(&mut reader, scope.user_id, id).await
        };
        read.await.map_err(|fail| fail.of("saved_text", "saved text"))
    }

    async fn saved_texts(
        &self,
        scope: &RequestScope,
        page: &PageRequest<TemplateId>,
    ) -> Result<Page<SavedText, TemplateId>, StoreError> {
        let limit = page.clamped();
        let read = async {
            if scope.devices.is_some() {
                return Ok(Vec::new());
            }
            let mut reader = self.reader().await?;
            let rows = sqlx::query(SAVED_PAGE)
                .bind(blob(&scope.user_id).to_vec())
                .bind(opt_blob(page.after.as_ref()).unwrap_or_default().to_vec())
                .bind(int(limit as u64 + 1))
                .fetch_all(&mut *reader)
                .await?;
            read_all(&rows, read_saved)
        };
        let rows = read.await.map_err(|fail: Fail| fail.of("saved_texts", "saved text"))?;
        Ok(Page::cut(rows, limit, |saved: &SavedText| saved.id))
    }
}
