//! What a given lead would receive.

use std::fmt;

use super::field::{Warning, WarningCode};
use super::shared_drafts::Carrier;
use crate::antispam::greeting::GreetingSet;
use crate::antispam::render::{GreetingChoice, RenderError, RenderRequest, RenderScope, longest, render};
use crate::domain::campaign::{Campaign, Dressing};
use crate::domain::content::{Content, Media, MergeValues, Template, TemplateError};
use crate::domain::lead::Lead;
use crate::domain::schedule::{LocalTime, TimeZone};
use crate::id::MessageId;
use crate::seed::Seed;
use crate::time::Timestamp;

/// What a given lead would receive; choices and greeting are drawn anew for the real message.
#[derive(Clone, PartialEq, Eq)]
pub struct Preview {
    /// The text, or the caption.
    pub text: String,
    /// What is attached.
    pub media: Option<Media>,
    /// The length of the text, in characters.
    pub chars: usize,
    /// What would keep it from being sent.
    pub warnings: Vec<Warning>,
}

impl fmt::Debug for Preview {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preview")
            .field("chars", &self.chars)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

/// The values that merge fields have for a lead.
pub(crate) fn values_of(lead: &Lead) -> MergeValues {
    MergeValues {
        name: lead.name.clone(),
        phone: lead.phone.as_e164().to_owned(),
        niche: lead.niches.to_string(),
        custom: lead.custom.clone(),
    }
}

/// The instant at which a preview is taken to be sent, and what decides its choices.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PreviewContext<'a> {
    pub(crate) seed: &'a Seed,
    pub(crate) message: MessageId,
    pub(crate) at: Timestamp,
}

/// A text as it is written for many, with what dresses it for each.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written<'a> {
    pub(crate) content: &'a Content,
    pub(crate) dressing: &'a Dressing,
    /// Where the greeting's time of day is read.
    pub(crate) time_zone: TimeZone,
}

impl<'a> From<&'a Campaign> for Written<'a> {
    fn from(campaign: &'a Campaign) -> Self {
        Self {
            content: &campaign.content,
            dressing: &campaign.dressing,
            time_zone: campaign.time_zone,
        }
    }
}

/// What a lead would receive of a text, through a carrier if it is known.
pub(crate) fn preview(
    written: Written<'_>,
    lead: &Lead,
    carrier: Option<Carrier<'_>>,
    context: &PreviewContext<'_>,
) -> Result<Preview, TemplateError> {
    let template = written.content.template()?;
    let values = values_of(lead);
    let time = written.time_zone.local_time(context.at);
    let request = request(written, &template, &values, time, context);
    let mut warnings = Vec::new();
    let text = match render(&request) {
        Ok(rendered) => rendered.text,
        Err(RenderError::TooLong { chars }) => {
            let message = format!("the text may have {chars} characters, more than is ever sent");
            warnings.push(Warning::new("message", WarningCode::TooLong, message));
            String::new()
        }
        // A picture needs no caption.
        Err(RenderError::Empty) if written.content.media.is_some() => String::new(),
        Err(RenderError::Empty) => {
            let message = "nothing is left of the text for this lead";
            warnings.push(Warning::new("message", WarningCode::Empty, message));
            String::new()
        }
    };
    let chars = text.chars().count();
    if let Some(carrier) = carrier {
        let most = carrier.text_max(written.content);
        if chars > most {
            let message = format!(
                "the text has {chars} characters; {} devices take {most}",
                carrier.platform
            );
            warnings.push(Warning::new("message", WarningCode::TooLong, message));
        }
    }
    Ok(Preview {
        text,
        media: written.content.media.clone(),
        chars,
        warnings,
    })
}

/// The most characters that a text can have for these values; `None` for a text that cannot be parsed.
pub(crate) fn longest_text(written: Written<'_>, values: &MergeValues) -> Option<usize> {
    let template = written.content.template().ok()?;
    // Nothing is drawn to measure the longest text, so any seed and message do.
    let context = PreviewContext {
        seed: &Seed::from_number(0),
        message: MessageId::MIN,
        at: Timestamp::EPOCH,
    };
    Some(longest(&request(
        written,
        &template,
        values,
        LocalTime::MIDNIGHT,
        &context,
    )))
}

fn request<'a>(
    written: Written<'_>,
    template: &'a Template,
    values: &'a MergeValues,
    time: LocalTime,
    context: &PreviewContext<'a>,
) -> RenderRequest<'a> {
    let dressing = written.dressing;
    let set = GreetingSet::built_in(&dressing.greeting_locale).filter(|_| dressing.greeting);
    RenderRequest {
        template,
        values,
        scope: RenderScope::Bulk,
        greeting: set.map(|set| GreetingChoice {
            set,
            time,
            previous: None,
        }),
        randomizer: dressing.randomizer,
        seed: context.seed,
        message: context.message,
        round: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::phone::Phone;
    use crate::id::{CampaignId, LeadId, UserId};
    use crate::transport::Capabilities;

    fn shown(text: &str, text_max: usize) -> Preview {
        // 2026-11-21T01:00:00Z is nine in the morning in Kuala Lumpur.
        let at = Timestamp::from_millis(1_795_222_800_000);
        let campaign = Campaign::draft(CampaignId::MIN, UserId::MIN, "t", Content::text(text), at);
        let phone = Phone::from_e164("+60123456789").unwrap();
        let mut lead = Lead::new(LeadId::MIN, UserId::MIN, None, phone, at);
        lead.name = "Aminah".to_owned();
        let capabilities = Capabilities::text(text_max);
        let carrier = Carrier {
            platform: "stub",
            capabilities: &capabilities,
        };
        let context = PreviewContext {
            seed: &Seed::from_number(1),
            message: MessageId::MIN,
            at,
        };
        preview((&campaign).into(), &lead, Some(carrier), &context).unwrap()
    }

    #[test]
    fn a_preview_greets_by_the_local_hour_and_fills_in_the_lead() {
        let preview = shown("Your number is {{phone}}.", 1_000);
        assert!(preview.text.contains("Aminah"), "{}", preview.text);
        assert!(preview.text.ends_with("\n\nYour number is +60123456789."));
        assert!(!preview.text.contains("malam"), "{}", preview.text);
        assert_eq!(
            (preview.chars, preview.warnings.len()),
            (preview.text.chars().count(), 0)
        );
    }

    #[test]
    fn a_text_that_would_be_skipped_is_warned_about() {
        assert_eq!(shown(&"a".repeat(100), 50).warnings[0].code, WarningCode::TooLong);
        assert_eq!(shown("{{custom.town}}", 50).warnings[0].code, WarningCode::Empty);
        assert_eq!(shown(&"a".repeat(65_000), 70_000).warnings, []);
    }
}
