//! Engine that sends WhatsApp campaigns through many devices: nothing lost, nothing doubled, at a human pace.

pub mod domain;
pub mod engine;
pub mod id;
pub mod seed;
pub mod time;
