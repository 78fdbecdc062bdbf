//! What the log shows of requests and errors: never a body, a token, a password or a whole number.

use std::io::Write;
use std::sync::{Arc, Mutex};

use reqwest::Method;
use serde_json::json;
use wa_server_example::logs;
use wa_server_example::settings::{Settings, Source};

use crate::support::{Client, PASSWORD, Running, settings};

#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_log_of_many_requests_shows_no_secret() {
    let written = Written::default();
    let sink = written.clone();
    let log = Settings::read(&Source::default().with("LOG", "trace").with("LOG_FORMAT", "json")).unwrap();
    let subscriber = logs::subscriber(&log, move || sink.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let running = Running::with(settings().with("METRICS_TOKEN", "metrics-secret")).await;
            let ann = running.login("ann").await;
            let device = json!({
                "name": "W", "platform": "wablas", "credential": "wablas-secret.key", "base_url": "https://solo.wablas.com"
            });
            let device = ann.post("/api/devices", device).await.ok();
            let id = device["id"].as_str().unwrap();
            let hook = device["callbacks"]["inbound"].as_str().unwrap().to_owned();
            ann.post("/api/leads", json!({"name": "Body Words", "phone": "0123456789", "device_id": id})).await.ok();
            let body = json!({"device_id": id, "phone": "0123456789", "message": "private words"});
            ann.post("/send/message?token=query-secret", body).await.ok();
            let anybody = running.anybody();
            let callback = anybody.request(Method::POST, &hook).json(&json!({"message": "reply words", "phone": "60123456789"}));
            Client::send(callback).await;
            Client::send(anybody.request(Method::POST, &hook).body("broken reply words")).await;
            ann.get(&format!("/api/devices/{id}/messages/60123456789")).await;
            anybody.post("/webhook/lead/create?token=query-secret", json!({"name": "Body Words"})).await;
            anybody.post("/api/login", json!({"login": "ann", "password": "wrong-secret"})).await;
            let metrics = anybody.request(Method::GET, "/metrics").bearer_auth("metrics-secret");
            Client::send(metrics).await;
            running.server.stop().await;
            let log = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
            let ours: Vec<&str> = log.lines().filter(|line| line.contains("\"target\":\"wa_")).collect();
            assert!(ours.iter().any(|line| line.contains("/hook/{token}/{kind}")), "requests are logged by their route");
            let token = hook.split('/').nth(2).unwrap();
            for secret in [
                PASSWORD, "wablas-secret", "private words", "Body Words", "reply words", "query-secret", "wrong-secret",
                "metrics-secret", "0123456789", "60123456789", token,
            ] {
                let shown: Vec<_> = ours.iter().filter(|line| line.contains(secret)).collect();
                assert!(shown.is_empty(), "{secret} is in the log: {shown:?}");
            }
        });
    });
}
