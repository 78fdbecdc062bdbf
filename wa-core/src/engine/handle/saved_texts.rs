//! Saved texts; the API calls them templates.

use super::{Handle, HandleError};
use crate::domain::access::RequestScope;
use crate::domain::content::Content;
use crate::domain::saved_text::SavedText;
use crate::id::TemplateId;
use crate::plan::saved_text_request::saved_text;
use crate::plan::{SavedTextDraft, SavedTextEdit};
use crate::store::{Change, ChangeSet, WriteClass};

impl Handle {
    /// Saves a text to use again.
    ///
    /// # Errors
    /// `Invalid` for fields; `Conflict` when the name is taken.
    pub async fn create_saved_text(
        &self,
        scope: &RequestScope,
        draft: &SavedTextDraft,
    ) -> Result<SavedText, HandleError> {
        let now = self.now();
        let blank = SavedText {
            id: TemplateId::new(&self.core.ids, now),
            user_id: Self::owner(scope, "template")?,
            name: String::new(),
            content: Content::default(),
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let saved = saved_text(draft, &blank, now)?;
        let insert = ChangeSet::one(Change::InsertSavedText(Box::new(saved.clone())));
        match self.commit(insert, WriteClass::Api).await {
            Ok(_) => Ok(saved),
            Err(error) if error.is_conflict() => Err(name_taken(&saved.name)),
            Err(error) => Err(error.into()),
        }
    }

    /// Edits a saved text. Campaigns made from it keep theirs.
    ///
    /// # Errors
    /// `Invalid` for fields; `Conflict` when it was changed in the meantime or the name is taken.
    pub async fn edit_saved_text(
        &self,
        scope: &RequestScope,
        id: TemplateId,
        edit: &SavedTextEdit,
    ) -> Result<SavedText, HandleError> {
        Self::owner(scope, "template")?;
        let before = self.core.store.saved_text(scope, id).await?;
        if before.version != edit.version {
            return Err(HandleError::stale("template", edit.version, before.version));
        }
        let saved = saved_text(&edit.draft, &before, self.now())?;
        let update = ChangeSet::one(Change::UpdateSavedText(Box::new(saved.clone())));
        match self.commit(update, WriteClass::Api).await {
            Ok(_) => Ok(self.core.store.saved_text(scope, id).await?),
            Err(error) if error.is_conflict() => {
                let current = self.core.store.saved_text(scope, id).await?;
                Err(if current.version == saved.version {
                    name_taken(&saved.name)
                } else {
                    HandleError::stale("template", saved.version, current.version)
                })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes a saved text.
    ///
    /// # Errors
    /// `NotFound` when there is none of that id.
    pub async fn delete_saved_text(&self, scope: &RequestScope, id: TemplateId) -> Result<(), HandleError> {
        Self::owner(scope, "template")?;
        let saved = self.core.store.saved_text(scope, id).await?;
        let delete = Change::DeleteSavedText {
            user_id: saved.user_id,
            template_id: id,
        };
        self.commit(ChangeSet::one(delete), WriteClass::Api).await?;
        Ok(())
    }
}

fn name_taken(name: &str) -> HandleError {
    HandleError::conflict("template", format!("the user has another saved text named {name:?}"))
}
