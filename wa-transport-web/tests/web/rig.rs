//! A transport whose devices live at a loopback server, and what it tells.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use uuid::Uuid;
use wa_core::domain::content::MediaKind;
use wa_core::domain::device::LinkState;
use wa_core::domain::phone::Phone;
use wa_core::domain::platform::Platform;
use wa_core::id::{AttemptId, DeviceId, MessageId, UserId};
use wa_core::store::{LeaseStore, SessionOwner, StoreError, StoreErrorKind};
use wa_core::time::SystemClock;
use wa_core::transport::{
    HostedDevice, LinkStep, Linkable, OutgoingMedia, OutgoingMessage, SendContext, SendError, SendReceipt, Transport,
    TransportDevice, TransportEvent, TransportSink,
};
use wa_loopback::{InProcess, Loopback, Options};
use wa_transport_web::backend::Backend;
use wa_transport_web::vault::Vault;
use wa_transport_web::{WebOptions, WhatsAppWeb};
use whatsapp_rust::transport::TransportFactory;
use whatsapp_rust::{anyhow, async_channel};

use crate::clock::MovedClock;
use crate::stage::{Counted, NOW, add_device, stage};

/// Nothing here takes longer, unless something is broken.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The number of the device of most tests.
pub const OWN: &str = "60110000001";

/// Keeps what it is told; refuses while it is told to.
#[derive(Default)]
pub struct Heard {
    events: Mutex<Vec<(DeviceId, TransportEvent)>>,
    bell: watch::Sender<u64>,
    /// Whether messages, the past and receipts are refused.
    pub refusing: AtomicBool,
    pub refused: AtomicBool,
    /// How often something was refused.
    pub refusals: AtomicU64,
    /// Whether the device is another's, so that nothing counts that is said of it.
    pub fenced: AtomicBool,
}

#[async_trait]
impl TransportSink for Heard {
    async fn accept(&self, _user: UserId, device: DeviceId, events: Vec<TransportEvent>) -> Result<(), StoreError> {
        if self.refusing.load(Ordering::SeqCst)
            && events.iter().any(|event| {
                matches!(
                    event,
                    TransportEvent::Inbound(_) | TransportEvent::History(_) | TransportEvent::Receipt { .. }
                )
            })
        {
            self.refused.store(true, Ordering::SeqCst);
            self.refusals.fetch_add(1, Ordering::SeqCst);
            self.bell.send_modify(|rings| *rings += 1);
            return Err(StoreError::new(StoreErrorKind::Unavailable, "accept", "message"));
        }
        self.events
            .lock()
            .unwrap()
            .extend(events.into_iter().map(|event| (device, event)));
        self.bell.send_modify(|rings| *rings += 1);
        Ok(())
    }

    async fn accept_owned(&self, owner: &SessionOwner, events: Vec<TransportEvent>) -> Result<(), StoreError> {
        if self.fenced.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Fenced, "accept", "device"));
        }
        self.accept(owner.user_id, owner.device_id, events).await
    }
}

impl Heard {
    /// How many events there are.
    pub fn len(&self) -> usize {
        self.events.lock().unwrap().len()
    }

    /// All events.
    pub fn events(&self) -> Vec<TransportEvent> {
        self.events
            .lock()
            .unwrap()
            .iter()
            .map(|(_, event)| event.clone())
            .collect()
    }

    /// Waits until `find` finds something among all events from a place on.
    pub async fn wait_from<T>(
        &self,
        from: usize,
        what: &str,
        mut find: impl FnMut(&DeviceId, &TransportEvent) -> Option<T>,
    ) -> T {
        let mut bell = self.bell.subscribe();
        let search = async {
            loop {
                bell.borrow_and_update();
                let events = self.events.lock().unwrap().clone();
                if let Some(found) = events[from.min(events.len())..]
                    .iter()
                    .find_map(|(device, event)| find(device, event))
                {
                    return found;
                }
                bell.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(LIMIT, search).await {
            Ok(found) => found,
            Err(_) => panic!(
                "waited in vain for {what}; there came {:?}",
                self.events.lock().unwrap()
            ),
        }
    }

    pub async fn state_from(&self, from: usize, device: DeviceId, wanted: LinkState) -> Option<String> {
        self.wait_from(from, &format!("{wanted:?}"), |of, event| match event {
            TransportEvent::Link { state, reason, .. } if *of == device && *state == wanted => Some(reason.clone()),
            _ => None,
        })
        .await
    }

    pub async fn state(&self, device: DeviceId, wanted: LinkState) -> Option<String> {
        self.state_from(0, device, wanted).await
    }

    /// Waits until the sink has refused something.
    pub async fn until_refused(&self) {
        let mut bell = self.bell.subscribe();
        while !self.refused.load(Ordering::SeqCst) {
            tokio::time::timeout(LIMIT, bell.changed()).await.unwrap().unwrap();
        }
    }
}

/// The way to the loopback server, which may be closed: then every connection that is opened fails.
pub struct Line {
    inner: InProcess,
    pub closed: AtomicBool,
    /// How many connections were wanted.
    pub wanted: AtomicU64,
}

#[async_trait]
impl TransportFactory for Line {
    async fn create_transport(
        &self,
    ) -> anyhow::Result<(
        Arc<dyn whatsapp_rust::transport::Transport>,
        async_channel::Receiver<whatsapp_rust::transport::TransportEvent>,
    )> {
        self.wanted.fetch_add(1, Ordering::SeqCst);
        if self.closed.load(Ordering::SeqCst) {
            return Err(anyhow::anyhow!("the line is closed"));
        }
        self.inner.create_transport().await
    }
}

impl Line {
    /// Closes the line.
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
    }

    /// Opens it again.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }
}

pub fn options() -> WebOptions {
    let mut options = WebOptions::default();
    options.version = Some((2, 3000, 1_000_000_000));
    options.prekeys = 10;
    options.offline_after = Duration::from_millis(300);
    options
}

pub struct Rig {
    pub server: Loopback,
    pub store: Arc<Counted>,
    pub owner: SessionOwner,
    pub transport: Arc<WhatsAppWeb>,
    pub heard: Arc<Heard>,
    pub clock: Arc<MovedClock>,
    pub line: Arc<Line>,
}

impl Rig {
    /// A device that was never linked.
    pub async fn new() -> Self {
        Self::with(options()).await
    }

    pub async fn with(options: WebOptions) -> Self {
        let server = Loopback::start(Options::new());
        let (store, owner) = stage().await;
        let heard = Arc::new(Heard::default());
        let clock = Arc::new(MovedClock::default());
        let line = Arc::new(Line {
            inner: server.transport(),
            closed: AtomicBool::new(false),
            wanted: AtomicU64::new(0),
        });
        let transport = transport((&server, &line), &store, &heard, clock.clone(), options);
        let rig = Self {
            server,
            store,
            owner,
            transport,
            heard,
            clock,
            line,
        };
        rig.host(&[rig.owner]);
        rig
    }

    /// A device that is linked and online.
    pub async fn linked() -> Self {
        Self::linked_with(options()).await
    }

    pub async fn linked_with(options: WebOptions) -> Self {
        let mut rig = Self::with(options.clone()).await;
        rig.seed(OWN).await;
        rig.restart(options);
        rig.heard.state(rig.owner.device_id, LinkState::Ready).await;
        rig
    }

    pub fn backend(&self) -> Backend {
        let vault = Arc::new(Vault::plain());
        Backend::new(self.store.clone(), vault, Arc::new(SystemClock::new()), self.owner)
    }

    /// Makes the device one that was linked before.
    pub async fn seed(&self, phone: &str) {
        self.server.seed_device(phone, &self.backend()).await.unwrap();
    }

    /// A new process on the same store.
    pub fn restart(&mut self, options: WebOptions) {
        self.transport.host(self.owner.incarnation, Vec::new());
        let ends = (&self.server, &self.line);
        self.transport = transport(ends, &self.store, &self.heard, self.clock.clone(), options);
        self.host(&[self.owner]);
    }

    pub fn host(&self, owners: &[SessionOwner]) {
        let devices = owners.iter().map(|owner| HostedDevice {
            device: self.context_of(owner).device,
            epoch: owner.epoch,
            deleted: false,
        });
        self.transport.host(self.owner.incarnation, devices.collect());
    }

    pub fn context_of(&self, owner: &SessionOwner) -> SendContext {
        SendContext {
            device: Arc::new(TransportDevice {
                id: owner.device_id,
                user_id: owner.user_id,
                platform: Platform::WHATSAPP_WEB,
                phone: None,
                credential: None,
                base_url: None,
            }),
            timeout: Duration::from_secs(30),
        }
    }

    pub fn context(&self) -> SendContext {
        self.context_of(&self.owner)
    }

    /// Another device of the same node.
    pub async fn another(&self, number: u8) -> SessionOwner {
        let added = add_device(&self.store.inner, number).await;
        // In the store it goes over to the node of the first.
        let inner = &self.store.inner;
        inner.leave(added.incarnation, NOW).await.unwrap();
        let claimed = inner.claim(self.owner.incarnation, 10, NOW).await.unwrap();
        let claimed = claimed.iter().find(|owned| owned.device.id == added.device_id);
        SessionOwner {
            incarnation: self.owner.incarnation,
            epoch: claimed.unwrap().epoch,
            ..added
        }
    }

    pub async fn qr(&self) -> String {
        match self.transport.link(&self.context(), None).await.unwrap() {
            LinkStep::Qr { payload, .. } => payload,
            other => panic!("{other:?}"),
        }
    }

    /// A message, as the engine would make it.
    pub fn message(&self, number: u128, to: &str, text: &str) -> OutgoingMessage {
        let attempt_id = AttemptId::from_uuid(Uuid::from_u128(number));
        OutgoingMessage {
            message_id: MessageId::from_uuid(Uuid::from_u128(number)),
            attempt_id,
            transport_message_id: self.transport.message_id(attempt_id),
            to: phone(to),
            text: text.to_owned(),
            media: None,
        }
    }

    pub fn picture(&self, number: u128, to: &str, caption: &str, bytes: &[u8]) -> OutgoingMessage {
        OutgoingMessage {
            media: Some(OutgoingMedia {
                kind: MediaKind::Image,
                mime: "image/png".to_owned(),
                file_name: "offer.png".to_owned(),
                url: None,
                bytes: Some(bytes.into()),
            }),
            ..self.message(number, to, caption)
        }
    }

    pub async fn send(&self, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        self.transport.prepare(&self.context(), message).await?;
        self.transport.send(&self.context(), message).await
    }
}

fn transport(
    (server, line): (&Loopback, &Arc<Line>),
    store: &Arc<Counted>,
    heard: &Arc<Heard>,
    clock: Arc<MovedClock>,
    options: WebOptions,
) -> Arc<WhatsAppWeb> {
    let transport = WhatsAppWeb::builder(store.clone(), clock)
        .options(options)
        .connections(line.clone())
        .http(Arc::new(server.http()))
        .build()
        .unwrap();
    transport.deliver_to(heard.clone());
    Arc::new(transport)
}

pub fn phone(digits: &str) -> Phone {
    Phone::from_e164(&format!("+{digits}")).unwrap()
}
