//! Parts of drafts that more than one thing has: delays, caps, media, and an edit with the version it was made from.

use std::time::Duration;

use super::field::{FieldCode, FieldError, Problems, given};
use crate::domain::content::{Content, Media, MediaKind, MediaSource};
use crate::domain::pacing::{Caps, DelayRange};
use crate::id::MediaId;
use crate::transport::{Capabilities, OutgoingMedia};

/// What a row is to become, and the version that it was read at.
///
/// A draft replaces all that a person edits; to change one field, start from the draft of the row as it is.
#[derive(Debug, Clone)]
pub struct Edit<T> {
    /// The version that was read; another one gives `Conflict`.
    pub version: i64,
    /// What it is to become.
    pub draft: T,
}

impl<T> Edit<T> {
    /// An edit of the row that was read at `version`.
    pub const fn new(version: i64, draft: T) -> Self {
        Self { version, draft }
    }
}

/// A delay between messages; both ends or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DelayDraft {
    /// The shortest pause, 1 s to 24 h. Field `min_delay`.
    pub min: Option<Duration>,
    /// The longest pause, not below `min`, at most 24 h. Field `max_delay`.
    pub max: Option<Duration>,
}

impl From<DelayRange> for DelayDraft {
    fn from(range: DelayRange) -> Self {
        Self {
            min: Some(range.min()),
            max: Some(range.max()),
        }
    }
}

impl DelayDraft {
    pub(crate) fn check(self, problems: &mut Problems) -> Option<DelayRange> {
        let (min, max) = match (self.min, self.max) {
            (None, None) => return None,
            (None, Some(_)) => {
                problems.add("min_delay", FieldCode::Required, "is required beside max_delay");
                return None;
            }
            (Some(_), None) => {
                problems.add("max_delay", FieldCode::Required, "is required beside min_delay");
                return None;
            }
            (Some(min), Some(max)) => (min, max),
        };
        let allowed = DelayRange::FLOOR..=DelayRange::LIMIT;
        for (field, span) in [("min_delay", min), ("max_delay", max)] {
            if !allowed.contains(&span) {
                let expected = format!("must be 1 to {} seconds", DelayRange::LIMIT.as_secs());
                problems.add(field, FieldCode::OutOfRange, expected);
            }
        }
        if min > max {
            problems.add("min_delay", FieldCode::OutOfRange, "must not be above max_delay");
        }
        DelayRange::new(min..=max).ok()
    }
}

/// Caps of a device; what is not given is as the engine has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CapsDraft {
    /// Messages within an hour, 1 to 1,000. Field `hour_max`.
    pub hour_max: Option<u32>,
    /// Messages within a day, 1 to 10,000. Field `day_max`.
    pub day_max: Option<u32>,
}

impl From<Caps> for CapsDraft {
    fn from(caps: Caps) -> Self {
        Self {
            hour_max: Some(caps.hour_max()),
            day_max: Some(caps.day_max()),
        }
    }
}

impl CapsDraft {
    pub(crate) fn check(self, defaults: Caps, problems: &mut Problems) -> Option<Caps> {
        if self == Self::default() {
            return None;
        }
        let mut caps = defaults;
        if let Some(hour_max) = self.hour_max {
            match caps.with_hour_max(hour_max) {
                Ok(with) => caps = with,
                Err(_) => {
                    let expected = format!("must be 1 to {}", Caps::HOUR_MAX_LIMIT);
                    problems.add("hour_max", FieldCode::OutOfRange, expected);
                }
            }
        }
        if let Some(day_max) = self.day_max {
            match caps.with_day_max(day_max) {
                Ok(with) => caps = with,
                Err(_) => {
                    let expected = format!("must be 1 to {}", Caps::DAY_MAX_LIMIT);
                    problems.add("day_max", FieldCode::OutOfRange, expected);
                }
            }
        }
        Some(caps)
    }
}

/// An attachment; either an address or the id of a stored one.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct MediaDraft {
    /// How it is shown: `image`, the default. Field `media.kind`.
    pub kind: Option<String>,
    /// Its address, `http` or `https`, at most 2,048 bytes. Field `media`.
    pub url: Option<String>,
    /// Its id in the store of the program. Field `media`.
    pub stored: Option<MediaId>,
    /// The name shown to the recipient, at most 200 characters. Field `media.file_name`.
    pub file_name: Option<String>,
    /// Its media type, where it is known. Field `media.mime`.
    pub mime: Option<String>,
}

impl std::fmt::Debug for MediaDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MediaDraft")
            .field("kind", &self.kind)
            .field("stored", &self.stored)
            .finish_non_exhaustive()
    }
}

impl From<&Media> for MediaDraft {
    fn from(media: &Media) -> Self {
        let (url, stored) = match &media.source {
            MediaSource::Url(url) => (Some(url.clone()), None),
            MediaSource::Stored(id) => (None, Some(*id)),
        };
        Self {
            kind: Some("image".to_owned()),
            url,
            stored,
            file_name: media.file_name.clone(),
            mime: media.mime.clone(),
        }
    }
}

impl MediaDraft {
    /// An attachment at an address.
    pub fn url(url: impl Into<String>) -> Self {
        Self {
            url: Some(url.into()),
            ..Self::default()
        }
    }

    /// An attachment in the store of the program.
    #[must_use]
    pub fn stored(id: MediaId) -> Self {
        Self {
            stored: Some(id),
            ..Self::default()
        }
    }

    /// Longest address, in bytes.
    const URL_BYTES_MAX: usize = 2_048;

    pub(crate) fn check(&self, problems: &mut Problems) -> Option<Media> {
        let kind = match given(self.kind.as_deref()) {
            None => Some(MediaKind::Image),
            Some(word) => problems.word("media.kind", word, &[("image", MediaKind::Image)]),
        };
        let source = match (given(self.url.as_deref()), self.stored) {
            (Some(url), None) => address(url, problems).map(MediaSource::Url),
            (None, Some(id)) => Some(MediaSource::Stored(id)),
            _ => {
                problems.add(
                    "media",
                    FieldCode::Required,
                    "must have either an address or the id of a stored one",
                );
                None
            }
        };
        let file_name = given(self.file_name.as_deref()).map(|name| problems.line("media.file_name", name, 200));
        let mime = given(self.mime.as_deref()).map(|mime| problems.line("media.mime", mime, 100));
        Some(Media {
            kind: kind?,
            source: source?,
            file_name,
            mime,
        })
    }
}

fn address(text: &str, problems: &mut Problems) -> Option<String> {
    if text.len() > MediaDraft::URL_BYTES_MAX {
        let expected = format!("must be at most {} bytes long", MediaDraft::URL_BYTES_MAX);
        problems.add("media", FieldCode::TooLong, expected);
        return None;
    }
    let usable = url::Url::parse(text)
        .ok()
        .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if usable.is_none() {
        problems.add(
            "media",
            FieldCode::Invalid,
            "must be an address that begins with http:// or https://",
        );
    }
    usable.map(String::from)
}

/// What would carry a message: a platform and what it can.
#[derive(Debug, Clone, Copy)]
pub struct Carrier<'a> {
    /// The name of the platform.
    pub platform: &'a str,
    /// What it can.
    pub capabilities: &'a Capabilities,
}

impl Carrier<'_> {
    /// The longest text that it takes for this content, in characters.
    #[must_use]
    pub fn text_max(&self, content: &Content) -> usize {
        let caption = content
            .media
            .as_ref()
            .and_then(|media| self.capabilities.media(media.kind));
        caption.map_or(self.capabilities.text_len_max, |limit| limit.caption_max)
    }
}

/// Whether each of the carriers takes a medium as it was loaded.
pub(crate) fn carried(media: &OutgoingMedia, carriers: &[Carrier<'_>]) -> Vec<FieldError> {
    let mut problems = Problems::default();
    for Carrier { platform, capabilities } in carriers {
        let Some(limit) = capabilities.media(media.kind) else {
            problems.add(
                "media",
                FieldCode::Unsupported,
                format!("is not carried by {platform} devices"),
            );
            continue;
        };
        let by_url = limit.by_url && media.url.is_some();
        let by_bytes = limit.by_bytes && media.bytes.is_some();
        if !by_url && !by_bytes {
            let expected = format!("must be at a public address: {platform} devices take nothing else");
            problems.add("media", FieldCode::Unsupported, expected);
        }
        let known = media.bytes.is_some() || !media.mime.is_empty();
        if known && !limit.mimes.is_empty() && !limit.mimes.contains(&media.mime.as_str()) {
            let expected = format!("must be one of {} for {platform} devices", limit.mimes.join(", "));
            problems.add("media", FieldCode::Unsupported, expected);
        }
        let size = media.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if size > limit.size_max_bytes {
            let expected = format!(
                "must have at most {} bytes for {platform} devices",
                limit.size_max_bytes
            );
            problems.add("media", FieldCode::TooLong, expected);
        }
    }
    problems.into_errors()
}

/// The content of a text and an attachment, with everything that is wrong with it.
pub(crate) fn content(
    field: &'static str,
    text: Option<&str>,
    media: Option<&MediaDraft>,
    problems: &mut Problems,
) -> Content {
    content_as(field, text, media, TextAs::Template, problems)
}

/// How a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TextAs {
    /// As it stands, whatever is in it.
    #[default]
    Literal,
    /// With merge fields and choices.
    Template,
}

/// Text and attachment of a message, the text read as asked.
pub(crate) fn content_as(
    field: &'static str,
    text: Option<&str>,
    media: Option<&MediaDraft>,
    text_as: TextAs,
    problems: &mut Problems,
) -> Content {
    let text = text.unwrap_or_default();
    let media = media.and_then(|media| media.check(problems));
    if text.contains('\0') {
        problems.add(field, FieldCode::Invalid, "must not hold control characters");
    }
    let content = Content {
        text: text.to_owned(),
        media,
        literal: text_as == TextAs::Literal,
    };
    if let Err(error) = content.template() {
        let code = match error {
            crate::domain::content::TemplateError::TooLong { .. } => FieldCode::TooLong,
            crate::domain::content::TemplateError::UnknownField { .. } => FieldCode::Unknown,
            _ => FieldCode::Invalid,
        };
        problems.add(field, code, format!("cannot be sent as it is written: {error}"));
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::MediaLimit;

    fn errors<T>(check: impl FnOnce(&mut Problems) -> T) -> Vec<(String, FieldCode)> {
        let mut problems = Problems::default();
        check(&mut problems);
        let errors = problems.into_errors();
        errors
            .into_iter()
            .map(|error| (error.field.into_owned(), error.code))
            .collect()
    }

    fn delay(min: Option<u64>, max: Option<u64>) -> Vec<(String, FieldCode)> {
        let draft = DelayDraft {
            min: min.map(Duration::from_secs),
            max: max.map(Duration::from_secs),
        };
        errors(|problems| draft.check(problems))
    }

    #[test]
    fn a_delay_has_both_ends_in_order_and_in_range() {
        use FieldCode::{OutOfRange, Required};
        assert_eq!(delay(Some(5), Some(15)), []);
        assert_eq!(delay(None, None), []);
        assert_eq!(delay(Some(5), None), [("max_delay".to_owned(), Required)]);
        assert_eq!(delay(None, Some(5)), [("min_delay".to_owned(), Required)]);
        assert_eq!(delay(Some(20), Some(10)), [("min_delay".to_owned(), OutOfRange)]);
        assert_eq!(delay(Some(0), Some(10)), [("min_delay".to_owned(), OutOfRange)]);
        assert_eq!(delay(Some(1), Some(86_401)), [("max_delay".to_owned(), OutOfRange)]);
    }

    #[test]
    fn caps_out_of_range_are_named_and_absent_ones_stay_as_the_engine_has_them() {
        let mut problems = Problems::default();
        let draft = CapsDraft {
            hour_max: Some(10),
            day_max: None,
        };
        let caps = draft.check(Caps::default(), &mut problems).unwrap();
        assert_eq!((caps.hour_max(), caps.day_max()), (10, 800));
        let draft = CapsDraft {
            hour_max: Some(0),
            day_max: Some(10_001),
        };
        let found = errors(|problems| draft.check(Caps::default(), problems));
        assert_eq!(
            found,
            [
                ("hour_max".to_owned(), FieldCode::OutOfRange),
                ("day_max".to_owned(), FieldCode::OutOfRange)
            ]
        );
    }

    #[test]
    fn an_attachment_is_an_image_at_a_web_address_or_a_stored_one() {
        for bad in [
            "ftp://x.test/a.png",
            "a.png",
            "javascript:alert(1)",
            "data:image/png;base64,AA",
            "http://",
        ] {
            let found = errors(|problems| MediaDraft::url(bad).check(problems));
            assert_eq!(found, [("media".to_owned(), FieldCode::Invalid)], "{bad}");
        }
        let long = MediaDraft::url(format!("https://x.test/{}", "a".repeat(2_048)));
        assert_eq!(errors(|p| long.check(p)), [("media".to_owned(), FieldCode::TooLong)]);
        let both = MediaDraft {
            stored: Some(MediaId::MIN),
            ..MediaDraft::url("https://x.test/a.png")
        };
        assert_eq!(errors(|p| both.check(p)), [("media".to_owned(), FieldCode::Required)]);
        let film = MediaDraft {
            kind: Some("video".to_owned()),
            ..MediaDraft::url("https://x.test/a.mp4")
        };
        assert_eq!(
            errors(|p| film.check(p)),
            [("media.kind".to_owned(), FieldCode::Unknown)]
        );
        let good = MediaDraft::url("https://x.test/a.png")
            .check(&mut Problems::default())
            .unwrap();
        assert_eq!(MediaDraft::from(&good).check(&mut Problems::default()), Some(good));
    }

    fn takes(by_url: bool, by_bytes: bool) -> Capabilities {
        Capabilities {
            media: vec![MediaLimit {
                kind: MediaKind::Image,
                mimes: vec!["image/png"],
                size_max_bytes: 3,
                caption_max: 10,
                by_url,
                by_bytes,
            }],
            ..Capabilities::text(100)
        }
    }

    #[test]
    fn every_carrier_must_take_the_attachment_in_a_form_that_there_is() {
        let bytes = |len: usize| OutgoingMedia {
            kind: MediaKind::Image,
            mime: "image/png".to_owned(),
            file_name: "a.png".to_owned(),
            url: None,
            bytes: Some(vec![0; len].into()),
        };
        let codes = |media: &OutgoingMedia, capabilities: &Capabilities| -> Vec<FieldCode> {
            let carrier = Carrier {
                platform: "whacenter",
                capabilities,
            };
            carried(media, &[carrier]).into_iter().map(|error| error.code).collect()
        };
        assert_eq!(codes(&bytes(3), &takes(false, true)), []);
        assert_eq!(codes(&bytes(4), &takes(false, true)), [FieldCode::TooLong]);
        assert_eq!(codes(&bytes(3), &takes(true, false)), [FieldCode::Unsupported]);
        assert_eq!(codes(&bytes(3), &Capabilities::text(10)), [FieldCode::Unsupported]);
        let mut jpeg = bytes(3);
        jpeg.mime = "image/jpeg".to_owned();
        assert_eq!(codes(&jpeg, &takes(false, true)), [FieldCode::Unsupported]);
        jpeg.mime = "image/png".to_owned();
        jpeg.bytes = None;
        jpeg.url = Some("https://x.test/a.png".to_owned());
        assert_eq!(codes(&jpeg, &takes(true, false)), []);
    }

    #[test]
    fn a_text_that_cannot_be_sent_names_the_field_and_what_is_wrong() {
        let found = |text: &str| errors(|problems| drop(content("message", Some(text), None, problems)));
        assert_eq!(found("Hi {{nmae}}"), [("message".to_owned(), FieldCode::Unknown)]);
        assert_eq!(found("{a|b"), [("message".to_owned(), FieldCode::Invalid)]);
        assert_eq!(found(&"a".repeat(65_537)), [("message".to_owned(), FieldCode::TooLong)]);
        assert_eq!(found(&"a".repeat(65_536)), []);
        assert_eq!(found("a\0"), [("message".to_owned(), FieldCode::Invalid)]);
    }
}
