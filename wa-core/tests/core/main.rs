//! Tests of wa-core from outside.

mod store_conformance;
