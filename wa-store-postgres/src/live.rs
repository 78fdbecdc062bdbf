//! What may change of a message, and what decides how: every change of a state is made here.

use sqlx::SqlSafeStr;
use sqlx::postgres::{PgConnection, PgRow};
use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::Epoch;
use wa_core::domain::enrolment::FlowRef;
use wa_core::domain::message::{InDoubt, MessageScope, MessageState, Reason};
use wa_core::id::{AttemptId, DeviceId, MessageId, StepId, UserId};
use wa_core::plan::{DeviceGate, ScopeGate, Suppressed, requeue};
use wa_core::time::Timestamp;

use crate::error::{Done, Fail};
use crate::flows::Settlements;
use crate::insert::{Gathered, Value, query, run_over};
use crate::message_row::read_flow;
use crate::places::Moves;
use crate::pool::give_leads;
use crate::row::{Columns, word};
use crate::tallies::{Counted, Tallies};

/// The columns of [`Live`] of a row `m` of `messages`, to be followed by [`live_from!`] or joins of the same names.
/// The suppression is no EXISTS, for which Postgres may read the whole list of the suppressed into a hash table.
macro_rules! live {
    ($from:literal) => {
        concat!(
            "SELECT m.id, m.user_id, m.scope_kind, m.scope_id, m.device_id, m.from_pool,
                m.override_suppression, m.superseded, m.due_at, m.expires_at, m.held_at, m.state, m.reason, m.detail,
                m.refusal_count, m.attempt_id, m.epoch, m.doubt_since_at, m.doubt_cause, m.next_check_at,
                m.not_found_count, m.resend_count, m.delivery, m.delivery_at, m.settled_at,
                (SELECT c.status FROM campaigns c WHERE m.scope_kind = 1 AND c.id = m.scope_id),
                m.enrolment_id, m.step_id, m.steps_version, m.round, (SELECT ",
            crate::flows::gate!("m.step_id"),
            " FROM enrolments fe JOIN sequences fq ON fq.id = fe.sequence_id WHERE fe.id = m.enrolment_id),
                coalesce((SELECT true FROM suppressions s WHERE s.user_id = m.user_id AND s.person = m.person), false),
                (SELECT d.deleted_at IS NOT NULL FROM devices d WHERE d.id = m.device_id) ",
            $from
        )
    };
}
pub(crate) use live;

/// How many columns [`live!`] selects before those that a statement adds.
pub(crate) const LIVE_COLUMNS: usize = 33;

/// A message as far as it may change, with what decides where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) id: MessageId,
    pub(crate) user_id: UserId,
    pub(crate) scope: MessageScope,
    pub(crate) flow: Option<FlowRef>,
    pub(crate) round: u16,
    pub(crate) device_id: Option<DeviceId>,
    pub(crate) from_pool: bool,
    pub(crate) override_suppression: bool,
    pub(crate) superseded: bool,
    pub(crate) due_at: Timestamp,
    pub(crate) expires_at: Timestamp,
    pub(crate) held_at: Option<Timestamp>,
    pub(crate) state: MessageState,
    pub(crate) reason: Option<Reason>,
    pub(crate) detail: Option<String>,
    pub(crate) refusal_count: u16,
    pub(crate) attempt_id: Option<AttemptId>,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) doubt: Option<InDoubt>,
    pub(crate) delivery: Option<Delivery>,
    pub(crate) delivery_at: Option<Timestamp>,
    pub(crate) settled_at: Option<Timestamp>,
    pub(crate) gate: ScopeGate,
    /// Whether its person is on the list; see [`Live::is_suppressed`].
    pub(crate) listed: bool,
    pub(crate) device_gone: bool,
}

/// Whether a message of a scope may go to a suppressed person: an override counts in direct messages only.
pub(crate) fn overrides(scope: MessageScope, override_suppression: bool) -> bool {
    override_suppression && scope == MessageScope::Direct
}

/// Reads the scope's kind and id.
pub(crate) fn read_scope(c: &mut Columns<'_>) -> Done<MessageScope> {
    let kind = c.small("scope_kind")?;
    MessageScope::from_parts(kind, c.uuid()?.as_bytes()).ok_or(Fail::Unreadable("scope"))
}

/// Reads the five columns of a doubt.
pub(crate) fn read_doubt(c: &mut Columns<'_>) -> Done<Option<InDoubt>> {
    let since_at = c.opt_at()?;
    let cause = c.opt_word("doubt_cause")?;
    let next_check_at = c.opt_at()?;
    let not_found_count = c.opt_int()?.unwrap_or(0);
    let resend_count = c.opt_int()?.unwrap_or(0);
    let (Some(since_at), Some(next_check_at)) = (since_at, next_check_at) else {
        return Ok(None);
    };
    Ok(Some(InDoubt {
        since_at,
        cause,
        next_check_at,
        not_found_count: u8::try_from(not_found_count).map_err(|_| Fail::Unreadable("not_found_count"))?,
        resend_count: u8::try_from(resend_count).map_err(|_| Fail::Unreadable("resend_count"))?,
    }))
}

impl Live {
    pub(crate) fn read(c: &mut Columns<'_>) -> Done<Self> {
        let mut live = Self {
            id: c.key("id")?,
            user_id: c.key("user_id")?,
            scope: read_scope(c)?,
            flow: None,
            round: 0,
            device_id: c.opt_key("device_id")?,
            from_pool: c.flag()?,
            override_suppression: c.flag()?,
            superseded: c.flag()?,
            due_at: c.at()?,
            expires_at: c.at()?,
            held_at: c.opt_at()?,
            state: c.kind("state", MessageState::from_u8)?,
            reason: c.opt_kind("reason", Reason::from_u8)?,
            detail: c.opt_text()?,
            refusal_count: c.small("refusal_count")?,
            attempt_id: c.opt_key("attempt_id")?,
            epoch: c.opt_int()?.map(Epoch),
            doubt: read_doubt(c)?,
            delivery: c.opt_kind("delivery", Delivery::from_u8)?,
            delivery_at: c.opt_at()?,
            settled_at: c.opt_at()?,
            gate: ScopeGate::Open,
            listed: false,
            device_gone: false,
        };
        let status = c.opt_kind("status", CampaignStatus::from_u8)?;
        live.flow = read_flow(c)?;
        live.round = c.small("round")?;
        let flow_gate = c.opt_int()?;
        live.gate = match live.scope {
            MessageScope::Sequence(_) => crate::flows::gate_from(flow_gate),
            scope => gate_of(scope, status),
        };
        live.listed = c.flag()?;
        live.device_gone = c.opt_int()?.unwrap_or(0) != 0;
        Ok(live)
    }

    pub(crate) fn read_all(rows: &[PgRow]) -> Done<Vec<Self>> {
        crate::row::read_all(rows, Self::read)
    }

    pub(crate) const fn counted(&self) -> Counted {
        Counted {
            user_id: self.user_id,
            scope: self.scope,
            step_id: self.step_id(),
            device_id: self.device_id,
            state: self.state,
            delivery: self.delivery,
            superseded: self.superseded,
        }
    }

    const fn step_id(&self) -> Option<StepId> {
        match &self.flow {
            Some(flow) => Some(flow.step_id),
            None => None,
        }
    }

    pub(crate) fn is_suppressed(&self) -> bool {
        self.listed && !overrides(self.scope, self.override_suppression)
    }

    /// Whether it may not be resolved by sending any more when it is in doubt: its scope ended or its person opted out.
    pub(crate) fn doubt_has_ended(&self) -> bool {
        self.gate == ScopeGate::Ended || self.is_suppressed()
    }

    /// Where it goes when it is not being sent.
    pub(crate) fn requeued(&self) -> Requeued {
        let suppressed = if self.is_suppressed() {
            Suppressed::Yes
        } else {
            Suppressed::No
        };
        requeued(self.gate, suppressed, self.device_gone, self.from_pool)
    }

    /// Goes there.
    pub(crate) fn go(&mut self, to: &Requeued, now: Timestamp) {
        if to.to_pool {
            self.device_id = None;
        }
        self.place(to.state, to.reason, now);
    }

    /// Takes a state, with the columns that follow from it: time on hold moves the expiry, and what is settled keeps the
    /// instant at which it first was.
    pub(crate) fn place(&mut self, state: MessageState, reason: Option<Reason>, now: Timestamp) {
        if state == MessageState::Held {
            self.held_at.get_or_insert(now);
        } else if let Some(held_at) = self.held_at.take() {
            self.expires_at = self.expires_at + now.since(held_at);
        }
        if !matches!(state, MessageState::InDoubt | MessageState::Sending) {
            self.doubt = None;
        }
        if state.is_open() {
            self.settled_at = None;
        } else {
            self.settled_at.get_or_insert(now);
        }
        self.state = state;
        self.reason = reason;
    }
}

/// Whether a scope lets its messages be sent; a campaign that is not there has ended.
pub(crate) fn gate_of(scope: MessageScope, status: Option<CampaignStatus>) -> ScopeGate {
    match scope {
        MessageScope::Campaign(_) => status.map_or(ScopeGate::Ended, ScopeGate::from),
        _ => ScopeGate::Open,
    }
}

/// Where a message goes that is not being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Requeued {
    pub(crate) state: MessageState,
    pub(crate) reason: Option<Reason>,
    pub(crate) to_pool: bool,
}

/// The one rule, for a message whose device may be deleted: those of a pool go back to it.
pub(crate) fn requeued(gate: ScopeGate, suppressed: Suppressed, device_gone: bool, from_pool: bool) -> Requeued {
    let device = if device_gone && !from_pool {
        DeviceGate::Gone
    } else {
        DeviceGate::Present
    };
    let (state, reason) = requeue(gate, suppressed, device);
    Requeued {
        state,
        reason,
        to_pool: device_gone && from_pool && state.is_open(),
    }
}

/// Runs a statement of [`live!`] with one parameter.
pub(crate) async fn live_by(
    connection: &mut PgConnection,
    sql: impl SqlSafeStr,
    parameter: impl Value,
) -> Done<Vec<Live>> {
    Live::read_all(&query(sql).bind(parameter).fetch_all(connection).await?)
}

/// Changes of messages that are written together.
#[derive(Default)]
pub(crate) struct Batch {
    changed: Vec<(Counted, Live)>,
    pub(crate) wake: Vec<DeviceId>,
}

/// Writes what may change. By the primary key.
pub(crate) const SAVE: &str = "
    UPDATE messages SET device_id = v.device_id, due_at = v.due_at, expires_at = v.expires_at, held_at = v.held_at,
        state = v.state, reason = v.reason, detail = v.detail, refusal_count = v.refusal_count, attempt_id = v.attempt_id,
        epoch = v.epoch, doubt_since_at = v.doubt_since_at, doubt_cause = v.doubt_cause, next_check_at = v.next_check_at,
        not_found_count = v.not_found_count, resend_count = v.resend_count, delivery = v.delivery,
        delivery_at = v.delivery_at, settled_at = v.settled_at, superseded = v.superseded
    FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::text[],
        $9::bigint[], $10::uuid[], $11::bigint[], $12::bigint[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[],
        $17::bigint[], $18::bigint[], $19::bigint[], $20::boolean[]) AS v (id, device_id, due_at, expires_at, held_at, state,
        reason, detail, refusal_count, attempt_id, epoch, doubt_since_at, doubt_cause, next_check_at, not_found_count,
        resend_count, delivery, delivery_at, settled_at, superseded)
    WHERE messages.id = v.id";

impl Batch {
    /// Changes a message; the table of transitions is asked here and nowhere else.
    ///
    /// # Errors
    /// `Conflict` when the table forbids the transition.
    pub(crate) fn change(&mut self, mut live: Live, change: impl FnOnce(&mut Live)) -> Done<MessageState> {
        let was = live.counted();
        change(&mut live);
        let state = live.state;
        if was.state != state && !was.state.can_become(state) {
            return Err(Fail::conflict("message"));
        }
        if state == MessageState::Queued {
            self.wake.extend(live.device_id);
        }
        self.changed.push((was, live));
        Ok(state)
    }

    /// Whether more follows than the messages themselves, so that their users must be had alone: a message of a flow settles, and its
    /// enrolment and the messages that wait for it follow; or one from the pool of a campaign is sent, and its lead may follow.
    pub(crate) fn needs_alone(&self) -> bool {
        let settles = |(was, live): &(Counted, Live)| was.state.is_open() && !live.state.is_open();
        self.changed
            .iter()
            .any(|change| change.1.flow.is_some() && settles(change) || gives_lead(change))
    }

    pub(crate) fn len(&self) -> usize {
        self.changed.len()
    }

    /// Writes the changes and counts them.
    pub(crate) async fn write(self, connection: &mut PgConnection, tallies: &mut Tallies) -> Done<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let mut settled = Settlements::default();
        let mut moves = Moves::default();
        for (was, live) in &self.changed {
            tallies.change(*was, live.counted());
            settled.see(was.state, live);
            moves.see(was, live);
        }
        moves.leave(connection).await?;
        run_over(connection, SAVE, &self.changed, |row, (_, live)| bind(row, live)).await?;
        moves.enter(connection).await?;
        let sent = self.changed.iter().filter(|change| gives_lead(change));
        let from_pool: Vec<MessageId> = sent.map(|(_, live)| live.id).collect();
        if !from_pool.is_empty() {
            give_leads(connection, &from_pool).await?;
        }
        settled.write(connection, tallies).await
    }
}

/// Whether a message from the pool of a campaign becomes sent.
fn gives_lead((was, live): &(Counted, Live)) -> bool {
    let of_campaign = live.from_pool && matches!(live.scope, MessageScope::Campaign(_));
    of_campaign && live.state == MessageState::Sent && was.state != live.state
}

fn bind(row: Gathered, live: &Live) -> Gathered {
    let doubt = live.doubt;
    row.bind(&live.id)
        .bind(live.device_id.as_ref())
        .bind(live.due_at.as_millis())
        .bind(live.expires_at.as_millis())
        .bind(live.held_at.map(Timestamp::as_millis))
        .bind(live.state as u8)
        .bind(live.reason.map(|reason| reason as u8))
        .bind(live.detail.clone())
        .bind(live.refusal_count)
        .bind(live.attempt_id.as_ref())
        .bind(live.epoch.map(|epoch| epoch.0))
        .bind(doubt.map(|doubt| doubt.since_at.as_millis()))
        .bind(doubt.and_then(|doubt| doubt.cause).map(|cause| word(&cause)))
        .bind(doubt.map(|doubt| doubt.next_check_at.as_millis()))
        .bind(doubt.map(|doubt| doubt.not_found_count))
        .bind(doubt.map(|doubt| doubt.resend_count))
        .bind(live.delivery.map(|delivery| delivery as u8))
        .bind(live.delivery_at.map(Timestamp::as_millis))
        .bind(live.settled_at.map(Timestamp::as_millis))
        .bind(live.superseded)
}
