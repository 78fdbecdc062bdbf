//! The suites that prove own stores and own transports (feature `conformance`), and the rows that they and the simulation
//! are made of.

pub mod fixtures;
pub mod store;
pub mod transport;
