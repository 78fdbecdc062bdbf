//! The gate and the facts afterwards: begin, settle and decline.

use super::flaw::Flaw;
use super::state::{State, conflict, place};
use crate::domain::delivery::Delivery;
use crate::domain::device::Epoch;
use crate::domain::message::{Attempt, InDoubt, Message, MessageState, Reason};
use crate::id::{DeviceId, Incarnation, MessageId, UserId};
use crate::plan::ScopeGate;
use crate::store::{Begin, BeginItem, Begun, Decline, Outcome, Settle, Settled, StoreError, Verdict};
use crate::time::Timestamp;

impl State {
    pub(super) fn begin(&mut self, begin: &Begin) -> Result<Vec<Begun>, StoreError> {
        self.check_node(begin.incarnation, "begin")?;
        self.transaction(|state| {
            let items = begin.items.iter();
            items
                .map(|item| state.begin_one(begin.incarnation, item, begin.now))
                .collect()
        })
    }

    fn begin_one(&mut self, node: Incarnation, item: &BeginItem, now: Timestamp) -> Result<Begun, StoreError> {
        let device = self.device_of(item.user_id, item.device_id);
        let epoch = match device {
            Some(row) if self.flawed(Flaw::BeginIgnoresEpoch) => row.epoch,
            _ => item.epoch,
        };
        if !self.owns(node, item.user_id, item.device_id, epoch) || !self.may_send(item) {
            return Ok(Begun::NotOwner);
        }
        let Some(message) = self.messages.live(item.message_id) else {
            return Ok(Begun::Gone);
        };
        let attempt = message.attempt.as_ref();
        let ready = if item.again {
            let by_other = message.doubt.is_some_and(|doubt| doubt.is_of_other_account());
            message.state == MessageState::InDoubt
                && attempt.is_some_and(|attempt| attempt.id == item.attempt_id)
                && (!by_other || self.flawed(Flaw::OtherAccountRepeats))
        } else {
            message.state == MessageState::Queued
        };
        if !ready || (message.user_id, message.device_id) != (item.user_id, Some(item.device_id)) {
            return Ok(Begun::Gone);
        }
        if let Some(stray) = self.stray(item, now)? {
            return Ok(stray);
        }
        let mut begun = Attempt {
            id: item.attempt_id,
            transport_message_id: item.transport_message_id.clone(),
            provider_id: None,
            device_id: item.device_id,
            epoch: item.epoch,
            text: item.text.clone(),
            greeting: item.greeting.clone(),
            attempted_at: item.attempted_at,
        };
        if self.messages.lean {
            begun.text = String::new();
            begun.greeting = None;
        }
        let mut earlier = None;
        let step = u8::from(!self.flawed(Flaw::AgainIsNotCounted));
        self.change_message("begin", item.message_id, |message| {
            let doubt = message.doubt;
            place(message, MessageState::Sending, None, now);
            message.detail = None;
            if item.again {
                message.doubt = doubt.map(|doubt| InDoubt {
                    resend_count: doubt.resend_count.saturating_add(step),
                    ..doubt
                });
                if let Some(attempt) = &mut message.attempt {
                    attempt.attempted_at = begun.attempted_at;
                    attempt.epoch = begun.epoch;
                }
            } else {
                message.doubt = None;
                earlier = message.attempt.replace(begun);
            }
        })?;
        if let Some(earlier) = earlier.filter(|_| !self.flawed(Flaw::BeginForgetsAttempts)) {
            let mut log = self.messages.earlier.get(&item.message_id).cloned().unwrap_or_default();
            log.push(earlier);
            self.put_earlier(item.message_id, log);
        }
        let last = self.last_attempts.entry(item.device_id).or_insert(item.attempted_at);
        *last = item.attempted_at.max(*last);
        Ok(Begun::Yes)
    }

    /// Whether a node may write as the owner of a device.
    fn owns(&self, node: Incarnation, user: UserId, device: DeviceId, epoch: Epoch) -> bool {
        self.device_of(user, device)
            .is_some_and(|row| row.owner == Some(node) && row.epoch == epoch)
    }

    /// Whether a device may send a message: not deleted, not on hold, and sending no other.
    fn may_send(&self, item: &BeginItem) -> bool {
        let busy = self.messages.sending_on(item.device_id);
        (busy.is_none_or(|id| id == item.message_id) || self.flawed(Flaw::BeginSendsTwoAtOnce))
            && self
                .devices
                .get(&item.device_id)
                .is_some_and(|row| row.is_live() && (row.device.hold.is_none() || self.flawed(Flaw::BeginIgnoresHold)))
    }

    /// Moves a message that its scope or person forbids to send to where it belongs.
    fn stray(&mut self, item: &BeginItem, now: Timestamp) -> Result<Option<Begun>, StoreError> {
        let message = self.messages.row(item.message_id);
        if item.again {
            if self.doubt_has_ended(message) {
                let (state, reason) = (MessageState::Unknown, Some(Reason::EndedInDoubt));
                self.change_message("begin", item.message_id, |message| place(message, state, reason, now))?;
                return Ok(Some(Begun::Stray(state, reason)));
            }
            let waits = self.gate(message) == ScopeGate::Paused;
            return Ok(waits.then_some(Begun::Stray(MessageState::InDoubt, message.reason)));
        }
        let requeued = self.requeued(message);
        let overlooked = match requeued.state {
            MessageState::Queued => true,
            MessageState::Held => self.flawed(Flaw::BeginIgnoresPause),
            MessageState::Cancelled => self.flawed(Flaw::BeginIgnoresEnd),
            _ => requeued.reason == Some(Reason::Suppressed) && self.flawed(Flaw::OptOutIsOnlyAList),
        };
        if overlooked {
            return Ok(None);
        }
        self.change_message("begin", item.message_id, |message| requeued.apply(message, now))?;
        Ok(Some(Begun::Stray(requeued.state, requeued.reason)))
    }

    pub(super) fn settle(&mut self, settle: &Settle) -> Result<Vec<Settled>, StoreError> {
        self.check_node(settle.incarnation, "settle")?;
        self.transaction(|state| {
            let outcomes = settle.outcomes.iter();
            outcomes
                .map(|outcome| state.settle_one(settle.incarnation, outcome, settle.now))
                .collect()
        })
    }

    fn settle_one(&mut self, node: Incarnation, outcome: &Outcome, now: Timestamp) -> Result<Settled, StoreError> {
        let owns = self.owns(node, outcome.user_id, outcome.device_id, outcome.epoch)
            || self.flawed(Flaw::SettleObeysLostEpoch);
        let nothing = if owns {
            Settled::NotSending
        } else {
            Settled::Lost(false)
        };
        let found = self.messages.get(outcome.message_id);
        let reached =
            |_: &&Message| !self.messages.is_archived(outcome.message_id) || self.flawed(Flaw::ArchivedMessageChanges);
        let Some(message) = found.filter(reached) else {
            return Ok(nothing);
        };
        let attempt = message.attempt.as_ref();
        let of_newest =
            attempt.is_some_and(|attempt| attempt.id == outcome.attempt_id && attempt.device_id == outcome.device_id);
        if message.user_id != outcome.user_id || !of_newest {
            return Ok(nothing);
        }
        if was_recorded(message, &outcome.verdict) {
            self.learn(outcome, now)?;
            return Ok(Settled::Already);
        }
        let state = message.state;
        let changes = matches!(state, MessageState::Sending | MessageState::InDoubt);
        // Whether it was sent is open, and a statement about its try says nothing of that; only its gateway can.
        let too_late = state == MessageState::InDoubt
            && matches!(&outcome.verdict, Verdict::Requeue { reason, .. } if *reason != Reason::NotFoundAtGateway)
            && !self.flawed(Flaw::DoubtIsRequeued);
        if owns && !too_late && (changes || self.flawed(Flaw::TerminalStatesChange)) {
            return self.record_and_follow(outcome, now).map(Settled::Yes);
        }
        // A late outcome is evidence, whoever brings it, and evidence moves a message only to what it proves.
        let proves = matches!(outcome.verdict, Verdict::Sent { .. } | Verdict::Failed { .. });
        let moves = matches!(
            state,
            MessageState::InDoubt | MessageState::Unknown | MessageState::Queued | MessageState::Held
        );
        if !(proves && moves) || self.flawed(Flaw::EvidenceIsIgnored) {
            return Ok(nothing);
        }
        let state = self.record_and_follow(outcome, now)?;
        Ok(if owns { Settled::Yes(state) } else { Settled::Lost(true) })
    }

    /// Moves a message as a verdict says, and its enrolment where that fits.
    fn record_and_follow(&mut self, outcome: &Outcome, now: Timestamp) -> Result<MessageState, StoreError> {
        let state = self.record(outcome, now)?;
        if let Some(advance) = &outcome.advance {
            self.follow(outcome.message_id, advance, now);
        }
        Ok(state)
    }

    /// Moves a message as a verdict says.
    fn record(&mut self, outcome: &Outcome, now: Timestamp) -> Result<MessageState, StoreError> {
        let message = self.messages.row(outcome.message_id);
        let mut requeued = self.requeued(message);
        if requeued.state == MessageState::Cancelled && self.flawed(Flaw::RequeueIgnoresEnd) {
            (requeued.state, requeued.reason) = (MessageState::Queued, None);
        }
        let ended = self.doubt_has_ended(message) && !self.flawed(Flaw::DoubtOutlivesOptOut);
        let refusals_max = if self.flawed(Flaw::RefusalsAreEndless) {
            u16::MAX
        } else {
            Message::REFUSALS_MAX
        };
        self.change_message("settle", outcome.message_id, |message| {
            message.detail.clone_from(&outcome.detail);
            // A receipt that came while it was being sent proves that it was sent, whatever the call itself came to.
            if message.delivery.is_some() && !matches!(outcome.verdict, Verdict::Sent { .. }) {
                place(message, MessageState::Sent, None, now);
                return;
            }
            match &outcome.verdict {
                Verdict::Sent { provider_id, delivery } => {
                    if let (Some(attempt), Some(id)) = (&mut message.attempt, provider_id) {
                        attempt.provider_id = Some(id.clone());
                    }
                    deliver(message, *delivery, now);
                    place(message, MessageState::Sent, None, now);
                }
                Verdict::Requeue { reason, due_at, counts } => {
                    message.refusal_count = message.refusal_count.saturating_add(u16::from(*counts));
                    if *counts && message.refusal_count > refusals_max {
                        place(message, MessageState::Failed, Some(Reason::RefusedTooOften), now);
                        return;
                    }
                    requeued.apply(message, now);
                    if requeued.state.is_open() {
                        message.reason = Some(*reason);
                        message.expires_at = reason.expiry_put_off(message.expires_at, message.due_at, *due_at, now);
                        message.due_at = *due_at;
                    }
                }
                Verdict::Failed { reason } => place(message, MessageState::Failed, Some(*reason), now),
                Verdict::Skipped { reason } => place(message, MessageState::Skipped, Some(*reason), now),
                Verdict::Unknown { reason } => place(message, MessageState::Unknown, Some(*reason), now),
                Verdict::InDoubt { .. } if ended => {
                    place(message, MessageState::Unknown, Some(Reason::EndedInDoubt), now);
                }
                Verdict::InDoubt {
                    cause,
                    next_check_at,
                    not_found_count,
                } => {
                    place(message, MessageState::InDoubt, None, now);
                    let told = InDoubt::told(message.doubt, *cause, *next_check_at, *not_found_count, now);
                    message.doubt = Some(told);
                }
            }
        })
    }

    /// Takes from an outcome that was recorded before what it tells beyond that: the vendor's id, and a further delivery.
    fn learn(&mut self, outcome: &Outcome, now: Timestamp) -> Result<(), StoreError> {
        let Verdict::Sent { provider_id, delivery } = &outcome.verdict else {
            return Ok(());
        };
        self.change_message("settle", outcome.message_id, |message| {
            if let (Some(attempt), Some(id)) = (&mut message.attempt, provider_id) {
                attempt.provider_id.get_or_insert_with(|| id.clone());
            }
            deliver(message, *delivery, now);
        })?;
        Ok(())
    }

    pub(super) fn decline(&mut self, items: &[Decline], now: Timestamp) -> Result<u64, StoreError> {
        for item in items {
            self.check_node(item.incarnation, "decline")?;
            if !matches!(
                item.state,
                MessageState::Skipped | MessageState::Failed | MessageState::Queued
            ) {
                return Err(conflict("decline", "message"));
            }
        }
        self.transaction(|state| {
            let mut declined = 0;
            for item in items {
                let queued = state.messages.get(item.message_id).is_some_and(|message| {
                    message.state == MessageState::Queued
                        && (message.user_id, message.device_id) == (item.user_id, Some(item.device_id))
                });
                if queued && state.owns(item.incarnation, item.user_id, item.device_id, item.epoch) {
                    state.decline_one(item, now)?;
                    declined += 1;
                }
            }
            Ok(declined)
        })
    }

    fn decline_one(&mut self, item: &Decline, now: Timestamp) -> Result<(), StoreError> {
        let keeps_expiry = self.flawed(Flaw::RestrictionEatsExpiry);
        self.change_message("decline", item.message_id, |message| {
            place(message, item.state, Some(item.reason), now);
            message.detail.clone_from(&item.detail);
            if item.state == MessageState::Queued {
                let until = item.due_at.unwrap_or(message.due_at);
                if !keeps_expiry {
                    message.expires_at = item
                        .reason
                        .expiry_put_off(message.expires_at, message.due_at, until, now);
                }
                message.due_at = until;
            }
        })?;
        Ok(())
    }

    /// Moves the messages that a device is sending to `in_doubt`, because its owner is gone.
    pub(super) fn interrupt(
        &mut self,
        operation: &'static str,
        device: DeviceId,
        now: Timestamp,
    ) -> Result<Vec<MessageId>, StoreError> {
        let mut moved = Vec::new();
        while let Some(id) = self.messages.sending_on(device) {
            let state = self.change_message(operation, id, |message| {
                if message.delivery.is_some() {
                    place(message, MessageState::Sent, None, now);
                    return;
                }
                let attempted_at = message.attempt.as_ref().map_or(now, |attempt| attempt.attempted_at);
                let before = message.doubt;
                place(message, MessageState::InDoubt, None, now);
                message.doubt = Some(InDoubt {
                    since_at: before.map_or(now, |doubt| doubt.since_at),
                    cause: before.and_then(|doubt| doubt.cause),
                    next_check_at: attempted_at,
                    not_found_count: before.map_or(0, |doubt| doubt.not_found_count),
                    resend_count: before.map_or(0, |doubt| doubt.resend_count),
                });
            })?;
            if state == MessageState::InDoubt {
                moved.push(id);
            }
        }
        Ok(moved)
    }
}

fn deliver(message: &mut Message, delivery: Option<Delivery>, now: Timestamp) {
    if let Some(next) = delivery.filter(|next| Delivery::advances(message.delivery, *next)) {
        message.delivery = Some(next);
        message.delivery_at = Some(now);
    }
}

/// Whether the newest attempt of a message stands where this verdict would move it.
fn was_recorded(message: &Message, verdict: &Verdict) -> bool {
    use MessageState::{Cancelled, Failed, Held, InDoubt, Queued, Sent, Skipped, Unknown};
    match (verdict, message.state) {
        (Verdict::Sent { .. }, Sent) | (Verdict::Unknown { .. }, Unknown) => true,
        (Verdict::Failed { .. }, Failed) | (Verdict::Skipped { .. }, Skipped) => true,
        (Verdict::Requeue { .. }, Queued | Held | Cancelled | Skipped) => true,
        (Verdict::Requeue { counts, .. }, Failed) => *counts && message.reason == Some(Reason::RefusedTooOften),
        (Verdict::InDoubt { .. }, Unknown) => message.reason == Some(Reason::EndedInDoubt),
        (
            Verdict::InDoubt {
                cause,
                next_check_at,
                not_found_count,
            },
            InDoubt,
        ) => message.doubt.is_some_and(|doubt| {
            (doubt.cause, doubt.next_check_at, doubt.not_found_count)
                == (Some(*cause), *next_check_at, *not_found_count)
        }),
        _ => false,
    }
}
