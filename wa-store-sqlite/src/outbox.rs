//! The outbox: what lanes and people read of it, and the sub-trait.

use std::collections::BTreeMap;
use std::ops::Range;

use async_trait::async_trait;
use serde::Deserialize;
use sqlx::sqlite::SqliteConnection;
use sqlx::{QueryBuilder, Sqlite};
use wa_core::domain::access::RequestScope;
use wa_core::domain::content::{Content, MergeValues};
use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::Epoch;
use wa_core::domain::enrolment::FlowRef;
use wa_core::domain::message::{Attempt, Message, MessageScope, MessageState};
use wa_core::domain::pacing::DelayRange;
use wa_core::domain::phone::Phone;
use wa_core::domain::summary::{DeviceNumbers, Numbers};
use wa_core::id::{CampaignId, DeviceId, EnrolmentId, Incarnation, LeadId, MessageId, StepId, UserId};
use wa_core::store::{
    Archived, Assignment, Backlog, Begin, Begun, Decline, DeviceLoad, Due, DueFlow, DueMessage, Expired, LaneDue,
    LaneHistory, LaneLook, LeftOver, MessageFilter, OutboxStore, Page, PageRequest, PoolMessage, RecentOf,
    RecentOutcomes, SendingRow, Settle, Settled, StoreError, Swept, WriteClass,
};
use wa_core::time::Timestamp;

use crate::archive::Source;
use crate::error::{Done, Fail};
use crate::insert::Bound;
use crate::message_row::{message, read_attempt, read_message};
use crate::row::{Columns, HexKey, blob, device_list, fetch_list, hex, hex_list, int, json, number_list, read_all};
use crate::sequences::check_sequence;
use crate::{Op, SqliteStore, archive, begin, pool, settle, sweep};

/// `due`: the head of every group (priority, campaign) of each lane: one seek of `messages_queue` per group, from the last
/// group to the next. The seek names the end of the group, because SQLite starts a range of several columns at what is equal
/// to its bound, and would walk all of a group that is named by its own columns alone.
pub(crate) const HEADS: &str = "
    WITH RECURSIVE
        lane (n, user_id, device_id) AS (SELECT key, unhex(value->>0), unhex(value->>1) FROM json_each(?)),
        head (n, user_id, device_id, seq) AS (
            SELECT n, user_id, device_id, (
                SELECT m.seq FROM messages m INDEXED BY messages_queue
                WHERE m.state = 1 AND m.device_id = lane.device_id
                ORDER BY m.priority, m.scope_id, m.due_at, m.id LIMIT 1
            ) FROM lane
            UNION ALL
            SELECT head.n, head.user_id, head.device_id, (
                SELECT m.seq FROM messages m INDEXED BY messages_queue
                WHERE m.state = 1 AND m.device_id = head.device_id
                    AND (m.priority, m.scope_id, m.due_at) > (last.priority, last.scope_id, 9223372036854775807)
                ORDER BY m.priority, m.scope_id, m.due_at, m.id LIMIT 1
            ) FROM head CROSS JOIN messages last ON last.seq = head.seq
        )
    SELECT json_group_array(json_array(head.n, m.seq, m.priority, hex(m.scope_id), m.due_at))
    FROM head CROSS JOIN messages m ON m.seq = head.seq AND m.user_id = head.user_id";
/// `due`: the chosen heads, by the row id, with what their texts are merged with: that of the lead, by the unique index of ids, or
/// their own; the greeting before each, by `messages_person`.
pub(crate) const CHOSEN: &str = "
    SELECT json_group_array(json_array(
        j.key, hex(m.id), m.scope_kind, hex(m.scope_id), m.round, m.phone, json(m.content), json(m.delay), m.expires_at,
        iif(m.lead_id IS NULL, m.name, l.name), coalesce(l.niches_spelled, l.niches),
        json(iif(m.lead_id IS NULL, m.custom, l.custom)),
        (
            SELECT pa.greeting FROM messages p INDEXED BY messages_person CROSS JOIN attempts pa ON pa.id = p.attempt_id
            WHERE p.person = m.person AND p.user_id = m.user_id ORDER BY pa.attempted_at DESC, p.id DESC LIMIT 1
        ),
        json(iif(m.scope_kind = 2, json_array(hex(m.enrolment_id), hex(m.step_id), m.steps_version, m.name, m.due_at), NULL))
    ))
    FROM json_each(?) j CROSS JOIN messages m ON m.seq = j.value
        LEFT JOIN leads l ON l.id = m.lead_id AND l.user_id = m.user_id
    WHERE m.state = 1";
/// `sending`: by `devices_owner` and `messages_sending`.
pub(crate) const SENDING: &str = "
    SELECT m.user_id, m.device_id, m.epoch, m.id, m.attempt_id
    FROM devices d INDEXED BY devices_owner
    CROSS JOIN messages m INDEXED BY messages_sending ON m.device_id = d.id AND m.state = 3
    WHERE d.owner = ? ORDER BY m.id LIMIT 10000";
/// `doubts`: by `devices_owner` and `messages_doubt`; those of paused scopes wait.
pub(crate) const DOUBTS: &str = concat!(
    message!(
        "FROM devices d INDEXED BY devices_owner
        CROSS JOIN messages m INDEXED BY messages_doubt ON m.device_id = d.id AND m.state = 4 AND m.next_check_at <= ?2
        LEFT JOIN attempts a ON a.id = m.attempt_id
        WHERE d.owner = ?1
            AND coalesce((SELECT c.status NOT IN (1, 2, 4) FROM campaigns c WHERE c.id = m.campaign_id), 1)
            AND coalesce((SELECT "
    ),
    crate::flows::gate!("m.step_id"),
    " <> 2 FROM enrolments fe CROSS JOIN sequences fq ON fq.id = fe.sequence_id WHERE fe.id = m.enrolment_id), 1)
    ORDER BY m.next_check_at, m.id LIMIT ?3"
);
/// `pool`: the running campaigns by `campaigns_running`, the sequences by `sequences_active`, of each its oldest by `messages_pool`; the users by the unique index of
/// user and id of devices.
pub(crate) const POOL: &str = "
    SELECT id, user_id, scope_kind, scope_id, (SELECT l.device_id FROM leads l WHERE l.id = lead_id),
        (SELECT e.device_id FROM enrolments e WHERE e.id = enrolment_id), person FROM (
    SELECT m.id, m.user_id, m.scope_kind, m.scope_id, m.lead_id, m.enrolment_id, m.person, m.due_at
    FROM campaigns c INDEXED BY campaigns_running CROSS JOIN messages m ON m.seq IN (
        SELECT q.seq FROM messages q INDEXED BY messages_pool
        WHERE q.scope_kind = 1 AND q.scope_id = c.id AND q.state = 1 AND q.device_id IS NULL AND q.due_at <= ?2
        ORDER BY q.due_at, q.id LIMIT ?3
    )
    WHERE c.status = 3
        AND EXISTS (SELECT 1 FROM devices d WHERE d.user_id = c.user_id AND d.owner = ?1 AND d.deleted_at IS NULL)
    UNION ALL
    SELECT m.id, m.user_id, m.scope_kind, m.scope_id, m.lead_id, m.enrolment_id, m.person, m.due_at
    FROM sequences w INDEXED BY sequences_active CROSS JOIN messages m ON m.seq IN (
        SELECT q.seq FROM messages q INDEXED BY messages_pool
        WHERE q.scope_kind = 2 AND q.scope_id = w.id AND q.state = 1 AND q.device_id IS NULL AND q.due_at <= ?2
        ORDER BY q.due_at, q.id LIMIT ?3
    )
    WHERE w.status = 2 AND w.deleted_at IS NULL
        AND EXISTS (SELECT 1 FROM devices d WHERE d.user_id = w.user_id AND d.owner = ?1 AND d.deleted_at IS NULL)
    ) ORDER BY due_at, id";
/// `loads`: by the unique index of user and id of devices, `attempts_device`, `messages_queue`, `messages_sending` and
/// `messages_topped_up`.
pub(crate) const LOADS: &str = "
    SELECT d.id,
        (SELECT count(*) FROM attempts a INDEXED BY attempts_device
            CROSS JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
            WHERE a.device_id = d.id AND a.attempted_at >= ?2 AND m.state IN (3, 4, 5, 7)),
        (SELECT count(*) FROM (
            SELECT 1 FROM messages m INDEXED BY messages_queue WHERE m.device_id = d.id AND m.state = 1 LIMIT ?3
        ))
        + (SELECT count(*) FROM messages m INDEXED BY messages_sending WHERE m.device_id = d.id AND m.state = 3),
        (SELECT count(*) FROM (
            SELECT 1 FROM messages m INDEXED BY messages_topped_up
            WHERE m.device_id = d.id AND m.state = 1 AND m.from_pool = 1 LIMIT ?3
        ))
    FROM devices d WHERE d.user_id = ?1 AND d.deleted_at IS NULL ORDER BY d.id";
/// `history`: newest attempts that were or may have been sent, by `attempts_device`.
pub(crate) const HISTORY: &str = "
    SELECT j.key, a.attempted_at
    FROM json_each(?1) j
    CROSS JOIN attempts a INDEXED BY attempts_device ON a.device_id = unhex(j.value) AND a.attempted_at >= ?2
    CROSS JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
    WHERE m.state IN (3, 4, 5, 7) ORDER BY j.key, a.attempted_at";
/// `history`: the newest start of each device, and its first that was or may have been sent, by `attempts_device`.
pub(crate) const ENDS: &str = "
    SELECT j.key, (
        SELECT a.attempted_at FROM attempts a INDEXED BY attempts_device WHERE a.device_id = unhex(j.value)
        ORDER BY a.attempted_at DESC LIMIT 1
    ), (
        SELECT a.attempted_at FROM attempts a INDEXED BY attempts_device
        CROSS JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
        WHERE a.device_id = unhex(j.value) AND m.state IN (3, 4, 5, 7) ORDER BY a.attempted_at LIMIT 1
    ) FROM json_each(?) j";
/// `recent` of a campaign, by `messages_recent_scope`.
pub(crate) const RECENT_OF_CAMPAIGN: &str = "
    SELECT count(*), coalesce(sum(state IN (6, 7)), 0) FROM (
        SELECT m.state FROM messages m INDEXED BY messages_recent_scope
        WHERE m.scope_kind = 1 AND m.state BETWEEN 5 AND 7 AND m.scope_id = ? AND m.settled_at >= ?
        ORDER BY m.settled_at DESC, m.id DESC LIMIT ?)";
/// `recent` of a sequence, by `messages_recent_sequence`.
pub(crate) const RECENT_OF_SEQUENCE: &str = "
    SELECT count(*), coalesce(sum(state IN (6, 7)), 0) FROM (
        SELECT m.state FROM messages m INDEXED BY messages_recent_sequence
        WHERE m.scope_kind = 2 AND m.state BETWEEN 5 AND 7 AND m.scope_id = ? AND m.settled_at >= ?
        ORDER BY m.settled_at DESC, m.id DESC LIMIT ?)";
/// `recent` of a device, by `messages_recent_device`.
pub(crate) const RECENT_OF_DEVICE: &str = "
    SELECT count(*), coalesce(sum(state IN (6, 7)), 0) FROM (
        SELECT m.state FROM messages m INDEXED BY messages_recent_device
        WHERE m.state BETWEEN 5 AND 7 AND m.device_id = ? AND m.settled_at >= ?
        ORDER BY m.settled_at DESC, m.id DESC LIMIT ?)";
/// `message`, by the unique index of ids.
pub(crate) const VISIBLE: &str = message!(
    "FROM messages m LEFT JOIN attempts a ON a.id = m.attempt_id WHERE m.id = ?1 AND m.user_id = ?2
    AND (?3 IS NULL OR m.device_id IN (SELECT unhex(value) FROM json_each(?3)))"
);
/// `newest_of_leads`, by `messages_lead`.
pub(crate) const NEWEST_OF_LEADS: &str = message!(
    "FROM (SELECT DISTINCT unhex(value) AS id FROM json_each(?1)) i
    CROSS JOIN messages m ON m.id = (
        SELECT n.id FROM messages n INDEXED BY messages_lead
        WHERE n.lead_id = i.id AND n.scope_kind = 1 AND n.superseded = 0 AND n.user_id = ?2
            AND (?3 IS NULL OR n.device_id IN (SELECT unhex(value) FROM json_each(?3)))
        ORDER BY n.id DESC LIMIT 1
    )
    LEFT JOIN attempts a ON a.id = m.attempt_id ORDER BY i.id"
);
/// `attempts`, by `attempts_message`, oldest first.
pub(crate) const ATTEMPTS: &str = "
    SELECT a.id, a.transport_message_id, a.provider_id, a.device_id, a.epoch, a.text, a.greeting, a.attempted_at
    FROM attempts a INDEXED BY attempts_message WHERE a.message_id = ? ORDER BY a.seq";
/// `numbers`, by the primary key of tallies; the pool comes first.
pub(crate) const NUMBERS: &str = "
    SELECT device_id, done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied
    FROM tallies WHERE user_id = ?1 AND scope_kind = ?2 AND scope_id = ?3
        AND done + failed + skipped + unknown + cancelled + remaining > 0
        AND (?4 IS NULL OR device_id IN (SELECT unhex(value) FROM json_each(?4)))
    ORDER BY device_id";
/// `device_numbers`, by `tallies_device`.
pub(crate) const DEVICE_NUMBERS: &str = "
    SELECT device_id, done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied
    FROM tallies INDEXED BY tallies_device WHERE device_id = ?1 AND user_id = ?2";
pub(crate) const DEVICE_OF_USER: &str = "SELECT 1 FROM devices WHERE id = ? AND user_id = ?";
pub(crate) const CAMPAIGN_OF_USER: &str = "SELECT 1 FROM campaigns WHERE id = ? AND user_id = ?";
/// `count` and `count_within` of the rows that another statement finds: what was open at the end of the span counts as queued.
macro_rules! count {
    ($from:literal) => {
        concat!(
            "SELECT m.device_id, CASE WHEN m.settled_at < ?5 THEN m.state ELSE 1 END AS state_then,
                m.delivery, count(*) ",
            $from,
            " AND m.superseded = 0 AND m.created_at < ?5 AND (m.settled_at IS NULL OR m.settled_at >= ?4)
                AND (?3 IS NULL OR m.device_id IN (SELECT unhex(value) FROM json_each(?3)))
            GROUP BY m.device_id, state_then, m.delivery"
        )
    };
}
/// `count` of a campaign, by `messages_scope` and `archived_messages_scope`.
pub(crate) const COUNT_CAMPAIGN: &str = concat!(
    count!("FROM messages m INDEXED BY messages_scope WHERE m.scope_kind = 1 AND m.user_id = ?1 AND m.scope_id = ?2"),
    " UNION ALL ",
    count!("FROM archived_messages m INDEXED BY archived_messages_scope WHERE m.user_id = ?1 AND m.scope_id = ?2")
);
/// `count` of a sequence, by `messages_sequence`.
pub(crate) const COUNT_SEQUENCE: &str = count!(
    "FROM messages m INDEXED BY messages_sequence WHERE m.scope_kind = 2 AND m.user_id = ?1 AND m.scope_id = ?2"
);
/// `count` of the other scopes, by `messages_user`.
pub(crate) const COUNT_OTHER: &str =
    count!("FROM messages m INDEXED BY messages_user WHERE m.user_id = ?1 AND m.scope_kind = ?2");
/// `backlog`: walks the partial indexes of open rows, never the table.
pub(crate) const BACKLOG: &str = "
    SELECT q.queued, q.oldest,
        (SELECT count(*) FROM messages INDEXED BY messages_held WHERE state = 2),
        (SELECT count(*) FROM messages INDEXED BY messages_sending WHERE state = 3),
        (SELECT count(*) FROM messages INDEXED BY messages_doubt WHERE state = 4)
    FROM (SELECT count(*) AS queued, min(due_at) AS oldest FROM messages INDEXED BY messages_queue WHERE state = 1) q";

/// A row of [`HEADS`].
type HeadRow = (usize, i64, i64, HexKey<CampaignId>, i64);

/// The head of one group of a lane.
struct Head {
    seq: i64,
    priority: i64,
    turn: CampaignId,
    due_at: Timestamp,
}

/// The priority of messages of sequences.
const SEQUENCES: i64 = 1;

/// Chooses what a lane may send next from the heads of its groups, in order of priority and campaign.
fn choose(look: &LaneLook, heads: &[Head], now: Timestamp) -> (Vec<i64>, Option<Timestamp>) {
    let mut chosen = Vec::new();
    let mut next_due_at: Option<Timestamp> = None;
    for group in heads.chunk_by(|a, b| a.priority == b.priority) {
        let mut due = group.iter().filter(|head| head.due_at <= now).peekable();
        let served = match group.first() {
            Some(head) if head.priority == SEQUENCES => look.served_sequence.map(|id| *id.as_bytes()),
            _ => look.served.map(|id| *id.as_bytes()),
        };
        let follows = |head: &&Head| served.is_none_or(|served| *head.turn.as_bytes() > served);
        let first = due.peek().map(|head| head.seq);
        match due.find(follows).map(|head| head.seq).or(first) {
            Some(seq) => chosen.push(seq),
            None => next_due_at = group.iter().map(|head| head.due_at).chain(next_due_at).min(),
        }
    }
    (chosen, next_due_at)
}

/// A row of [`CHOSEN`].
#[derive(Deserialize)]
struct ChosenRow(
    usize,
    HexKey<MessageId>,
    u8,
    HexKey<CampaignId>,
    u16,
    Option<String>,
    Option<Content>,
    Option<DelayRange>,
    i64,
    Option<String>,
    Option<String>,
    Option<BTreeMap<String, String>>,
    Option<String>,
    Option<FlowRow>,
);

/// Which flow a row of [`CHOSEN`] is: enrolment, step, version of the steps, name, due time.
type FlowRow = (HexKey<EnrolmentId>, HexKey<StepId>, i32, String, i64);

impl ChosenRow {
    fn message(self) -> Done<DueMessage> {
        let Self(_, id, kind, scope_id, round, phone, content, delay, expires_at, name, niche, custom, greeting, flow) =
            self;
        let scope = MessageScope::from_parts(kind, scope_id.0.as_bytes()).ok_or(Fail::Unreadable("scope"))?;
        Ok(DueMessage {
            id: id.0,
            scope,
            round,
            phone: phone
                .as_deref()
                .map(Phone::from_e164)
                .transpose()
                .map_err(|_| Fail::Unreadable("phone"))?,
            content,
            delay,
            expires_at: Timestamp::from_millis(expires_at),
            // A message and a lead have a name, if only an empty one: it is missing where the lead is.
            values: name.map(|name| MergeValues {
                name,
                phone: phone.unwrap_or_default(),
                niche: niche.unwrap_or_default(),
                custom: custom.unwrap_or_default(),
            }),
            previous_greeting: greeting,
            flow: flow.map(|(enrolment, step, steps_version, name, due_at)| DueFlow {
                flow: FlowRef {
                    enrolment_id: enrolment.0,
                    step_id: step.0,
                    steps_version,
                },
                name,
                due_at: Timestamp::from_millis(due_at),
            }),
        })
    }
}

async fn due(connection: &mut SqliteConnection, due: &Due) -> Done<Vec<LaneDue>> {
    let lanes: Vec<(String, String)> = due
        .lanes
        .iter()
        .map(|look| (hex(look.user_id.as_bytes()), hex(look.device_id.as_bytes())))
        .collect();
    let mut heads: Vec<Vec<Head>> = due.lanes.iter().map(|_| Vec::new()).collect();
    let rows: Vec<HeadRow> = fetch_list(connection, HEADS, json(&lanes)).await?;
    for (at, seq, priority, turn, due_at) in rows {
        heads[at].push(Head {
            seq,
            priority,
            turn: turn.0,
            due_at: Timestamp::from_millis(due_at),
        });
    }
    for heads in &mut heads {
        heads.sort_unstable_by_key(|head| (head.priority, head.turn));
    }
    let mut answers = Vec::with_capacity(due.lanes.len());
    let mut wanted: Vec<i64> = Vec::new();
    let mut lane_of: Vec<usize> = Vec::new();
    for (at, (look, heads)) in due.lanes.iter().zip(&heads).enumerate() {
        let (chosen, next_due_at) = choose(look, heads, due.now);
        lane_of.extend(chosen.iter().map(|_| at));
        wanted.extend(chosen);
        answers.push(LaneDue {
            device_id: look.device_id,
            heads: Vec::new(),
            next_due_at,
        });
    }
    let mut found: Vec<Option<DueMessage>> = wanted.iter().map(|_| None).collect();
    let rows: Vec<ChosenRow> = fetch_list(connection, CHOSEN, json(&wanted)).await?;
    for row in rows {
        let at = row.0;
        found[at] = Some(row.message()?);
    }
    for (lane, message) in lane_of.into_iter().zip(found) {
        answers[lane].heads.extend(message);
    }
    Ok(answers)
}

fn read_numbers(c: &mut Columns<'_>) -> Done<DeviceNumbers> {
    Ok(DeviceNumbers {
        device_id: c.opt_key("device_id")?,
        numbers: read_sums(c)?,
    })
}

/// Reads the ten columns of numbers.
pub(crate) fn read_sums(c: &mut Columns<'_>) -> Done<Numbers> {
    Ok(Numbers {
        done: c.count()?,
        failed: c.count()?,
        skipped: c.count()?,
        unknown: c.count()?,
        cancelled: c.count()?,
        remaining: c.count()?,
        delivered: c.count()?,
        undelivered: c.count()?,
        read: c.count()?,
        replied: c.count()?,
    })
}

/// The statement of a page of messages, by id: the most selective key that is asked for leads the way.
pub(crate) fn page_statement(
    source: Source,
    scope: &RequestScope,
    filter: &MessageFilter,
    page: &PageRequest<MessageId>,
) -> QueryBuilder<Sqlite> {
    // Both tables have these indexes, the archive those of lists of campaigns alone.
    let index = match (filter.person, filter.lead_id, filter.scope, filter.device_id) {
        _ if filter.enrolment_id.is_some() => "flow",
        (Some(_), ..) => "person",
        (None, Some(_), ..) => "lead",
        (None, None, Some(MessageScope::Campaign(_)), _) => "scope",
        (None, None, Some(MessageScope::Sequence(_)), _) => "sequence",
        (None, None, _, Some(_)) => "device",
        _ => "user",
    };
    let (from, join) = match source {
        Source::Live => (
            message!("FROM messages m INDEXED BY messages_"),
            " LEFT JOIN attempts a ON a.id = m.attempt_id",
        ),
        Source::Archive => (
            message!("FROM archived_messages m INDEXED BY archived_messages_"),
            " LEFT JOIN archived_attempts a ON a.message_id = m.id AND a.id = m.attempt_id",
        ),
    };
    let mut sql = QueryBuilder::new(from);
    sql.push(index)
        .push(join)
        .push(" WHERE m.user_id = ")
        .push_bind(blob(&scope.user_id).to_vec());
    if let Some(after) = &page.after {
        sql.push(" AND m.id > ").push_bind(blob(after).to_vec());
    }
    if let Some(person) = &filter.person {
        sql.push(" AND m.person = ").push_bind(blob(person).to_vec());
    }
    if let Some(lead) = &filter.lead_id {
        sql.push(" AND m.lead_id = ").push_bind(blob(lead).to_vec());
    }
    match &filter.scope {
        Some(MessageScope::Sequence(id)) => {
            sql.push(" AND m.scope_kind = 2 AND m.scope_id = ")
                .push_bind(blob(id).to_vec());
        }
        Some(MessageScope::Campaign(id)) => {
            sql.push(" AND m.scope_kind = 1 AND m.scope_id = ")
                .push_bind(blob(id).to_vec());
        }
        Some(scope) => {
            sql.push(" AND m.scope_kind = ").push_bind(scope.kind());
        }
        None => {}
    }
    if let Some(enrolment) = &filter.enrolment_id {
        sql.push(" AND m.enrolment_id = ").push_bind(blob(enrolment).to_vec());
    }
    if let Some(step) = &filter.step_id {
        sql.push(" AND m.step_id = ").push_bind(blob(step).to_vec());
    }
    if let Some(device) = &filter.device_id {
        sql.push(" AND m.device_id = ").push_bind(blob(device).to_vec());
    }
    if let Some(devices) = device_list(scope) {
        sql.push(" AND m.device_id IN (SELECT unhex(value) FROM json_each(")
            .push_bind(devices)
            .push("))");
    }
    if !filter.states.is_empty() {
        let states = number_list(filter.states.iter().map(|state| *state as u8));
        sql.push(" AND m.state IN (SELECT value FROM json_each(")
            .push_bind(states)
            .push("))");
    }
    if !filter.with_superseded {
        sql.push(" AND m.superseded = 0");
    }
    sql.push(" ORDER BY m.id LIMIT ")
        .push_bind(int(page.clamped() as u64 + 1));
    sql
}

impl SqliteStore {
    async fn find_message(&self, scope: &RequestScope, id: MessageId) -> Done<Message> {
        let mut reader = self.reader().await?;
        // In this order, which is that in which it may go from the one to the other.
        for sql in [VISIBLE, archive::VISIBLE] {
            let row = sqlx::query(sql)
                .bind(blob(&id).to_vec())
                .bind(blob(&scope.user_id).to_vec())
                .bind(device_list(scope))
                .fetch_optional(&mut *reader)
                .await?;
            if let Some(row) = row {
                return read_message(&mut Columns::of(&row));
            }
        }
        Err(Fail::not_found("message"))
    }

    pub(crate) async fn read_rows<T>(
        &self,
        statement: Bound<'_>,
        read: impl Fn(&mut Columns<'_>) -> Done<T>,
    ) -> Done<Vec<T>> {
        let mut reader = self.reader().await?;
        read_all(&statement.fetch_all(&mut *reader).await?, read)
    }

    /// A campaign's and a sequence's numbers are those of its user's; the other scopes are the user's own.
    async fn check_scope(&self, scope: &RequestScope, of: MessageScope) -> Done<()> {
        if let MessageScope::Sequence(id) = of {
            let mut reader = self.reader().await?;
            return check_sequence(&mut reader, scope.user_id, id).await;
        }
        let MessageScope::Campaign(id) = of else { return Ok(()) };
        let statement = sqlx::query(CAMPAIGN_OF_USER)
            .bind(blob(&id).to_vec())
            .bind(blob(&scope.user_id).to_vec());
        let found = self.read_rows(statement, |c| c.int()).await?;
        found.first().map(|_| ()).ok_or(Fail::not_found("campaign"))
    }

    async fn read_tallies(&self, scope: &RequestScope, of: MessageScope) -> Done<Vec<DeviceNumbers>> {
        self.check_scope(scope, of).await?;
        let statement = sqlx::query(NUMBERS)
            .bind(blob(&scope.user_id).to_vec())
            .bind(of.kind())
            .bind(of.id_bytes(&scope.user_id).to_vec())
            .bind(device_list(scope));
        self.read_rows(statement, read_numbers).await
    }

    async fn count_rows(
        &self,
        scope: &RequestScope,
        of: MessageScope,
        within: Option<&Range<Timestamp>>,
    ) -> Done<Vec<DeviceNumbers>> {
        let (from, until) = within.map_or((i64::MIN, i64::MAX), |within| {
            (within.start.as_millis(), within.end.as_millis())
        });
        self.check_scope(scope, of).await?;
        let user = blob(&scope.user_id).to_vec();
        let statement = match of {
            MessageScope::Campaign(id) => sqlx::query(COUNT_CAMPAIGN).bind(user).bind(blob(&id).to_vec()),
            MessageScope::Sequence(id) => sqlx::query(COUNT_SEQUENCE).bind(user).bind(blob(&id).to_vec()),
            _ => sqlx::query(COUNT_OTHER).bind(user).bind(of.kind()),
        };
        let rows = self
            .read_rows(statement.bind(device_list(scope)).bind(from).bind(until), |c| {
                let device = c.opt_key::<DeviceId>("device_id")?;
                let state = c.kind("state", MessageState::from_u8)?;
                Ok((device, state, c.opt_kind("delivery", Delivery::from_u8)?, c.count()?))
            })
            .await?;
        let mut counted: BTreeMap<Option<DeviceId>, Numbers> = BTreeMap::new();
        for (device_id, state, delivery, count) in rows {
            let mut one = Numbers::default();
            one.count(state, delivery);
            *counted.entry(device_id).or_default() += times(one, count);
        }
        let counted = counted.into_iter();
        Ok(counted
            .map(|(device_id, numbers)| DeviceNumbers { device_id, numbers })
            .collect())
    }

    async fn sum_of_device(&self, scope: &RequestScope, device: DeviceId) -> Done<Numbers> {
        let (id, user) = (blob(&device).to_vec(), blob(&scope.user_id).to_vec());
        let statement = sqlx::query(DEVICE_OF_USER).bind(id.clone()).bind(user.clone());
        let found = self.read_rows(statement, |c| c.int()).await?;
        if found.is_empty() || !scope.sees(device) {
            return Err(Fail::not_found("device"));
        }
        let statement = sqlx::query(DEVICE_NUMBERS).bind(id).bind(user);
        let rows = self.read_rows(statement, read_numbers).await?;
        Ok(rows.into_iter().map(|row| row.numbers).sum())
    }

    async fn read_history(&self, devices: &[DeviceId], since: Timestamp) -> Done<Vec<LaneHistory>> {
        let list = hex_list(devices);
        let mut reader = self.reader().await?;
        let mut lanes: Vec<LaneHistory> = devices
            .iter()
            .map(|device_id| LaneHistory {
                device_id: *device_id,
                attempts: Vec::new(),
                last_attempt_at: None,
                first_attempt_at: None,
            })
            .collect();
        let statement = sqlx::query(HISTORY).bind(list.clone()).bind(since.as_millis());
        for row in statement.fetch_all(&mut *reader).await? {
            let mut c = Columns::of(&row);
            let at: usize = c.small("place")?;
            lanes[at].attempts.push(c.at()?);
        }
        for row in sqlx::query(ENDS).bind(list.clone()).fetch_all(&mut *reader).await? {
            let mut c = Columns::of(&row);
            let at: usize = c.small("place")?;
            lanes[at].last_attempt_at = c.opt_at()?;
            lanes[at].first_attempt_at = c.opt_at()?;
        }
        for row in sqlx::query(archive::PASTS).bind(list).fetch_all(&mut *reader).await? {
            let mut c = Columns::of(&row);
            let at: usize = c.small("place")?;
            let lane = &mut lanes[at];
            let (first, last) = (c.opt_at()?, c.opt_at()?);
            lane.first_attempt_at = lane.first_attempt_at.into_iter().chain(first).min();
            lane.last_attempt_at = lane.last_attempt_at.max(last);
        }
        Ok(lanes)
    }
}

/// The numbers of so many messages that count alike.
pub(crate) fn times(one: Numbers, count: u64) -> Numbers {
    Numbers {
        done: one.done * count,
        failed: one.failed * count,
        skipped: one.skipped * count,
        unknown: one.unknown * count,
        cancelled: one.cancelled * count,
        remaining: one.remaining * count,
        delivered: one.delivered * count,
        undelivered: one.undelivered * count,
        read: one.read * count,
        replied: one.replied * count,
    }
}

/// How far back a device's load reaches.
const HOUR: std::time::Duration = std::time::Duration::from_secs(3_600);

const fn op(class: WriteClass, operation: &'static str) -> Op {
    Op(class, operation, "message")
}

fn failed(operation: &'static str) -> impl FnOnce(Fail) -> StoreError {
    move |fail| fail.of(operation, "message")
}

#[async_trait]
impl OutboxStore for SqliteStore {
    async fn due(&self, due: &Due) -> Result<Vec<LaneDue>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            self::due(&mut reader, due).await
        };
        read.await.map_err(failed("due"))
    }

    async fn begin(&self, begin: &Begin) -> Result<Vec<Begun>, StoreError> {
        let begin = begin.clone();
        self.write(op(WriteClass::Begin, "begin"), move |connection| {
            Box::pin(async move { begin::begin(connection, &begin).await })
        })
        .await
    }

    async fn settle(&self, settle: &Settle) -> Result<Vec<Settled>, StoreError> {
        let settle = settle.clone();
        self.write(op(WriteClass::Settle, "settle"), move |connection| {
            Box::pin(async move { settle::settle(connection, &settle).await })
        })
        .await
    }

    async fn decline(&self, items: &[Decline], now: Timestamp) -> Result<u64, StoreError> {
        let items = items.to_vec();
        self.write(op(WriteClass::Begin, "decline"), move |connection| {
            Box::pin(async move { begin::decline(connection, &items, now).await })
        })
        .await
    }

    async fn sending(&self, incarnation: Incarnation) -> Result<Vec<SendingRow>, StoreError> {
        let statement = sqlx::query(SENDING).bind(blob(&incarnation).to_vec());
        let rows = self.read_rows(statement, |c| {
            Ok(SendingRow {
                user_id: c.key("user_id")?,
                device_id: c.key("device_id")?,
                epoch: Epoch(c.int()?),
                message_id: c.key("id")?,
                attempt_id: c.key("attempt_id")?,
            })
        });
        rows.await.map_err(failed("sending"))
    }

    async fn doubts(&self, incarnation: Incarnation, now: Timestamp, limit: u32) -> Result<Vec<Message>, StoreError> {
        let statement = sqlx::query(DOUBTS)
            .bind(blob(&incarnation).to_vec())
            .bind(now.as_millis())
            .bind(limit);
        self.read_rows(statement, read_message).await.map_err(failed("doubts"))
    }

    async fn sweep(&self, limit: u32, now: Timestamp) -> Result<Swept, StoreError> {
        self.write(op(WriteClass::Bulk, "sweep"), move |connection| {
            Box::pin(sweep::sweep(connection, limit, now))
        })
        .await
    }

    async fn expire(&self, limit: u32, now: Timestamp) -> Result<Expired, StoreError> {
        // Mostly nothing has: then nobody has to wait for a write.
        let next = async {
            let mut reader = self.reader().await?;
            sweep::next_expiry(&mut reader).await
        };
        let next_at = next.await.map_err(failed("expire"))?;
        if next_at.is_none_or(|at| at > now) {
            return Ok(Expired {
                next_at,
                ..Expired::default()
            });
        }
        self.write(op(WriteClass::Bulk, "expire"), move |connection| {
            Box::pin(sweep::expire(connection, limit, now))
        })
        .await
    }

    async fn archive(&self, limit: u32, ended_before: Timestamp, now: Timestamp) -> Result<Archived, StoreError> {
        self.write(op(WriteClass::Bulk, "archive"), move |connection| {
            Box::pin(archive::archive(connection, limit, ended_before, now))
        })
        .await
    }

    async fn pool(&self, incarnation: Incarnation, now: Timestamp, limit: u32) -> Result<Vec<PoolMessage>, StoreError> {
        let statement = sqlx::query(POOL)
            .bind(blob(&incarnation).to_vec())
            .bind(now.as_millis())
            .bind(limit);
        let rows = self.read_rows(statement, |c| {
            Ok(PoolMessage {
                message_id: c.key("id")?,
                user_id: c.key("user_id")?,
                scope: crate::live::read_scope(c)?,
                lead_device: c.opt_key("lead.device_id")?,
                sticky: c.opt_key("sticky")?,
                person: c.key("person")?,
            })
        });
        rows.await.map_err(failed("pool"))
    }

    async fn assign(&self, items: &[Assignment], _now: Timestamp) -> Result<u64, StoreError> {
        let items = items.to_vec();
        self.write(op(WriteClass::Api, "assign"), move |connection| {
            Box::pin(async move { sweep::assign(connection, &items).await })
        })
        .await
    }

    async fn leave_over(&self, items: &[LeftOver], now: Timestamp) -> Result<u64, StoreError> {
        let items = items.to_vec();
        self.write(op(WriteClass::Bulk, "leave_over"), move |connection| {
            Box::pin(async move { pool::leave_over(connection, &items, now).await })
        })
        .await
    }

    async fn unassign(&self, user: UserId, device: DeviceId) -> Result<u64, StoreError> {
        self.write(op(WriteClass::Api, "unassign"), move |connection| {
            Box::pin(sweep::unassign(connection, user, device))
        })
        .await
    }

    async fn loads(&self, user: UserId, now: Timestamp) -> Result<Vec<DeviceLoad>, StoreError> {
        let statement = sqlx::query(LOADS)
            .bind(blob(&user).to_vec())
            .bind((now - HOUR).as_millis())
            .bind(DeviceLoad::QUEUED_MAX);
        let rows = self.read_rows(statement, |c| {
            Ok(DeviceLoad {
                device_id: c.key("id")?,
                sent_this_hour: c.small("sent_this_hour")?,
                in_flight: c.small("in_flight")?,
                topped_up: c.small("topped_up")?,
            })
        });
        rows.await.map_err(failed("loads"))
    }

    async fn history(&self, devices: &[DeviceId], since: Timestamp) -> Result<Vec<LaneHistory>, StoreError> {
        self.read_history(devices, since).await.map_err(failed("history"))
    }

    async fn recent(&self, scope: RecentOf, since: Timestamp, limit: u32) -> Result<RecentOutcomes, StoreError> {
        let statement = match scope {
            RecentOf::Campaign(id) => sqlx::query(RECENT_OF_CAMPAIGN).bind(blob(&id).to_vec()),
            RecentOf::Sequence(id) => sqlx::query(RECENT_OF_SEQUENCE).bind(blob(&id).to_vec()),
            RecentOf::Device(id) => sqlx::query(RECENT_OF_DEVICE).bind(blob(&id).to_vec()),
        };
        let statement = statement.bind(since.as_millis()).bind(limit);
        let rows = self.read_rows(statement, |c| {
            Ok(RecentOutcomes {
                settled: c.small("settled")?,
                bad: c.small("bad")?,
            })
        });
        let rows = rows.await.map_err(failed("recent"))?;
        Ok(rows.first().copied().unwrap_or_default())
    }

    async fn message(&self, scope: &RequestScope, id: MessageId) -> Result<Message, StoreError> {
        self.find_message(scope, id).await.map_err(failed("message"))
    }

    async fn messages(
        &self,
        scope: &RequestScope,
        filter: &MessageFilter,
        page: &PageRequest<MessageId>,
    ) -> Result<Page<Message, MessageId>, StoreError> {
        let mut rows = BTreeMap::new();
        // What goes to the archive meanwhile is found in both.
        for source in Source::of(filter) {
            let mut statement = page_statement(*source, scope, filter, page);
            let read = self.read_rows(statement.build(), read_message).await;
            let read = read.map_err(failed("messages"))?;
            rows.extend(read.into_iter().map(|message| (message.id, message)));
        }
        let rows = rows.into_values().collect();
        Ok(Page::cut(rows, page.clamped(), |message: &Message| message.id))
    }

    async fn newest_of_leads(&self, scope: &RequestScope, leads: &[LeadId]) -> Result<Vec<Message>, StoreError> {
        let mut newest: BTreeMap<Option<LeadId>, Message> = BTreeMap::new();
        for sql in [NEWEST_OF_LEADS, archive::NEWEST_OF_LEADS] {
            let statement = sqlx::query(sql)
                .bind(hex_list(leads))
                .bind(blob(&scope.user_id).to_vec())
                .bind(device_list(scope));
            let rows = self.read_rows(statement, read_message).await;
            for message in rows.map_err(failed("newest_of_leads"))? {
                let other = newest.get(&message.lead_id);
                if other.is_none_or(|other| other.id < message.id) {
                    newest.insert(message.lead_id, message);
                }
            }
        }
        Ok(newest.into_values().collect())
    }

    async fn attempts(&self, scope: &RequestScope, id: MessageId) -> Result<Vec<Attempt>, StoreError> {
        let read = async {
            let message = self.find_message(scope, id).await?;
            let mut attempts = Vec::new();
            for sql in [ATTEMPTS, archive::ATTEMPTS] {
                if attempts.is_empty() && message.attempt.is_some() {
                    let statement = sqlx::query(sql).bind(blob(&id).to_vec());
                    attempts = self.read_rows(statement, read_attempt).await?;
                }
            }
            Ok(attempts)
        };
        read.await.map_err(failed("attempts"))
    }

    async fn numbers(&self, scope: &RequestScope, of: MessageScope) -> Result<Vec<DeviceNumbers>, StoreError> {
        self.read_tallies(scope, of).await.map_err(failed("numbers"))
    }

    async fn device_numbers(&self, scope: &RequestScope, device: DeviceId) -> Result<Numbers, StoreError> {
        self.sum_of_device(scope, device)
            .await
            .map_err(failed("device_numbers"))
    }

    async fn count(&self, scope: &RequestScope, of: MessageScope) -> Result<Vec<DeviceNumbers>, StoreError> {
        self.count_rows(scope, of, None).await.map_err(failed("count"))
    }

    async fn count_within(
        &self,
        scope: &RequestScope,
        of: MessageScope,
        within: &Range<Timestamp>,
    ) -> Result<Vec<DeviceNumbers>, StoreError> {
        let counted = self.count_rows(scope, of, Some(within)).await;
        counted.map_err(failed("count_within"))
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let rows = self.read_rows(sqlx::query(BACKLOG), |c| {
            let (queued, oldest_due_at) = (c.count()?, c.opt_at()?);
            Ok(Backlog {
                queued,
                oldest_due_at,
                held: c.count()?,
                sending: c.count()?,
                in_doubt: c.count()?,
            })
        });
        let rows = rows.await.map_err(failed("backlog"))?;
        Ok(rows.first().copied().unwrap_or_default())
    }
}
