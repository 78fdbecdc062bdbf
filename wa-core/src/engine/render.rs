//! From a due message to the text that its recipient gets.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::antispam::greeting::{Greeting, GreetingSet};
use crate::antispam::render::{GreetingChoice, RenderError, RenderRequest, RenderScope, render};
use crate::domain::campaign::{Campaign, Dressing};
use crate::domain::content::{Content, Media, Template};
use crate::domain::message::{MessageState, Reason};
use crate::domain::schedule::{LocalTime, TimeZone};
use crate::id::CampaignId;
use crate::seed::Seed;
use crate::store::DueMessage;
use crate::time::Timestamp;

/// A campaign with its text parsed once.
#[derive(Debug)]
pub(crate) struct ParsedCampaign {
    pub(crate) campaign: Campaign,
    template: Option<Arc<Template>>,
}

impl ParsedCampaign {
    /// What its messages without a content of their own are made from.
    pub(crate) fn source(&self) -> ContentSource<'_> {
        ContentSource {
            template: self.template.as_deref(),
            content: &self.campaign.content,
            dressing: &self.campaign.dressing,
            zone: self.campaign.time_zone,
        }
    }
}

/// What the messages of a campaign or step are made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ContentSource<'a> {
    /// `None` when the text cannot be parsed.
    pub(crate) template: Option<&'a Template>,
    pub(crate) content: &'a Content,
    pub(crate) dressing: &'a Dressing,
    pub(crate) zone: TimeZone,
}

/// The parsed texts of running campaigns, by content version.
#[derive(Debug, Default)]
pub(crate) struct ContentCache(BTreeMap<CampaignId, Arc<ParsedCampaign>>);

impl ContentCache {
    /// How many campaigns are kept.
    const COUNT_MAX: usize = 4_096;

    /// Takes campaigns as they were just read; a text is parsed only when its version is new.
    pub(crate) fn refresh(&mut self, campaigns: Vec<Campaign>) -> BTreeMap<CampaignId, Arc<ParsedCampaign>> {
        if self.0.len() > Self::COUNT_MAX {
            self.0.clear();
        }
        let mut fresh = BTreeMap::new();
        for campaign in campaigns {
            let id = campaign.id;
            let known = self
                .0
                .get(&id)
                .filter(|known| known.campaign.content_version == campaign.content_version);
            let template = match known {
                Some(known) => known.template.clone(),
                None => campaign.content.template().ok().map(Arc::new),
            };
            let parsed = Arc::new(ParsedCampaign { campaign, template });
            self.0.insert(id, Arc::clone(&parsed));
            fresh.insert(id, parsed);
        }
        fresh
    }
}

/// What rendering needs beside the message.
#[derive(Debug)]
pub(crate) struct RenderContext<'a> {
    /// What its campaign or step says.
    pub(crate) source: Option<ContentSource<'a>>,
    pub(crate) seed: &'a Seed,
    pub(crate) now: Timestamp,
}

/// A text ready to be handed over.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) text: String,
    pub(crate) greeting: Option<String>,
    pub(crate) media: Option<Media>,
}

/// Renders a due message, or says what it becomes instead.
pub(crate) fn ready(due: &DueMessage, context: &RenderContext<'_>) -> Result<Ready, (MessageState, Reason)> {
    if due.expires_at <= context.now {
        return Err((MessageState::Skipped, Reason::Expired));
    }
    let values = due.values.as_ref().ok_or((MessageState::Skipped, Reason::LeadGone))?;
    let own;
    let (template, content): (&Template, &Content) = match (&due.content, context.source) {
        (Some(content), _) => {
            own = content.template().map_err(|_| (MessageState::Failed, Reason::Empty))?;
            (&own, content)
        }
        (None, Some(source)) => {
            let template = source.template.ok_or((MessageState::Failed, Reason::Empty))?;
            (template, source.content)
        }
        (None, None) => return Err((MessageState::Failed, Reason::Empty)),
    };
    let media = content.media.clone();
    let previous = due
        .previous_greeting
        .as_deref()
        .and_then(|text| Greeting::parse(text).ok());
    let dressing = context.source.map(|source| (source.dressing, source.zone));
    let greeting = dressing
        .filter(|(dressing, _)| dressing.greeting)
        .and_then(|(dressing, zone)| {
            let hour = u16::try_from(zone.local_hour(context.now)).ok()?;
            Some(GreetingChoice {
                set: GreetingSet::built_in(&dressing.greeting_locale)?,
                time: LocalTime::from_hm(hour, 0)?,
                previous: previous.as_ref(),
            })
        });
    let request = RenderRequest {
        template,
        values,
        scope: if due.scope.is_bulk() {
            RenderScope::Bulk
        } else {
            RenderScope::Interactive
        },
        greeting,
        randomizer: dressing.and_then(|(dressing, _)| dressing.randomizer),
        seed: context.seed,
        message: due.id,
        round: due.round.into(),
    };
    match render(&request) {
        Ok(rendered) => {
            let greeting = rendered.greeting.map(|greeting| greeting.as_str().to_owned());
            Ok(Ready {
                text: rendered.text,
                greeting,
                media,
            })
        }
        // A picture needs no caption.
        Err(_) if media.is_some() && content.text.trim().is_empty() => Ok(Ready {
            text: String::new(),
            greeting: None,
            media,
        }),
        Err(RenderError::TooLong { .. }) => Err((MessageState::Skipped, Reason::TooLong)),
        Err(_) => Err((MessageState::Failed, Reason::Empty)),
    }
}
