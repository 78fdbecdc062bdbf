//! The shape of all answers, and the table of routes.

use reqwest::{Method, StatusCode};
use serde_json::json;
use wa_server_example::http::openapi;

use crate::support::{Client, Running, settings};

#[tokio::test]
async fn errors_of_the_router_come_in_the_envelope_too() {
    let running = Running::start().await;
    let anybody = running.anybody();
    let missing = anybody.get("/no/such/path").await;
    assert_eq!((missing.status, missing.code()), (StatusCode::NOT_FOUND, "NOT_FOUND"));
    assert_eq!(missing.body["status"], 404);
    let wrong = Client::send(anybody.request(Method::DELETE, "/api/login")).await;
    assert_eq!(
        (wrong.status, wrong.code()),
        (StatusCode::METHOD_NOT_ALLOWED, "METHOD_NOT_ALLOWED")
    );
    assert!(wrong.headers["allow"].to_str().unwrap().contains("POST"));
}

#[tokio::test]
async fn what_is_no_json_is_refused_and_the_field_is_named() {
    let running = Running::start().await;
    let anybody = running.anybody();
    let send = |body: &'static str| Client::send(anybody.request(Method::POST, "/api/login").body(body));
    for body in ["", "hello", "{\"login\":", "{} {}"] {
        let answer = send(body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::BAD_REQUEST, "BAD_REQUEST"),
            "{body:?}"
        );
    }
    let answer = send(r#"{"login": "ann", "password": 5}"#).await;
    assert_eq!((answer.code(), answer.fields()), ("BAD_REQUEST", vec!["password"]));
    assert!(answer.message().contains("expected a string"), "{}", answer.message());
    assert_eq!(send("[]").await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_of_10_mb_is_refused_in_the_envelope() {
    let running = Running::start().await;
    let big = vec![b' '; 10_000_000];
    let answer = Client::send(running.anybody().request(Method::POST, "/api/login").body(big)).await;
    assert_eq!(
        (answer.status, answer.code()),
        (StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE")
    );
}

#[tokio::test]
async fn every_answer_has_an_id_and_the_headers_that_browsers_need() {
    let running = Running::start().await;
    let anybody = running.anybody();
    let answer = Client::send(
        anybody
            .request(Method::GET, "/health")
            .header("x-request-id", "my-id.1"),
    )
    .await;
    assert_eq!(answer.headers["x-request-id"], "my-id.1");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff");
    assert_eq!(answer.headers["x-frame-options"], "DENY");
    assert!(
        answer.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("default-src 'none'")
    );
    assert!(!answer.headers.contains_key("access-control-allow-origin"));
    let made = anybody.get("/health").await.headers["x-request-id"].clone();
    assert_ne!(made, anybody.get("/health").await.headers["x-request-id"]);
    let odd = anybody
        .request(Method::GET, "/health")
        .header("x-request-id", "a b<script>");
    assert_ne!(Client::send(odd).await.headers["x-request-id"], "a b<script>");
}

#[tokio::test]
async fn other_origins_are_let_in_by_setting_only() {
    let running = Running::with(settings().with("CORS_ORIGINS", "https://app.example.com")).await;
    let anybody = running.anybody();
    let from = |origin: &'static str| Client::send(anybody.request(Method::GET, "/health").header("origin", origin));
    let known = from("https://app.example.com").await;
    assert_eq!(known.headers["access-control-allow-origin"], "https://app.example.com");
    assert!(
        !from("https://evil.example")
            .await
            .headers
            .contains_key("access-control-allow-origin")
    );
}

#[tokio::test]
async fn health_names_version_and_build_and_metrics_are_for_loopback_or_a_token() {
    let running = Running::start().await;
    let anybody = running.anybody();
    let health = anybody.get("/health").await.ok();
    assert_eq!(
        (&health["status"], &health["version"]),
        (&json!("ok"), &json!(env!("CARGO_PKG_VERSION")))
    );
    assert!(health["build"].is_string());
    assert_eq!(anybody.get("/ready").await.status, StatusCode::OK);
    let metrics = anybody.get("/metrics").await;
    assert_eq!(metrics.status, StatusCode::OK);
    for name in [
        "wa_http_requests_total",
        "wa_outbox_messages",
        "wa_build_info",
        "wa_uptime_seconds",
    ] {
        assert!(metrics.text.contains(name), "{name}: {}", metrics.text);
    }

    let running = Running::with(settings().with("METRICS_TOKEN", "scrape-me")).await;
    let anybody = running.anybody();
    assert_eq!(anybody.get("/metrics").await.status, StatusCode::FORBIDDEN);
    let bearer = anybody.request(Method::GET, "/metrics").bearer_auth("scrape-me");
    assert_eq!(Client::send(bearer).await.status, StatusCode::OK);
}

/// A path of the table with something in place of its parameters.
pub fn filled(path: &str) -> String {
    path.split('/')
        .map(|segment| match segment {
            "{token}" => "no-such-token",
            "{kind}" => "inbound",
            segment if segment.starts_with('{') => "00000000-0000-7000-8000-000000000001",
            segment => segment,
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[tokio::test]
async fn every_route_of_the_document_exists_and_asks_for_a_login_unless_it_is_public() {
    let running = Running::start().await;
    let anybody = running.anybody();
    let document = anybody.get("/api/openapi.json").await;
    assert_eq!(document.status, StatusCode::OK);
    let operations = openapi::operations();
    assert_eq!(document.body["paths"].as_object().unwrap().len(), {
        let mut paths: Vec<_> = operations.iter().map(|(_, path)| path).collect();
        paths.dedup();
        paths.len()
    });
    for (method, path) in &operations {
        let request = anybody.request(method.parse().unwrap(), &filled(path)).json(&json!({}));
        let answer = Client::send(request).await;
        if openapi::PUBLIC.contains(&(*method, path.as_str())) {
            assert!(
                answer.status != StatusCode::METHOD_NOT_ALLOWED && answer.message() != "there is no such path",
                "{method} {path}: {}",
                answer.text
            );
        } else {
            assert_eq!(
                answer.status,
                StatusCode::UNAUTHORIZED,
                "{method} {path}: {}",
                answer.text
            );
        }
    }
    for (method, path) in openapi::PUBLIC {
        assert!(
            operations.iter().any(|one| *one == (method, path.to_owned())),
            "{method} {path} does not exist"
        );
    }
}

#[tokio::test]
async fn the_page_of_the_document_needs_nothing_from_elsewhere() {
    let running = Running::start().await;
    let page = running.anybody().get("/api/docs").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(!page.text.contains("http://") && !page.text.contains("https://") && !page.text.contains("src="));
    assert!(
        page.headers["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("script-src 'sha256-")
    );
}

#[tokio::test]
async fn no_fixed_path_is_taken_for_an_id() {
    let running = Running::start().await;
    let boss = running.basic("boss");
    let mut tried = 0;
    for (method, path) in openapi::operations() {
        let beside_an_id = |other: &String| {
            let mut pairs = path.split('/').zip(other.split('/'));
            other.split('/').count() == path.split('/').count()
                && pairs.all(|(own, its)| own == its || its.starts_with('{'))
        };
        let shadowed = openapi::operations()
            .iter()
            .any(|(_, other)| *other != path && beside_an_id(other));
        if path.contains('{') || !shadowed {
            continue;
        }
        let answer = boss.call(method.parse().unwrap(), &path, json!({})).await;
        assert_ne!(answer.message(), "there is nothing of this id", "{method} {path}");
        assert_ne!(answer.status, StatusCode::NOT_FOUND, "{method} {path}: {}", answer.text);
        tried += 1;
    }
    assert!(tried >= 4, "only {tried} fixed paths lie beside an id");
}
