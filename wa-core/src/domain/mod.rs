//! Plain data and rules: no input or output, no async.

pub mod content;
pub mod lane;
pub mod pacing;
pub mod phone;
pub mod schedule;
pub mod token;
