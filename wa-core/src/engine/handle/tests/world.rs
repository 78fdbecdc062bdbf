use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use crate::domain::access::RequestScope;
use crate::domain::campaign::{Campaign, CampaignStatus};
use crate::domain::device::Device;
use crate::domain::lead::Lead;
use crate::domain::message::MessageState;
use crate::domain::pacing::PacingPolicy;
use crate::engine::config::EngineConfig;
use crate::engine::handle::{Handle, HandleError, RecipientFilter};
use crate::engine::{Engine, EngineBuilder};
use crate::event::{Event, EventBus};
use crate::id::{CampaignId, IdSource, UserId};
use crate::plan::{CampaignDraft, DeviceDraft, FieldCode, LeadDraft, SaveAs};
use crate::store::{MemoryStore, OnDuplicate, PageRequest};
use crate::time::{Clock, Monotonic, Timestamp};
use crate::transport::StubTransport;

/// 2026-11-21T01:00:00Z, nine in the morning in Kuala Lumpur.
pub(super) const START: i64 = 1_795_222_800_000;

/// A clock that stands until it is moved.
#[derive(Debug)]
pub(super) struct HandClock(AtomicI64);

impl HandClock {
    pub(super) fn advance(&self, span: Duration) {
        self.0
            .fetch_add(i64::try_from(span.as_millis()).unwrap(), Ordering::SeqCst);
    }

    fn millis(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Clock for HandClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.millis())
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(Duration::from_millis(u64::try_from(self.millis() - START).unwrap()))
    }

    async fn sleep_until(&self, until: Monotonic) {
        if self.monotonic() < until {
            std::future::pending::<()>().await;
        }
    }
}

/// Keeps what was published.
#[derive(Debug, Default)]
pub(super) struct Heard(Mutex<Vec<Event>>);

#[async_trait]
impl EventBus for Heard {
    async fn publish(&self, events: &[Event]) {
        self.0.lock().unwrap().extend_from_slice(events);
    }

    fn listen(&self) -> crate::event::Listener {
        crate::event::NoBus.listen()
    }
}

impl Heard {
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

pub(super) struct World {
    pub(super) handle: Handle,
    pub(super) clock: Arc<HandClock>,
    pub(super) transport: Arc<StubTransport>,
    pub(super) heard: Arc<Heard>,
    pub(super) user: RequestScope,
    pub(super) other: RequestScope,
    pub(super) engine: Arc<Engine>,
}

impl World {
    pub(super) async fn new() -> Self {
        Self::with(StubTransport::new()).await
    }

    pub(super) async fn with(transport: StubTransport) -> Self {
        let clock = Arc::new(HandClock(AtomicI64::new(START)));
        let transport = Arc::new(transport);
        let heard = Arc::new(Heard::default());
        let ids = IdSource::seeded([3; 32]);
        let config = EngineConfig::new("node-1").pacing(PacingPolicy::unpaced());
        let core = EngineBuilder::new(Arc::new(MemoryStore::new()), clock.clone(), config)
            .transport(transport.clone())
            .bus(heard.clone())
            .ids(IdSource::seeded([4; 32]))
            .open()
            .await
            .unwrap();
        let engine = Engine::start(core.clone()).await.unwrap();
        Self {
            handle: Handle::new(core),
            user: RequestScope::user(UserId::new(&ids, clock.wall())),
            other: RequestScope::user(UserId::new(&ids, clock.wall())),
            clock,
            transport,
            heard,
            engine,
        }
    }

    /// Lets the engine work for a while.
    pub(super) async fn run(&self) {
        for _ in 0..20 {
            self.clock.advance(Duration::from_secs(2));
            self.engine.beat().await.unwrap();
            self.engine.balance().await.unwrap();
            self.engine.refresh(None).await.unwrap();
            self.engine.plan().await.unwrap();
            let mut ready = Vec::new();
            for candidate in self.engine.look().await.unwrap() {
                ready.extend(self.engine.prepare(candidate).await.unwrap());
            }
            for dispatch in self.engine.begin(ready).await.unwrap() {
                let finished = dispatch.run().await;
                self.engine.settle(&[finished]).await.unwrap();
            }
        }
    }

    pub(super) async fn device(&self, name: &str) -> Device {
        let draft = DeviceDraft {
            name: Some(name.to_owned()),
            platform: Some("stub".to_owned()),
            ..DeviceDraft::default()
        };
        self.handle.create_device(&self.user, &draft).await.unwrap()
    }

    pub(super) async fn lead(&self, device: &Device, phone: &str) -> Lead {
        let created = self
            .handle
            .create_lead(&self.user, &lead_draft(device, phone), OnDuplicate::Refuse)
            .await;
        created.unwrap().lead().clone()
    }

    /// A campaign of these many leads of one device, started and run as far as it goes.
    pub(super) async fn campaign_of(&self, leads: u32) -> (Device, Campaign) {
        let device = self.device("Sales").await;
        for number in 0..leads {
            self.lead(&device, &format!("+60123456{number:03}")).await;
        }
        let campaign = self.draft(&campaign_draft()).await;
        self.handle.start_campaign_now(&self.user, campaign.id).await.unwrap();
        self.run().await;
        let campaign = self.campaign(campaign.id).await;
        (device, campaign)
    }

    pub(super) async fn draft(&self, draft: &CampaignDraft) -> Campaign {
        let saved = self.handle.create_campaign(&self.user, draft, SaveAs::Draft).await;
        saved.unwrap().campaign
    }

    pub(super) async fn campaign(&self, id: CampaignId) -> Campaign {
        self.handle.store().campaign(&self.user, id).await.unwrap()
    }

    pub(super) async fn status(&self, id: CampaignId) -> CampaignStatus {
        self.campaign(id).await.status
    }

    pub(super) async fn states(&self, id: CampaignId) -> Vec<MessageState> {
        let filter = RecipientFilter::default();
        let page = self
            .handle
            .recipients(&self.user, id, &filter, &PageRequest::first(100))
            .await;
        page.unwrap().rows.into_iter().map(|message| message.state).collect()
    }
}

pub(super) fn lead_draft(device: &Device, phone: &str) -> LeadDraft {
    LeadDraft {
        name: Some("Aminah".to_owned()),
        phone: Some(phone.to_owned()),
        device_id: Some(device.id),
        ..LeadDraft::default()
    }
}

pub(super) fn campaign_draft() -> CampaignDraft {
    CampaignDraft {
        title: Some("Sale".to_owned()),
        message: Some("Hi {{name}}".to_owned()),
        date: Some("2026-11-21".to_owned()),
        time: Some("10:00".to_owned()),
        ..CampaignDraft::default()
    }
}

/// The fields that were refused, with the kind of wrong.
pub(super) fn refused<T: std::fmt::Debug>(result: Result<T, HandleError>) -> Vec<(String, FieldCode)> {
    match result {
        Err(HandleError::Invalid(errors)) => {
            let pairs = errors.into_iter().map(|error| (error.field.into_owned(), error.code));
            pairs.collect()
        }
        other => panic!("fields should be refused: {other:?}"),
    }
}

pub(super) fn missing<T: std::fmt::Debug>(result: Result<T, HandleError>) -> &'static str {
    match result {
        Err(HandleError::NotFound { entity }) => entity,
        other => panic!("it should not be found: {other:?}"),
    }
}

pub(super) fn conflict<T: std::fmt::Debug>(result: Result<T, HandleError>) -> String {
    match result {
        Err(HandleError::Conflict { entity, why }) => format!("{entity}: {why}"),
        other => panic!("it should conflict: {other:?}"),
    }
}
