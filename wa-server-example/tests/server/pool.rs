//! Campaigns over the pool of leads without a device, through the API.

use std::collections::BTreeMap;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use wa_core::transport::{NotSentKind, SendError};

use crate::support::{Client, Running};
use crate::work::{device, id};

async fn pool_of(user: &Client, leads: u32) {
    for at in 0..leads {
        let body = json!({"name": format!("Lead {at}"), "phone": format!("+601234500{at:02}"), "niche": "EXA"});
        user.post("/api/leads-ai", body).await.ok();
    }
}

async fn create(user: &Client, limit: u32) -> String {
    let body = json!({
        "title": "Pool", "message": "Hi {{name}}", "audience": "pool", "niche": "exa", "device_limit": limit
    });
    let campaign = user.post("/api/campaigns", body).await.ok();
    assert_eq!(
        (&campaign["audience"], &campaign["device_limit"], &campaign["routing"]),
        (&json!("pool"), &json!(limit), &json!("balanced"))
    );
    id(&campaign)
}

async fn items(user: &Client, path: &str) -> Vec<Value> {
    user.get(path).await.ok()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn the_pool_is_shared_out_within_the_limit_and_the_rest_is_taken_up_by_a_second_trigger() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let (a, b) = (device(&ann, "A").await, device(&ann, "B").await);
    pool_of(&ann, 7).await;
    let elsewhere = json!({"name": "Other", "phone": "0123450050", "niche": "vitac"});
    ann.post("/api/leads-ai", elsewhere).await.ok();
    running
        .transport
        .answer_next(Err(SendError::not_sent(NotSentKind::Rejected, "no")));
    let campaign = create(&ann, 2).await;
    let (path, trigger) = (
        format!("/api/campaigns/{campaign}"),
        format!("/api/campaigns-ai/{campaign}/trigger"),
    );
    assert_eq!(ann.get(&format!("{path}/audience")).await.ok()["size"], 7);
    ann.post(&trigger, json!({})).await.ok();
    let first = running.completed(&ann, &path).await;
    let numbers = &first["numbers"];
    assert_eq!(
        (
            &numbers["total"]["should"],
            &numbers["total"]["done"],
            &numbers["total"]["failed"]
        ),
        (&json!(7), &json!(3), &json!(1))
    );
    assert_eq!(
        (&numbers["total"]["skipped"], &numbers["left_over"]),
        (&json!(3), &json!(3))
    );
    let over = items(&ann, &format!("{path}/recipients?status=skipped")).await;
    assert!(
        over.iter()
            .all(|row| row["reason"] == "device_limit" && row["device_id"].is_null())
    );
    let mut told: BTreeMap<String, u32> = BTreeMap::new();
    let pool = items(&ann, "/api/leads-ai").await;
    for lead in &pool {
        let why = lead["reason"].as_str().unwrap_or("-");
        *told
            .entry(format!("{} {why}", lead["status"].as_str().unwrap_or("-")))
            .or_default() += 1;
    }
    let expected = [("- -", 1), ("failed rejected", 1), ("skipped device_limit", 3)];
    assert_eq!(told, expected.map(|(text, count)| (text.to_owned(), count)).into());
    let left = items(&ann, &format!("/api/devices/{a}/leads")).await.len()
        + items(&ann, &format!("/api/devices/{b}/leads")).await.len();
    assert_eq!(left, 3, "who was sent to belongs to the device that did it");
    let lead = over[0]["lead_id"].as_str().unwrap();
    let trace = ann
        .get(&format!("/api/leads/{lead}/why?campaign={campaign}"))
        .await
        .ok();
    assert!(trace.to_string().contains("every device reached the limit"), "{trace}");

    ann.post(&trigger, json!({})).await.ok();
    let second = running.completed(&ann, &path).await;
    let numbers = &second["numbers"];
    assert_eq!(
        (
            &numbers["total"]["should"],
            &numbers["total"]["done"],
            &numbers["total"]["failed"]
        ),
        (&json!(7), &json!(6), &json!(1))
    );
    assert_eq!(
        (&numbers["total"]["skipped"], &numbers["left_over"]),
        (&json!(0), &json!(0))
    );
    let mut sent: Vec<_> = running.transport.sent().iter().map(|sent| sent.to).collect();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(
        (sent.len(), running.transport.sent().len()),
        (7, 7),
        "nobody is written to twice"
    );
    assert_eq!(items(&ann, "/api/leads-ai").await.len(), 2);
}

#[tokio::test]
async fn a_campaign_over_the_pool_is_edited_and_refused_field_by_field() {
    let running = Running::start().await;
    let (ann, ben) = (running.basic("ann"), running.basic("ben"));
    let device = device(&ann, "A").await;
    let create_with = async |change: Value| {
        let mut body = json!({"title": "P", "message": "Hi", "audience": "pool", "device_limit": 5});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let answer = ann.post("/api/campaigns", body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
        answer.fields().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(create_with(json!({"device_limit": null})).await, ["device_limit"]);
    assert_eq!(create_with(json!({"device_limit": 0})).await, ["device_limit"]);
    assert_eq!(create_with(json!({"device_limit": 10_001})).await, ["device_limit"]);
    assert_eq!(create_with(json!({"audience": "leads"})).await, ["device_limit"]);
    assert_eq!(create_with(json!({"device_id": device})).await, ["device_id"]);
    assert_eq!(create_with(json!({"routing": "own_device"})).await, ["routing"]);
    let campaign = create(&ann, 5).await;
    let path = format!("/api/campaigns/{campaign}");
    let edited = ann.call(Method::PUT, &path, json!({"device_limit": 8})).await.ok();
    assert_eq!(edited["device_limit"], 8);
    let ordinary = json!({"audience": "leads", "device_limit": null, "routing": null});
    let edited = ann.call(Method::PUT, &path, ordinary).await.ok();
    assert_eq!(
        (&edited["audience"], &edited["device_limit"]),
        (&json!("leads"), &Value::Null)
    );
    let trigger = format!("/api/campaigns-ai/{campaign}/trigger");
    assert_eq!(ann.post(&trigger, json!({})).await.status, StatusCode::CONFLICT);
    assert_eq!(ben.post(&trigger, json!({})).await.status, StatusCode::NOT_FOUND);
}

also_on_postgres! {
    the_pool_is_shared_out_within_the_limit_and_the_rest_is_taken_up_by_a_second_trigger,
    a_campaign_over_the_pool_is_edited_and_refused_field_by_field,
}
