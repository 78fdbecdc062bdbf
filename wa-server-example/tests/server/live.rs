//! What screens are told: live by WebSocket, and page by page.

use std::time::Duration;

use futures::StreamExt as _;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{Client, PASSWORD, Running, settings};

/// How long something that must come may take.
const COME_MAX: Duration = Duration::from_secs(30);

/// A screen with a live connection.
pub struct Screen(WebSocketStream<MaybeTlsStream<TcpStream>>);

/// How a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    code: u16,
    reason: String,
}

impl Screen {
    /// Connects, with more headers.
    async fn try_open(user: &Client, query: &str, headers: &[(&'static str, &str)]) -> Result<Self, (u16, String)> {
        let mut request = user.websocket(&format!("/ws{query}"));
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(Error::Http(answer)) => {
                let body: Value = serde_json::from_slice(answer.body().as_deref().unwrap_or_default()).unwrap();
                assert_eq!(body["status"], answer.status().as_u16());
                Err((answer.status().as_u16(), body["code"].as_str().unwrap().to_owned()))
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Connects, and gives what the first word says.
    pub async fn open(user: &Client, query: &str) -> (Self, Value) {
        let mut screen = Self::try_open(user, query, &[]).await.unwrap();
        let ready = screen.next().await.unwrap();
        assert_eq!(ready["code"], "READY");
        (screen, ready["id"].clone())
    }

    /// What it is told next, or how it ended.
    pub async fn next(&mut self) -> Result<Value, Closed> {
        let told = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(serde_json::from_str(&text).unwrap()),
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return Err(Closed {
                            code: frame.code.into(),
                            reason: frame.reason.to_string(),
                        });
                    }
                    Some(Ok(Message::Ping(_))) => {}
                    other => panic!("{other:?}"),
                }
            }
        };
        tokio::time::timeout(COME_MAX, told).await.expect("it comes")
    }

    /// What it is told next of a kind.
    pub async fn next_of(&mut self, code: &str) -> Value {
        loop {
            let told = self.next().await.unwrap();
            if told["code"] == code {
                return told;
            }
        }
    }
}

/// Opts somebody out, which is an event that is kept; gives the number that it is about.
async fn opt_out(user: &Client, number: u32) {
    let body = json!({"phone": format!("+6012000{number:04}")});
    user.post("/api/suppressions", body).await.ok();
}

async fn kept(user: &Client, query: &str) -> (Vec<Value>, Value) {
    let page = user.get(&format!("/api/events{query}")).await.ok();
    (page["items"].as_array().unwrap().clone(), page["next"].clone())
}

#[tokio::test]
async fn a_screen_is_told_of_its_own_user_live_and_reads_on_where_it_left_off() {
    let running = Running::start().await;
    let (ann, ben) = (running.login("ann").await, running.basic("ben"));
    opt_out(&ann, 1).await;
    let (first, _) = kept(&ann, "").await;
    assert_eq!(first.len(), 1);
    assert_eq!(first[0]["code"], "OPTED_OUT");

    let (mut of_ann, at) = Screen::open(&ann, "").await;
    assert_eq!(at, first[0]["id"], "only what comes from now on");
    let (mut of_ben, at) = Screen::open(&ben, "").await;
    assert_eq!(at, Value::Null, "nothing is kept of this user");
    opt_out(&ann, 2).await;
    let told = of_ann.next().await.unwrap();
    assert_eq!(
        (&told["code"], &told["results"]["reason"]),
        (&json!("OPTED_OUT"), &json!("by_person"))
    );
    drop(of_ann);

    opt_out(&ann, 3).await;
    opt_out(&ann, 4).await;
    let (later, next) = kept(&ann, &format!("?after={}", told["id"].as_str().unwrap())).await;
    assert_eq!(later.len(), 2);
    assert_eq!(next, later[1]["id"]);
    let (mut again, at) = Screen::open(&ann, &format!("?after={}", told["id"].as_str().unwrap())).await;
    assert_eq!(at, told["id"]);
    assert_eq!(
        [again.next().await.unwrap(), again.next().await.unwrap()],
        [later[0].clone(), later[1].clone()]
    );
    let (none, still) = kept(&ann, &format!("?after={}", next.as_str().unwrap())).await;
    assert_eq!(
        (none.len(), still),
        (0, next),
        "there is nothing more, and from there it is read on"
    );

    opt_out(&ben, 5).await;
    let told = of_ben.next().await.unwrap();
    let (of_ben_kept, _) = kept(&ben, "").await;
    assert_eq!([told], *of_ben_kept, "nothing of another user before it");
}

#[tokio::test]
async fn who_may_not_connect_is_told_why() {
    let running = Running::with(settings().with("LIVE_CONNECTIONS_MAX", "2")).await;
    let ann = running.login("ann").await;
    let refused = async |user: &Client, query: &str, headers: &[(&'static str, &str)]| {
        Screen::try_open(user, query, headers).await.err()
    };
    let is = |status: u16, code: &str| Some((status, code.to_owned()));
    assert_eq!(refused(&running.anybody(), "", &[]).await, is(401, "UNAUTHORIZED"));
    assert_eq!(refused(&ann, "?after=7", &[]).await, is(400, "VALIDATION_ERROR"));
    let foreign = [("origin", "https://evil.example")];
    assert_eq!(refused(&ann, "", &foreign).await, is(403, "FORBIDDEN"));
    assert_eq!(refused(&running.basic("ann"), "", &foreign).await, is(403, "FORBIDDEN"));
    let foreign = [("sec-fetch-site", "cross-site")];
    assert_eq!(refused(&ann, "", &foreign).await, is(403, "FORBIDDEN"));
    let plain = ann.get("/ws").await;
    assert_eq!((plain.status, plain.code()), (StatusCode::BAD_REQUEST, "BAD_REQUEST"));
    let bad = ann.get("/api/events?limit=0").await;
    assert_eq!((bad.status, bad.fields()), (StatusCode::BAD_REQUEST, vec!["limit"]));

    let own = format!("http://{}", running.server.address());
    let first = Screen::try_open(&ann, "", &[("origin", &own)]).await.unwrap();
    let (_second, _) = Screen::open(&ann, "").await;
    assert_eq!(refused(&ann, "", &[]).await, is(429, "TOO_MANY_REQUESTS"));
    Screen::open(&running.basic("ben"), "").await;
    drop(first);
    let again = async {
        while refused(&ann, "", &[]).await.is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(COME_MAX, again)
        .await
        .expect("its place is given back");
}

#[tokio::test]
async fn a_connection_ends_with_the_login_the_user_or_the_server() {
    let running = Running::start().await;
    let (ann, ben, boss) = (
        running.login("ann").await,
        running.login("ben").await,
        running.login("boss").await,
    );
    let ended = |reason: &str, code| {
        Err(Closed {
            code,
            reason: reason.to_owned(),
        })
    };
    let (mut other, _) = Screen::open(&running.login("ann").await, "").await;
    let (mut of_ann, _) = Screen::open(&ann, "").await;
    let (mut of_ben, _) = Screen::open(&ben, "").await;
    let (mut of_boss, _) = Screen::open(&boss, "").await;
    ann.post("/api/logout", json!({})).await.ok();
    assert_eq!(of_ann.next().await, ended("the login has ended", 1008));
    let users = boss.get("/api/users").await.ok();
    let of = users["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|user| user["login"] == "ben")
        .unwrap();
    let path = format!("/api/users/{}/deactivate", of["id"].as_str().unwrap());
    boss.call(Method::POST, &path, json!({})).await.ok();
    assert_eq!(of_ben.next().await, ended("the login has ended", 1008));
    opt_out(&running.basic("ann"), 1).await;
    assert_eq!(
        other.next().await.unwrap()["code"],
        "OPTED_OUT",
        "another login of the same user stays"
    );
    running.server.stop().await;
    assert_eq!(of_boss.next().await, ended("the server stops", 1001));
}

#[tokio::test]
async fn a_connection_ends_at_once_with_the_password_it_was_opened_by() {
    let running = Running::start().await;
    let (ann, ben, boss) = (
        running.login("ann").await,
        running.login("ben").await,
        running.login("boss").await,
    );
    let ended = Err(Closed {
        code: 1008,
        reason: "the login has ended".to_owned(),
    });
    let (mut of_ann, _) = Screen::open(&ann, "").await;
    let (mut by_password, _) = Screen::open(&running.basic("ann"), "").await;
    let (mut of_ben, _) = Screen::open(&ben, "").await;
    let (mut of_boss, _) = Screen::open(&boss, "").await;
    let change = json!({"current": PASSWORD, "new": "another password"});
    ann.post("/api/password", change).await.ok();
    assert_eq!(
        [of_ann.next().await, by_password.next().await],
        [ended.clone(), ended.clone()]
    );
    let users = boss.get("/api/users").await.ok();
    let mut of = users["items"].as_array().unwrap().iter();
    let of = of.find(|user| user["login"] == "ben").unwrap();
    let path = format!("/api/users/{}/reset-password", of["id"].as_str().unwrap());
    boss.post(&path, json!({})).await.ok();
    assert_eq!(of_ben.next().await, ended);
    opt_out(&boss, 1).await;
    assert_eq!(of_boss.next().await.unwrap()["code"], "OPTED_OUT", "others stay");
}

also_on_postgres! {
    a_screen_is_told_of_its_own_user_live_and_reads_on_where_it_left_off,
}
