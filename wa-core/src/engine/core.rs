//! What all operations of an engine share: ports, configuration, identity.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{Either, select};

use super::config::{ConfigError, EngineConfig};
use super::dispatch::Finished;
use super::early_receipts::{EarlyReceipt, EarlyReceipts};
use super::send_times::SendTimes;
use super::settings::{SameSettings, UserSettingsSource};
use super::wake::Wake;
use super::watch::LaneWatch;
use crate::domain::lane::{Anchor, LaneNow};
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::platform::Platform;
use crate::event::{Event, EventBus, EventKind, NoBus};
use crate::id::{EventId, IdSource, UserId};
use crate::media::{MediaStore, UrlMedia};
use crate::seed::Seed;
use crate::store::{Change, ChangeSet, Store, StoreError, WriteClass};
use crate::time::{Clock, Timestamp};
use crate::transport::Transport;

/// The transports of an engine, one per platform.
#[derive(Debug, Clone, Default)]
pub struct Transports(BTreeMap<Platform, Arc<dyn Transport>>);

impl Transports {
    /// Adds a transport, in place of another of its platform.
    pub fn add(&mut self, transport: Arc<dyn Transport>) {
        self.0.insert(transport.platform(), transport);
    }

    /// The transport of a platform.
    #[must_use]
    pub fn get(&self, platform: &Platform) -> Option<&Arc<dyn Transport>> {
        self.0.get(platform)
    }

    /// All of them, by platform.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&Platform, &Arc<dyn Transport>)> {
        self.0.iter()
    }

    /// The platforms that can be used.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        self.0.keys()
    }
}

/// What all operations of an engine share.
pub struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) transports: Transports,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) anchor: Anchor,
    pub(crate) ids: IdSource,
    pub(crate) seed: Seed,
    pub(crate) config: EngineConfig,
    pub(crate) bus: Arc<dyn EventBus>,
    pub(crate) media: Arc<dyn MediaStore>,
    pub(crate) settings: Arc<dyn UserSettingsSource>,
    pub(crate) wake: Wake,
    pub(crate) watch: Option<Arc<dyn LaneWatch>>,
    pub(crate) send_times: SendTimes,
    /// What an engine of this process knew and could not record before it lost its lease.
    evidence: Mutex<Vec<Finished>>,
    early_receipts: Mutex<EarlyReceipts>,
}

/// Most outcomes that wait for the next engine of this process; more than devices of one node that were sending at once.
const EVIDENCE_MAX: usize = 10_000;

impl Core {
    /// Keeps what outcomes of a lost lease prove: the next engine of this process hands it in, as evidence.
    pub(crate) fn keep_evidence(&self, finished: &[Finished]) {
        let mut evidence = self.evidence.lock().unwrap_or_else(PoisonError::into_inner);
        let room = EVIDENCE_MAX.saturating_sub(evidence.len());
        evidence.extend(finished.iter().filter_map(Finished::as_evidence).take(room));
    }

    /// Takes what engines before knew.
    pub(crate) fn take_evidence(&self) -> Vec<Finished> {
        std::mem::take(&mut *self.evidence.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Receipts that wait for their messages.
    pub(crate) fn early_receipts(&self) -> MutexGuard<'_, EarlyReceipts> {
        self.early_receipts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps those receipts that may have come before their message had the vendor's id.
    pub(crate) fn keep_early_receipts(&self, changes: Vec<Change>) {
        let (kept_for, most) = (self.config.early_receipts_kept_for, self.config.early_receipts_max);
        let now = self.lane_now().at();
        self.early_receipts().keep(changes, kept_for, most, now);
    }

    /// Tries the receipts again that are due; those that still find no message wait on.
    pub(crate) async fn match_early_receipts(&self) -> Result<(), StoreError> {
        let (most, batch) = (self.config.early_receipts_max, self.config.batch_max);
        let now = self.lane_now().at();
        loop {
            let Some(due) = self.early_receipts().take_due(now, batch) else {
                return Ok(());
            };
            let changes = due.iter().map(EarlyReceipt::change).collect();
            let set = ChangeSet {
                changes,
                ..ChangeSet::default()
            };
            match self.store.commit(set, WriteClass::Settle, self.now()).await {
                Ok(committed) if committed.matched.len() == due.len() => {}
                Ok(_) => self.early_receipts().put_back(due, most, now),
                Err(error) if error.is_not_found() => {}
                Err(error) => {
                    self.early_receipts().put_back(due, most, now);
                    return Err(error);
                }
            }
        }
    }

    /// The present, for lanes.
    pub(crate) fn lane_now(&self) -> LaneNow {
        self.anchor.now(self.clock.wall(), self.clock.monotonic())
    }

    /// The present on the wall clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.wall()
    }

    /// What comes of a call of a port within a time; `None` when that passes first.
    pub(crate) async fn within<T>(&self, limit: Duration, call: impl Future<Output = T> + Send) -> Option<T> {
        let until = self.clock.monotonic() + limit;
        match select(Box::pin(call), self.clock.sleep_until(until)).await {
            Either::Left((done, _)) => Some(done),
            Either::Right(_) => None,
        }
    }

    /// The person behind a number, as suppression knows them.
    pub(crate) fn person(&self, user: UserId, phone: &Phone) -> PersonKey {
        PersonKey::of(&self.seed, user, phone)
    }

    /// An event that happens now.
    pub(crate) fn event(&self, user_id: UserId, kind: EventKind) -> Event {
        let at = self.now();
        Event {
            id: EventId::new(&self.ids, at),
            user_id,
            kind,
            at,
        }
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("node", &self.config.node_name)
            .finish_non_exhaustive()
    }
}

/// An engine could not be assembled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The configuration has to be changed.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store did not answer.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Assembles an engine from its ports.
#[derive(Debug)]
#[must_use]
pub struct EngineBuilder {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    transports: Transports,
    config: EngineConfig,
    ids: Option<IdSource>,
    bus: Arc<dyn EventBus>,
    media: Arc<dyn MediaStore>,
    settings: Arc<dyn UserSettingsSource>,
    watch: Option<Arc<dyn LaneWatch>>,
}

impl EngineBuilder {
    /// An engine over a store, with a clock and the defaults for a node of that name.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>, config: EngineConfig) -> Self {
        Self {
            store,
            clock,
            transports: Transports::default(),
            config,
            ids: None,
            bus: Arc::new(NoBus),
            media: Arc::new(UrlMedia),
            settings: Arc::new(SameSettings::default()),
            watch: None,
        }
    }

    /// Adds a transport, in place of another of its platform.
    pub fn transport(mut self, transport: Arc<dyn Transport>) -> Self {
        self.transports.add(transport);
        self
    }

    /// Where hints for screens go; nowhere by default.
    pub fn bus(mut self, bus: Arc<dyn EventBus>) -> Self {
        self.bus = bus;
        self
    }

    /// Where media are loaded from; by default URLs are passed on to the vendor.
    pub fn media(mut self, media: Arc<dyn MediaStore>) -> Self {
        self.media = media;
        self
    }

    /// Where the settings of users come from; by default every user has the defaults.
    pub fn settings(mut self, settings: Arc<dyn UserSettingsSource>) -> Self {
        self.settings = settings;
        self
    }

    /// Who sees every attempt begin, with what its lane waited for; nobody by default.
    pub fn watch(mut self, watch: Arc<dyn LaneWatch>) -> Self {
        self.watch = Some(watch);
        self
    }

    /// Where ids come from; by default the operating system seeds them.
    pub fn ids(mut self, ids: IdSource) -> Self {
        self.ids = Some(ids);
        self
    }

    /// Reads the seed of the database and makes what engine and handle share.
    ///
    /// # Errors
    /// The configuration cannot be run with, or the store did not give its seed.
    pub async fn open(self) -> Result<Arc<Core>, OpenError> {
        self.config.check()?;
        let seed = self.store.seed(&Seed::from_entropy()).await?;
        let anchor = Anchor::new(self.clock.wall(), self.clock.monotonic());
        let core = Core {
            store: self.store,
            transports: self.transports,
            clock: self.clock,
            anchor,
            ids: self.ids.unwrap_or_else(IdSource::from_entropy),
            seed,
            config: self.config,
            bus: self.bus,
            media: self.media,
            settings: self.settings,
            wake: Wake::default(),
            watch: self.watch,
            send_times: SendTimes::default(),
            evidence: Mutex::default(),
            early_receipts: Mutex::default(),
        };
        Ok(Arc::new(core))
    }
}
