//! How a bus is started.

use std::fmt;

use secrecy::SecretString;

/// How a [`RedisBus`](crate::RedisBus) is started.
#[derive(Clone)]
#[must_use]
pub struct RedisOptions {
    pub(crate) url: SecretString,
    pub(crate) channel: String,
}

impl fmt::Debug for RedisOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisOptions")
            .field("channel", &self.channel)
            .finish_non_exhaustive()
    }
}

impl RedisOptions {
    /// The channel by default.
    pub const CHANNEL: &'static str = "wa";

    /// A Redis by its address: `redis://user:password@host:port/`, `rediss://…` with TLS, `redis+unix:///path` for a socket.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            url: SecretString::from(url.into()),
            channel: Self::CHANNEL.to_owned(),
        }
    }

    /// The channel; installations that share a Redis need one each.
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }
}
