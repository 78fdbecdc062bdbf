//! Pictures: uploaded, attached to what is sent, shown to their owner, and fetched by gateways.

use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::Request;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::id::{MediaId, UserId};
use wa_core::plan::MediaDraft;

use super::envelope::{Envelope, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Caller, FormParts, Ids, Locked, Open, drain, header_text, next_part, read_body};
use crate::media::{FileMedia, Kept, PictureError};

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(upload))
        .routes(routes!(show))
        .routes(routes!(fetch))
}

/// An attachment: an address, the id of an uploaded picture, or the picture itself.
#[derive(Clone, Default, Deserialize, ToSchema)]
pub struct MediaBody {
    /// A public address of a picture; it is fetched at once and kept.
    url: Option<String>,
    /// The id of an uploaded picture.
    #[schema(value_type = Option<uuid::Uuid>)]
    id: Option<MediaId>,
    /// The picture in base64.
    data: Option<String>,
    /// Its media type; what counts is what the picture is.
    #[serde(alias = "mime")]
    mimetype: Option<String>,
    /// The name shown to the recipient.
    #[serde(alias = "file_name")]
    filename: Option<String>,
}

impl MediaBody {
    /// An attachment by its address.
    pub(super) fn of_url(url: impl Into<String>) -> Self {
        Self {
            url: Some(url.into()),
            ..Self::default()
        }
    }

    /// An attachment that is kept already.
    pub(super) fn of_id(id: MediaId) -> Self {
        Self {
            id: Some(id),
            ..Self::default()
        }
    }
}

/// The pictures that were kept for one request. When it is refused nothing uses them, and they go again.
#[derive(Clone, Default)]
pub struct FreshPictures(Arc<Mutex<Vec<(UserId, MediaId)>>>);

impl FreshPictures {
    fn note(&self, user: UserId, id: MediaId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((user, id));
    }

    /// Something uses them from now on, whatever else becomes of the request.
    pub(super) fn used(&self) {
        self.take();
    }

    fn take(&self) -> Vec<(UserId, MediaId)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Removes them.
    pub(super) async fn forget(&self, media: &FileMedia) {
        for (user, id) in self.take() {
            media.forget(user, id).await;
        }
    }
}

/// What a draft attaches: pictures at addresses are fetched and kept first, so that nothing is sent that was not looked at.
pub(super) async fn attached(caller: &Caller, body: MediaBody) -> Result<MediaDraft, ApiError> {
    if body
        .mimetype
        .as_deref()
        .is_some_and(|mime| !mime.trim().to_ascii_lowercase().starts_with("image/"))
    {
        return Err(ApiError::field(
            "media.mimetype",
            "unsupported",
            "must be that of a picture",
        ));
    }
    let user = caller.user.id;
    let id = match (body.url.as_deref().map(str::trim), body.id, body.data) {
        (Some(url), None, None) if !url.is_empty() => {
            let fetched = caller.media.fetch(user, url).await;
            let id = fetched.map_err(|error| refused("media", error))?.id;
            caller.fresh.note(user, id);
            id
        }
        (None, Some(id), None) => {
            let found = caller
                .media
                .read(user, id)
                .await
                .map_err(|error| ApiError::internal(&error))?;
            if found.is_none() {
                return Err(ApiError::field("media", "not_found", "must be a picture of the user"));
            }
            id
        }
        (None, None, Some(data)) => {
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(data.trim())
                .map_err(|_| ApiError::field("media.data", "invalid", "must be base64"))?;
            keep(caller, bytes).await?.id
        }
        _ => {
            return Err(ApiError::field(
                "media",
                "required",
                "must have one of url, id and data",
            ));
        }
    };
    let mut draft = MediaDraft::stored(id);
    draft.file_name = body.filename;
    Ok(draft)
}

fn refused(field: &str, error: PictureError) -> ApiError {
    match error {
        PictureError::Refused(expected) => ApiError::field(field, "invalid", expected),
        PictureError::TooLarge(bytes_max) => {
            ApiError::field(field, "too_long", format_args!("must have at most {bytes_max} bytes"))
        }
        error => ApiError::internal(&error),
    }
}

/// Keeps a picture of the caller.
pub(super) async fn keep(caller: &Caller, bytes: Vec<u8>) -> Result<Kept, ApiError> {
    let user = caller.user.id;
    let kept = caller.media.keep(user, bytes).await;
    let kept = kept.map_err(|error| refused("image", error))?;
    caller.fresh.note(user, kept.id);
    Ok(kept)
}

/// A form that may hold one file, as browsers and scripts send it.
#[derive(Default)]
pub(super) struct Form {
    pub(super) fields: Vec<(String, String)>,
    pub(super) file: Option<Vec<u8>>,
}

impl Form {
    /// Longest plain field.
    const FIELD_BYTES_MAX: usize = 70_000;
    /// Most plain fields.
    const FIELDS_MAX: usize = 50;

    /// The value of a field, if it is there.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        self.fields
            .iter()
            .find(|(known, value)| known == name && !value.is_empty())
            .map(|(_, value)| value.clone())
    }

    /// Reads a form; its file may have so many bytes.
    pub(super) async fn read(request: Request, bytes_max: u64) -> Result<Self, ApiError> {
        let fields_bytes_max = (Self::FIELDS_MAX * Self::FIELD_BYTES_MAX) as u64;
        let mut parts = FormParts::of(request, bytes_max.saturating_add(fields_bytes_max)).await?;
        let mut form = Self::default();
        while let Some(mut part) = parts.next().await? {
            let name = part.name().unwrap_or_default().to_owned();
            let is_file = part.file_name().is_some();
            let mut bytes = Vec::new();
            while let Some(chunk) = next_part(&mut part).await? {
                let most = if is_file {
                    bytes_max
                } else {
                    Self::FIELD_BYTES_MAX as u64
                };
                if (bytes.len() + chunk.len()) as u64 > most {
                    drain(&mut part).await;
                    drop(part);
                    parts.drain().await;
                    return Err(ApiError::too_large_part(&name, most));
                }
                bytes.extend_from_slice(&chunk);
            }
            if is_file {
                form.file = Some(bytes);
            } else if form.fields.len() < Self::FIELDS_MAX {
                let text = String::from_utf8(bytes)
                    .map_err(|_| ApiError::unreadable_field(&name, format!("{name} must be UTF-8 text")))?;
                form.fields.push((name, text));
            }
        }
        Ok(form)
    }
}

/// Whether a request carries a form with files.
pub(super) fn is_form(request: &Request) -> bool {
    header_text(request.headers(), &header::CONTENT_TYPE).is_some_and(|kind| {
        kind.trim_start()
            .to_ascii_lowercase()
            .starts_with("multipart/form-data")
    })
}

/// A picture that is kept.
#[derive(Debug, Serialize, ToSchema)]
pub struct PictureView {
    /// Its id.
    pub id: String,
    /// Its media type.
    pub mimetype: String,
    /// Its size.
    pub size_bytes: u64,
    /// Where its owner sees it.
    pub path: String,
}

/// Upload a picture (JPEG, PNG, GIF, WebP), as the body or as the file of a form.
#[utoipa::path(post, path = "/api/media", tag = "messages",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses((status = 200, description = "The picture as it is kept", body = Envelope<PictureView>)))]
async fn upload(caller: Caller, request: Request) -> ApiResult<PictureView> {
    let most = caller.media.bytes_max();
    let bytes = if is_form(&request) {
        Form::read(request, most)
            .await?
            .file
            .ok_or_else(|| ApiError::field("file", "required", "is required"))?
    } else {
        read_body(request.into_body(), most).await?.into()
    };
    let kept = keep(&caller, bytes).await?;
    let view = PictureView {
        id: kept.id.to_string(),
        mimetype: kept.mime.to_owned(),
        size_bytes: kept.size_bytes,
        path: format!("/api/media/{}", kept.id),
    };
    Ok(Reply::ok("picture kept", view))
}

/// A picture, for its owner.
#[utoipa::path(get, path = "/api/media/{id}", tag = "messages",
    responses((status = 200, description = "The picture", content_type = "image/*", body = Vec<u8>)))]
async fn show(caller: Caller, Ids(id): Ids<MediaId>) -> Result<Response, ApiError> {
    picture(caller.media.read(caller.user.id, id).await)
}

/// A picture, for a gateway that was given this address.
#[utoipa::path(get, path = "/media/{token}", tag = "messages",
    responses((status = 200, description = "The picture", content_type = "image/*", body = Vec<u8>)))]
async fn fetch(open: Open, Ids(token): Ids<String>) -> Result<Response, ApiError> {
    let (user, id) = open
        .media
        .open_token(&token)
        .ok_or_else(|| ApiError::no_such("picture"))?;
    picture(open.media.read(user, id).await)
}

fn picture(read: std::io::Result<Option<(&'static str, Vec<u8>)>>) -> Result<Response, ApiError> {
    match read {
        Ok(Some((mime, bytes))) => Ok(([(header::CONTENT_TYPE, mime)], bytes).into_response()),
        Ok(None) => Err(ApiError::no_such("picture")),
        Err(error) => Err(ApiError::internal(&error)),
    }
}
