//! CSV files in and out: recipients with their own texts, leads from one user to another, files that are broken.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, Client, Running, settings};
use crate::work::{device, id, imported};

async fn upload(user: &Client, path: &str, file: impl Into<reqwest::Body>) -> Answer {
    let request = user.request(Method::POST, path).header("content-type", "text/csv");
    Client::send(request.body(file)).await
}

async fn refusals(user: &Client, import: &Value) -> Vec<(u64, String, String)> {
    let page = user.get(&format!("/api/imports/{}/refusals", id(import))).await.ok();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let rows = page["items"].as_array().unwrap().iter();
    rows.map(|row| (row["line"].as_u64().unwrap(), text(&row["field"]), text(&row["reason"])))
        .collect()
}

fn counts(import: &Value) -> [u64; 4] {
    ["rows", "inserted", "duplicates", "refused"].map(|name| import[name].as_u64().unwrap())
}

#[tokio::test]
async fn a_campaign_takes_numbers_with_their_own_texts_from_a_file() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let device = device(&ann, "A").await;
    let body = json!({"title": "Own", "message": "Hi {{name}}", "audience": "entries", "device_id": device, "greeting": false});
    let campaign = ann.post("/api/campaigns", body).await.ok();
    let path = format!("/api/campaigns/{}", id(&campaign));
    let file = "phone;text;name;Bandar\n0123450001;Salam {{name}} di {{custom.Bandar}};Ali;KL\n\n0123450002;;Siti;Ipoh\n\
        none;x;Abu;x\n0123450003;Hi {{nmae}};Abu;x\n\"0123450004;open;Abu;x\n0123450005;last;Abu;x\n";
    let import = format!("{path}/entries/import");
    let started = upload(&ann, &import, file).await;
    assert_eq!(started.status, StatusCode::ACCEPTED, "{}", started.text);
    let done = imported(&ann, started.ok()).await;
    assert_eq!(
        (&done["state"], counts(&done)),
        (&json!("done"), [6, 3, 0, 3]),
        "{done}"
    );
    assert_eq!(done["name"], "recipients.csv");
    let refused = refusals(&ann, &done).await;
    let told: Vec<_> = refused.iter().map(|(line, field, _)| (*line, field.as_str())).collect();
    assert_eq!(told, [(5, "phone"), (6, "message"), (7, "row")], "{refused:?}");
    assert!(refused[2].2.contains("opened on line 7"), "{refused:?}");

    let part = reqwest::multipart::Part::bytes(file.as_bytes()).file_name("mine.csv");
    let form = reqwest::multipart::Form::new().part("file", part);
    let again = Client::send(ann.request(Method::POST, &import).multipart(form))
        .await
        .ok();
    let again = imported(&ann, again).await;
    assert_eq!((&again["name"], counts(&again)), (&json!("mine.csv"), [6, 0, 3, 3]));
    assert_eq!(ann.get(&format!("{path}/audience")).await.ok()["size"], 3);
    let more = imported(
        &ann,
        upload(&ann, &format!("{import}?first_position=10"), "phone\n0123450006\n")
            .await
            .ok(),
    )
    .await;
    assert_eq!(counts(&more), [1, 1, 0, 0]);

    ann.post(&format!("{path}/start"), json!({})).await.ok();
    running.completed(&ann, &path).await;
    let mut texts: Vec<String> = running.transport.sent().into_iter().map(|one| one.text).collect();
    texts.sort();
    assert_eq!(texts, ["Hi ", "Hi Siti", "Salam Ali di KL", "last"]);
    let late = upload(&ann, &import, file).await;
    assert_eq!((late.status, late.code()), (StatusCode::CONFLICT, "CONFLICT"));
    let leads = ann
        .post("/api/campaigns", json!({"title": "T", "message": "Hi"}))
        .await
        .ok();
    let wrong = format!("/api/campaigns/{}/entries/import", id(&leads));
    assert_eq!(upload(&ann, &wrong, file).await.status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn exported_leads_imported_by_another_user_are_equal() {
    let running = Running::start().await;
    let (ann, ben) = (running.basic("ann"), running.basic("ben"));
    let own = device(&ann, "A").await;
    let leads = [
        json!({"name": "=Ali \"A\"", "phone": "0123450001", "device_id": own, "niche": "EXA, Vitac", "trigger": "Start", "tags": "VIP",
            "journey": " first\r\nsecond ", "pipeline_status": "-hot", "target_status": "customer",
            "custom": {"City": "Kuala Lumpur, KL", "empty": "", "blank": " x ", "odd": "'=1"},
            "consent": {"source": "form", "given_at": "2026-01-02T03:04:05.678Z"}}),
        json!({"name": "Siti", "phone": "0123450002", "custom": {"kod-1": "+9"}}),
        json!({"phone": "0123450003", "consent": {"source": "call", "given_at": "2025-01-01T00:00:00Z"}}),
    ];
    for lead in leads {
        ann.post("/api/leads", lead).await.ok();
    }
    let file = ann.get("/api/leads/export").await.text;
    let header = file.lines().next().unwrap();
    assert!(
        header.ends_with(
            ",device_id,consent_source,consent_at,custom,custom.City,custom.blank,custom.empty,custom.kod-1,custom.odd"
        ),
        "{header}"
    );
    let kept = imported(&ben, upload(&ben, "/api/leads/import", file.clone()).await.ok()).await;
    assert_eq!(counts(&kept), [3, 2, 0, 1], "the device is another user's");
    assert_eq!(refusals(&ben, &kept).await[0].1, "device_id");
    let kept = imported(
        &ben,
        upload(&ben, "/api/leads/import?ignore_devices=true", file).await.ok(),
    )
    .await;
    assert_eq!(counts(&kept), [3, 1, 2, 0]);
    let all = async |user: &Client| {
        let page = user.get("/api/leads").await.ok();
        let mut leads: Vec<Value> = page["items"].as_array().unwrap().clone();
        for lead in &mut leads {
            let lead = lead.as_object_mut().unwrap();
            for own in ["id", "device_id", "created_at", "updated_at", "version"] {
                lead.remove(own);
            }
        }
        leads.sort_by_key(|lead| lead["phone"].to_string());
        leads
    };
    assert_eq!(all(&ben).await, all(&ann).await);
    assert_eq!(all(&ben).await[0]["niche"], "EXA,Vitac");
}

#[tokio::test]
async fn an_open_quotation_mark_costs_its_row_and_no_other() {
    let running = Running::with(settings().with("IMPORT_ROW_BYTES_MAX", "2048")).await;
    let ann = running.basic("ann");
    let mut file = "name,phone\nAli,0123450001\n\"Siti,0123450002\n".to_owned();
    for at in 0..1_000 {
        file.push_str(&format!("Lead,+6012{at:07}\n"));
    }
    let done = imported(&ann, upload(&ann, "/api/leads/import", file).await.ok()).await;
    assert_eq!((&done["state"], counts(&done)), (&json!("done"), [1_002, 1_001, 0, 1]));
    assert_eq!(done["bytes_read"], done["bytes_total"]);
    let refused = refusals(&ann, &done).await;
    assert_eq!((refused[0].0, refused[0].1.as_str()), (3, "row"));
    assert!(
        refused[0]
            .2
            .contains("opened on line 3 and not closed within 2048 bytes"),
        "{refused:?}"
    );
}

also_on_postgres! {
    a_campaign_takes_numbers_with_their_own_texts_from_a_file,
    exported_leads_imported_by_another_user_are_equal,
}
