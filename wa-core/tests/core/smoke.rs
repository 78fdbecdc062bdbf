//! A whole campaign on the memory store and the stub transport, in real time without pacing.

use std::sync::Arc;
use std::time::Duration;

use wa_core::domain::access::RequestScope;
use wa_core::domain::campaign::{Campaign, CampaignStatus};
use wa_core::domain::content::Content;
use wa_core::domain::device::Device;
use wa_core::domain::lead::Lead;
use wa_core::domain::message::MessageScope;
use wa_core::domain::pacing::PacingPolicy;
use wa_core::domain::phone::Phone;
use wa_core::domain::platform::Platform;
use wa_core::domain::summary::Numbers;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::{Ended, Engine, EngineBuilder, Runner};
use wa_core::id::{CampaignId, DeviceId, IdSource, LeadId, UserId};
use wa_core::store::{CampaignStore, Change, ChangeSet, MemoryStore, OnDuplicate, OutboxStore, Store, WriteClass};
use wa_core::time::{Clock, SystemClock};
use wa_core::transport::StubTransport;

#[tokio::test]
async fn a_campaign_reaches_every_lead_once_and_completes() {
    let store = Arc::new(MemoryStore::new());
    let clock = Arc::new(SystemClock::new());
    let ids = IdSource::seeded([9; 32]);
    let now = clock.wall();
    let user = UserId::new(&ids, now);
    let mut set = ChangeSet::default();
    for number in 0..5 {
        let id = DeviceId::new(&ids, now);
        set = set.and(Change::InsertDevice(Box::new(Device::new(
            id,
            user,
            format!("d{number}"),
            Platform::STUB,
            now,
        ))));
        for lead in 0..20 {
            let phone = Phone::from_e164(&format!("+6012{number}{lead:06}")).unwrap();
            let mut lead = Lead::new(LeadId::new(&ids, now), user, Some(id), phone, now);
            lead.name = "Ali".to_owned();
            set = set.and(Change::InsertLead {
                lead: Box::new(lead),
                on_duplicate: OnDuplicate::Refuse,
            });
        }
    }
    store.commit(set, WriteClass::Api, now).await.unwrap();
    let id = CampaignId::new(&ids, now);
    let mut campaign = Campaign::draft(id, user, "promo", Content::text("Hi {{name}}, {buy|take} it"), now);
    campaign.status = CampaignStatus::Scheduled;
    campaign.scheduled_at = Some(now);
    store
        .commit(
            ChangeSet::one(Change::InsertCampaign(Box::new(campaign))),
            WriteClass::Api,
            now,
        )
        .await
        .unwrap();

    let transport = Arc::new(StubTransport::new());
    let config = EngineConfig::new("node-1").pacing(PacingPolicy::unpaced());
    let core = EngineBuilder::new(store.clone(), clock, config)
        .transport(transport.clone())
        .open()
        .await
        .unwrap();
    let engine = Engine::start(core).await.unwrap();
    let (stop, stopped) = futures::channel::oneshot::channel::<()>();
    let running = tokio::spawn(Runner::new(engine).run(async move {
        let _ = stopped.await;
    }));
    let finished = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let campaign = store.campaigns_by_id(&[id]).await.unwrap().pop().unwrap();
            let scope = RequestScope::user(user);
            let numbers: Numbers = store
                .numbers(&scope, MessageScope::Campaign(id))
                .await
                .unwrap()
                .iter()
                .map(|one| one.numbers)
                .sum();
            if campaign.status == CampaignStatus::Completed {
                return numbers;
            }
            tokio::task::yield_now().await;
        }
    });
    let numbers = finished.await.expect("the campaign completes");
    assert_eq!((numbers.should(), numbers.done), (100, 100));
    stop.send(()).unwrap();
    assert_eq!(running.await.unwrap(), Ended::Stopped);
    let sent = transport.sent();
    let mut people: Vec<_> = sent.iter().map(|one| one.to).collect();
    people.sort();
    people.dedup();
    assert_eq!((sent.len(), people.len()), (100, 100));
    assert!(sent.iter().all(|one| one.text.contains("Ali")), "names are merged");
}
