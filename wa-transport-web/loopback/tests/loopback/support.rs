//! A client that is watched.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use wa_loopback::{Loopback, Options};
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::client::Client;
use whatsapp_rust::http::HttpClient;
use whatsapp_rust::traits::Backend;
use whatsapp_rust::transport::TransportFactory;
use whatsapp_rust::types::events::{Event, EventHandler};
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::wacore::store::device::DevicePropsOverride;
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Jid, SendOptions, TokioRuntime};

/// Nothing here takes longer, unless something is broken.
pub const LIMIT: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Log {
    events: Arc<Mutex<Vec<Arc<Event>>>>,
    bell: watch::Sender<u64>,
}

impl EventHandler for Log {
    fn handle_event(&self, event: Arc<Event>) {
        self.events.lock().unwrap().push(event);
        self.bell.send_modify(|rings| *rings += 1);
    }
}

/// A linked client, or one that is to be linked, with all that it told.
pub struct Watched {
    pub client: Arc<Client>,
    pub handle: BotHandle,
    log: Log,
}

impl Watched {
    pub async fn start(server: &Loopback, backend: Arc<dyn Backend>) -> Self {
        Self::start_over(server.transport(), server.http(), backend).await
    }

    pub async fn start_over(
        transport: impl TransportFactory + 'static,
        http: impl HttpClient + 'static,
        backend: Arc<dyn Backend>,
    ) -> Self {
        let (bell, _) = watch::channel(0);
        let log = Log {
            events: Arc::default(),
            bell,
        };
        let bot = Bot::builder()
            .with_backend_arc(backend)
            .with_transport_factory(transport)
            .with_http_client(http)
            .with_runtime(TokioRuntime)
            .with_version((2, 3000, 1_000_000_000))
            .with_wanted_pre_key_count(10)
            .with_device_props(DevicePropsOverride::new().with_os("Windows"))
            .with_event_handler(log.clone())
            .build()
            .await
            .unwrap();
        Self {
            client: bot.client(),
            handle: bot.spawn(),
            log,
        }
    }

    /// Waits for an event that `find` finds, from the first one on.
    pub async fn wait<T>(&self, what: &str, mut find: impl FnMut(&Event) -> Option<T>) -> T {
        let mut bell = self.log.bell.subscribe();
        let search = async {
            loop {
                bell.borrow_and_update();
                let found = self.log.events.lock().unwrap().iter().find_map(|event| find(event));
                if let Some(found) = found {
                    return found;
                }
                bell.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(LIMIT, search).await {
            Ok(found) => found,
            Err(_) => panic!("waited {LIMIT:?} in vain for {what}; there came {:?}", self.kinds()),
        }
    }

    pub fn kinds(&self) -> Vec<String> {
        self.log
            .events
            .lock()
            .unwrap()
            .iter()
            .map(|event| format!("{:?}", event.kind()))
            .collect()
    }

    pub fn count(&self, fits: impl Fn(&Event) -> bool) -> usize {
        self.log
            .events
            .lock()
            .unwrap()
            .iter()
            .filter(|event| fits(event))
            .count()
    }

    pub async fn connected(&self) {
        self.wait("the client to be connected", |event| {
            matches!(event, Event::Connected(_)).then_some(())
        })
        .await;
    }

    /// Sends a text under an id of its own; whether it went out, not whether it was accepted.
    pub async fn send(&self, phone: &str, text: &str) -> String {
        let id = self.client.generate_message_id();
        self.send_as(&id, phone, text).await;
        id
    }

    pub async fn send_as(&self, id: &str, phone: &str, text: &str) {
        let message = wa::Message {
            conversation: Some(text.to_owned()),
            ..Default::default()
        };
        let options = SendOptions::default().with_message_id(id);
        self.client
            .send_message_with_options(Jid::pn(phone), message, options)
            .await
            .unwrap();
    }

    /// Waits for the server's word on a message: `None` for accepted, or the code.
    pub async fn answer(&self, id: &str) -> Option<String> {
        self.wait("the server's answer to a message", |event| match event {
            Event::ServerAck(ack) if ack.id == id => Some(ack.error.clone()),
            _ => None,
        })
        .await
    }

    /// Waits for a receipt of a message: `Delivered`, `Read`, …
    pub async fn receipt(&self, id: &str, kind: &str) {
        self.wait(&format!("a receipt {kind}"), |event| match event {
            Event::Receipt(receipt) => {
                let ours = receipt.message_ids.iter().any(|known| known == id);
                (ours && format!("{:?}", receipt.r#type) == kind).then_some(())
            }
            _ => None,
        })
        .await;
    }

    /// Waits for a message that says this.
    pub async fn hears(&self, text: &str) -> whatsapp_rust::types::message::MessageInfo {
        self.wait("a message", |event| {
            event
                .messages()
                .find(|inbound| inbound.message.conversation.as_deref() == Some(text))
                .map(|inbound| (*inbound.info).clone())
        })
        .await
    }
}

pub fn server() -> Loopback {
    Loopback::start(Options::new())
}

/// A client that is linked to `phone` already, connected.
pub async fn linked(server: &Loopback, phone: &str) -> Watched {
    let backend = Arc::new(InMemoryBackend::new());
    server.seed_device(phone, &*backend).await.unwrap();
    let client = Watched::start(server, backend).await;
    client.connected().await;
    client
}
