//! How an engine behaves: every limit and interval, named and with its default.

use std::time::Duration;

use crate::domain::pacing::PacingPolicy;

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
    /// Most sends under way per gateway host; 64.
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
    /// How many recipients one page of an expansion holds, 1 to 1,000; 500.
    pub expand_page: u32,
    /// How many leads one page of matching holds, and how many enrolments are moved on in one commit, 1 to 1,000; 200.
    pub enrol_page: u32,
    /// How many messages one page of a sweep or an expiry moves, 1 to 1,000; 500.
    pub sweep_page: u32,
    /// How many pool messages an online device holds ready; 3.
    pub pool_depth: u32,
    /// Until how many sent in the last hour a lead's own device is preferred in balanced routing; 50.
    pub prefer_own_below: u32,
    /// How many messages one begin or settle carries at most, 1 to 1,000; 500.
    pub batch_max: usize,
    /// How long durable events are kept; 7 days.
    pub events_kept_for: Duration,
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
            expand_page: 500,
            enrol_page: 200,
            sweep_page: 500,
            pool_depth: 3,
            prefer_own_below: 50,
            batch_max: 500,
            events_kept_for: crate::store::EVENTS_KEPT_FOR,
        }
    }

    /// Sets delays and caps.
    #[must_use]
    pub fn pacing(mut self, pacing: PacingPolicy) -> Self {
        self.pacing = pacing;
        self
    }
}
