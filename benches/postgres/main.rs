//! The drain of the engine on Postgres, beside the same statements by hand and beside job queues that people would use instead: in the
//! same run, interleaved, on the same private server with durable settings.
//!
//! `cargo bench --manifest-path benches/Cargo.toml --bench postgres [-- quick]`

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program that prints its results"
)]

mod apalis_queue;
#[path = "../../wa-store-postgres/benches/pipeline/by_hand.rs"]
#[allow(dead_code, reason = "the benchmark of the store needs more of it")]
mod by_hand;
#[path = "../../wa-store-postgres/benches/pipeline/engine.rs"]
#[allow(dead_code, reason = "the benchmark of the store needs more of it")]
mod engine;
mod graphile_queue;
#[path = "../../wa-store-postgres/benches/pipeline/report.rs"]
#[allow(dead_code, reason = "the benchmark of the store needs more of it")]
mod report;
#[path = "../../wa-store-postgres/tests/postgres/server.rs"]
#[allow(dead_code, reason = "the tests need more of it")]
mod server;
#[path = "../../wa-store-postgres/benches/pipeline/stage.rs"]
#[allow(dead_code, reason = "the benchmark of the store needs more of it")]
mod stage;

use serde::{Deserialize, Serialize};
use wa_store_postgres::PostgresOptions;

use self::engine::Rig;
use self::report::{Cost, median};
use self::server::Server;
use self::stage::Stage;

/// What a job of the other queues knows: as much as its message, so that its handler could send it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Job {
    /// The message.
    pub message: String,
    /// The device.
    pub device: String,
    /// To whom.
    pub phone: String,
    /// What is sent.
    pub text: String,
}

impl Job {
    fn all(stage: &Stage) -> Vec<Self> {
        let jobs = stage.messages.iter().enumerate().map(|(number, message)| Self {
            message: message.id.to_string(),
            device: message.device_id.map(|id| id.to_string()).unwrap_or_default(),
            phone: message
                .phone
                .map(|phone| phone.as_e164().to_owned())
                .unwrap_or_default(),
            text: format!("Hi Ali bin Abu {number}, buy it today"),
        });
        jobs.collect()
    }
}

const WAYS: [&str; 6] = [
    "engine, 1000 in flight",
    "engine, 64 in flight",
    "by hand, 1000 at a time",
    "by hand, 64 at a time",
    "graphile_worker 0.14",
    "apalis-postgres 1.0",
];

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let quick = std::env::args().any(|word| word == "quick");
    let (devices, messages, runs) = if quick { (1_000, 10_000, 1) } else { (1_000, 50_000, 3) };
    let server = Server::durable();
    let queued = Stage::build(&server, "queued", devices, messages, true).await;
    by_hand::enqueue(&mut by_hand::connect(&queued).await, &queued, &queued.messages).await;
    queued.settle_down().await;
    let jobs = Job::all(&queued);
    let mut seconds: [Vec<f64>; WAYS.len()] = Default::default();
    for _ in 0..runs {
        for (way, in_flight_max) in [1_000, 64].into_iter().enumerate() {
            let stage = queued.copy(&server, "run").await;
            let rig = Rig::start(&stage, messages, in_flight_max).await;
            seconds[way].push(rig.drain(&stage).await.seconds);
            stage.drop(&server).await;
        }
        for (way, rows) in [(2, 1_000), (3, 64)] {
            let stage = queued.copy(&server, "run").await;
            let mut connection = by_hand::connect(&stage).await;
            let started = Cost::so_far(&stage);
            assert_eq!(by_hand::drain(&mut connection, &stage, rows).await, messages);
            seconds[way].push(Cost::since(&stage, started).seconds);
            stage.drop(&server).await;
        }
        let stage = Stage::empty(&server, &queued, "run").await;
        seconds[4].push(graphile_queue::drain(&stage.url(), &jobs).await);
        stage.drop(&server).await;
        let stage = Stage::empty(&server, &queued, "run").await;
        seconds[5].push(apalis_queue::drain(&stage.url(), &jobs).await);
        stage.drop(&server).await;
    }
    println!(
        "{messages} messages over {devices} devices, {runs} interleaved runs; medians, and medians of the ratios of each run"
    );
    for (way, name) in WAYS.iter().enumerate() {
        let rates: Vec<f64> = seconds[way].iter().map(|seconds| messages as f64 / seconds).collect();
        let of = |other: usize| {
            let ratios: Vec<f64> = seconds[way]
                .iter()
                .zip(&seconds[other])
                .map(|(mine, other)| other / mine)
                .collect();
            median(&ratios)
        };
        println!(
            "{name:26} {:>7.0}/s; {:.2} of by hand with 1000, {:.2} of by hand with 64, {:.2} of graphile_worker, {:.2} of apalis-postgres",
            median(&rates),
            of(2),
            of(3),
            of(4),
            of(5)
        );
    }
}
