//! The gate: begins of attempts, and what takes messages off a lane before one.

use std::collections::HashSet;

use serde::Serialize;
use sqlx::sqlite::SqliteConnection;
use wa_core::domain::device::Epoch;
use wa_core::domain::message::{MessageState, Reason};
use wa_core::id::{DeviceId, Incarnation, MessageId};
use wa_core::plan::ScopeGate;
use wa_core::store::{Begin, BeginItem, Begun, Decline};

use crate::error::{Done, Fail};
use crate::leases::check_node;
use crate::live::{Batch, LIVE_COLUMNS, Live, live};
use crate::message_row::kept_ours;
use crate::row::{Columns, Key, blob, count, fetch_list, hex, json, packed, packed_numbers};
use crate::tallies::Tallies;

/// `begin`, `settle`, `decline`: the devices of the items, by the primary key; what each is sending, by `messages_sending`.
pub(crate) const DEVICES: &str = "
    SELECT j.key, d.user_id, d.owner, d.epoch, d.deleted_at IS NULL AND d.hold_reason IS NULL,
        (SELECT s.id FROM messages s INDEXED BY messages_sending WHERE s.device_id = d.id AND s.state = 3)
    FROM json_each(?) j CROSS JOIN devices d ON d.id = unhex(j.value)";

/// `begin`, `settle`, `decline`: the messages of the items by the unique index of ids, with their place in the list.
pub(crate) const MESSAGES: &str = live!(", j.key FROM json_each(?) j CROSS JOIN messages m ON m.id = unhex(j.value)");

/// `begin`: the gate and the write-ahead mark at once, for new attempts that nothing at all stands against. Node, message, device,
/// campaign, enrolment, sequence and suppression by their unique indexes; what else the device is sending by `messages_sending`,
/// steps that are sent again by `messages_resent`. Materialized, because SQLite would walk the table otherwise.
pub(crate) const BEGIN: &str = "
    WITH v AS MATERIALIZED (
        SELECT m.seq, substr(?3, j.key * 16 + 1, 16) AS attempt_id, j.value AS epoch
        FROM json_each(?1) j CROSS JOIN messages m ON m.id = substr(?2, j.key * 16 + 1, 16)
        WHERE m.state = 1 AND m.user_id = substr(?4, j.key * 16 + 1, 16) AND m.device_id = substr(?5, j.key * 16 + 1, 16)
            AND EXISTS (SELECT 1 FROM nodes n WHERE n.incarnation = ?6 AND n.fenced = 0)
            AND EXISTS (
                SELECT 1 FROM devices d WHERE d.id = m.device_id AND d.user_id = m.user_id AND d.epoch = j.value
                    AND d.owner = ?6 AND d.deleted_at IS NULL AND d.hold_reason IS NULL
            )
            AND NOT EXISTS (
                SELECT 1 FROM messages s INDEXED BY messages_sending WHERE s.device_id = m.device_id AND s.state = 3
            )
            AND (
                m.campaign_id IS NULL
                OR EXISTS (SELECT 1 FROM campaigns c WHERE c.id = m.campaign_id AND c.status = 3)
            )
            AND (
                m.enrolment_id IS NULL
                OR EXISTS (SELECT 1 FROM enrolments e WHERE e.id = m.enrolment_id AND e.state = 1)
                AND EXISTS (SELECT 1 FROM sequences q WHERE q.id = m.scope_id AND q.status = 2 AND q.deleted_at IS NULL)
                AND NOT EXISTS (
                    SELECT 1 FROM messages r INDEXED BY messages_resent
                    WHERE r.enrolment_id = m.enrolment_id AND r.state < 5 AND r.scope_kind = 2 AND r.round > 0 AND r.id <> m.id
                )
            )
            AND NOT EXISTS (SELECT 1 FROM suppressions l WHERE l.user_id = m.user_id AND l.person = m.person)
    )
    UPDATE messages SET state = 3, attempt_id = v.attempt_id, epoch = v.epoch, reason = NULL, detail = NULL
    FROM v WHERE messages.seq = v.seq";

/// `begin`: which of them began, by their place in the list: the attempts of earlier calls are in the log. By the unique
/// indexes of ids.
pub(crate) const BEGUN: &str = "
    SELECT json_group_array(j.key)
    FROM json_each(?) j CROSS JOIN messages m ON m.id = unhex(j.value->>0)
    WHERE m.attempt_id = unhex(j.value->>1) AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.id = m.attempt_id)";

/// `begin` with `again`: the attempt starts anew. By the unique index of ids.
pub(crate) const AGAIN: &str = "
    UPDATE attempts SET epoch = v.e, attempted_at = v.t
    FROM (SELECT unhex(value->>0) AS a, value->>1 AS e, value->>2 AS t FROM json_each(?)) AS v
    WHERE attempts.id = v.a";

/// `begin`: the attempts. A text that has neither a greeting nor an id of its own stands for itself, others in a list with these.
pub(crate) const ATTEMPTS: &str = "
    INSERT INTO attempts (id, message_id, device_id, epoch, transport_message_id, text, greeting, attempted_at)
    SELECT substr(?2, j.key * 16 + 1, 16), substr(?3, j.key * 16 + 1, 16), substr(?4, j.key * 16 + 1, 16),
        CAST(substr(?5, j.key * 20 + 1, 20) AS INTEGER), iif(j.type = 'array', j.value->>1, NULL),
        iif(j.type = 'array', j.value->>0, j.value), iif(j.type = 'array', j.value->>2, NULL),
        CAST(substr(?6, j.key * 20 + 1, 20) AS INTEGER)
    FROM json_each(?1) j";

/// The device of one item.
#[derive(Clone)]
pub(crate) struct ItemDevice {
    user: Vec<u8>,
    owner: Option<Incarnation>,
    epoch: Epoch,
    may_send: bool,
    sending: Option<MessageId>,
}

impl ItemDevice {
    /// Whether a node may write as the owner of the device.
    pub(crate) fn is_owned_by(&self, node: Incarnation, user: &impl Key, epoch: Epoch) -> bool {
        self.owner == Some(node) && self.epoch == epoch && self.user == user.bytes()
    }
}

/// The devices of a list of items, in its order.
pub(crate) async fn item_devices(
    connection: &mut SqliteConnection,
    devices: impl ExactSizeIterator<Item = &DeviceId>,
) -> Done<Vec<Option<ItemDevice>>> {
    let mut found = vec![None; devices.len()];
    let list = crate::row::hex_list(devices);
    for row in sqlx::query(DEVICES).bind(list).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let at: usize = c.small("key")?;
        found[at] = Some(ItemDevice {
            user: c.bytes()?.to_vec(),
            owner: c.opt_key("owner")?,
            epoch: Epoch(c.int()?),
            may_send: c.flag()?,
            sending: c.opt_key("sending")?,
        });
    }
    Ok(found)
}

/// The messages of a list of items, in its order.
pub(crate) async fn item_messages<'a>(
    connection: &mut SqliteConnection,
    messages: impl ExactSizeIterator<Item = &'a MessageId>,
) -> Done<Vec<Option<Live>>> {
    let mut found = vec![None; messages.len()];
    let list = crate::row::hex_list(messages);
    for row in sqlx::query(MESSAGES).bind(list).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let live = Live::read(&mut c)?;
        let at: usize = c.small("key")?;
        found[at] = Some(live);
    }
    Ok(found)
}

const _: () = assert!(
    LIVE_COLUMNS == 34,
    "statements that add columns to live! rely on its width"
);

pub(crate) async fn begin(connection: &mut SqliteConnection, begin: &Begin) -> Done<Vec<Begun>> {
    let plain = begin_plain(connection, begin).await?;
    // Where all began, the node may write: the gate has looked.
    if plain.is_empty() || plain.len() < begin.items.len() {
        check_node(connection, begin.incarnation).await?;
    }
    let mut gate = Gate::default();
    let mut answers = vec![Begun::Yes; begin.items.len()];
    let mut others = Vec::new();
    for (at, item) in begin.items.iter().enumerate() {
        if plain.contains(&at) {
            gate.attempts.push(item);
        } else {
            others.push((at, item));
        }
    }
    if !others.is_empty() {
        let devices = item_devices(connection, others.iter().map(|(_, item)| &item.device_id)).await?;
        let messages = item_messages(connection, others.iter().map(|(_, item)| &item.message_id)).await?;
        for (((at, item), device), message) in others.into_iter().zip(devices).zip(messages) {
            answers[at] = gate.look(item, device.as_ref(), message, begin)?;
        }
    }
    gate.write(connection).await?;
    Ok(answers)
}

/// Begins the items that nothing stands against, nearly all as a rule, and gives their places. The others are to be looked at
/// one by one.
async fn begin_plain(connection: &mut SqliteConnection, begin: &Begin) -> Done<HashSet<usize>> {
    let mut devices = HashSet::with_capacity(begin.items.len());
    // Of several for one device the first wins, so that each has to be looked at.
    if !begin.items.iter().all(|item| devices.insert(item.device_id)) {
        return Ok(HashSet::new());
    }
    let new: Vec<(usize, &BeginItem)> = begin.items.iter().enumerate().filter(|(_, item)| !item.again).collect();
    if new.is_empty() {
        return Ok(HashSet::new());
    }
    let items = || new.iter().map(|(_, item)| *item);
    let done = sqlx::query(BEGIN)
        .bind(json(&items().map(|item| item.epoch.0).collect::<Vec<_>>()))
        .bind(packed(items().map(|item| &item.message_id)))
        .bind(packed(items().map(|item| &item.attempt_id)))
        .bind(packed(items().map(|item| &item.user_id)))
        .bind(packed(items().map(|item| &item.device_id)))
        .bind(blob(&begin.incarnation).to_vec())
        .execute(&mut *connection)
        .await?;
    let begun = done.rows_affected();
    if begun == count(new.len()) {
        return Ok(new.into_iter().map(|(at, _)| at).collect());
    }
    let attempts: Vec<(String, String)> = new
        .iter()
        .map(|(_, item)| (hex(item.message_id.as_bytes()), hex(item.attempt_id.as_bytes())))
        .collect();
    let places: Vec<usize> = fetch_list(connection, BEGUN, json(&attempts)).await?;
    if count(places.len()) != begun {
        // An id of an attempt was used before.
        return Err(Fail::conflict("attempt"));
    }
    Ok(places.into_iter().map(|at| new[at].0).collect())
}

/// What the items of one begin come to.
#[derive(Default)]
struct Gate<'a> {
    sending: HashSet<DeviceId>,
    seen: HashSet<i64>,
    attempts: Vec<&'a BeginItem>,
    again: Vec<&'a BeginItem>,
    moved: Batch,
}

impl<'a> Gate<'a> {
    fn look(
        &mut self,
        item: &'a BeginItem,
        device: Option<&ItemDevice>,
        message: Option<Live>,
        begin: &Begin,
    ) -> Done<Begun> {
        let open = device.is_some_and(|device| {
            device.is_owned_by(begin.incarnation, &item.user_id, item.epoch)
                && device.may_send
                && device.sending.is_none_or(|id| id == item.message_id)
        });
        if !open || self.sending.contains(&item.device_id) {
            return Ok(Begun::NotOwner);
        }
        // A message named twice was begun or moved the first time.
        match message {
            Some(live) if self.seen.insert(live.seq) => self.pass(item, live, begin),
            _ => Ok(Begun::Gone),
        }
    }

    fn pass(&mut self, item: &'a BeginItem, live: Live, begin: &Begin) -> Done<Begun> {
        let ready = if item.again {
            live.state == MessageState::InDoubt
                && live.attempt_id == Some(item.attempt_id)
                && !live.doubt.is_some_and(|doubt| doubt.is_of_other_account())
        } else {
            live.state == MessageState::Queued
        };
        if !ready || (live.user_id, live.device_id) != (item.user_id, Some(item.device_id)) {
            return Ok(Begun::Gone);
        }
        if item.again {
            return self.pass_again(item, live, begin);
        }
        let to = live.requeued();
        if to.state != MessageState::Queued {
            self.moved.change(live, |live| live.go(&to, begin.now))?;
            return Ok(Begun::Stray(to.state, to.reason));
        }
        self.moved.change(live, |live| {
            live.place(MessageState::Sending, None, begin.now);
            live.detail = None;
            live.attempt_id = Some(item.attempt_id);
            live.epoch = Some(item.epoch);
        })?;
        self.sending.insert(item.device_id);
        self.attempts.push(item);
        Ok(Begun::Yes)
    }

    fn pass_again(&mut self, item: &'a BeginItem, live: Live, begin: &Begin) -> Done<Begun> {
        if live.doubt_has_ended() {
            let (state, reason) = (MessageState::Unknown, Some(Reason::EndedInDoubt));
            self.moved.change(live, |live| live.place(state, reason, begin.now))?;
            return Ok(Begun::Stray(state, reason));
        }
        if live.gate == ScopeGate::Paused {
            return Ok(Begun::Stray(MessageState::InDoubt, live.reason));
        }
        self.moved.change(live, |live| {
            live.place(MessageState::Sending, None, begin.now);
            live.detail = None;
            live.epoch = Some(item.epoch);
            if let Some(doubt) = &mut live.doubt {
                doubt.resend_count = doubt.resend_count.saturating_add(1);
            }
        })?;
        self.sending.insert(item.device_id);
        self.again.push(item);
        Ok(Begun::Yes)
    }

    async fn write(self, connection: &mut SqliteConnection) -> Done<()> {
        let mut tallies = Tallies::default();
        self.moved.write(connection, &mut tallies).await?;
        tallies.write(connection).await?;
        write_attempts(connection, &self.attempts).await?;
        if !self.again.is_empty() {
            let rows: Vec<(String, i64, i64)> = self
                .again
                .iter()
                .map(|item| {
                    let started = item.attempted_at.as_millis();
                    (hex(item.attempt_id.as_bytes()), item.epoch.0, started)
                })
                .collect();
            sqlx::query(AGAIN).bind(json(&rows)).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

/// The text of an attempt as [`ATTEMPTS`] takes it.
#[derive(Serialize)]
#[serde(untagged)]
enum AttemptText<'a> {
    Alone(&'a str),
    With(&'a str, Option<String>, Option<&'a str>),
}

impl<'a> AttemptText<'a> {
    fn of(item: &'a BeginItem) -> Self {
        let ours = kept_ours(item.attempt_id, &item.transport_message_id);
        match (ours, item.greeting.as_deref()) {
            (None, None) => Self::Alone(&item.text),
            (ours, greeting) => Self::With(&item.text, ours, greeting),
        }
    }
}

async fn write_attempts(connection: &mut SqliteConnection, attempts: &[&BeginItem]) -> Done<()> {
    if attempts.is_empty() {
        return Ok(());
    }
    let items = || attempts.iter().copied();
    let texts: Vec<AttemptText<'_>> = items().map(AttemptText::of).collect();
    sqlx::query(ATTEMPTS)
        .bind(json(&texts))
        .bind(packed(items().map(|item| &item.attempt_id)))
        .bind(packed(items().map(|item| &item.message_id)))
        .bind(packed(items().map(|item| &item.device_id)))
        .bind(packed_numbers(items().map(|item| item.epoch.0)))
        .bind(packed_numbers(items().map(|item| item.attempted_at.as_millis())))
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes queued messages off their lane; gives how many.
pub(crate) async fn decline(
    connection: &mut SqliteConnection,
    items: &[Decline],
    now: wa_core::time::Timestamp,
) -> Done<u64> {
    let nodes: HashSet<Incarnation> = items.iter().map(|item| item.incarnation).collect();
    for node in nodes {
        check_node(connection, node).await?;
    }
    let allowed = [MessageState::Skipped, MessageState::Failed, MessageState::Queued];
    if items.iter().any(|item| !allowed.contains(&item.state)) {
        return Err(Fail::conflict("message"));
    }
    let devices = item_devices(connection, items.iter().map(|item| &item.device_id)).await?;
    let messages = item_messages(connection, items.iter().map(|item| &item.message_id)).await?;
    let mut seen = HashSet::new();
    let mut batch = Batch::default();
    for ((item, device), live) in items.iter().zip(devices).zip(messages) {
        let (Some(device), Some(live)) = (device, live) else {
            continue;
        };
        let queued = live.state == MessageState::Queued
            && (live.user_id, live.device_id) == (item.user_id, Some(item.device_id));
        let owned = device.is_owned_by(item.incarnation, &item.user_id, item.epoch);
        if !queued || !owned || !seen.insert(live.seq) {
            continue;
        }
        batch.change(live, |live| {
            live.place(item.state, Some(item.reason), now);
            live.detail.clone_from(&item.detail);
            if item.state == MessageState::Queued {
                let until = item.due_at.unwrap_or(live.due_at);
                live.expires_at = item.reason.expiry_put_off(live.expires_at, live.due_at, until, now);
                live.due_at = until;
            }
        })?;
    }
    let declined = crate::row::count(batch.len());
    let mut tallies = Tallies::default();
    batch.write(connection, &mut tallies).await?;
    tallies.write(connection).await?;
    Ok(declined)
}
