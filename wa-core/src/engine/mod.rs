//! The engine: plain operations over the ports, which say when there is next something to do.

mod askable;
pub mod config;
pub mod core;
mod dispatch;
mod early_receipts;
mod enrolling;
mod flow;
pub mod handle;
#[cfg(test)]
mod hosting_tests;
mod lane;
mod node;
mod planning;
mod render;
pub mod runner;
pub(crate) mod send_times;
pub mod settings;
#[cfg(test)]
mod tests;
pub mod timers;
mod unsettled;
pub mod wake;
pub mod watch;

pub use self::core::{Core, EngineBuilder, OpenError, Transports};
pub use self::dispatch::{Dispatch, Finished};
pub use self::lane::{LanePhase, LaneStatus};
pub use self::node::{Balance, Candidate, Engine, EngineStatus};
pub use self::planning::{Errand, PlanReport, Question};
pub use self::runner::{Ended, Runner};
