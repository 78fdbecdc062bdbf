//! What WhatsApp holds against an account.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;
use crate::transport::RestrictionScope;

/// How long a restriction of which nobody says when it ends is kept: then a message is the probe.
pub const UNKNOWN_RESTRICTION_FOR: Duration = Duration::from_secs(3_600);

/// Why an account is restricted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RestrictionCause {
    /// A message was refused because of it; nobody said more.
    #[default]
    Refused,
    /// WhatsApp's timelock on reaching out: no first messages to people who never wrote.
    Timelock,
    /// WhatsApp has banned the account for a while.
    Banned,
}

/// A restriction that WhatsApp or a gateway put on the account. It is kept when it has ended, because sends begin again slowly
/// from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restriction {
    /// Until when; its end, once that has come.
    pub until_at: Timestamp,
    /// Which messages it concerns.
    pub scope: RestrictionScope,
    /// Why.
    pub cause: RestrictionCause,
}

impl Restriction {
    /// Whether it still holds.
    #[must_use]
    pub fn holds(&self, now: Timestamp) -> bool {
        self.until_at > now
    }

    /// What a device's restriction becomes when this one is told of; `None` when nothing changes.
    ///
    /// A restriction of the whole account is not replaced by one of cold messages, which it includes, and what is known is not
    /// replaced by a guess.
    #[must_use]
    pub fn over(self, known: Option<Self>, now: Timestamp) -> Option<Self> {
        let Some(known) = known.filter(|known| known.holds(now)) else {
            return self.holds(now).then_some(self);
        };
        let includes = known.scope == RestrictionScope::All && self.scope == RestrictionScope::Cold;
        let is_guess = self.cause == RestrictionCause::Refused
            && known.scope == self.scope
            && (known.cause != RestrictionCause::Refused || known.until_at >= self.until_at);
        (!includes && !is_guess && self != known).then_some(self)
    }

    /// What a device's restriction becomes when it is told that there is none of that scope; `None` when nothing changes.
    ///
    /// A refusal is believed more than the word that all is well: it ends by itself.
    #[must_use]
    pub fn lifted(known: Option<Self>, scope: RestrictionScope, now: Timestamp) -> Option<Self> {
        let known = known.filter(|known| known.holds(now) && known.scope == scope)?;
        (known.cause != RestrictionCause::Refused).then_some(Self { until_at: now, ..known })
    }
}

/// How near an account is to the limit of its new chats, as WhatsApp says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NewChatsWarning {
    /// No word of warning.
    #[default]
    None,
    /// A first warning.
    First,
    /// A second warning.
    Second,
    /// No new chats until the end of the cycle.
    Capped,
}

/// How many people who never wrote an account may begin to write to within a cycle, as WhatsApp last said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewChats {
    /// How many a cycle has.
    pub total: u32,
    /// How many were used when it was told.
    pub used: u32,
    /// How near the limit is.
    pub warning: NewChatsWarning,
    /// When the cycle ends.
    pub ends_at: Timestamp,
    /// When this was told.
    pub told_at: Timestamp,
}

impl NewChats {
    /// What is not used of a cycle, in percent: WhatsApp counts what people do on their phones too.
    pub const RESERVE_PERCENT: u32 = 10;

    /// How many new chats may be begun from when this was told until the cycle ends: what is left less a reserve, half of that
    /// after a first warning, none after a second.
    #[must_use]
    pub fn budget(&self) -> u32 {
        let reserve =
            u32::try_from(u64::from(self.total) * u64::from(Self::RESERVE_PERCENT) / 100).unwrap_or(self.total);
        let left = self.total.saturating_sub(self.used).saturating_sub(reserve);
        match self.warning {
            NewChatsWarning::None => left,
            NewChatsWarning::First => left / 2,
            NewChatsWarning::Second | NewChatsWarning::Capped => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn cold(seconds: u64, cause: RestrictionCause) -> Restriction {
        Restriction {
            until_at: NOW + Duration::from_secs(seconds),
            scope: RestrictionScope::Cold,
            cause,
        }
    }

    #[test]
    fn what_is_known_of_a_restriction_is_not_replaced_by_less() {
        use RestrictionCause::{Banned, Refused, Timelock};
        let lock = cold(60, Timelock);
        assert_eq!(lock.over(None, NOW), Some(lock));
        assert_eq!(lock.over(Some(lock), NOW), None);
        assert_eq!(cold(3_600, Refused).over(Some(lock), NOW), None);
        assert_eq!(lock.over(Some(cold(3_600, Refused)), NOW), Some(lock));
        assert_eq!(
            cold(90, Refused).over(Some(cold(60, Refused)), NOW),
            Some(cold(90, Refused))
        );
        assert_eq!(cold(30, Timelock).over(Some(lock), NOW), Some(cold(30, Timelock)));
        let ban = Restriction {
            scope: RestrictionScope::All,
            ..cold(60, Banned)
        };
        assert_eq!(lock.over(Some(ban), NOW), None);
        assert_eq!(ban.over(Some(lock), NOW), Some(ban));
        assert_eq!(lock.over(Some(Restriction { until_at: NOW, ..ban }), NOW), Some(lock));
    }

    #[test]
    fn the_word_that_all_is_well_ends_what_whatsapp_told_and_not_what_it_refused() {
        let lock = cold(60, RestrictionCause::Timelock);
        let lifted = |known, scope| Restriction::lifted(Some(known), scope, NOW);
        assert_eq!(
            lifted(lock, RestrictionScope::Cold),
            Some(cold(0, RestrictionCause::Timelock))
        );
        assert_eq!(lifted(lock, RestrictionScope::All), None);
        assert_eq!(
            lifted(cold(60, RestrictionCause::Refused), RestrictionScope::Cold),
            None
        );
        assert_eq!(
            lifted(cold(0, RestrictionCause::Timelock), RestrictionScope::Cold),
            None
        );
    }

    #[test]
    fn the_budget_of_new_chats_shrinks_with_each_warning() {
        let of = |used, warning| {
            let chats = NewChats {
                total: 50,
                used,
                warning,
                ends_at: NOW,
                told_at: NOW,
            };
            chats.budget()
        };
        assert_eq!(of(5, NewChatsWarning::None), 40);
        assert_eq!(of(5, NewChatsWarning::First), 20);
        assert_eq!(of(5, NewChatsWarning::Second), 0);
        assert_eq!(of(47, NewChatsWarning::None), 0);
        assert_eq!(of(90, NewChatsWarning::None), 0);
    }
}
