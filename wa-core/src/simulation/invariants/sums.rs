//! I8: the numbers of a campaign add up, at every look.

use super::Violation;
use crate::simulation::history::{Record, What};

const NAME: &str = "I8";

/// The tallies are what the rows count, and their sum is the number of rows that are not superseded.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let looks = record.moments.iter().filter_map(|moment| match &moment.what {
        What::Numbers(seen) => Some((moment.at, seen)),
        _ => None,
    });
    looks
        .filter(|(_, seen)| seen.told != seen.counted || seen.told.should() != seen.rows)
        .map(|(at, seen)| {
            let what = format!(
                "{}: told {:?}, counted {:?}, {} rows",
                seen.campaign_id, seen.told, seen.counted, seen.rows
            );
            Violation::at(NAME, at, what)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::message::MessageState;
    use crate::domain::summary::Numbers;
    use crate::simulation::gateway::GatewayKind;
    use crate::simulation::history::NumbersSeen;

    #[test]
    fn a_tally_that_is_off_by_one_is_found() {
        let mut one = Numbers::default();
        one.count(MessageState::Sent, None);
        for (told, counted, rows, broken) in [(one, one, 1, 0), (one, Numbers::default(), 1, 1), (one, one, 2, 1)] {
            let mut story = Story::of(GatewayKind::Silent);
            let campaign_id = story.campaign;
            let seen = NumbersSeen {
                campaign_id,
                told,
                counted,
                rows,
            };
            story.add(1.0, What::Numbers(seen));
            match broken {
                0 => assert_holds(&check(&story.record)),
                _ => assert_broken(&check(&story.record), broken),
            }
        }
    }
}
