//! Plain data and rules: no I/O, nothing asynchronous.

pub mod access;
pub mod audience;
pub mod campaign;
pub mod chat;
pub mod command;
pub mod content;
pub mod delivery;
pub mod device;
pub mod enrolment;
pub mod lane;
pub mod lead;
pub mod message;
pub mod pacing;
pub mod phone;
pub mod platform;
pub mod restriction;
pub mod saved_text;
pub mod schedule;
pub mod sequence;
pub mod summary;
pub mod suppression;
pub mod token;
pub mod warmth;
