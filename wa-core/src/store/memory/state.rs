//! All rows as plain data, and the undo log that makes a commit all or nothing.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};

use super::chats::{ChatRow, Chats, MessageKey, MessageRow};
use super::enrolments::{EnrolmentRow, Enrolments};
use super::flaw::Flaw;
use super::messages::Messages;
use super::sequences::{Sequences, may_match_anew};
use crate::domain::access::{LoginSession, User};
use crate::domain::audience::{AudienceCursor, CampaignEntry};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::command::{DeviceAnswer, DeviceCommand};
use crate::domain::device::{Device, Epoch, OwnedDevice};
use crate::domain::lead::{Lead, LeadIdentity};
use crate::domain::message::{Attempt, Message, MessageScope, MessageState, Reason};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::saved_text::SavedText;
use crate::domain::sequence::{Sequence, SequenceSteps};
use crate::domain::suppression::Suppression;
use crate::domain::token::Token;
use crate::event::Event;
use crate::id::{
    CampaignId, ChatId, CommandId, DeviceId, EnrolmentId, EventId, ImportId, Incarnation, LeadId, MessageId,
    SequenceId, TemplateId, UserId,
};
use crate::plan::{DeviceGate, ScopeGate, Suppressed, requeue};
use crate::seed::Seed;
use crate::store::{ImportRecord, ImportRefusal, SessionKey, SessionRow, StoreError, StoreErrorKind};
use crate::time::Timestamp;
use crate::transport::TransportMessageId;

/// A device with what the store keeps beside it.
#[derive(Clone)]
pub(super) struct DeviceRow {
    pub(super) device: Device,
    pub(super) epoch: Epoch,
    pub(super) owner: Option<Incarnation>,
}

impl DeviceRow {
    pub(super) fn owned(&self) -> OwnedDevice {
        OwnedDevice {
            device: self.device.clone(),
            epoch: self.epoch,
            owner: self.owner,
        }
    }

    pub(super) fn is_live(&self) -> bool {
        self.device.deleted_at.is_none()
    }
}

/// A run of a node.
#[derive(Clone)]
pub(super) struct NodeRow {
    pub(super) name: String,
    pub(super) beat: i64,
    pub(super) beat_at: Timestamp,
    pub(super) fenced: bool,
}

/// Something whose messages `sweep` has to move.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mark {
    Campaign(CampaignId),
    Device(DeviceId),
    Sequence(SequenceId),
}

/// What takes one primitive change back.
enum Undo {
    Device(DeviceId, Option<Box<DeviceRow>>),
    Lead(LeadId, Option<Box<Lead>>),
    Campaign(CampaignId, Option<Box<Campaign>>),
    TakenBefore(CampaignId, DeviceId, Option<i64>),
    Entry(CampaignId, u32, Option<Box<CampaignEntry>>),
    Sequence(SequenceId, Option<Box<Sequence>>),
    Steps(SequenceId, i32),
    Enrolment(EnrolmentId, Option<Box<EnrolmentRow>>),
    Unmatched(LeadId, bool),
    Message(MessageId, Option<Box<Message>>),
    Earlier(MessageId, Vec<Attempt>),
    Suppression(UserId, PersonKey, Option<Box<Suppression>>),
    SavedText(TemplateId, Option<Box<SavedText>>),
    Command(CommandId, Option<Box<DeviceCommand>>),
    Event(UserId, EventId),
    Heard(DeviceId, TransportMessageId),
    Touched(DeviceId, PersonKey),
    Mark(Mark),
    Chat(ChatId, Option<Box<ChatRow>>),
    ChatMessage(MessageKey, Option<Box<MessageRow>>),
}

/// The whole database.
#[derive(Default)]
pub(super) struct State {
    pub(super) seed: Option<Seed>,
    pub(super) exclusive: bool,
    #[cfg(feature = "conformance")]
    pub(super) flaw: Option<Flaw>,

    pub(super) nodes: BTreeMap<Incarnation, NodeRow>,
    pub(super) planner: Option<Incarnation>,

    pub(super) devices: BTreeMap<DeviceId, Box<DeviceRow>>,
    pub(super) live_devices: BTreeSet<(UserId, DeviceId)>,
    pub(super) device_names: BTreeMap<(UserId, String), DeviceId>,
    pub(super) hooks: BTreeMap<[u8; 32], DeviceId>,
    pub(super) owned_by: BTreeSet<(Incarnation, DeviceId)>,
    /// Users by the nodes that own devices of theirs.
    pub(super) served_by: BTreeSet<(Incarnation, UserId, DeviceId)>,
    pub(super) unowned: BTreeSet<DeviceId>,
    /// The start of the newest attempt of each device, whatever came of it.
    pub(super) last_attempts: BTreeMap<DeviceId, Timestamp>,

    pub(super) leads: BTreeMap<LeadId, Box<Lead>>,
    pub(super) leads_of: BTreeSet<(UserId, LeadId)>,
    pub(super) leads_by_niche: BTreeSet<(UserId, Token, LeadId)>,
    pub(super) leads_by_trigger: BTreeSet<(UserId, Token, LeadId)>,
    /// Leads that may match a sequence and were not matched since.
    pub(super) leads_unmatched: BTreeSet<LeadId>,
    pub(super) leads_by_phone: BTreeSet<(UserId, Phone, LeadId)>,
    pub(super) lead_identities: BTreeMap<LeadIdentity, LeadId>,

    pub(super) campaigns: BTreeMap<CampaignId, Box<Campaign>>,
    pub(super) campaigns_of: BTreeSet<(UserId, CampaignId)>,
    pub(super) campaigns_scheduled: BTreeSet<(Timestamp, CampaignId)>,
    pub(super) campaigns_expanding: BTreeSet<CampaignId>,
    pub(super) campaigns_expanded: BTreeSet<CampaignId>,
    /// Started and ended, with messages that are not in the archive, by their end.
    pub(super) to_archive: BTreeSet<(Timestamp, CampaignId)>,
    /// What devices had taken of a campaign when it was triggered again; below nought in a replica that lacks what they took.
    pub(super) taken_before: BTreeMap<(CampaignId, DeviceId), i64>,
    pub(super) entries: BTreeMap<(CampaignId, u32), Box<CampaignEntry>>,
    pub(super) entries_by_phone: BTreeSet<(Phone, CampaignId, u32)>,

    pub(super) sequences: Sequences,
    pub(super) enrolments: Enrolments,
    pub(super) messages: Messages,
    pub(super) chats: Chats,
    pub(super) marks: BTreeSet<Mark>,
    pub(super) heard: BTreeMap<(DeviceId, TransportMessageId), Timestamp>,
    pub(super) heard_at: BTreeSet<(Timestamp, DeviceId, TransportMessageId)>,
    /// Devices and people who are in touch, and since when.
    pub(super) in_touch: BTreeMap<(DeviceId, PersonKey), Timestamp>,
    /// Attempts to write to strangers that were made before the first message that is kept here.
    pub(super) cold_before: BTreeMap<DeviceId, Vec<Timestamp>>,
    pub(super) suppressions: BTreeMap<(UserId, PersonKey), Box<Suppression>>,

    pub(super) saved_texts: BTreeMap<TemplateId, Box<SavedText>>,
    pub(super) saved_texts_of: BTreeSet<(UserId, TemplateId)>,
    pub(super) saved_text_names: BTreeMap<(UserId, String), TemplateId>,

    pub(super) commands: BTreeMap<CommandId, Box<DeviceCommand>>,
    pub(super) commands_waiting: BTreeSet<(Timestamp, CommandId)>,
    pub(super) commands_expiring: BTreeSet<(Timestamp, CommandId)>,
    /// By their places in the order of commits.
    pub(super) events: BTreeMap<(UserId, u64), Event>,
    pub(super) event_places: BTreeMap<(UserId, EventId), u64>,
    event_count: u64,
    pub(super) events_at: BTreeSet<(Timestamp, UserId, EventId)>,

    pub(super) users: BTreeMap<UserId, User>,
    pub(super) logins: BTreeMap<String, UserId>,
    pub(super) sessions: BTreeMap<[u8; 32], LoginSession>,
    pub(super) session_rows: BTreeMap<(DeviceId, SessionKey), SessionRow>,
    pub(super) session_ends: BTreeSet<(Timestamp, DeviceId, SessionKey)>,
    pub(super) imports: BTreeMap<ImportId, ImportRecord>,
    pub(super) refusals: BTreeMap<(ImportId, u64), Vec<ImportRefusal>>,

    undo: Option<Vec<Undo>>,
}

pub(super) fn not_found(operation: &'static str, entity: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, operation, entity)
}

pub(super) fn conflict(operation: &'static str, entity: &'static str) -> StoreError {
    StoreError::new(StoreErrorKind::Conflict, operation, entity)
}

/// Names are compared trimmed and case-folded.
pub(super) fn folded(name: &str) -> String {
    name.trim().to_lowercase()
}

/// The digest by which a secret token is found.
pub(super) fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// Puts a row in the place of another and moves its keys in the indexes named.
macro_rules! replace {
    ($state:ident, $rows:ident[$id:expr] = $new:expr; $($index:ident: $keys:expr;)*) => {{
        let id = $id;
        let new = $new;
        let old = match $state.$rows.remove(&id) {
            None => None,
            Some(old) => {
                $($keys(&old).into_iter().for_each(|key| { $state.$index.remove(&key); });)*
                Some(old)
            }
        };
        if let Some(new) = new {
            $($keys(&new).into_iter().for_each(|key| { $state.$index.insert(key); });)*
            $state.$rows.insert(id, new);
        }
        old
    }};
}

impl State {
    /// Whether the store has this deliberate bug.
    #[cfg(feature = "conformance")]
    pub(super) fn flawed(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// A store without the feature has none.
    #[cfg(not(feature = "conformance"))]
    #[allow(clippy::unused_self)]
    pub(super) const fn flawed(&self, _flaw: Flaw) -> bool {
        false
    }

    /// Runs changes and takes all of them back when one fails.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.undo = Some(Vec::new());
        let result = work(self);
        let log = self.undo.take().unwrap_or_default();
        if result.is_err() && !self.flawed(Flaw::CommitIsNotAtomic) {
            for step in log.into_iter().rev() {
                self.take_back(step);
            }
        }
        result
    }

    /// Runs a part of a transaction and takes all of that back when it fails.
    pub(super) fn attempt<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let before = self.undo.as_ref().map_or(0, Vec::len);
        let result = work(self);
        if result.is_err() {
            let log = self.undo.as_mut().map_or_else(Vec::new, |log| log.split_off(before));
            for step in log.into_iter().rev() {
                self.take_back(step);
            }
        }
        result
    }

    fn note(&mut self, step: Undo) {
        if let Some(log) = &mut self.undo {
            log.push(step);
        }
    }

    fn take_back(&mut self, step: Undo) {
        match step {
            Undo::Device(id, old) => drop(self.replace_device(id, old)),
            Undo::Lead(id, old) => drop(self.replace_lead(id, old)),
            Undo::Campaign(id, old) => drop(self.replace_campaign(id, old)),
            Undo::TakenBefore(campaign, device, old) => drop(self.replace_taken_before(campaign, device, old)),
            Undo::Entry(campaign, position, old) => drop(self.replace_entry(campaign, position, old)),
            Undo::Sequence(id, old) => drop(self.sequences.replace(id, old)),
            Undo::Steps(id, version) => drop(self.sequences.steps.remove(&(id, version))),
            Undo::Enrolment(id, old) => drop(self.enrolments.replace(id, old)),
            Undo::Unmatched(id, was) => drop(self.replace_unmatched(id, was)),
            Undo::Message(id, old) => drop(self.messages.replace(id, old)),
            Undo::Earlier(id, old) => drop(self.messages.earlier.insert(id, old)),
            Undo::Suppression(user, person, old) => drop(self.replace_suppression(user, person, old)),
            Undo::SavedText(id, old) => drop(self.replace_saved_text(id, old)),
            Undo::Command(id, old) => drop(self.replace_command(id, old)),
            Undo::Event(user, id) => drop(self.remove_event(user, id)),
            Undo::Heard(device, id) => self.forget_heard(device, id),
            Undo::Touched(device, person) => drop(self.in_touch.remove(&(device, person))),
            Undo::Mark(mark) => drop(self.marks.remove(&mark)),
            Undo::Chat(id, old) => drop(self.chats.replace(id, old)),
            Undo::ChatMessage(key, old) => drop(self.chats.replace_message(key, old)),
        }
    }

    pub(super) fn put_device(&mut self, row: DeviceRow) {
        let id = row.device.id;
        let old = self.replace_device(id, Some(Box::new(row)));
        self.note(Undo::Device(id, old));
    }

    fn replace_device(&mut self, id: DeviceId, new: Option<Box<DeviceRow>>) -> Option<Box<DeviceRow>> {
        let old = replace! { self, devices[id] = new;
            live_devices: |row: &DeviceRow| row.is_live().then_some((row.device.user_id, id));
            owned_by: |row: &DeviceRow| row.owner.map(|owner| (owner, id));
            served_by: |row: &DeviceRow| row.owner.filter(|_| row.is_live()).map(|owner| (owner, row.device.user_id, id));
            unowned: |row: &DeviceRow| (row.is_live() && row.owner.is_none()).then_some(id);
        };
        // Maps are keyed by what must be unique; a rename may swap it, so all old keys go before new ones come.
        for row in old.iter().filter(|row| row.is_live()) {
            self.device_names
                .remove(&(row.device.user_id, folded(&row.device.name)));
            if !row.device.hook_token.is_empty() {
                self.hooks.remove(&digest(&row.device.hook_token));
            }
        }
        for row in self.devices.get(&id).into_iter().filter(|row| row.is_live()) {
            self.device_names
                .insert((row.device.user_id, folded(&row.device.name)), id);
            if !row.device.hook_token.is_empty() {
                self.hooks.insert(digest(&row.device.hook_token), id);
            }
        }
        old
    }

    pub(super) fn put_lead(&mut self, lead: Lead) {
        let id = lead.id;
        let matches_anew = may_match_anew(self.leads.get(&id).map(Box::as_ref), &lead);
        let old = self.replace_lead(id, Some(Box::new(lead)));
        self.note(Undo::Lead(id, old));
        if matches_anew {
            self.set_unmatched(id, true);
        }
    }

    pub(super) fn remove_lead(&mut self, id: LeadId) {
        let old = self.replace_lead(id, None);
        self.note(Undo::Lead(id, old));
        self.set_unmatched(id, false);
    }

    /// Records whether a lead is still to be matched.
    pub(super) fn set_unmatched(&mut self, id: LeadId, unmatched: bool) {
        let was = self.replace_unmatched(id, unmatched);
        self.note(Undo::Unmatched(id, was));
    }

    fn replace_unmatched(&mut self, id: LeadId, unmatched: bool) -> bool {
        if unmatched {
            !self.leads_unmatched.insert(id)
        } else {
            self.leads_unmatched.remove(&id)
        }
    }

    pub(super) fn put_sequence(&mut self, sequence: Sequence) {
        let id = sequence.id;
        let old = self.sequences.replace(id, Some(Box::new(sequence)));
        self.note(Undo::Sequence(id, old));
    }

    /// Adds a version of steps that is not there, before the sequence that names it.
    pub(super) fn add_steps(&mut self, steps: SequenceSteps) {
        let key = (steps.sequence_id, steps.version);
        self.sequences.steps.insert(key, Box::new(steps));
        self.note(Undo::Steps(key.0, key.1));
    }

    pub(super) fn put_enrolment(&mut self, row: EnrolmentRow) {
        let id = row.enrolment.id;
        let old = self.enrolments.replace(id, Some(Box::new(row)));
        self.note(Undo::Enrolment(id, old));
    }

    fn replace_lead(&mut self, id: LeadId, new: Option<Box<Lead>>) -> Option<Box<Lead>> {
        let old = replace! { self, leads[id] = new;
            leads_of: |lead: &Lead| Some((lead.user_id, id));
            leads_by_niche: |lead: &Lead| {
                let keys: Vec<_> = lead.niches.iter().map(|niche| (lead.user_id, niche.clone(), id)).collect();
                keys
            };
            leads_by_trigger: |lead: &Lead| {
                let keys: Vec<_> = lead.triggers.iter().map(|token| (lead.user_id, token.clone(), id)).collect();
                keys
            };
            leads_by_phone: |lead: &Lead| Some((lead.user_id, lead.phone, id));
        };
        if let Some(old) = &old {
            self.lead_identities.remove(&old.identity());
        }
        if let Some(new) = self.leads.get(&id) {
            self.lead_identities.insert(new.identity(), id);
        }
        old
    }

    pub(super) fn put_campaign(&mut self, campaign: Campaign) {
        let id = campaign.id;
        let old = self.replace_campaign(id, Some(Box::new(campaign)));
        self.note(Undo::Campaign(id, old));
    }

    pub(super) fn remove_campaign(&mut self, id: CampaignId) {
        let old = self.replace_campaign(id, None);
        self.note(Undo::Campaign(id, old));
    }

    fn replace_campaign(&mut self, id: CampaignId, new: Option<Box<Campaign>>) -> Option<Box<Campaign>> {
        let running = |campaign: &Campaign| campaign.status == CampaignStatus::Triggered;
        let expanded = |campaign: &Campaign| campaign.cursor == AudienceCursor::Done;
        replace! { self, campaigns[id] = new;
            campaigns_of: |campaign: &Campaign| Some((campaign.user_id, id));
            campaigns_scheduled: |campaign: &Campaign| {
                let waits = campaign.status == CampaignStatus::Scheduled
                    && campaign.reason != Some(CampaignReason::LateAsk);
                campaign.scheduled_at.filter(|_| waits).map(|at| (at, id))
            };
            campaigns_expanding: |campaign: &Campaign| (running(campaign) && !expanded(campaign)).then_some(id);
            campaigns_expanded: |campaign: &Campaign| (running(campaign) && expanded(campaign)).then_some(id);
            to_archive: |campaign: &Campaign| {
                let ended = campaign.started_at.is_some() && campaign.status.has_ended();
                campaign.ended_at.filter(|_| ended).map(|at| (at, id))
            };
        }
    }

    /// Records what a device had taken of a campaign when it was triggered again.
    pub(super) fn put_taken_before(&mut self, campaign: CampaignId, device: DeviceId, taken: i64) {
        let old = self.replace_taken_before(campaign, device, Some(taken));
        self.note(Undo::TakenBefore(campaign, device, old));
    }

    fn replace_taken_before(&mut self, campaign: CampaignId, device: DeviceId, new: Option<i64>) -> Option<i64> {
        let key = (campaign, device);
        match new {
            Some(new) => self.taken_before.insert(key, new),
            None => self.taken_before.remove(&key),
        }
    }

    pub(super) fn put_entry(&mut self, entry: CampaignEntry) {
        let (campaign, position) = (entry.campaign_id, entry.position);
        let old = self.replace_entry(campaign, position, Some(Box::new(entry)));
        self.note(Undo::Entry(campaign, position, old));
    }

    pub(super) fn remove_entry(&mut self, campaign: CampaignId, position: u32) {
        let old = self.replace_entry(campaign, position, None);
        self.note(Undo::Entry(campaign, position, old));
    }

    fn replace_entry(
        &mut self,
        campaign: CampaignId,
        position: u32,
        new: Option<Box<CampaignEntry>>,
    ) -> Option<Box<CampaignEntry>> {
        replace! { self, entries[(campaign, position)] = new;
            entries_by_phone: |entry: &CampaignEntry| Some((entry.phone, campaign, position));
        }
    }

    /// Puts a new message in the outbox.
    pub(super) fn add_message(&mut self, message: Message) {
        let (id, settled) = (message.id, !message.state.is_open());
        let old = self.messages.replace(id, Some(Box::new(message)));
        self.note(Undo::Message(id, old));
        if settled {
            self.mark_enrolment("insert", id);
        }
    }

    /// Changes a message. Every change of a state goes through here, so the table of transitions is asked once, and whatever
    /// settles a message of a flow marks its enrolment.
    ///
    /// # Errors
    /// `Conflict` when the table forbids the transition; nothing was changed then.
    pub(super) fn change_message(
        &mut self,
        operation: &'static str,
        id: MessageId,
        change: impl FnOnce(&mut Message),
    ) -> Result<MessageState, StoreError> {
        let old = self.messages.row(id);
        let mut new = Box::new(old.clone());
        change(&mut new);
        let (from, to) = (old.state, new.state);
        if from != to && !from.can_become(to) && !self.flawed(Flaw::TerminalStatesChange) {
            return Err(conflict(operation, "message"));
        }
        let strays = matches!(to, MessageState::Skipped | MessageState::Cancelled);
        let stale = (strays && self.flawed(Flaw::TalliesMissStrays)).then(|| self.messages.tallies.clone());
        let old = self.messages.replace(id, Some(new));
        self.messages.tallies = stale.unwrap_or_else(|| std::mem::take(&mut self.messages.tallies));
        self.note(Undo::Message(id, old));
        if from.is_open() && !to.is_open() {
            self.mark_enrolment(operation, id);
            self.release_later_steps(operation, id)?;
        }
        if to == MessageState::Sent && from != to {
            self.give_lead(id);
        }
        Ok(to)
    }

    /// Replaces the attempts before the newest.
    pub(super) fn put_earlier(&mut self, id: MessageId, attempts: Vec<Attempt>) {
        let old = self.messages.earlier.insert(id, attempts).unwrap_or_default();
        self.note(Undo::Earlier(id, old));
    }

    pub(super) fn put_suppression(&mut self, suppression: Suppression) {
        let (user, person) = (suppression.user_id, suppression.person);
        let old = self.replace_suppression(user, person, Some(Box::new(suppression)));
        self.note(Undo::Suppression(user, person, old));
    }

    pub(super) fn remove_suppression(&mut self, user: UserId, person: PersonKey) {
        let old = self.replace_suppression(user, person, None);
        self.note(Undo::Suppression(user, person, old));
    }

    fn replace_suppression(
        &mut self,
        user: UserId,
        person: PersonKey,
        new: Option<Box<Suppression>>,
    ) -> Option<Box<Suppression>> {
        replace! { self, suppressions[(user, person)] = new; }
    }

    pub(super) fn put_saved_text(&mut self, saved: SavedText) {
        let id = saved.id;
        let old = self.replace_saved_text(id, Some(Box::new(saved)));
        self.note(Undo::SavedText(id, old));
    }

    pub(super) fn remove_saved_text(&mut self, id: TemplateId) {
        let old = self.replace_saved_text(id, None);
        self.note(Undo::SavedText(id, old));
    }

    fn replace_saved_text(&mut self, id: TemplateId, new: Option<Box<SavedText>>) -> Option<Box<SavedText>> {
        let old = replace! { self, saved_texts[id] = new;
            saved_texts_of: |saved: &SavedText| Some((saved.user_id, id));
        };
        if let Some(old) = &old {
            self.saved_text_names.remove(&(old.user_id, folded(&old.name)));
        }
        if let Some(new) = self.saved_texts.get(&id) {
            self.saved_text_names.insert((new.user_id, folded(&new.name)), id);
        }
        old
    }

    pub(super) fn put_command(&mut self, command: DeviceCommand) {
        let id = command.id;
        let old = self.replace_command(id, Some(Box::new(command)));
        self.note(Undo::Command(id, old));
    }

    pub(super) fn replace_command(
        &mut self,
        id: CommandId,
        new: Option<Box<DeviceCommand>>,
    ) -> Option<Box<DeviceCommand>> {
        let waits = |command: &DeviceCommand| command.answer == DeviceAnswer::Waiting;
        replace! { self, commands[id] = new;
            commands_waiting: |command: &DeviceCommand| waits(command).then_some((command.created_at, id));
            commands_expiring: |command: &DeviceCommand| Some((command.expires_at, id));
        }
    }

    /// Adds an event; one that is there already stays.
    pub(super) fn add_event(&mut self, event: Event) {
        let key = (event.user_id, event.id);
        if let std::collections::btree_map::Entry::Vacant(place) = self.event_places.entry(key) {
            self.event_count += 1;
            place.insert(self.event_count);
            self.events_at.insert((event.at, key.0, key.1));
            self.events.insert((key.0, self.event_count), event);
            self.note(Undo::Event(key.0, key.1));
        }
    }

    pub(super) fn remove_event(&mut self, user: UserId, id: EventId) -> Option<Event> {
        let place = self.event_places.remove(&(user, id))?;
        let event = self.events.remove(&(user, place))?;
        self.events_at.remove(&(event.at, user, id));
        Some(event)
    }

    /// Records that an inbound message was heard; says whether it is new.
    pub(super) fn hear(&mut self, device: DeviceId, id: TransportMessageId, now: Timestamp) -> bool {
        let key = (device, id.clone());
        if self.heard.contains_key(&key) {
            return false;
        }
        self.heard.insert(key, now);
        self.heard_at.insert((now, device, id.clone()));
        self.note(Undo::Heard(device, id));
        true
    }

    /// Notes that a device and a person are in touch.
    pub(super) fn touch(&mut self, device: DeviceId, person: PersonKey, at: Timestamp) {
        let known = self.in_touch.contains_key(&(device, person));
        if !known && !self.flawed(Flaw::WhoWroteStaysAStranger) {
            self.in_touch.insert((device, person), at);
            self.note(Undo::Touched(device, person));
        }
    }

    pub(super) fn forget_heard(&mut self, device: DeviceId, id: TransportMessageId) {
        if let Some(at) = self.heard.remove(&(device, id.clone())) {
            self.heard_at.remove(&(at, device, id));
        }
    }

    pub(super) fn put_chat(&mut self, row: ChatRow) {
        let id = row.chat.id;
        let old = self.chats.replace(id, Some(Box::new(row)));
        self.note(Undo::Chat(id, old));
    }

    pub(super) fn remove_chat(&mut self, id: ChatId) {
        let old = self.chats.replace(id, None);
        self.note(Undo::Chat(id, old));
    }

    /// Puts a message in its place, or takes away what is there.
    pub(super) fn put_chat_message(&mut self, key: MessageKey, row: Option<MessageRow>) {
        let old = self.chats.replace_message(key, row.map(Box::new));
        self.note(Undo::ChatMessage(key, old));
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        if self.marks.insert(mark) {
            self.note(Undo::Mark(mark));
        }
    }

    /// A device of a user, deleted ones too.
    pub(super) fn device_of(&self, user: UserId, id: DeviceId) -> Option<&DeviceRow> {
        self.devices
            .get(&id)
            .map(Box::as_ref)
            .filter(|row| row.device.user_id == user)
    }

    /// Whether a campaign lets its messages be sent.
    pub(super) fn campaign_gate(&self, id: CampaignId) -> ScopeGate {
        let campaign = self.campaigns.get(&id);
        campaign.map_or(ScopeGate::Ended, |campaign| campaign.status.into())
    }

    /// Whether its scope lets a message be sent.
    pub(super) fn gate(&self, message: &Message) -> ScopeGate {
        match message.scope {
            MessageScope::Campaign(id) => self.campaign_gate(id),
            MessageScope::Sequence(id) => self.flow_gate(id, message),
            _ => ScopeGate::Open,
        }
    }

    /// Whether a message must not go to its person; an override counts in direct messages only.
    pub(super) fn suppressed(&self, message: &Message) -> Suppressed {
        let overridden =
            overrides(message) || message.override_suppression && self.flawed(Flaw::OverrideCountsEverywhere);
        if !overridden && self.suppressions.contains_key(&(message.user_id, message.person)) {
            Suppressed::Yes
        } else {
            Suppressed::No
        }
    }

    /// Whether the device of a message is deleted.
    pub(super) fn device_is_gone(&self, message: &Message) -> bool {
        message
            .device_id
            .is_some_and(|id| self.devices.get(&id).is_none_or(|row| !row.is_live()))
    }

    /// Where a message goes that is not being sent, and whether it goes back to its pool.
    pub(super) fn requeued(&self, message: &Message) -> Requeued {
        let gone = self.device_is_gone(message);
        let gate = if gone && !message.from_pool {
            DeviceGate::Gone
        } else {
            DeviceGate::Present
        };
        let (state, reason) = requeue(self.gate(message), self.suppressed(message), gate);
        Requeued {
            state,
            reason,
            to_pool: gone && message.from_pool && state.is_open(),
        }
    }

    /// Whether a message in doubt may not be resolved by sending any more: its scope ended or its person opted out.
    pub(super) fn doubt_has_ended(&self, message: &Message) -> bool {
        self.gate(message) == ScopeGate::Ended || self.suppressed(message) == Suppressed::Yes
    }
}

/// Where a message goes that is not being sent.
pub(super) struct Requeued {
    pub(super) state: MessageState,
    pub(super) reason: Option<Reason>,
    pub(super) to_pool: bool,
}

impl Requeued {
    /// Moves a message there.
    pub(super) fn apply(&self, message: &mut Message, now: Timestamp) {
        if self.to_pool {
            message.device_id = None;
        }
        place(message, self.state, self.reason, now);
    }
}

/// Whether a message may go to a suppressed person.
pub(super) fn overrides(message: &Message) -> bool {
    message.override_suppression && message.scope == MessageScope::Direct
}

/// Puts a message into a state, with the columns that follow from it: time on hold moves its expiry, and what is settled
/// keeps the instant at which it first was.
pub(super) fn place(message: &mut Message, state: MessageState, reason: Option<Reason>, now: Timestamp) {
    if state != MessageState::Held {
        if let Some(held_at) = message.held_at.take() {
            message.expires_at = message.expires_at + now.since(held_at);
        }
    } else if message.held_at.is_none() {
        message.held_at = Some(now);
    }
    if !matches!(state, MessageState::InDoubt | MessageState::Sending) {
        message.doubt = None;
    }
    if state.is_open() {
        message.settled_at = None;
    } else {
        message.settled_at.get_or_insert(now);
    }
    message.state = state;
    message.reason = reason;
}
