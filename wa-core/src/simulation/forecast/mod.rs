//! What a campaign will do, told before anything is sent.
//!
//! A forecast reads what matters of the store in pages into a memory store of its own (devices, audience, suppressions, what
//! is queued on the user's lanes, what the lanes have sent), and lets the real engine work there on a virtual clock, over
//! transports that take as long as real ones. It changes nothing in the store. Whatever decides in earnest decides here:
//! expansion, routing, pacing, caps, quiet hours, the length of texts, the error rate.
//!
//! What nobody can know is assumed, and told as such: how long gateways take, how many messages they refuse, that devices
//! stay as they are or come back after a while, that nobody opts out or changes anything.
//!
//! | file | what |
//! |---|---|
//! | `options` | what is assumed, and the limits |
//! | `snapshot` | reads the store |
//! | `sending` | transports and media that only take time |
//! | `run` | drives the engine, in short turns |
//! | `tally` | counts what happened |
//! | `report` | the answer |
//! | `truth` | worlds to compare forecasts with, for tests (feature `conformance`) |

mod options;
mod report;
mod run;
mod sending;
mod snapshot;
mod tally;
#[cfg(feature = "conformance")]
pub mod truth;

pub use self::options::{ForecastControl, ForecastOptions, ForecastPhase, ForecastProgress, Latency};
pub use self::report::{
    DayForecast, DeviceDay, DeviceForecast, DeviceStand, Forecast, ForecastEnd, ForecastWarning, ForecastWarningCode,
    ReasonCount,
};
pub(crate) use self::run::run;
pub(crate) use self::snapshot::Snapshot;
