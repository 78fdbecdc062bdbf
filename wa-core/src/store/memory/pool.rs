//! Campaigns whose audience is the pool: what each device has taken, what is left over, and whose a lead is that was sent to.

use std::collections::BTreeSet;

use super::commit::COMMIT;
use super::flaw::Flaw;
use super::messages::LAST_MESSAGE;
use super::state::{State, conflict, place};
use crate::domain::audience::AudienceCursor;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::lead::Lead;
use crate::domain::message::{MessageScope, MessageState, Reason};
use crate::domain::phone::PersonKey;
use crate::id::{CampaignId, DeviceId, MessageId, UserId};
use crate::store::{LeftOver, PlannedRow, StoreError, Taken};
use crate::time::Timestamp;

impl State {
    /// How many messages of a campaign a device holds or has sent, failed ones among them.
    pub(super) fn held_by(&self, id: CampaignId, device: DeviceId) -> i64 {
        let Some(campaign) = self.campaigns.get(&id) else {
            return 0;
        };
        let key = ((campaign.user_id, MessageScope::Campaign(id)), Some(device));
        let numbers = self.messages.tallies.get(&key).copied().unwrap_or_default();
        let held = numbers.done + numbers.failed + numbers.unknown + numbers.remaining;
        i64::try_from(held).expect("messages are counted in far fewer than 63 bits")
    }

    /// How many it has taken since the campaign was last triggered.
    pub(super) fn taken_by(&self, id: CampaignId, device: DeviceId) -> u32 {
        let before = self.taken_before.get(&(id, device)).copied().unwrap_or(0);
        let taken = self.held_by(id, device) - before;
        u32::try_from(taken.max(0)).unwrap_or(u32::MAX)
    }

    /// Whether a device may take one more message of a scope.
    pub(super) fn has_room(&self, scope: MessageScope, device: DeviceId) -> bool {
        let MessageScope::Campaign(id) = scope else {
            return true;
        };
        let limit = self.campaigns.get(&id).and_then(|campaign| campaign.device_limit);
        limit.is_none_or(|limit| self.taken_by(id, device) < limit || self.flawed(Flaw::AssignIgnoresLimit))
    }

    /// Devices that have, or had, messages of a campaign.
    fn takers(&self, user: UserId, id: CampaignId) -> BTreeSet<DeviceId> {
        let scope = (user, MessageScope::Campaign(id));
        let tallied = self.messages.tallies.range((scope, None)..);
        let tallied = tallied.take_while(|((of, _), _)| *of == scope);
        let before = self.taken_before.range((id, DeviceId::MIN)..);
        let before = before.take_while(|((of, _), _)| *of == id);
        let now = tallied.filter_map(|((_, device), _)| *device);
        now.chain(before.map(|((_, device), _)| *device)).collect()
    }

    pub(super) fn taken(&self, campaigns: &[CampaignId]) -> Vec<Taken> {
        let campaigns: BTreeSet<CampaignId> = campaigns.iter().copied().collect();
        let mut all = Vec::new();
        for id in campaigns {
            let Some(campaign) = self.campaigns.get(&id) else {
                continue;
            };
            let scope = (campaign.user_id, MessageScope::Campaign(id));
            all.extend(self.takers(scope.0, id).into_iter().filter_map(|device_id| {
                let numbers = self.messages.tallies.get(&(scope, Some(device_id)));
                let open = numbers.map_or(0, |numbers| numbers.remaining);
                let taken = self.taken_by(id, device_id);
                (taken > 0).then_some(Taken {
                    campaign_id: id,
                    device_id,
                    taken,
                    open: u32::try_from(open).unwrap_or(u32::MAX),
                })
            }));
        }
        all
    }

    pub(super) fn planned(&self, campaign: CampaignId, persons: &[PersonKey]) -> Vec<PlannedRow> {
        let Some(user) = self.campaigns.get(&campaign).map(|campaign| campaign.user_id) else {
            return Vec::new();
        };
        let mut ids = BTreeSet::new();
        for person in persons {
            let own = (campaign, *person, MessageId::MIN)..=(campaign, *person, LAST_MESSAGE);
            ids.extend(self.messages.in_campaign.range(own).map(|(_, _, id)| *id));
            ids.extend(
                self.messages
                    .of_person(user, *person)
                    .filter(|id| !self.messages.is_archived(*id)),
            );
        }
        let rows = ids.into_iter().filter_map(|id| self.messages.get(id));
        rows.filter(|message| message.scope == MessageScope::Campaign(campaign) && !message.superseded)
            .map(PlannedRow::from)
            .collect()
    }

    pub(super) fn left_over(&self, campaign: CampaignId) -> u64 {
        let scope = self
            .campaigns
            .get(&campaign)
            .map(|one| (one.user_id, MessageScope::Campaign(campaign)));
        if let Some(scope) = scope.filter(|_| self.flawed(Flaw::LeftOverCountsReplaced)) {
            let rows = self.messages.of_scope(scope, MessageId::MIN);
            let rows = rows.map(|id| self.messages.row(id).reason);
            return rows.filter(|reason| *reason == Some(Reason::DeviceLimit)).count() as u64;
        }
        let all = (campaign, MessageId::MIN)..=(campaign, LAST_MESSAGE);
        self.messages.left_over.range(all).count() as u64
    }

    pub(super) fn trigger_again(&mut self, user: UserId, id: CampaignId, now: Timestamp) -> Result<(), StoreError> {
        let campaign = self.live_campaign_of(user, id)?;
        let ended = campaign.status == CampaignStatus::Completed
            || campaign.status == CampaignStatus::Triggered && self.flawed(Flaw::TriggerInterrupts);
        if !campaign.audience.is_pool() || !ended {
            return Err(conflict(COMMIT, "campaign"));
        }
        let again = Campaign {
            status: CampaignStatus::Triggered,
            reason: None,
            status_at: now,
            cursor: AudienceCursor::Start,
            started_at: Some(now),
            resumed_at: None,
            paused_at: None,
            ended_at: None,
            version: campaign.version + 1,
            ..campaign.clone()
        };
        for device in self.takers(user, id) {
            let held = self.held_by(id, device);
            if !self.flawed(Flaw::TriggerKeepsTaken) {
                self.put_taken_before(id, device, held);
            }
        }
        self.put_campaign(again);
        Ok(())
    }

    pub(super) fn leave_over(&mut self, items: &[LeftOver], now: Timestamp) -> Result<u64, StoreError> {
        self.transaction(|state| {
            let mut moved = 0;
            for item in items {
                let waits = state.messages.get(item.message_id).filter(|message| {
                    message.user_id == item.user_id
                        && message.state == MessageState::Queued
                        && message.from_pool
                        && message.device_id.is_none()
                        && state.is_limited(message.scope)
                });
                let Some(message) = waits else { continue };
                let requeued = state.requeued(message);
                let waits_for = message.reason;
                let left_over = requeued.state == MessageState::Queued || state.flawed(Flaw::LeaveOverIgnoresPause);
                state.change_message("leave_over", item.message_id, |message| {
                    if left_over {
                        place(message, MessageState::Skipped, Some(Reason::DeviceLimit), now);
                        return;
                    }
                    requeued.apply(message, now);
                    if message.state.is_open() {
                        message.reason = waits_for;
                    }
                })?;
                moved += 1;
            }
            Ok(moved)
        })
    }

    fn is_limited(&self, scope: MessageScope) -> bool {
        let MessageScope::Campaign(id) = scope else {
            return false;
        };
        self.campaigns
            .get(&id)
            .is_some_and(|campaign| campaign.device_limit.is_some())
    }

    /// Gives the lead of a message from the pool to the device that sent it.
    pub(super) fn give_lead(&mut self, id: MessageId) {
        if !self.flawed(Flaw::LeadStaysWhenSent) {
            self.give_lead_of(id);
        }
    }

    /// The same, whatever became of the message.
    pub(super) fn give_lead_of(&mut self, id: MessageId) {
        let message = self.messages.row(id);
        let MessageScope::Campaign(campaign) = message.scope else {
            return;
        };
        let of_pool = self.is_limited(MessageScope::Campaign(campaign));
        // Evidence may come of an attempt after which the message went back to the pool, or to another device.
        let sent_by = message.attempt.as_ref().map(|attempt| attempt.device_id);
        let (Some(device), Some(lead)) = (sent_by.or(message.device_id), message.lead_id) else {
            return;
        };
        let (user, settled_at) = (message.user_id, message.settled_at);
        if !of_pool || !message.from_pool || self.live_device(user, device).is_err() {
            return;
        }
        let Some(lead) = self.leads.get(&lead).filter(|lead| lead.user_id == user) else {
            return;
        };
        if lead.device_id.is_some() {
            return;
        }
        let given = Lead {
            device_id: Some(device),
            updated_at: settled_at.map_or(lead.updated_at, |at| at.max(lead.updated_at)),
            version: lead.version + 1,
            ..Lead::clone(lead)
        };
        if self.lead_identities.contains_key(&given.identity()) {
            return;
        }
        self.put_lead(given.clone());
        self.follow_lead(&given);
    }
}
