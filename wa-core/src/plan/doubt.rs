//! What is done next about a message in doubt.

use std::time::Duration;

use crate::domain::device::OnDoubt;
use crate::domain::message::{InDoubt, Reason};
use crate::store::Verdict;
use crate::time::Timestamp;
use crate::transport::{DoubtPolicy, MaybeSentCause, Reconciled, SendError};

/// The limits of resolving doubts.
#[derive(Debug, Clone, Copy)]
pub struct DoubtLimits {
    /// How long after an attempt its gateway is asked first.
    pub reconcile_after: Duration,
    /// How long lies between two questions.
    pub reconcile_every: Duration,
    /// How often a gateway must say that it never had the message.
    pub not_found_needed: u8,
    /// After how long it becomes `unknown`.
    pub doubt_max: Duration,
    /// How often it is sent again with the same id.
    pub resend_max: u8,
}

/// The next step about a message in doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DoubtStep {
    /// Too early: look again then.
    Wait(Timestamp),
    /// Ask the gateway.
    Ask,
    /// Send again with the same id and text.
    SendAgain,
    /// Give up.
    GiveUp(Reason),
}

/// The next step about a message in doubt at `now`.
#[must_use]
pub fn doubt_step(
    doubt: &InDoubt,
    attempted_at: Timestamp,
    policy: DoubtPolicy,
    on_doubt: OnDoubt,
    limits: &DoubtLimits,
    now: Timestamp,
) -> DoubtStep {
    if doubt.is_of_other_account() {
        return DoubtStep::GiveUp(Reason::CannotTell);
    }
    match (policy, on_doubt) {
        (DoubtPolicy::Unknown, _) | (DoubtPolicy::ResendSameId, OnDoubt::Unknown) => {
            DoubtStep::GiveUp(Reason::CannotTell)
        }
        (DoubtPolicy::Reconcile, _) => {
            let first_at = attempted_at + limits.reconcile_after;
            if now < first_at {
                DoubtStep::Wait(first_at)
            } else if now.since(doubt.since_at) > limits.doubt_max {
                DoubtStep::GiveUp(Reason::NoAnswer)
            } else {
                DoubtStep::Ask
            }
        }
        (DoubtPolicy::ResendSameId, OnDoubt::Resolve) => {
            if doubt.resend_count >= limits.resend_max {
                DoubtStep::GiveUp(Reason::ResentTooOften)
            } else if now.since(doubt.since_at) > limits.doubt_max {
                DoubtStep::GiveUp(Reason::NoAnswer)
            } else {
                DoubtStep::SendAgain
            }
        }
    }
}

/// What a gateway's answer about a message in doubt means.
#[must_use]
pub fn reconciled(
    answer: Result<Reconciled, SendError>,
    doubt: &InDoubt,
    limits: &DoubtLimits,
    now: Timestamp,
) -> (Verdict, Option<String>) {
    let still = |not_found_count| Verdict::InDoubt {
        cause: doubt.cause.unwrap_or(MaybeSentCause::Interrupted),
        next_check_at: now + limits.reconcile_every,
        not_found_count,
    };
    match answer {
        Ok(Reconciled::Found { provider_id, delivery }) => (Verdict::Sent { provider_id, delivery }, None),
        Ok(Reconciled::FoundDead { detail }) => (
            Verdict::Failed {
                reason: Reason::GatewayGaveUp,
            },
            Some(detail),
        ),
        Ok(Reconciled::NotFound) => {
            let count = doubt.not_found_count.saturating_add(1);
            let verdict = if count >= limits.not_found_needed {
                Verdict::Requeue {
                    reason: Reason::NotFoundAtGateway,
                    due_at: now,
                    counts: false,
                }
            } else {
                still(count)
            };
            (verdict, None)
        }
        Err(error) => (still(doubt.not_found_count), Some(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: DoubtLimits = DoubtLimits {
        reconcile_after: Duration::from_secs(90),
        reconcile_every: Duration::from_secs(60),
        not_found_needed: 2,
        doubt_max: Duration::from_secs(86_400),
        resend_max: 3,
    };

    fn doubt() -> InDoubt {
        let since_at = Timestamp::from_millis(0);
        InDoubt {
            since_at,
            cause: None,
            next_check_at: since_at,
            not_found_count: 0,
            resend_count: 0,
        }
    }

    fn seconds(count: i64) -> Timestamp {
        Timestamp::from_millis(count * 1_000)
    }

    #[test]
    fn a_takeover_does_not_shorten_the_wait_before_the_first_question() {
        let step = |now| {
            doubt_step(
                &doubt(),
                seconds(0),
                DoubtPolicy::Reconcile,
                OnDoubt::Resolve,
                &LIMITS,
                now,
            )
        };
        assert_eq!(step(seconds(10)), DoubtStep::Wait(seconds(90)));
        assert_eq!(step(seconds(90)), DoubtStep::Ask);
        assert_eq!(step(seconds(86_401)), DoubtStep::GiveUp(Reason::NoAnswer));
    }

    #[test]
    fn an_account_that_is_not_the_one_that_sent_is_neither_asked_nor_sent_from() {
        let mut state = doubt();
        state.cause = Some(MaybeSentCause::AccountChanged);
        for policy in [DoubtPolicy::Reconcile, DoubtPolicy::ResendSameId] {
            let step = doubt_step(&state, seconds(0), policy, OnDoubt::Resolve, &LIMITS, seconds(1));
            assert_eq!(step, DoubtStep::GiveUp(Reason::CannotTell), "{policy:?}");
        }
    }

    #[test]
    fn only_the_second_not_found_allows_to_send_again() {
        let mut state = doubt();
        let (verdict, _) = reconciled(Ok(Reconciled::NotFound), &state, &LIMITS, seconds(100));
        assert!(
            matches!(verdict, Verdict::InDoubt { not_found_count: 1, next_check_at, .. } if next_check_at == seconds(160))
        );
        state.not_found_count = 1;
        let (verdict, _) = reconciled(Ok(Reconciled::NotFound), &state, &LIMITS, seconds(160));
        assert!(matches!(
            verdict,
            Verdict::Requeue {
                reason: Reason::NotFoundAtGateway,
                ..
            }
        ));
        let error = SendError::maybe_sent(MaybeSentCause::Timeout, "");
        let (verdict, _) = reconciled(Err(error), &state, &LIMITS, seconds(160));
        assert!(
            matches!(verdict, Verdict::InDoubt { not_found_count: 1, .. }),
            "an unusable answer counts for nothing"
        );
    }

    #[test]
    fn sending_again_with_the_same_id_is_bounded_and_can_be_turned_off() {
        let mut state = doubt();
        let step =
            |state: &InDoubt, on| doubt_step(state, seconds(0), DoubtPolicy::ResendSameId, on, &LIMITS, seconds(1));
        assert_eq!(step(&state, OnDoubt::Resolve), DoubtStep::SendAgain);
        assert_eq!(step(&state, OnDoubt::Unknown), DoubtStep::GiveUp(Reason::CannotTell));
        state.resend_count = 3;
        assert_eq!(
            step(&state, OnDoubt::Resolve),
            DoubtStep::GiveUp(Reason::ResentTooOften)
        );
    }
}
