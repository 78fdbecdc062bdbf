//! What can be set.

use std::time::Duration;

use crate::version::WebVersion;

/// What can be set; the defaults suit a server with a few thousand devices.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct WebOptions {
    /// The version of WhatsApp Web; without it WhatsApp is asked once a day for all devices.
    pub version: Option<WebVersion>,
    /// What the phone shows as the linked device's system; a real name, since pair codes are refused for others.
    pub system: String,
    /// How long the server's answer to a message is waited for; then the message may have been sent.
    pub ack_within: Duration,
    /// How long "typing" is shown before a message; not at all by default.
    pub typing_for: Option<Duration>,
    /// Whether numbers are checked before their first message.
    pub check_numbers: bool,
    /// How long a number that is on WhatsApp is not checked again, up to a seventh longer on a connection that lasts; one that is not
    /// is checked again after a seventh of it.
    pub numbers_kept_for: Duration,
    /// Most numbers that WhatsApp is asked for at once before a message, its own and those of the messages after it: up to 100, which
    /// also stands for more; 0 or 1 for its own alone.
    pub numbers_at_once: u32,
    /// How far apart a connection's questions for numbers are at least.
    pub numbers_every: Duration,
    /// How long an uploaded picture is used for further messages.
    pub uploads_kept_for: Duration,
    /// How long a picture that could not be uploaded is not tried again, whichever messages want it.
    pub upload_again_after: Duration,
    /// How often a linked device without a connection is tried again.
    pub retry_every: Duration,
    /// How long a connection may be away before the device counts as offline.
    pub offline_after: Duration,
    /// Most connections that are being opened at once.
    pub connects_at_once: usize,
    /// Most connections that are opened in a second.
    pub connects_per_second: u32,
    /// How often WhatsApp is asked for the limits of an account while there are any; when a device connects, a message is refused or
    /// WhatsApp says that something changed, it is asked at once.
    pub limits_every: Duration,
    /// How long a client that lost its connection waits for its turn to open another, less than 15 s; where that is longer, the
    /// device waits for it and starts a new client then.
    pub turn_within: Duration,
    /// One-time keys that a device offers; WhatsApp Web offers 812, whose making costs ten times as much.
    pub prekeys: usize,
}

impl Default for WebOptions {
    fn default() -> Self {
        Self {
            version: None,
            system: "Windows".to_owned(),
            ack_within: Duration::from_secs(30),
            typing_for: None,
            check_numbers: true,
            numbers_kept_for: Duration::from_secs(7 * 24 * 60 * 60),
            numbers_at_once: 50,
            numbers_every: Duration::from_secs(1),
            uploads_kept_for: Duration::from_secs(3 * 24 * 60 * 60),
            upload_again_after: Duration::from_secs(30),
            retry_every: Duration::from_secs(15 * 60),
            offline_after: Duration::from_secs(15),
            connects_at_once: 50,
            connects_per_second: 20,
            turn_within: Duration::from_secs(10),
            limits_every: Duration::from_secs(60 * 60),
            prekeys: 50,
        }
    }
}
