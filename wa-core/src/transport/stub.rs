//! A transport that records and accepts, for tests and first steps.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;

use super::{
    Capabilities, InvalidDevice, NotSentKind, OutgoingMessage, SendContext, SendError, SendReceipt, Transport,
    TransportDevice,
};
use crate::domain::phone::Phone;
use crate::domain::platform::Platform;
use crate::id::{AttemptId, DeviceId, MessageId};

/// A message that a [`StubTransport`] was given.
#[derive(Clone, PartialEq, Eq)]
pub struct Stubbed {
    /// The device that sent it.
    pub device_id: DeviceId,
    /// The row of the outbox.
    pub message_id: MessageId,
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The recipient.
    pub to: Phone,
    /// The text.
    pub text: String,
}

impl fmt::Debug for Stubbed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stubbed")
            .field("device_id", &self.device_id)
            .field("message_id", &self.message_id)
            .field("attempt_id", &self.attempt_id)
            .field("to", &self.to)
            .field("text_len", &self.text.len())
            .finish()
    }
}

/// Records every message and accepts it, unless it was told to answer otherwise or its capabilities exclude the media.
pub struct StubTransport {
    capabilities: Capabilities,
    recording: bool,
    sent: Mutex<Vec<Stubbed>>,
    answers: Mutex<VecDeque<Result<SendReceipt, SendError>>>,
}

impl StubTransport {
    /// A stub that takes texts of up to 65,536 characters.
    #[must_use]
    pub fn new() -> Self {
        Self {
            capabilities: Capabilities::text(65_536),
            recording: true,
            sent: Mutex::default(),
            answers: Mutex::default(),
        }
    }

    /// A stub with these capabilities; of its faces it has none.
    #[must_use]
    pub fn with_capabilities(mut self, capabilities: Capabilities) -> Self {
        self.capabilities = capabilities;
        self
    }

    /// A stub that accepts and keeps nothing, for benchmarks.
    #[must_use]
    pub fn forgetful(mut self) -> Self {
        self.recording = false;
        self
    }

    /// Answers the next send that has no answer yet with this.
    pub fn answer_next(&self, answer: Result<SendReceipt, SendError>) {
        lock(&self.answers).push_back(answer);
    }

    /// What it was given so far.
    #[must_use]
    pub fn sent(&self) -> Vec<Stubbed> {
        lock(&self.sent).clone()
    }
}

impl fmt::Debug for StubTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StubTransport")
            .field("sent", &lock(&self.sent).len())
            .finish_non_exhaustive()
    }
}

impl Default for StubTransport {
    fn default() -> Self {
        Self::new()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[async_trait]
impl Transport for StubTransport {
    fn platform(&self) -> Platform {
        Platform::STUB
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn check_device(&self, _device: &TransportDevice) -> Result<(), InvalidDevice> {
        Ok(())
    }

    async fn send(&self, context: &SendContext, message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        if let Some(media) = &message.media
            && self.capabilities.media(media.kind).is_none()
        {
            return Err(SendError::not_sent(
                NotSentKind::Unsupported,
                "the stub carries no such media",
            ));
        }
        if self.recording {
            lock(&self.sent).push(Stubbed {
                device_id: context.device.id,
                message_id: message.message_id,
                attempt_id: message.attempt_id,
                to: message.to,
                text: message.text.clone(),
            });
        }
        lock(&self.answers)
            .pop_front()
            .unwrap_or_else(|| Ok(SendReceipt::default()))
    }
}
