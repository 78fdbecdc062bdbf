//! The gate through which all connections to WhatsApp are opened: so many at once, so many in a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;
use whatsapp_rust::anyhow;
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::transport::{Transport, TransportEvent, TransportFactory};

use crate::receipts::{Held, Receipts};

/// How long a connection waits at the gate; the client gives up a connection after 20 s.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// Opens so many connections at once and in a second, whatever number of devices wants to.
#[derive(Debug)]
pub struct ConnectGate {
    at_once: Semaphore,
    every: Duration,
    next: Mutex<Option<Instant>>,
}

impl ConnectGate {
    /// A gate for `at_once` connections at once and `per_second` in a second, each at least one.
    #[must_use]
    pub fn new(at_once: usize, per_second: u32) -> Self {
        Self {
            at_once: Semaphore::new(at_once.max(1)),
            every: Duration::from_secs(1) / per_second.max(1),
            next: Mutex::new(None),
        }
    }

    /// Waits until the next connection may be opened.
    pub(crate) async fn turn(&self) {
        let at = {
            let mut next = self.next.lock().await;
            let now = Instant::now();
            let at = next.map_or(now, |next| next.max(now));
            *next = Some(at + self.every);
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

/// Opens the connections of one device through a gate.
pub(crate) struct Gated {
    pub(crate) gate: Arc<ConnectGate>,
    pub(crate) inner: Arc<dyn TransportFactory>,
    /// The first connection has waited for its turn already.
    pub(crate) first_is_free: AtomicBool,
    pub(crate) receipts: Arc<Receipts>,
}

#[async_trait]
impl TransportFactory for Gated {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        let open = async {
            if !self.first_is_free.swap(false, Ordering::Relaxed) {
                self.gate.turn().await;
            }
            let _one = self.gate.at_once.acquire().await?;
            self.inner.create_transport().await
        };
        let (inner, events) = match tokio::time::timeout(WAIT_MAX, open).await {
            Ok(opened) => opened?,
            Err(_) => return Err(anyhow::anyhow!("too many connections are being opened")),
        };
        let receipts = Arc::clone(&self.receipts);
        Ok((Arc::new(Held { inner, receipts }), events))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn connections_that_are_wanted_at_once_are_opened_one_after_the_other() {
        let gate = Arc::new(ConnectGate::new(50, 20));
        let start = Instant::now();
        let mut opened: Vec<Duration> = futures::future::join_all((0..100).map(|_| async {
            gate.turn().await;
            start.elapsed()
        }))
        .await;
        opened.sort_unstable();
        for (second, of_second) in opened.chunks(20).enumerate() {
            let second = Duration::from_secs(second as u64);
            assert!(
                of_second
                    .iter()
                    .all(|at| (second..second + Duration::from_secs(1)).contains(at)),
                "{of_second:?}"
            );
        }
    }
}
