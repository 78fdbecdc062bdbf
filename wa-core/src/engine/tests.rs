//! What goes wrong around an engine, step by step, on a clock that is moved by hand.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;

use super::config::EngineConfig;
use super::handle::Handle;
use super::node::{FollowUp, FollowUps};
use super::{Engine, EngineBuilder, LanePhase};
use crate::domain::access::RequestScope;
use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus, Routing};
use crate::domain::chat::ChatKind;
use crate::domain::content::{Content, Media, MediaKind, MediaSource};
use crate::domain::delivery::Delivery;
use crate::domain::device::{Credential, Device, Hold, HoldReason};
use crate::domain::lead::Lead;
use crate::domain::message::{Message, MessageScope, MessageState, Reason};
use crate::domain::pacing::{Caps, PacingPolicy};
use crate::domain::phone::Phone;
use crate::domain::platform::Platform;
use crate::domain::schedule::QuietHours;
use crate::id::{CampaignId, DeviceId, IdSource, LeadId, UserId};
use crate::media::{MediaError, MediaStore, UrlMedia};
use crate::plan::DirectDraft;
use crate::simulation::forecast::{ForecastControl, ForecastOptions, LatencySource, LatencyUsed};
use crate::store::{
    CampaignStore, Change, ChangeSet, DeviceStore, LeaseStore, MemoryStore, MessageFilter, OnDuplicate, OutboxStore,
    PageRequest, Store, WriteClass,
};
use crate::time::{Clock, Monotonic, SystemClock, Timestamp};
use crate::transport::{
    Capabilities, InboundMessage, InvalidDevice, MaybeSentCause, MediaLimit, MessageRef, NotSentKind, NumberCheck,
    NumberChecker, OutgoingMedia, OutgoingMessage, RestrictionScope, SendContext, SendError, SendReceipt,
    StubTransport, Transport, TransportDevice, TransportEvent, TransportMessageId, TransportSink,
};

/// 2026-11-21T01:00:00Z, nine in the morning in Kuala Lumpur.
const START: i64 = 1_795_222_800_000;

/// A clock that stands until it is moved.
#[derive(Debug)]
pub(super) struct HandClock(AtomicI64);

impl HandClock {
    pub(super) fn new() -> Self {
        Self(AtomicI64::new(START))
    }

    pub(super) fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * 1_000, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for HandClock {
    fn wall(&self) -> Timestamp {
        Timestamp::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Monotonic {
        let millis = self.0.load(Ordering::SeqCst) - START;
        Monotonic::from_start(Duration::from_millis(u64::try_from(millis).unwrap()))
    }

    async fn sleep_until(&self, until: Monotonic) {
        std::future::poll_fn(|_| {
            if self.monotonic() < until {
                std::task::Poll::Pending
            } else {
                std::task::Poll::Ready(())
            }
        })
        .await;
    }
}

/// A media store that never answers.
#[derive(Debug)]
struct Hanging;

#[async_trait]
impl MediaStore for Hanging {
    async fn load(&self, _user: UserId, _media: &Media) -> Result<OutgoingMedia, MediaError> {
        std::future::pending().await
    }
}

/// A media store that answers when it is let go, and counts.
#[derive(Debug, Default)]
struct Loading {
    begun: AtomicI64,
    goes: AtomicBool,
}

impl Loading {
    fn begun(&self) -> i64 {
        self.begun.load(Ordering::SeqCst)
    }

    fn let_go(&self) {
        self.goes.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl MediaStore for Loading {
    async fn load(&self, user: UserId, media: &Media) -> Result<OutgoingMedia, MediaError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        std::future::poll_fn(|context| {
            if self.goes.load(Ordering::SeqCst) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        UrlMedia.load(user, media).await
    }
}

struct World {
    store: Arc<MemoryStore>,
    clock: Arc<HandClock>,
    transport: Arc<StubTransport>,
    builder: EngineBuilder,
    ids: IdSource,
    user: UserId,
}

impl World {
    fn new(transport: StubTransport) -> Self {
        let (store, transport) = (Arc::new(MemoryStore::new()), Arc::new(transport));
        let clock = Arc::new(HandClock::new());
        let ids = IdSource::seeded([3; 32]);
        let config = EngineConfig::new("node-1").pacing(PacingPolicy::unpaced());
        let builder = EngineBuilder::new(store.clone(), clock.clone(), config)
            .transport(transport.clone())
            .ids(IdSource::seeded([4; 32]));
        let user = UserId::new(&ids, clock.wall());
        Self {
            store,
            clock,
            transport,
            builder,
            ids,
            user,
        }
    }

    async fn start(self) -> (Self, Arc<Engine>) {
        let Self { builder, store, .. } = self;
        let config = EngineConfig::new("node-1").pacing(PacingPolicy::unpaced());
        let next = EngineBuilder::new(store.clone(), self.clock.clone(), config);
        let engine = Engine::start(builder.open().await.unwrap()).await.unwrap();
        let world = Self {
            builder: next,
            store,
            ..self
        };
        (world, engine)
    }

    async fn commit(&self, change: Change) {
        let set = ChangeSet::one(change);
        self.store
            .commit(set, WriteClass::Api, self.clock.wall())
            .await
            .unwrap();
    }

    async fn device(&self, name: &str) -> DeviceId {
        let id = DeviceId::new(&self.ids, self.clock.wall());
        let device = Device::new(id, self.user, name, Platform::STUB, self.clock.wall());
        self.commit(Change::InsertDevice(Box::new(device))).await;
        id
    }

    async fn leads(&self, device: DeviceId, count: u32) {
        for _ in 0..count {
            let id = LeadId::new(&self.ids, self.clock.wall());
            let number = 10_000_000 + self.store.lead_count_of(self.user).await;
            let phone = Phone::from_e164(&format!("+6012{number}")).unwrap();
            let mut lead = Lead::new(id, self.user, Some(device), phone, self.clock.wall());
            lead.name = "Ali".to_owned();
            let lead = Box::new(lead);
            let on_duplicate = OnDuplicate::Refuse;
            self.commit(Change::InsertLead { lead, on_duplicate }).await;
        }
    }

    async fn campaign(&self, edit: impl FnOnce(&mut Campaign)) -> CampaignId {
        let now = self.clock.wall();
        let id = CampaignId::new(&self.ids, now);
        let mut campaign = Campaign::draft(id, self.user, "t", Content::text("Hi {{name}}"), now);
        campaign.status = CampaignStatus::Scheduled;
        campaign.scheduled_at = Some(now);
        edit(&mut campaign);
        self.commit(Change::InsertCampaign(Box::new(campaign))).await;
        id
    }

    async fn read(&self, id: CampaignId) -> Campaign {
        self.store.campaigns_by_id(&[id]).await.unwrap().remove(0)
    }

    async fn messages(&self, id: CampaignId) -> Vec<Message> {
        let filter = MessageFilter {
            scope: Some(MessageScope::Campaign(id)),
            ..MessageFilter::default()
        };
        let scope = RequestScope::user(self.user);
        let page = self.store.messages(&scope, &filter, &PageRequest::first(500)).await;
        page.unwrap().rows
    }

    async fn hold(&self, device_id: DeviceId) {
        let hold = Hold {
            reason: HoldReason::ByPerson,
            since_at: self.clock.wall(),
            detail: None,
        };
        self.commit(Change::SetDeviceHold {
            user_id: self.user,
            device_id,
            hold: Some(hold),
        })
        .await;
    }

    fn advance(&self, seconds: i64) {
        self.clock.advance(seconds);
    }

    /// One send of each lane that may.
    async fn send(&self, engine: &Arc<Engine>) {
        let mut ready = Vec::new();
        for candidate in engine.look().await.unwrap() {
            ready.extend(engine.prepare(candidate).await.unwrap());
        }
        for dispatch in engine.begin(ready).await.unwrap() {
            let finished = dispatch.run().await;
            engine.settle(&[finished]).await.unwrap();
        }
    }

    /// So many sends without an answer, so many seconds apart.
    async fn lose(&self, engine: &Arc<Engine>, count: u32, seconds: i64) {
        for _ in 0..count {
            self.transport.answer_next(Err(lost()));
            self.advance(seconds);
            engine.beat().await.unwrap();
            self.send(engine).await;
        }
    }

    async fn round(&self, engine: &Arc<Engine>) {
        self.advance(2);
        engine.beat().await.unwrap();
        engine.balance().await.unwrap();
        engine.refresh(None).await.unwrap();
        engine.plan().await.unwrap();
        let (_, finished) = engine.doubts().await.unwrap();
        engine.settle(&finished).await.unwrap();
        self.send(engine).await;
    }
}

impl MemoryStore {
    async fn lead_count_of(&self, user: UserId) -> u64 {
        use crate::store::{LeadFilter, LeadStore};
        let scope = RequestScope::user(user);
        self.lead_count(&scope, &LeadFilter::default()).await.unwrap()
    }
}

fn resending() -> Capabilities {
    Capabilities {
        resend_same_id: true,
        ..Capabilities::text(1_000)
    }
}

fn picture() -> Content {
    let source = MediaSource::Url("https://x.test/a.jpg".to_owned());
    Content::text("Look").with_media(Media::new(MediaKind::Image, source))
}

fn lost() -> SendError {
    SendError::maybe_sent(MaybeSentCause::Timeout, "")
}

#[tokio::test]
async fn pool_messages_leave_a_device_whose_credential_was_refused() {
    let world = World::new(StubTransport::new());
    let first = world.device("a").await;
    world.leads(first, 6).await;
    let id = world.campaign(|campaign| campaign.routing = Routing::RoundRobin).await;
    let (world, engine) = world.start().await;
    world
        .transport
        .answer_next(Err(SendError::not_sent(NotSentKind::Unauthenticated, "")));
    world.round(&engine).await;
    world.round(&engine).await;
    let waiting = world.messages(id).await;
    assert!(waiting.iter().all(|message| message.device_id.is_none()), "{waiting:?}");
    world.device("b").await;
    for _ in 0..10 {
        world.round(&engine).await;
    }
    assert_eq!(world.read(id).await.status, CampaignStatus::Completed);
}

#[tokio::test]
async fn pool_messages_leave_a_device_that_was_closed_while_no_node_looked() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 2).await;
    let id = world.campaign(|campaign| campaign.routing = Routing::Balanced).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    assert!(
        world
            .messages(id)
            .await
            .iter()
            .all(|message| message.device_id == Some(device))
    );
    engine.leave().await.unwrap();
    world.hold(device).await;
    let (world, engine) = world.start().await;
    engine.refresh(None).await.unwrap();
    assert!(
        world
            .messages(id)
            .await
            .iter()
            .all(|message| message.device_id.is_none())
    );
}

#[tokio::test]
async fn a_campaign_whose_device_never_comes_online_completes_when_its_messages_expire() {
    for routing in [Routing::OwnDevice, Routing::Balanced] {
        let world = World::new(StubTransport::new());
        let device = world.device("a").await;
        world.leads(device, 3).await;
        world.hold(device).await;
        let id = world
            .campaign(|campaign| {
                campaign.routing = routing;
                campaign.expires_after = Duration::from_secs(3_600);
            })
            .await;
        let (world, engine) = world.start().await;
        world.round(&engine).await;
        let next_at = engine.plan().await.unwrap().next_at;
        assert_eq!(next_at, world.messages(id).await.iter().map(|one| one.expires_at).min());
        world.advance(3_600);
        world.round(&engine).await;
        let read = world.read(id).await;
        assert_eq!(read.status, CampaignStatus::Completed, "{routing:?}: it waits for ever");
        for message in world.messages(id).await {
            assert_eq!(
                (message.state, message.reason),
                (MessageState::Skipped, Some(Reason::Expired))
            );
        }
    }
}

#[tokio::test]
async fn a_device_that_is_read_twice_keeps_the_lane_that_is_sending() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 1).await;
    world.campaign(|_| {}).await;
    let (_world, engine) = world.start().await;
    engine.plan().await.unwrap();
    let candidate = engine.look().await.unwrap().remove(0);
    let ready = engine.prepare(candidate).await.unwrap().unwrap();
    let dispatch = engine.begin(vec![ready]).await.unwrap().remove(0);
    let owned = engine.core.store.owned(&[device]).await.unwrap();
    engine.adopt(owned).await.unwrap();
    assert_eq!(
        engine.lanes(None)[0].phase,
        LanePhase::Sending,
        "a second read forgot what is being sent"
    );
    let finished = dispatch.run().await;
    engine.settle(&[finished]).await.unwrap();
}

#[tokio::test]
async fn a_picture_that_is_sent_again_with_the_same_id_is_still_a_picture() {
    let limit = MediaLimit {
        kind: MediaKind::Image,
        mimes: vec!["image/jpeg"],
        size_max_bytes: 1_000,
        caption_max: 1_000,
        by_url: true,
        by_bytes: true,
    };
    let capabilities = Capabilities {
        media: vec![limit],
        ..resending()
    };
    let world = World::new(StubTransport::new().with_capabilities(capabilities));
    let device = world.device("a").await;
    world.leads(device, 1).await;
    world.campaign(|campaign| campaign.content = picture()).await;
    let (world, engine) = world.start().await;
    world.transport.answer_next(Err(lost()));
    world.round(&engine).await;
    world.advance(2);
    let (_, finished) = engine.doubts().await.unwrap();
    assert!(finished.is_empty());
    let candidate = engine.look().await.unwrap().remove(0);
    let ready = engine.prepare(candidate).await.unwrap().unwrap();
    assert!(format!("{ready:?}").contains("outgoing: Some"), "{ready:?}");
}

#[tokio::test]
async fn quiet_hours_of_one_campaign_do_not_hold_up_another_of_the_same_device() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 3).await;
    let quiet = world
        .campaign(|campaign| {
            let (from, until) = ("08:00".parse().unwrap(), "20:00".parse().unwrap());
            campaign.quiet_hours = Some(QuietHours::new(from, until).unwrap());
        })
        .await;
    let other = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    for _ in 0..12 {
        world.round(&engine).await;
    }
    assert_eq!(world.read(other).await.status, CampaignStatus::Completed);
    let waiting = world.messages(quiet).await;
    assert!(waiting.iter().all(|message| message.state == MessageState::Queued));
}

/// What a forecast says of the gateways.
async fn latencies(engine: &Engine, id: CampaignId, user: UserId) -> Vec<LatencyUsed> {
    let handle = Handle::new(Arc::clone(&engine.core));
    let (options, control) = (ForecastOptions::default(), ForecastControl::new());
    let scope = RequestScope::user(user);
    let told = handle.forecast_campaign(&scope, id, &options, &control).await;
    told.unwrap().latencies
}

#[tokio::test]
async fn a_forecast_takes_the_times_that_its_engine_measured_once_there_are_enough() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 30).await;
    let next = world.campaign(|campaign| campaign.status = CampaignStatus::Draft).await;
    world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    world.round(&engine).await;
    let used = latencies(&engine, next, world.user).await;
    assert_eq!((used[0].source, used[0].mean_ms), (LatencySource::Assumed, 600));
    for _ in 0..30 {
        world.round(&engine).await;
    }
    let used = latencies(&engine, next, world.user).await;
    assert_eq!((used[0].source, used[0].measured), (LatencySource::Measured, 30));
    assert_eq!((used[0].least_ms, used[0].most_ms), (0, 0), "the stub answers at once");
}

#[tokio::test]
async fn messages_that_fail_before_any_attempt_pause_their_campaign() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 20).await;
    let id = world.campaign(|campaign| campaign.content = picture()).await;
    let (world, engine) = world.start().await;
    for _ in 0..15 {
        world.round(&engine).await;
    }
    let campaign = world.read(id).await;
    assert_eq!(
        (campaign.status, campaign.reason),
        (CampaignStatus::Paused, Some(CampaignReason::ErrorRate))
    );
}

#[test]
fn what_is_asked_for_again_while_it_is_done_is_done_again() {
    let mut follow_ups = FollowUps::default();
    let next = FollowUp::CampaignErrors(UserId::MIN, CampaignId::MIN);
    follow_ups.ask(next.clone());
    let under_way = follow_ups.all();
    follow_ups.ask(next.clone());
    follow_ups.done(&under_way[0].0, under_way[0].1);
    let left = follow_ups.all();
    assert_eq!(left.len(), 1, "the second one was not looked at");
    follow_ups.done(&left[0].0, left[0].1);
    assert!(follow_ups.all().is_empty());
}

#[tokio::test]
async fn a_restriction_that_is_not_recorded_yet_survives_a_reading_of_the_device() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 2).await;
    world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    let restricted = NotSentKind::Restricted {
        until: None,
        scope: RestrictionScope::All,
    };
    world.transport.answer_next(Err(SendError::not_sent(restricted, "")));
    engine.plan().await.unwrap();
    world.send(&engine).await;
    assert_eq!(world.transport.sent().len(), 1);
    engine.refresh(None).await.unwrap();
    world.advance(2);
    world.send(&engine).await;
    assert_eq!(world.transport.sent().len(), 1, "a restricted account sent");
}

#[tokio::test]
async fn doubts_of_closed_devices_do_not_hide_those_of_others() {
    let world = World::new(StubTransport::new().with_capabilities(resending()));
    let mut devices = BTreeSet::new();
    for number in 0..201 {
        let device = world.device(&format!("d{number}")).await;
        world.leads(device, 1).await;
        devices.insert(device);
        world.transport.answer_next(Err(lost()));
    }
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    world.send(&engine).await;
    let doubtful = world.messages(id).await;
    assert!(doubtful.iter().all(|message| message.state == MessageState::InDoubt));
    let last = doubtful.last().unwrap();
    for device in devices.into_iter().filter(|device| Some(*device) != last.device_id) {
        world.hold(device).await;
    }
    world.round(&engine).await;
    world.round(&engine).await;
    let scope = RequestScope::user(world.user);
    let last = world.store.message(&scope, last.id).await.unwrap();
    assert_eq!(last.state, MessageState::Sent);
}

fn is_done(message: &Message) -> bool {
    message.state == MessageState::Sent
}

#[tokio::test]
async fn messages_in_doubt_of_one_lane_were_once_sent_again_one_a_minute() {
    let world = World::new(StubTransport::new().with_capabilities(resending()));
    let device = world.device("a").await;
    world.leads(device, 20).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    world.lose(&engine, 20, 2).await;
    let doubtful = world.messages(id).await;
    assert!(doubtful.iter().all(|message| message.state == MessageState::InDoubt));
    // One after the other, as the lane sends.
    for _ in 0..20 {
        world.round(&engine).await;
    }
    let messages = world.messages(id).await;
    assert_eq!(messages.iter().filter(|message| is_done(message)).count(), 20);
    assert_eq!(world.transport.sent().len(), 40, "each twice");
}

#[tokio::test]
async fn a_lane_that_was_never_idle_once_sent_all_that_was_newer_before_what_was_in_doubt() {
    let world = World::new(StubTransport::new().with_capabilities(resending()));
    let device = world.device("a").await;
    world.leads(device, 5).await;
    world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    world.transport.answer_next(Err(lost()));
    world.send(&engine).await;
    let doubtful = world.transport.sent().remove(0).message_id;
    let candidate = engine.look().await.unwrap().remove(0);
    let ready = engine.prepare(candidate).await.unwrap().unwrap();
    let dispatch = engine.begin(vec![ready]).await.unwrap().remove(0);
    assert_eq!(engine.lanes(None)[0].phase, LanePhase::Sending);
    let (_, finished) = engine.doubts().await.unwrap();
    engine.settle(&finished).await.unwrap();
    let sent = dispatch.run().await;
    engine.settle(&[sent]).await.unwrap();
    world.send(&engine).await;
    assert_eq!(world.transport.sent().last().unwrap().message_id, doubtful);
}

#[tokio::test]
async fn what_a_lane_sends_again_is_not_taken_up_a_second_time_meanwhile() {
    let world = World::new(StubTransport::new().with_capabilities(resending()));
    let device = world.device("a").await;
    world.leads(device, 1).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    world.transport.answer_next(Err(lost()));
    world.send(&engine).await;
    assert!(engine.doubts().await.unwrap().1.is_empty());
    let candidate = engine.look().await.unwrap().remove(0);
    assert!(
        engine.doubts().await.unwrap().1.is_empty(),
        "it is put off while it is prepared"
    );
    let ready = engine.prepare(candidate).await.unwrap().unwrap();
    let dispatch = engine.begin(vec![ready]).await.unwrap().remove(0);
    assert!(
        engine.doubts().await.unwrap().1.is_empty(),
        "it is put off while it is sent"
    );
    let sent = dispatch.run().await;
    engine.settle(&[sent]).await.unwrap();
    world.round(&engine).await;
    assert_eq!(world.transport.sent().len(), 2);
    assert!(world.messages(id).await.iter().all(is_done));
}

#[tokio::test]
async fn a_device_that_comes_back_sends_what_is_in_doubt_at_once() {
    let world = World::new(StubTransport::new().with_capabilities(resending()));
    let device = world.device("a").await;
    world.leads(device, 3).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    world.lose(&engine, 3, 2).await;
    world.hold(device).await;
    // So long that each is put off for as long as that ever is.
    for _ in 0..100 {
        world.round(&engine).await;
    }
    assert_eq!(world.transport.sent().len(), 3, "it sends nothing while it is on hold");
    world
        .commit(Change::SetDeviceHold {
            user_id: world.user,
            device_id: device,
            hold: None,
        })
        .await;
    for _ in 0..4 {
        world.round(&engine).await;
    }
    assert!(world.messages(id).await.iter().all(is_done));
}

#[tokio::test]
async fn messages_in_doubt_that_wait_for_a_cap_do_not_hold_up_others_or_what_is_urgent() {
    let mut world = World::new(StubTransport::new().with_capabilities(resending()));
    let config = EngineConfig::new("node-1").pacing(PacingPolicy::human());
    world.builder =
        EngineBuilder::new(world.store.clone(), world.clock.clone(), config).transport(world.transport.clone());
    let device = world.device("a").await;
    let scope = RequestScope::user(world.user);
    let mut capped = world.store.device(&scope, device).await.unwrap();
    capped.caps = Some(Caps::default().with_hour_max(10).unwrap());
    world.commit(Change::UpdateDevice(Box::new(capped))).await;
    world.leads(device, 10).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    world.lose(&engine, 10, 20).await;
    for _ in 0..20 {
        world.round(&engine).await;
    }
    assert_eq!(world.transport.sent().len(), 10, "the cap of the hour is used up");
    let draft = DirectDraft {
        phone: Some("+60127777777".into()),
        message: Some("now".into()),
        device_id: Some(device),
        ..DirectDraft::default()
    };
    Handle::new(Arc::clone(&engine.core))
        .send_direct(&scope, &draft)
        .await
        .unwrap();
    engine.wake(&BTreeSet::from([device]));
    world.send(&engine).await;
    assert_eq!(world.transport.sent().last().unwrap().text, "now");
    world.advance(3_600);
    for _ in 0..120 {
        world.round(&engine).await;
    }
    assert!(world.messages(id).await.iter().all(is_done));
}

/// A transport that refuses to prepare messages while it is told to, and counts.
#[derive(Debug, Default)]
struct Unready {
    refusal: Mutex<Option<NotSentKind>>,
    asked: AtomicI64,
    /// How many numbers it checks at once; what it was asked for, and why it does not tell.
    ahead: AtomicU32,
    checked: Mutex<Vec<Vec<Phone>>>,
    untold: Mutex<Option<NotSentKind>>,
    inner: StubTransport,
}

impl Unready {
    fn refuse(&self, refusal: Option<NotSentKind>) {
        *self.refusal.lock().unwrap() = refusal;
    }
}

#[async_trait]
impl Transport for Unready {
    fn platform(&self) -> Platform {
        Platform::STUB
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn check_device(&self, device: &TransportDevice) -> Result<(), InvalidDevice> {
        self.inner.check_device(device)
    }

    fn needs_prepare(&self, _message: &OutgoingMessage) -> bool {
        true
    }

    async fn prepare(&self, _context: &SendContext, _message: &OutgoingMessage) -> Result<(), SendError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        match self.refusal.lock().unwrap().clone() {
            None => Ok(()),
            Some(kind) => Err(SendError::not_sent(kind, "")),
        }
    }

    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        self.inner.send(context, message).await
    }

    fn as_number_checker(&self) -> Option<&dyn NumberChecker> {
        Some(self)
    }
}

#[async_trait]
impl NumberChecker for Unready {
    async fn check(&self, _context: &SendContext, phones: &[Phone]) -> Result<Vec<NumberCheck>, SendError> {
        self.checked.lock().unwrap().push(phones.to_vec());
        if let Some(kind) = self.untold.lock().unwrap().clone() {
            return Err(SendError::not_sent(kind, ""));
        }
        let there = |phone: &Phone| NumberCheck {
            phone: *phone,
            on_whatsapp: true,
        };
        Ok(phones.iter().map(there).collect())
    }

    fn check_ahead(&self, _context: &SendContext, phone: &Phone) -> u32 {
        let is_known = self
            .checked
            .lock()
            .unwrap()
            .iter()
            .flatten()
            .any(|known| known == phone);
        if is_known { 0 } else { self.ahead.load(Ordering::SeqCst) }
    }
}

/// Ten messages of one device, ready to be looked at.
async fn unready() -> (World, Arc<Engine>, Arc<Unready>, CampaignId) {
    let mut world = World::new(StubTransport::new());
    let transport = Arc::new(Unready::default());
    let config = EngineConfig::new("node-1").pacing(PacingPolicy::unpaced());
    world.builder = EngineBuilder::new(world.store.clone(), world.clock.clone(), config).transport(transport.clone());
    let device = world.device("a").await;
    world.leads(device, 10).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    (world, engine, transport, id)
}

#[tokio::test]
async fn a_message_that_cannot_be_prepared_for_now_is_put_off_and_others_go() {
    let (world, engine, transport, id) = unready().await;
    transport.refuse(Some(NotSentKind::Unavailable));
    world.send(&engine).await;
    transport.refuse(None);
    for _ in 0..9 {
        world.round(&engine).await;
    }
    let messages = world.messages(id).await;
    let waits: Vec<_> = messages.iter().filter(|message| !is_done(message)).collect();
    assert_eq!(waits.len(), 1, "{waits:?}");
    assert_eq!(
        (waits[0].state, waits[0].reason, waits[0].refusal_count),
        (MessageState::Queued, Some(Reason::GatewayUnavailable), 0)
    );
    world.advance(30);
    world.round(&engine).await;
    assert!(world.messages(id).await.iter().all(is_done));
}

#[tokio::test]
async fn numbers_of_the_next_strangers_are_checked_with_that_of_a_message() {
    let (world, engine, transport, id) = unready().await;
    transport.ahead.store(4, Ordering::SeqCst);
    for _ in 0..10 {
        world.round(&engine).await;
    }
    let sent: Vec<_> = transport.inner.sent().iter().map(|message| message.to).collect();
    assert_eq!(sent.len(), 10);
    let checked = transport.checked.lock().unwrap().clone();
    assert_eq!(checked, sent.chunks(4).map(<[_]>::to_vec).collect::<Vec<_>>());
    assert!(world.messages(id).await.iter().all(is_done));
}

#[tokio::test]
async fn numbers_that_cannot_be_checked_ahead_hold_up_what_would_fail_too_and_nothing_else() {
    let (world, engine, transport, id) = unready().await;
    transport.ahead.store(4, Ordering::SeqCst);
    *transport.untold.lock().unwrap() = Some(NotSentKind::RateLimited { retry_after: None });
    let due = world.messages(id).await;
    world.send(&engine).await;
    assert_eq!(transport.checked.lock().unwrap().len(), 1);
    assert_eq!(transport.asked.load(Ordering::SeqCst), 0, "it is not asked once more");
    assert_eq!(world.messages(id).await, due, "the lane waits");
    transport.checked.lock().unwrap().clear();
    *transport.untold.lock().unwrap() = Some(NotSentKind::Unavailable);
    for _ in 0..60 {
        world.round(&engine).await;
    }
    assert_eq!(transport.asked.load(Ordering::SeqCst), 10, "each is prepared alone");
    assert!(world.messages(id).await.iter().all(is_done));
}

#[tokio::test]
async fn a_device_without_connection_once_put_its_whole_queue_off_message_by_message() {
    let (world, engine, away, id) = unready().await;
    away.refuse(Some(NotSentKind::DeviceOffline));
    let due = world.messages(id).await;
    for _ in 0..10 {
        world.send(&engine).await;
    }
    assert_eq!(
        away.asked.load(Ordering::SeqCst),
        1,
        "the lane waits before it asks again"
    );
    assert_eq!(world.messages(id).await, due, "no message was touched");
    away.refuse(None);
    engine.refresh(None).await.unwrap();
    world.send(&engine).await;
    assert_eq!(
        away.asked.load(Ordering::SeqCst),
        2,
        "it does not wait any longer than its device"
    );
    for _ in 0..16 {
        world.round(&engine).await;
    }
    assert!(world.messages(id).await.iter().all(is_done));
}

#[tokio::test]
async fn media_that_never_load_hold_up_their_lane_for_a_while_and_no_longer() {
    let limit = MediaLimit {
        kind: MediaKind::Image,
        mimes: vec!["image/jpeg"],
        size_max_bytes: 1_000,
        caption_max: 1_000,
        by_url: true,
        by_bytes: true,
    };
    let capabilities = Capabilities {
        media: vec![limit],
        ..Capabilities::text(1_000)
    };
    let mut world = World::new(StubTransport::new().with_capabilities(capabilities));
    world.builder = world.builder.media(Arc::new(Hanging));
    let device = world.device("a").await;
    world.leads(device, 1).await;
    world.campaign(|campaign| campaign.content = picture()).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    let candidate = engine.look().await.unwrap().remove(0);
    let mut preparing = Box::pin(engine.prepare(candidate));
    assert!((&mut preparing).now_or_never().is_none());
    world.advance(60);
    let ended = preparing.now_or_never().expect("it is given up");
    assert!(ended.unwrap().is_none());
    assert_eq!(engine.lanes(None)[0].phase, LanePhase::Idle);
}

#[tokio::test]
async fn what_a_fenced_runner_knew_was_forgotten_and_stayed_in_doubt() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 1).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    let candidate = engine.look().await.unwrap().remove(0);
    let ready = engine.prepare(candidate).await.unwrap().unwrap();
    let finished = engine.begin(vec![ready]).await.unwrap().remove(0).run().await;
    let (world, other) = world.start().await;
    let beat = other.core.store.nodes().await.unwrap();
    let beat = beat.iter().find(|node| node.incarnation == engine.incarnation());
    let (by, target, beat) = (other.incarnation(), engine.incarnation(), beat.unwrap().beat);
    let store = &other.core.store;
    store.fence(by, target, beat, other.core.now()).await.unwrap();
    assert_eq!(world.messages(id).await[0].state, MessageState::InDoubt);
    engine.give_in(finished);
    let core = Arc::clone(&engine.core);
    let ended = super::Runner::new(engine).run(std::future::pending()).now_or_never();
    assert_eq!(ended, Some(super::Ended::Fenced));
    let next = Engine::start(core).await.unwrap();
    other.balance().await.unwrap();
    next.settle(&next.take_given_in()).await.unwrap();
    assert_eq!(world.messages(id).await[0].state, MessageState::Sent);
}

#[tokio::test]
async fn declining_a_message_of_a_lane_that_is_not_ours_any_more_once_spun() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 1).await;
    world
        .campaign(|campaign| campaign.content = Content::text("x".repeat(100_000)))
        .await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    let owned = world.store.owned(&[device]).await.unwrap().remove(0);
    let devices = [(device, owned.epoch)];
    let now = world.clock.wall();
    world.store.release(engine.incarnation(), &devices, now).await.unwrap();
    assert!(engine.look().await.unwrap().is_empty());
    let next = engine.next_look_at().unwrap();
    assert!(next > world.clock.monotonic(), "it is looked at again and again");
    assert!(
        engine.core.wake.take().changed.contains(&device),
        "its owner is read again"
    );
}

#[tokio::test]
async fn what_an_old_credential_was_told_once_put_a_device_with_a_new_one_on_hold() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 2).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    let refused = || Err(SendError::not_sent(NotSentKind::Unauthenticated, ""));
    world.transport.answer_next(refused());
    engine.plan().await.unwrap();
    let candidate = engine.look().await.unwrap().remove(0);
    let ready = engine.prepare(candidate).await.unwrap().unwrap();
    let finished = engine.begin(vec![ready]).await.unwrap().remove(0).run().await;
    let scope = RequestScope::user(world.user);
    let mut changed = world.store.device(&scope, device).await.unwrap();
    changed.credential = Credential::new("another");
    world.commit(Change::UpdateDevice(Box::new(changed))).await;
    engine.settle(&[finished]).await.unwrap();
    for _ in 0..5 {
        world.round(&engine).await;
    }
    assert_eq!(world.store.device(&scope, device).await.unwrap().hold, None);
    assert_eq!(world.read(id).await.status, CampaignStatus::Completed);
}

#[tokio::test]
async fn what_was_in_doubt_was_once_sent_again_by_the_account_that_a_device_became() {
    let world = World::new(StubTransport::new().with_capabilities(resending()));
    let device = world.device("a").await;
    world.leads(device, 2).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    world.lose(&engine, 1, 2).await;
    let scope = RequestScope::user(world.user);
    let mut changed = world.store.device(&scope, device).await.unwrap();
    changed.credential = Credential::new("another account");
    world.commit(Change::UpdateDevice(Box::new(changed))).await;
    for _ in 0..10 {
        world.round(&engine).await;
    }
    assert_eq!(world.transport.sent().len(), 2, "each once");
    let mut told: Vec<_> = world.messages(id).await;
    told.sort_by_key(|message| message.state);
    let told: Vec<_> = told.iter().map(|message| (message.state, message.reason)).collect();
    let unknown = (MessageState::Unknown, Some(Reason::CannotTell));
    assert_eq!(told, [(MessageState::Sent, None), unknown]);
    assert_eq!(world.read(id).await.status, CampaignStatus::Completed);
}

#[tokio::test]
async fn a_message_to_a_person_who_was_erased_while_it_was_sent_once_stayed_in_doubt_for_ever() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 1).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    let candidate = engine.look().await.unwrap().remove(0);
    let ready = engine.prepare(candidate).await.unwrap().unwrap();
    let _under_way = engine.begin(vec![ready]).await.unwrap();
    let message = world.messages(id).await.remove(0);
    let erase = Change::ErasePerson {
        user_id: world.user,
        person: message.person,
        phone: message.phone.unwrap(),
    };
    world.commit(erase).await;
    let (world, other) = world.start().await;
    let nodes = other.core.store.nodes().await.unwrap();
    let beat = |node: &&crate::store::NodeRecord| node.incarnation == engine.incarnation();
    let beat = nodes.iter().find(beat).unwrap().beat;
    let (by, now) = (other.incarnation(), other.core.now());
    world.store.fence(by, engine.incarnation(), beat, now).await.unwrap();
    for _ in 0..3 {
        world.round(&other).await;
    }
    let message = world.messages(id).await.remove(0);
    let told = (message.state, message.reason);
    assert_eq!(told, (MessageState::Unknown, Some(Reason::EndedInDoubt)));
    assert_eq!(world.read(id).await.status, CampaignStatus::Completed);
}

#[tokio::test]
async fn hints_that_never_end_once_kept_a_node_from_reading_what_another_changed() {
    let (store, clock) = (Arc::new(MemoryStore::new()), Arc::new(SystemClock::new()));
    let ids = IdSource::seeded([3; 32]);
    let user = UserId::new(&ids, clock.wall());
    let commit = async |change| {
        let set = ChangeSet::one(change);
        store.commit(set, WriteClass::Api, clock.wall()).await.unwrap();
    };
    let mut devices = Vec::new();
    for name in ["a", "b"] {
        let id = DeviceId::new(&ids, clock.wall());
        let device = Device::new(id, user, name, Platform::STUB, clock.wall());
        commit(Change::InsertDevice(Box::new(device))).await;
        devices.push(id);
    }
    let mut config = EngineConfig::new("node-1").pacing(PacingPolicy::unpaced());
    config.refresh_every = Duration::from_millis(500);
    let builder = EngineBuilder::new(store.clone(), clock.clone(), config);
    let core = builder.transport(Arc::new(StubTransport::new())).open().await.unwrap();
    let engine = Engine::start(core).await.unwrap();
    let hold = Hold {
        reason: HoldReason::ByPerson,
        since_at: clock.wall(),
        detail: None,
    };
    let closed = |engine: &Engine| engine.lanes(Some(user)).iter().any(|lane| !lane.may_send);
    let stop = {
        let engine = Arc::clone(&engine);
        async move {
            // Written by another node, so that nobody tells this one.
            commit(Change::SetDeviceHold {
                user_id: user,
                device_id: devices[0],
                hold: Some(hold),
            })
            .await;
            let mut hints = tokio::time::interval(Duration::from_millis(20));
            while !closed(&engine) {
                hints.tick().await;
                engine.core.wake.changed(devices[1]);
            }
        }
    };
    let running = super::Runner::new(engine).run(stop);
    let ended = tokio::time::timeout(Duration::from_secs(20), running).await;
    assert_eq!(ended.expect("the hold is seen"), super::Ended::Stopped);
}

#[tokio::test]
async fn a_hold_that_a_person_set_was_once_replaced_by_the_engine() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 1).await;
    world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    let refused = SendError::not_sent(NotSentKind::Unauthenticated, "");
    world.transport.answer_next(Err(refused));
    engine.plan().await.unwrap();
    world.send(&engine).await;
    world.hold(device).await;
    engine.plan().await.unwrap();
    let scope = RequestScope::user(world.user);
    let hold = world.store.device(&scope, device).await.unwrap().hold.unwrap();
    assert_eq!(hold.reason, HoldReason::ByPerson);
}

#[tokio::test]
async fn a_node_that_the_store_has_forgotten_must_start_anew() {
    let world = World::new(StubTransport::new());
    let (world, engine) = world.start().await;
    let (_world, other) = world.start().await;
    let beat = other.core.store.nodes().await.unwrap()[0].beat;
    let now = other.core.now();
    let store = &other.core.store;
    store
        .fence(other.incarnation(), engine.incarnation(), beat, now)
        .await
        .unwrap();
    assert_eq!(store.forget_nodes(now + Duration::from_secs(1), 10).await.unwrap(), 1);
    assert!(engine.beat().await.unwrap_err().is_not_found());
    assert!(engine.is_fenced());
}

#[tokio::test]
async fn nodes_that_were_killed_long_ago_are_forgotten() {
    let world = World::new(StubTransport::new());
    let (world, engine) = world.start().await;
    let (world, other) = world.start().await;
    world.advance(20);
    other.beat().await.unwrap();
    other.balance().await.unwrap();
    for _ in 0..2 {
        world.advance(20);
        other.beat().await.unwrap();
        other.balance().await.unwrap();
    }
    assert_eq!(
        other.core.store.nodes().await.unwrap().len(),
        2,
        "the dead one is fenced"
    );
    other.prune().await.unwrap();
    assert_eq!(
        other.core.store.nodes().await.unwrap().len(),
        2,
        "and remembered for a while"
    );
    world.advance(7_200);
    other.prune().await.unwrap();
    assert_eq!(other.core.store.nodes().await.unwrap().len(), 1);
    assert!(engine.beat().await.is_err());
}

#[tokio::test]
async fn chats_are_removed_after_30_days_page_by_page_until_nothing_old_is_left() {
    let mut world = World::new(StubTransport::new());
    let mut config = EngineConfig::new("node-1").pacing(PacingPolicy::unpaced());
    config.sweep_page = 2;
    world.builder = EngineBuilder::new(world.store.clone(), world.clock.clone(), config);
    let device = world.device("a").await;
    let (world, engine) = world.start().await;
    let handle = Handle::new(Arc::clone(&engine.core));
    let wrote = |number: u32, days: u64| {
        let id = TransportMessageId::new(format!("in-{number}-{days}")).unwrap();
        TransportEvent::Inbound(InboundMessage {
            provider_id: id,
            peer: Phone::from_e164(&format!("+6012345678{number}")).unwrap(),
            peer_name: None,
            kind: ChatKind::Text,
            text: "hello".to_owned(),
            media_url: None,
            from_me: false,
            at: Some(engine.core.now() - Duration::from_secs(days * 86_400)),
        })
    };
    // Seven people wrote 20 days ago, one of them ten days ago too.
    let written = (0..7).map(|number| wrote(number, 20)).chain([wrote(0, 10)]);
    handle.accept(world.user, device, written.collect()).await.unwrap();
    let user = RequestScope::user(world.user);
    let chats = async || {
        let chats = handle.chats(&user, device, &PageRequest::first(100)).await;
        chats.unwrap().rows.len()
    };
    for (days, left) in [(9, 7), (2, 1), (9, 1), (1, 0)] {
        world.advance(days * 86_400);
        engine.prune().await.unwrap();
        assert_eq!(chats().await, left);
    }
}

#[tokio::test]
async fn a_receipt_that_comes_before_its_message_has_the_vendors_id_is_not_lost() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 1).await;
    let id = world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    let vendors = TransportMessageId::new("vendor-7").unwrap();
    world.transport.answer_next(Ok(SendReceipt {
        provider_id: Some(vendors.clone()),
        accepted_at: None,
    }));
    engine.plan().await.unwrap();
    let candidate = engine.look().await.unwrap().remove(0);
    let ready = engine.prepare(candidate).await.unwrap().unwrap();
    let finished = engine.begin(vec![ready]).await.unwrap().remove(0).run().await;
    let handle = Handle::new(Arc::clone(&engine.core));
    let receipt = TransportEvent::Receipt {
        message: MessageRef::Provider(vendors),
        delivery: Delivery::Read,
        at: None,
        note: None,
    };
    handle.accept(world.user, device, vec![receipt]).await.unwrap();
    world.advance(1);
    engine.core.match_early_receipts().await.unwrap();
    assert_eq!(world.messages(id).await[0].delivery, None, "nobody knows the id yet");
    engine.settle(&[finished]).await.unwrap();
    // The runner sees by itself that the second wait of two seconds is over.
    world.advance(2);
    super::Runner::new(Arc::clone(&engine))
        .run(std::future::pending())
        .now_or_never();
    assert_eq!(world.messages(id).await[0].delivery, Some(Delivery::Read));
    assert!(!engine.core.early_receipts().is_some(), "it is not tried for ever");
}

#[tokio::test]
async fn no_more_messages_are_prepared_than_may_be_sent_at_once_to_their_host() {
    let limit = MediaLimit {
        kind: MediaKind::Image,
        mimes: vec!["image/jpeg"],
        size_max_bytes: 1_000,
        caption_max: 1_000,
        by_url: true,
        by_bytes: true,
    };
    let capabilities = Capabilities {
        media: vec![limit],
        ..Capabilities::text(1_000)
    };
    let loading = Arc::new(Loading::default());
    let mut world = World::new(StubTransport::new().with_capabilities(capabilities));
    let config = EngineConfig {
        in_flight_max: 2,
        ..EngineConfig::new("node-1").pacing(PacingPolicy::unpaced())
    };
    world.builder = EngineBuilder::new(world.store.clone(), world.clock.clone(), config)
        .transport(world.transport.clone())
        .media(loading.clone());
    for number in 0..5 {
        let device = world.device(&format!("d{number}")).await;
        world.leads(device, 1).await;
    }
    world.campaign(|campaign| campaign.content = picture()).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    let mut running = Box::pin(super::Runner::new(engine).run(std::future::pending()));
    assert!((&mut running).now_or_never().is_none());
    assert_eq!(loading.begun(), 2);
    loading.let_go();
    // A send of each of the two frees a place each.
    assert!((&mut running).now_or_never().is_none());
    assert!((&mut running).now_or_never().is_none());
    assert_eq!(world.transport.sent().len(), 5, "the others follow");
}

fn lanes_of(engine: &Engine) -> Vec<DeviceId> {
    let lanes = engine.lanes(None);
    lanes.into_iter().map(|lane| lane.device_id).collect()
}

#[tokio::test]
async fn devices_are_shared_out_evenly_when_a_node_joins_and_when_it_leaves() {
    let world = World::new(StubTransport::new());
    for number in 0..7 {
        world.device(&format!("d{number}")).await;
    }
    let (world, one) = world.start().await;
    assert_eq!(lanes_of(&one).len(), 7);
    let (world, two) = world.start().await;
    assert_eq!(lanes_of(&two), []);
    assert_eq!(
        one.balance().await.unwrap(),
        super::Balance::Even,
        "it gave back at once"
    );
    assert_eq!(two.balance().await.unwrap(), super::Balance::Even);
    let mut all = lanes_of(&one);
    assert_eq!(all.len(), 4);
    all.extend(lanes_of(&two));
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 7, "each device has one owner");
    for engine in [&one, &two, &one, &two] {
        world.advance(2);
        engine.beat().await.unwrap();
        assert_eq!(engine.balance().await.unwrap(), super::Balance::Even);
    }
    assert_eq!(
        (lanes_of(&one).len(), lanes_of(&two).len()),
        (4, 3),
        "nothing moves any more"
    );
    one.leave().await.unwrap();
    two.balance().await.unwrap();
    assert_eq!(lanes_of(&two).len(), 7);
}

#[tokio::test]
async fn a_lane_begins_nothing_more_and_is_given_back_when_what_it_sends_has_ended() {
    let world = World::new(StubTransport::new());
    for number in 0..2 {
        let device = world.device(&format!("d{number}")).await;
        world.leads(device, 3).await;
    }
    world.campaign(|_| {}).await;
    let (mut world, one) = world.start().await;
    let config = EngineConfig::new("node-2").pacing(PacingPolicy::unpaced());
    world.builder =
        EngineBuilder::new(world.store.clone(), world.clock.clone(), config).transport(world.transport.clone());
    one.plan().await.unwrap();
    let candidates = one.look().await.unwrap();
    let mut ready = Vec::new();
    for candidate in candidates {
        ready.extend(one.prepare(candidate).await.unwrap());
    }
    let dispatches = one.begin(ready).await.unwrap();
    assert_eq!(dispatches.len(), 2, "both lanes are busy");
    let (world, two) = world.start().await;
    assert_eq!(one.balance().await.unwrap(), super::Balance::Uneven);
    assert_eq!(one.status().leaving, 1);
    assert_eq!(two.balance().await.unwrap(), super::Balance::Uneven);
    for dispatch in dispatches {
        let finished = dispatch.run().await;
        one.settle(&[finished]).await.unwrap();
    }
    world.advance(1);
    assert_eq!(one.look().await.unwrap().len(), 1, "the lane that stays goes on");
    assert_eq!(one.balance().await.unwrap(), super::Balance::Even);
    assert_eq!(lanes_of(&one).len(), 1);
    assert_eq!(two.balance().await.unwrap(), super::Balance::Even);
    assert_eq!(lanes_of(&two).len(), 1);
    assert_eq!(two.look().await.unwrap().len(), 1, "and the other with its new owner");
}

#[tokio::test]
async fn a_node_that_was_away_takes_nobody_over_for_beats_that_it_did_not_look_for() {
    let world = World::new(StubTransport::new());
    let (world, one) = world.start().await;
    let (world, two) = world.start().await;
    two.balance().await.unwrap();
    // The store was away for both of them.
    world.advance(60);
    two.balance().await.unwrap();
    one.beat().await.expect("nobody took it over");
    two.balance().await.unwrap();
    for _ in 0..4 {
        world.advance(10);
        two.balance().await.unwrap();
    }
    assert!(
        one.beat().await.unwrap_err().is_fenced(),
        "now it was silent for long enough"
    );
}

/// An engine and its runner, as far as that gets by itself.
type Running = std::pin::Pin<Box<dyn Future<Output = super::Ended> + Send>>;

fn run(engine: &Arc<Engine>) -> Running {
    let mut running: Running = Box::pin(super::Runner::new(Arc::clone(engine)).run(std::future::pending()));
    poll(&mut running);
    running
}

fn poll(running: &mut Running) {
    assert!(running.now_or_never().is_none(), "the runner goes on");
}

fn may_send(engine: &Engine) -> Vec<bool> {
    engine.lanes(None).iter().map(|lane| lane.may_send).collect()
}

#[tokio::test]
async fn a_runner_once_read_all_devices_and_beat_again_right_after_its_engine_had() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    let (world, engine) = world.start().await;
    let beats = async || world.store.nodes().await.unwrap()[0].beat;
    let before = beats().await;
    // Written by another node, so that nobody tells this one.
    world.hold(device).await;
    let mut running = run(&engine);
    assert_eq!((may_send(&engine), beats().await), (vec![true], before));
    world.advance(4);
    poll(&mut running);
    assert_eq!((may_send(&engine), beats().await), (vec![true], before));
    world.advance(1);
    poll(&mut running);
    poll(&mut running);
    assert_eq!((may_send(&engine), beats().await), (vec![false], before + 1));
}

#[tokio::test]
async fn a_runner_that_begins_late_reads_and_beats_at_once() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    let (world, engine) = world.start().await;
    let before = world.store.nodes().await.unwrap()[0].beat;
    world.hold(device).await;
    world.advance(6);
    let mut running = run(&engine);
    poll(&mut running);
    assert_eq!(may_send(&engine), [false]);
    assert_eq!(world.store.nodes().await.unwrap()[0].beat, before + 1);
}

#[tokio::test]
async fn what_changed_between_the_start_of_an_engine_and_that_of_its_runner_is_heard_at_once() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    let (world, engine) = world.start().await;
    world.hold(device).await;
    engine.core.wake.changed(device);
    let _running = run(&engine);
    assert_eq!(may_send(&engine), [false]);
}

#[tokio::test]
async fn pool_messages_leave_a_device_that_a_starting_node_finds_closed_at_once() {
    let world = World::new(StubTransport::new());
    let device = world.device("a").await;
    world.leads(device, 2).await;
    let id = world.campaign(|campaign| campaign.routing = Routing::Balanced).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    engine.leave().await.unwrap();
    world.hold(device).await;
    let (world, engine) = world.start().await;
    assert_eq!(world.messages(id).await[0].device_id, Some(device));
    let _running = run(&engine);
    let left = world.messages(id).await;
    assert!(left.iter().all(|message| message.device_id.is_none()), "{left:?}");
}

#[tokio::test]
async fn lanes_that_are_due_together_are_looked_at_by_the_batch_and_all_of_them() {
    let mut world = World::new(StubTransport::new());
    let config = EngineConfig {
        batch_max: 2,
        ..EngineConfig::new("node-1").pacing(PacingPolicy::unpaced())
    };
    world.builder =
        EngineBuilder::new(world.store.clone(), world.clock.clone(), config).transport(world.transport.clone());
    for number in 0..5 {
        let device = world.device(&format!("d{number}")).await;
        world.leads(device, 1).await;
    }
    world.campaign(|_| {}).await;
    let (world, engine) = world.start().await;
    engine.plan().await.unwrap();
    let first = engine.look_up_to(2).await.unwrap();
    assert_eq!(first.len(), 2);
    for candidate in &first {
        engine.drop_candidate(candidate, Duration::ZERO);
    }
    let mut running = run(&engine);
    poll(&mut running);
    assert_eq!(world.transport.sent().len(), 5);
}
