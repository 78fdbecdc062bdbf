//! WhatsApp Web as a transport for wa-core.
//!
//! A device of the platform `whatsapp_web` is linked like a browser: by a QR code that its phone scans, or by a code that is
//! typed there. [`WhatsAppWeb`] keeps the connection of every device that the engine says this node owns, sends texts and
//! pictures on it, and passes on receipts and what people write. The protocol is the work of the crate `whatsapp-rust`.
//!
//! Linked devices that send in bulk are against WhatsApp's terms; accounts may be restricted or banned. That risk is the
//! operator's.
//!
//! # Contract
//!
//! What the engine can rely on, beyond [`wa_core::transport::Transport`]:
//!
//! - **Sent** means that the server has acknowledged the message's id. That the id was written to the connection means
//!   nothing.
//! - **Not sent** means that the server refused it by a code, or that it failed before it was written.
//! - **Maybe sent** is the rest: no answer in [`WebOptions::ack_within`], a connection that was lost before the answer, a
//!   failure of the server's own. Such a message is sent again with the same id, of which recipients show one: that is
//!   reported of WhatsApp, not proven; a device's `on_doubt` turns it off.
//! - **The id** of an attempt is a function of the attempt, known before anything is sent.
//! - **Sessions** are kept in the store as keys and values, encrypted where a [`Vault`](vault::Vault) has a key. Every write
//!   names node and epoch; when the store refuses one, the connection is cut.
//! - **Inbound** messages of personal chats are acknowledged to WhatsApp after the sink has committed them, else they come
//!   again.
//! - **One attempt to link** per device at a time; asking again for a code while one runs gives the code of the moment.
//! - **Connections** are opened through one gate ([`WebOptions::connects_per_second`]), however many devices want to.
//! - **Logs** name device, attempt, masked recipient and reason. whatsapp-rust itself writes some numbers to the crate `log`:
//!   see [`TARGETS_WITH_NUMBERS`].
//!
//! # Files
//!
//! | file | what |
//! |---|---|
//! | `transport` | the port, the builder, which devices are hosted |
//! | `session` | the task of one device: linking, connecting, ends |
//! | `live`, `acks` | sending on a connection, and the answers |
//! | `news`, `inbound` | what a connection tells, what people write |
//! | `backend`, `vault` | the session in the store |
//! | `gate`, `version`, `http` | opening connections, the client's version, media |
//! | `picture`, `qr` | pictures that fit, codes as pictures |
//! | `error` | what WhatsApp's answers mean |

mod acks;
pub mod backend;
mod error;
mod gate;
mod history;
mod http;
mod inbound;
mod jid;
mod limits;
mod live;
mod logs;
mod news;
mod options;
mod picture;
pub mod qr;
mod receipts;
mod session;
mod transport;
pub mod vault;
mod version;

pub use logs::TARGETS_WITH_NUMBERS;
pub use options::WebOptions;
pub use picture::{PICTURE_BYTES_MAX, SOURCE_BYTES_MAX, is_whole_jpeg};
pub use transport::{BuildError, CAPTION_CHARS_MAX, WhatsAppWeb, WhatsAppWebBuilder};
pub use version::WebVersion;
/// The client's crate, for those who bring their own connections or HTTP client.
pub use whatsapp_rust;
