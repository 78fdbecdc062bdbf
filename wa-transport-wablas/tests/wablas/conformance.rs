//! The suite that every transport must pass.

use async_trait::async_trait;
use wa_core::conformance::transport::{Behaviour, DocumentedRefusal, GatewayAnswer, GatewayRequest, TransportFixture};
use wa_core::transport::{Transport, TransportDevice};

use crate::rig::{Rig, device, fixture, recorded};
use crate::send::REFUSALS;

struct WablasFixture(Rig);

fn answer(behaviour: Behaviour, request: &GatewayRequest) -> GatewayAnswer {
    let report = |status: &str, ref_id: &str| {
        let body = fixture("report/200-found.json")
            .replace("STATUS", status)
            .replace("REF_ID", ref_id);
        GatewayAnswer::json(200, body)
    };
    let asked = request.field("ref_id").unwrap_or_default();
    match behaviour {
        Behaviour::Refuse(index) => recorded(REFUSALS[index].0),
        Behaviour::RefuseEchoing => {
            let echo = format!(
                "format phone invalid: {:?} {:?} {:?}",
                request.header("authorization"),
                request.field("phone"),
                request.field("message"),
            );
            GatewayAnswer::json(400, serde_json::json!({"status": false, "message": echo}).to_string())
        }
        Behaviour::ReportFound => report("sent", &asked),
        Behaviour::ReportDead => report("cancel", &asked),
        Behaviour::ReportForeign => report("sent", "another message"),
        Behaviour::ReportEmpty | Behaviour::ReportEmptyUnderErrorStatus => recorded("report/200-empty.json"),
        _ => recorded("send/200-messages-array.json"),
    }
}

#[async_trait]
impl TransportFixture for WablasFixture {
    async fn start() -> Self {
        Self(Rig::with(answer).await)
    }

    fn transport(&self) -> &dyn Transport {
        &self.0.transport
    }

    fn device(&self) -> TransportDevice {
        device(self.0.gateway.base_url())
    }

    fn invalid_devices(&self) -> Vec<(&'static str, TransportDevice)> {
        let credential = |credential: Option<&str>| {
            let mut device = self.device();
            device.credential = credential.map(|text| text.to_owned().into());
            ("credential", device)
        };
        let base_url = |base_url: Option<&str>| {
            let mut device = self.device();
            device.base_url = base_url.map(str::to_owned);
            ("base_url", device)
        };
        vec![
            credential(None),
            credential(Some("")),
            credential(Some("token with blanks")),
            credential(Some("token\r\nX-Evil: 1")),
            credential(Some("tökenplaceholder")),
            credential(Some(&"x".repeat(513))),
            base_url(None),
            base_url(Some("")),
            base_url(Some("solo.wablas.com")),
            base_url(Some("http://solo.wablas.com")),
            base_url(Some("https://wablas.com.evil.example")),
            base_url(Some("https://127.0.0.1:1")),
            base_url(Some("https://solo.wablas.com?token=x")),
            base_url(Some("https://solo.wablas.com#x")),
            base_url(Some(&format!("https://solo.wablas.com/{}", "x".repeat(2048)))),
        ]
    }

    fn refusals(&self) -> Vec<DocumentedRefusal> {
        REFUSALS
            .iter()
            .map(|(name, kind)| DocumentedRefusal {
                name,
                kind: kind.clone(),
            })
            .collect()
    }

    fn supports(&self, _behaviour: Behaviour) -> bool {
        true
    }

    fn script(&self, behaviour: Behaviour) {
        self.0.gateway.script(behaviour);
    }

    fn requests(&self) -> usize {
        self.0.gateway.requests().len()
    }

    async fn arrived(&self, count: usize) {
        self.0.gateway.arrived(count).await;
    }

    async fn given_up(&self) {
        self.0.gateway.given_up().await;
    }
}

wa_core::transport_conformance!(WablasFixture);
