//! Enqueue, audience expansion and drain on a private server with durable settings, each beside the same work written by hand in SQL
//! and in the same run, interleaved; and begins over a large history and backlog beside those over a small one.
//!
//! `cargo bench -p wa-store-postgres --bench pipeline [-- quick | full] [enqueue] [drain] [expand] [wal] [scale] [pace]`

#![allow(
    missing_docs,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that prints its results"
)]

mod by_hand;
mod engine;
#[path = "../../tests/postgres/large.rs"]
mod large;
#[path = "../../../wa-core/benches/lanes/pace.rs"]
mod pace;
mod report;
mod scale;
#[path = "../../tests/postgres/server.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod server;
mod stage;
mod wal;

use std::sync::Arc;
use std::time::Duration;

use wa_store_postgres::{PostgresOptions, PostgresStore};

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
    leads: usize,
    history: usize,
    open: usize,
    begins: usize,
}

const FULL: Size = Size {
    devices: 1_000,
    messages: 50_000,
    runs: 3,
    leads: 100_000,
    history: 1_000_000,
    open: 100_000,
    begins: 200,
};

const QUICK: Size = Size {
    devices: 1_000,
    messages: 10_000,
    runs: 3,
    leads: 20_000,
    history: 100_000,
    open: 20_000,
    begins: 50,
};

/// How long lanes keep their pace while they are watched.
const PACE_FOR: Duration = Duration::from_secs(60);
/// What the history and the backlog of `scale` are with `full`.
const HUGE: [usize; 2] = [10_000_000, 1_000_000];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let said = |wanted: &str| words.iter().any(|word| word == wanted);
    let mut size = if said("quick") { QUICK } else { FULL };
    if said("full") {
        [size.history, size.open] = HUGE;
    }
    let only: Vec<_> = words
        .iter()
        .filter(|word| !["quick", "full"].contains(&word.as_str()))
        .collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| *word == name);
    println!(
        "{} messages over {} devices, {} interleaved runs; medians (lowest to highest); processor of this process, not of the server",
        size.messages, size.devices, size.runs
    );
    let server = Server::durable();
    if wanted("enqueue") || wanted("drain") {
        let stage = Stage::build(&server, "leads", size.devices, size.messages, true).await;
        if wanted("enqueue") {
            enqueue(&server, &stage, size).await;
        }
        if wanted("drain") {
            by_hand::enqueue(&mut by_hand::connect(&stage).await, &stage, &stage.messages).await;
            stage.settle_down().await;
            drain(&server, &stage, size).await;
        }
    }
    if wanted("expand") {
        expand(&server, size).await;
    }
    if wanted("wal") {
        wal::measure(&server, size.devices).await;
    }
    if wanted("scale") {
        scale::compare(&server, size).await;
    }
    if wanted("pace") {
        let options = PostgresOptions::url(server.url()).schema("pace");
        let store = PostgresStore::open(options).await.expect("the database opens");
        pace::measure("Postgres", Arc::new(store), PACE_FOR).await;
    }
}

async fn enqueue(server: &Server, leads: &Stage, size: Size) {
    let mut compared = Compared::new("enqueue", size.messages);
    for _ in 0..size.runs {
        let stage = leads.copy(server, "run").await;
        let store = stage.open().await;
        let messages = stage.messages.to_vec();
        let started = Cost::so_far(&stage);
        engine::enqueue(&store, &stage, messages).await;
        let took = Cost::since(&stage, started);
        store.close().await;
        check(&stage, [size.messages, 0]).await;
        stage.drop(server).await;

        let stage = leads.copy(server, "run").await;
        let mut connection = by_hand::connect(&stage).await;
        let started = Cost::so_far(&stage);
        by_hand::enqueue(&mut connection, &stage, &stage.messages).await;
        let by_hand = Cost::since(&stage, started);
        check(&stage, [size.messages, 0]).await;
        stage.drop(server).await;
        compared.add(took, by_hand);
    }
    println!("{compared}");
}

/// Expansion of an audience beside COPY of the very rows that it gives, without anything that finds out what they are.
async fn expand(server: &Server, size: Size) {
    let leads = Stage::build(server, "audience", size.devices, size.leads, false).await;
    let mut compared = Compared::new("expansion beside COPY", size.leads);
    for _ in 0..size.runs {
        let stage = leads.copy(server, "run").await;
        let rig = Rig::start(&stage, 0, 64).await;
        let started = Cost::so_far(&stage);
        rig.plan().await;
        let took = Cost::since(&stage, started);
        drop(rig.engine);
        rig.store.close().await;
        check(&stage, [size.leads, 0]).await;
        let rows = by_hand::copy_out(&mut by_hand::connect(&stage).await).await;
        stage.drop(server).await;

        let stage = leads.copy(server, "run").await;
        let mut connection = by_hand::connect(&stage).await;
        let started = Cost::so_far(&stage);
        by_hand::copy_in(&mut connection, rows).await;
        let by_hand = Cost::since(&stage, started);
        check(&stage, [size.leads, 0]).await;
        stage.drop(server).await;
        compared.add(took, by_hand);
    }
    println!("{compared}");
}

async fn drain(server: &Server, queued: &Stage, size: Size) {
    // By hand the largest batches that there are, and those of a gateway at its default limit.
    let ways = [
        ("drain, 1000 in flight", 1_000, by_hand::ROWS),
        ("drain, 64 in flight", 64, by_hand::ROWS),
        ("drain, 64 in both", 64, 64),
    ];
    for (name, in_flight_max, rows) in ways {
        let mut compared = Compared::new(name, size.messages);
        for _ in 0..size.runs {
            let stage = queued.copy(server, "run").await;
            let rig = Rig::start(&stage, size.messages, in_flight_max).await;
            let took = rig.drain(&stage).await;
            check(&stage, [0, size.messages]).await;
            stage.drop(server).await;

            let stage = queued.copy(server, "run").await;
            let mut connection = by_hand::connect(&stage).await;
            let started = Cost::so_far(&stage);
            let sent = by_hand::drain(&mut connection, &stage, rows).await;
            let by_hand = Cost::since(&stage, started);
            assert_eq!(sent, size.messages);
            check(&stage, [0, size.messages]).await;
            stage.drop(server).await;
            compared.add(took, by_hand);
        }
        println!("{compared}");
    }
}

/// Both ways must have done the whole work: rows and tallies agree on what is queued and what is sent.
async fn check(stage: &Stage, [queued, sent]: [usize; 2]) {
    let [rows_queued, rows_sent, remaining, done] = by_hand::numbers(stage).await;
    let expected = [queued, sent].map(|count| i64::try_from(count).expect("a small number"));
    assert_eq!([rows_queued, rows_sent], expected, "rows");
    assert_eq!([remaining, done], expected, "tallies");
}
