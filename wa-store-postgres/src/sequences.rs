//! Sequences and their steps.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use sqlx::{Postgres, QueryBuilder};
use uuid::Uuid;
use wa_core::domain::access::RequestScope;
use wa_core::domain::audience::TargetFilter;
use wa_core::domain::campaign::{Dressing, Routing};
use wa_core::domain::enrolment::{Enrolment, ToAdvance};
use wa_core::domain::lead::Lead;
use wa_core::domain::pacing::DelayRange;
use wa_core::domain::schedule::{LatePolicy, LocalTime, QuietHours, TimeZone};
use wa_core::domain::sequence::{
    FailurePolicy, MatchCursor, ReEntry, Sequence, SequenceReason, SequenceStatus, SequenceSteps, Step,
};
use wa_core::domain::token::Token;
use wa_core::id::{EnrolmentId, LeadId, SequenceId, StepId, UserId};
use wa_core::store::{
    EnrolmentFilter, LeadFilter, Page, PageRequest, SequenceCounts, SequenceFilter, SequenceStore, Span, StoreError,
};
use wa_core::time::Timestamp;

use crate::PostgresStore;
use crate::connections::Line;
use crate::devices::{device_of, folded};
use crate::enrolments;
use crate::error::{Done, Fail};
use crate::insert::{Bound, query};
use crate::leads::{TO_MATCH, Wanted, read_lead};
use crate::row::{Columns, device_list, int, json, keys, read_all, uuid};

macro_rules! sequence {
    ($from:literal) => {
        concat!(
            "SELECT q.id, q.user_id, q.device_id, q.body, q.status, q.reason, q.status_at, q.steps_version, q.cursor_kind,
                q.cursor_lead, q.started_at, q.resumed_at, q.paused_at, q.created_at, q.updated_at, q.deleted_at,
                q.version ",
            $from
        )
    };
}

/// `sequence`, by the unique index of ids.
pub(crate) const VISIBLE: &str = sequence!(
    "FROM sequences q WHERE q.id = $1 AND q.user_id = $2 AND q.deleted_at IS NULL
    AND ($3::uuid[] IS NULL OR q.device_id = ANY ($3))"
);
/// `sequences_by_id`, by the unique index of ids, in the order asked.
pub(crate) const BY_ID: &str = sequence!(
    "FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN sequences q ON q.id = j.value ORDER BY j.key"
);
/// `steps`, by the primary key, in the order asked.
pub(crate) const STEPS: &str = "
    SELECT s.sequence_id, s.version, s.steps
    FROM unnest($1::uuid[], $2::bigint[]) WITH ORDINALITY AS j (sequence_id, version, key)
    JOIN sequence_steps s ON s.sequence_id = j.sequence_id AND s.version = j.version
    ORDER BY j.key";
/// `sequences_by_entry`, by the primary key of entries.
pub(crate) const BY_ENTRY: &str = sequence!(
    "FROM sequences q WHERE q.id IN (
        SELECT e.sequence_id FROM sequence_entries e WHERE e.user_id = $1 AND e.token = ANY ($2)
    ) AND q.deleted_at IS NULL ORDER BY q.id"
);
/// `sequences_matching`, by the partial index of that name.
pub(crate) const MATCHING: &str = sequence!(
    "FROM sequences q WHERE q.cursor_kind <> 3 AND q.status = 2
    AND q.deleted_at IS NULL ORDER BY q.id LIMIT $1"
);
/// `match_page`: the newest steps, by the primary key.
pub(crate) const NEWEST_STEPS: &str = "
    SELECT sequence_id, version, steps FROM sequence_steps WHERE sequence_id = $1 ORDER BY version DESC LIMIT 1";
pub(crate) const OF_USER: &str = "SELECT 1 FROM sequences WHERE id = $1 AND user_id = $2";

/// `commit`: by the unique index of ids.
pub(crate) const ONE: &str = sequence!("FROM sequences q WHERE q.id = $1");
pub(crate) const INSERT: &str = "
    INSERT INTO sequences (name_key, device_id, body, status, reason, status_at, steps_version, cursor_kind, cursor_lead,
        started_at, resumed_at, paused_at, created_at, updated_at, deleted_at, version, id, user_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)";
/// `commit`: by the unique index of ids.
pub(crate) const UPDATE: &str = "
    UPDATE sequences SET name_key = $1, device_id = $2, body = $3, status = $4, reason = $5, status_at = $6, steps_version = $7,
        cursor_kind = $8, cursor_lead = $9, started_at = $10, resumed_at = $11, paused_at = $12, created_at = $13, updated_at = $14,
        deleted_at = $15, version = $16
    WHERE id = $17 AND user_id = $18";
pub(crate) const INSERT_STEPS: &str = "INSERT INTO sequence_steps (sequence_id, version, steps) VALUES ($1, $2, $3)";
/// `commit`: the words by which leads enter, by `sequence_entries_sequence`.
pub(crate) const CLEAR_ENTRIES: &str = "DELETE FROM sequence_entries WHERE user_id = $1 AND sequence_id = $2";
pub(crate) const ADD_ENTRIES: &str = "
    INSERT INTO sequence_entries (user_id, token, sequence_id) SELECT $1, w.token, $2 FROM unnest($3::text[]) AS w (token)";
/// `MoveMatchCursor`: one statement with its preconditions, by the unique index of ids.
pub(crate) const MOVE_CURSOR: &str = "
    UPDATE sequences SET cursor_kind = $1, cursor_lead = $2
    WHERE id = $3 AND status = 2 AND deleted_at IS NULL AND steps_version = $4 AND cursor_kind = $5
        AND cursor_lead IS NOT DISTINCT FROM $6";
pub(crate) const EXISTS: &str = "SELECT 1 FROM sequences WHERE id = $1";
/// `commit`: whether it has messages, so that there may be something for `sweep` to move, by `messages_scope`.
pub(crate) const HAS_MESSAGES: &str = "
    SELECT EXISTS (SELECT 1 FROM messages WHERE scope_kind = 2 AND scope_id = $1)";
/// `commit`: leaves the mark for `sweep`. By the unique index of ids.
pub(crate) const MARK: &str = "UPDATE sequences SET sweep = true WHERE id = $1";

/// What a person writes of a sequence: the part of the row of which nothing is asked.
#[derive(Serialize, Deserialize)]
struct Body {
    name: String,
    description: String,
    niche: Option<Token>,
    target: TargetFilter,
    routing: Routing,
    time_zone: TimeZone,
    send_time: Option<LocalTime>,
    late_policy: LatePolicy,
    delay: Option<DelayRange>,
    quiet_hours: Option<QuietHours>,
    dressing: Dressing,
    expires_after: Duration,
    on_failure: FailurePolicy,
    exit_on_reply: bool,
    re_entry: ReEntry,
}

/// The columns of a cursor.
fn cursor_columns(cursor: MatchCursor) -> (u8, Option<Uuid>) {
    match cursor {
        MatchCursor::Start => (0, None),
        MatchCursor::Lead(lead) => (1, Some(uuid(&lead))),
        MatchCursor::Done => (3, None),
    }
}

fn read_cursor(c: &mut Columns<'_>) -> Done<MatchCursor> {
    let kind = c.int()?;
    let lead: Option<LeadId> = c.opt_key("cursor_lead")?;
    match (kind, lead) {
        (0, None) => Ok(MatchCursor::Start),
        (1, Some(lead)) => Ok(MatchCursor::Lead(lead)),
        (3, None) => Ok(MatchCursor::Done),
        _ => Err(Fail::Unreadable("cursor")),
    }
}

fn read_sequence(c: &mut Columns<'_>) -> Done<Sequence> {
    let (id, user_id, device_id) = (c.key("id")?, c.key("user_id")?, c.opt_key("device_id")?);
    let body: Body = c.json("body")?;
    Ok(Sequence {
        id,
        user_id,
        name: body.name,
        description: body.description,
        niche: body.niche,
        target: body.target,
        device_id,
        routing: body.routing,
        time_zone: body.time_zone,
        send_time: body.send_time,
        late_policy: body.late_policy,
        delay: body.delay,
        quiet_hours: body.quiet_hours,
        dressing: body.dressing,
        expires_after: body.expires_after,
        on_failure: body.on_failure,
        exit_on_reply: body.exit_on_reply,
        re_entry: body.re_entry,
        status: c.kind("status", SequenceStatus::from_u8)?,
        reason: c.opt_kind("reason", SequenceReason::from_u8)?,
        status_at: c.at()?,
        steps_version: c.small("steps_version")?,
        cursor: read_cursor(c)?,
        started_at: c.opt_at()?,
        resumed_at: c.opt_at()?,
        paused_at: c.opt_at()?,
        created_at: c.at()?,
        updated_at: c.at()?,
        deleted_at: c.opt_at()?,
        version: c.int()?,
    })
}

fn bind<'q>(statement: Bound<'q>, sequence: &Sequence) -> Bound<'q> {
    let body = Body {
        name: sequence.name.clone(),
        description: sequence.description.clone(),
        niche: sequence.niche.clone(),
        target: sequence.target,
        routing: sequence.routing,
        time_zone: sequence.time_zone,
        send_time: sequence.send_time,
        late_policy: sequence.late_policy,
        delay: sequence.delay,
        quiet_hours: sequence.quiet_hours,
        dressing: sequence.dressing.clone(),
        expires_after: sequence.expires_after,
        on_failure: sequence.on_failure,
        exit_on_reply: sequence.exit_on_reply,
        re_entry: sequence.re_entry,
    };
    let (kind, lead) = cursor_columns(sequence.cursor);
    statement
        .bind(folded(&sequence.name))
        .bind(sequence.device_id.as_ref())
        .bind(json(&body))
        .bind(sequence.status as u8)
        .bind(sequence.reason.map(|reason| reason as u8))
        .bind(sequence.status_at.as_millis())
        .bind(sequence.steps_version)
        .bind(kind)
        .bind(lead)
        .bind(sequence.started_at.map(Timestamp::as_millis))
        .bind(sequence.resumed_at.map(Timestamp::as_millis))
        .bind(sequence.paused_at.map(Timestamp::as_millis))
        .bind(sequence.created_at.as_millis())
        .bind(sequence.updated_at.as_millis())
        .bind(sequence.deleted_at.map(Timestamp::as_millis))
        .bind(sequence.version)
        .bind(&sequence.id)
        .bind(&sequence.user_id)
}

fn read_steps(c: &mut Columns<'_>) -> Done<SequenceSteps> {
    Ok(SequenceSteps {
        sequence_id: c.key("sequence_id")?,
        version: c.small("version")?,
        steps: c.json::<Vec<Step>>("steps")?,
    })
}

/// A sequence of a user that is not deleted.
async fn sequence_of(connection: &mut PgConnection, user: UserId, id: SequenceId) -> Done<Sequence> {
    let row = query(ONE).bind(&id).fetch_optional(connection).await?;
    let sequence = row.map(|row| read_sequence(&mut Columns::of(&row))).transpose()?;
    sequence
        .filter(|sequence| sequence.user_id == user && sequence.deleted_at.is_none())
        .ok_or(Fail::not_found("sequence"))
}

/// Sequences by id, deleted ones too.
pub(crate) async fn sequences_among<'a>(
    connection: &mut PgConnection,
    ids: impl IntoIterator<Item = &'a SequenceId>,
) -> Done<BTreeMap<SequenceId, Sequence>> {
    let rows = query(BY_ID).bind(keys(ids)).fetch_all(connection).await?;
    let found = read_all(&rows, read_sequence)?;
    Ok(found.into_iter().map(|sequence| (sequence.id, sequence)).collect())
}

async fn newest_steps(connection: &mut impl Line, id: SequenceId) -> Done<Option<SequenceSteps>> {
    let row = query(NEWEST_STEPS).bind(&id).fetch_optional(connection).await?;
    row.map(|row| read_steps(&mut Columns::of(&row))).transpose()
}

/// The triggers of the entry points.
fn entry_tokens(steps: Option<&SequenceSteps>) -> BTreeSet<&Token> {
    steps.map_or_else(BTreeSet::new, |steps| {
        steps.entry_points().map(|(token, _)| token).collect()
    })
}

/// Writes by which words leads enter.
async fn put_entries(connection: &mut PgConnection, sequence: &Sequence, steps: Option<&SequenceSteps>) -> Done<()> {
    let mut tokens = entry_tokens(steps);
    tokens.extend(&sequence.niche);
    let words: Vec<String> = tokens.into_iter().map(|token| token.as_str().to_owned()).collect();
    let (user, id) = (&sequence.user_id, &sequence.id);
    query(CLEAR_ENTRIES).bind(user).bind(id).execute(connection).await?;
    query(ADD_ENTRIES)
        .bind(user)
        .bind(id)
        .bind(words)
        .execute(connection)
        .await?;
    Ok(())
}

async fn put_steps(connection: &mut PgConnection, steps: &SequenceSteps) -> Done<()> {
    query(INSERT_STEPS)
        .bind(&steps.sequence_id)
        .bind(steps.version)
        .bind(json(&steps.steps))
        .execute(connection)
        .await?;
    Ok(())
}

async fn check_device(connection: &mut PgConnection, sequence: &Sequence) -> Done<()> {
    match sequence.device_id {
        Some(device) => device_of(connection, sequence.user_id, device).await.map(|_| ()),
        None => Ok(()),
    }
}

/// Adds a sequence with its first steps; a taken id is refused by the unique index.
pub(crate) async fn insert_sequence(
    connection: &mut PgConnection,
    sequence: &Sequence,
    steps: Option<&SequenceSteps>,
) -> Done<()> {
    let first = steps.map_or(0, |steps| steps.version);
    let belongs = steps.is_none_or(|steps| steps.sequence_id == sequence.id && steps.version == 1);
    if first != sequence.steps_version || !belongs {
        return Err(Fail::conflict("sequence"));
    }
    check_device(connection, sequence).await?;
    bind(query(INSERT), sequence).execute(connection).await?;
    if let Some(steps) = steps {
        put_steps(connection, steps).await?;
    }
    put_entries(connection, sequence, steps).await
}

/// Replaces what a person edits, with a new version of the steps where there is one.
pub(crate) async fn update_sequence(
    connection: &mut PgConnection,
    sequence: Sequence,
    steps: Option<&SequenceSteps>,
) -> Done<()> {
    let old = sequence_of(connection, sequence.user_id, sequence.id).await?;
    let follows = steps.is_none_or(|steps| steps.sequence_id == old.id && steps.version == old.steps_version + 1);
    if old.version != sequence.version || !follows {
        return Err(Fail::conflict("sequence"));
    }
    let before = newest_steps(connection, old.id).await?;
    let newest = steps.or(before.as_ref());
    let entries = |steps: Option<&SequenceSteps>| -> Vec<(Token, StepId)> {
        let entries = steps.into_iter().flat_map(SequenceSteps::entry_points);
        entries.map(|(token, step)| (token.clone(), step)).collect()
    };
    let starts_over =
        entries(before.as_ref()) != entries(newest) || old.niche != sequence.niche || old.target != sequence.target;
    let new = Sequence {
        status: old.status,
        reason: old.reason,
        status_at: old.status_at,
        steps_version: newest.map_or(0, |steps| steps.version),
        cursor: if starts_over && old.status.runs() {
            MatchCursor::Start
        } else {
            old.cursor
        },
        started_at: old.started_at,
        resumed_at: old.resumed_at,
        paused_at: old.paused_at,
        created_at: old.created_at,
        deleted_at: None,
        version: old.version + 1,
        ..sequence
    };
    check_device(connection, &new).await?;
    bind(query(UPDATE), &new).execute(connection).await?;
    if let Some(steps) = steps {
        put_steps(connection, steps).await?;
    }
    put_entries(connection, &new, newest).await
}

/// Marks a sequence deleted.
pub(crate) async fn delete_sequence(
    connection: &mut PgConnection,
    user: UserId,
    id: SequenceId,
    now: Timestamp,
) -> Done<()> {
    let mut sequence = sequence_of(connection, user, id).await?;
    sequence.deleted_at = Some(now);
    sequence.version += 1;
    sequence.cursor = MatchCursor::Done;
    bind(query(UPDATE), &sequence).execute(connection).await?;
    query(CLEAR_ENTRIES).bind(&user).bind(&id).execute(connection).await?;
    mark(connection, id).await
}

async fn mark(connection: &mut PgConnection, id: SequenceId) -> Done<()> {
    query(MARK).bind(&id).execute(connection).await?;
    Ok(())
}

/// Moves a sequence to a status.
pub(crate) async fn set_status(
    connection: &mut PgConnection,
    (user, id): (UserId, SequenceId),
    from: &[SequenceStatus],
    (to, reason): (SequenceStatus, Option<SequenceReason>),
    now: Timestamp,
) -> Done<()> {
    let mut sequence = sequence_of(connection, user, id).await?;
    let before = sequence.status;
    let forbidden = before != to && !before.can_become(to);
    let empty = to == SequenceStatus::Active
        && newest_steps(connection, id)
            .await?
            .is_none_or(|newest| newest.steps.is_empty());
    if !from.contains(&before) || forbidden || empty {
        return Err(Fail::conflict("sequence"));
    }
    sequence.status = to;
    sequence.reason = reason;
    sequence.status_at = now;
    sequence.version += 1;
    if before != to {
        sequence.cursor = MatchCursor::Done;
        match to {
            SequenceStatus::Active => {
                sequence.started_at.get_or_insert(now);
                sequence.resumed_at = Some(now);
                sequence.cursor = MatchCursor::Start;
            }
            SequenceStatus::Paused => sequence.paused_at = Some(now),
            SequenceStatus::Draft | SequenceStatus::Inactive => {}
        }
    }
    bind(query(UPDATE), &sequence).execute(connection).await?;
    if before == to {
        return Ok(());
    }
    let any = query(HAS_MESSAGES).bind(&id).number(connection).await?;
    if any == Some(1) {
        mark(connection, id).await
    } else {
        Ok(())
    }
}

/// Moves the cursor of an active sequence.
pub(crate) async fn move_match_cursor(
    connection: &mut PgConnection,
    (id, steps_version): (SequenceId, i32),
    from: MatchCursor,
    to: MatchCursor,
) -> Done<()> {
    let (from, to) = (cursor_columns(from), cursor_columns(to));
    let moved = query(MOVE_CURSOR)
        .bind(to.0)
        .bind(to.1)
        .bind(&id)
        .bind(steps_version)
        .bind(from.0)
        .bind(from.1)
        .execute(connection)
        .await?;
    if moved.rows_affected() == 1 {
        return Ok(());
    }
    let there = query(EXISTS).bind(&id).exists(connection).await?;
    Err(if there {
        Fail::conflict("sequence")
    } else {
        Fail::not_found("sequence")
    })
}

/// The statement of a page of sequences, newest first, by the unique index of user and id.
pub(crate) fn page_statement(
    scope: &RequestScope,
    filter: &SequenceFilter,
    page: &PageRequest<SequenceId>,
) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(sequence!(
        "FROM sequences q WHERE q.deleted_at IS NULL AND q.user_id = "
    ));
    sql.push_bind(uuid(&scope.user_id));
    if let Some(after) = &page.after {
        sql.push(" AND q.id < ").push_bind(uuid(after));
    }
    if let Some(devices) = device_list(scope) {
        sql.push(" AND q.device_id = ANY (").push_bind(devices).push(")");
    }
    if !filter.statuses.is_empty() {
        let statuses = crate::row::number_list(filter.statuses.iter().map(|status| *status as u8));
        sql.push(" AND q.status = ANY (").push_bind(statuses).push(")");
    }
    if let Some(text) = &filter.search {
        sql.push(" AND strpos(q.name_key, ")
            .push_bind(folded(text))
            .push(") > 0");
    }
    sql.push(" ORDER BY q.id DESC LIMIT ")
        .push_bind(int(page.clamped() as u64 + 1));
    sql
}

/// A sequence of a user, deleted ones too: its numbers stay.
pub(crate) async fn check_sequence(connection: &mut impl Line, user: UserId, id: SequenceId) -> Done<()> {
    if query(OF_USER).bind(&id).bind(&user).exists(connection).await? {
        Ok(())
    } else {
        Err(Fail::not_found("sequence"))
    }
}

impl PostgresStore {
    async fn find_sequence(&self, scope: &RequestScope, id: SequenceId) -> Done<Sequence> {
        let mut reader = self.reader().await?;
        let row = query(VISIBLE)
            .bind(&id)
            .bind(&scope.user_id)
            .bind(device_list(scope))
            .fetch_optional(&mut reader)
            .await?
            .ok_or(Fail::not_found("sequence"))?;
        read_sequence(&mut Columns::of(&row))
    }

    pub(crate) async fn rows<T>(
        &self,
        (operation, entity): (&'static str, &'static str),
        statement: Bound<'_>,
        read: impl Fn(&mut Columns<'_>) -> Done<T>,
    ) -> Result<Vec<T>, StoreError> {
        let rows = async {
            let mut reader = self.reader().await?;
            read_all(&statement.fetch_all(&mut reader).await?, read)
        };
        rows.await.map_err(|fail: Fail| fail.of(operation, entity))
    }

    /// One page per word by which leads enter, each in the order of ids, together cut to one.
    async fn read_matches(&self, sequence: &Sequence, after: LeadId, limit: u32) -> Done<Vec<Lead>> {
        let mut reader = self.reader().await?;
        let steps = newest_steps(&mut reader, sequence.id).await?;
        let triggers = entry_tokens(steps.as_ref()).into_iter().map(|token| LeadFilter {
            trigger: Some(token.clone()),
            target: sequence.target,
            ..LeadFilter::default()
        });
        let enterable = steps.as_ref().is_some_and(|steps| steps.first_entry().is_some());
        let niche = sequence.niche.as_ref().filter(|_| enterable).map(|token| LeadFilter {
            niche: Some(token.clone()),
            target: sequence.target,
            ..LeadFilter::default()
        });
        let mut found: BTreeMap<LeadId, Lead> = BTreeMap::new();
        for filter in triggers.chain(niche) {
            let wanted = Wanted {
                user_id: sequence.user_id,
                filter: &filter,
                devices: None,
                created_until: None,
                after: Some(after),
            };
            let page = wanted.read(&mut reader, u64::from(limit)).await?;
            found.extend(page.into_iter().map(|lead| (lead.id, lead)));
            // What lies beyond the page is not needed for the next word.
            while found.len() > limit as usize {
                found.pop_last();
            }
        }
        Ok(found.into_values().collect())
    }
}

#[async_trait]
impl SequenceStore for PostgresStore {
    async fn sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<Sequence, StoreError> {
        let found = self.find_sequence(scope, id).await;
        found.map_err(|fail| fail.of("sequence", "sequence"))
    }

    async fn sequences(
        &self,
        scope: &RequestScope,
        filter: &SequenceFilter,
        page: &PageRequest<SequenceId>,
    ) -> Result<Page<Sequence, SequenceId>, StoreError> {
        let mut statement = page_statement(scope, filter, page);
        let rows = self
            .rows(("sequences", "sequence"), Bound::of(statement.build()), read_sequence)
            .await?;
        Ok(Page::cut(rows, page.clamped(), |sequence: &Sequence| sequence.id))
    }

    async fn sequences_by_id(&self, ids: &[SequenceId]) -> Result<Vec<Sequence>, StoreError> {
        let statement = query(BY_ID).bind(keys(ids));
        self.rows(("sequences_by_id", "sequence"), statement, read_sequence)
            .await
    }

    async fn steps(&self, versions: &[(SequenceId, i32)]) -> Result<Vec<SequenceSteps>, StoreError> {
        let (ids, numbers): (Vec<SequenceId>, Vec<i64>) =
            versions.iter().map(|(id, version)| (*id, i64::from(*version))).unzip();
        let statement = query(STEPS).bind(keys(&ids)).bind(numbers);
        self.rows(("steps", "steps"), statement, read_steps).await
    }

    async fn sequences_by_entry(&self, user: UserId, tokens: &[Token]) -> Result<Vec<Sequence>, StoreError> {
        let words: Vec<String> = tokens.iter().map(|token| token.as_str().to_owned()).collect();
        let statement = query(BY_ENTRY).bind(&user).bind(words);
        self.rows(("sequences_by_entry", "sequence"), statement, read_sequence)
            .await
    }

    async fn leads_to_match(&self, limit: u32) -> Result<Vec<Lead>, StoreError> {
        let statement = query(TO_MATCH).bind(limit);
        self.rows(("leads_to_match", "lead"), statement, read_lead).await
    }

    async fn sequences_matching(&self, limit: u32) -> Result<Vec<Sequence>, StoreError> {
        let statement = query(MATCHING).bind(limit);
        self.rows(("sequences_matching", "sequence"), statement, read_sequence)
            .await
    }

    async fn match_page(&self, sequence: &Sequence, after: LeadId, limit: u32) -> Result<Vec<Lead>, StoreError> {
        let found = self.read_matches(sequence, after, limit).await;
        found.map_err(|fail| fail.of("match_page", "lead"))
    }

    async fn to_advance(&self, limit: u32) -> Result<Vec<ToAdvance>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            enrolments::to_advance(&mut reader, limit).await
        };
        read.await.map_err(|fail: Fail| fail.of("to_advance", "enrolment"))
    }

    async fn enrolment(&self, scope: &RequestScope, id: EnrolmentId) -> Result<Enrolment, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            enrolments::visible(&mut reader, scope, id).await
        };
        read.await.map_err(|fail: Fail| fail.of("enrolment", "enrolment"))
    }

    async fn enrolments(
        &self,
        scope: &RequestScope,
        filter: &EnrolmentFilter,
        page: &PageRequest<EnrolmentId>,
    ) -> Result<Page<Enrolment, EnrolmentId>, StoreError> {
        let mut statement = enrolments::page_statement(scope, filter, page);
        let rows = self
            .rows(
                ("enrolments", "enrolment"),
                Bound::of(statement.build()),
                enrolments::read_enrolment,
            )
            .await?;
        Ok(Page::cut(rows, page.clamped(), |enrolment: &Enrolment| enrolment.id))
    }

    async fn enrolments_by_id(&self, ids: &[EnrolmentId]) -> Result<Vec<Enrolment>, StoreError> {
        let statement = query(enrolments::BY_ID).bind(keys(ids));
        self.rows(("enrolments_by_id", "enrolment"), statement, enrolments::read_enrolment)
            .await
    }

    async fn sequence_counts(
        &self,
        scope: &RequestScope,
        id: SequenceId,
        span: &Span,
    ) -> Result<SequenceCounts, StoreError> {
        let read = async {
            let mut reader = self.snapshot().await?;
            if span.is_all() {
                enrolments::tallied(&mut reader, scope, id).await
            } else {
                enrolments::counted(&mut reader, scope, id, span).await
            }
        };
        read.await.map_err(|fail: Fail| fail.of("sequence_counts", "sequence"))
    }

    async fn recount_sequence(&self, scope: &RequestScope, id: SequenceId) -> Result<SequenceCounts, StoreError> {
        let read = async {
            let mut reader = self.snapshot().await?;
            enrolments::counted(&mut reader, scope, id, &Span::default()).await
        };
        read.await.map_err(|fail: Fail| fail.of("recount_sequence", "sequence"))
    }
}
