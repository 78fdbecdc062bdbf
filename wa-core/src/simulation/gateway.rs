//! Gateways that accept, refuse, hang, cut, lie and answer late, and know what every recipient really got.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::select;
use futures::task::AtomicWaker;
use rand::RngExt as _;

use super::clock::Timeline;
use super::history::{CallSeen, History, What};
use crate::domain::delivery::Delivery;
use crate::domain::phone::Phone;
use crate::domain::platform::Platform;
use crate::id::{AttemptId, DeviceId, UserId};
use crate::seed::ChaCha8Rng;
use crate::transport::{
    Capabilities, InvalidDevice, MaybeSentCause, MessageRef, NotSentKind, NumberCheck, NumberChecker, OutgoingMessage,
    Reconcilable, ReconcileQuery, Reconciled, RestrictionScope, SendContext, SendError, SendReceipt, Transport,
    TransportDevice, TransportMessageId,
};

/// How many numbers are checked together.
const CHECKED_AHEAD: u32 = 4;

/// What a simulated gateway can do about a message in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum GatewayKind {
    /// It can be asked, as Wablas.
    Reconcile,
    /// It can tell nothing, as Whacenter.
    Silent,
    /// It drops a repeated id, as WhatsApp Web.
    SameId,
}

impl GatewayKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Reconcile, Self::Silent, Self::SameId];

    /// The platform that a transport of this kind carries.
    #[must_use]
    pub const fn platform(self) -> Platform {
        match self {
            Self::Reconcile => Platform::WABLAS,
            Self::Silent => Platform::WHACENTER,
            Self::SameId => Platform::WHATSAPP_WEB,
        }
    }
}

/// How gateways fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GatewayFaults {
    /// Requests in a thousand that are refused.
    pub refuse: u32,
    /// Requests in a thousand whose answer is lost, is a lie, or never comes.
    pub doubt: u32,
    /// Questions in a thousand that are not answered.
    pub deaf: u32,
    /// Accepted messages in a thousand that the gateway gives up later.
    pub dead: u32,
    /// How long a request or an answer is on its way at most.
    pub latency_max: Duration,
    /// How long after its request an accepted message is accepted at most, where the caller does not wait for it.
    pub late_max: Duration,
    /// How long an accepted message is not yet told of at most. Less than what an engine waits before it asks.
    pub report_lag_max: Duration,
    /// Receipts in a thousand that come, each once or twice.
    pub receipts: u32,
}

impl GatewayFaults {
    /// A gateway that accepts everything at once.
    pub const NONE: Self = Self {
        refuse: 0,
        doubt: 0,
        deaf: 0,
        dead: 0,
        latency_max: Duration::from_millis(500),
        late_max: Duration::ZERO,
        report_lag_max: Duration::ZERO,
        receipts: 0,
    };
}

/// A receipt on its way to the engine.
#[derive(Debug, Clone)]
pub struct ReceiptDue {
    /// The owner of the device.
    pub user_id: UserId,
    /// The device.
    pub device_id: DeviceId,
    /// Which message.
    pub message: MessageRef,
    /// What it tells.
    pub delivery: Delivery,
}

enum Job {
    Accept(GatewayKind, CallSeen, Duration, bool),
    Receipt(ReceiptDue),
}

#[derive(Default)]
struct State {
    jobs: BTreeMap<(Duration, u64), Job>,
    next_job: u64,
    received: BTreeMap<DeviceId, u32>,
    /// What was accepted: when it is told of, and whether it is given up.
    accepted: BTreeMap<AttemptId, (Duration, bool)>,
    seen_ids: BTreeSet<(DeviceId, TransportMessageId)>,
}

/// All gateways of a simulation.
pub struct Gateways {
    timeline: Arc<Timeline>,
    history: Arc<History>,
    faults: GatewayFaults,
    calm: AtomicBool,
    counting_only: AtomicBool,
    rng: Mutex<ChaCha8Rng>,
    state: Mutex<State>,
    new_job: AtomicWaker,
}

impl fmt::Debug for Gateways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gateways").finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What becomes of one request.
enum Fate {
    /// Accepted and told so.
    Accept,
    /// Refused and told so.
    Refuse(NotSentKind),
    /// The caller cannot know; whether it was accepted, and after how long.
    Doubt(MaybeSentCause, Option<Duration>),
}

impl Gateways {
    /// Gateways that fail as `faults` say, by draws from `rng`.
    #[must_use]
    pub fn new(timeline: Arc<Timeline>, history: Arc<History>, faults: GatewayFaults, rng: ChaCha8Rng) -> Arc<Self> {
        Arc::new(Self {
            timeline,
            history,
            faults,
            calm: AtomicBool::new(false),
            counting_only: AtomicBool::new(false),
            rng: Mutex::new(rng),
            state: Mutex::default(),
            new_job: AtomicWaker::new(),
        })
    }

    /// These gateways without a record of each message, for long simulations; counts are kept.
    #[must_use]
    pub fn counting_only(self: Arc<Self>) -> Arc<Self> {
        self.counting_only.store(true, Ordering::Relaxed);
        self
    }

    /// How many messages the recipients of each device got.
    #[must_use]
    pub fn received_per_device(&self) -> BTreeMap<DeviceId, u32> {
        lock(&self.state).received.clone()
    }

    fn record(&self, what: impl FnOnce() -> What) {
        if !self.counting_only.load(Ordering::Relaxed) {
            self.history.add(what());
        }
    }

    /// From here on everything is accepted and every question is answered.
    pub fn calm(&self) {
        self.calm.store(true, Ordering::Relaxed);
    }

    fn faults(&self) -> GatewayFaults {
        if self.calm.load(Ordering::Relaxed) {
            GatewayFaults {
                receipts: self.faults.receipts,
                ..GatewayFaults::NONE
            }
        } else {
            self.faults
        }
    }

    fn up_to(&self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(lock(&self.rng).random_range(0..=most))
    }

    fn happens(&self, per_mille: u32) -> bool {
        lock(&self.rng).random_range(0..1_000) < per_mille
    }

    fn fate(&self) -> Fate {
        let faults = self.faults();
        let mut rng = lock(&self.rng);
        let draw = rng.random_range(0..1_000);
        if draw < faults.refuse {
            return Fate::Refuse(refusal(&mut rng));
        }
        if draw >= faults.refuse + faults.doubt {
            return Fate::Accept;
        }
        let cause = match rng.random_range(0..4) {
            0 => MaybeSentCause::Timeout,
            1 => MaybeSentCause::ConnectionLost,
            2 => MaybeSentCause::ServerError,
            _ => MaybeSentCause::Unreadable,
        };
        let late = u64::try_from(faults.late_max.as_micros()).unwrap_or(0);
        let accepted = rng
            .random_bool(0.5)
            .then(|| Duration::from_micros(rng.random_range(0..=late)));
        Fate::Doubt(cause, accepted)
    }

    fn later(&self, span: Duration, job: Job) {
        let at = self.timeline.now() + span;
        let mut state = lock(&self.state);
        let key = (at, state.next_job);
        state.next_job += 1;
        state.jobs.insert(key, job);
        drop(state);
        self.new_job.wake();
    }

    /// Waits until something is due, or something new is on its way.
    pub async fn wait(&self) {
        let next = lock(&self.state).jobs.first_key_value().map(|((at, _), _)| *at);
        let new = std::future::poll_fn(|context| {
            self.new_job.register(context.waker());
            let first = lock(&self.state).jobs.first_key_value().map(|((at, _), _)| *at);
            if first == next { Poll::Pending } else { Poll::Ready(()) }
        });
        match next {
            Some(at) => drop(select(Box::pin(new), Box::pin(self.timeline.sleep_until(at))).await),
            None => new.await,
        }
    }

    /// Does everything that is due, and gives the receipts to bring to the engine.
    #[must_use]
    pub fn work(&self) -> Vec<ReceiptDue> {
        let mut receipts = Vec::new();
        loop {
            let now = self.timeline.now();
            let job = {
                let mut state = lock(&self.state);
                match state.jobs.first_key_value() {
                    Some(((at, _), _)) if *at <= now => state.jobs.pop_first().map(|(_, job)| job),
                    _ => None,
                }
            };
            match job {
                None => return receipts,
                Some(Job::Receipt(receipt)) => receipts.push(receipt),
                Some(Job::Accept(kind, call, lag, dead)) => self.accept(kind, call, lag, dead),
            }
        }
    }

    fn accept(&self, kind: GatewayKind, call: CallSeen, lag: Duration, dead: bool) {
        {
            let mut state = lock(&self.state);
            let new = state
                .seen_ids
                .insert((call.device_id, call.transport_message_id.clone()));
            if kind == GatewayKind::SameId && !new {
                drop(state);
                self.record(|| What::Dropped(call));
                return;
            }
            state
                .accepted
                .insert(call.attempt_id, (self.timeline.now() + lag, dead));
        }
        if !dead {
            *lock(&self.state).received.entry(call.device_id).or_default() += 1;
            self.tell_receipts(kind, &call);
            self.record(|| What::Received(call));
        }
    }

    fn tell_receipts(&self, kind: GatewayKind, call: &CallSeen) {
        if !self.happens(self.faults().receipts) {
            return;
        }
        let message = match kind {
            GatewayKind::Silent => match TransportMessageId::new(provider_id(call.attempt_id)) {
                Some(id) => MessageRef::Provider(id),
                None => return,
            },
            _ => MessageRef::Ours(call.transport_message_id.clone()),
        };
        for delivery in [Delivery::Delivered, Delivery::Read, Delivery::Delivered] {
            if self.happens(600) {
                let receipt = ReceiptDue {
                    user_id: call.user_id,
                    device_id: call.device_id,
                    message: message.clone(),
                    delivery,
                };
                let span = self.up_to(Duration::from_secs(90));
                self.later(span, Job::Receipt(receipt));
            }
        }
    }

    async fn take(
        &self,
        kind: GatewayKind,
        context: &SendContext,
        message: &OutgoingMessage,
    ) -> Result<SendReceipt, SendError> {
        let call = CallSeen {
            device_id: context.device.id,
            user_id: context.device.user_id,
            message_id: message.message_id,
            attempt_id: message.attempt_id,
            transport_message_id: message.transport_message_id.clone(),
            to: message.to,
            text: message.text.clone(),
        };
        // The request is written now: whatever becomes of the caller, the gateway gets it.
        self.record(|| What::Called(call.clone()));
        let faults = self.faults();
        let (there, back) = (self.up_to(faults.latency_max), self.up_to(faults.latency_max));
        let (lag, dead) = (self.up_to(faults.report_lag_max), self.happens(faults.dead));
        let (wait, result) = match self.fate() {
            Fate::Accept => {
                self.later(there, Job::Accept(kind, call, lag, dead));
                let receipt = SendReceipt {
                    provider_id: TransportMessageId::new(provider_id(message.attempt_id)),
                    accepted_at: None,
                };
                (there + back, Ok(receipt))
            }
            Fate::Refuse(refused) => (there + back, Err(SendError::not_sent(refused, "refused"))),
            Fate::Doubt(cause, accepted) => {
                if let Some(late) = accepted {
                    self.later(there + late, Job::Accept(kind, call, lag, dead));
                }
                let wait = match cause {
                    // A third of those that hang keep no limit at all: the engine's own must help.
                    MaybeSentCause::Timeout if self.happens(333) => context.timeout * 10,
                    MaybeSentCause::Timeout => context.timeout,
                    _ => there + back,
                };
                (wait, Err(SendError::maybe_sent(cause, "nobody knows")))
            }
        };
        self.timeline.sleep(wait).await;
        let told = result.as_ref().map(|_| ()).map_err(Clone::clone);
        self.record(|| What::Answered(message.attempt_id, told));
        result
    }

    async fn find(&self, query: &ReconcileQuery) -> Result<Reconciled, SendError> {
        let faults = self.faults();
        self.timeline.sleep(self.up_to(faults.latency_max)).await;
        if self.happens(faults.deaf) {
            self.history.add(What::Asked(query.attempt_id, None));
            return Err(SendError::not_sent(NotSentKind::Unavailable, "deaf"));
        }
        let now = self.timeline.now();
        let answer = match lock(&self.state).accepted.get(&query.attempt_id) {
            Some((visible_at, _)) if *visible_at > now => Reconciled::NotFound,
            Some((_, true)) => Reconciled::FoundDead {
                detail: "given up".to_owned(),
            },
            Some((_, false)) => Reconciled::Found {
                provider_id: TransportMessageId::new(provider_id(query.attempt_id)),
                delivery: None,
            },
            None => Reconciled::NotFound,
        };
        self.history.add(What::Asked(query.attempt_id, Some(answer.clone())));
        Ok(answer)
    }
}

fn provider_id(attempt: AttemptId) -> String {
    format!("vendor-{attempt}")
}

fn refusal(rng: &mut ChaCha8Rng) -> NotSentKind {
    match rng.random_range(0..12) {
        0 => NotSentKind::Rejected,
        1 => NotSentKind::InvalidRecipient,
        2 => NotSentKind::NotOnWhatsApp,
        3 => NotSentKind::RateLimited { retry_after: None },
        4 => NotSentKind::RateLimited {
            retry_after: Some(Duration::from_secs(rng.random_range(1..120))),
        },
        5 => NotSentKind::Restricted {
            until: None,
            scope: if rng.random_bool(0.5) {
                RestrictionScope::Cold
            } else {
                RestrictionScope::All
            },
        },
        6 => NotSentKind::Unauthenticated,
        7 | 8 => NotSentKind::DeviceOffline,
        9 => NotSentKind::Unsupported,
        _ => NotSentKind::Unavailable,
    }
}

/// A transport to one kind of simulated gateway.
#[derive(Debug)]
pub struct SimTransport {
    kind: GatewayKind,
    gateways: Arc<Gateways>,
    capabilities: Capabilities,
}

impl SimTransport {
    /// A transport to the gateways of that kind.
    #[must_use]
    pub fn new(kind: GatewayKind, gateways: Arc<Gateways>) -> Self {
        let capabilities = Capabilities {
            reconcile: kind == GatewayKind::Reconcile,
            resend_same_id: kind == GatewayKind::SameId,
            receipts: true,
            ..Capabilities::text(4_096)
        };
        Self {
            kind,
            gateways,
            capabilities,
        }
    }
}

#[async_trait]
impl Transport for SimTransport {
    fn platform(&self) -> Platform {
        self.kind.platform()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn check_device(&self, _device: &TransportDevice) -> Result<(), InvalidDevice> {
        Ok(())
    }

    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        self.gateways.take(self.kind, context, message).await
    }

    fn needs_prepare(&self, message: &OutgoingMessage) -> bool {
        is_checked(&message.to)
    }

    fn as_reconcilable(&self) -> Option<&dyn Reconcilable> {
        self.capabilities.reconcile.then_some(self as &dyn Reconcilable)
    }

    fn as_number_checker(&self) -> Option<&dyn NumberChecker> {
        Some(self)
    }
}

/// Whether a number is checked before a message to it, with those that follow: one in five.
fn is_checked(phone: &Phone) -> bool {
    phone.digits().ends_with(['0', '5'])
}

#[async_trait]
impl NumberChecker for SimTransport {
    async fn check(&self, _context: &SendContext, phones: &[Phone]) -> Result<Vec<NumberCheck>, SendError> {
        let there = |phone: &Phone| NumberCheck {
            phone: *phone,
            on_whatsapp: true,
        };
        Ok(phones.iter().map(there).collect())
    }

    fn check_ahead(&self, _context: &SendContext, phone: &Phone) -> u32 {
        if is_checked(phone) { CHECKED_AHEAD } else { 0 }
    }
}

#[async_trait]
impl Reconcilable for SimTransport {
    async fn find(&self, _context: &SendContext, query: &ReconcileQuery) -> Result<Reconciled, SendError> {
        self.gateways.find(query).await
    }
}
