//! Virtual time: it stands still while anything is ready to run, and jumps to the next timer when nothing is.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use async_trait::async_trait;

use crate::time::{Clock, Monotonic, Timestamp};

/// True time of a simulation, and everybody who sleeps in it.
///
/// All clocks of a simulation read it; none of them shows it as it is.
#[derive(Debug, Default)]
pub struct Timeline {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    now: Duration,
    sleepers: BTreeMap<(Duration, u64), Waker>,
    next_key: u64,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("now", &self.now)
            .field("sleepers", &self.sleepers.len())
            .finish()
    }
}

impl Timeline {
    /// A simulation at its start.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.state().now
    }

    /// When the next sleeper wakes.
    #[must_use]
    pub fn next_at(&self) -> Option<Duration> {
        self.state().sleepers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Jumps to the next timer and wakes everybody who is due then; `false` when nobody sleeps.
    pub fn advance(&self) -> bool {
        let mut state = self.state();
        let Some((at, _)) = state.sleepers.first_key_value().map(|(key, _)| *key) else {
            return false;
        };
        let now = state.now.max(at);
        state.now = now;
        let later = state.sleepers.split_off(&(now + Duration::from_nanos(1), 0));
        let due = std::mem::replace(&mut state.sleepers, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
        true
    }

    /// Jumps to an instant before the next timer.
    pub(crate) fn jump_to(&self, at: Duration) {
        let mut state = self.state();
        state.now = state.now.max(at);
    }

    /// Waits until true time is `until`.
    pub fn sleep_until(self: &Arc<Self>, until: Duration) -> Sleep {
        Sleep {
            timeline: Arc::clone(self),
            until,
            key: None,
        }
    }

    /// Waits for a while of true time.
    pub fn sleep(self: &Arc<Self>, span: Duration) -> Sleep {
        self.sleep_until(self.now() + span)
    }
}

/// Waits for an instant of a [`Timeline`]; dropped, it leaves nothing behind.
#[derive(Debug)]
#[must_use = "a wait does nothing unless it is awaited"]
pub struct Sleep {
    timeline: Arc<Timeline>,
    until: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let timeline = Arc::clone(&self.timeline);
        let mut state = timeline.state();
        if state.now >= self.until {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or((self.until, state.next_key));
        if self.key.is_none() {
            state.next_key += 1;
            self.key = Some(key);
        }
        state.sleepers.insert(key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.timeline.state().sleepers.remove(&key);
        }
    }
}

/// The clock of one process: its wall clock may be wrong and may jump, its monotonic clock starts anywhere.
#[derive(Debug)]
pub struct VirtualClock {
    timeline: Arc<Timeline>,
    start: Timestamp,
    wall_shift_ms: Arc<AtomicI64>,
    monotonic_start: Duration,
}

impl VirtualClock {
    /// A clock that shows `start` at the start of the simulation.
    #[must_use]
    pub fn new(timeline: Arc<Timeline>, start: Timestamp) -> Self {
        Self {
            timeline,
            start,
            wall_shift_ms: Arc::default(),
            monotonic_start: Duration::ZERO,
        }
    }

    /// The monotonic clock shows this at the start of the simulation.
    #[must_use]
    pub fn with_monotonic_start(mut self, start: Duration) -> Self {
        self.monotonic_start = start;
        self
    }

    /// How far the wall clock is ahead, in milliseconds; whoever holds it can make the wall clock jump.
    #[must_use]
    pub fn with_wall_shift(mut self, shift_ms: Arc<AtomicI64>) -> Self {
        self.wall_shift_ms = shift_ms;
        self
    }
}

#[async_trait]
impl Clock for VirtualClock {
    fn wall(&self) -> Timestamp {
        let right = self.start + self.timeline.now();
        Timestamp::from_millis(right.as_millis() + self.wall_shift_ms.load(Ordering::Relaxed))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic::from_start(self.monotonic_start + self.timeline.now())
    }

    async fn sleep_until(&self, until: Monotonic) {
        let until = until.since_start().saturating_sub(self.monotonic_start);
        self.timeline.sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn time_jumps_to_the_next_sleeper_and_a_dropped_one_is_forgotten() {
        let timeline = Timeline::new();
        let clock = VirtualClock::new(Arc::clone(&timeline), Timestamp::from_millis(1_000))
            .with_monotonic_start(Duration::from_secs(7));
        let mut early = Box::pin(timeline.sleep(Duration::from_secs(1)));
        let mut late = Box::pin(clock.sleep_until(Monotonic::from_start(Duration::from_secs(10))));
        assert!(early.as_mut().now_or_never().is_none() && late.as_mut().now_or_never().is_none());
        drop(early);
        assert!(timeline.advance());
        assert_eq!(timeline.now(), Duration::from_secs(3));
        assert_eq!(clock.wall(), Timestamp::from_millis(4_000));
        assert!(late.now_or_never().is_some());
        assert!(!timeline.advance());
    }

    #[test]
    fn a_jump_of_the_wall_clock_leaves_the_monotonic_clock_alone() {
        let shift = Arc::new(AtomicI64::new(0));
        let clock = VirtualClock::new(Timeline::new(), Timestamp::from_millis(0)).with_wall_shift(Arc::clone(&shift));
        shift.store(3_600_000, Ordering::Relaxed);
        assert_eq!(clock.wall(), Timestamp::from_millis(3_600_000));
        assert_eq!(clock.monotonic(), Monotonic::default());
    }
}
