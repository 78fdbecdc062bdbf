//! Chats from outside: somebody writes, a person reads and answers on a screen.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use wa_core::time::{Clock as _, Timestamp};

use crate::linked::{Linked, until};
use crate::live::Screen;
use crate::support::{Client, Running};

const PHONE: &str = "60123456789";

/// A device that waits before it sends, and how its gateway calls back.
struct Hook<'a> {
    running: &'a Running,
    path: String,
    start: Timestamp,
}

/// A device of ann.
async fn device(running: &Running) -> (Client, String, Hook<'_>) {
    let ann = running.login("ann").await;
    let body = json!({
        "name": "W", "platform": "wablas", "credential": "token.key", "base_url": "https://solo.wablas.com"
    });
    let device = ann.post("/api/devices", body).await.ok();
    let id = device["id"].as_str().unwrap().to_owned();
    ann.post(&format!("/api/devices/{id}/hold"), json!({})).await.ok();
    let hook = Hook {
        running,
        path: device["callbacks"]["inbound"].as_str().unwrap().to_owned(),
        start: running.clock.wall() - Duration::from_secs(3_600),
    };
    (ann, id, hook)
}

impl Hook<'_> {
    /// The instant of a second.
    fn at(&self, second: u64) -> String {
        (self.start + Duration::from_secs(second)).to_string()
    }

    /// The gateway says that somebody wrote, at a second.
    async fn calls(&self, id: &str, text: &str, second: u64) {
        let body = json!({
            "id": id, "pushName": "Ali", "isGroup": false, "message": text, "phone": PHONE, "messageType": "text",
            "isFromMe": false, "timestamp": self.at(second)
        });
        let request = self.running.anybody().request(Method::POST, &self.path).json(&body);
        let answer = Client::send(request).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    }
}

async fn items(user: &Client, path: &str) -> Vec<Value> {
    user.get(path).await.ok()["items"].as_array().unwrap().clone()
}

fn texts(items: &[Value]) -> Vec<(&str, &str)> {
    items
        .iter()
        .map(|item| (item["from"].as_str().unwrap(), item["text"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn somebody_writes_and_a_person_reads_and_answers_on_a_screen() {
    let running = Running::start().await;
    let (ann, id, hook) = device(&running).await;
    let (mut screen, _) = Screen::open(&ann, "").await;
    hook.calls("M1", "how much?", 1).await;
    let told = screen.next_of("NEW_MESSAGE").await;
    assert_eq!(told["results"]["device_id"], json!(id));
    assert!(!told.to_string().contains("how much"), "events hold no words");
    let chats = items(&ann, &format!("/api/devices/{id}/chats")).await;
    assert_eq!(chats.len(), 1);
    let chat = &chats[0];
    assert_eq!(
        (&chat["unread"], &chat["name"], &chat["phone"]),
        (&json!(1), &json!("Ali"), &json!("+60123456789"))
    );
    assert_eq!(chat["last_message"]["text"], "how much?");
    assert_eq!(told["results"]["chat_id"], chat["id"]);
    let path = format!("/api/devices/{id}/messages/{}", chat["id"].as_str().unwrap());

    // Delivered again, it is one message.
    hook.calls("M1", "how much?", 1).await;
    let messages = items(&ann, &path).await;
    assert_eq!(texts(&messages), [("person", "how much?")]);
    assert_eq!(
        (&messages[0]["direction"], &messages[0]["kind"], &messages[0]["at"]),
        (&json!("in"), &json!("text"), &json!(hook.at(1)))
    );
    for name in [PHONE, "+60123456789", "60123456789@s.whatsapp.net", "60123456789@c.us"] {
        assert_eq!(
            items(&ann, &format!("/api/devices/{id}/messages/{name}")).await,
            messages,
            "{name}"
        );
    }

    let read = async || ann.post(&format!("{path}/read"), json!({})).await.ok();
    read().await;
    let told = screen.next_of("CHAT_UPDATE").await;
    assert_eq!((&told["id"], &told["results"]["chat_id"]), (&Value::Null, &chat["id"]));
    read().await;
    let unread = async || items(&ann, &format!("/api/devices/{id}/chats")).await[0]["unread"].clone();
    assert_eq!(unread().await, 0);
    hook.calls("M2", "and now?", 2).await;
    assert_eq!(unread().await, 1);
    let sent = ann
        .post(&path, json!({"message": "thanks", "phone": "0199999999"}))
        .await
        .ok();
    let all = items(&ann, &path).await;
    let expected = [("engine", "thanks"), ("person", "and now?"), ("person", "how much?")];
    assert_eq!(texts(&all), expected);
    assert_eq!(
        (&all[0]["status"], &all[0]["message_id"]),
        (&json!("queued"), &sent["message_id"])
    );
    let list = items(&ann, &format!("/api/devices/{id}/chats")).await;
    assert_eq!(list[0]["last_message"]["text"], "thanks");

    // Back and forth, page by page.
    let mut told = Vec::new();
    let mut next = String::new();
    loop {
        let page = ann.get(&format!("{path}?limit=2{next}")).await.ok();
        told.extend(page["items"].as_array().unwrap().clone());
        let Some(place) = page["next"].as_str() else { break };
        next = format!("&before={place}");
    }
    assert_eq!(told, all);
    let after = format!("{path}?after={}", all[2]["place"].as_str().unwrap());
    let mut later = items(&ann, &after).await;
    later.reverse();
    assert_eq!(later, all[..2]);
}

#[tokio::test]
async fn chats_are_their_users_alone_and_what_is_wrong_is_named() {
    let running = Running::start().await;
    let (ann, id, hook) = device(&running).await;
    let ben = running.login("ben").await;
    hook.calls("M1", "how much?", 1).await;
    let chats = items(&ann, &format!("/api/devices/{id}/chats")).await;
    let chat = chats[0]["id"].as_str().unwrap();
    let of = |chat: &str| format!("/api/devices/{id}/messages/{chat}");
    for user in [&ben, &running.anybody()] {
        let expected = if user.get("/api/devices").await.status == StatusCode::OK {
            StatusCode::NOT_FOUND
        } else {
            StatusCode::UNAUTHORIZED
        };
        assert_eq!(user.get(&format!("/api/devices/{id}/chats")).await.status, expected);
        for name in [chat, PHONE] {
            assert_eq!(user.get(&of(name)).await.status, expected);
            assert_eq!(
                user.post(&format!("{}/read", of(name)), json!({})).await.status,
                expected
            );
            assert_eq!(user.post(&of(name), json!({"message": "hi"})).await.status, expected);
        }
    }
    assert_eq!(items(&ann, &format!("/api/devices/{id}/chats")).await[0]["unread"], 1);

    let other = ann
        .post("/api/devices", json!({"name": "S", "platform": "stub"}))
        .await
        .ok();
    let other = other["id"].as_str().unwrap();
    let elsewhere = ann.get(&format!("/api/devices/{other}/messages/{chat}")).await;
    assert_eq!(
        (elsewhere.status, elsewhere.code()),
        (StatusCode::NOT_FOUND, "NOT_FOUND")
    );
    assert_eq!(ann.get(&of("0190000000")).await.status, StatusCode::BAD_REQUEST);
    for (path, field) in [
        (format!("/api/devices/{id}/chats?limit=0"), "limit"),
        (format!("/api/devices/{id}/chats?cursor=x"), "cursor"),
        (format!("{}?limit=1001", of(chat)), "limit"),
        (format!("{}?before=x", of(chat)), "before"),
        (format!("{}?after=5.x", of(chat)), "after"),
        (format!("{}?before=x&after=x", of(chat)), "after"),
        (of("abc"), "chat_id"),
        (of("120363000000000001@g.us"), "chat_id"),
    ] {
        let answer = ann.get(&path).await;
        assert_eq!(
            (answer.status, answer.fields()),
            (StatusCode::BAD_REQUEST, vec![field]),
            "{path}"
        );
    }
    let empty = ann.post(&of(chat), json!({"message": " "})).await;
    assert_eq!(
        (empty.status, empty.fields()),
        (StatusCode::BAD_REQUEST, vec!["message"])
    );
    let nobody = "/00000000-0000-0000-0000-000000000001";
    assert_eq!(
        ann.get(&format!("/api/devices/{id}/messages{nobody}")).await.status,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        ann.get(&format!("/api/devices{nobody}/chats")).await.status,
        StatusCode::NOT_FOUND
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_linked_device_shows_what_people_and_its_own_phone_write() {
    let (linked, server) = Linked::set(1, 1).await;
    let ann = Client::login_at(server.address(), "ann").await;
    let device = linked.devices[0];
    let person = &linked.people[0];
    person.connect().await.unwrap();
    let number = Linked::own_number(0);
    person.send_text(&number, "how much?").await.unwrap();
    let chats = format!("/api/devices/{device}/chats");
    let chat = until("the chat", async || items(&ann, &chats).await.into_iter().next()).await;
    assert_eq!((&chat["unread"], &chat["name"]), (&json!(1), &json!("Orang 0")));
    let path = format!("/api/devices/{device}/messages/{}", chat["id"].as_str().unwrap());
    ann.post(&path, json!({"message": "RM 20"})).await.ok();
    let received = person
        .message_where(Duration::from_secs(60), "the answer", |_| true)
        .await;
    assert_eq!(received.unwrap().text(), Some("RM 20"));
    until("the answer among the messages", async || {
        let messages = items(&ann, &path).await;
        (texts(&messages) == [("engine", "RM 20"), ("person", "how much?")]).then_some(())
    })
    .await;

    let own = linked.whatsapp.person(&number, "Sales").await.unwrap();
    own.connect().await.unwrap();
    own.send_text(person.phone(), "each").await.unwrap();
    until("what the own phone wrote", async || {
        let messages = items(&ann, &path).await;
        (texts(&messages).first() == Some(&("own_phone", "each"))).then_some(())
    })
    .await;
    let unread = items(&ann, &chats).await[0]["unread"].clone();
    assert_eq!(unread, 0, "whoever answers on the phone has read");
    server.kill();
}

also_on_postgres! {
    somebody_writes_and_a_person_reads_and_answers_on_a_screen,
    chats_are_their_users_alone_and_what_is_wrong_is_named,
}
