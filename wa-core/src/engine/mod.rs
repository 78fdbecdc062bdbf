//! The engine: plain operations over the ports, which say when there is next something to do.

pub mod config;
pub mod core;
pub mod timers;
pub mod wake;
