//! Leads, campaigns and messages through the API, as users work with them.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Client, PASSWORD, Running, settings};

pub async fn device(user: &Client, name: &str) -> String {
    let body = json!({"name": name, "platform": "stub"});
    let device = user.post("/api/devices", body).await.ok();
    device["id"].as_str().unwrap().to_owned()
}

async fn user_id(user: &Client) -> String {
    let user = user.get("/api/auth/user").await.ok();
    user["id"].as_str().unwrap().to_owned()
}

pub fn id(value: &Value) -> String {
    value["id"].as_str().unwrap().to_owned()
}

fn picture() -> Vec<u8> {
    let mut bytes = std::io::Cursor::new(Vec::new());
    image::DynamicImage::new_rgb8(8, 8)
        .write_to(&mut bytes, image::ImageFormat::Png)
        .unwrap();
    bytes.into_inner()
}

#[tokio::test]
async fn the_lead_webhook_answers_as_its_callers_expect() {
    let running = Running::start().await;
    let (ann, ben) = (running.basic("ann"), running.basic("ben"));
    let (user, device_id) = (user_id(&ann).await, device(&ann, "A").await);
    let other = device(&ben, "B").await;
    let anybody = running.anybody();
    let body = |change: Value| {
        let mut body = json!({
            "name": "Ali", "phone": "0123456789", "user_id": user, "device_id": device_id, "niche": "EXA",
            "trigger": "start", "device_name": "ignored", "platform": "ignored"
        });
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        body
    };
    let call = |change: Value| anybody.post("/webhook/lead/create", body(change));

    let made = call(json!({})).await;
    assert_eq!((made.status, made.code()), (StatusCode::OK, "SUCCESS"), "{}", made.text);
    let lead = made.ok();
    assert_eq!(
        (&lead["phone"], &lead["niche"], &lead["target_status"]),
        (&json!("+60123456789"), &json!("EXA"), &json!("prospect"))
    );
    for form in ["123456789", "+60123456789", "60123456789@c.us"] {
        let again = call(json!({"phone": form, "trigger": "start,second"})).await;
        assert_eq!((again.status, again.code()), (StatusCode::OK, "DUPLICATE_SKIPPED"));
        let again = again.ok();
        assert_eq!(
            (&again["lead_id"], &again["duplicate"], &again["trigger"]),
            (&lead["lead_id"], &json!(true), &json!("second,start"))
        );
    }
    let cases = [
        (json!({"name": ""}), 400, "VALIDATION_ERROR", "Name is required"),
        (json!({"phone": null}), 400, "VALIDATION_ERROR", "Phone is required"),
        (json!({"user_id": " "}), 400, "VALIDATION_ERROR", "User ID is required"),
        (
            json!({"device_id": null}),
            400,
            "VALIDATION_ERROR",
            "Device ID is required",
        ),
        (
            json!({"device_id": "x"}),
            400,
            "VALIDATION_ERROR",
            "device_id must be a UUID",
        ),
        (json!({"phone": "hello"}), 400, "VALIDATION_ERROR", "phone "),
        (
            json!({"target_status": "friend"}),
            400,
            "VALIDATION_ERROR",
            "prospect, customer",
        ),
        (json!({"name": 5}), 400, "BAD_REQUEST", "name"),
        (json!({"device_id": other}), 404, "NOT_FOUND", "device"),
        (
            json!({"user_id": "00000000-0000-7000-8000-000000000001"}),
            404,
            "NOT_FOUND",
            "device",
        ),
    ];
    for (change, status, code, says) in cases {
        let answer = call(change.clone()).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code()),
            (status, code),
            "{change}: {}",
            answer.text
        );
        assert!(answer.message().contains(says), "{change}: {}", answer.message());
    }
    let text = anybody.request(Method::POST, "/webhook/lead/create").body("name=Ali");
    assert_eq!(Client::send(text).await.code(), "BAD_REQUEST");
    let large = anybody
        .request(Method::POST, "/webhook/lead/create")
        .body(vec![b'a'; 100_000]);
    assert_eq!(Client::send(large).await.status, StatusCode::PAYLOAD_TOO_LARGE);

    let token = ann.post("/api/settings/webhook-token", json!({})).await.ok();
    let token = token["token"].as_str().unwrap();
    assert_eq!(call(json!({})).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(call(json!({"token": "wrong"})).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(call(json!({"token": token})).await.code(), "DUPLICATE_SKIPPED");
    let by_header = anybody
        .request(Method::POST, "/webhook/lead/create")
        .header("x-webhook-token", token);
    assert_eq!(
        Client::send(by_header.json(&body(json!({})))).await.code(),
        "DUPLICATE_SKIPPED"
    );
    let by_query = anybody
        .post(&format!("/webhook/lead/create?token={token}"), body(json!({})))
        .await;
    assert_eq!(by_query.code(), "DUPLICATE_SKIPPED");
}

#[tokio::test]
async fn the_lead_webhook_is_limited_per_address() {
    let running = Running::with(settings().with("LEAD_WEBHOOK_PER_MINUTE", "3")).await;
    let anybody = running.anybody();
    for _ in 0..3 {
        assert_eq!(
            anybody.post("/webhook/lead/create", json!({})).await.status,
            StatusCode::BAD_REQUEST
        );
    }
    let answer = anybody.post("/webhook/lead/create", json!({})).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::TOO_MANY_REQUESTS, "TOO_MANY_REQUESTS")
    );
    running.clock.advance(Duration::from_secs(20));
    assert_eq!(
        anybody.post("/webhook/lead/create", json!({})).await.status,
        StatusCode::BAD_REQUEST
    );
}

#[tokio::test]
async fn bad_input_is_refused_and_the_field_is_named() {
    let running = Running::start().await;
    let (ann, ben) = (running.basic("ann"), running.basic("ben"));
    let (own, foreign) = (device(&ann, "A").await, device(&ben, "B").await);
    let campaign = |change: Value| {
        let mut body = json!({"title": "T", "message": "Hi", "device_id": own});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        body
    };
    let wablas = |url: &str| json!({"name": "W", "platform": "wablas", "credential": "t.s", "base_url": url});
    let gateway = id(&ann.post("/api/devices", wablas("https://solo.wablas.com")).await.ok());
    let big = "x".repeat(5_000);
    let cases = [
        ("/api/leads", json!({"phone": "12"}), "phone"),
        (
            "/api/leads",
            json!({"phone": "0123456789", "target_status": "friend"}),
            "target_status",
        ),
        (
            "/api/leads",
            json!({"phone": "0123456789", "device_id": foreign}),
            "device_id",
        ),
        ("/api/leads", json!({"phone": "0123456789", "name": {"a": 1}}), "name"),
        (
            "/api/leads",
            json!({"phone": "0123456789", "device_id": "x"}),
            "device_id",
        ),
        ("/api/campaigns", campaign(json!({"title": ""})), "title"),
        ("/api/campaigns", campaign(json!({"message": "Hi {{nmae}}"})), "message"),
        (
            "/api/campaigns",
            campaign(json!({"date": "2001-01-01", "time": "09:00"})),
            "date",
        ),
        (
            "/api/campaigns",
            campaign(json!({"date": "21.11.2026", "time": "09:00"})),
            "date",
        ),
        (
            "/api/campaigns",
            campaign(json!({"min_delay": 20, "max_delay": 10})),
            "min_delay",
        ),
        (
            "/api/campaigns",
            campaign(json!({"min_delay": -1, "max_delay": 10})),
            "min_delay",
        ),
        ("/api/campaigns", campaign(json!({"device_id": foreign})), "device_id"),
        ("/api/campaigns", campaign(json!({"routing": "fastest"})), "routing"),
        ("/api/campaigns", campaign(json!({"status": "sent"})), "status"),
        ("/api/campaigns", campaign(json!({"quite_from": "22:00"})), "quite_from"),
        (
            "/api/campaigns",
            campaign(json!({"image_url": "http://127.0.0.1/a.png"})),
            "media",
        ),
        (
            "/api/campaigns",
            campaign(json!({"image_url": "http://169.254.169.254/latest"})),
            "media",
        ),
        (
            "/api/campaigns",
            campaign(json!({"image_url": "http://[::1]/a.png"})),
            "media",
        ),
        (
            "/api/campaigns",
            campaign(json!({"image_url": "http://localhost/a.png"})),
            "media",
        ),
        (
            "/api/campaigns",
            campaign(json!({"image_url": "file:///etc/passwd"})),
            "media",
        ),
        (
            "/api/campaigns",
            campaign(json!({"media": {"data": "aGVsbG8="}})),
            "image",
        ),
        (
            "/api/devices",
            json!({"name": "W", "platform": "carrier_pigeon"}),
            "platform",
        ),
        ("/api/devices", wablas("https://10.0.0.1"), "base_url"),
        ("/api/devices", wablas("http://localhost:9"), "base_url"),
        ("/api/devices", wablas("https://evil.example"), "base_url"),
        (
            "/send/message",
            json!({"device_id": gateway, "phone": "0123456789", "message": big}),
            "message",
        ),
        (
            "/send/message",
            json!({"device_id": foreign, "phone": "0123456789", "message": "Hi"}),
            "device_id",
        ),
        (
            "/send/message",
            json!({"device_id": own, "phone": "0123456789"}),
            "message",
        ),
        ("/api/suppressions", json!({"phone": "abc"}), "phone"),
    ];
    for (path, body, field) in cases {
        let answer = ann.post(path, body.clone()).await;
        assert_eq!(
            answer.status,
            StatusCode::BAD_REQUEST,
            "{path} {field}: {}",
            answer.text
        );
        let named = answer.fields().contains(&field);
        let said = answer.message().contains(field);
        assert!(
            named || (field == "quite_from" && said),
            "{path} {body}: {}",
            answer.text
        );
        assert!(said || field == "message", "{path} {body}: {}", answer.message());
    }
    let unknown = ann
        .post("/api/campaigns", campaign(json!({"routing": "fastest"})))
        .await;
    assert!(
        unknown.message().contains("own_device, balanced, round_robin, random"),
        "{}",
        unknown.message()
    );
    let list = ann.get("/api/leads?target_status=friend").await;
    assert_eq!(
        (list.status, list.fields()),
        (StatusCode::BAD_REQUEST, vec!["target_status"])
    );
    assert_eq!(ann.get("/api/leads?limit=5000").await.fields(), ["limit"]);
    assert_eq!(ann.get("/api/leads?cursor=x").await.fields(), ["cursor"]);
    let large = vec![b'x'; 10_000_000];
    let large = Client::send(ann.request(Method::POST, "/api/campaigns").body(large)).await;
    assert_eq!(
        (large.status, large.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE")
    );
    let picture = vec![0xFF; 10_485_761];
    let picture = Client::send(ann.request(Method::POST, "/api/media").body(picture)).await;
    assert_eq!(picture.status, StatusCode::PAYLOAD_TOO_LARGE);
}

/// A CSV file of `count` leads in which every tenth row is bad.
fn file(count: u32) -> String {
    let mut file = "name,phone,niche,target_status,trigger\n".to_owned();
    for at in 0..count {
        match at % 10 {
            9 if at % 20 == 9 => file.push_str(&format!("Bad {at},none,EXA,prospect,start\n")),
            9 => file.push_str(&format!("Bad {at},+6012{at:07},EXA,friend,start\n")),
            _ => file.push_str(&format!("Lead {at},+6012{at:07},EXA,prospect,start\n")),
        }
    }
    file
}

pub async fn imported(user: &Client, started: Value) -> Value {
    let path = format!("/api/imports/{}", id(&started));
    loop {
        let import = user.get(&path).await.ok();
        if import["state"] != "running" {
            return import;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_file_is_imported_once_and_every_bad_row_is_reported() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let device = device(&ann, "A").await;
    let path = format!("/api/devices/{device}/leads/import?name=mine");
    let send = |path: &str| {
        Client::send(
            ann.request(Method::POST, path)
                .header("content-type", "text/csv")
                .body(file(1_200)),
        )
    };
    let started = send(&path).await;
    assert_eq!(
        (started.status, started.code()),
        (StatusCode::ACCEPTED, "ACCEPTED"),
        "{}",
        started.text
    );
    let first = imported(&ann, started.ok()).await;
    assert_eq!((&first["state"], &first["name"]), (&json!("done"), &json!("mine")));
    assert_eq!(
        (
            &first["rows"],
            &first["inserted"],
            &first["refused"],
            &first["duplicates"]
        ),
        (&json!(1200), &json!(1080), &json!(120), &json!(0))
    );
    assert_eq!(first["bytes_read"], first["bytes_total"]);

    let refusals = format!("/api/imports/{}/refusals", id(&first));
    let mut lines = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ann.get(&format!("{refusals}?limit=50&cursor={cursor}")).await.ok();
        for row in page["items"].as_array().unwrap() {
            let line = row["line"].as_u64().unwrap();
            let field = if (line - 2) % 20 == 9 { "phone" } else { "target_status" };
            assert_eq!(row["field"], field, "{row}");
            assert!(row["reason"].as_str().unwrap().starts_with(field), "{row}");
            lines.push(line);
        }
        match page["next"].as_str() {
            Some(next) => cursor = next.to_owned(),
            None => break,
        }
    }
    let expected: Vec<u64> = (0..1_200).filter(|at| at % 10 == 9).map(|at| at + 2).collect();
    assert_eq!(lines, expected);
    let report = ann.get(&format!("{refusals}/export")).await;
    assert_eq!(report.text.lines().count(), 121);

    let second = imported(&ann, send(&path).await.ok()).await;
    assert_eq!((&second["inserted"], &second["duplicates"]), (&json!(0), &json!(1080)));
    assert_eq!(ann.get("/api/leads/count").await.ok()["count"], 1080);
    let exported = ann.get("/api/leads/export").await;
    assert_eq!(exported.text.lines().count(), 1081);
    assert!(exported.text.starts_with("name,phone,niche,target_status,trigger"));
    let left = running.spooled();
    assert!(left.is_empty(), "imported files stay: {left:?}");

    let form = reqwest::multipart::Form::new();
    let part = reqwest::multipart::Part::bytes(b"nama;no tel\nAli;0123456789\n".to_vec()).file_name("leads.csv");
    let sent = Client::send(
        ann.request(Method::POST, "/api/leads/import")
            .multipart(form.part("file", part)),
    )
    .await;
    let third = imported(&ann, sent.ok()).await;
    assert_eq!((&third["name"], &third["inserted"]), (&json!("leads.csv"), &json!(1)));
    let bad = Client::send(ann.request(Method::POST, "/api/leads/import").body("a,b\n1,2\n")).await;
    let bad = imported(&ann, bad.ok()).await;
    assert_eq!(bad["state"], "failed");
    assert!(bad["message"].as_str().unwrap().contains("phone"));
}

#[tokio::test]
async fn an_import_larger_than_the_limit_is_refused_and_leaves_nothing() {
    let running = Running::with(settings().with("IMPORT_BYTES_MAX", "1000")).await;
    let ann = running.basic("ann");
    let sent = Client::send(ann.request(Method::POST, "/api/leads/import").body(file(1_000))).await;
    assert_eq!(sent.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(ann.get("/api/imports").await.ok()["items"], json!([]));
    assert!(running.spooled().is_empty(), "{:?}", running.spooled());
}

#[tokio::test]
async fn a_campaign_runs_from_its_leads_to_its_numbers() {
    let running = Running::start().await;
    let ann = running.login("ann").await;
    let device = device(&ann, "A").await;
    for at in 0..5 {
        let body = json!({"name": format!("Lead {at}"), "phone": format!("+6012345000{at}"), "niche": "EXA", "device_id": device});
        ann.post("/api/leads", body).await.ok();
    }
    ann.post("/api/suppressions", json!({"phone": "0123450004", "note": "asked"}))
        .await
        .ok();
    let body = json!({"title": "Promo", "message": "Hi {{name}} of {{niche}}", "niche": "exa", "image_url": null});
    let campaign = ann.post("/api/campaigns", body).await.ok();
    assert_eq!(campaign["status"], "draft");
    let path = format!("/api/campaigns/{}", id(&campaign));
    assert_eq!(ann.get(&format!("{path}/audience")).await.ok()["size"], 5);
    let lead = ann.get("/api/leads?phone=0123450001").await.ok();
    let lead = id(&lead["items"][0]);
    let preview = ann.get(&format!("{path}/preview?lead_id={lead}")).await.ok();
    assert!(
        preview["text"].as_str().unwrap().contains("Hi Lead 1 of EXA"),
        "{preview}"
    );
    ann.post(&format!("{path}/start"), json!({})).await.ok();
    let done = running.completed(&ann, &path).await;
    let total = &done["numbers"]["total"];
    assert_eq!(
        (&total["should"], &total["done"], &total["skipped"]),
        (&json!(5), &json!(4), &json!(1))
    );
    let skipped = ann.get(&format!("{path}/recipients?status=skipped")).await.ok();
    assert_eq!(
        (&skipped["items"][0]["reason"], &skipped["items"][0]["phone"]),
        (&json!("suppressed"), &json!("+60123450004"))
    );
    assert_eq!(
        ann.get(&format!("{path}/recipients/export")).await.text.lines().count(),
        6
    );
    assert_eq!(
        ann.get(&format!("{path}/device-report")).await.ok()["items"][0]["name"],
        "A"
    );
    let sent = running.transport.sent();
    assert!(sent.iter().all(|one| one.text.contains("Hi Lead")), "names are merged");
    let summary = ann.get("/api/campaigns/summary").await.ok();
    assert_eq!(
        (
            &summary["campaigns"]["sent"],
            &summary["broadcast_stats"]["total_done_send"]
        ),
        (&json!(1), &json!(4))
    );
    assert_eq!(summary["recent_campaigns"][0]["skipped_send"], 1);
    let message = id(&ann.get(&format!("{path}/recipients?status=sent")).await.ok()["items"][0]);
    let attempts = ann.get(&format!("/api/messages/{message}/attempts")).await.ok();
    assert_eq!(attempts["items"].as_array().unwrap().len(), 1);
    assert!(
        ann.get("/metrics")
            .await
            .text
            .contains("wa_events_total{event=\"campaign_status\"}")
    );
    let metrics = ann.get("/metrics").await.text;
    let counted = [
        "# HELP wa_sends_total",
        "wa_sends_total{platform=\"stub\",outcome=\"sent\"} 4",
        "wa_send_duration_seconds_count{platform=\"stub\"} 4",
        "wa_send_duration_seconds_bucket{platform=\"stub\",le=\"30\"} 4",
        "route=\"/api/campaigns/{id}/progress\",status=\"200\"",
    ];
    for expected in counted {
        assert!(metrics.contains(expected), "{expected}: {metrics}");
    }
    assert!(!metrics.contains(&device) && !metrics.contains("6012345"), "{metrics}");
    let today = ann.get("/api/campaigns/summary?from=2020-01-01").await.ok();
    assert_eq!(today["broadcast_stats"], summary["broadcast_stats"]);
    assert_eq!(ann.get("/api/broadcast/stats").await.ok(), summary["broadcast_stats"]);
    let before = ann.get("/api/campaigns/summary?to=2020-01-01").await.ok();
    assert_eq!(before["broadcast_stats"]["total_should_send"], 0);
    assert_eq!(
        (
            &before["campaigns"]["sent"],
            &before["recent_campaigns"][0]["done_send"]
        ),
        (&json!(1), &json!(0))
    );
    let after = ann
        .get("/api/campaigns/summary?start_date=2099-01-01&end_date=2099-01-31")
        .await
        .ok();
    assert_eq!(after["broadcast_stats"]["total_done_send"], 0);
    let wrong = ann.get("/api/campaigns/summary?from=2026-02-02&to=2026-02-01").await;
    assert_eq!((wrong.status, wrong.fields()), (StatusCode::BAD_REQUEST, vec!["from"]));
    let workers = ann.get("/api/workers/status").await.ok();
    assert_eq!((&workers["lanes"], &workers["node"]), (&json!(1), &json!("test")));
}

#[tokio::test]
async fn the_pool_holds_the_leads_without_a_device() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let device = device(&ann, "A").await;
    let own = json!({"name": "Own", "phone": "0123450001", "device_id": device});
    let own = id(&ann.post("/api/leads", own.clone()).await.ok());
    let body = json!({"name": "Pool", "phone": "0123450002", "device_id": device});
    let pool = ann.post("/api/leads-ai", body).await.ok();
    assert_eq!(pool["device_id"], Value::Null);
    let listed = ann.get("/api/leads-ai").await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 1);
    let change = json!({"name": "Renamed"});
    let path = format!("/api/leads-ai/{}", id(&pool));
    let renamed = ann.call(Method::PUT, &path, change.clone()).await.ok();
    assert_eq!(renamed["name"], "Renamed");
    let outside = format!("/api/leads-ai/{own}");
    assert_eq!(
        ann.call(Method::PUT, &outside, change).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ann.call(Method::DELETE, &outside, json!({})).await.status,
        StatusCode::NOT_FOUND
    );
    ann.call(Method::DELETE, &path, json!({})).await.ok();
    assert_eq!(ann.get("/api/leads-ai").await.ok()["items"], json!([]));
    assert_eq!(ann.get("/api/leads/count").await.ok()["count"], 1);
}

#[tokio::test]
async fn the_calendar_shows_a_campaign_on_its_local_day_and_a_change_of_an_old_version_is_refused() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let device = device(&ann, "A").await;
    let body = json!({"title": "Year end", "message": "Hi", "niche": "EXA", "device_id": device, "date": "2099-12-31", "time": "23:30"});
    let campaign = ann.post("/api/campaigns", body).await.ok();
    assert_eq!(
        (&campaign["status"], &campaign["scheduled_at"]),
        (&json!("scheduled"), &json!("2099-12-31T15:30:00.000Z"))
    );
    let days = ann.get("/api/campaigns/calendar?year=2099&month=12").await.ok();
    assert_eq!(
        (&days["items"][0]["date"], &days["items"][0]["niches"]),
        (&json!("2099-12-31"), &json!(["EXA"]))
    );
    assert_eq!(
        ann.get("/api/campaigns/calendar?year=2100").await.ok()["items"],
        json!([])
    );
    let path = format!("/api/campaigns/{}", id(&campaign));
    let changed = ann
        .call(
            Method::PUT,
            &path,
            json!({"title": "New", "version": campaign["version"]}),
        )
        .await
        .ok();
    assert_eq!(
        (&changed["title"], &changed["message"], &changed["date"]),
        (&json!("New"), &json!("Hi"), &json!("2099-12-31"))
    );
    let stale = ann
        .call(
            Method::PUT,
            &path,
            json!({"title": "Old", "version": campaign["version"]}),
        )
        .await;
    assert_eq!((stale.status, stale.code()), (StatusCode::CONFLICT, "CONFLICT"));
    let copy = ann.post(&format!("{path}/clone"), json!({})).await.ok();
    assert_eq!(copy["status"], "draft");
    ann.call(Method::DELETE, &path, json!({})).await.ok();
    assert_eq!(ann.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_direct_message_goes_once_per_key_and_not_to_a_person_who_opted_out() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let device = device(&ann, "A").await;
    let body = json!({"account_id": device, "number": "0123456789", "message": "Hi", "idempotency_key": "k1"});
    let first = ann.post("/api/messages/send", body.clone()).await.ok();
    let again = ann.post("/api/messages/send", body).await;
    assert_eq!(again.code(), "DUPLICATE_SKIPPED");
    assert_eq!(again.ok()["message_id"], first["message_id"]);
    let path = format!("/api/messages/{}", first["message_id"].as_str().unwrap());
    while ann.get(&path).await.ok()["status"] != "sent" {
        tokio::task::yield_now().await;
    }
    assert_eq!(running.transport.sent().len(), 1);
    let texts = [
        ("{a|b} {{name}} {{nmae}}", false, "{a|b} {{name}} {{nmae}}"),
        ("{x|x} {{phone}}", true, "x +60123456780"),
    ];
    for (message, render, expected) in texts {
        let body = json!({"device_id": device, "phone": "0123456780", "message": message, "render": render});
        let sent = ann.post("/send/message", body).await.ok();
        let path = format!("/api/messages/{}", sent["message_id"].as_str().unwrap());
        while ann.get(&path).await.ok()["status"] != "sent" {
            tokio::task::yield_now().await;
        }
        assert_eq!(running.transport.sent().last().unwrap().text, expected);
    }
    let unknown = json!({"device_id": device, "phone": "0123456780", "message": "{{nmae}}", "render": true});
    assert_eq!(ann.post("/send/message", unknown).await.fields(), ["message"]);
    ann.post("/api/suppressions", json!({"phone": "0123456789"})).await.ok();
    let refused = json!({"device_id": device, "phone": "0123456789", "message": "Hi"});
    assert_eq!(
        ann.post("/send/message", refused.clone()).await.status,
        StatusCode::CONFLICT
    );
    let export = ann
        .post("/api/people/export", json!({"phone": "0123456789"}))
        .await
        .ok();
    assert_eq!(export["messages"].as_array().unwrap().len(), 1);
    ann.post("/api/people/erase", json!({"phone": "0123456789"})).await.ok();
    let erased = ann.get(&path).await.ok();
    assert_eq!((&erased["phone"], &erased["status"]), (&Value::Null, &json!("sent")));
}

#[tokio::test]
async fn a_picture_belongs_to_its_owner_and_to_whoever_holds_its_address() {
    let running = Running::start().await;
    let (ann, ben) = (running.basic("ann"), running.basic("ben"));
    let kept = Client::send(ann.request(Method::POST, "/api/media").body(picture()))
        .await
        .ok();
    assert_eq!(kept["mimetype"], "image/jpeg");
    let path = kept["path"].as_str().unwrap();
    assert_eq!(ann.get(path).await.status, StatusCode::OK);
    assert_eq!(ben.get(path).await.status, StatusCode::NOT_FOUND);
    assert_eq!(running.anybody().get("/media/AAAA").await.status, StatusCode::NOT_FOUND);
    let foreign = json!({"name": "T", "message": "Hi", "media": {"id": kept["id"]}});
    assert_eq!(ben.post("/api/templates", foreign.clone()).await.fields(), ["media"]);
    assert_eq!(
        ann.post("/api/templates", foreign).await.ok()["media"]["id"],
        kept["id"]
    );
}

#[tokio::test]
async fn nothing_of_one_user_is_within_reach_of_another_on_any_route_with_an_id() {
    use wa_server_example::http::openapi;
    let running = Running::start().await;
    let (ann, ben) = (running.basic("ann"), running.basic("ben"));
    let device_id = device(&ann, "A").await;
    let lead = json!({"name": "Ali", "phone": "0123456789", "device_id": device_id});
    let lead_id = id(&ann.post("/api/leads", lead).await.ok());
    let campaign = json!({"title": "T", "message": "Hi"});
    let campaign_id = id(&ann.post("/api/campaigns", campaign).await.ok());
    let template_id = id(&ann
        .post("/api/templates", json!({"name": "T", "message": "Hi"}))
        .await
        .ok());
    let sent = json!({"device_id": device_id, "phone": "0123456789", "message": "Hi"});
    let sent = ann.post("/send/message", sent).await.ok();
    let message_id = sent["message_id"].as_str().unwrap();
    let import = Client::send(
        ann.request(Method::POST, "/api/leads/import")
            .body("phone\n0123456780\n"),
    )
    .await
    .ok();
    let import_id = id(&import);
    let kept = Client::send(ann.request(Method::POST, "/api/media").body(picture()))
        .await
        .ok();
    let media_id = id(&kept);
    let sequence = json!({"name": "S", "steps": [{"trigger": "fit", "message": "Hi"}]});
    let sequence = ann.post("/api/sequences", sequence).await.ok();
    let (sequence_id, step_id) = (id(&sequence), id(&sequence["steps"][0]));
    ann.post(&format!("/api/sequences/{sequence_id}/start"), json!({}))
        .await
        .ok();
    let contacts = format!("/api/sequences/{sequence_id}/contacts");
    let entered = ann.post(&contacts, json!({"lead_ids": [lead_id]})).await.ok();
    assert_eq!(entered["enrolled"], 1, "{entered}");
    let enrolment_id = id(&ann.get(&contacts).await.ok()["items"][0]);
    let chats = ann.get(&format!("/api/devices/{device_id}/chats")).await.ok();
    let chat_id = id(&chats["items"][0]);
    let ann_id = user_id(&ann).await;
    let before = ann.get(&format!("/api/devices/{device_id}")).await.ok();

    let mut tried = 0;
    for (method, path) in openapi::operations() {
        if !path.contains('{') || openapi::PUBLIC.contains(&(method, path.as_str())) || path.starts_with("/user/check/")
        {
            continue;
        }
        let own = match path.split('/').nth(2).unwrap_or_default() {
            "devices" | "accounts" => device_id.as_str(),
            "leads" | "leads-ai" => &lead_id,
            "campaigns" | "campaigns-ai" => &campaign_id,
            "sequences" => &sequence_id,
            "templates" => &template_id,
            "messages" => message_id,
            "imports" => &import_id,
            "media" => &media_id,
            "users" => &ann_id,
            other => panic!("no id is known for {other}: add it"),
        };
        let filled = path
            .replace("{id}", own)
            .replace("{device_id}", &device_id)
            .replace("{step_id}", &step_id)
            .replace("{enrolment_id}", &enrolment_id)
            .replace("{chat_id}", &chat_id)
            .replace("{command_id}", "00000000-0000-7000-8000-000000000001");
        let body = match path.as_str() {
            path if path.ends_with("/mark") => json!({"as": "sent"}),
            path if path.ends_with("/send-many") => json!({"phones": ["0123456789"], "message": "Hi"}),
            path if path.ends_with("/check-numbers") => json!({"phones": ["0123456789"]}),
            path if path.ends_with("/preview") => json!({}),
            _ => json!({"message": "Hi", "phone": "0123456789"}),
        };
        let body = match (method, path.as_str()) {
            ("PUT", "/api/campaigns/{id}") => json!({"title": "mine"}),
            ("PUT", "/api/templates/{id}")
            | ("PUT" | "POST", "/api/sequences/{id}" | "/api/sequences/{id}/preview-edit") => {
                json!({"name": "mine"})
            }
            ("POST", "/api/sequences/{id}/contacts") => json!({"phones": ["0123456789"]}),
            ("POST", path) if path.ends_with("/resend-failed") || path.ends_with("/resend") => json!({}),
            ("POST", path) if path.ends_with("/entries/import") => json!("phone\n0123456789"),
            ("POST", path) if path.ends_with("/entries") => json!({"entries": [{"phone": "0123456789"}]}),
            _ => body,
        };
        let query = if path.ends_with("/preview") {
            format!("?lead_id={lead_id}")
        } else if path.ends_with("/why") {
            format!("?campaign={campaign_id}")
        } else {
            String::new()
        };
        let answer = ben
            .call(method.parse().unwrap(), &format!("{filled}{query}"), body)
            .await;
        let expected = if path.starts_with("/api/users") {
            StatusCode::FORBIDDEN
        } else {
            StatusCode::NOT_FOUND
        };
        assert_eq!(answer.status, expected, "{method} {path}: {}", answer.text);
        tried += 1;
    }
    assert!(tried > 50, "only {tried} routes were tried");
    assert_eq!(
        ann.get(&format!("/api/devices/{device_id}")).await.ok()["version"],
        before["version"]
    );
    let bulk = ben.post("/api/leads/bulk-delete", json!({"ids": [lead_id]})).await.ok();
    assert_eq!(bulk["items"][0]["outcome"], "not_found");
    for list in [
        "devices",
        "leads",
        "campaigns",
        "templates",
        "messages",
        "imports",
        "suppressions",
        "accounts",
        "sequences",
    ] {
        assert_eq!(
            ben.get(&format!("/api/{list}")).await.ok()["items"],
            json!([]),
            "{list}"
        );
    }
    let own = json!({"name": "S", "steps": [{"trigger": "fit", "message": "Hi"}]});
    let own = id(&ben.post("/api/sequences", own).await.ok());
    ben.post(&format!("/api/sequences/{own}/start"), json!({})).await.ok();
    let own = format!("/api/sequences/{own}/contacts");
    let entered = ben.post(&own, json!({"lead_ids": [lead_id]})).await.ok();
    assert_eq!(entered["items"][0]["result"], "not_found", "{entered}");
    let foreign = ben.get(&format!("{own}/{enrolment_id}")).await;
    assert_eq!(foreign.status, StatusCode::NOT_FOUND);
    let status = &ann.get(&contacts).await.ok()["items"][0]["status"];
    assert!(
        ["open", "completed"].contains(&status.as_str().unwrap()),
        "nobody else ended it: {status}"
    );
    let check = ben.get(&format!("/user/check/0123456789?device_id={device_id}")).await;
    assert_eq!(check.status, StatusCode::NOT_FOUND);
    let direct = json!({"lead_id": lead_id, "message": "Hi"});
    assert_eq!(ben.post("/send/message", direct).await.fields(), ["lead_id"]);
}

#[tokio::test]
async fn an_admin_adds_and_resets_users_and_a_user_does_not() {
    let running = Running::start().await;
    let (boss, ann) = (running.basic("boss"), running.basic("ann"));
    assert_eq!(ann.get("/api/users").await.status, StatusCode::FORBIDDEN);
    let added = boss.post("/api/users", json!({"login": "Carl"})).await.ok();
    let password = added["password"].as_str().unwrap();
    let carl = running.anybody();
    let login = carl
        .post("/api/login", json!({"login": "carl", "password": password}))
        .await;
    assert_eq!(login.status, StatusCode::OK);
    let path = format!("/api/users/{}", added["user"]["id"].as_str().unwrap());
    let reset = boss.post(&format!("{path}/reset-password"), json!({})).await.ok();
    let session = carl.request(Method::GET, "/user/info").header("cookie", login.cookie());
    assert_eq!(Client::send(session).await.status, StatusCode::UNAUTHORIZED);
    boss.post(&format!("{path}/deactivate"), json!({})).await.ok();
    let body = json!({"login": "carl", "password": reset["password"]});
    assert_eq!(carl.post("/api/login", body).await.status, StatusCode::UNAUTHORIZED);
    let change = json!({"current": PASSWORD, "new": "another password"});
    ann.post("/api/password", change).await.ok();
    assert_eq!(ann.get("/user/info").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_repeated_request_to_several_numbers_sends_nothing_again_under_its_key() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let path = format!("/api/devices/{}/send-many", device(&ann, "A").await);
    let body = json!({"phones": ["0123456789", "0123456780", "0123456789", "no number"], "message": "Hi"});
    let send = async |key: &str, body: &Value| {
        let request = ann
            .request(Method::POST, &path)
            .header("idempotency-key", key)
            .json(body);
        let items = Client::send(request).await.ok()["items"].clone();
        let field = |name: &str| -> Vec<_> {
            let items = items.as_array().unwrap().iter();
            items.map(|item| item[name].as_str().map(str::to_owned)).collect()
        };
        (field("message_id"), field("status"))
    };
    let status = |status: &str| {
        vec![Some(status.to_owned()); 3]
            .into_iter()
            .chain([None])
            .collect::<Vec<_>>()
    };
    let (first, queued) = send("k1", &body).await;
    assert_eq!(queued, status("queued"));
    assert_ne!(first[0], first[2], "a number that stands there twice has two messages");
    let (again, duplicate) = send("k1", &body).await;
    assert_eq!((again, duplicate), (first.clone(), status("duplicate")));
    let fewer = json!({"phones": ["+60 12-345 6780"], "message": "Hi", "idempotency_key": "k1"});
    let fewer = ann.post(&path, fewer).await.ok();
    assert_eq!(fewer["items"][0]["message_id"].as_str(), first[1].as_deref());
    let (other, queued) = send("k2", &body).await;
    assert_eq!(queued, status("queued"));
    assert!(!other[..3].iter().any(|id| first.contains(id)));
    let listed = ann.get("/api/messages").await.ok();
    assert_eq!(listed["items"].as_array().unwrap().len(), 6);
    let long = json!({"phones": ["0123456780"], "message": "Hi", "idempotency_key": "k".repeat(201)});
    assert_eq!(ann.post(&path, long).await.fields(), ["idempotency_key"]);
}

#[tokio::test]
async fn a_callback_is_answered_with_an_empty_200_whatever_it_is() {
    let running = Running::start().await;
    let anybody = running.anybody();
    for (path, body) in [("/hook/none/inbound", "{"), ("/hook/none/odd", "a=b")] {
        let answer = Client::send(anybody.request(Method::POST, path).body(body)).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, ""));
        let answer = anybody.get(path).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, ""));
    }
    let large = Client::send(
        anybody
            .request(Method::POST, "/hook/none/inbound")
            .body(vec![0; 1_000_000]),
    )
    .await;
    assert_eq!((large.status, large.text.as_str()), (StatusCode::OK, ""));
}

also_on_postgres! {
    the_lead_webhook_answers_as_its_callers_expect,
    bad_input_is_refused_and_the_field_is_named,
    a_file_is_imported_once_and_every_bad_row_is_reported,
    a_campaign_runs_from_its_leads_to_its_numbers,
    the_pool_holds_the_leads_without_a_device,
    the_calendar_shows_a_campaign_on_its_local_day_and_a_change_of_an_old_version_is_refused,
    a_direct_message_goes_once_per_key_and_not_to_a_person_who_opted_out,
    a_picture_belongs_to_its_owner_and_to_whoever_holds_its_address,
    nothing_of_one_user_is_within_reach_of_another_on_any_route_with_an_id,
    an_admin_adds_and_resets_users_and_a_user_does_not,
    a_callback_is_answered_with_an_empty_200_whatever_it_is,
}
