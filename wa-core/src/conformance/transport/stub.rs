//! The suite run on the stub, as far as a transport without a network can behave.

use std::time::Duration;

use async_trait::async_trait;

use super::{Behaviour, DocumentedRefusal, TransportFixture};
use crate::domain::platform::Platform;
use crate::id::{DeviceId, UserId};
use crate::transport::{
    MaybeSentCause, NotSentKind, RestrictionScope, SendError, StubTransport, Transport, TransportDevice,
};

struct StubFixture(StubTransport);

#[async_trait]
impl TransportFixture for StubFixture {
    async fn start() -> Self {
        Self(StubTransport::new())
    }

    fn transport(&self) -> &dyn Transport {
        &self.0
    }

    fn device(&self) -> TransportDevice {
        TransportDevice {
            id: DeviceId::MIN,
            user_id: UserId::MIN,
            platform: Platform::STUB,
            phone: None,
            credential: None,
            base_url: None,
        }
    }

    fn invalid_devices(&self) -> Vec<(&'static str, TransportDevice)> {
        Vec::new()
    }

    fn refusals(&self) -> Vec<DocumentedRefusal> {
        [
            NotSentKind::Rejected,
            NotSentKind::NotOnWhatsApp,
            NotSentKind::RateLimited {
                retry_after: Some(Duration::from_secs(30)),
            },
            NotSentKind::Restricted {
                until: None,
                scope: RestrictionScope::All,
            },
        ]
        .map(|kind| DocumentedRefusal { name: "as told", kind })
        .to_vec()
    }

    fn supports(&self, behaviour: Behaviour) -> bool {
        matches!(
            behaviour,
            Behaviour::Accept | Behaviour::Refuse(_) | Behaviour::RefuseEchoing | Behaviour::ServerError
        )
    }

    fn script(&self, behaviour: Behaviour) {
        let answer = match behaviour {
            Behaviour::Accept => return,
            Behaviour::Refuse(index) => SendError::not_sent(self.refusals()[index].kind.clone(), "as told"),
            Behaviour::RefuseEchoing => SendError::not_sent(NotSentKind::Rejected, "as told"),
            Behaviour::ServerError => SendError::maybe_sent(MaybeSentCause::ServerError, "as told"),
            other => panic!("a stub cannot do {other:?}"),
        };
        self.0.answer_next(Err(answer));
    }

    fn requests(&self) -> usize {
        self.0.sent().len()
    }

    async fn arrived(&self, _count: usize) {}

    async fn given_up(&self) {}
}

transport_conformance!(StubFixture);
