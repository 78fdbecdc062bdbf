//! Changes as data: what planners give and stores commit.

use std::time::Duration;

use super::ChatAddition;
use crate::domain::audience::{AudienceCursor, CampaignEntry};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::command::{DeviceAnswer, DeviceCommand};
use crate::domain::delivery::Delivery;
use crate::domain::device::{Device, Epoch, Hold, LinkState, NewChats, Restriction};
use crate::domain::enrolment::{Enrolment, EnrolmentReason, EnrolmentState};
use crate::domain::lead::Lead;
use crate::domain::message::{IdempotencyKey, Message, MessageState};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::saved_text::SavedText;
use crate::domain::sequence::{MatchCursor, Sequence, SequenceReason, SequenceStatus, SequenceSteps};
use crate::domain::suppression::Suppression;
use crate::domain::token::Token;
use crate::event::Event;
use crate::id::{
    CampaignId, ChatId, CommandId, DeviceId, EnrolmentId, Incarnation, LeadId, MessageId, SequenceId, StepId,
    TemplateId, UserId,
};
use crate::time::Timestamp;
use crate::transport::{MessageRef, TransportMessageId};

/// What happens when a lead with the same [`crate::domain::lead::LeadIdentity`] exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// The commit fails with `Conflict`.
    Refuse,
    /// The existing lead stays; triggers of the new one that it lacks are added to it.
    MergeTriggers,
}

/// The right of an owner to write about a device.
///
/// `Fenced` when the node is; `Conflict` when it does not own the device at that epoch, because the epoch also grows when a
/// node gives the device back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The node.
    pub incarnation: Incarnation,
    /// The device's epoch as the node knows it.
    pub epoch: Epoch,
}

/// One change. Rows are whole; what touches many rows is a set command. One that concerns a campaign or a message in the archive is a
/// `Conflict`, but for `ErasePerson` and what finds none there, as receipts do ([`OutboxStore::archive`](super::OutboxStore::archive)).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change {
    /// Adds a device. `Conflict` when the user has one of that name (compared trimmed and case-folded, deleted ones aside).
    InsertDevice(Box<Device>),
    /// Replaces the settings of a device whose version is still `device.version`; the store sets version + 1. Link state,
    /// hold, restriction and last activity are not settings and stay, but a changed credential ends a hold for
    /// `Unauthenticated`. A deleted device is `NotFound` here and in every other change of a device.
    ///
    /// With another platform, gateway or credential it is another account, which knows nothing of what the one before was given.
    /// To ensure correctness, in the same transaction: what it is sending becomes in doubt, as when its owner is fenced, what is in
    /// doubt on it has [`MaybeSentCause::AccountChanged`](crate::transport::MaybeSentCause::AccountChanged) and is looked at at
    /// once, and it has no owner, so that no node goes on with the account that it knew.
    UpdateDevice(Box<Device>),
    /// Marks a device deleted: queued and held messages become `skipped: device gone` in pages, pool messages go back. What is
    /// in doubt on it stays with its owner; once it has none, it becomes `unknown: cannot tell`, in pages too. Its chats are not seen
    /// any more, and `sweep_chats` removes them.
    DeleteDevice {
        /// Its owner.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
    },
    /// Changes nothing, and lets what follows in the set be done only while a node owns the device at that epoch, see [`Fence`]: by it an
    /// owner's word on a device has no effect once the device is another's.
    Owned {
        /// The device's owner.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The right to speak for it.
        fence: Fence,
    },
    /// Records how a device is linked; with a fence when its owner says so. `link_at` moves when the state does; number and identity stay while
    /// no others are learned. Another number of a device that is linked ([`Device::is_other_number`]) changes what is in doubt on it as another
    /// account does.
    SetDeviceLink {
        /// Its owner.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The right to say so; `None` for a gateway's callback.
        fence: Option<Fence>,
        /// The new state.
        state: LinkState,
        /// Why.
        reason: Option<String>,
        /// Its own number, if learned.
        phone: Option<Phone>,
        /// Its WhatsApp identity, if learned.
        jid: Option<String>,
    },
    /// Puts a device on hold, or ends the hold.
    SetDeviceHold {
        /// Its owner.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The hold; `None` ends it.
        hold: Option<Hold>,
    },
    /// Puts a device on hold because of what its gateway or its messages say. `Conflict` when a person put it on hold, whose
    /// hold stays, or when its settings have another version than `version`: what an old credential was told says nothing of a
    /// new one.
    HoldDevice {
        /// Its owner.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The hold.
        hold: Hold,
        /// The version of the settings that it is about; `None` for any.
        version: Option<i64>,
    },
    /// Records a restriction of the account.
    SetDeviceRestriction {
        /// Its owner.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The restriction; `None` forgets it.
        restriction: Option<Restriction>,
    },
    /// Records how many new chats an account may begin.
    SetDeviceNewChats {
        /// Its owner.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// What WhatsApp told; `None` for no limit.
        new_chats: Option<NewChats>,
    },
    /// Adds a lead.
    InsertLead {
        /// The lead.
        lead: Box<Lead>,
        /// What happens when it is there already.
        on_duplicate: OnDuplicate,
    },
    /// Replaces a lead whose version is still `lead.version`; the store sets version + 1. The later last interaction stays.
    /// `Conflict` also when another lead has the new identity. When its device changed, open enrolments in sequences that send by
    /// the lead's own device have the new one from their next step on.
    UpdateLead(Box<Lead>),
    /// Deletes a lead. Its messages keep its id; the open ones are skipped with reason `lead gone` when they are looked at. Its open
    /// enrolments end with reason `LeadGone`, as by `EndEnrolment`.
    DeleteLead {
        /// Its owner.
        user_id: UserId,
        /// The lead.
        lead_id: LeadId,
    },
    /// Adds a campaign; `archived_at` is not taken.
    InsertCampaign(Box<Campaign>),
    /// Replaces what a person edits of a campaign whose version is still `campaign.version`; the store sets version + 1.
    /// Status fields and cursor are written as given, so that scheduling is one change; a status that the present one cannot
    /// become, or `Completed` while messages of it are open, is `Conflict`. Messages follow a changed status as after `SetCampaignStatus`.
    UpdateCampaign(Box<Campaign>),
    /// Deletes a campaign that never started (`draft`, `scheduled`, `cancelled` before start), else `Conflict`.
    DeleteCampaign {
        /// Its owner.
        user_id: UserId,
        /// The campaign.
        campaign_id: CampaignId,
    },
    /// Moves a campaign to a status: HoldScope, ResumeScope and EndScope in one. One row flip, effective at once because
    /// `begin` looks; a mark makes `sweep` move its messages in pages. `Conflict` unless the status is one of `from` and can
    /// become `to`, and when that is `Completed` and messages of it are open. Naming the present status as `to` changes its reason alone. The store sets version + 1, `status_at`, and of
    /// `started_at` (from scheduled), `resumed_at` (from paused or completed, which also clears `ended_at`), `paused_at` and
    /// `ended_at` the one that the new status calls for.
    SetCampaignStatus {
        /// Its owner.
        user_id: UserId,
        /// The campaign.
        campaign_id: CampaignId,
        /// The statuses that it may have now.
        from: &'static [CampaignStatus],
        /// The new one.
        to: CampaignStatus,
        /// Why.
        reason: Option<CampaignReason>,
    },
    /// Triggers a completed campaign whose audience is the pool again: its audience is planned from the start, and each device may
    /// take as many messages as its limit says, whatever it took before. `Conflict` unless it is completed and its audience
    /// is the pool. The store sets version + 1, `triggered` without a reason, `status_at` and `started_at`, the cursor to the
    /// start, and clears `resumed_at`, `paused_at` and `ended_at`.
    TriggerAgain {
        /// Its owner.
        user_id: UserId,
        /// The campaign.
        campaign_id: CampaignId,
    },
    /// Adds uploaded recipients to a draft campaign, else `Conflict`; a position that is there already is left alone.
    InsertEntries(Vec<CampaignEntry>),
    /// Moves the cursor of a running campaign. `Conflict` unless it is `triggered` and stands at `from`: so a page cannot
    /// pass a pause, and a page planned twice is committed once. The first change of its set. The store sets version + 1.
    ///
    /// A set of this, with `to` before the end, and messages alone may be durable no earlier than the next commit of any kind: lost with
    /// the machine it is lost with the cursor, and planned again.
    AdvanceCursor {
        /// The campaign.
        campaign_id: CampaignId,
        /// Where it must stand.
        from: AudienceCursor,
        /// Where it stands afterwards.
        to: AudienceCursor,
    },
    /// Adds a sequence with the first version of its steps; without steps it has version 0.
    InsertSequence {
        /// The sequence; its `steps_version` is that of the steps, 1, or 0.
        sequence: Box<Sequence>,
        /// Its steps.
        steps: Option<Box<SequenceSteps>>,
    },
    /// Replaces what a person edits of a sequence whose version is still `sequence.version`; the store sets version + 1.
    /// Status, reason, steps version and their instants stay as they are. With steps: their version must be the newest + 1,
    /// else `Conflict`. Where entry points, niche or target changed of one that is active, its cursor goes to the start.
    UpdateSequence {
        /// The sequence.
        sequence: Box<Sequence>,
        /// A new version of its steps.
        steps: Option<Box<SequenceSteps>>,
    },
    /// Marks a sequence deleted: nothing of it is begun any more; `sweep` ends its open enrolments with reason
    /// `SequenceDeleted` in pages, each with its messages. Its numbers stay. A deleted sequence is `NotFound` in every change of
    /// a sequence but `MoveMatchCursor`.
    DeleteSequence {
        /// Its owner.
        user_id: UserId,
        /// The sequence.
        sequence_id: SequenceId,
    },
    /// Moves a sequence to a status. One row flip, effective at once because `begin` looks; a mark makes `sweep` move its
    /// messages in pages. `Conflict` unless the status is one of `from` and can become `to`, or when it becomes active without
    /// steps. Naming the present status as `to` changes its reason alone. The store sets version + 1, `status_at`, and of
    /// `started_at`, `resumed_at` and `paused_at` those that the new status calls for; one that becomes active has its cursor
    /// at the start, any other has it done.
    SetSequenceStatus {
        /// Its owner.
        user_id: UserId,
        /// The sequence.
        sequence_id: SequenceId,
        /// The statuses that it may have now.
        from: &'static [SequenceStatus],
        /// The new one.
        to: SequenceStatus,
        /// Why.
        reason: Option<SequenceReason>,
    },
    /// Moves the cursor of an active sequence. `Conflict` unless it is active, not deleted, has these steps and stands at `from`.
    /// The first change of its set. No new version.
    MoveMatchCursor {
        /// The sequence.
        sequence_id: SequenceId,
        /// The version of the steps that were matched.
        steps_version: i32,
        /// Where it must stand.
        from: MatchCursor,
        /// Where it stands afterwards.
        to: MatchCursor,
    },
    /// Clears the mark of a lead that was matched. Nothing happens when its version is another by now: it stays marked.
    Matched {
        /// Its owner.
        user_id: UserId,
        /// The lead.
        lead_id: LeadId,
        /// The version that was matched.
        version: i64,
    },
    /// Enrols leads, each with the message of its first step. An enrolment whose id is known, or whose person the sequence does
    /// not take (one is open; its [`ReEntry`](crate::domain::sequence::ReEntry) forbids it; the person is suppressed), is a
    /// reported no-op with its message. `NotFound` when user, sequence, lead and device do not belong together, or the
    /// sequence is deleted; `Conflict` when `steps_version` is not the newest.
    Enrol(Vec<NewEnrolment>),
    /// Moves an open enrolment to its next step. See [`Advance`] for when it is a `Conflict`.
    AdvanceEnrolment(Box<Advance>),
    /// Completes or ends an open enrolment; `Conflict` unless it is open and, where `step` names one, stands at it. Its queued and
    /// held messages become `cancelled: scope ended`, those in doubt `unknown: ended in doubt`.
    EndEnrolment {
        /// Its owner.
        user_id: UserId,
        /// The enrolment.
        enrolment_id: EnrolmentId,
        /// The step at which it must stand.
        step: Option<StepId>,
        /// `Completed` or `Ended`.
        state: EnrolmentState,
        /// Why; of a completed one, why it was not chained on.
        reason: Option<EnrolmentReason>,
        /// The enrolment that follows, if the set has one for it. When that one is refused, `reason` becomes `ReEntryRefused`
        /// and nothing follows.
        next_id: Option<EnrolmentId>,
    },
    /// Removes one trigger of a lead and adds another; either may be absent, and one that is there already stays. Nothing happens
    /// to a lead that is gone. A gained trigger marks the lead to be matched, unless it is
    /// `matched`. The store sets version + 1 when it changed.
    ReplaceTrigger {
        /// Its owner.
        user_id: UserId,
        /// The lead.
        lead_id: LeadId,
        /// What goes.
        remove: Option<Token>,
        /// What comes.
        add: Option<Token>,
        /// Whether this set enrols the lead by the gained trigger: then it is not marked for that, and a mark that is there stays.
        matched: bool,
    },
    /// Adds messages. A known key is a reported no-op. A message whose scope is paused, ended, or whose person is suppressed
    /// is inserted in the state that `requeue` would give it; one that is given settled stays so. One with `supersedes` marks
    /// that row superseded, in all numbers. A user, device, lead or campaign that do not belong together are `NotFound`.
    /// `Conflict`: a message given as `sending` or `in_doubt`; an open one that would wait for ever (no device, and not of a
    /// campaign or sequence and its pool); a key of another user; a row to supersede that is neither `failed` nor `unknown`
    /// (evidence may have come in the meantime) nor left over, of another scope or flow, superseded before, or of a step after which a later
    /// one of its enrolment has begun an attempt; a flow outside a sequence. A sequence or enrolment that is not the user's is
    /// `NotFound`.
    InsertMessages(Vec<Message>),
    /// A person says what became of an `unknown` message, now `sent` or `failed` with reason `ByPerson`; `Conflict` in any other
    /// state.
    MarkMessage {
        /// Its owner.
        user_id: UserId,
        /// The message.
        message_id: MessageId,
        /// Whether the recipient got it.
        sent: bool,
    },
    /// A person stops one open message that is not being sent: `queued` and `held` become `cancelled` with reason `ByPerson`,
    /// else `Conflict`.
    CancelMessage {
        /// Its owner.
        user_id: UserId,
        /// The message.
        message_id: MessageId,
    },
    /// A receipt. Moves delivery forward only; a receipt by our id or the vendor's, as the newest attempt has them, is also
    /// evidence that the message was sent: it moves `in_doubt`, `unknown`, and requeued messages that are not begun again to
    /// `sent`. One that is `sending` takes the delivery and keeps its state: it becomes `sent` with whatever outcome or takeover
    /// comes next. Other terminal states ignore it. [`MessageRef::NewestTo`] finds sent messages only.
    Receipt {
        /// The owner of the device.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// Which message; one that is not found is ignored.
        message: MessageRef,
        /// What became known.
        delivery: Delivery,
        /// When.
        at: Timestamp,
    },
    /// A person must not be written to any more; replaces what was recorded of them before. In the same commit all open
    /// messages to them that are not being sent become `skipped: suppressed`, those in doubt `unknown: ended in doubt`. Direct
    /// messages with an override stay in every case; in other scopes an override means nothing. Open enrolments of the person
    /// end with reason `Suppressed`.
    Suppress(Suppression),
    /// A person may be written to again; nothing happens when they were not suppressed.
    Unsuppress {
        /// The user.
        user_id: UserId,
        /// The person.
        person: PersonKey,
    },
    /// Erases a person: names, numbers, texts, own fields, details and entries go from leads (deleted), messages, all their
    /// attempts and entries; rows stay for the numbers. Open messages that are not being sent become `skipped: erased`, those
    /// in doubt `unknown: ended in doubt`, overrides or not: they cannot be sent without a number. Enrolments lose the number, open
    /// ones end with reason `Erased`. Chats with the person are removed. The caller adds a `Suppress`
    /// without a number.
    ErasePerson {
        /// The user.
        user_id: UserId,
        /// The person.
        person: PersonKey,
        /// The number, to find leads and entries by.
        phone: Phone,
    },
    /// Records that a person wrote: the user's leads with that number get the time as last interaction (no new version), the
    /// device as last activity, and the newest sent message of the device to them becomes `replied`. Open enrolments of the person
    /// in sequences that exit on a reply end with reason `Replied`, as by `EndEnrolment`. The device knows the person from then on
    /// ([`Warmth`](crate::domain::warmth::Warmth)), and what waited on it because it did not is due at once.
    Replied {
        /// The owner of the device.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The person's number.
        phone: Phone,
        /// The person.
        person: PersonKey,
        /// The vendor's id of the message. One seen before on this device makes its whole set a no-op, with the events: it is
        /// the first change of its set, and an opt-out that is delivered again does not undo an opt-in made since.
        provider_id: TransportMessageId,
        /// When.
        at: Timestamp,
    },
    /// Records that a human wrote to a person on the device's own phone: as `Replied`, but no message becomes `replied`, and the
    /// enrolments end with reason `TakenOver`. A message that was seen before makes the whole set a no-op in the same way, and so
    /// does one that the user's devices sent: an account that is linked twice hears of what its other device sends.
    TakenOver {
        /// The owner of the device.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The person's number.
        phone: Phone,
        /// The person.
        person: PersonKey,
        /// The vendor's id of the message.
        provider_id: TransportMessageId,
        /// When.
        at: Timestamp,
    },
    /// Adds messages to a chat, and makes it when it is not there. A vendor's id that the device has is left aside, and so is what the
    /// engine sent itself; when nothing remains and nobody opened the chat, nothing happens. A device that is not the user's is
    /// `NotFound`, a chat of another device or person `Conflict`; to a deleted device nothing is added.
    AddToChat(Box<ChatAddition>),
    /// Marks all messages of a chat read; one that is not the user's is `NotFound`.
    ReadChat {
        /// The user.
        user_id: UserId,
        /// The chat.
        chat_id: ChatId,
    },
    /// Adds a saved text. `Conflict` when the name is taken.
    InsertSavedText(Box<SavedText>),
    /// Replaces a saved text whose version is still `saved.version`; the store sets version + 1.
    UpdateSavedText(Box<SavedText>),
    /// Deletes a saved text.
    DeleteSavedText {
        /// Its owner.
        user_id: UserId,
        /// The text.
        template_id: TemplateId,
    },
    /// Asks something of a device.
    InsertCommand(Box<DeviceCommand>),
    /// Answers it, by the owner of its device; a command that is answered already stays as it is.
    AnswerCommand {
        /// The command.
        command_id: CommandId,
        /// The right to answer.
        fence: Fence,
        /// The answer.
        answer: DeviceAnswer,
    },
}

/// An enrolment to be made, with the message of its first step.
#[derive(Debug, Clone)]
pub struct NewEnrolment {
    /// The enrolment, open, at its entry step.
    pub enrolment: Enrolment,
    /// The message of that step; settled when it is skipped from the start.
    pub first: Message,
}

/// The move of an enrolment from a settled step to the next.
///
/// To ensure correctness: applied only when the enrolment is open, stands at `from` in `from_version`, the first message of
/// that step (round 0) is settled in state `after`, `to_version` is the newest version of the sequence's steps, which is not
/// deleted, the messages that are not of a pool are for the device that the enrolment has, and none of their keys is known (a
/// step that the enrolment has had does not come again); else `Conflict`, and inside a settlement nothing happens and the mark stays. It sets step, version and planned due time, inserts the messages (through
/// `requeue`, as every insert) and takes the mark away; where the next step is skipped from the start,
/// the enrolment is marked again. An enrolment that is not the user's is `NotFound`.
#[derive(Debug, Clone)]
pub struct Advance {
    /// Its owner.
    pub user_id: UserId,
    /// The sequence.
    pub sequence_id: SequenceId,
    /// The enrolment.
    pub enrolment_id: EnrolmentId,
    /// The step that is settled.
    pub from: StepId,
    /// The version that the enrolment has.
    pub from_version: i32,
    /// How that step ended.
    pub after: MessageState,
    /// The next step.
    pub to: StepId,
    /// The version that it has from now on.
    pub to_version: i32,
    /// When the next step is planned to be due.
    pub due_at: Timestamp,
    /// The message of the next step, after settled rows for steps that an edit removed.
    pub messages: Vec<Message>,
}

/// What became of an enrolment that was to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnrolResult {
    /// It is new.
    Enrolled(EnrolmentId),
    /// One is open already.
    AlreadyIn(EnrolmentId),
    /// The sequence does not take the person again.
    ReEntryRefused,
    /// The person must not be written to.
    Suppressed,
}

/// Changes that are committed together, with the events that tell of them.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ChangeSet {
    /// The changes, applied in order.
    pub changes: Vec<Change>,
    /// Durable events, committed with them; one whose id is known stays as it is.
    pub events: Vec<Event>,
}

impl ChangeSet {
    /// A set of one change.
    pub fn one(change: Change) -> Self {
        Self {
            changes: vec![change],
            events: Vec::new(),
        }
    }

    /// Adds a change.
    pub fn and(mut self, change: Change) -> Self {
        self.changes.push(change);
        self
    }

    /// Adds an event.
    pub fn tell(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.events.is_empty()
    }
}

/// What became of a lead that was to be inserted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeadInsert {
    /// It is new.
    Inserted(LeadId),
    /// It was there.
    Duplicate {
        /// The one that was there.
        existing: LeadId,
        /// Whether triggers were added to it.
        merged: bool,
    },
}

/// What a commit did, beside what it was asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// One answer per `InsertLead`, in order.
    pub leads: Vec<LeadInsert>,
    /// One answer per enrolment of `Enrol`, in order.
    pub enrolments: Vec<EnrolResult>,
    /// Messages that were inserted.
    pub messages_inserted: u64,
    /// Keys that were known already, with the message that holds each.
    pub duplicates: Vec<(IdempotencyKey, MessageId)>,
    /// Open messages that a `Suppress` or `ErasePerson` moved; those of a deleted device are moved by `sweep`.
    pub moved: u64,
    /// Devices that got something to do, a queued message or a request; sorted, each once.
    pub wake: Vec<DeviceId>,
    /// Receipts and replies: the messages that they were matched to.
    pub matched: Vec<MessageId>,
    /// Whether a `Replied` or `TakenOver` was new.
    pub reply_is_new: bool,
    /// Messages that were added to chats.
    pub chat_messages: u64,
}

/// How long events are kept by default: 7 days.
pub const EVENTS_KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How long it is remembered which replies were heard, so that one delivered again counts once: 30 days.
pub const REPLIES_KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);
