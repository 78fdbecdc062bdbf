//! Integration tests of wa-core.

mod forecast;
mod sequences;
mod simulation;
mod smoke;
mod store_conformance;
