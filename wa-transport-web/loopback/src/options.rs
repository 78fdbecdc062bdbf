//! What a loopback server is started with.

use std::time::Duration;

/// What a loopback server is started with; [`Options::new`] fits most tests.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Every key that the server and its people have is drawn from this number, so that two processes that know it
    /// agree on them. Default 1.
    pub seed: u64,
    /// Records kept for the tests; older ones are dropped. Default 1,000,000.
    pub journal_max: usize,
    /// Stanzas kept for one device that is offline or has not acknowledged them; older ones are dropped. Default 100,000.
    pub offline_max: usize,
    /// Stanzas waiting to be written to one connection; a client that reads no faster is disconnected. More than
    /// `offline_max`, because a backlog is written at once. Default 200,000.
    pub outbound_max: usize,
    /// Files kept by the media server, all together, in bytes; the oldest are dropped. Default 256 MiB.
    pub media_max_bytes: usize,
    /// Whether a message that comes a second time with the same id is acknowledged and not delivered again, as
    /// WhatsApp is reported to do. Default true.
    pub drop_repeated: bool,
    /// Whether new accounts address one another by LID. Default false: by phone number, the LID is told beside it.
    pub lid_migrated: bool,
    /// Whether a device whose keys follow from the seed may log in although nobody made it here before, as is needed
    /// when server and clients are different processes. Default false.
    pub admit_seeded: bool,
    /// How long a connection may take over its handshake before it is closed. Default 20 s.
    pub handshake_for: Duration,
}

impl Options {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            seed: 1,
            journal_max: 1_000_000,
            offline_max: 100_000,
            outbound_max: 200_000,
            media_max_bytes: 256 << 20,
            drop_repeated: true,
            lid_migrated: false,
            admit_seeded: false,
            handshake_for: Duration::from_secs(20),
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Self::new()
    }
}
