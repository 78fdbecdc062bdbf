//! Reference server: API, command line and demo mode over wa-core.

pub mod loopback;
