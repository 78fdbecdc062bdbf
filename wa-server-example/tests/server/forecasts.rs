//! Forecasts over HTTP and on the command line.

use std::sync::Arc;
use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use wa_core::domain::access::RequestScope;
use wa_core::engine::config::EngineConfig;
use wa_core::engine::core::EngineBuilder;
use wa_core::engine::handle::Handle;
use wa_core::plan::{SequenceDraft, StepDraft};
use wa_core::time::SystemClock;
use wa_server_example::loopback::FaultShares;
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use crate::play::{LOGIN, Play, Setting};
use crate::support::{Client, Running, settings};
use crate::work::{device, id};

/// A server at a human pace: what is forecast takes hours, and nothing of it happens in the test.
async fn at_a_human_pace() -> Running {
    Running::with(
        settings()
            .with("PACING", "human")
            .with("FORECAST_RECIPIENTS_MAX", "5000"),
    )
    .await
}

/// Devices with so many leads each, which have the trigger `fit`.
async fn people(user: &Client, devices: usize, each: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for number in 0..devices {
        let device = device(user, &format!("D{number}")).await;
        let phones = (0..each).map(|lead| format!("012{number:03}{lead:04},Ali,fit\n"));
        let csv: String = ["phone,name,trigger\n".to_owned()].into_iter().chain(phones).collect();
        let import = Client::send(
            user.request(Method::POST, &format!("/api/leads/import?device_id={device}"))
                .body(csv),
        );
        let path = format!("/api/imports/{}", id(&import.await.ok()));
        loop {
            let import = user.get(&path).await.ok();
            match import["state"].as_str().unwrap() {
                "running" => tokio::task::yield_now().await,
                "done" => break,
                other => panic!("{other}: {import}"),
            }
        }
        ids.push(device);
    }
    ids
}

async fn draft(user: &Client) -> String {
    let body = json!({"title": "News", "message": "Hi {{name}}"});
    format!("/api/campaigns/{}", id(&user.post("/api/campaigns", body).await.ok()))
}

fn sum(rows: &Value, part: impl Fn(&Value) -> &Value) -> u64 {
    let rows = rows.as_array().unwrap();
    rows.iter().map(|row| part(row).as_u64().unwrap()).sum()
}

#[tokio::test]
async fn a_forecast_of_a_campaign_tells_days_devices_and_who_is_skipped_and_changes_nothing() {
    let running = at_a_human_pace().await;
    let (ann, ben) = (running.basic("ann"), running.basic("ben"));
    people(&ann, 3, 100).await;
    ann.post("/api/suppressions", json!({"phone": "0120000007"})).await.ok();
    let path = draft(&ann).await;
    let before = ann.get(&path).await.ok();

    let told = ann.get(&format!("{path}/forecast?limit=2")).await.ok();
    assert_eq!(told["end"], "completed");
    assert_eq!(
        (&told["numbers"]["should"], &told["numbers"]["done"]),
        (&json!(300), &json!(299))
    );
    assert_eq!(sum(&told["days"], |day| &day["sent"]), 299);
    assert_eq!(
        told["not_sent"],
        json!([{"status": "skipped", "reason": "suppressed", "count": 1}])
    );
    assert!(told["waited"]["hour_cap_ms"].as_u64().unwrap() > 0, "{told}");
    let stub = json!({"platform": "stub", "source": "assumed", "measured": 0, "least_ms": 200, "mean_ms": 600, "most_ms": 1000});
    assert_eq!(told["latencies"], json!([stub]));
    assert_eq!(told["device_count"], 3);
    let (first, next) = (&told["devices"]["items"], told["devices"]["next"].as_str().unwrap());
    assert_eq!(first.as_array().unwrap().len(), 2);
    let rest = ann.get(&format!("{path}/forecast?limit=2&cursor={next}")).await.ok();
    assert_eq!(rest["made_at"], told["made_at"], "it is the same forecast");
    assert_eq!(rest["devices"]["next"], Value::Null);
    let all = [first, &rest["devices"]["items"]];
    let done: u64 = all.iter().map(|rows| sum(rows, |row| &row["numbers"]["done"])).sum();
    assert_eq!(done, 299);
    assert_eq!(rest["devices"]["items"].as_array().unwrap().len(), 1);

    assert_eq!(ann.get(&path).await.ok(), before);
    assert_eq!(running.transport.sent().len(), 0);
    // A page of a forecast is within reach of nobody else, and of no other campaign.
    let theirs = ben.get(&format!("{path}/forecast?cursor={next}")).await;
    assert_eq!(theirs.status, StatusCode::NOT_FOUND);
    for (user, path) in [(&ann, draft(&ann).await), (&ben, draft(&ben).await)] {
        let other = user.get(&format!("{path}/forecast?cursor={next}")).await;
        assert_eq!(
            (other.status, other.fields()),
            (StatusCode::BAD_REQUEST, vec!["cursor"])
        );
    }
}

#[tokio::test]
async fn a_forecast_of_a_sequence_tells_steps_and_contacts() {
    let running = at_a_human_pace().await;
    let ann = running.basic("ann");
    people(&ann, 2, 30).await;
    ann.post("/api/suppressions", json!({"phone": "0120000007"})).await.ok();
    let steps = json!([{"trigger": "fit", "message": "one", "delay_hours": 24}, {"message": "two"}]);
    let sequence = ann
        .post("/api/sequences", json!({"name": "S", "steps": steps}))
        .await
        .ok();
    let path = format!("/api/sequences/{}", id(&sequence));
    let told = ann.get(&format!("{path}/forecast")).await.ok();
    assert_eq!(told["end"], "completed");
    assert_eq!(
        (&told["numbers"]["should"], &told["numbers"]["done"]),
        (&json!(118), &json!(118))
    );
    assert_eq!(sum(&told["steps"], |step| &step["numbers"]["done"]), 118);
    assert_eq!(
        (&told["steps"][1]["place"], &told["steps"][0]["trigger"]),
        (&json!(2), &json!("fit"))
    );
    let contacts = &told["contacts"];
    assert_eq!((&contacts["matching"], &contacts["entered"]), (&json!(60), &json!(59)));
    assert_eq!(
        (&contacts["suppressed"], &contacts["completed"]),
        (&json!(1), &json!(59))
    );
    assert_eq!(ann.get(&path).await.ok()["contacts"]["total"], 0, "nobody has entered");

    let horizon = ann.get(&format!("{path}/forecast?days=1")).await.ok();
    assert_eq!(horizon["end"], "horizon");
    assert_eq!(horizon["contacts"]["left_open"], 59);
    assert_eq!(horizon["ends_at"], Value::Null);
}

#[tokio::test]
async fn what_cannot_be_forecast_is_refused_and_says_why() {
    let running = at_a_human_pace().await;
    let (ann, ben) = (running.basic("ann"), running.basic("ben"));
    let path = draft(&ann).await;
    for (query, field) in [
        ("days=0", "days"),
        ("days=401", "days"),
        ("failed_per_mille=1001", "failed_per_mille"),
        ("offline_for=99999999999", "offline_for"),
        ("cursor=x", "cursor"),
        ("limit=1001", "limit"),
    ] {
        let answer = ann.get(&format!("{path}/forecast?{query}")).await;
        assert_eq!(
            (answer.code(), answer.fields()),
            ("VALIDATION_ERROR", vec![field]),
            "{}",
            answer.text
        );
    }
    let unread = ann.get(&format!("{path}/forecast?days=many")).await;
    assert_eq!((unread.code(), unread.fields()), ("BAD_REQUEST", vec!["days"]));
    let empty = ann.get(&format!("{path}/forecast")).await;
    assert_eq!(
        (empty.status, empty.fields()),
        (StatusCode::BAD_REQUEST, vec!["audience"])
    );
    assert!(empty.message().contains("nobody belongs to it now"), "{}", empty.text);
    let steps = json!([{"trigger": "fit", "message": "one"}]);
    for (body, field) in [
        (json!({"name": "S", "steps": steps}), "audience"),
        (json!({"name": "Without"}), "steps"),
    ] {
        let sequence = ann.post("/api/sequences", body).await.ok();
        let answer = ann.get(&format!("/api/sequences/{}/forecast", id(&sequence))).await;
        assert_eq!((answer.status, answer.fields()), (StatusCode::BAD_REQUEST, vec![field]));
    }
    ann.post(&format!("{path}/cancel"), json!({})).await;
    device(&ann, "A").await;
    let theirs = ben.get(&format!("{path}/forecast")).await;
    assert_eq!(theirs.status, StatusCode::NOT_FOUND);

    people(&ben, 2, 2_600).await;
    let path = draft(&ben).await;
    let many = ben.get(&format!("{path}/forecast")).await;
    assert_eq!(
        (many.status, many.fields()),
        (StatusCode::BAD_REQUEST, vec!["audience"])
    );
    assert!(many.message().contains("at most 5000 recipients"), "{}", many.text);
}

#[tokio::test]
async fn a_user_has_one_forecast_at_a_time_and_one_that_nobody_waits_for_ends() {
    let running = at_a_human_pace().await;
    let ann = running.basic("ann");
    people(&ann, 2, 1_500).await;
    let path = format!("{}/forecast", draft(&ann).await);
    let answers = futures::future::join_all((0..6).map(|_| ann.get(&path))).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert!(count(StatusCode::OK) >= 1);
    assert!(count(StatusCode::TOO_MANY_REQUESTS) >= 1);
    assert_eq!(count(StatusCode::OK) + count(StatusCode::TOO_MANY_REQUESTS), 6);
    let refused = answers
        .iter()
        .find(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(refused.unwrap().headers["retry-after"], "5");

    // Whoever goes away gives the turn back.
    let gone = ann
        .request(Method::GET, &path)
        .timeout(Duration::from_millis(20))
        .send();
    assert!(gone.await.is_err());
    while ann.get(&path).await.status != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_command_line_tells_a_forecast_as_a_table_and_as_json() {
    let play = Play::set(Setting {
        devices: 2,
        leads: 40,
        seed: 7,
        faults: FaultShares::NONE,
    })
    .await;
    let store = SqliteStore::open(SqliteOptions::file(play.data.database()))
        .await
        .unwrap();
    let core = EngineBuilder::new(
        Arc::new(store.clone()),
        Arc::new(SystemClock::new()),
        EngineConfig::new("other"),
    );
    let handle = Handle::new(core.open().await.unwrap());
    let step = StepDraft {
        trigger: Some("nobody".to_owned()),
        message: Some("Hi".to_owned()),
        ..StepDraft::default()
    };
    let sequence = SequenceDraft {
        name: Some("S".to_owned()),
        steps: Some(vec![step]),
        ..SequenceDraft::default()
    };
    let scope = RequestScope::user(play.user_id);
    let sequence = handle
        .create_sequence(&scope, &sequence)
        .await
        .unwrap()
        .saved
        .sequence
        .id;
    store.close().await;

    let campaign = play.stage.campaign_id.to_string();
    let table = play
        .data
        .command(&[], &["campaign", "forecast", &campaign, "--user", LOGIN]);
    let text = String::from_utf8(table.stdout).unwrap();
    assert!(table.status.success(), "{}", String::from_utf8_lossy(&table.stderr));
    for part in [
        "everything is settled by",
        "should      40",
        "hours waited",
        "takes 200 to 1000 ms: assumed",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    let json = play
        .data
        .command(&[], &["campaign", "forecast", &campaign, "--user", LOGIN, "--json"]);
    let told: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(told["numbers"]["should"], 40);
    assert_eq!(sum(&told["devices"]["items"], |row| &row["numbers"]["should"]), 40);
    let sequence = sequence.to_string();
    for (words, why) in [
        (
            vec!["sequence", "forecast", &sequence, "--user", LOGIN],
            "no lead matches it now",
        ),
        (
            vec!["sequence", "forecast", &campaign, "--user", LOGIN],
            "ann has no sequence",
        ),
        (
            vec!["campaign", "forecast", &campaign, "--user", LOGIN, "--days", "401"],
            "401 is not in 1..=400",
        ),
    ] {
        let refused = play.data.command(&[], &words);
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && text.contains(why), "{why} in {text}");
    }
}

also_on_postgres! {
    a_forecast_of_a_campaign_tells_days_devices_and_who_is_skipped_and_changes_nothing,
    a_forecast_of_a_sequence_tells_steps_and_contacts,
}
