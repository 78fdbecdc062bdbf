//! Engine that sends WhatsApp campaigns through many devices: nothing lost, nothing doubled, at a human pace.

pub mod antispam;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod domain;
pub mod engine;
pub mod event;
pub mod id;
pub mod media;
pub mod plan;
pub mod seed;
pub mod simulation;
pub mod store;
pub mod time;
pub mod transport;
