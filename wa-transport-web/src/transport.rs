//! The transport and its builder.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use wa_core::domain::content::MediaKind;
use wa_core::domain::device::Epoch;
use wa_core::domain::phone::Phone;
use wa_core::domain::platform::Platform;
use wa_core::id::{AttemptId, DeviceId, Incarnation};
use wa_core::store::{SessionOwner, SessionStore};
use wa_core::time::Clock;
use wa_core::transport::{
    Capabilities, HostedDevice, InvalidDevice, LinkStep, Linkable, MediaLimit, NumberCheck, NumberChecker,
    OutgoingMessage, Probe, ProbeReport, SendContext, SendError, SendReceipt, Transport, TransportDevice,
    TransportMessageId, TransportSink,
};
use whatsapp_rust::http::HttpClient;
use whatsapp_rust::transport::{TokioWebSocketTransportFactory, TransportFactory};

use crate::backend::Backend;
use crate::error;
use crate::gate::{ConnectGate, Gated, TURN_WITHIN_MAX};
use crate::http::Https;
use crate::inbound::{Sink, TEXT_CHARS_MAX};
use crate::live::Live;
use crate::news::States;
use crate::options::WebOptions;
use crate::picture::SOURCE_BYTES_MAX;
use crate::receipts::Receipts;
use crate::session::{Order, Session, Slot};
use crate::vault::Vault;
use crate::version::Versions;

/// Longest caption, in characters.
pub const CAPTION_CHARS_MAX: usize = 1_024;

/// How often values of sessions that have ended are removed.
const SWEEP_EVERY: Duration = Duration::from_secs(10 * 60);

/// Most values that one statement of a sweep removes.
const SWEEP_PAGE: u32 = 1_000;

/// Most orders of one device that wait.
const ORDERS_MAX: usize = 32;

/// Why a transport cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The HTTP client cannot be built.
    #[error("the HTTP client cannot be built")]
    Http(#[source] reqwest::Error),
}

/// What all devices share.
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn SessionStore>,
    pub(crate) vault: Arc<Vault>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Arc<WebOptions>,
    pub(crate) sink: Sink,
    pub(crate) gate: Arc<ConnectGate>,
    pub(crate) versions: Versions,
    pub(crate) http: Arc<dyn HttpClient>,
    connections: Arc<dyn TransportFactory>,
}

impl Shared {
    /// Opens the connections of one device; the first one has waited for its turn already.
    pub(crate) fn factory(&self, receipts: Arc<Receipts>, states: Arc<States>) -> Gated {
        Gated {
            gate: Arc::clone(&self.gate),
            inner: Arc::clone(&self.connections),
            first_is_free: AtomicBool::new(true),
            turn_within: self.options.turn_within.min(TURN_WITHIN_MAX),
            receipts,
            states,
        }
    }
}

/// Builds a [`WhatsAppWeb`]; fails only in [`build`](Self::build).
#[must_use]
pub struct WhatsAppWebBuilder {
    store: Arc<dyn SessionStore>,
    clock: Arc<dyn Clock>,
    vault: Vault,
    options: WebOptions,
    connections: Option<Arc<dyn TransportFactory>>,
    http: Option<Arc<dyn HttpClient>>,
}

impl fmt::Debug for WhatsAppWebBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhatsAppWebBuilder")
            .field("vault", &self.vault)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl WhatsAppWebBuilder {
    /// How sessions are kept; as they are by default.
    pub fn vault(mut self, vault: Vault) -> Self {
        self.vault = vault;
        self
    }

    /// What else is set.
    pub fn options(mut self, options: WebOptions) -> Self {
        self.options = options;
        self
    }

    /// How connections are opened: WhatsApp's own address by default.
    pub fn connections(mut self, connections: Arc<dyn TransportFactory>) -> Self {
        self.connections = Some(connections);
        self
    }

    /// How media and the version are fetched: over HTTPS by default.
    pub fn http(mut self, http: Arc<dyn HttpClient>) -> Self {
        self.http = Some(http);
        self
    }

    /// Builds the transport.
    ///
    /// # Errors
    /// [`BuildError`] says what cannot work.
    pub fn build(self) -> Result<WhatsAppWeb, BuildError> {
        let http = match self.http {
            Some(http) => http,
            None => Arc::new(Https::new().map_err(BuildError::Http)?),
        };
        let connections = self
            .connections
            .unwrap_or_else(|| Arc::new(TokioWebSocketTransportFactory::new()));
        let options = Arc::new(self.options);
        let shared = Shared {
            store: self.store,
            vault: Arc::new(self.vault),
            gate: Arc::new(ConnectGate::new(options.connects_at_once, options.connects_per_second)),
            versions: Versions::new(options.version, Arc::clone(&http), Arc::clone(&self.clock)),
            clock: self.clock,
            options,
            sink: Arc::new(OnceLock::new()),
            http,
            connections,
        };
        Ok(WhatsAppWeb {
            shared: Arc::new(shared),
            hosted: Mutex::default(),
            sweep: OnceLock::new(),
            capabilities: capabilities(),
        })
    }
}

fn capabilities() -> Capabilities {
    let mut capabilities = Capabilities::text(TEXT_CHARS_MAX);
    capabilities.media = vec![MediaLimit {
        kind: MediaKind::Image,
        mimes: vec!["image/jpeg", "image/png", "image/webp", "image/gif"],
        size_max_bytes: SOURCE_BYTES_MAX,
        caption_max: CAPTION_CHARS_MAX,
        by_url: false,
        by_bytes: true,
    }];
    capabilities.resend_same_id = true;
    capabilities.receipts = true;
    capabilities.inbound = true;
    capabilities.pairing = true;
    capabilities.number_check = true;
    capabilities.presence = true;
    capabilities
}

/// Removes what has ended, as long as there is a transport.
async fn sweep(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let before = shared.clock.wall();
        loop {
            match shared.store.sweep_sessions(before, SWEEP_PAGE).await {
                Ok(swept) if swept == u64::from(SWEEP_PAGE) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "ended values of sessions could not be removed; it is tried again");
                    break;
                }
            }
        }
    }
}

/// A device of this node.
struct Hosted {
    node: Incarnation,
    epoch: Epoch,
    deleted: bool,
    slot: Arc<Slot>,
    orders: mpsc::Sender<Order>,
    task: AbortHandle,
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Carries messages through devices that are linked to WhatsApp Web; one instance serves all devices.
pub struct WhatsAppWeb {
    shared: Arc<Shared>,
    hosted: Mutex<HashMap<DeviceId, Hosted>>,
    /// The one sweep of ended values, for all devices of the store.
    sweep: OnceLock<AbortHandle>,
    capabilities: Capabilities,
}

impl fmt::Debug for WhatsAppWeb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WhatsAppWeb")
            .field("devices", &self.hosted().len())
            .finish_non_exhaustive()
    }
}

impl WhatsAppWeb {
    /// A builder over a store of sessions, with the defaults.
    pub fn builder(store: Arc<dyn SessionStore>, clock: Arc<dyn Clock>) -> WhatsAppWebBuilder {
        WhatsAppWebBuilder {
            store,
            clock,
            vault: Vault::plain(),
            options: WebOptions::default(),
            connections: None,
            http: None,
        }
    }

    fn hosted(&self) -> std::sync::MutexGuard<'_, HashMap<DeviceId, Hosted>> {
        self.hosted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, device: DeviceId) -> Result<Arc<Live>, SendError> {
        let hosted = self.hosted();
        let live = hosted.get(&device).and_then(|hosted| hosted.slot.live());
        live.ok_or_else(|| error::offline("the device is not linked to WhatsApp"))
    }

    async fn order<T>(
        &self,
        context: &SendContext,
        order: impl FnOnce(oneshot::Sender<Result<T, SendError>>) -> Order,
    ) -> Result<T, SendError> {
        let orders = self
            .hosted()
            .get(&context.device.id)
            .map(|hosted| hosted.orders.clone());
        let orders = orders.ok_or_else(|| error::offline("the device is not run by this node"))?;
        let (tell, answer) = oneshot::channel();
        let busy = "the device is busy; ask again";
        orders.try_send(order(tell)).map_err(|_| error::offline(busy))?;
        match tokio::time::timeout(context.timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(error::offline("the connection was closed")),
            Err(_) => Err(error::offline("WhatsApp did not answer in time; ask again")),
        }
    }

    fn open(&self, node: Incarnation, device: &HostedDevice) -> Hosted {
        let owner = SessionOwner {
            incarnation: node,
            user_id: device.device.user_id,
            device_id: device.device.id,
            epoch: device.epoch,
        };
        let shared = Arc::clone(&self.shared);
        let backend = Backend::new(
            Arc::clone(&shared.store),
            Arc::clone(&shared.vault),
            Arc::clone(&shared.clock),
            owner,
        );
        let slot = Arc::new(Slot::default());
        let (orders, taken) = mpsc::channel(ORDERS_MAX);
        let session = Session::new(shared, Arc::clone(&device.device), backend, Arc::clone(&slot), taken);
        let task = tokio::spawn(session.work(device.deleted)).abort_handle();
        Hosted {
            node,
            epoch: device.epoch,
            deleted: device.deleted,
            slot,
            orders,
            task,
        }
    }
}

#[async_trait]
impl Transport for WhatsAppWeb {
    fn platform(&self) -> Platform {
        Platform::WHATSAPP_WEB
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn check_device(&self, device: &TransportDevice) -> Result<(), InvalidDevice> {
        if device.credential.is_some() {
            return Err(InvalidDevice::new(
                "credential",
                "must be absent: the device is linked by a code",
            ));
        }
        if device.base_url.is_some() {
            return Err(InvalidDevice::new(
                "base_url",
                "must be absent for a device of WhatsApp Web",
            ));
        }
        Ok(())
    }

    /// As WhatsApp Web forms its own: `3EB0` and 18 hexadecimal digits.
    fn message_id(&self, attempt: AttemptId) -> TransportMessageId {
        let digest = Sha256::digest(attempt.as_bytes());
        let digits: String = digest.iter().take(9).map(|byte| format!("{byte:02X}")).collect();
        TransportMessageId::new(format!("3EB0{digits}")).expect("an id of 22 characters is neither empty nor too long")
    }

    async fn prepare(&self, context: &SendContext, message: &OutgoingMessage) -> Result<(), SendError> {
        self.live(context.device.id)?.prepare(message).await
    }

    fn needs_prepare(&self, message: &OutgoingMessage) -> bool {
        self.shared.options.check_numbers || message.media.is_some()
    }

    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        let timeout = self.shared.options.ack_within.min(context.timeout);
        let result = match self.live(context.device.id) {
            Ok(live) => live.send(message, timeout).await,
            Err(error) => Err(error),
        };
        let (device, attempt, to) = (context.device.id, message.attempt_id, &message.to);
        match &result {
            Ok(_) => tracing::debug!(%device, %attempt, ?to, "WhatsApp took the message"),
            Err(reason) => tracing::warn!(%device, %attempt, ?to, %reason, "a message over WhatsApp Web failed"),
        }
        result
    }

    fn as_linkable(&self) -> Option<&dyn Linkable> {
        Some(self)
    }

    fn as_number_checker(&self) -> Option<&dyn NumberChecker> {
        Some(self)
    }

    fn as_probe(&self) -> Option<&dyn Probe> {
        Some(self)
    }
}

#[async_trait]
impl Linkable for WhatsAppWeb {
    fn host(&self, node: Incarnation, devices: Vec<HostedDevice>) {
        self.sweep
            .get_or_init(|| tokio::spawn(sweep(Arc::downgrade(&self.shared))).abort_handle());
        let mut hosted = self.hosted();
        let mut before = std::mem::take(&mut *hosted);
        for device in &devices {
            let kept = before.remove(&device.device.id).filter(|known| {
                let same = known.node == node && known.epoch == device.epoch && known.deleted == device.deleted;
                // A deleted device's task ends when the device is wound up.
                same && (known.deleted || !known.task.is_finished())
            });
            let known = kept.unwrap_or_else(|| self.open(node, device));
            hosted.insert(device.device.id, known);
        }
    }

    fn deliver_to(&self, sink: Arc<dyn TransportSink>) {
        let _ = self.shared.sink.set(sink);
    }

    async fn link(&self, context: &SendContext, phone: Option<&Phone>) -> Result<LinkStep, SendError> {
        let phone = phone.copied();
        self.order(context, |answer| Order::Link(phone, answer)).await
    }

    async fn refresh(&self, context: &SendContext) -> Result<LinkStep, SendError> {
        self.order(context, Order::Refresh).await
    }

    async fn disconnect(&self, context: &SendContext) -> Result<(), SendError> {
        self.order(context, Order::Disconnect).await
    }

    async fn logout(&self, context: &SendContext) -> Result<(), SendError> {
        self.order(context, Order::Logout).await
    }

    async fn close(&self, context: &SendContext) {
        let closing = self.hosted().remove(&context.device.id);
        let Some(closing) = closing else { return };
        let (done, closed) = oneshot::channel();
        if closing.orders.send(Order::Close(done)).await.is_ok() {
            let _ = tokio::time::timeout(context.timeout, closed).await;
        }
    }
}

#[async_trait]
impl NumberChecker for WhatsAppWeb {
    async fn check(&self, context: &SendContext, phones: &[Phone]) -> Result<Vec<NumberCheck>, SendError> {
        let live = self.live(context.device.id)?;
        if !live.is_ready() {
            return Err(error::offline("the device is not connected to WhatsApp"));
        }
        let told = live.numbers_of(phones).await?;
        let checks = phones.iter().zip(told).map(|(phone, on_whatsapp)| NumberCheck {
            phone: *phone,
            on_whatsapp,
        });
        Ok(checks.collect())
    }

    fn check_ahead(&self, context: &SendContext, phone: &Phone) -> u32 {
        let live = self.live(context.device.id);
        live.map_or(0, |live| live.check_ahead(phone))
    }
}

#[async_trait]
impl Probe for WhatsAppWeb {
    async fn probe(&self, context: &SendContext) -> Result<ProbeReport, SendError> {
        let live = self.live(context.device.id).ok();
        let connected = live.as_ref().is_some_and(|live| live.is_ready());
        let detail = match (&live, connected) {
            (Some(_), true) => "linked and connected",
            (Some(_), false) => "not connected just now",
            (None, _) => "not linked",
        };
        Ok(ProbeReport {
            connected,
            phone: live.and_then(|live| live.phone()),
            quota: None,
            detail: detail.to_owned(),
        })
    }
}
