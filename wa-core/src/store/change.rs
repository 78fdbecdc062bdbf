//! Changes as data: what planners give and stores commit.

use std::time::Duration;

use crate::domain::audience::{AudienceCursor, CampaignEntry};
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::command::{DeviceAnswer, DeviceCommand};
use crate::domain::delivery::Delivery;
use crate::domain::device::{Device, Epoch, Hold, LinkState, Restriction};
use crate::domain::lead::Lead;
use crate::domain::message::{IdempotencyKey, Message};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::saved_text::SavedText;
use crate::domain::suppression::Suppression;
use crate::event::Event;
use crate::id::{CampaignId, CommandId, DeviceId, Incarnation, LeadId, MessageId, TemplateId, UserId};
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

/// One change. Rows are whole; what touches many rows is a set command.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Change {
    /// Adds a device. `Conflict` when the user has one of that name (compared trimmed and case-folded, deleted ones aside).
    InsertDevice(Box<Device>),
    /// Replaces the settings of a device whose version is still `device.version`; the store sets version + 1. Link state,
    /// hold, restriction and last activity are not settings and stay, but a changed credential ends a hold for
    /// `Unauthenticated`. A deleted device is `NotFound` here and in every other change of a device.
    UpdateDevice(Box<Device>),
    /// Marks a device deleted: queued and held messages become `skipped: device gone` in pages, pool messages go back. What is
    /// in doubt on it stays with its owner; once it has none, it becomes `unknown: cannot tell`, in pages too.
    DeleteDevice {
        /// Its owner.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
    },
    /// Records how a device is linked; with a fence when its owner says so. `link_at` moves when the state does.
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
    /// Records a restriction of the account, or its end.
    SetDeviceRestriction {
        /// Its owner.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The restriction; `None` ends it.
        restriction: Option<Restriction>,
    },
    /// Adds a lead.
    InsertLead {
        /// The lead.
        lead: Box<Lead>,
        /// What happens when it is there already.
        on_duplicate: OnDuplicate,
    },
    /// Replaces a lead whose version is still `lead.version`; the store sets version + 1. The later last interaction stays.
    /// `Conflict` also when another lead has the new identity.
    UpdateLead(Box<Lead>),
    /// Deletes a lead. Its messages keep its id; the open ones are skipped with reason `lead gone` when they are looked at.
    DeleteLead {
        /// Its owner.
        user_id: UserId,
        /// The lead.
        lead_id: LeadId,
    },
    /// Adds a campaign.
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
    /// Adds uploaded recipients to a draft campaign, else `Conflict`; a position that is there already is left alone.
    InsertEntries(Vec<CampaignEntry>),
    /// Moves the cursor of a running campaign. `Conflict` unless it is `triggered` and stands at `from`: so a page cannot
    /// pass a pause, and a page planned twice is committed once. The first change of its set. The store sets version + 1.
    AdvanceCursor {
        /// The campaign.
        campaign_id: CampaignId,
        /// Where it must stand.
        from: AudienceCursor,
        /// Where it stands afterwards.
        to: AudienceCursor,
    },
    /// Adds messages. A known key is a reported no-op. A message whose scope is paused, ended, or whose person is suppressed
    /// is inserted in the state that `requeue` would give it; one that is given settled stays so. One with `supersedes` marks
    /// that row superseded, in all numbers. A user, device, lead or campaign that do not belong together are `NotFound`.
    /// `Conflict`: a message given as `sending` or `in_doubt`; an open one that would wait for ever (no device, and not of a
    /// campaign and its pool); a key of another user; a row to supersede that is neither `failed` nor `unknown` (evidence may have come in
    /// the meantime), of another scope, or superseded before.
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
    /// messages with an override stay in every case; in other scopes an override means nothing.
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
    /// in doubt `unknown: ended in doubt`, overrides or not: they cannot be sent without a number. The caller adds a `Suppress`
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
    /// device as last activity, and the newest sent message of the device to them becomes `replied`.
    Replied {
        /// The owner of the device.
        user_id: UserId,
        /// The device.
        device_id: DeviceId,
        /// The person's number.
        phone: Phone,
        /// The vendor's id of the message. One seen before on this device makes its whole set a no-op, with the events: it is
        /// the first change of its set, and an opt-out that is delivered again does not undo an opt-in made since.
        provider_id: TransportMessageId,
        /// When.
        at: Timestamp,
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
    /// Whether a `Replied` was new.
    pub reply_is_new: bool,
}

/// How long events are kept by default: 7 days.
pub const EVENTS_KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How long it is remembered which replies were heard, so that one delivered again counts once: 30 days.
pub const REPLIES_KEPT_FOR: Duration = Duration::from_secs(30 * 24 * 3_600);
