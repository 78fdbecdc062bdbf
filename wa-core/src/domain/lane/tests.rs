use proptest::prelude::*;

use super::*;
use crate::domain::pacing::{DelayRange, PacingError};
use crate::domain::schedule::{LocalTime, QuietHours, TimeZone};
use crate::domain::warmth::Warmth;
use crate::id::{DeviceId, MessageId};
use crate::seed::{ChaCha8Rng, Seed};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const MS: Duration = Duration::from_millis(1);
/// How long the day counts at most.
const DAY_COUNTED: Duration = Duration::from_secs(24 * 3600 + 900);
/// Two o'clock in the afternoon in Kuala Lumpur, at the start of a quarter of an hour.
const START: Timestamp = Timestamp::from_millis(1_795_500_000_000);

fn present(at: Timestamp) -> LaneNow {
    Anchor::new(at, Default::default()).now(at, Default::default())
}

fn empty() -> LanePacing {
    LanePacing::new(present(START), LaneHistory::default())
}

fn caps(hour_max: u32, day_max: u32) -> Option<Caps> {
    let caps = || -> Result<Caps, PacingError> { Caps::default().with_hour_max(hour_max)?.with_day_max(day_max) };
    Some(caps().unwrap())
}

fn drawn(seconds: u64) -> DrawnDelay {
    let range = DelayRange::new(SECOND * seconds as u32..=SECOND * seconds as u32).unwrap();
    PacingPolicy::human().draw_delay(range, &Seed::from_number(0), DeviceId::MIN, MessageId::MIN)
}

fn request(priority: Priority) -> LaneRequest {
    LaneRequest {
        priority,
        delay: drawn(10),
        quiet: None,
        caps: None,
        warmth: Warmth::Warm,
    }
}

fn ask(lane: &LanePacing, request: &LaneRequest, at: Timestamp) -> (Timestamp, LaneReason) {
    let answer = lane.ready_at(request, &PacingPolicy::human(), present(at));
    (answer.at, answer.reason)
}

#[test]
fn the_pause_is_that_of_the_next_message_from_start_to_start() {
    let mut lane = empty();
    assert_eq!(
        ask(&lane, &request(Priority::Campaign), START),
        (START, LaneReason::Ready)
    );
    lane.begin(START);
    let campaign = ask(&lane, &request(Priority::Campaign), START + SECOND);
    assert_eq!(campaign, (START + SECOND * 10, LaneReason::Delay));
    let interactive = ask(&lane, &request(Priority::Interactive), START);
    assert_eq!(interactive, (START + SECOND, LaneReason::Delay));
}

#[test]
fn the_hour_is_exact_and_bulk_leaves_a_fifth_to_interactive_messages() {
    let mut lane = empty();
    for minute in 0..5 {
        lane.begin(START + MINUTE * minute);
    }
    let now = START + MINUTE * 5;
    let bulk = LaneRequest {
        caps: caps(5, 800),
        ..request(Priority::Sequence)
    };
    let interactive = LaneRequest {
        priority: Priority::Interactive,
        ..bulk
    };
    assert_eq!(ask(&lane, &bulk, now), (START + HOUR, LaneReason::HourCap));
    assert_eq!(ask(&lane, &interactive, now), (now, LaneReason::Ready));
    lane.begin(now);
    assert_eq!(
        ask(&lane, &interactive, now + MINUTE),
        (START + HOUR, LaneReason::HourCap)
    );
    assert_eq!(
        ask(&lane, &bulk, now + MINUTE),
        (START + HOUR + MINUTE, LaneReason::HourCap)
    );
}

#[test]
fn the_hour_is_exact_where_its_short_instants_start_over() {
    let wrap = Timestamp::from_millis(419 << 32);
    let start = wrap - MINUTE;
    let mut lane = LanePacing::new(present(start), LaneHistory::default());
    for minute in 0..3 {
        lane.begin(start + MINUTE * minute);
    }
    let bulk = LaneRequest {
        caps: caps(3, 800),
        ..request(Priority::Sequence)
    };
    assert_eq!(
        ask(&lane, &bulk, wrap + MINUTE * 2),
        (start + HOUR, LaneReason::HourCap)
    );
    lane.begin(start + HOUR);
    assert_eq!(
        ask(&lane, &bulk, start + HOUR),
        (start + HOUR + MINUTE, LaneReason::HourCap)
    );
    assert!(lane.give_back(start + MINUTE));
    assert_eq!(lane.hour_count(start + HOUR), 2);
}

#[test]
fn the_day_counts_until_a_day_after_the_quarter_of_an_hour() {
    let mut lane = empty();
    lane.begin(START + MINUTE);
    lane.begin(START + MINUTE * 14);
    lane.begin(START + MINUTE * 16);
    let bulk = LaneRequest {
        caps: caps(80, 3),
        ..request(Priority::Campaign)
    };
    let free = START + DAY_COUNTED;
    assert_eq!(ask(&lane, &bulk, START + HOUR), (free, LaneReason::DayCap));
    assert_eq!((lane.day_count(free - MS), lane.day_count(free)), (3, 1));
}

#[test]
fn what_is_given_back_does_not_count_but_its_pause_holds() {
    let mut lane = empty();
    let bulk = LaneRequest {
        caps: caps(1, 1),
        ..request(Priority::Campaign)
    };
    lane.begin(START);
    assert_eq!(ask(&lane, &bulk, START + HOUR).1, LaneReason::DayCap);
    assert!(lane.give_back(START));
    assert_eq!(ask(&lane, &bulk, START), (START + SECOND * 10, LaneReason::Delay));
    assert!(!lane.give_back(START), "a slot comes back once");
    assert_eq!((lane.hour_count(START), lane.day_count(START)), (0, 0));
}

#[test]
fn a_slot_comes_back_also_when_the_outcome_is_known_hours_later() {
    let mut lane = empty();
    lane.begin(START);
    lane.begin(START + HOUR * 5);
    assert!(lane.give_back(START));
    assert_eq!(lane.day_count(START + HOUR * 5), 1);
    assert!(!lane.give_back(START + HOUR * 30), "never begun");
    lane.begin(START + HOUR * 60);
    assert!(!lane.give_back(START + HOUR * 5), "no longer counted");
}

#[test]
fn back_off_doubles_to_its_limit_and_ends_with_success() {
    let mut lane = empty();
    let mut rng = Seed::from_number(1).rng(b"", "test");
    let mut wait = |lane: &mut LanePacing, retry_after| lane.back_off(START, retry_after, &mut rng).since(START);
    for least in [5, 10, 20, 40, 80, 160, 320, 450, 450, 450] {
        let waited = wait(&mut lane, None);
        assert!((SECOND * least..=SECOND * least * 2).contains(&waited), "{waited:?}");
    }
    let until = START + wait(&mut lane, None);
    for priority in [Priority::Interactive, Priority::Sequence, Priority::Campaign] {
        assert_eq!(ask(&lane, &request(priority), START), (until, LaneReason::BackOff));
    }
    lane.succeeded();
    assert_eq!(
        ask(&lane, &request(Priority::Campaign), START),
        (START, LaneReason::Ready)
    );
    assert!(wait(&mut lane, None) <= SECOND * 10);
    lane.succeeded();
    let asked = wait(&mut lane, Some(MINUTE * 5));
    assert!((MINUTE * 5..=SECOND * 330).contains(&asked), "{asked:?}");
    assert_eq!(wait(&mut lane, Some(HOUR * 1_000)), BACK_OFF_MAX);
}

#[test]
fn a_restriction_and_a_pause_close_the_lane_for_everything() {
    let mut lane = empty();
    for priority in [Priority::Interactive, Priority::Campaign] {
        lane.restrict(START + HOUR * 100);
        let restricted = ask(&lane, &request(priority), START);
        assert_eq!(restricted, (START + HOUR * 100, LaneReason::Restricted));
        lane.pause();
        let paused = ask(&lane, &request(priority), START);
        assert_eq!(paused, (Timestamp::FAR_FUTURE, LaneReason::Paused));
        lane.resume();
        lane.lift_restriction();
        assert!(ask(&lane, &request(priority), START).1 == LaneReason::Ready);
    }
}

#[test]
fn quiet_hours_follow_the_wall_clock_and_spare_interactive_messages() {
    let quiet = Quiet {
        hours: QuietHours::new("14:30".parse().unwrap(), "16:00".parse().unwrap()).unwrap(),
        zone: TimeZone::KUALA_LUMPUR,
    };
    let bulk = LaneRequest {
        quiet: Some(quiet),
        ..request(Priority::Campaign)
    };
    let policy = PacingPolicy::human();
    let anchor = Anchor::new(START, Default::default());
    let lane = empty();
    let ask = |request: &LaneRequest, wall| lane.ready_at(request, &policy, anchor.now(wall, Default::default()));
    let hour = quiet.zone.local_hour(START);
    let two = START - HOUR * hour + HOUR * 14;
    assert!(ask(&bulk, two).is_ready());
    let half = two + MINUTE * 30;
    assert_eq!(ask(&bulk, half).at, START + MINUTE * 90);
    assert_eq!(ask(&bulk, half).reason, LaneReason::QuietHours);
    let interactive = LaneRequest {
        priority: Priority::Interactive,
        ..bulk
    };
    assert!(ask(&interactive, half).is_ready());
}

#[test]
fn the_ramp_holds_bulk_to_the_cap_of_its_day() {
    let ramp = WarmUp::new(vec![1, 2]).unwrap();
    let policy = PacingPolicy::builder().warm_up(ramp).build().unwrap();
    let ask = |lane: &LanePacing, priority, at| lane.ready_at(&request(priority), &policy, present(at));
    let mut lane = empty();
    lane.begin(START);
    let waits = ask(&lane, Priority::Campaign, START + HOUR);
    assert_eq!((waits.at, waits.reason), (START + DAY, LaneReason::WarmUp));
    assert!(ask(&lane, Priority::Interactive, START + HOUR).is_ready());
    lane.begin(START + DAY);
    let waits = ask(&lane, Priority::Campaign, START + DAY + MINUTE);
    assert_eq!((waits.at, waits.reason), (START + DAY_COUNTED, LaneReason::WarmUp));
    lane.begin(START + DAY_COUNTED);
    assert_eq!(ask(&lane, Priority::Campaign, START + DAY + HOUR).at, START + DAY * 2);
    assert!(ask(&lane, Priority::Campaign, START + DAY * 2).is_ready());
}

#[test]
fn a_first_message_that_is_given_back_does_not_start_the_ramp() {
    let policy = PacingPolicy::builder()
        .warm_up(WarmUp::new(vec![1, 5]).unwrap())
        .build()
        .unwrap();
    let mut lane = empty();
    lane.begin(START);
    lane.give_back(START);
    lane.begin(START + HOUR * 30);
    let answer = lane.ready_at(&request(Priority::Campaign), &policy, present(START + HOUR * 31));
    assert_eq!((answer.at, answer.reason), (START + HOUR * 54, LaneReason::WarmUp));
}

#[test]
fn history_from_a_wall_clock_that_stood_ahead_counts_as_now() {
    let ahead = START + HOUR * 10_000;
    let history = LaneHistory {
        attempts: vec![ahead; 80],
        last_begun_at: Some(ahead),
        first_begun_at: Some(ahead),
        cold: Vec::new(),
    };
    let lane = LanePacing::new(present(START), history);
    assert_eq!(
        ask(&lane, &request(Priority::Campaign), START),
        (START + HOUR, LaneReason::HourCap)
    );
}

#[test]
fn an_unpaced_lane_is_always_ready_and_keeps_bounded_memory() {
    let policy = PacingPolicy::unpaced();
    let mut lane = empty();
    let delay = policy.draw_delay(
        DelayRange::default(),
        &Seed::from_number(0),
        DeviceId::MIN,
        MessageId::MIN,
    );
    let request = LaneRequest {
        delay,
        ..request(Priority::Campaign)
    };
    for number in 0..100_000_u32 {
        let at = START + MS * (number / 10);
        if number % 1_000 == 0 {
            assert!(lane.ready_at(&request, &policy, present(at)).is_ready());
        }
        lane.begin(at);
    }
    assert!(lane.rolling.heap_bytes() <= 8_192 * 2, "{}", lane.rolling.heap_bytes());
}

#[test]
fn a_busy_lane_at_default_caps_keeps_at_most_two_kibibytes() {
    let policy = PacingPolicy::human();
    let mut lane = empty();
    let mut now = START;
    for _ in 0..3_000 {
        let answer = lane.ready_at(&request(Priority::Interactive), &policy, present(now));
        now = answer.at;
        lane.begin(now);
    }
    let bytes = size_of::<LanePacing>() + lane.rolling.heap_bytes();
    assert!(bytes <= 2_048, "{bytes}");
    let history = LaneHistory {
        attempts: (0..960).map(|number| now - SECOND * 37 * number).collect(),
        ..LaneHistory::default()
    };
    let taken_over = LanePacing::new(present(now), history);
    assert!(size_of::<LanePacing>() + taken_over.rolling.heap_bytes() <= 2_048);
}

/// What happens to a lane.
#[derive(Clone, Debug)]
enum Step {
    /// A message is sent as soon as the lane says; the wall clock may jump at a share of the wait.
    Send {
        priority: Priority,
        delay: u64,
        quiet: bool,
        jump: Option<(f64, i64)>,
    },
    /// The outcome of one of the last begins is not-sent.
    GiveBack { back: usize },
    /// The gateway refuses.
    BackOff { retry_after: Option<u64> },
    /// The gateway accepts.
    Succeed,
    /// WhatsApp restricts the account for so many minutes.
    Restrict { minutes: u32 },
    /// Nothing happens for so many seconds.
    Idle { seconds: u32 },
    /// The wall clock jumps by so many minutes.
    Jump { minutes: i64 },
    /// Another node takes the lane over, from history.
    TakeOver,
}

fn step() -> impl Strategy<Value = Step> {
    let priority = prop::sample::select(vec![
        Priority::Interactive,
        Priority::Interactive,
        Priority::Sequence,
        Priority::Campaign,
        Priority::Campaign,
    ]);
    let jump = prop::option::weighted(0.2, (0.0..1.0, -3_000_i64..3_000));
    let send = (priority, 1_u64..900, any::<bool>(), jump).prop_map(|(priority, delay, quiet, jump)| Step::Send {
        priority,
        delay,
        quiet,
        jump,
    });
    prop_oneof![
        12 => send,
        3 => (0_usize..12).prop_map(|back| Step::GiveBack { back }),
        1 => prop::option::of(0_u64..2_000).prop_map(|retry_after| Step::BackOff { retry_after }),
        1 => Just(Step::Succeed),
        1 => (0_u32..3_000).prop_map(|minutes| Step::Restrict { minutes }),
        2 => prop_oneof![0_u32..5_000, 0_u32..200_000].prop_map(|seconds| Step::Idle { seconds }),
        1 => (-100_000_i64..100_000).prop_map(|minutes| Step::Jump { minutes }),
        1 => Just(Step::TakeOver),
    ]
}

/// One begin, as a witness beside the lane remembers it.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Timestamp,
    given_back: bool,
    bulk: bool,
    gap: Duration,
    ramp_cap: Option<u32>,
}

/// Drives a lane as the engine would, and judges it by plain counting.
struct Witness {
    lane: LanePacing,
    policy: PacingPolicy,
    caps: Option<Caps>,
    quiet: Quiet,
    anchor: Anchor,
    /// True time since the start, and how far the wall clock is off it.
    elapsed: Duration,
    wall_off_ms: i64,
    begun: Vec<Begun>,
    closed_until: Timestamp,
    rng: ChaCha8Rng,
}

impl Witness {
    fn new(policy: PacingPolicy, caps: Option<Caps>, quiet: Quiet) -> Self {
        Self {
            lane: empty(),
            policy,
            caps,
            quiet,
            anchor: Anchor::new(START, Default::default()),
            elapsed: Duration::ZERO,
            wall_off_ms: 0,
            begun: Vec::new(),
            closed_until: START,
            rng: Seed::from_number(3).rng(b"", "test"),
        }
    }

    fn now(&self) -> LaneNow {
        let wall = Timestamp::from_millis((START + self.elapsed).as_millis() + self.wall_off_ms);
        self.anchor.now(wall, crate::time::Monotonic::from_start(self.elapsed))
    }

    fn limits(&self, priority: Priority) -> Caps {
        self.policy.caps(priority, self.caps).unwrap()
    }

    fn counted(&self) -> impl Iterator<Item = &Begun> {
        self.begun.iter().filter(|begun| !begun.given_back)
    }

    fn hour_count(&self, at: Timestamp) -> u32 {
        self.counted().filter(|begun| begun.at + HOUR > at).count() as u32
    }

    fn day_count(&self, at: Timestamp) -> u32 {
        let quarter = 900_000;
        let counts_until =
            |begun: &Begun| Timestamp::from_millis((begun.at.as_millis() / quarter + 1) * quarter) + HOUR * 24;
        self.counted().filter(|begun| counts_until(begun) > at).count() as u32
    }

    fn gap(&self, request: &LaneRequest) -> Duration {
        if request.priority.is_bulk() {
            request.delay.as_duration()
        } else {
            SECOND
        }
    }

    fn ramp_cap(&self, request: &LaneRequest, at: Timestamp) -> Option<u32> {
        let ramp = self.policy.warm_up(request.priority)?;
        let first = self.lane.first_begun_at.unwrap_or(at);
        ramp.day_cap(at.since(first).as_secs() / 86_400)
    }

    fn is_quiet(&self, wall: Timestamp) -> bool {
        let (from, until) = (self.quiet.hours.from().hour(), self.quiet.hours.until().hour());
        let hour = self.quiet.zone.local_hour(wall) as u16;
        if from < until {
            (from..until).contains(&hour)
        } else {
            hour >= from || hour < until
        }
    }

    /// Whether every rule lets the message go at `at`, by counting.
    fn may(&self, request: &LaneRequest, at: Timestamp) -> bool {
        let caps = self.limits(request.priority);
        let last = self.begun.last().map(|begun| begun.at + self.gap(request));
        self.closed_until <= at
            && last.is_none_or(|until| until <= at)
            && self.hour_count(at) < caps.hour_max()
            && self.day_count(at) < caps.day_max()
            && self.ramp_cap(request, at).is_none_or(|cap| self.day_count(at) < cap)
            && !(request.quiet.is_some() && request.priority.is_bulk() && self.is_quiet(self.now().wall_at(at)))
    }

    /// Asks the lane, and checks its answer against plain counting.
    fn asked(&self, request: &LaneRequest) -> Result<LaneAnswer, TestCaseError> {
        let now = self.now();
        let answer = self.lane.ready_at(request, &self.policy, now);
        prop_assert!(self.may(request, answer.at), "{answer:?} at {now:?} is too early");
        prop_assert_eq!(answer.is_ready(), answer.at == now.at());
        if !answer.is_ready() {
            prop_assert!(!self.may(request, answer.at - MS), "{answer:?} at {now:?} is too late");
        }
        let spoken = LaneRequest {
            quiet: None,
            ..*request
        };
        let other = self.lane.ready_at(&spoken, &self.policy, now);
        let most = match other.reason {
            LaneReason::Ready => Duration::ZERO,
            LaneReason::Delay => self.gap(request),
            LaneReason::HourCap => HOUR,
            LaneReason::DayCap | LaneReason::WarmUp => DAY_COUNTED,
            LaneReason::BackOff => BACK_OFF_MAX,
            _ => self.closed_until.since(now.at()),
        };
        prop_assert!(other.at.since(now.at()) <= most, "{other:?} at {now:?} stalls");
        prop_assert!(answer.at.since(other.at) <= HOUR * 25, "{answer:?} at {now:?} stalls");
        Ok(answer)
    }

    fn take(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send {
                priority,
                delay,
                quiet,
                jump,
            } => {
                let request = LaneRequest {
                    warmth: Warmth::Warm,
                    priority,
                    delay: drawn(delay),
                    quiet: quiet.then_some(self.quiet),
                    caps: self.caps,
                };
                let wait = self.asked(&request)?.at.since(self.now().at());
                if let Some((share, minutes)) = jump {
                    self.elapsed += Duration::from_millis((wait.as_millis() as f64 * share) as u64);
                    self.wall_off_ms += minutes * 60_000;
                }
                self.elapsed += self.asked(&request)?.at.since(self.now().at());
                let answer = self.asked(&request)?;
                prop_assert!(answer.is_ready(), "{answer:?} after waiting for it");
                let at = self.now().at();
                self.begun.push(Begun {
                    at,
                    given_back: false,
                    bulk: priority.is_bulk(),
                    gap: self.gap(&request),
                    ramp_cap: self.ramp_cap(&request, at),
                });
                prop_assert!(!(quiet && priority.is_bulk() && self.is_quiet(self.now().wall())));
                self.lane.begin(at);
            }
            Step::GiveBack { back } => {
                if let Some(index) = self.begun.len().checked_sub(back + 1) {
                    let begun = self.begun[index];
                    let fresh = begun.at + HOUR > self.begun.last().map_or(START, |last| last.at);
                    // A second time is only without effect within the hour, so the engine does not do it later.
                    if !begun.given_back || fresh {
                        let given = self.lane.give_back(begun.at);
                        prop_assert!(!(given && begun.given_back), "a slot came back twice");
                        prop_assert!(given || begun.given_back || !fresh, "a slot did not come back");
                        self.begun[index].given_back = true;
                    }
                }
            }
            Step::BackOff { retry_after } => {
                let now = self.now().at();
                let retry_after = retry_after.map(Duration::from_secs);
                let until = self.lane.back_off(now, retry_after, &mut self.rng);
                prop_assert!((BACK_OFF_MIN..=BACK_OFF_MAX).contains(&until.since(now)));
                prop_assert!(until.since(now) >= retry_after.unwrap_or_default().min(BACK_OFF_MAX));
                self.close();
            }
            Step::Succeed => {
                self.lane.succeeded();
                self.close();
            }
            Step::Restrict { minutes } => {
                self.lane.restrict(self.now().at() + MINUTE * minutes);
                self.close();
            }
            Step::Idle { seconds } => self.elapsed += SECOND * seconds,
            Step::Jump { minutes } => self.wall_off_ms += minutes * 60_000,
            Step::TakeOver => {
                let mut attempts: Vec<_> = self.counted().map(|begun| begun.at).collect();
                attempts.reverse();
                let history = LaneHistory {
                    attempts,
                    last_begun_at: self.begun.last().map(|begun| begun.at),
                    first_begun_at: self.lane.first_begun_at,
                    cold: Vec::new(),
                };
                self.lane = LanePacing::new(self.now(), history);
                self.close();
            }
        }
        let now = self.now().at();
        prop_assert_eq!(self.lane.hour_count(now), self.hour_count(now));
        prop_assert_eq!(self.lane.day_count(now), self.day_count(now));
        Ok(())
    }

    /// Notes until when back-off and restriction close the lane.
    fn close(&mut self) {
        let closed = self.lane.back_off_until.max(self.lane.restricted_until);
        self.closed_until = closed.unwrap_or(START);
    }

    /// Judges the whole run by its begins alone.
    fn judge(&self) -> Result<(), TestCaseError> {
        for pair in self.begun.windows(2) {
            prop_assert!(pair[1].at.since(pair[0].at) >= pair[1].gap);
        }
        let sent: Vec<_> = self.counted().collect();
        for (index, last) in sent.iter().enumerate() {
            let within = |span| sent[..=index].iter().filter(|begun| begun.at + span > last.at).count() as u32;
            let priority = if last.bulk {
                Priority::Campaign
            } else {
                Priority::Interactive
            };
            let caps = self.limits(priority);
            prop_assert!(within(HOUR) <= caps.hour_max());
            prop_assert!(within(DAY) <= caps.day_max());
            prop_assert!(last.ramp_cap.is_none_or(|cap| within(DAY) <= cap));
        }
        Ok(())
    }
}

fn policy() -> impl Strategy<Value = PacingPolicy> {
    prop::option::of(prop::collection::vec(1_u32..10, 1..5)).prop_map(|ramp| {
        let builder = PacingPolicy::builder();
        match ramp {
            Some(mut day_caps) => {
                day_caps.sort_unstable();
                builder.warm_up(WarmUp::new(day_caps).unwrap())
            }
            None => builder,
        }
        .build()
        .unwrap()
    })
}

fn quiet() -> impl Strategy<Value = Quiet> {
    let zones = ["Asia/Kuala_Lumpur", "Europe/Berlin", "Australia/Lord_Howe", "UTC"];
    (prop::sample::select(zones.to_vec()), 0_u16..24, 1_u16..24).prop_map(|(zone, from, length)| {
        let at = |hour| LocalTime::from_hm(hour % 24, 0).unwrap();
        Quiet {
            hours: QuietHours::new(at(from), at(from + length)).unwrap(),
            zone: zone.parse().unwrap(),
        }
    })
}

proptest! {
    #[test]
    fn obeying_the_lane_keeps_every_rule_and_never_waits_longer_than_needed(
        policy in policy(),
        hour_max in 1_u32..12,
        day_max in 1_u32..30,
        quiet in quiet(),
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut witness = Witness::new(policy, caps(hour_max, day_max), quiet);
        for step in steps {
            witness.take(step)?;
        }
        witness.judge()?;
    }

    #[test]
    fn a_lane_that_sent_nothing_for_a_day_is_ready(
        hour_max in 1_u32..12,
        day_max in 1_u32..30,
        quiet in quiet(),
        steps in prop::collection::vec(step(), 1..60),
        jump in -100_000_i64..100_000,
    ) {
        let mut witness = Witness::new(PacingPolicy::human(), caps(hour_max, day_max), quiet);
        for step in steps {
            witness.take(step)?;
        }
        witness.lane.lift_restriction();
        witness.elapsed += DAY_COUNTED;
        witness.wall_off_ms += jump * 60_000;
        for priority in [Priority::Interactive, Priority::Campaign] {
            let request = LaneRequest { delay: drawn(86_400), caps: witness.caps, ..request(priority) };
            let answer = witness.lane.ready_at(&request, &witness.policy, witness.now());
            prop_assert!(answer.is_ready(), "{answer:?}");
        }
    }
}
