//! I11: nothing durable waits for what only a process that is gone could do.

use super::{Violation, campaign_of};
use crate::domain::campaign::CampaignStatus;
use crate::domain::message::MessageState;
use crate::simulation::history::Record;

const NAME: &str = "I11";

/// At the end, where every process may have been a fresh one, nothing is being sent, no mark of a sweep is left undone,
/// and what is in doubt has its record.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let mut broken = Vec::new();
    for row in &record.rows {
        let status = campaign_of(row)
            .and_then(|id| record.campaigns.iter().find(|campaign| campaign.id == id))
            .map(|campaign| campaign.status);
        let stuck = match row.state {
            MessageState::Sending => true,
            MessageState::Held => status != Some(CampaignStatus::Paused),
            MessageState::Queued => status != Some(CampaignStatus::Triggered),
            MessageState::InDoubt => row.doubt.is_none() || row.attempt.is_none(),
            _ => row.doubt.is_some(),
        };
        if stuck {
            broken.push(Violation::end(
                NAME,
                format!("{row:?} is stuck; its campaign is {status:?}"),
            ));
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
    fn what_no_process_works_on_is_found() {
        use MessageState::{Held, Queued, Sending, Sent};
        for (state, status, broken) in [
            (Sent, CampaignStatus::Completed, 0),
            (Queued, CampaignStatus::Triggered, 0),
            (Held, CampaignStatus::Paused, 0),
            (Sending, CampaignStatus::Triggered, 1),
            (Queued, CampaignStatus::Cancelled, 1),
            (Queued, CampaignStatus::Paused, 1),
            (Held, CampaignStatus::Triggered, 1),
        ] {
            let mut story = Story::of(GatewayKind::Silent);
            story.row(state);
            story.record.campaigns[0].status = status;
            match broken {
                0 => assert_holds(&check(&story.record)),
                _ => assert_broken(&check(&story.record), broken),
            }
        }
    }
}
