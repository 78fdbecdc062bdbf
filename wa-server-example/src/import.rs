//! Imports of leads: a file is read in the background, in batches, with its progress kept in the store.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wa_core::domain::access::RequestScope;
use wa_core::engine::handle::{Handle, HandleError, LeadRow};
use wa_core::id::{DeviceId, ImportId};
use wa_core::store::{AppStore, ImportRecord, ImportRefusal, ImportState, StoreError};
use wa_core::time::{Clock, Timestamp};

use crate::lead_csv::{LeadReader, Row};

/// Rows that are committed together.
pub const BATCH: usize = 500;
/// Longest reason of a refusal, in characters.
pub const REASON_CHARS_MAX: usize = 300;
/// Longest name of an import, in characters.
pub const NAME_CHARS_MAX: usize = 200;

/// What an import works with.
pub struct Import {
    /// Where leads go.
    pub handle: Handle,
    /// Where the record is kept.
    pub store: Arc<dyn AppStore>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Whose leads.
    pub scope: RequestScope,
    /// The device of leads whose row names none.
    pub device: Option<DeviceId>,
    /// The file.
    pub path: PathBuf,
    /// Set to end it after the batch under way.
    pub cancel: Arc<AtomicBool>,
}

/// A new record.
#[must_use]
pub fn record(id: ImportId, scope: &RequestScope, name: &str, bytes_total: u64, now: Timestamp) -> ImportRecord {
    ImportRecord {
        id,
        user_id: scope.user_id,
        name: name.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect(),
        state: ImportState::Running,
        bytes_read: 0,
        bytes_total: Some(bytes_total),
        rows: 0,
        inserted: 0,
        duplicates: 0,
        refused: 0,
        message: None,
        created_at: now,
        updated_at: now,
    }
}

struct Batch {
    bytes_read: u64,
    rows: Vec<Row>,
}

impl Import {
    /// Reads the file to its end, until it is cancelled, or until the store gives up; `progress` sees the record after each
    /// batch. The record tells what happened.
    ///
    /// # Errors
    /// The record could not be kept.
    pub async fn run(
        self,
        mut record: ImportRecord,
        mut progress: impl FnMut(&ImportRecord) + Send,
    ) -> Result<ImportRecord, StoreError> {
        // One batch waits while another is committed, so that memory does not grow with the file.
        let (sender, mut batches) = tokio::sync::mpsc::channel::<Result<Batch, String>>(1);
        let (path, device) = (self.path.clone(), self.device);
        let reading = tokio::task::spawn_blocking(move || read(&path, device, &sender));
        let mut end = ImportState::Done;
        while let Some(batch) = batches.recv().await {
            if self.cancel.load(Ordering::Relaxed) {
                end = ImportState::Cancelled;
                break;
            }
            let refusals = match batch {
                Ok(batch) => {
                    record.bytes_read = batch.bytes_read;
                    record.rows += batch.rows.len() as u64;
                    match self.take(batch, &mut record).await {
                        Ok(refusals) => refusals,
                        Err(error) => {
                            tracing::error!(%error, import = %record.id, "an import could not go on");
                            record.message = Some("the database did not take the rows; run it again".to_owned());
                            end = ImportState::Failed;
                            break;
                        }
                    }
                }
                Err(message) => {
                    record.message = Some(message);
                    end = ImportState::Failed;
                    break;
                }
            };
            record.updated_at = self.clock.wall();
            self.store.put_import(&record, &refusals).await?;
            progress(&record);
        }
        drop(batches);
        if let Ok(left_out) = reading.await
            && end == ImportState::Done
        {
            record.bytes_read = record.bytes_total.unwrap_or(record.bytes_read);
            if !left_out.is_empty() {
                record.message = Some(format!(
                    "columns that are not known were left out: {}",
                    left_out.join(", ")
                ));
            }
        }
        record.state = end;
        record.updated_at = self.clock.wall();
        self.store.put_import(&record, &[]).await?;
        progress(&record);
        Ok(record)
    }

    async fn take(&self, batch: Batch, record: &mut ImportRecord) -> Result<Vec<ImportRefusal>, HandleError> {
        let mut refusals = Vec::new();
        let mut lines = Vec::new();
        let mut drafts = Vec::new();
        for row in batch.rows {
            match row.draft {
                Ok(draft) => {
                    lines.push(row.line);
                    drafts.push(draft);
                }
                Err((field, reason)) => refusals.push(refusal(row.line, field, &reason)),
            }
        }
        let rows = self.handle.create_leads(&self.scope, &drafts).await?;
        for (line, row) in lines.into_iter().zip(rows) {
            match row {
                LeadRow::Created(_) => record.inserted += 1,
                LeadRow::Duplicate { .. } => record.duplicates += 1,
                LeadRow::Refused(errors) => {
                    let field = errors.first().map(|error| error.field.to_string()).unwrap_or_default();
                    let reason = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
                    refusals.push(refusal(line, field, &reason));
                }
            }
        }
        refusals.sort_by_key(|refusal| refusal.line);
        record.refused += refusals.len() as u64;
        Ok(refusals)
    }
}

fn refusal(line: u64, field: String, reason: &str) -> ImportRefusal {
    ImportRefusal {
        line,
        field,
        reason: reason.chars().take(REASON_CHARS_MAX).collect(),
    }
}

/// Reads the file on a thread that may block; gives the names of columns that were left out.
fn read(
    path: &std::path::Path,
    device: Option<DeviceId>,
    batches: &tokio::sync::mpsc::Sender<Result<Batch, String>>,
) -> Vec<String> {
    let opened = File::open(path).map_err(|error| format!("the file cannot be read: {error}"));
    let mut reader = match opened.and_then(|file| LeadReader::new(file, device)) {
        Ok(reader) => reader,
        Err(message) => {
            let _ = batches.blocking_send(Err(message));
            return Vec::new();
        }
    };
    loop {
        let mut batch = Batch {
            bytes_read: 0,
            rows: Vec::with_capacity(BATCH),
        };
        while batch.rows.len() < BATCH
            && let Some(row) = reader.next_row()
        {
            batch.bytes_read = row.bytes_read;
            batch.rows.push(row);
        }
        // Nobody listens any more when the import was ended.
        if batch.rows.is_empty() || batches.blocking_send(Ok(batch)).is_err() {
            return reader.left_out;
        }
    }
}
