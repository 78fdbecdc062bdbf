//! A WhatsApp server for tests and demonstrations.

mod account;
mod connection;
mod error;
mod fault;
mod http;
mod journal;
mod keys;
mod listener;
mod media;
mod node;
mod noise;
mod options;
mod person;
mod restriction;
mod server;
mod stanza;
mod state;
mod transport;

pub use error::{PairingError, PersonError, TooLate};
pub use fault::{LoginFault, MediaFault, MessageFault, QueryFault, Rule, RuleId, StreamFault};
pub use http::{LoopbackHttp, RewriteHost};
pub use journal::{Answer, DeliveredMessage, Record, Seen, SentMessage};
pub use listener::Listener;
pub use noise::Handshake;
pub use options::Options;
pub use person::{Person, Received};
pub use restriction::{CapStatus, NewChatCap, Timelock};
pub use server::{Addressing, Loopback};
pub use transport::InProcess;
