//! Sequences through the API, as users work with them.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Client, Running, settings};
use crate::work::{device, id};

/// A server on which steps may follow each other within seconds.
async fn hurried() -> Running {
    Running::with(settings().with("STEP_WAIT_MIN", "1s")).await
}

fn three_steps() -> Value {
    json!([
        {"trigger": "fit_start", "message": "one", "delay_hours": 24},
        {"message": "two", "delay_hours": 48},
        {"message": "three"}
    ])
}

async fn lead(user: &Client, device: &str, phone: &str, trigger: &str) -> String {
    let body = json!({"name": "Ali", "phone": phone, "device_id": device, "trigger": trigger});
    id(&user.post("/api/leads", body).await.ok())
}

/// What a part of a sequence's numbers is when nothing of it is left to be done.
async fn through(running: &Running, user: &Client, path: &str, contacts: u64) -> Value {
    running
        .until(async || {
            let progress = user.get(&format!("{path}/progress")).await.ok();
            let numbers = &progress["numbers"];
            (numbers["contacts"]["completed"] == contacts).then(|| numbers.clone())
        })
        .await
}

#[tokio::test]
async fn a_sequence_that_cannot_be_is_refused_and_the_field_is_named() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    device(&ann, "A").await;
    let cases = [
        (json!({"steps": []}), vec!["name"]),
        (
            json!({"name": "S", "steps": [{"trigger": "a", "message": "1", "entry_point": false}]}),
            vec!["steps"],
        ),
        (
            json!({"name": "S", "steps": [{"trigger": "a", "message": "1"}, {"trigger": "A ", "message": "2"}]}),
            vec!["steps[1].trigger"],
        ),
        (
            json!({"name": "S", "steps": [{"trigger": "a", "message": "1", "delay_hours": -1}]}),
            vec!["steps[0].delay_hours"],
        ),
        (
            json!({"name": "S", "steps": [{"trigger": "a", "message": "1", "delay_hours": 0.5}]}),
            vec!["steps[0].delay_hours"],
        ),
        (
            json!({"name": "S", "steps": [{"trigger": "a", "message": "1", "delay_hours": 1e300}]}),
            vec!["steps[0].delay_hours"],
        ),
        (
            json!({"name": "S", "steps": [{"trigger": "a", "message": "1", "next_trigger": "a"}]}),
            vec!["steps[0].next_trigger"],
        ),
        (
            json!({"name": "S", "steps": [{"trigger": "a", "message": "1", "media": {"data": "?"}}]}),
            vec!["steps[0].media.data"],
        ),
        (
            json!({"name": "S", "steps": [{"message": "Hi {{nmae}}"}], "time_zone": "Mars", "re_entry": "often"}),
            vec!["time_zone", "re_entry", "steps[0].trigger", "steps[0].message"],
        ),
    ];
    for (body, fields) in cases {
        let answer = ann.post("/api/sequences", body.clone()).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, "VALIDATION_ERROR"),
            "{body}: {}",
            answer.text
        );
        let mut named = answer.fields();
        let mut wanted = fields.clone();
        named.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(named, wanted, "{body}: {}", answer.text);
    }
    let unread = ann
        .post("/api/sequences", json!({"name": "S", "steps": [{"day": "one"}]}))
        .await;
    assert_eq!((unread.code(), unread.fields()), ("BAD_REQUEST", vec!["steps[0].day"]));
    let unknown = ann.post("/api/sequences", json!({"name": "S", "stepz": []})).await;
    assert_eq!(unknown.code(), "BAD_REQUEST");

    let empty = ann.post("/api/sequences", json!({"name": "Empty"})).await.ok();
    let started = ann
        .post(&format!("/api/sequences/{}/start", id(&empty)), json!({}))
        .await;
    assert_eq!(started.fields(), vec!["steps"], "{}", started.text);

    let body = json!({"name": "S", "steps": [{"trigger": "a", "message": "1", "next_trigger": "nobody_has_it"}]});
    let made = ann.post("/api/sequences", body).await.ok();
    assert_eq!(made["warnings"][0]["field"], "steps[0].next_trigger");
    let path = format!("/api/sequences/{}", id(&made));
    let refused = ann.post(&format!("{path}/start"), json!({})).await;
    assert_eq!(refused.fields(), vec!["steps[0].next_trigger"], "{}", refused.text);
    let allowed = ann.post(&format!("{path}/start?open_end=true"), json!({})).await.ok();
    assert_eq!(allowed["status"], "active");
    let again = ann.post(&format!("{path}/start"), json!({})).await;
    assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, "CONFLICT"));
    let resumed = ann.post(&format!("{path}/resume"), json!({})).await;
    assert_eq!(resumed.status, StatusCode::CONFLICT, "{}", resumed.text);
    let status = ann.get("/api/sequences?status=running").await;
    assert_eq!((status.code(), status.fields()), ("VALIDATION_ERROR", vec!["status"]));
}

#[tokio::test]
async fn who_cannot_enter_is_told_why_and_who_is_out_cannot_be_ended_again() {
    let running = hurried().await;
    let ann = running.basic("ann");
    let a = device(&ann, "A").await;
    let body = json!({"name": "S", "greeting": false, "steps": three_steps()});
    let made = ann.post("/api/sequences", body).await.ok();
    let path = format!("/api/sequences/{}", id(&made));
    let contacts = format!("{path}/contacts");
    let early = ann.post(&contacts, json!({"phones": ["0123450001"]})).await;
    assert_eq!(early.status, StatusCode::CONFLICT, "{}", early.text);
    ann.post(&format!("{path}/start"), json!({})).await.ok();

    for (body, field) in [
        (json!({}), "phones"),
        (json!({"phones": []}), "phones"),
        (json!({"phones": ["0123450001"], "lead_ids": []}), "lead_ids"),
        (
            json!({"phones": ["0123450001"], "step_id": made["steps"][1]["id"]}),
            "step_id",
        ),
        (json!({"phones": ["0123450001"], "device_id": made["id"]}), "device_id"),
        (json!({"phones": vec!["0123450001"; 1_001]}), "numbers"),
    ] {
        let answer = ann.post(&contacts, body.clone()).await;
        assert_eq!(
            (answer.code(), answer.fields()),
            ("VALIDATION_ERROR", vec![field]),
            "{}",
            answer.text
        );
    }

    ann.post("/api/suppressions", json!({"phone": "0123450009"})).await.ok();
    let suppressed = lead(&ann, &a, "0123450009", "").await;
    let by_lead = ann
        .post(&contacts, json!({"lead_ids": [suppressed, made["id"]]}))
        .await
        .ok();
    assert_eq!(by_lead["items"][0]["result"], "suppressed");
    assert_eq!(by_lead["items"][1]["result"], "not_found");
    let phones = json!({"phones": ["0123450001", "+60 12-345 0001", "0123450009", "hello"]});
    let entered = ann.post(&contacts, phones).await.ok();
    let results: Vec<_> = entered["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["result"])
        .collect();
    assert_eq!(results, ["enrolled", "already_in", "suppressed", "refused"]);
    assert_eq!(
        (&entered["enrolled"], &entered["items"][0]["lead_created"]),
        (&json!(1), &json!(true))
    );
    assert_eq!(entered["items"][3]["fields"][0]["field"], "phone");

    let run = entered["items"][0]["enrolment_id"].as_str().unwrap();
    let contact = ann.get(&format!("{contacts}/{run}")).await.ok();
    assert_eq!(contact["flows"].as_array().unwrap().len(), 3, "{contact}");
    let ended = ann
        .call(Method::DELETE, &format!("{contacts}/{run}"), json!({}))
        .await
        .ok();
    assert_eq!(
        (&ended["status"], &ended["reason"]),
        (&json!("ended"), &json!("by_person"))
    );
    let again = ann.call(Method::DELETE, &format!("{contacts}/{run}"), json!({})).await;
    assert_eq!(
        (again.status, again.code()),
        (StatusCode::CONFLICT, "CONFLICT"),
        "{}",
        again.text
    );
    assert!(again.message().contains("ended"), "{}", again.message());
    let re_entry = ann.post(&contacts, json!({"phones": ["0123450001"]})).await.ok();
    assert_eq!(re_entry["items"][0]["result"], "re_entry_refused");

    let other = ann.post("/api/sequences", json!({"name": "Other"})).await.ok();
    let elsewhere = format!("/api/sequences/{}/contacts/{run}", id(&other));
    assert_eq!(ann.get(&elsewhere).await.status, StatusCode::NOT_FOUND);
    let ben = running.basic("ben");
    for path in [
        path.clone(),
        contacts.clone(),
        format!("{contacts}/{run}"),
        format!("{path}/progress"),
    ] {
        assert_eq!(ben.get(&path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    for action in ["start", "pause", "resume", "stop", "toggle", "clone"] {
        let answer = ben.post(&format!("{path}/{action}"), json!({})).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{action}");
    }
}

#[tokio::test]
async fn a_sequence_is_edited_paused_toggled_cloned_and_deleted() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let a = device(&ann, "A").await;
    let body = json!({"name": "Fit", "steps": three_steps()});
    let made = ann.post("/api/sequences", body).await.ok();
    let path = format!("/api/sequences/{}", id(&made));
    assert_eq!(
        (&made["status"], &made["trigger"]),
        (&json!("draft"), &json!("fit_start"))
    );
    let triggers: Vec<_> = made["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| &step["trigger"])
        .collect();
    assert_eq!(triggers, ["fit_start", "fit_day2", "fit_day4"]);
    assert_eq!(made["steps"][0]["next_trigger"], "fit_day2");
    lead(&ann, &a, "0123450001", "fit_start").await;
    ann.post(&format!("{path}/start"), json!({})).await.ok();
    running
        .until(async || {
            let numbers = ann.get(&format!("{path}/numbers")).await.ok();
            (numbers["total"]["done"] == 1).then_some(())
        })
        .await;

    let keep = |at: usize| json!({"id": made["steps"][at]["id"]});
    let change = json!({"steps": [keep(0), keep(1), {"message": "new", "trigger": "fit_new"}]});
    let preview = ann.post(&format!("{path}/preview-edit"), change.clone()).await.ok();
    assert_eq!(preview["removed"], json!([made["steps"][2]["id"]]));
    assert_eq!(preview["added"].as_array().unwrap().len(), 1);
    assert_eq!(preview["effects"][0]["contacts"], 1, "{preview}");
    let unchanged = ann.get(&path).await.ok();
    assert_eq!(unchanged["steps"], made["steps"], "a preview saves nothing");
    let edited = ann.call(Method::PUT, &path, change).await.ok();
    assert_eq!(
        (&edited["steps_version"], &edited["steps"][1]["message"]),
        (&json!(2), &json!("two"))
    );
    let stale = json!({"name": "Late", "version": made["version"]});
    assert_eq!(ann.call(Method::PUT, &path, stale).await.status, StatusCode::CONFLICT);
    let wrong = json!({"steps": [{"id": made["id"], "trigger": "x", "message": "1"}]});
    assert_eq!(ann.call(Method::PUT, &path, wrong).await.fields(), vec!["steps[0].id"]);

    let step = made["steps"][0]["id"].as_str().unwrap();
    let resent = ann.post(&format!("{path}/step/{step}/resend"), json!({})).await.ok();
    assert_eq!((&resent["resent"], &resent["more"]), (&json!(0), &json!(false)));
    for (action, status) in [
        ("pause", "paused"),
        ("resume", "active"),
        ("stop", "inactive"),
        ("toggle", "active"),
        ("toggle", "inactive"),
        ("start", "active"),
    ] {
        let answer = ann.post(&format!("{path}/{action}"), json!({})).await.ok();
        assert_eq!(answer["status"], status, "{action}");
    }
    let copy = ann.post(&format!("{path}/clone"), json!({})).await.ok();
    assert_eq!(
        (&copy["name"], &copy["status"]),
        (&json!("Fit (copy)"), &json!("draft"))
    );
    let page = ann.get("/api/sequences?limit=1").await.ok();
    assert_eq!(page["items"][0]["id"], copy["id"]);
    let next = page["next"].as_str().unwrap();
    let page = ann.get(&format!("/api/sequences?limit=1&cursor={next}")).await.ok();
    assert_eq!((&page["items"][0]["id"], &page["next"]), (&made["id"], &Value::Null));
    assert_eq!(page["items"][0]["numbers"]["done"], 1);
    let deleted = ann.call(Method::DELETE, &path, json!({})).await.ok();
    assert_eq!(deleted["contacts_ended"], 1);
    assert_eq!(ann.get(&path).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_lead_runs_through_two_chained_sequences_and_all_numbers_add_up() {
    let running = hurried().await;
    let ann = running.basic("ann");
    let a = device(&ann, "A").await;
    let soon = 1.0 / 3_600.0;
    let second = json!({"name": "Second", "greeting": false, "steps": [
        {"trigger": "second", "message": "three", "delay_hours": soon}]});
    let second = ann.post("/api/sequences", second).await.ok();
    ann.post(&format!("/api/sequences/{}/start", id(&second)), json!({}))
        .await
        .ok();
    let first = json!({"name": "First", "greeting": false, "steps": [
        {"trigger": "first", "message": "one", "delay_hours": soon},
        {"message": "two", "delay_hours": soon, "next_trigger": "second"}]});
    let first = ann.post("/api/sequences", first).await.ok();
    assert!(first.get("warnings").is_none(), "{first}");
    ann.post(&format!("/api/sequences/{}/start", id(&first)), json!({}))
        .await
        .ok();
    let ali = lead(&ann, &a, "0123450001", "first,vip").await;
    let path = format!("/api/sequences/{}", id(&second));
    let numbers = tokio::time::timeout(Duration::from_secs(60), through(&running, &ann, &path, 1)).await;
    assert_eq!(numbers.expect("it is through in time")["total"]["done"], 1);
    let texts: Vec<_> = running.transport.sent().iter().map(|sent| sent.text.clone()).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    assert_eq!(ann.get(&format!("/api/leads/{ali}")).await.ok()["trigger"], "vip");

    let summary = ann.get("/api/sequences/summary").await.ok();
    assert_eq!(
        summary["sequences"],
        json!({"total": 2, "active": 2, "inactive": 0, "draft": 0, "paused": 0, "stopped": 0})
    );
    for name in ["total_flows", "total_should_send", "total_done_send"] {
        assert_eq!(summary[name], 3, "{name}: {summary}");
    }
    for name in ["failed", "skipped", "unknown", "cancelled", "remaining"] {
        assert_eq!(summary[format!("total_{name}_send")], 0, "{name}: {summary}");
        assert_eq!(summary["recent_sequences"][0][format!("{name}_send")], 0);
    }
    let recent = &summary["recent_sequences"][0];
    assert_eq!(
        (&recent["name"], &recent["trigger"]),
        (&json!("First"), &json!("first"))
    );
    assert_eq!(
        (&recent["total_flows"], &recent["should_send"], &recent["done_send"]),
        (&json!(2), &json!(2), &json!(2))
    );
    let before = ann.get("/api/sequences/summary?to=2020-01-01").await.ok();
    assert_eq!(
        (&before["total_done_send"], &before["total_should_send"]),
        (&json!(0), &json!(0))
    );

    let report = ann
        .get(&format!("/api/sequences/{}/device-report", id(&first)))
        .await
        .ok();
    assert_eq!(
        (&report["items"][0]["name"], &report["items"][0]["numbers"]["done"]),
        (&json!("A"), &json!(2))
    );
    assert_eq!(report["steps"].as_array().unwrap().len(), 2);
    assert_eq!(report["steps"][1]["devices"][0]["numbers"]["done"], 1);

    let whole = ann.get(&format!("/api/leads/{ali}/timeline")).await.ok();
    let whole = whole["items"].as_array().unwrap();
    assert_eq!(whole.len(), 5, "three messages and two runs: {whole:?}");
    let mut paged = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = ann
            .get(&format!("/api/leads/{ali}/timeline?limit=2&cursor={cursor}"))
            .await
            .ok();
        paged.extend(page["items"].as_array().unwrap().clone());
        match page["next"].as_str() {
            Some(next) => next.clone_into(&mut cursor),
            None => break,
        }
    }
    assert_eq!(&paged, whole);
    let message = whole.iter().find(|entry| entry["kind"] == "message").unwrap();
    assert_eq!(
        (&message["scope_name"], &message["message"]["kind"]),
        (&json!("First"), &json!("sequence"))
    );
    let moments: Vec<_> = message["moments"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["what"])
        .collect();
    assert_eq!(moments, ["planned", "attempted", "settled"]);
    let bad = ann.get(&format!("/api/leads/{ali}/timeline?cursor=x")).await;
    assert_eq!(bad.fields(), vec!["cursor"]);

    let why = format!("/api/leads/{ali}/why");
    let told = ann.get(&format!("{why}?sequence={}", id(&first))).await.ok();
    assert_eq!(
        (&told["is_in"], told["messages"].as_array().unwrap().len()),
        (&json!(true), 2)
    );
    assert_eq!(ann.get(&why).await.fields(), vec!["campaign"]);
    let other = lead(&ann, &a, "0123450002", "").await;
    let told = ann
        .get(&format!("/api/leads/{other}/why?sequence={}", id(&first)))
        .await
        .ok();
    assert_eq!(told["is_in"], false);
    let stops: Vec<_> = told["checks"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["ruling"] == "stops")
        .collect();
    assert_eq!(stops[0]["rule"], "trigger", "{told}");
    let ben = running.basic("ben");
    assert_eq!(
        ben.get(&format!("{why}?sequence={}", id(&first))).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ben.get(&format!("/api/leads/{ali}/timeline")).await.status,
        StatusCode::NOT_FOUND
    );
}

also_on_postgres! {
    a_sequence_that_cannot_be_is_refused_and_the_field_is_named,
    who_cannot_enter_is_told_why_and_who_is_out_cannot_be_ended_again,
    a_sequence_is_edited_paused_toggled_cloned_and_deleted,
    a_lead_runs_through_two_chained_sequences_and_all_numbers_add_up,
}
