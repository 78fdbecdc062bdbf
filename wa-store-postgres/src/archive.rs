//! The archive: messages of campaigns that ended long ago, out of the tables and indexes that sending uses.
//!
//! A step has its user shared, as begin and settle have, so that those go on beside it and commits wait for one step; rows that another
//! transaction has locked wait for the next.

use sqlx::postgres::PgConnection;
use wa_core::domain::message::MessageScope;
use wa_core::id::{CampaignId, MessageId, UserId};
use wa_core::store::{Archived, MessageFilter};
use wa_core::time::Timestamp;

use crate::error::Done;
use crate::insert::query;
use crate::lock::{Mode, Space};
use crate::message_row::message;
use crate::row::{Columns, count, int, keys, read_all};

/// What has started, ended before $1 and has nothing open, and is not in the archive as a whole.
macro_rules! ended {
    () => {
        "c.status IN (5, 6, 7) AND c.started_at IS NOT NULL AND NOT c.archived AND c.ended_at < $1
        AND (
            SELECT true FROM tallies t
            WHERE t.user_id = c.user_id AND t.scope_kind = 1 AND t.scope_id = c.id AND t.remaining > 0 LIMIT 1
        ) IS NULL"
    };
}

/// The columns of a message that are written.
macro_rules! message_columns {
    () => {
        "id, user_id, scope_id, enrolment_id, step_id, key, supersedes, lead_id, person, device_id, attempt_id, due_at, expires_at,
        created_at, held_at, settled_at, delivery_at, epoch, doubt_since_at, next_check_at, steps_version, round, refusal_count,
        scope_kind, priority, state, reason, delivery, not_found_count, resend_count, superseded, from_pool, override_suppression,
        phone, name, custom, content, delay, detail, doubt_cause, provider_id"
    };
}

/// The columns of an attempt.
macro_rules! attempt_columns {
    () => {
        "id, message_id, device_id, epoch, attempted_at, transport_message_id, provider_id, greeting, text, earlier_id"
    };
}

/// `archive`: the campaign whose turn it is, by `campaigns_to_archive` and the primary key of tallies.
pub(crate) const NEXT: &str = concat!(
    "SELECT c.id, c.user_id FROM campaigns c WHERE ",
    ended!(),
    " ORDER BY c.ended_at, c.id LIMIT 1"
);
/// `archive`: from now on it never changes. By the primary key.
pub(crate) const MARK: &str = concat!(
    "UPDATE campaigns c SET archived_at = coalesce(c.archived_at, $2) WHERE c.id = $3 AND ",
    ended!()
);
/// `archive`: the next messages of a campaign, by `messages_scope`.
pub(crate) const PAGE: &str = "
    SELECT m.id FROM messages m WHERE m.scope_kind = 1 AND m.scope_id = $1 AND m.state > 4
    ORDER BY m.id LIMIT $2 FOR UPDATE SKIP LOCKED";
/// `archive`: those to whom they were sent are known to the device, by the primary keys. OFFSET makes Postgres look for each.
pub(crate) const ACQUAINT: &str = "
    INSERT INTO acquaintances (device_id, person, since_at)
    SELECT m.device_id, m.person, min(coalesce(a.attempted_at, m.created_at))
    FROM unnest($1::uuid[]) AS j (value) CROSS JOIN LATERAL (
        SELECT x.device_id, x.person, x.phone, x.state, x.attempt_id, x.created_at FROM messages x WHERE x.id = j.value OFFSET 0
    ) AS m
    LEFT JOIN LATERAL (SELECT x.attempted_at FROM attempts x WHERE x.id = m.attempt_id OFFSET 0) AS a ON true
    WHERE m.state = 5 AND m.device_id IS NOT NULL AND m.phone IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (device_id, person) DO UPDATE SET since_at = excluded.since_at
    WHERE excluded.since_at < acquaintances.since_at";
/// `archive`: all attempts of messages, by the primary keys; each names the one before it.
pub(crate) const MOVE_ATTEMPTS: &str = concat!(
    "WITH RECURSIVE theirs AS (
        SELECT newest.id, newest.earlier_id FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value
        CROSS JOIN LATERAL (SELECT x.id, x.earlier_id FROM attempts x WHERE x.id = m.attempt_id OFFSET 0) AS newest
        UNION ALL
        SELECT earlier.id, earlier.earlier_id FROM theirs
        CROSS JOIN LATERAL (SELECT x.id, x.earlier_id FROM attempts x WHERE x.id = theirs.earlier_id OFFSET 0) AS earlier
    ), moved AS (
        DELETE FROM attempts WHERE id = ANY (ARRAY(SELECT t.id FROM theirs t)) RETURNING ",
    attempt_columns!(),
    ")
    INSERT INTO archived_attempts (",
    attempt_columns!(),
    ") SELECT ",
    attempt_columns!(),
    " FROM moved"
);
/// `archive`: when devices started them, by the primary keys.
pub(crate) const NOTE_STARTS: &str = "
    INSERT INTO lane_pasts (device_id, first_attempt_at, last_attempt_at)
    SELECT a.device_id, min(a.attempted_at) FILTER (WHERE m.state IN (5, 7) AND m.attempt_id = a.id), max(a.attempted_at)
    FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value
    CROSS JOIN LATERAL (
        SELECT x.id, x.device_id, x.attempted_at FROM archived_attempts x WHERE x.message_id = m.id OFFSET 0
    ) AS a
    GROUP BY 1 ORDER BY 1
    ON CONFLICT (device_id) DO UPDATE SET
        first_attempt_at = least(lane_pasts.first_attempt_at, excluded.first_attempt_at),
        last_attempt_at = greatest(lane_pasts.last_attempt_at, excluded.last_attempt_at)";
/// `archive`: their places among the outcomes, by `outcomes_scope` and `outcomes_mark`, and lists of which no other message is left here.
/// What is there is never changed, so that its place in the table finds it.
pub(crate) const FORGET_OUTCOMES: &str = "
    DELETE FROM outcomes WHERE ctid = ANY (ARRAY(
        SELECT o.ctid FROM (
            SELECT DISTINCT m.settled_at FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value
        ) AS v CROSS JOIN LATERAL (
            SELECT x.ctid, x.message_id FROM outcomes x WHERE x.scope_id = $2 AND x.settled_at = v.settled_at OFFSET 0
        ) AS o WHERE o.message_id = ANY ($1)
        UNION ALL
        SELECT o.ctid FROM (
            SELECT DISTINCT m.settled_at FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value
        ) AS v CROSS JOIN LATERAL (
            SELECT x.ctid, x.message_ids FROM outcomes x
            WHERE x.scope_id = $2 AND x.settled_at = v.settled_at AND x.message_ids IS NOT NULL OFFSET 0
        ) AS o WHERE (
            SELECT true FROM unnest(o.message_ids) AS u (id) CROSS JOIN LATERAL (
                SELECT y.id FROM messages y WHERE y.id = u.id OFFSET 0
            ) AS m WHERE m.id <> ALL ($1) LIMIT 1
        ) IS NULL
        UNION ALL
        SELECT o.ctid FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value CROSS JOIN LATERAL (
            SELECT x.ctid FROM outcomes x WHERE x.mark = hashtextextended(m.provider_id, 0) AND x.message_id = m.id OFFSET 0
        ) AS o
    ))";
/// `archive`: what is left over of the campaign, by the primary key.
pub(crate) const FORGET_LEFT_OVER: &str = "DELETE FROM left_over WHERE campaign_id = $2 AND message_id = ANY ($1)";
/// `archive`: the messages themselves, by the primary key.
pub(crate) const MOVE: &str = concat!(
    "WITH moved AS (DELETE FROM messages WHERE id = ANY ($1) RETURNING ",
    message_columns!(),
    ") INSERT INTO archived_messages (",
    message_columns!(),
    ") SELECT ",
    message_columns!(),
    " FROM moved"
);
/// `archive`: nothing of it is left, by the primary key and `messages_scope`.
pub(crate) const FINISH: &str = "
    UPDATE campaigns SET archived = true WHERE id = $1
        AND (SELECT true FROM messages m WHERE m.scope_kind = 1 AND m.scope_id = $1 LIMIT 1) IS NULL";

/// `archive`: whatever is left of its lists, by `outcomes_scope`; the steps have taken them all.
pub(crate) const FORGET_LISTS: &str = "DELETE FROM outcomes WHERE scope_id = $1";

/// `message`, by the primary keys.
pub(crate) const VISIBLE: &str = message!(
    "FROM archived_messages m LEFT JOIN archived_attempts a ON a.message_id = m.id AND a.id = m.attempt_id
    WHERE m.id = $1 AND m.user_id = $2 AND ($3::uuid[] IS NULL OR m.device_id = ANY ($3))"
);
/// `attempts`, by the primary keys; oldest first.
pub(crate) const ATTEMPTS: &str = "
    SELECT a.id, a.transport_message_id, CASE WHEN a.id = m.attempt_id THEN m.provider_id ELSE a.provider_id END,
        a.device_id, a.epoch, a.text, a.greeting, a.attempted_at
    FROM archived_messages m JOIN archived_attempts a ON a.message_id = m.id WHERE m.id = $1 ORDER BY a.attempted_at, a.id";
/// `newest_of_leads`, by `archived_messages_lead`.
pub(crate) const NEWEST_OF_LEADS: &str = message!(
    "FROM (SELECT DISTINCT u.value AS id FROM unnest($1::uuid[]) AS u (value)) AS i
    CROSS JOIN LATERAL (
        SELECT n.id FROM archived_messages n
        WHERE n.lead_id = i.id AND NOT n.superseded AND n.user_id = $2 AND ($3::uuid[] IS NULL OR n.device_id = ANY ($3))
        ORDER BY n.id DESC LIMIT 1
    ) AS x
    JOIN archived_messages m ON m.id = x.id
    LEFT JOIN archived_attempts a ON a.message_id = m.id AND a.id = m.attempt_id"
);
/// `history`: of each device, by the primary key.
pub(crate) const PASTS: &str = "
    SELECT j.key, p.first_attempt_at, p.last_attempt_at
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN lane_pasts p ON p.device_id = j.value";
/// `commit`: whether a message of a user is here, by the primary key.
pub(crate) const HAS: &str = "SELECT 1 FROM archived_messages WHERE id = $1 AND user_id = $2";
/// `ErasePerson`: by `archived_messages_person`.
pub(crate) const ERASE: &str = "
    UPDATE archived_messages SET phone = NULL, name = '', custom = NULL, content = NULL, detail = NULL
    WHERE person = $1 AND user_id = $2";
/// `ErasePerson`: by `archived_messages_person` and the primary key.
pub(crate) const ERASE_ATTEMPTS: &str = "
    UPDATE archived_attempts SET text = '' WHERE message_id = ANY (ARRAY(
        SELECT m.id FROM archived_messages m WHERE m.person = $1 AND m.user_id = $2
    ))";

/// Where messages are read from.
#[derive(Clone, Copy)]
pub(crate) enum Source {
    Live,
    Archive,
}

impl Source {
    /// Where what a list shows may be; only messages of campaigns are ever archived. In the order in which a message goes from one to
    /// the other, so that whoever reads them one after the other misses none.
    pub(crate) fn of(filter: &MessageFilter) -> &'static [Self] {
        let campaigns = filter.enrolment_id.is_none() && matches!(filter.scope, None | Some(MessageScope::Campaign(_)));
        if campaigns {
            &[Self::Live, Self::Archive]
        } else {
            &[Self::Live]
        }
    }
}

/// Moves a page of messages of one campaign.
pub(crate) async fn archive(
    connection: &mut PgConnection,
    space: Space,
    limit: u32,
    ended_before: Timestamp,
    now: Timestamp,
) -> Done<Archived> {
    let ended_before = ended_before.as_millis();
    let next = query(NEXT).bind(ended_before).fetch_optional(connection).await?;
    let Some(row) = next else {
        return Ok(Archived::default());
    };
    let mut c = Columns::of(&row);
    let (campaign, user): (CampaignId, UserId) = (c.key("id")?, c.key("user_id")?);
    space.locks().users([&user], Mode::Shared).take(connection).await?;
    let mark = query(MARK).bind(ended_before).bind(now.as_millis()).bind(&campaign);
    let mut archived = Archived { moved: 0, more: true };
    if mark.execute(connection).await?.rows_affected() == 0 {
        // Since it was looked for, it goes on again, or another node has moved the last of it.
        return Ok(archived);
    }
    let page = query(PAGE).bind(&campaign).bind(int(u64::from(limit)));
    let page: Vec<MessageId> = read_all(&page.fetch_all(connection).await?, |c| c.key("id"))?;
    archived.moved = count(page.len());
    if !page.is_empty() {
        let list = keys(&page);
        for sql in [ACQUAINT, MOVE_ATTEMPTS, NOTE_STARTS] {
            query(sql).bind(list.clone()).execute(connection).await?;
        }
        for sql in [FORGET_OUTCOMES, FORGET_LEFT_OVER] {
            query(sql)
                .bind(list.clone())
                .bind(&campaign)
                .execute(connection)
                .await?;
        }
        query(MOVE).bind(list).execute(connection).await?;
    }
    if query(FINISH).bind(&campaign).execute(connection).await?.rows_affected() > 0 {
        query(FORGET_LISTS).bind(&campaign).execute(connection).await?;
    }
    Ok(archived)
}

#[cfg(test)]
mod tests;
