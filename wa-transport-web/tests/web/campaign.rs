//! A campaign through the engine to people whose clients are real.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use wa_core::domain::access::RequestScope;
use wa_core::domain::delivery::Delivery;
use wa_core::domain::device::LinkState;
use wa_core::domain::message::{MessageScope, MessageState};
use wa_core::domain::pacing::PacingPolicy;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::handle::{DeviceRequest, Handle};
use wa_core::engine::{Engine, EngineBuilder, Runner};
use wa_core::id::{IdSource, UserId};
use wa_core::plan::{CampaignDraft, DeviceDraft, LeadDraft, SaveAs};
use wa_core::store::{DeviceStore, MemoryStore, MessageFilter, OnDuplicate, OutboxStore, PageRequest, SessionOwner};
use wa_core::time::{Clock, SystemClock};
use wa_core::transport::TransportMessageId;
use wa_loopback::{Answer, Loopback, MessageFault, Options, Rule};
use wa_transport_web::WhatsAppWeb;
use wa_transport_web::backend::Backend;
use wa_transport_web::vault::Vault;

use crate::rig::{LIMIT, OWN, options};

/// Waits until something holds.
async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let search = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(LIMIT, search).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_read_exactly_what_the_store_says_was_sent_each_of_them_once() {
    let server = Loopback::start(Options::new());
    let clock = Arc::new(SystemClock::new());
    let store = Arc::new(MemoryStore::new());
    let mut quick = options();
    quick.ack_within = Duration::from_secs(2);
    let transport = WhatsAppWeb::builder(store.clone(), clock.clone())
        .options(quick)
        .connections(Arc::new(server.transport()))
        .http(Arc::new(server.http()))
        .build()
        .unwrap();
    let config = EngineConfig::new("node-1").pacing(PacingPolicy::unpaced());
    let core = EngineBuilder::new(store.clone(), clock.clone(), config)
        .transport(Arc::new(transport))
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
    let running = tokio::spawn(Runner::new(engine).run(async move { drop(stopped.await) }));
    handle
        .ask_device(&user, device.id, &DeviceRequest::Refresh)
        .await
        .unwrap();
    until("the device to be online", async || {
        let device = store.device(&user, device.id).await.unwrap();
        (device.link_state == LinkState::Ready).then_some(())
    })
    .await;

    let mut people = Vec::new();
    for (number, name) in ["Aminah", "Ali", "Siti", "Raju", "Mei"].iter().enumerate() {
        let phone = format!("6012000000{number}");
        let person = server.person(&phone, name).await.unwrap();
        person.connect().await.unwrap();
        people.push(person);
        let lead = LeadDraft {
            name: Some((*name).to_owned()),
            phone: Some(format!("+{phone}")),
            device_id: Some(device.id),
            ..LeadDraft::default()
        };
        handle.create_lead(&user, &lead, OnDuplicate::Refuse).await.unwrap();
    }
    // The answer to the second message is lost: it is in doubt, and sent again with the same id.
    server.fault(Rule::message(MessageFault::SwallowAck).of(OWN).nth(2));
    let draft = CampaignDraft {
        title: Some("Offer".into()),
        message: Some("Hi {{name}}, {today|now} *RM 5* off 👍\nhttps://example.com/{{phone}}".into()),
        ..CampaignDraft::default()
    };
    let saved = handle.create_campaign(&user, &draft, SaveAs::Draft).await.unwrap();
    handle.start_campaign_now(&user, saved.campaign.id).await.unwrap();

    for person in &people {
        let received = person.next_message(LIMIT).await.unwrap();
        person.mark_read(&received).await.unwrap();
    }
    let filter = MessageFilter {
        scope: Some(MessageScope::Campaign(saved.campaign.id)),
        ..MessageFilter::default()
    };
    let messages = until("all to be read", async || {
        let messages = store
            .messages(&user, &filter, &PageRequest::first(10))
            .await
            .unwrap()
            .rows;
        let done = messages
            .iter()
            .all(|message| message.state == MessageState::Sent && message.delivery == Some(Delivery::Read));
        (messages.len() == people.len() && done).then_some(messages)
    })
    .await;
    let mut swallowed = 0;
    for message in &messages {
        let attempts = store.attempts(&user, message.id).await.unwrap();
        assert_eq!(
            attempts.len(),
            1,
            "a message sent again with the same id is one attempt"
        );
        let sent: &TransportMessageId = &attempts[0].transport_message_id;
        let phone = message.phone.unwrap();
        let person = people.iter().find(|person| person.phone() == phone.digits()).unwrap();
        let inbox = person.inbox();
        assert_eq!(inbox.len(), 1, "{phone:?} got one message");
        assert_eq!(inbox[0].id, sent.as_str());
        assert_eq!(inbox[0].text(), Some(attempts[0].text.as_str()));
        // Whoever reads it first says by that that it was sent; else it is sent again, and the server knows its id.
        let answers = server.answers(sent.as_str());
        if answers.first() == Some(&Answer::Swallowed) {
            swallowed += 1;
            assert!(
                answers[1..].iter().all(|answer| *answer == Answer::Repeated),
                "{answers:?}"
            );
        }
    }
    assert_eq!(swallowed, 1);
    drop(stop);
    running.await.unwrap();
}
