//! How well a device knows a person.

/// How well a device knows the person that a message is for.
///
/// WhatsApp restricts messages to people who did not ask for them: an account that may not reach out for a while, or that has used
/// up its new chats, can still write to those it is in touch with. This is the one place that says who they are; stores tell it of
/// each message that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Warmth {
    /// The person never wrote to the device, and nothing of the device was sent to them: a first message, or one after others
    /// that failed or of which nobody can tell.
    #[default]
    Cold,
    /// The person wrote to the device, the device's own phone wrote to them, or a message of the device to their number is `sent`.
    Warm,
}

impl Warmth {
    /// Cold unless one of both holds: the two are in touch, or a message was sent before.
    #[must_use]
    pub const fn of(in_touch: bool, sent_before: bool) -> Self {
        if in_touch || sent_before {
            Self::Warm
        } else {
            Self::Cold
        }
    }

    /// Whether it is a message to a stranger.
    #[must_use]
    pub const fn is_cold(self) -> bool {
        matches!(self, Self::Cold)
    }
}
