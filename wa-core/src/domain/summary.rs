//! The numbers that a user reads. Should is the sum of the others, always.

use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

use super::delivery::Delivery;
use super::message::MessageState;
use crate::id::DeviceId;

/// Which of the numbers a state counts to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bucket {
    /// Queued, held, sending, in doubt.
    Remaining,
    /// Sent.
    Done,
    /// Failed.
    Failed,
    /// Unknown.
    Unknown,
    /// Skipped.
    Skipped,
    /// Cancelled.
    Cancelled,
}

impl From<MessageState> for Bucket {
    fn from(state: MessageState) -> Self {
        match state {
            MessageState::Queued | MessageState::Held | MessageState::Sending | MessageState::InDoubt => {
                Self::Remaining
            }
            MessageState::Sent => Self::Done,
            MessageState::Failed => Self::Failed,
            MessageState::Unknown => Self::Unknown,
            MessageState::Skipped => Self::Skipped,
            MessageState::Cancelled => Self::Cancelled,
        }
    }
}

/// The numbers of a scope, or of one device in it. Superseded messages are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Numbers {
    /// Sent.
    pub done: u64,
    /// Failed.
    pub failed: u64,
    /// Skipped.
    pub skipped: u64,
    /// Unknown.
    pub unknown: u64,
    /// Cancelled.
    pub cancelled: u64,
    /// Queued, held, sending and in doubt.
    pub remaining: u64,
    /// Of those sent: on the recipient's phone at least.
    pub delivered: u64,
    /// Of those sent: not delivered.
    pub undelivered: u64,
    /// Of those sent: seen at least.
    pub read: u64,
    /// Of those sent: answered.
    pub replied: u64,
}

impl Numbers {
    /// What the scope should send in all.
    #[must_use]
    pub const fn should(&self) -> u64 {
        self.done + self.failed + self.skipped + self.unknown + self.cancelled + self.remaining
    }

    /// The counter of a bucket.
    pub const fn counter(&mut self, bucket: Bucket) -> &mut u64 {
        match bucket {
            Bucket::Remaining => &mut self.remaining,
            Bucket::Done => &mut self.done,
            Bucket::Failed => &mut self.failed,
            Bucket::Unknown => &mut self.unknown,
            Bucket::Skipped => &mut self.skipped,
            Bucket::Cancelled => &mut self.cancelled,
        }
    }

    /// Counts one message that is not superseded.
    pub fn count(&mut self, state: MessageState, delivery: Option<Delivery>) {
        *self.counter(state.into()) += 1;
        if state == MessageState::Sent {
            match delivery {
                None => {}
                Some(Delivery::Undelivered) => self.undelivered += 1,
                Some(level) => {
                    self.delivered += 1;
                    self.read += u64::from(level >= Delivery::Read);
                    self.replied += u64::from(level >= Delivery::Replied);
                }
            }
        }
    }
}

impl Add for Numbers {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            done: self.done + other.done,
            failed: self.failed + other.failed,
            skipped: self.skipped + other.skipped,
            unknown: self.unknown + other.unknown,
            cancelled: self.cancelled + other.cancelled,
            remaining: self.remaining + other.remaining,
            delivered: self.delivered + other.delivered,
            undelivered: self.undelivered + other.undelivered,
            read: self.read + other.read,
            replied: self.replied + other.replied,
        }
    }
}

impl AddAssign for Numbers {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl std::iter::Sum for Numbers {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// The numbers of one device within a scope; `None` is the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceNumbers {
    /// The device.
    pub device_id: Option<DeviceId>,
    /// Its numbers.
    pub numbers: Numbers,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_counted_once() {
        let mut numbers = Numbers::default();
        for state in MessageState::ALL {
            numbers.count(state, None);
        }
        assert_eq!(numbers.should(), MessageState::ALL.len() as u64);
        assert_eq!(numbers.remaining, 4);
    }

    #[test]
    fn a_reply_counts_as_read_and_delivered_too() {
        let mut numbers = Numbers::default();
        numbers.count(MessageState::Sent, Some(Delivery::Replied));
        assert_eq!(
            (numbers.done, numbers.delivered, numbers.read, numbers.replied),
            (1, 1, 1, 1)
        );
    }
}
