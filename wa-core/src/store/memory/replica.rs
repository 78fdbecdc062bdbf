//! A replica for simulations: rows are put in as they were read elsewhere, without commits, events and marks.

use std::ops::Bound;

use super::MemoryStore;
use super::enrolments::{EnrolmentRow, LAST_ENROLMENT};
use super::messages::{LAST_MESSAGE, ScopeKey};
use super::state::DeviceRow;
use crate::domain::audience::CampaignEntry;
use crate::domain::campaign::Campaign;
use crate::domain::device::{Device, Epoch};
use crate::domain::enrolment::Enrolment;
use crate::domain::lead::Lead;
use crate::domain::message::Message;
use crate::domain::phone::PersonKey;
use crate::domain::sequence::{MatchCursor, Sequence, SequenceSteps};
use crate::domain::suppression::Suppression;
use crate::id::{CampaignId, DeviceId, EnrolmentId, LeadId, MessageId, SequenceId};
use crate::store::{LaneHistory, Taken};
use crate::time::Timestamp;

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

    /// Lets all sequences look at these leads, which are there.
    pub(crate) fn load_unmatched(&self, leads: &[LeadId]) {
        let mut state = self.lock();
        leads.iter().for_each(|id| state.set_unmatched(*id, true));
    }

    /// Puts a sequence in with versions of its steps.
    pub(crate) fn load_sequence(&self, sequence: Sequence, versions: Vec<SequenceSteps>) {
        let mut state = self.lock();
        versions.into_iter().for_each(|version| state.add_steps(version));
        state.put_sequence(sequence);
    }

    /// Puts enrolments in, in whatever state they are; settled messages of theirs that follow mark them.
    pub(crate) fn load_enrolments(&self, enrolments: Vec<Enrolment>) {
        let mut state = self.lock();
        for enrolment in enrolments {
            state.put_enrolment(EnrolmentRow {
                enrolment,
                marked_at: None,
            });
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

    /// Remembers what devices have taken of campaigns, counting the messages that are here.
    pub(crate) fn load_taken(&self, taken: &[Taken]) {
        let mut state = self.lock();
        for one in taken {
            let here = state.held_by(one.campaign_id, one.device_id);
            state.put_taken_before(one.campaign_id, one.device_id, here - i64::from(one.taken));
        }
    }

    /// Remembers whom a device knows, and from here on to whom devices send.
    pub(crate) fn load_acquaintances(&self, device: DeviceId, persons: &[PersonKey]) {
        let mut state = self.lock();
        state.messages.keeps_sent_to = true;
        let first = Timestamp::from_millis(i64::MIN);
        state
            .in_touch
            .extend(persons.iter().map(|person| ((device, *person), first)));
    }

    /// Remembers when a device wrote to strangers before.
    pub(crate) fn load_cold_attempts(&self, device: DeviceId, attempts: Vec<Timestamp>) {
        self.lock().cold_before.insert(device, attempts);
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

    /// A sequence as it stands, and whether nobody is in it or about to enter.
    pub(crate) fn sequence_now<T>(&self, id: SequenceId, read: impl FnOnce(&Sequence, bool) -> T) -> Option<T> {
        let state = self.lock();
        let sequence = state.sequences.get(id)?;
        let matched = sequence.cursor == MatchCursor::Done && state.leads_unmatched.is_empty();
        let through = matched && state.enrolments.first_open_in(id).is_none();
        Some(read(sequence, through))
    }

    /// Looks at a page of the enrolments of a sequence; gives the last one seen, `None` where no more follow.
    pub(crate) fn visit_enrolments(
        &self,
        sequence: SequenceId,
        after: Option<EnrolmentId>,
        limit: usize,
        mut visit: impl FnMut(&Enrolment),
    ) -> Option<EnrolmentId> {
        let state = self.lock();
        let first = Bound::Included((sequence, EnrolmentId::MIN));
        let from = after.map_or(first, |id| Bound::Excluded((sequence, id)));
        let to = Bound::Included((sequence, LAST_ENROLMENT));
        let mut seen = 0;
        let mut last = None;
        for (_, id) in state.enrolments.of_sequence.range((from, to)).take(limit) {
            visit(&state.enrolments.row(*id).enrolment);
            last = Some(*id);
            seen += 1;
        }
        last.filter(|_| seen == limit)
    }
}
