//! When a campaign will be over, if things go on as they are.

use std::time::Duration;

use crate::domain::pacing::Caps;
use crate::domain::schedule::Quiet;
use crate::time::Timestamp;

/// What one device still has to send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LaneWork {
    /// Messages before and including the last of the campaign.
    pub messages: u64,
    /// The mean pause between two of them.
    pub mean_delay: Duration,
    /// The caps it keeps; `None` for none.
    pub caps: Option<Caps>,
    /// When it must not send.
    pub quiet: Option<Quiet>,
}

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// When the last of the lanes will be done; `now` without work.
///
/// An estimate: mean delays, caps as if the hour began now, quiet hours as they are today. What each lane has sent in the
/// last hour and day is left out, and so are restrictions and back-off.
#[must_use]
pub fn expected_end(lanes: &[LaneWork], now: Timestamp) -> Timestamp {
    lanes.iter().map(|lane| lane_end(lane, now)).max().unwrap_or(now)
}

fn lane_end(lane: &LaneWork, now: Timestamp) -> Timestamp {
    let mean = lane.mean_delay;
    let by_delay = u64::try_from(HOUR.as_millis() / mean.as_millis().max(1))
        .unwrap_or(u64::MAX)
        .max(1);
    let per_hour = lane.caps.map_or(by_delay, |caps| by_delay.min(caps.hour_max().into()));
    let day_cap = lane.caps.map_or(u64::MAX, |caps| caps.day_max().into());
    // One open day shows how much a day holds; whole days are then passed over at once, so that the rest is short.
    let per_day = open_hours(lane, now).saturating_mul(per_hour).min(day_cap).max(1);
    let days = lane.messages.saturating_sub(1) / per_day;
    let mut left = lane.messages - days * per_day;
    let mut at = now + DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX));
    // No quiet hours last longer than a day, so that 48 steps reach the end of what one day holds.
    for _ in 0..48 {
        if left == 0 {
            break;
        }
        at = lane.quiet.map_or(at, |quiet| quiet.open_at(at));
        let sent = left.min(per_hour);
        left -= sent;
        let share = u32::try_from(sent).unwrap_or(u32::MAX);
        // The last ones need no hour: they go at their pace.
        at = at
            + if left == 0 {
                mean.saturating_mul(share).min(HOUR)
            } else {
                HOUR
            };
    }
    at
}

/// How many of the next 24 hours are not quiet when they begin.
fn open_hours(lane: &LaneWork, now: Timestamp) -> u64 {
    let Some(quiet) = lane.quiet else { return 24 };
    let hours = (0..24).map(|hour| now + HOUR * hour);
    hours.filter(|at| quiet.open_at(*at) == *at).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::schedule::{QuietHours, TimeZone};

    const NOW: Timestamp = Timestamp::from_millis(1_795_222_800_000);

    fn lane(messages: u64) -> LaneWork {
        LaneWork {
            messages,
            mean_delay: Duration::from_secs(10),
            caps: Some(Caps::default()),
            quiet: None,
        }
    }

    fn hours(lanes: &[LaneWork]) -> f64 {
        expected_end(lanes, NOW).since(NOW).as_secs_f64() / 3_600.0
    }

    #[test]
    fn a_few_messages_take_their_delays_and_many_take_the_caps() {
        assert_eq!(expected_end(&[], NOW), NOW);
        assert_eq!(expected_end(&[lane(0)], NOW), NOW);
        assert_eq!(expected_end(&[lane(6)], NOW), NOW + Duration::from_secs(60));
        // 160 at 80 an hour: one full hour, then 80 at 10 s each.
        assert!((1.2..=2.0).contains(&hours(&[lane(160)])), "{}", hours(&[lane(160)]));
        // 10,000 contacts over 15 devices take more than 8 hours.
        assert!(hours(&[lane(10_000 / 15)]) > 8.0);
        // 800 a day: 2,000 messages need three days.
        assert!(
            (48.0..72.0).contains(&hours(&[lane(2_000)])),
            "{}",
            hours(&[lane(2_000)])
        );
    }

    #[test]
    fn the_slowest_lane_decides() {
        assert_eq!(
            expected_end(&[lane(6), lane(500)], NOW),
            expected_end(&[lane(500)], NOW)
        );
    }

    #[test]
    fn quiet_hours_put_the_end_off() {
        let quiet = Quiet {
            hours: QuietHours::new("10:00".parse().unwrap(), "09:00".parse().unwrap()).unwrap(),
            zone: TimeZone::KUALA_LUMPUR,
        };
        let slow = LaneWork {
            quiet: Some(quiet),
            ..lane(81)
        };
        // One open hour a day holds 80; the 81st goes the day after.
        assert!((24.0..26.0).contains(&hours(&[slow])), "{}", hours(&[slow]));
        // Quiet now, and for eleven hours more.
        let day = QuietHours::new("08:00".parse().unwrap(), "20:00".parse().unwrap()).unwrap();
        let quiet = Some(Quiet { hours: day, ..quiet });
        let waiting = LaneWork { quiet, ..lane(6) };
        let end = NOW + HOUR * 11 + Duration::from_secs(60);
        assert_eq!(expected_end(&[waiting], NOW), end);
    }

    #[test]
    fn no_number_of_messages_overflows() {
        assert!(expected_end(&[lane(u64::MAX)], NOW) > NOW);
    }
}
