//! What is counted and timed while a load runs.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use wa_core::id::{AttemptId, MessageId};
use wa_core::time::{Monotonic, Timestamp};

fn open<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Durations of one kind, to three digits, from 1 µs to 30 days.
pub(super) struct Times(Mutex<Histogram<u64>>);

impl Times {
    const MICROS_MAX: u64 = 30 * 24 * 3_600 * 1_000_000;

    fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, Self::MICROS_MAX, 3);
        Self(Mutex::new(
            histogram.expect("the bounds and digits are within the crate's"),
        ))
    }

    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        open(&self.0).saturating_record(micros.clamp(1, Self::MICROS_MAX));
    }

    pub fn summary(&self) -> Summary {
        let histogram = open(&self.0);
        let ms = |micros: u64| {
            if histogram.is_empty() {
                0.0
            } else {
                micros as f64 / 1_000.0
            }
        };
        let at = |quantile| ms(histogram.value_at_quantile(quantile));
        Summary {
            count: histogram.len(),
            p50_ms: at(0.5),
            p95_ms: at(0.95),
            p99_ms: at(0.99),
            max_ms: ms(histogram.max()),
        }
    }
}

/// Durations of one kind, summed up.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Summary {
    /// How many there were.
    pub count: u64,
    /// Half of them took at most so long, in milliseconds.
    pub p50_ms: f64,
    /// 95 of a hundred.
    pub p95_ms: f64,
    /// 99 of a hundred.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

/// How many of something there were, and from when to when.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spell {
    pub count: u64,
    span: Option<(Monotonic, Monotonic)>,
}

impl Spell {
    fn add(&mut self, count: u64, from: Monotonic, until: Monotonic) {
        if count == 0 {
            return;
        }
        self.count += count;
        let (first, last) = self.span.unwrap_or((from, until));
        self.span = Some((first.min(from), last.max(until)));
    }

    /// How many a second, over the time from the first to the last.
    pub fn per_second(&self) -> f64 {
        let took = self.span.map_or(Duration::ZERO, |(first, last)| last.since(first));
        if took.is_zero() {
            return 0.0;
        }
        self.count as f64 / took.as_secs_f64()
    }
}

/// What is counted and timed.
pub(super) struct Gauges {
    /// When messages that were not handed over yet are due.
    due: Mutex<HashMap<MessageId, Timestamp>>,
    /// When gateways answered for attempts that are not settled yet.
    answered: Mutex<HashMap<AttemptId, Monotonic>>,
    enqueued: Mutex<Spell>,
    expanded: Mutex<Spell>,
    sent: Mutex<Spell>,
    /// The same by whole seconds of the clock.
    by_second: Mutex<BTreeMap<u64, u64>>,
    /// From when a message was due until it was handed to its transport, the first time.
    pub late: Times,
    /// How long gateways took for a send.
    pub gateway: Times,
    /// From a gateway's answer until it was durable.
    pub settle_wait: Times,
    /// How long the API took for what people look at.
    pub api: Times,
    /// How long the API took for what comes in bursts.
    pub burst: Times,
}

impl Gauges {
    pub fn new() -> Self {
        Self {
            due: Mutex::default(),
            answered: Mutex::default(),
            enqueued: Mutex::default(),
            expanded: Mutex::default(),
            sent: Mutex::default(),
            by_second: Mutex::default(),
            late: Times::new(),
            gateway: Times::new(),
            settle_wait: Times::new(),
            api: Times::new(),
            burst: Times::new(),
        }
    }

    /// Messages are about to be put into the outbox: they may be handed over before the commit is back.
    pub fn put(&self, messages: impl Iterator<Item = (MessageId, Timestamp)>) {
        open(&self.due).extend(messages);
    }

    /// So many of them were new, and of these so many of campaigns; it took from `began` to `ended`.
    pub fn inserted(&self, all: u64, of_campaigns: u64, began: Monotonic, ended: Monotonic) {
        open(&self.enqueued).add(all, began, ended);
        open(&self.expanded).add(of_campaigns, began, ended);
    }

    pub fn handed_over(&self, message: MessageId, now: Timestamp) {
        if let Some(due_at) = open(&self.due).remove(&message) {
            self.late.record(now.since(due_at));
        }
    }

    pub fn answered(&self, attempt: AttemptId, took: Duration, now: Monotonic) {
        self.gateway.record(took);
        open(&self.answered).insert(attempt, now);
    }

    /// An outcome is durable; `sent` where that is what it says.
    pub fn settled(&self, attempt: AttemptId, sent: bool, now: Monotonic) {
        let answered = open(&self.answered).remove(&attempt);
        if let Some(at) = answered {
            self.settle_wait.record(now.since(at));
        }
        open(&self.sent).add(u64::from(sent), answered.unwrap_or(now), now);
        if sent {
            *open(&self.by_second).entry(now.since_start().as_secs()).or_default() += 1;
        }
    }

    /// Messages that were put into the outbox.
    pub fn enqueued(&self) -> Spell {
        *open(&self.enqueued)
    }

    /// Of these, those of campaigns.
    pub fn expanded(&self) -> Spell {
        *open(&self.expanded)
    }

    /// The most that were settled as sent within one second.
    pub fn sent_best(&self) -> u64 {
        open(&self.by_second).values().max().copied().unwrap_or(0)
    }

    /// Messages that were settled as sent.
    pub fn sent(&self) -> Spell {
        *open(&self.sent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wa_core::id::IdSource;

    fn at(ms: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_millis(ms))
    }

    #[test]
    fn a_hundred_times_are_summed_up_to_three_digits() {
        let times = Times::new();
        assert_eq!(times.summary().max_ms, 0.0);
        for ms in 1..=100 {
            times.record(Duration::from_millis(ms));
        }
        let summary = times.summary();
        assert_eq!(summary.count, 100);
        for (found, expected) in [
            (summary.p50_ms, 50.0),
            (summary.p95_ms, 95.0),
            (summary.p99_ms, 99.0),
            (summary.max_ms, 100.0),
        ] {
            assert!((found - expected).abs() <= expected / 500.0, "{found} for {expected}");
        }
    }

    #[test]
    fn a_message_that_is_handed_over_twice_was_late_once_and_a_rate_counts_from_the_first_to_the_last() {
        let (gauges, ids) = (Gauges::new(), IdSource::seeded([1; 32]));
        let due_at = Timestamp::from_millis(1_000);
        let message = MessageId::new(&ids, due_at);
        gauges.put([(message, due_at)].into_iter());
        gauges.inserted(3, 1, at(0), at(500));
        gauges.inserted(0, 0, at(0), at(9_000));
        gauges.inserted(3, 0, at(1_000), at(2_000));
        assert_eq!((gauges.enqueued().count, gauges.expanded().count), (6, 1));
        assert!((gauges.enqueued().per_second() - 3.0).abs() < 1e-9);
        gauges.handed_over(message, due_at + Duration::from_millis(250));
        gauges.handed_over(message, due_at + Duration::from_millis(9_000));
        let late = gauges.late.summary();
        assert_eq!((late.count, late.max_ms.round()), (1, 250.0));
        let attempt = AttemptId::new(&ids, due_at);
        gauges.answered(attempt, Duration::from_millis(20), at(100));
        gauges.settled(attempt, true, at(130));
        assert_eq!(gauges.settle_wait.summary().max_ms.round(), 30.0);
        assert_eq!((gauges.sent().count, gauges.sent_best()), (1, 1));
    }
}
