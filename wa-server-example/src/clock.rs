//! Clocks of a server: one that goes by the clock of a database that several nodes share, and one that is wrong, for tests.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use wa_core::store::StoreError;
use wa_core::time::{Clock, Monotonic, SystemClock, Timestamp};
use wa_store_postgres::PostgresStore;

/// How often the database is asked for the time.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// An answer that took longer tells too little.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How far the machine's clock may be off before it is said.
const OFF_MAX: Duration = Duration::from_secs(5);

/// The machine's clock, with the wall set forward or back.
#[derive(Debug)]
pub(crate) struct MovedClock {
    clock: SystemClock,
    offset_s: i64,
}

impl MovedClock {
    pub(crate) fn new(offset_s: i64) -> Self {
        Self {
            clock: SystemClock::new(),
            offset_s,
        }
    }
}

#[async_trait]
impl Clock for MovedClock {
    fn wall(&self) -> Timestamp {
        let span = Duration::from_secs(self.offset_s.unsigned_abs());
        if self.offset_s < 0 {
            self.clock.wall() - span
        } else {
            self.clock.wall() + span
        }
    }

    fn monotonic(&self) -> Monotonic {
        self.clock.monotonic()
    }

    async fn sleep_until(&self, until: Monotonic) {
        self.clock.sleep_until(until).await;
    }
}

/// Tells the time of a database, so that all nodes on it agree on when something is due: what one of them plans another one sends.
/// Between two answers of the database it goes by the machine's monotonic clock; the machine's wall clock does not matter.
#[derive(Debug)]
pub(crate) struct SharedClock {
    machine: Arc<dyn Clock>,
    told: RwLock<(Timestamp, Monotonic)>,
}

impl SharedClock {
    /// Asks the database once, and then now and again for as long as the clock is in use.
    ///
    /// # Errors
    /// The database does not answer.
    pub(crate) async fn start(store: PostgresStore, machine: Arc<dyn Clock>) -> Result<Arc<Self>, StoreError> {
        let (told, _) = ask(&store, &*machine).await?;
        let off = told.0.since(machine.wall()).max(machine.wall().since(told.0));
        if off > OFF_MAX {
            tracing::warn!(
                off_s = off.as_secs(),
                "the clock of this machine differs from that of the database, which counts"
            );
        }
        let clock = Arc::new(Self {
            machine: Arc::clone(&machine),
            told: RwLock::new(told),
        });
        let kept = Arc::downgrade(&clock);
        tokio::spawn(async move {
            loop {
                machine.sleep_until(machine.monotonic() + ASK_EVERY).await;
                let Some(clock) = kept.upgrade() else { return };
                match ask(&store, &*machine).await {
                    Ok((told, took)) if took <= ANSWER_WITHIN => {
                        *clock.told.write().unwrap_or_else(PoisonError::into_inner) = told;
                    }
                    Ok(_) => {}
                    Err(error) => tracing::debug!(%error, "the database does not tell the time"),
                }
            }
        });
        Ok(clock)
    }
}

/// The time of the database at an instant of this machine, and how long the answer took.
async fn ask(store: &PostgresStore, machine: &dyn Clock) -> Result<((Timestamp, Monotonic), Duration), StoreError> {
    let asked_at = machine.monotonic();
    let told = store.time().await?;
    let took = machine.monotonic().since(asked_at);
    Ok(((told, asked_at + took / 2), took))
}

#[async_trait]
impl Clock for SharedClock {
    fn wall(&self) -> Timestamp {
        let (told, at) = *self.told.read().unwrap_or_else(PoisonError::into_inner);
        let now = self.machine.monotonic();
        told + now.since(at)
    }

    fn monotonic(&self) -> Monotonic {
        self.machine.monotonic()
    }

    async fn sleep_until(&self, until: Monotonic) {
        self.machine.sleep_until(until).await;
    }
}
