//! The suites that prove own stores, own transports and own buses (feature `conformance`), and the rows that they and the simulation
//! are made of.

pub mod bus;
pub mod fixtures;
pub mod store;
pub mod transport;
