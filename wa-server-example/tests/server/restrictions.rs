//! What WhatsApp holds against an account, as it is seen over HTTP.

use std::time::Duration;

use serde_json::{Value, json};
use wa_core::time::{Clock, SystemClock};
use wa_loopback::{CapStatus, NewChatCap, Timelock};

use crate::api::Api;
use crate::linked::{Linked, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_timelock_is_shown_with_its_device_and_in_forecasts_and_strangers_wait_until_it_is_lifted() {
    let (linked, server) = Linked::set(1, 3).await;
    let own = Linked::own_number(0);
    Linked::connect(linked.people.iter()).await;
    let (friend, strangers) = linked.people.split_first().unwrap();
    let api = Api::login(server.address(), "ann").await;
    let path = format!("/api/devices/{}", linked.devices[0]);
    let device = async || api.0.get(&path).await.ok();
    friend.send_text(&own, "Hello?").await.unwrap();
    until("the message to be told", async || {
        let events = api.0.get("/api/events").await.ok().to_string();
        events.contains("NEW_MESSAGE").then_some(())
    })
    .await;

    let ends_s = (SystemClock::new().wall() + Duration::from_secs(3_600)).as_millis() / 1_000;
    let cap = NewChatCap::new(50, 20, ends_s - 7_200, ends_s).status(CapStatus::FirstWarning);
    linked.whatsapp.set_new_chat_cap(&own, Some(cap));
    linked.whatsapp.set_timelock(&own, Some(Timelock::until(ends_s)));
    let shown = until("the restriction", async || {
        let shown = device().await;
        (!shown["restriction"].is_null() && !shown["new_chats"].is_null()).then_some(shown)
    })
    .await;
    let restriction = &shown["restriction"];
    assert_eq!(
        (&restriction["scope"], &restriction["cause"]),
        (&json!("cold"), &json!("timelock"))
    );
    assert_eq!(restriction["until"], shown["restricted_until"]);
    let chats = &shown["new_chats"];
    assert_eq!(
        (&chats["total"], &chats["used"], &chats["budget"], &chats["warning"]),
        (&json!(50), &json!(20), &json!(12), &json!("first"))
    );
    linked.whatsapp.set_new_chat_cap(&own, None);
    until("the limit to be gone", async || {
        device().await["new_chats"].is_null().then_some(())
    })
    .await;

    let campaign = linked.start(&api, json!({"message": "Hi {{name}}"})).await;
    Linked::until_received(std::iter::once(friend)).await;
    until("the others to wait", async || {
        let numbers = api.numbers(campaign).await;
        (numbers["total"]["done"] == 1 && numbers["total"]["remaining"] == 2).then_some(())
    })
    .await;
    let forecast = api.0.get(&format!("/api/campaigns/{campaign}/forecast")).await.ok();
    let warned = |forecast: &Value| {
        let warnings = forecast["warnings"].as_array().unwrap();
        warnings.iter().any(|warning| warning["code"] == "restricted")
    };
    assert!(warned(&forecast), "{forecast}");
    let (ends, lock) = (&forecast["ends_at"], &restriction["until"]);
    assert!(ends.as_str() > lock.as_str() && lock.is_string(), "{forecast}");

    linked.whatsapp.set_timelock(&own, None);
    Linked::until_received(strangers.iter()).await;
    assert_eq!(
        api.until_ended(campaign, 3, Duration::from_secs(120)).await["total"]["done"],
        3
    );
    assert!(device().await["restriction"].is_null());
}
