//! The server from outside: its router and its binary, called as clients call them, with gateways on loopback.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "what cannot go on fails the test, and what was counted is shown"
)]

#[macro_use]
mod support;

mod access;
mod api;
mod archive;
mod bench;
mod chats;
#[path = "../../../wa-transport-web/tests/web/clock.rs"]
mod clock;
mod first_campaign;
mod forecasts;
mod import_while_sending;
mod kill_loop;
mod linked;
mod linked_campaign;
mod linked_kills;
mod linked_misuse;
mod linked_soak;
mod live;
mod nodes;
mod play;
mod pool;
#[path = "../../../wa-store-postgres/tests/postgres/server.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod postgres;
mod redaction;
#[allow(dead_code, reason = "other tests need more of it")]
#[path = "../../../wa-bus-redis/tests/redis/server.rs"]
mod redis;
mod restrictions;
mod sequence_kills;
mod sequences;
mod server_process;
mod shape;
mod stop_races;
mod uploads;
mod work;

// What the support for Postgres, which belongs to its store, names so.
use wa_store_postgres::PostgresOptions;
