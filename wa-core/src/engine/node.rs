//! The operations of an engine. They spawn nothing and sleep nowhere; a runner calls them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use serde::Serialize;

use super::askable::Askable;
use super::core::Core;
use super::dispatch::{Dispatch, Finished, GRACE, Ticket};
use super::flow::{FlowSource, StepsCache};
use super::handle::Inlet;
use super::lane::{Again, Lane, LanePhase, LaneStatus, host_of};
use super::render::{ContentCache, ParsedCampaign, Ready, RenderContext, ready};
use super::timers::LaneTimers;
use super::watch::LaneBegun;
use crate::domain::campaign::Campaign;
use crate::domain::content::Media;
use crate::domain::device::{Device, Epoch, OwnedDevice, RestrictionCause};
use crate::domain::lane::{
    ColdBudget, LaneAnswer, LaneHistory, LaneNow, LanePacing, LaneReason, LaneRequest, Reopening, Waits,
};
use crate::domain::message::{Message, MessageScope, MessageState, Reason};
use crate::domain::pacing::{DelayRange, DelaySettings, Priority};
use crate::domain::phone::Phone;
use crate::domain::restriction::UNKNOWN_RESTRICTION_FOR;
use crate::domain::schedule::Quiet;
use crate::domain::warmth::Warmth;
use crate::id::{AttemptId, CampaignId, DeviceId, Incarnation, MessageId, SequenceId, UserId};
use crate::media::MediaError;
use crate::plan::LaneEffect;
use crate::store::{
    Begin, BeginItem, Begun, Decline, Due, LaneDue, LaneLook, NodeRecord, Outcome, Settle, Settled, StoreError,
    StoreErrorKind, Stranger, Strangers,
};
use crate::time::{Monotonic, Timestamp};
use crate::transport::{
    HostedDevice, MaybeSentCause, NotSentKind, OutgoingMedia, OutgoingMessage, RestrictionScope, SendContext,
    SendError, Transport, TransportDevice, TransportMessageId,
};

/// How long the history of a lane reaches back: a day and one bucket of it.
const HISTORY: Duration = Duration::from_secs(24 * 3_600 + 15 * 60);

/// How long a lane that waits for its turn goes unlooked at, in looks: a more urgent message normally comes with a hint.
const LOOKS_WHILE_WAITING: u32 = 15;

/// How often the pool messages of a lane that cannot send are given back.
const EMPTY_EVERY: Duration = Duration::from_secs(60);

/// How many messages to strangers are put off, or brought forward, at once.
const PUT_OFF_PAGE: u32 = 500;

/// Most numbers that are checked together: what a [`NumberChecker`](crate::transport::NumberChecker) takes.
const CHECKED_MAX: u32 = 100;

/// How much later than a restriction ends strangers are written to at the earliest: clocks differ, and WhatsApp tells seconds.
const COLD_MARGIN: Duration = Duration::from_secs(1);

/// How many pages of one lane are brought forward in one refresh.
const RECALL_PAGES: usize = 20;

/// How much earlier messages to strangers must be able to go for those that were put off to be brought forward.
const RECALL_LEAST: Duration = Duration::from_secs(60);

/// How many lanes are emptied in one refresh.
const EMPTIED_PER_REFRESH: usize = 200;

/// A node of the engine: the lanes that it owns and what is under way.
pub struct Engine {
    pub(crate) core: Arc<Core>,
    incarnation: Incarnation,
    /// The monotonic instant until which the lease surely holds, in milliseconds.
    lease_until: AtomicU64,
    /// Whether connections are closed because the lease has run out, until it is kept again.
    cut_off: AtomicBool,
    started_at: Monotonic,
    state: Mutex<State>,
}

#[derive(Default)]
pub(crate) struct State {
    /// Each in a place of its own: a map has room to spare, and lanes are large.
    pub(crate) lanes: BTreeMap<DeviceId, Box<Lane>>,
    pub(crate) timers: LaneTimers<DeviceId>,
    /// Attempts that this process is about to begin, sends, or settles.
    pub(crate) live: HashSet<AttemptId>,
    /// Outcomes of dispatches that were dropped.
    pub(crate) given_in: Vec<Finished>,
    pub(crate) contents: ContentCache,
    pub(crate) steps: StepsCache,
    /// The beats of other nodes, and since when they stand there.
    pub(crate) peers: BTreeMap<Incarnation, (i64, Monotonic)>,
    /// When the other nodes were looked at last.
    pub(crate) peers_seen_at: Option<Monotonic>,
    /// Lanes that begin nothing more and are given back as soon as nothing of theirs is under way.
    pub(crate) leaving: BTreeSet<DeviceId>,
    /// Devices that are just given back: without a lane, and in the store still this node's.
    pub(crate) releasing: BTreeSet<DeviceId>,
    /// How often devices began or ended to be given back.
    pub(crate) releases: u64,
    /// Devices whose connections were closed because the lease had run out, with their epochs then: what those connections still
    /// write must not count beside what new ones do, so they are given back and claimed anew, which moves the epoch on.
    pub(crate) cut: BTreeMap<DeviceId, Epoch>,
    /// What a settlement asks for and could not be done yet.
    pub(crate) follow_ups: FollowUps,
    pub(crate) planner: bool,
    pub(crate) fenced: bool,
    /// Whose turn it is among the campaigns of a pool.
    pub(crate) pool_turn: usize,
    pub(crate) askable: Askable,
    pub(crate) in_doubt_live: HashSet<crate::id::MessageId>,
    pub(crate) commands_live: HashSet<crate::id::CommandId>,
}

/// Devices that are just given back; no more once this is dropped, however that ended.
struct Releasing<'a> {
    engine: &'a Engine,
    devices: Vec<DeviceId>,
}

impl Drop for Releasing<'_> {
    fn drop(&mut self) {
        let mut state = self.engine.state();
        for id in &self.devices {
            state.releasing.remove(id);
        }
        // What was read of them meanwhile is not true any more.
        state.releases += 1;
    }
}

/// What is asked for, and how often it was: asked again while it is done, it is done again.
#[derive(Debug, Default)]
pub(crate) struct FollowUps(BTreeMap<FollowUp, u64>);

impl FollowUps {
    pub(crate) fn ask(&mut self, for_what: FollowUp) {
        *self.0.entry(for_what).or_default() += 1;
    }

    /// Asks for the error rate of a campaign or sequence.
    fn ask_of_scope(&mut self, user: UserId, scope: MessageScope) {
        match scope {
            MessageScope::Campaign(id) => self.ask(FollowUp::CampaignErrors(user, id)),
            MessageScope::Sequence(id) => self.ask(FollowUp::SequenceErrors(user, id)),
            _ => {}
        }
    }

    pub(crate) fn all(&self) -> Vec<(FollowUp, u64)> {
        self.0.iter().map(|(next, asked)| (next.clone(), *asked)).collect()
    }

    /// It was done for those who had asked so often.
    pub(crate) fn done(&mut self, what: &FollowUp, asked: u64) {
        if self.0.get(what) == Some(&asked) {
            self.0.remove(what);
        }
    }

    /// Devices whose lanes know of a hold or restriction that is not recorded yet.
    fn unrecorded(&self) -> BTreeSet<DeviceId> {
        let closes = |next: &FollowUp| match next {
            FollowUp::Hold(_, device, _, _) | FollowUp::Restrict(_, device, _, _) => Some(*device),
            FollowUp::CampaignErrors(..) | FollowUp::SequenceErrors(..) | FollowUp::DeviceErrors(..) => None,
        };
        self.0.keys().filter_map(closes).collect()
    }
}

/// What a settlement asks for beside itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FollowUp {
    /// Look at the error rate of a campaign.
    CampaignErrors(UserId, CampaignId),
    /// Look at the error rate of a sequence.
    SequenceErrors(UserId, SequenceId),
    /// Look at the error rate of a device.
    DeviceErrors(UserId, DeviceId),
    /// Put a device on hold: the credential that it has in this version of its settings is not accepted.
    Hold(UserId, DeviceId, i64, String),
    /// Record a restriction.
    Restrict(UserId, DeviceId, Option<Timestamp>, RestrictionOrd),
}

/// [`crate::transport::RestrictionScope`] with an order, for a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum RestrictionOrd {
    Cold,
    All,
}

/// The attempt of a message in doubt that is sent again with the same id.
#[derive(Debug)]
struct Repeated {
    attempt_id: AttemptId,
    transport_message_id: TransportMessageId,
    cause: MaybeSentCause,
}

/// A message that its lane may send now, rendered.
#[derive(Debug)]
pub struct Candidate {
    user_id: UserId,
    device_id: DeviceId,
    message_id: MessageId,
    scope: MessageScope,
    to: Option<Phone>,
    text: String,
    greeting: Option<String>,
    media: Option<Media>,
    request: LaneRequest,
    flow: Option<Arc<FlowSource>>,
    repeated: Option<Repeated>,
    outgoing: Option<OutgoingMedia>,
    host: Arc<str>,
    /// Whether the device knows the person; asked only where the lane has rules for strangers.
    warmth: Option<Warmth>,
}

/// The messages to strangers at the head of a lane that may not go now.
#[derive(Debug, Clone, Copy)]
struct PutOff {
    user_id: UserId,
    device_id: DeviceId,
    epoch: Epoch,
    scope: MessageScope,
    reason: Reason,
    /// When the first of them may go, in anchored time.
    from: Timestamp,
    /// How far apart they stand in line.
    gap: Duration,
    /// Whether what the lane holds of pools is given back first.
    empties: bool,
}

impl Candidate {
    /// Which sends share a limit with it: platform and gateway host.
    #[must_use]
    pub fn host(&self) -> Arc<str> {
        Arc::clone(&self.host)
    }
}

/// What a node is doing, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineStatus {
    /// This run of the node.
    pub incarnation: Incarnation,
    /// Its name.
    pub node_name: String,
    /// Lanes that it owns.
    pub lanes: usize,
    /// Lanes that may send.
    pub lanes_open: usize,
    /// Attempts under way.
    pub in_flight: usize,
    /// Whether it plans campaigns.
    pub planner: bool,
    /// Whether it lost its lease.
    pub fenced: bool,
    /// For how long its lease certainly holds if it beats no more, in milliseconds.
    pub lease_left_ms: u64,
    /// Lanes that are about to be given back to other nodes.
    pub leaving: usize,
    /// The other nodes, with how long it has seen no new beat of them, in milliseconds.
    pub silent_ms: BTreeMap<Incarnation, u64>,
}

/// Whether devices are shared out evenly, as far as this node can see to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Balance {
    /// Nothing is left to do until nodes or devices come or go.
    Even,
    /// This node has less than its share, or still has to give back what is above it: look again soon.
    Uneven,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("incarnation", &self.incarnation)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Joins the nodes of the store and takes what nobody owns.
    ///
    /// # Errors
    /// The store did not answer; start again.
    pub async fn start(core: Arc<Core>) -> Result<Arc<Self>, StoreError> {
        let now = core.now();
        let incarnation = Incarnation::new(&core.ids, now);
        let started = core.clock.monotonic();
        let engine = Arc::new(Self {
            incarnation,
            lease_until: AtomicU64::new(0),
            cut_off: AtomicBool::new(false),
            started_at: started,
            state: Mutex::default(),
            core,
        });
        engine
            .core
            .store
            .join(incarnation, &engine.core.config.node_name, now)
            .await?;
        engine.extend_lease(started);
        for (_, transport) in engine.core.transports.all() {
            if let Some(linkable) = transport.as_linkable() {
                linkable.deliver_to(Arc::new(Inlet::of(&engine.core)));
            }
        }
        match engine.core.store.fence_the_dead(incarnation, now).await {
            Ok(_) => {}
            Err(error) if error.kind == StoreErrorKind::Unsupported => {}
            Err(error) => return Err(error),
        }
        engine.balance().await?;
        engine.state().given_in = engine.core.take_evidence();
        Ok(engine)
    }

    /// This run of the node.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this node certainly still holds its lease.
    pub(crate) fn lease_holds(&self, now: Monotonic) -> bool {
        let until = self.lease_until.load(Ordering::Acquire);
        u64::try_from(now.since_start().as_millis()).unwrap_or(u64::MAX) < until
    }

    fn extend_lease(&self, beat_started: Monotonic) {
        let span = self.core.config.lease_for.saturating_sub(self.core.config.lease_margin);
        let until = (beat_started + span).since_start();
        self.lease_until
            .store(u64::try_from(until.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// When the lease runs out unless it is kept, as long as connections are open.
    pub(crate) fn lease_ends_at(&self) -> Option<Monotonic> {
        let until = self.lease_until.load(Ordering::Acquire);
        let may_be_open = until > 0 && !self.cut_off.load(Ordering::Acquire);
        may_be_open.then(|| Monotonic::from_start(Duration::from_millis(until)))
    }

    /// When the lease is to be kept next.
    pub(crate) fn next_beat_at(&self) -> Monotonic {
        let config = &self.core.config;
        let until = Duration::from_millis(self.lease_until.load(Ordering::Acquire));
        let span = config.lease_for.saturating_sub(config.lease_margin);
        Monotonic::from_start(until.saturating_sub(span)) + config.beat_every
    }

    /// When the settings of devices are to be read again after the start, which has read those of all that it claimed; at once where that
    /// found some closed, because what these hold of pools is given back with it.
    pub(crate) fn first_refresh_at(&self) -> Monotonic {
        let has_closed = self.state().lanes.values().any(|lane| !lane.may_send);
        let pause = if has_closed {
            Duration::ZERO
        } else {
            self.core.config.refresh_every
        };
        self.started_at + pause
    }

    /// Closes the connections of all devices once the lease has run out: another node may have them by now.
    pub(crate) fn mind_lease(&self) {
        let has_run_out = self.lease_ends_at().is_some_and(|at| at <= self.core.clock.monotonic());
        if has_run_out && !self.cut_off.swap(true, Ordering::AcqRel) {
            tracing::warn!("the lease was not kept in time: connections are closed until it is");
            let mut state = self.state();
            let State { lanes, cut, .. } = &mut *state;
            let keeps_connection = |lane: &Lane| {
                let transport = self.core.transports.get(&lane.device.platform);
                transport.is_some_and(|transport| transport.as_linkable().is_some())
            };
            let connected = lanes.iter().filter(|(_, lane)| keeps_connection(lane));
            cut.extend(connected.map(|(id, lane)| (*id, lane.epoch)));
            drop(state);
            self.tell_hosts();
        }
    }

    /// Ends this node's authority; whatever it still sends is evidence only.
    pub(crate) fn fall(&self) {
        self.lease_until.store(0, Ordering::Release);
        let mut state = self.state();
        state.fenced = true;
        state.lanes.clear();
        state.leaving.clear();
        state.timers = LaneTimers::new();
        drop(state);
        self.tell_hosts();
    }

    /// Tells the transports that keep connections which devices this node owns: none while its lease has run out.
    fn tell_hosts(&self) {
        let is_cut_off = self.cut_off.load(Ordering::Acquire);
        for (platform, transport) in self.core.transports.all() {
            let Some(linkable) = transport.as_linkable() else {
                continue;
            };
            let state = self.state();
            let lanes = state.lanes.iter();
            let hosted = lanes
                .filter(|(_, lane)| lane.device.platform == *platform && !is_cut_off)
                .filter(|(id, lane)| state.cut.get(id) != Some(&lane.epoch))
                .map(|(_, lane)| HostedDevice {
                    device: Arc::clone(&lane.device),
                    epoch: lane.epoch,
                    deleted: lane.deleted,
                })
                .collect();
            drop(state);
            linkable.host(self.incarnation, hosted);
        }
    }

    /// Closes the connections of devices that are about to be given back, so that the next owner finds their sessions whole.
    async fn close_connections(&self, devices: Vec<Arc<TransportDevice>>) {
        let timeout = self.core.config.send_timeout;
        let linked = devices.into_iter().filter_map(|device| {
            let linkable = self.core.transports.get(&device.platform)?.as_linkable()?;
            Some((linkable, device))
        });
        let closing = linked.map(|(linkable, device)| async move {
            linkable.close(&SendContext { device, timeout }).await;
        });
        self.core.within(timeout, futures::future::join_all(closing)).await;
    }

    /// Whether this node lost its lease and must start anew.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.state().fenced
    }

    /// Notes an error of the store that ends this node's authority.
    pub(crate) fn note(&self, error: StoreError) -> StoreError {
        if error.is_fenced() {
            self.fall();
        }
        error
    }

    /// Keeps the lease.
    ///
    /// # Errors
    /// `Fenced`, `NotFound`: start a new engine. Others: beat again soon.
    pub async fn beat(&self) -> Result<(), StoreError> {
        let started = self.core.clock.monotonic();
        if let Err(error) = self.core.store.beat(self.incarnation, self.core.now()).await {
            // Fenced so long ago that the store has forgotten it.
            if error.is_not_found() {
                self.fall();
            }
            return Err(self.note(error));
        }
        self.extend_lease(started);
        // A beat that took so long is late again.
        if self.lease_holds(self.core.clock.monotonic()) && self.cut_off.swap(false, Ordering::AcqRel) {
            self.tell_hosts();
        }
        Ok(())
    }

    /// Looks after the other nodes: takes over those that stopped beating, takes devices without an owner up to a fair share, and
    /// begins to give back what is above it.
    ///
    /// # Errors
    /// The store did not answer; call it again at the next beat.
    pub async fn balance(&self) -> Result<Balance, StoreError> {
        let store = &self.core.store;
        let mut nodes = store.nodes().await?;
        let dead = self.silent(&nodes);
        if !dead.is_empty() {
            self.take_over(dead).await?;
            nodes = store.nodes().await?;
        }
        let unowned = store.unowned().await?;
        let live: Vec<_> = nodes.iter().filter(|node| !node.fenced).collect();
        let Some(mine) = live.iter().find(|node| node.incarnation == self.incarnation) else {
            // The next beat says so.
            return Ok(Balance::Even);
        };
        let total = unowned + live.iter().map(|node| node.device_count).sum::<u64>();
        let share = total.div_ceil(live.len() as u64);
        let owned = mine.device_count;
        self.choose_leaving(usize::try_from(owned.saturating_sub(share)).unwrap_or(usize::MAX));
        let fair = total / live.len() as u64;
        let mut claimed = 0;
        if owned < share && (unowned > 0 || owned < fair) {
            let limit = u32::try_from(share - owned).unwrap_or(u32::MAX);
            let devices = store.claim(self.incarnation, limit, self.core.now()).await;
            let devices = devices.map_err(|error| self.note(error))?;
            claimed = devices.len() as u64;
            self.adopt(devices).await?;
        }
        self.let_go().await?;
        if owned + claimed < fair || !self.state().leaving.is_empty() {
            Ok(Balance::Uneven)
        } else {
            Ok(Balance::Even)
        }
    }

    /// Nodes whose beat stood still for longer than a lease lasts, by this node's own clock.
    fn silent(&self, nodes: &[NodeRecord]) -> Vec<(Incarnation, i64)> {
        let (config, mono) = (&self.core.config, self.core.clock.monotonic());
        let patience = config.lease_for + config.lease_margin;
        let mut state = self.state();
        let State {
            peers, peers_seen_at, ..
        } = &mut *state;
        let before = peers_seen_at.replace(mono);
        // A node that did not look for so long, because it was stopped or the store was away, may have missed many beats.
        let was_blind = before.is_some_and(|before| mono.since(before) > config.lease_for - config.beat_every);
        let others = nodes.iter();
        let others: Vec<_> = others
            .filter(|node| !node.fenced && node.incarnation != self.incarnation)
            .collect();
        peers.retain(|incarnation, _| others.iter().any(|node| node.incarnation == *incarnation));
        let mut silent = Vec::new();
        for node in others {
            let seen = peers.entry(node.incarnation).or_insert((node.beat, mono));
            if seen.0 != node.beat || was_blind {
                *seen = (node.beat, mono);
            } else if mono.since(seen.1) > patience {
                silent.push((node.incarnation, node.beat));
            }
        }
        silent
    }

    async fn take_over(&self, dead: Vec<(Incarnation, i64)>) -> Result<(), StoreError> {
        for (target, beat) in dead {
            let now = self.core.now();
            match self.core.store.fence(self.incarnation, target, beat, now).await {
                Ok(taken) => {
                    tracing::warn!(node = %target, in_doubt = taken.len(), "took over a node that stopped beating");
                    self.state().peers.remove(&target);
                }
                // It beats, left, or another node was faster.
                Err(error) if error.is_conflict() || error.is_not_found() => {}
                Err(error) => return Err(self.note(error)),
            }
        }
        Ok(())
    }

    /// Chooses so many lanes to be given back when nothing of theirs is under way, idle ones first; others that were chosen stay.
    fn choose_leaving(&self, count: usize) {
        let now = self.core.lane_now().at();
        let mut state = self.state();
        let State {
            lanes, leaving, timers, ..
        } = &mut *state;
        leaving.retain(|id| lanes.contains_key(id));
        while leaving.len() > count
            && let Some(id) = leaving.pop_last()
        {
            if lanes.get(&id).is_some_and(|lane| lane.phase == LanePhase::Idle) {
                timers.set(id, now);
            }
        }
        for wanted in [true, false] {
            let is_idle = |lane: &Lane| lane.phase == LanePhase::Idle;
            let more = lanes
                .iter()
                .filter(|(id, lane)| is_idle(lane) == wanted && !leaving.contains(id))
                .map(|(id, _)| *id);
            let more: Vec<_> = more.take(count - leaving.len()).collect();
            leaving.extend(more);
        }
    }

    /// Whether a lane that is to be given back has nothing under way any more.
    pub(crate) fn has_drained(&self) -> bool {
        let state = self.state();
        let mut lanes = self.leaving_in(&state).into_iter();
        lanes.any(|id| state.lanes[&id].phase == LanePhase::Idle)
    }

    /// The lanes that are to be given back; those that were cut off, once the lease is kept again.
    fn leaving_in(&self, state: &State) -> Vec<DeviceId> {
        let cut_off = self.cut_off.load(Ordering::Acquire);
        let cut = state.cut.keys().filter(|_| !cut_off);
        let all: BTreeSet<_> = state.leaving.iter().chain(cut).copied().collect();
        let leaves = |id: &DeviceId| {
            let lane = state.lanes.get(id);
            lane.is_some_and(|lane| state.leaving.contains(id) || state.cut.get(id) == Some(&lane.epoch))
        };
        all.into_iter().filter(leaves).collect()
    }

    /// Gives back the chosen lanes that have nothing under way any more; says how many.
    ///
    /// # Errors
    /// The store did not answer: what it did not take is read again with the settings of all devices.
    pub(crate) async fn let_go(&self) -> Result<usize, StoreError> {
        let (drained, devices): (Vec<_>, Vec<_>) = {
            let mut state = self.state();
            let leaving = self.leaving_in(&state);
            let drained = leaving.into_iter().map(|id| (id, &state.lanes[&id]));
            let drained: Vec<_> = drained
                .filter(|(_, lane)| lane.phase == LanePhase::Idle)
                .map(|(id, lane)| ((id, lane.epoch), Arc::clone(&lane.device)))
                .collect();
            for ((id, _), _) in &drained {
                state.leaving.remove(id);
                state.lanes.remove(id);
                state.timers.remove(*id);
                state.releasing.insert(*id);
            }
            state.releases += u64::from(!drained.is_empty());
            drained.into_iter().unzip()
        };
        if drained.is_empty() {
            return Ok(0);
        }
        let _releasing = Releasing {
            engine: self,
            devices: drained.iter().map(|(id, _)| *id).collect(),
        };
        self.close_connections(devices).await;
        let released = self
            .core
            .store
            .release(self.incarnation, &drained, self.core.now())
            .await
            .map_err(|error| self.note(error))?;
        let mut state = self.state();
        for id in &released {
            state.cut.remove(id);
        }
        Ok(released.len())
    }

    fn can_carry(&self, device: &Device) -> bool {
        let known = self.core.transports.get(&device.platform).is_some();
        if !known {
            tracing::warn!(device = %device.id, platform = %device.platform, "no transport for this platform");
        }
        known
    }

    /// Opens lanes for devices that this node owns now.
    pub(super) async fn adopt(&self, devices: Vec<OwnedDevice>) -> Result<(), StoreError> {
        let mut devices = devices.into_iter();
        let mut hosts: BTreeSet<Arc<str>> = BTreeSet::new();
        loop {
            // By value: what a chunk leaves free is there for the lanes of the next.
            let chunk: Vec<OwnedDevice> = devices.by_ref().take(1_000).collect();
            if chunk.is_empty() {
                self.tell_hosts();
                return Ok(());
            }
            let ids: Vec<_> = chunk.iter().map(|owned| owned.device.id).collect();
            let since = self.core.now() - HISTORY;
            let histories = self.core.store.history(&ids, since).await?;
            let mut cold = self.cold_attempts(&chunk, since).await?;
            let now = self.core.lane_now();
            let mut state = self.state();
            for (owned, past) in chunk.into_iter().zip(histories) {
                let device = &owned.device;
                let host = host_of(device);
                let host = hosts.get(&host).cloned().unwrap_or(host);
                hosts.insert(Arc::clone(&host));
                let history = LaneHistory {
                    attempts: past.attempts.into_iter().map(|at| now.lane_at(at)).collect(),
                    last_begun_at: past.last_attempt_at.map(|at| now.lane_at(at)),
                    first_begun_at: past.first_attempt_at.map(|at| now.lane_at(at)),
                    cold: cold.remove(&device.id).unwrap_or_default(),
                };
                let mut pacing = LanePacing::new(now, history);
                self.limit(&mut pacing, device, now);
                let lane = Lane {
                    cold_line: now.at(),
                    emptied_for: None,
                    recall: false,
                    served_sequence: None,
                    user_id: device.user_id,
                    epoch: owned.epoch,
                    device: Arc::new(device.for_transport()),
                    version: device.version,
                    host,
                    may_send: self.can_carry(device) && device.may_send(),
                    deleted: device.deleted_at.is_some(),
                    on_doubt: device.on_doubt,
                    delay: device.delay,
                    caps: device.caps,
                    pacing,
                    phase: LanePhase::Idle,
                    served: None,
                    passing: false,
                    away: false,
                    waiting: None,
                    again: VecDeque::new(),
                    repeating: None,
                    emptied_at: None,
                    taken_at: now.wall(),
                    errors_since: now.wall(),
                    waited: Waits::default(),
                    looked_at: now.at(),
                };
                // One that was opened meanwhile knows what it has sent since the history was read.
                if let Entry::Vacant(place) = state.lanes.entry(device.id) {
                    place.insert(Box::new(lane));
                    state.timers.set(device.id, now.at());
                }
            }
        }
    }

    /// When devices whose lanes have rules for strangers wrote to such since an instant, in anchored time.
    async fn cold_attempts(
        &self,
        devices: &[OwnedDevice],
        since: Timestamp,
    ) -> Result<BTreeMap<DeviceId, Vec<Timestamp>>, StoreError> {
        let has_cap = self.core.config.pacing.cold_day_cap(Priority::Campaign).is_some();
        let devices = devices.iter().map(|owned| &owned.device);
        let minding = devices.filter(|device| has_cap || device.restriction.is_some() || device.new_chats.is_some());
        let ids: Vec<DeviceId> = minding.map(|device| device.id).collect();
        if ids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let attempts = self.core.store.cold_attempts(&ids, since).await?;
        let now = self.core.lane_now();
        let anchored = attempts
            .into_iter()
            .map(|attempts| attempts.into_iter().map(|at| now.lane_at(at)).collect());
        Ok(ids.into_iter().zip(anchored).collect())
    }

    /// Lets a lane keep what WhatsApp holds against its account, as far as is recorded.
    fn limit(&self, pacing: &mut LanePacing, device: &Device, now: LaneNow) {
        pacing.lift_restriction();
        if let Some(restriction) = device.restriction {
            if restriction.scope == RestrictionScope::All {
                pacing.restrict(now.lane_at(restriction.until_at));
            }
            let then = match restriction.cause {
                RestrictionCause::Timelock | RestrictionCause::Banned => Reopening::Slowly,
                _ => Reopening::AtOnce,
            };
            if restriction.scope == RestrictionScope::Cold || then == Reopening::Slowly {
                pacing.restrict_cold(self.cold_end(device.id, restriction.until_at, now), then);
            }
        }
        pacing.set_cold_budget(device.new_chats.map(|chats| ColdBudget {
            count: chats.budget(),
            told_at: now.lane_at(chats.told_at),
            ends_at: now.lane_at(chats.ends_at),
        }));
    }

    /// When strangers are written to again after a restriction, in anchored time.
    fn cold_end(&self, device: DeviceId, until: Timestamp, now: LaneNow) -> Timestamp {
        let jitter = self.core.config.pacing.cold_jitter(&self.core.seed, device, until);
        now.lane_at(until) + COLD_MARGIN + jitter
    }

    /// Whether a lane has rules for messages to strangers.
    fn minds_strangers(&self, lane: &Lane) -> bool {
        lane.pacing.minds_strangers() || self.core.config.pacing.cold_day_cap(Priority::Campaign).is_some()
    }

    /// Reads the settings of owned devices again: all, or those that a hint named.
    ///
    /// # Errors
    /// The store did not answer; nothing changed.
    pub async fn refresh(&self, only: Option<&BTreeSet<DeviceId>>) -> Result<(), StoreError> {
        self.refreshed(only).await.map(|_| ())
    }

    /// Reads the settings of devices that a hint named; says whether one of them is nobody's and may be claimed.
    pub(crate) async fn reread(&self, devices: &BTreeSet<DeviceId>) -> Result<bool, StoreError> {
        self.refreshed(Some(devices)).await
    }

    async fn refreshed(&self, only: Option<&BTreeSet<DeviceId>>) -> Result<bool, StoreError> {
        let (unrecorded_before, releases_before) = {
            let state = self.state();
            (state.follow_ups.unrecorded(), state.releases)
        };
        let devices = match only {
            Some(ids) => {
                let ids: Vec<_> = ids.iter().copied().collect();
                self.core.store.owned(&ids).await?
            }
            None => self.core.store.devices_of(self.incarnation).await?,
        };
        let now = self.core.lane_now();
        let is_free = |owned: &OwnedDevice| owned.owner.is_none() && owned.device.deleted_at.is_none();
        let has_free = devices.iter().any(is_free);
        let mut strangers = Vec::new();
        {
            let mut state = self.state();
            let present: BTreeSet<_> = devices.iter().map(|owned| owned.device.id).collect();
            if only.is_none() {
                let gone: Vec<_> = state
                    .lanes
                    .iter()
                    .filter(|(id, lane)| !present.contains(id) && lane.phase == LanePhase::Idle)
                    .map(|(id, _)| *id)
                    .collect();
                for id in gone {
                    state.lanes.remove(&id);
                    state.timers.remove(id);
                }
            }
            let State {
                lanes,
                timers,
                follow_ups,
                releasing,
                releases,
                ..
            } = &mut *state;
            // What was read may tell of a device that was given back meanwhile, or of one before it was claimed anew.
            let may_adopt = *releases == releases_before;
            let mut unrecorded = follow_ups.unrecorded();
            unrecorded.extend(unrecorded_before);
            for owned in devices {
                let device = &owned.device;
                let Some(lane) = lanes.get_mut(&device.id) else {
                    if owned.owner == Some(self.incarnation) && may_adopt && !releasing.contains(&device.id) {
                        strangers.push(owned);
                    }
                    continue;
                };
                if owned.epoch < lane.epoch {
                    continue;
                }
                if owned.owner != Some(self.incarnation) {
                    if lane.phase == LanePhase::Idle {
                        lanes.remove(&device.id);
                        timers.remove(device.id);
                    }
                    continue;
                }
                let could = lane.may_send;
                lane.epoch = owned.epoch;
                lane.set(device, self.can_carry(device));
                // What was read may be older than what the lane was told by its gateway.
                let knows_more = unrecorded.contains(&device.id);
                lane.may_send &= could || !knows_more;
                if !knows_more {
                    let policy = &self.core.config.pacing;
                    let before = lane.pacing.cold_open_at(policy, now.at());
                    self.limit(&mut lane.pacing, device, now);
                    let earlier = lane.pacing.cold_open_at(policy, now.at()) + RECALL_LEAST < before;
                    lane.recall |= earlier;
                    if earlier {
                        lane.cold_line = now.at();
                    }
                }
                let is_back = std::mem::take(&mut lane.away);
                if lane.may_send && !could {
                    lane.errors_since = now.wall();
                }
                if lane.may_send && (!could || is_back) {
                    lane.pacing.succeeded();
                    timers.set(device.id, now.at());
                } else if could && !lane.may_send {
                    lane.emptied_at = None;
                }
            }
        }
        self.adopt(strangers).await?;
        if only.is_none() {
            let mut state = self.state();
            let State { lanes, cut, .. } = &mut *state;
            cut.retain(|id, epoch| lanes.get(id).is_some_and(|lane| lane.epoch == *epoch));
        }
        self.recall().await?;
        self.empty_closed_lanes().await?;
        Ok(has_free)
    }

    /// Brings forward what was put off because its people were strangers, where they may be written to earlier than was known.
    async fn recall(&self) -> Result<(), StoreError> {
        let due: Vec<_> = {
            let state = self.state();
            let lanes = state.lanes.iter().filter(|(_, lane)| lane.recall);
            lanes.map(|(id, lane)| (lane.user_id, *id, lane.epoch)).collect()
        };
        for (user_id, device_id, epoch) in due {
            let mut is_done = false;
            for _ in 0..RECALL_PAGES {
                let now = self.core.now();
                let page = self.core.store.put_off(user_id, device_id, now, PUT_OFF_PAGE).await?;
                is_done = page.len() < PUT_OFF_PAGE as usize;
                let items = page.into_iter().map(|message_id| Decline {
                    incarnation: self.incarnation,
                    user_id,
                    device_id,
                    epoch,
                    message_id,
                    state: MessageState::Queued,
                    reason: Reason::ColdPace,
                    due_at: Some(now),
                    detail: None,
                });
                let items: Vec<_> = items.collect();
                if !items.is_empty() {
                    let moved = self.core.store.decline(&items, now).await;
                    let moved = moved.map_err(|error| self.note(error))?;
                    // What is not ours any more is somebody else's to bring forward.
                    is_done |= moved == 0;
                }
                if is_done {
                    break;
                }
            }
            let now = self.core.lane_now().at();
            let mut state = self.state();
            let State { lanes, timers, .. } = &mut *state;
            if let Some(lane) = lanes.get_mut(&device_id) {
                lane.recall = !is_done;
                if lane.phase == LanePhase::Idle {
                    timers.set(device_id, now);
                }
            }
        }
        Ok(())
    }

    /// Puts messages to strangers off, those behind the first one too: they stand in line, and others go past them.
    async fn put_off(&self, put_off: PutOff) -> Result<(), StoreError> {
        let now = self.core.lane_now();
        let PutOff {
            user_id,
            device_id,
            epoch,
            ..
        } = put_off;
        if put_off.empties && self.core.store.unassign(user_id, device_id).await? > 0 {
            // Those of a pool need not wait for this device.
            self.core.wake.plan();
        }
        let asked = Strangers {
            user_id,
            device_id,
            scope: put_off.scope,
            now: now.wall(),
            limit: PUT_OFF_PAGE,
            known_too: false,
        };
        let page = self.core.store.strangers(&asked).await?;
        let mut place = put_off.from;
        let mut items = Vec::with_capacity(page.len());
        for Stranger { message_id, .. } in page {
            items.push(Decline {
                incarnation: self.incarnation,
                user_id,
                device_id,
                epoch,
                message_id,
                state: MessageState::Queued,
                reason: put_off.reason,
                due_at: Some(now.wall_at(place)),
                detail: None,
            });
            place = place + put_off.gap;
        }
        if items.is_empty() {
            return Ok(());
        }
        let moved = self.core.store.decline(&items, now.wall()).await;
        let moved = moved.map_err(|error| self.note(error))?;
        let mut state = self.state();
        let State { lanes, timers, .. } = &mut *state;
        if let Some(lane) = lanes.get_mut(&device_id) {
            if !put_off.gap.is_zero() {
                lane.cold_line = place;
            }
            // Where nothing moved, looking again at once would tell the same again and again.
            if moved > 0 && lane.phase == LanePhase::Idle {
                timers.set(device_id, now.at());
            }
        }
        Ok(())
    }

    /// Gives back the pool messages of lanes that cannot send, so that they can go elsewhere. Done again after a while: a
    /// message may come back to a lane that was closed while it was being sent, or be given to it by a node that saw it open.
    async fn empty_closed_lanes(&self) -> Result<(), StoreError> {
        let mono = self.core.clock.monotonic();
        let is_due = |at: Option<Monotonic>| at.is_none_or(|at| mono.since(at) >= EMPTY_EVERY);
        let closed: Vec<_> = {
            let state = self.state();
            let closed = state.lanes.iter();
            closed
                .filter(|(_, lane)| !lane.may_send && is_due(lane.emptied_at))
                .map(|(id, lane)| (lane.user_id, *id))
                .take(EMPTIED_PER_REFRESH)
                .collect()
        };
        for (user, device) in closed {
            if self.core.store.unassign(user, device).await? > 0 {
                self.core.wake.plan();
            }
            if let Some(lane) = self.state().lanes.get_mut(&device) {
                lane.emptied_at = Some(mono);
            }
        }
        Ok(())
    }

    /// Makes the timers of these lanes due.
    pub fn wake(&self, devices: &BTreeSet<DeviceId>) {
        let now = self.core.lane_now().at();
        let mut state = self.state();
        let State { lanes, timers, .. } = &mut *state;
        for id in devices {
            if lanes.get(id).is_some_and(|lane| lane.phase == LanePhase::Idle) {
                timers.set(*id, now);
            }
        }
    }

    /// When the next lane is to be looked at, on the monotonic clock.
    #[must_use]
    pub fn next_look_at(&self) -> Option<Monotonic> {
        let state = self.state();
        state.timers.next().map(|at| self.core.anchor.monotonic_at(at))
    }

    /// Looks at the lanes whose timers are due and gives what they may send now, rendered.
    ///
    /// # Errors
    /// The store did not answer; the lanes are looked at again after a second.
    pub async fn look(&self) -> Result<Vec<Candidate>, StoreError> {
        self.look_up_to(usize::MAX).await
    }

    /// As [`look`](Self::look), at so many lanes at most: those that are due longest.
    pub(crate) async fn look_up_to(&self, most: usize) -> Result<Vec<Candidate>, StoreError> {
        let now = self.core.lane_now();
        if !self.lease_holds(self.core.clock.monotonic()) {
            return Ok(Vec::new());
        }
        let mut looks = Vec::new();
        let mut candidates = Vec::new();
        {
            let mut state = self.state();
            let due = state.timers.pop_due_up_to(now.at(), most);
            let State {
                lanes,
                timers,
                leaving,
                cut,
                in_doubt_live,
                ..
            } = &mut *state;
            for id in due {
                let Some(lane) = lanes.get_mut(&id).filter(|lane| lane.phase == LanePhase::Idle) else {
                    continue;
                };
                let leaves = leaving.contains(&id) || cut.get(&id) == Some(&lane.epoch);
                if !lane.may_send || leaves {
                    continue;
                }
                match self.again(id, lane, in_doubt_live, now) {
                    Ok(Some(candidate)) => {
                        (lane.phase, lane.repeating) = (LanePhase::Preparing, Some(candidate.message_id));
                        candidates.push(candidate);
                        continue;
                    }
                    Ok(None) => {}
                    Err(answer) => {
                        lane.waiting = Some((answer.reason, answer.at));
                        timers.set(id, answer.at);
                        continue;
                    }
                }
                (lane.phase, lane.repeating) = (LanePhase::Preparing, None);
                looks.push(LaneLook {
                    served_sequence: lane.served_sequence,
                    user_id: lane.user_id,
                    device_id: id,
                    served: lane.served,
                });
            }
        }
        for chunk in looks.chunks(1_000) {
            let due = Due {
                lanes: chunk.to_vec(),
                now: now.wall(),
            };
            match self.look_at(&due, now).await {
                Ok(mut found) => candidates.append(&mut found),
                Err(error) => {
                    self.put_back(chunk.iter().map(|look| look.device_id), self.core.config.look_every);
                    if candidates.is_empty() {
                        return Err(error);
                    }
                    tracing::warn!(%error, "lanes could not be looked at");
                }
            }
        }
        Ok(candidates)
    }

    /// Makes lanes idle again, to be looked at after a while.
    pub(crate) fn put_back(&self, lanes: impl IntoIterator<Item = DeviceId>, after: Duration) {
        let at = self.core.lane_now().at() + after;
        let mut state = self.state();
        let State { lanes: all, timers, .. } = &mut *state;
        for id in lanes {
            if let Some(lane) = all.get_mut(&id) {
                lane.phase = LanePhase::Idle;
                timers.set(id, at);
            }
        }
    }

    /// The first message in doubt of a lane that may be sent again now. `Err` tells what the lane waits for, so that nothing newer
    /// goes before it.
    fn again(
        &self,
        device_id: DeviceId,
        lane: &mut Lane,
        in_doubt_live: &HashSet<MessageId>,
        now: LaneNow,
    ) -> Result<Option<Candidate>, LaneAnswer> {
        let mut ready = None;
        for (place, again) in lane.again.iter().enumerate() {
            // What is put off just now would be put off while it is sent.
            if in_doubt_live.contains(&again.message.id) {
                continue;
            }
            let request = self.again_request(lane, device_id, again);
            let answer = lane.pacing.ready_at(&request, &self.core.config.pacing, now);
            match answer.reason {
                LaneReason::Ready => {
                    ready = Some((place, request));
                    break;
                }
                // They last long and do not concern every message: others may go first.
                LaneReason::HourCap | LaneReason::DayCap | LaneReason::WarmUp | LaneReason::QuietHours => {}
                _ => return Err(answer),
            }
        }
        let taken = ready.and_then(|(place, request)| Some((lane.again.remove(place)?, request)));
        let Some((again, request)) = taken else {
            return Ok(None);
        };
        let Again {
            message, media, flow, ..
        } = *again;
        let cause = cause_of(&message);
        let attempt = message.attempt.expect("a message in doubt has an attempt");
        Ok(Some(Candidate {
            user_id: message.user_id,
            device_id,
            message_id: message.id,
            scope: message.scope,
            to: message.phone,
            text: attempt.text,
            greeting: attempt.greeting,
            media,
            request,
            flow,
            repeated: Some(Repeated {
                attempt_id: attempt.id,
                transport_message_id: attempt.transport_message_id,
                cause,
            }),
            outgoing: None,
            host: Arc::clone(&lane.host),
            warmth: Some(Warmth::Warm),
        }))
    }

    /// What a lane is asked before a message in doubt is sent again.
    pub(crate) fn again_request(&self, lane: &Lane, device_id: DeviceId, again: &Again) -> LaneRequest {
        let message = &again.message;
        let ids = (message.id, message.scope);
        // What may have been sent already is no first message any more.
        self.request(lane, device_id, ids, message.delay, again.quiet, Warmth::Warm)
    }

    fn request(
        &self,
        lane: &Lane,
        device_id: DeviceId,
        (message, scope): (MessageId, MessageScope),
        delay: Option<DelayRange>,
        quiet: Option<Quiet>,
        warmth: Warmth,
    ) -> LaneRequest {
        let policy = &self.core.config.pacing;
        let settings = DelaySettings {
            message: delay,
            sequence: None,
            device: lane.delay,
        };
        let range = policy.delay_range(settings);
        LaneRequest {
            priority: scope.priority(),
            delay: policy.draw_delay(range, &self.core.seed, device_id, message),
            quiet,
            caps: lane.caps,
            warmth,
        }
    }

    async fn look_at(&self, due: &Due, now: LaneNow) -> Result<Vec<Candidate>, StoreError> {
        let answers = self.core.store.due(due).await?;
        let mut campaign_ids = BTreeSet::new();
        for head in answers.iter().flat_map(|lane| &lane.heads) {
            if let MessageScope::Campaign(id) = head.scope {
                campaign_ids.insert(id);
            }
        }
        let mut campaigns = BTreeMap::new();
        if !campaign_ids.is_empty() {
            let ids: Vec<_> = campaign_ids.into_iter().collect();
            let read = self.core.store.campaigns_by_id(&ids).await?;
            campaigns = self.state().contents.refresh(read);
        }
        let heads = answers.iter().flat_map(|lane| &lane.heads);
        let flows = self
            .flows_of(heads.filter_map(|head| Some((head.scope, head.flow.as_ref()?.flow))))
            .await?;
        let warmth = self.warmth_of(&answers).await?;
        let mut candidates = Vec::new();
        let mut declined = Vec::new();
        let mut put_offs = Vec::new();
        {
            let mut state = self.state();
            let State {
                lanes,
                timers,
                follow_ups,
                ..
            } = &mut *state;
            for answer in answers {
                let LaneDue {
                    device_id,
                    heads,
                    next_due_at,
                } = answer;
                let Some(lane) = lanes.get_mut(&device_id) else {
                    continue;
                };
                let mut earliest = now.at() + self.core.config.look_every;
                if let Some(next) = next_due_at {
                    earliest = now.lane_at(next).min(earliest);
                }
                lane.stop_waiting(now.at());
                let mut chosen = None;
                let waiting_looks = self.core.config.look_every * LOOKS_WHILE_WAITING;
                for head in heads {
                    let campaign = match head.scope {
                        MessageScope::Campaign(id) => campaigns.get(&id),
                        _ => None,
                    };
                    let flow = flows.source(head.scope, head.round, head.flow.as_ref());
                    let quiet = match (&flow, campaign) {
                        (Some(flow), _) => flow.quiet(),
                        (None, campaign) => campaign.and_then(|parsed| quiet_of(&parsed.campaign)),
                    };
                    let known = warmth.get(&head.id).copied();
                    let warmth = known.unwrap_or(Warmth::Warm);
                    let request = self.request(lane, device_id, (head.id, head.scope), head.delay, quiet, warmth);
                    let told = lane.pacing.ready_at(&request, &self.core.config.pacing, now);
                    if told.is_ready() {
                        chosen = Some((head, request, flow, known));
                        break;
                    }
                    if lane.waiting.is_none_or(|(_, at)| told.at < at) {
                        lane.waiting = Some((told.reason, told.at));
                        earliest = told.at.min(now.at() + waiting_looks);
                    }
                    if told.reason.is_cold() {
                        // Those behind it need not wait, nor those of the next one in turn.
                        lane.serve(head.scope);
                        put_offs.push(self.line_up(lane, device_id, head.scope, told, now));
                    }
                    if told.reason == LaneReason::QuietHours {
                        // They concern its campaign or sequence alone: the next one in turn may go.
                        lane.serve(head.scope);
                        earliest = told.at.min(now.at() + self.core.config.look_every);
                    }
                }
                let Some((head, request, flow, known)) = chosen else {
                    lane.phase = LanePhase::Idle;
                    timers.set(device_id, earliest);
                    continue;
                };
                lane.waiting = None;
                let campaign = match head.scope {
                    MessageScope::Campaign(id) => campaigns.get(&id).map(Arc::as_ref),
                    _ => None,
                };
                let source = flow.as_deref().map(FlowSource::content);
                let context = RenderContext {
                    source: source.or_else(|| campaign.map(ParsedCampaign::source)),
                    seed: &self.core.seed,
                    now: now.wall(),
                };
                let grace = self.core.config.late_grace;
                let is_late = flow
                    .as_ref()
                    .is_some_and(|flow| flow.is_late(head.expires_at, lane.taken_at, grace));
                let made = if is_late {
                    Err((MessageState::Skipped, Reason::Late))
                } else {
                    ready(&head, &context).and_then(|made| self.fits(lane, made))
                };
                match made {
                    Ok(Ready { text, greeting, media }) => candidates.push(Candidate {
                        user_id: lane.user_id,
                        device_id,
                        message_id: head.id,
                        scope: head.scope,
                        to: head.phone,
                        text,
                        greeting,
                        media,
                        request,
                        flow,
                        repeated: None,
                        outgoing: None,
                        host: Arc::clone(&lane.host),
                        warmth: known,
                    }),
                    Err((state, reason)) => {
                        declined.push(self.decline(lane, device_id, head.id, state, reason, None));
                        ask_for_errors(follow_ups, lane.user_id, head.scope, state);
                        lane.phase = LanePhase::Idle;
                        timers.set(device_id, now.at());
                    }
                }
            }
        }
        if !declined.is_empty() {
            self.take_off(&declined).await?;
            self.core.wake.plan();
        }
        for put_off in put_offs {
            // What is not put off now stays at the head and is so at the next look.
            if let Err(error) = self.put_off(put_off).await {
                tracing::warn!(%error, device = %put_off.device_id, "messages to strangers could not be put off");
            }
        }
        Ok(candidates)
    }

    /// Whether devices know the people of the heads of their lanes, where these have rules for strangers.
    async fn warmth_of(&self, answers: &[LaneDue]) -> Result<BTreeMap<MessageId, Warmth>, StoreError> {
        let asked: Vec<MessageId> = {
            let state = self.state();
            let minds = |id: &DeviceId| state.lanes.get(id).is_some_and(|lane| self.minds_strangers(lane));
            let lanes = answers.iter().filter(|answer| minds(&answer.device_id));
            lanes
                .flat_map(|answer| answer.heads.iter().map(|head| head.id))
                .collect()
        };
        let mut told = BTreeMap::new();
        for page in asked.chunks(1_000) {
            let warmth = self.core.store.warmth(page).await?;
            told.extend(page.iter().copied().zip(warmth));
        }
        Ok(told)
    }

    /// How the messages to strangers at the head of a lane are put off.
    fn line_up(
        &self,
        lane: &mut Lane,
        device_id: DeviceId,
        scope: MessageScope,
        told: LaneAnswer,
        now: LaneNow,
    ) -> PutOff {
        // Once for each restriction: what comes to the lane afterwards belongs to it alone.
        let empties = told.reason == LaneReason::ColdRestricted && lane.emptied_for != Some(told.at);
        if empties {
            lane.emptied_for = Some(told.at);
        }
        let (reason, from, gap) = match told.reason {
            LaneReason::ColdRestricted => (Reason::Restricted, told.at, Duration::ZERO),
            _ => {
                let gap = lane.pacing.cold_gap(&self.core.config.pacing, now.at());
                (Reason::ColdPace, told.at.max(lane.cold_line), gap)
            }
        };
        PutOff {
            user_id: lane.user_id,
            device_id,
            epoch: lane.epoch,
            scope,
            reason,
            from,
            gap,
            empties,
        }
    }

    /// Takes messages off their lanes; says whether all were. Those on which nothing moved may not be ours any more: looked at again at once, they
    /// would tell the same message again and again, so they wait until their devices have been read.
    async fn take_off(&self, declined: &[Decline]) -> Result<bool, StoreError> {
        let done = self.core.store.decline(declined, self.core.now()).await;
        let moved = done.map_err(|error| self.note(error))?;
        let all = moved == declined.len() as u64;
        if !all {
            let devices = declined.iter().map(|one| one.device_id);
            self.put_back(devices.clone(), self.core.config.look_every);
            devices.for_each(|device| self.core.wake.changed(device));
        }
        Ok(all)
    }

    fn fits(&self, lane: &Lane, made: Ready) -> Result<Ready, (MessageState, Reason)> {
        let unsupported = (MessageState::Failed, Reason::Unsupported);
        let transport = self.core.transports.get(&lane.device.platform).ok_or(unsupported)?;
        let capabilities = transport.capabilities();
        let most = match &made.media {
            None => capabilities.text_len_max,
            Some(media) => capabilities.media(media.kind).ok_or(unsupported)?.caption_max,
        };
        if made.text.chars().count() > most {
            Err((MessageState::Skipped, Reason::TooLong))
        } else {
            Ok(made)
        }
    }

    fn decline(
        &self,
        lane: &Lane,
        device_id: DeviceId,
        message_id: MessageId,
        state: MessageState,
        reason: Reason,
        due_at: Option<Timestamp>,
    ) -> Decline {
        Decline {
            incarnation: self.incarnation,
            user_id: lane.user_id,
            device_id,
            epoch: lane.epoch,
            message_id,
            state,
            reason,
            due_at,
            detail: None,
        }
    }

    /// Does what is slow and harmless before an attempt is promised: loads media, lets the transport prepare.
    /// `None` when the message was taken off its lane instead.
    ///
    /// # Errors
    /// The store did not answer; the lane is looked at again.
    pub async fn prepare(&self, mut candidate: Candidate) -> Result<Option<Candidate>, StoreError> {
        let (device, transport) = {
            let state = self.state();
            let Some(lane) = state.lanes.get(&candidate.device_id) else {
                return Ok(None);
            };
            let transport = self.core.transports.get(&lane.device.platform).cloned();
            (Arc::clone(&lane.device), transport)
        };
        let (Some(transport), Some(to)) = (transport, candidate.to) else {
            self.put_back([candidate.device_id], self.core.config.look_every);
            return Ok(None);
        };
        let limit = self.core.config.send_timeout + GRACE;
        if let Some(media) = &candidate.media {
            let load = self.core.media.load(candidate.user_id, media);
            let loaded = self.core.within(limit, load).await;
            match loaded.unwrap_or_else(|| Err(MediaError::Unavailable("no answer in time".to_owned()))) {
                Ok(loaded) => candidate.outgoing = Some(loaded),
                Err(MediaError::Gone(detail)) => {
                    return self
                        .turn_down(&candidate, MessageState::Failed, Reason::MediaGone, None, detail)
                        .await;
                }
                Err(MediaError::Unavailable(detail)) => {
                    let again = self.core.now() + Duration::from_secs(60);
                    return self
                        .turn_down(&candidate, MessageState::Queued, Reason::MediaGone, Some(again), detail)
                        .await;
                }
            }
        }
        let outgoing = OutgoingMessage {
            message_id: candidate.message_id,
            // Only the final attempt has an id; what is prepared is known by its message.
            attempt_id: AttemptId::from_uuid(*candidate.message_id.as_uuid()),
            transport_message_id: TransportMessageId::from_attempt(AttemptId::from_uuid(
                *candidate.message_id.as_uuid(),
            )),
            to,
            text: std::mem::take(&mut candidate.text),
            media: candidate.outgoing.take(),
        };
        if !transport.needs_prepare(&outgoing) {
            (candidate.text, candidate.outgoing) = (outgoing.text, outgoing.media);
            return Ok(Some(candidate));
        }
        (candidate.text, candidate.outgoing) = (outgoing.text.clone(), outgoing.media.clone());
        let context = SendContext {
            device,
            timeout: self.core.config.send_timeout,
        };
        let prepare = async {
            let next = self.to_check_ahead(transport.as_ref(), &context, &candidate, to).await;
            if let Some(checker) = transport.as_number_checker().filter(|_| !next.is_empty())
                && let Err(error) = checker.check(&context, &next).await
            {
                if matches!(&error, SendError::NotSent(refusal) if lane_must_wait(&refusal.kind).is_some()) {
                    return Err(error);
                }
                // The message may go for all that: its number is asked for alone, in case that another one was the trouble.
                tracing::debug!(device = %candidate.device_id, %error, "numbers could not be checked ahead");
            }
            transport.prepare(&context, &outgoing).await
        };
        let prepare = std::panic::AssertUnwindSafe(prepare).catch_unwind();
        let failed = |why| Err(SendError::not_sent(NotSentKind::Unavailable, why));
        let prepared = match self.core.within(limit, prepare).await {
            Some(Ok(prepared)) => prepared,
            Some(Err(_)) => failed("the transport panicked"),
            None => failed("no answer in time"),
        };
        match prepared {
            Ok(()) => Ok(Some(candidate)),
            Err(error) => self.unprepared(candidate, error).await,
        }
    }

    /// The number of a message and those of the next ones after it, as far as the transport wants to check them together.
    async fn to_check_ahead(
        &self,
        transport: &dyn Transport,
        context: &SendContext,
        candidate: &Candidate,
        to: Phone,
    ) -> Vec<Phone> {
        let checker = transport.as_number_checker();
        let wanted = checker
            .map_or(0, |checker| checker.check_ahead(context, &to))
            .min(CHECKED_MAX);
        if wanted <= 1 {
            return Vec::new();
        }
        let asked = Strangers {
            user_id: candidate.user_id,
            device_id: candidate.device_id,
            scope: candidate.scope,
            now: self.core.now(),
            limit: wanted,
            known_too: true,
        };
        let next = self.core.store.strangers(&asked).await.unwrap_or_else(|error| {
            // The message can do without it.
            tracing::debug!(device = %candidate.device_id, %error, "the numbers after that of a message cannot be read");
            Vec::new()
        });
        let mut phones = vec![to];
        for phone in next.iter().filter_map(|stranger| stranger.phone) {
            if phones.len() < wanted as usize && !phones.contains(&phone) {
                phones.push(phone);
            }
        }
        if phones.len() == 1 {
            phones.clear();
        }
        phones
    }

    async fn unprepared(&self, candidate: Candidate, error: SendError) -> Result<Option<Candidate>, StoreError> {
        if let SendError::NotSent(refusal) = &error
            && let Some(retry_after) = lane_must_wait(&refusal.kind)
        {
            // Every message of the lane would be told the same: it is the lane that waits.
            let now = self.core.lane_now();
            let mut rng = self.core.seed.rng(candidate.message_id.as_bytes(), "back-off");
            if let Some(lane) = self.state().lanes.get_mut(&candidate.device_id) {
                lane.pacing.back_off(now.at(), retry_after, &mut rng);
                lane.away = refusal.kind == NotSentKind::DeviceOffline;
            }
            self.put_back([candidate.device_id], Duration::ZERO);
            return Ok(None);
        }
        let (state, reason, detail) = match error {
            SendError::NotSent(refusal) => match refusal.kind {
                NotSentKind::NotOnWhatsApp => (MessageState::Skipped, Reason::NotOnWhatsApp, refusal.detail),
                NotSentKind::InvalidRecipient => (MessageState::Failed, Reason::InvalidRecipient, refusal.detail),
                NotSentKind::Unsupported => (MessageState::Failed, Reason::Unsupported, refusal.detail),
                NotSentKind::Rejected => (MessageState::Failed, Reason::Rejected, refusal.detail),
                _ => (MessageState::Queued, Reason::GatewayUnavailable, refusal.detail),
            },
            SendError::MaybeSent(doubt) => (MessageState::Queued, Reason::GatewayUnavailable, doubt.detail),
        };
        let again = (state == MessageState::Queued).then(|| self.core.now() + Duration::from_secs(30));
        self.turn_down(&candidate, state, reason, again, detail).await
    }

    async fn turn_down(
        &self,
        candidate: &Candidate,
        state: MessageState,
        reason: Reason,
        due_at: Option<Timestamp>,
        detail: String,
    ) -> Result<Option<Candidate>, StoreError> {
        if candidate.repeated.is_some() {
            // In doubt, not queued: it stays so and is looked at again with the other doubts.
            self.put_back([candidate.device_id], self.core.config.look_every);
            return Ok(None);
        }
        let declined = {
            let mut state_now = self.state();
            ask_for_errors(&mut state_now.follow_ups, candidate.user_id, candidate.scope, state);
            let Some(lane) = state_now.lanes.get(&candidate.device_id) else {
                return Ok(None);
            };
            let mut declined = self.decline(lane, candidate.device_id, candidate.message_id, state, reason, due_at);
            declined.detail = Some(detail);
            declined
        };
        let taken_off = self.take_off(&[declined]).await;
        match taken_off {
            Ok(true) => self.put_back([candidate.device_id], Duration::ZERO),
            Ok(false) => {}
            Err(_) => self.put_back([candidate.device_id], self.core.config.look_every),
        }
        taken_off.map(|_| None)
    }

    /// Gives a candidate back to its lane, as when there is no room to send it now.
    pub fn drop_candidate(&self, candidate: &Candidate, after: Duration) {
        self.put_back([candidate.device_id], after);
    }

    /// Begins attempts, at most one per lane, and gives those really begun. What may not be sent after all is moved to its
    /// right state by the store.
    ///
    /// # Errors
    /// The store did not answer: what it began all the same is found and handed back by [`plan`](Self::plan).
    pub async fn begin(self: &Arc<Self>, candidates: Vec<Candidate>) -> Result<Vec<Dispatch>, StoreError> {
        let asked_at = self.core.clock.monotonic();
        let now = self.core.lane_now();
        let mut items = Vec::with_capacity(candidates.len());
        let mut kept = Vec::with_capacity(candidates.len());
        {
            let mut state = self.state();
            let State {
                lanes,
                timers,
                live,
                leaving,
                cut,
                ..
            } = &mut *state;
            for mut candidate in candidates {
                let Some(lane) = lanes.get_mut(&candidate.device_id) else {
                    continue;
                };
                let id = &candidate.device_id;
                if leaving.contains(id) || cut.get(id) == Some(&lane.epoch) {
                    lane.phase = LanePhase::Idle;
                    continue;
                }
                if candidate.warmth.is_none() && self.minds_strangers(lane) {
                    // It was looked at before the lane had rules for strangers.
                    lane.phase = LanePhase::Idle;
                    timers.set(candidate.device_id, now.at());
                    continue;
                }
                let told = lane.pacing.ready_at(&candidate.request, &self.core.config.pacing, now);
                if !told.is_ready() || !lane.may_send {
                    lane.phase = LanePhase::Idle;
                    lane.waiting = Some((told.reason, told.at));
                    timers.set(candidate.device_id, told.at.min(now.at() + self.core.config.look_every));
                    continue;
                }
                lane.phase = LanePhase::Sending;
                let (attempt_id, transport_message_id) = match &candidate.repeated {
                    Some(repeated) => (repeated.attempt_id, repeated.transport_message_id.clone()),
                    None => {
                        let attempt_id = AttemptId::new(&self.core.ids, now.wall());
                        let transport = self.core.transports.get(&lane.device.platform);
                        let id = transport.map(|transport| transport.message_id(attempt_id));
                        (
                            attempt_id,
                            id.unwrap_or_else(|| TransportMessageId::from_attempt(attempt_id)),
                        )
                    }
                };
                live.insert(attempt_id);
                items.push(BeginItem {
                    user_id: lane.user_id,
                    device_id: candidate.device_id,
                    epoch: lane.epoch,
                    message_id: candidate.message_id,
                    attempt_id,
                    transport_message_id,
                    text: std::mem::take(&mut candidate.text),
                    greeting: candidate.greeting.take(),
                    attempted_at: now.wall(),
                    again: candidate.repeated.is_some(),
                });
                kept.push(candidate);
            }
        }
        if items.is_empty() {
            return Ok(Vec::new());
        }
        let begin = Begin {
            incarnation: self.incarnation,
            items,
            now: now.wall(),
        };
        let answers = match self.core.store.begin(&begin).await {
            Ok(answers) => answers,
            Err(error) => {
                // Whether it committed is open. The attempts are no longer live, so `plan` hands back those that did.
                let mut state = self.state();
                for item in &begin.items {
                    state.live.remove(&item.attempt_id);
                }
                drop(state);
                self.put_back(
                    begin.items.iter().map(|item| item.device_id),
                    self.core.config.look_every,
                );
                self.core.wake.plan();
                return Err(self.note(error));
            }
        };
        Ok(self.begun(begin.items, kept, answers, asked_at, now))
    }

    fn begun(
        self: &Arc<Self>,
        items: Vec<BeginItem>,
        candidates: Vec<Candidate>,
        answers: Vec<Begun>,
        asked_at: Monotonic,
        now: LaneNow,
    ) -> Vec<Dispatch> {
        let mut dispatches = Vec::with_capacity(items.len());
        let mut changed = Vec::new();
        let mut state = self.state();
        let State {
            lanes, timers, live, ..
        } = &mut *state;
        for ((item, candidate), answer) in items.into_iter().zip(candidates).zip(answers) {
            let device_id = item.device_id;
            let lane = lanes.get_mut(&device_id);
            let transport = lane
                .as_ref()
                .and_then(|lane| self.core.transports.get(&lane.device.platform).cloned());
            let (Begun::Yes, Some(lane), Some(transport), Some(to)) = (answer, lane, transport, candidate.to) else {
                live.remove(&item.attempt_id);
                if let Some(lane) = lanes.get_mut(&device_id) {
                    lane.phase = LanePhase::Idle;
                    timers.set(device_id, now.at());
                }
                if answer == Begun::NotOwner {
                    changed.push(device_id);
                }
                continue;
            };
            lane.pacing.begin(now.at());
            if candidate.warmth == Some(Warmth::Cold) {
                lane.pacing.count_cold(now.at());
            }
            lane.serve(candidate.scope);
            let waited = std::mem::take(&mut lane.waited);
            if let Some(watch) = &self.core.watch {
                watch.begun(&LaneBegun {
                    device_id,
                    message_id: item.message_id,
                    scope: candidate.scope,
                    at: item.attempted_at,
                    waited,
                });
            }
            let message = OutgoingMessage {
                message_id: item.message_id,
                attempt_id: item.attempt_id,
                transport_message_id: item.transport_message_id,
                to,
                text: item.text,
                media: candidate.outgoing,
            };
            // Of one in doubt nobody has asked, and its refusal says as much as that of a first message.
            let warmth = match candidate.repeated {
                Some(_) => Warmth::Cold,
                None => candidate.warmth.unwrap_or(Warmth::Cold),
            };
            let ticket = Ticket {
                user_id: item.user_id,
                device_id,
                epoch: item.epoch,
                scope: candidate.scope,
                flow: candidate.flow.and_then(|flow| flow.next()),
                host: Arc::clone(&lane.host),
                context: SendContext {
                    device: Arc::clone(&lane.device),
                    timeout: self.core.config.send_timeout,
                },
                message,
                version: lane.version,
                doubt: transport.capabilities().doubt(),
                on_doubt: lane.on_doubt,
                lane_was_passing: lane.passing,
                in_doubt_for: candidate.repeated.map(|repeated| repeated.cause),
                asked_at,
                begun_at: now.at(),
                attempted_at: item.attempted_at,
                warmth,
            };
            dispatches.push(Dispatch::new(Arc::clone(self), transport, ticket));
        }
        drop(state);
        for device in changed {
            // A lane that is not ours, or on hold: its settings are read again before it is looked at.
            self.put_back([device], self.core.config.look_every);
            self.core.wake.changed(device);
        }
        dispatches
    }

    /// Takes the outcome of a dispatch that was dropped.
    pub(crate) fn give_in(&self, finished: Finished) {
        self.state().given_in.push(finished);
        self.core.wake.plan();
    }

    /// Outcomes of dispatches that were dropped, and what an engine before this one knew when it lost its lease; settle them
    /// like others.
    #[must_use]
    pub fn take_given_in(&self) -> Vec<Finished> {
        std::mem::take(&mut self.state().given_in)
    }

    /// Keeps what outcomes prove that were not recorded before this engine lost its lease: the next one of this process, started
    /// from the same [`Core`], hands it in.
    pub fn keep_evidence(&self, finished: &[Finished]) {
        self.core.keep_evidence(finished);
    }

    /// Records outcomes and lets the lanes go on. An outcome is a fact: call it again with the same ones until it succeeds.
    ///
    /// # Errors
    /// `Fenced`: give them to [`keep_evidence`](Self::keep_evidence). Others: the store did not take them; nothing is lost, the
    /// lanes stay closed.
    pub async fn settle(&self, finished: &[Finished]) -> Result<Vec<Settled>, StoreError> {
        let settle = Settle {
            incarnation: self.incarnation,
            outcomes: finished.iter().map(|one| one.outcome.clone()).collect(),
            now: self.core.now(),
        };
        let answers = match self.core.store.settle(&settle).await {
            Ok(answers) => answers,
            Err(error) => return Err(self.note(error)),
        };
        let now = self.core.lane_now();
        let mut marked = false;
        let mut state = self.state();
        let State {
            lanes,
            timers,
            live,
            follow_ups,
            askable,
            in_doubt_live,
            ..
        } = &mut *state;
        for (one, answer) in finished.iter().zip(&answers) {
            let Outcome {
                user_id,
                device_id,
                message_id,
                attempt_id,
                ..
            } = one.outcome;
            live.remove(&attempt_id);
            in_doubt_live.remove(&message_id);
            match (answer, one.begun_at) {
                (Settled::Yes(MessageState::InDoubt), Some(begun_at)) => {
                    askable.set(attempt_id, begun_at + self.core.config.reconcile_after);
                }
                (Settled::Yes(MessageState::InDoubt), None) => {}
                _ => askable.forget(attempt_id),
            }
            if let Settled::Yes(MessageState::Failed | MessageState::Unknown) = answer {
                follow_ups.ask_of_scope(user_id, one.scope);
                follow_ups.ask(FollowUp::DeviceErrors(user_id, device_id));
            }
            // What was not moved on with its outcome is so from its mark.
            let settled = matches!(answer, Settled::Yes(state) if !state.is_open());
            let flow = matches!(one.scope, MessageScope::Sequence(_));
            marked |= flow && settled && one.outcome.advance.is_none();
            match one.effect {
                LaneEffect::Unauthenticated => {
                    let detail = one.outcome.detail.clone().unwrap_or_default();
                    follow_ups.ask(FollowUp::Hold(user_id, device_id, one.version, detail));
                }
                LaneEffect::Restricted { until, scope } => {
                    let scope = match scope {
                        RestrictionScope::Cold => RestrictionOrd::Cold,
                        RestrictionScope::All => RestrictionOrd::All,
                    };
                    follow_ups.ask(FollowUp::Restrict(user_id, device_id, until, scope));
                }
                _ => {}
            }
            let Some(lane) = lanes.get_mut(&device_id) else {
                continue;
            };
            if *answer == Settled::Yes(MessageState::Queued) {
                lane.emptied_at = None;
            }
            if let Some(begun_at) = one.begun_at {
                lane.phase = LanePhase::Idle;
                timers.set(device_id, now.at());
                self.affect(lane, one, begun_at, now);
            }
        }
        drop(state);
        if marked {
            self.core.wake.plan();
        }
        Ok(answers)
    }

    fn affect(&self, lane: &mut Lane, one: &Finished, begun_at: Timestamp, now: LaneNow) {
        match one.effect {
            LaneEffect::Succeeded => {
                lane.pacing.succeeded();
                lane.passing = true;
            }
            LaneEffect::Used => {}
            LaneEffect::GivenBack => {
                lane.pacing.give_back(begun_at);
            }
            LaneEffect::BackOff { retry_after } => {
                lane.pacing.give_back(begun_at);
                let mut rng = self.core.seed.rng(one.outcome.attempt_id.as_bytes(), "back-off");
                lane.pacing.back_off(now.at(), retry_after, &mut rng);
                lane.passing = false;
            }
            LaneEffect::Restricted { until, scope } => {
                lane.pacing.give_back(begun_at);
                let end = until.map_or(now.at() + UNKNOWN_RESTRICTION_FOR, |until| now.lane_at(until));
                match scope {
                    RestrictionScope::All => {
                        lane.pacing.restrict(end);
                        lane.passing = false;
                    }
                    RestrictionScope::Cold => {
                        let device = one.outcome.device_id;
                        match until {
                            Some(until) => lane
                                .pacing
                                .restrict_cold(self.cold_end(device, until, now), Reopening::Slowly),
                            None => lane.pacing.restrict_cold(end, Reopening::AtOnce),
                        }
                    }
                }
            }
            LaneEffect::Unauthenticated => {
                lane.pacing.give_back(begun_at);
                lane.passing = false;
                if lane.version != one.version {
                    // The device has other settings by now, which were not refused.
                    return;
                }
                lane.may_send = false;
                tracing::warn!(device = %one.outcome.device_id, "the gateway does not accept the credential");
            }
        }
    }

    /// What this node is doing.
    #[must_use]
    pub fn status(&self) -> EngineStatus {
        let mono = self.core.clock.monotonic();
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let lease_until = self.lease_until.load(Ordering::Acquire);
        let state = self.state();
        let silent = |seen_at| millis(mono.since(seen_at));
        EngineStatus {
            lease_left_ms: lease_until.saturating_sub(millis(mono.since_start())),
            leaving: state.leaving.len(),
            silent_ms: state
                .peers
                .iter()
                .map(|(id, (_, seen_at))| (*id, silent(*seen_at)))
                .collect(),
            incarnation: self.incarnation,
            node_name: self.core.config.node_name.clone(),
            lanes: state.lanes.len(),
            lanes_open: state.lanes.values().filter(|lane| lane.may_send).count(),
            in_flight: state.live.len(),
            planner: state.planner,
            fenced: state.fenced,
        }
    }

    /// What the lanes of this node are doing; of one user, or of all.
    #[must_use]
    pub fn lanes(&self, user: Option<UserId>) -> Vec<LaneStatus> {
        let now = self.core.lane_now();
        let state = self.state();
        state
            .lanes
            .iter()
            .filter(|(_, lane)| user.is_none_or(|user| lane.user_id == user))
            .map(|(id, lane)| LaneStatus {
                device_id: *id,
                user_id: lane.user_id,
                phase: lane.phase,
                may_send: lane.may_send,
                waits_for: lane
                    .waiting
                    .map(|(reason, _)| reason)
                    .filter(|reason| *reason != LaneReason::Ready),
                waits_until: lane.waiting.map(|(_, at)| now.wall_at(at)),
                sent_this_hour: lane.pacing.hour_count(now.at()),
                sent_this_day: lane.pacing.day_count(now.at()),
            })
            .collect()
    }

    /// Leaves the nodes: gives back every device. Call it when nothing is under way any more.
    ///
    /// # Errors
    /// The store did not answer; other nodes take over when the lease ends.
    pub async fn leave(&self) -> Result<(), StoreError> {
        self.lease_until.store(0, Ordering::Release);
        let devices = self
            .state()
            .lanes
            .values()
            .map(|lane| Arc::clone(&lane.device))
            .collect();
        self.close_connections(devices).await;
        self.core.store.leave(self.incarnation, self.core.now()).await?;
        self.fall();
        Ok(())
    }
}

/// A message that fails before any attempt counts for the error rate of its scope, like one that fails afterwards.
fn ask_for_errors(follow_ups: &mut FollowUps, user: UserId, scope: MessageScope, state: MessageState) {
    if state == MessageState::Failed {
        follow_ups.ask_of_scope(user, scope);
    }
}

/// Whether a refusal is that of a lane, whatever its message; with what the other side asked for.
fn lane_must_wait(kind: &NotSentKind) -> Option<Option<Duration>> {
    match kind {
        NotSentKind::RateLimited { retry_after } => Some(*retry_after),
        NotSentKind::DeviceOffline => Some(None),
        _ => None,
    }
}

/// Why a message is in doubt; one whose process died was interrupted.
pub(crate) fn cause_of(message: &Message) -> MaybeSentCause {
    let doubt = message.doubt.and_then(|doubt| doubt.cause);
    doubt.unwrap_or(MaybeSentCause::Interrupted)
}

/// The quiet hours that a campaign's messages keep.
pub(crate) fn quiet_of(campaign: &Campaign) -> Option<Quiet> {
    let hours = campaign.quiet_hours?;
    let zone = campaign.time_zone;
    Some(Quiet { hours, zone })
}
