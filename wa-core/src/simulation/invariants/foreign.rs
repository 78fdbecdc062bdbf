//! I9: no row of one user reaches another.

use super::{Violation, rows_by_id};
use crate::simulation::history::{Record, What};

const NAME: &str = "I9";

/// Every request goes over a device of the message's own user, to the message's own number, with that user's text.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let rows = rows_by_id(record);
    let mut broken = Vec::new();
    for moment in &record.moments {
        let What::Called(call) = &moment.what else { continue };
        let Some(row) = rows.get(&call.message_id) else {
            continue;
        };
        let owner = record.facts.owners.get(&call.device_id);
        let tag = record.facts.tags.get(&row.user_id);
        if owner != Some(&row.user_id) || call.user_id != row.user_id {
            broken.push(Violation::at(
                NAME,
                moment.at,
                format!("{} went over a foreign device", row.id),
            ));
        }
        if row.phone.is_some_and(|phone| phone != call.to) {
            broken.push(Violation::at(
                NAME,
                moment.at,
                format!("{} went to another number", row.id),
            ));
        }
        if !tag.is_some_and(|tag| call.text.contains(tag.as_str())) {
            broken.push(Violation::at(
                NAME,
                moment.at,
                format!("{} carried a foreign text", row.id),
            ));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::message::MessageState;
    use crate::id::UserId;
    use crate::simulation::gateway::GatewayKind;

    #[test]
    fn a_foreign_device_text_or_number_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        let message = story.row(MessageState::Sent);
        let other = story.row(MessageState::Sent);
        let attempt = story.attempt();
        let right = story.call(message, attempt);
        story.add(1.0, What::Called(right.clone()));
        assert_holds(&check(&story.record));
        let mut wrong = right.clone();
        wrong.text = "of somebody else".to_owned();
        story.add(2.0, What::Called(wrong));
        assert_broken(&check(&story.record), 1);
        let mut wrong = right;
        wrong.message_id = other;
        story.add(3.0, What::Called(wrong));
        assert_broken(&check(&story.record), 2);
        story.record.facts.owners.insert(story.device, UserId::MIN);
        assert_broken(&check(&story.record), 5);
    }
}
