//! Templates: texts saved to use again.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::content::{Media, MediaSource};
use wa_core::domain::saved_text::SavedText;
use wa_core::id::TemplateId;
use wa_core::plan::{Edit, SavedTextDraft};

use super::envelope::{Envelope, Listed, Nothing, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Body, Caller, Ids, Locked, PageQuery, Query};
use super::pictures::{MediaBody, attached};
use super::view::Given;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(templates, create))
        .routes(routes!(template, edit, delete))
}

/// What a template is or is to become. In a change, fields that are not named stay as they are and `null` empties.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TemplateBody {
    /// Its name, 1 to 100 characters, unique.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    name: Given<String>,
    /// Its text, with merge fields and choices.
    #[schema(value_type = Option<String>)]
    #[serde(default)]
    message: Given<String>,
    /// What is attached.
    #[schema(value_type = Option<MediaBody>)]
    #[serde(default)]
    media: Given<MediaBody>,
    /// The version that was read; a change of another version is refused.
    version: Option<i64>,
}

/// An attachment.
#[derive(Debug, Serialize, ToSchema)]
pub struct MediaView {
    /// How it is shown.
    pub kind: String,
    /// The id of the kept picture.
    pub id: Option<String>,
    /// Its address elsewhere.
    pub url: Option<String>,
    /// The name shown to the recipient.
    pub filename: Option<String>,
}

impl From<&Media> for MediaView {
    fn from(media: &Media) -> Self {
        let (id, url) = match &media.source {
            MediaSource::Stored(id) => (Some(id.to_string()), None),
            MediaSource::Url(url) => (None, Some(url.clone())),
        };
        Self {
            kind: super::view::word(&media.kind),
            id,
            url,
            filename: media.file_name.clone(),
        }
    }
}

/// A template.
#[derive(Debug, Serialize, ToSchema)]
pub struct TemplateView {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its text.
    pub message: String,
    /// What is attached.
    pub media: Option<MediaView>,
    /// When it was created.
    pub created_at: String,
    /// When it was last changed.
    pub updated_at: String,
    /// Its version, to be named in a change.
    pub version: i64,
}

impl From<&SavedText> for TemplateView {
    fn from(saved: &SavedText) -> Self {
        Self {
            id: saved.id.to_string(),
            name: saved.name.clone(),
            message: saved.content.text.clone(),
            media: saved.content.media.as_ref().map(Into::into),
            created_at: saved.created_at.to_string(),
            updated_at: saved.updated_at.to_string(),
            version: saved.version,
        }
    }
}

async fn draft(caller: &Caller, body: TemplateBody, before: SavedTextDraft) -> Result<SavedTextDraft, ApiError> {
    Ok(SavedTextDraft {
        name: body.name.over(before.name),
        message: body.message.over(before.message),
        media: match body.media {
            Given::Absent => before.media,
            Given::Null => None,
            Given::Value(media) => Some(attached(caller, media).await?),
        },
    })
}

/// The templates.
#[utoipa::path(get, path = "/api/templates", tag = "templates", params(PageQuery),
    responses((status = 200, description = "A page of templates", body = Envelope<Listed<TemplateView>>)))]
async fn templates(caller: Caller, Query(page): Query<PageQuery>) -> ApiResult<Listed<TemplateView>> {
    let page = caller.store.saved_texts(&caller.scope, &page.request()?).await?;
    Ok(Reply::ok(
        "templates",
        Listed::of(page, |saved| TemplateView::from(&saved)),
    ))
}

/// Save a text.
#[utoipa::path(post, path = "/api/templates", tag = "templates", request_body = TemplateBody,
    responses((status = 200, description = "The template", body = Envelope<TemplateView>)))]
async fn create(caller: Caller, Body(body): Body<TemplateBody>) -> ApiResult<TemplateView> {
    let draft = draft(&caller, body, SavedTextDraft::default()).await?;
    let saved = caller.handle.create_saved_text(&caller.scope, &draft).await?;
    Ok(Reply::ok("template saved", (&saved).into()))
}

/// One template.
#[utoipa::path(get, path = "/api/templates/{id}", tag = "templates",
    responses((status = 200, description = "The template", body = Envelope<TemplateView>)))]
async fn template(caller: Caller, Ids(id): Ids<TemplateId>) -> ApiResult<TemplateView> {
    let saved = caller.store.saved_text(&caller.scope, id).await?;
    Ok(Reply::ok("template", (&saved).into()))
}

/// Change a template; campaigns made from it keep their text.
#[utoipa::path(put, path = "/api/templates/{id}", tag = "templates", request_body = TemplateBody,
    responses((status = 200, description = "The template", body = Envelope<TemplateView>)))]
async fn edit(caller: Caller, Ids(id): Ids<TemplateId>, Body(body): Body<TemplateBody>) -> ApiResult<TemplateView> {
    let before = caller.store.saved_text(&caller.scope, id).await?;
    let version = body.version.unwrap_or(before.version);
    let draft = draft(&caller, body, SavedTextDraft::from(&before)).await?;
    let edit = Edit::new(version, draft);
    let saved = caller.handle.edit_saved_text(&caller.scope, id, &edit).await?;
    Ok(Reply::ok("template changed", (&saved).into()))
}

/// Delete a template.
#[utoipa::path(delete, path = "/api/templates/{id}", tag = "templates",
    responses((status = 200, description = "Deleted", body = Envelope<Nothing>)))]
async fn delete(caller: Caller, Ids(id): Ids<TemplateId>) -> ApiResult<Nothing> {
    caller.handle.delete_saved_text(&caller.scope, id).await?;
    Ok(Reply::done("template deleted"))
}
