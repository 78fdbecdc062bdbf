//! One message through a real Wablas device, with a real pause before a second one.
//!
//! `cargo run -p wa-examples --bin wablas -- …` sends for real, to the number that you give.

use std::sync::Arc;
use std::time::Duration;

use wa_core::domain::access::RequestScope;
use wa_core::domain::device::Credential;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::handle::Handle;
use wa_core::engine::{Engine, EngineBuilder, Runner};
use wa_core::id::{IdSource, UserId};
use wa_core::plan::{DeviceDraft, DirectDraft};
use wa_core::time::{Clock, SystemClock};
use wa_store_sqlite::{SqliteOptions, SqliteStore};
use wa_transport_wablas::Wablas;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [base_url, token, secret, phone] = arguments("https://SERVER.wablas.com TOKEN SECRET PHONE")?;
    let clock = Arc::new(SystemClock::new());
    let store = Arc::new(SqliteStore::open(SqliteOptions::memory()).await?);
    let user = RequestScope::user(UserId::new(&IdSource::from_entropy(), clock.wall()));
    let core = EngineBuilder::new(store, clock, EngineConfig::new("node-1"))
        .transport(Arc::new(Wablas::builder().build()?))
        .open()
        .await?;
    let handle = Handle::new(Arc::clone(&core));
    let device = DeviceDraft {
        name: Some("My device".into()),
        platform: Some("wablas".into()),
        credential: Some(Credential::new(format!("{token}.{secret}"))),
        base_url: Some(base_url.clone()),
        ..Default::default()
    };
    let device = handle.create_device(&user, &device).await?;
    let engine = Engine::start(core).await?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let running = tokio::spawn(Runner::new(engine).run(async move { stopped.await.unwrap_or(()) }));

    let message = DirectDraft {
        device_id: Some(device.id),
        phone: Some(phone),
        message: Some("Apa khabar?".into()),
        ..Default::default()
    };
    let sent = handle.send_direct(&user, &message).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let message = handle.store().message(&user, sent.message_id).await?;
        println!("{:?} {:?} {:?}", message.state, message.reason, message.detail);
        if !message.state.is_open() {
            break;
        }
    }
    drop(stop);
    running.await?;
    Ok(())
}

fn arguments<const N: usize>(names: &str) -> Result<[String; N], String> {
    let given: Vec<_> = std::env::args().skip(1).collect();
    given.try_into().map_err(|_| format!("give {names}"))
}
