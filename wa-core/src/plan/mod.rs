//! Pure planners: a snapshot, the time and the seed in, a [`ChangeSet`](crate::store::ChangeSet) or a verdict out.

mod requeue;

pub use self::requeue::{DeviceGate, Requeued, ScopeGate, Suppressed, requeue};
