//! The engine in about twenty lines: a store, a transport, a clock, one device, one lead, one campaign.
//!
//! `cargo run -p wa-examples --bin embed`

use std::sync::Arc;
use std::time::Duration;

use wa_core::domain::access::RequestScope;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::handle::Handle;
use wa_core::engine::{Engine, EngineBuilder, Runner};
use wa_core::id::{IdSource, UserId};
use wa_core::plan::{CampaignDraft, DeviceDraft, LeadDraft, SaveAs};
use wa_core::store::{MemoryStore, OnDuplicate};
use wa_core::time::{Clock, SystemClock};
use wa_core::transport::StubTransport;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (store, clock, transport) = (
        Arc::new(MemoryStore::new()),
        Arc::new(SystemClock::new()),
        Arc::new(StubTransport::new()),
    );
    let user = RequestScope::user(UserId::new(&IdSource::from_entropy(), clock.wall()));
    let core = EngineBuilder::new(store, clock, EngineConfig::new("node-1"))
        .transport(transport.clone())
        .open()
        .await?;
    let handle = Handle::new(Arc::clone(&core));
    let engine = Engine::start(core).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(Runner::new(engine).run(async move { stopped.await.unwrap_or(()) }));

    let device = DeviceDraft {
        name: Some("Sales".into()),
        platform: Some("stub".into()),
        ..Default::default()
    };
    let device = handle.create_device(&user, &device).await?;
    let lead = LeadDraft {
        name: Some("Aminah".into()),
        phone: Some("012-345 6789".into()),
        device_id: Some(device.id),
        ..Default::default()
    };
    handle.create_lead(&user, &lead, OnDuplicate::MergeTriggers).await?;
    let campaign = CampaignDraft {
        title: Some("Hello".into()),
        message: Some("{Apa khabar|Hi}, {{name}}!".into()),
        ..Default::default()
    };
    let saved = handle.create_campaign(&user, &campaign, SaveAs::Draft).await?;
    handle.start_campaign_now(&user, saved.campaign.id).await?;

    while transport.sent().is_empty() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    println!("sent: {}", transport.sent()[0].text);
    drop(stop);
    println!("{:?}", running.await?);
    Ok(())
}
