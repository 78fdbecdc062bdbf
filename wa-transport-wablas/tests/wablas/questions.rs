//! Look-ups, number checks and probes.

use uuid::Uuid;
use wa_core::conformance::transport::GatewayAnswer;
use wa_core::domain::delivery::Delivery;
use wa_core::id::AttemptId;
use wa_core::time::Timestamp;
use wa_core::transport::{
    NotSentKind, NumberCheck, ReconcileQuery, Reconciled, SendError, Transport, TransportMessageId,
};

use crate::rig::{CREDENTIAL, PROVIDER_ID, Rig, fixture, phone, recorded};

const REF_ID: &str = "01900000-0000-7000-8000-000000000001";

async fn find(rig: &Rig) -> Result<Reconciled, SendError> {
    find_after(rig, 0).await
}

/// Asks so many hours after the attempt, which began at 18:06 in Jakarta.
async fn find_after(rig: &Rig, hours: i64) -> Result<Reconciled, SendError> {
    let attempt_id = AttemptId::from_uuid(Uuid::parse_str(REF_ID).unwrap());
    let query = ReconcileQuery {
        attempt_id,
        transport_message_id: rig.transport.message_id(attempt_id),
        to: phone("+60123456789"),
        attempted_at: Timestamp::from_millis(1_795_000_000_000),
        asked_at: Timestamp::from_millis(1_795_000_000_000 + hours * 3_600_000),
    };
    rig.transport
        .as_reconcilable()
        .unwrap()
        .find(&rig.context(), &query)
        .await
}

fn report(status: &str, ref_id: &str) -> GatewayAnswer {
    let body = fixture("report/200-found.json")
        .replace("STATUS", status)
        .replace("REF_ID", ref_id);
    GatewayAnswer::json(200, body)
}

#[track_caller]
fn assert_not_sent<T: std::fmt::Debug>(result: Result<T, SendError>, kind: &NotSentKind, what: &str) {
    match result {
        Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, *kind, "{what}"),
        other => panic!("{what}: {other:?}"),
    }
}

#[tokio::test]
async fn an_empty_report_of_a_later_day_proves_nothing() {
    let rig = Rig::answering(recorded("report/200-empty.json")).await;
    assert_eq!(find_after(&rig, 5).await.unwrap(), Reconciled::NotFound);
    let rig = Rig::answering(recorded("report/200-empty.json")).await;
    assert_not_sent(
        find_after(&rig, 6).await,
        &NotSentKind::Unavailable,
        "past midnight in Jakarta",
    );
}

#[tokio::test]
async fn a_look_up_asks_by_our_id() {
    let rig = Rig::answering(recorded("report/200-empty.json")).await;
    assert_eq!(find(&rig).await.unwrap(), Reconciled::NotFound);
    let request = rig.request();
    assert_eq!(
        (request.method.as_str(), request.path()),
        ("GET", "/api/report/message")
    );
    assert_eq!(request.field("ref_id").as_deref(), Some(REF_ID));
    assert_eq!(request.header("authorization"), Some(CREDENTIAL));
    assert!(!request.target.contains("token"), "the credential stays out of the URL");
}

#[tokio::test]
async fn a_status_in_the_report_tells_how_far_the_message_came() {
    for (status, delivery) in [
        ("pending", None),
        ("sent", None),
        ("delivered", Some(Delivery::Delivered)),
        ("received", Some(Delivery::Delivered)),
        ("read", Some(Delivery::Read)),
        ("something new", None),
    ] {
        let found = find(&Rig::answering(report(status, REF_ID)).await).await.unwrap();
        let provider_id = TransportMessageId::new(PROVIDER_ID);
        assert_eq!(found, Reconciled::Found { provider_id, delivery }, "{status}");
    }
    for status in ["cancel", "rejected", "reject"] {
        let found = find(&Rig::answering(report(status, REF_ID)).await).await.unwrap();
        assert!(matches!(found, Reconciled::FoundDead { .. }), "{status}: {found:?}");
    }
}

#[tokio::test]
async fn a_message_with_a_live_row_is_not_dead() {
    let body = r#"{"status":true,"totalData":2,"message":[
        {"id":"a","status":"cancel","ref_id":"REF"},{"id":"b","status":"read","ref_id":"REF"}]}"#;
    let rig = Rig::answering(GatewayAnswer::json(200, body.replace("REF", REF_ID))).await;
    let expected = Reconciled::Found {
        provider_id: TransportMessageId::new("b"),
        delivery: Some(Delivery::Read),
    };
    assert_eq!(find(&rig).await.unwrap(), expected);
}

#[tokio::test]
async fn what_is_no_clean_report_never_says_not_found() {
    for (status, body) in [
        (200, r#"{"status":true,"totalData":3,"message":[]}"#),
        (200, r#"{"status":true,"totalData":0}"#),
        (200, r#"{"status":true,"message":"no data"}"#),
        (200, r#"{"status":true,"message":null}"#),
        (200, r#"{"message":[]}"#),
        (200, r#"{"status":false,"message":[]}"#),
        (
            200,
            r#"{"status":true,"message":[],"error":"Report generation limit exceeded"}"#,
        ),
        (200, "[]"),
        (404, r#"{"status":true,"totalData":0,"message":[]}"#),
    ] {
        let rig = Rig::answering(GatewayAnswer::json(status, body)).await;
        assert_not_sent(find(&rig).await, &NotSentKind::Unavailable, body);
    }
    let rig = Rig::answering(recorded("report/429-limit-exceeded.json")).await;
    assert_not_sent(find(&rig).await, &NotSentKind::Unavailable, "limit exceeded");
    for foreign in [
        "",
        "01900000-0000-7000-8000-00000000000",
        &REF_ID.to_uppercase().replace('0', "F"),
    ] {
        let rig = Rig::answering(report("sent", foreign)).await;
        assert_not_sent(find(&rig).await, &NotSentKind::Unavailable, foreign);
    }
}

#[tokio::test]
async fn a_look_up_with_a_bad_token_says_so() {
    let rig = Rig::answering(recorded("refused/500-token-invalid.json")).await;
    assert_not_sent(find(&rig).await, &NotSentKind::Unauthenticated, "token invalid");
}

async fn check(rig: &Rig, phones: &[&str]) -> Result<Vec<NumberCheck>, SendError> {
    let phones: Vec<_> = phones.iter().map(|text| phone(text)).collect();
    rig.transport
        .as_number_checker()
        .unwrap()
        .check(&rig.context(), &phones)
        .await
}

#[tokio::test]
async fn numbers_are_checked_in_one_request() {
    let rig = Rig::answering(recorded("numbers/200-online-and-offline.json")).await;
    let checks = check(&rig, &["+60198765432", "+60123456789"]).await.unwrap();
    let seen: Vec<_> = checks
        .iter()
        .map(|check| (check.phone.as_e164(), check.on_whatsapp))
        .collect();
    assert_eq!(seen, [("+60198765432", false), ("+60123456789", true)]);
    let request = rig.request();
    assert_eq!(
        (request.method.as_str(), request.path()),
        ("GET", "/check-phone-number")
    );
    assert_eq!(request.field("phones").as_deref(), Some("60198765432,60123456789"));
    assert_eq!(request.header("authorization"), Some(CREDENTIAL));
    assert_eq!(request.header("url"), Some(rig.gateway.base_url().as_str()));
}

#[tokio::test]
async fn a_check_that_leaves_a_number_open_is_none() {
    let rig = Rig::answering(recorded("numbers/200-online-and-offline.json")).await;
    let result = check(&rig, &["+60123456789", "+60122223333"]).await;
    assert_not_sent(result, &NotSentKind::Unavailable, "a number without an answer");
    for body in [
        r#"{"status":"error","data":[{"phone":"60123456789","status":"online"}]}"#,
        r#"{"status":"success","data":[{"phone":"60123456789","status":"checking"}]}"#,
        r#"{"status":"success","data":{}}"#,
        "<html>",
    ] {
        let rig = Rig::answering(GatewayAnswer::json(200, body)).await;
        assert_not_sent(check(&rig, &["+60123456789"]).await, &NotSentKind::Unavailable, body);
    }
}

#[tokio::test]
async fn too_many_numbers_are_refused_and_none_makes_no_request() {
    let rig = Rig::answering(recorded("numbers/200-online-and-offline.json")).await;
    assert_eq!(check(&rig, &[]).await.unwrap(), []);
    let result = check(&rig, &["+60123456789"; wa_transport_wablas::NUMBERS_MAX + 1]).await;
    assert_not_sent(result, &NotSentKind::Rejected, "too many");
    assert!(rig.gateway.requests().is_empty());
}

#[tokio::test]
async fn a_probe_reports_connection_number_and_quota() {
    for (file, connected, quota, detail) in [
        (
            "device/200-connected.json",
            true,
            "91",
            "connected, name Front desk, paid until 2026-12-31",
        ),
        (
            "device/200-disconnected-status-200.json",
            false,
            "unlimited",
            "disconnected, name Front desk, paid until 2022-04-08, not active",
        ),
    ] {
        let rig = Rig::answering(recorded(file)).await;
        let report = rig.transport.as_probe().unwrap().probe(&rig.context()).await.unwrap();
        assert_eq!(report.connected, connected, "{file}");
        assert_eq!(report.phone, Some(phone("+60122223333")), "{file}");
        assert_eq!(report.quota.as_deref(), Some(quota), "{file}");
        assert_eq!(report.detail, detail, "{file}");
        let request = rig.request();
        assert_eq!((request.method.as_str(), request.path()), ("GET", "/api/device/info"));
        assert_eq!(request.field("token").as_deref(), Some(CREDENTIAL));
    }
}

#[tokio::test]
async fn a_probe_with_a_bad_token_says_so() {
    let rig = Rig::answering(recorded("refused/400-token-invalid.json")).await;
    let result = rig.transport.as_probe().unwrap().probe(&rig.context()).await;
    assert_not_sent(result, &NotSentKind::Unauthenticated, "token invalid");
}
