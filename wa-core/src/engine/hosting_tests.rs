//! What a transport that keeps connections is told of the devices that its node owns.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::config::EngineConfig;
use super::tests::HandClock;
use super::{Engine, EngineBuilder};
use crate::domain::device::{Device, LinkState, RestrictionCause};
use crate::domain::phone::Phone;
use crate::domain::platform::Platform;
use crate::id::{DeviceId, IdSource, Incarnation, UserId};
use crate::store::{Change, ChangeSet, DeviceStore, LeaseStore, MemoryStore, SessionOwner, Store, WriteClass};
use crate::time::Clock;
use crate::transport::{
    Capabilities, HostedDevice, InvalidDevice, LinkStep, Linkable, OutgoingMessage, RestrictionScope, SendContext,
    SendError, SendReceipt, Transport, TransportDevice, TransportEvent, TransportSink,
};

/// Notes what it is told.
struct Keeper {
    capabilities: Capabilities,
    hosted: Mutex<Vec<HostedDevice>>,
    closed: Mutex<Vec<DeviceId>>,
    sink: Mutex<Option<Arc<dyn TransportSink>>>,
    /// What has to happen before a connection is closed.
    before_closing: Mutex<Option<tokio::sync::oneshot::Receiver<()>>>,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keeper")
    }
}

impl Keeper {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            capabilities: Capabilities::text(100),
            hosted: Mutex::default(),
            closed: Mutex::default(),
            sink: Mutex::default(),
            before_closing: Mutex::default(),
        })
    }

    fn hosted(&self) -> Vec<(DeviceId, bool)> {
        let hosted = self.hosted.lock().unwrap();
        hosted.iter().map(|hosted| (hosted.device.id, hosted.deleted)).collect()
    }
}

#[async_trait]
impl Transport for Keeper {
    fn platform(&self) -> Platform {
        Platform::STUB
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn check_device(&self, _device: &TransportDevice) -> Result<(), InvalidDevice> {
        Ok(())
    }

    async fn send(&self, _context: &SendContext, _message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        Ok(SendReceipt::default())
    }

    fn as_linkable(&self) -> Option<&dyn Linkable> {
        Some(self)
    }
}

#[async_trait]
impl Linkable for Keeper {
    fn host(&self, _node: Incarnation, devices: Vec<HostedDevice>) {
        *self.hosted.lock().unwrap() = devices;
    }

    fn deliver_to(&self, sink: Arc<dyn TransportSink>) {
        self.sink.lock().unwrap().get_or_insert(sink);
    }

    async fn link(&self, _context: &SendContext, _phone: Option<&Phone>) -> Result<LinkStep, SendError> {
        Ok(LinkStep::State(LinkState::Ready))
    }

    async fn refresh(&self, _context: &SendContext) -> Result<LinkStep, SendError> {
        Ok(LinkStep::State(LinkState::Ready))
    }

    async fn disconnect(&self, _context: &SendContext) -> Result<(), SendError> {
        Ok(())
    }

    async fn logout(&self, _context: &SendContext) -> Result<(), SendError> {
        Ok(())
    }

    async fn close(&self, context: &SendContext) {
        self.closed.lock().unwrap().push(context.device.id);
        let before = self.before_closing.lock().unwrap().take();
        if let Some(before) = before {
            before.await.unwrap();
        }
    }
}

struct World {
    store: Arc<MemoryStore>,
    clock: Arc<HandClock>,
    keeper: Arc<Keeper>,
    ids: IdSource,
}

impl World {
    fn new() -> Self {
        Self {
            store: Arc::new(MemoryStore::new()),
            clock: Arc::new(HandClock::new()),
            keeper: Keeper::new(),
            ids: IdSource::seeded([5; 32]),
        }
    }

    async fn commit(&self, change: Change) {
        let set = ChangeSet::one(change);
        self.store
            .commit(set, WriteClass::Api, self.clock.wall())
            .await
            .unwrap();
    }

    async fn device(&self) -> (UserId, DeviceId) {
        let now = self.clock.wall();
        let (user, id) = (UserId::new(&self.ids, now), DeviceId::new(&self.ids, now));
        let device = Device::new(id, user, "a", Platform::STUB, now);
        self.commit(Change::InsertDevice(Box::new(device))).await;
        (user, id)
    }

    async fn engine(&self) -> Arc<Engine> {
        let builder = EngineBuilder::new(self.store.clone(), self.clock.clone(), EngineConfig::new("node-1"));
        let core = builder.transport(self.keeper.clone()).open().await.unwrap();
        Engine::start(core).await.unwrap()
    }
}

#[tokio::test]
async fn a_transport_hears_of_devices_that_are_owned_deleted_and_given_back() {
    let world = World::new();
    let (user, one) = world.device().await;
    let engine = world.engine().await;
    assert_eq!(world.keeper.hosted(), [(one, false)]);
    let owned = world.store.owned(&[one]).await.unwrap();
    assert_eq!(world.keeper.hosted.lock().unwrap()[0].epoch, owned[0].epoch);
    let (_, other) = world.device().await;
    engine.balance().await.unwrap();
    assert_eq!(world.keeper.hosted().len(), 2);
    let delete = Change::DeleteDevice {
        user_id: user,
        device_id: one,
    };
    world.commit(delete).await;
    engine.refresh(None).await.unwrap();
    let mut hosted = world.keeper.hosted();
    hosted.sort_unstable();
    assert_eq!(hosted, [(one, true), (other, false)]);
    engine.leave().await.unwrap();
    assert_eq!(world.keeper.hosted(), []);
    assert_eq!(
        world.keeper.closed.lock().unwrap().len(),
        2,
        "connections are closed before the devices are given back"
    );
}

#[tokio::test]
async fn a_transport_hears_at_once_that_its_node_is_fenced() {
    let world = World::new();
    world.device().await;
    let engine = world.engine().await;
    assert_eq!(world.keeper.hosted().len(), 1);
    world
        .store
        .leave(engine.incarnation(), world.clock.wall())
        .await
        .unwrap();
    engine.beat().await.unwrap_err();
    assert_eq!(world.keeper.hosted(), []);
    assert!(
        world.keeper.closed.lock().unwrap().is_empty(),
        "there is nothing more to say on them"
    );
}

#[tokio::test]
async fn a_node_that_lost_a_device_does_not_put_its_state_over_that_of_the_next() {
    let world = World::new();
    let (user, device) = world.device().await;
    let engine = world.engine().await;
    let sink = world.keeper.sink.lock().unwrap().clone().unwrap();
    let link = |state| TransportEvent::Link {
        state,
        reason: None,
        phone: None,
        jid: None,
    };
    let told = || {
        let restriction = TransportEvent::Restriction {
            scope: RestrictionScope::All,
            until: Some(world.clock.wall() + Duration::from_secs(60)),
            cause: RestrictionCause::Banned,
        };
        vec![restriction, TransportEvent::NewChats(None)]
    };
    let owned = world.store.owned(&[device]).await.unwrap().remove(0);
    let mut owner = SessionOwner {
        incarnation: engine.incarnation(),
        user_id: user,
        device_id: device,
        epoch: owned.epoch,
    };
    sink.accept_owned(&owner, vec![link(LinkState::Ready)]).await.unwrap();
    // It was away, and the device was another's since.
    owner.epoch.0 -= 1;
    for late in [vec![link(LinkState::Disconnected)], told()] {
        let refused = sink.accept_owned(&owner, late).await.unwrap_err();
        assert!(refused.is_fenced(), "{refused}");
    }
    let known = world.store.owned(&[device]).await.unwrap().remove(0).device;
    assert_eq!((known.link_state, known.restriction), (LinkState::Ready, None));
}

#[tokio::test]
async fn events_of_a_transport_reach_the_engine_and_keep_nobody_alive() {
    let world = World::new();
    let (user, device) = world.device().await;
    let engine = world.engine().await;
    let sink = world.keeper.sink.lock().unwrap().clone().unwrap();
    let link = TransportEvent::Link {
        state: LinkState::LoggedOut,
        reason: Some("removed".to_owned()),
        phone: None,
        jid: None,
    };
    sink.accept(user, device, vec![link.clone()]).await.unwrap();
    let owned = world.store.owned(&[device]).await.unwrap();
    assert_eq!(owned[0].device.link_state, LinkState::LoggedOut);
    drop(engine);
    sink.accept(user, device, vec![link]).await.unwrap_err();
}

#[tokio::test]
async fn connections_are_closed_when_the_lease_runs_out_and_opened_when_it_is_kept_again() {
    let world = World::new();
    let (_, device) = world.device().await;
    let engine = world.engine().await;
    assert_eq!(world.keeper.hosted(), [(device, false)]);
    world.clock.advance(24);
    engine.mind_lease();
    assert_eq!(world.keeper.hosted(), [(device, false)], "the lease still holds");
    world.clock.advance(2);
    engine.mind_lease();
    assert_eq!(world.keeper.hosted(), [], "another node may have them by now");
    engine.refresh(None).await.unwrap();
    world.device().await;
    engine.balance().await.unwrap();
    assert_eq!(world.keeper.hosted(), [], "nothing but a beat opens them again");
    let before = world.store.owned(&[device]).await.unwrap()[0].epoch;
    engine.beat().await.unwrap();
    let hosted = world.keeper.hosted();
    assert!(
        !hosted.contains(&(device, false)),
        "what its old connection still writes would count"
    );
    engine.balance().await.unwrap();
    engine.balance().await.unwrap();
    assert_eq!(world.keeper.hosted().len(), 2);
    let of = |hosted: &&HostedDevice| hosted.device.id == device;
    let epoch = world.keeper.hosted.lock().unwrap().iter().find(of).unwrap().epoch;
    assert!(epoch > before, "it counts no more");
    engine.mind_lease();
    assert_eq!(world.keeper.hosted().len(), 2);
}

#[tokio::test]
async fn a_device_that_is_just_given_back_is_not_opened_again() {
    let world = World::new();
    world.device().await;
    world.device().await;
    let one = world.engine().await;
    assert_eq!(world.keeper.hosted().len(), 2);
    let two = {
        let builder = EngineBuilder::new(world.store.clone(), world.clock.clone(), EngineConfig::new("node-2"));
        let core = builder.transport(Keeper::new()).open().await.unwrap();
        Engine::start(core).await.unwrap()
    };
    let (close, before_closing) = tokio::sync::oneshot::channel();
    *world.keeper.before_closing.lock().unwrap() = Some(before_closing);
    let looking = async {
        while world.keeper.closed.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        one.refresh(None).await.unwrap();
        assert_eq!(one.lanes(None).len(), 1, "what is closing stays closed");
        assert_eq!(world.keeper.hosted().len(), 1);
        close.send(()).unwrap();
    };
    let (balanced, ()) = futures::join!(one.balance(), looking);
    balanced.unwrap();
    two.balance().await.unwrap();
    assert_eq!((one.lanes(None).len(), two.lanes(None).len()), (1, 1));
}
