//! From what a person says of the steps of a sequence to a version of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::SequenceContext;
use crate::domain::schedule::LocalTime;
use crate::domain::sequence::{Sequence, SequenceSteps, Step};
use crate::domain::token::{TOKEN_CHARS_MAX, Token};
use crate::id::StepId;
use crate::plan::field::{FieldCode, FieldError, Problems, given};
use crate::plan::shared_drafts::{DelayDraft, MediaDraft, content};

/// What a person says of one step. Its fields are named `steps[0].…`, by its place from 0.
#[derive(Clone, Default)]
pub struct StepDraft {
    /// The step of the newest version that this is; `None` for a new one. Field `id`.
    pub id: Option<StepId>,
    /// The day that it is shown on, 1 to 3,650, not before that of the step before; counted by the waits when absent. Field
    /// `day`.
    pub day: Option<i64>,
    /// Its trigger, unlike that of any other step; named after the entry trigger and its day when absent. Field `trigger`.
    pub trigger: Option<String>,
    /// Of the last step: the trigger that the lead gets instead of the one by which it entered. Field `next_trigger`.
    pub next_trigger: Option<String>,
    /// Whether leads with its trigger enter here; the first step is an entry point unless it says otherwise. Field
    /// `entry_point`.
    pub entry_point: Option<bool>,
    /// How long after it was sent the next step is due, in seconds, 1 h to 52 weeks; 24 h by default. Field `delay_hours`.
    pub wait_secs: Option<i64>,
    /// Its text, at most 65,536 bytes, with merge fields and choices. Field `message`.
    pub message: Option<String>,
    /// What is attached. Field `media`.
    pub media: Option<MediaDraft>,
    /// At which local time it is sent, such as `09:00`; as the sequence has it when absent. Field `send_time`.
    pub send_time: Option<String>,
    /// Delay before it; the sequence's when absent. Fields `min_delay` and `max_delay`.
    pub delay: Option<DelayDraft>,
}

impl fmt::Debug for StepDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StepDraft")
            .field("id", &self.id)
            .field("day", &self.day)
            .field("wait_secs", &self.wait_secs)
            .finish_non_exhaustive()
    }
}

impl From<&Step> for StepDraft {
    fn from(step: &Step) -> Self {
        Self {
            id: Some(step.id),
            day: Some(step.day.into()),
            trigger: Some(step.trigger.to_string()),
            next_trigger: step.next_trigger.as_ref().map(ToString::to_string),
            entry_point: Some(step.entry_point),
            wait_secs: i64::try_from(step.wait.as_secs()).ok(),
            message: Some(step.content.text.clone()),
            media: step.content.media.as_ref().map(Into::into),
            send_time: step.send_time.map(|time| time.to_string()),
            delay: step.delay.map(Into::into),
        }
    }
}

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// The next version of the steps; `None` when nothing changes, or when there are none and were none.
pub(super) fn checked(
    drafts: &[StepDraft],
    (sequence, before): (&Sequence, Option<&SequenceSteps>),
    context: SequenceContext<'_>,
    problems: &mut Problems,
) -> Option<SequenceSteps> {
    if drafts.is_empty() {
        if before.is_some() {
            problems.add("steps", FieldCode::Required, "must hold at least one step");
        }
        return None;
    }
    if drafts.len() > SequenceSteps::COUNT_MAX {
        let expected = format!("must hold at most {} steps", SequenceSteps::COUNT_MAX);
        problems.add("steps", FieldCode::TooMany, expected);
        return None;
    }
    let mut parts: Vec<Problems> = drafts.iter().map(|_| Problems::default()).collect();
    let ids = ids(drafts, (sequence, before), context, &mut parts);
    let waits = waits(drafts, context.wait_min, &mut parts);
    let days = days(drafts, &waits, &mut parts);
    let triggers = triggers(drafts, &days, &mut parts);
    let next_triggers = next_triggers(drafts, &triggers, &mut parts);
    let mut steps = Vec::with_capacity(drafts.len());
    for (at, draft) in drafts.iter().enumerate() {
        let part = &mut parts[at];
        let content = content("message", draft.message.as_deref(), draft.media.as_ref(), part);
        let send_time =
            given(draft.send_time.as_deref()).and_then(|text| part.parsed("send_time", text.parse::<LocalTime>()));
        let delay = draft.delay.and_then(|delay| delay.check(part));
        if let Some(trigger) = triggers[at].clone() {
            steps.push(Step {
                id: ids[at],
                day: days[at],
                trigger,
                next_trigger: next_triggers[at].clone(),
                entry_point: is_entry(draft, at),
                wait: waits[at],
                content,
                send_time,
                delay,
            });
        }
    }
    for (at, part) in parts.into_iter().enumerate() {
        problems.extend_within(&format!("steps[{at}]"), part);
    }
    if !drafts.iter().enumerate().any(|(at, draft)| is_entry(draft, at)) {
        let expected = "must have an entry point: a step by whose trigger leads enter";
        problems.add("steps", FieldCode::Required, expected);
    }
    if before.is_some_and(|before| before.steps == steps) {
        return None;
    }
    Some(SequenceSteps {
        sequence_id: sequence.id,
        version: sequence.steps_version + 1,
        steps,
    })
}

/// What steps still lack before they can be sent.
pub(super) fn incomplete(steps: &SequenceSteps) -> Vec<FieldError> {
    let empty = steps
        .steps
        .iter()
        .enumerate()
        .filter(|(_, step)| step.content.is_empty());
    let errors = empty.map(|(at, _)| {
        let expected = "is required, unless something is attached";
        FieldError::new(format!("steps[{at}].message"), FieldCode::Required, expected)
    });
    errors.collect()
}

fn is_entry(draft: &StepDraft, at: usize) -> bool {
    draft.entry_point.unwrap_or(at == 0)
}

/// Steps that stay keep their id. Once leads run through a sequence they keep their order too: the numbers count what is
/// still to come by the order of the steps.
fn ids(
    drafts: &[StepDraft],
    (sequence, before): (&Sequence, Option<&SequenceSteps>),
    context: SequenceContext<'_>,
    parts: &mut [Problems],
) -> Vec<StepId> {
    let mut seen = BTreeSet::new();
    let mut last = None;
    let mut ids = Vec::with_capacity(drafts.len());
    for (draft, part) in drafts.iter().zip(parts) {
        let Some(id) = draft.id else {
            ids.push(StepId::new(context.ids, context.now));
            continue;
        };
        ids.push(id);
        let place = before.and_then(|before| before.position(id));
        if place.is_none() {
            part.add(
                "id",
                FieldCode::NotFound,
                "must be a step of this sequence, or absent for a new one",
            );
        } else if !seen.insert(id) {
            part.add("id", FieldCode::NotAllowed, "must not be named twice");
        } else if sequence.started_at.is_some() && place < last {
            let expected = "must keep its place among the steps that stay, because the sequence has started: \
                            move texts instead, or make it a new step";
            part.add("id", FieldCode::NotAllowed, expected);
        } else {
            last = place;
        }
    }
    ids
}

fn waits(drafts: &[StepDraft], wait_min: Duration, parts: &mut [Problems]) -> Vec<Duration> {
    let allowed = wait_min..=Step::WAIT_MAX;
    let mut read = |(draft, part): (&StepDraft, &mut Problems)| {
        let Some(secs) = draft.wait_secs else {
            return Step::WAIT.max(wait_min);
        };
        let wait = u64::try_from(secs).ok().map(Duration::from_secs);
        wait.filter(|wait| allowed.contains(wait)).unwrap_or_else(|| {
            let expected = format!("must be {} to 52 weeks", in_words(wait_min));
            part.add("delay_hours", FieldCode::OutOfRange, expected);
            Step::WAIT
        })
    };
    drafts.iter().zip(parts).map(&mut read).collect()
}

fn in_words(span: Duration) -> String {
    let secs = span.as_secs();
    let (count, unit) = match secs {
        0 => (0, "second"),
        secs if secs % 3_600 == 0 => (secs / 3_600, "hour"),
        secs if secs % 60 == 0 => (secs / 60, "minute"),
        secs => (secs, "second"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn days(drafts: &[StepDraft], waits: &[Duration], parts: &mut [Problems]) -> Vec<u16> {
    let mut days: Vec<u16> = Vec::with_capacity(drafts.len());
    for (at, (draft, part)) in drafts.iter().zip(parts).enumerate() {
        let last = days.last().copied();
        let counted = match last {
            None => 1,
            Some(last) => {
                let later = u16::try_from(waits[at - 1].as_secs() / DAY.as_secs()).unwrap_or(u16::MAX);
                last.saturating_add(later.max(1)).min(Step::DAY_MAX)
            }
        };
        let day = match draft.day {
            None => counted,
            Some(day) => match u16::try_from(day) {
                Ok(day) if (1..=Step::DAY_MAX).contains(&day) => {
                    if last.is_some_and(|last| day < last) {
                        part.add(
                            "day",
                            FieldCode::OutOfRange,
                            "must not be before the day of the step before it",
                        );
                    }
                    day
                }
                _ => {
                    part.add("day", FieldCode::OutOfRange, format!("must be 1 to {}", Step::DAY_MAX));
                    counted
                }
            },
        };
        days.push(day);
    }
    days
}

/// The triggers as they are given, and names for those that are not: the stem of the entry trigger and the day.
fn triggers(drafts: &[StepDraft], days: &[u16], parts: &mut [Problems]) -> Vec<Option<Token>> {
    let mut triggers: Vec<Option<Token>> = Vec::with_capacity(drafts.len());
    let mut taken: BTreeMap<Token, usize> = BTreeMap::new();
    for (at, (draft, part)) in drafts.iter().zip(parts.iter_mut()).enumerate() {
        let text = given(draft.trigger.as_deref());
        let token = text.and_then(|text| part.parsed("trigger", Token::parse(text)));
        if let Some(token) = &token {
            match taken.get(token) {
                Some(first) => {
                    let expected = format!("must differ from the trigger of steps[{first}]");
                    part.add("trigger", FieldCode::NotAllowed, expected);
                }
                None => drop(taken.insert(token.clone(), at)),
            }
        }
        triggers.push(token);
    }
    let unnamed = |at: usize| given(drafts[at].trigger.as_deref()).is_none();
    let entry = (0..drafts.len()).filter(|at| is_entry(&drafts[*at], *at));
    let entry = entry.chain(0..drafts.len()).find_map(|at| triggers[at].clone());
    let Some(entry) = entry else {
        if unnamed(0) {
            parts[0].add("trigger", FieldCode::Required, "is required: by it leads enter");
        }
        return triggers;
    };
    for at in 0..drafts.len() {
        if unnamed(at) {
            let name = name_of_day(&entry, days[at], &taken);
            match &name {
                Some(name) => drop(taken.insert(name.clone(), at)),
                None => parts[at].add(
                    "trigger",
                    FieldCode::Required,
                    "is required: no name could be made for it",
                ),
            }
            triggers[at] = name;
        }
    }
    triggers
}

/// `fitness_start` on day 2 gives `fitness_day2`; a name that is taken is numbered.
fn name_of_day(entry: &Token, day: u16, taken: &BTreeMap<Token, usize>) -> Option<Token> {
    let (stem, mark) = stem(entry.spelling());
    (1..=SequenceSteps::COUNT_MAX).find_map(|number| {
        let ending = match number {
            1 => format!("{mark}day{day}"),
            _ => format!("{mark}day{day}{mark}{number}"),
        };
        let kept: String = stem.chars().take(TOKEN_CHARS_MAX - ending.chars().count()).collect();
        let name = Token::parse(&format!("{kept}{ending}")).ok()?;
        (!taken.contains_key(&name)).then_some(name)
    })
}

/// What stands before `_start` or `_day1`, and what parts it from that.
fn stem(entry: &str) -> (&str, char) {
    for mark in ['_', '-', ' ', '.'] {
        if let Some((stem, last)) = entry.rsplit_once(mark).filter(|(stem, _)| !stem.is_empty()) {
            let last = last.to_lowercase();
            let day = last.strip_prefix("day").unwrap_or_default();
            if last == "start" || (!day.is_empty() && day.bytes().all(|byte| byte.is_ascii_digit())) {
                return (stem, mark);
            }
        }
    }
    (entry, '_')
}

/// Of the last step alone: between steps the next trigger is that of the step that follows.
fn next_triggers(drafts: &[StepDraft], triggers: &[Option<Token>], parts: &mut [Problems]) -> Vec<Option<Token>> {
    let last = drafts.len() - 1;
    let mut next_triggers = vec![None; drafts.len()];
    for (at, (draft, part)) in drafts.iter().zip(parts).enumerate() {
        let text = given(draft.next_trigger.as_deref());
        let Some(token) = text.and_then(|text| part.parsed("next_trigger", Token::parse(text))) else {
            continue;
        };
        if at < last {
            if triggers[at + 1].as_ref() != Some(&token) {
                let expected = "is only for the last step: between steps it is the trigger of the step that follows";
                part.add("next_trigger", FieldCode::NotAllowed, expected);
            }
            continue;
        }
        let own = (0..drafts.len()).find(|at| triggers[*at].as_ref() == Some(&token));
        match own {
            Some(own) => {
                let expected = format!("must lead to another sequence: it is the trigger of steps[{own}] of this one");
                part.add("next_trigger", FieldCode::NotAllowed, expected);
            }
            None => next_triggers[at] = Some(token),
        }
    }
    next_triggers
}
