//! A WhatsApp server for tests and demonstrations: real clients talk to it, with real end-to-end encryption, and it does
//! wrong what a script tells it to.
//!
//! [`Loopback`] lives in the process, or on two ports of 127.0.0.1 ([`Loopback::listen`]). Its clients are those of
//! `whatsapp-rust` 0.7, on [`Loopback::transport`] and [`Loopback::http`].
//!
//! ```no_run
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use wa_loopback::{Loopback, MessageFault, Options, Rule};
//! use whatsapp_rust::wacore::store::InMemoryBackend;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Loopback::start(Options::new());
//! let aminah = server.person("60111111111", "Aminah").await?;
//! aminah.connect().await?;
//!
//! // A device that is linked already: give the backend, `server.transport()` and `server.http()` to a client.
//! let backend = Arc::new(InMemoryBackend::new());
//! let device = server.seed_device("60122222222", &*backend).await?;
//!
//! // Its third message is refused.
//! server.fault(Rule::message(MessageFault::Nack(463)).of("60122222222").nth(3));
//!
//! let received = aminah.next_message(Duration::from_secs(10)).await?;
//! aminah.mark_read(&received).await?;
//! aminah.reply(&received, "berapa harga?").await?;
//! # let _ = device;
//! # Ok(())
//! # }
//! ```
//!
//! # Whom it has
//! * **People** ([`Loopback::person`]): a real client each that plays the phone (device 0); it decrypts, confirms, reads,
//!   answers, goes offline, scans codes, shares keys and old chats ([`PastChat`]) with devices that are linked to it.
//! * **Light accounts** ([`Loopback::add_account`]): keys to write to and no client, for load. Messages to them are
//!   acknowledged, receipts never come.
//! * **Linked devices**: made ready with [`Loopback::seed_device`], or linked by QR code ([`Loopback::scan`]) and by
//!   pairing code ([`Loopback::enter_code`]).
//!
//! # What it speaks
//! Noise XX, IK and XX fallback; linking by QR code and pairing code; login; prekeys; number checks, device lists and
//! bundles; text and media messages between devices of any account, by phone number and by LID; acknowledgements and
//! refusals; delivery, read, retry and other receipts; typing; a backlog for devices that are offline; device changes and
//! logout; settings keys and history from the phone; media over HTTP; privacy tokens; reach-out timelock and limit of new
//! chats, as queries and as pushes, enforced on messages; faults by [`Rule`] and [`Loopback::end_stream`].
//!
//! # What it does not speak
//! Groups, broadcast lists, status, channels, calls; aggregated receipts; settings with content (their collections stay
//! empty); edge routing; compressed stanzas from the server; blocking; business profiles; what comes after the demand for
//! a passkey. A message to anything but an account is refused with 404. Other queries are answered with an empty result.
//!
//! # Determinism
//! Every key of the server and of its people follows from [`Options::seed`]; ids are counted; faults count moments and
//! know no chance. What clients draw (their message ids, their session keys) is theirs. Time is the clock of the clients
//! (`wacore::time`).
//!
//! # The certificate
//! WhatsApp's clients verify the server's certificate, which only WhatsApp can sign. A client that was linked before
//! remembers it and shakes hands with IK: [`Loopback::seed_device`] uses that, and needs nothing special. A client that
//! has yet to be linked refuses the loopback, unless `whatsapp-rust` is built without that check: feature `pairing` of
//! this crate does so. **It is for dev-dependencies alone**; a test of the workspace fails if a program has it.

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
mod phone;
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
pub use phone::PastChat;
pub use restriction::{CapStatus, NewChatCap, Timelock};
pub use server::{Addressing, Loopback};
pub use transport::InProcess;
