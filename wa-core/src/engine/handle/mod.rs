//! What an embedder calls: everything that a person or a program asks of the engine.
//!
//! Each operation takes the [`RequestScope`] in which it may see and change things; what lies outside of it is
//! [`HandleError::NotFound`]. What is asked is given as a draft of plain values, checked as a whole: all problems come back
//! at once as [`FieldError`]s. Reads that need nothing beside the store go to
//! [`Handle::store`] directly; a [`StoreError`] turns into a [`HandleError`] by `?`.
//!
//! Operations return when what they did is durable. After a commit the events are passed to the bus and the devices that
//! got something to do are woken.

mod ahead;
mod campaigns;
mod chats;
mod devices;
mod direct;
mod enrolments;
mod error;
mod forecast;
mod inbound;
mod leads;
mod recipients;
mod saved_texts;
mod sequence_numbers;
mod sequences;
mod suppression;
mod timeline;
mod trace;

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

pub use self::campaigns::{CampaignNumbers, CampaignProgress, SavedCampaign, Uploaded};
pub use self::devices::{DeviceReport, DeviceRequest, PlatformDraft};
pub use self::direct::DirectSent;
pub use self::enrolments::{CONTACTS_MAX, Contact, ContactFilter, EnrolBy, Enrolled, ResendStep, StepResent};
pub use self::error::HandleError;
pub(crate) use self::inbound::Inlet;
pub use self::leads::{LeadCreated, LeadRow, LeadRowChange};
pub use self::recipients::{MarkAs, RecipientFilter, Resend, Resent};
pub use self::sequence_numbers::{
    SequenceNumbers, SequenceProgress, SequenceStepNumbers, SequenceSummary, SequencesByStatus, SequencesSummary,
};
pub use self::sequences::{EditEffect, EditPreview, OpenEnd, SavedSequence, SequenceDeleted, SequenceWithSteps};
pub use self::suppression::{OptOutImport, Person, PersonExport};
pub use self::timeline::{Happened, Moment, TIMELINE_MAX, Timeline, TimelineEntry, TimelineItem, TimelineKey};
pub use self::trace::{Check, MessageTrace, Rule, Ruling, Trace, TraceOf, WaitsFor};
use super::core::Core;
use crate::domain::access::{RequestScope, UserSettings};
use crate::domain::content::Media;
use crate::domain::device::Device;
use crate::domain::phone::{PersonKey, Phone};
use crate::domain::platform::Platform;
use crate::event::Event;
use crate::id::{DeviceId, UserId};
use crate::media::MediaError;
use crate::plan::{Carrier, FieldCode, FieldError, carried};
use crate::store::{ChangeSet, Committed, PageRequest, Store, StoreError, StoreErrorKind, WriteClass};
use crate::time::Timestamp;

/// How often a commit is tried whose answer did not come, where repeating it is harmless.
const COMMIT_TRIES_MAX: u32 = 3;

/// Most rows of one batch of an upload, an import or a change to many.
pub const BATCH_MAX: usize = 1_000;

/// Most pages of devices that are looked through for one request.
const DEVICE_PAGES_MAX: usize = 20;

/// What an embedder calls; cheap to clone.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
///
/// use wa_core::domain::access::RequestScope;
/// use wa_core::engine::config::EngineConfig;
/// use wa_core::engine::core::EngineBuilder;
/// use wa_core::engine::handle::Handle;
/// use wa_core::id::{IdSource, UserId};
/// use wa_core::plan::{CampaignDraft, DeviceDraft, LeadDraft, SaveAs};
/// use wa_core::store::{MemoryStore, OnDuplicate};
/// use wa_core::time::{Clock, SystemClock};
/// use wa_core::transport::StubTransport;
///
/// let clock = Arc::new(SystemClock::new());
/// let user = RequestScope::user(UserId::new(&IdSource::from_entropy(), clock.wall()));
/// let core = EngineBuilder::new(Arc::new(MemoryStore::new()), clock, EngineConfig::new("node-1"))
///     .transport(Arc::new(StubTransport::new()))
///     .open()
///     .await?;
/// let handle = Handle::new(core);
///
/// let device = DeviceDraft {
///     name: Some("Sales".into()),
///     platform: Some("stub".into()),
///     ..DeviceDraft::default()
/// };
/// let device = handle.create_device(&user, &device).await?;
/// let lead = LeadDraft {
///     name: Some("Aminah".into()),
///     phone: Some("012-345 6789".into()),
///     device_id: Some(device.id),
///     ..LeadDraft::default()
/// };
/// handle.create_lead(&user, &lead, OnDuplicate::MergeTriggers).await?;
///
/// let campaign = CampaignDraft {
///     title: Some("Hello".into()),
///     message: Some("Your number is {{phone}}.".into()),
///     ..CampaignDraft::default()
/// };
/// let saved = handle.create_campaign(&user, &campaign, SaveAs::Draft).await?;
/// handle.start_campaign_now(&user, saved.campaign.id).await?;
///
/// // A misspelt merge field is refused when the campaign is saved, not when it is sent.
/// let misspelt = CampaignDraft {
///     message: Some("Hi {{nmae}}".into()),
///     ..campaign
/// };
/// let error = handle.create_campaign(&user, &misspelt, SaveAs::Draft).await.unwrap_err();
/// assert!(error.to_string().contains("unknown merge field"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Handle {
    core: Arc<Core>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.core).finish()
    }
}

impl Handle {
    /// A handle to an engine.
    #[must_use]
    pub const fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The store, for reads.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.core.store
    }

    /// The present by the engine's clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.core.now()
    }

    /// The platforms that devices can have.
    pub fn platforms(&self) -> impl Iterator<Item = &Platform> {
        self.core.transports.platforms()
    }

    /// Tells the engine of work that reached the store by another way, such as a message enqueued in the caller's own
    /// transaction. Losing it costs at most one interval of looking.
    pub fn wake(&self, devices: impl IntoIterator<Item = DeviceId>) {
        self.core.wake.devices(devices);
        self.core.wake.plan();
    }

    /// The user of a scope that is not limited to some devices; `NotFound` otherwise.
    fn owner(scope: &RequestScope, entity: &'static str) -> Result<UserId, HandleError> {
        match scope.devices {
            None => Ok(scope.user_id),
            Some(_) => Err(HandleError::not_found(entity)),
        }
    }

    fn person(&self, user: UserId, phone: &Phone) -> PersonKey {
        self.core.person(user, phone)
    }

    async fn settings(&self, user: UserId) -> Result<UserSettings, HandleError> {
        Ok(self.core.settings.settings(user).await?)
    }

    /// Commits once: for changes of which a second try could not tell its own first one from somebody else's.
    async fn commit(&self, set: ChangeSet, class: WriteClass) -> Result<Committed, StoreError> {
        let events = set.events.clone();
        let committed = self.core.store.commit(set, class, self.now()).await?;
        self.tell(&events, &committed).await;
        Ok(committed)
    }

    /// Commits what is harmless to commit again, a few times while the store does not answer.
    async fn commit_repeatable(&self, set: ChangeSet, class: WriteClass) -> Result<Committed, StoreError> {
        let events = set.events.clone();
        let committed = self.commit_untold(set, class).await?;
        self.tell(&events, &committed).await;
        Ok(committed)
    }

    /// The same without telling of it.
    async fn commit_untold(&self, set: ChangeSet, class: WriteClass) -> Result<Committed, StoreError> {
        let mut tries = 1;
        loop {
            match self.core.store.commit(set.clone(), class, self.now()).await {
                Err(error) if error.kind == StoreErrorKind::Unavailable && tries < COMMIT_TRIES_MAX => tries += 1,
                result => return result,
            }
        }
    }

    async fn tell(&self, events: &[Event], committed: &Committed) {
        if !committed.wake.is_empty() {
            self.core.wake.devices(committed.wake.iter().copied());
        }
        if !events.is_empty() {
            self.core.bus.publish(events).await;
        }
    }

    /// A device that a field names.
    async fn device_of_field(
        &self,
        scope: &RequestScope,
        field: &'static str,
        id: DeviceId,
    ) -> Result<Result<Device, FieldError>, HandleError> {
        match self.core.store.device(scope, id).await {
            Ok(device) => Ok(Ok(device)),
            Err(error) if error.is_not_found() => {
                let error = FieldError::new(field, FieldCode::NotFound, "must be a device of the user");
                Ok(Err(error))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// All devices of a scope, up to a limit that no user reaches.
    async fn devices_of(&self, scope: &RequestScope) -> Result<Vec<Device>, HandleError> {
        let mut devices = Vec::new();
        let mut request = PageRequest::first(crate::store::PAGE_MAX);
        for _ in 0..DEVICE_PAGES_MAX {
            let page = self.core.store.devices(scope, &request).await?;
            devices.extend(page.rows);
            match page.next {
                Some(next) => request = PageRequest::after(next, crate::store::PAGE_MAX),
                None => break,
            }
        }
        Ok(devices)
    }

    /// What carries the messages of these platforms, as far as there is a transport.
    fn carriers<'a>(&'a self, platforms: &'a BTreeSet<Platform>) -> Vec<Carrier<'a>> {
        platforms.iter().filter_map(|platform| self.carrier(platform)).collect()
    }

    fn carrier<'a>(&'a self, platform: &'a Platform) -> Option<Carrier<'a>> {
        let transport = self.core.transports.get(platform)?;
        Some(Carrier {
            platform: platform.as_str(),
            capabilities: transport.capabilities(),
        })
    }

    /// What keeps a medium from being carried.
    async fn media_problems(&self, user: UserId, media: &Media, carriers: &[Carrier<'_>]) -> Vec<FieldError> {
        match self.core.media.load(user, media).await {
            Ok(loaded) => carried(&loaded, carriers),
            Err(MediaError::Gone(why)) => vec![FieldError::new(
                "media",
                FieldCode::Invalid,
                format!("cannot be used: {why}"),
            )],
            Err(MediaError::Unavailable(why)) => {
                vec![FieldError::new(
                    "media",
                    FieldCode::Invalid,
                    format!("cannot be reached now: {why}"),
                )]
            }
        }
    }
}

#[cfg(test)]
mod tests;
