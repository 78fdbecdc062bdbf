//! From what a person, a file or a webhook says of a lead to the lead.

use std::collections::BTreeMap;
use std::fmt;

use super::field::{FieldCode, FieldError, Problems, given};
use super::shared_drafts::Edit;
use crate::domain::lead::{Consent, Lead, TargetStatus};
use crate::domain::phone::{Phone, Region};
use crate::domain::token::{Token, TokenSet};
use crate::id::{DeviceId, LeadId, UserId};
use crate::time::Timestamp;

/// What is said of a lead.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct LeadDraft {
    /// Its name, at most 200 characters; may be empty. Field `name`.
    pub name: Option<String>,
    /// Its number, in any usual form. Field `phone`.
    pub phone: Option<String>,
    /// The device that writes to it; `None` puts it in the pool. Field `device_id`.
    pub device_id: Option<DeviceId>,
    /// Its niches, separated by commas. Field `niche`.
    pub niche: Option<String>,
    /// Its triggers, separated by commas. Field `trigger`.
    pub trigger: Option<String>,
    /// `prospect`, the default, or `customer`. Field `target_status`.
    pub target_status: Option<String>,
    /// Notes on its journey, at most 2,000 characters. Field `journey`.
    pub journey: Option<String>,
    /// Its place in the pipeline, at most 100 characters. Field `pipeline_status`.
    pub pipeline_status: Option<String>,
    /// Own fields, at most 50: keys of letters, digits, `_` and `-`. Field `custom` or `custom.key`.
    pub custom: BTreeMap<String, String>,
    /// Labels, separated by commas. Field `tags`.
    pub tags: Option<String>,
    /// That it agreed to be written to. Field `consent`.
    pub consent: Option<ConsentDraft>,
}

/// That a person agreed to be written to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConsentDraft {
    /// Where it was given, 1 to 100 characters. Field `consent.source`.
    pub source: String,
    /// When; now when absent.
    pub given_at: Option<Timestamp>,
}

/// What a lead is to become.
pub type LeadEdit = Edit<LeadDraft>;

impl fmt::Debug for LeadDraft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeadDraft")
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

impl From<&Lead> for LeadDraft {
    fn from(lead: &Lead) -> Self {
        Self {
            name: Some(lead.name.clone()),
            phone: Some(lead.phone.as_e164().to_owned()),
            device_id: lead.device_id,
            niche: Some(lead.niches.to_string()),
            trigger: Some(lead.triggers.to_string()),
            target_status: Some(
                match lead.target_status {
                    TargetStatus::Prospect => "prospect",
                    TargetStatus::Customer => "customer",
                }
                .to_owned(),
            ),
            journey: Some(lead.journey.clone()),
            pipeline_status: Some(lead.pipeline_status.clone()),
            custom: lead.custom.clone(),
            tags: Some(lead.tags.to_string()),
            consent: lead.consent.as_ref().map(|consent| ConsentDraft {
                source: consent.source.clone(),
                given_at: Some(consent.given_at),
            }),
        }
    }
}

const TARGETS: [(&str, TargetStatus); 2] = [
    ("prospect", TargetStatus::Prospect),
    ("customer", TargetStatus::Customer),
];

/// A new lead.
pub(crate) fn new_lead(
    draft: &LeadDraft,
    id: LeadId,
    user_id: UserId,
    region: Region,
    now: Timestamp,
) -> Result<Lead, Vec<FieldError>> {
    let mut problems = Problems::default();
    match phone_of(draft, &region, &mut problems) {
        Some(phone) => {
            let mut lead = Lead::new(id, user_id, draft.device_id, phone, now);
            fill(&mut lead, draft, now, &mut problems);
            problems.give(lead)
        }
        None => {
            // Only so that the other fields are looked at too.
            let stand_in = Phone::from_e164("+60000000000").expect("a number in E.164 form");
            fill(
                &mut Lead::new(id, user_id, None, stand_in, now),
                draft,
                now,
                &mut problems,
            );
            Err(problems.into_errors())
        }
    }
}

/// A lead as a draft changes it.
pub(crate) fn edited_lead(
    draft: &LeadDraft,
    before: &Lead,
    region: Region,
    now: Timestamp,
) -> Result<Lead, Vec<FieldError>> {
    let mut problems = Problems::default();
    let mut lead = before.clone();
    if let Some(phone) = phone_of(draft, &region, &mut problems) {
        lead.phone = phone;
    }
    lead.device_id = draft.device_id;
    fill(&mut lead, draft, now, &mut problems);
    lead.updated_at = now;
    problems.give(lead)
}

fn phone_of(draft: &LeadDraft, region: &Region, problems: &mut Problems) -> Option<Phone> {
    match given(draft.phone.as_deref()) {
        Some(text) => problems.parsed("phone", Phone::parse(text, region)),
        None => {
            problems.add("phone", FieldCode::Required, "is required");
            None
        }
    }
}

fn fill(lead: &mut Lead, draft: &LeadDraft, now: Timestamp, problems: &mut Problems) {
    lead.name = problems.line("name", draft.name.as_deref().unwrap_or_default(), Lead::NAME_MAX);
    lead.niches = tokens("niche", draft.niche.as_deref(), problems);
    lead.triggers = tokens("trigger", draft.trigger.as_deref(), problems);
    lead.target_status = given(draft.target_status.as_deref())
        .and_then(|word| problems.word("target_status", word, &TARGETS))
        .unwrap_or_default();
    let journey = draft.journey.as_deref().unwrap_or_default();
    lead.journey = problems.block("journey", journey, Lead::JOURNEY_MAX);
    let pipeline_status = draft.pipeline_status.as_deref().unwrap_or_default();
    lead.pipeline_status = problems.line("pipeline_status", pipeline_status, Lead::PIPELINE_STATUS_MAX);
    lead.custom = custom_fields(&draft.custom, problems);
    lead.tags = tokens("tags", draft.tags.as_deref(), problems);
    lead.consent = draft.consent.as_ref().map(|consent| Consent {
        source: problems.required_line("consent.source", Some(&consent.source), 100),
        given_at: consent.given_at.unwrap_or(now),
    });
}

fn tokens(field: &'static str, text: Option<&str>, problems: &mut Problems) -> TokenSet {
    text.and_then(|text| problems.parsed(field, TokenSet::parse(text)))
        .unwrap_or_default()
}

/// Own fields for `{{custom.key}}` within their limits.
pub(crate) fn custom_fields(given: &BTreeMap<String, String>, problems: &mut Problems) -> BTreeMap<String, String> {
    if given.len() > Lead::CUSTOM_MAX {
        let expected = format!("must be at most {} fields", Lead::CUSTOM_MAX);
        problems.add("custom", FieldCode::TooMany, expected);
        return BTreeMap::new();
    }
    let mut custom = BTreeMap::new();
    for (key, value) in given {
        let key = key.trim();
        let usable = !key.is_empty()
            && key.chars().count() <= Lead::CUSTOM_KEY_MAX
            && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
        if !usable {
            let expected = format!(
                "must have names of 1 to {} letters, digits, _ and -, as {{{{custom.name}}}} reads them",
                Lead::CUSTOM_KEY_MAX
            );
            problems.add("custom", FieldCode::Invalid, expected);
            continue;
        }
        let value = problems.block(format!("custom.{key}"), value, Lead::CUSTOM_VALUE_MAX);
        custom.insert(key.to_owned(), value);
    }
    custom
}

/// One change to many leads; what is `None` or empty stays as it is in each.
#[derive(Debug, Clone, Default)]
pub struct LeadBulkEdit {
    /// Another device, or the pool. Field `device_id`.
    pub device_id: Option<Option<DeviceId>>,
    /// Another target status. Field `target_status`.
    pub target_status: Option<String>,
    /// Another place in the pipeline. Field `pipeline_status`.
    pub pipeline_status: Option<String>,
    /// Niches in place of those there are. Field `niche`.
    pub niche: Option<String>,
    /// Triggers to add, separated by commas. Field `add_triggers`.
    pub add_triggers: Option<String>,
    /// Triggers to remove, separated by commas. Field `remove_triggers`.
    pub remove_triggers: Option<String>,
    /// Labels to add, separated by commas. Field `add_tags`.
    pub add_tags: Option<String>,
    /// Labels to remove, separated by commas. Field `remove_tags`.
    pub remove_tags: Option<String>,
}

/// A checked change to many leads.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeadPatch {
    device_id: Option<Option<DeviceId>>,
    target_status: Option<TargetStatus>,
    pipeline_status: Option<String>,
    niches: Option<TokenSet>,
    add_triggers: TokenSet,
    remove_triggers: TokenSet,
    add_tags: TokenSet,
    remove_tags: TokenSet,
}

impl LeadBulkEdit {
    pub(crate) fn check(&self) -> Result<LeadPatch, Vec<FieldError>> {
        let mut problems = Problems::default();
        let pipeline = self.pipeline_status.as_deref();
        let patch = LeadPatch {
            device_id: self.device_id,
            target_status: given(self.target_status.as_deref())
                .and_then(|word| problems.word("target_status", word, &TARGETS)),
            pipeline_status: pipeline.map(|text| problems.line("pipeline_status", text, Lead::PIPELINE_STATUS_MAX)),
            niches: self
                .niche
                .as_deref()
                .map(|text| tokens("niche", Some(text), &mut problems)),
            add_triggers: tokens("add_triggers", self.add_triggers.as_deref(), &mut problems),
            remove_triggers: tokens("remove_triggers", self.remove_triggers.as_deref(), &mut problems),
            add_tags: tokens("add_tags", self.add_tags.as_deref(), &mut problems),
            remove_tags: tokens("remove_tags", self.remove_tags.as_deref(), &mut problems),
        };
        problems.give(patch)
    }
}

impl LeadPatch {
    /// The lead as the patch changes it; `None` when it changes nothing.
    pub(crate) fn apply(&self, before: &Lead, now: Timestamp) -> Result<Option<Lead>, Vec<FieldError>> {
        let mut problems = Problems::default();
        let mut lead = before.clone();
        lead.device_id = self.device_id.unwrap_or(lead.device_id);
        lead.target_status = self.target_status.unwrap_or(lead.target_status);
        if let Some(status) = &self.pipeline_status {
            lead.pipeline_status.clone_from(status);
        }
        if let Some(niches) = &self.niches {
            lead.niches = niches.clone();
        }
        change(
            &mut lead.triggers,
            &self.add_triggers,
            &self.remove_triggers,
            "add_triggers",
            &mut problems,
        );
        change(
            &mut lead.tags,
            &self.add_tags,
            &self.remove_tags,
            "add_tags",
            &mut problems,
        );
        // Equal sets may be spelled differently.
        if lead == *before && lead.niches.is_spelled_as(&before.niches) {
            return problems.give(None);
        }
        lead.updated_at = now;
        problems.give(Some(lead))
    }

    /// The device that leads are to get.
    pub(crate) fn device(&self) -> Option<DeviceId> {
        self.device_id.flatten()
    }
}

fn change(set: &mut TokenSet, add: &TokenSet, remove: &TokenSet, field: &'static str, problems: &mut Problems) {
    for token in remove {
        set.remove(token);
    }
    let added: Result<Vec<bool>, _> = add.iter().map(|token: &Token| set.insert(token.clone())).collect();
    problems.parsed(field, added);
}

/// What a lead webhook says, every field as it was sent.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct WebhookLead {
    /// Whose lead it is.
    pub user_id: Option<String>,
    /// The device that writes to it.
    pub device_id: Option<String>,
    /// Its name; required.
    pub name: Option<String>,
    /// Its number; required.
    pub phone: Option<String>,
    /// Its niches.
    pub niche: Option<String>,
    /// Its triggers.
    pub trigger: Option<String>,
    /// `prospect`, the default, or `customer`.
    pub target_status: Option<String>,
}

impl fmt::Debug for WebhookLead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookLead")
            .field("user_id", &self.user_id)
            .field("device_id", &self.device_id)
            .finish_non_exhaustive()
    }
}

impl WebhookLead {
    /// Whose lead it is, of which device, and the draft; the region is not known before the user is.
    pub(crate) fn read(&self) -> Result<(UserId, LeadDraft), Vec<FieldError>> {
        let mut problems = Problems::default();
        let missing = [
            ("name", "Name is required", &self.name),
            ("phone", "Phone is required", &self.phone),
            ("user_id", "User ID is required", &self.user_id),
            ("device_id", "Device ID is required", &self.device_id),
        ];
        for (field, expected, value) in missing {
            if given(value.as_deref()).is_none() {
                problems.add(field, FieldCode::Required, expected);
            }
        }
        let mut id = |field: &'static str, text: &Option<String>| {
            let uuid = given(text.as_deref()).map(str::parse::<UserId>);
            uuid.and_then(|result| match result {
                Ok(id) => Some(*id.as_uuid()),
                Err(_) => {
                    problems.add(field, FieldCode::Invalid, "must be a UUID");
                    None
                }
            })
        };
        let user = id("user_id", &self.user_id).map(UserId::from_uuid);
        let device = id("device_id", &self.device_id).map(DeviceId::from_uuid);
        match (user, device, problems.is_empty()) {
            (Some(user_id), Some(device_id), true) => {
                let draft = LeadDraft {
                    name: self.name.clone(),
                    phone: self.phone.clone(),
                    device_id: Some(device_id),
                    niche: self.niche.clone(),
                    trigger: self.trigger.clone(),
                    target_status: self.target_status.clone(),
                    consent: Some(ConsentDraft {
                        source: "webhook".to_owned(),
                        given_at: None,
                    }),
                    ..LeadDraft::default()
                };
                Ok((user_id, draft))
            }
            _ => Err(problems.into_errors()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000);

    fn draft(phone: &str) -> LeadDraft {
        LeadDraft {
            phone: Some(phone.to_owned()),
            ..LeadDraft::default()
        }
    }

    fn lead(draft: &LeadDraft) -> Result<Lead, Vec<String>> {
        new_lead(draft, LeadId::MIN, UserId::MIN, Region::MY, NOW)
            .map_err(|errors| errors.into_iter().map(|error| error.field.into_owned()).collect())
    }

    #[test]
    fn every_usual_form_of_a_number_is_one_lead() {
        let numbers: Vec<_> = ["0123456789", "123456789", "+60 12-345 6789", "60123456789@c.us"]
            .map(|form| lead(&draft(form)).unwrap().identity())
            .into();
        assert!(numbers.windows(2).all(|pair| pair[0] == pair[1]));
    }

    #[test]
    fn all_problems_of_a_lead_are_told_at_once() {
        let mut bad = draft("12");
        bad.name = Some("x".repeat(201));
        bad.niche = Some("a\u{7}b".to_owned());
        bad.trigger = Some((0..65).map(|n| format!("t{n},")).collect());
        bad.target_status = Some("lead".to_owned());
        bad.journey = Some("x".repeat(2_001));
        bad.pipeline_status = Some("x".repeat(101));
        bad.custom = BTreeMap::from([("a b".to_owned(), String::new()), ("k".to_owned(), "x".repeat(1_001))]);
        bad.consent = Some(ConsentDraft::default());
        assert_eq!(
            lead(&bad).unwrap_err(),
            [
                "phone",
                "name",
                "niche",
                "trigger",
                "target_status",
                "journey",
                "pipeline_status",
                "custom",
                "custom.k",
                "consent.source"
            ]
        );
        assert_eq!(lead(&LeadDraft::default()).unwrap_err(), ["phone"]);
        let mut many = draft("0123456789");
        many.custom = (0..51).map(|n| (format!("k{n}"), String::new())).collect();
        assert_eq!(lead(&many).unwrap_err(), ["custom"]);
    }

    #[test]
    fn the_draft_of_a_lead_changes_nothing() {
        let mut full = draft("0123456789");
        full.niche = Some("B, a".to_owned());
        full.target_status = Some("CUSTOMER".to_owned());
        full.custom = BTreeMap::from([("Town".to_owned(), "Ipoh".to_owned())]);
        full.consent = Some(ConsentDraft {
            source: "form".to_owned(),
            given_at: None,
        });
        let lead = lead(&full).unwrap();
        assert_eq!(lead.niches.to_string(), "a,B");
        assert_eq!(lead.consent.as_ref().map(|consent| consent.given_at), Some(NOW));
        assert_eq!(
            edited_lead(&LeadDraft::from(&lead), &lead, Region::MY, NOW).unwrap(),
            lead
        );
    }

    #[test]
    fn a_change_to_many_leads_touches_only_what_it_names() {
        let mut before = lead(&draft("0123456789")).unwrap();
        before.triggers = TokenSet::parse("a,b").unwrap();
        let patch = LeadBulkEdit {
            add_triggers: Some("c".to_owned()),
            remove_triggers: Some("a".to_owned()),
            target_status: Some("customer".to_owned()),
            ..LeadBulkEdit::default()
        };
        let after = patch.check().unwrap().apply(&before, NOW).unwrap().unwrap();
        assert_eq!(after.triggers.to_string(), "b,c");
        assert_eq!(after.target_status, TargetStatus::Customer);
        assert_eq!(LeadBulkEdit::default().check().unwrap().apply(&before, NOW), Ok(None));
        before.niches = TokenSet::parse("exa").unwrap();
        let respelled = LeadBulkEdit {
            niche: Some("EXA".to_owned()),
            ..LeadBulkEdit::default()
        };
        let after = respelled.check().unwrap().apply(&before, NOW).unwrap();
        assert_eq!(after.unwrap().niches.to_string(), "EXA", "another spelling is a change");
        let full = LeadBulkEdit {
            add_triggers: Some((0..63).map(|n| format!("t{n},")).collect()),
            ..LeadBulkEdit::default()
        };
        let errors = full.check().unwrap().apply(&before, NOW).unwrap_err();
        assert_eq!(errors[0].field, "add_triggers");
        let wrong = LeadBulkEdit {
            target_status: Some("x".to_owned()),
            add_tags: Some("a\u{7}b".to_owned()),
            ..LeadBulkEdit::default()
        };
        let fields: Vec<_> = wrong
            .check()
            .unwrap_err()
            .into_iter()
            .map(|error| error.field)
            .collect();
        assert_eq!(fields, ["target_status", "add_tags"]);
    }

    #[test]
    fn a_webhook_lead_names_every_required_field_that_is_missing() {
        let errors = WebhookLead::default().read().unwrap_err();
        let expected: Vec<_> = errors.iter().map(|error| error.expected.as_str()).collect();
        assert_eq!(
            expected,
            [
                "Name is required",
                "Phone is required",
                "User ID is required",
                "Device ID is required"
            ]
        );
        let odd = WebhookLead {
            user_id: Some("1".to_owned()),
            device_id: Some(DeviceId::MIN.to_string()),
            name: Some("Ali".to_owned()),
            phone: Some("0123456789".to_owned()),
            ..WebhookLead::default()
        };
        let errors = odd.read().unwrap_err();
        assert_eq!((errors.len(), errors[0].field.as_ref()), (1, "user_id"));
        let good = WebhookLead {
            user_id: Some(UserId::MIN.to_string()),
            ..odd
        };
        let (_, draft) = good.read().unwrap();
        assert_eq!(draft.device_id, Some(DeviceId::MIN));
        assert_eq!(draft.consent.map(|consent| consent.source), Some("webhook".to_owned()));
    }
}
