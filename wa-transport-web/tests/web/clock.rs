//! A clock that a test may move on.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use wa_core::time::{Clock, Monotonic, SystemClock, Timestamp};

/// The machine's clock, which a test may move on.
#[derive(Debug, Default)]
pub struct MovedClock {
    clock: SystemClock,
    moved_ms: AtomicU64,
}

impl MovedClock {
    fn moved(&self) -> Duration {
        Duration::from_millis(self.moved_ms.load(Ordering::SeqCst))
    }

    pub fn advance(&self, span: Duration) {
        let ms = u64::try_from(span.as_millis()).unwrap();
        self.moved_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

#[async_trait]
impl Clock for MovedClock {
    fn wall(&self) -> Timestamp {
        self.clock.wall() + self.moved()
    }

    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic() + self.moved()
    }

    async fn sleep_until(&self, until: Monotonic) {
        let left = until.since(self.monotonic());
        self.clock.sleep_until(self.clock.monotonic() + left).await;
    }
}
