//! Transports that only take time, and media that are never loaded.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use rand::RngExt as _;

use super::options::Latency;
use super::report::LatencySource;
use crate::domain::content::Media;
use crate::domain::platform::Platform;
use crate::id::UserId;
use crate::media::{MediaError, MediaStore};
use crate::seed::ChaCha8Rng;
use crate::simulation::clock::Timeline;
use crate::transport::{
    Capabilities, InvalidDevice, NotSentKind, OutgoingMedia, OutgoingMessage, SendContext, SendError, SendReceipt,
    Transport, TransportDevice,
};

/// Stands for a real transport: the same limits, the time that its gateways take, and the share that they refuse.
pub(super) struct TimedTransport {
    pub(super) platform: Platform,
    pub(super) capabilities: Capabilities,
    pub(super) latency: Latency,
    pub(super) latency_source: LatencySource,
    pub(super) failed_per_mille: u32,
    pub(super) timeline: Arc<Timeline>,
    pub(super) rng: Mutex<ChaCha8Rng>,
}

impl fmt::Debug for TimedTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimedTransport")
            .field("platform", &self.platform)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Transport for TimedTransport {
    fn platform(&self) -> Platform {
        self.platform.clone()
    }

    fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    fn check_device(&self, _device: &TransportDevice) -> Result<(), InvalidDevice> {
        Ok(())
    }

    async fn send(&self, _context: &SendContext, _message: &OutgoingMessage) -> Result<SendReceipt, SendError> {
        let (span, fails) = {
            let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
            let span = self.latency.draw(&mut rng);
            (span, rng.random_range(0..1_000) < self.failed_per_mille)
        };
        self.timeline.sleep(span).await;
        if fails {
            return Err(SendError::not_sent(NotSentKind::Rejected, "assumed"));
        }
        Ok(SendReceipt::default())
    }
}

/// Media as they will be, without their bytes.
#[derive(Debug)]
pub(super) struct UnloadedMedia;

#[async_trait]
impl MediaStore for UnloadedMedia {
    async fn load(&self, _user: UserId, media: &Media) -> Result<OutgoingMedia, MediaError> {
        Ok(OutgoingMedia {
            kind: media.kind,
            mime: media.mime.clone().unwrap_or_default(),
            file_name: media.file_name.clone().unwrap_or_default(),
            url: None,
            bytes: None,
        })
    }
}
