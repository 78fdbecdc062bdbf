//! The gate: begins of attempts, and what takes messages off a lane before one.

use std::collections::HashSet;
use std::sync::LazyLock;

use sqlx::postgres::PgConnection;
use wa_core::domain::device::Epoch;
use wa_core::domain::message::{MessageState, Reason};
use wa_core::id::{AttemptId, DeviceId, Incarnation, MessageId, UserId};
use wa_core::plan::ScopeGate;
use wa_core::store::{Begin, BeginItem, Begun, Decline};
use wa_core::time::Timestamp;

use crate::copy::{COPY_MIN, copy_attempts};
use crate::error::{Done, Fail};
use crate::insert::{gather, insert, query, run_over};
use crate::leases::check_node;
use crate::live::{Batch, LIVE_COLUMNS, Live, live};
use crate::lock::{Mode, Space};
use crate::message_row::kept_ours;
use crate::places::{next_turn, sent_by};
use crate::row::{Columns, keys};
use crate::tallies::Tallies;

/// `begin`, `settle`, `decline`: the devices of the items and what each is sending, by the primary keys.
pub(crate) const DEVICES: &str = concat!(
    "SELECT j.key, d.user_id, d.owner, d.epoch, d.deleted_at IS NULL AND d.hold_reason IS NULL, ",
    sent_by!("d.id"),
    " FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN devices d ON d.id = j.value"
);

/// `begin`, `settle`, `decline`: the messages of the items by the unique index of ids, with their place in the list.
pub(crate) const MESSAGES: &str =
    live!(", j.key FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN messages m ON m.id = j.value");

/// The gate and the write-ahead mark at once, for first attempts that nothing at all stands against, with what is done with the attempts.
macro_rules! begin {
    ($items:literal, $attempts:literal, $logged:literal) => {
        concat!(
            "WITH i AS MATERIALIZED (
                SELECT * FROM unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::bigint[]",
            $items,
            ")
            ), begun AS (
                UPDATE messages m SET state = 3, attempt_id = i.attempt_id, epoch = i.epoch, reason = NULL, detail = NULL
                FROM i
                WHERE m.id = i.message_id AND m.state = 1 AND m.attempt_id IS NULL AND m.user_id = i.user_id
                    AND m.device_id = i.device_id
                    AND EXISTS (SELECT 1 FROM nodes n WHERE n.incarnation = $1 AND NOT n.fenced)
                    AND (
                        SELECT d.user_id = i.user_id AND d.epoch = i.epoch AND d.owner = $1 AND d.deleted_at IS NULL
                            AND d.hold_reason IS NULL
                        FROM devices d WHERE d.id = i.device_id
                    )
                    AND ",
            sent_by!("i.device_id"),
            " IS NULL
                    AND (
                        m.scope_kind <> 1
                        OR (SELECT c.status FROM campaigns c WHERE c.id = m.scope_id) = 3
                    )
                    AND (
                        m.enrolment_id IS NULL
                        OR (SELECT e.state FROM enrolments e WHERE e.id = m.enrolment_id) = 1
                        AND (SELECT q.status = 2 AND q.deleted_at IS NULL FROM sequences q WHERE q.id = m.scope_id)
                        AND NOT EXISTS (
                            SELECT 1 FROM messages r
                            WHERE r.enrolment_id = m.enrolment_id AND r.state < 5 AND r.scope_kind = 2 AND r.round > 0 AND r.id <> m.id
                        )
                    )
                    AND (SELECT l.reason FROM suppressions l WHERE l.user_id = m.user_id AND l.person = m.person) IS NULL
                RETURNING m.id, m.priority, m.scope_id, m.due_at, i.device_id, (
                    SELECT l.turn FROM lanes l WHERE l.device_id = i.device_id
                ) AS turn",
            $attempts,
            "
            ), taken AS (
                DELETE FROM queue q USING begun b
                WHERE q.device_id = b.device_id AND q.priority = b.priority AND q.scope_id = b.scope_id AND q.due_at = b.due_at
                    AND q.message_id = b.id
            ), occupied AS (
                UPDATE lanes l SET message_id = b.id, turn = CASE WHEN l.turn = b.turn THEN ",
            next_turn!("l.turn"),
            " ELSE -1 END
                FROM begun b WHERE l.device_id = b.device_id
            )",
            $logged,
            " SELECT array_agg(id) FROM begun"
        )
    };
}

/// `begin`: the gate, the write-ahead mark and the attempt at once, for first attempts that nothing at all stands against.
/// Message, place in the queue, lane, device, campaign, enrolment, sequence and suppression by their unique indexes; steps that are
/// sent again by `messages_flow`. What has to be true is asked for as a value and not by EXISTS: Postgres may
/// read everything that would satisfy such a one into a hash table, or join it from end to end to every message because it
/// was hardly there when Postgres looked last.
pub(crate) const BEGIN: &str = begin!(
    ", $7::text[], $8::text[], $9::text[], $10::bigint[]) AS i (message_id, attempt_id, user_id, device_id, epoch,
        ours, text, greeting, attempted_at",
    ", i.attempt_id, i.epoch, i.ours, i.text, i.greeting, i.attempted_at",
    ", logged AS (
        INSERT INTO attempts (id, message_id, device_id, epoch, transport_message_id, text, greeting, attempted_at)
        SELECT b.attempt_id, b.id, b.device_id, b.epoch, b.ours, b.text, b.greeting, b.attempted_at FROM begun b
    )"
);
/// `begin`: the same of many, whose attempts are copied afterwards.
pub(crate) const BEGIN_MANY: &str = begin!(") AS i (message_id, attempt_id, user_id, device_id, epoch", "", "");

/// `begin`, `settle`, `decline`: messages that are looked at one by one stand still from now on. By the primary key.
pub(crate) const LOCK: &str = "SELECT id FROM messages WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE";

/// `begin`: lanes whose messages are looked at one by one stand still from now on. By the primary key.
pub(crate) const LOCK_LANES: &str =
    "SELECT device_id FROM lanes WHERE device_id = ANY ($1) ORDER BY device_id FOR NO KEY UPDATE";

/// `begin` with `again`: the attempt starts anew. By the primary key.
pub(crate) const AGAIN: &str = "
    UPDATE attempts SET epoch = v.epoch, attempted_at = v.at
    FROM unnest($1::uuid[], $2::bigint[], $3::bigint[]) AS v (id, epoch, at) WHERE attempts.id = v.id";

/// `begin`: the vendor's ids of attempts that are not the newest any more go with them. By the primary keys; coalesce keeps Postgres
/// from going through all messages that have such an id.
pub(crate) const SET_ASIDE: &str = "
    WITH v AS MATERIALIZED (
        SELECT m.id, m.provider_id, m.attempt_id FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value
        WHERE coalesce(m.provider_id, '') <> ''
    ), kept AS (
        UPDATE attempts SET provider_id = v.provider_id FROM v WHERE attempts.id = v.attempt_id
    )
    UPDATE messages SET provider_id = NULL FROM v WHERE messages.id = v.id";

/// `begin`: the attempts.
pub(crate) static ATTEMPTS: LazyLock<String> = LazyLock::new(|| {
    insert(
        "INSERT INTO attempts (id, message_id, device_id, epoch, transport_message_id, text, greeting, attempted_at, earlier_id)",
        "uuuitttiu",
        "",
    )
});

/// The device of one item.
#[derive(Clone)]
pub(crate) struct ItemDevice {
    user: UserId,
    owner: Option<Incarnation>,
    epoch: Epoch,
    may_send: bool,
    sending: Option<MessageId>,
}

impl ItemDevice {
    /// Whether a node may write as the owner of the device.
    pub(crate) fn is_owned_by(&self, node: Incarnation, user: UserId, epoch: Epoch) -> bool {
        self.owner == Some(node) && self.epoch == epoch && self.user == user
    }
}

/// The devices of a list of items, in its order.
pub(crate) async fn item_devices(
    connection: &mut PgConnection,
    devices: impl ExactSizeIterator<Item = &DeviceId>,
) -> Done<Vec<Option<ItemDevice>>> {
    let mut found = vec![None; devices.len()];
    let list = keys(devices);
    for row in query(DEVICES).bind(list).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let at: usize = c.place()?;
        found[at] = Some(ItemDevice {
            user: c.key("user_id")?,
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
    connection: &mut PgConnection,
    messages: impl ExactSizeIterator<Item = &'a MessageId>,
) -> Done<Vec<Option<Live>>> {
    let mut found = vec![None; messages.len()];
    let list = keys(messages);
    for row in query(MESSAGES).bind(list).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let live = Live::read(&mut c)?;
        let at: usize = c.place()?;
        found[at] = Some(live);
    }
    Ok(found)
}

const _: () = assert!(
    LIVE_COLUMNS == 33,
    "statements that add columns to live! rely on its width"
);

/// Locks messages that are looked at one by one, so that what is read of them afterwards stays true.
pub(crate) async fn lock_messages<'a>(
    connection: &mut PgConnection,
    messages: impl IntoIterator<Item = &'a MessageId>,
) -> Done<()> {
    query(LOCK).bind(keys(messages)).execute(connection).await?;
    Ok(())
}

/// Locks the lanes of devices, so that whether they are free stays true.
async fn lock_lanes<'a>(connection: &mut PgConnection, devices: impl IntoIterator<Item = &'a DeviceId>) -> Done<()> {
    query(LOCK_LANES).bind(keys(devices)).execute(connection).await?;
    Ok(())
}

/// Takes the locks of a statement of owners.
pub(crate) async fn lock_as_owner<'a>(
    connection: &mut PgConnection,
    space: Space,
    nodes: impl IntoIterator<Item = Incarnation>,
    users: impl IntoIterator<Item = &'a UserId>,
    mode: Mode,
) -> Done<()> {
    let locks = space.locks().users(users, mode);
    let locks = nodes
        .into_iter()
        .fold(locks, |locks, node| locks.node(node, Mode::Shared));
    locks.take(connection).await
}

pub(crate) async fn begin(connection: &mut PgConnection, space: Space, begin: &Begin, mode: Mode) -> Done<Vec<Begun>> {
    let users = begin.items.iter().map(|item| &item.user_id);
    lock_as_owner(connection, space, [begin.incarnation], users, mode).await?;
    let plain = begin_plain(connection, begin).await?;
    let mut answers = vec![Begun::Yes; begin.items.len()];
    let others: Vec<(usize, &BeginItem)> = begin
        .items
        .iter()
        .enumerate()
        .filter(|(_, item)| !plain.contains(&item.message_id))
        .collect();
    if others.is_empty() && !begin.items.is_empty() {
        return Ok(answers);
    }
    check_node(connection, begin.incarnation).await?;
    lock_messages(connection, others.iter().map(|(_, item)| &item.message_id)).await?;
    lock_lanes(connection, others.iter().map(|(_, item)| &item.device_id)).await?;
    let devices = item_devices(connection, others.iter().map(|(_, item)| &item.device_id)).await?;
    let messages = item_messages(connection, others.iter().map(|(_, item)| &item.message_id)).await?;
    let mut gate = Gate::default();
    for (((at, item), device), message) in others.into_iter().zip(devices).zip(messages) {
        answers[at] = gate.look(item, device.as_ref(), message, begin)?;
    }
    if mode == Mode::Shared && gate.moved.needs_alone() {
        return Err(Fail::NeedsAlone);
    }
    gate.write(connection).await?;
    Ok(answers)
}

/// Begins the items that nothing stands against, nearly all as a rule, and gives their messages. The others are to be looked at
/// one by one.
async fn begin_plain(connection: &mut PgConnection, begin: &Begin) -> Done<HashSet<MessageId>> {
    let (mut devices, mut messages) = (HashSet::new(), HashSet::new());
    let new: Vec<&BeginItem> = begin.items.iter().filter(|item| !item.again).collect();
    // Of several for one device or of one message the first wins, so that each has to be looked at.
    let alone = |item: &BeginItem| devices.insert(item.device_id) && messages.insert(item.message_id);
    if new.is_empty() || !begin.items.iter().all(alone) {
        return Ok(HashSet::new());
    }
    let mut new = new;
    new.sort_unstable_by_key(|item| item.message_id);
    let copies = new.len() >= COPY_MIN;
    let rows = gather(&new, |row, item| {
        let row = row
            .bind(&item.message_id)
            .bind(&item.attempt_id)
            .bind(&item.user_id)
            .bind(&item.device_id)
            .bind(item.epoch.0);
        if copies {
            return row;
        }
        row.bind(kept_ours(item.attempt_id, &item.transport_message_id))
            .bind(item.text.clone())
            .bind(item.greeting.clone())
            .bind(item.attempted_at.as_millis())
    });
    let statement = query(if copies { BEGIN_MANY } else { BEGIN }).bind(&begin.incarnation);
    let begun = rows.add_to(statement).fetch_one(connection).await?;
    let begun = Columns::of(&begun).key_set("id")?;
    if copies && !begun.is_empty() {
        new.retain(|item| begun.contains(&item.message_id));
        copy_attempts(connection, &new).await?;
    }
    Ok(begun)
}

/// What the items of one begin come to.
#[derive(Default)]
struct Gate<'a> {
    sending: HashSet<DeviceId>,
    seen: HashSet<MessageId>,
    /// With the attempt before of the same message.
    attempts: Vec<(&'a BeginItem, Option<AttemptId>)>,
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
            device.is_owned_by(begin.incarnation, item.user_id, item.epoch)
                && device.may_send
                && device.sending.is_none_or(|id| id == item.message_id)
        });
        if !open || self.sending.contains(&item.device_id) {
            return Ok(Begun::NotOwner);
        }
        // A message named twice was begun or moved the first time.
        match message {
            Some(live) if self.seen.insert(live.id) => self.pass(item, live, begin),
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
        let earlier = live.attempt_id;
        self.moved.change(live, |live| {
            live.place(MessageState::Sending, None, begin.now);
            live.detail = None;
            live.attempt_id = Some(item.attempt_id);
            live.epoch = Some(item.epoch);
        })?;
        self.sending.insert(item.device_id);
        self.attempts.push((item, earlier));
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

    async fn write(self, connection: &mut PgConnection) -> Done<()> {
        let tried = self.attempts.iter().filter(|(_, earlier)| earlier.is_some());
        run_over(connection, SET_ASIDE, tried, |row, (item, _)| {
            row.bind(&item.message_id)
        })
        .await?;
        let mut tallies = Tallies::default();
        self.moved.write(connection, &mut tallies).await?;
        tallies.write(connection).await?;
        run_over(connection, ATTEMPTS.as_str(), &self.attempts, |row, (item, earlier)| {
            row.bind(&item.attempt_id)
                .bind(&item.message_id)
                .bind(&item.device_id)
                .bind(item.epoch.0)
                .bind(kept_ours(item.attempt_id, &item.transport_message_id))
                .bind(item.text.clone())
                .bind(item.greeting.clone())
                .bind(item.attempted_at.as_millis())
                .bind(earlier.as_ref())
        })
        .await?;
        run_over(connection, AGAIN, &self.again, |row, item| {
            row.bind(&item.attempt_id)
                .bind(item.epoch.0)
                .bind(item.attempted_at.as_millis())
        })
        .await?;
        Ok(())
    }
}

/// Takes queued messages off their lane; gives how many.
pub(crate) async fn decline(
    connection: &mut PgConnection,
    space: Space,
    items: &[Decline],
    mode: Mode,
    now: Timestamp,
) -> Done<u64> {
    let nodes: HashSet<Incarnation> = items.iter().map(|item| item.incarnation).collect();
    let users = items.iter().map(|item| &item.user_id);
    lock_as_owner(connection, space, nodes.iter().copied(), users, mode).await?;
    for node in nodes {
        check_node(connection, node).await?;
    }
    let allowed = [MessageState::Skipped, MessageState::Failed, MessageState::Queued];
    if items.iter().any(|item| !allowed.contains(&item.state)) {
        return Err(Fail::conflict("message"));
    }
    lock_messages(connection, items.iter().map(|item| &item.message_id)).await?;
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
        let owned = device.is_owned_by(item.incarnation, item.user_id, item.epoch);
        if !queued || !owned || !seen.insert(live.id) {
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
    if mode == Mode::Shared && batch.needs_alone() {
        return Err(Fail::NeedsAlone);
    }
    let declined = crate::row::count(batch.len());
    let mut tallies = Tallies::default();
    batch.write(connection, &mut tallies).await?;
    tallies.write(connection).await?;
    Ok(declined)
}
