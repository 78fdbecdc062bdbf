//! What a loopback gateway remembers: every message that it recorded.

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use serde::{Deserialize, Serialize};
use wa_core::time::Timestamp;

use super::script::Fault;

/// Most messages that a gateway records; it answers 502 beyond.
pub const MESSAGES_MAX: usize = 1_000_000;

/// How far a recorded message came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// Waits at the gateway.
    Pending,
    /// Given to the network.
    Sent,
    /// On the phone.
    Delivered,
    /// Seen.
    Read,
}

impl Progress {
    /// The vendor's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Read => "read",
        }
    }
}

/// A message that a gateway recorded: its recipient gets it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The gateway's id of it.
    pub id: String,
    /// The device.
    pub serial: String,
    /// The number, digits only.
    pub number: String,
    /// The text or caption.
    pub text: String,
    /// Where its picture is, or the name of the one that came with it.
    pub picture: Option<String>,
    /// Our id, where the vendor takes one.
    pub ref_id: Option<String>,
    /// When the request arrived.
    pub received_at: Timestamp,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// How far it came.
    pub progress: Progress,
}

impl fmt::Debug for Accepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accepted")
            .field("id", &self.id)
            .field("serial", &self.serial)
            .field("received_at", &self.received_at)
            .field("recorded_at", &self.recorded_at)
            .finish_non_exhaustive()
    }
}

/// How often what happened at a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct GatewayCounts {
    /// Requests to send, faulty ones included.
    pub requests: u64,
    /// Messages recorded.
    pub recorded: u64,
    /// Requests with a credential that no device has.
    pub unauthorized: u64,
    /// Requests that no client should make: unreadable, or a number with anything but digits.
    pub malformed: u64,
    /// Faults by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// Callbacks that were answered with 200 and an empty body.
    pub callbacks: u64,
    /// Callbacks that were not: nobody listened, another status, or a body, which a gateway would send to the customer.
    pub callbacks_failed: u64,
}

/// Messages and counts of one gateway.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    messages: Vec<Accepted>,
    by_id: HashMap<String, usize>,
    by_ref: HashMap<String, Vec<usize>>,
    asked: HashMap<(String, String), u32>,
    pub counts: GatewayCounts,
}

impl Ledger {
    /// Counts a request of a device for a number and tells how many there were before.
    pub fn ask(&mut self, serial: &str, number: &str) -> u32 {
        self.counts.requests += 1;
        let asked = self.asked.entry((serial.to_owned(), number.to_owned())).or_default();
        *asked += 1;
        *asked - 1
    }

    /// Records a message and tells its place, from 0; `None` when the ledger is full.
    pub fn record(&mut self, message: impl FnOnce(usize) -> Accepted) -> Option<Accepted> {
        let place = self.messages.len();
        if place == MESSAGES_MAX {
            return None;
        }
        let message = message(place);
        if let Some(ref_id) = &message.ref_id {
            self.by_ref.entry(ref_id.clone()).or_default().push(place);
        }
        self.by_id.insert(message.id.clone(), place);
        self.counts.recorded += 1;
        self.messages.push(message.clone());
        Some(message)
    }

    /// Moves a message on.
    pub fn progress(&mut self, id: &str, progress: Progress) {
        if let Some(place) = self.by_id.get(id) {
            let message = &mut self.messages[*place];
            message.progress = message.progress.max(progress);
        }
    }

    /// The messages from a place on, at most `limit`.
    pub fn page(&self, from: usize, limit: usize) -> &[Accepted] {
        let from = from.min(self.messages.len());
        let until = from.saturating_add(limit).min(self.messages.len());
        &self.messages[from..until]
    }

    /// The messages with one of our ids.
    pub fn by_ref<'a>(&'a self, ref_id: &str) -> impl Iterator<Item = &'a Accepted> {
        let places = self.by_ref.get(ref_id).map(Vec::as_slice).unwrap_or_default();
        places.iter().map(|place| &self.messages[*place])
    }
}
