//! The facts after an attempt.

use std::collections::HashSet;

use sqlx::postgres::PgConnection;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::message::{InDoubt, Message, MessageState, Reason};
use wa_core::id::{DeviceId, MessageId};
use wa_core::store::{Advance, Outcome, Settle, Settled, Verdict};
use wa_core::time::Timestamp;
use wa_core::transport::TransportMessageId;

use crate::begin::{item_devices, lock_as_owner, lock_messages};
use crate::enrolments;
use crate::error::{Done, Fail};
use crate::insert::{gather, query, run_over};
use crate::leases::check_node;
use crate::live::{Batch, Live, live};
use crate::lock::{Mode, Space};
use crate::row::{Columns, keys};
use crate::sweep::PARKED_OF_DEVICE;
use crate::tallies::Tallies;

/// `settle`: the messages by the unique index of ids, with the device of the newest attempt.
pub(crate) const MESSAGES: &str = live!(
    ", j.key, (SELECT a.device_id FROM attempts a WHERE a.id = m.attempt_id)
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN messages m ON m.id = j.value"
);

/// `settle`: messages that were sent and of which no more is known, which nearly all are as a rule, with their numbers and the
/// vendor's ids; those whose lead goes to the device with them are not among them. Messages, devices and tallies by their primary keys.
/// Messages of one scope are noted in lists of at most a hundred, one or two by themselves: a list has a row of its own beside those of the
/// vendor's ids. The newest comes first: messages go into the archive the oldest first, and one that is left is then found at once.
pub(crate) const SENT: &str = "
    WITH i AS MATERIALIZED (
        SELECT * FROM unnest($3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::bigint[], $8::text[], $9::text[])
            AS i (message_id, attempt_id, user_id, device_id, epoch, detail, provider_id)
    ), sent AS (
        UPDATE messages m SET state = 5, settled_at = $2, reason = NULL, detail = i.detail,
            provider_id = coalesce(i.provider_id, m.provider_id)
        FROM i
        WHERE m.id = i.message_id AND m.state = 3 AND m.attempt_id = i.attempt_id AND m.user_id = i.user_id
            AND m.device_id = i.device_id AND NOT m.superseded AND m.enrolment_id IS NULL
            AND NOT (m.from_pool AND m.scope_kind = 1 AND coalesce(
                (SELECT c.device_limit IS NOT NULL FROM campaigns c WHERE c.id = m.scope_id), false
            ))
            AND m.delivery IS NULL AND m.held_at IS NULL AND m.doubt_since_at IS NULL
            AND EXISTS (SELECT 1 FROM nodes n WHERE n.incarnation = $1 AND NOT n.fenced)
            AND (
                SELECT d.user_id = i.user_id AND d.epoch = i.epoch AND d.owner = $1 FROM devices d WHERE d.id = i.device_id
            )
        RETURNING m.id, m.user_id, m.scope_kind, m.scope_id, m.device_id, m.provider_id
    ), placed AS (
        SELECT s.id, s.provider_id, s.scope_id, s.scope_kind < 3 AND count(*) OVER scope < 3 AS alone,
            s.scope_kind < 3 AND count(*) OVER scope >= 3 AS listed, (row_number() OVER scope - 1) / 100 AS list
        FROM sent s WINDOW scope AS (PARTITION BY s.scope_id)
    ), noted AS (
        INSERT INTO outcomes (message_id, scope_id, settled_at, mark)
        SELECT p.id, CASE WHEN p.alone THEN p.scope_id END, CASE WHEN p.alone THEN $2 END, hashtextextended(p.provider_id, 0)
        FROM placed p WHERE p.alone OR p.provider_id IS NOT NULL
    ), listed AS (
        INSERT INTO outcomes (scope_id, settled_at, message_ids)
        SELECT p.scope_id, $2, array_agg(p.id ORDER BY p.id DESC) FROM placed p WHERE p.listed GROUP BY p.scope_id, p.list
    ), counted AS (
        UPDATE tallies t SET done = t.done + n.n, remaining = t.remaining - n.n
        FROM (
            SELECT s.user_id, s.scope_kind, s.scope_id, s.device_id, count(*) AS n FROM sent s
            GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
        ) AS n
        WHERE t.user_id = n.user_id AND t.scope_kind = n.scope_kind AND t.scope_id = n.scope_id AND t.device_id = n.device_id
    )
    SELECT array_agg(id) FROM sent";

/// `settle`: the vendor's ids of messages; a first one stays where the outcome was recorded before. By the primary key.
pub(crate) const PROVIDER_IDS: &str = "
    WITH known AS (
        UPDATE messages m SET provider_id = CASE WHEN v.learn THEN coalesce(m.provider_id, v.provider_id) ELSE v.provider_id END
        FROM unnest($1::uuid[], $2::text[], $3::boolean[]) AS v (id, provider_id, learn) WHERE m.id = v.id
        RETURNING m.id, m.provider_id
    )
    INSERT INTO outcomes (message_id, mark) SELECT k.id, hashtextextended(k.provider_id, 0) FROM known k";

/// `fence`, `leave`: what devices are sending, by the primary keys. What a lane names is compared by IS NOT DISTINCT, for which no index
/// serves: Postgres might go through all messages of a device else.
pub(crate) const SENDING_ON: &str = live!(
    ", (SELECT a.attempted_at FROM attempts a WHERE a.id = m.attempt_id)
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key)
    JOIN lanes l ON l.device_id = j.value JOIN messages m ON m.id = l.message_id
    WHERE m.state = 3 AND m.device_id IS NOT DISTINCT FROM l.device_id"
);

/// How a settlement has its users: what moves a sequence on has them alone.
pub(crate) fn mode_of(settle: &Settle) -> Mode {
    if settle.outcomes.iter().any(|outcome| outcome.advance.is_some()) {
        Mode::Alone
    } else {
        Mode::Shared
    }
}

pub(crate) async fn settle(
    connection: &mut PgConnection,
    space: Space,
    settle: &Settle,
    mode: Mode,
) -> Done<Vec<Settled>> {
    let users = settle.outcomes.iter().map(|outcome| &outcome.user_id);
    lock_as_owner(connection, space, [settle.incarnation], users, mode).await?;
    let plain = settle_sent(connection, settle).await?;
    let mut answers = vec![Settled::Yes(MessageState::Sent); settle.outcomes.len()];
    let others: Vec<(usize, &Outcome)> = settle
        .outcomes
        .iter()
        .enumerate()
        .filter(|(_, outcome)| !plain.contains(&outcome.message_id))
        .collect();
    if others.is_empty() && !settle.outcomes.is_empty() {
        return Ok(answers);
    }
    check_node(connection, settle.incarnation).await?;
    let outcomes: Vec<_> = others.iter().map(|(_, outcome)| *outcome).collect();
    let looked_at = settle_each(connection, settle, &outcomes, mode).await?;
    for ((at, _), answer) in others.into_iter().zip(looked_at) {
        answers[at] = answer;
    }
    Ok(answers)
}

/// Settles what was sent and needs no closer look; gives the messages.
async fn settle_sent(connection: &mut PgConnection, settle: &Settle) -> Done<HashSet<MessageId>> {
    let mut seen = HashSet::new();
    let plain = |outcome: &&Outcome| {
        matches!(outcome.verdict, Verdict::Sent { delivery: None, .. }) && outcome.advance.is_none()
    };
    let mut sent: Vec<&Outcome> = settle.outcomes.iter().filter(plain).collect();
    // Of several for one message the first counts, so that each has to be looked at.
    if sent.is_empty() || !settle.outcomes.iter().all(|outcome| seen.insert(outcome.message_id)) {
        return Ok(HashSet::new());
    }
    sent.sort_unstable_by_key(|outcome| outcome.message_id);
    let rows = gather(sent, |row, outcome| {
        let provider_id = match &outcome.verdict {
            Verdict::Sent { provider_id, .. } => provider_id.as_ref().map(|id| id.as_str().to_owned()),
            _ => None,
        };
        row.bind(&outcome.message_id)
            .bind(&outcome.attempt_id)
            .bind(&outcome.user_id)
            .bind(&outcome.device_id)
            .bind(outcome.epoch.0)
            .bind(outcome.detail.clone())
            .bind(provider_id)
    });
    let statement = query(SENT).bind(&settle.incarnation).bind(settle.now.as_millis());
    let settled = rows.add_to(statement).fetch_one(connection).await?;
    Columns::of(&settled).key_set("id")
}

/// Looks at each message before its outcome is recorded.
async fn settle_each(
    connection: &mut PgConnection,
    settle: &Settle,
    outcomes: &[&Outcome],
    mode: Mode,
) -> Done<Vec<Settled>> {
    lock_messages(connection, outcomes.iter().map(|outcome| &outcome.message_id)).await?;
    let devices = item_devices(connection, outcomes.iter().map(|outcome| &outcome.device_id)).await?;
    let mut messages: Vec<Option<(Live, Option<DeviceId>)>> = vec![None; outcomes.len()];
    let list = keys(outcomes.iter().map(|outcome| &outcome.message_id));
    for row in query(MESSAGES).bind(list).fetch_all(connection).await? {
        let mut c = Columns::of(&row);
        let live = Live::read(&mut c)?;
        let at: usize = c.place()?;
        messages[at] = Some((live, c.opt_key("attempt.device_id")?));
    }
    let mut seen = HashSet::new();
    let mut facts = Facts::default();
    let mut advances = Vec::new();
    let mut answers = Vec::with_capacity(outcomes.len());
    for ((outcome, device), message) in outcomes.iter().zip(devices).zip(messages) {
        let owns = device.is_some_and(|device| device.is_owned_by(settle.incarnation, outcome.user_id, outcome.epoch));
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
                if seen.insert(live.id) {
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
    if mode == Mode::Shared && facts.moved.needs_alone() {
        return Err(Fail::NeedsAlone);
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
    /// Whether each is only taken where none is known.
    provider_ids: Vec<(MessageId, TransportMessageId, bool)>,
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
            self.provider_ids.push((outcome.message_id, id.clone(), false));
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
            self.provider_ids.push((outcome.message_id, id.clone(), true));
        }
        if delivery.is_some_and(|next| Delivery::advances(live.delivery, next)) {
            self.moved.change(live, |live| deliver(live, *delivery, now))?;
        }
        Ok(())
    }

    async fn write(self, connection: &mut PgConnection) -> Done<()> {
        run_over(
            connection,
            PROVIDER_IDS,
            &self.provider_ids,
            |row, (message, id, learn)| row.bind(message).bind(id.as_str().to_owned()).bind(*learn),
        )
        .await?;
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

/// Nobody can be asked about what a device is sending, or what is in doubt on it, any more: it has become another account. The
/// transaction has its user alone.
pub(crate) async fn doubt_account(connection: &mut PgConnection, device: DeviceId, now: Timestamp) -> Done<()> {
    interrupt(connection, &[device], now).await?;
    let statement = query(PARKED_OF_DEVICE)
        .bind(&device)
        .bind(MessageState::InDoubt as u8)
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

/// Moves what devices are sending to `in_doubt`, because their owner is gone; gives what is in doubt now. The transaction has
/// their users alone.
pub(crate) async fn interrupt(
    connection: &mut PgConnection,
    devices: &[DeviceId],
    now: Timestamp,
) -> Done<Vec<(MessageId, DeviceId)>> {
    let mut batch = Batch::default();
    let mut moved = Vec::new();
    let rows = query(SENDING_ON).bind(keys(devices)).fetch_all(connection).await?;
    for row in rows {
        let mut c = Columns::of(&row);
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
