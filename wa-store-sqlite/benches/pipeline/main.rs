//! Enqueue, audience expansion, drain and enrolments on a file database, each beside the same work written by hand in SQL and
//! in the same run, interleaved; and begins and steps of sequences over a large backlog beside those over a small one.
//!
//! `cargo bench -p wa-store-sqlite --bench pipeline [-- quick | short] [enqueue] [expand] [drain] [begin] [enrol] [scale] [pace]`

#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints its results")]

mod begin;
mod by_hand;
mod engine;
mod enrol;
mod fill;
#[path = "../../../wa-core/benches/lanes/pace.rs"]
mod pace;
mod report;
mod scale;
mod stage;

use std::sync::Arc;
use std::time::Duration;

use sqlx::Connection;

use self::engine::Rig;
use self::report::{Compared, Cost};
use self::stage::{Folder, Stage, open};

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Size {
    devices: usize,
    messages: usize,
    runs: usize,
    backlog: usize,
    begins: usize,
    leads: usize,
}

const FULL: Size = Size {
    devices: 1_000,
    messages: 50_000,
    runs: 5,
    backlog: 1_000_000,
    begins: 200,
    leads: 100_000,
};

const QUICK: Size = Size {
    devices: 1_000,
    messages: 10_000,
    runs: 3,
    backlog: 100_000,
    begins: 50,
    leads: 20_000,
};

/// As many messages as beside `apalis-sqlite`, so often that little differences show.
const SHORT: Size = Size {
    messages: 5_000,
    runs: 20,
    ..QUICK
};

/// How long lanes keep their pace while they are watched.
const PACE_FOR: Duration = Duration::from_secs(60);

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let said = |wanted: &str| words.iter().any(|word| word == wanted);
    let size = match (said("quick"), said("short")) {
        (true, _) => QUICK,
        (_, true) => SHORT,
        _ => FULL,
    };
    let only: Vec<_> = words
        .iter()
        .filter(|word| !["quick", "short"].contains(&word.as_str()))
        .collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|word| *word == name);
    println!(
        "{} messages over {} devices, {} interleaved runs; medians (lowest to highest)",
        size.messages, size.devices, size.runs
    );
    let folder = Folder::new("pipeline");
    if wanted("enqueue") || wanted("expand") {
        let stage = Stage::build(&folder, "leads", size.devices, size.messages, false).await;
        if wanted("enqueue") {
            enqueue(&folder, &stage, size).await;
        }
        if wanted("expand") {
            expand(&folder, &stage, size).await;
        }
    }
    if wanted("drain") {
        let stage = Stage::build(&folder, "queued", size.devices, size.messages, true).await;
        fill(&stage).await;
        drain(&folder, &stage, size).await;
    }
    if wanted("begin") {
        begin::compare(&folder, size.devices, size.backlog, size.begins).await;
    }
    if wanted("enrol") {
        enrol::compare(&folder, size.devices, size.leads, size.runs.min(3)).await;
    }
    if wanted("scale") {
        scale::compare(&folder, size.devices, size.backlog, size.begins).await;
    }
    if wanted("pace") {
        let store = open(&folder.file("pace")).await;
        pace::measure("SQLite", Arc::new(store), PACE_FOR).await;
    }
}

/// Queues the stage's messages in the database that is copied.
async fn fill(stage: &Stage) {
    let mut connection = by_hand::connect(stage.file()).await;
    by_hand::enqueue(&mut connection, &stage.messages).await;
    connection.close().await.expect("the database closes");
    by_hand::checkpoint(stage.file()).await;
}

async fn enqueue_by_hand(folder: &Folder, stage: &Stage) -> Cost {
    let file = stage.copy(folder, "hand");
    let mut connection = by_hand::connect(&file).await;
    let started = Cost::so_far(stage);
    by_hand::enqueue(&mut connection, &stage.messages).await;
    let took = Cost::since(stage, started);
    connection.close().await.expect("the database closes");
    check(&file, [stage.messages.len(), 0]).await;
    took
}

async fn enqueue(folder: &Folder, stage: &Stage, size: Size) {
    let mut compared = Compared::new("enqueue", size.messages);
    for _ in 0..size.runs {
        let file = stage.copy(folder, "engine");
        let store = open(&file).await;
        let messages = stage.messages.clone();
        let started = Cost::so_far(stage);
        engine::enqueue(&store, stage, messages).await;
        let took = Cost::since(stage, started);
        store.close().await;
        check(&file, [size.messages, 0]).await;
        compared.add(took, enqueue_by_hand(folder, stage).await);
    }
    println!("{compared}");
}

async fn expand(folder: &Folder, stage: &Stage, size: Size) {
    let mut compared = Compared::new("expansion", size.messages);
    for _ in 0..size.runs {
        let file = stage.copy(folder, "engine");
        let rig = Rig::start(&file, stage, 0, 64).await;
        let started = Cost::so_far(stage);
        rig.plan().await;
        let took = Cost::since(stage, started);
        drop(rig.engine);
        rig.store.close().await;
        check(&file, [size.messages, 0]).await;
        compared.add(took, enqueue_by_hand(folder, stage).await);
    }
    println!("{compared}");
}

async fn drain(folder: &Folder, stage: &Stage, size: Size) {
    // By hand the largest batches that there are, and those of a gateway at its default limit.
    let ways = [
        ("drain, rounds of 1000", 1_000, by_hand::ROWS),
        ("drain, 64 in flight", 64, by_hand::ROWS),
        ("drain, 64 in both", 64, 64),
    ];
    for (name, in_flight_max, rows) in ways {
        let mut compared = Compared::new(name, size.messages);
        for _ in 0..size.runs {
            let file = stage.copy(folder, "engine");
            let rig = Rig::start(&file, stage, size.messages, in_flight_max).await;
            let took = rig.drain(stage).await;
            check(&file, [0, size.messages]).await;

            let file = stage.copy(folder, "hand");
            let mut connection = by_hand::connect(&file).await;
            let started = Cost::so_far(stage);
            let sent = by_hand::drain(&mut connection, stage, rows).await;
            let by_hand = Cost::since(stage, started);
            connection.close().await.expect("the database closes");
            assert_eq!(sent, size.messages);
            check(&file, [0, size.messages]).await;
            compared.add(took, by_hand);
        }
        println!("{compared}");
    }
}

/// Both ways must have done the whole work: rows and tallies agree on what is queued and what is sent.
async fn check(file: &std::path::Path, [queued, sent]: [usize; 2]) {
    let [rows_queued, rows_sent, remaining, done] = by_hand::numbers(file).await;
    let expected = [queued, sent].map(|count| i64::try_from(count).expect("a small number"));
    assert_eq!([rows_queued, rows_sent], expected, "rows");
    assert_eq!([remaining, done], expected, "tallies");
}
