//! Commits of changes to messages and to the people whom they are for.

use super::commit::COMMIT;
use super::flaw::Flaw;
use super::messages::{LAST_INSTANT, LAST_MESSAGE};
use super::state::{State, conflict, not_found, overrides, place};
use crate::domain::delivery::Delivery;
use crate::domain::enrolment::EnrolmentReason;
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState, Reason};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::suppression::Suppression;
use crate::id::{CampaignId, DeviceId, LeadId, MessageId, UserId};
use crate::store::{Committed, StoreError};
use crate::time::Timestamp;
use crate::transport::{MessageRef, TransportMessageId};

impl State {
    pub(super) fn insert_message(
        &mut self,
        mut message: Message,
        now: Timestamp,
        done: &mut Committed,
    ) -> Result<(), StoreError> {
        let known = self.messages.by_key(message.key);
        if let Some(known) = known.filter(|_| !self.flawed(Flaw::KeyIsNotUnique)) {
            // A key names its user, so another's is no repetition but a mistake, and must tell nothing of theirs.
            self.message_of(message.user_id, known)
                .map_err(|_| conflict(COMMIT, "message"))?;
            done.duplicates.push((message.key, known));
            return Ok(());
        }
        if !self.flawed(Flaw::InsertCrossesUsers) {
            self.check_owners(&message)?;
        }
        if self.messages.get(message.id).is_some() {
            return Err(conflict(COMMIT, "message"));
        }
        match message.state {
            MessageState::Queued | MessageState::Held => {
                // Nobody would ever give it a device: only messages of campaigns and sequences wait in the pool.
                let pooled = message.from_pool && message.scope.is_bulk();
                if message.device_id.is_none() && !pooled {
                    return Err(conflict(COMMIT, "message"));
                }
                let requeued = self.requeued(&message);
                let reason = message.reason.filter(|_| requeued.state.is_open());
                if !(requeued.state == MessageState::Held && self.flawed(Flaw::InsertIgnoresPause)) {
                    requeued.apply(&mut message, now);
                }
                message.reason = requeued.reason.or(reason);
            }
            MessageState::Sending | MessageState::InDoubt => return Err(conflict(COMMIT, "message")),
            _ => {
                message.settled_at.get_or_insert(now);
            }
        }
        if let Some(earlier) = message.supersedes {
            self.supersede(&message, earlier)?;
        }
        done.messages_inserted += 1;
        if message.state == MessageState::Queued && !self.flawed(Flaw::InsertWakesNobody) {
            done.wake.extend(message.device_id);
        }
        self.add_message(message);
        Ok(())
    }

    /// Device, lead, campaign, sequence and enrolment of a message belong to its user.
    fn check_owners(&self, message: &Message) -> Result<(), StoreError> {
        let user = message.user_id;
        if let MessageScope::Campaign(id) = message.scope {
            self.live_campaign_of(user, id)?;
        }
        if let MessageScope::Sequence(id) = message.scope {
            let sequence = self.sequences.get(id).filter(|sequence| sequence.user_id == user);
            sequence.ok_or(not_found(COMMIT, "sequence"))?;
            let enrolment = message.flow.and_then(|flow| self.enrolments.get(flow.enrolment_id));
            let own = enrolment.filter(|one| (one.user_id, one.sequence_id) == (user, id));
            own.ok_or(not_found(COMMIT, "enrolment"))?;
        } else if message.flow.is_some() {
            return Err(conflict(COMMIT, "message"));
        }
        if let Some(id) = message.device_id {
            self.device_of(user, id).ok_or(not_found(COMMIT, "device"))?;
        }
        if let Some(id) = message.lead_id {
            let lead = self.leads.get(&id).filter(|lead| lead.user_id == user);
            lead.ok_or(not_found(COMMIT, "lead"))?;
        }
        Ok(())
    }

    fn supersede(&mut self, by: &Message, id: MessageId) -> Result<(), StoreError> {
        let earlier = self.message_of(by.user_id, id)?;
        let replaceable =
            earlier.state.may_be_resent() || earlier.is_left_over() && !self.flawed(Flaw::LeftOverIsForGood);
        if earlier.scope != by.scope || earlier.superseded || !replaceable {
            return Err(conflict(COMMIT, "message"));
        }
        if let Some(flow) = earlier.flow {
            let same = by
                .flow
                .is_some_and(|by| (by.enrolment_id, by.step_id) == (flow.enrolment_id, flow.step_id));
            if !same || (self.later_has_begun(flow) && !self.flawed(Flaw::EarlierStepIsResent)) {
                return Err(conflict(COMMIT, "message"));
            }
        }
        let superseded = !self.flawed(Flaw::SupersededRowCounts);
        self.change_message(COMMIT, id, |message| message.superseded = superseded)?;
        Ok(())
    }

    fn message_of(&self, user: UserId, id: MessageId) -> Result<&Message, StoreError> {
        let message = self.messages.get(id).filter(|message| message.user_id == user);
        let message = message.ok_or(not_found(COMMIT, "message"))?;
        if self.messages.is_archived(id) && !self.flawed(Flaw::ArchivedMessageChanges) {
            return Err(conflict(COMMIT, "archived message"));
        }
        Ok(message)
    }

    pub(super) fn mark_message(
        &mut self,
        user: UserId,
        id: MessageId,
        sent: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        if self.message_of(user, id)?.state != MessageState::Unknown {
            return Err(conflict(COMMIT, "message"));
        }
        let state = if sent { MessageState::Sent } else { MessageState::Failed };
        self.change_message(COMMIT, id, |message| {
            place(message, state, Some(Reason::ByPerson), now);
        })?;
        Ok(())
    }

    pub(super) fn cancel_message(&mut self, user: UserId, id: MessageId, now: Timestamp) -> Result<(), StoreError> {
        let state = self.message_of(user, id)?.state;
        if !matches!(state, MessageState::Queued | MessageState::Held) {
            return Err(conflict(COMMIT, "message"));
        }
        self.change_message(COMMIT, id, |message| {
            place(message, MessageState::Cancelled, Some(Reason::ByPerson), now);
        })?;
        Ok(())
    }

    pub(super) fn receipt(
        &mut self,
        (user, device): (UserId, DeviceId),
        message: &MessageRef,
        (delivery, at): (Delivery, Timestamp),
        now: Timestamp,
        done: &mut Committed,
    ) -> Result<(), StoreError> {
        self.device_of(user, device).ok_or(not_found(COMMIT, "device"))?;
        let found = match message {
            MessageRef::Ours(id) => newest_with(&self.messages.by_ours, device, id),
            MessageRef::Provider(id) => newest_with(&self.messages.by_vendors, device, id),
            MessageRef::NewestTo(phone) => self
                .sent_to(device, *phone)
                .find(|id| self.messages.row(*id).delivery.is_none()),
        };
        let Some(id) = found else { return Ok(()) };
        let row = self.messages.row(id);
        let state = row.state;
        let moves = match state {
            MessageState::Sent | MessageState::Sending => {
                Delivery::advances(row.delivery, delivery) || self.flawed(Flaw::ReceiptMovesBack)
            }
            _ if self.flawed(Flaw::ReceiptProvesNothing) => false,
            MessageState::Queued | MessageState::Held | MessageState::InDoubt | MessageState::Unknown => true,
            MessageState::Failed | MessageState::Skipped | MessageState::Cancelled => return Ok(()),
        };
        if moves {
            self.change_message(COMMIT, id, |message| {
                if !matches!(state, MessageState::Sent | MessageState::Sending) {
                    place(message, MessageState::Sent, None, now);
                }
                message.delivery = Some(delivery);
                message.delivery_at = Some(at);
            })?;
        }
        done.matched.push(id);
        Ok(())
    }

    /// The sent messages of a device to a number, newest attempt first.
    fn sent_to(&self, device: DeviceId, phone: Phone) -> impl Iterator<Item = MessageId> {
        let first = (device, phone, Timestamp::from_millis(i64::MIN), MessageId::MIN);
        let last = (device, phone, LAST_INSTANT, LAST_MESSAGE);
        self.messages.sent_to.range(first..=last).rev().map(|(_, _, _, id)| *id)
    }

    pub(super) fn suppress(
        &mut self,
        suppression: Suppression,
        now: Timestamp,
        done: &mut Committed,
    ) -> Result<(), StoreError> {
        let (user, person) = (suppression.user_id, suppression.person);
        self.put_suppression(suppression);
        if self.flawed(Flaw::OptOutMovesNothing) || self.flawed(Flaw::OptOutIsOnlyAList) {
            return Ok(());
        }
        let theirs: Vec<MessageId> = self.messages.of_person(user, person).collect();
        for id in theirs {
            let message = self.messages.row(id);
            if !overrides(message) {
                done.moved += self.stop(id, Reason::Suppressed, now)?;
            }
        }
        self.end_enrolments_of((user, person), EnrolmentReason::Suppressed, now)
    }

    /// Stops an open message that is not being sent: one in doubt becomes `unknown`, others are skipped.
    fn stop(&mut self, id: MessageId, why: Reason, now: Timestamp) -> Result<u64, StoreError> {
        let (state, reason) = match self.messages.row(id).state {
            MessageState::Queued | MessageState::Held => (MessageState::Skipped, why),
            MessageState::InDoubt => (MessageState::Unknown, Reason::EndedInDoubt),
            _ => return Ok(0),
        };
        self.change_message(COMMIT, id, |message| place(message, state, Some(reason), now))?;
        Ok(1)
    }

    pub(super) fn erase_person(
        &mut self,
        user: UserId,
        person: PersonKey,
        phone: Phone,
        now: Timestamp,
        done: &mut Committed,
    ) -> Result<(), StoreError> {
        self.erase_chats(user, person);
        for id in self.leads_with(user, phone) {
            self.remove_lead(id);
        }
        let entries: Vec<(CampaignId, u32)> = self
            .entries_by_phone
            .range((phone, CampaignId::MIN, 0)..)
            .take_while(|(of, _, _)| *of == phone)
            .map(|(_, campaign, position)| (*campaign, *position))
            .filter(|(campaign, _)| self.campaigns.get(campaign).is_some_and(|c| c.user_id == user))
            .collect();
        for (campaign, position) in entries {
            self.remove_entry(campaign, position);
        }
        let spared = self.flawed(Flaw::ErasureSparesTheArchive);
        let theirs = self.messages.of_person(user, person);
        let theirs: Vec<MessageId> = theirs
            .filter(|id| !(spared && self.messages.is_archived(*id)))
            .collect();
        for id in theirs {
            done.moved += self.stop(id, Reason::Erased, now)?;
            let keeps_texts = self.flawed(Flaw::ErasureKeepsTexts);
            self.change_message(COMMIT, id, |message| {
                message.phone = None;
                message.name.clear();
                message.custom.clear();
                message.content = None;
                message.detail = None;
                if let Some(attempt) = message.attempt.as_mut().filter(|_| !keeps_texts) {
                    attempt.text.clear();
                }
            })?;
            if let Some(earlier) = self.messages.earlier.get(&id) {
                let mut erased = earlier.clone();
                for attempt in &mut erased {
                    attempt.text.clear();
                }
                self.put_earlier(id, erased);
            }
        }
        self.erase_enrolments(user, person, now)
    }

    fn leads_with(&self, user: UserId, phone: Phone) -> Vec<LeadId> {
        self.leads_by_phone
            .range((user, phone, LeadId::MIN)..)
            .take_while(|(of, number, _)| (*of, *number) == (user, phone))
            .map(|(_, _, id)| *id)
            .collect()
    }

    /// Whether a message to a person was sent by a device of the user.
    fn is_ours(&self, user: UserId, person: PersonKey, id: &TransportMessageId) -> bool {
        self.messages.of_person(user, person).any(|message| {
            let attempt = self.messages.live(message).and_then(|message| message.attempt.as_ref());
            attempt.is_some_and(|attempt| attempt.transport_message_id == *id)
        })
    }

    /// Records that a person wrote, or a human on the device's own phone, as the reason says by which it ends enrolments.
    pub(super) fn wrote(
        &mut self,
        (user, device): (UserId, DeviceId),
        (phone, person): (Phone, PersonKey),
        (provider_id, at): (TransportMessageId, Timestamp),
        reason: EnrolmentReason,
        now: Timestamp,
        done: &mut Committed,
    ) -> Result<(), StoreError> {
        self.device_of(user, device).ok_or(not_found(COMMIT, "device"))?;
        let by_phone = reason == EnrolmentReason::TakenOver;
        if by_phone && self.is_ours(user, person, &provider_id) && !self.flawed(Flaw::OwnMessagesTakeOver) {
            return Ok(());
        }
        if !self.hear(device, provider_id, now) && !self.flawed(Flaw::ReplyCountsTwice) {
            return Ok(());
        }
        done.reply_is_new = true;
        if self.live_device(user, device).is_ok() {
            self.change_device(user, device, |device| {
                device.last_active_at = device.last_active_at.max(Some(at));
            })?;
        }
        self.touch(device, person, at);
        if self.bring_forward(user, device, person, now)? {
            done.wake.push(device);
        }
        for id in self.leads_with(user, phone) {
            let mut lead = Lead::clone(&self.leads[&id]);
            lead.last_interaction_at = lead.last_interaction_at.max(Some(at));
            self.put_lead(lead);
        }
        let newest = self.sent_to(device, phone).next();
        let by_phone = by_phone && !self.flawed(Flaw::WhoTakesOverReplies);
        if let Some(id) = newest.filter(|_| !by_phone) {
            if Delivery::advances(self.messages.row(id).delivery, Delivery::Replied) {
                self.change_message(COMMIT, id, |message| {
                    message.delivery = Some(Delivery::Replied);
                    message.delivery_at = Some(at);
                })?;
            }
            done.matched.push(id);
        }
        self.end_by_reply(user, person, reason, now)
    }
}

/// The newest message of a device whose newest attempt has this id.
fn newest_with(
    index: &std::collections::BTreeSet<(DeviceId, TransportMessageId, MessageId)>,
    device: DeviceId,
    id: &TransportMessageId,
) -> Option<MessageId> {
    index
        .range((device, id.clone(), MessageId::MIN)..=(device, id.clone(), LAST_MESSAGE))
        .next_back()
        .map(|(_, _, id)| *id)
}
