//! Integration tests of wa-core.

mod simulation;
mod smoke;
mod store_conformance;
