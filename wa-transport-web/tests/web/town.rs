//! An engine with one linked device, and people whose clients are real.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wa_core::domain::access::RequestScope;
use wa_core::domain::content::Media;
use wa_core::domain::device::{Device, LinkState};
use wa_core::domain::message::{Message, MessageScope, MessageState};
use wa_core::domain::pacing::PacingPolicy;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::handle::{DeviceRequest, Handle, LeadCreated};
use wa_core::engine::{Engine, EngineBuilder, Runner};
use wa_core::id::{CampaignId, DeviceId, IdSource, LeadId, MediaId, UserId};
use wa_core::media::{MediaError, MediaStore};
use wa_core::plan::{CampaignDraft, DeviceDraft, LeadDraft, MediaDraft, SaveAs};
use wa_core::store::{DeviceStore, MemoryStore, MessageFilter, OnDuplicate, OutboxStore, PageRequest, SessionOwner};
use wa_core::time::{Clock, SystemClock};
use wa_core::transport::OutgoingMedia;
use wa_loopback::{Loopback, Options, Person};
use wa_transport_web::backend::Backend;
use wa_transport_web::vault::Vault;
use wa_transport_web::{WebOptions, WhatsAppWeb};

use crate::clock::MovedClock;
use crate::rig::{LIMIT, OWN, options};

/// How often a test looks whether something holds, which it cannot be told of.
const LOOKS_EVERY: Duration = Duration::from_millis(2);

/// Waits until something holds.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    };
    match tokio::time::timeout(LIMIT, search).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// The one picture that everybody has.
#[derive(Debug)]
struct OnePicture(Arc<[u8]>);

#[async_trait]
impl MediaStore for OnePicture {
    async fn load(&self, _user: UserId, media: &Media) -> Result<OutgoingMedia, MediaError> {
        Ok(OutgoingMedia {
            kind: media.kind,
            mime: "image/png".to_owned(),
            file_name: "offer.png".to_owned(),
            url: None,
            bytes: Some(self.0.clone()),
        })
    }
}

/// A picture of one colour.
pub fn picture() -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    let picture = image::RgbImage::from_pixel(60, 40, image::Rgb([20, 90, 160]));
    picture.write_to(&mut file, image::ImageFormat::Png).unwrap();
    file.into_inner()
}

pub struct Town {
    pub server: Loopback,
    pub store: Arc<MemoryStore>,
    pub handle: Handle,
    pub user: RequestScope,
    pub clock: Arc<MovedClock>,
    device: Device,
    stop: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Town {
    /// A device that is linked and online, without any pace.
    pub async fn new() -> Self {
        Self::with(options()).await
    }

    pub async fn with(options: WebOptions) -> Self {
        let server = Loopback::start(Options::new());
        let clock = Arc::new(MovedClock::default());
        let store = Arc::new(MemoryStore::new());
        let transport = WhatsAppWeb::builder(store.clone(), clock.clone())
            .options(options)
            .connections(Arc::new(server.transport()))
            .http(Arc::new(server.http()))
            .build()
            .unwrap();
        let config = EngineConfig::new("node-1").pacing(PacingPolicy::unpaced());
        let core = EngineBuilder::new(store.clone(), clock.clone(), config)
            .transport(Arc::new(transport))
            .media(Arc::new(OnePicture(picture().into())))
            .open()
            .await
            .unwrap();
        let handle = Handle::new(core.clone());
        let user = RequestScope::user(UserId::new(&IdSource::from_entropy(), clock.wall()));
        let draft = DeviceDraft {
            name: Some("Sales".into()),
            platform: Some("whatsapp_web".into()),
            ..DeviceDraft::default()
        };
        let device = handle.create_device(&user, &draft).await.unwrap();
        let engine = Engine::start(core).await.unwrap();
        let owned = store.owned(&[device.id]).await.unwrap().remove(0);
        let owner = SessionOwner {
            incarnation: owned.owner.unwrap(),
            user_id: device.user_id,
            device_id: device.id,
            epoch: owned.epoch,
        };
        let backend = Backend::new(store.clone(), Arc::new(Vault::plain()), clock.clone(), owner);
        server.seed_device(OWN, &backend).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio::spawn(async move {
            Runner::new(engine).run(async move { drop(stopped.await) }).await;
        });
        let town = Self {
            server,
            store,
            handle,
            user,
            clock,
            device,
            stop,
            running,
        };
        town.refresh().await;
        town.wait_link(LinkState::Ready).await;
        town
    }

    /// Stops the engine, which must end in order.
    pub async fn close(self) {
        drop(self.stop);
        self.running.await.unwrap();
    }

    /// Asks the device to connect.
    pub async fn refresh(&self) {
        self.handle
            .ask_device(&self.user, self.device.id, &DeviceRequest::Refresh)
            .await
            .unwrap();
    }

    pub fn device_id(&self) -> DeviceId {
        self.device.id
    }

    /// The device as it stands.
    pub async fn device(&self) -> Device {
        self.store.device(&self.user, self.device.id).await.unwrap()
    }

    pub async fn wait_link(&self, state: LinkState) -> Device {
        until(&format!("the device to be {state:?}"), async || {
            Some(self.device().await).filter(|device| device.link_state == state)
        })
        .await
    }

    /// Somebody with a lead of the device and a client that is online.
    pub async fn person(&self, phone: &str, name: &str) -> (Person, LeadId) {
        let person = self.server.person(phone, name).await.unwrap();
        person.connect().await.unwrap();
        let lead = self.lead(phone, name).await;
        (person, lead)
    }

    pub async fn lead(&self, phone: &str, name: &str) -> LeadId {
        let lead = LeadDraft {
            name: Some(name.to_owned()),
            phone: Some(format!("+{phone}")),
            device_id: Some(self.device.id),
            ..LeadDraft::default()
        };
        match self.handle.create_lead(&self.user, &lead, OnDuplicate::Refuse).await {
            Ok(LeadCreated::Created(lead)) => lead.id,
            other => panic!("{other:?}"),
        }
    }

    /// Starts a campaign to all leads.
    pub async fn campaign(&self, title: &str, text: &str) -> CampaignId {
        let draft = CampaignDraft {
            title: Some(title.to_owned()),
            message: Some(text.to_owned()),
            ..CampaignDraft::default()
        };
        self.start(draft).await
    }

    /// Starts a campaign with a picture to all leads, whose messages wait so long at most.
    pub async fn picture_campaign(&self, text: &str, expires_after: Duration) -> CampaignId {
        let picture = MediaId::new(&IdSource::from_entropy(), self.clock.wall());
        let draft = CampaignDraft {
            title: Some("Picture".to_owned()),
            message: Some(text.to_owned()),
            media: Some(MediaDraft::stored(picture)),
            expires_after: Some(expires_after),
            ..CampaignDraft::default()
        };
        self.start(draft).await
    }

    async fn start(&self, draft: CampaignDraft) -> CampaignId {
        let saved = self.handle.create_campaign(&self.user, &draft, SaveAs::Draft).await;
        let id = saved.unwrap().campaign.id;
        self.handle.start_campaign_now(&self.user, id).await.unwrap();
        id
    }

    /// The messages of the user, of one campaign or sequence or of all.
    pub async fn messages(&self, scope: Option<MessageScope>) -> Vec<Message> {
        let filter = MessageFilter {
            scope,
            ..MessageFilter::default()
        };
        let page = self.store.messages(&self.user, &filter, &PageRequest::first(100)).await;
        page.unwrap().rows
    }

    /// The one message to somebody, within a campaign or sequence.
    pub async fn message_to(&self, scope: MessageScope, phone: &str) -> Option<Message> {
        let messages = self.messages(Some(scope)).await;
        let to = |message: &Message| message.phone.is_some_and(|to| to.digits() == phone);
        messages.into_iter().find(to)
    }

    /// Waits until the message to somebody is in a state.
    pub async fn wait_message(&self, scope: MessageScope, phone: &str, state: MessageState) -> Message {
        until(&format!("a message to be {state:?}"), async || {
            let message = self.message_to(scope, phone).await;
            message.filter(|message| message.state == state)
        })
        .await
    }
}

/// The seconds since 1970, as WhatsApp counts, `span` from now.
pub fn seconds_from_now(span: Duration) -> i64 {
    let at = SystemClock::new().wall() + span;
    at.as_millis() / 1_000
}
