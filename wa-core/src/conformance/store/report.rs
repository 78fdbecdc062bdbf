//! The whole suite in one call, for mutants and for stores whose tests run elsewhere.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;

use super::factory::StoreFactory;
use super::table::{CASES, Case};

/// A case that a store did not pass.
#[derive(Debug)]
pub struct Failure {
    /// The case.
    pub case: &'static Case,
    /// What was seen.
    pub message: String,
}

/// What became of all cases.
#[derive(Debug)]
#[must_use]
pub struct Report {
    /// The store.
    pub store: String,
    /// How many cases it passed.
    pub passed: usize,
    /// Those it did not pass, in the order of the table.
    pub failures: Vec<Failure>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.passed + self.failures.len();
        write!(f, "{}: {} of {all} cases passed", self.store, self.passed)?;
        for failure in &self.failures {
            write!(f, "\n  {}: {}", failure.case, failure.message)?;
        }
        Ok(())
    }
}

/// Runs every case and reports instead of panicking.
pub async fn run_all(factory: &dyn StoreFactory) -> Report {
    let mut report = Report {
        store: factory.name().to_owned(),
        passed: 0,
        failures: Vec::new(),
    };
    for case in CASES {
        match failure_of(case, factory).await {
            None => report.passed += 1,
            Some(failure) => report.failures.push(failure),
        }
    }
    report
}

/// Runs cases until one fails; `None` when the store passes them all.
pub async fn first_failure(factory: &dyn StoreFactory) -> Option<Failure> {
    for case in CASES {
        if let Some(failure) = failure_of(case, factory).await {
            return Some(failure);
        }
    }
    None
}

async fn failure_of(case: &'static Case, factory: &dyn StoreFactory) -> Option<Failure> {
    let panic = AssertUnwindSafe(case.run(factory)).catch_unwind().await.err()?;
    Some(Failure {
        case,
        message: message_of(panic.as_ref()),
    })
}

fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panicked").to_owned()
}
