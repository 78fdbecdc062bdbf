//! The drain of the engine on SQLite with its default durability, beside the same statements by hand and beside `apalis-sqlite`, in the
//! same run, interleaved.
//!
//! `cargo bench --manifest-path benches/Cargo.toml --bench sqlite`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that prints its results"
)]

#[path = "../../wa-store-sqlite/benches/pipeline/by_hand.rs"]
#[allow(dead_code, reason = "the benchmark of the store needs more of it")]
mod by_hand;
#[path = "../../wa-store-sqlite/benches/pipeline/engine.rs"]
#[allow(dead_code, reason = "the benchmark of the store needs more of it")]
mod engine;
#[path = "../../wa-store-sqlite/benches/pipeline/fill.rs"]
#[allow(dead_code, reason = "the benchmark of the store needs more of it")]
mod fill;
#[path = "../../wa-store-sqlite/benches/pipeline/report.rs"]
#[allow(dead_code, reason = "the benchmark of the store needs more of it")]
mod report;
#[path = "../../wa-store-sqlite/benches/pipeline/stage.rs"]
#[allow(dead_code, reason = "the benchmark of the store needs more of it")]
mod stage;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteStorage};
use serde::{Deserialize, Serialize};
use sqlx::Connection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};

use self::engine::Rig;
use self::report::{Cost, median};
use self::stage::{Folder, Stage};

/// Messages, and jobs of the other queue.
const MESSAGES: usize = 5_000;
/// Over so many devices.
const DEVICES: usize = 1_000;
const RUNS: usize = 6;

/// What is compared.
#[derive(Debug, Clone, Copy)]
enum Way {
    Engine,
    ByHand,
    Apalis,
}

/// The orders in which they run, one after the other.
const ORDERS: [[Way; 3]; 6] = {
    use Way::{Apalis, ByHand, Engine};
    [
        [Engine, ByHand, Apalis],
        [ByHand, Engine, Apalis],
        [Engine, Apalis, ByHand],
        [ByHand, Apalis, Engine],
        [Apalis, Engine, ByHand],
        [Apalis, ByHand, Engine],
    ]
};
/// Jobs that are fetched together.
const BATCH: usize = 1_000;

/// What a job knows: as much as its message.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Job {
    message: String,
    device: String,
    phone: String,
    text: String,
}

type Done = Arc<AtomicUsize>;

async fn send(_job: Job, done: Data<Done>) -> Result<(), BoxDynError> {
    done.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Seconds until every job is recorded as done; the file is as durable as the store's.
async fn apalis(file: &Path, jobs: &[Job]) -> f64 {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(30));
    let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
    SqliteStorage::setup(&pool).await.unwrap();
    let config = Config::default().queue("bench").batch_size(BATCH);
    let mut backend = SqliteStorage::<Job>::new(&pool).with_config(config);
    for page in jobs.chunks(BATCH) {
        backend.push_bulk(page.to_vec()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let done = Done::default();
    let started = Instant::now();
    let context = WorkerContext::new("bench");
    let worker = WorkerBuilder::new(&context)
        .backend(backend)
        .data(done.clone())
        .parallelize(tokio::spawn)
        .build(send);
    let watch = async {
        while done.load(Ordering::Relaxed) < jobs.len() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let left = "SELECT count(*) FROM jobs WHERE status <> 'Done'";
        while sqlx::query_scalar::<_, i64>(left).fetch_one(&pool).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let took = started.elapsed().as_secs_f64();
        context.stop().unwrap();
        took
    };
    let (ran, took) = futures::join!(worker.run(), watch);
    ran.unwrap();
    pool.close().await;
    took
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let folder = Folder::new("others");
    let stage = Stage::build(&folder, "queued", DEVICES, MESSAGES, true).await;
    let mut connection = by_hand::connect(stage.file()).await;
    by_hand::enqueue(&mut connection, &stage.messages).await;
    connection.close().await.unwrap();
    by_hand::checkpoint(stage.file()).await;
    let jobs: Vec<Job> = (0..MESSAGES)
        .map(|number| Job {
            message: format!("{number:032}"),
            device: format!("{:032}", number % DEVICES),
            phone: format!("+6012{number:07}"),
            text: format!("Hi Ali bin Abu {number}, buy it today"),
        })
        .collect();
    let mut seconds: [Vec<f64>; 3] = Default::default();
    for run in 0..RUNS {
        // Each follows each of the others equally often, because what ran before leaves caches and a disk behind.
        for way in ORDERS[run % ORDERS.len()] {
            let took = match way {
                Way::Engine => {
                    let file = stage.copy(&folder, "engine");
                    let rig = Rig::start(&file, &stage, MESSAGES, 1_000).await;
                    rig.drain(&stage).await.seconds
                }
                Way::ByHand => {
                    let file = stage.copy(&folder, "hand");
                    let mut connection = by_hand::connect(&file).await;
                    let started = Cost::so_far(&stage);
                    assert_eq!(by_hand::drain(&mut connection, &stage, by_hand::ROWS).await, MESSAGES);
                    let took = Cost::since(&stage, started);
                    connection.close().await.unwrap();
                    took.seconds
                }
                Way::Apalis => {
                    let file = stage.file().with_file_name(format!("apalis-{run}.db"));
                    apalis(&file, &jobs).await
                }
            };
            println!("{run} {way:?} {:.1} ms", took * 1e3);
            seconds[way as usize].push(took);
        }
    }
    println!(
        "{MESSAGES} messages over {DEVICES} devices, {RUNS} interleaved runs; medians, and medians of the ratios of each run"
    );
    for (way, name) in ["engine", "by hand", "apalis-sqlite 1.0"].iter().enumerate() {
        let rates: Vec<f64> = seconds[way].iter().map(|seconds| MESSAGES as f64 / seconds).collect();
        let of = |other: usize| {
            let ratios: Vec<f64> = seconds[way]
                .iter()
                .zip(&seconds[other])
                .map(|(mine, other)| other / mine)
                .collect();
            median(&ratios)
        };
        println!(
            "{name:18} {:>7.0}/s; {:.2} of by hand, {:.1} of apalis-sqlite",
            median(&rates),
            of(1),
            of(2)
        );
    }
}
