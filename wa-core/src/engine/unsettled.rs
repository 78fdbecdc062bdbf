//! Outcomes on their way to the store: none is lost, and none that the store refuses keeps the others waiting.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::dispatch::Finished;
use crate::store::StoreError;
use crate::time::Monotonic;

/// How long outcomes are left alone after the store did not take them.
const RETRY_AFTER: Duration = Duration::from_millis(200);
/// How long an outcome that the store refuses is left alone at first; twice as long every time after that.
const REFUSED_FOR: Duration = Duration::from_secs(1);
/// How long it is left alone at most.
const REFUSED_FOR_MAX: Duration = Duration::from_secs(60);

/// An outcome that the store refuses although it comes alone.
#[derive(Debug)]
struct Refused {
    outcome: Arc<[Finished]>,
    times: u32,
    again_at: Monotonic,
}

/// What a settlement under way carries.
#[derive(Debug)]
struct UnderWay {
    batch: Arc<[Finished]>,
    /// How often its only outcome was refused.
    times: u32,
}

/// Outcomes that the store has not recorded yet, at most one batch of them on its way.
#[derive(Debug)]
pub(crate) struct Unsettled {
    fresh: Vec<Finished>,
    /// Parts of batches that hold an outcome that the store refuses.
    suspect: VecDeque<Arc<[Finished]>>,
    refused: Vec<Refused>,
    under_way: Option<UnderWay>,
    /// Whether the last settlement failed.
    failing: bool,
    /// Whether it is the turn of what failed before: neither keeps the other waiting.
    turn: bool,
    not_before: Monotonic,
}

impl Unsettled {
    pub(crate) fn new(now: Monotonic) -> Self {
        Self {
            fresh: Vec::new(),
            suspect: VecDeque::new(),
            refused: Vec::new(),
            under_way: None,
            failing: false,
            turn: false,
            not_before: now,
        }
    }

    pub(crate) fn push(&mut self, finished: impl IntoIterator<Item = Finished>) {
        self.fresh.extend(finished);
    }

    /// Whether nothing is left but what the store has refused each time.
    pub(crate) fn is_drained(&self) -> bool {
        let hopeless = self.under_way.as_ref().is_none_or(|one| one.times > 0);
        self.fresh.is_empty() && self.suspect.is_empty() && hopeless
    }

    /// The next batch to settle, of at most so many.
    pub(crate) fn take(&mut self, now: Monotonic, most: usize) -> Option<Arc<[Finished]>> {
        if self.under_way.is_some() || self.not_before > now {
            return None;
        }
        self.turn = !self.turn;
        let next = if self.turn {
            self.take_fresh(most).or_else(|| self.take_failed(now))
        } else {
            self.take_failed(now).or_else(|| self.take_fresh(most))
        }?;
        let batch = Arc::clone(&next.batch);
        self.under_way = Some(next);
        Some(batch)
    }

    fn take_fresh(&mut self, most: usize) -> Option<UnderWay> {
        let count = self.fresh.len().min(most.max(1));
        (count > 0).then(|| UnderWay {
            batch: self.fresh.drain(..count).collect(),
            times: 0,
        })
    }

    fn take_failed(&mut self, now: Monotonic) -> Option<UnderWay> {
        if let Some(batch) = self.suspect.pop_front() {
            return Some(UnderWay { batch, times: 0 });
        }
        let place = self.refused.iter().position(|one| one.again_at <= now)?;
        let Refused { outcome, times, .. } = self.refused.swap_remove(place);
        Some(UnderWay { batch: outcome, times })
    }

    /// All that is not known to be recorded.
    pub(crate) fn all(&self) -> Vec<Finished> {
        let under_way = self.under_way.iter().map(|one| &one.batch);
        let failed = self.suspect.iter().chain(self.refused.iter().map(|one| &one.outcome));
        let batches = under_way.chain(failed).flat_map(|batch| batch.iter());
        batches.chain(&self.fresh).cloned().collect()
    }

    /// When there is next something to settle.
    pub(crate) fn next_at(&self) -> Option<Monotonic> {
        if self.under_way.is_some() {
            return None;
        }
        if !self.fresh.is_empty() || !self.suspect.is_empty() {
            return Some(self.not_before);
        }
        let again_at = self.refused.iter().map(|one| one.again_at).min()?;
        Some(again_at.max(self.not_before))
    }

    /// The batch under way is recorded.
    pub(crate) fn done(&mut self) -> Option<Arc<[Finished]>> {
        self.failing = false;
        self.under_way.take().map(|one| one.batch)
    }

    /// The store did not take the batch under way. What it refuses for good is told apart by halves, so that the others get
    /// through; one that it refuses alone is tried again ever less often.
    pub(crate) fn failed(&mut self, error: &StoreError, now: Monotonic) {
        let Some(UnderWay { batch, times }) = self.under_way.take() else {
            return;
        };
        let silent = error.may_pass();
        // One refusal in a row is what telling apart costs; more of them may be a store that refuses everything.
        if silent || self.failing {
            self.not_before = now + RETRY_AFTER;
        }
        self.failing = true;
        if silent && times > 0 {
            self.refuse(batch, times, now);
        } else if silent {
            self.fresh.extend_from_slice(&batch);
        } else if batch.len() > 1 {
            let (first, second) = batch.split_at(batch.len() / 2);
            self.suspect.push_front(second.into());
            self.suspect.push_front(first.into());
        } else {
            let times = times.saturating_add(1);
            if let Some(one) = batch.first() {
                let (message, attempt) = (one.outcome.message_id, one.outcome.attempt_id);
                tracing::error!(%message, %attempt, times, ?error, "the store refuses the outcome of an attempt");
            }
            self.refuse(batch, times, now);
        }
    }

    fn refuse(&mut self, outcome: Arc<[Finished]>, times: u32, now: Monotonic) {
        let wait = REFUSED_FOR.saturating_mul(1 << times.saturating_sub(1).min(16));
        self.refused.push(Refused {
            outcome,
            times,
            again_at: now + wait.min(REFUSED_FOR_MAX),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::device::Epoch;
    use crate::domain::message::MessageScope;
    use crate::id::{AttemptId, DeviceId, IdSource, MessageId, UserId};
    use crate::plan::LaneEffect;
    use crate::store::{Outcome, StoreErrorKind, Verdict};
    use crate::time::Timestamp;

    fn outcomes(count: usize) -> Vec<Finished> {
        let ids = IdSource::seeded([1; 32]);
        let now = Timestamp::EPOCH;
        let one = || Finished {
            outcome: Outcome {
                user_id: UserId::MIN,
                device_id: DeviceId::new(&ids, now),
                epoch: Epoch(1),
                message_id: MessageId::new(&ids, now),
                attempt_id: AttemptId::new(&ids, now),
                verdict: Verdict::Sent {
                    provider_id: None,
                    delivery: None,
                },
                detail: None,
                advance: None,
            },
            effect: LaneEffect::Succeeded,
            scope: MessageScope::Direct,
            begun_at: Some(now),
            version: 1,
        };
        (0..count).map(|_| one()).collect()
    }

    fn at(millis: u64) -> Monotonic {
        Monotonic::from_start(Duration::from_millis(millis))
    }

    fn error(kind: StoreErrorKind) -> StoreError {
        StoreError::new(kind, "settle", "message")
    }

    /// Settles all there is for a while, with a store that refuses one outcome; gives what it took, and how often it refused
    /// the one alone.
    fn run(unsettled: &mut Unsettled, poison: MessageId, span_ms: u64) -> (Vec<MessageId>, Vec<u64>) {
        let (mut taken, mut refused_at, mut now) = (Vec::new(), Vec::new(), 0);
        while let Some(next) = unsettled.next_at() {
            now = now.max(u64::try_from(next.since_start().as_millis()).unwrap());
            if now > span_ms {
                break;
            }
            let batch = unsettled.take(at(now), 100).expect("it is time");
            let ids: Vec<_> = batch.iter().map(|one| one.outcome.message_id).collect();
            if ids.contains(&poison) {
                if ids.len() == 1 {
                    refused_at.push(now);
                }
                unsettled.failed(&error(StoreErrorKind::Backend), at(now));
            } else {
                taken.extend(ids);
                unsettled.done();
            }
        }
        (taken, refused_at)
    }

    #[test]
    fn an_outcome_that_the_store_refuses_keeps_no_other_waiting() {
        let all = outcomes(250);
        let poison = all[123].outcome.message_id;
        let mut unsettled = Unsettled::new(at(0));
        unsettled.push(all.clone());
        let (mut taken, refused_at) = run(&mut unsettled, poison, 10_000);
        taken.sort_unstable();
        let mut others: Vec<_> = all.iter().map(|one| one.outcome.message_id).collect();
        others.retain(|id| *id != poison);
        others.sort_unstable();
        assert_eq!(taken, others);
        assert!(refused_at.len() >= 3, "it is tried again: {refused_at:?}");
        let gaps: Vec<_> = refused_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted() && gaps[0] >= 1_000, "ever less often: {gaps:?}");
        assert!(unsettled.is_drained(), "it does not keep a node from stopping");
        let later = unsettled.next_at().expect("it is not given up");
        assert_eq!(unsettled.take(later, 100).expect("it is tried again").len(), 1);
        assert!(unsettled.done().is_some());
        assert_eq!(unsettled.next_at(), None);
    }

    #[test]
    fn what_a_silent_store_did_not_take_comes_again_whole() {
        let mut unsettled = Unsettled::new(at(0));
        unsettled.push(outcomes(5));
        for round in 0..3 {
            let now = at(round * 200);
            assert_eq!(unsettled.take(now, 100).expect("it is time").len(), 5);
            assert!(unsettled.take(now, 100).is_none(), "one batch at a time");
            unsettled.failed(&error(StoreErrorKind::Unavailable), now);
            assert!(!unsettled.is_drained());
            assert_eq!(unsettled.next_at(), Some(at(round * 200 + 200)));
        }
    }
}
