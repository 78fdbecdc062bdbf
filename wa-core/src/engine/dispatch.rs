//! One attempt on its way: a future that always ends in an outcome.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Either, select};

use super::core::Core;
use super::flow::FlowNext;
use super::node::Engine;
use crate::domain::device::OnDoubt;
use crate::domain::message::{MessageScope, Reason};
use crate::domain::warmth::Warmth;
use crate::id::{DeviceId, UserId};
use crate::plan::{LaneEffect, SettlementContext, settlement};
use crate::store::{Outcome, Verdict};
use crate::time::{Monotonic, Timestamp};
use crate::transport::{DoubtPolicy, MaybeSentCause, OutgoingMessage, SendContext, SendError, SendReceipt, Transport};

/// What a transport is given on top of its own limit, in case that it does not keep it.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// What is known after an attempt, on its way to the store.
#[derive(Debug, Clone)]
pub struct Finished {
    /// For the message.
    pub outcome: Outcome,
    /// For the lane.
    pub effect: LaneEffect,
    /// What the message belongs to.
    pub scope: MessageScope,
    /// The slot that the attempt uses, in anchored time; `None` for an answer about a message in doubt, which holds no lane.
    pub begun_at: Option<Timestamp>,
    /// The version of the device's settings, credential included, that were used.
    pub version: i64,
}

impl Finished {
    /// What it proves when its lease is lost: that the message was sent, or certainly not. It has no say about its lane then,
    /// which may be another one by now.
    pub(crate) fn as_evidence(&self) -> Option<Self> {
        let proves = matches!(self.outcome.verdict, Verdict::Sent { .. } | Verdict::Failed { .. });
        proves.then(|| Self {
            effect: LaneEffect::Used,
            begun_at: None,
            ..self.clone()
        })
    }
}

/// What a dispatch carries.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    pub(crate) epoch: crate::domain::device::Epoch,
    pub(crate) scope: MessageScope,
    /// Of a flow: where its enrolment may go afterwards.
    pub(crate) flow: Option<FlowNext>,
    pub(crate) host: Arc<str>,
    pub(crate) context: SendContext,
    pub(crate) message: OutgoingMessage,
    /// The version of the settings that the context comes from.
    pub(crate) version: i64,
    pub(crate) doubt: DoubtPolicy,
    pub(crate) on_doubt: OnDoubt,
    pub(crate) lane_was_passing: bool,
    /// Why the message is in doubt, when it is sent again with the same id.
    pub(crate) in_doubt_for: Option<MaybeSentCause>,
    /// When the begin was asked for.
    pub(crate) asked_at: Monotonic,
    /// The slot, in anchored time.
    pub(crate) begun_at: Timestamp,
    /// The attempt's start on the wall clock, as stored.
    pub(crate) attempted_at: Timestamp,
    /// Whether the device knew the person; taken for no where nobody asked.
    pub(crate) warmth: Warmth,
}

impl Ticket {
    fn finish(&self, core: &Core, result: Result<SendReceipt, SendError>) -> Finished {
        let told = settlement(
            result,
            &SettlementContext {
                doubt: self.doubt,
                on_doubt: self.on_doubt,
                attempted_at: self.attempted_at,
                reconcile_after: core.config.reconcile_after,
                lane_was_passing: self.lane_was_passing,
                warmth: self.warmth,
                now: core.now(),
            },
        );
        self.finished(core, told.verdict, told.detail, told.lane)
    }

    fn never_handed_over(&self, core: &Core) -> Finished {
        let verdict = Verdict::Requeue {
            reason: Reason::NeverHandedOver,
            due_at: core.now(),
            counts: false,
        };
        self.finished(core, verdict, None, LaneEffect::GivenBack)
    }

    fn finished(&self, core: &Core, verdict: Verdict, detail: Option<String>, effect: LaneEffect) -> Finished {
        let verdict = match self.in_doubt_for {
            Some(cause) => still_in_doubt(verdict, cause),
            None => verdict,
        };
        let next = self.flow.as_ref();
        let advance = next.and_then(|next| next.advance(&verdict, self.attempted_at, core));
        let outcome = Outcome {
            user_id: self.user_id,
            device_id: self.device_id,
            epoch: self.epoch,
            message_id: self.message.message_id,
            attempt_id: self.message.attempt_id,
            verdict,
            detail,
            advance,
        };
        Finished {
            outcome,
            effect,
            scope: self.scope,
            begun_at: Some(self.begun_at),
            version: self.version,
        }
    }
}

/// What an outcome means for a message that was sent again with the same id: that the repetition was not sent says nothing of
/// the send before it, so the message stays in doubt.
pub(crate) fn still_in_doubt(verdict: Verdict, cause: MaybeSentCause) -> Verdict {
    match verdict {
        Verdict::Requeue { due_at, .. } => Verdict::InDoubt {
            cause,
            next_check_at: due_at,
            not_found_count: 0,
        },
        Verdict::Failed { .. } | Verdict::Skipped { .. } => Verdict::Unknown {
            reason: Reason::CannotTell,
        },
        other => other,
    }
}

/// One begun attempt. Run it at once; dropped before its first poll it counts as not sent, later as maybe sent.
#[derive(Debug)]
#[must_use = "a begun attempt that is not run is handed back"]
pub struct Dispatch {
    engine: Arc<Engine>,
    transport: Arc<dyn Transport>,
    ticket: Option<Ticket>,
    handed_over: bool,
}

impl Dispatch {
    pub(crate) fn new(engine: Arc<Engine>, transport: Arc<dyn Transport>, ticket: Ticket) -> Self {
        Self {
            engine,
            transport,
            ticket: Some(ticket),
            handed_over: false,
        }
    }

    /// Which sends share a limit with it: platform and gateway host.
    #[must_use]
    pub fn host(&self) -> Arc<str> {
        self.ticket
            .as_ref()
            .map(|ticket| Arc::clone(&ticket.host))
            .unwrap_or_default()
    }

    /// Sends the message, unless begin was too long ago or the lease has run out, and tells what is known.
    pub async fn run(mut self) -> Finished {
        let core = Arc::clone(&self.engine.core);
        let ticket = self.ticket.as_ref().expect("a dispatch has its ticket until it ends");
        let now = core.clock.monotonic();
        let late = now.since(ticket.asked_at) > core.config.begin_to_send_max;
        if late || !self.engine.lease_holds(now) {
            let ticket = self.ticket.take().expect("a dispatch has its ticket until it ends");
            return ticket.never_handed_over(&core);
        }
        self.handed_over = true;
        let transport = Arc::clone(&self.transport);
        let result = {
            let send = std::panic::AssertUnwindSafe(transport.send(&ticket.context, &ticket.message)).catch_unwind();
            let limit = now + ticket.context.timeout + GRACE;
            let guarded = LeaseGuard {
                engine: &self.engine,
                inner: Box::pin(send),
            };
            match select(Box::pin(guarded), core.clock.sleep_until(limit)).await {
                Either::Left((Some(Ok(result)), _)) => {
                    if result.is_ok() {
                        let took = core.clock.monotonic().since(now);
                        core.send_times.add(&transport.platform(), took);
                    }
                    result
                }
                Either::Left((Some(Err(_)), _)) => Err(SendError::maybe_sent(
                    MaybeSentCause::Interrupted,
                    "the transport panicked",
                )),
                Either::Left((None, _)) => Err(SendError::maybe_sent(
                    MaybeSentCause::Interrupted,
                    "the lease ran out while sending",
                )),
                Either::Right(_) => Err(SendError::maybe_sent(MaybeSentCause::Timeout, "no answer in time")),
            }
        };
        let ticket = self.ticket.take().expect("a dispatch has its ticket until it ends");
        ticket.finish(&core, result)
    }
}

impl Drop for Dispatch {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let finished = if self.handed_over {
            ticket.finish(
                &self.engine.core,
                Err(SendError::maybe_sent(
                    MaybeSentCause::Interrupted,
                    "dropped while sending",
                )),
            )
        } else {
            ticket.never_handed_over(&self.engine.core)
        };
        self.engine.give_in(finished);
    }
}

/// Checks the lease before every poll of a send; `None` when it has run out.
struct LeaseGuard<'a, F> {
    engine: &'a Engine,
    inner: F,
}

impl<F: Future + Unpin> Future for LeaseGuard<'_, F> {
    type Output = Option<F::Output>;
    fn poll(mut self: std::pin::Pin<&mut Self>, context: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        if !self.engine.lease_holds(self.engine.core.clock.monotonic()) {
            return std::task::Poll::Ready(None);
        }
        self.inner.poll_unpin(context).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_repetition_leaves_the_message_in_doubt_and_is_never_queued_or_failed() {
        let cause = MaybeSentCause::Timeout;
        let due_at = Timestamp::from_millis(7);
        let requeue = Verdict::Requeue {
            reason: Reason::DeviceOffline,
            due_at,
            counts: true,
        };
        assert!(matches!(
            still_in_doubt(requeue, cause),
            Verdict::InDoubt { cause: MaybeSentCause::Timeout, next_check_at, .. } if next_check_at == due_at
        ));
        let reason = Reason::NotOnWhatsApp;
        for refused in [Verdict::Failed { reason }, Verdict::Skipped { reason }] {
            assert!(matches!(still_in_doubt(refused, cause), Verdict::Unknown { .. }));
        }
    }
}
