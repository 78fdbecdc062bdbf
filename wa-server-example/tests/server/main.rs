//! The server from outside: its router and its binary, called as clients call them, with gateways on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what cannot go on fails the test, and what was counted is shown"
)]

mod access;
mod kill_loop;
mod server_process;
mod shape;
mod support;
