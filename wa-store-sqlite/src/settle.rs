//! The facts after an attempt.

use std::collections::HashSet;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use wa_core::domain::delivery::Delivery;
use wa_core::domain::message::{InDoubt, Message, MessageState, Reason};
use wa_core::id::{DeviceId, Incarnation, MessageId};
use wa_core::store::{Advance, Outcome, Settle, Settled, Verdict};
use wa_core::time::Timestamp;
use wa_core::transport::TransportMessageId;

use crate::begin::item_devices;
use crate::enrolments;
use crate::error::Done;
use crate::insert::Bound;
use crate::leases::check_node;
use crate::live::{Batch, Live, live};
use crate::row::{Columns, blob, count, hex, hex_list, json, packed, read_gathered};
use crate::sweep::DOUBTS_OF_DEVICE;
use crate::tallies::Tallies;

/// `settle`: the messages by the unique index of ids, with the device of the newest attempt.
pub(crate) const MESSAGES: &str = live!(
    ", j.key, (SELECT a.device_id FROM attempts a WHERE a.id = m.attempt_id)
    FROM json_each(?) j CROSS JOIN messages m ON m.id = unhex(j.value)"
);

/// Messages of a list that were sent and of which no more is known, which nearly all are as a rule; those whose lead goes to the
/// device with them are not among them. Message, node and device by their unique indexes.
macro_rules! sent {
    ($select:literal, $end:literal) => {
        concat!(
            $select,
            " FROM json_each(?1) j CROSS JOIN messages m ON m.id = substr(?2, j.key * 16 + 1, 16)
            WHERE m.state = 3 AND m.attempt_id = substr(?3, j.key * 16 + 1, 16)
                AND m.user_id = substr(?4, j.key * 16 + 1, 16) AND m.device_id = substr(?5, j.key * 16 + 1, 16)
                AND m.superseded = 0 AND m.enrolment_id IS NULL
                AND NOT (m.from_pool = 1 AND EXISTS (
                    SELECT 1 FROM campaigns c WHERE c.id = m.campaign_id AND c.device_limit IS NOT NULL
                ))
                AND coalesce(m.delivery, m.held_at, m.doubt_since_at) IS NULL
                AND EXISTS (SELECT 1 FROM nodes n WHERE n.incarnation = ?6 AND n.fenced = 0)
                AND EXISTS (
                    SELECT 1 FROM devices d
                    WHERE d.id = m.device_id AND d.user_id = m.user_id AND d.epoch = j.value AND d.owner = ?6
                )",
            $end
        )
    };
}

/// `settle`: by the row id.
pub(crate) const SENT: &str = sent!(
    "UPDATE messages SET state = 5, settled_at = ?7, reason = NULL, detail = NULL WHERE seq IN (SELECT m.seq",
    ")"
);

/// `settle`: the places in a list of those that [`SENT`] would settle.
pub(crate) const FITTING: &str = sent!("SELECT json_group_array(j.key)", "");

/// `settle`: counts what [`SENT`] settled: one of each device at most, because no device sends two at a time (`messages_sending`).
/// Messages by the unique index of ids, tallies by the primary key. Materialized, because SQLite would walk the tallies otherwise.
pub(crate) const COUNT_SENT: &str = "
    WITH v AS MATERIALIZED (
        SELECT m.user_id, m.scope_kind, m.scope_id, m.device_id
        FROM json_each(?1) j CROSS JOIN messages m ON m.id = substr(?2, j.key * 16 + 1, 16)
    )
    UPDATE tallies SET done = done + 1, remaining = remaining - 1 FROM v
    WHERE tallies.user_id = v.user_id AND tallies.scope_kind = v.scope_kind AND tallies.scope_id = v.scope_id
        AND tallies.device_id = v.device_id";

/// `settle`: the vendor's ids of attempts; a first one stays where the outcome was recorded before. By the unique index of ids.
pub(crate) const PROVIDER_IDS: &str = "
    UPDATE attempts SET provider_id = CASE v.learn WHEN 1 THEN coalesce(provider_id, v.p) ELSE v.p END
    FROM (SELECT unhex(value->>0) AS a, value->>1 AS p, value->>2 AS learn FROM json_each(?)) AS v
    WHERE attempts.id = v.a";

/// `UpdateDevice`: what a device is sending, by `messages_sending`.
pub(crate) const SENDING_ON: &str = live!(
    ", (SELECT a.attempted_at FROM attempts a WHERE a.id = m.attempt_id)
    FROM messages m INDEXED BY messages_sending WHERE m.device_id = ? AND m.state = 3"
);
/// `fence`, `leave`: what the devices of a node are sending, by `devices_owner` and `messages_sending`.
pub(crate) const SENDING_OF_NODE: &str = live!(
    ", (SELECT a.attempted_at FROM attempts a WHERE a.id = m.attempt_id)
    FROM devices d INDEXED BY devices_owner
        CROSS JOIN messages m INDEXED BY messages_sending ON m.device_id = d.id AND m.state = 3
    WHERE d.owner = ?"
);

pub(crate) async fn settle(connection: &mut SqliteConnection, settle: &Settle) -> Done<Vec<Settled>> {
    let (sent, mut closer): (Vec<Place<'_>>, Vec<_>) = settle.outcomes.iter().enumerate().partition(|(_, outcome)| {
        let verdict = &outcome.verdict;
        matches!(verdict, Verdict::Sent { delivery: None, .. }) && outcome.detail.is_none() && outcome.advance.is_none()
    });
    let mut answers = vec![Settled::Yes(MessageState::Sent); settle.outcomes.len()];
    let all_sent = settle_sent(connection, settle, &sent).await?;
    // Where all outcomes were recorded so, the node may write: the statement has looked.
    if sent.is_empty() || !all_sent || !closer.is_empty() {
        check_node(connection, settle.incarnation).await?;
    }
    if !all_sent {
        // Steps of sequences, most often: what they are among is settled as before.
        let (fitting, others) = fitting(connection, settle, sent).await?;
        closer.extend(others);
        if !settle_sent(connection, settle, &fitting).await? {
            closer.extend(fitting);
        }
        closer.sort_unstable_by_key(|(at, _)| *at);
    }
    if !closer.is_empty() {
        let outcomes: Vec<_> = closer.iter().map(|(_, outcome)| *outcome).collect();
        let looked_at = settle_each(connection, settle, &outcomes).await?;
        for ((at, _), answer) in closer.into_iter().zip(looked_at) {
            answers[at] = answer;
        }
    }
    Ok(answers)
}

/// An outcome and its place in the list.
type Place<'a> = (usize, &'a Outcome);

/// Which of these need no closer look, and the others. Of two outcomes of one message the second does.
async fn fitting<'a>(
    connection: &mut SqliteConnection,
    settle: &Settle,
    sent: Vec<Place<'a>>,
) -> Done<(Vec<Place<'a>>, Vec<Place<'a>>)> {
    let row = of_sent(FITTING, settle, &sent).fetch_one(connection).await?;
    let fitting: HashSet<usize> = read_gathered::<usize>(&row)?.into_iter().collect();
    let mut seen = HashSet::new();
    let mut at = 0..;
    Ok(sent.into_iter().partition(|(_, outcome)| {
        let fits = at.next().is_some_and(|at| fitting.contains(&at));
        fits && seen.insert(outcome.message_id)
    }))
}

/// A statement over outcomes: their epochs, and the ids of their messages.
fn of_list(sql: &'static str, sent: &[Place<'_>]) -> Bound<'static> {
    let epochs: Vec<i64> = sent.iter().map(|(_, outcome)| outcome.epoch.0).collect();
    sqlx::query(sql)
        .bind(json(&epochs))
        .bind(packed(sent.iter().map(|(_, outcome)| &outcome.message_id)))
}

/// A statement of [`sent!`].
fn of_sent(sql: &'static str, settle: &Settle, sent: &[Place<'_>]) -> Bound<'static> {
    of_list(sql, sent)
        .bind(packed(sent.iter().map(|(_, outcome)| &outcome.attempt_id)))
        .bind(packed(sent.iter().map(|(_, outcome)| &outcome.user_id)))
        .bind(packed(sent.iter().map(|(_, outcome)| &outcome.device_id)))
        .bind(blob(&settle.incarnation).to_vec())
}

/// Settles what was sent and needs no closer look: all of it, or nothing.
async fn settle_sent(connection: &mut SqliteConnection, settle: &Settle, sent: &[Place<'_>]) -> Done<bool> {
    if sent.is_empty() {
        return Ok(true);
    }
    sqlx::query("SAVEPOINT sent").execute(&mut *connection).await?;
    let done = of_sent(SENT, settle, sent)
        .bind(settle.now.as_millis())
        .execute(&mut *connection)
        .await?;
    if done.rows_affected() != count(sent.len()) {
        sqlx::query("ROLLBACK TO sent").execute(&mut *connection).await?;
        return Ok(false);
    }
    of_list(COUNT_SENT, sent).execute(&mut *connection).await?;
    let mut facts = Facts::default();
    for (_, outcome) in sent {
        facts.note_provider_id(outcome);
    }
    facts.write(connection).await?;
    Ok(true)
}

/// Looks at each message before its outcome is recorded.
async fn settle_each(connection: &mut SqliteConnection, settle: &Settle, outcomes: &[&Outcome]) -> Done<Vec<Settled>> {
    let devices = item_devices(connection, outcomes.iter().map(|outcome| &outcome.device_id)).await?;
    let mut messages: Vec<Option<(Live, Option<DeviceId>)>> = vec![None; outcomes.len()];
    let list = hex_list(outcomes.iter().map(|outcome| &outcome.message_id));
    for row in sqlx::query(MESSAGES).bind(list).fetch_all(&mut *connection).await? {
        let mut c = Columns::of(&row);
        let live = Live::read(&mut c)?;
        let at: usize = c.small("key")?;
        messages[at] = Some((live, c.opt_key("attempt.device_id")?));
    }
    let mut seen = HashSet::new();
    let mut facts = Facts::default();
    let mut advances = Vec::new();
    let mut answers = Vec::with_capacity(outcomes.len());
    for ((outcome, device), message) in outcomes.iter().zip(devices).zip(messages) {
        let owns = device.is_some_and(|device| device.is_owned_by(settle.incarnation, &outcome.user_id, outcome.epoch));
        let nothing = if owns {
            Settled::NotSending
        } else {
            Settled::Lost(false)
        };
        let answer = match message {
            Some((live, of))
                if live.user_id == outcome.user_id
                    && live.attempt_id == Some(outcome.attempt_id)
                    && of == Some(outcome.device_id) =>
            {
                if seen.insert(live.seq) {
                    let advance = outcome.advance.as_deref().filter(|advance| follows(&live, advance));
                    let answer = facts.take(outcome, live, owns, settle.now)?.unwrap_or(nothing);
                    if matches!(answer, Settled::Yes(_) | Settled::Lost(true)) {
                        advances.extend(advance);
                    }
                    answer
                } else {
                    Settled::Already
                }
            }
            _ => nothing,
        };
        answers.push(answer);
    }
    facts.write(connection).await?;
    enrolments::follow(connection, &advances, settle.now).await?;
    Ok(answers)
}

/// Whether a move is of the enrolment and step of a message.
fn follows(live: &Live, advance: &Advance) -> bool {
    let flow = live.flow.filter(|_| live.round == 0);
    flow.is_some_and(|flow| (flow.enrolment_id, flow.step_id) == (advance.enrolment_id, advance.from))
}

/// What the outcomes of one settle come to.
#[derive(Default)]
struct Facts {
    moved: Batch,
    provider_ids: Vec<(String, TransportMessageId, u8)>,
}

impl Facts {
    /// Takes one outcome of the newest attempt of a message; `None` when it moves nothing.
    fn take(&mut self, outcome: &Outcome, live: Live, owns: bool, now: Timestamp) -> Done<Option<Settled>> {
        if was_recorded(&live, &outcome.verdict) {
            self.learn(outcome, live, now)?;
            return Ok(Some(Settled::Already));
        }
        let state = live.state;
        // Whether it was sent is open, and a statement about its try says nothing of that; only its gateway can.
        let too_late = state == MessageState::InDoubt
            && matches!(&outcome.verdict, Verdict::Requeue { reason, .. } if *reason != Reason::NotFoundAtGateway);
        if owns && !too_late && matches!(state, MessageState::Sending | MessageState::InDoubt) {
            return self.record(outcome, live, now).map(Settled::Yes).map(Some);
        }
        // A late outcome is evidence, whoever brings it, and evidence moves a message only to what it proves.
        let proves = matches!(outcome.verdict, Verdict::Sent { .. } | Verdict::Failed { .. });
        let moves = matches!(
            state,
            MessageState::InDoubt | MessageState::Unknown | MessageState::Queued | MessageState::Held
        );
        if !(proves && moves) {
            return Ok(None);
        }
        let state = self.record(outcome, live, now)?;
        Ok(Some(if owns { Settled::Yes(state) } else { Settled::Lost(true) }))
    }

    fn note_provider_id(&mut self, outcome: &Outcome) {
        if let Verdict::Sent {
            provider_id: Some(id), ..
        } = &outcome.verdict
        {
            self.provider_ids
                .push((hex(outcome.attempt_id.as_bytes()), id.clone(), 0));
        }
    }

    /// Moves a message as a verdict says.
    fn record(&mut self, outcome: &Outcome, live: Live, now: Timestamp) -> Done<MessageState> {
        self.note_provider_id(outcome);
        let requeued = live.requeued();
        let ended = live.doubt_has_ended();
        self.moved.change(live, |live| {
            live.detail.clone_from(&outcome.detail);
            // A receipt that came while it was being sent proves that it was sent, whatever the call itself came to.
            if live.delivery.is_some() && !matches!(outcome.verdict, Verdict::Sent { .. }) {
                live.place(MessageState::Sent, None, now);
                return;
            }
            match &outcome.verdict {
                Verdict::Sent { delivery, .. } => {
                    deliver(live, *delivery, now);
                    live.place(MessageState::Sent, None, now);
                }
                Verdict::Requeue { reason, due_at, counts } => {
                    live.refusal_count = live.refusal_count.saturating_add(u16::from(*counts));
                    if *counts && live.refusal_count > Message::REFUSALS_MAX {
                        live.place(MessageState::Failed, Some(Reason::RefusedTooOften), now);
                        return;
                    }
                    live.go(&requeued, now);
                    if live.state.is_open() {
                        live.reason = Some(*reason);
                        live.expires_at = reason.expiry_put_off(live.expires_at, live.due_at, *due_at, now);
                        live.due_at = *due_at;
                    }
                }
                Verdict::Failed { reason } => live.place(MessageState::Failed, Some(*reason), now),
                Verdict::Skipped { reason } => live.place(MessageState::Skipped, Some(*reason), now),
                Verdict::Unknown { reason } => live.place(MessageState::Unknown, Some(*reason), now),
                Verdict::InDoubt { .. } if ended => {
                    live.place(MessageState::Unknown, Some(Reason::EndedInDoubt), now);
                }
                Verdict::InDoubt {
                    cause,
                    next_check_at,
                    not_found_count,
                } => {
                    let before = live.doubt;
                    live.place(MessageState::InDoubt, None, now);
                    live.doubt = Some(InDoubt::told(before, *cause, *next_check_at, *not_found_count, now));
                }
            }
        })
    }

    /// Takes from an outcome that was recorded before what it tells beyond that: the vendor's id, and a further delivery.
    fn learn(&mut self, outcome: &Outcome, live: Live, now: Timestamp) -> Done<()> {
        let Verdict::Sent { provider_id, delivery } = &outcome.verdict else {
            return Ok(());
        };
        if let Some(id) = provider_id {
            self.provider_ids
                .push((hex(outcome.attempt_id.as_bytes()), id.clone(), 1));
        }
        if delivery.is_some_and(|next| Delivery::advances(live.delivery, next)) {
            self.moved.change(live, |live| deliver(live, *delivery, now))?;
        }
        Ok(())
    }

    async fn write(self, connection: &mut SqliteConnection) -> Done<()> {
        if !self.provider_ids.is_empty() {
            let list = json(&self.provider_ids);
            sqlx::query(PROVIDER_IDS).bind(list).execute(&mut *connection).await?;
        }
        let mut tallies = Tallies::default();
        self.moved.write(connection, &mut tallies).await?;
        tallies.write(connection).await
    }
}

fn deliver(live: &mut Live, delivery: Option<Delivery>, now: Timestamp) {
    if let Some(next) = delivery.filter(|next| Delivery::advances(live.delivery, *next)) {
        live.delivery = Some(next);
        live.delivery_at = Some(now);
    }
}

/// Whether the newest attempt of a message stands where this verdict would move it.
fn was_recorded(live: &Live, verdict: &Verdict) -> bool {
    use MessageState::{Cancelled, Failed, Held, InDoubt, Queued, Sent, Skipped, Unknown};
    match (verdict, live.state) {
        (Verdict::Sent { .. }, Sent) | (Verdict::Unknown { .. }, Unknown) => true,
        (Verdict::Failed { .. }, Failed) | (Verdict::Skipped { .. }, Skipped) => true,
        (Verdict::Requeue { .. }, Queued | Held | Cancelled | Skipped) => true,
        (Verdict::Requeue { counts, .. }, Failed) => *counts && live.reason == Some(Reason::RefusedTooOften),
        (Verdict::InDoubt { .. }, Unknown) => live.reason == Some(Reason::EndedInDoubt),
        (
            Verdict::InDoubt {
                cause,
                next_check_at,
                not_found_count,
            },
            InDoubt,
        ) => live.doubt.is_some_and(|doubt| {
            (doubt.cause, doubt.next_check_at, doubt.not_found_count)
                == (Some(*cause), *next_check_at, *not_found_count)
        }),
        _ => false,
    }
}

/// Nobody can be asked about what a device is sending, or what is in doubt on it, any more: it has become another account.
pub(crate) async fn doubt_account(connection: &mut SqliteConnection, device: DeviceId, now: Timestamp) -> Done<()> {
    let sending = sqlx::query(SENDING_ON)
        .bind(blob(&device).to_vec())
        .fetch_all(&mut *connection)
        .await?;
    interrupt(connection, &sending, now).await?;
    let statement = sqlx::query(DOUBTS_OF_DEVICE)
        .bind(blob(&device).to_vec())
        .bind(i64::MAX);
    let mut batch = Batch::default();
    for live in Live::read_all(&statement.fetch_all(&mut *connection).await?)? {
        batch.change(live, |live| {
            live.doubt = live.doubt.map(|doubt| doubt.with_account_changed(now));
        })?;
    }
    let mut tallies = Tallies::default();
    batch.write(connection, &mut tallies).await?;
    tallies.write(connection).await
}

/// Moves what the devices of a node are sending to `in_doubt`, because it is gone; gives what is in doubt now.
pub(crate) async fn interrupt_node(
    connection: &mut SqliteConnection,
    node: Incarnation,
    now: Timestamp,
) -> Done<Vec<(MessageId, DeviceId)>> {
    let sending = sqlx::query(SENDING_OF_NODE)
        .bind(blob(&node).to_vec())
        .fetch_all(&mut *connection)
        .await?;
    interrupt(connection, &sending, now).await
}

/// Moves what is being sent, of which these are the rows, to `in_doubt`; gives what is in doubt now.
async fn interrupt(
    connection: &mut SqliteConnection,
    sending: &[SqliteRow],
    now: Timestamp,
) -> Done<Vec<(MessageId, DeviceId)>> {
    let mut batch = Batch::default();
    let mut moved = Vec::new();
    for row in sending {
        let mut c = Columns::of(row);
        let live = Live::read(&mut c)?;
        let attempted_at = c.opt_at()?.unwrap_or(now);
        let (id, device) = (live.id, live.device_id);
        let state = batch.change(live, |live| {
            if live.delivery.is_some() {
                live.place(MessageState::Sent, None, now);
                return;
            }
            let before = live.doubt;
            live.place(MessageState::InDoubt, None, now);
            live.doubt = Some(InDoubt {
                since_at: before.map_or(now, |doubt| doubt.since_at),
                cause: before.and_then(|doubt| doubt.cause),
                next_check_at: attempted_at,
                not_found_count: before.map_or(0, |doubt| doubt.not_found_count),
                resend_count: before.map_or(0, |doubt| doubt.resend_count),
            });
        })?;
        if let (MessageState::InDoubt, Some(device)) = (state, device) {
            moved.push((id, device));
        }
    }
    let mut tallies = Tallies::default();
    batch.write(connection, &mut tallies).await?;
    tallies.write(connection).await?;
    Ok(moved)
}
