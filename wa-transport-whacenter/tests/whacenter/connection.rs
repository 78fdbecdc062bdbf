//! Where connections go, and where they never go.

use std::io;
use std::net::IpAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use wa_core::transport::net::NameResolver;
use wa_core::transport::{NotSentKind, SendContext, SendError, SendReceipt, Transport};
use wa_transport_whacenter::Whacenter;

use crate::rig::{Rig, device, message, policy, recorded};

/// Says that every name is this, and counts how often it was asked.
#[derive(Debug)]
struct Resolver {
    answer: Option<IpAddr>,
    asked: AtomicUsize,
}

#[async_trait]
impl NameResolver for Resolver {
    async fn resolve(&self, _host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.answer {
            Some(address) => Ok(vec![address]),
            None => Err(io::Error::other("no such name")),
        }
    }
}

async fn send_to(base_url: String, listed: &str, answer: Option<&str>) -> (Result<SendReceipt, SendError>, usize) {
    let resolver = Arc::new(Resolver {
        answer: answer.map(|text| text.parse().unwrap()),
        asked: AtomicUsize::new(0),
    });
    let transport = Whacenter::builder()
        .host_policy(policy(listed))
        .resolver(resolver.clone())
        .connect_timeout(Duration::from_secs(1))
        .build()
        .unwrap();
    let context = SendContext {
        device: Arc::new(device(base_url)),
        timeout: Duration::from_secs(20),
    };
    let result = transport.send(&context, &message(&transport)).await;
    (result, resolver.asked.load(Ordering::Relaxed))
}

#[track_caller]
fn assert_unavailable(result: &Result<SendReceipt, SendError>) {
    match result {
        Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, NotSentKind::Unavailable),
        other => panic!("{other:?}"),
    }
}

fn port(rig: &Rig) -> u16 {
    rig.gateway.base_url().rsplit(':').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_listed_name_may_lead_to_a_private_address() {
    let rig = Rig::answering(recorded("send/200-message-sent.json")).await;
    let host = format!("gateway.intern:{}", port(&rig));
    let (result, asked) = send_to(format!("http://{host}"), &host, Some("127.0.0.1")).await;
    result.unwrap();
    assert_eq!(asked, 1);
    assert_eq!(rig.request().header("host"), Some(host.as_str()));
}

#[tokio::test]
async fn a_name_of_the_vendor_that_leads_to_a_private_address_is_not_spoken_to() {
    let rig = Rig::answering(recorded("send/200-message-sent.json")).await;
    // The pattern allows this port, so that only the address can refuse.
    let listed = format!("*.example.net:{}", port(&rig));
    let url = format!("https://gateway.example.net:{}", port(&rig));
    for address in ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"] {
        let (result, asked) = send_to(url.clone(), &listed, Some(address)).await;
        assert_unavailable(&result);
        assert!(result.unwrap_err().to_string().contains("public host"), "{address}");
        assert_eq!(asked, 1);
    }
    assert!(rig.gateway.requests().is_empty());
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_has_not_sent() {
    let (result, asked) = send_to("https://api.whacenter.com".to_owned(), "", None).await;
    assert_unavailable(&result);
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn an_encryption_that_does_not_come_up_has_not_sent() {
    // The gateway speaks no TLS and waits for more, so the time-out of the connection ends it.
    let rig = Rig::answering(recorded("send/200-message-sent.json")).await;
    let url = rig.gateway.base_url().replace("http:", "https:");
    let (result, _) = send_to(url, &rig.gateway.hosts(), None).await;
    assert_unavailable(&result);
    assert!(rig.gateway.requests().is_empty());
}

#[tokio::test]
async fn a_device_that_can_no_longer_work_makes_no_request() {
    let rig = Rig::answering(recorded("send/200-message-sent.json")).await;
    let (result, asked) = send_to("https://gateway.example".to_owned(), "", Some("1.1.1.1")).await;
    assert_unavailable(&result);
    assert_eq!(asked, 0);
    let mut context = rig.context();
    Arc::make_mut(&mut context.device).credential = None;
    match rig.transport.send(&context, &message(&rig.transport)).await {
        Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, NotSentKind::Unauthenticated),
        other => panic!("{other:?}"),
    }
    assert!(rig.gateway.requests().is_empty());
}

#[test]
fn a_device_without_a_base_url_speaks_to_the_vendor() {
    let mut own = device(String::new());
    own.base_url = None;
    assert_eq!(Whacenter::builder().build().unwrap().check_device(&own), Ok(()));
}

/// Runs a test that sends, in a process whose environment names a proxy that nobody serves.
#[test]
fn a_proxy_of_the_environment_is_not_used() {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "conformance::an_accepted_message_is_ok_after_one_request"]);
    for name in [
        "http_proxy",
        "HTTP_PROXY",
        "https_proxy",
        "HTTPS_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        command.env(name, "http://127.0.0.1:1");
    }
    for name in ["no_proxy", "NO_PROXY"] {
        command.env_remove(name);
    }
    let output = command.output().unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    assert!(shown.contains("1 passed"), "{shown}");
}
