//! The outbox: what lanes and people read of it, and the sub-trait.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;
use wa_core::domain::access::RequestScope;
use wa_core::domain::content::MergeValues;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::Epoch;
use wa_core::domain::message::{Attempt, Message, MessageScope, MessageState};
use wa_core::domain::summary::{DeviceNumbers, Numbers};
use wa_core::id::{CampaignId, DeviceId, Incarnation, LeadId, MessageId, UserId};
use wa_core::store::{
    Archived, Assignment, Backlog, Begin, Begun, Decline, DeviceLoad, Due, DueFlow, DueMessage, Expired, LaneDue,
    LaneHistory, LaneLook, LeftOver, MessageFilter, OutboxStore, Page, PageRequest, PoolMessage, RecentOf,
    RecentOutcomes, SendingRow, Settle, Settled, StoreError, Swept, WriteClass,
};
use wa_core::time::Timestamp;

use crate::archive::Source;
use crate::connections::Line;
use crate::error::{Done, Fail};
use crate::insert::{Bound, gather, query};
use crate::lock::Mode;
use crate::message_row::{message, read_attempt, read_flow, read_message, read_opt_phone};
use crate::places::{pool_device, sent_by};
use crate::row::{Columns, device_list, int, keys, number_list, read_all, uuid};
use crate::sequences::check_sequence;
use crate::{Op, PostgresStore, archive, begin, pool, settle, sweep};

/// `due`: the head of every group (priority, campaign) of each lane: one seek of the queue per group, from the last group to the
/// next.
pub(crate) const HEADS: &str = "
    WITH RECURSIVE head AS (
        SELECT lane.n, lane.device_id, first.* FROM (
            SELECT j.n, j.device_id FROM unnest($1::uuid[], $2::uuid[]) WITH ORDINALITY AS j (user_id, device_id, n)
            JOIN devices d ON d.id = j.device_id AND d.user_id = j.user_id
        ) AS lane CROSS JOIN LATERAL (
            SELECT q.priority, q.scope_id, q.due_at, q.message_id FROM queue q WHERE q.device_id = lane.device_id
            ORDER BY q.priority, q.scope_id, q.due_at, q.message_id LIMIT 1
        ) AS first
        UNION ALL
        SELECT head.n, head.device_id, next.* FROM head CROSS JOIN LATERAL (
            SELECT q.priority, q.scope_id, q.due_at, q.message_id FROM queue q
            WHERE q.device_id = head.device_id AND (q.priority, q.scope_id) > (head.priority, head.scope_id)
            ORDER BY q.priority, q.scope_id, q.due_at, q.message_id LIMIT 1
        ) AS next
    )
    SELECT n, message_id, priority, scope_id, due_at FROM head";
/// `due`: the chosen heads, by the primary key, with what their texts are merged with: that of the lead, by the primary key, or
/// their own; the greeting before each, by `messages_person`. OFFSET makes Postgres look for each lead and attempt: a plan that was made
/// while there was none goes through all of them for each message.
pub(crate) const CHOSEN: &str = "
    SELECT j.key, m.id, m.scope_kind, m.scope_id, m.round, m.phone, m.content, m.delay, m.expires_at,
        CASE WHEN m.lead_id IS NULL THEN m.name ELSE l.name END, coalesce(l.niches_spelled, l.niches),
        CASE WHEN m.lead_id IS NULL THEN m.custom ELSE l.custom END,
        (
            SELECT pa.greeting FROM messages p CROSS JOIN LATERAL (
                SELECT a.greeting, a.attempted_at FROM attempts a WHERE a.id = p.attempt_id OFFSET 0
            ) AS pa
            WHERE uuid_hash_extended(p.person, 0) = uuid_hash_extended(m.person, 0) AND p.person = m.person
                AND p.user_id = m.user_id AND p.attempt_id IS NOT NULL
            ORDER BY pa.attempted_at DESC, p.id DESC LIMIT 1
        ),
        m.enrolment_id, m.step_id, m.steps_version, m.name, m.due_at
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN messages m ON m.id = j.value
        LEFT JOIN LATERAL (
            SELECT x.name, x.niches, x.niches_spelled, x.custom FROM leads x
            WHERE x.id = m.lead_id AND x.user_id = m.user_id OFFSET 0
        ) AS l ON true
    WHERE m.state = 1";
/// `sending`: by `devices_owner` and the primary keys. What a lane names is compared by IS NOT DISTINCT, for which no index serves.
pub(crate) const SENDING: &str = "
    SELECT m.user_id, m.device_id, m.epoch, m.id, m.attempt_id
    FROM devices d JOIN lanes l ON l.device_id = d.id JOIN messages m ON m.id = l.message_id
    WHERE d.owner = $1 AND m.state = 3 AND m.device_id IS NOT DISTINCT FROM l.device_id ORDER BY m.id LIMIT 10000";
/// `doubts`: by `devices_owner` and `parked_device`; those of paused scopes wait. OFFSET makes Postgres look for each device.
pub(crate) const DOUBTS: &str = concat!(
    message!(
        "FROM devices d
        CROSS JOIN LATERAL (
            SELECT p.message_id FROM parked p WHERE p.device_id = d.id AND p.state = 4 AND p.next_check_at <= $2 OFFSET 0
        ) AS w
        JOIN messages m ON m.id = w.message_id
        LEFT JOIN attempts a ON a.id = m.attempt_id
        WHERE d.owner = $1
            AND (m.scope_kind <> 1 OR (SELECT c.status NOT IN (1, 2, 4) FROM campaigns c WHERE c.id = m.scope_id))
            AND coalesce((SELECT "
    ),
    crate::flows::gate!("m.step_id"),
    " <> 2 FROM enrolments fe JOIN sequences fq ON fq.id = fe.sequence_id WHERE fe.id = m.enrolment_id), true)
    ORDER BY m.next_check_at, m.id LIMIT $3"
);
/// `pool`: the running campaigns by `campaigns_running`, the sequences by `sequences_active`, of each its oldest by the queue; the
/// users by the unique index of user and id of devices.
pub(crate) const POOL: &str = concat!(
    "SELECT m.id, m.user_id, m.scope_kind, m.scope_id, (SELECT l.device_id FROM leads l WHERE l.id = m.lead_id),
        (SELECT e.device_id FROM enrolments e WHERE e.id = m.enrolment_id), m.person
    FROM (
        SELECT w.* FROM campaigns c CROSS JOIN LATERAL (
            SELECT q.message_id, q.due_at FROM queue q
            WHERE q.device_id = ",
    pool_device!(),
    " AND q.priority = 2 AND q.scope_id = c.id AND q.due_at <= $2 ORDER BY q.due_at, q.message_id LIMIT $3
        ) AS w
        WHERE c.status = 3
            AND EXISTS (SELECT 1 FROM devices d WHERE d.user_id = c.user_id AND d.owner = $1 AND d.deleted_at IS NULL)
        UNION ALL
        SELECT w.* FROM sequences s CROSS JOIN LATERAL (
            SELECT q.message_id, q.due_at FROM queue q
            WHERE q.device_id = ",
    pool_device!(),
    " AND q.priority = 1 AND q.scope_id = s.id AND q.due_at <= $2 ORDER BY q.due_at, q.message_id LIMIT $3
        ) AS w
        WHERE s.status = 2 AND s.deleted_at IS NULL
            AND EXISTS (SELECT 1 FROM devices d WHERE d.user_id = s.user_id AND d.owner = $1 AND d.deleted_at IS NULL)
    ) AS p JOIN messages m ON m.id = p.message_id ORDER BY p.due_at, m.id"
);
/// `loads`: by the unique index of user and id of devices, `attempts_device`, the queue, the lanes and `queue_topped_up`.
pub(crate) const LOADS: &str = concat!(
    "SELECT d.id,
        (SELECT count(*) FROM attempts a
            JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
            WHERE a.device_id = d.id AND a.attempted_at >= $2 AND m.state IN (3, 4, 5, 7)),
        (SELECT count(*) FROM (SELECT true FROM queue q WHERE q.device_id = d.id LIMIT $3) AS w)
        + CASE WHEN ",
    sent_by!("d.id"),
    " IS NULL THEN 0 ELSE 1 END,
        (SELECT count(*) FROM (
            SELECT true FROM queue q WHERE q.device_id = d.id AND q.from_pool AND q.device_id <> ",
    pool_device!(),
    " LIMIT $3
        ) AS w)
    FROM devices d WHERE d.user_id = $1 AND d.deleted_at IS NULL ORDER BY d.id"
);
/// `history`: newest attempts that were or may have been sent, by `attempts_device`.
pub(crate) const HISTORY: &str = "
    SELECT j.key, a.attempted_at
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key)
    JOIN attempts a ON a.device_id = j.value AND a.attempted_at >= $2
    JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
    WHERE m.state IN (3, 4, 5, 7) ORDER BY j.key, a.attempted_at";
/// `history`: the newest start of each device, and its first that was or may have been sent, by `attempts_device`.
pub(crate) const ENDS: &str = "
    SELECT j.key, (
        SELECT a.attempted_at FROM attempts a WHERE a.device_id = j.value
        ORDER BY a.attempted_at DESC LIMIT 1
    ), (
        SELECT a.attempted_at FROM attempts a
        JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
        WHERE a.device_id = j.value AND m.state IN (3, 4, 5, 7) ORDER BY a.attempted_at LIMIT 1
    ) FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key)";
/// `recent` of a campaign or sequence, by `outcomes_scope`: rows are taken until the messages before them are as many as asked for.
pub(crate) const RECENT_OF_SCOPE: &str = "
    SELECT count(*), count(*) FILTER (WHERE m.state IN (6, 7)) FROM (
        SELECT u.id FROM (
            SELECT n.message_id, n.message_ids, n.settled_at,
                sum(coalesce(cardinality(n.message_ids), 1)) OVER (
                    ORDER BY n.settled_at DESC GROUPS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
                ) AS before
            FROM (
                SELECT o.message_id, o.message_ids, o.settled_at FROM outcomes o WHERE o.scope_id = $1 AND o.settled_at >= $2
                ORDER BY o.settled_at DESC FETCH FIRST $3 ROWS WITH TIES
            ) AS n
        ) AS o CROSS JOIN LATERAL unnest(coalesce(o.message_ids, ARRAY[o.message_id])) AS u (id)
        WHERE coalesce(o.before, 0) < $3 ORDER BY o.settled_at DESC, u.id DESC LIMIT $3
    ) AS r JOIN messages m ON m.id = r.id";
/// `recent` of a device, by `attempts_device` and `outcomes_device`. A device sends one message after the other, so that those it attempted
/// last are those that it sent last, and hardly any took longer than a day. What came to something else, or was found out later, stands
/// among the outcomes with its device. A hundred more than asked for, because instants of several machines may be in disorder.
pub(crate) const RECENT_OF_DEVICE: &str = "
    SELECT count(*), count(*) FILTER (WHERE r.state IN (6, 7)) FROM (
        SELECT u.state FROM (
            SELECT DISTINCT ON (x.id) x.id, x.state, x.settled_at FROM (
                (SELECT m.id, m.state, m.settled_at, true AS attempted FROM attempts a
                CROSS JOIN LATERAL (
                    SELECT y.id, y.state, y.settled_at FROM messages y
                    WHERE y.id = a.message_id AND y.attempt_id = a.id AND y.state IN (5, 6, 7) AND y.settled_at >= $2
                        AND y.device_id = a.device_id OFFSET 0
                ) AS m
                WHERE a.device_id = $1 AND a.attempted_at >= $2 - 86400000
                ORDER BY a.attempted_at DESC LIMIT $3 + 100)
                UNION ALL
                (SELECT m.id, m.state, o.settled_at, false FROM (
                    SELECT z.message_id, z.settled_at FROM outcomes z WHERE z.device_id = $1 AND z.settled_at >= $2
                    ORDER BY z.settled_at DESC, z.message_id DESC LIMIT $3
                ) AS o JOIN messages m ON m.id = o.message_id)
            ) AS x ORDER BY x.id, x.attempted
        ) AS u ORDER BY u.settled_at DESC, u.id DESC LIMIT $3
    ) AS r";
/// `message`, by the unique index of ids.
pub(crate) const VISIBLE: &str = message!(
    "FROM messages m LEFT JOIN attempts a ON a.id = m.attempt_id WHERE m.id = $1 AND m.user_id = $2
    AND ($3::uuid[] IS NULL OR m.device_id = ANY ($3))"
);
/// `newest_of_leads`, by `messages_lead`.
pub(crate) const NEWEST_OF_LEADS: &str = message!(
    "FROM (SELECT DISTINCT u.value AS id FROM unnest($1::uuid[]) AS u (value)) AS i
    CROSS JOIN LATERAL (
        SELECT n.id FROM messages n
        WHERE n.lead_id = i.id AND n.scope_kind = 1 AND NOT n.superseded AND n.user_id = $2
            AND ($3::uuid[] IS NULL OR n.device_id = ANY ($3))
        ORDER BY n.id DESC LIMIT 1
    ) AS x
    JOIN messages m ON m.id = x.id
    LEFT JOIN attempts a ON a.id = m.attempt_id ORDER BY i.id"
);
/// `attempts`, by the primary keys: each names the one before it. Oldest first.
pub(crate) const ATTEMPTS: &str = "
    WITH RECURSIVE a AS (
        SELECT newest.id, newest.transport_message_id, m.provider_id, newest.device_id, newest.epoch, newest.text,
            newest.greeting, newest.attempted_at, newest.earlier_id
        FROM messages m JOIN attempts newest ON newest.id = m.attempt_id WHERE m.id = $1
        UNION ALL
        SELECT earlier.id, earlier.transport_message_id, earlier.provider_id, earlier.device_id, earlier.epoch, earlier.text,
            earlier.greeting, earlier.attempted_at, earlier.earlier_id
        FROM a JOIN attempts earlier ON earlier.id = a.earlier_id
    )
    SELECT id, transport_message_id, provider_id, device_id, epoch, text, greeting, attempted_at
    FROM a ORDER BY attempted_at, id";
/// `numbers`, by the primary key of tallies; the pool comes first.
pub(crate) const NUMBERS: &str = "
    SELECT device_id, done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied
    FROM tallies WHERE user_id = $1 AND scope_kind = $2 AND scope_id = $3
        AND done + failed + skipped + unknown + cancelled + remaining > 0
        AND ($4::uuid[] IS NULL OR device_id = ANY ($4))
    ORDER BY device_id";
/// `device_numbers`, by `tallies_device`.
pub(crate) const DEVICE_NUMBERS: &str = "
    SELECT device_id, done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied
    FROM tallies WHERE device_id = $1 AND user_id = $2";
pub(crate) const DEVICE_OF_USER: &str = "SELECT 1 FROM devices WHERE id = $1 AND user_id = $2";
pub(crate) const CAMPAIGN_OF_USER: &str = "SELECT 1 FROM campaigns WHERE id = $1 AND user_id = $2";
/// `count` and `count_within` of the rows that another statement finds: what was open at the end of the span counts as queued.
macro_rules! count {
    ($from:literal) => {
        concat!(
            "SELECT m.device_id, CASE WHEN m.settled_at < $5 THEN m.state ELSE 1 END AS state_then,
                m.delivery, count(*) ",
            $from,
            " AND NOT m.superseded AND m.created_at < $5 AND (m.settled_at IS NULL OR m.settled_at >= $4)
                AND ($3::uuid[] IS NULL OR m.device_id = ANY ($3))
            GROUP BY m.device_id, state_then, m.delivery"
        )
    };
}
/// `count` of a campaign, by `messages_scope` and `archived_messages_scope`.
pub(crate) const COUNT_CAMPAIGN: &str = concat!(
    count!("FROM messages m WHERE m.scope_kind = 1 AND m.user_id = $1 AND m.scope_id = $2"),
    " UNION ALL ",
    count!("FROM archived_messages m WHERE m.user_id = $1 AND m.scope_id = $2")
);
/// `count` of a sequence, by `messages_scope`.
pub(crate) const COUNT_SEQUENCE: &str =
    count!("FROM messages m WHERE m.scope_kind = 2 AND m.user_id = $1 AND m.scope_id = $2");
/// `count` of the other scopes, by `messages_user`.
pub(crate) const COUNT_OTHER: &str = count!("FROM messages m WHERE m.user_id = $1 AND m.scope_kind = $2");
/// `backlog`: walks the tables of open messages, never that of all.
pub(crate) const BACKLOG: &str = "
    SELECT q.queued, q.oldest,
        (SELECT count(*) FROM parked WHERE state = 2),
        (SELECT count(*) FROM lanes l WHERE
            (SELECT p.state = 3 AND p.device_id = l.device_id FROM messages p WHERE p.id = l.message_id)),
        (SELECT count(*) FROM parked WHERE state = 4)
    FROM (SELECT count(*) AS queued, min(due_at) AS oldest FROM queue) q";

/// The head of one group of a lane.
struct Head {
    id: MessageId,
    priority: i64,
    turn: CampaignId,
    due_at: Timestamp,
}

/// The priority of messages of sequences.
const SEQUENCES: i64 = 1;

/// Chooses what a lane may send next from the heads of its groups, in order of priority and campaign.
fn choose(look: &LaneLook, heads: &[Head], now: Timestamp) -> (Vec<MessageId>, Option<Timestamp>) {
    let mut chosen = Vec::new();
    let mut next_due_at: Option<Timestamp> = None;
    for group in heads.chunk_by(|a, b| a.priority == b.priority) {
        let mut due = group.iter().filter(|head| head.due_at <= now).peekable();
        let served = match group.first() {
            Some(head) if head.priority == SEQUENCES => look.served_sequence.map(|id| *id.as_bytes()),
            _ => look.served.map(|id| *id.as_bytes()),
        };
        let follows = |head: &&Head| served.is_none_or(|served| *head.turn.as_bytes() > served);
        let first = due.peek().map(|head| head.id);
        match due.find(follows).map(|head| head.id).or(first) {
            Some(id) => chosen.push(id),
            None => next_due_at = group.iter().map(|head| head.due_at).chain(next_due_at).min(),
        }
    }
    (chosen, next_due_at)
}

fn read_due(c: &mut Columns<'_>) -> Done<(usize, DueMessage)> {
    let (at, id, scope) = (c.place()?, c.key("id")?, crate::live::read_scope(c)?);
    let round = c.small("round")?;
    let phone = read_opt_phone(c)?;
    let (content, delay, expires_at) = (c.opt_json("content")?, c.opt_json("delay")?, c.at()?);
    let (name, niche): (Option<String>, Option<String>) = (c.opt_text()?, c.opt_text()?);
    let custom: Option<BTreeMap<String, String>> = c.opt_json("custom")?;
    let previous_greeting = c.opt_text()?;
    let (flow, own_name, due_at) = (read_flow(c)?, c.text()?, c.at()?);
    let message = DueMessage {
        id,
        scope,
        round,
        phone,
        content,
        delay,
        expires_at,
        // A message and a lead have a name, if only an empty one: it is missing where the lead is.
        values: name.map(|name| MergeValues {
            name,
            phone: phone.map(|phone| phone.as_e164().to_owned()).unwrap_or_default(),
            niche: niche.unwrap_or_default(),
            custom: custom.unwrap_or_default(),
        }),
        previous_greeting,
        flow: flow.map(|flow| DueFlow {
            flow,
            name: own_name,
            due_at,
        }),
    };
    Ok((at, message))
}

async fn due(connection: &mut impl Line, due: &Due) -> Done<Vec<LaneDue>> {
    if due.lanes.is_empty() {
        return Ok(Vec::new());
    }
    let lanes = gather(&due.lanes, |row, look| row.bind(&look.user_id).bind(&look.device_id));
    let mut heads: Vec<Vec<Head>> = due.lanes.iter().map(|_| Vec::new()).collect();
    for row in lanes.into_statement(HEADS).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        heads[c.place()?].push(Head {
            id: c.key("id")?,
            priority: c.int()?,
            turn: c.key("scope_id")?,
            due_at: c.at()?,
        });
    }
    for heads in &mut heads {
        heads.sort_unstable_by_key(|head| (head.priority, head.turn));
    }
    let mut answers = Vec::with_capacity(due.lanes.len());
    let mut wanted: Vec<MessageId> = Vec::new();
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
    let rows = query(CHOSEN).bind(keys(&wanted)).fetch_all(connection).await?;
    for (at, message) in read_all(&rows, read_due)? {
        found[at] = Some(message);
    }
    for (lane, message) in lane_of.into_iter().zip(found) {
        answers[lane].heads.extend(message);
    }
    Ok(answers)
}

fn read_numbers(c: &mut Columns<'_>) -> Done<DeviceNumbers> {
    Ok(DeviceNumbers {
        device_id: c.pool_key("device_id")?,
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

/// The statement of a page of messages, by id.
pub(crate) fn page_statement(
    source: Source,
    scope: &RequestScope,
    filter: &MessageFilter,
    page: &PageRequest<MessageId>,
) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(match source {
        Source::Live => message!("FROM messages m LEFT JOIN attempts a ON a.id = m.attempt_id WHERE m.user_id = "),
        Source::Archive => message!(
            "FROM archived_messages m LEFT JOIN archived_attempts a ON a.message_id = m.id AND a.id = m.attempt_id
            WHERE m.user_id = "
        ),
    });
    sql.push_bind(uuid(&scope.user_id));
    if let Some(after) = &page.after {
        sql.push(" AND m.id > ").push_bind(uuid(after));
    }
    if let Some(person) = &filter.person {
        if matches!(source, Source::Live) {
            sql.push(" AND uuid_hash_extended(m.person, 0) = uuid_hash_extended(");
            sql.push_bind(uuid(person)).push(", 0)");
        }
        sql.push(" AND m.person = ").push_bind(uuid(person));
    }
    if let Some(lead) = &filter.lead_id {
        sql.push(" AND m.lead_id = ").push_bind(uuid(lead));
    }
    match &filter.scope {
        Some(MessageScope::Sequence(id)) => {
            sql.push(" AND m.scope_kind = 2 AND m.scope_id = ").push_bind(uuid(id));
        }
        Some(MessageScope::Campaign(id)) => {
            sql.push(" AND m.scope_kind = 1 AND m.scope_id = ").push_bind(uuid(id));
        }
        Some(scope) => {
            sql.push(" AND m.scope_kind = ").push_bind(i64::from(scope.kind()));
        }
        None => {}
    }
    if let Some(enrolment) = &filter.enrolment_id {
        sql.push(" AND m.enrolment_id = ").push_bind(uuid(enrolment));
    }
    if let Some(step) = &filter.step_id {
        sql.push(" AND m.step_id = ").push_bind(uuid(step));
    }
    if let Some(device) = &filter.device_id {
        sql.push(" AND m.device_id = ").push_bind(uuid(device));
    }
    if let Some(devices) = device_list(scope) {
        sql.push(" AND m.device_id = ANY (").push_bind(devices).push(")");
    }
    if !filter.states.is_empty() {
        let states = number_list(filter.states.iter().map(|state| *state as u8));
        sql.push(" AND m.state = ANY (").push_bind(states).push(")");
    }
    if !filter.with_superseded {
        sql.push(" AND NOT m.superseded");
    }
    sql.push(" ORDER BY m.id LIMIT ")
        .push_bind(int(page.clamped() as u64 + 1));
    sql
}

impl PostgresStore {
    async fn find_message(&self, scope: &RequestScope, id: MessageId) -> Done<Message> {
        let mut reader = self.reader().await?;
        // In this order, which is that in which it may go from the one to the other.
        for sql in [VISIBLE, archive::VISIBLE] {
            let statement = query(sql).bind(&id).bind(&scope.user_id).bind(device_list(scope));
            if let Some(row) = statement.fetch_optional(&mut reader).await? {
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
        read_all(&statement.fetch_all(&mut reader).await?, read)
    }

    /// A campaign's and a sequence's numbers are those of its user's; the other scopes are the user's own.
    async fn check_scope(&self, scope: &RequestScope, of: MessageScope) -> Done<()> {
        if let MessageScope::Sequence(id) = of {
            let mut reader = self.reader().await?;
            return check_sequence(&mut reader, scope.user_id, id).await;
        }
        let MessageScope::Campaign(id) = of else { return Ok(()) };
        let statement = query(CAMPAIGN_OF_USER).bind(&id).bind(&scope.user_id);
        let found = self.read_rows(statement, |c| c.int()).await?;
        found.first().map(|_| ()).ok_or(Fail::not_found("campaign"))
    }

    async fn read_tallies(&self, scope: &RequestScope, of: MessageScope) -> Done<Vec<DeviceNumbers>> {
        self.check_scope(scope, of).await?;
        let statement = query(NUMBERS)
            .bind(&scope.user_id)
            .bind(of.kind())
            .bind(Uuid::from_bytes(of.id_bytes(&scope.user_id)))
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
        let user = &scope.user_id;
        let statement = match of {
            MessageScope::Campaign(id) => query(COUNT_CAMPAIGN).bind(user).bind(&id),
            MessageScope::Sequence(id) => query(COUNT_SEQUENCE).bind(user).bind(&id),
            _ => query(COUNT_OTHER).bind(user).bind(of.kind()),
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
        let (id, user) = (&device, &scope.user_id);
        let statement = query(DEVICE_OF_USER).bind(id).bind(user);
        let found = self.read_rows(statement, |c| c.int()).await?;
        if found.is_empty() || !scope.sees(device) {
            return Err(Fail::not_found("device"));
        }
        let statement = query(DEVICE_NUMBERS).bind(id).bind(user);
        let rows = self.read_rows(statement, read_numbers).await?;
        Ok(rows.into_iter().map(|row| row.numbers).sum())
    }

    async fn read_history(&self, devices: &[DeviceId], since: Timestamp) -> Done<Vec<LaneHistory>> {
        let list = keys(devices);
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
        let statement = query(HISTORY).bind(list.clone()).bind(since.as_millis());
        for row in statement.fetch_all(&mut reader).await? {
            let mut c = Columns::of(&row);
            let at: usize = c.place()?;
            lanes[at].attempts.push(c.at()?);
        }
        for row in query(ENDS).bind(list).fetch_all(&mut reader).await? {
            let mut c = Columns::of(&row);
            let at: usize = c.place()?;
            lanes[at].last_attempt_at = c.opt_at()?;
            lanes[at].first_attempt_at = c.opt_at()?;
        }
        for row in query(archive::PASTS).bind(keys(devices)).fetch_all(&mut reader).await? {
            let mut c = Columns::of(&row);
            let at: usize = c.place()?;
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
impl OutboxStore for PostgresStore {
    async fn due(&self, due: &Due) -> Result<Vec<LaneDue>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            self::due(&mut reader, due).await
        };
        read.await.map_err(failed("due"))
    }

    async fn begin(&self, begin: &Begin) -> Result<Vec<Begun>, StoreError> {
        let (space, begin) = (self.space(), Arc::new(begin.clone()));
        let attempts = crate::row::count(begin.items.len());
        let begun = self
            .write_shared(op(WriteClass::Begin, "begin"), Mode::Shared, move |connection, mode| {
                let begin = begin.clone();
                Box::pin(async move { begin::begin(connection, space, &begin, mode).await })
            })
            .await?;
        self.wrote(attempts);
        Ok(begun)
    }

    async fn settle(&self, settle: &Settle) -> Result<Vec<Settled>, StoreError> {
        let (space, mode) = (self.space(), settle::mode_of(settle));
        let settle = Arc::new(settle.clone());
        self.write_shared(op(WriteClass::Settle, "settle"), mode, move |connection, mode| {
            let settle = settle.clone();
            Box::pin(async move { settle::settle(connection, space, &settle, mode).await })
        })
        .await
    }

    async fn decline(&self, items: &[Decline], now: Timestamp) -> Result<u64, StoreError> {
        let (space, items) = (self.space(), Arc::new(items.to_vec()));
        self.write_shared(
            op(WriteClass::Begin, "decline"),
            Mode::Shared,
            move |connection, mode| {
                let items = items.clone();
                Box::pin(async move { begin::decline(connection, space, &items, mode, now).await })
            },
        )
        .await
    }

    async fn sending(&self, incarnation: Incarnation) -> Result<Vec<SendingRow>, StoreError> {
        let statement = query(SENDING).bind(&incarnation);
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
        let statement = query(DOUBTS).bind(&incarnation).bind(now.as_millis()).bind(limit);
        self.read_rows(statement, read_message).await.map_err(failed("doubts"))
    }

    async fn sweep(&self, limit: u32, now: Timestamp) -> Result<Swept, StoreError> {
        let space = self.space();
        let swept = self
            .write(op(WriteClass::Bulk, "sweep"), move |connection| {
                Box::pin(sweep::sweep(connection, space, limit, now))
            })
            .await?;
        self.tell(&swept.wake);
        Ok(swept)
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
        let space = self.space();
        self.write(op(WriteClass::Bulk, "expire"), move |connection| {
            Box::pin(sweep::expire(connection, space, limit, now))
        })
        .await
    }

    async fn archive(&self, limit: u32, ended_before: Timestamp, now: Timestamp) -> Result<Archived, StoreError> {
        let space = self.space();
        self.write(op(WriteClass::Bulk, "archive"), move |connection| {
            Box::pin(archive::archive(connection, space, limit, ended_before, now))
        })
        .await
    }

    async fn pool(&self, incarnation: Incarnation, now: Timestamp, limit: u32) -> Result<Vec<PoolMessage>, StoreError> {
        let statement = query(POOL).bind(&incarnation).bind(now.as_millis()).bind(limit);
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
        let (space, items) = (self.space(), items.to_vec());
        self.write(op(WriteClass::Api, "assign"), move |connection| {
            let items = items.clone();
            Box::pin(async move { sweep::assign(connection, space, &items).await })
        })
        .await
    }

    async fn leave_over(&self, items: &[LeftOver], now: Timestamp) -> Result<u64, StoreError> {
        let (space, items) = (self.space(), items.to_vec());
        self.write(op(WriteClass::Bulk, "leave_over"), move |connection| {
            let items = items.clone();
            Box::pin(async move { pool::leave_over(connection, space, &items, now).await })
        })
        .await
    }

    async fn unassign(&self, user: UserId, device: DeviceId) -> Result<u64, StoreError> {
        let space = self.space();
        self.write(op(WriteClass::Api, "unassign"), move |connection| {
            Box::pin(sweep::unassign(connection, space, user, device))
        })
        .await
    }

    async fn loads(&self, user: UserId, now: Timestamp) -> Result<Vec<DeviceLoad>, StoreError> {
        let statement = query(LOADS)
            .bind(&user)
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
            RecentOf::Campaign(id) => query(RECENT_OF_SCOPE).bind(&id),
            RecentOf::Sequence(id) => query(RECENT_OF_SCOPE).bind(&id),
            RecentOf::Device(id) => query(RECENT_OF_DEVICE).bind(&id),
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
            let read = self.read_rows(Bound::of(statement.build()), read_message).await;
            let read = read.map_err(failed("messages"))?;
            rows.extend(read.into_iter().map(|message| (message.id, message)));
        }
        let rows = rows.into_values().collect();
        Ok(Page::cut(rows, page.clamped(), |message: &Message| message.id))
    }

    async fn newest_of_leads(&self, scope: &RequestScope, leads: &[LeadId]) -> Result<Vec<Message>, StoreError> {
        let mut newest: BTreeMap<Option<LeadId>, Message> = BTreeMap::new();
        for sql in [NEWEST_OF_LEADS, archive::NEWEST_OF_LEADS] {
            let statement = query(sql)
                .bind(keys(leads))
                .bind(&scope.user_id)
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
            let attempts = self.read_rows(query(ATTEMPTS).bind(&id), read_attempt).await?;
            if !attempts.is_empty() || message.attempt.is_none() {
                return Ok(attempts);
            }
            self.read_rows(query(archive::ATTEMPTS).bind(&id), read_attempt).await
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
        let rows = self.read_rows(query(BACKLOG), |c| {
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
