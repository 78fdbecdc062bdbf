//! Commits of changes to messages and to the people whom they are for.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteConnection;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::enrolment::{EnrolmentReason, FlowRef};
use wa_core::domain::message::{Attempt, IdempotencyKey, Message, MessageScope, MessageState, Reason};
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::domain::suppression::Suppression;
use wa_core::id::{AttemptId, CampaignId, DeviceId, EnrolmentId, LeadId, MessageId, StepId, UserId};
use wa_core::plan::{ScopeGate, Suppressed};
use wa_core::time::Timestamp;
use wa_core::transport::{MessageRef, TransportMessageId};

use crate::campaigns::erase_entries;
use crate::chats::erase_chats;
use crate::commit::Commit;
use crate::devices::{change_device, device_of};
use crate::error::{Done, Fail};
use crate::flows::{FlowFacts, Settlements};
use crate::insert::{Bound, Rows};
use crate::leads::{erase_leads, touch_leads};
use crate::leases::known_seed;
use crate::live::{Batch, Live, gate_of, live, live_by, overrides, requeued};
use crate::message_row::kept_ours;
use crate::row::{
    Columns, HexKey, Key, blob, custom_json, hex_list, opt_blob, opt_json, read_all, read_gathered, word,
};
use crate::suppressions::{put_suppression, suppressed_among};
use crate::tallies::Counted;
use crate::{archive, enrolments, flows, warmth};

/// `InsertMessages`: keys that are known, by the unique index of keys.
pub(crate) const KNOWN: &str = "
    SELECT m.key, m.id, m.user_id FROM json_each(?) j CROSS JOIN messages m ON m.key = unhex(j.value)";
/// `InsertMessages`: campaigns with their users, by their ids.
pub(crate) const CAMPAIGNS: &str = "
    SELECT c.id, c.user_id, c.status, c.archived_at IS NOT NULL FROM json_each(?) j CROSS JOIN campaigns c ON c.id = unhex(j.value)";
/// `InsertMessages`: which devices a user does not have, or has no longer, by the primary key.
pub(crate) const DEVICES: &str = "
    SELECT json_group_array(json_array(j.value, d.id IS NULL))
    FROM json_each(?1) j LEFT JOIN devices d ON d.id = unhex(j.value) AND d.user_id = ?2
    WHERE d.id IS NULL OR d.deleted_at IS NOT NULL";
/// `InsertMessages`: which leads a user does not have, by the unique index of ids.
pub(crate) const LEADS: &str = "
    SELECT json_group_array(j.value) FROM json_each(?1) j
    WHERE NOT EXISTS (SELECT 1 FROM leads l WHERE l.id = unhex(j.value) AND l.user_id = ?2)";
/// `InsertMessages`: the rows.
pub(crate) static INSERT: LazyLock<Rows> = LazyLock::new(|| {
    Rows::insert(
        "INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, supersedes, superseded, lead_id,
            phone, person, name, custom, device_id, from_pool, content, override_suppression, due_at, delay, expires_at,
            held_at, state, reason, detail, refusal_count, delivery, delivery_at, settled_at, created_at, attempt_id, epoch,
            doubt_since_at, doubt_cause, next_check_at, not_found_count, resend_count, enrolment_id, step_id, steps_version)",
        40,
        "",
    )
});
/// `InsertMessages`: rows of which nothing is known yet but that they wait, as nearly all are; the rest is NULL or nought.
static INSERT_NEW: LazyLock<Rows> = LazyLock::new(|| {
    Rows::insert(
        "INSERT INTO messages (id, user_id, scope_kind, scope_id, priority, key, round, lead_id, phone, person, name, custom,
            device_id, from_pool, content, override_suppression, due_at, delay, expires_at, state, created_at, enrolment_id,
            step_id, steps_version)",
        24,
        "",
    )
});
/// `InsertMessages`: the attempts of those that come with one, as when rows move from another store.
static INSERT_ATTEMPTS: LazyLock<Rows> = LazyLock::new(|| {
    Rows::insert(
        "INSERT INTO attempts (id, message_id, device_id, epoch, transport_message_id, provider_id, text, greeting,
            attempted_at)",
        9,
        "",
    )
});
/// `InsertMessages` with `supersedes`, `MarkMessage`, `CancelMessage`: one message, by the unique index of ids.
pub(crate) const ONE: &str = live!("FROM messages m WHERE m.id = ?");
/// `Suppress`, `ErasePerson`: the messages to a person, by `messages_person`.
pub(crate) const OPEN_TO: &str =
    live!("FROM messages m INDEXED BY messages_person WHERE m.person = ? AND m.state IN (1, 2, 4) ORDER BY m.id");
/// `ErasePerson`: by `messages_person`.
pub(crate) const ERASE: &str = "
    UPDATE messages SET phone = NULL, name = '', custom = NULL, content = NULL, detail = NULL
    WHERE seq IN (SELECT m.seq FROM messages m INDEXED BY messages_person WHERE m.person = ?1 AND m.user_id = ?2)";
/// `ErasePerson`: by `messages_person` and `attempts_message`.
pub(crate) const ERASE_ATTEMPTS: &str = "
    UPDATE attempts SET text = '' WHERE seq IN (
        SELECT a.seq FROM messages m INDEXED BY messages_person
        CROSS JOIN attempts a INDEXED BY attempts_message ON a.message_id = m.id
        WHERE m.person = ?1 AND m.user_id = ?2)";
/// `Receipt` by our id where that is the attempt's own, by the unique index of attempts.
pub(crate) const BY_ATTEMPT: &str = live!(
    "FROM attempts a CROSS JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
    WHERE a.id = ?1 AND a.device_id = ?2 AND a.transport_message_id IS NULL"
);
/// `Receipt` by our id, by `attempts_ours`.
pub(crate) const BY_OURS: &str = live!(
    "FROM attempts a INDEXED BY attempts_ours
    CROSS JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
    WHERE a.transport_message_id = ?1 AND a.device_id = ?2 AND a.transport_message_id IS NOT NULL
    ORDER BY m.id DESC LIMIT 1"
);
/// `Receipt` by the vendor's id, by `attempts_provider`.
pub(crate) const BY_PROVIDER: &str = live!(
    "FROM attempts a INDEXED BY attempts_provider
    CROSS JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
    WHERE a.provider_id = ?1 AND a.device_id = ?2 AND a.provider_id IS NOT NULL ORDER BY m.id DESC LIMIT 1"
);
/// `Receipt` by recipient, `Replied`: the newest sent message of a device to a person at a number, by `messages_person`.
pub(crate) const SENT_TO: &str = live!(
    "FROM messages m INDEXED BY messages_person LEFT JOIN attempts a ON a.id = m.attempt_id
    WHERE m.person = ?2 AND m.phone = ?3 AND m.device_id = ?1 AND m.state = 5 AND (?4 = 0 OR m.delivery IS NULL)
    ORDER BY coalesce(a.attempted_at, m.created_at) DESC, m.id DESC LIMIT 1"
);
/// `TakenOver`: a message to a person whose newest attempt has that id, by `messages_person`.
pub(crate) const OURS_TO: &str = "
    SELECT 1 FROM messages m INDEXED BY messages_person CROSS JOIN attempts a ON a.id = m.attempt_id
    WHERE m.person = ?1 AND m.user_id = ?2
        AND (a.transport_message_id = ?3 OR (a.transport_message_id IS NULL AND a.id = ?4)) LIMIT 1";
/// `Replied`, `TakenOver`: by the primary key.
pub(crate) const HEAR: &str =
    "INSERT INTO replies (device_id, provider_id, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";

/// What decides over messages of a campaign.
struct CampaignFacts {
    user_id: UserId,
    status: CampaignStatus,
    archived: bool,
}

/// What the rows of a page of messages refer to, as far as it is not as it should be.
struct Facts {
    known: HashMap<IdempotencyKey, (MessageId, UserId)>,
    campaigns: HashMap<CampaignId, CampaignFacts>,
    flows: HashMap<(EnrolmentId, StepId), FlowFacts>,
    /// Devices that are not the user's.
    strange_devices: HashSet<(UserId, DeviceId)>,
    deleted_devices: HashSet<DeviceId>,
    /// Leads that are not the user's.
    strange_leads: HashSet<(UserId, LeadId)>,
    suppressed: HashSet<(UserId, PersonKey)>,
}

async fn read_list<'a, K, V, T>(
    connection: &mut SqliteConnection,
    sql: &'static str,
    keys: HashSet<&'a K>,
    read: impl Fn(&mut Columns<'_>) -> Done<(T, V)>,
) -> Done<HashMap<T, V>>
where
    K: Key + 'a,
    T: std::hash::Hash + Eq,
{
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let list = hex_list(keys);
    let rows = sqlx::query(sql).bind(list).fetch_all(connection).await?;
    Ok(read_all(&rows, read)?.into_iter().collect())
}

/// What of a list of keys a statement gives about a user.
async fn odd_among<'a, K: Key + 'a, T: DeserializeOwned>(
    connection: &mut SqliteConnection,
    sql: &'static str,
    keys: HashSet<&'a K>,
    user: UserId,
) -> Done<Vec<T>> {
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let statement = sqlx::query(sql).bind(hex_list(keys)).bind(blob(&user).to_vec());
    read_gathered(&statement.fetch_one(connection).await?)
}

const fn campaign_of(scope: &MessageScope) -> Option<&CampaignId> {
    match scope {
        MessageScope::Campaign(id) => Some(id),
        _ => None,
    }
}

/// Devices belong to their users.
pub(crate) async fn check_devices(connection: &mut SqliteConnection, all: Vec<(UserId, DeviceId)>) -> Done<()> {
    let users: HashSet<UserId> = all.iter().map(|(user, _)| *user).collect();
    for user in users {
        let ids = all.iter().filter(|(of, _)| *of == user).map(|(_, id)| id).collect();
        let odd: Vec<(HexKey<DeviceId>, u8)> = odd_among(connection, DEVICES, ids, user).await?;
        if odd.iter().any(|(_, strange)| *strange != 0) {
            return Err(Fail::not_found("device"));
        }
    }
    Ok(())
}

/// Leads belong to their users.
pub(crate) async fn check_leads(connection: &mut SqliteConnection, all: Vec<(UserId, LeadId)>) -> Done<()> {
    let users: HashSet<UserId> = all.iter().map(|(user, _)| *user).collect();
    for user in users {
        let ids = all.iter().filter(|(of, _)| *of == user).map(|(_, id)| id).collect();
        let odd: Vec<HexKey<LeadId>> = odd_among(connection, LEADS, ids, user).await?;
        if !odd.is_empty() {
            return Err(Fail::not_found("lead"));
        }
    }
    Ok(())
}

/// What a commit has found out before it inserts messages.
#[derive(Default)]
pub(crate) struct Found {
    /// Steps of enrolments that it has made.
    pub(crate) flows: HashMap<(EnrolmentId, StepId), FlowFacts>,
    /// Persons who are not on the list.
    pub(crate) not_suppressed: HashSet<(UserId, PersonKey)>,
}

impl Facts {
    async fn read(connection: &mut SqliteConnection, messages: &[Message], found: Found) -> Done<Self> {
        let known = read_list(connection, KNOWN, messages.iter().map(|m| &m.key).collect(), |c| {
            Ok((c.key("key")?, (c.key("id")?, c.key("user_id")?)))
        })
        .await?;
        let campaigns = messages.iter().filter_map(|m| campaign_of(&m.scope)).collect();
        let campaigns = read_list(connection, CAMPAIGNS, campaigns, |c| {
            let id = c.key("id")?;
            let facts = CampaignFacts {
                user_id: c.key("user_id")?,
                status: c.kind("status", CampaignStatus::from_u8)?,
                archived: c.flag()?,
            };
            Ok((id, facts))
        })
        .await?;
        let Found {
            mut flows,
            not_suppressed,
        } = found;
        let asked = messages.iter().filter_map(|m| m.flow.as_ref());
        let asked = asked.filter(|flow| !flows.contains_key(&(flow.enrolment_id, flow.step_id)));
        let gates = flows::gates(connection, asked).await?;
        flows.extend(gates);
        let mut facts = Self {
            known,
            campaigns,
            flows,
            strange_devices: HashSet::new(),
            deleted_devices: HashSet::new(),
            strange_leads: HashSet::new(),
            suppressed: HashSet::new(),
        };
        let users: HashSet<UserId> = messages.iter().map(|m| m.user_id).collect();
        for user in users {
            facts.read_of(connection, user, messages, &not_suppressed).await?;
        }
        Ok(facts)
    }

    async fn read_of(
        &mut self,
        connection: &mut SqliteConnection,
        user: UserId,
        messages: &[Message],
        not_suppressed: &HashSet<(UserId, PersonKey)>,
    ) -> Done<()> {
        let of = || messages.iter().filter(|m| m.user_id == user);
        let devices = of().filter_map(|m| m.device_id.as_ref()).collect();
        for (HexKey(device), strange) in odd_among::<_, (_, u8)>(connection, DEVICES, devices, user).await? {
            if strange == 0 {
                self.deleted_devices.insert(device);
            } else {
                self.strange_devices.insert((user, device));
            }
        }
        let leads = of().filter_map(|m| m.lead_id.as_ref()).collect();
        for HexKey(lead) in odd_among(connection, LEADS, leads, user).await? {
            self.strange_leads.insert((user, lead));
        }
        let persons = of().map(|m| &m.person);
        let persons: HashSet<_> = persons
            .filter(|person| !not_suppressed.contains(&(user, **person)))
            .collect();
        if persons.is_empty() {
            return Ok(());
        }
        let listed = suppressed_among(connection, user, persons).await?;
        self.suppressed.extend(listed.into_iter().map(|row| (user, row.person)));
        Ok(())
    }

    /// Device, lead and campaign of a message belong to its user.
    fn check_owners(&self, message: &Message) -> Done<()> {
        let user = message.user_id;
        if let Some(id) = campaign_of(&message.scope) {
            let facts = self.campaigns.get(id).filter(|facts| facts.user_id == user);
            if facts.ok_or(Fail::not_found("campaign"))?.archived {
                return Err(Fail::conflict("archived campaign"));
            }
        }
        if let MessageScope::Sequence(id) = message.scope {
            let facts = message
                .flow
                .and_then(|flow| self.flows.get(&(flow.enrolment_id, flow.step_id)));
            if facts.is_none_or(|facts| (facts.user_id, facts.sequence_id) != (user, id)) {
                return Err(Fail::not_found("enrolment"));
            }
        } else if message.flow.is_some() {
            return Err(Fail::conflict("message"));
        }
        if message
            .device_id
            .is_some_and(|id| self.strange_devices.contains(&(user, id)))
        {
            return Err(Fail::not_found("device"));
        }
        if message
            .lead_id
            .is_some_and(|id| self.strange_leads.contains(&(user, id)))
        {
            return Err(Fail::not_found("lead"));
        }
        Ok(())
    }

    /// Puts a new message where the one rule wants it.
    fn place(&self, message: &mut Message, now: Timestamp) -> Done<()> {
        match message.state {
            MessageState::Queued | MessageState::Held => {}
            MessageState::Sending | MessageState::InDoubt => return Err(Fail::conflict("message")),
            _ => {
                message.settled_at.get_or_insert(now);
                return Ok(());
            }
        }
        // Nobody would ever give it a device: only messages of campaigns and sequences wait in the pool.
        let pooled = message.from_pool && message.scope.is_bulk();
        if message.device_id.is_none() && !pooled {
            return Err(Fail::conflict("message"));
        }
        let status = campaign_of(&message.scope).and_then(|id| self.campaigns.get(id));
        let gate = match message.flow {
            Some(flow) => {
                let facts = self.flows.get(&(flow.enrolment_id, flow.step_id));
                facts.map_or(ScopeGate::Ended, |facts| facts.gate)
            }
            None => gate_of(message.scope, status.map(|facts| facts.status)),
        };
        let listed = self.suppressed.contains(&(message.user_id, message.person));
        let suppressed = if listed && !overrides(message.scope, message.override_suppression) {
            Suppressed::Yes
        } else {
            Suppressed::No
        };
        let to = requeued(
            gate,
            suppressed,
            message.device_id.is_some_and(|id| self.deleted_devices.contains(&id)),
            message.from_pool,
        );
        if to.to_pool {
            message.device_id = None;
        }
        if to.state == MessageState::Held {
            message.held_at.get_or_insert(now);
        } else if let Some(held_at) = message.held_at.take() {
            message.expires_at = message.expires_at + now.since(held_at);
        }
        message.doubt = None;
        if to.state.is_open() {
            message.settled_at = None;
        } else {
            message.settled_at.get_or_insert(now);
            message.reason = None;
        }
        message.state = to.state;
        message.reason = to.reason.or(message.reason);
        Ok(())
    }
}

/// Whether [`INSERT_NEW`] holds all that there is of a message.
const fn is_new(m: &Message) -> bool {
    matches!(m.state, MessageState::Queued)
        && matches!(
            (&m.supersedes, &m.attempt, &m.doubt, &m.held_at),
            (None, None, None, None)
        )
        && matches!((&m.delivery, &m.delivery_at, &m.settled_at), (None, None, None))
        && matches!((&m.reason, &m.detail), (None, None))
        && m.refusal_count == 0
        && !m.superseded
}

fn bind_new<'q>(statement: Bound<'q>, m: &Message) -> Bound<'q> {
    statement
        .bind(blob(&m.id).to_vec())
        .bind(blob(&m.user_id).to_vec())
        .bind(m.scope.kind())
        .bind(m.scope.id_bytes(&m.user_id).to_vec())
        .bind(m.scope.priority().as_u8())
        .bind(blob(&m.key).to_vec())
        .bind(m.round)
        .bind(opt_blob(m.lead_id.as_ref()).map(<[u8]>::to_vec))
        .bind(m.phone.map(|phone| phone.as_e164().to_owned()))
        .bind(blob(&m.person).to_vec())
        .bind(m.name.clone())
        .bind(custom_json(&m.custom))
        .bind(opt_blob(m.device_id.as_ref()).map(<[u8]>::to_vec))
        .bind(m.from_pool)
        .bind(opt_json(m.content.as_ref()))
        .bind(m.override_suppression)
        .bind(m.due_at.as_millis())
        .bind(opt_json(m.delay.as_ref()))
        .bind(m.expires_at.as_millis())
        .bind(m.state as u8)
        .bind(m.created_at.as_millis())
        .bind(m.flow.as_ref().map(|flow| blob(&flow.enrolment_id).to_vec()))
        .bind(m.flow.as_ref().map(|flow| blob(&flow.step_id).to_vec()))
        .bind(m.flow.as_ref().map(|flow| flow.steps_version))
}

fn bind<'q>(statement: Bound<'q>, m: &Message) -> Bound<'q> {
    let doubt = m.doubt;
    statement
        .bind(blob(&m.id).to_vec())
        .bind(blob(&m.user_id).to_vec())
        .bind(m.scope.kind())
        .bind(m.scope.id_bytes(&m.user_id).to_vec())
        .bind(m.scope.priority().as_u8())
        .bind(blob(&m.key).to_vec())
        .bind(m.round)
        .bind(opt_blob(m.supersedes.as_ref()).map(<[u8]>::to_vec))
        .bind(m.superseded)
        .bind(opt_blob(m.lead_id.as_ref()).map(<[u8]>::to_vec))
        .bind(m.phone.map(|phone| phone.as_e164().to_owned()))
        .bind(blob(&m.person).to_vec())
        .bind(m.name.clone())
        .bind(custom_json(&m.custom))
        .bind(opt_blob(m.device_id.as_ref()).map(<[u8]>::to_vec))
        .bind(m.from_pool)
        .bind(opt_json(m.content.as_ref()))
        .bind(m.override_suppression)
        .bind(m.due_at.as_millis())
        .bind(opt_json(m.delay.as_ref()))
        .bind(m.expires_at.as_millis())
        .bind(m.held_at.map(Timestamp::as_millis))
        .bind(m.state as u8)
        .bind(m.reason.map(|reason| reason as u8))
        .bind(m.detail.clone())
        .bind(m.refusal_count)
        .bind(m.delivery.map(|delivery| delivery as u8))
        .bind(m.delivery_at.map(Timestamp::as_millis))
        .bind(m.settled_at.map(Timestamp::as_millis))
        .bind(m.created_at.as_millis())
        .bind(m.attempt.as_ref().map(|attempt| blob(&attempt.id).to_vec()))
        .bind(m.attempt.as_ref().map(|attempt| attempt.epoch.0))
        .bind(doubt.map(|doubt| doubt.since_at.as_millis()))
        .bind(doubt.and_then(|doubt| doubt.cause).map(|cause| word(&cause)))
        .bind(doubt.map(|doubt| doubt.next_check_at.as_millis()))
        .bind(doubt.map(|doubt| doubt.not_found_count))
        .bind(doubt.map(|doubt| doubt.resend_count))
        .bind(m.flow.as_ref().map(|flow| blob(&flow.enrolment_id).to_vec()))
        .bind(m.flow.as_ref().map(|flow| blob(&flow.step_id).to_vec()))
        .bind(m.flow.as_ref().map(|flow| flow.steps_version))
}

fn counted(m: &Message) -> Counted {
    Counted {
        user_id: m.user_id,
        scope: m.scope,
        step_id: m.flow.map(|flow| flow.step_id),
        device_id: m.device_id,
        state: m.state,
        delivery: m.delivery,
        superseded: m.superseded,
    }
}

async fn write_messages(commit: &mut Commit<'_>, messages: &mut Vec<Message>) -> Done<()> {
    // In the order given: what is inserted first has the lower row number.
    for rows in messages.chunk_by(|a, b| is_new(a) == is_new(b)) {
        if is_new(&rows[0]) {
            INSERT_NEW.run(commit.connection, rows, bind_new).await?;
        } else {
            INSERT.run(commit.connection, rows, bind).await?;
        }
    }
    let attempts: Vec<(MessageId, &Attempt)> = messages
        .iter()
        .filter_map(|message| Some((message.id, message.attempt.as_ref()?)))
        .collect();
    INSERT_ATTEMPTS
        .run(commit.connection, &attempts, |statement, (message, attempt)| {
            statement
                .bind(blob(&attempt.id).to_vec())
                .bind(blob(message).to_vec())
                .bind(blob(&attempt.device_id).to_vec())
                .bind(attempt.epoch.0)
                .bind(kept_ours(attempt.id, &attempt.transport_message_id))
                .bind(attempt.provider_id.as_ref().map(|id| id.as_str().to_owned()))
                .bind(attempt.text.clone())
                .bind(attempt.greeting.clone())
                .bind(attempt.attempted_at.as_millis())
        })
        .await?;
    messages.clear();
    Ok(())
}

/// Adds messages in order, a page in few statements; a taken id is refused by the unique index.
pub(crate) async fn insert_messages(commit: &mut Commit<'_>, messages: Vec<Message>) -> Done<()> {
    insert_found(commit, messages, Found::default()).await
}

/// As [`insert_messages`], of which some is found out already.
pub(crate) async fn insert_found(commit: &mut Commit<'_>, messages: Vec<Message>, found: Found) -> Done<()> {
    let mut facts = Facts::read(commit.connection, &messages, found).await?;
    let mut rows = Vec::with_capacity(messages.len());
    let mut settled = Settlements::default();
    for mut message in messages {
        if let Some((known, user)) = facts.known.get(&message.key) {
            // A key names its user, so another's is no repetition but a mistake, and must tell nothing of theirs.
            if *user != message.user_id {
                return Err(Fail::conflict("message"));
            }
            commit.done.duplicates.push((message.key, *known));
            continue;
        }
        if let (Some(_), Some(flow)) = (message.supersedes, &message.flow) {
            // Others of this page may send earlier steps again.
            write_messages(commit, &mut rows).await?;
            facts.flows.extend(flows::gates(commit.connection, [flow]).await?);
        }
        facts.check_owners(&message)?;
        facts.place(&mut message, commit.now)?;
        facts.known.insert(message.key, (message.id, message.user_id));
        if let Some(earlier) = message.supersedes {
            // The row that it replaces may be one of this page.
            write_messages(commit, &mut rows).await?;
            supersede(commit, &message, earlier).await?;
        }
        commit.tallies.add(counted(&message));
        if let (Some(flow), Some(at), 0) = (&message.flow, message.settled_at, message.round) {
            settled.mark(flow.enrolment_id, flow.step_id, at);
        }
        commit.done.messages_inserted += 1;
        if message.state == MessageState::Queued {
            commit.done.wake.extend(message.device_id);
        }
        rows.push(message);
    }
    write_messages(commit, &mut rows).await?;
    settled.write(commit.connection, &mut commit.tallies).await
}

async fn message_of(commit: &mut Commit<'_>, user: UserId, id: MessageId) -> Done<Live> {
    let found = live_by(commit.connection, ONE, blob(&id).to_vec()).await?;
    if let Some(live) = found.into_iter().find(|live| live.user_id == user) {
        return Ok(live);
    }
    let archived = sqlx::query(archive::HAS)
        .bind(blob(&id).to_vec())
        .bind(blob(&user).to_vec());
    Err(match archived.fetch_optional(&mut *commit.connection).await? {
        Some(_) => Fail::conflict("archived message"),
        None => Fail::not_found("message"),
    })
}

/// Writes one change of a message.
async fn change(commit: &mut Commit<'_>, live: Live, change: impl FnOnce(&mut Live)) -> Done<()> {
    let mut batch = Batch::default();
    batch.change(live, change)?;
    batch.write(commit.connection, &mut commit.tallies).await
}

async fn supersede(commit: &mut Commit<'_>, by: &Message, id: MessageId) -> Done<()> {
    let earlier = message_of(commit, by.user_id, id).await?;
    let step_of = |flow: &FlowRef| (flow.enrolment_id, flow.step_id);
    if earlier.flow.as_ref().map(step_of) != by.flow.as_ref().map(step_of) {
        return Err(Fail::conflict("message"));
    }
    if let Some(flow) = &by.flow
        && flows::later_has_begun(commit.connection, flow).await?
    {
        return Err(Fail::conflict("message"));
    }
    let left_over = earlier.state == MessageState::Skipped && earlier.reason == Some(Reason::DeviceLimit);
    let replaceable = earlier.state.may_be_resent() || left_over;
    if earlier.scope != by.scope || earlier.superseded || !replaceable {
        return Err(Fail::conflict("message"));
    }
    change(commit, earlier, |live| live.superseded = true).await
}

/// A person says what became of an `unknown` message.
pub(crate) async fn mark_message(commit: &mut Commit<'_>, user: UserId, id: MessageId, sent: bool) -> Done<()> {
    let live = message_of(commit, user, id).await?;
    if live.state != MessageState::Unknown {
        return Err(Fail::conflict("message"));
    }
    let state = if sent { MessageState::Sent } else { MessageState::Failed };
    let now = commit.now;
    change(commit, live, |live| live.place(state, Some(Reason::ByPerson), now)).await
}

/// A person stops one message that is not being sent.
pub(crate) async fn cancel_message(commit: &mut Commit<'_>, user: UserId, id: MessageId) -> Done<()> {
    let live = message_of(commit, user, id).await?;
    if !matches!(live.state, MessageState::Queued | MessageState::Held) {
        return Err(Fail::conflict("message"));
    }
    let now = commit.now;
    change(commit, live, |live| {
        live.place(MessageState::Cancelled, Some(Reason::ByPerson), now);
    })
    .await
}

/// The newest message of a device whose newest attempt has our id.
async fn by_ours(commit: &mut Commit<'_>, device: DeviceId, id: &TransportMessageId) -> Done<Vec<Live>> {
    let attempt: Option<AttemptId> = id.as_str().parse().ok();
    if let Some(attempt) = attempt.filter(|attempt| TransportMessageId::from_attempt(*attempt) == *id) {
        let statement = sqlx::query(BY_ATTEMPT)
            .bind(blob(&attempt).to_vec())
            .bind(blob(&device).to_vec());
        let found = Live::read_all(&statement.fetch_all(&mut *commit.connection).await?)?;
        if !found.is_empty() {
            return Ok(found);
        }
    }
    by_text(commit, BY_OURS, device, id).await
}

async fn by_text(
    commit: &mut Commit<'_>,
    sql: &'static str,
    device: DeviceId,
    id: &TransportMessageId,
) -> Done<Vec<Live>> {
    let statement = sqlx::query(sql)
        .bind(id.as_str().to_owned())
        .bind(blob(&device).to_vec());
    Live::read_all(&statement.fetch_all(&mut *commit.connection).await?)
}

/// The newest sent message of a device to a person, or the newest of them without a receipt.
async fn sent_to(
    commit: &mut Commit<'_>,
    device: DeviceId,
    (phone, person): (Phone, PersonKey),
    unreceipted: bool,
) -> Done<Vec<Live>> {
    let statement = sqlx::query(SENT_TO)
        .bind(blob(&device).to_vec())
        .bind(blob(&person).to_vec())
        .bind(phone.as_e164().to_owned())
        .bind(unreceipted);
    Live::read_all(&statement.fetch_all(&mut *commit.connection).await?)
}

/// A receipt: moves delivery forward only; by an id it is also evidence that the message was sent.
pub(crate) async fn receipt(
    commit: &mut Commit<'_>,
    (user, device): (UserId, DeviceId),
    message: &MessageRef,
    (delivery, at): (Delivery, Timestamp),
) -> Done<()> {
    device_of(commit.connection, user, device).await?;
    let found = match message {
        MessageRef::Ours(id) => by_ours(commit, device, id).await?,
        MessageRef::Provider(id) => by_text(commit, BY_PROVIDER, device, id).await?,
        // Where there is no seed there are no people.
        MessageRef::NewestTo(phone) => match known_seed(commit.connection).await? {
            Some(seed) => sent_to(commit, device, (*phone, PersonKey::of(&seed, user, phone)), true).await?,
            None => Vec::new(),
        },
        // A way to name a message that is newer than this store finds none.
        _ => Vec::new(),
    };
    let Some(live) = found.into_iter().next() else {
        return Ok(());
    };
    let (id, state) = (live.id, live.state);
    let moves = match state {
        MessageState::Sent | MessageState::Sending => Delivery::advances(live.delivery, delivery),
        MessageState::Queued | MessageState::Held | MessageState::InDoubt | MessageState::Unknown => true,
        MessageState::Failed | MessageState::Skipped | MessageState::Cancelled => return Ok(()),
    };
    if moves {
        let now = commit.now;
        change(commit, live, |live| {
            if !matches!(state, MessageState::Sent | MessageState::Sending) {
                live.place(MessageState::Sent, None, now);
            }
            live.delivery = Some(delivery);
            live.delivery_at = Some(at);
        })
        .await?;
    }
    commit.done.matched.push(id);
    Ok(())
}

/// Stops the open messages to a person that are not being sent: those in doubt become `unknown`, others are skipped.
async fn stop(commit: &mut Commit<'_>, user: UserId, person: PersonKey, why: Reason) -> Done<()> {
    let theirs = live_by(commit.connection, OPEN_TO, blob(&person).to_vec()).await?;
    let now = commit.now;
    let mut batch = Batch::default();
    for live in theirs {
        let stays = why == Reason::Suppressed && overrides(live.scope, live.override_suppression);
        if live.user_id != user || stays {
            continue;
        }
        let (state, reason) = match live.state {
            MessageState::InDoubt => (MessageState::Unknown, Reason::EndedInDoubt),
            _ => (MessageState::Skipped, why),
        };
        batch.change(live, |live| live.place(state, Some(reason), now))?;
    }
    commit.done.moved += crate::row::count(batch.len());
    batch.write(commit.connection, &mut commit.tallies).await
}

/// A person must not be written to any more.
pub(crate) async fn suppress(commit: &mut Commit<'_>, suppression: &Suppression) -> Done<()> {
    put_suppression(commit.connection, suppression).await?;
    let (user, person) = (suppression.user_id, suppression.person);
    stop(commit, user, person, Reason::Suppressed).await?;
    enrolments::end_of_person(commit, (user, person), EnrolmentReason::Suppressed).await
}

/// Erases a person.
pub(crate) async fn erase_person(commit: &mut Commit<'_>, user: UserId, person: PersonKey, phone: Phone) -> Done<()> {
    erase_leads(commit.connection, user, phone).await?;
    erase_entries(commit.connection, user, phone).await?;
    erase_chats(commit.connection, user, person).await?;
    stop(commit, user, person, Reason::Erased).await?;
    enrolments::erase(commit, user, person).await?;
    for sql in [ERASE, ERASE_ATTEMPTS, archive::ERASE, archive::ERASE_ATTEMPTS] {
        sqlx::query(sql)
            .bind(blob(&person).to_vec())
            .bind(blob(&user).to_vec())
            .execute(&mut *commit.connection)
            .await?;
    }
    Ok(())
}

/// Whether a message to a person was sent by a device of the user.
async fn is_ours(commit: &mut Commit<'_>, user: UserId, person: PersonKey, id: &TransportMessageId) -> Done<bool> {
    let attempt: Option<AttemptId> = id.as_str().parse().ok();
    let found = sqlx::query(OURS_TO)
        .bind(blob(&person).to_vec())
        .bind(blob(&user).to_vec())
        .bind(id.as_str().to_owned())
        .bind(attempt.map(|attempt| blob(&attempt).to_vec()))
        .fetch_optional(&mut *commit.connection)
        .await?;
    Ok(found.is_some())
}

/// Records that a person wrote, or a human on the device's own phone, as the reason says by which it ends enrolments.
pub(crate) async fn wrote(
    commit: &mut Commit<'_>,
    (user, device): (UserId, DeviceId),
    (phone, person): (Phone, PersonKey),
    (provider_id, at): (&TransportMessageId, Timestamp),
    reason: EnrolmentReason,
) -> Done<()> {
    let owned = device_of(commit.connection, user, device).await?;
    if reason == EnrolmentReason::TakenOver && is_ours(commit, user, person, provider_id).await? {
        return Ok(());
    }
    let heard = sqlx::query(HEAR)
        .bind(blob(&device).to_vec())
        .bind(provider_id.as_str().to_owned())
        .bind(commit.now.as_millis())
        .execute(&mut *commit.connection)
        .await?;
    if heard.rows_affected() == 0 {
        return Ok(());
    }
    commit.done.reply_is_new = true;
    if owned.device.deleted_at.is_none() {
        change_device(commit.connection, user, device, |device| {
            device.last_active_at = device.last_active_at.max(Some(at));
        })
        .await?;
    }
    if warmth::touch(commit.connection, (user, device), person, at, commit.now).await? {
        commit.done.wake.push(device);
    }
    touch_leads(commit.connection, user, phone, at).await?;
    let newest = match reason {
        EnrolmentReason::Replied => sent_to(commit, device, (phone, person), false)
            .await?
            .into_iter()
            .next(),
        _ => None,
    };
    if let Some(live) = newest {
        commit.done.matched.push(live.id);
        if Delivery::advances(live.delivery, Delivery::Replied) {
            change(commit, live, |live| {
                live.delivery = Some(Delivery::Replied);
                live.delivery_at = Some(at);
            })
            .await?;
        }
    }
    enrolments::end_by_reply(commit, user, person, reason).await
}
