//! Receipts of one connection on their way to the store.
//!
//! The client acknowledges a receipt as soon as it has told of it, and WhatsApp tells what was acknowledged never again. So
//! whatever the client writes after a receipt waits until the receipt is stored: a process that dies in between is told once more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use whatsapp_rust::anyhow;
use whatsapp_rust::transport::Transport;
use whatsapp_rust::wacore::stats::TransportResourceReport;

use crate::news::News;

/// How long a connection waits for the store; a connection that writes nothing for long is taken for dead at both ends.
const HOLD_MAX: Duration = Duration::from_secs(5);

/// How many receipts of one connection were told, and how many of these are stored.
#[derive(Debug)]
pub(crate) struct Receipts {
    told: Mutex<u64>,
    /// `None` when the connection is given up.
    stored: watch::Sender<Option<u64>>,
    /// The store was too slow: nothing waits for it until it has caught up.
    overdue: AtomicBool,
}

impl Default for Receipts {
    fn default() -> Self {
        Self {
            told: Mutex::new(0),
            stored: watch::Sender::new(Some(0)),
            overdue: AtomicBool::new(false),
        }
    }
}

impl Receipts {
    fn told(&self) -> u64 {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Passes a receipt on; false when there is no room.
    pub(crate) fn tell(&self, news: &mpsc::Sender<News>, receipt: News) -> bool {
        // Under the lock, so that they are counted in the order in which they are learned.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = news.try_send(receipt).is_ok();
        *told += u64::from(taken);
        taken
    }

    /// The first so many that were told are stored.
    pub(crate) fn stored(&self, count: u64) {
        self.stored.send_if_modified(|stored| match stored {
            Some(before) if *before < count => {
                *before = count;
                true
            }
            _ => false,
        });
        if count >= self.told() {
            self.overdue.store(false, Ordering::Relaxed);
        }
    }

    /// Nothing is written any more.
    pub(crate) fn give_up(&self) {
        self.stored.send_replace(None);
    }

    /// Waits until all that were told by now are stored; false when nothing may be written any more.
    async fn settled(&self) -> bool {
        let told = self.told();
        let mut stored = self.stored.subscribe();
        let reached = |stored: &Option<u64>| stored.is_none_or(|stored| stored >= told);
        if !self.overdue.load(Ordering::Relaxed)
            && tokio::time::timeout(HOLD_MAX, stored.wait_for(reached)).await.is_err()
        {
            self.overdue.store(true, Ordering::Relaxed);
            tracing::warn!("receipts are acknowledged before they are stored: the store is slow");
        }
        self.stored.borrow().is_some()
    }
}

/// A connection that writes nothing while receipts are on their way to the store.
pub(crate) struct Held {
    pub(crate) inner: Arc<dyn Transport>,
    pub(crate) receipts: Arc<Receipts>,
}

#[async_trait]
impl Transport for Held {
    async fn send(&self, data: whatsapp_rust::bytes::Bytes) -> Result<(), anyhow::Error> {
        if !self.receipts.settled().await {
            return Err(anyhow::anyhow!("the connection was given up"));
        }
        self.inner.send(data).await
    }

    async fn disconnect(&self) {
        self.inner.disconnect().await;
    }

    fn resource_report(&self) -> Option<TransportResourceReport> {
        self.inner.resource_report()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use wa_core::domain::delivery::Delivery;
    use wa_core::time::Timestamp;
    use whatsapp_rust::Jid;

    use super::*;

    fn receipt() -> News {
        News::Receipt {
            from: Jid::pn("60120000001"),
            ids: vec!["3EB0".to_owned()],
            delivery: Delivery::Read,
            at: Timestamp::from_millis(0),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_written_before_the_receipts_that_came_first_are_stored() {
        let (tell, _news) = mpsc::channel(2);
        let receipts = Receipts::default();
        assert!(receipts.settled().await);
        assert!(receipts.tell(&tell, receipt()) && receipts.tell(&tell, receipt()));
        assert!(
            !receipts.tell(&tell, receipt()),
            "one for which there is no room is not waited for"
        );
        let mut writing = Box::pin(receipts.settled());
        assert!((&mut writing).now_or_never().is_none());
        receipts.stored(1);
        assert!((&mut writing).now_or_never().is_none());
        receipts.stored(2);
        assert!(writing.await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_does_not_answer_holds_a_connection_up_once_and_not_for_every_write() {
        let (tell, _news) = mpsc::channel(9);
        let receipts = Receipts::default();
        receipts.tell(&tell, receipt());
        let start = tokio::time::Instant::now();
        for _ in 0..10 {
            assert!(receipts.settled().await);
        }
        assert_eq!(start.elapsed(), HOLD_MAX);
        receipts.stored(1);
        receipts.tell(&tell, receipt());
        assert!(
            receipts.settled().now_or_never().is_none(),
            "it has caught up and is waited for again"
        );
    }

    #[tokio::test]
    async fn a_connection_that_is_given_up_writes_nothing_more() {
        let (tell, _news) = mpsc::channel(1);
        let receipts = Receipts::default();
        receipts.tell(&tell, receipt());
        let mut writing = Box::pin(receipts.settled());
        assert!((&mut writing).now_or_never().is_none());
        receipts.give_up();
        assert!(!writing.await);
    }
}
