//! Probes, from the captured answers.

use wa_core::transport::{NotSentKind, SendError, Transport};

use crate::rig::{CREDENTIAL, Rig, phone, recorded};

#[tokio::test]
async fn a_probe_reports_connection_and_number() {
    for (file, connected, detail) in [
        ("device/200-connected.json", true, "connected, name TEST"),
        (
            "device/200-not-connected.json",
            false,
            "not connected, name TEST, its QR code has expired",
        ),
        (
            "device/200-waiting-for-scan.json",
            false,
            "not connected, name TEST, a QR code waits to be scanned",
        ),
    ] {
        let rig = Rig::answering(recorded(file)).await;
        let report = rig.transport.as_probe().unwrap().probe(&rig.context()).await.unwrap();
        assert_eq!(report.connected, connected, "{file}");
        assert_eq!(report.phone, Some(phone("+6281234567890")), "{file}");
        assert_eq!(report.quota, None, "{file}");
        assert_eq!(report.detail, detail, "{file}");
        let request = rig.request();
        assert_eq!((request.method.as_str(), request.path()), ("GET", "/api/statusDevice"));
        assert_eq!(request.field("device_id").as_deref(), Some(CREDENTIAL));
    }
}

#[tokio::test]
async fn a_refused_probe_says_why() {
    for (file, kind) in [
        ("refused/200-device-not-connected.json", NotSentKind::DeviceOffline),
        ("refused/401-invalid-api-key.json", NotSentKind::Unauthenticated),
        ("refused/200-reason-not-documented.json", NotSentKind::Unavailable),
    ] {
        let rig = Rig::answering(recorded(file)).await;
        match rig.transport.as_probe().unwrap().probe(&rig.context()).await {
            Err(SendError::NotSent(refusal)) => assert_eq!(refusal.kind, kind, "{file}"),
            other => panic!("{file}: {other:?}"),
        }
    }
}
