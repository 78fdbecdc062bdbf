//! Reference server: API, command line and demo mode over wa-core.

pub mod access;
pub mod app;
pub mod assemble;
#[cfg(feature = "demo")]
pub mod bench;
pub mod cli;
mod clock;
pub mod csv_file;
#[cfg(feature = "demo")]
pub mod demo;
pub mod entry_csv;
mod forecasts;
pub mod http;
pub mod import;
pub mod lead_csv;
mod live;
pub mod logs;
#[cfg(feature = "demo")]
pub mod loopback;
pub mod media;
mod metered;
pub mod password;
pub mod settings;
pub mod tls;
pub mod web;
