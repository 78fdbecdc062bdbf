//! What a message says: a text with merge fields and choices, and at most one picture or file.

mod line_break;
mod template;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::id::MediaId;

pub use template::{
    CUSTOM_KEY_CHARS_MAX, Evaluated, MergeValues, TEMPLATE_BYTES_MAX, TEMPLATE_DEPTH_MAX, TEMPLATE_OPTIONS_MAX,
    Template, TemplateError, TemplateLimits,
};

/// The text of a campaign, step or message as its author wrote it, and what is attached to it.
///
/// `Debug` shows the length of the text only.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Content {
    /// The source of a [`Template`], unless it is literal; with media it is the caption and may be empty.
    #[serde(default)]
    pub text: String,
    /// The attachment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media: Option<Media>,
    /// Whether the text is sent as it stands: braces and bars in it are only signs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub literal: bool,
}

impl Content {
    /// A content of text alone.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            media: None,
            literal: false,
        }
    }

    /// The same content, its text sent as it stands.
    #[must_use]
    pub fn literally(self) -> Self {
        Self { literal: true, ..self }
    }

    /// The same content with an attachment.
    #[must_use]
    pub fn with_media(self, media: Media) -> Self {
        Self {
            media: Some(media),
            ..self
        }
    }

    /// Whether there is neither text nor attachment, so nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.media.is_none() && self.text.trim().is_empty()
    }

    /// Parses the text with the default limits, unless it is literal.
    ///
    /// # Errors
    /// [`TemplateError`] when the text cannot be sent as it is written.
    pub fn template(&self) -> Result<Template, TemplateError> {
        if self.literal {
            Template::literal(&self.text)
        } else {
            Template::parse(&self.text)
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Content")
            .field("text_bytes", &self.text.len())
            .field("media", &self.media)
            .finish()
    }
}

/// How WhatsApp shows an attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MediaKind {
    /// A picture with the text as its caption.
    Image,
    /// A film with the text as its caption.
    Video,
    /// A sound or voice recording; it has no caption.
    Audio,
    /// A file with its name.
    Document,
}

/// Where the bytes of an attachment are.
///
/// `Debug` hides the address: it may carry a signature that opens the file.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MediaSource {
    /// At an address that the transport or the gateway fetches.
    Url(String),
    /// In the store of this program.
    Stored(MediaId),
}

impl fmt::Debug for MediaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(_) => f.write_str("Url(…)"),
            Self::Stored(id) => f.debug_tuple("Stored").field(id).finish(),
        }
    }
}

/// An attachment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Media {
    /// How it is shown.
    pub kind: MediaKind,
    /// Where its bytes are.
    pub source: MediaSource,
    /// The name that the recipient sees, for documents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_name: Option<String>,
    /// The media type, such as `image/jpeg`, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime: Option<String>,
}

impl Media {
    /// An attachment whose name and media type are not known.
    #[must_use]
    pub const fn new(kind: MediaKind, source: MediaSource) -> Self {
        Self {
            kind,
            source,
            file_name: None,
            mime: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_survives_json_and_absent_parts_are_left_out() {
        let content = Content::text("Hi").with_media(Media::new(
            MediaKind::Image,
            MediaSource::Url("https://x.test/a".into()),
        ));
        let json = serde_json::to_string(&content).unwrap();
        assert_eq!(
            json,
            r#"{"text":"Hi","media":{"kind":"image","source":{"url":"https://x.test/a"}}}"#
        );
        assert_eq!(serde_json::from_str::<Content>(&json).unwrap(), content);
        assert_eq!(serde_json::from_str::<Content>("{}").unwrap(), Content::default());
    }

    #[test]
    fn debug_output_shows_neither_text_nor_address() {
        let content = Content::text("secret words").with_media(Media::new(
            MediaKind::Image,
            MediaSource::Url("https://x.test/?sig=secret".into()),
        ));
        assert!(!format!("{content:?}").contains("secret"));
    }

    #[test]
    fn a_picture_alone_is_not_empty() {
        assert!(Content::text(" \n").is_empty());
        assert!(
            !Content::text("")
                .with_media(Media::new(MediaKind::Image, MediaSource::Stored(MediaId::MIN)))
                .is_empty()
        );
    }
}
