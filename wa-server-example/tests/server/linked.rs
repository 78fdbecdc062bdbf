//! A server process whose devices are linked to a simulated WhatsApp in the process of the test, with people whose phones are real
//! clients.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::json;
use wa_core::domain::access::RequestScope;
use wa_core::domain::message::{Attempt, Message, MessageScope, MessageState};
use wa_core::id::{CampaignId, DeviceId, UserId};
use wa_core::store::{
    DeviceStore as _, MessageFilter, OutboxStore as _, PAGE_MAX, PageRequest, SessionOwner, SessionStore,
};
use wa_core::time::SystemClock;
use wa_loopback::{Listener, Loopback, Options, Person, Received};
use wa_store_sqlite::{SqliteOptions, SqliteStore};
use wa_transport_web::backend::Backend;
use wa_transport_web::vault::Vault;

use crate::api::Api;
use crate::server_process::{DataDir, ServerProcess};
use crate::support::{Client, PASSWORD};
use crate::work::imported;

/// Most phones that connect or read at a time.
const PHONES_AT_ONCE: usize = 16;
/// How long something may take that is not the campaign itself.
const LIMIT: Duration = Duration::from_secs(120);

/// A user's devices and the people in their leads, dealt out evenly.
pub struct Linked {
    pub data: DataDir,
    pub whatsapp: Loopback,
    _listener: Listener,
    ports: String,
    pub devices: Vec<DeviceId>,
    pub people: Vec<Person>,
}

impl Linked {
    /// Devices that are linked and online at a server, which goes on running.
    pub async fn set(devices: usize, people: usize) -> (Self, ServerProcess) {
        let whatsapp = Loopback::start(Options::new());
        let listener = whatsapp.listen().await.unwrap();
        let ports = format!("{},{}", listener.websocket_port(), listener.media_port());
        let mut linked = Self {
            data: DataDir::new(),
            whatsapp,
            _listener: listener,
            ports,
            devices: Vec::new(),
            people: Vec::new(),
        };
        let server = linked.server().await;
        let ann = Client::login_at(server.address(), "ann").await;
        for number in 0..devices {
            let body = json!({"name": format!("Sales {number}"), "platform": "whatsapp_web"});
            let device = ann.post("/api/devices", body).await.ok();
            linked.devices.push(device["id"].as_str().unwrap().parse().unwrap());
        }
        linked.link(&ann).await;
        linked.fill(&ann, people).await;
        (linked, server)
    }

    /// The number of the account of a device, digits only.
    pub fn own_number(place: usize) -> String {
        format!("6019{place:07}")
    }

    /// Starts the server on what is there.
    pub async fn server(&self) -> ServerProcess {
        let users = format!("ann:{PASSWORD}");
        let settings = [
            ("WHATSAPP_LOOPBACK", self.ports.as_str()),
            ("APP_BASIC_AUTH", &users),
            ("DASHBOARD_PASSWORD", PASSWORD),
            ("PACING", "unpaced"),
            ("ERROR_RATE_PERCENT", "0"),
            ("SEND_TIMEOUT", "10s"),
            ("IMAGE_COMPRESSION", "false"),
            ("API_PER_MINUTE", "0"),
            // Full within a minute, so that what else grows is seen.
            ("DATABASE_CACHE_KIB", "1024"),
        ];
        ServerProcess::start(&self.data, &settings).await
    }

    pub async fn store(&self) -> SqliteStore {
        SqliteStore::open(SqliteOptions::file(self.data.database()))
            .await
            .unwrap()
    }

    /// Gives the devices what they would have kept if they had been linked, and connects them.
    async fn link(&self, ann: &Client) {
        let store = self.store().await;
        let sessions: Arc<dyn SessionStore> = Arc::new(store.clone());
        for (number, device) in self.devices.iter().enumerate() {
            let owned = until("the device to have an owner", async || {
                let owned = store.owned(&[*device]).await.unwrap().remove(0);
                owned.owner.is_some().then_some(owned)
            })
            .await;
            let owner = SessionOwner {
                incarnation: owned.owner.unwrap(),
                user_id: owned.device.user_id,
                device_id: *device,
                epoch: owned.epoch,
            };
            let vault = Arc::new(Vault::plain());
            let backend = Backend::new(Arc::clone(&sessions), vault, Arc::new(SystemClock::new()), owner);
            self.whatsapp
                .seed_device(&Self::own_number(number), &backend)
                .await
                .unwrap();
        }
        let online = futures::stream::iter(&self.devices).for_each_concurrent(PHONES_AT_ONCE, async |device| {
            let refreshed = ann.post(&format!("/api/devices/{device}/refresh"), json!({})).await;
            assert_eq!(refreshed.body["results"]["state"], "done", "{}", refreshed.text);
        });
        online.await;
        store.close().await;
    }

    async fn fill(&mut self, ann: &Client, people: usize) {
        let whatsapp = &self.whatsapp;
        let phones = (0..people).map(async |number| {
            let name = format!("Orang {number}");
            whatsapp.person(&format!("60120{number:06}"), &name).await.unwrap()
        });
        self.people = futures::future::join_all(phones).await;
        for (place, device) in self.devices.iter().take(self.people.len()).enumerate() {
            let mut file = "name,phone\n".to_owned();
            for (number, person) in self.people.iter().enumerate().skip(place).step_by(self.devices.len()) {
                file.push_str(&format!("Orang {number},+{}\n", person.phone()));
            }
            let path = format!("/api/devices/{device}/leads/import");
            let request = ann.request(Method::POST, &path).header("content-type", "text/csv");
            let started = Client::send(request.body(file)).await;
            assert_eq!(started.status, StatusCode::ACCEPTED, "{}", started.text);
            let done = imported(ann, started.ok()).await;
            assert_eq!(
                (&done["state"], &done["refused"]),
                (&json!("done"), &json!(0)),
                "{done}"
            );
        }
    }

    /// Connects the phones of some people; what waited for them comes in.
    pub async fn connect(people: impl Iterator<Item = &Person>) {
        let connected = futures::stream::iter(people).for_each_concurrent(PHONES_AT_ONCE, async |person| {
            person.connect().await.unwrap();
        });
        connected.await;
    }

    /// Creates a campaign to everybody and starts it.
    pub async fn start(&self, api: &Api, mut body: serde_json::Value) -> CampaignId {
        body["title"] = json!("Promosi");
        let campaign = api.0.post("/api/campaigns", body).await.ok();
        let id = campaign["id"].as_str().unwrap().parse().unwrap();
        api.campaign(id, "start").await;
        id
    }

    /// The messages of a campaign with what was last begun for each.
    pub async fn sent(&self, campaign: CampaignId) -> Vec<(Message, Attempt)> {
        let store = self.store().await;
        let scope = RequestScope::user(self.user(&store).await);
        let mut sent = Vec::new();
        for message in messages(&store, &scope, campaign, &[]).await {
            assert_eq!(message.state, MessageState::Sent, "{message:?}");
            let mut attempts = store.attempts(&scope, message.id).await.unwrap();
            assert_eq!(
                attempts.len(),
                1,
                "what is sent again with the same id is one attempt: {message:?}"
            );
            sent.push((message, attempts.remove(0)));
        }
        store.close().await;
        sent
    }

    /// How many messages of a campaign are under way or in doubt; only beside a server that does not run.
    pub async fn open(&self, campaign: CampaignId) -> usize {
        let store = self.store().await;
        let scope = RequestScope::user(self.user(&store).await);
        let open = [MessageState::Sending, MessageState::InDoubt];
        let open = messages(&store, &scope, campaign, &open).await.len();
        store.close().await;
        open
    }

    async fn user(&self, store: &SqliteStore) -> UserId {
        store.owned(&self.devices[..1]).await.unwrap()[0].device.user_id
    }

    /// Checks that everybody has decrypted one message, the one that the store says was sent to them, and gives it.
    pub fn check<'a>(&'a self, sent: &[(Message, Attempt)]) -> Vec<(&'a Person, Received)> {
        assert_eq!(sent.len(), self.people.len(), "nobody is lost");
        let got = sent.iter().map(|(message, attempt)| {
            let digits = message.phone.unwrap();
            let of = |person: &&Person| person.phone() == digits.digits();
            let person = self.people.iter().find(of).unwrap();
            let mut inbox = person.inbox();
            assert_eq!(inbox.len(), 1, "{} got {} messages", person.phone(), inbox.len());
            let received = inbox.remove(0);
            assert_eq!(received.id, attempt.transport_message_id.as_str());
            assert_eq!(received.text(), Some(attempt.text.as_str()));
            (person, received)
        });
        got.collect()
    }

    /// Waits until some people have a message.
    pub async fn until_received(people: impl Iterator<Item = &Person>) {
        let received = futures::stream::iter(people).for_each_concurrent(PHONES_AT_ONCE, async |person| {
            person.message_where(LIMIT, "the campaign", |_| true).await.unwrap();
        });
        received.await;
    }

    /// Lets people do something with what they received.
    pub async fn each<T>(received: Vec<(&Person, Received)>, act: impl AsyncFn(&Person, &Received) -> T) -> Vec<T> {
        let act = &act;
        let acts = received
            .into_iter()
            .map(|(person, received)| async move { act(person, &received).await });
        futures::stream::iter(acts)
            .buffer_unordered(PHONES_AT_ONCE)
            .collect()
            .await
    }
}

async fn messages(
    store: &SqliteStore,
    scope: &RequestScope,
    campaign: CampaignId,
    states: &[MessageState],
) -> Vec<Message> {
    let filter = MessageFilter {
        scope: Some(MessageScope::Campaign(campaign)),
        states: states.to_vec(),
        ..MessageFilter::default()
    };
    let mut all = Vec::new();
    let mut page = PageRequest::first(PAGE_MAX);
    loop {
        let read = store.messages(scope, &filter, &page).await.unwrap();
        all.extend(read.rows);
        match read.next {
            Some(next) => page = PageRequest::after(next, PAGE_MAX),
            None => return all,
        }
    }
}

/// What `look` finds, which is asked from time to time.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(Duration::from_millis(100));
    let search = async {
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(LIMIT, search).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for {what}"),
    }
}
