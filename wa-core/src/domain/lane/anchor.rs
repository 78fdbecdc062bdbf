//! Anchored time.

use crate::time::{Monotonic, Timestamp};

/// Where the wall clock and the monotonic clock stood together, once, when the process started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Anchor {
    wall: Timestamp,
    monotonic: Monotonic,
}

impl Anchor {
    /// Ties the two readings, taken together.
    #[must_use]
    pub const fn new(wall: Timestamp, monotonic: Monotonic) -> Self {
        Self { wall, monotonic }
    }

    /// The present, from two readings taken together.
    #[must_use]
    pub fn now(self, wall: Timestamp, monotonic: Monotonic) -> LaneNow {
        LaneNow {
            at: self.wall + monotonic.since(self.monotonic),
            wall,
        }
    }

    /// What the monotonic clock shows at `at`, in anchored time; for sleeping until then.
    #[must_use]
    pub fn monotonic_at(self, at: Timestamp) -> Monotonic {
        self.monotonic + at.since(self.wall)
    }
}

/// The present, on the clock of lanes and on the wall clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LaneNow {
    at: Timestamp,
    wall: Timestamp,
}

impl LaneNow {
    /// The present in anchored time.
    #[must_use]
    pub const fn at(self) -> Timestamp {
        self.at
    }

    /// The present on the wall clock.
    #[must_use]
    pub const fn wall(self) -> Timestamp {
        self.wall
    }

    /// What the wall clock shows at `at`, in anchored time, if it does not jump between now and then.
    #[must_use]
    pub fn wall_at(self, at: Timestamp) -> Timestamp {
        shifted(self.wall, self.at, at)
    }

    /// The anchored time at which the wall clock shows `wall`, if it does not jump between now and then.
    ///
    /// It converts instants that were read from the store or told by a gateway.
    #[must_use]
    pub fn lane_at(self, wall: Timestamp) -> Timestamp {
        shifted(self.at, self.wall, wall)
    }
}

/// The instant that lies from `origin` as far as `to` lies from `from`.
fn shifted(origin: Timestamp, from: Timestamp, to: Timestamp) -> Timestamp {
    origin + to.since(from) - from.since(to)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_jump_of_the_wall_clock_does_not_move_anchored_time() {
        let start = Timestamp::from_millis(1_795_000_000_000);
        let mono = |seconds| Monotonic::from_start(Duration::from_secs(seconds));
        let anchor = Anchor::new(start, mono(100));
        let year = Duration::from_secs(365 * 86_400);
        for wall in [start, start + year, start - year] {
            let now = anchor.now(wall, mono(160));
            assert_eq!(now.at(), start + Duration::from_secs(60));
            assert_eq!(anchor.monotonic_at(now.at()), mono(160));
            for (at, shown) in [
                (now.at() + year, wall + year),
                (now.at() - year, wall - year),
                (now.at(), wall),
            ] {
                assert_eq!((now.wall_at(at), now.lane_at(shown)), (shown, at));
            }
        }
    }
}
