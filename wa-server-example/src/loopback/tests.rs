use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::post;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;

const TOKEN: &str = "tok.secret";

fn fast(vendor: Vendor) -> GatewayScript {
    GatewayScript::new(vendor, 7)
        .latency(Latency::between(0, 1))
        .devices([GatewayDevice::new(TOKEN, "SER1", "60190000001")])
}

async fn wablas_send(gateway: &RunningGateway, number: &str, ref_id: &str) -> reqwest::Result<reqwest::Response> {
    http_client()
        .post(format!("{}/api/send-message", gateway.base_url()))
        .header("Authorization", TOKEN)
        .form(&[
            ("phone", number),
            ("message", "Hi"),
            ("ref_id", ref_id),
            ("retry", "false"),
        ])
        .timeout(Duration::from_millis(500))
        .send()
        .await
}

async fn report(gateway: &RunningGateway, ref_id: &str) -> Value {
    let url = format!("{}/api/report/message?ref_id={ref_id}", gateway.base_url());
    let response = http_client().get(url).header("Authorization", TOKEN).send().await;
    response.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn wablas_records_a_message_and_reports_it_by_our_id_after_its_lag() {
    let mut script = fast(Vendor::Wablas);
    script.report_lag_ms = 3_600_000;
    let gateway = LoopbackGateway::start(script.clone()).await.unwrap();
    let answer: Value = wablas_send(&gateway, "60123456789", "r1")
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["status"], true);
    assert_eq!(answer["data"]["messages"][0]["ref_id"], "r1");
    let recorded = gateway.messages();
    assert_eq!((recorded.len(), recorded[0].text.as_str()), (1, "Hi"));
    assert_eq!(report(&gateway, "r1").await["totalData"], 0);
    script.report_lag_ms = 0;
    gateway.set_script(script);
    let found = report(&gateway, "r1").await;
    assert_eq!(found["message"][0]["phone"]["to"], "60123456789");
    assert_eq!(report(&gateway, "r2").await["totalData"], 0);
}

#[tokio::test]
async fn wablas_refuses_a_wrong_token_with_its_misleading_500() {
    let gateway = LoopbackGateway::start(fast(Vendor::Wablas)).await.unwrap();
    let url = format!("{}/api/device/info?token=other", gateway.base_url());
    let response = http_client().get(url).send().await.unwrap();
    assert_eq!(response.status(), 500);
    assert!(
        response
            .text()
            .await
            .unwrap()
            .contains("token invalid or device expired")
    );
    assert_eq!(gateway.counts().unauthorized, 1);
}

#[tokio::test]
async fn each_fault_looks_as_it_is_named_and_only_a_cut_after_recording_leaves_a_message() {
    for fault in Fault::ALL {
        let mut faults = FaultShares::NONE;
        let share = match fault {
            Fault::Refused => &mut faults.refused,
            Fault::ServerError => &mut faults.server_error,
            Fault::TooMany => &mut faults.too_many,
            Fault::Hang => &mut faults.hang,
            Fault::CutBefore => &mut faults.cut_before,
            Fault::CutAfter => &mut faults.cut_after,
        };
        *share = 1_000;
        let gateway = LoopbackGateway::start(fast(Vendor::Wablas).faults(faults))
            .await
            .unwrap();
        let answer = wablas_send(&gateway, "60123456789", "r").await;
        match (fault, answer) {
            (Fault::Refused, Ok(answer)) => {
                assert_eq!(answer.json::<Value>().await.unwrap()["status"], false);
            }
            (Fault::ServerError, Ok(answer)) => assert_eq!(answer.status(), 502),
            (Fault::TooMany, Ok(answer)) => assert_eq!(answer.headers()["retry-after"], "1"),
            (Fault::Hang, Err(error)) => assert!(error.is_timeout()),
            (Fault::CutBefore | Fault::CutAfter, Err(error)) => assert!(!error.is_timeout(), "{error:?}"),
            (fault, answer) => panic!("{fault:?}: {answer:?}"),
        }
        assert_eq!(
            gateway.messages().len(),
            usize::from(fault == Fault::CutAfter),
            "{fault:?}"
        );
        assert_eq!(gateway.counts().faults[&fault], 1);
    }
}

#[tokio::test]
async fn a_message_is_recorded_although_its_sender_hangs_up_during_the_latency() {
    let script = fast(Vendor::Wablas).latency(Latency::between(700, 700));
    let gateway = LoopbackGateway::start(script).await.unwrap();
    assert!(
        wablas_send(&gateway, "60123456789", "r")
            .await
            .unwrap_err()
            .is_timeout()
    );
    assert!(gateway.messages().is_empty());
    let url = format!("{}/control/messages", gateway.base_url());
    let recorded = async {
        loop {
            let page: Value = http_client().get(&url).send().await.unwrap().json().await.unwrap();
            if page["next"] == 1 {
                return page;
            }
            tokio::task::yield_now().await;
        }
    };
    let page = tokio::time::timeout(Duration::from_secs(5), recorded).await.unwrap();
    assert_eq!(page["messages"][0]["number"], "60123456789");
}

#[tokio::test]
async fn whacenter_takes_every_form_of_request_and_says_no_with_status_200() {
    let gateway = LoopbackGateway::start(fast(Vendor::Whacenter)).await.unwrap();
    let url = format!("{}/api/send", gateway.base_url());
    let fields = [("device_id", TOKEN), ("number", "60123456789"), ("message", "Hi")];
    let client = http_client();
    let requests = [
        client.get(&url).query(&fields),
        client.post(&url).query(&fields),
        client.post(&url).form(&fields),
        client
            .post(&url)
            .json(&json!({"device_id": TOKEN, "number": "60123456789", "message": "Hi"})),
    ];
    for request in requests {
        let answer: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(answer["message"], "message sent");
        assert!(answer["data"]["id"].is_u64());
    }
    assert_eq!(gateway.messages().len(), 4);
    let refused = client.post(&url).form(&[("device_id", "other")]).send().await.unwrap();
    assert_eq!(refused.status(), 200);
    assert_eq!(
        refused.json::<Value>().await.unwrap(),
        json!({"status": false, "message": "device not connected or not found", "data": []})
    );
}

#[tokio::test]
async fn receipts_and_the_reply_of_a_message_arrive_in_order_at_the_hook() {
    let (heard, mut calls) = mpsc::unbounded_channel();
    let hook =
        Router::new()
            .route(
                "/hook/{kind}",
                post(
                    |State(heard): State<mpsc::UnboundedSender<_>>,
                     Path(kind): Path<String>,
                     body: axum::Json<Value>| async move {
                        heard.send((kind, body.0)).unwrap();
                    },
                ),
            )
            .with_state(heard);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, hook).await });
    let mut script = fast(Vendor::Wablas).receipts(Receipts {
        stop: 1_000,
        ..Receipts::default()
    });
    script.devices[0].hook = Some(url);
    let gateway = LoopbackGateway::start(script).await.unwrap();
    wablas_send(&gateway, "60123456789", "r").await.unwrap();
    let mut next = async || {
        tokio::time::timeout(Duration::from_secs(5), calls.recv())
            .await
            .unwrap()
            .unwrap()
    };
    for status in ["sent", "delivered", "read"] {
        let (kind, body) = next().await;
        assert_eq!((kind.as_str(), &body["status"]), ("tracking", &json!(status)));
        assert_eq!(body["id"], json!(gateway.messages()[0].id));
    }
    let (kind, body) = next().await;
    assert_eq!((kind.as_str(), &body["message"]), ("inbound", &json!("STOP")));
    assert_eq!(body["phone"], "60123456789");
}

#[test]
fn what_is_drawn_depends_on_seed_device_number_and_count_alone() {
    let shares = FaultShares {
        refused: 100,
        cut_after: 200,
        ..FaultShares::NONE
    };
    let script = fast(Vendor::Wablas).latency(Latency::between(5, 500)).faults(shares);
    let draw = |script: &GatewayScript| -> Vec<_> {
        (0..2_000)
            .map(|asked| script.fate("SER1", "60123456789", asked))
            .map(|fate| (fate.latency, fate.fault))
            .collect()
    };
    let first = draw(&script);
    assert_eq!(draw(&script), first);
    let other = GatewayScript { seed: 8, ..script };
    assert_ne!(draw(&other), first);
    let count = |fault| first.iter().filter(|(_, drawn)| *drawn == Some(fault)).count();
    assert!((150..250).contains(&count(Fault::Refused)));
    assert!((330..470).contains(&count(Fault::CutAfter)));
    assert!(
        first
            .iter()
            .all(|(latency, _)| (5..=500).contains(&latency.as_millis()))
    );
}
