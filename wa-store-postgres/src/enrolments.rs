//! Enrolments: who runs through a sequence, and where they stand.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

use sqlx::postgres::PgConnection;
use sqlx::{Postgres, QueryBuilder};
use wa_core::domain::access::RequestScope;
use wa_core::domain::campaign::Routing;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::enrolment::{
    Enrolment, EnrolmentCount, EnrolmentReason, EnrolmentState, FlowRef, StepNumbers, ToAdvance,
};
use wa_core::domain::message::{IdempotencyKey, Message, MessageState};
use wa_core::domain::phone::PersonKey;
use wa_core::domain::sequence::{ReEntry, Sequence};
use wa_core::domain::summary::Numbers;
use wa_core::id::{DeviceId, EnrolmentId, LeadId, SequenceId, StepId, UserId};
use wa_core::store::{Advance, EnrolResult, EnrolmentFilter, NewEnrolment, PageRequest, SequenceCounts, Span};
use wa_core::time::Timestamp;

use crate::commit::Commit;
use crate::commit_messages::{KNOWN as KNOWN_KEYS, check_devices, check_leads, insert_messages};
use crate::connections::Line;
use crate::error::{Done, Fail};
use crate::insert::{Gathered, insert, query, run_over};
use crate::message_row::{message, read_message, read_opt_phone};
use crate::outbox::{read_sums, times};
use crate::row::{Columns, Key, device_list, int, keys, number_list, read_all, uuid};
use crate::sequences::{check_sequence, sequences_among};
use crate::tallies::{Standing, Tallies};
use crate::{flows, suppressions};

macro_rules! enrolment {
    ($from:literal) => {
        concat!(
            "SELECT e.id, e.user_id, e.sequence_id, e.lead_id, e.phone, e.person, e.device_id, e.token, e.root_id,
                e.entry_step_id, e.steps_version, e.step_id, e.due_at, e.state, e.reason, e.next_id, e.created_at,
                e.ended_at ",
            $from
        )
    };
}

/// `enrolment`, by the primary key.
pub(crate) const VISIBLE: &str = enrolment!(
    "FROM enrolments e WHERE e.id = $1 AND e.user_id = $2
    AND ($3::uuid[] IS NULL OR e.device_id = ANY ($3))"
);
/// `enrolments_by_id`, by the primary key, in the order asked.
pub(crate) const BY_ID: &str = enrolment!(
    "FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN enrolments e ON e.id = j.value ORDER BY j.key"
);
/// `to_advance`, by `enrolments_marked`.
pub(crate) const MARKED: &str =
    enrolment!("FROM enrolments e WHERE e.marked_at IS NOT NULL ORDER BY e.marked_at, e.id LIMIT $1");
/// `to_advance`: the message of the active step of each, by `messages_flow`.
pub(crate) const SETTLED_BY: &str = message!(
    "FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN enrolments e ON e.id = j.value
    JOIN messages m ON m.enrolment_id = e.id AND m.step_id = e.step_id AND m.round = 0
    LEFT JOIN attempts a ON a.id = m.attempt_id"
);

/// `Enrol`: enrolments of these persons, oldest first, by `enrolments_person`.
pub(crate) const EARLIER: &str = "
    SELECT e.sequence_id, e.person, e.id, e.state, e.root_id
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN enrolments e ON e.person = j.value ORDER BY e.id";
/// `Enrol`: ids that are known, by the primary key.
pub(crate) const KNOWN: &str = "
    SELECT e.id, e.user_id FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN enrolments e ON e.id = j.value";
/// `Enrol`: the rows.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    insert(
        "INSERT INTO enrolments (id, user_id, sequence_id, lead_id, phone, person, device_id, token, root_id,
            entry_step_id, steps_version, step_id, due_at, state, reason, next_id, created_at, ended_at)",
        "uuuutuutuuiuiiiuii",
        "",
    )
});
/// `Enrol`: completed ones that no one follows after all, by `enrolments_next`.
pub(crate) const FOLLOWED_BY: &str =
    enrolment!("FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN enrolments e ON e.next_id = j.value");
/// `Enrol`: by the primary key.
pub(crate) const UNCHAIN: &str = "
    UPDATE enrolments SET next_id = NULL, reason = $1 WHERE id = ANY ($2::uuid[])";
/// `AdvanceEnrolment`: where enrolments stand, by the primary keys; how their step ended, by `messages_flow`.
pub(crate) const STANDS: &str = "
    SELECT e.id, e.user_id, e.sequence_id, e.state, e.step_id, e.steps_version, e.device_id,
        CASE WHEN q.deleted_at IS NULL THEN q.steps_version END,
        (SELECT m.state FROM messages m
            WHERE m.enrolment_id = e.id AND m.step_id = e.step_id AND m.round = 0)
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN enrolments e ON e.id = j.value JOIN sequences q ON q.id = e.sequence_id";
/// `AdvanceEnrolment`: by the primary key.
pub(crate) const MOVE: &str = "
    UPDATE enrolments SET step_id = v.step_id, steps_version = v.steps_version, due_at = v.due_at, marked_at = NULL
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[]) AS v (id, step_id, steps_version, due_at)
    WHERE enrolments.id = v.id";
/// `EndEnrolment` and what else ends enrolments, by the primary key.
pub(crate) const END: &str = "
    UPDATE enrolments SET state = $1, reason = $2, next_id = $3, ended_at = $4, marked_at = NULL
    WHERE id = ANY ($5::uuid[])";
/// `commit`: open enrolments of a person, by `enrolments_person`.
pub(crate) const OPEN_OF_PERSON: &str =
    enrolment!("FROM enrolments e WHERE e.person = $1 AND e.user_id = $2 AND e.state = 1 ORDER BY e.id");
/// `commit`: open enrolments of a lead, by `enrolments_lead`.
pub(crate) const OPEN_OF_LEAD: &str =
    enrolment!("FROM enrolments e WHERE e.lead_id = $1 AND e.user_id = $2 AND e.state = 1 ORDER BY e.id");
/// `sweep`: open enrolments of a deleted sequence, by `enrolments_open`, whose order is not that of ids.
pub(crate) const OPEN_OF_SEQUENCE: &str = enrolment!(
    "FROM enrolments e WHERE e.id IN (
        SELECT o.id FROM enrolments o WHERE o.sequence_id = $1 AND o.state = 1
        ORDER BY o.id LIMIT $2
    ) ORDER BY e.id"
);
/// `UpdateLead`: by the primary key.
pub(crate) const SET_DEVICE: &str = "UPDATE enrolments SET device_id = $1 WHERE id = ANY ($2::uuid[])";
/// `assign`: by the primary key.
pub(crate) const STICK: &str = "
    UPDATE enrolments SET device_id = v.device_id FROM unnest($1::uuid[], $2::uuid[]) AS v (id, device_id)
    WHERE enrolments.id = v.id";
/// `ErasePerson`: by `enrolments_person`.
pub(crate) const ERASE: &str = "
    UPDATE enrolments SET phone = NULL WHERE person = $1 AND user_id = $2";

/// `sequence_counts`: numbers of steps, by the primary key; the pool comes first.
pub(crate) const STEP_NUMBERS: &str = "
    SELECT step_id, device_id, done, failed, skipped, unknown, cancelled, remaining, delivered, undelivered, read, replied
    FROM step_tallies WHERE sequence_id = $1
        AND done + failed + skipped + unknown + cancelled + remaining > 0
        AND ($2::uuid[] IS NULL OR device_id = ANY ($2))
    ORDER BY step_id, device_id";
/// `sequence_counts`: enrolments, by the primary key; the pool comes first.
pub(crate) const COUNTS: &str = "
    SELECT steps_version, step_id, nullif(device_id, '00000000-0000-0000-0000-000000000000'), state, reason, count
    FROM enrolment_counts
    WHERE sequence_id = $1 AND count > 0 AND ($2::uuid[] IS NULL OR device_id = ANY ($2))
    ORDER BY steps_version, step_id, device_id, state, reason";
/// `sequence_counts` in a span, `recount_sequence`: the messages of a sequence, by `messages_scope`.
pub(crate) const COUNT_STEPS: &str = "
    SELECT m.step_id, m.device_id, m.state, m.delivery, count(*) FROM messages m
    WHERE m.scope_kind = 2 AND m.scope_id = $1 AND NOT m.superseded
        AND ($2::uuid[] IS NULL OR m.device_id = ANY ($2))
        AND (m.state < 5 OR (($3::bigint IS NULL OR m.settled_at >= $3) AND ($4::bigint IS NULL OR m.settled_at < $4)))
    GROUP BY m.step_id, m.device_id, m.state, m.delivery ORDER BY m.step_id, m.device_id NULLS FIRST";
/// `sequence_counts` in a span, `recount_sequence`: the enrolments of a sequence, by `enrolments_sequence`.
pub(crate) const COUNT_ENROLMENTS: &str = "
    SELECT e.steps_version, e.step_id, e.device_id, e.state, coalesce(e.reason, 0), count(*) FROM enrolments e
    WHERE e.sequence_id = $1 AND ($2::uuid[] IS NULL OR e.device_id = ANY ($2))
        AND (e.state = 1 OR (($3::bigint IS NULL OR e.ended_at >= $3) AND ($4::bigint IS NULL OR e.ended_at < $4)))
    GROUP BY e.steps_version, e.step_id, e.device_id, e.state, e.reason
    ORDER BY e.steps_version, e.step_id, e.device_id NULLS FIRST, e.state, e.reason NULLS FIRST";

/// Reads the columns of an enrolment.
pub(crate) fn read_enrolment(c: &mut Columns<'_>) -> Done<Enrolment> {
    Ok(Enrolment {
        id: c.key("id")?,
        user_id: c.key("user_id")?,
        sequence_id: c.key("sequence_id")?,
        lead_id: c.key("lead_id")?,
        phone: read_opt_phone(c)?,
        person: c.key("person")?,
        device_id: c.opt_key("device_id")?,
        token: c
            .opt_str()?
            .map(|token| token.parse().map_err(|_| Fail::Unreadable("token")))
            .transpose()?,
        root_id: c.key("root_id")?,
        entry_step_id: c.key("entry_step_id")?,
        steps_version: c.small("steps_version")?,
        step_id: c.key("step_id")?,
        due_at: c.at()?,
        state: c.kind("state", EnrolmentState::from_u8)?,
        reason: c.opt_kind("reason", EnrolmentReason::from_u8)?,
        next_id: c.opt_key("next_id")?,
        created_at: c.at()?,
        ended_at: c.opt_at()?,
    })
}

fn bind(row: Gathered, e: &Enrolment) -> Gathered {
    row.bind(&e.id)
        .bind(&e.user_id)
        .bind(&e.sequence_id)
        .bind(&e.lead_id)
        .bind(e.phone.map(|phone| phone.as_e164().to_owned()))
        .bind(&e.person)
        .bind(e.device_id.as_ref())
        .bind(e.token.as_ref().map(|token| token.spelling().to_owned()))
        .bind(&e.root_id)
        .bind(&e.entry_step_id)
        .bind(e.steps_version)
        .bind(&e.step_id)
        .bind(e.due_at.as_millis())
        .bind(e.state as u8)
        .bind(e.reason.map(|reason| reason as u8))
        .bind(e.next_id.as_ref())
        .bind(e.created_at.as_millis())
        .bind(e.ended_at.map(Timestamp::as_millis))
}

const fn standing(e: &Enrolment) -> Standing {
    Standing {
        sequence_id: e.sequence_id,
        steps_version: e.steps_version,
        step_id: e.step_id,
        device_id: e.device_id,
        state: e.state,
        reason: e.reason,
    }
}

/// What was there of the persons of a page before it.
#[derive(Default)]
struct Earlier {
    known: HashMap<EnrolmentId, UserId>,
    /// Of a person in a sequence, oldest first.
    runs: HashMap<(SequenceId, PersonKey), BTreeMap<EnrolmentId, (EnrolmentState, EnrolmentId)>>,
    suppressed: HashSet<(UserId, PersonKey)>,
}

impl Earlier {
    async fn read(connection: &mut PgConnection, all: &[NewEnrolment]) -> Done<Self> {
        let mut earlier = Self::default();
        let ids = keys(all.iter().map(|one| &one.enrolment.id));
        let rows = query(KNOWN).bind(ids).fetch_all(connection).await?;
        earlier.known = read_all(&rows, |c| Ok((c.key("id")?, c.key("user_id")?)))?
            .into_iter()
            .collect();
        let mut persons: HashMap<UserId, BTreeSet<&PersonKey>> = HashMap::new();
        for NewEnrolment { enrolment, .. } in all {
            persons.entry(enrolment.user_id).or_default().insert(&enrolment.person);
        }
        for (user, persons) in persons {
            let list = keys(persons.iter().copied());
            for row in query(EARLIER).bind(list).fetch_all(connection).await? {
                let mut c = Columns::of(&row);
                let run = (c.key("sequence_id")?, c.key("person")?);
                let id = c.key("id")?;
                let state = c.kind("state", EnrolmentState::from_u8)?;
                earlier
                    .runs
                    .entry(run)
                    .or_default()
                    .insert(id, (state, c.key("root_id")?));
            }
            let listed = suppressions::suppressed_among(connection, user, persons).await?;
            earlier
                .suppressed
                .extend(listed.into_iter().map(|row| (user, row.person)));
        }
        Ok(earlier)
    }

    /// Why a sequence does not take a person now.
    fn refusal(&self, new: &Enrolment, re_entry: ReEntry) -> Option<EnrolResult> {
        if self.suppressed.contains(&(new.user_id, new.person)) {
            return Some(EnrolResult::Suppressed);
        }
        let runs = self.runs.get(&(new.sequence_id, new.person))?;
        let open = runs.iter().find(|(_, (state, _))| *state == EnrolmentState::Open);
        if let Some((id, _)) = open {
            return Some(EnrolResult::AlreadyIn(*id));
        }
        let refused = match re_entry {
            ReEntry::Never => !runs.is_empty(),
            ReEntry::AfterCompletion => {
                let newest = runs.values().next_back();
                newest.is_some_and(|(state, _)| *state == EnrolmentState::Ended)
                    || runs.values().any(|(_, root)| *root == new.root_id)
            }
            ReEntry::Always => false,
        };
        refused.then_some(EnrolResult::ReEntryRefused)
    }

    fn add(&mut self, new: &Enrolment) {
        self.known.insert(new.id, new.user_id);
        let runs = self.runs.entry((new.sequence_id, new.person)).or_default();
        runs.insert(new.id, (new.state, new.root_id));
    }
}

/// Enrols leads, a page in few statements.
pub(crate) async fn enrol(commit: &mut Commit<'_>, all: Vec<NewEnrolment>) -> Done<()> {
    let ids: BTreeSet<SequenceId> = all.iter().map(|one| one.enrolment.sequence_id).collect();
    let sequences = sequences_among(commit.connection, &ids).await?;
    let mut earlier = Earlier::read(commit.connection, &all).await?;
    let mut rows = Vec::with_capacity(all.len());
    let mut firsts = Vec::with_capacity(all.len());
    let mut refused = Vec::new();
    let (mut devices, mut leads) = (Vec::new(), Vec::new());
    for NewEnrolment { enrolment, first } in all {
        if let Some(user) = earlier.known.get(&enrolment.id) {
            // As with keys of messages: another user's is a mistake, and must tell nothing of theirs.
            if *user != enrolment.user_id {
                return Err(Fail::conflict("enrolment"));
            }
            commit.done.enrolments.push(EnrolResult::AlreadyIn(enrolment.id));
            continue;
        }
        let sequence = sequences
            .get(&enrolment.sequence_id)
            .filter(|sequence| sequence.user_id == enrolment.user_id && sequence.deleted_at.is_none())
            .ok_or(Fail::not_found("sequence"))?;
        if enrolment.steps_version != sequence.steps_version || first.flow != Some(flow_of(&enrolment)) {
            return Err(Fail::conflict("enrolment"));
        }
        let same = (first.user_id, first.lead_id, first.device_id)
            == (enrolment.user_id, Some(enrolment.lead_id), enrolment.device_id);
        let result = match earlier.refusal(&enrolment, sequence.re_entry) {
            Some(refusal) => {
                refused.push(enrolment.id);
                refusal
            }
            None => {
                earlier.add(&enrolment);
                commit.tallies.enrolled(standing(&enrolment));
                firsts.push(first);
                EnrolResult::Enrolled(enrolment.id)
            }
        };
        commit.done.enrolments.push(result);
        let enters = matches!(result, EnrolResult::Enrolled(_));
        if !(enters && same) {
            devices.extend(enrolment.device_id.map(|device| (enrolment.user_id, device)));
            leads.push((enrolment.user_id, enrolment.lead_id));
        }
        if enters {
            rows.push(enrolment);
        }
    }
    // Of the others, device and lead are checked with the message.
    check_devices(commit.connection, devices).await?;
    check_leads(commit.connection, leads).await?;
    run_over(commit.connection, INSERT.as_str(), &rows, bind).await?;
    if !refused.is_empty() {
        unchain(commit, &refused).await?;
    }
    insert_messages(commit, firsts).await
}

/// Completed enrolments are not followed by those that were refused.
async fn unchain(commit: &mut Commit<'_>, refused: &[EnrolmentId]) -> Done<()> {
    let rows = query(FOLLOWED_BY)
        .bind(keys(refused))
        .fetch_all(&mut *commit.connection)
        .await?;
    let before = read_all(&rows, read_enrolment)?;
    let reason = EnrolmentReason::ReEntryRefused;
    for enrolment in &before {
        let from = standing(enrolment);
        let to = Standing {
            reason: Some(reason),
            ..from
        };
        commit.tallies.moved(from, to);
    }
    query(UNCHAIN)
        .bind(reason as u8)
        .bind(keys(before.iter().map(|enrolment| &enrolment.id)))
        .execute(&mut *commit.connection)
        .await?;
    Ok(())
}

/// The flow in which an enrolment stands.
const fn flow_of(enrolment: &Enrolment) -> FlowRef {
    FlowRef {
        enrolment_id: enrolment.id,
        step_id: enrolment.step_id,
        steps_version: enrolment.steps_version,
    }
}

/// Where an enrolment stands, and how its step ended.
struct Stand {
    user_id: UserId,
    standing: Standing,
    /// `None` of a sequence that is deleted.
    newest_version: Option<i32>,
    ended: Option<MessageState>,
}

impl Stand {
    /// Whether a move is of an enrolment as it stands; a step that it has had does not come again.
    fn fits(&self, advance: &Advance, known: &HashSet<IdempotencyKey>) -> bool {
        let at = &self.standing;
        let own_device = |message: &Message| message.from_pool || message.device_id == at.device_id;
        at.state == EnrolmentState::Open
            && (self.user_id, at.sequence_id) == (advance.user_id, advance.sequence_id)
            && (at.step_id, at.steps_version) == (advance.from, advance.from_version)
            && self.newest_version == Some(advance.to_version)
            && self.ended == Some(advance.after)
            && !advance.after.is_open()
            && advance.messages.iter().all(own_device)
            && !advance.messages.iter().any(|message| known.contains(&message.key))
    }
}

/// Which messages of these moves are there already.
async fn known_keys(
    connection: &mut PgConnection,
    of: impl IntoIterator<Item = &Advance>,
) -> Done<HashSet<IdempotencyKey>> {
    let messages = of.into_iter().flat_map(|advance| &advance.messages);
    let list = keys(messages.map(|message| &message.key));
    let rows = query(KNOWN_KEYS).bind(list).fetch_all(connection).await?;
    Ok(read_all(&rows, |c| c.key("key"))?.into_iter().collect())
}

async fn stands(
    connection: &mut PgConnection,
    ids: impl IntoIterator<Item = &EnrolmentId>,
) -> Done<HashMap<EnrolmentId, Stand>> {
    let rows = query(STANDS).bind(keys(ids)).fetch_all(connection).await?;
    let found = read_all(&rows, |c| {
        let (id, user_id) = (c.key("id")?, c.key("user_id")?);
        let sequence_id = c.key("sequence_id")?;
        let state = c.kind("state", EnrolmentState::from_u8)?;
        let step_id = c.key("step_id")?;
        let steps_version = c.small("steps_version")?;
        let device_id = c.opt_key("device_id")?;
        let newest = c.opt_int()?.map(i32::try_from).transpose();
        let stand = Stand {
            user_id,
            standing: Standing {
                sequence_id,
                steps_version,
                step_id,
                device_id,
                state,
                reason: None,
            },
            newest_version: newest.map_err(|_| Fail::Unreadable("steps_version"))?,
            ended: c.opt_kind("state", MessageState::from_u8)?,
        };
        Ok((id, stand))
    })?;
    Ok(found.into_iter().collect())
}

/// Moves one enrolment to its next step.
pub(crate) async fn advance(commit: &mut Commit<'_>, advance: Advance) -> Done<()> {
    let stands = stands(commit.connection, [&advance.enrolment_id]).await?;
    let stand = stands
        .get(&advance.enrolment_id)
        .filter(|stand| stand.user_id == advance.user_id)
        .ok_or(Fail::not_found("enrolment"))?;
    let known = known_keys(commit.connection, [&advance]).await?;
    if !stand.fits(&advance, &known) {
        return Err(Fail::conflict("enrolment"));
    }
    move_on(commit, &[(&advance, stand)]).await
}

async fn move_on(commit: &mut Commit<'_>, all: &[(&Advance, &Stand)]) -> Done<()> {
    for (advance, stand) in all {
        let to = Standing {
            steps_version: advance.to_version,
            step_id: advance.to,
            ..stand.standing
        };
        commit.tallies.moved(stand.standing, to);
    }
    run_over(commit.connection, MOVE, all, |row, (advance, _)| {
        row.bind(&advance.enrolment_id)
            .bind(&advance.to)
            .bind(advance.to_version)
            .bind(advance.due_at.as_millis())
    })
    .await?;
    let messages = all.iter().flat_map(|(advance, _)| advance.messages.iter().cloned());
    insert_messages(commit, messages.collect()).await
}

/// Moves the enrolments of messages that were just settled to their next steps, where that fits. Whatever cannot be made
/// leaves nothing behind but the mark, from which it is planned again: outcomes are facts and stay.
pub(crate) async fn follow(connection: &mut PgConnection, all: &[&Advance], now: Timestamp) -> Done<()> {
    if all.is_empty() {
        return Ok(());
    }
    let stands = stands(connection, all.iter().map(|advance| &advance.enrolment_id)).await?;
    let known = known_keys(connection, all.iter().copied()).await?;
    let mut seen = HashSet::new();
    let fitting: Vec<(&Advance, &Stand)> = all
        .iter()
        .filter_map(|advance| Some((*advance, stands.get(&advance.enrolment_id)?)))
        .filter(|(advance, stand)| stand.fits(advance, &known) && seen.insert(advance.enrolment_id))
        .collect();
    if fitting.is_empty() || try_move_on(connection, &fitting, now).await? {
        return Ok(());
    }
    for one in &fitting {
        try_move_on(connection, std::slice::from_ref(one), now).await?;
    }
    Ok(())
}

/// Moves enrolments on, all or none; whether it could be done.
async fn try_move_on(connection: &mut PgConnection, all: &[(&Advance, &Stand)], now: Timestamp) -> Done<bool> {
    query("SAVEPOINT follow").execute(connection).await?;
    let mut commit = Commit::new(connection, now);
    let moved = match move_on(&mut commit, all).await {
        Ok(()) => commit.tallies.write(commit.connection).await,
        Err(fail) => Err(fail),
    };
    let (moved, end) = match moved {
        Ok(()) => (true, "RELEASE SAVEPOINT follow"),
        Err(fail) if fail.is_refusal() => (false, "ROLLBACK TO SAVEPOINT follow; RELEASE SAVEPOINT follow"),
        Err(fail) => return Err(fail),
    };
    sqlx::raw_sql(end).execute(connection).await?;
    Ok(moved)
}

/// How enrolments end.
#[derive(Clone, Copy)]
pub(crate) struct Ending {
    pub(crate) state: EnrolmentState,
    pub(crate) reason: Option<EnrolmentReason>,
    pub(crate) next_id: Option<EnrolmentId>,
}

impl Ending {
    pub(crate) const fn by(reason: EnrolmentReason) -> Self {
        Self {
            state: EnrolmentState::Ended,
            reason: Some(reason),
            next_id: None,
        }
    }
}

/// Ends open enrolments with their open messages.
async fn end_all(commit: &mut Commit<'_>, all: &[Enrolment], ending: Ending) -> Done<()> {
    if all.is_empty() {
        return Ok(());
    }
    for enrolment in all {
        let from = standing(enrolment);
        let to = Standing {
            state: ending.state,
            reason: ending.reason,
            ..from
        };
        commit.tallies.moved(from, to);
    }
    let ids: Vec<EnrolmentId> = all.iter().map(|enrolment| enrolment.id).collect();
    query(END)
        .bind(ending.state as u8)
        .bind(ending.reason.map(|reason| reason as u8))
        .bind(ending.next_id.as_ref())
        .bind(commit.now.as_millis())
        .bind(keys(&ids))
        .execute(&mut *commit.connection)
        .await?;
    flows::stop(commit.connection, &mut commit.tallies, &ids, commit.now).await
}

/// Completes or ends one enrolment.
pub(crate) async fn end(
    commit: &mut Commit<'_>,
    (user, id): (UserId, EnrolmentId),
    step: Option<StepId>,
    ending: Ending,
) -> Done<()> {
    let rows = query(BY_ID)
        .bind(keys([&id]))
        .fetch_all(&mut *commit.connection)
        .await?;
    let found = read_all(&rows, read_enrolment)?;
    let enrolment = found
        .first()
        .filter(|enrolment| enrolment.user_id == user)
        .ok_or(Fail::not_found("enrolment"))?;
    let stands = enrolment.state == EnrolmentState::Open && step.is_none_or(|step| step == enrolment.step_id);
    if !stands || !enrolment.state.can_become(ending.state) {
        return Err(Fail::conflict("enrolment"));
    }
    end_all(commit, &found, ending).await
}

async fn open_of<K: Key>(
    connection: &mut PgConnection,
    sql: &'static str,
    user: UserId,
    key: &K,
) -> Done<Vec<Enrolment>> {
    let statement = query(sql).bind(key).bind(&user);
    read_all(&statement.fetch_all(connection).await?, read_enrolment)
}

/// Ends the open enrolments of a person.
pub(crate) async fn end_of_person(
    commit: &mut Commit<'_>,
    (user, person): (UserId, PersonKey),
    reason: EnrolmentReason,
) -> Done<()> {
    let open = open_of(commit.connection, OPEN_OF_PERSON, user, &person).await?;
    end_all(commit, &open, Ending::by(reason)).await
}

/// Ends the open enrolments of a person and takes the number out of all of theirs.
pub(crate) async fn erase(commit: &mut Commit<'_>, user: UserId, person: PersonKey) -> Done<()> {
    end_of_person(commit, (user, person), EnrolmentReason::Erased).await?;
    query(ERASE)
        .bind(&person)
        .bind(&user)
        .execute(&mut *commit.connection)
        .await?;
    Ok(())
}

/// Ends the open enrolments of a person in sequences that a reply ends.
pub(crate) async fn end_by_reply(
    commit: &mut Commit<'_>,
    user: UserId,
    person: PersonKey,
    reason: EnrolmentReason,
) -> Done<()> {
    let exits = |sequence: &Sequence| sequence.exit_on_reply;
    let open = open_of(commit.connection, OPEN_OF_PERSON, user, &person).await?;
    let open = where_sequence(commit, open, exits).await?;
    end_all(commit, &open, Ending::by(reason)).await
}

/// Those whose sequence is such.
async fn where_sequence(
    commit: &mut Commit<'_>,
    mut all: Vec<Enrolment>,
    such: impl Fn(&Sequence) -> bool,
) -> Done<Vec<Enrolment>> {
    if !all.is_empty() {
        let ids: BTreeSet<SequenceId> = all.iter().map(|enrolment| enrolment.sequence_id).collect();
        let sequences = sequences_among(commit.connection, &ids).await?;
        all.retain(|enrolment| sequences.get(&enrolment.sequence_id).is_some_and(&such));
    }
    Ok(all)
}

/// Ends the open enrolments of a lead that is deleted.
pub(crate) async fn end_of_lead(commit: &mut Commit<'_>, user: UserId, lead: LeadId) -> Done<()> {
    let open = open_of(commit.connection, OPEN_OF_LEAD, user, &lead).await?;
    end_all(commit, &open, Ending::by(EnrolmentReason::LeadGone)).await
}

/// Gives the open enrolments of a lead its new device, where their sequence sends by the lead's own.
pub(crate) async fn follow_lead(
    commit: &mut Commit<'_>,
    (user, lead): (UserId, LeadId),
    device: Option<DeviceId>,
) -> Done<()> {
    let by_own = |sequence: &Sequence| sequence.device_id.is_none() && sequence.routing == Routing::OwnDevice;
    let open = open_of(commit.connection, OPEN_OF_LEAD, user, &lead).await?;
    let open = where_sequence(commit, open, by_own).await?;
    if open.is_empty() {
        return Ok(());
    }
    for enrolment in &open {
        let from = standing(enrolment);
        let to = Standing {
            device_id: device,
            ..from
        };
        commit.tallies.moved(from, to);
    }
    query(SET_DEVICE)
        .bind(device.as_ref())
        .bind(keys(open.iter().map(|enrolment| &enrolment.id)))
        .execute(&mut *commit.connection)
        .await?;
    Ok(())
}

/// Notes on the enrolments of pool messages which device writes to them from now on.
pub(crate) async fn stick(
    connection: &mut PgConnection,
    tallies: &mut Tallies,
    given: &[(EnrolmentId, DeviceId)],
) -> Done<()> {
    if given.is_empty() {
        return Ok(());
    }
    let rows = query(BY_ID)
        .bind(keys(given.iter().map(|(id, _)| id)))
        .fetch_all(connection)
        .await?;
    let devices: HashMap<EnrolmentId, DeviceId> = given.iter().copied().collect();
    let found: BTreeMap<EnrolmentId, Enrolment> = read_all(&rows, read_enrolment)?
        .into_iter()
        .map(|enrolment| (enrolment.id, enrolment))
        .collect();
    for (id, enrolment) in &found {
        let from = standing(enrolment);
        let to = Standing {
            device_id: devices.get(id).copied(),
            ..from
        };
        tallies.moved(from, to);
    }
    run_over(connection, STICK, &devices, |row, (id, device)| {
        row.bind(id).bind(device)
    })
    .await?;
    Ok(())
}

/// Ends a page of the open enrolments of a sequence that is deleted; gives how many, and whether some are left.
pub(crate) async fn end_of_sequence(commit: &mut Commit<'_>, sequence: SequenceId, limit: u64) -> Done<(u64, bool)> {
    let statement = query(OPEN_OF_SEQUENCE).bind(&sequence).bind(int(limit + 1));
    let mut page = read_all(&statement.fetch_all(&mut *commit.connection).await?, read_enrolment)?;
    let left = page.len() as u64 > limit;
    page.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    end_all(commit, &page, Ending::by(EnrolmentReason::SequenceDeleted)).await?;
    Ok((page.len() as u64, left))
}

/// One enrolment within a request's scope.
pub(crate) async fn visible(connection: &mut impl Line, scope: &RequestScope, id: EnrolmentId) -> Done<Enrolment> {
    let row = query(VISIBLE)
        .bind(&id)
        .bind(&scope.user_id)
        .bind(device_list(scope))
        .fetch_optional(connection)
        .await?
        .ok_or(Fail::not_found("enrolment"))?;
    read_enrolment(&mut Columns::of(&row))
}

/// Marked enrolments with the messages that settled their steps.
pub(crate) async fn to_advance(connection: &mut impl Line, limit: u32) -> Done<Vec<ToAdvance>> {
    let rows = query(MARKED).bind(limit).fetch_all(connection).await?;
    let marked = read_all(&rows, read_enrolment)?;
    let ids = keys(marked.iter().map(|enrolment| &enrolment.id));
    let rows = query(SETTLED_BY).bind(ids).fetch_all(connection).await?;
    let mut messages: HashMap<EnrolmentId, Message> = read_all(&rows, read_message)?
        .into_iter()
        .filter_map(|message| Some((message.flow?.enrolment_id, message)))
        .collect();
    let told = marked.into_iter().filter_map(|enrolment| {
        let message = messages.remove(&enrolment.id)?;
        Some(ToAdvance { enrolment, message })
    });
    // Between the two reads one may have been moved on.
    Ok(told.filter(|one| !one.message.state.is_open()).collect())
}

/// The statement of a page of enrolments, by id.
pub(crate) fn page_statement(
    scope: &RequestScope,
    filter: &EnrolmentFilter,
    page: &PageRequest<EnrolmentId>,
) -> QueryBuilder<Postgres> {
    let mut sql = QueryBuilder::new(enrolment!("FROM enrolments e WHERE e.user_id = "));
    sql.push_bind(uuid(&scope.user_id));
    if let Some(after) = &page.after {
        sql.push(" AND e.id > ").push_bind(uuid(after));
    }
    if let Some(person) = &filter.person {
        sql.push(" AND e.person = ").push_bind(uuid(person));
    }
    if let Some(lead) = &filter.lead_id {
        sql.push(" AND e.lead_id = ").push_bind(uuid(lead));
    }
    if let Some(sequence) = &filter.sequence_id {
        sql.push(" AND e.sequence_id = ").push_bind(uuid(sequence));
    }
    if let Some(devices) = device_list(scope) {
        sql.push(" AND e.device_id = ANY (").push_bind(devices).push(")");
    }
    if !filter.states.is_empty() {
        let states = number_list(filter.states.iter().map(|state| *state as u8));
        sql.push(" AND e.state = ANY (").push_bind(states).push(")");
    }
    sql.push(" ORDER BY e.id LIMIT ")
        .push_bind(int(page.clamped() as u64 + 1));
    sql
}

/// Reads a row of [`COUNTS`] or [`COUNT_ENROLMENTS`].
fn read_count(c: &mut Columns<'_>) -> Done<EnrolmentCount> {
    Ok(EnrolmentCount {
        steps_version: c.small("steps_version")?,
        step_id: c.key("step_id")?,
        device_id: c.opt_key("device_id")?,
        state: c.kind("state", EnrolmentState::from_u8)?,
        reason: match c.small::<u8>("reason")? {
            0 => None,
            number => Some(EnrolmentReason::from_u8(number).ok_or(Fail::Unreadable("reason"))?),
        },
        count: c.count()?,
    })
}

/// The counts of a sequence from the tallies.
pub(crate) async fn tallied(connection: &mut impl Line, scope: &RequestScope, id: SequenceId) -> Done<SequenceCounts> {
    check_sequence(connection, scope.user_id, id).await?;
    let list = |sql: &'static str| query(sql).bind(&id).bind(device_list(scope));
    let steps = list(STEP_NUMBERS).fetch_all(connection).await?;
    let enrolments = list(COUNTS).fetch_all(connection).await?;
    Ok(SequenceCounts {
        steps: read_all(&steps, |c| {
            Ok(StepNumbers {
                step_id: c.key("step_id")?,
                device_id: c.pool_key("device_id")?,
                numbers: read_sums(c)?,
            })
        })?,
        enrolments: read_all(&enrolments, read_count)?,
    })
}

/// The counts of a sequence in a span, from its rows.
pub(crate) async fn counted(
    connection: &mut impl Line,
    scope: &RequestScope,
    id: SequenceId,
    span: &Span,
) -> Done<SequenceCounts> {
    check_sequence(connection, scope.user_id, id).await?;
    let list = |sql: &'static str| {
        query(sql)
            .bind(&id)
            .bind(device_list(scope))
            .bind(span.from.map(Timestamp::as_millis))
            .bind(span.until.map(Timestamp::as_millis))
    };
    let mut steps: Vec<StepNumbers> = Vec::new();
    for row in list(COUNT_STEPS).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let step_id = c.key("step_id")?;
        let device_id = c.opt_key("device_id")?;
        let state = c.kind("state", MessageState::from_u8)?;
        let delivery = c.opt_kind("delivery", Delivery::from_u8)?;
        let mut one = Numbers::default();
        one.count(state, delivery);
        if steps
            .last()
            .is_none_or(|last| (last.step_id, last.device_id) != (step_id, device_id))
        {
            steps.push(StepNumbers {
                step_id,
                device_id,
                numbers: Numbers::default(),
            });
        }
        let last = steps.last_mut().expect("the numbers of this step were just added");
        last.numbers += times(one, c.count()?);
    }
    let rows = list(COUNT_ENROLMENTS).fetch_all(connection).await?;
    Ok(SequenceCounts {
        steps,
        enrolments: read_all(&rows, read_count)?,
    })
}
