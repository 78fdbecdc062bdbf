//! A store that fails: before a call, after it, or by keeping quiet, over any store underneath.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::BoxFuture;
use rand::RngExt as _;

use super::clock::Timeline;
use super::history::{BeginSeen, History, SettleSeen, What};
use crate::domain::access::RequestScope;
use crate::domain::audience::{AudienceLead, CampaignEntry};
use crate::domain::campaign::Campaign;
use crate::domain::chat::{Chat, ChatMessage, ChatMessagePlace, ChatPlace};
use crate::domain::command::DeviceCommand;
use crate::domain::device::{Device, Epoch, OwnedDevice};
use crate::domain::enrolment::{Enrolment, ToAdvance};
use crate::domain::lead::{Lead, LeadIdentity};
use crate::domain::message::{Attempt, Message, MessageScope, MessageState, Reason};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::saved_text::SavedText;
use crate::domain::sequence::{Sequence, SequenceSteps};
use crate::domain::summary::{DeviceNumbers, Numbers};
use crate::domain::suppression::Suppression;
use crate::domain::token::Token;
use crate::domain::warmth::Warmth;
use crate::event::Event;
use crate::id::{
    CampaignId, ChatId, CommandId, DeviceId, EnrolmentId, EventId, Incarnation, LeadId, MessageId, SequenceId,
    TemplateId, UserId,
};
use crate::seed::{ChaCha8Rng, Seed};
use crate::store::*;
use crate::time::Timestamp;

/// Runs an operation of the store underneath to its end within one poll.
///
/// A crash then falls before it or after it, never inside: inside is the database's own promise.
pub trait Drive: Send + Sync {
    /// Runs `work` to its end.
    fn drive(&self, work: BoxFuture<'_, ()>);
}

/// For stores that never wait, such as the memory store.
#[derive(Debug, Clone, Copy, Default)]
pub struct InOnePoll;

impl Drive for InOnePoll {
    fn drive(&self, work: BoxFuture<'_, ()>) {
        work.now_or_never().expect("the store underneath never waits");
    }
}

/// How a store fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StoreFaults {
    /// Calls in a thousand that fail before anything was done.
    pub fail_before: u32,
    /// Calls in a thousand that are done and whose answer is lost.
    pub fail_after: u32,
    /// How long a quarter of the calls wait at most before what they do, and another quarter after it; the rest does not wait.
    pub wait_max: Duration,
    /// Calls in a thousand that take long, up to `slow_max`.
    pub slow: u32,
    /// How long a slow call takes at most, on either side of what it does.
    pub slow_max: Duration,
    /// Messages in a thousand whose outcomes are refused, with all that come in the same call.
    pub poison: u32,
}

impl StoreFaults {
    fn poisons(&self, message: MessageId) -> bool {
        let [.., a, b] = *message.as_bytes();
        u32::from(u16::from_be_bytes([a, b])) % 1_000 < self.poison
    }
}

/// Whether faults happen; shared by everything that fails.
#[derive(Debug, Default)]
pub struct Switch {
    off: AtomicBool,
    outage: AtomicBool,
}

impl Switch {
    /// Ends all faults.
    pub fn turn_off(&self) {
        self.off.store(true, Ordering::Relaxed);
        self.outage.store(false, Ordering::Relaxed);
    }

    /// Whether faults happen.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.off.load(Ordering::Relaxed)
    }

    /// Makes every call fail, or ends that.
    pub fn set_outage(&self, outage: bool) {
        self.outage.store(outage && self.is_on(), Ordering::Relaxed);
    }
}

/// A deliberate bug of a planner, made where what it plans reaches the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlannerFlaw {
    /// A settlement queues again what may have been sent.
    RequeuesMaybeSent,
    /// A settlement takes an answer that says nothing for a success.
    TakesDoubtForSuccess,
    /// An expansion writes to every lead of a number.
    ForgetsDuplicates,
    /// An expansion leaves out the last recipient of a page.
    LosesOnePerPage,
    /// An expansion skips recipients and does not say why.
    SkipsWithoutReason,
    /// A match leaves out the last of those whom it enrols.
    ForgetsToEnrol,
    /// A completion that leads nowhere does not say why.
    CompletesInSilence,
    /// An enrolment is moved on and its next message is lost.
    AdvancesToNothing,
}

impl PlannerFlaw {
    /// Those that a campaign shows.
    pub const OF_CAMPAIGNS: [Self; 5] = [
        Self::RequeuesMaybeSent,
        Self::TakesDoubtForSuccess,
        Self::ForgetsDuplicates,
        Self::LosesOnePerPage,
        Self::SkipsWithoutReason,
    ];

    /// Those that only a sequence shows.
    pub const OF_SEQUENCES: [Self; 3] = [Self::ForgetsToEnrol, Self::CompletesInSilence, Self::AdvancesToNothing];

    fn spoil_verdict(self, verdict: &mut Verdict, now: Timestamp) {
        match (self, &verdict) {
            (Self::RequeuesMaybeSent, Verdict::InDoubt { .. } | Verdict::Unknown { .. }) => {
                *verdict = Verdict::Requeue {
                    reason: Reason::GatewayUnavailable,
                    due_at: now,
                    counts: false,
                };
            }
            (Self::TakesDoubtForSuccess, Verdict::Requeue { .. } | Verdict::InDoubt { .. }) => {
                *verdict = Verdict::Sent {
                    provider_id: None,
                    delivery: None,
                };
            }
            _ => {}
        }
    }

    fn spoil_change(self, change: &mut Change) {
        match change {
            Change::Enrol(new) if self == Self::ForgetsToEnrol => drop(new.pop()),
            Change::EndEnrolment { reason, .. } if self == Self::CompletesInSilence => *reason = None,
            Change::AdvanceEnrolment(advance) if self == Self::AdvancesToNothing => drop(advance.messages.pop()),
            Change::InsertMessages(messages) => self.spoil_messages(messages),
            _ => {}
        }
    }

    fn spoil_messages(self, messages: &mut Vec<Message>) {
        if self == Self::LosesOnePerPage {
            messages.pop();
        }
        for message in messages.iter_mut() {
            let duplicate = message.reason == Some(Reason::Duplicate) && message.device_id.is_some();
            if self == Self::ForgetsDuplicates && duplicate {
                message.state = MessageState::Queued;
                message.reason = None;
                message.settled_at = None;
            }
            if self == Self::SkipsWithoutReason && message.state == MessageState::Skipped {
                message.reason = None;
            }
        }
    }
}

/// What a faulty store is made of.
#[derive(Clone)]
pub struct FaultyParts {
    /// The store underneath.
    pub inner: Arc<dyn Store>,
    /// How an operation of it is run.
    pub drive: Arc<dyn Drive>,
    /// True time.
    pub timeline: Arc<Timeline>,
    /// Where it is recorded what was really done.
    pub history: Arc<History>,
    /// Whether faults happen.
    pub switch: Arc<Switch>,
    /// Which faults.
    pub faults: StoreFaults,
    /// What the planners of this process do wrong.
    pub planner_flaw: Option<PlannerFlaw>,
}

/// One process's way to a store. Every call may wait and fail on both sides of what it does, which happens at once.
pub struct FaultyStore {
    parts: FaultyParts,
    rng: Mutex<ChaCha8Rng>,
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Plan {
    wait_before: Duration,
    wait_after: Duration,
    yields: u32,
    fail_before: bool,
    fail_after: bool,
}

impl FaultyStore {
    /// A way to the store of `parts`, with faults drawn from `rng`.
    #[must_use]
    pub fn new(parts: FaultyParts, rng: ChaCha8Rng) -> Self {
        Self {
            parts,
            rng: Mutex::new(rng),
        }
    }

    fn plan(&self) -> Plan {
        let faults = self.parts.faults;
        let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
        let mut per_mille = |share: u32| rng.random_range(0..1_000) < share;
        let (slow, fail_before, fail_after) = (
            per_mille(faults.slow),
            per_mille(faults.fail_before),
            per_mille(faults.fail_after),
        );
        let most = if slow { faults.slow_max } else { faults.wait_max };
        let mut wait = || Duration::from_micros(rng.random_range(0..=u64::try_from(most.as_micros()).unwrap_or(0)));
        let (wait_before, wait_after) = (wait(), wait());
        let yields = rng.random_range(0..4);
        drop(rng);
        if !self.parts.switch.is_on() {
            return Plan {
                wait_before: Duration::ZERO,
                wait_after: Duration::ZERO,
                yields: 0,
                fail_before: false,
                fail_after: false,
            };
        }
        Plan {
            // Most calls take no time at all, so that their order is drawn by the scheduler alone.
            wait_before: if slow || yields == 3 {
                wait_before
            } else {
                Duration::ZERO
            },
            wait_after: if slow || yields == 2 {
                wait_after
            } else {
                Duration::ZERO
            },
            yields,
            fail_before: fail_before || self.parts.switch.outage.load(Ordering::Relaxed),
            fail_after,
        }
    }

    async fn pause(&self, span: Duration, yields: bool) {
        if !span.is_zero() {
            self.parts.timeline.sleep(span).await;
        } else if yields {
            yield_once().await;
        }
    }

    async fn call<T: Send>(
        &self,
        operation: &'static str,
        work: BoxFuture<'_, Result<T, StoreError>>,
        seen: impl FnOnce(&T) + Send,
    ) -> Result<T, StoreError> {
        let plan = self.plan();
        self.pause(plan.wait_before, plan.yields & 1 == 1).await;
        let unavailable = || StoreError::new(StoreErrorKind::Unavailable, operation, "simulated");
        if plan.fail_before {
            return Err(unavailable());
        }
        let mut answer = None;
        self.parts.drive.drive(
            async {
                answer = Some(work.await);
            }
            .boxed(),
        );
        let answer = answer.expect("the store underneath has answered");
        if let Ok(told) = &answer {
            seen(told);
        }
        self.pause(plan.wait_after, plan.yields & 2 == 2).await;
        if plan.fail_after && answer.is_ok() {
            self.note(|| format!("lost the answer of {operation}"));
            return Err(unavailable());
        }
        answer
    }

    fn note(&self, text: impl FnOnce() -> String) {
        self.parts.history.add(What::Note(text()));
    }

    fn see_changes(&self, changes: &[Seen]) {
        for change in changes {
            self.parts.history.add(match *change {
                Seen::Status(id, status) => What::Status(id, status),
                Seen::TriggeredAgain(id) => What::TriggeredAgain(id),
                Seen::SequenceStatus(id, status) => What::SequenceStatus(id, status),
                Seen::SequenceDeleted(id) => What::SequenceDeleted(id),
                Seen::EnrolmentEnded(id) => What::EnrolmentEnded(id),
                Seen::Suppressed(user, person) => What::Suppressed(user, person),
                Seen::Unsuppressed(user, person) => What::Unsuppressed(user, person),
                Seen::Held(device, held) => What::Held(device, held),
                Seen::Deleted(device) => What::Deleted(device),
                Seen::LeadDeleted(lead) => What::LeadDeleted(lead),
                Seen::Wrote(device, phone) => What::Wrote(device, phone),
            });
        }
    }
}

/// What an invariant needs to know of a change set.
enum Seen {
    Status(CampaignId, crate::domain::campaign::CampaignStatus),
    TriggeredAgain(CampaignId),
    SequenceStatus(SequenceId, crate::domain::sequence::SequenceStatus),
    SequenceDeleted(SequenceId),
    EnrolmentEnded(EnrolmentId),
    Suppressed(UserId, PersonKey),
    Unsuppressed(UserId, PersonKey),
    Held(DeviceId, bool),
    Deleted(DeviceId),
    LeadDeleted(LeadId),
    Wrote(DeviceId, Phone),
}

fn seen_of(set: &ChangeSet) -> Vec<Seen> {
    set.changes
        .iter()
        .filter_map(|change| match change {
            Change::SetCampaignStatus { campaign_id, to, .. } => Some(Seen::Status(*campaign_id, *to)),
            Change::UpdateCampaign(campaign) | Change::InsertCampaign(campaign) => {
                Some(Seen::Status(campaign.id, campaign.status))
            }
            Change::SetSequenceStatus { sequence_id, to, .. } => Some(Seen::SequenceStatus(*sequence_id, *to)),
            Change::TriggerAgain { campaign_id, .. } => Some(Seen::TriggeredAgain(*campaign_id)),
            Change::DeleteSequence { sequence_id, .. } => Some(Seen::SequenceDeleted(*sequence_id)),
            Change::EndEnrolment { enrolment_id, .. } => Some(Seen::EnrolmentEnded(*enrolment_id)),
            Change::Suppress(suppression) => Some(Seen::Suppressed(suppression.user_id, suppression.person)),
            Change::Unsuppress { user_id, person } => Some(Seen::Unsuppressed(*user_id, *person)),
            Change::SetDeviceHold { device_id, hold, .. } => Some(Seen::Held(*device_id, hold.is_some())),
            Change::HoldDevice { device_id, .. } => Some(Seen::Held(*device_id, true)),
            Change::DeleteDevice { device_id, .. } => Some(Seen::Deleted(*device_id)),
            Change::DeleteLead { lead_id, .. } => Some(Seen::LeadDeleted(*lead_id)),
            Change::Replied { device_id, phone, .. } => Some(Seen::Wrote(*device_id, *phone)),
            _ => None,
        })
        .collect()
}

/// Lets others run once.
async fn yield_once() {
    let mut yielded = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut yielded, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

macro_rules! passed_on {
    ($store:ident { $(fn $name:ident($($arg:ident: $kind:ty),*) -> $answer:ty;)+ } $($rest:tt)*) => {
        #[async_trait]
        impl $store for FaultyStore {
            $(async fn $name(&self, $($arg: $kind),*) -> Result<$answer, StoreError> {
                self.call(stringify!($name), self.parts.inner.$name($($arg),*), |_| {}).await
            })+
            $($rest)*
        }
    };
}

passed_on! { DeviceStore {
    fn device(scope: &RequestScope, id: DeviceId) -> Device;
    fn devices(scope: &RequestScope, page: &PageRequest<DeviceId>) -> Page<Device, DeviceId>;
    fn device_by_hook(token: &str) -> Device;
    fn owned(ids: &[DeviceId]) -> Vec<OwnedDevice>;
    fn users_with_devices(page: &PageRequest<UserId>) -> Page<UserId, UserId>;
} }

passed_on! { LeadStore {
    fn lead(scope: &RequestScope, id: LeadId) -> Lead;
    fn leads(scope: &RequestScope, filter: &LeadFilter, page: &PageRequest<LeadId>) -> Page<Lead, LeadId>;
    fn lead_count(scope: &RequestScope, filter: &LeadFilter) -> u64;
    fn leads_by_id(user: UserId, ids: &[LeadId]) -> Vec<Lead>;
    fn lead_by_identity(identity: &LeadIdentity) -> Option<Lead>;
    fn niches(scope: &RequestScope) -> Vec<(Token, u64)>;
} }

passed_on! { CampaignStore {
    fn campaign(scope: &RequestScope, id: CampaignId) -> Campaign;
    fn campaigns(scope: &RequestScope, filter: &CampaignFilter, page: &PageRequest<CampaignId>) -> Page<Campaign, CampaignId>;
    fn campaigns_by_id(ids: &[CampaignId]) -> Vec<Campaign>;
    fn campaigns_due(now: Timestamp, limit: u32) -> Vec<Campaign>;
    fn campaigns_expanding(limit: u32) -> Vec<Campaign>;
    fn next_campaign_at() -> Option<Timestamp>;
    fn audience_page(campaign: &Campaign, after: LeadId, limit: u32) -> Vec<AudienceLead>;
    fn entries_page(campaign: CampaignId, after: u32, limit: u32) -> Vec<CampaignEntry>;
    fn audience_size(campaign: &Campaign) -> u64;
    fn persons_in(campaign: CampaignId, persons: &[PersonKey]) -> Vec<PersonKey>;
    fn planned(campaign: CampaignId, persons: &[PersonKey]) -> Vec<PlannedRow>;
    fn left_over(campaign: CampaignId) -> u64;
    fn taken(campaigns: &[CampaignId]) -> Vec<Taken>;
    fn saved_text(scope: &RequestScope, id: TemplateId) -> SavedText;
    fn saved_texts(scope: &RequestScope, page: &PageRequest<TemplateId>) -> Page<SavedText, TemplateId>;
}
    async fn complete_campaigns(&self, events: &[EventId], now: Timestamp) -> Result<Vec<Campaign>, StoreError> {
        let seen = |done: &Vec<Campaign>| {
            for campaign in done {
                self.parts.history.add(What::Status(campaign.id, campaign.status));
            }
        };
        self.call("complete_campaigns", self.parts.inner.complete_campaigns(events, now), seen).await
    }
}

passed_on! { SequenceStore {
    fn sequence(scope: &RequestScope, id: SequenceId) -> Sequence;
    fn sequences(scope: &RequestScope, filter: &SequenceFilter, page: &PageRequest<SequenceId>) -> Page<Sequence, SequenceId>;
    fn sequences_by_id(ids: &[SequenceId]) -> Vec<Sequence>;
    fn steps(versions: &[(SequenceId, i32)]) -> Vec<SequenceSteps>;
    fn sequences_by_entry(user: UserId, tokens: &[Token]) -> Vec<Sequence>;
    fn leads_to_match(limit: u32) -> Vec<Lead>;
    fn sequences_matching(limit: u32) -> Vec<Sequence>;
    fn match_page(sequence: &Sequence, after: LeadId, limit: u32) -> Vec<Lead>;
    fn to_advance(limit: u32) -> Vec<ToAdvance>;
    fn enrolment(scope: &RequestScope, id: EnrolmentId) -> Enrolment;
    fn enrolments(scope: &RequestScope, filter: &EnrolmentFilter, page: &PageRequest<EnrolmentId>) -> Page<Enrolment, EnrolmentId>;
    fn enrolments_by_id(ids: &[EnrolmentId]) -> Vec<Enrolment>;
    fn sequence_counts(scope: &RequestScope, id: SequenceId, span: &Span) -> SequenceCounts;
    fn recount_sequence(scope: &RequestScope, id: SequenceId) -> SequenceCounts;
} }

passed_on! { OutboxStore {
    fn due(due: &Due) -> Vec<LaneDue>;
    fn decline(items: &[Decline], now: Timestamp) -> u64;
    fn sending(incarnation: Incarnation) -> Vec<SendingRow>;
    fn doubts(incarnation: Incarnation, now: Timestamp, limit: u32) -> Vec<Message>;
    fn sweep(limit: u32, now: Timestamp) -> Swept;
    fn expire(limit: u32, now: Timestamp) -> Expired;
    fn archive(limit: u32, ended_before: Timestamp, now: Timestamp) -> Archived;
    fn pool(incarnation: Incarnation, now: Timestamp, limit: u32) -> Vec<PoolMessage>;
    fn assign(items: &[Assignment], now: Timestamp) -> u64;
    fn leave_over(items: &[LeftOver], now: Timestamp) -> u64;
    fn unassign(user: UserId, device: DeviceId) -> u64;
    fn loads(user: UserId, now: Timestamp) -> Vec<DeviceLoad>;
    fn history(devices: &[DeviceId], since: Timestamp) -> Vec<LaneHistory>;
    fn recent(scope: RecentOf, since: Timestamp, limit: u32) -> RecentOutcomes;
    fn message(scope: &RequestScope, id: MessageId) -> Message;
    fn messages(scope: &RequestScope, filter: &MessageFilter, page: &PageRequest<MessageId>) -> Page<Message, MessageId>;
    fn newest_of_leads(scope: &RequestScope, leads: &[LeadId]) -> Vec<Message>;
    fn attempts(scope: &RequestScope, id: MessageId) -> Vec<Attempt>;
    fn numbers(scope: &RequestScope, of: MessageScope) -> Vec<DeviceNumbers>;
    fn device_numbers(scope: &RequestScope, device: DeviceId) -> Numbers;
    fn count(scope: &RequestScope, of: MessageScope) -> Vec<DeviceNumbers>;
    fn count_within(scope: &RequestScope, of: MessageScope, within: &std::ops::Range<Timestamp>) -> Vec<DeviceNumbers>;
    fn backlog() -> Backlog;
}
    async fn begin(&self, begin: &Begin) -> Result<Vec<Begun>, StoreError> {
        let asked_at = self.parts.timeline.now();
        let seen = |answers: &Vec<Begun>| {
            for (item, answer) in begin.items.iter().zip(answers) {
                self.parts.history.add(What::Begin(BeginSeen {
                    incarnation: begin.incarnation,
                    device_id: item.device_id,
                    epoch: item.epoch,
                    message_id: item.message_id,
                    attempt_id: item.attempt_id,
                    again: item.again,
                    asked_at,
                    attempted_at: item.attempted_at,
                    answer: *answer,
                }));
            }
        };
        self.call("begin", self.parts.inner.begin(begin), seen).await
    }

    async fn settle(&self, settle: &Settle) -> Result<Vec<Settled>, StoreError> {
        let mut settle = settle.clone();
        if let Some(flaw) = self.parts.planner_flaw {
            let outcomes = settle.outcomes.iter_mut();
            outcomes.for_each(|outcome| {
                flaw.spoil_verdict(&mut outcome.verdict, settle.now);
                if flaw == PlannerFlaw::AdvancesToNothing
                    && let Some(advance) = &mut outcome.advance
                {
                    advance.messages.pop();
                }
            });
        }
        let settle = &settle;
        let mut ids = settle.outcomes.iter().map(|outcome| outcome.message_id);
        if self.parts.switch.is_on() && ids.any(|id| self.parts.faults.poisons(id)) {
            return Err(StoreError::new(StoreErrorKind::Backend, "settle", "simulated"));
        }
        let seen = |answers: &Vec<Settled>| {
            for (outcome, answer) in settle.outcomes.iter().zip(answers) {
                self.parts.history.add(What::Settle(SettleSeen {
                    incarnation: settle.incarnation,
                    device_id: outcome.device_id,
                    epoch: outcome.epoch,
                    message_id: outcome.message_id,
                    attempt_id: outcome.attempt_id,
                    verdict: outcome.verdict.clone(),
                    answer: *answer,
                }));
            }
        };
        self.call("settle", self.parts.inner.settle(settle), seen).await
    }
}

passed_on! { WarmthStore {
    fn warmth(messages: &[MessageId]) -> Vec<Warmth>;
    fn strangers(asked: &Strangers) -> Vec<Stranger>;
    fn put_off(user: UserId, device: DeviceId, now: Timestamp, limit: u32) -> Vec<MessageId>;
    fn cold_attempts(devices: &[DeviceId], since: Timestamp) -> Vec<Vec<Timestamp>>;
    fn acquainted(device: DeviceId, people: &[(Phone, PersonKey)]) -> Vec<PersonKey>;
} }

passed_on! { SuppressionStore {
    fn suppressed(user: UserId, persons: &[PersonKey]) -> Vec<Suppression>;
    fn suppressions(scope: &RequestScope, page: &PageRequest<PersonKey>) -> Page<Suppression, PersonKey>;
} }

passed_on! { ChatStore {
    fn chat(scope: &RequestScope, id: ChatId) -> Chat;
    fn chats(scope: &RequestScope, device: DeviceId, page: &PageRequest<ChatPlace>) -> Page<Chat, ChatPlace>;
    fn chat_messages(scope: &RequestScope, id: ChatId, page: &ChatPage) -> Page<ChatMessage, ChatMessagePlace>;
    fn sweep_chats(before: Timestamp, limit: u32) -> u64;
} }

passed_on! { LeaseStore {
    fn seed(candidate: &Seed) -> Seed;
    fn join(incarnation: Incarnation, name: &str, now: Timestamp) -> ();
    fn beat(incarnation: Incarnation, now: Timestamp) -> ();
    fn nodes() -> Vec<NodeRecord>;
    fn unowned() -> u64;
    fn devices_of(incarnation: Incarnation) -> Vec<OwnedDevice>;
    fn plan_lease(incarnation: Incarnation, now: Timestamp) -> bool;
    fn forget_nodes(before: Timestamp, limit: u32) -> u64;
}
    async fn fence(
        &self,
        by: Incarnation,
        target: Incarnation,
        seen_beat: i64,
        now: Timestamp,
    ) -> Result<Vec<TakenOver>, StoreError> {
        let seen = |_: &Vec<TakenOver>| self.parts.history.add(What::Fenced(target));
        self.call("fence", self.parts.inner.fence(by, target, seen_beat, now), seen).await
    }

    /// Nobody holds a proof that the others are dead: they share this store.
    async fn fence_the_dead(&self, _by: Incarnation, _now: Timestamp) -> Result<Vec<TakenOver>, StoreError> {
        let kind = StoreErrorKind::Unsupported;
        Err(StoreError::new(kind, "fence_the_dead", "node"))
    }

    async fn claim(
        &self,
        incarnation: Incarnation,
        limit: u32,
        now: Timestamp,
    ) -> Result<Vec<OwnedDevice>, StoreError> {
        let seen = |claimed: &Vec<OwnedDevice>| {
            for owned in claimed {
                self.parts.history.add(What::Claimed(incarnation, owned.device.id, owned.epoch));
            }
        };
        self.call("claim", self.parts.inner.claim(incarnation, limit, now), seen).await
    }

    async fn release(
        &self,
        incarnation: Incarnation,
        devices: &[(DeviceId, Epoch)],
        now: Timestamp,
    ) -> Result<Vec<DeviceId>, StoreError> {
        let seen = |released: &Vec<DeviceId>| {
            for device in released {
                self.parts.history.add(What::Released(*device));
            }
        };
        self.call("release", self.parts.inner.release(incarnation, devices, now), seen).await
    }

    async fn leave(&self, incarnation: Incarnation, now: Timestamp) -> Result<(), StoreError> {
        let seen = |_: &()| self.parts.history.add(What::Fenced(incarnation));
        self.call("leave", self.parts.inner.leave(incarnation, now), seen).await
    }
}

passed_on! { CommandStore {
    fn command(scope: &RequestScope, id: CommandId) -> DeviceCommand;
    fn commands(incarnation: Incarnation, now: Timestamp, limit: u32) -> Vec<DeviceCommand>;
    fn prune_commands(before: Timestamp) -> u64;
} }

passed_on! { EventStore {
    fn events(scope: &RequestScope, after: EventId, limit: u32) -> Vec<Event>;
    fn newest_event(scope: &RequestScope) -> Option<EventId>;
    fn prune_events(before: Timestamp) -> u64;
    fn prune_replies(before: Timestamp) -> u64;
} }

#[async_trait]
impl Store for FaultyStore {
    async fn commit(&self, set: ChangeSet, class: WriteClass, now: Timestamp) -> Result<Committed, StoreError> {
        let mut set = set;
        if let Some(flaw) = self.parts.planner_flaw {
            set.changes.iter_mut().for_each(|change| flaw.spoil_change(change));
        }
        let changes = seen_of(&set);
        let seen = |_: &Committed| self.see_changes(&changes);
        self.call("commit", self.parts.inner.commit(set, class, now), seen)
            .await
    }

    async fn ready(&self) -> Result<(), StoreError> {
        self.call("ready", self.parts.inner.ready(), |_| {}).await
    }

    fn bulk_rows(&self) -> u32 {
        self.parts.inner.bulk_rows()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store(faults: StoreFaults, switch: &Arc<Switch>) -> FaultyStore {
        let timeline = Timeline::new();
        let parts = FaultyParts {
            inner: Arc::new(MemoryStore::new()),
            drive: Arc::new(InOnePoll),
            history: History::new(Arc::clone(&timeline)),
            timeline,
            switch: Arc::clone(switch),
            faults,
            planner_flaw: None,
        };
        FaultyStore::new(parts, Seed::from_number(1).rng(b"", "test"))
    }

    fn wait<T>(timeline: &Timeline, work: impl Future<Output = T>) -> T {
        let mut work = Box::pin(work);
        loop {
            if let Some(done) = work.as_mut().now_or_never() {
                return done;
            }
            timeline.advance();
        }
    }

    #[test]
    fn a_lost_answer_means_done_and_a_refused_call_not_done() {
        let ids = crate::id::IdSource::seeded([1; 32]);
        let now = Timestamp::from_millis(1);
        for (faults, done) in [
            (
                StoreFaults {
                    fail_before: 1_000,
                    ..Default::default()
                },
                0,
            ),
            (
                StoreFaults {
                    fail_after: 1_000,
                    ..Default::default()
                },
                1,
            ),
        ] {
            let switch = Arc::new(Switch::default());
            let store = store(faults, &switch);
            let timeline = Arc::clone(&store.parts.timeline);
            let joined = wait(&timeline, store.join(Incarnation::new(&ids, now), "a", now));
            assert_eq!(joined.unwrap_err().kind, StoreErrorKind::Unavailable);
            switch.turn_off();
            assert_eq!(wait(&timeline, store.nodes()).unwrap().len(), done);
        }
    }
}
