//! Begins and settlements over a large history and a large backlog, beside those over small ones.

use crate::Size;
use crate::large::{BATCH, Sender, fill, pages};
use crate::report::median;
use crate::server::Server;
use crate::stage::Stage;

/// Batches by which pages are counted.
const PAGES_STEPS: usize = 20;
/// The small history and the small backlog.
const SMALL: usize = 10_000;

/// A database with so many closed and so many queued messages.
async fn filled(server: &Server, name: &str, devices: usize, rows: [usize; 2]) -> Stage {
    let stage = Stage::build(server, name, devices, 0, true).await;
    fill(&stage.url(), stage.campaign, stage.now, rows).await;
    stage.settle_down().await;
    stage
}

/// Milliseconds of each look, begin and settlement.
type Times = [Vec<f64>; 3];

async fn step(stage: &Stage, sender: &Sender, step: usize, times: &mut Times) {
    let milliseconds = || stage.seconds() * 1_000.0;
    let start = milliseconds();
    let heads = sender.look(step).await;
    let looked = milliseconds();
    let items = sender.begin(&heads).await;
    let begun = milliseconds();
    sender.settle(&items).await;
    let settled = milliseconds();
    for (times, took) in times.iter_mut().zip([looked - start, begun - looked, settled - begun]) {
        times.push(took);
    }
}

/// Begins in turn on small and on large tables, and prints how the medians compare.
pub async fn compare(server: &Server, size: Size) {
    let stages = [
        filled(server, "small", size.devices, [SMALL, SMALL]).await,
        filled(server, "large", size.devices, [size.history, size.open]).await,
    ];
    println!(
        "{} interleaved rounds of {BATCH} messages, {SMALL} closed and as many queued against {} and {}; medians",
        size.begins, size.history, size.open
    );
    let mut touched = Vec::new();
    for stage in &stages {
        touched.push(pages(&stage.url(), stage.now, PAGES_STEPS).await);
    }
    let small = Sender::start(stages[0].open().await, stages[0].now, 2).await;
    let large = Sender::start(stages[1].open().await, stages[1].now, 2).await;
    let (mut few, mut many) = (Times::default(), Times::default());
    for round in 0..size.begins {
        step(&stages[0], &small, round, &mut few).await;
        step(&stages[1], &large, round, &mut many).await;
    }
    for (at, name) in ["due", "begin", "settle"].into_iter().enumerate() {
        let (few, many) = (median(&few[at]), median(&many[at]));
        let (few_pages, many_pages) = (touched[0][at], touched[1][at]);
        println!(
            "{name:22} {few:.2} ms against {many:.2} ms: {:.2} times; {few_pages:.1} pages a message against {many_pages:.1}: {:.2} times",
            many / few,
            many_pages / few_pages
        );
    }
    small.store.close().await;
    large.store.close().await;
}
