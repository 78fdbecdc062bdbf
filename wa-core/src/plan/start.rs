//! Starts campaigns whose local date and time have come.

use std::time::Duration;

use crate::domain::campaign::{Campaign, CampaignReason, CampaignStatus};
use crate::domain::schedule::{StartDecision, lateness};
use crate::store::{Change, ChangeSet};
use crate::time::Timestamp;

/// What starting a scheduled campaign at `now` changes; nothing when its time has not come.
///
/// The change is a compare-and-set on `scheduled`, so that two planners start it once.
pub fn start(campaign: &Campaign, now: Timestamp, grace: Duration) -> Option<ChangeSet> {
    let scheduled_at = campaign.scheduled_at?;
    let set = |to, reason| Change::SetCampaignStatus {
        user_id: campaign.user_id,
        campaign_id: campaign.id,
        from: &[CampaignStatus::Scheduled],
        to,
        reason,
    };
    let change = match lateness(scheduled_at, now, campaign.late_policy, grace) {
        StartDecision::NotYet(_) => return None,
        StartDecision::Start => set(CampaignStatus::Triggered, None),
        StartDecision::Skip => set(CampaignStatus::Cancelled, Some(CampaignReason::LateSkipped)),
        StartDecision::Ask if campaign.reason == Some(CampaignReason::LateAsk) => return None,
        StartDecision::Ask => set(CampaignStatus::Scheduled, Some(CampaignReason::LateAsk)),
    };
    Some(ChangeSet::one(change))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Content;
    use crate::domain::schedule::LatePolicy;
    use crate::id::{CampaignId, UserId};

    const GRACE: Duration = Duration::from_secs(600);

    fn status_after(policy: LatePolicy, late: i64) -> Option<(CampaignStatus, Option<CampaignReason>)> {
        let due = Timestamp::from_millis(10_000_000);
        let mut campaign = Campaign::draft(CampaignId::MIN, UserId::MIN, "a", Content::text("b"), due);
        campaign.status = CampaignStatus::Scheduled;
        campaign.scheduled_at = Some(due);
        campaign.late_policy = policy;
        let now = Timestamp::from_millis(10_000_000 + late * 1_000);
        start(&campaign, now, GRACE).map(|set| match set.changes[0] {
            Change::SetCampaignStatus { to, reason, .. } => (to, reason),
            ref other => panic!("unexpected change {other:?}"),
        })
    }

    #[test]
    fn a_campaign_never_starts_early_and_its_late_policy_rules_only_beyond_the_grace() {
        use CampaignStatus::{Cancelled, Scheduled, Triggered};
        assert_eq!(status_after(LatePolicy::Run, -1), None);
        assert_eq!(status_after(LatePolicy::Ask, 0), Some((Triggered, None)));
        assert_eq!(status_after(LatePolicy::Skip, 600), Some((Triggered, None)));
        assert_eq!(status_after(LatePolicy::Run, 601), Some((Triggered, None)));
        assert_eq!(
            status_after(LatePolicy::Skip, 601),
            Some((Cancelled, Some(CampaignReason::LateSkipped)))
        );
        assert_eq!(
            status_after(LatePolicy::Ask, 601),
            Some((Scheduled, Some(CampaignReason::LateAsk)))
        );
    }
}
