//! Small runnable programs for embedders, each in `src/bin`: `cargo run -p wa-examples --bin embed`.
#![doc = include_str!("../../README.md")]
