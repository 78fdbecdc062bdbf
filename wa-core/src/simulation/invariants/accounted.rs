//! I2, the other side: what recipients got is what the rows say.

use std::collections::BTreeSet;

use super::Violation;
use crate::domain::message::{MessageState, Reason};
use crate::simulation::history::{Record, What};

const NAME: &str = "I2 (accounts)";

/// A message that was received counts as sent, or as unknown; one that counts as sent was really handed over.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut received = BTreeSet::new();
    let mut called = BTreeSet::new();
    for moment in &record.moments {
        match &moment.what {
            What::Received(call) => {
                received.insert(call.message_id);
            }
            What::Called(call) => {
                called.insert(call.message_id);
            }
            _ => {}
        }
    }
    let mut broken = Vec::new();
    for row in record.rows.iter().filter(|row| row.reason != Some(Reason::ByPerson)) {
        let truly = matches!(
            row.state,
            MessageState::Sent | MessageState::Unknown | MessageState::InDoubt
        );
        if received.contains(&row.id) && !truly {
            let what = format!("{} was received and stands as {:?} {:?}", row.id, row.state, row.reason);
            broken.push(Violation::end(NAME, what));
        }
        if row.state == MessageState::Sent && !called.contains(&row.id) {
            broken.push(Violation::end(NAME, format!("{} counts as sent and never was", row.id)));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::simulation::gateway::GatewayKind;

    #[test]
    fn what_was_received_and_counts_as_failed_is_found_and_so_is_the_reverse() {
        let mut story = Story::of(GatewayKind::Silent);
        let message = story.row(MessageState::Sent);
        assert_broken(&check(&story.record), 1);
        let attempt = story.attempt();
        story.called(1.0, message, attempt);
        story.received(1.0, message, attempt);
        assert_holds(&check(&story.record));
        story.change(message, |row| row.state = MessageState::Failed);
        assert_broken(&check(&story.record), 1);
        story.change(message, |row| row.reason = Some(Reason::ByPerson));
        assert_holds(&check(&story.record));
    }
}
