//! What a loopback gateway does, as data.

use std::fmt;
use std::time::Duration;

use rand::RngExt as _;
use serde::{Deserialize, Serialize};
use wa_core::seed::Seed;

/// Whose interface a loopback gateway has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Vendor {
    /// Wablas: our `ref_id` travels, and what became of a message can be asked.
    Wablas,
    /// Whacenter: no id of ours travels, and nothing can be asked.
    Whacenter,
}

/// How long a gateway takes to record and answer, in milliseconds. Short ones are more frequent than long ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// The shortest.
    pub min_ms: u32,
    /// The longest.
    pub max_ms: u32,
}

impl Latency {
    /// From the shortest to the longest.
    #[must_use]
    pub const fn between(min_ms: u32, max_ms: u32) -> Self {
        Self { min_ms, max_ms }
    }

    fn draw(self, share: f64) -> Duration {
        let span = f64::from(self.max_ms.saturating_sub(self.min_ms));
        Duration::from_secs_f64((f64::from(self.min_ms) + span * share * share) / 1_000.0)
    }
}

impl Default for Latency {
    fn default() -> Self {
        Self::between(5, 500)
    }
}

/// How a request can go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Refused in the words that the vendor documents; nothing is recorded.
    Refused,
    /// 502 without JSON; nothing is recorded.
    ServerError,
    /// 429 with `Retry-After: 1`; nothing is recorded.
    TooMany,
    /// Never answered; nothing is recorded.
    Hang,
    /// The connection is cut before the message is read; nothing is recorded.
    CutBefore,
    /// The connection is cut after the message was recorded.
    CutAfter,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Refused,
        Self::ServerError,
        Self::TooMany,
        Self::Hang,
        Self::CutBefore,
        Self::CutAfter,
    ];
}

/// Which share of the requests goes wrong in which way, in thousandths; the rest is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FaultShares {
    /// [`Fault::Refused`].
    pub refused: u16,
    /// [`Fault::ServerError`].
    pub server_error: u16,
    /// [`Fault::TooMany`].
    pub too_many: u16,
    /// [`Fault::Hang`].
    pub hang: u16,
    /// [`Fault::CutBefore`].
    pub cut_before: u16,
    /// [`Fault::CutAfter`].
    pub cut_after: u16,
}

impl FaultShares {
    /// Nothing goes wrong.
    pub const NONE: Self = Self {
        refused: 0,
        server_error: 0,
        too_many: 0,
        hang: 0,
        cut_before: 0,
        cut_after: 0,
    };

    fn share(&self, fault: Fault) -> u16 {
        match fault {
            Fault::Refused => self.refused,
            Fault::ServerError => self.server_error,
            Fault::TooMany => self.too_many,
            Fault::Hang => self.hang,
            Fault::CutBefore => self.cut_before,
            Fault::CutAfter => self.cut_after,
        }
    }

    fn pick(&self, thousandth: u16) -> Option<Fault> {
        let mut below = 0_u16;
        Fault::ALL.into_iter().find(|fault| {
            below = below.saturating_add(self.share(*fault));
            thousandth < below
        })
    }
}

/// What follows an accepted message, in thousandths of all accepted ones; each implies those after it in this list:
/// `stop`, `reply`, `read`, `delivered`. Whacenter reports replies only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Receipts {
    /// Answered with an opt-out word.
    pub stop: u16,
    /// Answered with anything else.
    pub reply: u16,
    /// Seen, answered ones included.
    pub read: u16,
    /// On the phone, seen ones included.
    pub delivered: u16,
    /// The longest time between two of these, in milliseconds.
    pub step_max_ms: u32,
}

/// How far an accepted message is going to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Course {
    /// No further than the network.
    Sent,
    /// On the phone.
    Delivered,
    /// Seen.
    Read,
    /// Answered.
    Replied,
    /// Answered with an opt-out word.
    Stopped,
}

impl Receipts {
    fn pick(&self, thousandth: u16) -> Course {
        let answered = self.stop.saturating_add(self.reply);
        match thousandth {
            _ if thousandth < self.stop => Course::Stopped,
            _ if thousandth < answered => Course::Replied,
            _ if thousandth < self.read => Course::Read,
            _ if thousandth < self.delivered => Course::Delivered,
            _ => Course::Sent,
        }
    }
}

/// A device that a gateway knows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayDevice {
    /// What a request must carry: `token.secret` at Wablas, the device id at Whacenter.
    pub credential: String,
    /// The gateway's own name for it, as callbacks carry it.
    pub serial: String,
    /// Its number, digits only.
    pub phone: String,
    /// Where its callbacks go, without the last segment (`inbound`, `tracking`, `device`); `None` for nowhere.
    #[serde(default)]
    pub hook: Option<String>,
    /// Whether it is connected to WhatsApp; one that is not refuses to send.
    #[serde(default = "yes")]
    pub connected: bool,
}

const fn yes() -> bool {
    true
}

impl GatewayDevice {
    /// A connected device without callbacks.
    #[must_use]
    pub fn new(credential: impl Into<String>, serial: impl Into<String>, phone: impl Into<String>) -> Self {
        Self {
            credential: credential.into(),
            serial: serial.into(),
            phone: phone.into(),
            hook: None,
            connected: true,
        }
    }

    /// Sets where its callbacks go.
    #[must_use]
    pub fn hook(mut self, url: impl Into<String>) -> Self {
        self.hook = Some(url.into());
        self
    }
}

impl fmt::Debug for GatewayDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayDevice")
            .field("serial", &self.serial)
            .field("connected", &self.connected)
            .finish_non_exhaustive()
    }
}

/// What a loopback gateway does. The same script and requests give the same answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayScript {
    /// Whose interface it has.
    pub vendor: Vendor,
    /// Where everything that is drawn comes from.
    #[serde(default)]
    pub seed: u64,
    /// How long recording and answering takes.
    #[serde(default)]
    pub latency: Latency,
    /// What goes wrong.
    #[serde(default)]
    pub faults: FaultShares,
    /// How long after it was recorded a message shows in the report, in milliseconds.
    #[serde(default = "one_second")]
    pub report_lag_ms: u32,
    /// The devices that it knows.
    #[serde(default)]
    pub devices: Vec<GatewayDevice>,
    /// What follows accepted messages.
    #[serde(default)]
    pub receipts: Receipts,
}

const fn one_second() -> u32 {
    1_000
}

/// What is drawn for one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    pub latency: Duration,
    pub fault: Option<Fault>,
    pub course: Course,
}

impl GatewayScript {
    /// A gateway that accepts everything of no device at all, with the default latency and a report 1 s late.
    #[must_use]
    pub fn new(vendor: Vendor, seed: u64) -> Self {
        Self {
            vendor,
            seed,
            latency: Latency::default(),
            faults: FaultShares::NONE,
            report_lag_ms: one_second(),
            devices: Vec::new(),
            receipts: Receipts::default(),
        }
    }

    /// Sets the latency.
    #[must_use]
    pub fn latency(mut self, latency: Latency) -> Self {
        self.latency = latency;
        self
    }

    /// Sets what goes wrong.
    #[must_use]
    pub fn faults(mut self, faults: FaultShares) -> Self {
        self.faults = faults;
        self
    }

    /// Sets the devices.
    #[must_use]
    pub fn devices(mut self, devices: impl IntoIterator<Item = GatewayDevice>) -> Self {
        self.devices = devices.into_iter().collect();
        self
    }

    /// Sets what follows accepted messages.
    #[must_use]
    pub fn receipts(mut self, receipts: Receipts) -> Self {
        self.receipts = receipts;
        self
    }

    /// The `asked`-th request of a device for a number, from 0.
    pub(super) fn fate(&self, serial: &str, number: &str, asked: u32) -> Fate {
        let key = format!("{serial}|{number}|{asked}");
        let mut rng = Seed::from_number(self.seed).rng(key.as_bytes(), "loopback gateway");
        Fate {
            latency: self.latency.draw(rng.random_range(0.0..1.0)),
            fault: self.faults.pick(rng.random_range(0..1_000)),
            course: self.receipts.pick(rng.random_range(0..1_000)),
        }
    }

    /// How long lies before each of the `steps` steps that follow an accepted message.
    pub(super) fn pauses(&self, id: &str, steps: usize) -> Vec<Duration> {
        let mut rng = Seed::from_number(self.seed).rng(id.as_bytes(), "loopback receipts");
        (0..steps)
            .map(|_| Duration::from_millis(rng.random_range(0..=self.receipts.step_max_ms).into()))
            .collect()
    }
}
