//! From what a person says of a sequence to the sequence and its steps.

mod steps;

use std::fmt;
use std::time::Duration;

pub use self::steps::StepDraft;
use self::steps::{checked, incomplete};
use super::campaign_request::{
    DressingDraft, EXPIRES_AFTER, QuietDraft, ROUTINGS, RandomizerDraft, TARGETS, dressing, name_of,
};
use super::field::{FieldCode, FieldError, Problems, Warning, given};
use super::preview::Written;
use super::shared_drafts::{Carrier, DelayDraft, Edit};
use crate::domain::access::UserSettings;
use crate::domain::campaign::Routing;
use crate::domain::schedule::{LatePolicy, LocalTime, TimeZone};
use crate::domain::sequence::{FailurePolicy, ReEntry, Sequence, SequenceStatus, SequenceSteps};
use crate::domain::token::Token;
use crate::id::{DeviceId, IdSource, SequenceId, UserId};
use crate::time::Timestamp;

/// What a person says of a sequence.
#[derive(Clone, Default)]
pub struct SequenceDraft {
    /// Its name, 1 to 200 characters. Field `name`.
    pub name: Option<String>,
    /// Notes, at most 2,000 characters. Field `description`.
    pub description: Option<String>,
    /// Leads with this niche enrol too, at the first entry point. Field `niche`.
    pub niche: Option<String>,
    /// Only `prospect` or `customer`; `all` by default. Field `target_status`.
    pub target_status: Option<String>,
    /// The only device that sends it. Field `device_id`.
    pub device_id: Option<DeviceId>,
    /// `own_device`, the default, `balanced`, `round_robin` or `random`. Field `routing`.
    pub routing: Option<String>,
    /// Its zone by IANA name; the user's when absent. Field `time_zone`.
    pub time_zone: Option<String>,
    /// The local time at which steps are sent, such as `09:00`; at once when absent. Field `send_time`.
    pub send_time: Option<String>,
    /// `run`, the default, or `skip`: what happens to a step that nobody was there to send in time. Field `late_policy`.
    pub late_policy: Option<String>,
    /// Delay between messages; the device's when absent.
    pub delay: Option<DelayDraft>,
    /// When it must not send.
    pub quiet_hours: Option<QuietDraft>,
    /// Whether a greeting is put before each text; on by default. Field `greeting`.
    pub greeting: Option<bool>,
    /// `ms-MY`, the default, `id` or `en`. Field `greeting_locale`.
    pub greeting_locale: Option<String>,
    /// The randomizer; as the user's default has it when absent.
    pub randomizer: Option<RandomizerDraft>,
    /// How long after it is due a step may still be sent, 1 min to 30 days; 7 days by default. Field `expires_after`.
    pub expires_after: Option<Duration>,
    /// `continue`, the default, or `stop`: what a failed step does to its enrolment. Field `on_failure`.
    pub on_failure: Option<String>,
    /// Whether a reply ends the enrolment, and what a human writes on the device's own phone; off by default. Field
    /// `exit_on_reply`.
    pub exit_on_reply: Option<bool>,
    /// `never`, the default, `after_completion` or `always`: whether a person may enter again. Field `re_entry`.
    pub re_entry: Option<String>,
    /// Its steps, in order; those that it has when absent. Field `steps`, and `steps[0].…` from 0.
    pub steps: Option<Vec<StepDraft>>,
}

impl fmt::Debug for SequenceDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SequenceDraft")
            .field("device_id", &self.device_id)
            .field("steps", &self.steps)
            .finish_non_exhaustive()
    }
}

/// What a sequence is to become. Steps that stay name their id; others are new, and those that are not named are removed.
pub type SequenceEdit = Edit<SequenceDraft>;

const LATE_POLICIES: [(&str, LatePolicy); 2] = [("run", LatePolicy::Run), ("skip", LatePolicy::Skip)];
const FAILURE_POLICIES: [(&str, FailurePolicy); 2] =
    [("continue", FailurePolicy::Continue), ("stop", FailurePolicy::Stop)];
const RE_ENTRIES: [(&str, ReEntry); 3] = [
    ("never", ReEntry::Never),
    ("after_completion", ReEntry::AfterCompletion),
    ("always", ReEntry::Always),
];

impl SequenceDraft {
    /// The draft of a sequence as it is, with the steps of one of its versions.
    #[must_use]
    pub fn of(sequence: &Sequence, steps: Option<&SequenceSteps>) -> Self {
        let randomizer = sequence.dressing.randomizer;
        Self {
            name: Some(sequence.name.clone()),
            description: Some(sequence.description.clone()),
            niche: sequence.niche.as_ref().map(ToString::to_string),
            target_status: name_of(&TARGETS, &sequence.target),
            device_id: sequence.device_id,
            routing: name_of(&ROUTINGS, &sequence.routing),
            time_zone: Some(sequence.time_zone.to_string()),
            send_time: sequence.send_time.map(|time| time.to_string()),
            late_policy: name_of(&LATE_POLICIES, &sequence.late_policy),
            delay: sequence.delay.map(Into::into),
            quiet_hours: sequence.quiet_hours.map(Into::into),
            greeting: Some(sequence.dressing.greeting),
            greeting_locale: Some(sequence.dressing.greeting_locale.clone()),
            randomizer: Some(randomizer.into()),
            expires_after: Some(sequence.expires_after),
            on_failure: name_of(&FAILURE_POLICIES, &sequence.on_failure),
            exit_on_reply: Some(sequence.exit_on_reply),
            re_entry: name_of(&RE_ENTRIES, &sequence.re_entry),
            steps: steps.map(|version| version.steps.iter().map(Into::into).collect()),
        }
    }
}

/// What drafts are read with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SequenceContext<'a> {
    pub(crate) settings: &'a UserSettings,
    pub(crate) ids: &'a IdSource,
    /// The shortest wait between two steps.
    pub(crate) wait_min: Duration,
    pub(crate) now: Timestamp,
}

/// A sequence with its newest steps.
pub(crate) type WithSteps = (Sequence, Option<SequenceSteps>);

/// A new sequence in `draft` with the first version of its steps, and what is wrong with it as far as can be said without its
/// devices and media.
pub(crate) fn new_sequence(
    draft: &SequenceDraft,
    id: SequenceId,
    user_id: UserId,
    context: SequenceContext<'_>,
) -> (WithSteps, Problems) {
    let blank = Sequence::draft(id, user_id, "", context.now);
    let (mut sequence, steps, problems) = filled(draft, (&blank, None), context);
    sequence.steps_version = steps.as_ref().map_or(0, |steps| steps.version);
    ((sequence, steps), problems)
}

/// A sequence as a draft changes it, with a new version of its steps if they change, and what is wrong with it.
pub(crate) fn edited_sequence(
    draft: &SequenceDraft,
    before: (&Sequence, Option<&SequenceSteps>),
    context: SequenceContext<'_>,
) -> (WithSteps, Problems) {
    let (mut sequence, steps, mut problems) = filled(draft, before, context);
    sequence.updated_at = context.now;
    if sequence.status != SequenceStatus::Draft
        && let Some(newest) = steps.as_ref().or(before.1)
    {
        problems.extend(incomplete(newest));
    }
    ((sequence, steps), problems)
}

/// What a sequence still lacks before it can become active.
pub(crate) fn unready(steps: Option<&SequenceSteps>) -> Vec<FieldError> {
    match steps {
        Some(steps) if !steps.steps.is_empty() => incomplete(steps),
        _ => vec![FieldError::new(
            "steps",
            FieldCode::Required,
            "must hold at least one step",
        )],
    }
}

fn filled(
    draft: &SequenceDraft,
    (before, steps_before): (&Sequence, Option<&SequenceSteps>),
    context: SequenceContext<'_>,
) -> (Sequence, Option<SequenceSteps>, Problems) {
    let mut problems = Problems::default();
    let name = problems.required_line("name", draft.name.as_deref(), Sequence::NAME_MAX);
    let description = draft.description.as_deref().unwrap_or_default();
    let description = problems.block("description", description, Sequence::DESCRIPTION_MAX);
    let niche = given(draft.niche.as_deref()).and_then(|text| problems.parsed("niche", Token::parse(text)));
    let mut routing = Routing::default();
    if let Some(word) = given(draft.routing.as_deref()) {
        routing = problems.word("routing", word, &ROUTINGS).unwrap_or_default();
    }
    if draft.device_id.is_some() && routing.is_pool() {
        let expected = "must be own_device beside device_id: that device alone sends";
        problems.add("routing", FieldCode::NotAllowed, expected);
    }
    let target = given(draft.target_status.as_deref())
        .and_then(|word| problems.word("target_status", word, &TARGETS))
        .unwrap_or_default();
    let time_zone = match given(draft.time_zone.as_deref()) {
        None => Some(context.settings.time_zone),
        Some(name) => problems.parsed("time_zone", name.parse::<TimeZone>()),
    };
    let send_time =
        given(draft.send_time.as_deref()).and_then(|text| problems.parsed("send_time", text.parse::<LocalTime>()));
    // Nobody could be asked about each step of each lead: `ask` is none of the words.
    let late_policy = given(draft.late_policy.as_deref())
        .and_then(|word| problems.word("late_policy", word, &LATE_POLICIES))
        .unwrap_or(LatePolicy::Run);
    let delay = draft.delay.and_then(|delay| delay.check(&mut problems));
    let quiet_hours = draft.quiet_hours.as_ref().and_then(|quiet| quiet.check(&mut problems));
    let wanted = DressingDraft {
        greeting: draft.greeting,
        greeting_locale: draft.greeting_locale.as_deref(),
        randomizer: draft.randomizer,
    };
    let dressing = dressing(wanted, context.settings, &mut problems);
    let expires_after = draft.expires_after.unwrap_or(Sequence::EXPIRES_AFTER);
    if !EXPIRES_AFTER.contains(&expires_after) {
        problems.add("expires_after", FieldCode::OutOfRange, "must be 1 minute to 30 days");
    }
    let on_failure = given(draft.on_failure.as_deref())
        .and_then(|word| problems.word("on_failure", word, &FAILURE_POLICIES))
        .unwrap_or_default();
    let re_entry = given(draft.re_entry.as_deref())
        .and_then(|word| problems.word("re_entry", word, &RE_ENTRIES))
        .unwrap_or_default();
    let steps = draft
        .steps
        .as_deref()
        .and_then(|drafts| checked(drafts, (before, steps_before), context, &mut problems));
    let sequence = Sequence {
        name,
        description,
        niche,
        target,
        device_id: draft.device_id,
        routing,
        time_zone: time_zone.unwrap_or_default(),
        send_time,
        late_policy,
        delay,
        quiet_hours,
        dressing,
        expires_after,
        on_failure,
        exit_on_reply: draft.exit_on_reply.unwrap_or(false),
        re_entry,
        ..before.clone()
    };
    (sequence, steps, problems)
}

/// What a person should know of the texts before they go to those carriers.
pub(crate) fn step_warnings(sequence: &Sequence, steps: &SequenceSteps, carriers: &[Carrier<'_>]) -> Vec<Warning> {
    let mut warnings = Vec::new();
    for (at, step) in steps.steps.iter().enumerate() {
        let written = Written {
            content: &step.content,
            dressing: &sequence.dressing,
            time_zone: sequence.time_zone,
        };
        let of_step = super::campaign_request::text_warnings(written, carriers);
        warnings.extend(of_step.into_iter().map(|warning| Warning {
            field: format!("steps[{at}].{}", warning.field).into(),
            ..warning
        }));
    }
    warnings
}

#[cfg(test)]
mod tests;
