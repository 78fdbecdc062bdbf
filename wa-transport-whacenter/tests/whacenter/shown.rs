//! What logs and debug output show.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use wa_core::conformance::transport::{Behaviour, GatewayAnswer};
use wa_core::transport::Transport;

use crate::rig::{CREDENTIAL, Rig, TEXT, message, recorded};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;
    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn logs_say_what_happened_and_hold_no_device_id_no_text_and_no_full_number() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .with_writer(log.clone())
        .finish();
    // For all threads: a subscriber of one thread misses what a thread without one has met first, and so this log holds
    // what the other tests send, too.
    tracing::subscriber::set_global_default(subscriber).unwrap();
    tracing::callsite::rebuild_interest_cache();
    let rig = Rig::with(|behaviour, request| match behaviour {
        Behaviour::Accept => recorded("send/200-message-sent.json"),
        _ => {
            let echo = format!("Invalid API Key {} {:?}", request.target, request.headers);
            let echo = format!("{echo} {:?} {:?}", request.field("message"), request.field("number"));
            let echo = format!("{echo} {:?}", String::from_utf8_lossy(&request.body));
            GatewayAnswer::json(200, serde_json::json!({"status": false, "message": echo}).to_string())
        }
    })
    .await;
    let context = rig.context();
    for behaviour in [Behaviour::Accept, Behaviour::RefuseEchoing, Behaviour::CutAfterReading] {
        rig.gateway.script(behaviour);
        let message = message(&rig.transport);
        let _ = rig.transport.send(&context, &message).await;
        let _ = rig.transport.as_probe().unwrap().probe(&context).await;
    }
    let shown = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for said in [
        "whacenter took the message",
        "whacenter send failed",
        "whacenter probe failed",
        "+6012***6789",
        "Unauthenticated",
        "ConnectionLost",
    ] {
        assert!(shown.contains(said), "{said} is missing in\n{shown}");
    }
    for secret in [
        CREDENTIAL,
        TEXT,
        "Puan Kancil",
        "Puan+Kancil",
        "60123456789",
        "123456789",
    ] {
        assert!(!shown.contains(secret), "{secret} is shown in\n{shown}");
    }
    assert!(!format!("{:?}", rig.transport).contains(CREDENTIAL));
}
