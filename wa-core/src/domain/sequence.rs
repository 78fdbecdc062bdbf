//! A drip campaign: steps that each lead gets one after the other, on its own timeline.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::audience::TargetFilter;
use super::campaign::{Dressing, Routing};
use super::content::Content;
use super::lead::Lead;
use super::pacing::DelayRange;
use super::schedule::{LatePolicy, LocalTime, QuietHours, TimeZone};
use super::token::Token;
use crate::id::{DeviceId, LeadId, SequenceId, StepId, UserId};
use crate::time::Timestamp;

/// Where a sequence stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum SequenceStatus {
    /// Being written; nobody enrols. A crash changes nothing.
    Draft = 1,
    /// Leads enrol and steps are sent.
    Active = 2,
    /// Paused by a person or by its error rate: nobody enrols by a match, queued steps are held. Resuming goes on where it
    /// stood and enrols those who matched in the meantime.
    Paused = 3,
    /// Taken out of use by a person: stands still as when paused, and is listed apart.
    Inactive = 4,
}

impl SequenceStatus {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Draft, Self::Active, Self::Paused, Self::Inactive];

    /// From the number that stores keep.
    #[must_use]
    pub fn from_u8(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|status| *status as u8 == number)
    }

    /// The one table of transitions.
    #[must_use]
    pub const fn can_become(self, next: Self) -> bool {
        use SequenceStatus::{Active, Draft, Inactive, Paused};
        matches!(
            (self, next),
            (Draft, Active) | (Active, Paused | Inactive) | (Paused, Active | Inactive) | (Inactive, Active)
        )
    }

    /// Whether steps may be begun and leads enrol by a match.
    #[must_use]
    pub const fn runs(self) -> bool {
        matches!(self, Self::Active)
    }
}

/// Why a sequence stands where it does, where the status alone does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
#[non_exhaustive]
pub enum SequenceReason {
    /// A person did it.
    ByPerson = 1,
    /// Too many of the last messages failed or stayed unknown.
    ErrorRate = 2,
    /// Its device was deleted.
    DeviceGone = 3,
}

impl SequenceReason {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::ByPerson),
            2 => Some(Self::ErrorRate),
            3 => Some(Self::DeviceGone),
            _ => None,
        }
    }
}

/// What a failed or expired step does to its enrolment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum FailurePolicy {
    /// The next step follows all the same, its delay counted from the failure.
    #[default]
    Continue = 1,
    /// The enrolment ends.
    Stop = 2,
}

impl FailurePolicy {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Continue),
            2 => Some(Self::Stop),
            _ => None,
        }
    }
}

/// Whether a person who was in a sequence may enter it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum ReEntry {
    /// Once and never again. Chains that lead back end here.
    #[default]
    Never = 1,
    /// When the last time was completed; never by a chain that came through here already.
    AfterCompletion = 2,
    /// Whenever no enrolment is open. A chain that leads back runs for ever: that is what this asks for.
    Always = 3,
}

impl ReEntry {
    /// From the number that stores keep.
    #[must_use]
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Never),
            2 => Some(Self::AfterCompletion),
            3 => Some(Self::Always),
            _ => None,
        }
    }
}

/// How far the search for leads that match an active sequence came. Leads that gain a token later are found by their mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MatchCursor {
    /// Before the first lead.
    Start,
    /// Leads up to and including this one are matched.
    Lead(LeadId),
    /// To the end; also what a sequence that is not active has.
    Done,
}

/// One message of a sequence.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Its id; the same in every version of the steps that has it.
    pub id: StepId,
    /// The day that it is shown on, 1 to [`Step::DAY_MAX`]; rises from step to step or stays. Time is counted by `wait`.
    pub day: u16,
    /// Its name among the triggers; unique in the sequence. Of an entry point: the trigger that enrols here.
    pub trigger: Token,
    /// Of the last step: the trigger that replaces the one by which the lead entered, and by which the next sequence is found.
    pub next_trigger: Option<Token>,
    /// Whether leads may enter here.
    pub entry_point: bool,
    /// How long after it was sent the next step is due; after the last one, the first step of the next sequence.
    pub wait: Duration,
    /// What is sent.
    pub content: Content,
    /// At which local time it is sent, else the sequence's.
    pub send_time: Option<LocalTime>,
    /// Own delay before it, else the sequence's.
    pub delay: Option<DelayRange>,
}

impl Step {
    /// The last day of a sequence.
    pub const DAY_MAX: u16 = 3_650;
    /// The shortest wait: 1 hour, unless the engine is configured otherwise.
    pub const WAIT_MIN: Duration = Duration::from_secs(3_600);
    /// The longest wait: 52 weeks.
    pub const WAIT_MAX: Duration = Duration::from_secs(52 * 7 * 24 * 3_600);
    /// The wait unless said otherwise: 24 hours.
    pub const WAIT: Duration = Duration::from_secs(24 * 3_600);
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Step")
            .field("id", &self.id)
            .field("day", &self.day)
            .field("trigger", &self.trigger)
            .field("entry_point", &self.entry_point)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

/// One version of the steps of a sequence, in the order in which they are sent. Versions never change; a new one follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SequenceSteps {
    /// The sequence.
    pub sequence_id: SequenceId,
    /// 1 at first.
    pub version: i32,
    /// The steps; at most [`SequenceSteps::COUNT_MAX`].
    pub steps: Vec<Step>,
}

impl SequenceSteps {
    /// Most steps of a sequence.
    pub const COUNT_MAX: usize = 400;

    /// The place of a step, from 0.
    #[must_use]
    pub fn position(&self, id: StepId) -> Option<usize> {
        self.steps.iter().position(|step| step.id == id)
    }

    /// A step by its id.
    #[must_use]
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.iter().find(|step| step.id == id)
    }

    /// The steps after one; none when it is not there.
    #[must_use]
    pub fn after(&self, id: StepId) -> &[Step] {
        self.position(id).map_or(&[], |at| &self.steps[at + 1..])
    }

    /// The triggers by which leads enter, with the step that each leads to.
    pub fn entry_points(&self) -> impl Iterator<Item = (&Token, StepId)> {
        let entries = self.steps.iter().filter(|step| step.entry_point);
        entries.map(|step| (&step.trigger, step.id))
    }

    /// The first entry point, where those enter who come by niche or by hand.
    #[must_use]
    pub fn first_entry(&self) -> Option<&Step> {
        self.steps.iter().find(|step| step.entry_point)
    }
}

/// A drip campaign.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    /// Its id.
    pub id: SequenceId,
    /// Its owner.
    pub user_id: UserId,
    /// Its name, 1 to 200 characters.
    pub name: String,
    /// Notes, at most 2,000 characters.
    pub description: String,
    /// Leads with this niche enrol too, at the first entry point.
    pub niche: Option<Token>,
    /// Which leads a match enrols, by target status.
    pub target: TargetFilter,
    /// The only device that sends it; `None` for what `routing` says.
    pub device_id: Option<DeviceId>,
    /// Which device writes to whom.
    pub routing: Routing,
    /// Its zone; send times are read in it, greetings too.
    pub time_zone: TimeZone,
    /// At which local time steps are sent; `None` for at once.
    pub send_time: Option<LocalTime>,
    /// What happens to a step that nobody was there to send in time: `Run` or `Skip`.
    pub late_policy: LatePolicy,
    /// Delay between messages, else the device's.
    pub delay: Option<DelayRange>,
    /// When it must not send.
    pub quiet_hours: Option<QuietHours>,
    /// Greeting and randomizer.
    pub dressing: Dressing,
    /// How long after it is due a step may still be sent, time on hold excluded.
    pub expires_after: Duration,
    /// What a failed or expired step does.
    pub on_failure: FailurePolicy,
    /// Whether a reply ends the enrolment, and so does what a human writes to the person on the device's own phone: the
    /// conversation has begun.
    pub exit_on_reply: bool,
    /// Whether a person may enter again.
    pub re_entry: ReEntry,
    /// Where it stands.
    pub status: SequenceStatus,
    /// Why.
    pub reason: Option<SequenceReason>,
    /// When status or reason last changed.
    pub status_at: Timestamp,
    /// The newest version of its steps; 0 while it has none.
    pub steps_version: i32,
    /// How far leads are matched.
    pub cursor: MatchCursor,
    /// When it first became active.
    pub started_at: Option<Timestamp>,
    /// When it last became active; its error rate counts from here.
    pub resumed_at: Option<Timestamp>,
    /// When it was last paused.
    pub paused_at: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed by a person.
    pub updated_at: Timestamp,
    /// When it was deleted; its numbers stay.
    pub deleted_at: Option<Timestamp>,
    /// Grows with every change; updates name the version that they read.
    pub version: i64,
}

impl Sequence {
    /// Longest name, in characters.
    pub const NAME_MAX: usize = 200;
    /// Longest description, in characters.
    pub const DESCRIPTION_MAX: usize = 2_000;
    /// Default of [`Sequence::expires_after`]: 7 days.
    pub const EXPIRES_AFTER: Duration = Duration::from_secs(7 * 24 * 3_600);

    /// A draft with nothing but a name.
    #[must_use]
    pub fn draft(id: SequenceId, user_id: UserId, name: impl Into<String>, now: Timestamp) -> Self {
        Self {
            id,
            user_id,
            name: name.into(),
            description: String::new(),
            niche: None,
            target: TargetFilter::All,
            device_id: None,
            routing: Routing::default(),
            time_zone: TimeZone::default(),
            send_time: None,
            late_policy: LatePolicy::Run,
            delay: None,
            quiet_hours: None,
            dressing: Dressing::default(),
            expires_after: Self::EXPIRES_AFTER,
            on_failure: FailurePolicy::default(),
            exit_on_reply: false,
            re_entry: ReEntry::default(),
            status: SequenceStatus::Draft,
            reason: None,
            status_at: now,
            steps_version: 0,
            cursor: MatchCursor::Done,
            started_at: None,
            resumed_at: None,
            paused_at: None,
            created_at: now,
            updated_at: now,
            deleted_at: None,
            version: 1,
        }
    }

    /// Where a lead of the same user would enter by a match: at the entry point of a trigger that it has, the first in the order
    /// of the steps; else by its niche at the first entry point. With the token by which it matched.
    #[must_use]
    pub fn entry_for<'a>(&self, lead: &'a Lead, steps: &SequenceSteps) -> Option<(StepId, Option<&'a Token>)> {
        if lead.user_id != self.user_id || !self.target.matches(lead.target_status) {
            return None;
        }
        let by_trigger = steps.steps.iter().filter(|step| step.entry_point).find_map(|step| {
            let own = lead.triggers.iter().find(|token| **token == step.trigger)?;
            Some((step.id, Some(own)))
        });
        let by_niche = || {
            let niche = self.niche.as_ref()?;
            lead.niches.contains(niche).then_some(())?;
            Some((steps.first_entry()?.id, None))
        };
        by_trigger.or_else(by_niche)
    }
}

impl fmt::Debug for Sequence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sequence")
            .field("id", &self.id)
            .field("user_id", &self.user_id)
            .field("status", &self.status)
            .field("steps_version", &self.steps_version)
            .field("cursor", &self.cursor)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

/// What an edit of the steps does to the enrolments that stand at one step of the version before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepMove {
    /// Steps that they would still have got and will not get: recorded as cancelled.
    pub removed: Vec<StepId>,
    /// Steps that they will get beside those that they were to get.
    pub added: Vec<StepId>,
    /// What follows for them, in order.
    pub remaining: Vec<StepId>,
}

/// What follows for an enrolment that stands at `at` in `from` and goes on with `to`.
///
/// `passed` are the steps that it has had; none comes twice. It goes on after the last step of `to` that is `at` or, when
/// that was removed, comes before it in `from`; with none of them left, from the start of `to`.
#[must_use]
pub fn step_move(from: &SequenceSteps, at: StepId, to: &SequenceSteps, passed: &BTreeSet<StepId>) -> StepMove {
    let old: Vec<StepId> = from.after(at).iter().map(|step| step.id).collect();
    let stand = from.position(at).map_or(0, |place| place + 1);
    let anchor = from.steps[..stand].iter().rev().find_map(|step| to.position(step.id));
    let later = anchor.map_or(0, |place| place + 1);
    let remaining: Vec<StepId> = to.steps[later..]
        .iter()
        .map(|step| step.id)
        .filter(|id| *id != at && !passed.contains(id))
        .collect();
    StepMove {
        removed: old
            .iter()
            .filter(|id| !remaining.contains(id) && !passed.contains(id))
            .copied()
            .collect(),
        added: remaining.iter().filter(|id| !old.contains(id)).copied().collect(),
        remaining,
    }
}

#[cfg(test)]
mod tests;
