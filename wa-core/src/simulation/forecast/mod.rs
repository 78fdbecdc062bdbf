//! What a campaign or a sequence will do, told before anything is sent.
//!
//! A forecast reads what matters of the store in pages into a memory store of its own (devices, audience, suppressions, what
//! is queued on the user's lanes, who is in the sequences, what the lanes have sent), and lets the real engine work there on a
//! virtual clock, over transports that take as long as real ones. It changes nothing in the store. Whatever decides in earnest
//! decides here: expansion, matching, the steps that follow, routing, pacing, caps, quiet hours, the length of texts, the error
//! rate.
//!
//! What nobody can know is assumed, and told as such: how long gateways take that the engine has not measured, how many
//! messages they refuse, that devices stay as they are or come back after a while, that nobody opts out, replies or changes
//! anything, that no lead comes in. Where steps were put into another order while somebody was in a sequence, a step that they
//! have had is taken as one to come.
//!
//! | file | what |
//! |---|---|
//! | `options` | what is assumed, and the limits |
//! | `snapshot` | reads the store: devices, campaigns, what is queued |
//! | `sequence_snapshot` | reads the store: sequences, who is in them, who enters |
//! | `sending` | transports and media that only take time |
//! | `run` | drives the engine, in short turns |
//! | `tally` | counts what happened |
//! | `report` | the answer |
//! | `sequence_report` | what the answer says of a sequence beside |
//! | `truth` | worlds to compare forecasts with, for tests (feature `conformance`) |

mod options;
mod report;
mod run;
mod sending;
mod sequence_report;
mod sequence_snapshot;
mod snapshot;
mod tally;
#[cfg(feature = "conformance")]
pub mod truth;

pub use self::options::{ForecastControl, ForecastOptions, ForecastPhase, ForecastProgress, Latency};
pub use self::report::{
    ContactForecast, DayForecast, DeviceDay, DeviceForecast, DeviceStand, EndCount, Forecast, ForecastEnd,
    ForecastWarning, ForecastWarningCode, LatencySource, LatencyUsed, ReasonCount, SequenceForecast, StepForecast,
};
pub(crate) use self::run::run;
pub(crate) use self::snapshot::Snapshot;
