//! Bus of `wa-core` over Redis pub/sub: a screen on one node sees what another node does.
//!
//! What goes over it are hints. Events that count are rows of the store, written in the commit that they tell of; so Redis keeps
//! nothing, and nothing waits for it: while it is away every node goes on by itself, its own events reach its own listeners, and
//! those of other nodes are missed, which listeners are told ([`Heard::Missed`](wa_core::event::Heard::Missed)) when it is back.
//!
//! ```no_run
//! # fn run() -> Result<(), wa_bus_redis::BusError> {
//! use std::sync::Arc;
//! use wa_bus_redis::{RedisBus, RedisOptions};
//! use wa_core::event::EventBus;
//! use wa_core::time::SystemClock;
//!
//! let options = RedisOptions::url("redis://:secret@localhost/").channel("wa");
//! let bus = RedisBus::start(options, Arc::new(SystemClock::new()))?;
//! let listener = bus.listen();
//! # Ok(())
//! # }
//! ```

mod bus;
mod options;
mod wire;

pub use self::bus::{BusError, RedisBus};
pub use self::options::RedisOptions;
