//! What the result of a send means for the message and for its lane.

use std::time::Duration;

use crate::domain::device::OnDoubt;
use crate::domain::message::Reason;
use crate::domain::restriction::UNKNOWN_RESTRICTION_FOR;
use crate::domain::warmth::Warmth;
use crate::store::Verdict;
use crate::time::Timestamp;
use crate::transport::{
    Doubt, DoubtPolicy, MaybeSentCause, NotSentKind, Refusal, RestrictionScope, SendError, SendReceipt,
};

/// What happens to the lane after a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneEffect {
    /// The gateway took it: a back-off ends.
    Succeeded,
    /// The slot stays used.
    Used,
    /// Certainly not sent, by the message's own fault: the slot is given back.
    GivenBack,
    /// Certainly not sent, by the lane's fault: the slot is given back and the lane waits.
    BackOff {
        /// How long the gateway asks to wait.
        retry_after: Option<Duration>,
    },
    /// The account is restricted.
    Restricted {
        /// Until when, if known.
        until: Option<Timestamp>,
        /// Which messages it concerns.
        scope: RestrictionScope,
    },
    /// The credential is not accepted: the device is put on hold.
    Unauthenticated,
}

/// What the result of a send means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settlement {
    /// For the message.
    pub verdict: Verdict,
    /// What to tell people.
    pub detail: Option<String>,
    /// For the lane.
    pub lane: LaneEffect,
}

/// What the rule needs to know beside the result.
#[derive(Debug, Clone, Copy)]
pub struct SettlementContext {
    /// What may be done in doubt.
    pub doubt: DoubtPolicy,
    /// What the user wants done in doubt.
    pub on_doubt: OnDoubt,
    /// When the attempt began.
    pub attempted_at: Timestamp,
    /// How long after that the gateway is asked first.
    pub reconcile_after: Duration,
    /// Whether the lane's last message before this one passed: only then a refusal counts against the message.
    pub lane_was_passing: bool,
    /// Whether the device knew the person.
    pub warmth: Warmth,
    /// Now.
    pub now: Timestamp,
}

/// What the result of a send means for message and lane.
#[must_use]
pub fn settlement(result: Result<SendReceipt, SendError>, context: &SettlementContext) -> Settlement {
    match result {
        Ok(SendReceipt { provider_id, .. }) => Settlement {
            verdict: Verdict::Sent {
                provider_id,
                delivery: None,
            },
            detail: None,
            lane: LaneEffect::Succeeded,
        },
        Err(SendError::NotSent(refusal)) => refused(refusal, context),
        Err(SendError::MaybeSent(Doubt { cause, detail })) => Settlement {
            verdict: doubtful(cause, context),
            detail: Some(detail),
            lane: LaneEffect::Used,
        },
    }
}

/// What a maybe-sent message becomes.
#[must_use]
pub fn doubtful(cause: MaybeSentCause, context: &SettlementContext) -> Verdict {
    let next_check_at = match (context.doubt, context.on_doubt) {
        (DoubtPolicy::Reconcile, _) => context.attempted_at + context.reconcile_after,
        (DoubtPolicy::ResendSameId, OnDoubt::Resolve) => context.now,
        (DoubtPolicy::ResendSameId, OnDoubt::Unknown) | (DoubtPolicy::Unknown, _) => {
            return Verdict::Unknown {
                reason: Reason::CannotTell,
            };
        }
    };
    Verdict::InDoubt {
        cause,
        next_check_at,
        not_found_count: 0,
    }
}

fn refused(refusal: Refusal, context: &SettlementContext) -> Settlement {
    let failed = |reason| (Verdict::Failed { reason }, LaneEffect::GivenBack);
    let again = |reason, lane| {
        let counts = context.lane_was_passing;
        (
            Verdict::Requeue {
                reason,
                due_at: context.now,
                counts,
            },
            lane,
        )
    };
    let (verdict, lane) = match refusal.kind {
        NotSentKind::Rejected => failed(Reason::Rejected),
        NotSentKind::InvalidRecipient => failed(Reason::InvalidRecipient),
        NotSentKind::Unsupported => failed(Reason::Unsupported),
        NotSentKind::NotOnWhatsApp => (
            Verdict::Skipped {
                reason: Reason::NotOnWhatsApp,
            },
            LaneEffect::GivenBack,
        ),
        NotSentKind::RateLimited { retry_after } => again(Reason::RateLimited, LaneEffect::BackOff { retry_after }),
        NotSentKind::DeviceOffline => again(Reason::DeviceOffline, LaneEffect::BackOff { retry_after: None }),
        NotSentKind::Unavailable => again(Reason::GatewayUnavailable, LaneEffect::BackOff { retry_after: None }),
        NotSentKind::Restricted { until, scope } => restricted(until, scope, context),
        NotSentKind::Unauthenticated => {
            let requeue = Verdict::Requeue {
                reason: Reason::Unauthenticated,
                due_at: context.now,
                counts: false,
            };
            (requeue, LaneEffect::Unauthenticated)
        }
    };
    Settlement {
        verdict,
        detail: Some(refusal.detail),
        lane,
    }
}

/// A refusal because of a restriction is nobody's fault, and no message fails by it. One that says nothing of its end and came for
/// a message to somebody who knows the device is no restriction at all: it is about that person, and counts.
fn restricted(until: Option<Timestamp>, scope: RestrictionScope, context: &SettlementContext) -> (Verdict, LaneEffect) {
    let of_person = scope == RestrictionScope::Cold && !context.warmth.is_cold();
    let due_at = match (of_person, until) {
        (true, Some(until)) => until.max(context.now),
        (true, None) => context.now + UNKNOWN_RESTRICTION_FOR,
        // Its lane knows when it may go.
        (false, _) => context.now,
    };
    let requeue = Verdict::Requeue {
        reason: Reason::Restricted,
        due_at,
        counts: of_person && until.is_none() && context.lane_was_passing,
    };
    let effect = match (of_person, until) {
        (true, None) => LaneEffect::GivenBack,
        _ => LaneEffect::Restricted { until, scope },
    };
    (requeue, effect)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(doubt: DoubtPolicy, on_doubt: OnDoubt) -> SettlementContext {
        SettlementContext {
            doubt,
            on_doubt,
            attempted_at: Timestamp::from_millis(1_000),
            reconcile_after: Duration::from_secs(90),
            lane_was_passing: true,
            warmth: Warmth::Cold,
            now: Timestamp::from_millis(5_000),
        }
    }

    #[test]
    fn nothing_that_may_have_been_sent_is_queued_again() {
        for doubt in [DoubtPolicy::Reconcile, DoubtPolicy::ResendSameId, DoubtPolicy::Unknown] {
            for on_doubt in [OnDoubt::Resolve, OnDoubt::Unknown] {
                let result = Err(SendError::maybe_sent(MaybeSentCause::Timeout, "no answer"));
                let told = settlement(result, &context(doubt, on_doubt));
                assert!(
                    matches!(told.verdict, Verdict::InDoubt { .. } | Verdict::Unknown { .. }),
                    "{told:?}"
                );
                assert_eq!(told.lane, LaneEffect::Used);
            }
        }
    }

    #[test]
    fn a_restriction_puts_its_message_back_and_blames_it_only_where_the_device_knows_the_person() {
        let told = |warmth, until, scope| {
            let context = SettlementContext {
                warmth,
                ..context(DoubtPolicy::Unknown, OnDoubt::Resolve)
            };
            let refusal = SendError::not_sent(NotSentKind::Restricted { until, scope }, "");
            let told = settlement(Err(refusal), &context);
            let Verdict::Requeue { due_at, counts, .. } = told.verdict else {
                panic!("{told:?}")
            };
            (due_at.as_millis(), counts, told.lane != LaneEffect::GivenBack)
        };
        let later = Some(Timestamp::from_millis(90_000));
        use RestrictionScope::{All, Cold};
        for until in [None, later] {
            assert_eq!(told(Warmth::Cold, until, Cold), (5_000, false, true));
            assert_eq!(told(Warmth::Warm, until, All), (5_000, false, true));
        }
        assert_eq!(told(Warmth::Warm, later, Cold), (90_000, false, true));
        assert_eq!(told(Warmth::Warm, None, Cold), (3_605_000, true, false));
    }

    #[test]
    fn a_gateway_is_asked_no_earlier_than_reconcile_after_the_attempt() {
        let result = Err(SendError::maybe_sent(MaybeSentCause::Timeout, ""));
        let told = settlement(result, &context(DoubtPolicy::Reconcile, OnDoubt::Unknown));
        let Verdict::InDoubt { next_check_at, .. } = told.verdict else {
            panic!("{told:?}")
        };
        assert_eq!(next_check_at, Timestamp::from_millis(91_000));
    }

    #[test]
    fn a_refusal_that_is_the_lanes_fault_gives_the_slot_back_and_makes_it_wait() {
        for kind in [
            NotSentKind::DeviceOffline,
            NotSentKind::Unavailable,
            NotSentKind::RateLimited { retry_after: None },
        ] {
            let told = settlement(
                Err(SendError::not_sent(kind, "")),
                &context(DoubtPolicy::Unknown, OnDoubt::Resolve),
            );
            assert!(matches!(told.verdict, Verdict::Requeue { counts: true, .. }));
            assert_eq!(told.lane, LaneEffect::BackOff { retry_after: None });
        }
        let refusal = SendError::not_sent(NotSentKind::Rejected, "");
        let told = settlement(Err(refusal), &context(DoubtPolicy::Unknown, OnDoubt::Resolve));
        assert_eq!(
            told.verdict,
            Verdict::Failed {
                reason: Reason::Rejected
            }
        );
    }
}
