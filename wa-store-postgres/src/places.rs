//! Where messages stand by their state, beside their rows: in the queue, parked (held, in doubt), on a lane (being sent), among the
//! outcomes, and what is left over of a campaign.
//!
//! A lane names what its device began last and sends it as long as that message says so: a settlement leaves the lane as it is.
//!
//! No index of messages names what a begin or a settlement writes, so that both change the row in its place. Whoever changes a
//! state moves the message here in the same transaction: `begin` and `settle` in their one statement where nothing stands against
//! them, everything else with [`Moves`], which reads from the row where the message stands.

use sqlx::postgres::PgConnection;
use wa_core::domain::message::{Message, MessageScope, MessageState, Reason};
use wa_core::id::{CampaignId, DeviceId, MessageId};

use crate::error::Done;
use crate::insert::{query, run_over};
use crate::live::Live;
use crate::row::{Key, keys};
use crate::tallies::Counted;

/// The device of what has none, as the queue and the tallies have it.
macro_rules! pool_device {
    () => {
        "'00000000-0000-0000-0000-000000000000'::uuid"
    };
}
pub(crate) use pool_device;

/// The turn of a lane after the next begin.
macro_rules! next_turn {
    ($turn:literal) => {
        concat!($turn, " % 2147483647 + 1")
    };
}
pub(crate) use next_turn;

/// The message that a device is sending, if any, by the primary keys. It may have gone on to another device since it was begun.
macro_rules! sent_by {
    ($device:literal) => {
        concat!(
            "(SELECT (SELECT p.id FROM messages p WHERE p.id = l.message_id AND p.state = 3 AND p.device_id = l.device_id)
            FROM lanes l WHERE l.device_id = ",
            $device,
            ")"
        )
    };
}
pub(crate) use sent_by;

/// Takes messages from the queue, as their rows still have them. By the primary keys.
pub(crate) const UNQUEUE: &str = concat!(
    "DELETE FROM queue q USING unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value
    WHERE q.device_id = coalesce(m.device_id, ",
    pool_device!(),
    ") AND q.priority = m.priority AND q.scope_id = m.scope_id AND q.due_at = m.due_at AND q.message_id = m.id"
);
/// Puts messages into the queue, as their rows have them by now. By the primary key.
pub(crate) const QUEUE: &str = concat!(
    "INSERT INTO queue (device_id, priority, scope_id, due_at, message_id, expires_at, from_pool)
    SELECT coalesce(m.device_id, ",
    pool_device!(),
    "), m.priority, m.scope_id, m.due_at, m.id, m.expires_at, m.from_pool
    FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value"
);
/// What is held or in doubt no longer. By the primary key.
pub(crate) const UNPARK: &str = "DELETE FROM parked WHERE message_id = ANY ($1)";
/// What is held or in doubt from now on. By the primary key.
pub(crate) const PARK: &str = "
    INSERT INTO parked (message_id, device_id, scope_id, next_check_at, state)
    SELECT m.id, m.device_id, m.scope_id, m.next_check_at, m.state
    FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value";
/// Lanes that send. By the primary key. Whoever takes them has them locked since before it looked that they are free.
pub(crate) const OCCUPY: &str = concat!(
    "UPDATE lanes SET message_id = v.message_id, turn = ",
    next_turn!("lanes.turn"),
    " FROM unnest($1::uuid[], $2::uuid[]) AS v (device_id, message_id) WHERE lanes.device_id = v.device_id"
);
/// What was sent, failed or became unknown. By the primary key.
pub(crate) const NOTE: &str = "
    INSERT INTO outcomes (message_id, device_id, scope_id, settled_at)
    SELECT m.id, m.device_id, CASE WHEN m.scope_kind < 3 THEN m.scope_id END, m.settled_at
    FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value";
/// By what id the vendor knows messages. By the primary key.
pub(crate) const MARK: &str = "
    INSERT INTO outcomes (message_id, mark) SELECT m.id, hashtextextended(m.provider_id, 0)
    FROM unnest($1::uuid[]) AS j (value) JOIN messages m ON m.id = j.value WHERE m.provider_id IS NOT NULL";
/// What is left over of campaigns. By the primary key.
pub(crate) const LEAVE: &str =
    "INSERT INTO left_over (campaign_id, message_id) SELECT * FROM unnest($1::uuid[], $2::uuid[])";
/// What was left over and is taken up. By the primary key.
pub(crate) const TAKE_UP: &str = "
    DELETE FROM left_over USING unnest($1::uuid[], $2::uuid[]) AS v (campaign_id, message_id)
    WHERE left_over.campaign_id = v.campaign_id AND left_over.message_id = v.message_id";

/// Messages by the places that their states give them.
#[derive(Default)]
struct Places {
    queue: Vec<MessageId>,
    parked: Vec<MessageId>,
    lanes: Vec<(DeviceId, MessageId)>,
    outcomes: Vec<MessageId>,
    left_over: Vec<(CampaignId, MessageId)>,
}

impl Places {
    fn add(&mut self, id: MessageId, device: Option<DeviceId>, state: MessageState) {
        use MessageState::{Cancelled, Failed, Held, InDoubt, Queued, Sending, Sent, Skipped, Unknown};
        match state {
            Queued => self.queue.push(id),
            Held | InDoubt => self.parked.push(id),
            Sending => self.lanes.extend(device.map(|device| (device, id))),
            Sent | Failed | Unknown => self.outcomes.push(id),
            Skipped | Cancelled => {}
        }
    }
}

/// Messages that go from one place to another.
#[derive(Default)]
pub(crate) struct Moves {
    from: Places,
    to: Places,
    marked: Vec<MessageId>,
}

async fn of_rows<'a, K: Key + 'a>(
    connection: &mut PgConnection,
    sql: &'static str,
    messages: impl ExactSizeIterator<Item = &'a K>,
) -> Done<()> {
    if messages.len() > 0 {
        query(sql).bind(keys(messages)).execute(connection).await?;
    }
    Ok(())
}

/// The campaign of which a message is left over.
fn left_over_of(
    scope: MessageScope,
    state: MessageState,
    reason: Option<Reason>,
    superseded: bool,
) -> Option<CampaignId> {
    match scope {
        MessageScope::Campaign(id)
            if state == MessageState::Skipped && reason == Some(Reason::DeviceLimit) && !superseded =>
        {
            Some(id)
        }
        _ => None,
    }
}

impl Moves {
    /// Looks at a message that is about to change.
    pub(crate) fn see(&mut self, was: &Counted, live: &Live) {
        let stays = was.state == live.state && (was.state == MessageState::Sending || !was.state.is_open());
        if !stays {
            self.from.add(live.id, was.device_id, was.state);
            // What was settled keeps the instant at which it was, whatever it is found to be later.
            let noted = matches!(
                was.state,
                MessageState::Sent | MessageState::Failed | MessageState::Unknown
            );
            if !noted {
                self.to.add(live.id, live.device_id, live.state);
            }
        }
        let left = |superseded| left_over_of(live.scope, live.state, live.reason, superseded);
        if was.state != live.state {
            self.to
                .left_over
                .extend(left(live.superseded).map(|campaign| (campaign, live.id)));
        } else if live.superseded && !was.superseded {
            self.from
                .left_over
                .extend(left(false).map(|campaign| (campaign, live.id)));
        }
    }

    /// Looks at a message that is new.
    pub(crate) fn arrive(&mut self, message: &Message) {
        let Message { id, state, .. } = *message;
        self.to.add(id, message.device_id, state);
        let left = left_over_of(message.scope, state, message.reason, message.superseded);
        self.to.left_over.extend(left.map(|campaign| (campaign, id)));
        let attempt = message.attempt.as_ref();
        if attempt.is_some_and(|attempt| attempt.provider_id.is_some()) {
            self.marked.push(id);
        }
    }

    /// Looks at a queued message that goes to another place in the queue.
    pub(crate) fn requeue(&mut self, id: MessageId) {
        self.from.queue.push(id);
        self.to.queue.push(id);
    }

    /// Takes the messages from where they stand; before their rows change.
    pub(crate) async fn leave(&self, connection: &mut PgConnection) -> Done<()> {
        of_rows(connection, UNQUEUE, self.from.queue.iter()).await?;
        of_rows(connection, UNPARK, self.from.parked.iter()).await?;
        run_over(connection, TAKE_UP, &self.from.left_over, |row, (campaign, message)| {
            row.bind(campaign).bind(message)
        })
        .await?;
        Ok(())
    }

    /// Puts the messages where they stand now; after their rows changed.
    pub(crate) async fn enter(&self, connection: &mut PgConnection) -> Done<()> {
        of_rows(connection, QUEUE, self.to.queue.iter()).await?;
        of_rows(connection, PARK, self.to.parked.iter()).await?;
        run_over(connection, OCCUPY, &self.to.lanes, |row, (device, message)| {
            row.bind(device).bind(message)
        })
        .await?;
        of_rows(connection, NOTE, self.to.outcomes.iter()).await?;
        of_rows(connection, MARK, self.marked.iter()).await?;
        run_over(connection, LEAVE, &self.to.left_over, |row, (campaign, message)| {
            row.bind(campaign).bind(message)
        })
        .await?;
        Ok(())
    }
}
