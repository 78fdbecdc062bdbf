//! Pure planners: a snapshot, the time and the seed in, a [`ChangeSet`](crate::store::ChangeSet) or a verdict out.

mod doubt;
mod expansion;
mod requeue;
mod routing;
mod settlement;
mod start;

pub use self::doubt::{DoubtLimits, DoubtStep, doubt_step, reconciled};
pub use self::expansion::{AudiencePage, ExpansionContext, expand};
pub use self::requeue::{DeviceGate, Requeued, ScopeGate, Suppressed, requeue};
pub use self::routing::{RoutingContext, route};
pub use self::settlement::{LaneEffect, Settlement, SettlementContext, doubtful, settlement};
pub use self::start::start;
