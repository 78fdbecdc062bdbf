//! Imports of leads and of campaign recipients from CSV files.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::Request;
use axum::http::header;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use wa_core::domain::audience::Audience;
use wa_core::domain::campaign::CampaignStatus;
use wa_core::id::{CampaignId, DeviceId, ImportId};
use wa_core::store::{ImportRecord, ImportState, StoreError};

use super::csv_out::csv_response;
use super::envelope::{Envelope, Listed, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Caller, FormParts, Ids, Locked, PageQuery, Query, drain, header_text, next_part};
use super::pictures::is_form;
use super::view::word;
use crate::app::Imports;
use crate::csv_file::plain;
use crate::import::{BROKEN_OFF, Import, STANDS_STILL, Target, record};
use crate::lead_csv::LeadDevice;

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new()
        .routes(routes!(start))
        .routes(routes!(start_for_device))
        .routes(routes!(start_entries))
        .routes(routes!(imports))
        .routes(routes!(import))
        .routes(routes!(cancel))
        .routes(routes!(refusals))
        .routes(routes!(refusals_export))
}

/// What to do with the file.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ImportQuery {
    /// The device of leads whose row names none; without one they are in the pool.
    #[param(value_type = Option<uuid::Uuid>)]
    device_id: Option<DeviceId>,
    /// Whether the column that names devices is left out, as it must be for a file of another user.
    #[serde(default)]
    ignore_devices: bool,
    /// What the import is called; the file's name when it is not given.
    name: Option<String>,
}

/// What to do with a file of recipients.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct EntryImportQuery {
    /// The position of the first row in the whole upload, 1 when it is not given; a position that is there already is left
    /// alone, so that the same file again adds nothing.
    #[param(minimum = 1)]
    first_position: Option<u32>,
    /// What the import is called; the file's name when it is not given.
    name: Option<String>,
}

/// How far an import is.
#[derive(Debug, Serialize, ToSchema)]
pub struct ImportView {
    /// Its id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// `running`, `done`, `cancelled` or `failed`.
    pub state: String,
    /// Bytes read.
    pub bytes_read: u64,
    /// Bytes in all.
    pub bytes_total: Option<u64>,
    /// Rows read.
    pub rows: u64,
    /// Rows that became leads or recipients.
    pub inserted: u64,
    /// Rows that were there already.
    pub duplicates: u64,
    /// Rows refused; each is in the report.
    pub refused: u64,
    /// Why it failed, or what was left out.
    pub message: Option<String>,
    /// When it began.
    pub created_at: String,
    /// When it last moved.
    pub updated_at: String,
}

impl From<&ImportRecord> for ImportView {
    fn from(record: &ImportRecord) -> Self {
        Self {
            id: record.id.to_string(),
            name: record.name.clone(),
            state: word(&record.state),
            bytes_read: record.bytes_read,
            bytes_total: record.bytes_total,
            rows: record.rows,
            inserted: record.inserted,
            duplicates: record.duplicates,
            refused: record.refused,
            message: record.message.clone(),
            created_at: record.created_at.to_string(),
            updated_at: record.updated_at.to_string(),
        }
    }
}

/// Import leads from CSV, as the body or as the file of a form; it goes on in the background.
#[utoipa::path(post, path = "/api/leads/import", tag = "imports", params(ImportQuery),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 202, description = "It has begun", body = Envelope<ImportView>)))]
async fn start(caller: Caller, Query(query): Query<ImportQuery>, request: Request) -> ApiResult<ImportView> {
    begin_leads(caller, query, request).await
}

/// Import leads of a device from CSV.
#[utoipa::path(post, path = "/api/devices/{id}/leads/import", tag = "imports", params(ImportQuery),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 202, description = "It has begun", body = Envelope<ImportView>)))]
async fn start_for_device(
    caller: Caller,
    Ids(id): Ids<DeviceId>,
    Query(query): Query<ImportQuery>,
    request: Request,
) -> ApiResult<ImportView> {
    caller.store.device(&caller.scope, id).await?;
    let query = ImportQuery {
        device_id: Some(id),
        ..query
    };
    begin_leads(caller, query, request).await
}

/// Import recipients of a draft campaign from CSV, each with its own text if wanted: columns `phone`, `text` and `name`; every
/// other column is a merge field, `{{custom.column}}`.
#[utoipa::path(post, path = "/api/campaigns/{id}/entries/import", tag = "imports", params(EntryImportQuery),
    request_body(content = String, content_type = "text/csv"),
    responses((status = 202, description = "It has begun", body = Envelope<ImportView>)))]
async fn start_entries(
    caller: Caller,
    Ids(id): Ids<CampaignId>,
    Query(query): Query<EntryImportQuery>,
    request: Request,
) -> ApiResult<ImportView> {
    let campaign = caller.store.campaign(&caller.scope, id).await?;
    if campaign.status != CampaignStatus::Draft || campaign.audience != Audience::Entries {
        return Err(ApiError::conflict(
            "recipients are given to a draft whose audience is entries",
        ));
    }
    let first_position = query.first_position.unwrap_or(1);
    if first_position == 0 {
        return Err(ApiError::field("first_position", "out_of_range", "must be 1 or more"));
    }
    let target = Target::Entries {
        campaign_id: id,
        first_position,
    };
    begin(caller, target, query.name, "recipients.csv", request).await
}

/// A file that is gone when it is dropped.
struct Spooled {
    path: PathBuf,
    name: Option<String>,
    bytes: u64,
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::warn!(%error, "an imported file could not be removed");
        }
    }
}

async fn begin_leads(caller: Caller, query: ImportQuery, request: Request) -> ApiResult<ImportView> {
    if let Some(id) = query.device_id {
        caller.store.device(&caller.scope, id).await.map_err(|error| {
            if error.is_not_found() {
                ApiError::field("device_id", "not_found", "must be a device of the user")
            } else {
                error.into()
            }
        })?;
    }
    let target = Target::Leads(LeadDevice {
        device_id: query.device_id,
        alone: query.ignore_devices,
    });
    begin(caller, target, query.name, "leads.csv", request).await
}

async fn begin(
    caller: Caller,
    target: Target,
    name: Option<String>,
    or_named: &str,
    request: Request,
) -> ApiResult<ImportView> {
    let permit = caller
        .imports
        .permit()
        .ok_or_else(|| ApiError::too_many(std::time::Duration::from_secs(30)).saying("too many imports are running"))?;
    let spooled = spool(&caller, request).await?;
    let now = caller.clock.wall();
    let id = ImportId::new(&caller.ids, now);
    let name = name.or_else(|| spooled.name.clone());
    let record = record(
        id,
        &caller.scope,
        name.as_deref().unwrap_or(or_named),
        spooled.bytes,
        now,
    );
    caller.store.put_import(&record, &[]).await?;
    let cancel = Arc::new(AtomicBool::new(false));
    let under_way = Imports::add(&caller.app(), id, Arc::clone(&cancel));
    let view = ImportView::from(&record);
    let import = Import {
        handle: caller.handle.clone(),
        store: Arc::clone(&caller.store),
        clock: Arc::clone(&caller.clock),
        scope: caller.scope.clone(),
        target,
        row_bytes_max: caller.settings.import_row_bytes_max,
        path: spooled.path.clone(),
        cancel,
    };
    tokio::spawn(async move {
        let (_permit, _spooled, _under_way) = (permit, spooled, under_way);
        if let Err(error) = import.run(record, |_| {}).await {
            tracing::error!(?error, import = %id, "the record of an import could not be kept");
        }
    });
    Ok(Reply::accepted("the import has begun", view))
}

/// Writes the body to a file, so that memory does not grow with it.
async fn spool(caller: &Caller, request: Request) -> Result<Spooled, ApiError> {
    let folder = caller.settings.spool();
    let internal = |error: std::io::Error| ApiError::internal(&error);
    tokio::fs::create_dir_all(&folder).await.map_err(internal)?;
    let path = folder.join(format!("{}.csv", crate::password::token()));
    let mut options = tokio::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(&path).await.map_err(internal)?;
    let mut spooled = Spooled {
        path,
        name: None,
        bytes: 0,
    };
    let most = caller.settings.import_bytes_max;
    if is_form(&request) {
        let mut parts = FormParts::of(request, most).await?;
        loop {
            let part = parts.next().await?;
            let mut part = part.ok_or_else(|| ApiError::field("file", "required", "is required"))?;
            if part.file_name().is_some() {
                spooled.name = part.file_name().map(str::to_owned);
                spooled.bytes = copy(&mut part, &mut file, most).await?;
                break;
            }
        }
    } else {
        let named = header_text(request.headers(), &header::CONTENT_DISPOSITION)
            .and_then(|value| value.split("filename=").nth(1))
            .map(|name| name.trim_matches(['"', ' ', ';']).to_owned());
        spooled.name = named.filter(|name| !name.is_empty());
        let mut parts = request.into_body().into_data_stream();
        spooled.bytes = copy(&mut parts, &mut file, most).await?;
    }
    file.flush().await.map_err(internal)?;
    Ok(spooled)
}

async fn copy<E>(
    parts: &mut (impl futures::Stream<Item = Result<axum::body::Bytes, E>> + Unpin),
    file: &mut tokio::fs::File,
    bytes_max: u64,
) -> Result<u64, ApiError> {
    let mut bytes = 0;
    while let Some(part) = next_part(parts).await? {
        bytes += part.len() as u64;
        if bytes > bytes_max {
            drain(parts).await;
            return Err(ApiError::too_large(bytes_max));
        }
        file.write_all(&part)
            .await
            .map_err(|error| ApiError::internal(&error))?;
    }
    Ok(bytes)
}

/// The imports, newest first.
#[utoipa::path(get, path = "/api/imports", tag = "imports", params(PageQuery),
    responses((status = 200, description = "A page of imports", body = Envelope<Listed<ImportView>>)))]
async fn imports(caller: Caller, Query(page): Query<PageQuery>) -> ApiResult<Listed<ImportView>> {
    let request = page.request()?;
    let mut page = caller.store.imports(&caller.scope, &request).await?;
    if fail_dead(&caller, &page.rows).await? {
        page = caller.store.imports(&caller.scope, &request).await?;
    }
    Ok(Reply::ok(
        "imports",
        Listed::of(page, |record| ImportView::from(&record)),
    ))
}

/// How far an import is.
#[utoipa::path(get, path = "/api/imports/{id}", tag = "imports",
    responses((status = 200, description = "The import", body = Envelope<ImportView>)))]
async fn import(caller: Caller, Ids(id): Ids<ImportId>) -> ApiResult<ImportView> {
    let record = found(&caller, id).await?;
    Ok(Reply::ok("import", (&record).into()))
}

/// An import as it stands.
async fn found(caller: &Caller, id: ImportId) -> Result<ImportRecord, StoreError> {
    let record = caller.store.import(&caller.scope, id).await?;
    if fail_dead(caller, std::slice::from_ref(&record)).await? {
        return caller.store.import(&caller.scope, id).await;
    }
    Ok(record)
}

/// Marks imports as failed whose records stand still, if one of these is among them: nothing runs them any more.
async fn fail_dead(caller: &Caller, records: &[ImportRecord]) -> Result<bool, StoreError> {
    let now = caller.clock.wall();
    let before = now - STANDS_STILL;
    let is_dead = |record: &ImportRecord| {
        record.state == ImportState::Running && record.updated_at < before && caller.imports.get(record.id).is_none()
    };
    if !records.iter().any(is_dead) {
        return Ok(false);
    }
    caller.store.fail_running_imports(BROKEN_OFF, before, now).await?;
    Ok(true)
}

/// End an import that runs in this server; what was read stays.
#[utoipa::path(post, path = "/api/imports/{id}/cancel", tag = "imports",
    responses((status = 200, description = "The import", body = Envelope<ImportView>)))]
async fn cancel(caller: Caller, Ids(id): Ids<ImportId>) -> ApiResult<ImportView> {
    let record = found(&caller, id).await?;
    // What runs here is asked first: its record may have been taken for that of a dead one while the database was away.
    if let Some(cancel) = caller.imports.get(id) {
        cancel.store(true, Ordering::Relaxed);
        return Ok(Reply::ok("the import ends after the rows under way", (&record).into()));
    }
    let minutes = STANDS_STILL.as_secs() / 60;
    Err(ApiError::conflict(match record.state {
        ImportState::Running if caller.settings.is_shared() => format!(
            "the import does not run on this node: ask the one that does, or end the command that does; if that is gone, the \
             import counts as failed {minutes} minutes after it last moved"
        ),
        ImportState::Running => format!(
            "the import does not run in this server: end the command that runs it; if that is gone, the import counts as failed \
             {minutes} minutes after it last moved"
        ),
        _ => "the import has ended".to_owned(),
    }))
}

/// A refused row.
#[derive(Debug, Serialize, ToSchema)]
pub struct RefusalView {
    /// Its line in the file, from 1 with the header.
    pub line: u64,
    /// The field.
    pub field: String,
    /// What is wrong and what was expected.
    pub reason: String,
}

/// The refused rows of an import; `cursor` is the line after which the page starts.
#[utoipa::path(get, path = "/api/imports/{id}/refusals", tag = "imports", params(PageQuery),
    responses((status = 200, description = "A page of refused rows", body = Envelope<Listed<RefusalView>>)))]
async fn refusals(
    caller: Caller,
    Ids(id): Ids<ImportId>,
    Query(page): Query<PageQuery>,
) -> ApiResult<Listed<RefusalView>> {
    caller.store.import(&caller.scope, id).await?;
    let request = page.request::<u64>()?;
    let after = request.after.unwrap_or(0);
    let rows = caller
        .store
        .import_refusals(&caller.scope, id, after, request.limit)
        .await?;
    let full = rows.len() == request.limit as usize;
    let next = rows.last().filter(|_| full).map(|row| row.line.to_string());
    let items = rows
        .into_iter()
        .map(|row| RefusalView {
            line: row.line,
            field: row.field,
            reason: row.reason,
        })
        .collect();
    Ok(Reply::ok("refused rows", Listed { items, next }))
}

/// The refused rows of an import as CSV.
#[utoipa::path(get, path = "/api/imports/{id}/refusals/export", tag = "imports",
    responses((status = 200, description = "The file", content_type = "text/csv", body = String)))]
async fn refusals_export(caller: Caller, Ids(id): Ids<ImportId>) -> Result<axum::response::Response, ApiError> {
    caller.store.import(&caller.scope, id).await?;
    let header = ["line", "field", "reason"].map(str::to_owned).to_vec();
    Ok(csv_response("refused.csv", header, move |after: Option<u64>| {
        let (app, scope) = (caller.app(), caller.scope.clone());
        async move {
            let most = wa_core::store::PAGE_MAX;
            let rows = app.store.import_refusals(&scope, id, after.unwrap_or(0), most).await?;
            let next = rows.last().filter(|_| rows.len() == most as usize).map(|row| row.line);
            let rows = rows
                .into_iter()
                .map(|row| vec![row.line.to_string(), plain(&row.field), plain(&row.reason)])
                .collect();
            Ok((rows, next))
        }
    }))
}
