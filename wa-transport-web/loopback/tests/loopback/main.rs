//! The loopback seen by real clients. What needs a client that is not linked yet runs with the feature `pairing` alone.

mod faults;
mod messages;
#[cfg(feature = "pairing")]
mod pairing;
mod support;
