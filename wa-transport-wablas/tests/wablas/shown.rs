//! What logs and debug output show.

use std::io;
use std::sync::{Arc, Mutex};

use tracing_subscriber::fmt::MakeWriter;
use uuid::Uuid;
use wa_core::conformance::transport::{Behaviour, GatewayAnswer};
use wa_core::id::AttemptId;
use wa_core::time::Timestamp;
use wa_core::transport::{ReconcileQuery, Transport};

use crate::rig::{CREDENTIAL, Rig, TEXT, message, phone, recorded};

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
async fn logs_say_what_happened_and_hold_no_token_no_text_and_no_full_number() {
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
        Behaviour::Accept => recorded("send/200-messages-array.json"),
        _ => {
            let echo = format!(
                "token invalid {:?} {:?}",
                request.headers,
                String::from_utf8_lossy(&request.body)
            );
            let echo = format!("{echo} {:?} {:?}", request.field("message"), request.field("phones"));
            GatewayAnswer::json(200, serde_json::json!({"status": false, "message": echo}).to_string())
        }
    })
    .await;
    let context = rig.context();
    for behaviour in [Behaviour::Accept, Behaviour::RefuseEchoing, Behaviour::CutAfterReading] {
        rig.gateway.script(behaviour);
        let message = message(&rig.transport);
        let _ = rig.transport.send(&context, &message).await;
        let query = ReconcileQuery {
            attempt_id: AttemptId::from_uuid(Uuid::from_u128(1)),
            transport_message_id: message.transport_message_id,
            to: message.to,
            attempted_at: Timestamp::EPOCH,
            asked_at: Timestamp::EPOCH,
        };
        let _ = rig.transport.as_reconcilable().unwrap().find(&context, &query).await;
        let _ = rig.transport.as_probe().unwrap().probe(&context).await;
        let _ = rig
            .transport
            .as_number_checker()
            .unwrap()
            .check(&context, &[phone("+60123456789")])
            .await;
    }
    let shown = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for said in [
        "wablas took the message",
        "wablas send failed",
        "wablas look-up failed",
        "wablas probe failed",
        "wablas number check failed",
        "+6012***6789",
        "Unauthenticated",
        "ConnectionLost",
    ] {
        assert!(shown.contains(said), "{said} is missing in\n{shown}");
    }
    let (token, secret_key) = CREDENTIAL.split_once('.').unwrap();
    for secret in [
        token,
        secret_key,
        TEXT,
        "Puan Kancil",
        "Puan+Kancil",
        "60123456789",
        "123456789",
    ] {
        assert!(!shown.contains(secret), "{secret} is shown in\n{shown}");
    }
    assert!(!format!("{:?}", rig.transport).contains(token));
}
