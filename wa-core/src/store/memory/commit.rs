//! Commits of changes to devices, leads, campaigns, saved texts and commands.

use super::enrolments::Ending;
use super::flaw::Flaw;
use super::state::{DeviceRow, Mark, State, conflict, folded, not_found};
use crate::domain::audience::{Audience, AudienceCursor, CampaignEntry};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::command::{DeviceAnswer, DeviceCommand};
use crate::domain::device::{Device, Epoch, HoldReason};
use crate::domain::enrolment::EnrolmentReason;
use crate::domain::lead::Lead;
use crate::domain::message::MessageState;
use crate::domain::saved_text::SavedText;
use crate::id::{CampaignId, DeviceId, LeadId, TemplateId, UserId};
use crate::store::{Change, ChangeSet, Committed, Fence, LeadInsert, OnDuplicate, StoreError};
use crate::time::Timestamp;

/// The operation that errors name.
pub(super) const COMMIT: &str = "commit";

impl State {
    pub(super) fn commit(&mut self, set: ChangeSet, now: Timestamp) -> Result<Committed, StoreError> {
        self.transaction(|state| {
            let mut done = Committed::default();
            for change in set.changes {
                let reply = matches!(change, Change::Replied { .. } | Change::TakenOver { .. });
                state.apply(change, now, &mut done)?;
                if reply && !done.reply_is_new {
                    return Ok(done);
                }
            }
            let lost = state.flawed(Flaw::EventsAreLost);
            for event in set.events.into_iter().filter(|_| !lost) {
                state.add_event(event);
            }
            done.wake.sort_unstable();
            done.wake.dedup();
            Ok(done)
        })
    }

    fn apply(&mut self, change: Change, now: Timestamp, done: &mut Committed) -> Result<(), StoreError> {
        match change {
            Change::InsertDevice(device) => self.insert_device(*device),
            Change::UpdateDevice(device) => self.update_device(*device, now),
            Change::DeleteDevice { user_id, device_id } => {
                self.change_device(user_id, device_id, |device| {
                    device.deleted_at = Some(now);
                    device.updated_at = now;
                    device.version += 1;
                })?;
                self.mark(Mark::Device(device_id));
                self.leave_chats(device_id);
                Ok(())
            }
            Change::Owned {
                user_id,
                device_id,
                fence,
            } => {
                self.live_device(user_id, device_id)?;
                self.check_fence(device_id, fence)
            }
            Change::SetDeviceLink {
                user_id,
                device_id,
                fence,
                state,
                reason,
                phone,
                jid,
            } => {
                if let Some(fence) = fence {
                    self.check_fence(device_id, fence)?;
                }
                if self.live_device(user_id, device_id)?.device.is_other_number(phone) {
                    self.doubt_account(device_id, now)?;
                }
                self.change_device(user_id, device_id, |device| {
                    if device.link_state != state {
                        device.link_at = now;
                        device.last_active_at = Some(now);
                    }
                    device.link_state = state;
                    device.link_reason = reason;
                    device.phone = phone.or(device.phone);
                    device.jid = jid.or(device.jid.take());
                    device.updated_at = now;
                })
            }
            Change::SetDeviceHold {
                user_id,
                device_id,
                hold,
            } => self.change_device(user_id, device_id, |device| {
                device.hold = hold;
                device.updated_at = now;
            }),
            Change::HoldDevice {
                user_id,
                device_id,
                hold,
                version,
            } => {
                let device = &self.live_device(user_id, device_id)?.device;
                let by_person = device.is_held_by_person() && !self.flawed(Flaw::HoldReplacesThatOfAPerson);
                let stale = version.is_some_and(|version| version != device.version);
                if by_person || stale && !self.flawed(Flaw::HoldIgnoresVersion) {
                    return Err(conflict(COMMIT, "device"));
                }
                self.change_device(user_id, device_id, |device| {
                    device.hold = Some(hold);
                    device.updated_at = now;
                })
            }
            Change::SetDeviceRestriction {
                user_id,
                device_id,
                restriction,
            } => self.change_device(user_id, device_id, |device| {
                device.restriction = restriction;
                device.updated_at = now;
            }),
            Change::SetDeviceNewChats {
                user_id,
                device_id,
                new_chats,
            } => self.change_device(user_id, device_id, |device| {
                device.new_chats = new_chats;
                device.updated_at = now;
            }),
            Change::InsertLead { lead, on_duplicate } => {
                let answer = self.insert_lead(*lead, on_duplicate, now)?;
                done.leads.push(answer);
                Ok(())
            }
            Change::UpdateLead(lead) => self.update_lead(*lead),
            Change::DeleteLead { user_id, lead_id } => self.delete_lead(user_id, lead_id, now),
            Change::InsertCampaign(campaign) => self.insert_campaign(*campaign),
            Change::UpdateCampaign(campaign) => self.update_campaign(*campaign),
            Change::DeleteCampaign { user_id, campaign_id } => self.delete_campaign(user_id, campaign_id),
            Change::SetCampaignStatus {
                user_id,
                campaign_id,
                from,
                to,
                reason,
            } => self.set_campaign_status(user_id, campaign_id, from, (to, reason), now),
            Change::TriggerAgain { user_id, campaign_id } => self.trigger_again(user_id, campaign_id, now),
            Change::InsertEntries(entries) => self.insert_entries(entries),
            Change::AdvanceCursor { campaign_id, from, to } => self.advance_cursor(campaign_id, from, to),
            Change::InsertMessages(messages) => messages
                .into_iter()
                .try_for_each(|message| self.insert_message(message, now, done)),
            Change::MarkMessage {
                user_id,
                message_id,
                sent,
            } => self.mark_message(user_id, message_id, sent, now),
            Change::CancelMessage { user_id, message_id } => self.cancel_message(user_id, message_id, now),
            Change::Receipt {
                user_id,
                device_id,
                message,
                delivery,
                at,
            } => self.receipt((user_id, device_id), &message, (delivery, at), now, done),
            Change::InsertSequence { sequence, steps } => self.insert_sequence(*sequence, steps.map(|steps| *steps)),
            Change::UpdateSequence { sequence, steps } => self.update_sequence(*sequence, steps.map(|steps| *steps)),
            Change::DeleteSequence { user_id, sequence_id } => self.delete_sequence(user_id, sequence_id, now),
            Change::SetSequenceStatus {
                user_id,
                sequence_id,
                from,
                to,
                reason,
            } => self.set_sequence_status(user_id, sequence_id, from, (to, reason), now),
            Change::MoveMatchCursor {
                sequence_id,
                steps_version,
                from,
                to,
            } => self.move_match_cursor(sequence_id, steps_version, from, to),
            Change::Matched {
                user_id,
                lead_id,
                version,
            } => {
                self.matched(user_id, lead_id, version);
                Ok(())
            }
            Change::Enrol(all) => self.enrol(all, now, done),
            Change::AdvanceEnrolment(advance) => self.advance_enrolment(*advance, now, done),
            Change::EndEnrolment {
                user_id,
                enrolment_id,
                step,
                state,
                reason,
                next_id,
            } => {
                let ending = Ending { state, reason, next_id };
                self.end_one_enrolment(user_id, enrolment_id, step, ending, now)
            }
            Change::ReplaceTrigger {
                user_id,
                lead_id,
                remove,
                add,
                matched,
            } => {
                let waits = self.leads_unmatched.contains(&lead_id);
                self.replace_trigger(user_id, lead_id, (remove, add), now);
                if matched && !waits {
                    self.set_unmatched(lead_id, false);
                }
                Ok(())
            }
            Change::Suppress(suppression) => self.suppress(suppression, now, done),
            Change::Unsuppress { user_id, person } => {
                self.remove_suppression(user_id, person);
                Ok(())
            }
            Change::ErasePerson { user_id, person, phone } => self.erase_person(user_id, person, phone, now, done),
            Change::Replied {
                user_id,
                device_id,
                phone,
                person,
                provider_id,
                at,
            } => {
                let reason = EnrolmentReason::Replied;
                self.wrote(
                    (user_id, device_id),
                    (phone, person),
                    (provider_id, at),
                    reason,
                    now,
                    done,
                )
            }
            Change::TakenOver {
                user_id,
                device_id,
                phone,
                person,
                provider_id,
                at,
            } => {
                let reason = EnrolmentReason::TakenOver;
                self.wrote(
                    (user_id, device_id),
                    (phone, person),
                    (provider_id, at),
                    reason,
                    now,
                    done,
                )
            }
            Change::AddToChat(addition) => self.add_to_chat(&addition, done),
            Change::ReadChat { user_id, chat_id } => self.read_chat(user_id, chat_id),
            Change::InsertSavedText(saved) => self.insert_saved_text(*saved),
            Change::UpdateSavedText(saved) => self.update_saved_text(*saved),
            Change::DeleteSavedText { user_id, template_id } => self.delete_saved_text(user_id, template_id),
            Change::InsertCommand(command) => {
                done.wake.push(command.device_id);
                self.insert_command(*command)
            }
            Change::AnswerCommand {
                command_id,
                fence,
                answer,
            } => {
                let command = self
                    .commands
                    .get(&command_id)
                    .ok_or(not_found(COMMIT, "device command"))?;
                self.check_fence(command.device_id, fence)?;
                if command.answer == DeviceAnswer::Waiting || self.flawed(Flaw::AnswerIsReplaced) {
                    let answered = DeviceCommand {
                        answer,
                        ..DeviceCommand::clone(command)
                    };
                    self.put_command(answered);
                }
                Ok(())
            }
        }
    }

    /// Whether an owner may write about a device.
    fn check_fence(&self, device: DeviceId, fence: Fence) -> Result<(), StoreError> {
        self.check_node(fence.incarnation, COMMIT)?;
        let row = self.devices.get(&device).ok_or(not_found(COMMIT, "device"))?;
        if row.owner == Some(fence.incarnation) && row.epoch == fence.epoch {
            Ok(())
        } else {
            Err(conflict(COMMIT, "device"))
        }
    }

    /// A device of a user that is not deleted.
    pub(super) fn live_device(&self, user: UserId, id: DeviceId) -> Result<&DeviceRow, StoreError> {
        self.device_of(user, id)
            .filter(|row| row.is_live())
            .ok_or(not_found(COMMIT, "device"))
    }

    fn check_name_and_hook(&self, device: &Device) -> Result<(), StoreError> {
        let name = (device.user_id, folded(&device.name));
        let taken = |id: Option<&DeviceId>| id.is_some_and(|id| *id != device.id);
        let hook = super::state::digest(&device.hook_token);
        if taken(self.device_names.get(&name)) || (!device.hook_token.is_empty() && taken(self.hooks.get(&hook))) {
            return Err(conflict(COMMIT, "device"));
        }
        Ok(())
    }

    fn insert_device(&mut self, device: Device) -> Result<(), StoreError> {
        if self.devices.contains_key(&device.id) {
            return Err(conflict(COMMIT, "device"));
        }
        self.check_name_and_hook(&device)?;
        self.put_device(DeviceRow {
            device,
            epoch: Epoch::default(),
            owner: None,
        });
        Ok(())
    }

    fn update_device(&mut self, device: Device, now: Timestamp) -> Result<(), StoreError> {
        let row = self.live_device(device.user_id, device.id)?.clone();
        let old = &row.device;
        if old.version != device.version && !self.flawed(Flaw::VersionIsIgnored) {
            return Err(conflict(COMMIT, "device"));
        }
        self.check_name_and_hook(&device)?;
        let cured = device.credential != old.credential
            && old
                .hold
                .as_ref()
                .is_some_and(|hold| hold.reason == HoldReason::Unauthenticated);
        let forgets = self.flawed(Flaw::UpdateForgetsIdentity);
        let new = Device {
            jid: old.jid.clone().filter(|_| !forgets),
            link_state: old.link_state,
            link_reason: old.link_reason.clone(),
            link_at: old.link_at,
            hold: old.hold.clone().filter(|_| !cured),
            restriction: old.restriction,
            new_chats: old.new_chats.filter(|_| !self.flawed(Flaw::UpdateForgetsNewChats)),
            last_active_at: old.last_active_at,
            created_at: old.created_at,
            deleted_at: None,
            version: old.version + 1,
            ..device
        };
        let (id, is_same) = (new.id, new.is_same_account(old));
        self.put_device(DeviceRow { device: new, ..row });
        if is_same || self.flawed(Flaw::OtherAccountIsAsked) {
            return Ok(());
        }
        self.doubt_account(id, now)?;
        self.disown(id);
        Ok(())
    }

    /// Nobody can be asked about what a device is sending, or what is in doubt on it, any more: it has become another account.
    fn doubt_account(&mut self, device: DeviceId, now: Timestamp) -> Result<(), StoreError> {
        self.interrupt(COMMIT, device, now)?;
        for id in self.messages.open_on(device, MessageState::InDoubt) {
            self.change_message(COMMIT, id, |message| {
                message.doubt = message.doubt.map(|doubt| doubt.with_account_changed(now));
            })?;
        }
        Ok(())
    }

    pub(super) fn change_device(
        &mut self,
        user: UserId,
        id: DeviceId,
        change: impl FnOnce(&mut Device),
    ) -> Result<(), StoreError> {
        let mut row = self.live_device(user, id)?.clone();
        change(&mut row.device);
        self.put_device(row);
        Ok(())
    }

    fn insert_lead(&mut self, lead: Lead, on_duplicate: OnDuplicate, now: Timestamp) -> Result<LeadInsert, StoreError> {
        if let Some(device) = lead.device_id {
            self.live_device(lead.user_id, device)?;
        }
        let existing = self.lead_identities.get(&lead.identity()).copied();
        match (existing, on_duplicate) {
            (None, _) if self.leads.contains_key(&lead.id) => Err(conflict(COMMIT, "lead")),
            (Some(_), OnDuplicate::Refuse) => Err(conflict(COMMIT, "lead")),
            (None, _) => {
                let id = lead.id;
                self.put_lead(lead);
                Ok(LeadInsert::Inserted(id))
            }
            (Some(existing), OnDuplicate::MergeTriggers) => {
                let mut merged = Lead::clone(&self.leads[&existing]);
                let before = merged.triggers.len();
                for trigger in lead.triggers.iter() {
                    // A full set takes no more: what a lead may carry is limited, and the lead itself is no news.
                    if merged.triggers.insert(trigger.clone()).is_err() {
                        break;
                    }
                }
                let added = merged.triggers.len() > before;
                if added {
                    merged.version += 1;
                    merged.updated_at = now;
                    self.put_lead(merged);
                }
                Ok(LeadInsert::Duplicate {
                    existing,
                    merged: added,
                })
            }
        }
    }

    fn lead_of(&self, user: UserId, id: LeadId) -> Result<&Lead, StoreError> {
        self.leads
            .get(&id)
            .map(Box::as_ref)
            .filter(|lead| lead.user_id == user)
            .ok_or(not_found(COMMIT, "lead"))
    }

    fn update_lead(&mut self, lead: Lead) -> Result<(), StoreError> {
        let old = self.lead_of(lead.user_id, lead.id)?;
        if old.version != lead.version && !self.flawed(Flaw::VersionIsIgnored) {
            return Err(conflict(COMMIT, "lead"));
        }
        let new = Lead {
            created_at: old.created_at,
            last_interaction_at: old.last_interaction_at.max(lead.last_interaction_at),
            version: old.version + 1,
            ..lead
        };
        if let Some(device) = new.device_id.filter(|_| new.device_id != old.device_id) {
            self.live_device(new.user_id, device)?;
        }
        if self
            .lead_identities
            .get(&new.identity())
            .is_some_and(|id| *id != new.id)
        {
            return Err(conflict(COMMIT, "lead"));
        }
        let moved = new.device_id != old.device_id;
        self.put_lead(new.clone());
        if moved {
            self.follow_lead(&new);
        }
        Ok(())
    }

    fn delete_lead(&mut self, user: UserId, id: LeadId, now: Timestamp) -> Result<(), StoreError> {
        self.lead_of(user, id)?;
        self.remove_lead(id);
        self.end_with_lead(id, now)
    }

    pub(super) fn campaign_of(&self, user: UserId, id: CampaignId) -> Result<&Campaign, StoreError> {
        self.campaigns
            .get(&id)
            .map(Box::as_ref)
            .filter(|campaign| campaign.user_id == user)
            .ok_or(not_found(COMMIT, "campaign"))
    }

    /// A campaign of a user that may be changed.
    pub(super) fn live_campaign_of(&self, user: UserId, id: CampaignId) -> Result<&Campaign, StoreError> {
        let campaign = self.campaign_of(user, id)?;
        match campaign.archived_at {
            None => Ok(campaign),
            Some(_) => Err(conflict(COMMIT, "archived campaign")),
        }
    }

    /// The devices that a campaign names belong to its user; one that it named before may be deleted.
    fn check_devices(&self, campaign: &Campaign) -> Result<(), StoreError> {
        let audience_device = match &campaign.audience {
            Audience::Leads { device_id, .. } => *device_id,
            Audience::Entries | Audience::Pool { .. } => None,
        };
        for device in campaign.device_id.into_iter().chain(audience_device) {
            self.device_of(campaign.user_id, device)
                .ok_or(not_found(COMMIT, "device"))?;
        }
        Ok(())
    }

    fn insert_campaign(&mut self, campaign: Campaign) -> Result<(), StoreError> {
        if self.campaigns.contains_key(&campaign.id) {
            return Err(conflict(COMMIT, "campaign"));
        }
        self.check_devices(&campaign)?;
        self.put_campaign(Campaign {
            archived_at: None,
            ..campaign
        });
        Ok(())
    }

    fn update_campaign(&mut self, campaign: Campaign) -> Result<(), StoreError> {
        let old = self.live_campaign_of(campaign.user_id, campaign.id)?;
        let status = (old.status, campaign.status);
        let stale = old.version != campaign.version && !self.flawed(Flaw::VersionIsIgnored);
        let moves = status.0 != status.1;
        if stale || (moves && (!status.0.can_become(status.1) || self.ends_too_early(old, status.1))) {
            return Err(conflict(COMMIT, "campaign"));
        }
        let new = Campaign {
            archived_at: old.archived_at,
            created_at: old.created_at,
            version: old.version + 1,
            ..campaign
        };
        self.check_devices(&new)?;
        self.put_moved_campaign(new, status.0);
        Ok(())
    }

    /// Whether a campaign would count as completed although it has open messages.
    fn ends_too_early(&self, campaign: &Campaign, to: CampaignStatus) -> bool {
        let key = (
            campaign.user_id,
            crate::domain::message::MessageScope::Campaign(campaign.id),
        );
        to == CampaignStatus::Completed && self.messages.has_open(key) && !self.flawed(Flaw::CompletionIsForced)
    }

    /// Puts a campaign whose status may have changed, with the mark that makes `sweep` move its messages.
    pub(super) fn put_moved_campaign(&mut self, campaign: Campaign, before: CampaignStatus) {
        let (id, scope) = (campaign.id, crate::domain::message::MessageScope::Campaign(campaign.id));
        let moved = campaign.status != before;
        let key = (campaign.user_id, scope);
        self.put_campaign(campaign);
        if moved && self.messages.has_open(key) {
            self.mark(Mark::Campaign(id));
        }
    }

    fn delete_campaign(&mut self, user: UserId, id: CampaignId) -> Result<(), StoreError> {
        let campaign = self.live_campaign_of(user, id)?;
        let never_started = campaign.started_at.is_none()
            && matches!(
                campaign.status,
                CampaignStatus::Draft | CampaignStatus::Scheduled | CampaignStatus::Cancelled
            );
        let scope = (user, crate::domain::message::MessageScope::Campaign(id));
        if !never_started
            || self
                .messages
                .of_scope(scope, crate::id::MessageId::MIN)
                .next()
                .is_some()
        {
            return Err(conflict(COMMIT, "campaign"));
        }
        let positions: Vec<u32> = self
            .entries
            .range((id, 0)..=(id, u32::MAX))
            .map(|((_, position), _)| *position)
            .collect();
        for position in positions {
            self.remove_entry(id, position);
        }
        self.remove_campaign(id);
        Ok(())
    }

    fn set_campaign_status(
        &mut self,
        user: UserId,
        id: CampaignId,
        from: &[CampaignStatus],
        (to, reason): (CampaignStatus, Option<CampaignReason>),
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let mut campaign = self.live_campaign_of(user, id)?.clone();
        let before = campaign.status;
        let expected = from.contains(&before) || self.flawed(Flaw::StatusIsForced);
        let moves = before != to;
        if !expected || (moves && (!before.can_become(to) || self.ends_too_early(&campaign, to))) {
            return Err(conflict(COMMIT, "campaign"));
        }
        campaign.status = to;
        campaign.reason = reason;
        campaign.status_at = now;
        campaign.version += 1;
        if before != to {
            match to {
                CampaignStatus::Triggered if before == CampaignStatus::Scheduled => {
                    campaign.started_at.get_or_insert(now);
                }
                CampaignStatus::Triggered => {
                    campaign.resumed_at = Some(now);
                    campaign.ended_at = None;
                }
                CampaignStatus::Paused => campaign.paused_at = Some(now),
                CampaignStatus::Completed | CampaignStatus::Failed | CampaignStatus::Cancelled => {
                    campaign.ended_at = Some(now);
                }
                CampaignStatus::Draft | CampaignStatus::Scheduled => {}
            }
        }
        self.put_moved_campaign(campaign, before);
        Ok(())
    }

    fn insert_entries(&mut self, entries: Vec<CampaignEntry>) -> Result<(), StoreError> {
        for entry in entries {
            let campaign = self
                .campaigns
                .get(&entry.campaign_id)
                .ok_or(not_found(COMMIT, "campaign"))?;
            if campaign.status != CampaignStatus::Draft {
                return Err(conflict(COMMIT, "campaign"));
            }
            if !self.entries.contains_key(&(entry.campaign_id, entry.position)) {
                self.put_entry(entry);
            }
        }
        Ok(())
    }

    fn advance_cursor(&mut self, id: CampaignId, from: AudienceCursor, to: AudienceCursor) -> Result<(), StoreError> {
        let campaign = self.campaigns.get(&id).ok_or(not_found(COMMIT, "campaign"))?;
        let runs = campaign.status == CampaignStatus::Triggered || self.flawed(Flaw::CursorPassesPause);
        if !runs || (campaign.cursor != from && !self.flawed(Flaw::CursorIsIgnored)) {
            return Err(conflict(COMMIT, "campaign"));
        }
        let mut campaign = Campaign::clone(campaign);
        campaign.cursor = to;
        campaign.version += 1;
        self.put_campaign(campaign);
        Ok(())
    }

    fn insert_saved_text(&mut self, saved: SavedText) -> Result<(), StoreError> {
        let name = (saved.user_id, folded(&saved.name));
        if self.saved_texts.contains_key(&saved.id) || self.saved_text_names.contains_key(&name) {
            return Err(conflict(COMMIT, "saved text"));
        }
        self.put_saved_text(saved);
        Ok(())
    }

    fn saved_text_of(&self, user: UserId, id: TemplateId) -> Result<&SavedText, StoreError> {
        self.saved_texts
            .get(&id)
            .map(Box::as_ref)
            .filter(|saved| saved.user_id == user)
            .ok_or(not_found(COMMIT, "saved text"))
    }

    fn update_saved_text(&mut self, saved: SavedText) -> Result<(), StoreError> {
        let old = self.saved_text_of(saved.user_id, saved.id)?;
        let name = (saved.user_id, folded(&saved.name));
        let taken = self.saved_text_names.get(&name).is_some_and(|id| *id != saved.id);
        if old.version != saved.version || taken {
            return Err(conflict(COMMIT, "saved text"));
        }
        let new = SavedText {
            created_at: old.created_at,
            version: old.version + 1,
            ..saved
        };
        self.put_saved_text(new);
        Ok(())
    }

    fn delete_saved_text(&mut self, user: UserId, id: TemplateId) -> Result<(), StoreError> {
        self.saved_text_of(user, id)?;
        self.remove_saved_text(id);
        Ok(())
    }

    fn insert_command(&mut self, command: DeviceCommand) -> Result<(), StoreError> {
        self.live_device(command.user_id, command.device_id)?;
        if self.commands.contains_key(&command.id) {
            return Err(conflict(COMMIT, "device command"));
        }
        self.put_command(command);
        Ok(())
    }
}
