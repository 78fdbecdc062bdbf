//! What somebody does wrong with a linked device, over HTTP: a clear error each, and nothing half done.

use std::path::{Path, PathBuf};

use reqwest::multipart::{Form, Part};
use reqwest::{Method, StatusCode};
use serde_json::json;
use wa_loopback::Seen;

use crate::linked::{Linked, until};
use crate::linked_campaign::noise;
use crate::support::{Answer, Client, files_within};

/// A refusal names the field and says what is expected of it.
fn assert_refused(answer: &Answer, field: &str, expectation: &str) {
    assert!(answer.status.is_client_error(), "{}", answer.text);
    assert_eq!(answer.fields(), [field], "{}", answer.text);
    assert!(answer.message().contains(expectation), "{}", answer.text);
}

/// A picture of more than 2 MB, which is less than the largest that is taken.
fn photo(format: image::ImageFormat) -> Vec<u8> {
    noise(1_000, 900, format)
}

/// The files of pictures in a data folder.
fn pictures(data: &Path) -> Vec<PathBuf> {
    let mut files = files_within(&data.join("media"));
    // The key that signs addresses of pictures lies beside them.
    files.retain(|file| file.file_name().is_some_and(|name| name != "key"));
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_use_of_a_linked_device_is_a_clear_error_and_leaves_nothing() {
    let (linked, server) = Linked::set(1, 1).await;
    let mut ann = Client::login_at(server.address(), "ann").await;
    // Large files take a while on a busy machine.
    ann.http = reqwest::Client::builder().no_proxy().build().unwrap();
    let device = linked.devices[0].to_string();
    let person = format!("+{}", linked.people[0].phone());
    let own = format!("+{}", Linked::own_number(0));
    let body = json!({"name": "Never linked", "platform": "whatsapp_web"});
    let unlinked = ann.post("/api/devices", body).await.ok();
    let unlinked = unlinked["id"].as_str().unwrap();
    let text = async |device: &str, phone: &str| {
        let body = json!({"phone": phone, "message": "hello"});
        ann.post(&format!("/api/devices/{device}/send"), body).await
    };
    let upload = async |device: &str, phone: &str, file: &[u8]| {
        let part = Part::bytes(file.to_vec()).file_name("offer.jpg").mime_str("image/jpeg");
        let form = Form::new().text("phone", phone.to_owned()).text("caption", "Look");
        let request = ann.request(Method::POST, &format!("/api/devices/{device}/send"));
        let request = request.header("sec-fetch-site", "same-origin");
        Client::send(request.multipart(form.part("image", part.unwrap()))).await
    };
    let good = photo(image::ImageFormat::Png);
    assert!((2 * 1024 * 1024..10_485_760).contains(&good.len()), "{}", good.len());

    for (device, phone, field, expectation) in [
        (unlinked, &person, "device_id", "must be linked to WhatsApp first"),
        (
            &device,
            &"120363041234567890@g.us".to_owned(),
            "phone",
            "not of a group",
        ),
        (&device, &own, "phone", "must not be the device's own number"),
    ] {
        for answer in [text(device, phone).await, upload(device, phone, &good).await] {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
            assert_refused(&answer, field, expectation);
        }
    }
    let large = upload(&device, &person, &vec![0xFF; 50 * 1024 * 1024]).await;
    assert_eq!(large.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_refused(&large, "image", "must have at most 10485760 bytes");
    let mut cut = photo(image::ImageFormat::Jpeg);
    cut.truncate(cut.len() / 2);
    let unreadable = "must be a picture that can be read to its end";
    for file in [&b"\xff\xd8\xff\xe0 not a picture"[..], &cut] {
        let answer = upload(&device, &person, file).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text);
        assert_refused(&answer, "image", unreadable);
    }
    let answer = upload(&device, &person, b"%PDF-1.7").await;
    assert_refused(&answer, "image", "must be a JPEG, PNG, GIF or WebP picture");

    let listed = ann.get("/api/messages").await.ok();
    assert_eq!(listed["items"], json!([]), "nothing is queued");
    let kept = pictures(linked.data.path());
    assert!(kept.is_empty(), "no picture is kept: {kept:?}");

    // Whether a number is on WhatsApp is only known there: the message ends with that reason.
    let queued = text(&device, "+60129999999").await.ok();
    let path = format!("/api/messages/{}", queued["message_id"].as_str().unwrap());
    let ended = until("the message to end", async || {
        let message = ann.get(&path).await.ok();
        (message["status"] != "queued").then_some(message)
    })
    .await;
    assert_eq!(
        (&ended["status"], &ended["reason"]),
        (&json!("skipped"), &json!("not_on_whats_app"))
    );
    let journal = linked.whatsapp.journal();
    let mut uploads = journal
        .iter()
        .filter(|record| matches!(record.seen, Seen::Uploaded { .. }));
    assert!(uploads.next().is_none(), "no picture came to WhatsApp");
    let sent = linked.whatsapp.sent();
    assert!(sent.iter().all(|message| message.peer), "nothing was sent: {sent:?}");

    // The device is as good as before.
    upload(&device, &person, &good).await.ok();
    Linked::connect(linked.people.iter()).await;
    Linked::until_received(linked.people.iter()).await;
    let received = linked.people[0].inbox().remove(0);
    assert_eq!(received.text(), Some("Look"));
    let shown = linked.people[0].download(&received).await.unwrap();
    assert!(image::load_from_memory(&shown).unwrap().width() > 100);
    assert_eq!(pictures(linked.data.path()).len(), 1);
    server.kill();
}
