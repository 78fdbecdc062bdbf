//! Wablas HTTP API as a transport for wa-core.
//!
//! A Wablas device is an account at one of the vendor's servers: its credential is `token` or `token.secret_key`, its base
//! URL `https://{server}.wablas.com`. [`Wablas`] carries texts and pictures for all devices of the platform, asks what
//! became of a message in doubt, checks numbers, and decodes the vendor's callbacks.
//!
//! # Contract
//!
//! What the engine can rely on, beyond [`wa_core::transport::Transport`]:
//!
//! - **One request per send**, on a connection of its own: no retry, no redirect, no proxy, no connection that may die
//!   under the request. The vendor is told not to send again either (`retry=false`).
//! - **Sent** means a 2xx status, `"status": true` and no message marked as failed. The vendor has then queued the message;
//!   its tracking callback or its report say more.
//! - **Not sent** means that the documented refusal (`"status": false` with a reason) was read, or that no byte of the
//!   request left: the name, the connection or the encryption failed. A refusal whose reason nobody recorded is
//!   `Rejected` under 2xx and 4xx, and no refusal at all under 5xx.
//! - **Maybe sent** is everything else: time-outs, lost connections, 5xx and 429 without the documented refusal, answers
//!   that cannot be read. Such a message carries its transport message id as `ref_id`, by which
//!   [`find`](wa_core::transport::Reconcilable::find) asks the vendor's report. Only a report with that very id says
//!   found, only a successful and empty one says not found.
//! - **Hosts** are those of the [`HostPolicy`](wa_core::transport::net::HostPolicy). Names are resolved once per
//!   connection, the addresses are vetted, and the connection goes to one of them.
//! - **Limits**: texts and captions of [`TEXT_CHARS_MAX`] characters, pictures (JPEG, PNG) of [`IMAGE_BYTES_MAX`] bytes, by
//!   public URL or, without one, as bytes. Answers are read up to 1 MiB.
//! - **Logs** name device, attempt, masked recipient and reason; never a credential, a text or a full number.
//!
//! Callbacks carry no signature: whoever serves them gives each device an address that cannot be guessed, and answers 200
//! with an empty body, because the vendor may send a non-empty one to the customer. A callback that names another number
//! than the device's own, where that is known, is refused.
//!
//! The facts come from the vendor's documentation (<https://www.wablas.com/documentation/api>) and from answers that its
//! clients recorded; each is a file in `fixtures/`, and nothing was tried against a live account.
//!
//! # Example
//!
//! ```
//! use wa_core::domain::platform::Platform;
//! use wa_core::id::{DeviceId, UserId};
//! use wa_core::transport::net::HostPolicy;
//! use wa_core::transport::{Transport, TransportDevice};
//! use wa_transport_wablas::{HOSTS, Wablas};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let transport = Wablas::builder()
//!     .host_policy(HostPolicy::new(HOSTS)?.with_listed("127.0.0.1:8080")?)
//!     .build()?;
//!
//! let mut device = TransportDevice {
//!     id: DeviceId::MIN,
//!     user_id: UserId::MIN,
//!     platform: Platform::WABLAS,
//!     phone: None,
//!     credential: Some("token.secret_key".to_owned().into()),
//!     base_url: Some("https://solo.wablas.com".to_owned()),
//! };
//! transport.check_device(&device)?;
//!
//! device.base_url = Some("https://wablas.example.com".to_owned());
//! let refused = transport.check_device(&device).unwrap_err();
//! assert_eq!(refused.field, "base_url");
//! # Ok(())
//! # }
//! ```

mod error;
mod http;
mod number;
mod probe;
mod reconcile;
mod transport;
mod webhook;
mod wire;

pub use number::NUMBERS_MAX;
pub use transport::{
    BASE_URL_BYTES_MAX, BuildError, CONNECT_TIMEOUT, CREDENTIAL_BYTES_MAX, HOSTS, IMAGE_BYTES_MAX, NUMBER_CHECK_URL,
    TEXT_CHARS_MAX, Wablas, WablasBuilder,
};
