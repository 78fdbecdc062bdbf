//! What is only read any more: messages of campaigns that ended long ago.

use super::flaw::Flaw;
use super::messages::attempted_at;
use super::state::State;
use crate::domain::campaign::Campaign;
use crate::domain::message::{MessageScope, MessageState};
use crate::id::{CampaignId, MessageId};
use crate::store::Archived;
use crate::time::Timestamp;

impl State {
    pub(super) fn archive(&mut self, limit: u32, ended_before: Timestamp, now: Timestamp) -> Archived {
        let Some(id) = self.next_to_archive(ended_before) else {
            return Archived::default();
        };
        let campaign = &self.campaigns[&id];
        let scope = (campaign.user_id, MessageScope::Campaign(id));
        if campaign.archived_at.is_none() {
            let archived_at = Some(now).filter(|_| !self.flawed(Flaw::ArchivedCampaignGoesOn));
            let campaign = Campaign::clone(campaign);
            self.put_campaign(Campaign {
                archived_at,
                ..campaign
            });
        }
        let live: Vec<MessageId> = self
            .messages
            .of_scope(scope, MessageId::MIN)
            .filter(|id| !self.messages.is_archived(*id))
            .take(limit as usize + 1)
            .collect();
        let page = &live[..live.len().min(limit as usize)];
        for message in page {
            self.archive_one(*message);
        }
        if page.len() == live.len() || self.flawed(Flaw::ArchiveStopsAtItsLimit) {
            self.to_archive.retain(|(_, other)| *other != id);
        }
        Archived {
            moved: page.len() as u64,
            more: true,
        }
    }

    /// The first campaign that ended before and has nothing open.
    fn next_to_archive(&self, ended_before: Timestamp) -> Option<CampaignId> {
        let flawed = self.flawed(Flaw::ArchiveIgnoresAge);
        let mut ended = self
            .to_archive
            .iter()
            .take_while(|(at, _)| *at < ended_before || flawed);
        let found = ended.find(|(_, id)| {
            let scope = (self.campaigns[id].user_id, MessageScope::Campaign(*id));
            !self.messages.has_open(scope) || self.flawed(Flaw::ArchiveTakesOpen)
        });
        found.map(|(_, id)| *id)
    }

    fn archive_one(&mut self, id: MessageId) {
        let message = self.messages.row(id);
        let acquaintance = (message.device_id, message.phone, message.person, attempted_at(message));
        if let ((Some(device), Some(_), person, at), MessageState::Sent) = (acquaintance, message.state)
            && !self.flawed(Flaw::ArchiveForgetsAcquaintances)
        {
            let since = self.in_touch.entry((device, person)).or_insert(at);
            *since = at.min(*since);
        }
        let message = self.messages.row(id);
        let started = message
            .attempt
            .as_ref()
            .map(|attempt| (attempt.device_id, attempt.attempted_at));
        if let Some((device, at)) = started
            && matches!(message.state, MessageState::Sent | MessageState::Unknown)
            && !self.flawed(Flaw::ArchiveRestartsWarmUp)
        {
            let first = self.messages.first_archived.entry(device).or_insert(at);
            *first = at.min(*first);
        }
        if self.flawed(Flaw::ArchiveLosesAttempts) {
            self.messages.earlier.remove(&id);
        }
        self.messages.archive(id);
        if self.flawed(Flaw::ArchiveIsNotRead) {
            self.messages.replace(id, None);
        }
    }
}
