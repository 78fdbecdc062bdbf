//! Campaigns over the pool: no device takes more than the limit, and whose a lead is follows from what was sent.

use std::collections::{BTreeMap, BTreeSet};

use super::{Violation, campaign_of};
use crate::domain::lead::Lead;
use crate::domain::message::MessageState;
use crate::simulation::history::{Record, What};

const NAME: &str = "pool";

/// No device has more messages of a campaign than its limit for each time that it was triggered, skipped and cancelled ones
/// aside; a lead that was sent to by such a
/// campaign is not in the pool any more, unless the device has the same lead already or is deleted.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let limits: BTreeMap<_, _> = record
        .campaigns
        .iter()
        .filter_map(|campaign| Some((campaign.id, campaign.device_limit?)))
        .collect();
    let leads: BTreeMap<_, _> = record.leads.iter().map(|lead| (lead.id, lead)).collect();
    let gone: BTreeSet<_> = record
        .moments
        .iter()
        .filter_map(|moment| match moment.what {
            What::Deleted(device) => Some(device),
            _ => None,
        })
        .collect();
    let identities: BTreeSet<_> = record.leads.iter().map(Lead::identity).collect();
    let mut taken: BTreeMap<_, u32> = BTreeMap::new();
    let mut broken = Vec::new();
    for row in record.rows.iter().filter(|row| !row.superseded) {
        let Some(campaign) = campaign_of(row).filter(|id| limits.contains_key(id)) else {
            continue;
        };
        let counts = !matches!(row.state, MessageState::Skipped | MessageState::Cancelled);
        if let Some(device) = row.device_id.filter(|_| counts) {
            *taken.entry((campaign, device)).or_default() += 1;
        }
        let sent_by = row.attempt.as_ref().map(|attempt| attempt.device_id);
        let lead = row.lead_id.and_then(|id| leads.get(&id));
        let (Some(device), Some(lead)) = (sent_by, lead.filter(|_| row.state == MessageState::Sent)) else {
            continue;
        };
        let mut given = lead.identity();
        given.device_id = Some(device);
        if lead.device_id.is_none() && !gone.contains(&device) && !identities.contains(&given) {
            broken.push(Violation::end(
                NAME,
                format!("{} was sent to and is in the pool", lead.id),
            ));
        }
    }
    for ((campaign, device), taken) in taken {
        let again = record
            .moments
            .iter()
            .filter(|moment| matches!(moment.what, What::TriggeredAgain(id) if id == campaign));
        let limit = limits[&campaign] * (1 + u32::try_from(again.count()).unwrap_or(u32::MAX));
        if taken > limit {
            let what = format!("{device} has {taken} messages of {campaign}, whose limit is {limit}");
            broken.push(Violation::end(NAME, what));
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, T0, assert_broken, assert_holds};
    use super::*;
    use crate::domain::device::Epoch;
    use crate::domain::message::Attempt;
    use crate::id::{AttemptId, IdSource, LeadId};
    use crate::simulation::gateway::GatewayKind;
    use crate::transport::TransportMessageId;

    #[test]
    fn a_device_beyond_its_limit_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        story.record.campaigns[0].device_limit = Some(1);
        story.row(MessageState::Failed);
        let second = story.row(MessageState::Skipped);
        assert_holds(&check(&story.record));
        story.change(second, |row| row.state = MessageState::Unknown);
        assert_broken(&check(&story.record), 1);
        story.record.campaigns[0].device_limit = None;
        assert_holds(&check(&story.record));
    }

    #[test]
    fn a_lead_that_was_sent_to_and_is_in_the_pool_is_found() {
        let mut story = Story::of(GatewayKind::Silent);
        story.record.campaigns[0].device_limit = Some(1);
        let row = story.row(MessageState::Sent);
        let ids = IdSource::seeded([1; 32]);
        let (device, attempt_id) = (story.device, AttemptId::new(&ids, T0));
        let phone = story.record.rows[0].phone.expect("a made-up row has a number");
        let mut lead = Lead::new(LeadId::new(&ids, T0), story.user, None, phone, T0);
        story.change(row, |row| {
            row.lead_id = Some(lead.id);
            row.attempt = Some(Attempt {
                id: attempt_id,
                transport_message_id: TransportMessageId::from_attempt(attempt_id),
                provider_id: None,
                device_id: device,
                epoch: Epoch(1),
                text: String::new(),
                greeting: None,
                attempted_at: T0,
            });
        });
        story.record.leads.push(lead.clone());
        assert_broken(&check(&story.record), 1);
        lead.device_id = Some(device);
        story.record.leads = vec![lead];
        assert_holds(&check(&story.record));
    }
}
