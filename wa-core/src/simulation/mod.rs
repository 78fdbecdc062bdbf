//! The engine under virtual time: what a forecast runs on, and what finds the faults of the engine itself.
//!
//! A simulation is one thread. [`Timeline`] stands still while anything is ready to run and jumps to the next timer when
//! nothing is; [`Scheduler`] draws from a seed who runs next; [`Gateways`] know what recipients really got. The engine
//! under them is the real one, with the real planners. Everything follows from one number.
//!
//! With the feature `conformance` there is more: a store that fails on both sides of every call, scenarios of nodes that
//! crash and stall while people pause, cancel and opt out, and the invariants of the engine, one file each, checked
//! against what happened.

pub mod clock;
#[cfg(feature = "conformance")]
pub mod faulty_store;
pub mod forecast;
pub mod gateway;
pub mod history;
#[cfg(feature = "conformance")]
pub mod invariants;
#[cfg(feature = "conformance")]
pub mod scenario;
pub mod scheduler;
#[cfg(feature = "conformance")]
pub mod world;

pub use self::clock::{Timeline, VirtualClock};
pub use self::gateway::{GatewayFaults, GatewayKind, Gateways, SimTransport};
pub use self::history::History;
pub use self::scheduler::{Scheduler, TaskId};
