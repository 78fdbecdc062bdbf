//! Integration tests of wa-core.

mod sequences;
mod simulation;
mod smoke;
mod store_conformance;
