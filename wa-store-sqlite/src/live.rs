//! What may change of a message, and what decides how: every change of a state is made here.

use std::sync::LazyLock;

use sqlx::SqlSafeStr;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
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
use crate::insert::{Bound, Rows};
use crate::message_row::read_flow;
use crate::pool::give_leads;
use crate::row::{Columns, json, opt_blob, word};
use crate::tallies::{Counted, Tallies};

/// The columns of [`Live`] of a row `m` of `messages`, to be followed by [`live_from!`] or joins of the same names.
macro_rules! live {
    ($from:literal) => {
        concat!(
            "SELECT m.seq, m.id, m.user_id, m.scope_kind, m.scope_id, m.device_id, m.from_pool,
                m.override_suppression, m.superseded, m.due_at, m.expires_at, m.held_at, m.state, m.reason, m.detail,
                m.refusal_count, m.attempt_id, m.epoch, m.doubt_since_at, m.doubt_cause, m.next_check_at,
                m.not_found_count, m.resend_count, m.delivery, m.delivery_at, m.settled_at,
                (SELECT c.status FROM campaigns c WHERE c.id = m.campaign_id),
                m.enrolment_id, m.step_id, m.steps_version, m.round, (SELECT ",
            crate::flows::gate!("m.step_id"),
            " FROM enrolments fe CROSS JOIN sequences fq ON fq.id = fe.sequence_id WHERE fe.id = m.enrolment_id),
                EXISTS (SELECT 1 FROM suppressions s WHERE s.user_id = m.user_id AND s.person = m.person),
                (SELECT d.deleted_at IS NOT NULL FROM devices d WHERE d.id = m.device_id) ",
            $from
        )
    };
}
pub(crate) use live;

/// How many columns [`live!`] selects before those that a statement adds.
pub(crate) const LIVE_COLUMNS: usize = 34;

/// A message as far as it may change, with what decides where it goes.
#[derive(Debug, Clone)]
pub(crate) struct Live {
    pub(crate) seq: i64,
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
    MessageScope::from_parts(kind, c.bytes()?).ok_or(Fail::Unreadable("scope"))
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
            seq: c.int()?,
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

    pub(crate) fn read_all(rows: &[SqliteRow]) -> Done<Vec<Self>> {
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
pub(crate) async fn live_by<'q, P>(
    connection: &mut SqliteConnection,
    sql: impl SqlSafeStr,
    parameter: P,
) -> Done<Vec<Live>>
where
    P: sqlx::Encode<'q, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    Live::read_all(&sqlx::query(sql).bind(parameter).fetch_all(connection).await?)
}

/// Changes of messages that are written together.
#[derive(Default)]
pub(crate) struct Batch {
    changed: Vec<(Counted, Live)>,
    pub(crate) wake: Vec<DeviceId>,
}

/// Writes what may change, all but the device. By the row id.
pub(crate) const SAVE: &str = "
    UPDATE messages SET due_at = v.column2, expires_at = v.column3, held_at = v.column4, state = v.column5,
        reason = v.column6, detail = v.column7, refusal_count = v.column8, attempt_id = v.column9,
        epoch = v.column10, doubt_since_at = v.column11, doubt_cause = v.column12, next_check_at = v.column13,
        not_found_count = v.column14, resend_count = v.column15, delivery = v.column16, delivery_at = v.column17,
        settled_at = v.column18, superseded = v.column19
    FROM (VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)) AS v WHERE messages.seq = v.column1";
pub(crate) static SAVES: LazyLock<Rows> = LazyLock::new(|| Rows::of(SAVE));

/// Takes the device from messages that go back to their pool. By the row id.
pub(crate) const TO_POOL: &str =
    "UPDATE messages SET device_id = NULL WHERE seq IN (SELECT value FROM json_each(?)) AND device_id IS NOT NULL";

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

    pub(crate) fn len(&self) -> usize {
        self.changed.len()
    }

    /// Writes the changes and counts them.
    pub(crate) async fn write(self, connection: &mut SqliteConnection, tallies: &mut Tallies) -> Done<()> {
        if self.changed.is_empty() {
            return Ok(());
        }
        let mut to_pool = Vec::new();
        let mut from_pool = Vec::new();
        let mut settled = Settlements::default();
        for (was, live) in &self.changed {
            tallies.change(*was, live.counted());
            settled.see(was.state, live);
            if was.device_id.is_some() && live.device_id.is_none() {
                to_pool.push(live.seq);
            }
            let of_campaign = live.from_pool && matches!(live.scope, MessageScope::Campaign(_));
            if of_campaign && live.state == MessageState::Sent && was.state != live.state {
                from_pool.push(live.seq);
            }
        }
        SAVES
            .run(connection, &self.changed, |statement, (_, live)| bind(statement, live))
            .await?;
        if !to_pool.is_empty() {
            sqlx::query(TO_POOL)
                .bind(json(&to_pool))
                .execute(&mut *connection)
                .await?;
        }
        if !from_pool.is_empty() {
            give_leads(connection, &from_pool).await?;
        }
        settled.write(connection, tallies).await
    }
}

fn bind<'q>(statement: Bound<'q>, live: &Live) -> Bound<'q> {
    let doubt = live.doubt;
    statement
        .bind(live.seq)
        .bind(live.due_at.as_millis())
        .bind(live.expires_at.as_millis())
        .bind(live.held_at.map(Timestamp::as_millis))
        .bind(live.state as u8)
        .bind(live.reason.map(|reason| reason as u8))
        .bind(live.detail.clone())
        .bind(live.refusal_count)
        .bind(opt_blob(live.attempt_id.as_ref()).map(<[u8]>::to_vec))
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
