//! Commits: one change after the other, in the order given.

use sqlx::postgres::PgConnection;
use wa_core::domain::audience::AudienceCursor;
use wa_core::domain::enrolment::EnrolmentReason;
use wa_core::id::{DeviceId, UserId};
use wa_core::store::{Change, ChangeSet, Committed, Fence};
use wa_core::time::Timestamp;

use crate::campaigns::{
    advance_cursor, delete_campaign, delete_saved_text, insert_campaign, insert_entries, insert_saved_text, set_status,
    trigger_again, update_campaign, update_saved_text,
};
use crate::chats::{add_to_chat, leave_chats, mark_read};
use crate::commands::{answer_command, insert_command, insert_events};
use crate::commit_messages::{cancel_message, erase_person, insert_messages, mark_message, receipt, suppress, wrote};
use crate::devices::{change_device, insert_device, live_device, mark_device, update_device};
use crate::enrolments::{self, Ending};
use crate::error::{Done, Fail};
use crate::insert::query;
use crate::leads::{Marking, delete_lead, insert_leads, matched, replace_trigger, update_lead};
use crate::leases::check_node;
use crate::lock::{Mode, Space};
use crate::row::{Columns, keys, read_all};
use crate::sequences::{self, delete_sequence, insert_sequence, move_match_cursor, update_sequence};
use crate::settle::doubt_account;
use crate::suppressions::remove_suppression;
use crate::tallies::Tallies;

/// `Owned`, `SetDeviceLink`, `AnswerCommand`: owner and epoch of a device, by the primary key.
pub(crate) const OWNER: &str = "SELECT owner, epoch FROM devices WHERE id = $1";

/// What a commit gathers.
pub(crate) struct Commit<'c> {
    pub(crate) connection: &'c mut PgConnection,
    /// Whether pages of rows may be copied.
    pub(crate) copies: bool,
    pub(crate) now: Timestamp,
    pub(crate) done: Committed,
    pub(crate) tallies: Tallies,
}

/// Whose transaction it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    /// The store's, which runs to its end whoever waits for it.
    Ours,
    /// An embedder's, who may drop it at any moment: in the middle of a COPY its connection would be of no more use.
    Embedder,
}

/// `AdvanceCursor`, `InsertEntries`, `MoveMatchCursor`, `AnswerCommand`: whose they are, by the primary keys.
pub(crate) const USERS: &str = "
    SELECT c.user_id FROM campaigns c WHERE c.id = ANY ($1)
    UNION SELECT q.user_id FROM sequences q WHERE q.id = ANY ($2)
    UNION SELECT k.user_id FROM device_commands k WHERE k.id = ANY ($3)";

/// Whether a set is a page of an audience with more to come: one that is lost with the server is planned again from the cursor, which is
/// lost with it. Whatever builds on it, a begin too, comes after it in the log, so that it is never there without it.
fn may_be_planned_again(set: &ChangeSet) -> bool {
    let is_last = |to: &AudienceCursor| *to == AudienceCursor::Done;
    let [Change::AdvanceCursor { to, .. }, rest @ ..] = set.changes.as_slice() else {
        return false;
    };
    !is_last(to) && set.events.is_empty() && rest.iter().all(|change| matches!(change, Change::InsertMessages(_)))
}

/// Takes the nodes of all fences and has all users of a set alone.
async fn lock(connection: &mut PgConnection, space: Space, set: &ChangeSet) -> Done<()> {
    let mut locks = space.locks();
    let (mut campaigns, mut sequences, mut commands) = (Vec::new(), Vec::new(), Vec::new());
    for change in &set.changes {
        let one;
        let users: &mut dyn Iterator<Item = UserId> = match change {
            Change::InsertMessages(messages) => &mut messages.iter().map(|message| message.user_id),
            Change::Enrol(all) => &mut all.iter().flat_map(|new| [new.enrolment.user_id, new.first.user_id]),
            Change::AdvanceEnrolment(advance) => {
                let messages = advance.messages.iter().map(|message| message.user_id);
                &mut messages.chain([advance.user_id])
            }
            Change::InsertEntries(entries) => {
                campaigns.extend(entries.iter().map(|entry| entry.campaign_id));
                continue;
            }
            Change::AdvanceCursor { campaign_id, .. } => {
                campaigns.push(*campaign_id);
                continue;
            }
            Change::MoveMatchCursor { sequence_id, .. } => {
                sequences.push(*sequence_id);
                continue;
            }
            Change::AnswerCommand { command_id, fence, .. } => {
                commands.push(*command_id);
                locks = locks.node(fence.incarnation, Mode::Shared);
                continue;
            }
            other => {
                if let Change::Owned { fence, .. } | Change::SetDeviceLink { fence: Some(fence), .. } = other {
                    locks = locks.node(fence.incarnation, Mode::Shared);
                }
                one = user_of(other);
                &mut one.into_iter()
            }
        };
        for user in users {
            locks = locks.users([&user], Mode::Alone);
        }
    }
    if !(campaigns.is_empty() && sequences.is_empty() && commands.is_empty()) {
        // Whose they are never changes, so that it may be read before the locks.
        campaigns.dedup();
        let statement = query(USERS)
            .bind(keys(&campaigns))
            .bind(keys(&sequences))
            .bind(keys(&commands));
        let rows = statement.fetch_all(connection).await?;
        let users: Vec<UserId> = read_all(&rows, |c| c.key("user_id"))?;
        locks = locks.users(&users, Mode::Alone);
    }
    // The order of events is that of the commits, as long as each has its user alone.
    let locks = locks.users(set.events.iter().map(|event| &event.user_id), Mode::Alone);
    locks.take(connection).await
}

/// The user of a change that concerns one.
fn user_of(change: &Change) -> Option<UserId> {
    match change {
        Change::InsertDevice(device) | Change::UpdateDevice(device) => Some(device.user_id),
        Change::InsertLead { lead, .. } | Change::UpdateLead(lead) => Some(lead.user_id),
        Change::InsertCampaign(campaign) | Change::UpdateCampaign(campaign) => Some(campaign.user_id),
        Change::InsertSequence { sequence, .. } | Change::UpdateSequence { sequence, .. } => Some(sequence.user_id),
        Change::InsertSavedText(saved) | Change::UpdateSavedText(saved) => Some(saved.user_id),
        Change::InsertCommand(command) => Some(command.user_id),
        Change::Suppress(suppression) => Some(suppression.user_id),
        Change::AddToChat(addition) => Some(addition.user_id),
        Change::DeleteDevice { user_id, .. }
        | Change::Owned { user_id, .. }
        | Change::SetDeviceLink { user_id, .. }
        | Change::SetDeviceHold { user_id, .. }
        | Change::HoldDevice { user_id, .. }
        | Change::SetDeviceRestriction { user_id, .. }
        | Change::SetDeviceNewChats { user_id, .. }
        | Change::DeleteLead { user_id, .. }
        | Change::DeleteCampaign { user_id, .. }
        | Change::SetCampaignStatus { user_id, .. }
        | Change::TriggerAgain { user_id, .. }
        | Change::DeleteSequence { user_id, .. }
        | Change::SetSequenceStatus { user_id, .. }
        | Change::Matched { user_id, .. }
        | Change::EndEnrolment { user_id, .. }
        | Change::ReplaceTrigger { user_id, .. }
        | Change::MarkMessage { user_id, .. }
        | Change::CancelMessage { user_id, .. }
        | Change::Receipt { user_id, .. }
        | Change::Unsuppress { user_id, .. }
        | Change::ErasePerson { user_id, .. }
        | Change::Replied { user_id, .. }
        | Change::TakenOver { user_id, .. }
        | Change::ReadChat { user_id, .. }
        | Change::DeleteSavedText { user_id, .. } => Some(*user_id),
        // Of no user or of several, or newer than this store, which then refuses it.
        _ => None,
    }
}

pub(crate) async fn commit(
    connection: &mut PgConnection,
    space: Space,
    set: ChangeSet,
    now: Timestamp,
    whose: Whose,
) -> Done<Committed> {
    lock(connection, space, &set).await?;
    if whose == Whose::Ours && may_be_planned_again(&set) {
        // The log is written a moment after this transaction.
        query("SET LOCAL synchronous_commit = off").execute(connection).await?;
    }
    let mut commit = Commit::new(connection, now);
    commit.copies = whose == Whose::Ours;
    let mut changes = set.changes.into_iter().peekable();
    let mut events = set.events;
    while let Some(change) = changes.next() {
        if let Change::Matched {
            user_id,
            lead_id,
            version,
        } = change
        {
            // Marks that are cleared one after the other are one page.
            let mut leads = vec![(user_id, lead_id, version)];
            while let Some(Change::Matched {
                user_id,
                lead_id,
                version,
            }) = changes.next_if(|change| matches!(change, Change::Matched { .. }))
            {
                leads.push((user_id, lead_id, version));
            }
            matched(commit.connection, &leads).await?;
            continue;
        }
        let Change::InsertLead { lead, on_duplicate } = change else {
            let reply = matches!(change, Change::Replied { .. } | Change::TakenOver { .. });
            commit.apply(change).await?;
            if reply && !commit.done.reply_is_new {
                // Delivered again: what follows from it, events too, was committed the first time.
                events.clear();
                break;
            }
            continue;
        };
        // Leads that follow each other are one page.
        let mut leads = vec![(*lead, on_duplicate)];
        while let Some(Change::InsertLead { lead, on_duplicate }) =
            changes.next_if(|change| matches!(change, Change::InsertLead { .. }))
        {
            leads.push((*lead, on_duplicate));
        }
        let answers = insert_leads(commit.connection, leads, now).await?;
        commit.done.leads.extend(answers);
    }
    let Commit {
        connection,
        mut done,
        tallies,
        ..
    } = commit;
    tallies.write(connection).await?;
    insert_events(connection, &events).await?;
    done.wake.sort_unstable();
    done.wake.dedup();
    Ok(done)
}

impl<'c> Commit<'c> {
    pub(crate) fn new(connection: &'c mut PgConnection, now: Timestamp) -> Self {
        Self {
            connection,
            copies: true,
            now,
            done: Committed::default(),
            tallies: Tallies::default(),
        }
    }
}

/// Whether an owner may write about a device.
pub(crate) async fn check_fence(connection: &mut PgConnection, device: DeviceId, fence: Fence) -> Done<()> {
    check_node(connection, fence.incarnation).await?;
    let row = query(OWNER)
        .bind(&device)
        .fetch_optional(connection)
        .await?
        .ok_or(Fail::not_found("device"))?;
    let mut c = Columns::of(&row);
    let owner = c.opt_key("owner")?;
    if owner == Some(fence.incarnation) && c.int()? == fence.epoch.0 {
        Ok(())
    } else {
        Err(Fail::conflict("device"))
    }
}

impl Commit<'_> {
    async fn apply(&mut self, change: Change) -> Done<()> {
        let now = self.now;
        match change {
            Change::InsertDevice(device) => insert_device(self.connection, &device).await,
            Change::UpdateDevice(device) => update_device(self.connection, *device, now).await,
            Change::DeleteDevice { user_id, device_id } => {
                change_device(self.connection, user_id, device_id, |device| {
                    device.deleted_at = Some(now);
                    device.updated_at = now;
                    device.version += 1;
                })
                .await?;
                leave_chats(self.connection, device_id).await?;
                mark_device(self.connection, device_id).await
            }
            Change::Owned {
                user_id,
                device_id,
                fence,
            } => {
                live_device(self.connection, user_id, device_id).await?;
                check_fence(self.connection, device_id, fence).await
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
                    check_fence(self.connection, device_id, fence).await?;
                }
                let before = live_device(self.connection, user_id, device_id).await?.device;
                if before.is_other_number(phone) {
                    doubt_account(self.connection, device_id, now).await?;
                }
                change_device(self.connection, user_id, device_id, |device| {
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
                .await
            }
            Change::SetDeviceHold {
                user_id,
                device_id,
                hold,
            } => {
                change_device(self.connection, user_id, device_id, |device| {
                    device.hold = hold;
                    device.updated_at = now;
                })
                .await
            }
            Change::HoldDevice {
                user_id,
                device_id,
                hold,
                version,
            } => {
                let device = live_device(self.connection, user_id, device_id).await?.device;
                if device.is_held_by_person() || version.is_some_and(|version| version != device.version) {
                    return Err(Fail::conflict("device"));
                }
                change_device(self.connection, user_id, device_id, |device| {
                    device.hold = Some(hold);
                    device.updated_at = now;
                })
                .await
            }
            Change::SetDeviceRestriction {
                user_id,
                device_id,
                restriction,
            } => {
                change_device(self.connection, user_id, device_id, |device| {
                    device.restriction = restriction;
                    device.updated_at = now;
                })
                .await
            }
            Change::SetDeviceNewChats {
                user_id,
                device_id,
                new_chats,
            } => {
                change_device(self.connection, user_id, device_id, |device| {
                    device.new_chats = new_chats;
                    device.updated_at = now;
                })
                .await
            }
            Change::InsertLead { lead, on_duplicate } => {
                let answers = insert_leads(self.connection, vec![(*lead, on_duplicate)], now).await?;
                self.done.leads.extend(answers);
                Ok(())
            }
            Change::UpdateLead(lead) => {
                let (id, device) = ((lead.user_id, lead.id), lead.device_id);
                if update_lead(self.connection, *lead).await? {
                    enrolments::follow_lead(self, id, device).await?;
                }
                Ok(())
            }
            Change::DeleteLead { user_id, lead_id } => {
                delete_lead(self.connection, user_id, lead_id).await?;
                enrolments::end_of_lead(self, user_id, lead_id).await
            }
            Change::ReplaceTrigger {
                user_id,
                lead_id,
                remove,
                add,
                matched,
            } => {
                let marking = if matched { Marking::Never } else { Marking::Gained };
                replace_trigger(self.connection, (user_id, lead_id), (remove, add), marking, now).await
            }
            Change::Matched {
                user_id,
                lead_id,
                version,
            } => matched(self.connection, &[(user_id, lead_id, version)]).await,
            Change::InsertSequence { sequence, steps } => {
                insert_sequence(self.connection, &sequence, steps.as_deref()).await
            }
            Change::UpdateSequence { sequence, steps } => {
                update_sequence(self.connection, *sequence, steps.as_deref()).await
            }
            Change::DeleteSequence { user_id, sequence_id } => {
                delete_sequence(self.connection, user_id, sequence_id, now).await
            }
            Change::SetSequenceStatus {
                user_id,
                sequence_id,
                from,
                to,
                reason,
            } => sequences::set_status(self.connection, (user_id, sequence_id), from, (to, reason), now).await,
            Change::MoveMatchCursor {
                sequence_id,
                steps_version,
                from,
                to,
            } => move_match_cursor(self.connection, (sequence_id, steps_version), from, to).await,
            Change::Enrol(all) => enrolments::enrol(self, all).await,
            Change::AdvanceEnrolment(advance) => enrolments::advance(self, *advance).await,
            Change::EndEnrolment {
                user_id,
                enrolment_id,
                step,
                state,
                reason,
                next_id,
            } => {
                let ending = Ending { state, reason, next_id };
                enrolments::end(self, (user_id, enrolment_id), step, ending).await
            }
            Change::InsertCampaign(campaign) => insert_campaign(self.connection, &campaign).await,
            Change::UpdateCampaign(campaign) => update_campaign(self.connection, *campaign).await,
            Change::DeleteCampaign { user_id, campaign_id } => {
                delete_campaign(self.connection, user_id, campaign_id).await
            }
            Change::SetCampaignStatus {
                user_id,
                campaign_id,
                from,
                to,
                reason,
            } => set_status(self.connection, (user_id, campaign_id), from, (to, reason), now).await,
            Change::TriggerAgain { user_id, campaign_id } => {
                trigger_again(self.connection, user_id, campaign_id, now).await
            }
            Change::InsertEntries(entries) => insert_entries(self.connection, &entries).await,
            Change::AdvanceCursor { campaign_id, from, to } => {
                advance_cursor(self.connection, campaign_id, from, to).await
            }
            Change::InsertMessages(messages) => insert_messages(self, messages).await,
            Change::MarkMessage {
                user_id,
                message_id,
                sent,
            } => mark_message(self, user_id, message_id, sent).await,
            Change::CancelMessage { user_id, message_id } => cancel_message(self, user_id, message_id).await,
            Change::Receipt {
                user_id,
                device_id,
                message,
                delivery,
                at,
            } => receipt(self, (user_id, device_id), &message, (delivery, at)).await,
            Change::Suppress(suppression) => suppress(self, &suppression).await,
            Change::Unsuppress { user_id, person } => remove_suppression(self.connection, user_id, person).await,
            Change::ErasePerson { user_id, person, phone } => erase_person(self, user_id, person, phone).await,
            Change::Replied {
                user_id,
                device_id,
                phone,
                person,
                provider_id,
                at,
            } => {
                let reason = EnrolmentReason::Replied;
                wrote(self, (user_id, device_id), (phone, person), (&provider_id, at), reason).await
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
                wrote(self, (user_id, device_id), (phone, person), (&provider_id, at), reason).await
            }
            Change::AddToChat(addition) => add_to_chat(self, &addition).await,
            Change::ReadChat { user_id, chat_id } => mark_read(self.connection, user_id, chat_id).await,
            Change::InsertSavedText(saved) => insert_saved_text(self.connection, &saved).await,
            Change::UpdateSavedText(saved) => update_saved_text(self.connection, *saved).await,
            Change::DeleteSavedText { user_id, template_id } => {
                delete_saved_text(self.connection, user_id, template_id).await
            }
            Change::InsertCommand(command) => {
                insert_command(self.connection, &command).await?;
                self.done.wake.push(command.device_id);
                Ok(())
            }
            Change::AnswerCommand {
                command_id,
                fence,
                answer,
            } => answer_command(self.connection, command_id, fence, &answer).await,
            // A change that is newer than this store would be lost in silence.
            _ => Err(Fail::Refused(wa_core::store::StoreErrorKind::Unsupported, "change")),
        }
    }
}
