//! CSV files in and out: recipients with their own texts, leads from one user to another, files that are broken.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use wa_core::domain::access::RequestScope;
use wa_core::id::{IdSource, ImportId};
use wa_core::time::Clock as _;
use wa_server_example::import;

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

/// A form with one file and some fields.
async fn form(user: &Client, path: &str, fields: &[(&'static str, &str)], file: Vec<u8>, name: &'static str) -> Answer {
    let mut form = reqwest::multipart::Form::new();
    for (field, value) in fields {
        form = form.text(*field, (*value).to_owned());
    }
    let part = reqwest::multipart::Part::bytes(file).file_name(name);
    Client::send(
        user.request(Method::POST, path)
            .multipart(form.part("file", part).text("after", "more")),
    )
    .await
}

#[tokio::test]
async fn a_form_may_be_as_large_as_the_file_that_it_brings() {
    let running = Running::with_pictures(settings().with("IMAGE_COMPRESSION", "false")).await;
    let ann = running.basic("ann");
    let own = device(&ann, "A").await;
    // Black, and not packed: every byte of it counts.
    let mut picture = std::io::Cursor::new(Vec::new());
    let encoder = image::codecs::png::PngEncoder::new_with_quality(
        &mut picture,
        image::codecs::png::CompressionType::Uncompressed,
        image::codecs::png::FilterType::NoFilter,
    );
    image::DynamicImage::new_rgb8(1_000, 1_000)
        .write_with_encoder(encoder)
        .unwrap();
    let picture = picture.into_inner();
    assert!(picture.len() > 2 * 1024 * 1024, "{}", picture.len());
    let (send, test) = (format!("/api/devices/{own}/send"), format!("/api/devices/{own}/test"));
    let fields = [("device_id", own.as_str()), ("phone", "0123450001")];
    for path in ["/api/media", "/send/image", "/api/messages/send/media", &send, &test] {
        form(&ann, path, &fields, picture.clone(), "offer.png").await.ok();
        let large = form(&ann, path, &fields, vec![0xFF; 10_485_761], "offer.png").await;
        assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}: {}", large.text);
        assert_eq!(large.fields(), ["file"], "{path}");
        assert!(large.message().contains("10485760"), "{path}: {}", large.text);
    }
    assert_eq!(
        ann.get("/api/messages").await.ok()["items"].as_array().unwrap().len(),
        4
    );

    let campaign = json!({"title": "T", "message": "Hi", "audience": "entries", "device_id": own});
    let campaign = id(&ann.post("/api/campaigns", campaign).await.ok());
    let mut file = "phone;name\n".to_owned();
    for row in 0..50 {
        file.push_str(&format!("012345{row:04};{}\n", "Ali ".repeat(12_000)));
    }
    assert!(file.len() > 2 * 1024 * 1024, "{}", file.len());
    let entries = format!("/api/campaigns/{campaign}/entries/import");
    let of_device = format!("/api/devices/{own}/leads/import");
    for path in ["/api/leads/import", &of_device, &entries] {
        let begun = form(&ann, path, &[], file.clone().into_bytes(), "leads.csv").await;
        assert_eq!(begun.status, StatusCode::ACCEPTED, "{path}: {}", begun.text);
        let done = imported(&ann, begun.ok()).await;
        assert_eq!((&done["state"], &done["rows"]), (&json!("done"), &json!(50)), "{path}");
        assert_eq!(done["bytes_read"], file.len(), "{path}");
    }
}

#[tokio::test]
async fn a_request_that_is_refused_keeps_no_picture() {
    use base64::Engine as _;
    let running = Running::with_pictures(settings()).await;
    let ann = running.basic("ann");
    let own = device(&ann, "A").await;
    let picture = {
        let mut file = std::io::Cursor::new(Vec::new());
        let small = image::DynamicImage::new_rgb8(8, 8);
        small.write_to(&mut file, image::ImageFormat::Png).unwrap();
        file.into_inner()
    };
    let kept = || {
        let media = running.folder().join("media");
        let users = std::fs::read_dir(media).unwrap().map(|entry| entry.unwrap().path());
        let files = users
            .filter(|path| path.is_dir())
            .map(|path| std::fs::read_dir(path).unwrap().count());
        files.sum::<usize>()
    };
    let data = base64::engine::general_purpose::STANDARD.encode(&picture);
    let media = json!({"data": data});
    let send = format!("/api/devices/{own}/send");
    let step = |trigger: &str| json!({"day": 1, "trigger": trigger, "message": "Hi", "media": media});
    let many = json!({"phones": ["none", "1"], "message": "Hi", "media": media});
    for (path, body) in [
        ("/api/campaigns", json!({"message": "Hi", "media": media})),
        ("/api/templates", json!({"message": "Hi", "media": media})),
        ("/api/sequences", json!({"steps": [step("start"), step("start")]})),
        (&send, json!({"phone": "none", "message": "Hi", "media": media})),
    ] {
        let refused = ann.post(path, body).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}: {}", refused.text);
        assert_eq!(kept(), 0, "{path}");
    }
    let refused = ann.post(&format!("{send}-many"), many).await.ok();
    assert!(
        refused["items"]
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["message_id"].is_null()),
        "{refused}"
    );
    assert_eq!(kept(), 0);

    let once = json!({"phone": "0123450001", "message": "Hi", "media": media, "idempotency_key": "one"});
    for _ in 0..2 {
        ann.post(&send, once.clone()).await.ok();
        assert_eq!(kept(), 1, "the same message again keeps nothing more");
    }
    let campaign = json!({"title": "T", "message": "Hi", "media": media});
    let campaign = format!(
        "/api/campaigns/{}",
        id(&ann.post("/api/campaigns", campaign).await.ok())
    );
    assert_eq!(kept(), 2);
    // The change is made, although there is no time at which the campaign could be scheduled.
    let changed = json!({"media": media, "status": "scheduled"});
    let changed = ann.call(Method::PUT, &campaign, changed).await;
    assert!(changed.status.is_client_error(), "{}", changed.text);
    let media = ann.get(&campaign).await.ok()["media"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(ann.get(&format!("/api/media/{media}")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_import_that_nothing_runs_any_more_fails_by_itself_and_what_cancel_says_of_it_is_true() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let user = ann.get("/user/info").await.ok()["id"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    let now = running.clock.wall();
    let id = ImportId::new(&IdSource::from_entropy(), now);
    let record = import::record(id, &RequestScope::user(user), "leads.csv", 10, now);
    running.store.put_import(&record, &[]).await.unwrap();
    let path = format!("/api/imports/{id}");
    let cancel = async || {
        let answer = ann.post(&format!("{path}/cancel"), json!({})).await;
        assert_eq!(answer.status, StatusCode::CONFLICT, "{}", answer.text);
        answer.message().to_owned()
    };
    running.clock.advance(import::STANDS_STILL - Duration::from_secs(30));
    assert_eq!(
        ann.get(&path).await.ok()["state"],
        "running",
        "it may run on another node"
    );
    let said = cancel().await;
    assert!(
        said.starts_with("the import does not run ") && said.contains("2 minutes"),
        "{said}"
    );
    running.clock.advance(Duration::from_secs(60));
    assert_eq!(ann.get("/api/imports").await.ok()["items"][0]["state"], "failed");
    let failed = ann.get(&path).await.ok();
    assert_eq!(
        (&failed["state"], &failed["message"]),
        (&json!("failed"), &json!(import::BROKEN_OFF))
    );
    assert_eq!(cancel().await, "the import has ended");
}

also_on_postgres! {
    an_import_that_nothing_runs_any_more_fails_by_itself_and_what_cancel_says_of_it_is_true,
    a_campaign_takes_numbers_with_their_own_texts_from_a_file,
    exported_leads_imported_by_another_user_are_equal,
}
