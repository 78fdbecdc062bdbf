//! Devices that are linked, disconnected, logged out and linked again over HTTP alone, on SQLite and on Postgres.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod chats;
#[path = "../../../../wa-transport-web/tests/web/clock.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod clock;
mod devices;
#[path = "../../../../wa-store-postgres/tests/postgres/server.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod postgres;
mod site;
#[path = "../../../tests/server/support.rs"]
#[allow(dead_code, unused_macros, reason = "other tests need more of it")]
mod support;

// What the support for Postgres, which belongs to its store, names so.
use wa_store_postgres::PostgresOptions;
