//! What the tests share: a transport that speaks to a fake gateway, a device and a message.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;
use wa_core::conformance::transport::{Behaviour, GatewayAnswer, GatewayRequest, ScriptedGateway};
use wa_core::domain::phone::Phone;
use wa_core::domain::platform::Platform;
use wa_core::id::{AttemptId, DeviceId, MessageId, UserId};
use wa_core::transport::net::HostPolicy;
use wa_core::transport::{OutgoingMessage, SendContext, SendError, SendReceipt, Transport, TransportDevice};
use wa_transport_whacenter::{HOSTS, Whacenter};

pub const CREDENTIAL: &str = "device-id-placeholder-0001";
pub const TEXT: &str = "Salam Puan Kancil, your parcel waits";

pub fn phone(text: &str) -> Phone {
    Phone::from_e164(text).unwrap()
}

pub fn fixture(path: &str) -> String {
    let file = fixtures().join(path);
    std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

pub fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// The HTTP status that the name of a fixture begins with.
pub fn recorded(path: &str) -> GatewayAnswer {
    let name = path.rsplit('/').next().unwrap();
    GatewayAnswer::json(name[..3].parse().unwrap(), fixture(path))
}

pub fn policy(listed: &str) -> HostPolicy {
    HostPolicy::new(HOSTS).unwrap().with_listed(listed).unwrap()
}

pub fn device(base_url: String) -> TransportDevice {
    TransportDevice {
        id: DeviceId::from_uuid(Uuid::from_u128(7)),
        user_id: UserId::from_uuid(Uuid::from_u128(8)),
        platform: Platform::WHACENTER,
        phone: Some(phone("+60122223333")),
        credential: Some(CREDENTIAL.to_owned().into()),
        base_url: Some(base_url),
    }
}

pub fn message(transport: &Whacenter) -> OutgoingMessage {
    let attempt_id = AttemptId::from_uuid(Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0001));
    OutgoingMessage {
        message_id: MessageId::from_uuid(Uuid::from_u128(9)),
        attempt_id,
        transport_message_id: transport.message_id(attempt_id),
        to: phone("+60123456789"),
        text: TEXT.to_owned(),
        media: None,
    }
}

pub struct Rig {
    pub gateway: ScriptedGateway,
    pub transport: Whacenter,
}

impl Rig {
    /// A gateway that answers every call so.
    pub async fn answering(answer: GatewayAnswer) -> Self {
        Self::with(move |_, _| answer.clone()).await
    }

    pub async fn with(answers: impl Fn(Behaviour, &GatewayRequest) -> GatewayAnswer + Send + Sync + 'static) -> Self {
        let gateway = ScriptedGateway::start(answers).await;
        let transport = Whacenter::builder()
            .host_policy(policy(&gateway.hosts()))
            .build()
            .unwrap();
        Self { gateway, transport }
    }

    pub fn context(&self) -> SendContext {
        SendContext {
            device: Arc::new(device(self.gateway.base_url())),
            timeout: Duration::from_secs(20),
        }
    }

    pub async fn send(&self) -> Result<SendReceipt, SendError> {
        self.transport.send(&self.context(), &message(&self.transport)).await
    }

    /// The only request so far.
    pub fn request(&self) -> GatewayRequest {
        let requests = self.gateway.requests();
        assert_eq!(requests.len(), 1, "one call makes one request");
        requests.into_iter().next().unwrap()
    }
}
