//! The gate: begins of attempts, and what takes messages off a lane before one.

use std::collections::HashSet;
use std::sync::LazyLock;

use sqlx::sqlite::SqliteConnection;
use wa_core::domain::device::Epoch;
use wa_core::domain::message::{MessageState, Reason};
use wa_core::id::{DeviceId, Incarnation, MessageId};
use wa_core::plan::ScopeGate;
use wa_core::store::{Begin, BeginItem, Begun, Decline};

use crate::error::{Done, Fail};
use crate::insert::Rows;
use crate::leases::check_node;
use crate::live::{Batch, LIVE_COLUMNS, Live, live};
use crate::message_row::kept_ours;
use crate::row::{Columns, Key, blob, hex, json};
use crate::tallies::Tallies;

/// `begin`, `settle`, `decline`: the devices of the items, by the primary key; what each is sending, by `messages_sending`.
pub(crate) const DEVICES: &str = "
    SELECT j.key, d.user_id, d.owner, d.epoch, d.deleted_at IS NULL AND d.hold_reason IS NULL,
        (SELECT s.id FROM messages s INDEXED BY messages_sending WHERE s.device_id = d.id AND s.state = 3)
    FROM json_each(?) j CROSS JOIN devices d ON d.id = unhex(j.value)";

/// `begin`, `settle`, `decline`: the messages of the items by the unique index of ids, with their place in the list.
pub(crate) const MESSAGES: &str = live!(", j.key FROM json_each(?) j CROSS JOIN messages m ON m.id = unhex(j.value)");

/// `begin`: the write-ahead mark of new attempts. By the row id.
pub(crate) const BEGIN: &str = "
    UPDATE messages SET state = 3, attempt_id = v.column2, epoch = v.column3, reason = NULL, detail = NULL
    FROM (VALUES (?,?,?)) AS v WHERE messages.seq = v.column1";
pub(crate) static BEGINS: LazyLock<Rows> = LazyLock::new(|| Rows::of(BEGIN));

/// `begin` with `again`: the attempt starts anew. By the unique index of ids.
pub(crate) const AGAIN: &str = "
    UPDATE attempts SET epoch = v.e, attempted_at = v.t
    FROM (SELECT unhex(value->>0) AS a, value->>1 AS e, value->>2 AS t FROM json_each(?)) AS v
    WHERE attempts.id = v.a";

/// `begin`: the attempts.
pub(crate) static ATTEMPTS: LazyLock<Rows> = LazyLock::new(|| {
    Rows::insert(
        "INSERT INTO attempts (id, message_id, device_id, epoch, transport_message_id, text, greeting, attempted_at)",
        8,
        "",
    )
});

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
    LIVE_COLUMNS == 29,
    "statements that add columns to live! rely on its width"
);

pub(crate) async fn begin(connection: &mut SqliteConnection, begin: &Begin) -> Done<Vec<Begun>> {
    check_node(connection, begin.incarnation).await?;
    let devices = item_devices(connection, begin.items.iter().map(|item| &item.device_id)).await?;
    let mut messages = item_messages(connection, begin.items.iter().map(|item| &item.message_id)).await?;
    let mut gate = Gate::default();
    let mut answers = Vec::with_capacity(begin.items.len());
    for (at, item) in begin.items.iter().enumerate() {
        let device = devices[at].as_ref();
        let open = device.is_some_and(|device| {
            device.is_owned_by(begin.incarnation, &item.user_id, item.epoch)
                && device.may_send
                && device.sending.is_none_or(|id| id == item.message_id)
        });
        if !open || gate.sending.contains(&item.device_id) {
            answers.push(Begun::NotOwner);
            continue;
        }
        // A message named twice was begun or moved the first time.
        let answer = match messages[at].take() {
            Some(live) if gate.seen.insert(live.seq) => gate.pass(item, live, begin)?,
            _ => Begun::Gone,
        };
        answers.push(answer);
    }
    gate.write(connection).await?;
    Ok(answers)
}

/// What the items of one begin come to.
#[derive(Default)]
struct Gate<'a> {
    sending: HashSet<DeviceId>,
    seen: HashSet<i64>,
    begun: Vec<(&'a BeginItem, i64)>,
    again: Vec<&'a BeginItem>,
    moved: Batch,
}

impl<'a> Gate<'a> {
    fn pass(&mut self, item: &'a BeginItem, live: Live, begin: &Begin) -> Done<Begun> {
        let ready = if item.again {
            live.state == MessageState::InDoubt && live.attempt_id == Some(item.attempt_id)
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
        self.sending.insert(item.device_id);
        self.begun.push((item, live.seq));
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
        if !self.begun.is_empty() {
            BEGINS
                .run(connection, &self.begun, |statement, (item, seq)| {
                    statement
                        .bind(*seq)
                        .bind(blob(&item.attempt_id).to_vec())
                        .bind(item.epoch.0)
                })
                .await?;
            ATTEMPTS
                .run(connection, &self.begun, |statement, (item, _)| {
                    statement
                        .bind(blob(&item.attempt_id).to_vec())
                        .bind(blob(&item.message_id).to_vec())
                        .bind(blob(&item.device_id).to_vec())
                        .bind(item.epoch.0)
                        .bind(kept_ours(item.attempt_id, &item.transport_message_id))
                        .bind(item.text.clone())
                        .bind(item.greeting.clone())
                        .bind(item.attempted_at.as_millis())
                })
                .await?;
        }
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
        let mut tallies = Tallies::default();
        self.moved.write(connection, &mut tallies).await?;
        tallies.write(connection).await
    }
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
                live.due_at = item.due_at.unwrap_or(live.due_at);
            }
        })?;
    }
    let declined = crate::row::count(batch.len());
    let mut tallies = Tallies::default();
    batch.write(connection, &mut tallies).await?;
    tallies.write(connection).await?;
    Ok(declined)
}
