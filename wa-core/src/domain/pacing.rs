//! How fast a device may send: delays, caps, warm-up, and the policy that an engine is configured with.
//!
//! These are the rules; [`LanePacing`](crate::domain::lane::LanePacing) applies them to what one device has sent.

mod caps;
mod delay;
mod policy;
mod priority;
mod warm_up;

pub use caps::Caps;
pub use delay::{DelayRange, DelaySettings, DrawnDelay};
pub use policy::{PacingPolicy, PacingPolicyBuilder, PacingProfile};
pub use priority::{Priority, UnknownPriorityError};
pub use warm_up::WarmUp;

/// A pacing setting outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PacingError {
    /// The value is below the smallest allowed.
    #[error("{field} must be at least {least}")]
    TooSmall {
        /// The setting to correct.
        field: &'static str,
        /// The smallest value allowed, in the unit that the field's name ends in.
        least: u64,
    },
    /// The value is above the largest allowed.
    #[error("{field} must be at most {most}")]
    TooLarge {
        /// The setting to correct.
        field: &'static str,
        /// The largest value allowed, in the unit that the field's name ends in.
        most: u64,
    },
}

/// The value, if it lies in the range.
fn within(field: &'static str, value: u64, least: u64, most: u64) -> Result<u64, PacingError> {
    if value < least {
        Err(PacingError::TooSmall { field, least })
    } else if value > most {
        Err(PacingError::TooLarge { field, most })
    } else {
        Ok(value)
    }
}
