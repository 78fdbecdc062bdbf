//! The gate through which all connections to WhatsApp are opened: so many at once, so many in a second.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use whatsapp_rust::anyhow;
use whatsapp_rust::async_channel::Receiver;
use whatsapp_rust::transport::{Transport, TransportEvent, TransportFactory};

use crate::news::{News, States};
use crate::receipts::{Held, Receipts};

/// How long a connection waits at the gate and takes to open; the client gives up a connection after 20 s.
const WAIT_MAX: Duration = Duration::from_secs(15);

/// How long it waits at most for its turn.
pub(crate) const TURN_WITHIN_MAX: Duration = Duration::from_secs(14);

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
        tokio::time::sleep_until(self.place()).await;
    }

    /// When it is the turn of whoever asks; nobody else gets it.
    pub(crate) fn place(&self) -> Instant {
        self.take(&mut self.next(), Instant::now())
    }

    /// Waits for a turn that comes within `limit`; otherwise says so at once, and leaves the turn to somebody who will be there.
    async fn turn_within(&self, limit: Duration) -> bool {
        let at = {
            let (mut next, now) = (self.next(), Instant::now());
            if next.is_some_and(|next| next > now + limit) {
                return false;
            }
            self.take(&mut next, now)
        };
        tokio::time::sleep_until(at).await;
        true
    }

    fn next(&self) -> MutexGuard<'_, Option<Instant>> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, next: &mut Option<Instant>, now: Instant) -> Instant {
        let at = next.map_or(now, |next| next.max(now));
        *next = Some(at + self.every);
        at
    }
}

/// Opens the connections of one device through a gate.
pub(crate) struct Gated {
    pub(crate) gate: Arc<ConnectGate>,
    pub(crate) inner: Arc<dyn TransportFactory>,
    /// The first connection has waited for its turn already.
    pub(crate) first_is_free: AtomicBool,
    /// How long the others wait for it; where that is longer, the device waits, which has more time.
    pub(crate) turn_within: Duration,
    pub(crate) receipts: Arc<Receipts>,
    /// Who hears that it is not near its turn.
    pub(crate) states: Arc<States>,
}

#[async_trait]
impl TransportFactory for Gated {
    async fn create_transport(&self) -> anyhow::Result<(Arc<dyn Transport>, Receiver<TransportEvent>)> {
        let open = async {
            let is_free = self.first_is_free.swap(false, Ordering::Relaxed);
            if !is_free && !self.gate.turn_within(self.turn_within).await {
                self.states.tell(News::Crowded);
                return Err(crowded());
            }
            let _one = self.gate.at_once.acquire().await?;
            self.inner.create_transport().await
        };
        let (inner, events) = match tokio::time::timeout(WAIT_MAX, open).await {
            Ok(opened) => opened?,
            Err(_) => return Err(crowded()),
        };
        let receipts = Arc::clone(&self.receipts);
        Ok((Arc::new(Held { inner, receipts }), events))
    }
}

fn crowded() -> anyhow::Error {
    anyhow::anyhow!("too many connections are being opened")
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

    #[tokio::test(start_paused = true)]
    async fn who_would_wait_too_long_takes_nobodys_turn() {
        let (gate, limit) = (ConnectGate::new(50, 2), Duration::from_secs(10));
        let start = Instant::now();
        let crowd = (0..100).map(|_| gate.turn_within(limit));
        let opened = futures::future::join_all(crowd).await;
        assert_eq!(opened.iter().filter(|opened| **opened).count(), 21);
        assert_eq!(start.elapsed(), limit);
        // Those who were turned away left no gap.
        assert!(gate.turn_within(Duration::from_secs(1)).await);
        assert_eq!(start.elapsed(), limit + Duration::from_millis(500));
    }
}
