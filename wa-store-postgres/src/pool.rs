//! Campaigns whose audience is the pool: what each device has taken, what is left over, and whose a lead is that was sent to.

use std::collections::{HashMap, HashSet};

use sqlx::postgres::PgConnection;
use wa_core::domain::message::{MessageScope, MessageState, Reason};
use wa_core::domain::phone::PersonKey;
use wa_core::id::{CampaignId, DeviceId, LeadId, MessageId, UserId};
use wa_core::store::{LeftOver, PlannedRow, Taken};
use wa_core::time::Timestamp;

use crate::commit::Commit;
use crate::connections::Line;
use crate::enrolments::follow_lead;
use crate::error::Done;
use crate::insert::{gather, query};
use crate::live::{Batch, Live, live};
use crate::lock::{Mode, Space};
use crate::row::{count, keys, read_all};
use crate::sweep::move_one;
use crate::tallies::Tallies;

/// `planned`: by `messages_person`.
pub(crate) const PLANNED: &str = "
    SELECT DISTINCT m.id, m.person, m.lead_id, m.round, m.state, m.reason
    FROM unnest($1::uuid[]) AS j (value) JOIN messages m
        ON uuid_hash_extended(m.person, 0) = uuid_hash_extended(j.value, 0) AND m.person = j.value
    WHERE m.scope_kind = 1 AND m.scope_id = $2 AND NOT m.superseded ORDER BY m.id";
/// `left_over`: by the primary key, and by `archived_messages_scope`.
pub(crate) const LEFT_OVER: &str = "
    SELECT (SELECT count(*) FROM left_over WHERE campaign_id = $1) + (
        SELECT count(*) FROM archived_messages WHERE scope_id = $1 AND state = 8 AND reason = 25 AND NOT superseded
    )";
/// `taken`: campaigns by their ids, tallies and what was taken before by their primary keys.
pub(crate) const TAKEN: &str = "
    SELECT c.id, t.device_id, t.done + t.failed + t.unknown + t.remaining - coalesce(b.taken, 0), t.remaining
    FROM (SELECT DISTINCT u.value AS id FROM unnest($1::uuid[]) AS u (value)) AS i
    JOIN campaigns c ON c.id = i.id
    JOIN tallies t ON t.user_id = c.user_id AND t.scope_kind = 1 AND t.scope_id = c.id
        AND t.device_id <> '00000000-0000-0000-0000-000000000000'::uuid
    LEFT JOIN campaign_taken b ON b.campaign_id = c.id AND b.device_id = t.device_id
    WHERE t.done + t.failed + t.unknown + t.remaining > coalesce(b.taken, 0)
    ORDER BY c.id, t.device_id";
/// `assign`: how many more messages of campaigns with a limit devices may take. By the same keys.
pub(crate) const ROOM: &str = "
    SELECT j.key, c.device_limit
        - greatest(coalesce(t.done + t.failed + t.unknown + t.remaining, 0) - coalesce(b.taken, 0), 0)
    FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS j (campaign_id, device_id, key)
    JOIN campaigns c ON c.id = j.campaign_id AND c.device_limit IS NOT NULL
    LEFT JOIN tallies t ON t.user_id = c.user_id AND t.scope_kind = 1 AND t.scope_id = c.id AND t.device_id = j.device_id
    LEFT JOIN campaign_taken b ON b.campaign_id = c.id AND b.device_id = j.device_id";
/// `TriggerAgain`: by the primary key.
pub(crate) const FORGET_TAKEN: &str = "DELETE FROM campaign_taken WHERE campaign_id = $1";
/// `TriggerAgain`: by the primary key of tallies.
pub(crate) const NOTE_TAKEN: &str = "
    INSERT INTO campaign_taken (campaign_id, device_id, taken)
    SELECT scope_id, device_id, done + failed + unknown + remaining FROM tallies
    WHERE user_id = $1 AND scope_kind = 1 AND scope_id = $2
        AND device_id <> '00000000-0000-0000-0000-000000000000'::uuid";
/// `leave_over`: pool messages that still wait, of campaigns with a limit, by the unique index of ids.
pub(crate) const WAITING: &str = live!(
    "FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS v (user_id, id, key)
    JOIN messages m ON m.id = v.id AND m.user_id = v.user_id
    JOIN campaigns lc ON m.scope_kind = 1 AND lc.id = m.scope_id AND lc.device_limit IS NOT NULL
    WHERE m.state = 1 AND m.from_pool AND m.device_id IS NULL ORDER BY v.key"
);
/// Leads of the pool that were sent to, with the devices that did it, by the ids of all of them.
pub(crate) const SENT_TO: &str = "
    SELECT m.user_id, l.id, d.id, m.settled_at
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key)
    JOIN messages m ON m.id = j.value
    JOIN campaigns c ON m.scope_kind = 1 AND c.id = m.scope_id AND c.device_limit IS NOT NULL
    JOIN leads l ON l.id = m.lead_id AND l.user_id = m.user_id AND l.device_id IS NULL
    JOIN devices d ON d.id = coalesce((SELECT a.device_id FROM attempts a WHERE a.id = m.attempt_id), m.device_id)
        AND d.user_id = m.user_id AND d.deleted_at IS NULL
    ORDER BY j.key";
/// Gives a lead to a device that does not have the same lead already, by the unique index of ids and `leads_identity`.
pub(crate) const GIVE: &str = "
    UPDATE leads SET device_id = $1, updated_at = greatest(updated_at, coalesce($2, updated_at)), version = version + 1
    WHERE id = $3 AND device_id IS NULL AND NOT EXISTS (
        SELECT 1 FROM leads o
        WHERE o.user_id = leads.user_id AND o.phone = leads.phone
            AND coalesce(o.device_id, '00000000-0000-0000-0000-000000000000'::uuid) = $1
            AND md5(o.niches) = md5(leads.niches)
    )";

pub(crate) async fn planned(
    connection: &mut impl Line,
    campaign: CampaignId,
    persons: &[PersonKey],
) -> Done<Vec<PlannedRow>> {
    let statement = query(PLANNED).bind(keys(persons)).bind(&campaign);
    read_all(&statement.fetch_all(connection).await?, |c| {
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

pub(crate) async fn left_over(connection: &mut impl Line, campaign: CampaignId) -> Done<u64> {
    let left = query(LEFT_OVER).bind(&campaign).number(connection).await?;
    Ok(u64::try_from(left.unwrap_or(0)).unwrap_or(0))
}

pub(crate) async fn taken(connection: &mut impl Line, campaigns: &[CampaignId]) -> Done<Vec<Taken>> {
    let rows = query(TAKEN).bind(keys(campaigns)).fetch_all(connection).await?;
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
    connection: &mut PgConnection,
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
    let list = gather(&pairs, |row, (campaign, _, device)| row.bind(campaign).bind(device));
    let rows = list.into_statement(ROOM).fetch_all(connection).await?;
    let rooms = read_all(&rows, |c| {
        let at = c.place()?;
        Ok(((pairs[at].1, pairs[at].2), c.int()?))
    })?;
    Ok(rooms.into_iter().collect())
}

/// Notes what devices have taken of a campaign by now, so that they may take as many again.
pub(crate) async fn note_taken(connection: &mut PgConnection, user: UserId, campaign: CampaignId) -> Done<()> {
    query(FORGET_TAKEN).bind(&campaign).execute(&mut *connection).await?;
    let statement = query(NOTE_TAKEN).bind(&user).bind(&campaign);
    statement.execute(connection).await?;
    Ok(())
}

pub(crate) async fn leave_over(
    connection: &mut PgConnection,
    space: Space,
    items: &[LeftOver],
    now: Timestamp,
) -> Done<u64> {
    if items.is_empty() {
        return Ok(0);
    }
    let users = items.iter().map(|item| &item.user_id);
    space.locks().users(users, Mode::Alone).take(connection).await?;
    let list = gather(items, |row, item| row.bind(&item.user_id).bind(&item.message_id));
    let rows = list.into_statement(WAITING).fetch_all(&mut *connection).await?;
    let mut seen = HashSet::new();
    let mut batch = Batch::default();
    for live in Live::read_all(&rows)? {
        if !seen.insert(live.id) {
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

/// Gives the leads of messages from the pool that were sent to the devices that sent them. The transaction has their users alone.
pub(crate) async fn give_leads(connection: &mut PgConnection, sent: &[MessageId]) -> Done<()> {
    let rows = query(SENT_TO).bind(keys(sent)).fetch_all(&mut *connection).await?;
    let given: Vec<(UserId, LeadId, DeviceId, Option<Timestamp>)> = read_all(&rows, |c| {
        Ok((c.key("user_id")?, c.key("lead_id")?, c.key("device_id")?, c.opt_at()?))
    })?;
    for (user, lead, device, at) in given {
        let statement = query(GIVE).bind(&device).bind(at.map(Timestamp::as_millis)).bind(&lead);
        if statement.execute(&mut *connection).await?.rows_affected() == 1 {
            let mut commit = Commit::new(&mut *connection, at.unwrap_or(Timestamp::EPOCH));
            follow_lead(&mut commit, (user, lead), Some(device)).await?;
            commit.tallies.write(commit.connection).await?;
        }
    }
    Ok(())
}
