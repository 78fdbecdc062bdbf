//! The server from outside: its router and its binary, called as clients call them, with gateways on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what cannot go on fails the test, and what was counted is shown"
)]

mod access;
mod api;
mod first_campaign;
mod forecasts;
mod import_while_sending;
mod kill_loop;
mod play;
mod pool;
mod redaction;
mod sequence_kills;
mod sequences;
mod server_process;
mod shape;
mod stop_races;
mod support;
mod uploads;
mod work;
