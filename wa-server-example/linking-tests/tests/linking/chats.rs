//! The past of a phone, as it is read over HTTP once a device is linked to it.

use serde_json::json;
use wa_core::time::{Clock, SystemClock};
use wa_loopback::PastChat;

use crate::postgres::Schema;
use crate::site::{Database, Site, create, online, tell, until};

const OWN: &str = "60123450001";
const DAY_S: u64 = 86_400;

async fn the_past_is_read(database: Database) {
    let mut site = Site::open(database).await;
    let (ann, phone) = (site.ann().await, site.person(OWN).await);
    let id = create(&ann, "Sales").await;
    let link = ann.post(&format!("/api/devices/{id}/connect"), json!({})).await.ok();
    let device = phone.scan(link["qr"].as_str().unwrap()).await.unwrap();
    online(&ann, &id).await;
    let now_s = u64::try_from(SystemClock::new().wall().as_millis()).unwrap() / 1_000;
    let past = vec![
        PastChat::with("60120000001")
            .they_wrote("H0", now_s - 40 * DAY_S, "long ago")
            .they_wrote("H1", now_s - 2 * DAY_S, "how much?")
            .i_wrote("H2", now_s - DAY_S, "RM 20"),
        PastChat::with("60120000002").they_wrote("H3", now_s - 31 * DAY_S, "too long ago"),
        PastChat::with("60120000003").they_wrote("H4", now_s - 3 * DAY_S, "hello"),
    ];
    phone.share_history(&device, past).await.unwrap();
    let chats = format!("/api/devices/{id}/chats");
    let told = until("the past", async || {
        let told = ann.get(&chats).await.ok();
        (told["items"].as_array().unwrap().len() == 2).then_some(told)
    })
    .await;
    let shown: Vec<_> = (0..2)
        .map(|at| &told["items"][at])
        .map(|chat| (&chat["phone"], &chat["unread"], &chat["last_message"]["text"]))
        .collect();
    assert_eq!(
        shown,
        [
            (&json!("+60120000001"), &json!(0), &json!("RM 20")),
            (&json!("+60120000003"), &json!(0), &json!("hello"))
        ]
    );
    site.whatsapp
        .wait_acknowledged(crate::site::LIMIT, &device)
        .await
        .unwrap();

    // Offline, and after a restart, they can be read all the same.
    tell(&ann, &id, "disconnect").await;
    site.restart().await;
    let ann = site.ann().await;
    assert_eq!(ann.get(&chats).await.ok(), told);
    let messages = ann.get(&format!("/api/devices/{id}/messages/60120000001")).await.ok();
    let messages = messages["items"].as_array().unwrap();
    let shown: Vec<_> = messages.iter().map(|one| (&one["from"], &one["text"])).collect();
    assert_eq!(
        shown,
        [
            (&json!("own_phone"), &json!("RM 20")),
            (&json!("person"), &json!("how much?"))
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_a_phone_fills_the_chats_and_is_read_while_the_device_is_offline_on_sqlite() {
    the_past_is_read(Database::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_past_of_a_phone_fills_the_chats_and_is_read_while_the_device_is_offline_on_postgres() {
    the_past_is_read(Database::Postgres(Schema::new())).await;
}
