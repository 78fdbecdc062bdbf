//! Whacenter HTTP API as a transport for wa-core.
//!
//! A Whacenter device is known by its `device_id`, which is all that the vendor asks for and so is the credential.
//! [`Whacenter`] carries texts and pictures for all devices of the platform, asks how a device is, and decodes the vendor's
//! callback.
//!
//! # Contract
//!
//! What the engine can rely on, beyond [`wa_core::transport::Transport`]:
//!
//! - **One request per send**, on a connection of its own: no retry, no redirect, no proxy, no connection that may die
//!   under the request.
//! - **Sent** means a 2xx status and `"status": true`. Nothing more becomes known: the vendor has no receipts.
//! - **Not sent** means that the refusal (`"status": false` with a reason) was read, which comes under HTTP 200 too, or that
//!   no byte of the request left: the name, the connection or the encryption failed. A refusal whose reason nobody
//!   recorded is `Rejected` under 2xx and 4xx, so that it is not tried again by itself, and no refusal at all under 5xx.
//! - **Maybe sent** is everything else: time-outs, lost connections, 5xx and 429 without the refusal, answers that cannot
//!   be read. The vendor takes no id of ours and cannot be asked, so such a message is `unknown` for good and never sent
//!   again by the engine.
//! - **Hosts** are those of the [`HostPolicy`](wa_core::transport::net::HostPolicy); a device without a base URL speaks to
//!   [`BASE_URL`]. Names are resolved once per connection, the addresses are vetted, and the connection goes to one of them.
//! - **Limits** are ours where the vendor documents none: texts of [`TEXT_CHARS_MAX`] characters, captions of
//!   [`CAPTION_CHARS_MAX`], pictures (JPEG, PNG) of [`IMAGE_BYTES_MAX`] bytes, by public URL only. Answers are read up to 1 MiB.
//! - **Logs** name device, attempt, masked recipient and reason; never a credential, a text or a full number.
//!
//! The callback carries no signature: whoever serves it gives each device an address that cannot be guessed, and answers
//! 200 with an empty body. A callback that names another device id is refused. Its messages often have no id; then one
//! follows from the content.
//!
//! The facts come from answers that the vendor's clients recorded; each is a file in `fixtures/`, and nothing was tried
//! against a live account.
//!
//! # Example
//!
//! ```
//! use wa_core::domain::platform::Platform;
//! use wa_core::id::{DeviceId, UserId};
//! use wa_core::transport::net::HostPolicy;
//! use wa_core::transport::{DoubtPolicy, Transport, TransportDevice};
//! use wa_transport_whacenter::{HOSTS, Whacenter};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let transport = Whacenter::builder()
//!     .host_policy(HostPolicy::new(HOSTS)?.with_listed("127.0.0.1:8080")?)
//!     .build()?;
//! assert_eq!(transport.capabilities().doubt(), DoubtPolicy::Unknown);
//!
//! let device = TransportDevice {
//!     id: DeviceId::MIN,
//!     user_id: UserId::MIN,
//!     platform: Platform::WHACENTER,
//!     phone: None,
//!     credential: Some("device-id-of-the-panel".to_owned().into()),
//!     base_url: None,
//! };
//! transport.check_device(&device)?;
//! # Ok(())
//! # }
//! ```

mod error;
mod http;
mod probe;
mod transport;
mod webhook;
mod wire;

pub use transport::{
    BASE_URL, BASE_URL_BYTES_MAX, BuildError, CAPTION_CHARS_MAX, CONNECT_TIMEOUT, CREDENTIAL_BYTES_MAX, HOSTS,
    IMAGE_BYTES_MAX, TEXT_CHARS_MAX, Whacenter, WhacenterBuilder,
};
