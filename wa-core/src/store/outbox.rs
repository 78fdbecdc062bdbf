//! The outbox: what may go, the gate, and the facts afterwards.

use std::fmt;

use async_trait::async_trait;

use super::{Advance, Page, PageRequest, StoreError};
use crate::domain::access::RequestScope;
use crate::domain::content::{Content, MergeValues};
use crate::domain::delivery::Delivery;
use crate::domain::device::Epoch;
use crate::domain::enrolment::FlowRef;
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState, Reason};
use crate::domain::pacing::DelayRange;
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::summary::{DeviceNumbers, Numbers};
use crate::id::{
    AttemptId, CampaignId, DeviceId, EnrolmentId, Incarnation, LeadId, MessageId, SequenceId, StepId, UserId,
};
use crate::time::Timestamp;
use crate::transport::{MaybeSentCause, TransportMessageId};

/// One lane that is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneLook {
    /// The device's owner.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The campaign that the lane served last; the next one in turn comes first.
    pub served: Option<CampaignId>,
    /// The same of sequences.
    pub served_sequence: Option<SequenceId>,
}

/// Asks what lanes may send next.
#[derive(Debug, Clone)]
pub struct Due {
    /// The lanes; at most 1,000.
    pub lanes: Vec<LaneLook>,
    /// Messages due until then.
    pub now: Timestamp,
}

/// What one lane may send next.
#[derive(Debug, Clone)]
pub struct LaneDue {
    /// The device.
    pub device_id: DeviceId,
    /// The head of each priority, most urgent first; at most one per priority.
    pub heads: Vec<DueMessage>,
    /// When the next queued message becomes due among the priorities that have none due now.
    pub next_due_at: Option<Timestamp>,
}

/// A message that may go, as far as rendering and sending it needs to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueMessage {
    /// The message, still queued when it was read.
    pub id: MessageId,
    /// What it belongs to.
    pub scope: MessageScope,
    /// Its round.
    pub round: u16,
    /// The recipient; none when erased.
    pub phone: Option<Phone>,
    /// Its own content, in place of its scope's.
    pub content: Option<Content>,
    /// Its own delay.
    pub delay: Option<DelayRange>,
    /// When it is no longer to be sent.
    pub expires_at: Timestamp,
    /// What its text is merged with: of its lead as it is now, of the message itself where it has none; `None` when its lead is
    /// gone.
    pub values: Option<MergeValues>,
    /// The greeting of the newest attempt to the same person by the same user.
    pub previous_greeting: Option<String>,
    /// Which flow it is, if it belongs to a sequence.
    pub flow: Option<DueFlow>,
}

/// Which flow a due message is, with what its next step needs to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueFlow {
    /// The flow.
    pub flow: FlowRef,
    /// The name as it was when the message was planned.
    pub name: String,
    /// When it was due.
    pub due_at: Timestamp,
}

impl DueFlow {
    /// Which flow a message is; `None` when it belongs to no sequence.
    #[must_use]
    pub fn of(message: &Message) -> Option<Self> {
        Some(Self {
            flow: message.flow?,
            name: message.name.clone(),
            due_at: message.due_at,
        })
    }
}

impl DueMessage {
    /// What is told of a message; `lead` is its lead, if that is there.
    #[must_use]
    pub fn of(message: &Message, lead: Option<&Lead>, previous_greeting: Option<String>) -> Self {
        let phone = message.phone.map(|phone| phone.as_e164().to_owned());
        let phone = phone.unwrap_or_default();
        let values = match (message.lead_id, lead) {
            (None, _) => Some(MergeValues {
                name: message.name.clone(),
                phone,
                niche: String::new(),
                custom: message.custom.clone(),
            }),
            (Some(_), Some(lead)) => Some(MergeValues {
                name: lead.name.clone(),
                phone,
                niche: lead.niches.to_string(),
                custom: lead.custom.clone(),
            }),
            (Some(_), None) => None,
        };
        Self {
            id: message.id,
            scope: message.scope,
            round: message.round,
            phone: message.phone,
            content: message.content.clone(),
            delay: message.delay,
            expires_at: message.expires_at,
            values,
            previous_greeting,
            flow: DueFlow::of(message),
        }
    }
}

/// The rendered attempt of one message.
#[derive(Clone)]
pub struct BeginItem {
    /// The owner.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// Its epoch as this node knows it.
    pub epoch: Epoch,
    /// The message.
    pub message_id: MessageId,
    /// The attempt. For a message in doubt that is sent again with the same id, its existing attempt.
    pub attempt_id: AttemptId,
    /// The id chosen before the send.
    pub transport_message_id: TransportMessageId,
    /// The text.
    pub text: String,
    /// The greeting in it.
    pub greeting: Option<String>,
    /// When the attempt starts.
    pub attempted_at: Timestamp,
    /// Whether a message in doubt is sent again with the same id.
    pub again: bool,
}

impl fmt::Debug for BeginItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BeginItem")
            .field("message_id", &self.message_id)
            .field("attempt_id", &self.attempt_id)
            .field("device_id", &self.device_id)
            .field("epoch", &self.epoch)
            .field("again", &self.again)
            .finish_non_exhaustive()
    }
}

/// Begins attempts.
#[derive(Debug, Clone)]
pub struct Begin {
    /// The node.
    pub incarnation: Incarnation,
    /// The attempts; at most 1,000, at most one per device.
    pub items: Vec<BeginItem>,
    /// Now.
    pub now: Timestamp,
}

/// What became of one attempt to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begun {
    /// It is `sending`: send it within two seconds or hand it back.
    Yes,
    /// It is not, and was moved to the state that its scope asks for. In doubt and only paused: it stays as it is.
    Stray(MessageState, Option<Reason>),
    /// It is not queued on this device any more.
    Gone,
    /// This node does not own the device at that epoch, or the device may not send: deleted, on hold, or sending another.
    NotOwner,
}

/// What is known of an attempt afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The transport accepted it.
    Sent {
        /// The vendor's id.
        provider_id: Option<TransportMessageId>,
        /// How far it came, if already known.
        delivery: Option<Delivery>,
    },
    /// Certainly not sent: back through `requeue`.
    Requeue {
        /// Why.
        reason: Reason,
        /// When it may go again.
        due_at: Timestamp,
        /// Whether the refusal was the message's own fault and counts towards [`Message::REFUSALS_MAX`]: that many are put
        /// back, one more fails.
        counts: bool,
    },
    /// Certainly not sent, and no sense in trying again.
    Failed {
        /// Why.
        reason: Reason,
    },
    /// Certainly not sent, and it will not be.
    Skipped {
        /// Why.
        reason: Reason,
    },
    /// May have been sent and may be found out. For one that is in doubt already: still so. `Unknown` instead when the scope
    /// has ended or the person opted out.
    InDoubt {
        /// Why.
        cause: MaybeSentCause,
        /// When to look next.
        next_check_at: Timestamp,
        /// How often the gateway said by now that it never had it.
        not_found_count: u8,
    },
    /// May have been sent and nobody can tell.
    Unknown {
        /// Why.
        reason: Reason,
    },
}

/// The outcome of one attempt: a fact, without any precondition but attempt and fence.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The owner.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// The epoch under which it was begun.
    pub epoch: Epoch,
    /// The message.
    pub message_id: MessageId,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// What is known.
    pub verdict: Verdict,
    /// What the vendor said, for people; at most 300 characters.
    pub detail: Option<String>,
    /// Of a flow: where its enrolment goes when the message ends as `advance.after` says. Planned from what was read before the
    /// send; where it does not fit any more nothing happens to the enrolment but its mark.
    pub advance: Option<Box<Advance>>,
}

/// Records outcomes.
#[derive(Debug, Clone)]
pub struct Settle {
    /// The node.
    pub incarnation: Incarnation,
    /// The outcomes; at most 1,000, at most one per message.
    pub outcomes: Vec<Outcome>,
    /// Now.
    pub now: Timestamp,
}

/// What became of one outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// Recorded; the message has this state now.
    Yes(MessageState),
    /// It was recorded before.
    Already,
    /// The epoch was lost: taken as evidence; `true` if it moved the message.
    Lost(bool),
    /// The attempt is not the newest of a message that is being sent or in doubt, or what is known does not concern one in doubt.
    NotSending,
}

/// Takes queued messages off a lane before any attempt: too long, lead gone, expired.
#[derive(Debug, Clone)]
pub struct Decline {
    /// The node.
    pub incarnation: Incarnation,
    /// The device's owner.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The message.
    pub message_id: MessageId,
    /// `Skipped` or `Failed`; `Queued` to put it off to `due_at`. Any other is `Conflict` for the whole call.
    pub state: MessageState,
    /// Why.
    pub reason: Reason,
    /// For `Queued`: when it is looked at again. Time for which it is put off because strangers are not to be written to does not
    /// count for its expiry ([`Reason::expiry_put_off`]), nor does that of such a `Requeue`.
    pub due_at: Option<Timestamp>,
    /// What is to be told to people.
    pub detail: Option<String>,
}

/// A message that a node is sending according to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SendingRow {
    /// The owner.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// Its epoch.
    pub epoch: Epoch,
    /// The message.
    pub message_id: MessageId,
    /// The attempt.
    pub attempt_id: AttemptId,
}

/// What a sweep did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Messages moved; an enrolment of a deleted sequence that was ended counts as one, with its messages.
    pub moved: u64,
    /// Whether there is more to move.
    pub more: bool,
    /// Devices that got queued messages, sorted, each once.
    pub wake: Vec<DeviceId>,
}

/// What an expiry did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Messages moved.
    pub moved: u64,
    /// Whether there is more to move now.
    pub more: bool,
    /// When the next queued message expires, where there is no more to move now.
    pub next_at: Option<Timestamp>,
}

/// What a step of archiving did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Archived {
    /// Messages moved.
    pub moved: u64,
    /// Whether there may be more to move: a campaign was found.
    pub more: bool,
}

/// A pool message that gets a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Assignment {
    /// The owner of both.
    pub user_id: UserId,
    /// The message.
    pub message_id: MessageId,
    /// The device.
    pub device_id: DeviceId,
}

/// A pool message that no device may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeftOver {
    /// Its owner.
    pub user_id: UserId,
    /// The message.
    pub message_id: MessageId,
}

/// A pool message as routing sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolMessage {
    /// The message.
    pub message_id: MessageId,
    /// Its owner.
    pub user_id: UserId,
    /// Its campaign or sequence.
    pub scope: MessageScope,
    /// The device of its lead.
    pub lead_device: Option<DeviceId>,
    /// Of a flow: the device that its enrolment was given before, if any.
    pub sticky: Option<DeviceId>,
    /// The person.
    pub person: PersonKey,
}

/// The load of a device as routing sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceLoad {
    /// The device.
    pub device_id: DeviceId,
    /// Attempts of the last hour that were or may have been sent.
    pub sent_this_hour: u32,
    /// Messages queued or being sent on it; of those queued at most [`Self::QUEUED_MAX`] are counted.
    pub in_flight: u32,
    /// Pool messages queued on it, at most [`Self::QUEUED_MAX`].
    pub topped_up: u32,
}

impl DeviceLoad {
    /// How many queued messages of a device are counted: one with more has enough to do for a day, and routing looks too often for
    /// whole backlogs to be counted each time. Devices that all have more are told apart by what they sent.
    pub const QUEUED_MAX: u32 = 1_000;
}

/// Which messages a list shows; all conditions must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MessageFilter {
    /// Of this scope.
    pub scope: Option<MessageScope>,
    /// Of this enrolment.
    pub enrolment_id: Option<EnrolmentId>,
    /// Of this step; asked together with its sequence as scope.
    pub step_id: Option<StepId>,
    /// Of this device.
    pub device_id: Option<DeviceId>,
    /// To this lead.
    pub lead_id: Option<LeadId>,
    /// To this person.
    pub person: Option<PersonKey>,
    /// In one of these states; empty for any.
    pub states: Vec<MessageState>,
    /// Also those that a later row replaced.
    pub with_superseded: bool,
}

/// The outbox.
///
/// `begin`, `settle` and `decline` are statements of an owner: they take the node's row shared and fail with `Fenced`
/// when it is fenced.
///
/// A message from the pool, of a campaign whose audience is the pool, that becomes `sent` by whatever road gives its lead to the
/// device that sent it, in the same transaction: the lead gets the device and version + 1, its `updated_at` is the instant at
/// which the message first settled if that is later, and its enrolments follow as after `UpdateLead`. Nothing happens to a lead
/// that is gone or has a device, where the device is deleted, or where that device has the same lead already.
#[async_trait]
pub trait OutboxStore: Send + Sync {
    /// Reads what lanes may send next; changes nothing.
    ///
    /// To ensure correctness: only `queued` messages of that user and device with `due_at <= now`. Per priority the head by
    /// (`due_at`, id); among campaigns the first whose id follows `served`, around the end, so that campaigns take turns, and
    /// among sequences the first whose id follows `served_sequence`.
    /// Messages of a paused or ended scope are told until they are moved: `begin` is the gate.
    /// Ordering: one answer per lane, in the order asked.
    async fn due(&self, due: &Due) -> Result<Vec<LaneDue>, StoreError>;

    /// The only gate, and the write-ahead mark of every attempt.
    ///
    /// To ensure correctness, in one transaction:
    /// - a begun message was `queued` (with `again`: `in_doubt`, and not of an account that is gone) on exactly that user and device, its scope may send, its person
    ///   is not suppressed (unless it carries an override), its device is owned by this incarnation at that epoch, may send
    ///   (not deleted, not on hold) and has no other message `sending`;
    /// - it is `sending` with attempt id, transport message id, text and `attempted_at` durably before the call returns; an
    ///   earlier attempt is kept in the attempt log. With `again` the attempt stays but for its `attempted_at` and epoch, and
    ///   the record of the doubt is kept with `resend_count` + 1;
    /// - one whose scope or person forbids it is moved as [`requeue`](crate::plan::requeue) says and answered `Stray`; in doubt
    ///   with `again` it becomes `unknown` when its scope ended or its person opted out, and stays when it is only paused.
    ///
    /// Checked in this order: owner and device (`NotOwner`), message (`Gone`), scope and person (`Stray`).
    /// Idempotency: none; an answer that was lost shows in [`sending`](Self::sending). Ordering: one answer per item.
    async fn begin(&self, begin: &Begin) -> Result<Vec<Begun>, StoreError>;

    /// Records outcomes.
    ///
    /// To ensure correctness:
    /// - the message is `sending` or `in_doubt` with that attempt: it moves as the verdict says, `Requeue` through
    ///   [`requeue`](crate::plan::requeue); a `Requeue` that counts beyond [`Message::REFUSALS_MAX`] becomes `failed`. Where a
    ///   receipt came while it was being sent, it becomes `sent` whatever the verdict;
    /// - a message in doubt is queued again only because its gateway never had it (reason
    ///   [`NotFoundAtGateway`](crate::domain::message::Reason::NotFoundAtGateway)): any other `Requeue` comes too late and is
    ///   `NotSending`;
    /// - an old epoch has no authority: the outcome is evidence by attempt id and may move `in_doubt`, `unknown` or a requeued,
    ///   not yet begun message to `sent` or `failed`, nothing else. The owner's own late outcome is evidence in the same way,
    ///   answered `Yes`;
    /// - tallies change in the same transaction;
    /// - a message of a flow that settles marks its enrolment, or moves it on where its outcome's `advance` fits; whatever fails
    ///   in that leaves the outcome as it is and the mark.
    ///
    /// Idempotency: repeating an outcome answers `Already`, whoever repeats it, while the message stands where the outcome
    /// took it; of a `Sent` the vendor's id is still taken where none is known, and a further delivery. Ordering: one answer
    /// per outcome.
    async fn settle(&self, settle: &Settle) -> Result<Vec<Settled>, StoreError>;

    /// Takes queued messages off their lane; those that are not queued on that device any more are left alone.
    async fn decline(&self, items: &[Decline], now: Timestamp) -> Result<u64, StoreError>;

    /// The messages that a node is sending according to the store, at most 10,000.
    async fn sending(&self, incarnation: Incarnation) -> Result<Vec<SendingRow>, StoreError>;

    /// Messages in doubt on devices of this node whose `next_check_at` has come, by (`next_check_at`, id); those of paused
    /// scopes wait and are left out.
    async fn doubts(&self, incarnation: Incarnation, now: Timestamp, limit: u32) -> Result<Vec<Message>, StoreError>;

    /// Moves up to `limit` messages whose scope was paused, resumed or ended, or whose device was deleted, since they were
    /// queued. Reads the marks that `SetCampaignStatus`, `SetSequenceStatus`, `DeleteSequence` and `DeleteDevice` leave, and removes a mark when nothing is left.
    ///
    /// To ensure correctness: queued and held messages go where [`requeue`](crate::plan::requeue) says, those in doubt become
    /// `unknown` when their scope has ended or their deleted device has no owner; `held_at` is the time of the move, and time
    /// on hold moves `expires_at`; idempotent; any node may call it.
    async fn sweep(&self, limit: u32, now: Timestamp) -> Result<Swept, StoreError>;

    /// Moves up to `limit` queued messages whose `expires_at` has come, the longest expired first, wherever they wait: on a lane
    /// at which nobody looks, because its device is offline, on hold or without an owner, or in a pool without a device.
    ///
    /// To ensure correctness: they go where [`requeue`](crate::plan::requeue) says, so that one of a paused scope is held and one
    /// of an ended scope cancelled; where that leaves them queued they become `skipped: expired`, as on a lane that looks. Held
    /// messages stay, since time on hold does not count, and so do those being sent or in doubt. Tallies change in the same
    /// transaction; idempotent; any node may call it.
    async fn expire(&self, limit: u32, now: Timestamp) -> Result<Expired, StoreError>;

    /// Moves up to `limit` messages of one campaign into the archive, with their attempts: of the first by (`ended_at`, id) that has
    /// started, ended before `ended_before` and has no open messages.
    ///
    /// To ensure correctness:
    /// - what people read stays as it was: [`message`](Self::message), [`attempts`](Self::attempts), [`messages`](Self::messages),
    ///   [`newest_of_leads`](Self::newest_of_leads), [`count`](Self::count), [`count_within`](Self::count_within) and
    ///   [`left_over`](super::CampaignStore::left_over) read the archive too, and tallies do not change;
    /// - the campaign has `archived_at` from the first step on, and never changes again: every change of it is a `Conflict`, and so is
    ///   a message that is new in it, or a `MarkMessage`, `CancelMessage` or `supersedes` that names an archived message;
    /// - nothing else finds an archived message: outcomes and receipts of it are those of one that is not there, and
    ///   [`recent`](Self::recent), [`persons_in`](super::CampaignStore::persons_in) and the greeting before another leave it out;
    /// - devices know those to whom archived messages were sent ([`Warmth`](crate::domain::warmth::Warmth)), and [`history`](Self::history)
    ///   keeps first and last start; other starts it leaves out, so that nothing is archived that windows of pacing still look at;
    /// - [`ErasePerson`](super::Change::ErasePerson) reaches the archive;
    /// - begin, settle and `due` go on beside it where the store has more than one writer; what waits, waits for one short transaction.
    ///
    /// Idempotency: a repeated call goes on. Any node may call it, also at the same time.
    async fn archive(&self, limit: u32, ended_before: Timestamp, now: Timestamp) -> Result<Archived, StoreError>;

    /// Queued pool messages of running campaigns and sequences, without a device and due, by (`due_at`, id), of users with a device
    /// that this node owns; of each scope the first `limit`, so that none waits until another is done.
    async fn pool(&self, incarnation: Incarnation, now: Timestamp, limit: u32) -> Result<Vec<PoolMessage>, StoreError>;

    /// Gives devices to pool messages that are still queued and without one; returns how many got one. The enrolment of a flow
    /// has that device from then on.
    ///
    /// To ensure correctness: never beyond the limit of a campaign. One whose device has taken as many of its campaign as
    /// [`Campaign::device_limit`](crate::domain::campaign::Campaign::device_limit) allows ([`taken`](super::CampaignStore::taken)),
    /// those before it in the call counted, is left alone, whoever else assigns at the same time.
    async fn assign(&self, items: &[Assignment], now: Timestamp) -> Result<u64, StoreError>;

    /// Leaves over pool messages that are still queued and without a device, because every device has reached the limit of their
    /// campaign; returns how many were moved.
    ///
    /// To ensure correctness: they go where [`requeue`](crate::plan::requeue) says, so that one of a paused campaign is held and one
    /// of an ended campaign cancelled; where that leaves them queued they become `skipped: device limit`. Only messages of
    /// campaigns that have a limit. Tallies change in the same transaction; idempotent; any node may call it.
    async fn leave_over(&self, items: &[LeftOver], now: Timestamp) -> Result<u64, StoreError>;

    /// Takes queued pool messages of a device back into the pool; returns how many.
    async fn unassign(&self, user: UserId, device: DeviceId) -> Result<u64, StoreError>;

    /// The load of all devices of a user that are not deleted, by id; the hour counts attempts of newest rows since
    /// `now` - 1 h.
    ///
    /// To ensure correctness: it is asked for every second while pool messages wait, so that it counts no more of what is queued than
    /// [`DeviceLoad::QUEUED_MAX`] of each device.
    async fn loads(&self, user: UserId, now: Timestamp) -> Result<Vec<DeviceLoad>, StoreError>;

    /// When the devices started attempts since `since`, at most 1,000 devices; one answer per device, in the order asked.
    async fn history(&self, devices: &[DeviceId], since: Timestamp) -> Result<Vec<LaneHistory>, StoreError>;

    /// The newest `limit` settled messages of a scope, by (`settled_at`, id), settled at or after `since`: how many were failed
    /// or unknown, and how many there were. Skipped and cancelled ones are not counted, superseded ones are.
    async fn recent(&self, scope: RecentOf, since: Timestamp, limit: u32) -> Result<RecentOutcomes, StoreError>;

    /// One message within a request's scope.
    async fn message(&self, scope: &RequestScope, id: MessageId) -> Result<Message, StoreError>;

    /// A page of messages within a request's scope, by id; superseded ones only when asked for.
    async fn messages(
        &self,
        scope: &RequestScope,
        filter: &MessageFilter,
        page: &PageRequest<MessageId>,
    ) -> Result<Page<Message, MessageId>, StoreError>;

    /// The newest message of any campaign to each of these leads, superseded ones aside, by lead, within a request's scope; leads
    /// without one are left out. At most 1,000 leads.
    async fn newest_of_leads(&self, scope: &RequestScope, leads: &[LeadId]) -> Result<Vec<Message>, StoreError>;

    /// All attempts of a message, oldest first.
    async fn attempts(
        &self,
        scope: &RequestScope,
        id: MessageId,
    ) -> Result<Vec<crate::domain::message::Attempt>, StoreError>;

    /// The numbers of a scope per device, from the tallies, the pool first, then by device; within a request's scope. Devices
    /// without a message in it are left out. `NotFound` for a campaign or sequence of another user.
    async fn numbers(&self, scope: &RequestScope, of: MessageScope) -> Result<Vec<DeviceNumbers>, StoreError>;

    /// The numbers of a device over all scopes.
    async fn device_numbers(&self, scope: &RequestScope, device: DeviceId) -> Result<Numbers, StoreError>;

    /// Counts the rows of a scope and tells the numbers that its tallies should show.
    async fn count(&self, scope: &RequestScope, of: MessageScope) -> Result<Vec<DeviceNumbers>, StoreError>;

    /// Counts the rows of a scope as they were within a span of time, its end not among it: what was completed in it as what it
    /// became, what was open at its end as remaining. What was completed before it or made after it is left out.
    async fn count_within(
        &self,
        scope: &RequestScope,
        of: MessageScope,
        within: &std::ops::Range<Timestamp>,
    ) -> Result<Vec<DeviceNumbers>, StoreError>;

    /// How full the outbox is, over all users.
    async fn backlog(&self) -> Result<Backlog, StoreError>;
}

/// The past of a lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneHistory {
    /// The device.
    pub device_id: DeviceId,
    /// Starts of attempts that were or may have been sent, oldest first.
    pub attempts: Vec<Timestamp>,
    /// The start of the newest attempt, whatever came of it.
    pub last_attempt_at: Option<Timestamp>,
    /// The start of the device's first attempt ever that was or may have been sent, from which its warm-up counts.
    pub first_attempt_at: Option<Timestamp>,
}

/// Of what recent outcomes are asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecentOf {
    /// A campaign.
    Campaign(CampaignId),
    /// A sequence.
    Sequence(SequenceId),
    /// A device.
    Device(DeviceId),
}

/// Recent outcomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RecentOutcomes {
    /// Sent, failed and unknown.
    pub settled: u32,
    /// Failed and unknown.
    pub bad: u32,
}

/// How full the outbox is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Backlog {
    /// Queued messages.
    pub queued: u64,
    /// Held messages.
    pub held: u64,
    /// Messages being sent.
    pub sending: u64,
    /// Messages in doubt.
    pub in_doubt: u64,
    /// The oldest `due_at` of a queued message.
    pub oldest_due_at: Option<Timestamp>,
}
