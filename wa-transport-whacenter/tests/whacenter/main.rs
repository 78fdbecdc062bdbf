//! The Whacenter transport against recorded answers on loopback.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod conformance;
mod connection;
mod probe;
mod rig;
mod send;
mod shown;
mod webhook;
