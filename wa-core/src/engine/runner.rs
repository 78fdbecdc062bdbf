//! Keeps an engine going: one task that looks, prepares, begins, sends and settles, and sleeps through the clock.
//!
//! Everything under way is a future in one set, so a gateway that hangs holds up its own lanes and nobody else. Begins and
//! settlements gather while the one before them is being committed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, Either, select};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::{FutureExt, future};

use super::core::Core;
use super::dispatch::{Dispatch, Finished};
use super::node::{Balance, Candidate, Engine};
use super::planning::{PlanReport, Question, progress_of};
use super::unsettled::Unsettled;
use crate::domain::message::MessageScope;
use crate::event::EventKind;
use crate::id::UserId;
use crate::store::{StoreError, StoreErrorKind};
use crate::time::Monotonic;

/// How long a failed call to the store is left alone before it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// Which part of a batch the first look takes, so that the store soon has something to write while the next one reads.
const FIRST_LOOK: usize = 4;
/// How long a round of planning is left alone after the one before, however many hints come in.
const PLAN_GAP: Duration = Duration::from_millis(50);
/// How often what is kept for a while only is pruned.
const PRUNE_EVERY: Duration = Duration::from_secs(600);
/// How often in the time of a beat the shares of nodes are looked at while they are uneven.
const UNEVEN_LOOKS: u32 = 4;
/// How often receipts that came before their message had the vendor's id are looked at.
const RECEIPTS_EVERY: Duration = Duration::from_secs(1);

/// Why a runner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to stop and has drained.
    Stopped,
    /// Another node took its lease: start a new engine.
    Fenced,
}

/// What a runner has come to when it starts: the lanes get going first, and what else there is to read comes one after the other, so that
/// it takes neither their processor nor connections of the store that each have to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Opening {
    /// The first look at lanes is under way.
    Look,
    Errands,
    Doubts,
    Over,
}

enum Done {
    Looked(Result<Vec<Candidate>, StoreError>),
    Prepared(Result<Option<Box<Candidate>>, StoreError>, Arc<str>),
    Begun(Result<Vec<Dispatch>, StoreError>, Vec<Arc<str>>),
    Sent(Finished, Arc<str>),
    Settled(Result<(), StoreError>),
    Planned(Result<PlanReport, StoreError>),
    Doubts(Result<(Vec<Question>, Vec<Finished>), StoreError>),
    Errands(Result<Vec<super::planning::Errand>, StoreError>),
    Errand(Result<(), StoreError>),
    Beaten(Result<(), StoreError>),
    Balanced(Result<Balance, StoreError>),
    LetGo(Result<usize, StoreError>),
    Refreshed(Result<(), StoreError>),
    /// The devices that a hint named; the next look at all of them stays when it was.
    Reread(Result<bool, StoreError>),
    Pruned(Result<(), StoreError>),
    Received(Result<(), StoreError>),
    Told,
}

/// When something is done next, and whether it is being done.
#[derive(Debug)]
struct Turn {
    at: Monotonic,
    running: bool,
}

impl Turn {
    fn at(at: Monotonic) -> Self {
        Self { at, running: false }
    }

    fn take(&mut self, now: Monotonic) -> bool {
        let due = !self.running && self.at <= now;
        self.running |= due;
        due
    }

    fn next(&self) -> Option<Monotonic> {
        (!self.running).then_some(self.at)
    }
}

/// Keeps one engine going until it is told to stop or loses its lease.
#[derive(Debug)]
pub struct Runner {
    core: Arc<Core>,
    engine: Arc<Engine>,
    under_way: FuturesUnordered<BoxFuture<'static, Done>>,
    /// Candidates that are not prepared yet, per host.
    looked: BTreeMap<Arc<str>, VecDeque<Candidate>>,
    /// How many are being prepared, per host.
    preparing: BTreeMap<Arc<str>, usize>,
    /// Candidates that wait for room at their gateway, per host.
    waiting: BTreeMap<Arc<str>, VecDeque<Candidate>>,
    /// Sends and questions under way, per host.
    in_flight: BTreeMap<Arc<str>, usize>,
    questions: VecDeque<Question>,
    unsettled: Unsettled,
    progress: BTreeSet<(UserId, MessageScope)>,
    beginning: bool,
    opening: Opening,
    look_at: Monotonic,
    looking: bool,
    /// How many lanes the next look takes at most.
    look_most: usize,
    plan: Turn,
    planned_at: Monotonic,
    doubts: Turn,
    errands: Turn,
    beat: Turn,
    balance: Turn,
    /// Whether shares are looked at again as soon as the look at them under way has ended.
    balance_again: bool,
    letting_go: bool,
    let_go_at: Monotonic,
    refresh: Turn,
    prune: Turn,
    receipts: Turn,
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Done")
    }
}

impl Runner {
    /// A runner for a started engine.
    #[must_use]
    pub fn new(engine: Arc<Engine>) -> Self {
        let core = Arc::clone(&engine.core);
        let now = core.clock.monotonic();
        let (beat_at, refresh_at) = (engine.next_beat_at(), engine.first_refresh_at());
        let batch_max = core.config.batch_max;
        Self {
            core,
            engine,
            under_way: FuturesUnordered::new(),
            looked: BTreeMap::new(),
            preparing: BTreeMap::new(),
            waiting: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            questions: VecDeque::new(),
            unsettled: Unsettled::new(now),
            progress: BTreeSet::new(),
            beginning: false,
            opening: Opening::Look,
            look_at: now,
            looking: false,
            look_most: (batch_max / FIRST_LOOK).max(1),
            plan: Turn::at(now),
            planned_at: now,
            doubts: Turn::at(now),
            errands: Turn::at(now),
            beat: Turn::at(beat_at),
            balance: Turn::at(now),
            balance_again: false,
            letting_go: false,
            let_go_at: now,
            refresh: Turn::at(refresh_at),
            prune: Turn::at(now + PRUNE_EVERY),
            receipts: Turn::at(now),
        }
    }

    /// Runs until `stop` is ready and everything under way has ended, or until the lease is lost.
    ///
    /// Dropping the future is a crash: what was being sent is in doubt, as it should be.
    pub async fn run(mut self, stop: impl Future<Output = ()> + Send) -> Ended {
        let mut stop = Box::pin(stop.fuse());
        let mut stopping = false;
        loop {
            self.engine.mind_lease();
            if self.engine.is_fenced() {
                // What is known by now is not forgotten with the lease.
                while let Some(Some(done)) = self.under_way.next().now_or_never() {
                    self.take(done, true);
                }
                self.engine.keep_evidence(&self.unsettled.all());
                return Ended::Fenced;
            }
            // Asked here too, because work that never ends would not let the wait below get to it.
            if !stopping && (&mut stop).now_or_never().is_some() {
                stopping = true;
                self.begin_no_more();
            }
            self.take_hints();
            self.start_work(stopping);
            if stopping && self.is_drained() {
                if let Err(error) = self.engine.leave().await {
                    tracing::warn!(%error, "could not leave; other nodes take over when the lease ends");
                }
                return Ended::Stopped;
            }
            let next = self.next_at(stopping);
            let core = Arc::clone(&self.core);
            let asleep = async {
                match next {
                    Some(at) => core.clock.sleep_until(at).await,
                    None => future::pending().await,
                }
            };
            let idle = select(Box::pin(asleep), Box::pin(core.wake.wait()));
            let outside = select(idle, &mut stop);
            let step = if self.under_way.is_empty() {
                Either::Left(outside.await)
            } else {
                match select(self.under_way.next(), outside).await {
                    Either::Left((done, _)) => Either::Right(done),
                    Either::Right((outside, _)) => Either::Left(outside),
                }
            };
            match step {
                Either::Left(Either::Right(_)) => {
                    stopping = true;
                    self.begin_no_more();
                }
                Either::Left(Either::Left(_)) => {}
                Either::Right(Some(done)) => self.take(done, stopping),
                Either::Right(None) => {}
            }
            // Everything that is ready already is taken before new work starts, so that batches form.
            while let Some(Some(done)) = self.under_way.next().now_or_never() {
                self.take(done, stopping);
            }
        }
    }

    /// Looks at the shares of nodes at once, or again where that is under way: it may have read what is no more so.
    fn balance_soon(&mut self, now: Monotonic) {
        self.balance_again = self.balance.running;
        if !self.balance.running {
            self.balance.at = now;
        }
    }

    fn begin_no_more(&mut self) {
        self.looked.clear();
        self.waiting.clear();
        self.questions.clear();
    }

    fn is_drained(&self) -> bool {
        self.under_way.is_empty() && self.unsettled.is_drained()
    }

    fn take_hints(&mut self) {
        let hints = self.core.wake.take();
        let now = self.core.clock.monotonic();
        if !hints.devices.is_empty() {
            self.engine.wake(&hints.devices);
        }
        if !hints.changed.is_empty() {
            let engine = Arc::clone(&self.engine);
            self.under_way
                .push(async move { Done::Reread(engine.reread(&hints.changed).await) }.boxed());
        }
        if hints.plan {
            let soon = now.max(self.planned_at + PLAN_GAP);
            self.plan.at = self.plan.at.min(soon);
            self.errands.at = self.errands.at.min(soon);
        }
        self.unsettled.push(self.engine.take_given_in());
    }

    fn next_at(&self, stopping: bool) -> Option<Monotonic> {
        let mut next: Vec<Option<Monotonic>> = vec![self.beat.next(), self.engine.lease_ends_at()];
        next.push(self.unsettled.next_at());
        if !stopping {
            if self.engine.has_drained() && !self.letting_go {
                next.push(Some(self.let_go_at));
            }
            next.extend([
                self.balance.next().filter(|_| self.opening >= Opening::Over),
                self.plan.next().filter(|_| self.opening >= Opening::Over),
                self.doubts.next().filter(|_| self.opening >= Opening::Doubts),
                self.errands.next().filter(|_| self.opening >= Opening::Errands),
                self.refresh.next(),
                self.prune.next(),
            ]);
            if self.core.early_receipts().is_some() {
                next.push(self.receipts.next());
            }
            // Without a lease only the next beat can change anything.
            if !self.looking && self.engine.lease_holds(self.core.clock.monotonic()) {
                next.push(self.engine.next_look_at().map(|at| at.max(self.look_at)));
            }
        }
        next.into_iter().flatten().min()
    }

    fn start_work(&mut self, stopping: bool) {
        let now = self.core.clock.monotonic();
        if self.beat.take(now) {
            let engine = Arc::clone(&self.engine);
            self.under_way
                .push(async move { Done::Beaten(engine.beat().await) }.boxed());
        }
        if let Some(batch) = self.unsettled.take(now, self.core.config.batch_max) {
            let engine = Arc::clone(&self.engine);
            self.under_way
                .push(async move { Done::Settled(engine.settle(&batch).await.map(|_| ())) }.boxed());
        }
        if stopping {
            return;
        }
        // Lanes first: whatever else there is may wait for a connection of the store.
        let may_look = !self.looking && self.look_at <= now && self.engine.lease_holds(now);
        if may_look && self.engine.next_look_at().is_some_and(|at| at <= now) {
            self.looking = true;
            let (engine, most) = (Arc::clone(&self.engine), self.look_most);
            self.under_way
                .push(async move { Done::Looked(engine.look_up_to(most).await) }.boxed());
        }
        if !self.looking {
            self.opening = self.opening.max(Opening::Errands);
        }
        self.ask();
        self.prepare();
        self.begin();
        let engine = &self.engine;
        if self.opening >= Opening::Over && self.balance.take(now) {
            let engine = Arc::clone(engine);
            self.under_way
                .push(async move { Done::Balanced(engine.balance().await) }.boxed());
        }
        if !self.letting_go && self.let_go_at <= now && engine.has_drained() {
            self.letting_go = true;
            let engine = Arc::clone(engine);
            self.under_way
                .push(async move { Done::LetGo(engine.let_go().await) }.boxed());
        }
        if self.opening >= Opening::Over && self.plan.take(now) {
            let engine = Arc::clone(engine);
            self.under_way
                .push(async move { Done::Planned(engine.plan().await) }.boxed());
        }
        if self.opening >= Opening::Doubts && self.doubts.take(now) {
            let engine = Arc::clone(engine);
            self.under_way
                .push(async move { Done::Doubts(engine.doubts().await) }.boxed());
        }
        if self.opening >= Opening::Errands && self.errands.take(now) {
            let engine = Arc::clone(engine);
            self.under_way
                .push(async move { Done::Errands(engine.errands().await) }.boxed());
        }
        if self.refresh.take(now) {
            let engine = Arc::clone(engine);
            self.under_way
                .push(async move { Done::Refreshed(engine.refresh(None).await) }.boxed());
        }
        if self.prune.take(now) {
            let engine = Arc::clone(engine);
            self.under_way
                .push(async move { Done::Pruned(prune(&engine).await) }.boxed());
        }
        if self.core.early_receipts().is_some() && self.receipts.take(now) {
            let core = Arc::clone(&self.core);
            self.under_way
                .push(async move { Done::Received(core.match_early_receipts().await) }.boxed());
        }
    }

    /// Prepares no more per host than may be sent to it at once: a prepared candidate holds its media in memory.
    fn prepare(&mut self) {
        let most = self.core.config.in_flight_max;
        let (preparing, waiting) = (&mut self.preparing, &self.waiting);
        self.looked.retain(|host, queue| {
            let ready = waiting.get(host).map_or(0, VecDeque::len);
            let busy = ready + preparing.get(host).copied().unwrap_or(0);
            let count = most.saturating_sub(busy).min(queue.len());
            if count > 0 {
                *preparing.entry(Arc::clone(host)).or_default() += count;
            }
            for candidate in queue.drain(..count) {
                let (engine, host) = (Arc::clone(&self.engine), Arc::clone(host));
                let prepare = async move {
                    let prepared = engine.prepare(candidate).await;
                    Done::Prepared(prepared.map(|kept| kept.map(Box::new)), host)
                };
                self.under_way.push(prepare.boxed());
            }
            !queue.is_empty()
        });
    }

    fn room(&self, host: &Arc<str>) -> usize {
        self.core
            .config
            .in_flight_max
            .saturating_sub(self.in_flight.get(host).copied().unwrap_or(0))
    }

    fn ask(&mut self) {
        for _ in 0..self.questions.len() {
            let Some(question) = self.questions.pop_front() else {
                return;
            };
            let host = question.host();
            if self.room(&host) == 0 {
                self.questions.push_back(question);
                continue;
            }
            *self.in_flight.entry(Arc::clone(&host)).or_default() += 1;
            self.under_way
                .push(async move { Done::Sent(question.ask().await, host) }.boxed());
        }
    }

    fn begin(&mut self) {
        if self.beginning {
            return;
        }
        let mut batch = Vec::new();
        let hosts: Vec<_> = self.waiting.keys().cloned().collect();
        for host in hosts {
            let room = self
                .room(&host)
                .min(self.core.config.batch_max.saturating_sub(batch.len()));
            let Some(queue) = self.waiting.get_mut(&host) else {
                continue;
            };
            let count = room.min(queue.len());
            batch.extend(queue.drain(..count));
            if queue.is_empty() {
                self.waiting.remove(&host);
            }
            *self.in_flight.entry(host).or_default() += count;
        }
        if batch.is_empty() {
            return;
        }
        self.beginning = true;
        let reserved: Vec<_> = batch.iter().map(Candidate::host).collect();
        let engine = Arc::clone(&self.engine);
        self.under_way.push(
            async move {
                let begun = engine.begin(batch).await;
                Done::Begun(begun, reserved)
            }
            .boxed(),
        );
    }

    /// Hints to screens that numbers changed, at most once per round of planning.
    fn tell_progress(&mut self) {
        let progress = std::mem::take(&mut self.progress);
        if progress.is_empty() {
            return;
        }
        let core = Arc::clone(&self.core);
        self.under_way.push(
            async move {
                let hint = |(user, scope)| match scope {
                    MessageScope::Campaign(campaign_id) => {
                        Some(core.event(user, EventKind::CampaignProgress { campaign_id }))
                    }
                    MessageScope::Sequence(sequence_id) => {
                        Some(core.event(user, EventKind::SequenceProgress { sequence_id }))
                    }
                    _ => None,
                };
                let events: Vec<_> = progress.into_iter().filter_map(hint).collect();
                core.bus.publish(&events).await;
                Done::Told
            }
            .boxed(),
        );
    }

    fn take(&mut self, done: Done, stopping: bool) {
        let now = self.core.clock.monotonic();
        let (plan_every, beat_every, refresh_every) = {
            let config = &self.core.config;
            (config.plan_every, config.beat_every, config.refresh_every)
        };
        match done {
            Done::Looked(Ok(candidates)) => {
                self.looking = false;
                self.opening = self.opening.max(Opening::Errands);
                self.look_most = self.core.config.batch_max;
                for candidate in candidates.into_iter().filter(|_| !stopping) {
                    self.looked.entry(candidate.host()).or_default().push_back(candidate);
                }
            }
            Done::Looked(Err(error)) => {
                self.looking = false;
                self.opening = self.opening.max(Opening::Errands);
                self.look_at = now + RETRY_AFTER;
                note("look", &error);
            }
            Done::Prepared(prepared, host) => {
                less(&mut self.preparing, &host);
                match prepared {
                    Ok(Some(candidate)) if !stopping => self.waiting.entry(host).or_default().push_back(*candidate),
                    Ok(_) => {}
                    Err(error) => note("prepare", &error),
                }
            }
            Done::Begun(result, reserved) => {
                self.beginning = false;
                for host in &reserved {
                    less(&mut self.in_flight, host);
                }
                match result {
                    Ok(dispatches) => {
                        for dispatch in dispatches {
                            let host = dispatch.host();
                            *self.in_flight.entry(Arc::clone(&host)).or_default() += 1;
                            self.under_way
                                .push(async move { Done::Sent(dispatch.run().await, host) }.boxed());
                        }
                    }
                    Err(error) => note("begin", &error),
                }
            }
            Done::Sent(finished, host) => {
                less(&mut self.in_flight, &host);
                self.unsettled.push([finished]);
            }
            Done::Settled(Ok(())) => {
                if let Some(batch) = self.unsettled.done() {
                    self.progress.append(&mut progress_of(&batch));
                }
            }
            Done::Settled(Err(error)) => {
                self.unsettled.failed(&error, now);
                note("settle", &error);
            }
            Done::Planned(result) => {
                self.plan.running = false;
                self.planned_at = now;
                self.tell_progress();
                self.plan.at = match result {
                    Ok(PlanReport { more: true, .. }) => now,
                    Ok(_) => now + plan_every,
                    Err(error) => {
                        note("plan", &error);
                        now + plan_every
                    }
                };
            }
            Done::Doubts(result) => {
                self.opening = self.opening.max(Opening::Over);
                self.doubts.running = false;
                self.doubts.at = now + plan_every;
                match result {
                    Ok((questions, finished)) => {
                        self.questions.extend(questions);
                        self.unsettled.push(finished);
                    }
                    Err(error) => note("doubts", &error),
                }
            }
            Done::Errands(result) => {
                self.opening = self.opening.max(Opening::Doubts);
                self.errands.running = false;
                self.errands.at = now + plan_every;
                match result {
                    Ok(errands) => {
                        for errand in errands {
                            self.under_way
                                .push(async move { Done::Errand(errand.run().await) }.boxed());
                        }
                    }
                    Err(error) => note("errands", &error),
                }
            }
            Done::Received(result) => {
                self.receipts.running = false;
                self.receipts.at = now + RECEIPTS_EVERY;
                if let Err(error) = result {
                    note("receipts", &error);
                }
            }
            Done::Errand(Err(error)) => note("errand", &error),
            Done::Errand(Ok(())) | Done::Told => {}
            Done::Beaten(result) => {
                self.beat.running = false;
                self.beat.at = now + beat_every;
                if let Err(error) = result {
                    // A database that a newer version has migrated stays so.
                    if error.kind != StoreErrorKind::Unsupported {
                        self.beat.at = now + RETRY_AFTER;
                    }
                    note("beat", &error);
                }
            }
            Done::Balanced(result) => {
                self.balance.running = false;
                self.balance.at = match result {
                    Ok(Balance::Even) => now + beat_every,
                    // What one node gives back the other is to have soon.
                    Ok(Balance::Uneven) => now + beat_every / UNEVEN_LOOKS,
                    Err(error) => {
                        note("balance", &error);
                        now + RETRY_AFTER
                    }
                };
                if std::mem::take(&mut self.balance_again) {
                    self.balance_soon(now);
                }
            }
            Done::LetGo(result) => {
                self.letting_go = false;
                match result {
                    Ok(0) => {}
                    // They may be this node's to claim anew.
                    Ok(_) => self.balance_soon(now),
                    Err(error) => {
                        self.let_go_at = now + RETRY_AFTER;
                        note("let go", &error);
                    }
                }
            }
            Done::Refreshed(result) => {
                self.refresh.running = false;
                self.refresh.at = now + refresh_every;
                if let Err(error) = result {
                    note("refresh", &error);
                }
            }
            Done::Reread(Ok(is_free)) => {
                // What nobody owns need not wait for the next beat.
                if is_free {
                    self.balance_soon(now);
                }
            }
            Done::Reread(Err(error)) => note("refresh", &error),
            Done::Pruned(result) => {
                self.prune.running = false;
                self.prune.at = now + PRUNE_EVERY;
                if let Err(error) = result {
                    note("prune", &error);
                }
            }
        }
    }
}

/// Removes what is kept for a while only, and puts aside what is only read any more.
async fn prune(engine: &Engine) -> Result<(), StoreError> {
    let pruned = engine.prune().await;
    engine.archive().await?;
    pruned.map(|_| ())
}

/// One less for a host.
fn less(counts: &mut BTreeMap<Arc<str>, usize>, host: &Arc<str>) {
    if let Some(count) = counts.get_mut(host) {
        *count = count.saturating_sub(1);
        if *count == 0 {
            counts.remove(host);
        }
    }
}

fn note(operation: &'static str, error: &StoreError) {
    tracing::warn!(operation, %error, "the store did not do it; it is tried again");
}
