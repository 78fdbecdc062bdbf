//! What the demonstration shows at one moment, and whether it adds up.

use std::time::Duration;

use wa_core::domain::campaign::CampaignStatus;
use wa_core::domain::phone::Phone;
use wa_core::domain::summary::Numbers;

use crate::loopback::{Accepted, GatewayCounts};

/// A text that a gateway recorded, ready for a screen.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    /// The number with its middle hidden.
    pub to: String,
    /// The text in one line.
    pub text: String,
}

impl Shown {
    pub fn of(message: &Accepted) -> Self {
        let phone = Phone::from_e164(&format!("+{}", message.number));
        Self {
            to: phone.map_or_else(|_| "?".to_owned(), |phone| phone.masked()),
            text: message.text.split_whitespace().collect::<Vec<_>>().join(" "),
        }
    }
}

/// What the demonstration shows at one moment.
#[derive(Debug, Clone)]
pub(super) struct Snapshot {
    /// Since the demonstration began.
    pub elapsed: Duration,
    pub status: CampaignStatus,
    /// Whether the audience is still being expanded.
    pub expanding: bool,
    /// The leads that the campaign is for.
    pub leads: u64,
    /// What the tallies say.
    pub numbers: Numbers,
    /// What counting the rows says; read after `numbers`.
    pub counted: Numbers,
    /// What the gateways and WhatsApp recorded; read after `numbers`.
    pub recorded: u64,
    pub faults: u64,
    pub opted_out: u64,
    pub last: Vec<Shown>,
}

impl Snapshot {
    /// Whether the campaign is over.
    pub fn has_ended(&self) -> bool {
        self.status.has_ended()
    }

    /// The one sentence that must be true at every moment, with its figures.
    pub fn sum(&self) -> String {
        sum(&self.numbers)
    }

    /// What does not add up, if anything. Tallies, rows, leads and gateways are four independent counts.
    pub fn problem(&self) -> Option<String> {
        let (should, counted) = (self.numbers.should(), self.counted.should());
        if should > self.leads || counted < should {
            return Some(format!("{should} by tallies, {counted} by rows, {} leads", self.leads));
        }
        if !self.expanding && self.status != CampaignStatus::Scheduled && should != self.leads {
            return Some(format!("{should} messages for {} leads", self.leads));
        }
        if self.numbers.done > self.recorded {
            return Some(format!(
                "{} done, but the other side recorded only {}",
                self.numbers.done, self.recorded
            ));
        }
        if self.has_ended() && (self.numbers.remaining > 0 || same(&self.numbers, &self.counted).is_none()) {
            return Some(format!("ended with {:?}, rows say {:?}", self.numbers, self.counted));
        }
        None
    }
}

/// Numbers as a sum.
pub(super) fn sum(n: &Numbers) -> String {
    format!(
        "should {} = done {} + failed {} + skipped {} + unknown {} + cancelled {} + remaining {}",
        n.should(),
        n.done,
        n.failed,
        n.skipped,
        n.unknown,
        n.cancelled,
        n.remaining
    )
}

/// Equal in all that cannot change any more once everything has ended: receipts still come in.
pub(crate) fn same(one: &Numbers, other: &Numbers) -> Option<()> {
    let fixed = |n: &Numbers| (n.done, n.failed, n.skipped, n.unknown, n.cancelled, n.remaining);
    (fixed(one) == fixed(other)).then_some(())
}

/// All faults of a gateway.
pub(crate) fn faults(counts: &GatewayCounts) -> u64 {
    counts.faults.values().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        let numbers = Numbers {
            done: 6,
            skipped: 1,
            remaining: 3,
            ..Numbers::default()
        };
        Snapshot {
            elapsed: Duration::ZERO,
            status: CampaignStatus::Triggered,
            expanding: false,
            leads: 10,
            numbers,
            counted: numbers,
            recorded: 7,
            faults: 0,
            opted_out: 0,
            last: Vec::new(),
        }
    }

    #[test]
    fn numbers_that_add_up_are_no_problem_and_each_way_not_to_add_up_is_one() {
        assert_eq!(snapshot().problem(), None);
        let wrong = |change: fn(&mut Snapshot)| {
            let mut snapshot = snapshot();
            change(&mut snapshot);
            snapshot.problem().is_some()
        };
        assert!(wrong(|s| s.leads = 9));
        assert!(wrong(|s| s.leads = 11));
        assert!(!wrong(|s| (s.leads, s.expanding) = (11, true)));
        assert!(wrong(|s| s.counted.done = 5));
        assert!(wrong(|s| s.recorded = 5));
        assert!(wrong(|s| s.status = CampaignStatus::Completed));
    }
}
