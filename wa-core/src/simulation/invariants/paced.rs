//! I4: every device keeps its pace in true time, whatever crashes and whatever the wall clocks show.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Violation, campaign_of, rows_by_id, sequence_by_id, sequence_of};
use crate::domain::device::Epoch;
use crate::domain::message::Message;
use crate::domain::pacing::DelaySettings;
use crate::id::{AttemptId, DeviceId, Incarnation};
use crate::simulation::history::{BeginSeen, Record, What};
use crate::store::Begun;

const NAME: &str = "I4";
/// Stores keep milliseconds; true time is finer.
const GRAIN: Duration = Duration::from_millis(2);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// A device, and its owner where owners are judged one by one.
type Judged = (DeviceId, Option<(Incarnation, Epoch)>);

/// Between two attempts of a device lies at least the delay drawn for the second, no window of an hour or a day holds more
/// received messages than its cap, and none was begun in quiet hours, and no step before its time of the day.
///
/// A new owner knows the past of a device only by the wall clocks of those before it, so where wall clocks are wrong each
/// owner is judged by itself.
pub(super) fn check(record: &Record) -> Vec<Violation> {
    let rows = rows_by_id(record);
    let received: BTreeSet<_> = record
        .moments
        .iter()
        .filter_map(|moment| match &moment.what {
            What::Received(call) => Some(call.attempt_id),
            _ => None,
        })
        .collect();
    let mut granted: BTreeMap<AttemptId, &BeginSeen> = BTreeMap::new();
    let mut lanes: BTreeMap<Judged, Vec<&BeginSeen>> = BTreeMap::new();
    for moment in &record.moments {
        match &moment.what {
            What::Begin(begin) if begin.answer == Begun::Yes => drop(granted.insert(begin.attempt_id, begin)),
            // What was begun and never handed over is no attempt: its begin's answer was lost or came late.
            What::Called(call) => {
                let Some(begin) = granted.get(&call.attempt_id) else {
                    continue;
                };
                let owner = (!record.facts.wall_is_true).then_some((begin.incarnation, begin.epoch));
                lanes.entry((begin.device_id, owner)).or_default().push(begin);
            }
            _ => {}
        }
    }
    let mut broken = Vec::new();
    for begun in lanes.values() {
        for pair in begun.windows(2) {
            let Some(row) = rows.get(&pair[1].message_id) else {
                continue;
            };
            let gap = pair[1].asked_at.saturating_sub(pair[0].asked_at);
            let least = delay(record, row, pair[1].device_id);
            if gap + GRAIN < least {
                let what = format!("{} follows after {gap:?} instead of {least:?}", row.id);
                broken.push(Violation::at(NAME, pair[1].asked_at, what));
            }
        }
        let mut counted = BTreeSet::new();
        let sent: Vec<Duration> = begun
            .iter()
            .filter(|begin| received.contains(&begin.attempt_id) && counted.insert(begin.attempt_id))
            .map(|begin| begin.asked_at)
            .collect();
        let caps = record.facts.policy.default_caps();
        broken.extend(over(&sent, HOUR, caps.hour_max()));
        broken.extend(over(&sent, DAY, caps.day_max()));
        broken.extend(
            begun
                .iter()
                .filter_map(|begin| in_quiet_hours(record, rows.get(&begin.message_id)?, begin)),
        );
        broken.extend(
            begun
                .iter()
                .filter_map(|begin| before_its_hour(record, rows.get(&begin.message_id)?, begin)),
        );
    }
    broken
}

fn delay(record: &Record, row: &Message, device: DeviceId) -> Duration {
    let policy = &record.facts.policy;
    let range = policy.delay_range(DelaySettings {
        message: row.delay,
        ..DelaySettings::default()
    });
    policy
        .draw_delay(range, &record.facts.seed, device, row.id)
        .as_duration()
}

fn over(sent: &[Duration], window: Duration, cap: u32) -> Option<Violation> {
    let cap = cap as usize;
    sent.windows(cap + 1)
        .find(|run| run[cap].saturating_sub(run[0]) + GRAIN < window)
        .map(|run| Violation::at(NAME, run[cap], format!("more than {cap} within {window:?}")))
}

fn in_quiet_hours(record: &Record, row: &Message, begin: &BeginSeen) -> Option<Violation> {
    let campaign = campaign_of(row).and_then(|id| record.campaigns.iter().find(|campaign| campaign.id == id));
    let sequence = sequence_of(row).and_then(|id| sequence_by_id(record, id));
    let of_campaign = campaign.and_then(|one| Some((one.quiet_hours?, one.time_zone)));
    let (quiet, zone) = of_campaign.or_else(|| sequence.and_then(|one| Some((one.quiet_hours?, one.time_zone))))?;
    let is_quiet = quiet.open_at(zone, begin.attempted_at) > begin.attempted_at;
    is_quiet.then(|| Violation::at(NAME, begin.asked_at, format!("{} was begun in quiet hours", row.id)))
}

/// Made at an hour of the day by the same clocks that show when it was begun, so judged only where all of them are right.
fn before_its_hour(record: &Record, row: &Message, begin: &BeginSeen) -> Option<Violation> {
    let flow = row.flow.filter(|_| row.round == 0 && record.facts.wall_is_true)?;
    let sequence = sequence_by_id(record, sequence_of(row)?)?;
    let steps = record.steps.iter().filter(|steps| steps.sequence_id == sequence.id);
    let step = steps
        .flat_map(|steps| &steps.steps)
        .find(|step| step.id == flow.step_id)?;
    let (time, zone) = (step.send_time.or(sequence.send_time)?, sequence.time_zone);
    let day = zone.local_date(row.created_at);
    let today = zone.instant(day, time);
    let hour = if today < row.created_at {
        zone.instant(day.plus_days(1), time)
    } else {
        today
    };
    (begin.attempted_at < hour)
        .then(|| Violation::at(NAME, begin.asked_at, format!("{} was begun before {time}", row.id)))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Story, assert_broken, assert_holds};
    use super::*;
    use crate::domain::enrolment::{EnrolmentState, FlowRef};
    use crate::domain::message::{MessageScope, MessageState};
    use crate::domain::pacing::{Caps, DelayRange, PacingPolicy};
    use crate::domain::schedule::{LocalTime, QuietHours};
    use crate::simulation::gateway::GatewayKind;

    fn sent_at(instants: &[f64]) -> Story {
        let mut story = Story::of(GatewayKind::Silent);
        let five = Duration::from_secs(5);
        story.record.facts.policy = PacingPolicy::builder()
            .default_delay(DelayRange::new(five..=five).unwrap())
            .default_caps(Caps::default().with_hour_max(2).unwrap())
            .build()
            .unwrap();
        for at in instants {
            let message = story.row(MessageState::Sent);
            let attempt = story.attempt();
            story.begin(*at, message, attempt);
            story.called(*at, message, attempt);
            story.received(*at, message, attempt);
        }
        story
    }

    #[test]
    fn a_gap_below_the_delay_and_a_window_above_its_cap_are_found() {
        assert_holds(&check(&sent_at(&[0.0, 5.0, 3_600.0]).record));
        assert_broken(&check(&sent_at(&[0.0, 4.9, 3_600.0]).record), 1);
        assert_broken(&check(&sent_at(&[0.0, 5.0, 3_599.0]).record), 1);
    }

    #[test]
    fn a_begin_in_quiet_hours_is_found() {
        let mut story = sent_at(&[0.0]);
        let time = |hour| LocalTime::from_hm(hour, 0).unwrap();
        // Day breaks at eight in Kuala Lumpur.
        story.record.campaigns[0].quiet_hours = Some(QuietHours::new(time(7), time(9)).unwrap());
        assert_broken(&check(&story.record), 1);
        story.record.campaigns[0].quiet_hours = Some(QuietHours::new(time(9), time(7)).unwrap());
        assert_holds(&check(&story.record));
    }

    #[test]
    fn a_step_of_a_sequence_in_quiet_hours_or_before_its_time_is_found() {
        let mut story = sent_at(&[0.0]);
        let enrolment_id = story.enrolment(EnrolmentState::Open);
        let sequence_id = story.record.sequences[0].id;
        let row = &mut story.record.rows[0];
        row.scope = MessageScope::Sequence(sequence_id);
        row.flow = Some(FlowRef {
            enrolment_id,
            step_id: story.record.steps[0].steps[0].id,
            steps_version: 1,
        });
        let time = |hour| LocalTime::from_hm(hour, 0).unwrap();
        assert_holds(&check(&story.record));
        story.record.sequences[0].quiet_hours = Some(QuietHours::new(time(7), time(9)).unwrap());
        assert_broken(&check(&story.record), 1);
        story.record.sequences[0].quiet_hours = None;
        story.record.facts.wall_is_true = true;
        for (hour, is_broken) in [(8, false), (9, true), (7, true)] {
            story.record.steps[0].steps[0].send_time = Some(time(hour));
            assert_broken(&check(&story.record), usize::from(is_broken));
        }
    }

    #[test]
    fn where_wall_clocks_are_wrong_each_owner_is_judged_by_itself() {
        let mut story = sent_at(&[0.0, 1.0]);
        if let What::Begin(begin) = &mut story.record.moments[5].what {
            begin.epoch = Epoch(2);
        }
        assert_broken(&check(&story.record), 1);
        story.record.facts.wall_is_true = false;
        assert_holds(&check(&story.record));
    }
}
