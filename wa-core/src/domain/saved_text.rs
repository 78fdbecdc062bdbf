//! A text that a user saved to use again.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::content::Content;
use crate::id::{TemplateId, UserId};
use crate::time::Timestamp;

/// A text that a user saved to use again; the API calls it a template.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct SavedText {
    /// Its id.
    pub id: TemplateId,
    /// Its owner.
    pub user_id: UserId,
    /// Its name, 1 to 100 characters, unique within the user.
    pub name: String,
    /// The text and media.
    pub content: Content,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Grows with every change.
    pub version: i64,
}

impl fmt::Debug for SavedText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SavedText")
            .field("id", &self.id)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}
