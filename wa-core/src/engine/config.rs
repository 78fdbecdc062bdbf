//! How an engine behaves: every limit and interval, named and with its default.

use std::time::Duration;

use crate::domain::pacing::PacingPolicy;
use crate::domain::sequence::Step;

/// When a scope pauses itself because too much goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorRateLimit {
    /// How many of the newest settled messages are looked at; skipped ones do not count.
    pub window: u32,
    /// From which share of failed and unknown ones it pauses, in percent; 0 never.
    pub percent: u32,
}

impl Default for ErrorRateLimit {
    fn default() -> Self {
        Self {
            window: 50,
            percent: 20,
        }
    }
}

/// A field of a configuration is out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field} of the engine's configuration must be {expected}")]
pub struct ConfigError {
    /// The field.
    pub field: &'static str,
    /// What is expected of it.
    pub expected: &'static str,
}

fn require(field: &'static str, holds: bool, expected: &'static str) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(ConfigError { field, expected })
    }
}

/// How an engine behaves.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct EngineConfig {
    /// The node's name, unique among running nodes, 1 to 100 characters.
    pub node_name: String,
    /// Delays and caps.
    pub pacing: PacingPolicy,
    /// How long a lease lasts after the start of its last successful beat; 30 s.
    pub lease_for: Duration,
    /// How much earlier the owner stops, and how much later others take over; 5 s.
    pub lease_margin: Duration,
    /// How often a node beats and looks after the others; 5 s.
    pub beat_every: Duration,
    /// How often lanes without anything queued are looked at; 1 s.
    pub look_every: Duration,
    /// How often the planner looks for work; 1 s.
    pub plan_every: Duration,
    /// How often the settings of owned devices are read again; 5 s.
    pub refresh_every: Duration,
    /// How long after its begin a send may start at the latest; 2 s.
    pub begin_to_send_max: Duration,
    /// How long one send may take; 30 s.
    pub send_timeout: Duration,
    /// Most sends under way per gateway host, and most messages that are prepared for it, with their media in memory, while they
    /// wait for their turn; 1 to 100,000; 64.
    pub in_flight_max: usize,
    /// How long after an attempt its gateway is asked about it first; 90 s.
    pub reconcile_after: Duration,
    /// How long lies between two questions about one attempt; 60 s.
    pub reconcile_every: Duration,
    /// How often a gateway must say that it never had a message before it is sent again; 2.
    pub not_found_needed: u8,
    /// After how long without a usable answer a message becomes `unknown`; 24 h.
    pub doubt_max: Duration,
    /// How often a message is sent again with the same id where that is harmless; 3.
    pub resend_max: u8,
    /// When a campaign, sequence or device pauses itself.
    pub error_rate: ErrorRateLimit,
    /// How late a campaign may start, or a step of a sequence be sent, without its late policy being asked; 10 min.
    pub late_grace: Duration,
    /// The shortest wait between two steps of a sequence, 1 s to 52 weeks; 1 h. Shorter ones are for tests and demos.
    pub step_wait_min: Duration,
    /// How many recipients one page of an expansion holds, 1 to 5,000; where it is `None`, as by default, as many as the store writes best
    /// together ([`Store::bulk_rows`](crate::store::Store::bulk_rows)). A page is one transaction, for which settlements wait on a store
    /// with one writer.
    pub expand_page: Option<u32>,
    /// How many leads one page of matching holds, and how many enrolments are moved on in one commit, 1 to 1,000; 100. A
    /// page is one transaction, for which settlements wait on a store with one writer.
    pub enrol_page: u32,
    /// How many messages one page of a sweep or an expiry moves, 1 to 1,000; 500.
    pub sweep_page: u32,
    /// How many pool messages an online device holds ready, 1 to 1,000; 3.
    pub pool_depth: u32,
    /// Until how many sent in the last hour a lead's own device is preferred in balanced routing; 50.
    pub prefer_own_below: u32,
    /// How many messages one begin or settle carries at most, 1 to 1,000; 500.
    pub batch_max: usize,
    /// How long durable events are kept; 7 days.
    pub events_kept_for: Duration,
    /// How long chats and their messages are kept; 30 days.
    pub chats_kept_for: Duration,
    /// How long after its end the messages of a campaign go to the archive, at least 2 days; never where it is nought; 90 days.
    pub archive_after: Duration,
    /// How many messages one step of archiving moves, 1 to 1,000; 200. A step is one transaction, for which settlements wait on a store
    /// with one writer.
    pub archive_page: u32,
    /// How long a receipt by a vendor's id that no message has waits for its message, at most 10 years; 2 min.
    pub early_receipts_kept_for: Duration,
    /// Most receipts that wait so, 0 to 1,000,000, at about 200 bytes each; 10,000.
    pub early_receipts_max: usize,
}

impl EngineConfig {
    /// The defaults, for a node of that name.
    #[must_use]
    pub fn new(node_name: impl Into<String>) -> Self {
        Self {
            node_name: node_name.into(),
            pacing: PacingPolicy::default(),
            lease_for: Duration::from_secs(30),
            lease_margin: Duration::from_secs(5),
            beat_every: Duration::from_secs(5),
            look_every: Duration::from_secs(1),
            plan_every: Duration::from_secs(1),
            refresh_every: Duration::from_secs(5),
            begin_to_send_max: Duration::from_secs(2),
            send_timeout: Duration::from_secs(30),
            in_flight_max: 64,
            reconcile_after: Duration::from_secs(90),
            reconcile_every: Duration::from_secs(60),
            not_found_needed: 2,
            doubt_max: Duration::from_secs(24 * 3_600),
            resend_max: 3,
            error_rate: ErrorRateLimit::default(),
            late_grace: Duration::from_secs(600),
            step_wait_min: Step::WAIT_MIN,
            expand_page: None,
            enrol_page: 100,
            sweep_page: 500,
            pool_depth: 3,
            prefer_own_below: 50,
            batch_max: 500,
            events_kept_for: crate::store::EVENTS_KEPT_FOR,
            chats_kept_for: crate::store::CHATS_KEPT_FOR,
            archive_after: Duration::from_secs(90 * 24 * 3_600),
            archive_page: 200,
            early_receipts_kept_for: Duration::from_secs(120),
            early_receipts_max: 10_000,
        }
    }

    /// Whether an engine can run with it.
    ///
    /// # Errors
    /// The first field that is out of its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let name = self.node_name.chars().count();
        require("node_name", (1..=100).contains(&name), "1 to 100 characters")?;
        for (field, span) in [
            ("lease_for", self.lease_for),
            ("lease_margin", self.lease_margin),
            ("beat_every", self.beat_every),
            ("look_every", self.look_every),
            ("plan_every", self.plan_every),
            ("refresh_every", self.refresh_every),
            ("begin_to_send_max", self.begin_to_send_max),
            ("send_timeout", self.send_timeout),
            ("reconcile_after", self.reconcile_after),
            ("reconcile_every", self.reconcile_every),
            ("doubt_max", self.doubt_max),
            ("events_kept_for", self.events_kept_for),
            ("chats_kept_for", self.chats_kept_for),
        ] {
            let fits = (Self::SPAN_MIN..=Self::SPAN_MAX).contains(&span);
            require(field, fits, "1 millisecond to 10 years")?;
        }
        // Both are at most ten years, so their sum is no overflow.
        let beats = self.lease_margin + self.beat_every < self.lease_for;
        require("lease_for", beats, "longer than lease_margin and beat_every together")?;
        let asked = self.reconcile_after < self.doubt_max;
        require("doubt_max", asked, "longer than reconcile_after")?;
        let archives =
            self.archive_after.is_zero() || (Self::ARCHIVE_AFTER_MIN..=Self::SPAN_MAX).contains(&self.archive_after);
        require("archive_after", archives, "nought, or 2 days to 10 years")?;
        require("late_grace", self.late_grace <= Self::SPAN_MAX, "at most 10 years")?;
        let kept_for = self.early_receipts_kept_for <= Self::SPAN_MAX;
        require("early_receipts_kept_for", kept_for, "at most 10 years")?;
        require(
            "early_receipts_max",
            self.early_receipts_max <= 1_000_000,
            "0 to 1,000,000",
        )?;
        let wait = (Duration::from_secs(1)..=Step::WAIT_MAX).contains(&self.step_wait_min);
        require("step_wait_min", wait, "1 second to 52 weeks")?;
        require("not_found_needed", self.not_found_needed > 0, "at least 1")?;
        require("error_rate.percent", self.error_rate.percent <= 100, "0 to 100")?;
        let window = (1..=10_000).contains(&self.error_rate.window);
        require("error_rate.window", window, "1 to 10,000")?;
        for (field, number, most, range) in [
            ("in_flight_max", self.in_flight_max, 100_000, "1 to 100,000"),
            (
                "expand_page",
                self.expand_page.unwrap_or(1) as usize,
                Self::EXPAND_PAGE_MAX as usize,
                "1 to 5,000",
            ),
            ("enrol_page", self.enrol_page as usize, 1_000, "1 to 1,000"),
            ("sweep_page", self.sweep_page as usize, 1_000, "1 to 1,000"),
            ("archive_page", self.archive_page as usize, 1_000, "1 to 1,000"),
            ("pool_depth", self.pool_depth as usize, 1_000, "1 to 1,000"),
            ("batch_max", self.batch_max, 1_000, "1 to 1,000"),
        ] {
            require(field, (1..=most).contains(&number), range)?;
        }
        Ok(())
    }

    /// The shortest time after its end for which the messages of a campaign stay where they are: windows of pacing look back for a day.
    pub const ARCHIVE_AFTER_MIN: Duration = Duration::from_secs(2 * 86_400);
    /// Most recipients in one page of an expansion.
    pub const EXPAND_PAGE_MAX: u32 = 5_000;
    /// The shortest interval or limit of time.
    pub const SPAN_MIN: Duration = Duration::from_millis(1);
    /// The longest interval or limit of time.
    pub const SPAN_MAX: Duration = Duration::from_secs(10 * 366 * 86_400);

    /// Sets delays and caps.
    #[must_use]
    pub fn pacing(mut self, pacing: PacingPolicy) -> Self {
        self.pacing = pacing;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_can_be_run_with() {
        assert_eq!(EngineConfig::new("node-1").check(), Ok(()));
    }

    #[test]
    fn what_an_engine_would_spin_or_hang_with_is_refused_by_name() {
        type Edit = fn(&mut EngineConfig);
        let edits: &[(&str, Edit)] = &[
            ("node_name", |c| c.node_name.clear()),
            ("node_name", |c| c.node_name = "x".repeat(101)),
            ("lease_for", |c| c.lease_for = Duration::ZERO),
            ("lease_for", |c| c.lease_for = c.beat_every + c.lease_margin),
            ("lease_margin", |c| c.lease_margin = Duration::ZERO),
            ("beat_every", |c| c.beat_every = Duration::ZERO),
            ("look_every", |c| c.look_every = Duration::ZERO),
            ("plan_every", |c| c.plan_every = Duration::ZERO),
            ("refresh_every", |c| c.refresh_every = Duration::MAX),
            ("begin_to_send_max", |c| c.begin_to_send_max = Duration::ZERO),
            ("send_timeout", |c| c.send_timeout = Duration::ZERO),
            ("reconcile_after", |c| c.reconcile_after = Duration::ZERO),
            ("reconcile_every", |c| c.reconcile_every = Duration::ZERO),
            ("doubt_max", |c| c.doubt_max = c.reconcile_after),
            ("events_kept_for", |c| c.events_kept_for = Duration::ZERO),
            ("chats_kept_for", |c| c.chats_kept_for = Duration::ZERO),
            ("late_grace", |c| c.late_grace = Duration::MAX),
            ("archive_after", |c| c.archive_after = Duration::from_secs(86_400)),
            ("archive_after", |c| c.archive_after = Duration::MAX),
            ("archive_page", |c| c.archive_page = 0),
            ("early_receipts_kept_for", |c| c.early_receipts_kept_for = Duration::MAX),
            ("early_receipts_max", |c| c.early_receipts_max = 1_000_001),
            ("step_wait_min", |c| c.step_wait_min = Duration::ZERO),
            ("not_found_needed", |c| c.not_found_needed = 0),
            ("error_rate.percent", |c| c.error_rate.percent = 101),
            ("error_rate.window", |c| c.error_rate.window = 0),
            ("in_flight_max", |c| c.in_flight_max = 0),
            ("expand_page", |c| c.expand_page = Some(0)),
            ("enrol_page", |c| c.enrol_page = 0),
            ("sweep_page", |c| c.sweep_page = 1_001),
            ("pool_depth", |c| c.pool_depth = 0),
            ("batch_max", |c| c.batch_max = 0),
        ];
        for (field, edit) in edits {
            let mut config = EngineConfig::new("node-1");
            edit(&mut config);
            let error = config.check().expect_err(field);
            assert_eq!(error.field, *field);
            assert!(error.to_string().starts_with(field), "{error}");
        }
    }
}
