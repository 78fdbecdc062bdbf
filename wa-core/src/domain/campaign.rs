//! A one-time broadcast to an audience.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audience::{Audience, AudienceCursor};
use super::content::Content;
use super::pacing::DelayRange;
use super::schedule::{LatePolicy, LocalDate, LocalTime, QuietHours, TimeZone};
use crate::antispam::randomizer::RandomizerConfig;
use crate::id::{CampaignId, DeviceId, UserId};
use crate::time::Timestamp;

/// Where a campaign stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum CampaignStatus {
    /// Being written; a person schedules it. A crash changes nothing.
    Draft = 1,
    /// Waits for its local date and time; the planner starts it. A crash changes nothing.
    Scheduled = 2,
    /// Started: its audience is expanded and sent. A crash continues at the cursor.
    Triggered = 3,
    /// Paused by a person or by its error rate; a person resumes it.
    Paused = 4,
    /// Every message is settled; set by the planner.
    Completed = 5,
    /// Could not be run; the reason says why.
    Failed = 6,
    /// Ended by a person, or skipped by its late policy.
    Cancelled = 7,
}

impl CampaignStatus {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Draft,
        Self::Scheduled,
        Self::Triggered,
        Self::Paused,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// From the number that stores keep.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == number)
    }

    /// The one table of transitions.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        use CampaignStatus::{Cancelled, Completed, Draft, Failed, Paused, Scheduled, Triggered};
        matches!(
            (self, next),
            (Draft, Scheduled | Cancelled)
                | (Scheduled, Draft | Triggered | Failed | Cancelled)
                | (Triggered, Paused | Completed | Failed | Cancelled)
                | (Paused, Triggered | Cancelled)
                | (Completed, Triggered)
        )
    }

    /// Whether messages of the campaign may be begun.
    #[must_use]
    pub const fn may_send(self) -> bool {
        matches!(self, Self::Triggered)
    }

    /// Whether nothing more will be sent.
    #[must_use]
    pub const fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// Why a campaign stands where it does, where the status alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum CampaignReason {
    /// A person did it.
    ByPerson = 1,
    /// Too many of the last messages failed or stayed unknown.
    ErrorRate = 2,
    /// Its time passed while the system was down, and its late policy is to ask.
    LateAsk = 3,
    /// Its time passed while the system was down, and its late policy is to skip.
    LateSkipped = 4,
    /// Nobody matched the audience.
    NobodyMatched = 5,
    /// Its device was deleted.
    DeviceGone = 6,
    /// Its content cannot be rendered any more.
    BadContent = 7,
}

impl CampaignReason {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::ByPerson),
            2 => Some(Self::ErrorRate),
            3 => Some(Self::LateAsk),
            4 => Some(Self::LateSkipped),
            5 => Some(Self::NobodyMatched),
            6 => Some(Self::DeviceGone),
            7 => Some(Self::BadContent),
            _ => None,
        }
    }
}

/// Which device writes to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Routing {
    /// The lead's own device and no other.
    #[default]
    OwnDevice = 1,
    /// The least loaded online device of the user.
    Balanced = 2,
    /// The user's online devices in turn.
    RoundRobin = 3,
    /// A random online device of the user.
    Random = 4,
}

impl Routing {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::OwnDevice),
            2 => Some(Self::Balanced),
            3 => Some(Self::RoundRobin),
            4 => Some(Self::Random),
            _ => None,
        }
    }

    /// Whether messages wait in the pool until a device is chosen.
    #[must_use]
    pub const fn is_pool(self) -> bool {
        !matches!(self, Self::OwnDevice)
    }
}

/// How a text is dressed for each recipient.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dressing {
    /// Whether a greeting is put before the text.
    pub greeting: bool,
    /// The greeting set: `ms-MY`, `id`, `en`.
    pub greeting_locale: String,
    /// The randomizer; `None` is off.
    pub randomizer: Option<RandomizerConfig>,
}

impl Default for Dressing {
    fn default() -> Self {
        Self {
            greeting: true,
            greeting_locale: "ms-MY".to_owned(),
            randomizer: None,
        }
    }
}

/// A one-time broadcast to an audience.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Campaign {
    /// Its id.
    pub id: CampaignId,
    /// Its owner.
    pub user_id: UserId,
    /// Its title, 1 to 200 characters.
    pub title: String,
    /// What is sent.
    pub content: Content,
    /// Grows with every change of content or dressing; messages begun later use the newest.
    pub content_version: i32,
    /// Whom it writes to.
    pub audience: Audience,
    /// The only device that sends it; `None` for what `routing` says.
    pub device_id: Option<DeviceId>,
    /// Which device writes to whom.
    pub routing: Routing,
    /// How many of its messages one device takes each time that it is triggered; set if and only if its audience is the pool.
    pub device_limit: Option<u32>,
    /// Its zone; local date and time are read in it, greetings too.
    pub time_zone: TimeZone,
    /// The local date of its start; `None` in a draft.
    pub date: Option<LocalDate>,
    /// The local time of its start; `None` in a draft.
    pub time: Option<LocalTime>,
    /// The instant that date, time and zone name.
    pub scheduled_at: Option<Timestamp>,
    /// What happens when the start was missed.
    pub late_policy: LatePolicy,
    /// Delay between messages, else the device's.
    pub delay: Option<DelayRange>,
    /// When it must not send.
    pub quiet_hours: Option<QuietHours>,
    /// Greeting and randomizer.
    pub dressing: Dressing,
    /// How long after it is due a message may still be sent, time on hold excluded.
    pub expires_after: Duration,
    /// Where it stands.
    pub status: CampaignStatus,
    /// Why.
    pub reason: Option<CampaignReason>,
    /// When status or reason last changed.
    pub status_at: Timestamp,
    /// How far its audience is expanded.
    pub cursor: AudienceCursor,
    /// When it started; one whose audience is the pool, when it was last triggered.
    pub started_at: Option<Timestamp>,
    /// When it was last resumed, or a person last allowed it to go on; its error rate counts from here.
    pub resumed_at: Option<Timestamp>,
    /// When it was last paused.
    pub paused_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Since when its messages are in the archive, or on their way there; set by the store alone. It never changes again.
    pub archived_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed by a person.
    pub updated_at: Timestamp,
    /// Grows with every change; updates name the version that they read.
    pub version: i64,
}

impl Campaign {
    /// Longest title, in characters.
    pub const TITLE_MAX: usize = 200;
    /// Default of [`Campaign::expires_after`]: 7 days.
    pub const EXPIRES_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);
    /// Lowest and highest [`Campaign::device_limit`].
    pub const DEVICE_LIMIT: RangeInclusive<u32> = 1..=10_000;

    /// A draft with nothing but a title and a text.
    #[must_use]
    pub fn draft(id: CampaignId, user_id: UserId, title: impl Into<String>, content: Content, now: Timestamp) -> Self {
        Self {
            id,
            user_id,
            title: title.into(),
            content,
            content_version: 1,
            audience: Audience::Leads {
                niche: None,
                target: Default::default(),
                device_id: None,
            },
            device_id: None,
            routing: Routing::default(),
            device_limit: None,
            time_zone: TimeZone::default(),
            date: None,
            time: None,
            scheduled_at: None,
            late_policy: LatePolicy::default(),
            delay: None,
            quiet_hours: None,
            dressing: Dressing::default(),
            expires_after: Self::EXPIRES_AFTER,
            status: CampaignStatus::Draft,
            reason: None,
            status_at: now,
            cursor: AudienceCursor::Start,
            started_at: None,
            resumed_at: None,
            paused_at: None,
            ended_at: None,
            archived_at: None,
            created_at: now,
            updated_at: now,
            version: 1,
        }
    }

    /// Whether its audience is still being expanded.
    #[must_use]
    pub fn is_expanding(&self) -> bool {
        matches!(self.status, CampaignStatus::Triggered | CampaignStatus::Paused) && self.cursor != AudienceCursor::Done
    }
}

impl fmt::Debug for Campaign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Campaign")
            .field("id", &self.id)
            .field("user_id", &self.user_id)
            .field("status", &self.status)
            .field("reason", &self.reason)
            .field("cursor", &self.cursor)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_transitions_of_the_table_are_allowed() {
        use CampaignStatus::*;
        let allowed = [
            (Draft, Scheduled),
            (Draft, Cancelled),
            (Scheduled, Draft),
            (Scheduled, Triggered),
            (Scheduled, Failed),
            (Scheduled, Cancelled),
            (Triggered, Paused),
            (Triggered, Completed),
            (Triggered, Failed),
            (Triggered, Cancelled),
            (Paused, Triggered),
            (Paused, Cancelled),
            (Completed, Triggered),
        ];
        for from in CampaignStatus::ALL {
            for to in CampaignStatus::ALL {
                assert_eq!(from.can_become(to), allowed.contains(&(from, to)), "{from:?} -> {to:?}");
            }
        }
    }
}
