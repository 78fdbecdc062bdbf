//! What can go wrong for those who use the loopback.

use std::time::Duration;

use thiserror::Error;

/// Why a device could not be linked.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum PairingError {
    /// The QR code is none of a client that waits here, or is damaged.
    #[error("the code cannot be read")]
    Unreadable,
    /// The code is not valid any more: its client has gone, or was linked with it.
    #[error("the code has expired")]
    Expired,
    /// The client did not accept, as when a wrong pairing code was typed.
    #[error("the client refused to be linked")]
    Refused,
    /// The client did not go on in time.
    #[error(transparent)]
    TooLate(#[from] TooLate),
}

/// Something that was waited for did not happen in time.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("waited {waited:?} in vain for {what}")]
pub struct TooLate {
    /// What was waited for.
    pub what: String,
    /// For how long.
    pub waited: Duration,
}

/// What a simulated person could not do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PersonError {
    /// The person's phone is not connected.
    #[error("the phone of this person is offline")]
    Offline,
    /// Something that was waited for did not happen in time.
    #[error(transparent)]
    TooLate(#[from] TooLate),
    /// The WhatsApp client of the person failed.
    #[error("the client of this person failed: {0}")]
    Client(String),
}
