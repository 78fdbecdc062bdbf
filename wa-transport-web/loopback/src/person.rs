//! Simulated people: each a real WhatsApp client that plays a phone.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use tokio::sync::watch;
use whatsapp_rust::bot::{Bot, BotHandle};
use whatsapp_rust::client::Client;
use whatsapp_rust::types::events::{Event, EventHandler, EventInterest, EventKind};
use whatsapp_rust::wacore::store::InMemoryBackend;
use whatsapp_rust::wacore::store::device::{Device, DevicePropsOverride};
use whatsapp_rust::waproto::whatsapp as wa;
use whatsapp_rust::{Jid, SendOptions, TokioRuntime};

use crate::error::{PairingError, PersonError, TooLate};
use crate::server::Loopback;

/// How long a phone may take to connect, and to disconnect.
const CONNECT_FOR: Duration = Duration::from_secs(30);

/// A message as a person's phone shows it.
#[derive(Clone)]
pub struct Received {
    /// Its id.
    pub id: String,
    /// The chat it belongs to.
    pub chat: Jid,
    /// Who sent it.
    pub sender: Jid,
    /// Whether it was sent by another device of the same person.
    pub from_me: bool,
    /// Whether it had waited at the server.
    pub offline: bool,
    /// All of it.
    pub message: Arc<wa::Message>,
}

impl Received {
    /// The text, or the caption of a picture.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        let message = self.message.as_ref();
        message
            .conversation
            .as_deref()
            .or_else(|| {
                message
                    .extended_text_message
                    .as_option()
                    .and_then(|text| text.text.as_deref())
            })
            .or_else(|| {
                message
                    .image_message
                    .as_option()
                    .and_then(|image| image.caption.as_deref())
            })
    }

    /// The picture, if it is one.
    #[must_use]
    pub fn image(&self) -> Option<&wa::message::ImageMessage> {
        self.message.image_message.as_option()
    }
}

#[derive(Default)]
struct Inbox {
    messages: Vec<Received>,
    read: usize,
    connected: bool,
    receipts: Vec<(String, String)>,
}

/// Takes what the client tells into the inbox.
struct Ear {
    inbox: Arc<Mutex<Inbox>>,
    bell: watch::Sender<u64>,
}

impl Ear {
    fn with<T>(&self, act: impl FnOnce(&mut Inbox) -> T) -> T {
        let result = act(&mut self.inbox.lock().expect("nobody panics while holding an inbox"));
        self.bell.send_modify(|rings| *rings += 1);
        result
    }
}

impl EventHandler for Ear {
    fn handle_event(&self, event: Arc<Event>) {
        match &*event {
            Event::Connected(_) => self.with(|inbox| inbox.connected = true),
            Event::Receipt(receipt) => self.with(|inbox| {
                let kind = format!("{:?}", receipt.r#type);
                inbox
                    .receipts
                    .extend(receipt.message_ids.iter().map(|id| (id.to_string(), kind.clone())));
            }),
            Event::Messages(_) => {
                let messages: Vec<Received> = event
                    .messages()
                    .filter(|inbound| inbound.message.protocol_message.as_option().is_none())
                    .map(|inbound| Received {
                        id: inbound.info.id.clone(),
                        chat: inbound.info.source.chat.clone(),
                        sender: inbound.info.source.sender.clone(),
                        from_me: inbound.info.source.is_from_me,
                        offline: inbound.info.is_offline,
                        message: inbound.message.clone(),
                    })
                    .collect();
                self.with(|inbox| inbox.messages.extend(messages));
            }
            _ => {}
        }
    }

    fn interest(&self) -> EventInterest {
        EventInterest::of(&[EventKind::Connected, EventKind::Messages, EventKind::Receipt])
    }
}

struct Running {
    client: Arc<Client>,
    handle: BotHandle,
}

/// A person with a phone that is a real WhatsApp client; offline until [`Person::connect`].
pub struct Person {
    server: Loopback,
    phone: String,
    backend: Arc<InMemoryBackend>,
    inbox: Arc<Mutex<Inbox>>,
    bell: watch::Sender<u64>,
    running: tokio::sync::Mutex<Option<Running>>,
}

impl Person {
    pub(crate) async fn new(server: Loopback, phone: &str, device: &Device) -> Result<Self, PersonError> {
        use whatsapp_rust::traits::DeviceStore as _;
        let backend = Arc::new(InMemoryBackend::new());
        backend.save(device).await.map_err(client_error)?;
        let (bell, _) = watch::channel(0);
        Ok(Self {
            server,
            phone: phone.to_owned(),
            backend,
            inbox: Arc::default(),
            bell,
            running: tokio::sync::Mutex::new(None),
        })
    }

    /// The phone number, digits alone.
    #[must_use]
    pub fn phone(&self) -> &str {
        &self.phone
    }

    /// The person's address.
    #[must_use]
    pub fn jid(&self) -> Jid {
        Jid::pn(self.phone.as_str())
    }

    /// Connects the phone and waits until it is ready; what waited at the server comes into the inbox.
    ///
    /// # Errors
    /// When it is not ready within 30 seconds.
    pub async fn connect(&self) -> Result<(), PersonError> {
        let mut running = self.running.lock().await;
        if running.is_some() {
            return Ok(());
        }
        self.lock().connected = false;
        let bot = Bot::builder()
            .with_backend_arc(self.backend.clone())
            .with_transport_factory(self.server.transport())
            .with_http_client(self.server.http())
            .with_runtime(TokioRuntime)
            .with_version((2, 3000, 1_000_000_000))
            .with_wanted_pre_key_count(20)
            .with_device_props(DevicePropsOverride::new().with_os("Android"))
            .with_event_handler(Ear {
                inbox: self.inbox.clone(),
                bell: self.bell.clone(),
            })
            .build()
            .await
            .map_err(client_error)?;
        let client = bot.client();
        let handle = bot.spawn();
        self.until(CONNECT_FOR, "a phone to connect", |inbox| inbox.connected.then_some(()))
            .await?;
        *running = Some(Running { client, handle });
        Ok(())
    }

    /// Disconnects the phone; what is sent to it waits at the server.
    pub async fn go_offline(&self) {
        if let Some(running) = self.running.lock().await.take() {
            running.handle.shutdown().await;
        }
    }

    /// The phone's client, for what this type has no word for.
    ///
    /// # Errors
    /// When the phone is offline.
    pub async fn client(&self) -> Result<Arc<Client>, PersonError> {
        self.running
            .lock()
            .await
            .as_ref()
            .map(|running| running.client.clone())
            .ok_or(PersonError::Offline)
    }

    /// All messages that came, in order.
    #[must_use]
    pub fn inbox(&self) -> Vec<Received> {
        self.lock().messages.clone()
    }

    /// The next message that this was not called for yet; waits for it.
    ///
    /// # Errors
    /// When none has come after `limit`.
    pub async fn next_message(&self, limit: Duration) -> Result<Received, TooLate> {
        self.until(limit, "a message", |inbox| {
            let message = inbox.messages.get(inbox.read).cloned()?;
            inbox.read += 1;
            Some(message)
        })
        .await
    }

    /// The first message that fits; waits for it.
    ///
    /// # Errors
    /// When none has come after `limit`.
    pub async fn message_where(
        &self,
        limit: Duration,
        what: &str,
        fits: impl Fn(&Received) -> bool,
    ) -> Result<Received, TooLate> {
        self.until(limit, what, |inbox| {
            inbox.messages.iter().find(|message| fits(message)).cloned()
        })
        .await
    }

    /// Writes a text to a number; gives the message's id.
    ///
    /// # Errors
    /// When the phone is offline, or its client fails.
    pub async fn send_text(&self, phone: &str, text: &str) -> Result<String, PersonError> {
        self.send(Jid::pn(phone), text).await
    }

    /// Answers a message in its chat; gives the answer's id.
    ///
    /// # Errors
    /// When the phone is offline, or its client fails.
    pub async fn reply(&self, to: &Received, text: &str) -> Result<String, PersonError> {
        self.send(to.chat.clone(), text).await
    }

    async fn send(&self, to: Jid, text: &str) -> Result<String, PersonError> {
        let client = self.client().await?;
        let message = wa::Message {
            conversation: Some(text.to_owned()),
            ..Default::default()
        };
        let sent = client
            .send_message_with_options(to, message, SendOptions::default())
            .await
            .map_err(client_error)?;
        Ok(sent.message_id)
    }

    /// Shows a message as read to its sender.
    ///
    /// # Errors
    /// When the phone is offline, or its client fails.
    pub async fn mark_read(&self, message: &Received) -> Result<(), PersonError> {
        let client = self.client().await?;
        client
            .mark_as_read(&message.chat, None, &[message.id.as_str()])
            .await
            .map_err(client_error)
    }

    /// Downloads and decrypts a picture.
    ///
    /// # Errors
    /// When the phone is offline, the message has no picture, or it cannot be downloaded.
    pub async fn download(&self, message: &Received) -> Result<Vec<u8>, PersonError> {
        let client = self.client().await?;
        let image = message
            .image()
            .ok_or_else(|| PersonError::Client("the message has no picture".to_owned()))?;
        client.download(image).await.map_err(client_error)
    }

    /// Scans the QR code of a client, which is linked to this person's account; gives its address. If the phone is
    /// connected it shares its keys with the new device, which is ready at once instead of after ten seconds.
    ///
    /// # Errors
    /// When the client cannot be linked.
    pub async fn scan(&self, qr: &str) -> Result<Jid, PairingError> {
        let device = self.server.scan(&self.phone, qr).await?;
        self.welcome(&device).await;
        Ok(device)
    }

    /// Types the pairing code of a client, which is linked to this person's account; gives its address. A connected
    /// phone shares its keys as in [`Person::scan`].
    ///
    /// # Errors
    /// When the client cannot be linked.
    pub async fn enter_code(&self, code: &str) -> Result<Jid, PairingError> {
        let device = self.server.enter_code(&self.phone, code).await?;
        self.welcome(&device).await;
        Ok(device)
    }

    /// A phone that is there gives a new device its keys.
    async fn welcome(&self, device: &Jid) {
        if let Err(error) = self.share_keys(device).await
            && !matches!(error, PersonError::Offline)
        {
            tracing::warn!(%error, "a phone could not share its keys with a new device");
        }
    }

    pub(crate) fn rng(&self, purpose: &str) -> ChaCha8Rng {
        self.server.shared.with(|state| state.keys.rng(purpose, &self.phone))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().expect("nobody panics while holding an inbox")
    }

    async fn until<T>(
        &self,
        limit: Duration,
        what: &str,
        mut find: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<T, TooLate> {
        let mut bell = self.bell.subscribe();
        let search = async {
            loop {
                bell.borrow_and_update();
                if let Some(found) = find(&mut self.lock()) {
                    return found;
                }
                bell.changed().await.expect("a person holds its own bell");
            }
        };
        tokio::time::timeout(limit, search).await.map_err(|_| TooLate {
            what: what.to_owned(),
            waited: limit,
        })
    }
}

pub(crate) fn client_error(error: impl std::fmt::Display) -> PersonError {
    PersonError::Client(error.to_string())
}
