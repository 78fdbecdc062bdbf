//! From what a person says of a saved text to the text.

use super::field::{FieldCode, FieldError, Problems};
use super::shared_drafts::{Edit, MediaDraft, content};
use crate::domain::saved_text::SavedText;
use crate::time::Timestamp;

/// What a person says of a saved text.
#[derive(Clone, Default)]
pub struct SavedTextDraft {
    /// Its name, 1 to 100 characters, unique within the user. Field `name`.
    pub name: Option<String>,
    /// The text. Field `message`.
    pub message: Option<String>,
    /// What is attached. Field `media`.
    pub media: Option<MediaDraft>,
}

impl std::fmt::Debug for SavedTextDraft {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SavedTextDraft").finish_non_exhaustive()
    }
}

/// What a saved text is to become.
pub type SavedTextEdit = Edit<SavedTextDraft>;

impl From<&SavedText> for SavedTextDraft {
    fn from(saved: &SavedText) -> Self {
        Self {
            name: Some(saved.name.clone()),
            message: Some(saved.content.text.clone()),
            media: saved.content.media.as_ref().map(Into::into),
        }
    }
}

/// Longest name, in characters.
const NAME_MAX: usize = 100;

/// A saved text as a draft has it.
pub(crate) fn saved_text(
    draft: &SavedTextDraft,
    before: &SavedText,
    now: Timestamp,
) -> Result<SavedText, Vec<FieldError>> {
    let mut problems = Problems::default();
    let name = problems.required_line("name", draft.name.as_deref(), NAME_MAX);
    let content = content("message", draft.message.as_deref(), draft.media.as_ref(), &mut problems);
    if content.text.trim().is_empty() && draft.media.is_none() {
        problems.add(
            "message",
            FieldCode::Required,
            "is required, unless something is attached",
        );
    }
    problems.give(SavedText {
        name,
        content,
        updated_at: now,
        ..before.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::content::Content;
    use crate::id::{TemplateId, UserId};

    #[test]
    fn a_saved_text_has_a_name_and_says_something() {
        let before = SavedText {
            id: TemplateId::MIN,
            user_id: UserId::MIN,
            name: "a".to_owned(),
            content: Content::text("Hi {{name}}"),
            created_at: Timestamp::EPOCH,
            updated_at: Timestamp::EPOCH,
            version: 1,
        };
        assert_eq!(
            saved_text(&SavedTextDraft::from(&before), &before, Timestamp::EPOCH),
            Ok(before.clone())
        );
        let errors = saved_text(&SavedTextDraft::default(), &before, Timestamp::EPOCH).unwrap_err();
        let fields: Vec<_> = errors.iter().map(|error| error.field.as_ref()).collect();
        assert_eq!(fields, ["name", "message"]);
        let unknown = SavedTextDraft {
            message: Some("{{nmae}}".to_owned()),
            ..SavedTextDraft::from(&before)
        };
        assert!(saved_text(&unknown, &before, Timestamp::EPOCH).is_err());
    }
}
