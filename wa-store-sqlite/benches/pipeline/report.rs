//! Medians of interleaved runs.

use std::fmt;

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

/// The same work done both ways, several times.
pub struct Compared {
    name: &'static str,
    rows: f64,
    engine: Vec<f64>,
    by_hand: Vec<f64>,
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

    /// Adds one run of each, in seconds.
    pub fn add(&mut self, engine: f64, by_hand: f64) {
        self.engine.push(self.rows / engine);
        self.by_hand.push(self.rows / by_hand);
    }
}

fn span(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{:.0}/s ({low:.0} to {high:.0})", median(values))
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ratios: Vec<_> = self.engine.iter().zip(&self.by_hand).map(|(a, b)| a / b).collect();
        write!(
            f,
            "{:22} engine {}, by hand {}; {:.0} % of by hand",
            self.name,
            span(&self.engine),
            span(&self.by_hand),
            median(&ratios) * 100.0
        )
    }
}
