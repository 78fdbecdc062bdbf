//! Integration tests of wa-core.

mod bus;
mod forecast;
mod sequences;
mod simulation;
mod smoke;
mod store_conformance;
