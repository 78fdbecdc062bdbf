//! Transports that are broken on purpose: the suite must catch each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;

use super::{Behaviour, DocumentedRefusal, TransportFixture, cases, run};
use crate::domain::platform::Platform;
use crate::id::{AttemptId, DeviceId, UserId};
use crate::transport::{
    Capabilities, InvalidDevice, MaybeSentCause, NotSentKind, OutgoingMessage, SendContext, SendError, SendReceipt,
    StubTransport, Transport, TransportDevice, TransportMessageId,
};

const TRIES_TWICE: u8 = 1;
const SWALLOWS_REFUSALS: u8 = 2;
const CALLS_DOUBT_NOT_SENT: u8 = 3;
const COUNTS_MESSAGE_IDS: u8 = 4;
const CLAIMS_TO_RECONCILE: u8 = 5;
const SENDS_WHILE_CHECKING: u8 = 6;
const REPEATS_THE_TEXT: u8 = 7;
const NEVER_RETURNS: u8 = 8;

#[derive(Debug)]
struct Broken<const FAULT: u8> {
    stub: StubTransport,
    ids: AtomicU64,
}

#[async_trait]
impl<const FAULT: u8> Transport for Broken<FAULT> {
    fn platform(&self) -> Platform {
        Platform::STUB
    }

    fn capabilities(&self) -> &Capabilities {
        self.stub.capabilities()
    }

    fn check_device(&self, _device: &TransportDevice) -> Result<(), InvalidDevice> {
        if FAULT == SENDS_WHILE_CHECKING {
            self.ids.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn message_id(&self, attempt: AttemptId) -> TransportMessageId {
        if FAULT == COUNTS_MESSAGE_IDS {
            let id = self.ids.fetch_add(1, Ordering::Relaxed).to_string();
            return TransportMessageId::new(id).expect("a short id");
        }
        TransportMessageId::from_attempt(attempt)
    }

    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        if FAULT == NEVER_RETURNS {
            std::future::pending::<()>().await;
        }
        let result = self.stub.send(context, message).await;
        match (FAULT, result) {
            (TRIES_TWICE, Err(_)) => self.stub.send(context, message).await,
            (SWALLOWS_REFUSALS, Err(_)) => Ok(SendReceipt::default()),
            (CALLS_DOUBT_NOT_SENT, Err(SendError::MaybeSent(doubt))) => {
                Err(SendError::not_sent(NotSentKind::Unavailable, doubt.detail))
            }
            (REPEATS_THE_TEXT, Err(_)) => Err(SendError::not_sent(NotSentKind::Rejected, message.text.clone())),
            (_, result) => result,
        }
    }
}

#[async_trait]
impl<const FAULT: u8> TransportFixture for Broken<FAULT> {
    async fn start() -> Self {
        let mut capabilities = Capabilities::text(100);
        capabilities.reconcile = FAULT == CLAIMS_TO_RECONCILE;
        Self {
            stub: StubTransport::new().with_capabilities(capabilities),
            ids: AtomicU64::new(0),
        }
    }

    fn transport(&self) -> &dyn Transport {
        self
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
        vec![DocumentedRefusal {
            name: "rejected",
            kind: NotSentKind::Rejected,
        }]
    }

    fn supports(&self, behaviour: Behaviour) -> bool {
        matches!(
            behaviour,
            Behaviour::Accept
                | Behaviour::Refuse(_)
                | Behaviour::RefuseEchoing
                | Behaviour::ServerError
                | Behaviour::Hang
        )
    }

    fn script(&self, behaviour: Behaviour) {
        match behaviour {
            Behaviour::Accept => {}
            Behaviour::Hang => self
                .stub
                .answer_next(Err(SendError::maybe_sent(MaybeSentCause::Timeout, "hung"))),
            Behaviour::ServerError => self
                .stub
                .answer_next(Err(SendError::maybe_sent(MaybeSentCause::ServerError, "503"))),
            _ => self
                .stub
                .answer_next(Err(SendError::not_sent(NotSentKind::Rejected, "rejected"))),
        }
    }

    fn requests(&self) -> usize {
        let checks = if FAULT == SENDS_WHILE_CHECKING {
            self.ids.load(Ordering::Relaxed)
        } else {
            0
        };
        self.stub.sent().len() + usize::try_from(checks).expect("few checks")
    }

    async fn arrived(&self, _count: usize) {}

    async fn given_up(&self) {}
}

macro_rules! caught {
    ($($name:ident: $fault:ident by $case:ident;)+) => {$(
        #[test]
        fn $name() {
            let fails = catch_unwind(AssertUnwindSafe(|| run(cases::$case::<Broken<$fault>>())));
            assert!(fails.is_err(), "the suite did not catch it");
            run(cases::$case::<Broken<0>>());
        }
    )+};
}

caught! {
    a_transport_that_tries_twice_is_caught: TRIES_TWICE by every_documented_refusal_is_not_sent_after_one_request;
    a_transport_that_swallows_refusals_is_caught: SWALLOWS_REFUSALS by every_documented_refusal_is_not_sent_after_one_request;
    a_transport_that_calls_doubt_not_sent_is_caught: CALLS_DOUBT_NOT_SENT by a_server_error_without_a_reason_is_in_doubt;
    a_transport_that_counts_message_ids_is_caught: COUNTS_MESSAGE_IDS by the_message_id_is_a_function_of_the_attempt_alone;
    a_transport_that_claims_to_reconcile_is_caught: CLAIMS_TO_RECONCILE by capabilities_agree_with_the_faces_and_with_themselves;
    a_transport_that_sends_while_checking_is_caught: SENDS_WHILE_CHECKING by devices_that_can_work_are_told_from_those_that_cannot;
    a_transport_that_repeats_the_text_is_caught: REPEATS_THE_TEXT by nothing_secret_is_shown;
    a_transport_that_never_returns_is_caught: NEVER_RETURNS by a_hanging_vendor_is_in_doubt_within_the_timeout;
}
