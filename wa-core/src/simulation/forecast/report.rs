//! The answer of a forecast.

use serde::{Deserialize, Serialize};

use crate::domain::campaign::CampaignReason;
use crate::domain::enrolment::EnrolmentReason;
use crate::domain::lane::Waits;
use crate::domain::message::{MessageScope, MessageState, Reason};
use crate::domain::platform::Platform;
use crate::domain::schedule::{LocalDate, TimeZone};
use crate::domain::summary::Numbers;
use crate::domain::token::Token;
use crate::id::{DeviceId, StepId};
use crate::time::Timestamp;

/// How a forecast ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ForecastEnd {
    /// Every message is settled.
    Completed,
    /// It would stop before its end.
    Stopped {
        /// Why.
        reason: Option<CampaignReason>,
    },
    /// There is more to do than the horizon shows.
    Horizon,
    /// The time that the forecast may work was over.
    OutOfTime,
}

/// Whether a device can send.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceStand {
    /// It can.
    Online,
    /// It has no connection.
    Offline,
    /// It is on hold.
    OnHold,
    /// No transport carries its platform.
    NoTransport,
    /// It was deleted.
    Gone,
}

/// What goes out on one local day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayForecast {
    /// The day, in the time zone of the campaign or sequence.
    pub date: LocalDate,
    /// Messages sent, by the start of their attempt.
    pub sent: u64,
    /// Messages that fail or stay unknown.
    pub failed: u64,
    /// Messages that are skipped.
    pub skipped: u64,
    /// Devices that send.
    pub devices: u64,
}

/// What one device, or one step of a sequence, sends on one local day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceDay {
    /// The day, in the time zone of the campaign or sequence.
    pub date: LocalDate,
    /// Messages sent, by the start of their attempt.
    pub sent: u64,
}

/// What one device does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceForecast {
    /// The device; `None` for what waits in the pool, or has none.
    pub device_id: Option<DeviceId>,
    /// Its name.
    pub name: String,
    /// Whether it can send; `None` for the pool.
    pub stand: Option<DeviceStand>,
    /// How its messages end.
    pub numbers: Numbers,
    /// When its first message of the campaign or sequence goes out.
    pub first_sent_at: Option<Timestamp>,
    /// When its last does.
    pub last_sent_at: Option<Timestamp>,
    /// Its days, in order; those without a message are left out.
    pub days: Vec<DeviceDay>,
    /// What its messages waited for.
    pub waited: Waits,
}

/// How many messages end for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReasonCount {
    /// How they end.
    pub state: MessageState,
    /// Why.
    pub reason: Option<Reason>,
    /// How many.
    pub count: u64,
}

/// What happens at one step of a sequence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepForecast {
    /// The step.
    pub step_id: StepId,
    /// Its place from 0, its day and its trigger; `None` of a step that an edit removed.
    pub step: Option<(usize, u16, Token)>,
    /// How its flows end, from now on.
    pub numbers: Numbers,
    /// When its first message from now on goes out.
    pub first_sent_at: Option<Timestamp>,
    /// When its last does.
    pub last_sent_at: Option<Timestamp>,
    /// Its days, in order; those without a message are left out.
    pub days: Vec<DeviceDay>,
}

/// How many runs end before their last step for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndCount {
    /// Why; `None` where nothing is said.
    pub reason: Option<EnrolmentReason>,
    /// How many.
    pub count: u64,
}

/// Who is in a sequence, who enters, and how their runs end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContactForecast {
    /// Runs that are open now.
    pub open: u64,
    /// Leads that match now and are not in it: `suppressed`, `refused` and `entered` together, where the forecast gets so far.
    pub matching: u64,
    /// Of these, who are not taken because they must not be written to.
    pub suppressed: u64,
    /// Of these, who are not taken because they were in it before.
    pub refused: u64,
    /// Of these, who enter.
    pub entered: u64,
    /// Runs that begin because another sequence leads here.
    pub chained: u64,
    /// Runs that are completed.
    pub completed: u64,
    /// Runs that end before their last step, by reason.
    pub ended: Vec<EndCount>,
    /// Runs that are still open where the forecast ends.
    pub left_open: u64,
}

/// What a forecast tells of a sequence beside what it tells of a campaign.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SequenceForecast {
    /// Its steps, in their order; then those that edits removed and somebody still gets.
    pub steps: Vec<StepForecast>,
    /// The runs through it.
    pub contacts: ContactForecast,
}

/// Where it is known from how long a gateway takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LatencySource {
    /// Who asked for the forecast said so.
    Given,
    /// The engine measured its own sends.
    Measured,
    /// Nobody knows: the engine has sent too little since it started.
    Assumed,
}

/// How long sends over one platform take in a forecast.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyUsed {
    /// The platform.
    pub platform: Platform,
    /// Where that is known from.
    pub source: LatencySource,
    /// How many sends were measured; 0 where none were.
    pub measured: u64,
    /// The shortest, in milliseconds.
    pub least_ms: u64,
    /// The mean, in milliseconds.
    pub mean_ms: u64,
    /// The longest, in milliseconds.
    pub most_ms: u64,
}

/// What kind of warning it is; stable, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ForecastWarningCode {
    /// Devices with recipients cannot send.
    DevicesOffline,
    /// Nobody can send at all.
    NobodyCanSend,
    /// Recipients will be skipped.
    Skipped,
    /// Messages expire before their turn comes.
    Expires,
    /// It would stop before its end.
    Stops,
    /// There is more to do than the forecast shows.
    Unfinished,
    /// Caps cost much time.
    Capped,
    /// Messages are being sent or in doubt now.
    UnderWay,
    /// Something else that is queued was left out.
    LeftOut,
    /// It is paused; the forecast lets it go on now.
    Paused,
    /// WhatsApp restricts accounts of devices.
    Restricted,
}

/// A thing to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForecastWarning {
    /// What kind of warning it is.
    pub code: ForecastWarningCode,
    /// What it is, for people.
    pub message: String,
}

/// What will happen, as far as it can be known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// What it is about.
    pub scope: MessageScope,
    /// When the store was read.
    pub made_at: Timestamp,
    /// When it starts, or has started.
    pub starts_at: Timestamp,
    /// How it ends.
    pub end: ForecastEnd,
    /// When the first message from now on goes out.
    pub first_sent_at: Option<Timestamp>,
    /// When the last message goes out.
    pub last_sent_at: Option<Timestamp>,
    /// When every message is settled, expired ones too; `None` unless it completes.
    pub ends_at: Option<Timestamp>,
    /// The zone of its days.
    pub time_zone: TimeZone,
    /// How it stands before: what was settled when the forecast was made, and what is being sent or in doubt.
    pub before: Numbers,
    /// How it ends, with what was before.
    pub numbers: Numbers,
    /// Its days, in order; those on which nothing happens are left out.
    pub days: Vec<DayForecast>,
    /// Its devices, the pool first, then by id.
    pub devices: Vec<DeviceForecast>,
    /// Messages that are not sent, by state and reason; of a sequence, steps that nobody got to count as well.
    pub not_sent: Vec<ReasonCount>,
    /// What all its messages waited for, added up over devices.
    pub waited: Waits,
    /// Steps and runs, where it is about a sequence.
    pub sequence: Option<SequenceForecast>,
    /// How long gateways take in it, by platform of the user's devices.
    pub latencies: Vec<LatencyUsed>,
    /// Things to know.
    pub warnings: Vec<ForecastWarning>,
}
