//! A replica for simulations: rows are put in as they were read elsewhere, without commits, events and marks.

use std::ops::Bound;

use super::MemoryStore;
use super::messages::{LAST_MESSAGE, ScopeKey};
use super::state::DeviceRow;
use crate::domain::audience::CampaignEntry;
use crate::domain::campaign::Campaign;
use crate::domain::device::{Device, Epoch};
use crate::domain::lead::Lead;
use crate::domain::message::Message;
use crate::domain::phone::PersonKey;
use crate::domain::suppression::Suppression;
use crate::id::{CampaignId, MessageId};
use crate::store::LaneHistory;

impl MemoryStore {
    /// An empty store that keeps no texts of attempts, and no index that only receipts, replies, lists of messages and
    /// opt-outs read.
    pub(crate) fn lean() -> Self {
        let store = Self::default();
        store.lock().messages.lean = true;
        store
    }

    /// Puts devices in that nobody owns yet.
    pub(crate) fn load_devices(&self, devices: Vec<Device>) {
        let mut state = self.lock();
        for device in devices {
            state.put_device(DeviceRow {
                device,
                epoch: Epoch::default(),
                owner: None,
            });
        }
    }

    /// Puts leads in that no sequence looks at.
    pub(crate) fn load_leads(&self, leads: Vec<Lead>) {
        let mut state = self.lock();
        for lead in leads {
            let id = lead.id;
            state.put_lead(lead);
            state.set_unmatched(id, false);
        }
    }

    /// Puts a campaign in.
    pub(crate) fn load_campaign(&self, campaign: Campaign) {
        self.lock().put_campaign(campaign);
    }

    /// Puts entries of campaigns in.
    pub(crate) fn load_entries(&self, entries: Vec<CampaignEntry>) {
        let mut state = self.lock();
        entries.into_iter().for_each(|entry| state.put_entry(entry));
    }

    /// Puts suppressions in.
    pub(crate) fn load_suppressions(&self, suppressions: Vec<Suppression>) {
        let mut state = self.lock();
        suppressions.into_iter().for_each(|one| state.put_suppression(one));
    }

    /// Puts messages in, in whatever state they are.
    pub(crate) fn load_messages(&self, messages: Vec<Message>) {
        let mut state = self.lock();
        messages.into_iter().for_each(|message| state.add_message(message));
    }

    /// Remembers that these persons have a message in a campaign, without one.
    pub(crate) fn load_persons(&self, campaign: CampaignId, persons: &[PersonKey]) {
        let mut state = self.lock();
        let rows = persons.iter().map(|person| (campaign, *person, MessageId::MIN));
        state.messages.in_campaign.extend(rows);
    }

    /// Remembers what lanes have sent before.
    pub(crate) fn load_histories(&self, histories: Vec<LaneHistory>) {
        let mut state = self.lock();
        for history in histories {
            state.messages.before.insert(history.device_id, history);
        }
    }

    /// Looks at a page of the messages of a scope; gives the last one seen, `None` where no more follow.
    pub(crate) fn visit_messages(
        &self,
        scope: ScopeKey,
        after: Option<MessageId>,
        limit: usize,
        mut visit: impl FnMut(&Message),
    ) -> Option<MessageId> {
        let state = self.lock();
        let first = Bound::Included((scope, MessageId::MIN));
        let from = after.map_or(first, |id| Bound::Excluded((scope, id)));
        let to = Bound::Included((scope, LAST_MESSAGE));
        let ids = state.messages.of_scope.range((from, to));
        let mut seen = 0;
        let mut last = None;
        for (_, id) in ids.take(limit) {
            visit(state.messages.row(*id));
            last = Some(*id);
            seen += 1;
        }
        last.filter(|_| seen == limit)
    }

    /// How many messages of a scope are settled, and how many there are.
    pub(crate) fn progress_of(&self, scope: ScopeKey) -> (u64, u64) {
        let state = self.lock();
        let devices = state.messages.tallies.range((scope, None)..);
        let rows = devices.take_while(|((of, _), _)| *of == scope);
        rows.fold((0, 0), |(settled, all), (_, numbers)| {
            let should = numbers.should();
            (settled + should - numbers.remaining, all + should)
        })
    }

    /// A campaign as it stands.
    pub(crate) fn campaign_now<T>(&self, id: CampaignId, read: impl FnOnce(&Campaign) -> T) -> Option<T> {
        self.lock().campaigns.get(&id).map(|campaign| read(campaign))
    }
}
