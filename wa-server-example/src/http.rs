//! The API: thin handlers over the engine's handle.

pub mod auth;
pub mod envelope;
pub mod error;
pub mod extract;
pub mod health;
pub mod layers;
pub mod limit;
pub mod metrics;
pub mod openapi;
pub mod router;
mod view;
pub mod workers;
