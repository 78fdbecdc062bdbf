//! The suite that every transport must pass.

use async_trait::async_trait;
use wa_core::conformance::transport::{Behaviour, DocumentedRefusal, GatewayAnswer, GatewayRequest, TransportFixture};
use wa_core::transport::{Transport, TransportDevice};

use crate::rig::{Rig, device, recorded};
use crate::send::REFUSALS;

struct WhacenterFixture(Rig);

fn answer(behaviour: Behaviour, request: &GatewayRequest) -> GatewayAnswer {
    match behaviour {
        Behaviour::Refuse(index) => recorded(REFUSALS[index].0),
        Behaviour::RefuseEchoing => {
            let echo = format!(
                "no: {:?} {:?} {:?}",
                request.field("device_id"),
                request.field("number"),
                request.field("message"),
            );
            GatewayAnswer::json(400, serde_json::json!({"status": false, "message": echo}).to_string())
        }
        _ => recorded("send/200-message-sent.json"),
    }
}

#[async_trait]
impl TransportFixture for WhacenterFixture {
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
            credential(Some("id with blanks")),
            credential(Some("id\r\nX-Evil: 1")),
            credential(Some("déviceplaceholder")),
            credential(Some(&"x".repeat(513))),
            base_url(Some("")),
            base_url(Some("api.whacenter.com")),
            base_url(Some("http://api.whacenter.com")),
            base_url(Some("https://whacenter.com.evil.example")),
            base_url(Some("https://127.0.0.1:1")),
            base_url(Some("https://api.whacenter.com?device_id=x")),
            base_url(Some("https://api.whacenter.com#x")),
            base_url(Some(&format!("https://api.whacenter.com/{}", "x".repeat(2048)))),
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

wa_core::transport_conformance!(WhacenterFixture);
