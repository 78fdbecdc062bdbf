//! Nothing: this crate is its benchmarks.
