//! The life of a link, and links that come about at the same time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use wa_loopback::Seen;

use crate::postgres::Schema;
use crate::site::{Database, LIMIT, Site, create, device, online, tell, until};
use crate::support::Client;

const OWN: &str = "60123450001";

/// What a phone reads from a picture of a code.
fn read_code(png: &str) -> String {
    let file = STANDARD
        .decode(png.strip_prefix("data:image/png;base64,").unwrap())
        .unwrap();
    let picture = image::load_from_memory(&file).unwrap().into_luma8();
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    let mut prepared = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| {
        picture
            .get_pixel(u32::try_from(x).unwrap(), u32::try_from(y).unwrap())
            .0[0]
    });
    let grids = prepared.detect_grids();
    assert_eq!(grids.len(), 1, "one code is found in the picture");
    grids[0].decode().unwrap().1
}

/// The first code of a device, as a text that was read from its picture.
async fn code_of(user: &Client, id: &str) -> String {
    let link = user.post(&format!("/api/devices/{id}/connect"), json!({})).await.ok();
    assert_eq!(link["state"], "qr", "{link}");
    let code = read_code(link["png"].as_str().unwrap());
    assert_eq!(link["qr"], code.as_str());
    assert!(link["svg"].as_str().unwrap().contains("<svg"));
    code
}

async fn until_inactive(site: &Site, jid: &Value) {
    let jid = jid.as_str().unwrap().parse().unwrap();
    until("the connection to be gone", async || {
        (!site.whatsapp.is_active(&jid)).then_some(())
    })
    .await;
}

fn offered(site: &Site) -> usize {
    let journal = site.whatsapp.journal();
    let offers = journal
        .iter()
        .filter(|record| matches!(record.seen, Seen::PairingOffered { .. }));
    offers.count()
}

async fn linked_and_back(database: Database) {
    let mut site = Site::open(database).await;
    let (ann, phone) = (site.ann().await, site.person(OWN).await);
    let id = create(&ann, "Sales").await;
    let answer = tell(&ann, &id, "refresh").await;
    assert_eq!(answer["state"], "refused", "there is nothing to connect yet: {answer}");

    let code = code_of(&ann, &id).await;
    assert_eq!(
        ann.get(&format!("/api/devices/{id}/qr")).await.ok()["qr"],
        code.as_str()
    );
    until("the code to be told of", async || {
        (device(&ann, &id).await["link_state"] == "qr_ready").then_some(())
    })
    .await;
    phone.scan(&code).await.unwrap();
    let linked = online(&ann, &id).await;
    assert_eq!(linked["phone"], format!("+{OWN}"));
    let jid = linked["jid"].clone();
    assert_eq!(jid, format!("{OWN}:1@s.whatsapp.net"));
    let listed = ann.get("/api/devices/check-connection").await.ok();
    assert_eq!(listed["items"][0]["status"], "online", "{listed}");
    let rows = site.session_rows(&id).await;
    assert!(rows > 10, "the session is in the database: {rows}");
    let again = ann.post(&format!("/api/devices/{id}/connect"), json!({})).await.ok();
    assert_eq!(again["state"], "linked", "{again}");

    // Started again it is online without a code.
    let offers = offered(&site);
    site.restart().await;
    let ann = site.ann().await;
    assert_eq!(online(&ann, &id).await["jid"], jid);

    // Disconnected by a person it stays so, also over a restart, until it is connected.
    let answer = tell(&ann, &id, "disconnect").await;
    assert_eq!(answer["state"], "done", "{answer}");
    until_inactive(&site, &jid).await;
    site.restart().await;
    let ann = site.ann().await;
    let probe = tell(&ann, &id, "probe").await;
    assert_eq!(probe["result"]["connected"], false, "{probe}");
    let resting = device(&ann, &id).await;
    assert_eq!(
        (&resting["status"], &resting["link_state"]),
        (&json!("offline"), &json!("disconnected"))
    );
    assert!(
        resting["link_reason"].as_str().unwrap().contains("Connect it again"),
        "{resting}"
    );
    let answer = tell(&ann, &id, "refresh").await;
    assert_eq!(answer["result"]["link_state"], "ready", "{answer}");
    online(&ann, &id).await;
    tell(&ann, &id, "disconnect").await;
    let answer = tell(&ann, &id, "connect").await;
    assert_eq!(
        answer["state"], "linked",
        "what is linked is connected, not linked anew: {answer}"
    );
    assert_eq!(offered(&site), offers, "no other code was shown");
    assert_eq!(online(&ann, &id).await["jid"], jid);

    // Logged out it is unlinked at WhatsApp, its number stays and its session is gone.
    let answer = tell(&ann, &id, "logout").await;
    assert_eq!(answer["state"], "done", "{answer}");
    let out = until("the device to be logged out", async || {
        let device = device(&ann, &id).await;
        (device["link_state"] == "logged_out").then_some(device)
    })
    .await;
    assert_eq!((&out["phone"], &out["jid"]), (&linked["phone"], &jid));
    assert_eq!(site.session_rows(&id).await, 0);
    let removed = |seen: &Seen| matches!(seen, Seen::Removed { device } if jid == device.to_string());
    assert!(site.whatsapp.journal().iter().any(|record| removed(&record.seen)));

    // Linked again by a code that is typed, it sends.
    let path = format!("/api/devices/{id}/pair-code");
    let link = ann.post(&path, json!({"phone": format!("+{OWN}")})).await.ok();
    assert_eq!(link["state"], "pair_code", "{link}");
    let typed = link["pair_code"].as_str().unwrap();
    assert_eq!(typed.len(), 8);
    phone.enter_code(typed).await.unwrap();
    let linked = online(&ann, &id).await;
    assert_eq!(linked["jid"], format!("{OWN}:2@s.whatsapp.net"));
    let customer = site.person("60123450009").await;
    let body = json!({"phone": "+60123450009", "message": "Salam"});
    ann.post(&format!("/api/devices/{id}/send"), body).await.ok();
    let received = customer.next_message(LIMIT).await.unwrap();
    assert_eq!(received.text(), Some("Salam"));
    for (number, there) in [("60123450009", true), ("60123459999", false)] {
        let check = ann.get(&format!("/user/check/{number}")).await.ok();
        assert_eq!(check["result"][0]["on_whatsapp"], there, "{check}");
    }
    let ben = Client::login_at(ann.address, "ben").await;
    let check = ben.get("/user/check/60123450009").await;
    assert_eq!(
        check.status.as_u16(),
        409,
        "devices of others check for nobody: {}",
        check.text
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_linked_by_qr_comes_back_is_logged_out_and_linked_again_by_a_code_on_sqlite() {
    linked_and_back(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_linked_by_qr_comes_back_is_logged_out_and_linked_again_by_a_code_on_postgres() {
    linked_and_back(Database::Postgres(Schema::new())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_are_linked_at_the_same_time_never_swap() {
    let site = Site::open(Database::Sqlite).await;
    let ann = site.ann().await;
    let links = (1..=6).map(async |number| {
        let id = create(&ann, &format!("Sales {number}")).await;
        let digits = format!("6012345001{number}");
        let phone = site.person(&digits).await;
        // Half of them by a code that is typed.
        if number % 2 == 0 {
            let path = format!("/api/devices/{id}/pair-code");
            let link = ann.post(&path, json!({"phone": format!("+{digits}")})).await.ok();
            phone.enter_code(link["pair_code"].as_str().unwrap()).await.unwrap();
        } else {
            phone.scan(&code_of(&ann, &id).await).await.unwrap();
        }
        let device = online(&ann, &id).await;
        assert_eq!(device["phone"], format!("+{digits}"), "{device}");
        assert_eq!(device["jid"], format!("{digits}:1@s.whatsapp.net"));
    });
    futures::future::join_all(links).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_of_somebody_else_can_be_asked_nothing() {
    let site = Site::open(Database::Sqlite).await;
    let ann = site.ann().await;
    let id = create(&ann, "Sales").await;
    let ben = Client::login_at(ann.address, "ben").await;
    for what in [
        "connect",
        "pair-code",
        "refresh",
        "reconnect",
        "disconnect",
        "logout",
        "probe",
    ] {
        let answer = ben
            .post(&format!("/api/devices/{id}/{what}"), json!({"phone": "+60123450001"}))
            .await;
        assert_eq!(answer.status.as_u16(), 404, "{what}: {}", answer.text);
    }
    assert_eq!(ben.get(&format!("/api/devices/{id}/qr")).await.status.as_u16(), 404);
    assert_eq!(offered(&site), 0);
}
