//! I12: with faults off, everything ends in bounded time.

use super::Violation;
use crate::domain::enrolment::EnrolmentState;
use crate::simulation::history::Record;

const NAME: &str = "I12";

/// It ended in time, and every campaign and run through a sequence with it.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    if record.facts.bounded {
        return Vec::new();
    }
    let open = record.rows.iter().filter(|row| row.state.is_open());
    let mut broken: Vec<Violation> = open
        .map(|row| Violation::end(NAME, format!("{row:?} did not end")))
        .collect();
    let running = record.campaigns.iter().filter(|campaign| !campaign.status.has_ended());
    broken.extend(running.map(|campaign| Violation::end(NAME, format!("{campaign:?} did not end"))));
    let open = record.enrolments.iter().filter(|one| one.state == EnrolmentState::Open);
    broken.extend(open.map(|one| Violation::end(NAME, format!("{one:?} did not end"))));
    broken.push(Violation::end(NAME, "it did not end in bounded time"));
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::message::MessageState;
    use crate::simulation::gateway::GatewayKind;

    #[test]
    fn a_run_that_does_not_end_is_found_with_what_holds_it_up() {
        let mut story = Story::of(GatewayKind::Silent);
        story.row(MessageState::Queued);
        assert_holds(&check(&story.record));
        story.record.facts.bounded = false;
        assert_broken(&check(&story.record), 3);
        story.enrolment(EnrolmentState::Open);
        assert_broken(&check(&story.record), 4);
    }
}
