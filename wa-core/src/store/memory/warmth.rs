//! Whom devices know.

use async_trait::async_trait;
use uuid::Uuid;

use super::MemoryStore;
use super::flaw::Flaw;
use super::messages::{LAST_INSTANT, LAST_MESSAGE};
use super::state::State;
use crate::domain::message::{Message, MessageScope, MessageState, Reason};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::warmth::Warmth;
use crate::id::{DeviceId, MessageId, UserId};
use crate::store::{StoreError, Stranger, Strangers, WarmthStore};
use crate::time::Timestamp;

const FIRST_INSTANT: Timestamp = Timestamp::from_millis(i64::MIN);

impl State {
    /// Whether a device knew a person before an instant.
    fn knew(&self, device: DeviceId, phone: Option<Phone>, person: PersonKey, before: Timestamp) -> Warmth {
        let in_touch = self
            .in_touch
            .get(&(device, person))
            .is_some_and(|since| *since < before);
        let sent = phone.is_some_and(|phone| {
            let first = (device, phone, FIRST_INSTANT, MessageId::MIN);
            let mut earlier = self
                .messages
                .sent_to
                .range(first..(device, phone, before, MessageId::MIN));
            earlier.next().is_some()
        });
        let sent = sent && !self.flawed(Flaw::WhoWasSentToStaysAStranger);
        Warmth::of(in_touch, sent)
    }

    fn warmth_of(&self, message: &Message) -> Warmth {
        match message.device_id {
            Some(device) => self.knew(device, message.phone, message.person, LAST_INSTANT),
            None => Warmth::Cold,
        }
    }

    fn strangers(&self, asked: &Strangers) -> Vec<Stranger> {
        if self.device_of(asked.user_id, asked.device_id).is_none() {
            return Vec::new();
        }
        let priority = asked.scope.priority();
        let turn = match asked.scope {
            MessageScope::Campaign(id) => *id.as_uuid(),
            MessageScope::Sequence(id) => *id.as_uuid(),
            _ => Uuid::nil(),
        };
        let first = (asked.device_id, priority, turn, FIRST_INSTANT, MessageId::MIN);
        let last = (asked.device_id, priority, turn, asked.now, LAST_MESSAGE);
        let due = self.messages.queued.range(first..=last).take(asked.limit as usize);
        let rows = due.map(|(.., id)| self.messages.row(*id));
        rows.filter(|message| asked.known_too || self.warmth_of(message).is_cold())
            .map(|message| Stranger {
                message_id: message.id,
                phone: message.phone,
            })
            .collect()
    }

    fn put_off(&self, user: UserId, device: DeviceId, now: Timestamp, limit: u32) -> Vec<MessageId> {
        let first = (device, MessageState::Queued, MessageId::MIN);
        let last = (device, MessageState::Queued, LAST_MESSAGE);
        let queued = self
            .messages
            .open_on
            .range(first..=last)
            .map(|(.., id)| self.messages.row(*id));
        queued
            .filter(|message| message.user_id == user && waits(message, now))
            .map(|message| message.id)
            .take(limit as usize)
            .collect()
    }

    fn cold_attempts(&self, device: DeviceId, since: Timestamp) -> Vec<Timestamp> {
        let first = (device, since, MessageId::MIN);
        let attempts = self
            .messages
            .attempted
            .range(first..=(device, LAST_INSTANT, LAST_MESSAGE));
        let cold = attempts.filter(|(_, at, id)| {
            let message = self.messages.row(*id);
            self.knew(device, message.phone, message.person, *at).is_cold()
        });
        let before = self
            .cold_before
            .get(&device)
            .into_iter()
            .flatten()
            .filter(|at| **at >= since);
        before.copied().chain(cold.map(|(_, at, _)| *at)).collect()
    }

    /// The messages of a person that wait because they were a stranger may go now.
    pub(super) fn bring_forward(
        &mut self,
        user: UserId,
        device: DeviceId,
        person: PersonKey,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        let theirs: Vec<MessageId> = self.messages.of_person(user, person).collect();
        let mut any = false;
        for id in theirs {
            let message = self.messages.row(id);
            let theirs = message.state == MessageState::Queued && message.device_id == Some(device);
            if theirs && waits(message, now) && !self.flawed(Flaw::WhoWroteStillWaits) {
                any = true;
                self.change_message("commit", id, |message| {
                    message.due_at = now;
                    message.reason = None;
                })?;
            }
        }
        Ok(any)
    }
}

fn waits(message: &Message, now: Timestamp) -> bool {
    message.due_at > now && message.reason.is_some_and(Reason::waits_for_warmth)
}

#[async_trait]
impl WarmthStore for MemoryStore {
    async fn warmth(&self, messages: &[MessageId]) -> Result<Vec<Warmth>, StoreError> {
        let state = self.lock();
        let of = |id: &MessageId| state.messages.live(*id).map(|message| state.warmth_of(message));
        Ok(messages.iter().map(|id| of(id).unwrap_or_default()).collect())
    }

    async fn strangers(&self, asked: &Strangers) -> Result<Vec<Stranger>, StoreError> {
        Ok(self.lock().strangers(asked))
    }

    async fn put_off(
        &self,
        user: UserId,
        device: DeviceId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<MessageId>, StoreError> {
        Ok(self.lock().put_off(user, device, now, limit))
    }

    async fn cold_attempts(&self, devices: &[DeviceId], since: Timestamp) -> Result<Vec<Vec<Timestamp>>, StoreError> {
        let state = self.lock();
        Ok(devices
            .iter()
            .map(|device| state.cold_attempts(*device, since))
            .collect())
    }

    async fn acquainted(&self, device: DeviceId, people: &[(Phone, PersonKey)]) -> Result<Vec<PersonKey>, StoreError> {
        let state = self.lock();
        let known = people.iter().filter(|(phone, person)| {
            let warmth = state.knew(device, Some(*phone), *person, LAST_INSTANT);
            !warmth.is_cold()
        });
        Ok(known.map(|(_, person)| *person).collect())
    }
}
