//! Logging in and out, and what happens without.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{Client, PASSWORD, Running, settings};

#[tokio::test]
async fn a_login_lasts_24_hours_from_its_last_use_and_ends_by_logout() {
    let running = Running::start().await;
    let ann = running.login("ann").await;
    assert_eq!(ann.get("/api/auth/user").await.ok()["login"], "ann");
    running.clock.advance(Duration::from_secs(23 * 3_600));
    assert_eq!(ann.get("/user/info").await.status, StatusCode::OK);
    running.clock.advance(Duration::from_secs(23 * 3_600));
    assert_eq!(ann.get("/user/info").await.status, StatusCode::OK);
    running.clock.advance(Duration::from_secs(24 * 3_600 + 1));
    let answer = ann.get("/user/info").await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::UNAUTHORIZED, "UNAUTHORIZED")
    );

    let ben = running.login("BEN ").await;
    ben.post("/api/logout", json!({})).await.ok();
    assert_eq!(ben.get("/user/info").await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn the_cookie_is_out_of_reach_of_scripts_and_secure_behind_https() {
    let source = settings().with("PUBLIC_BASE_URL", "https://wa.example.com");
    let running = Running::with(source).await;
    let body = json!({"username": "ann", "password": PASSWORD});
    let answer = running.anybody().post("/api/login", body).await;
    let cookie = answer.headers["set-cookie"].to_str().unwrap();
    for part in ["HttpOnly", "SameSite=Lax", "Path=/", "Secure"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!answer.text.contains("hash") && !answer.text.contains(PASSWORD));
}

#[tokio::test]
async fn the_sixth_try_within_15_minutes_is_refused_even_with_the_right_password() {
    let running = Running::start().await;
    let anybody = running.anybody();
    for _ in 0..5 {
        let answer = anybody
            .post("/api/login", json!({"login": "ann", "password": "wrong horse"}))
            .await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.message(), "login or password is wrong");
    }
    let right = json!({"login": "ann", "password": PASSWORD});
    let answer = anybody.post("/api/login", right.clone()).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(
        running.basic("ann").get("/user/info").await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    assert_eq!(
        anybody
            .post("/api/login", json!({"login": "ben", "password": PASSWORD}))
            .await
            .status,
        StatusCode::OK
    );
    running.clock.advance(Duration::from_secs(900));
    assert_eq!(anybody.post("/api/login", right).await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_account_that_does_not_exist_is_told_from_a_wrong_password_by_nothing() {
    let running = Running::start().await;
    let anybody = running.anybody();
    let one = anybody
        .post("/api/login", json!({"login": "ann", "password": "x"}))
        .await;
    let other = anybody
        .post("/api/login", json!({"login": "nobody", "password": "x"}))
        .await;
    assert_eq!((one.status, &one.text), (other.status, &other.text));
}

#[tokio::test]
async fn basic_auth_works_with_the_own_password_alone() {
    let running = Running::start().await;
    for _ in 0..20 {
        assert_eq!(running.basic("ann").get("/user/info").await.ok()["login"], "ann");
    }
    let wrong = running.anybody();
    let request = wrong
        .request(Method::GET, "/user/info")
        .basic_auth("ann", Some("wrong horse"));
    assert_eq!(Client::send(request).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn many_requests_that_come_together_with_the_right_password_are_one_try_and_all_are_let_in() {
    let running = Running::start().await;
    let ann = running.basic("ann");
    let answers = futures::future::join_all((0..12).map(|_| ann.get("/user/info"))).await;
    for answer in answers {
        assert_eq!(answer.ok()["login"], "ann");
    }
    let anybody = running.anybody();
    let wrong = || {
        anybody
            .request(Method::GET, "/user/info")
            .basic_auth("ben", Some("wrong horse"))
    };
    let answers = futures::future::join_all((0..12).map(|_| Client::send(wrong()))).await;
    for answer in answers {
        assert_eq!(
            answer.status,
            StatusCode::UNAUTHORIZED,
            "those that came together are one try"
        );
    }
}

#[tokio::test]
async fn clients_behind_one_address_that_know_their_passwords_do_not_use_up_its_tries() {
    let logins: Vec<_> = (0..52).map(|n| format!("client{n}:{PASSWORD}")).collect();
    let running = Running::with(settings().with("APP_BASIC_AUTH", logins.join(","))).await;
    for n in 0..52 {
        let answer = running.basic(&format!("client{n}")).get("/user/info").await;
        assert_eq!(answer.status, StatusCode::OK, "client {n}");
    }
}

#[tokio::test]
async fn a_page_of_another_site_cannot_act_with_the_cookie_of_its_visitor() {
    let running = Running::start().await;
    let ann = running.login("ann").await;
    let post = || ann.request(Method::POST, "/api/logout");
    let host = running.server.address().to_string();
    let refused = [
        post().header("origin", "https://evil.example"),
        post().header("origin", "null").json(&json!({})),
        post().header("sec-fetch-site", "cross-site").json(&json!({})),
        post()
            .header("content-type", "application/x-www-form-urlencoded")
            .body("a=b"),
        post().header("content-type", "text/plain").body("{}"),
        post()
            .header("content-type", "multipart/form-data; boundary=x")
            .body(""),
    ];
    for (at, request) in refused.into_iter().enumerate() {
        let answer = Client::send(request).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::FORBIDDEN, "FORBIDDEN"),
            "case {at}"
        );
    }
    let own = post().header("origin", format!("http://{host}")).json(&json!({}));
    assert_eq!(Client::send(own).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_log_its_visitor_in_or_register_one() {
    let running = Running::with(settings().with("REGISTRATION", "true")).await;
    let anybody = running.anybody();
    let body = json!({"login": "ann", "password": PASSWORD}).to_string();
    let host = running.server.address().to_string();
    for path in ["/api/login", "/api/auth/login", "/api/register"] {
        let post = || anybody.request(Method::POST, path).body(body.clone());
        let refused = [
            post().header("content-type", "text/plain"),
            post().header("content-type", "application/x-www-form-urlencoded"),
            post()
                .header("origin", "https://evil.example")
                .header("content-type", "application/json"),
            post()
                .header("sec-fetch-site", "cross-site")
                .header("content-type", "text/plain"),
        ];
        for (at, request) in refused.into_iter().enumerate() {
            let answer = Client::send(request).await;
            assert_eq!(answer.code(), "FORBIDDEN", "{path}, case {at}: {}", answer.text);
            assert!(!answer.headers.contains_key("set-cookie"));
        }
    }
    let body = json!({"login": "ann", "password": PASSWORD});
    for request in [
        anybody.request(Method::POST, "/api/login").json(&body),
        anybody
            .request(Method::POST, "/api/login")
            .header("origin", format!("http://{host}"))
            .json(&body),
        anybody.request(Method::POST, "/api/login").body(body.to_string()),
    ] {
        assert_eq!(Client::send(request).await.status, StatusCode::OK);
    }
}

#[tokio::test]
async fn registration_is_off_unless_a_setting_turns_it_on() {
    let body = json!({"email": "New@example.com", "password": "long enough", "name": "New"});
    let running = Running::start().await;
    assert_eq!(
        running.anybody().post("/api/register", body.clone()).await.status,
        StatusCode::FORBIDDEN
    );

    let running = Running::with(settings().with("REGISTRATION", "true")).await;
    let anybody = running.anybody();
    assert_eq!(
        anybody.post("/api/register", body.clone()).await.ok()["login"],
        "new@example.com"
    );
    let again = anybody.post("/api/register", body).await;
    assert_eq!(
        (again.status, again.message()),
        (StatusCode::CONFLICT, "login is taken")
    );
    let bad = anybody
        .post("/api/register", json!({"login": "a b", "password": "short"}))
        .await;
    assert_eq!(
        (bad.code(), bad.fields()),
        ("VALIDATION_ERROR", vec!["login", "password"])
    );
}

also_on_postgres! {
    a_login_lasts_24_hours_from_its_last_use_and_ends_by_logout,
    basic_auth_works_with_the_own_password_alone,
    registration_is_off_unless_a_setting_turns_it_on,
}
