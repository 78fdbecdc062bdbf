//! What follows a row flip in pages: messages of paused, resumed and ended scopes and of deleted devices, and the pool.

use super::enrolments::Ending;
use super::flaw::Flaw;
use super::state::{Mark, State, place};
use crate::domain::enrolment::EnrolmentReason;
use crate::domain::message::{MessageScope, MessageState, Reason};
use crate::id::{DeviceId, EnrolmentId, MessageId, UserId};
use crate::plan::ScopeGate;
use crate::store::{Assignment, Expired, StoreError, Swept};
use crate::time::Timestamp;

/// What is moved next.
enum Next {
    Message(MessageId),
    /// Of a deleted sequence; it ends with its messages.
    Enrolment(EnrolmentId),
}

impl State {
    pub(super) fn sweep(&mut self, limit: u32, now: Timestamp) -> Result<Swept, StoreError> {
        self.transaction(|state| state.sweep_some(u64::from(limit), now))
            .inspect(|_| self.forget_done_marks())
    }

    fn sweep_some(&mut self, limit: u64, now: Timestamp) -> Result<Swept, StoreError> {
        let mut swept = Swept::default();
        let marks: Vec<Mark> = self.marks.iter().copied().collect();
        for mark in marks {
            while let Some(next) = self.next_to_move(mark) {
                if swept.moved == limit {
                    swept.more = true;
                    break;
                }
                match next {
                    Next::Message(id) => self.sweep_one(id, now, &mut swept)?,
                    Next::Enrolment(id) => {
                        self.end_enrolment("sweep", id, Ending::by(EnrolmentReason::SequenceDeleted), now)?;
                    }
                }
                swept.moved += 1;
            }
        }
        swept.wake.sort_unstable();
        swept.wake.dedup();
        Ok(swept)
    }

    fn sweep_one(&mut self, id: MessageId, now: Timestamp, swept: &mut Swept) -> Result<(), StoreError> {
        let message = self.messages.row(id);
        if message.state == MessageState::InDoubt {
            let reason = if self.doubt_has_ended(message) {
                Reason::EndedInDoubt
            } else {
                Reason::CannotTell
            };
            self.change_message("sweep", id, |message| {
                place(message, MessageState::Unknown, Some(reason), now);
            })?;
            return Ok(());
        }
        let requeued = self.requeued(message);
        let waits_for = message.reason;
        let expires_at = Some(message.expires_at).filter(|_| self.flawed(Flaw::HoldEatsExpiry));
        let state = self.change_message("sweep", id, |message| {
            requeued.apply(message, now);
            message.expires_at = expires_at.unwrap_or(message.expires_at);
            if message.state.is_open() {
                message.reason = waits_for;
            }
        })?;
        if state == MessageState::Queued {
            swept.wake.extend(self.messages.row(id).device_id);
        }
        Ok(())
    }

    /// What a mark wants moved next, as its scope and device stand now.
    fn next_to_move(&self, mark: Mark) -> Option<Next> {
        use MessageState::{Held, InDoubt, Queued};
        match mark {
            Mark::Campaign(campaign) => {
                let scope = MessageScope::Campaign(campaign);
                let user = self.campaigns.get(&campaign)?.user_id;
                let states: &[MessageState] = match self.campaign_gate(campaign) {
                    ScopeGate::Open => &[Held],
                    ScopeGate::Paused => &[Queued],
                    ScopeGate::Ended => &[Queued, Held, InDoubt],
                };
                let mut states = states.iter();
                let next = states.find_map(|state| self.messages.first_open_in((user, scope), *state));
                next.map(Next::Message)
            }
            Mark::Device(device) => {
                let row = self.devices.get(&device)?;
                // Without an owner nobody asks the gateway any more, so what is in doubt there stays so for ever.
                let states: &[MessageState] = if row.owner.is_none() {
                    &[Queued, Held, InDoubt]
                } else {
                    &[Queued, Held]
                };
                let mut states = states.iter();
                let next = states.find_map(|state| self.messages.first_open_on(device, *state));
                next.map(Next::Message)
            }
            Mark::Sequence(sequence) => {
                let key = (self.sequences.get(sequence)?.user_id, MessageScope::Sequence(sequence));
                match self.sequence_gate(sequence) {
                    ScopeGate::Open => {
                        let mut held = self.messages.open_in(key, Held);
                        // One that waits for an earlier step stays until that is settled.
                        held.find(|id| self.requeued(self.messages.row(*id)).state != Held)
                            .map(Next::Message)
                    }
                    ScopeGate::Paused => self.messages.first_open_in(key, Queued).map(Next::Message),
                    ScopeGate::Ended => {
                        let open = self.enrolments.first_open_in(sequence);
                        open.filter(|_| !self.flawed(Flaw::DeletionEndsNothing))
                            .map(Next::Enrolment)
                    }
                }
            }
        }
    }

    fn forget_done_marks(&mut self) {
        let marks: Vec<Mark> = self.marks.iter().copied().collect();
        for mark in marks {
            if self.next_to_move(mark).is_none() || self.flawed(Flaw::SweepForgetsTheRest) {
                self.marks.remove(&mark);
            }
        }
    }

    pub(super) fn expire(&mut self, limit: u32, now: Timestamp) -> Result<Expired, StoreError> {
        self.transaction(|state| {
            let mut expired = Expired::default();
            while let Some((at, id)) = state.next_to_expire() {
                if at > now {
                    expired.next_at = Some(at);
                    break;
                }
                if expired.moved == u64::from(limit) {
                    expired.more = true;
                    break;
                }
                state.expire_one(id, now)?;
                expired.moved += 1;
            }
            Ok(expired)
        })
    }

    fn next_to_expire(&self) -> Option<(Timestamp, MessageId)> {
        let mut waiting = self.messages.expiring.iter().copied();
        if self.flawed(Flaw::ExpiryForgetsPool) {
            return waiting.find(|(_, id)| self.messages.row(*id).device_id.is_some());
        }
        waiting.next()
    }

    fn expire_one(&mut self, id: MessageId, now: Timestamp) -> Result<(), StoreError> {
        let message = self.messages.row(id);
        let requeued = self.requeued(message);
        let waits_for = message.reason;
        let expires = requeued.state == MessageState::Queued
            || requeued.state == MessageState::Held && self.flawed(Flaw::ExpiryIgnoresPause);
        self.change_message("expire", id, |message| {
            if expires {
                place(message, MessageState::Skipped, Some(Reason::Expired), now);
                return;
            }
            requeued.apply(message, now);
            if message.state.is_open() {
                message.reason = waits_for;
            }
        })?;
        Ok(())
    }

    pub(super) fn assign(&mut self, items: &[Assignment]) -> Result<u64, StoreError> {
        self.transaction(|state| {
            let mut assigned = 0;
            for item in items {
                let waits = state.messages.get(item.message_id).is_some_and(|message| {
                    message.user_id == item.user_id
                        && message.state == MessageState::Queued
                        && message.from_pool
                        && message.device_id.is_none()
                });
                let room = waits && state.has_room(state.messages.row(item.message_id).scope, item.device_id);
                if room && state.live_device(item.user_id, item.device_id).is_ok() {
                    state.change_message("assign", item.message_id, |message| {
                        message.device_id = Some(item.device_id);
                    })?;
                    state.stick(item);
                    if state.flawed(Flaw::LeadLeavesWhenQueued) {
                        state.give_lead_of(item.message_id);
                    }
                    assigned += 1;
                }
            }
            Ok(assigned)
        })
    }

    pub(super) fn unassign(&mut self, user: UserId, device: DeviceId) -> Result<u64, StoreError> {
        if self.device_of(user, device).is_none() {
            return Ok(0);
        }
        let theirs: Vec<MessageId> = self.topped_up(device).collect();
        for id in &theirs {
            self.change_message("unassign", *id, |message| message.device_id = None)?;
        }
        Ok(theirs.len() as u64)
    }

    /// Queued pool messages that have a device.
    pub(super) fn topped_up(&self, device: DeviceId) -> impl Iterator<Item = MessageId> {
        self.messages
            .topped_up
            .range((device, MessageId::MIN)..)
            .take_while(move |(of, _)| *of == device)
            .map(|(_, id)| *id)
    }
}
