//! The way of a first user: log in, add a device, receive leads, schedule a campaign, watch it to its end.

use std::time::Duration;

use serde_json::json;
use wa_core::domain::schedule::TimeZone;
use wa_core::id::CampaignId;
use wa_core::time::{Clock, SystemClock};
use wa_server_example::loopback::{GatewayDevice, GatewayScript, Latency, LoopbackGateway, Receipts, Vendor};

use crate::api::Api;
use crate::server_process::{DataDir, ServerProcess};
use crate::support::PASSWORD;

const CREDENTIAL: &str = "loopback.secret";
const TEXT: &str = "{Promosi|Tawaran} {{niche}} untuk {{name}}.\nNombor anda {{phone}}.";

#[tokio::test(flavor = "multi_thread")]
async fn a_first_user_comes_from_the_login_to_a_completed_campaign_over_http_alone() {
    let script = GatewayScript::new(Vendor::Wablas, 1).latency(Latency::between(5, 200));
    let gateway = LoopbackGateway::start(script.clone()).await.unwrap();
    let data = DataDir::new();
    let hosts = gateway.address().to_string();
    let settings = [
        ("DASHBOARD_USERNAME", "boss"),
        ("DASHBOARD_PASSWORD", PASSWORD),
        ("GATEWAY_HOSTS", hosts.as_str()),
    ];
    let server = ServerProcess::start(&data, &settings).await;
    let api = Api::login(server.address(), "boss").await;
    let user = api.0.get("/api/auth/user").await.ok();

    let device = json!({
        "name": "Sales", "platform": "wablas", "credential": CREDENTIAL, "base_url": gateway.base_url(),
        "min_delay": 1, "max_delay": 2,
    });
    let device = api.0.post("/api/devices", device).await.ok();
    assert!(!device.to_string().contains(CREDENTIAL), "{device}");
    let inbound = device["callbacks"]["inbound"].as_str().unwrap();
    // Without PUBLIC_BASE_URL the server tells the path alone.
    let hook = format!("http://{}{}", server.address(), inbound.trim_end_matches("/inbound"));
    let known = GatewayDevice::new(CREDENTIAL, "FIRST1", "60190000001").hook(hook);
    gateway.set_script(script.devices([known]).receipts(Receipts {
        read: 1_000,
        delivered: 1_000,
        step_max_ms: 500,
        ..Receipts::default()
    }));

    // One person in three forms, and three more; a bot calls, which is not logged in.
    let people = [
        ("0123456789", "Aminah binti Ali"),
        ("123456789", "Aminah binti Ali"),
        ("+60123456789", "Aminah binti Ali"),
        ("016-223 3445", "Tan Wei Ling"),
        ("017 334 4556", "Priya a/p Rajan"),
        ("60134455667", ""),
    ];
    let mut ids = Vec::new();
    for (phone, name) in people {
        let lead = json!({
            "name": if name.is_empty() { "60134455667" } else { name }, "phone": phone, "niche": "Kursus",
            "user_id": user["id"], "device_id": device["id"],
        });
        let answer = api.0.clone().anonymous().post("/webhook/lead/create", lead).await;
        let code = if ids.contains(&answer.body["results"]["lead_id"]) {
            "DUPLICATE_SKIPPED"
        } else {
            "SUCCESS"
        };
        assert_eq!(answer.code(), code, "{}", answer.text);
        ids.push(answer.ok()["lead_id"].clone());
    }
    assert!(ids[0] == ids[1] && ids[1] == ids[2] && ids[2] != ids[3], "{ids:?}");
    let leads = api.0.get("/api/leads").await.ok();
    assert_eq!(leads["items"].as_array().unwrap().len(), 4, "{leads}");

    let zone: TimeZone = "Asia/Kuala_Lumpur".parse().unwrap();
    // The next minute that is not over before the request is through.
    let start = SystemClock::new().wall() + Duration::from_secs(62);
    let campaign = json!({
        "title": "First", "message": TEXT, "niche": "kursus", "time_zone": zone.name(),
        "date": zone.local_date(start).to_string(), "time": zone.local_time(start).to_string(), "status": "scheduled",
    });
    let campaign = api.0.post("/api/campaigns", campaign).await.ok();
    assert_eq!(campaign["status"], "scheduled", "{campaign}");
    let id: CampaignId = campaign["id"].as_str().unwrap().parse().unwrap();
    let numbers = api.until_ended(id, 4, Duration::from_secs(120)).await;
    assert_eq!(
        (&numbers["status"], &numbers["total"]["done"]),
        (&json!("completed"), &json!(4)),
        "{numbers}"
    );

    let messages = gateway.messages();
    assert_eq!(messages.len(), 4);
    let scheduled_at = zone.instant(zone.local_date(start), zone.local_time(start));
    assert!(
        messages.iter().all(|message| message.received_at >= scheduled_at),
        "{messages:?}"
    );
    for pair in messages.windows(2) {
        let gap = pair[1].received_at.since(pair[0].received_at);
        assert!(gap >= Duration::from_millis(900), "paced: {gap:?}");
    }
    let first = messages.iter().find(|message| message.number == "60123456789").unwrap();
    let (greeting, text) = first
        .text
        .split_at(first.text.find("Promosi").or(first.text.find("Tawaran")).unwrap());
    assert!(
        greeting.contains("Aminah") && greeting.ends_with('\n'),
        "{:?}",
        first.text
    );
    assert!(
        text.contains("Kursus untuk Aminah") || text.contains("kursus untuk Aminah"),
        "{text:?}"
    );
    assert!(text.ends_with(".\nNombor anda +60123456789."), "{text:?}");
    assert!(messages.iter().all(|message| !message.text.contains(['{', '}', '|'])));

    let mut look = tokio::time::interval(Duration::from_millis(100));
    let read = async {
        while api.numbers(id).await["total"]["read"] != 4 {
            look.tick().await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), read).await.is_err() {
        panic!("receipts arrive: {} {:?}", api.numbers(id).await, gateway.counts());
    }
    assert_eq!(gateway.counts().callbacks_failed, 0);
}
