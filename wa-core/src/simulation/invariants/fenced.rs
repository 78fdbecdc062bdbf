//! I6: a lost epoch has no authority.

use std::collections::{BTreeMap, BTreeSet};

use super::Violation;
use crate::simulation::history::{Record, What};
use crate::store::{Begun, Settled, Verdict};

const NAME: &str = "I6";

/// Only the present owner of a device begins and settles; anybody else's outcome moves a message to what it proves.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut owners = BTreeMap::new();
    let mut fenced = BTreeSet::new();
    for moment in &record.moments {
        let mut wrong = |what: String| broken.push(Violation::at(NAME, moment.at, what));
        match &moment.what {
            What::Claimed(node, device, epoch) => {
                if fenced.contains(node) {
                    wrong(format!("{device} went to a node that is fenced"));
                }
                if let Some((owner, _)) = owners.insert(*device, (*node, *epoch)) {
                    wrong(format!("{device} was taken although {owner} owned it"));
                }
            }
            What::Fenced(node) => {
                fenced.insert(*node);
                owners.retain(|_, (owner, _)| owner != node);
            }
            What::Released(device) => drop(owners.remove(device)),
            What::Begin(begin)
                if begin.answer == Begun::Yes
                    && owners.get(&begin.device_id) != Some(&(begin.incarnation, begin.epoch)) =>
            {
                let what = "was begun by a node that does not own its device";
                wrong(format!("{} {what}", begin.message_id));
            }
            What::Settle(settle) => {
                let owns = owners.get(&settle.device_id) == Some(&(settle.incarnation, settle.epoch));
                let proves = matches!(settle.verdict, Verdict::Sent { .. } | Verdict::Failed { .. });
                match settle.answer {
                    Settled::Yes(_) if !owns => wrong(format!("{} was settled by a stranger", settle.message_id)),
                    Settled::Lost(true) if !proves => {
                        wrong(format!("{} was moved by what proves nothing", settle.message_id));
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::device::Epoch;
    use crate::domain::message::{MessageState, Reason};
    use crate::simulation::gateway::GatewayKind;

    const FAILED: Verdict = Verdict::Failed {
        reason: Reason::Rejected,
    };
    const UNKNOWN: Verdict = Verdict::Unknown {
        reason: Reason::CannotTell,
    };

    #[test]
    fn a_begin_or_settlement_after_the_lease_was_lost_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let message = story.row(MessageState::Sent);
        let attempt = story.attempt();
        story.begin(1.0, message, attempt);
        story.settled(2.0, Epoch(1), UNKNOWN, Settled::Yes(MessageState::Unknown));
        assert_holds(&check(&story.record));
        story.add(3.0, What::Fenced(story.node));
        story.settled(4.0, Epoch(1), FAILED, Settled::Lost(true));
        assert_holds(&check(&story.record));
        story.begin(5.0, message, attempt);
        story.settled(6.0, Epoch(1), FAILED, Settled::Yes(MessageState::Failed));
        story.settled(7.0, Epoch(1), UNKNOWN, Settled::Lost(true));
        assert_broken(&check(&story.record), 3);
    }

    #[test]
    fn a_device_that_is_taken_from_its_owner_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let (node, device) = (story.node, story.device);
        story.add(1.0, What::Released(device));
        story.add(2.0, What::Claimed(node, device, Epoch(3)));
        assert_holds(&check(&story.record));
        story.add(3.0, What::Claimed(node, device, Epoch(4)));
        assert_broken(&check(&story.record), 1);
    }
}
