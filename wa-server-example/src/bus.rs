//! Hints for screens and numbers, within this process.

use async_trait::async_trait;
use tokio::sync::broadcast;
use wa_core::event::{Event, EventBus};

/// Passes events on to those who listen in this process.
#[derive(Debug, Clone)]
pub struct LocalBus {
    sender: broadcast::Sender<Event>,
}

impl LocalBus {
    /// Most events that wait for one listener; who is slower misses the oldest.
    pub const WAITING_MAX: usize = 4_096;

    /// A bus on which nobody listens yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            sender: broadcast::channel(Self::WAITING_MAX).0,
        }
    }

    /// Listens from now on; the listener keeps to the user it serves.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
}

impl Default for LocalBus {
    fn default() -> Self {
        Self::new()
    }
}

#[async_trait]
impl EventBus for LocalBus {
    async fn publish(&self, events: &[Event]) {
        for event in events {
            // An error only means that nobody listens.
            let _ = self.sender.send(event.clone());
        }
    }
}
