//! The API: thin handlers over the engine's handle.

pub mod auth;
pub mod campaigns;
mod csv_out;
pub mod devices;
pub mod envelope;
pub mod error;
pub mod extract;
pub mod gateway_hooks;
pub mod health;
pub mod history;
pub mod imports;
pub mod layers;
pub mod lead_webhook;
pub mod leads;
pub mod limit;
pub mod messages;
pub mod metrics;
pub mod openapi;
pub mod pictures;
pub mod router;
pub mod sequence_contacts;
pub mod sequences;
pub mod suppressions;
pub mod templates;
pub mod users;
pub mod view;
pub mod workers;
