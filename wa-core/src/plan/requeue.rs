//! Where a message goes that is not being sent: the one rule for inserts, strays, refusals and resumed scopes.

use crate::domain::campaign::CampaignStatus;
use crate::domain::message::{MessageState, Reason};

/// Whether the scope of a message lets it be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeGate {
    /// It may be sent.
    Open,
    /// It waits.
    Paused,
    /// It will not be sent any more.
    Ended,
}

impl From<CampaignStatus> for ScopeGate {
    fn from(status: CampaignStatus) -> Self {
        match status {
            CampaignStatus::Triggered => Self::Open,
            CampaignStatus::Draft | CampaignStatus::Scheduled | CampaignStatus::Paused => Self::Paused,
            CampaignStatus::Completed | CampaignStatus::Failed | CampaignStatus::Cancelled => Self::Ended,
        }
    }
}

/// Where a message goes.
pub type Requeued = (MessageState, Option<Reason>);

/// Where a message goes that is not being sent.
///
/// `suppressed` is whether its person is suppressed and the message carries no override; `device_gone` whether its device
/// is deleted and it cannot go back to a pool.
#[must_use]
pub const fn requeue(gate: ScopeGate, suppressed: Suppressed, device: DeviceGate) -> Requeued {
    match (gate, suppressed, device) {
        (ScopeGate::Ended, _, _) => (MessageState::Cancelled, Some(Reason::ScopeEnded)),
        (_, Suppressed::Yes, _) => (MessageState::Skipped, Some(Reason::Suppressed)),
        (_, _, DeviceGate::Gone) => (MessageState::Skipped, Some(Reason::DeviceGone)),
        (ScopeGate::Paused, _, _) => (MessageState::Held, None),
        (ScopeGate::Open, _, _) => (MessageState::Queued, None),
    }
}

/// Whether a person must not be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suppressed {
    /// They must not.
    Yes,
    /// They may, or the message carries an override.
    No,
}

/// Whether the device of a message still exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceGate {
    /// It exists, or the message waits in a pool.
    Present,
    /// It was deleted.
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ended_scope_wins_over_suppression_and_suppression_over_a_pause() {
        use DeviceGate::{Gone, Present};
        use MessageState::{Cancelled, Held, Queued, Skipped};
        use ScopeGate::{Ended, Open, Paused};
        let rows = [
            (Open, Suppressed::No, Present, Queued),
            (Open, Suppressed::Yes, Present, Skipped),
            (Open, Suppressed::No, Gone, Skipped),
            (Paused, Suppressed::No, Present, Held),
            (Paused, Suppressed::Yes, Present, Skipped),
            (Paused, Suppressed::No, Gone, Skipped),
            (Ended, Suppressed::No, Present, Cancelled),
            (Ended, Suppressed::Yes, Gone, Cancelled),
        ];
        for (gate, suppressed, device, state) in rows {
            assert_eq!(
                requeue(gate, suppressed, device).0,
                state,
                "{gate:?} {suppressed:?} {device:?}"
            );
        }
    }
}
