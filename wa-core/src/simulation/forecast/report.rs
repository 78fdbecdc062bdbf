//! The answer of a forecast.

use serde::{Deserialize, Serialize};

use crate::domain::campaign::CampaignReason;
use crate::domain::lane::Waits;
use crate::domain::message::{MessageScope, MessageState, Reason};
use crate::domain::schedule::{LocalDate, TimeZone};
use crate::domain::summary::Numbers;
use crate::id::DeviceId;
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
    /// The day, in the campaign's time zone.
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

/// What one device sends on one local day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceDay {
    /// The day, in the campaign's time zone.
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
    /// When its first message of the campaign goes out.
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
    /// Messages that are not sent, by state and reason.
    pub not_sent: Vec<ReasonCount>,
    /// What all its messages waited for, added up over devices.
    pub waited: Waits,
    /// Things to know.
    pub warnings: Vec<ForecastWarning>,
}
