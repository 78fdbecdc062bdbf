//! What a person asks of a device; done by the node that owns it.

use serde::{Deserialize, Serialize};

use super::phone::Phone;
use crate::id::{CommandId, DeviceId, UserId};
use crate::time::Timestamp;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum DeviceAsk {
    /// Link by QR, or by pair code when a number is given.
    Link {
        /// The number of the phone, for a pair code.
        phone: Option<Phone>,
    },
    /// Connect again with the stored session.
    Refresh,
    /// Close the connection and keep the session.
    Disconnect,
    /// Remove the link.
    Logout,
    /// Tell whether numbers are on WhatsApp.
    CheckNumbers {
        /// At most 100 numbers.
        phones: Vec<Phone>,
    },
    /// Ask the vendor how the device is.
    Probe,
}

/// How far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum DeviceAnswer {
    /// Not done yet.
    Waiting,
    /// Done; the answer as JSON.
    Done {
        /// What came out.
        result: serde_json::Value,
    },
    /// Could not be done.
    Refused {
        /// Why, for people.
        message: String,
    },
}

/// A request to a device and its answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceCommand {
    /// Its id.
    pub id: CommandId,
    /// Who asks.
    pub user_id: UserId,
    /// Of which device.
    pub device_id: DeviceId,
    /// What.
    pub ask: DeviceAsk,
    /// The answer.
    pub answer: DeviceAnswer,
    /// When it was asked.
    pub created_at: Timestamp,
    /// After this nobody waits for the answer.
    pub expires_at: Timestamp,
}
