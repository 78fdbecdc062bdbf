//! Medians of interleaved runs.

use std::fmt;

use crate::stage::Stage;

/// The middle value; the mean of the two middle ones of an even number.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 {
        sorted[middle]
    } else {
        f64::midpoint(sorted[middle - 1], sorted[middle])
    }
}

/// What a piece of work took.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub seconds: f64,
    /// Processor time of all threads: less noisy than the time by the clock, and without the waiting for the disk.
    pub processor: f64,
}

impl Cost {
    /// Clock and processor time as they stand, to be taken from those at the end.
    pub fn so_far(stage: &Stage) -> Self {
        Self {
            seconds: stage.seconds(),
            processor: processor_seconds(),
        }
    }

    pub fn since(stage: &Stage, start: Self) -> Self {
        let end = Self::so_far(stage);
        Self {
            seconds: end.seconds - start.seconds,
            processor: end.processor - start.processor,
        }
    }
}

/// What the process has used so far, as Linux counts it: hundredths of a second, in user mode and in the kernel.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux tells the processor time");
    let after_name = stat.rsplit(')').next().expect("the line has a name");
    let ticks = after_name.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<f64>().expect("a number")).sum::<f64>() / 100.0
}

/// The same work done both ways, several times.
pub struct Compared {
    name: &'static str,
    rows: f64,
    engine: Vec<Cost>,
    by_hand: Vec<Cost>,
}

impl Compared {
    pub fn new(name: &'static str, rows: usize) -> Self {
        Self {
            name,
            rows: f64::from(u32::try_from(rows).expect("a small number")),
            engine: Vec::new(),
            by_hand: Vec::new(),
        }
    }

    /// Adds one run of each.
    pub fn add(&mut self, engine: Cost, by_hand: Cost) {
        self.engine.push(engine);
        self.by_hand.push(by_hand);
    }

    fn told(&self, costs: &[Cost]) -> String {
        let rates: Vec<_> = costs.iter().map(|cost| self.rows / cost.seconds).collect();
        let processor: Vec<_> = costs.iter().map(|cost| cost.processor / self.rows * 1e6).collect();
        let low = rates.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rates.iter().copied().fold(0.0, f64::max);
        let (rate, processor) = (median(&rates), median(&processor));
        format!("{rate:.0}/s ({low:.0} to {high:.0}), {processor:.0} us of processor each")
    }
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = || self.engine.iter().zip(&self.by_hand);
        let rates: Vec<_> = pairs().map(|(engine, hand)| hand.seconds / engine.seconds).collect();
        let processor: Vec<_> = pairs()
            .map(|(engine, hand)| hand.processor / engine.processor)
            .collect();
        write!(
            f,
            "{:24} engine {}; by hand {}; {:.0} % of the rate by hand, {:.0} % by processor time",
            self.name,
            self.told(&self.engine),
            self.told(&self.by_hand),
            median(&rates) * 100.0,
            median(&processor) * 100.0
        )
    }
}
