//! Identifiers: one newtype per thing, all UUIDv7, made from an [`IdSource`] and never from ambient randomness.

use std::fmt;
use std::str::FromStr;
use std::sync::Mutex;

use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::time::Timestamp;

/// A text that is not a UUID where an id was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind} must be a UUID")]
pub struct ParseIdError {
    /// Which id was expected, such as `device_id`.
    pub kind: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident = $kind:literal;)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The smallest id; where a keyset page starts.
            pub const MIN: Self = Self(Uuid::nil());

            /// Wraps a UUID read from a request or a row.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self { Self(uuid) }

            /// A new id of the source, ordered by `now`.
            #[must_use]
            pub fn new(ids: &IdSource, now: Timestamp) -> Self { Self(ids.uuid(now)) }

            /// The UUID inside.
            #[must_use]
            pub const fn as_uuid(&self) -> &Uuid { &self.0 }

            /// The 16 bytes of the id, as stores keep it.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] { self.0.as_bytes() }

            /// Reads an id back from the bytes of a row; `None` unless there are exactly 16.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> { Uuid::from_slice(bytes).ok().map(Self) }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Display::fmt(&self.0, f) }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { write!(f, "{}({})", $kind, self.0) }
        }

        impl FromStr for $name {
            type Err = ParseIdError;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text.trim()).map(Self).map_err(|_| ParseIdError { kind: $kind })
            }
        }
    )+};
}

ids! {
    /// The tenant that owns devices, leads and campaigns.
    UserId = "user_id";
    /// A sending identity.
    DeviceId = "device_id";
    /// A person who can be written to.
    LeadId = "lead_id";
    /// A one-time broadcast.
    CampaignId = "campaign_id";
    /// A row of the outbox.
    MessageId = "message_id";
    /// One try to send a message.
    AttemptId = "attempt_id";
    /// A saved text.
    TemplateId = "template_id";
    /// A durable event.
    EventId = "event_id";
    /// What a person asked of a device.
    CommandId = "command_id";
    /// One run of a node; a node that restarts has a new one.
    Incarnation = "incarnation";
    /// A drip campaign.
    SequenceId = "sequence_id";
    /// One message of a sequence.
    StepId = "step_id";
    /// One lead's run through a sequence.
    EnrolmentId = "enrolment_id";
    /// A stored image or document.
    MediaId = "media_id";
    /// A long-running import.
    ImportId = "import_id";
    /// What a device and a person wrote to each other.
    ChatId = "chat_id";
    /// One message of a chat.
    ChatMessageId = "chat_message_id";
}

/// Where new ids come from: UUIDv7 of the instant given and of a keyed random stream.
///
/// Within one source ids are strictly increasing, also when the wall clock steps back, so that
/// keyset pages never miss a row of the same process.
#[derive(Debug)]
pub struct IdSource {
    state: Mutex<IdState>,
}

#[derive(Debug)]
struct IdState {
    rng: ChaCha8Rng,
    last: u128,
}

impl IdSource {
    /// A source that no two processes share: seeded by the operating system.
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    #[must_use]
    pub fn from_entropy() -> Self {
        let mut seed = [0; 32];
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut seed)
            .expect("the operating system gives random bytes");
        Self::seeded(seed)
    }

    /// A reproducible source, for simulations and tests.
    #[must_use]
    pub fn seeded(seed: [u8; 32]) -> Self {
        Self {
            state: Mutex::new(IdState {
                rng: ChaCha8Rng::from_seed(seed),
                last: 0,
            }),
        }
    }

    /// The next UUIDv7, at `now` or just after the last one given, whichever is later.
    pub fn uuid(&self, now: Timestamp) -> Uuid {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let millis = u64::try_from(now.as_millis()).unwrap_or(0);
        let mut random = [0u8; 10];
        state.rng.fill_bytes(&mut random);
        let fresh = uuid::Builder::from_unix_timestamp_millis(millis, &random)
            .into_uuid()
            .as_u128();
        let next = if fresh > state.last {
            fresh
        } else {
            // The low 62 bits are random payload: counting there keeps version and variant.
            let step = u128::from(state.rng.next_u32()) + 1;
            state.last + step
        };
        state.last = next;
        Uuid::from_u128(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_increase_also_when_the_wall_clock_steps_back() {
        let ids = IdSource::seeded([7; 32]);
        let mut last = MessageId::MIN;
        for millis in [1_000_000, 1_000_000, 999_000, 5, 1_000_001] {
            for _ in 0..100 {
                let id = MessageId::new(&ids, Timestamp::from_millis(millis));
                assert!(id > last);
                assert_eq!(id.as_uuid().get_version_num(), 7);
                last = id;
            }
        }
    }

    #[test]
    fn a_text_that_is_no_uuid_names_the_field() {
        assert_eq!(
            "x".parse::<DeviceId>().unwrap_err().to_string(),
            "device_id must be a UUID"
        );
    }
}
