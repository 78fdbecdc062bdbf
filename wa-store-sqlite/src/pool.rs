//! Campaigns whose audience is the pool: what each device has taken, what is left over, and whose a lead is that was sent to.

use std::collections::{HashMap, HashSet};

use sqlx::sqlite::SqliteConnection;
use wa_core::domain::message::{MessageScope, MessageState, Reason};
use wa_core::domain::phone::PersonKey;
use wa_core::id::{CampaignId, DeviceId, LeadId, UserId};
use wa_core::store::{LeftOver, PlannedRow, Taken};
use wa_core::time::Timestamp;

use crate::commit::Commit;
use crate::enrolments::follow_lead;
use crate::error::Done;
use crate::live::{Batch, Live, live};
use crate::row::{blob, count, hex, hex_list, json, read_all};
use crate::sweep::move_one;
use crate::tallies::Tallies;

/// `planned`: by `messages_person`.
pub(crate) const PLANNED: &str = "
    SELECT DISTINCT m.id, m.person, m.lead_id, m.round, m.state, m.reason
    FROM json_each(?1) j CROSS JOIN messages m INDEXED BY messages_person ON m.person = unhex(j.value)
    WHERE m.scope_kind = 1 AND m.scope_id = ?2 AND m.superseded = 0 ORDER BY m.id";
/// `left_over`: by `messages_left_over` and `archived_messages_scope`.
pub(crate) const LEFT_OVER: &str = "
    SELECT (
        SELECT count(*) FROM messages INDEXED BY messages_left_over
        WHERE scope_id = ?1 AND state = 8 AND reason = 25 AND superseded = 0
    ) + (
        SELECT count(*) FROM archived_messages INDEXED BY archived_messages_scope
        WHERE scope_id = ?1 AND state = 8 AND reason = 25 AND superseded = 0
    )";
/// `taken`: campaigns by their ids, tallies and what was taken before by their primary keys.
pub(crate) const TAKEN: &str = "
    SELECT c.id, t.device_id, t.done + t.failed + t.unknown + t.remaining - coalesce(b.taken, 0), t.remaining
    FROM (SELECT DISTINCT unhex(value) AS id FROM json_each(?)) i
    CROSS JOIN campaigns c ON c.id = i.id
    CROSS JOIN tallies t ON t.user_id = c.user_id AND t.scope_kind = 1 AND t.scope_id = c.id AND t.device_id <> x''
    LEFT JOIN campaign_taken b ON b.campaign_id = c.id AND b.device_id = t.device_id
    WHERE t.done + t.failed + t.unknown + t.remaining > coalesce(b.taken, 0)
    ORDER BY c.id, t.device_id";
/// `assign`: how many more messages of campaigns with a limit devices may take. By the same keys.
pub(crate) const ROOM: &str = "
    SELECT j.key, c.device_limit
        - max(coalesce(t.done + t.failed + t.unknown + t.remaining, 0) - coalesce(b.taken, 0), 0)
    FROM json_each(?) j
    CROSS JOIN campaigns c ON c.id = unhex(j.value->>0) AND c.device_limit IS NOT NULL
    LEFT JOIN tallies t ON t.user_id = c.user_id AND t.scope_kind = 1 AND t.scope_id = c.id
        AND t.device_id = unhex(j.value->>1)
    LEFT JOIN campaign_taken b ON b.campaign_id = c.id AND b.device_id = unhex(j.value->>1)";
/// `TriggerAgain`: by the primary key.
pub(crate) const FORGET_TAKEN: &str = "DELETE FROM campaign_taken WHERE campaign_id = ?";
/// `TriggerAgain`: by the primary key of tallies.
pub(crate) const NOTE_TAKEN: &str = "
    INSERT INTO campaign_taken (campaign_id, device_id, taken)
    SELECT scope_id, device_id, done + failed + unknown + remaining FROM tallies
    WHERE user_id = ? AND scope_kind = 1 AND scope_id = ? AND device_id <> x''";
/// `leave_over`: pool messages that still wait, of campaigns with a limit, by the unique index of ids.
pub(crate) const WAITING: &str = live!(
    "FROM (SELECT key, unhex(value->>0) AS user_id, unhex(value->>1) AS id FROM json_each(?)) AS v
    CROSS JOIN messages m ON m.id = v.id AND m.user_id = v.user_id
    CROSS JOIN campaigns lc ON lc.id = m.campaign_id AND lc.device_limit IS NOT NULL
    WHERE m.state = 1 AND m.from_pool = 1 AND m.device_id IS NULL ORDER BY v.key"
);
/// Leads of the pool that were sent to, with the devices that did it, by the row ids of messages and the ids of the rest.
pub(crate) const SENT_TO: &str = "
    SELECT m.user_id, l.id, d.id, m.settled_at FROM json_each(?) j
    CROSS JOIN messages m ON m.seq = j.value
    CROSS JOIN campaigns c ON c.id = m.campaign_id AND c.device_limit IS NOT NULL
    CROSS JOIN leads l ON l.id = m.lead_id AND l.user_id = m.user_id AND l.device_id IS NULL
    CROSS JOIN devices d ON d.id = coalesce((SELECT a.device_id FROM attempts a WHERE a.id = m.attempt_id), m.device_id)
        AND d.user_id = m.user_id AND d.deleted_at IS NULL
    ORDER BY j.key";
/// Gives a lead to a device that does not have the same lead already, by the unique index of ids and `leads_identity`.
pub(crate) const GIVE: &str = "
    UPDATE leads SET device_id = ?1, updated_at = max(updated_at, coalesce(?2, updated_at)), version = version + 1
    WHERE id = ?3 AND device_id IS NULL AND NOT EXISTS (
        SELECT 1 FROM leads o INDEXED BY leads_identity
        WHERE o.user_id = leads.user_id AND o.phone = leads.phone AND coalesce(o.device_id, x'') = ?1
            AND o.niches = leads.niches
    )";

pub(crate) async fn planned(
    connection: &mut SqliteConnection,
    campaign: CampaignId,
    persons: &[PersonKey],
) -> Done<Vec<PlannedRow>> {
    let rows = sqlx::query(PLANNED)
        .bind(hex_list(persons))
        .bind(blob(&campaign).to_vec())
        .fetch_all(connection)
        .await?;
    read_all(&rows, |c| {
        Ok(PlannedRow {
            message_id: c.key("id")?,
            person: c.key("person")?,
            lead_id: c.opt_key("lead_id")?,
            round: c.small("round")?,
            state: c.kind("state", MessageState::from_u8)?,
            reason: c.opt_kind("reason", Reason::from_u8)?,
        })
    })
}

pub(crate) async fn left_over(connection: &mut SqliteConnection, campaign: CampaignId) -> Done<u64> {
    let statement = sqlx::query_scalar::<_, i64>(LEFT_OVER).bind(blob(&campaign).to_vec());
    Ok(u64::try_from(statement.fetch_one(connection).await?).unwrap_or(0))
}

pub(crate) async fn taken(connection: &mut SqliteConnection, campaigns: &[CampaignId]) -> Done<Vec<Taken>> {
    let rows = sqlx::query(TAKEN)
        .bind(hex_list(campaigns))
        .fetch_all(connection)
        .await?;
    read_all(&rows, |c| {
        Ok(Taken {
            campaign_id: c.key("campaign_id")?,
            device_id: c.key("device_id")?,
            taken: c.small("taken")?,
            open: c.small("open")?,
        })
    })
}

/// How many more messages devices may take; what has no limit is not named.
pub(crate) async fn room(
    connection: &mut SqliteConnection,
    wanted: impl IntoIterator<Item = (MessageScope, DeviceId)>,
) -> Done<HashMap<(MessageScope, DeviceId), i64>> {
    let wanted: HashSet<(MessageScope, DeviceId)> = wanted.into_iter().collect();
    let pairs: Vec<_> = wanted
        .into_iter()
        .filter_map(|(scope, device)| match scope {
            MessageScope::Campaign(id) => Some((id, scope, device)),
            _ => None,
        })
        .collect();
    if pairs.is_empty() {
        return Ok(HashMap::new());
    }
    let list: Vec<(String, String)> = pairs
        .iter()
        .map(|(campaign, _, device)| (hex(campaign.as_bytes()), hex(device.as_bytes())))
        .collect();
    let rows = sqlx::query(ROOM).bind(json(&list)).fetch_all(connection).await?;
    let rooms = read_all(&rows, |c| {
        let at: usize = c.small("key")?;
        Ok(((pairs[at].1, pairs[at].2), c.int()?))
    })?;
    Ok(rooms.into_iter().collect())
}

/// Notes what devices have taken of a campaign by now, so that they may take as many again.
pub(crate) async fn note_taken(connection: &mut SqliteConnection, user: UserId, campaign: CampaignId) -> Done<()> {
    sqlx::query(FORGET_TAKEN)
        .bind(blob(&campaign).to_vec())
        .execute(&mut *connection)
        .await?;
    sqlx::query(NOTE_TAKEN)
        .bind(blob(&user).to_vec())
        .bind(blob(&campaign).to_vec())
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn leave_over(connection: &mut SqliteConnection, items: &[LeftOver], now: Timestamp) -> Done<u64> {
    let list: Vec<(String, String)> = items
        .iter()
        .map(|item| (hex(item.user_id.as_bytes()), hex(item.message_id.as_bytes())))
        .collect();
    let rows = sqlx::query(WAITING)
        .bind(json(&list))
        .fetch_all(&mut *connection)
        .await?;
    let mut seen = HashSet::new();
    let mut batch = Batch::default();
    for live in Live::read_all(&rows)? {
        if !seen.insert(live.seq) {
            continue;
        }
        if live.requeued().state == MessageState::Queued {
            let over = Some(Reason::DeviceLimit);
            batch.change(live, |live| live.place(MessageState::Skipped, over, now))?;
        } else {
            move_one(&mut batch, live, now)?;
        }
    }
    let moved = count(batch.len());
    let mut tallies = Tallies::default();
    batch.write(connection, &mut tallies).await?;
    tallies.write(connection).await?;
    Ok(moved)
}

/// Gives the leads of messages from the pool that were sent, named by their row ids, to the devices that sent them.
pub(crate) async fn give_leads(connection: &mut SqliteConnection, sent: &[i64]) -> Done<()> {
    let rows = sqlx::query(SENT_TO)
        .bind(json(&sent))
        .fetch_all(&mut *connection)
        .await?;
    let given: Vec<(UserId, LeadId, DeviceId, Option<Timestamp>)> = read_all(&rows, |c| {
        Ok((c.key("user_id")?, c.key("lead_id")?, c.key("device_id")?, c.opt_at()?))
    })?;
    for (user, lead, device, at) in given {
        let changed = sqlx::query(GIVE)
            .bind(blob(&device).to_vec())
            .bind(at.map(Timestamp::as_millis))
            .bind(blob(&lead).to_vec())
            .execute(&mut *connection)
            .await?;
        if changed.rows_affected() == 1 {
            let mut commit = Commit::new(&mut *connection, at.unwrap_or(Timestamp::EPOCH));
            follow_lead(&mut commit, (user, lead), Some(device)).await?;
            commit.tallies.write(commit.connection).await?;
        }
    }
    Ok(())
}
