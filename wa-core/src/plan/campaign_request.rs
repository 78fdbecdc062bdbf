//! From what a person says of a campaign to the campaign.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::field::{FieldCode, FieldError, Problems, Warning, WarningCode, given};
use super::lead_request::custom_fields;
use super::preview::{Written, longest_text};
use super::shared_drafts::{Carrier, DelayDraft, Edit, MediaDraft, content};
use crate::antispam::randomizer::{LETTERS_PERCENT_MAX, RandomizerConfig, ZERO_WIDTH_MAX};
use crate::domain::access::UserSettings;
use crate::domain::audience::{Audience, CampaignEntry, TargetFilter};
use crate::domain::campaign::{Campaign, CampaignStatus, Dressing, Routing};
use crate::domain::content::{Content, MergeValues};
use crate::domain::lead::Lead;
use crate::domain::phone::{Phone, Region};
use crate::domain::schedule::{LatePolicy, LocalDate, LocalTime, QuietHours, TimeZone};
use crate::domain::token::Token;
use crate::id::{CampaignId, DeviceId, UserId};
use crate::time::Timestamp;

/// What a person says of a campaign.
#[derive(Clone, Default)]
pub struct CampaignDraft {
    /// Its title, 1 to 200 characters. Field `title`.
    pub title: Option<String>,
    /// Its text, at most 65,536 bytes, with merge fields and choices. Field `message`.
    pub message: Option<String>,
    /// What is attached. Field `media`.
    pub media: Option<MediaDraft>,
    /// `leads`, the default, `entries` for recipients that are uploaded with it, or `pool` for leads without a device. Field
    /// `audience`.
    pub audience: Option<String>,
    /// Only leads with this niche, exactly. Field `niche`.
    pub niche: Option<String>,
    /// Only `prospect` or `customer`; `all` by default. Field `target_status`.
    pub target_status: Option<String>,
    /// Only leads of this device; the campaign's device when that alone is given. Field `audience_device_id`.
    pub audience_device_id: Option<DeviceId>,
    /// The only device that sends it. Field `device_id`.
    pub device_id: Option<DeviceId>,
    /// `own_device`, the default, `balanced`, `round_robin` or `random`; of the pool `balanced` is the default. Field `routing`.
    pub routing: Option<String>,
    /// Of the pool: how many messages one device takes each time that it is triggered, 1 to 10,000. Field `device_limit`.
    pub device_limit: Option<u32>,
    /// Its zone by IANA name; the user's when absent. Field `time_zone`.
    pub time_zone: Option<String>,
    /// The local date of its start, such as `2026-11-21`. Field `date`.
    pub date: Option<String>,
    /// The local time of its start, such as `09:00`. Field `time`.
    pub time: Option<String>,
    /// `ask`, the default, `run` or `skip`: what happens when its start was missed. Field `late_policy`.
    pub late_policy: Option<String>,
    /// Delay between messages; the device's when absent.
    pub delay: Option<DelayDraft>,
    /// When it must not send.
    pub quiet_hours: Option<QuietDraft>,
    /// Whether a greeting is put before the text; on by default. Field `greeting`.
    pub greeting: Option<bool>,
    /// `ms-MY`, the default, `id` or `en`. Field `greeting_locale`.
    pub greeting_locale: Option<String>,
    /// The randomizer; as the user's default has it when absent.
    pub randomizer: Option<RandomizerDraft>,
    /// How long after it is due a message may still be sent, 1 min to 30 days; 7 days by default. Field `expires_after`.
    pub expires_after: Option<Duration>,
}

impl fmt::Debug for CampaignDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CampaignDraft")
            .field("device_id", &self.device_id)
            .field("date", &self.date)
            .field("time", &self.time)
            .finish_non_exhaustive()
    }
}

/// What a campaign is to become.
pub type CampaignEdit = Edit<CampaignDraft>;

/// The part of each local day in which nothing is sent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct QuietDraft {
    /// When it begins, such as `22:00`. Field `quiet_from`.
    pub from: String,
    /// When it is over, such as `08:00`. Field `quiet_until`.
    pub until: String,
}

/// How strongly the randomizer changes a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RandomizerDraft {
    /// Whether it is on. Field `randomizer`.
    pub on: bool,
    /// Share of letters replaced, 0 to 15 %; 5 by default. Field `randomizer.letters_percent`.
    pub letters_percent: Option<u32>,
    /// Zero-width characters put in, 0 to 5; 2 by default. Field `randomizer.zero_width`.
    pub zero_width: Option<u32>,
}

/// Whether a campaign only is kept or also waits for its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveAs {
    /// It is a draft until it is scheduled.
    #[default]
    Draft,
    /// It starts at its local date and time.
    Scheduled,
}

/// The kinds of audiences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Leads,
    Entries,
    Pool,
}

const AUDIENCES: [(&str, Kind); 3] = [("leads", Kind::Leads), ("entries", Kind::Entries), ("pool", Kind::Pool)];
pub(super) const TARGETS: [(&str, TargetFilter); 3] = [
    ("prospect", TargetFilter::Prospect),
    ("customer", TargetFilter::Customer),
    ("all", TargetFilter::All),
];
pub(super) const ROUTINGS: [(&str, Routing); 4] = [
    ("own_device", Routing::OwnDevice),
    ("balanced", Routing::Balanced),
    ("round_robin", Routing::RoundRobin),
    ("random", Routing::Random),
];
const LATE_POLICIES: [(&str, LatePolicy); 3] = [
    ("run", LatePolicy::Run),
    ("skip", LatePolicy::Skip),
    ("ask", LatePolicy::Ask),
];
const LOCALES: [(&str, &str); 3] = [("ms-MY", "ms-MY"), ("id", "id"), ("en", "en")];

pub(super) fn name_of<T: PartialEq>(words: &[(&str, T)], value: &T) -> Option<String> {
    let found = words.iter().find(|(_, known)| known == value);
    found.map(|(word, _)| (*word).to_owned())
}

impl From<&Campaign> for CampaignDraft {
    fn from(campaign: &Campaign) -> Self {
        let (kind, target, audience_device_id) = match &campaign.audience {
            Audience::Leads { target, device_id, .. } => (Kind::Leads, *target, *device_id),
            Audience::Entries => (Kind::Entries, TargetFilter::All, None),
            Audience::Pool { target, .. } => (Kind::Pool, *target, None),
        };
        let randomizer = campaign.dressing.randomizer;
        Self {
            title: Some(campaign.title.clone()),
            message: Some(campaign.content.text.clone()),
            media: campaign.content.media.as_ref().map(Into::into),
            audience: name_of(&AUDIENCES, &kind),
            niche: campaign.audience.niche().map(ToString::to_string),
            target_status: name_of(&TARGETS, &target),
            audience_device_id,
            device_id: campaign.device_id,
            routing: name_of(&ROUTINGS, &campaign.routing),
            device_limit: campaign.device_limit,
            time_zone: Some(campaign.time_zone.to_string()),
            date: campaign.date.map(|date| date.to_string()),
            time: campaign.time.map(|time| time.to_string()),
            late_policy: name_of(&LATE_POLICIES, &campaign.late_policy),
            delay: campaign.delay.map(Into::into),
            quiet_hours: campaign.quiet_hours.map(Into::into),
            greeting: Some(campaign.dressing.greeting),
            greeting_locale: Some(campaign.dressing.greeting_locale.clone()),
            randomizer: Some(randomizer.into()),
            expires_after: Some(campaign.expires_after),
        }
    }
}

/// A new campaign in `draft`, and what is wrong with it as far as can be said without its devices and media.
pub(crate) fn new_campaign(
    draft: &CampaignDraft,
    id: CampaignId,
    user_id: UserId,
    settings: &UserSettings,
    now: Timestamp,
) -> (Campaign, Problems) {
    let blank = Campaign::draft(id, user_id, "", Content::default(), now);
    let (mut campaign, problems) = filled(draft, &blank, settings);
    campaign.content_version = 1;
    (campaign, problems)
}

/// A campaign as a draft changes it, and what is wrong with it.
///
/// A change of content or dressing makes a new content version. A paused campaign keeps its audience, devices and start.
pub(crate) fn edited_campaign(
    draft: &CampaignDraft,
    before: &Campaign,
    settings: &UserSettings,
    now: Timestamp,
    grace: Duration,
) -> (Campaign, Problems) {
    let (mut campaign, mut problems) = filled(draft, before, settings);
    campaign.updated_at = now;
    if before.status == CampaignStatus::Paused {
        let fixed = [
            ("audience", campaign.audience != before.audience),
            ("device_id", campaign.device_id != before.device_id),
            ("routing", campaign.routing != before.routing),
            ("time_zone", campaign.time_zone != before.time_zone),
            ("date", campaign.date != before.date),
            ("time", campaign.time != before.time),
        ];
        for (field, _) in fixed.into_iter().filter(|(_, changed)| *changed) {
            problems.add(
                field,
                FieldCode::NotAllowed,
                "cannot be changed once the campaign has started",
            );
        }
        campaign.scheduled_at = before.scheduled_at;
    }
    if before.status == CampaignStatus::Scheduled {
        problems.extend(incomplete(&campaign));
        if campaign.scheduled_at != before.scheduled_at {
            problems.extend(past(&campaign, now, grace));
            campaign.reason = None;
            campaign.status_at = now;
        }
    }
    (campaign, problems)
}

/// The campaign as it waits for its time.
pub(crate) fn scheduled(before: &Campaign, now: Timestamp, grace: Duration) -> Result<Campaign, Vec<FieldError>> {
    let mut problems = Problems::default();
    problems.extend(incomplete(before));
    problems.extend(past(before, now, grace));
    let mut campaign = before.clone();
    campaign.status = CampaignStatus::Scheduled;
    campaign.reason = None;
    campaign.status_at = now;
    campaign.updated_at = now;
    problems.give(campaign)
}

/// The campaign as it starts at once, whatever date and time it had.
pub(crate) fn started_now(before: &Campaign, now: Timestamp) -> Result<Campaign, Vec<FieldError>> {
    let campaign = Campaign {
        date: Some(before.time_zone.local_date(now)),
        time: Some(before.time_zone.local_time(now)),
        scheduled_at: Some(now),
        status: CampaignStatus::Scheduled,
        reason: None,
        status_at: now,
        updated_at: now,
        ..before.clone()
    };
    let mut problems = Problems::default();
    problems.extend(incomplete(&campaign));
    problems.give(campaign)
}

/// What a campaign still lacks before it can start.
fn incomplete(campaign: &Campaign) -> Vec<FieldError> {
    let mut problems = Problems::default();
    if campaign.content.is_empty() && campaign.audience != Audience::Entries {
        problems.add(
            "message",
            FieldCode::Required,
            "is required, unless something is attached",
        );
    }
    if campaign.date.is_none() {
        problems.add("date", FieldCode::Required, "is required to schedule a campaign");
    }
    if campaign.time.is_none() {
        problems.add("time", FieldCode::Required, "is required to schedule a campaign");
    }
    problems.into_errors()
}

fn past(campaign: &Campaign, now: Timestamp, grace: Duration) -> Option<FieldError> {
    let late = campaign.scheduled_at.filter(|at| *at + grace < now)?;
    let local = campaign.time_zone;
    let expected = format!("and time must not lie in the past: {late} is before {now} ({local})");
    Some(FieldError::new("date", FieldCode::Past, expected))
}

/// Longest and shortest time that a message may wait.
pub(super) const EXPIRES_AFTER: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3_600);

fn filled(draft: &CampaignDraft, before: &Campaign, settings: &UserSettings) -> (Campaign, Problems) {
    let mut problems = Problems::default();
    let title = problems.required_line("title", draft.title.as_deref(), Campaign::TITLE_MAX);
    let content = content("message", draft.message.as_deref(), draft.media.as_ref(), &mut problems);
    let routing = given(draft.routing.as_deref()).and_then(|word| problems.word("routing", word, &ROUTINGS));
    let kind = given(draft.audience.as_deref())
        .and_then(|word| problems.word("audience", word, &AUDIENCES))
        .unwrap_or_default();
    let routing = routing.unwrap_or(match kind {
        Kind::Pool => Routing::Balanced,
        Kind::Leads | Kind::Entries => Routing::OwnDevice,
    });
    if kind != Kind::Pool && draft.device_id.is_some() && routing.is_pool() {
        problems.add(
            "routing",
            FieldCode::NotAllowed,
            "must be own_device beside device_id: that device alone sends",
        );
    }
    let audience = audience(draft, kind, routing, &mut problems);
    let device_limit = device_limit(draft, kind, &mut problems);
    let time_zone = match given(draft.time_zone.as_deref()) {
        None => Some(settings.time_zone),
        Some(name) => problems.parsed("time_zone", name.parse::<TimeZone>()),
    };
    let date = given(draft.date.as_deref()).and_then(|text| problems.parsed("date", text.parse::<LocalDate>()));
    let time = given(draft.time.as_deref()).and_then(|text| problems.parsed("time", text.parse::<LocalTime>()));
    let late_policy = given(draft.late_policy.as_deref())
        .and_then(|word| problems.word("late_policy", word, &LATE_POLICIES))
        .unwrap_or_default();
    let delay = draft.delay.and_then(|delay| delay.check(&mut problems));
    let quiet_hours = draft.quiet_hours.as_ref().and_then(|quiet| quiet.check(&mut problems));
    let wanted = DressingDraft {
        greeting: draft.greeting,
        greeting_locale: draft.greeting_locale.as_deref(),
        randomizer: draft.randomizer,
    };
    let dressing = dressing(wanted, settings, &mut problems);
    let expires_after = draft.expires_after.unwrap_or(Campaign::EXPIRES_AFTER);
    if !EXPIRES_AFTER.contains(&expires_after) {
        problems.add("expires_after", FieldCode::OutOfRange, "must be 1 minute to 30 days");
    }
    let time_zone = time_zone.unwrap_or_default();
    let scheduled_at = date.zip(time).map(|(date, time)| time_zone.instant(date, time));
    let new_text = content != before.content || dressing != before.dressing;
    let campaign = Campaign {
        title,
        content,
        content_version: before.content_version + i32::from(new_text),
        audience,
        device_id: draft.device_id,
        routing,
        device_limit,
        time_zone,
        date,
        time,
        scheduled_at,
        late_policy,
        delay,
        quiet_hours,
        dressing,
        expires_after,
        ..before.clone()
    };
    (campaign, problems)
}

fn audience(draft: &CampaignDraft, kind: Kind, routing: Routing, problems: &mut Problems) -> Audience {
    let niche = given(draft.niche.as_deref()).and_then(|text| problems.parsed("niche", Token::parse(text)));
    let target = given(draft.target_status.as_deref())
        .and_then(|word| problems.word("target_status", word, &TARGETS))
        .unwrap_or_default();
    match kind {
        Kind::Leads => Audience::Leads {
            niche,
            target,
            device_id: draft.audience_device_id.or(draft.device_id),
        },
        Kind::Pool => {
            let named = [
                ("device_id", draft.device_id.is_some()),
                ("audience_device_id", draft.audience_device_id.is_some()),
            ];
            for (field, _) in named.into_iter().filter(|(_, named)| *named) {
                let expected = "must be empty for the pool: its leads have no device, and all devices share them";
                problems.add(field, FieldCode::NotAllowed, expected);
            }
            if !routing.is_pool() {
                let expected =
                    "must be balanced, round_robin or random for the pool: its leads have no device of their own";
                problems.add("routing", FieldCode::NotAllowed, expected);
            }
            Audience::Pool { niche, target }
        }
        Kind::Entries => {
            if niche.is_some() {
                problems.add(
                    "niche",
                    FieldCode::NotAllowed,
                    "must be empty for an audience of uploaded entries",
                );
            }
            if draft.device_id.is_none() && !routing.is_pool() {
                let expected = "is required for uploaded entries, unless routing is balanced, round_robin or random";
                problems.add("device_id", FieldCode::Required, expected);
            }
            Audience::Entries
        }
    }
}

fn device_limit(draft: &CampaignDraft, kind: Kind, problems: &mut Problems) -> Option<u32> {
    let (least, most) = (Campaign::DEVICE_LIMIT.start(), Campaign::DEVICE_LIMIT.end());
    match (kind, draft.device_limit) {
        (Kind::Pool, Some(limit)) if Campaign::DEVICE_LIMIT.contains(&limit) => return Some(limit),
        (Kind::Pool, Some(_)) => problems.add(
            "device_limit",
            FieldCode::OutOfRange,
            format!("must be {least} to {most}"),
        ),
        (Kind::Pool, None) => problems.add(
            "device_limit",
            FieldCode::Required,
            format!("is required for the pool: how many messages one device takes, {least} to {most}"),
        ),
        (Kind::Leads | Kind::Entries, Some(_)) => problems.add(
            "device_limit",
            FieldCode::NotAllowed,
            "must be empty unless the audience is the pool",
        ),
        (Kind::Leads | Kind::Entries, None) => {}
    }
    None
}

impl From<QuietHours> for QuietDraft {
    fn from(hours: QuietHours) -> Self {
        Self {
            from: hours.from().to_string(),
            until: hours.until().to_string(),
        }
    }
}

impl QuietDraft {
    pub(super) fn check(&self, problems: &mut Problems) -> Option<QuietHours> {
        let from = problems.parsed("quiet_from", self.from.trim().parse::<LocalTime>());
        let until = problems.parsed("quiet_until", self.until.trim().parse::<LocalTime>());
        let hours = QuietHours::new(from?, until?);
        if hours.is_err() {
            problems.add("quiet_until", FieldCode::OutOfRange, "must differ from quiet_from");
        }
        hours.ok()
    }
}

/// What a person says of how a text is dressed.
#[derive(Debug, Clone, Copy)]
pub(super) struct DressingDraft<'a> {
    pub(super) greeting: Option<bool>,
    pub(super) greeting_locale: Option<&'a str>,
    pub(super) randomizer: Option<RandomizerDraft>,
}

pub(super) fn dressing(draft: DressingDraft<'_>, settings: &UserSettings, problems: &mut Problems) -> Dressing {
    let locale = given(draft.greeting_locale)
        .and_then(|word| problems.word("greeting_locale", word, &LOCALES))
        .unwrap_or("ms-MY");
    let randomizer = match draft.randomizer {
        None => settings.randomizer.then(RandomizerConfig::default),
        Some(wanted) => wanted.check(problems),
    };
    Dressing {
        greeting: draft.greeting.unwrap_or(true),
        greeting_locale: locale.to_owned(),
        randomizer,
    }
}

impl From<Option<RandomizerConfig>> for RandomizerDraft {
    fn from(config: Option<RandomizerConfig>) -> Self {
        Self {
            on: config.is_some(),
            letters_percent: config.map(|config| config.letters_percent().into()),
            zero_width: config.map(|config| config.zero_width().into()),
        }
    }
}

impl RandomizerDraft {
    fn check(self, problems: &mut Problems) -> Option<RandomizerConfig> {
        let defaults = RandomizerConfig::default();
        let mut within = |field: &'static str, value: Option<u32>, default: u8, most: u8| match value {
            None => default,
            Some(value) => match u8::try_from(value) {
                Ok(value) if value <= most => value,
                _ => {
                    problems.add(field, FieldCode::OutOfRange, format!("must be 0 to {most}"));
                    default
                }
            },
        };
        let letters = within(
            "randomizer.letters_percent",
            self.letters_percent,
            defaults.letters_percent(),
            LETTERS_PERCENT_MAX,
        );
        let zero_width = within(
            "randomizer.zero_width",
            self.zero_width,
            defaults.zero_width(),
            ZERO_WIDTH_MAX,
        );
        let config = defaults
            .with_letters_percent(letters)
            .and_then(|with| with.with_zero_width(zero_width))
            .ok();
        config.filter(|_| self.on)
    }
}

/// What a person should know of the text before it goes to those carriers.
///
/// Merge fields are taken as empty, because each lead fills them differently; the preview for a lead knows better.
pub(crate) fn text_warnings(written: Written<'_>, carriers: &[Carrier<'_>]) -> Vec<Warning> {
    let Some(chars) = longest_text(written, &MergeValues::default()) else {
        return Vec::new();
    };
    let limits = carriers
        .iter()
        .map(|carrier| (carrier.platform, carrier.text_max(written.content)));
    limits
        .filter(|(_, most)| chars > *most)
        .map(|(platform, most)| {
            let message = format!(
                "the text may have {chars} characters; {platform} devices take {most}: who would get more is skipped"
            );
            Warning::new("message", WarningCode::TooLong, message)
        })
        .collect()
}

/// One uploaded recipient, as a file says it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct EntryDraft {
    /// The number. Field `phone`.
    pub phone: String,
    /// The name, at most 200 characters. Field `name`.
    pub name: Option<String>,
    /// An own text. Field `message`.
    pub message: Option<String>,
    /// Own fields for `{{custom.key}}`. Field `custom` or `custom.key`.
    pub custom: BTreeMap<String, String>,
}

impl fmt::Debug for EntryDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EntryDraft").finish_non_exhaustive()
    }
}

/// The recipient at a position of an upload.
pub(crate) fn entry(
    draft: &EntryDraft,
    campaign_id: CampaignId,
    position: u32,
    region: Region,
) -> Result<CampaignEntry, Vec<FieldError>> {
    let mut problems = Problems::default();
    let phone = problems.parsed("phone", Phone::parse(&draft.phone, &region));
    let name = problems.line("name", draft.name.as_deref().unwrap_or_default(), Lead::NAME_MAX);
    let text = given(draft.message.as_deref());
    if text.is_some() {
        content("message", text, None, &mut problems);
    }
    let custom = custom_fields(&draft.custom, &mut problems);
    match phone {
        Some(phone) => problems.give(CampaignEntry {
            campaign_id,
            position,
            phone,
            name,
            text: text.map(str::to_owned),
            custom,
        }),
        None => Err(problems.into_errors()),
    }
}

#[cfg(test)]
mod tests;
