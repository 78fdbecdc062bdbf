//! Fake gateways on 127.0.0.1 that behave like Wablas and Whacenter, for the demonstration and for tests.
//!
//! A [`LoopbackGateway`] answers as the vendors document it, and fails as its [`GatewayScript`] says. Everything that is
//! drawn comes from the script's seed, the device, the number and how often the device has asked for that number, so a run
//! does not depend on the order in which requests arrive.
//!
//! The life of a request: it is checked (credential, number, length), its fate is drawn, the latency passes, the message is
//! recorded, the answer goes out. Work goes on when the caller hangs up, as at a real gateway: a server that dies during the
//! latency has sent its message nevertheless. What was recorded can be asked in process ([`RunningGateway::messages`]) and
//! over HTTP (`GET /control/messages`), so that a gateway in another process can be asked too.

mod callbacks;
mod client;
mod command;
mod control;
mod cut;
mod gateway;
mod ledger;
mod script;
mod wablas;
mod whacenter;

pub use self::callbacks::Inbound;
pub use self::client::http_client;
pub use self::command::GatewayArgs;
pub use self::gateway::{LoopbackGateway, RunningGateway};
pub use self::ledger::{Accepted, GatewayCounts, MESSAGES_MAX, Progress};
pub use self::script::{Fault, FaultShares, GatewayDevice, GatewayScript, Latency, Receipts, Vendor};

#[cfg(test)]
mod tests;
