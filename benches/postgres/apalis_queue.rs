//! `apalis-postgres` with large batches, jobs run in tasks of their own, and a short poll interval; everything else as it comes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_postgres::{Config, PostgresStorage};
use sqlx::postgres::PgPoolOptions;

use crate::Job;

/// Connections, as the store of the engine has them.
const CONNECTIONS: u32 = 10;
/// Jobs that are fetched together.
const BATCH: usize = 1_000;

type Done = Arc<AtomicUsize>;

async fn send(_job: Job, done: Data<Done>) -> Result<(), BoxDynError> {
    done.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

/// Seconds until every job is recorded as done.
pub async fn drain(url: &str, jobs: &[Job]) -> f64 {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect(url)
        .await
        .unwrap();
    PostgresStorage::setup(&pool).await.unwrap();
    let config = Config::default().queue("bench").batch_size(BATCH);
    let mut backend = PostgresStorage::<Job>::new(&pool).with_config(config);
    for page in jobs.chunks(BATCH) {
        backend.push_bulk(page.to_vec()).await.unwrap();
    }
    crate::stage::settle_down(&pool).await;
    // What is due this second is not fetched before the next.
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
        let left = "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'";
        while sqlx::query_scalar::<_, i64>(left).fetch_one(&pool).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
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
