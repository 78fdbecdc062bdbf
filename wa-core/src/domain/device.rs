//! A sending identity.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::pacing::{Caps, DelayRange};
use super::phone::Phone;
use super::platform::Platform;
pub use super::restriction::{NewChats, NewChatsWarning, Restriction, RestrictionCause};
use crate::id::{DeviceId, Incarnation, UserId};
use crate::time::Timestamp;
use crate::transport::TransportDevice;

/// How a device is linked; finer than [`DeviceStatus`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum LinkState {
    /// Created, never linked, or starting.
    Initializing = 1,
    /// A QR code or pair code waits to be used.
    QrReady = 2,
    /// Linked and connected.
    Ready = 3,
    /// Linked, no connection.
    Disconnected = 4,
    /// The credential or session is not accepted.
    AuthFailed = 5,
    /// The link was removed.
    LoggedOut = 6,
    /// WhatsApp restricts the account.
    Restricted = 7,
    /// Something else is wrong; the reason says what.
    Error = 8,
}

impl LinkState {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Initializing,
        Self::QrReady,
        Self::Ready,
        Self::Disconnected,
        Self::AuthFailed,
        Self::LoggedOut,
        Self::Restricted,
        Self::Error,
    ];

    /// From the number that stores keep.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| *state as u8 == number)
    }
}

/// What people see of a device's link: it is one or the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceStatus {
    /// Messages can go.
    Online,
    /// Messages wait.
    Offline,
}

/// Why a device does not send although it could.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum HoldReason {
    /// A person paused it.
    ByPerson = 1,
    /// The vendor does not accept the credential; a new credential or a person ends the hold.
    Unauthenticated = 2,
    /// Too many of its last messages failed.
    ErrorRate = 3,
}

impl HoldReason {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::ByPerson),
            2 => Some(Self::Unauthenticated),
            3 => Some(Self::ErrorRate),
            _ => None,
        }
    }
}

/// A pause of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// Why.
    pub reason: HoldReason,
    /// Since when.
    pub since_at: Timestamp,
    /// What the vendor said, for people.
    pub detail: Option<String>,
}

/// What to do with a message in doubt where a repeated id is reported, but not proven, to be harmless.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum OnDoubt {
    /// What the transport allows: send again with the same id, or ask.
    #[default]
    Resolve = 1,
    /// Never send again; it becomes `unknown` if the gateway cannot be asked.
    Unknown = 2,
}

/// The fencing number of a device: grows with every change of its owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Epoch(pub i64);

/// A sending identity of a user.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Device {
    /// Its id.
    pub id: DeviceId,
    /// Its owner.
    pub user_id: UserId,
    /// Its name, unique within the user, 1 to 100 characters.
    pub name: String,
    /// A note for people, at most 500 characters.
    pub description: String,
    /// Which transport carries it.
    pub platform: Platform,
    /// Its own number.
    pub phone: Option<Phone>,
    /// Its WhatsApp identity, once linked.
    pub jid: Option<String>,
    /// The gateway's credential; never serialised.
    #[serde(skip)]
    pub credential: Credential,
    /// The gateway's base URL, if it has one of its own.
    pub base_url: Option<String>,
    /// The secret segment of its callback path; never serialised.
    #[serde(skip)]
    pub hook_token: String,
    /// How it is linked.
    pub link_state: LinkState,
    /// Why, for people.
    pub link_reason: Option<String>,
    /// Since when.
    pub link_at: Timestamp,
    /// Set while it does not send although it could.
    pub hold: Option<Hold>,
    /// The last restriction of the account, also when it has ended.
    pub restriction: Option<Restriction>,
    /// How many new chats the account may begin, where WhatsApp has told a limit.
    pub new_chats: Option<NewChats>,
    /// Own delay between messages, else the policy's.
    pub delay: Option<DelayRange>,
    /// Own caps, else the policy's.
    pub caps: Option<Caps>,
    /// What to do with messages in doubt.
    pub on_doubt: OnDoubt,
    /// When it last received something or its link changed; what it sent shows in its messages.
    pub last_active_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When a person or the engine last changed it.
    pub updated_at: Timestamp,
    /// Set when it was deleted; the row stays for its history.
    pub deleted_at: Option<Timestamp>,
    /// Grows with every change of the row's settings; updates name the version that they read.
    pub version: i64,
}

/// A credential or none, hidden in every output.
#[derive(Clone, Default)]
pub struct Credential(Option<SecretString>);

impl Credential {
    /// Wraps a credential.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(Some(SecretString::from(secret.into())))
    }

    /// The secret, for transports and stores only.
    #[must_use]
    pub fn expose(&self) -> Option<&str> {
        self.0.as_ref().map(ExposeSecret::expose_secret)
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

impl PartialEq for Credential {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        match (self.expose(), other.expose()) {
            (Some(a), Some(b)) => a.as_bytes().ct_eq(b.as_bytes()).into(),
            (None, None) => true,
            _ => false,
        }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_set() {
            "Credential(…)"
        } else {
            "Credential(none)"
        })
    }
}

impl Device {
    /// Longest name, in characters.
    pub const NAME_MAX: usize = 100;
    /// Longest description, in characters.
    pub const DESCRIPTION_MAX: usize = 500;

    /// A device as it is created: gateway devices are ready at once, others wait to be linked.
    #[must_use]
    pub fn new(id: DeviceId, user_id: UserId, name: impl Into<String>, platform: Platform, now: Timestamp) -> Self {
        let link_state = if platform.is_gateway() {
            LinkState::Ready
        } else {
            LinkState::Initializing
        };
        Self {
            id,
            user_id,
            name: name.into(),
            description: String::new(),
            platform,
            phone: None,
            jid: None,
            credential: Credential::default(),
            base_url: None,
            hook_token: String::new(),
            link_state,
            link_reason: None,
            link_at: now,
            hold: None,
            restriction: None,
            new_chats: None,
            delay: None,
            caps: None,
            on_doubt: OnDoubt::default(),
            last_active_at: None,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            version: 1,
        }
    }

    /// What people see: online only when ready; gateway devices always count as online.
    #[must_use]
    pub fn status(&self) -> DeviceStatus {
        if self.platform.is_gateway() || self.link_state == LinkState::Ready {
            DeviceStatus::Online
        } else {
            DeviceStatus::Offline
        }
    }

    /// Whether it is linked to an account, or at a gateway, which knows of that itself; a connection may be missing for the moment.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        let unlinked = matches!(
            self.link_state,
            LinkState::Initializing | LinkState::QrReady | LinkState::AuthFailed | LinkState::LoggedOut
        );
        self.platform.is_gateway() || !unlinked
    }

    /// Whether its lane may send at all: linked, not on hold, not deleted.
    #[must_use]
    pub fn may_send(&self) -> bool {
        self.deleted_at.is_none() && self.hold.is_none() && self.status() == DeviceStatus::Online
    }

    /// Whether a person put it on hold, which nobody else changes.
    #[must_use]
    pub fn is_held_by_person(&self) -> bool {
        self.hold
            .as_ref()
            .is_some_and(|hold| hold.reason == HoldReason::ByPerson)
    }

    /// Whether a device with other settings sends from the same account: same platform, gateway and credential.
    #[must_use]
    pub fn is_same_account(&self, other: &Self) -> bool {
        (&self.platform, &self.base_url, &self.credential) == (&other.platform, &other.base_url, &other.credential)
    }

    /// Whether a device that was linked is linked to another number now. Whoever asks a gateway asks its account, whatever number
    /// that has.
    #[must_use]
    pub fn is_other_number(&self, learned: Option<Phone>) -> bool {
        let is_other = |(known, learned)| known != learned;
        !self.platform.is_gateway() && self.phone.zip(learned).is_some_and(is_other)
    }

    /// What its transport gets to see.
    #[must_use]
    pub fn for_transport(&self) -> TransportDevice {
        TransportDevice {
            id: self.id,
            user_id: self.user_id,
            platform: self.platform.clone(),
            phone: self.phone,
            credential: self.credential.0.clone(),
            base_url: self.base_url.clone(),
        }
    }
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Device")
            .field("id", &self.id)
            .field("user_id", &self.user_id)
            .field("platform", &self.platform)
            .field("link_state", &self.link_state)
            .field("hold", &self.hold.as_ref().map(|hold| hold.reason))
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// A device with the node that owns it.
#[derive(Debug, Clone, PartialEq)]
pub struct OwnedDevice {
    /// The device.
    pub device: Device,
    /// Its fencing number.
    pub epoch: Epoch,
    /// Its owner, if any.
    pub owner: Option<Incarnation>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_device_is_online_whatever_its_link_says_and_a_linked_one_only_when_ready() {
        let id = DeviceId::MIN;
        let mut device = Device::new(id, UserId::MIN, "a", Platform::WABLAS, Timestamp::EPOCH);
        device.link_state = LinkState::Disconnected;
        assert_eq!(device.status(), DeviceStatus::Online);
        let mut device = Device::new(id, UserId::MIN, "a", Platform::WHATSAPP_WEB, Timestamp::EPOCH);
        for state in LinkState::ALL {
            device.link_state = state;
            assert_eq!(device.status() == DeviceStatus::Online, state == LinkState::Ready);
        }
    }

    #[test]
    fn no_output_of_a_device_shows_its_credential() {
        let mut device = Device::new(DeviceId::MIN, UserId::MIN, "a", Platform::WABLAS, Timestamp::EPOCH);
        device.credential = Credential::new("tok.sec");
        device.hook_token = "hook-secret".to_owned();
        let shown = format!(
            "{device:?} {:?} {}",
            device.for_transport(),
            serde_json::to_string(&device).unwrap()
        );
        assert!(!shown.contains("tok.sec") && !shown.contains("hook-secret"), "{shown}");
    }
}
