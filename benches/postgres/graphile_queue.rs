//! `graphile_worker` with what its documentation offers for throughput (a local queue, batched completions, high concurrency), as its
//! own benchmark sets it. It deletes a job that is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use graphile_worker::{
    IntoTaskHandlerResult, JobSpec, LocalQueueConfig, RawJobSpec, TaskHandler, WorkerContext, WorkerOptions,
};
use sqlx::postgres::PgPoolOptions;

use crate::Job;

/// Connections, as the store of the engine has them.
const CONNECTIONS: u32 = 10;
/// Jobs that are added with one statement.
const PAGE: usize = 5_000;

#[derive(Clone, Debug)]
struct Done(Arc<AtomicUsize>);

impl TaskHandler for Job {
    const IDENTIFIER: &'static str = "send";

    async fn run(self, context: WorkerContext) -> impl IntoTaskHandlerResult {
        if let Some(done) = context.get_ext::<Done>() {
            done.0.fetch_add(1, Ordering::Relaxed);
        }
        Ok::<(), String>(())
    }
}

/// Seconds until no job is left.
pub async fn drain(url: &str, jobs: &[Job]) -> f64 {
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .connect(url)
        .await
        .unwrap();
    let done = Done(Arc::default());
    let worker = WorkerOptions::default()
        .concurrency(500)
        .poll_interval(Duration::from_millis(5))
        .complete_job_batch_delay(Duration::from_millis(5))
        .local_queue(LocalQueueConfig::default().with_size(5_000))
        .add_extension(done.clone())
        .define_job::<Job>()
        .pg_pool(pool.clone())
        .init()
        .await
        .unwrap();
    let utils = worker.create_utils();
    for page in jobs.chunks(PAGE) {
        let page: Vec<RawJobSpec> = page
            .iter()
            .map(|job| RawJobSpec {
                identifier: "send".to_owned(),
                payload: serde_json::to_value(job).unwrap(),
                spec: JobSpec::default(),
            })
            .collect();
        utils.add_raw_jobs(&page).await.unwrap();
    }
    crate::stage::settle_down(&pool).await;
    let worker = Arc::new(worker);
    let started = Instant::now();
    let running = tokio::spawn({
        let worker = worker.clone();
        async move { worker.run().await.unwrap() }
    });
    while done.0.load(Ordering::Relaxed) < jobs.len() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let left = "SELECT count(*) FROM graphile_worker._private_jobs";
    while sqlx::query_scalar::<_, i64>(left).fetch_one(&pool).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let took = started.elapsed().as_secs_f64();
    worker.request_shutdown();
    running.await.unwrap();
    pool.close().await;
    took
}
