use super::super::{Anchor, LaneAnswer, LaneHistory, LaneNow, LanePacing, LaneRequest};
use super::*;
use crate::domain::pacing::{DelayRange, WarmUp};
use crate::domain::warmth::Warmth;
use crate::id::{DeviceId, MessageId};
use crate::seed::Seed;

const HOUR: Duration = Duration::from_secs(3_600);
const START: Timestamp = Timestamp::from_millis(1_000_000_000);

fn now(at: Timestamp) -> LaneNow {
    Anchor::new(at, Default::default()).now(at, Default::default())
}

fn request(warmth: Warmth, priority: Priority) -> LaneRequest {
    let range = DelayRange::default();
    LaneRequest {
        priority,
        delay: PacingPolicy::unpaced().draw_delay(range, &Seed::from_number(0), DeviceId::MIN, MessageId::MIN),
        quiet: None,
        caps: None,
        warmth,
    }
}

fn ask(lane: &LanePacing, policy: &PacingPolicy, warmth: Warmth, at: Timestamp) -> LaneAnswer {
    lane.ready_at(&request(warmth, Priority::Campaign), policy, now(at))
}

fn policy() -> PacingPolicy {
    PacingPolicy::human()
}

fn lane() -> LanePacing {
    LanePacing::new(now(START), LaneHistory::default())
}

fn send(lane: &mut LanePacing, at: Timestamp) {
    lane.begin(at);
    lane.count_cold(at);
}

/// When so many cold messages go that each go as soon as they may.
fn sends(lane: &mut LanePacing, policy: &PacingPolicy, mut at: Timestamp, count: usize) -> Vec<Timestamp> {
    let mut sent = Vec::new();
    for _ in 0..count {
        let told = ask(lane, policy, Warmth::Cold, at);
        at = told.at;
        let again = ask(lane, policy, Warmth::Cold, at);
        assert!(again.is_ready(), "{told:?} was followed by {again:?}");
        send(lane, at);
        sent.push(at);
    }
    sent
}

#[test]
fn a_restriction_closes_the_lane_to_strangers_alone() {
    let mut lane = lane();
    assert!(ask(&lane, &policy(), Warmth::Cold, START).is_ready());
    assert!(!lane.minds_strangers());
    lane.restrict_cold(START + HOUR * 5, Reopening::AtOnce);
    for priority in [Priority::Interactive, Priority::Sequence, Priority::Campaign] {
        let cold = lane.ready_at(&request(Warmth::Cold, priority), &policy(), now(START));
        assert_eq!((cold.at, cold.reason), (START + HOUR * 5, LaneReason::ColdRestricted));
        assert!(cold.reason.is_cold());
        let warm = lane.ready_at(&request(Warmth::Warm, priority), &policy(), now(START));
        assert!(warm.is_ready());
    }
    assert!(ask(&lane, &policy(), Warmth::Cold, START + HOUR * 5).is_ready());
    lane.lift_restriction();
    assert!(ask(&lane, &policy(), Warmth::Cold, START).is_ready());
}

#[test]
fn after_a_restriction_strangers_are_written_to_slowly_and_more_each_day() {
    let policy = PacingPolicy::builder()
        .cold_ramp(WarmUp::new(vec![2, 4]).unwrap())
        .build()
        .unwrap();
    let mut lane = lane();
    let end = START + HOUR;
    lane.restrict_cold(end, Reopening::Slowly);
    let sent = sends(&mut lane, &policy, START, 8);
    assert_eq!(sent[0], end);
    assert_eq!(sent[1], end + HOUR * 6, "half of an even share apart");
    assert!(sent[2] >= end + DAY, "{:?}", sent[2].since(end));
    let of_day = |day: u32| {
        let (from, to) = (end + DAY * day, end + DAY * (day + 1));
        sent.iter().filter(|at| **at >= from && **at < to).count()
    };
    assert_eq!(of_day(0), 2);
    assert!(of_day(1) <= 4);
    let free = ask(&lane, &policy, Warmth::Cold, end + DAY * 2 + HOUR * 25);
    assert!(free.is_ready(), "the ramp is over: {free:?}");
    let mut guessed = self::lane();
    guessed.restrict_cold(end, Reopening::AtOnce);
    let sent = sends(&mut guessed, &policy, START, 3);
    assert!(sent[2] < end + HOUR, "there is no ramp after a guess");
}

#[test]
fn strangers_have_a_cap_of_their_own_within_that_of_all() {
    let policy = PacingPolicy::builder().cold_day_cap(3).build().unwrap();
    let mut lane = lane();
    let sent = sends(&mut lane, &policy, START, 6);
    for window in sent.windows(4) {
        assert!(window[3].since(window[0]) >= DAY);
    }
    let told = ask(&lane, &policy, Warmth::Cold, sent[5]);
    assert_eq!(told.reason, LaneReason::ColdPace);
    assert!(ask(&lane, &policy, Warmth::Warm, sent[5] + HOUR).is_ready());
    assert_eq!(lane.cold_gap(&policy, sent[5]), DAY / 3);
    assert_eq!(lane.cold_day_count(sent[5]), 3);
    lane.give_back(sent[5]);
    let free = ask(&lane, &policy, Warmth::Cold, sent[5] + HOUR);
    assert!(free.is_ready(), "a slot that was given back is free");
}

#[test]
fn what_whatsapp_leaves_of_new_chats_is_spread_over_the_rest_of_its_cycle() {
    let mut lane = lane();
    let budget = ColdBudget {
        count: 4,
        told_at: START,
        ends_at: START + HOUR * 100,
    };
    lane.set_cold_budget(Some(budget));
    let sent = sends(&mut lane, &policy(), START, 4);
    assert_eq!(sent[0], START);
    let gaps: Vec<u64> = sent
        .windows(2)
        .map(|pair| pair[1].since(pair[0]).as_secs() / 3_600)
        .collect();
    assert!(gaps.iter().all(|gap| (24..=26).contains(gap)), "{gaps:?}");
    let told = ask(&lane, &policy(), Warmth::Cold, sent[3]);
    assert_eq!((told.at, told.reason), (budget.ends_at, LaneReason::ColdPace));
    let interactive = lane.ready_at(&request(Warmth::Cold, Priority::Interactive), &policy(), now(sent[3]));
    assert_eq!(interactive.at, budget.ends_at, "nothing is left for anybody");
    // What is told anew counts from there on; told again it changes nothing.
    lane.set_cold_budget(Some(budget));
    assert_eq!(ask(&lane, &policy(), Warmth::Cold, sent[3]).at, budget.ends_at);
    let fresh = ColdBudget {
        count: 2,
        told_at: sent[3] + HOUR,
        ..budget
    };
    lane.set_cold_budget(Some(fresh));
    assert!(ask(&lane, &policy(), Warmth::Cold, sent[3] + HOUR).at < budget.ends_at);
    lane.set_cold_budget(None);
    assert!(ask(&lane, &policy(), Warmth::Cold, sent[3] + HOUR).is_ready());
}

#[test]
fn an_interactive_message_to_a_stranger_does_not_wait_for_its_share() {
    let mut lane = lane();
    lane.set_cold_budget(Some(ColdBudget {
        count: 4,
        told_at: START,
        ends_at: START + HOUR * 100,
    }));
    send(&mut lane, START);
    let at = START + Duration::from_secs(60);
    let interactive = lane.ready_at(&request(Warmth::Cold, Priority::Interactive), &policy(), now(at));
    assert!(interactive.is_ready());
    assert_eq!(ask(&lane, &policy(), Warmth::Cold, at).reason, LaneReason::ColdPace);
}

#[test]
fn what_was_sent_to_strangers_before_the_lane_was_opened_counts() {
    let policy = PacingPolicy::builder().cold_day_cap(2).build().unwrap();
    let history = LaneHistory {
        attempts: vec![START, START + HOUR, START + HOUR * 2],
        cold: vec![START + HOUR, START],
        ..LaneHistory::default()
    };
    let lane = LanePacing::new(now(START + HOUR * 3), history);
    let told = ask(&lane, &policy, Warmth::Cold, START + HOUR * 3);
    assert_eq!(told.reason, LaneReason::ColdPace);
    assert!(told.at >= START + DAY && told.at <= START + DAY + HOUR);
}
