//! Seeing attempts begin, with what their lanes waited for before.

use std::fmt;

use crate::domain::lane::Waits;
use crate::domain::message::MessageScope;
use crate::id::{DeviceId, MessageId};
use crate::time::Timestamp;

/// An attempt that a lane has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LaneBegun {
    /// The device.
    pub device_id: DeviceId,
    /// The message.
    pub message_id: MessageId,
    /// What it belongs to.
    pub scope: MessageScope,
    /// The attempt's start on the wall clock, as stored.
    pub at: Timestamp,
    /// How long the lane waited for what, with something to send, since its attempt before.
    pub waited: Waits,
}

/// Sees attempts begin.
///
/// To ensure correctness: it returns at once and calls nothing of the engine, whose lanes are locked meanwhile.
pub trait LaneWatch: Send + Sync + fmt::Debug {
    /// An attempt has begun.
    fn begun(&self, begun: &LaneBegun);
}
