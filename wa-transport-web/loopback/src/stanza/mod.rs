//! What the server does with each kind of stanza.

mod message;
pub(crate) mod pairing;
mod prekey;
mod query;
mod receipt;
mod usync;
