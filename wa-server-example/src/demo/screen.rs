//! The terminal: bars and lines that change in place, or plain lines when nobody watches.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::snapshot::Snapshot;

/// How many of the newest texts are shown.
pub(super) const TEXTS: usize = 5;
/// How often a terminal is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(250);
/// How often a plain line is written.
const WRITE_EVERY: Duration = Duration::from_secs(2);

/// Where the demonstration is shown.
#[derive(Debug)]
pub(super) enum Screen {
    /// A terminal.
    Live(Box<Live>),
    /// A file or a pipe.
    Plain,
}

/// The parts of a terminal that change in place.
#[derive(Debug)]
pub(super) struct Live {
    all: MultiProgress,
    bar: ProgressBar,
    sum: ProgressBar,
    receipts: ProgressBar,
    texts: Vec<ProgressBar>,
}

impl Screen {
    /// A screen for standard output.
    pub fn new(leads: u64) -> Self {
        if !std::io::stdout().is_terminal() {
            return Self::Plain;
        }
        let all = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let style = |template| ProgressStyle::with_template(template).expect("the templates of the screen are valid");
        let bar = all.add(
            ProgressBar::new(leads).with_style(style("{elapsed_precise} {bar:40.green/black} {pos}/{len} {wide_msg}")),
        );
        let line = || all.add(ProgressBar::new_spinner().with_style(style("{wide_msg}")));
        let (sum, receipts) = (line(), line());
        let texts = (0..TEXTS).map(|_| line()).collect();
        Self::Live(Box::new(Live {
            all,
            bar,
            sum,
            receipts,
            texts,
        }))
    }

    /// How often [`show`](Self::show) wants to be called.
    pub const fn every(&self) -> Duration {
        match self {
            Self::Live(_) => DRAW_EVERY,
            Self::Plain => WRITE_EVERY,
        }
    }

    /// Shows a moment.
    pub fn show(&self, snapshot: &Snapshot) {
        let n = &snapshot.numbers;
        let receipts = format!(
            "delivered {} · read {} · replied {} · opted out {} · recorded at the other side {}, failed there on purpose {}",
            n.delivered, n.read, n.replied, snapshot.opted_out, snapshot.recorded, snapshot.faults
        );
        match self {
            Self::Live(live) => {
                live.bar.set_position(n.should() - n.remaining);
                let expanding = if snapshot.expanding {
                    " · finding recipients"
                } else {
                    ""
                };
                live.bar
                    .set_message(format!("{:?}{expanding}", snapshot.status).to_lowercase());
                live.sum.set_message(snapshot.sum());
                live.receipts.set_message(receipts);
                for (line, shown) in live.texts.iter().zip(&snapshot.last) {
                    line.set_message(format!("  {} ← {}", shown.to, shown.text));
                }
            }
            Self::Plain => {
                self.say(&format!(
                    "{:>4} s  {} · {receipts}",
                    snapshot.elapsed.as_secs(),
                    snapshot.sum()
                ));
                if let Some(shown) = snapshot.last.first() {
                    self.say(&format!("        {} ← {}", shown.to, shown.text));
                }
            }
        }
    }

    /// Writes a line that stays.
    pub fn say(&self, line: &str) {
        match self {
            Self::Live(live) => {
                // A terminal that is gone cannot be told so.
                let _ = live.all.println(line);
            }
            Self::Plain => {
                let _ = writeln!(std::io::stdout(), "{line}");
            }
        }
    }

    /// Leaves what is shown as it is; what is said from now on goes below it.
    pub fn finish(&mut self) {
        if let Self::Live(live) = self {
            for line in live.texts.iter().chain([&live.sum, &live.receipts, &live.bar]) {
                line.abandon();
            }
            *self = Self::Plain;
            self.say("");
        }
    }
}
