//! The real router on loopback, called as clients call it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod access;
mod shape;
mod support;
