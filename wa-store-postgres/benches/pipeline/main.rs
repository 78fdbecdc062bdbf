//! Enqueue and drain on a private server with durable settings, each beside the same work written by hand in SQL and in the
//! same run, interleaved.
//!
//! `cargo bench -p wa-store-postgres --bench pipeline [-- quick] [enqueue] [drain]`

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that prints its results"
)]

mod by_hand;
mod engine;
mod report;
#[path = "../../tests/postgres/server.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod server;
mod stage;

use wa_store_postgres::PostgresOptions;

use self::engine::Rig;
use self::report::{Compared, Cost};
use self::server::Server;
use self::stage::Stage;

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Size {
    devices: usize,
    messages: usize,
    runs: usize,
}

const FULL: Size = Size {
    devices: 1_000,
    messages: 50_000,
    runs: 3,
};

const QUICK: Size = Size {
    devices: 1_000,
    messages: 10_000,
    runs: 3,
};

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let size = if words.iter().any(|word| word == "quick") {
        QUICK
    } else {
        FULL
    };
    let only: Vec<_> = words.iter().filter(|word| *word != "quick").collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| *word == name);
    println!(
        "{} messages over {} devices, {} interleaved runs; medians (lowest to highest); processor of this process, not of the server",
        size.messages, size.devices, size.runs
    );
    let server = Server::durable();
    if wanted("enqueue") {
        enqueue(&server, size).await;
    }
    if wanted("drain") {
        drain(&server, size, "drain, rounds of 1000", 1_000).await;
        drain(&server, size, "drain, 64 in flight", 64).await;
    }
}

async fn enqueue(server: &Server, size: Size) {
    let mut compared = Compared::new("enqueue", size.messages);
    for run in 0..size.runs {
        let stage = Stage::build(
            server,
            &format!("enqueue_engine_{run}"),
            size.devices,
            size.messages,
            false,
        )
        .await;
        let store = stage.open().await;
        let messages = stage.messages.clone();
        let started = Cost::so_far(&stage);
        engine::enqueue(&store, &stage, messages).await;
        let took = Cost::since(&stage, started);
        store.close().await;
        check(&stage, [size.messages, 0]).await;

        let stage = Stage::build(
            server,
            &format!("enqueue_hand_{run}"),
            size.devices,
            size.messages,
            false,
        )
        .await;
        let mut connection = by_hand::connect(&stage).await;
        let started = Cost::so_far(&stage);
        by_hand::enqueue(&mut connection, &stage, &stage.messages).await;
        let by_hand = Cost::since(&stage, started);
        check(&stage, [size.messages, 0]).await;
        compared.add(took, by_hand);
    }
    println!("{compared}");
}

async fn drain(server: &Server, size: Size, name: &'static str, in_flight_max: usize) {
    let mut compared = Compared::new(name, size.messages);
    for run in 0..size.runs {
        let schema = format!("drain_engine_{in_flight_max}_{run}");
        let stage = Stage::build(server, &schema, size.devices, size.messages, true).await;
        let rig = Rig::start(&stage, size.messages, in_flight_max).await;
        let took = rig.drain(&stage).await;
        check(&stage, [0, size.messages]).await;

        let schema = format!("drain_hand_{in_flight_max}_{run}");
        let stage = Stage::build(server, &schema, size.devices, size.messages, true).await;
        let mut connection = by_hand::connect(&stage).await;
        let started = Cost::so_far(&stage);
        let sent = by_hand::drain(&mut connection, &stage, by_hand::ROWS.min(in_flight_max)).await;
        let by_hand = Cost::since(&stage, started);
        assert_eq!(sent, size.messages);
        check(&stage, [0, size.messages]).await;
        compared.add(took, by_hand);
    }
    println!("{compared}");
}

/// Both ways must have done the whole work: rows and tallies agree on what is queued and what is sent.
async fn check(stage: &Stage, [queued, sent]: [usize; 2]) {
    let [rows_queued, rows_sent, remaining, done] = by_hand::numbers(stage).await;
    let expected = [queued, sent].map(|count| i64::try_from(count).expect("a small number"));
    assert_eq!([rows_queued, rows_sent], expected, "rows");
    assert_eq!([remaining, done], expected, "tallies");
}
