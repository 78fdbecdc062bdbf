//! What a forecast assumes, how far it looks, and how it is watched and stopped.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};

use crate::domain::platform::Platform;
use crate::plan::{FieldCode, FieldError};
use crate::seed::ChaCha8Rng;
use crate::time::Timestamp;

/// How long a gateway takes to answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Latency {
    /// Anything from the first to the second, all equally likely.
    Between(Duration, Duration),
    /// One of these, which were measured, all equally likely; at once when there are none.
    Measured(Vec<Duration>),
}

impl Latency {
    /// The shortest, the mean and the longest, in milliseconds.
    pub(super) fn range_ms(&self) -> (u64, u64, u64) {
        let ms = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        match self {
            Self::Between(least, most) => (ms(*least), ms((*least + *most) / 2), ms(*most)),
            Self::Measured(spans) => {
                let least = spans.iter().min().copied().unwrap_or_default();
                let most = spans.iter().max().copied().unwrap_or_default();
                let sum: Duration = spans.iter().sum();
                let count = u32::try_from(spans.len()).unwrap_or(u32::MAX).max(1);
                (ms(least), ms(sum / count), ms(most))
            }
        }
    }

    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Duration {
        match self {
            Self::Between(least, most) => {
                let micros = |span: &Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
                let (least, most) = (micros(least), micros(most));
                Duration::from_micros(rng.random_range(least.min(most)..=most.max(least)))
            }
            Self::Measured(spans) if spans.is_empty() => Duration::ZERO,
            Self::Measured(spans) => spans[rng.random_range(0..spans.len())],
        }
    }
}

impl Default for Latency {
    /// 0.2 to 1 s: a request to a gateway on another continent and its answer.
    fn default() -> Self {
        Self::Between(Duration::from_millis(200), Duration::from_secs(1))
    }
}

/// What a forecast assumes, and how far it looks.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ForecastOptions {
    /// Names the random draws; the same number over the same store gives the same forecast. 1.
    pub seed: u64,
    /// When the campaign starts; `None` for its own date and time, and now where it has none or that has passed. Means nothing
    /// for one that has started, and for a sequence.
    pub start_at: Option<Timestamp>,
    /// Messages in a thousand that gateways refuse for good, 0 to 1,000; 0.
    pub failed_per_mille: u32,
    /// How long the gateways of a platform take, in place of what the engine measured.
    pub latencies: BTreeMap<Platform, Latency>,
    /// How long gateways take of which the engine has measured nothing yet.
    pub latency: Latency,
    /// After how long devices that are offline now come back; `None`: not at all. Devices on hold stay on hold.
    pub offline_for: Option<Duration>,
    /// How far it looks, from the start of the campaign, and for a sequence from now on; 60 days.
    pub horizon: Duration,
    /// Most recipients that are read, queued messages and runs through sequences included; 250,000.
    pub recipients_max: u64,
    /// Most devices of the user; 10,000.
    pub devices_max: u64,
    /// How long it may work by the engine's clock before it tells what it knows by then; 60 s.
    pub work_max: Duration,
}

impl ForecastOptions {
    /// The farthest that can be looked: 400 days.
    pub const HORIZON_LIMIT: Duration = Duration::from_secs(400 * 24 * 3_600);
    /// The most recipients that can be asked for: about 2.5 GB of memory.
    pub const RECIPIENTS_LIMIT: u64 = 1_000_000;

    /// What is wrong with them.
    pub(crate) fn problems(&self) -> Vec<FieldError> {
        let mut problems = Vec::new();
        let mut check = |field: &'static str, right: bool, expected: &'static str| {
            if !right {
                problems.push(FieldError::new(field, FieldCode::OutOfRange, expected));
            }
        };
        check(
            "failed_per_mille",
            self.failed_per_mille <= 1_000,
            "must be at most 1000",
        );
        let horizon = (Duration::from_secs(1)..=Self::HORIZON_LIMIT).contains(&self.horizon);
        check("horizon", horizon, "must be 1 second to 400 days");
        let recipients = (1..=Self::RECIPIENTS_LIMIT).contains(&self.recipients_max);
        check("recipients_max", recipients, "must be 1 to 1000000");
        problems
    }
}

impl Default for ForecastOptions {
    fn default() -> Self {
        Self {
            seed: 1,
            start_at: None,
            failed_per_mille: 0,
            latencies: BTreeMap::new(),
            latency: Latency::default(),
            offline_for: None,
            horizon: Duration::from_secs(60 * 24 * 3_600),
            recipients_max: 250_000,
            devices_max: 10_000,
            work_max: Duration::from_secs(60),
        }
    }
}

/// What a forecast is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForecastPhase {
    /// It reads the store.
    #[default]
    Reading,
    /// The engine works on the virtual clock.
    Running,
    /// It counts what happened.
    Counting,
}

/// How far a forecast is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ForecastProgress {
    /// What it is doing.
    pub phase: ForecastPhase,
    /// Recipients that were read.
    pub read: u64,
    /// Messages that are settled in the simulation, of those that were planned.
    pub settled: u64,
    /// Messages that were planned in the simulation.
    pub planned: u64,
    /// Where the virtual clock stands.
    pub simulated_at: Option<Timestamp>,
}

/// Watches a forecast and stops it; shared with whoever shows its progress.
#[derive(Debug, Default)]
pub struct ForecastControl {
    cancelled: AtomicBool,
    progress: Mutex<ForecastProgress>,
}

impl ForecastControl {
    /// A forecast that nobody watches yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Stops it within milliseconds; it answers that it was cancelled.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// How far it is.
    #[must_use]
    pub fn progress(&self) -> ForecastProgress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub(super) fn tell(&self, change: impl FnOnce(&mut ForecastProgress)) {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
