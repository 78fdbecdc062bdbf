//! A transport that is measured.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wa_core::domain::platform::Platform;
use wa_core::id::AttemptId;
use wa_core::time::Clock;
use wa_core::transport::{
    Capabilities, InvalidDevice, Linkable, NumberChecker, OutgoingMessage, Probe, Reconcilable, SendContext, SendError,
    SendReceipt, Transport, TransportDevice, TransportMessageId, Webhook,
};

/// What became of one send, as far as the transport can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendOutcome {
    /// It was accepted.
    Sent,
    /// It certainly was not sent; it may be tried again.
    Failed,
    /// It may have been sent; asking may still tell.
    Unknown,
}

impl SendOutcome {
    /// Its name.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }
}

/// Is told of every send.
pub(crate) trait SendWatch: Send + Sync {
    /// A message is about to be handed over.
    fn begins(&self, _message: &OutgoingMessage) {}

    /// It was, and this came of it.
    fn ended(&self, platform: &Platform, message: &OutgoingMessage, outcome: SendOutcome, took: Duration);
}

/// Passes everything on to another transport and tells of its sends.
pub(crate) struct Metered {
    inner: Arc<dyn Transport>,
    clock: Arc<dyn Clock>,
    watch: Arc<dyn SendWatch>,
}

impl Metered {
    /// A measured transport.
    pub(crate) fn new(inner: Arc<dyn Transport>, clock: Arc<dyn Clock>, watch: Arc<dyn SendWatch>) -> Self {
        Self { inner, clock, watch }
    }
}

impl std::fmt::Debug for Metered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Metered").field(&self.inner).finish()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Transport for Metered {
    fn platform(&self) -> Platform {
        self.inner.platform()
    }

    fn capabilities(&self) -> &Capabilities {
        self.inner.capabilities()
    }

    fn check_device(&self, device: &TransportDevice) -> Result<(), InvalidDevice> {
        self.inner.check_device(device)
    }

    fn message_id(&self, attempt: AttemptId) -> TransportMessageId {
        self.inner.message_id(attempt)
    }

    async fn prepare(&self, context: &SendContext, message: &OutgoingMessage) -> Result<(), SendError> {
        self.inner.prepare(context, message).await
    }

    fn needs_prepare(&self, message: &OutgoingMessage) -> bool {
        self.inner.needs_prepare(message)
    }

    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        self.watch.begins(message);
        let began = self.clock.monotonic();
        let result = self.inner.send(context, message).await;
        let outcome = match &result {
            Ok(_) => SendOutcome::Sent,
            Err(SendError::NotSent(_)) => SendOutcome::Failed,
            Err(SendError::MaybeSent(_)) => SendOutcome::Unknown,
        };
        let took = self.clock.monotonic().since(began);
        self.watch.ended(&self.inner.platform(), message, outcome, took);
        result
    }

    fn as_reconcilable(&self) -> Option<&dyn Reconcilable> {
        self.inner.as_reconcilable()
    }

    fn as_linkable(&self) -> Option<&dyn Linkable> {
        self.inner.as_linkable()
    }

    fn as_webhook(&self) -> Option<&dyn Webhook> {
        self.inner.as_webhook()
    }

    fn as_number_checker(&self) -> Option<&dyn NumberChecker> {
        self.inner.as_number_checker()
    }

    fn as_probe(&self) -> Option<&dyn Probe> {
        self.inner.as_probe()
    }
}
