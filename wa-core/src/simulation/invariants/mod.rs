//! What must hold in every simulation, one file each; the numbers are those of the design.
//!
//! A checker reads a [`Record`] and nothing else, so each is tested with a made-up history that breaks it and one that
//! does not.

mod accounted;
mod bounded;
mod cold;
mod durable;
mod enrolled;
mod explained;
mod fenced;
mod foreign;
mod limited;
mod never_twice;
mod obedient;
mod once;
mod ordered;
mod paced;
mod sums;
mod terminal;
#[cfg(test)]
mod testing;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::history::Record;
use crate::domain::message::{Message, MessageScope};
use crate::domain::sequence::Sequence;
use crate::id::{CampaignId, MessageId, SequenceId};

/// An invariant that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub invariant: &'static str,
    /// When, in true time; `None` for the end.
    pub at: Option<Duration>,
    /// What is wrong.
    pub what: String,
}

impl Violation {
    fn at(invariant: &'static str, at: Duration, what: impl Into<String>) -> Self {
        Self {
            invariant,
            at: Some(at),
            what: what.into(),
        }
    }

    fn end(invariant: &'static str, what: impl Into<String>) -> Self {
        Self {
            invariant,
            at: None,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at {
            Some(at) => write!(f, "{} at {:.3} s: {}", self.invariant, at.as_secs_f64(), self.what),
            None => write!(f, "{} at the end: {}", self.invariant, self.what),
        }
    }
}

/// Checks every invariant.
#[must_use]
pub fn check(record: &Record) -> Vec<Violation> {
    [
        once::check,
        enrolled::check,
        ordered::check,
        never_twice::check,
        accounted::check,
        obedient::check,
        paced::check,
        cold::check,
        fenced::check,
        terminal::check,
        sums::check,
        foreign::check,
        limited::check,
        explained::check,
        durable::check,
        bounded::check,
    ]
    .iter()
    .flat_map(|check| check(record))
    .collect()
}

fn rows_by_id(record: &Record) -> BTreeMap<MessageId, &Message> {
    record.rows.iter().map(|row| (row.id, row)).collect()
}

fn campaign_of(message: &Message) -> Option<CampaignId> {
    match message.scope {
        MessageScope::Campaign(id) => Some(id),
        _ => None,
    }
}

fn sequence_of(message: &Message) -> Option<SequenceId> {
    match message.scope {
        MessageScope::Sequence(id) => Some(id),
        _ => None,
    }
}

fn sequence_by_id(record: &Record, id: SequenceId) -> Option<&Sequence> {
    record.sequences.iter().find(|sequence| sequence.id == id)
}
