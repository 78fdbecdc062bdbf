//! The suites that prove own stores and own transports (feature `conformance`).

pub mod transport;
