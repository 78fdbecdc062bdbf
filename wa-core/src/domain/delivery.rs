//! What receipts report after a message was accepted.

use serde::{Deserialize, Serialize};

/// How far a sent message came. Receipts move it forward only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Delivery {
    /// The gateway could not deliver it; a later `Delivered` still counts.
    Undelivered = 1,
    /// On the recipient's phone.
    Delivered = 2,
    /// Seen by the recipient.
    Read = 3,
    /// The recipient answered.
    Replied = 4,
}

impl Delivery {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Undelivered),
            2 => Some(Self::Delivered),
            3 => Some(Self::Read),
            4 => Some(Self::Replied),
            _ => None,
        }
    }

    /// Whether news of `next` moves a message that stands at `current`.
    #[must_use]
    pub fn advances(current: Option<Self>, next: Self) -> bool {
        current.is_none_or(|current| next > current)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_move_delivery_forward_only() {
        assert!(Delivery::advances(None, Delivery::Undelivered));
        assert!(Delivery::advances(Some(Delivery::Undelivered), Delivery::Delivered));
        assert!(!Delivery::advances(Some(Delivery::Read), Delivery::Delivered));
        assert!(!Delivery::advances(Some(Delivery::Read), Delivery::Read));
    }
}
