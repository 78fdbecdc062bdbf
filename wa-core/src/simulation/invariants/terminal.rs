//! I7: what is settled stays settled.

use std::collections::BTreeMap;

use super::Violation;
use crate::domain::message::MessageState;
use crate::simulation::history::{Record, What};

const NAME: &str = "I7";

/// From one look to the next, rows do not vanish, terminal states do not change, and unknown ones change only to what
/// evidence can make of them.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    let mut before = BTreeMap::new();
    for moment in &record.moments {
        let What::Rows(rows) = &moment.what else { continue };
        for row in rows {
            let Some(state) = before.insert(row.message_id, row.state) else {
                continue;
            };
            let stays = state.is_open()
                || state == row.state
                || (state == MessageState::Unknown && matches!(row.state, MessageState::Sent | MessageState::Failed));
            if !stays {
                let what = format!("{} went from {state:?} to {:?}", row.message_id, row.state);
                broken.push(Violation::at(NAME, moment.at, what));
            }
        }
    }
    let end: BTreeMap<_, _> = record.rows.iter().map(|row| (row.id, row.state)).collect();
    for message in before.keys().filter(|id| !end.contains_key(id)) {
        broken.push(Violation::end(NAME, format!("{message} is gone")));
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::id::MessageId;
    use crate::simulation::gateway::GatewayKind;
    use crate::simulation::history::RowSeen;

    fn walk(states: &[MessageState]) -> Story {
        let mut story = Story::of(GatewayKind::Silent);
        let message_id = story.row(MessageState::Sent);
        for state in states {
            story.add(
                1.0,
                What::Rows(vec![RowSeen {
                    message_id,
                    state: *state,
                }]),
            );
        }
        story
    }

    #[test]
    fn a_settled_message_that_moves_is_found() {
        use MessageState::{Failed, InDoubt, Queued, Sending, Sent, Skipped, Unknown};
        assert_holds(&check(
            &walk(&[Queued, Sending, InDoubt, Queued, Unknown, Sent, Sent]).record,
        ));
        for states in [[Sent, Failed], [Failed, Queued], [Unknown, Skipped], [Unknown, Queued]] {
            assert_broken(&check(&walk(&states).record), 1);
        }
    }

    #[test]
    fn a_row_that_vanishes_is_found() {
        let mut story = walk(&[]);
        let row = RowSeen {
            message_id: MessageId::MIN,
            state: MessageState::Queued,
        };
        story.add(1.0, What::Rows(vec![row]));
        assert_broken(&check(&story.record), 1);
    }
}
