//! The loopback seen by real clients. What needs a client that is not linked yet runs with the feature `pairing` alone.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod faults;
mod media;
mod messages;
#[cfg(feature = "pairing")]
mod pairing;
mod restrictions;
mod support;
