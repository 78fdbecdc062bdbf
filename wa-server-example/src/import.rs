//! Imports of leads and of campaign recipients: a file is read in the background, in batches, with its progress kept in the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use wa_core::domain::access::RequestScope;
use wa_core::engine::handle::{Handle, HandleError, LeadRow};
use wa_core::id::{CampaignId, ImportId};
use wa_core::plan::{EntryDraft, FieldError, LeadDraft};
use wa_core::store::{AppStore, ImportRecord, ImportRefusal, ImportState, StoreError};
use wa_core::time::{Clock, Timestamp};

use crate::csv_file::Row;
use crate::entry_csv::EntryReader;
use crate::lead_csv::{LeadDevice, LeadReader};

/// Rows that are committed together.
pub const BATCH: usize = 500;
/// Longest reason of a refusal, in characters.
pub const REASON_CHARS_MAX: usize = 300;
/// Longest name of an import, in characters.
pub const NAME_CHARS_MAX: usize = 200;

/// What the rows of a file become.
#[derive(Debug, Clone, Copy)]
pub enum Target {
    /// Leads.
    Leads(LeadDevice),
    /// Recipients of a draft campaign.
    Entries {
        /// The campaign.
        campaign_id: CampaignId,
        /// The position of the first row that can be read; a position that is there already is left alone.
        first_position: u32,
    },
}

/// What an import works with.
pub struct Import {
    /// Where rows go.
    pub handle: Handle,
    /// Where the record is kept.
    pub store: Arc<dyn AppStore>,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Whose rows.
    pub scope: RequestScope,
    /// What they become.
    pub target: Target,
    /// Most bytes of one row.
    pub row_bytes_max: usize,
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

/// One row as what it is to become.
enum Draft {
    Lead(LeadDraft),
    Entry(EntryDraft),
}

struct Batch {
    bytes_read: u64,
    rows: Vec<Row<Draft>>,
}

/// What became of one row.
enum Taken {
    Inserted,
    Duplicate,
    Refused(Vec<FieldError>),
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
        let (path, target, row_bytes_max) = (self.path.clone(), self.target, self.row_bytes_max);
        let reading = tokio::task::spawn_blocking(move || read(&path, target, row_bytes_max, &sender));
        let mut end = ImportState::Done;
        let mut tried = 0;
        while let Some(batch) = batches.recv().await {
            if self.cancel.load(Ordering::Relaxed) {
                end = ImportState::Cancelled;
                break;
            }
            let refusals = match batch {
                Ok(batch) => {
                    record.bytes_read = batch.bytes_read;
                    record.rows += batch.rows.len() as u64;
                    match self.take(batch, &mut tried, &mut record).await {
                        Ok(refusals) => refusals,
                        Err(error) => {
                            record.message = Some(match &error {
                                HandleError::Store(_) => "the database did not take the rows; run it again".to_owned(),
                                _ => error.to_string(),
                            });
                            tracing::error!(%error, import = %record.id, "an import could not go on");
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

    async fn take(
        &self,
        batch: Batch,
        tried: &mut u64,
        record: &mut ImportRecord,
    ) -> Result<Vec<ImportRefusal>, HandleError> {
        let mut refusals = Vec::new();
        let mut lines = Vec::new();
        let (mut leads, mut entries) = (Vec::new(), Vec::new());
        for row in batch.rows {
            match row.draft {
                Ok(Draft::Lead(draft)) => leads.push(draft),
                Ok(Draft::Entry(draft)) => entries.push(draft),
                Err((field, reason)) => {
                    refusals.push(refusal(row.line, field, &reason));
                    continue;
                }
            }
            lines.push(row.line);
        }
        let taken = match self.target {
            Target::Leads(_) => self.take_leads(&leads).await?,
            Target::Entries {
                campaign_id,
                first_position,
            } => {
                // Rows that cannot be read have no position, so that the next batch starts after those that were tried.
                let first = u64::from(first_position) + *tried;
                let first = u32::try_from(first).unwrap_or(u32::MAX);
                self.take_entries(campaign_id, first, &entries).await?
            }
        };
        *tried += taken.len() as u64;
        for (line, taken) in lines.into_iter().zip(taken) {
            match taken {
                Taken::Inserted => record.inserted += 1,
                Taken::Duplicate => record.duplicates += 1,
                Taken::Refused(errors) => {
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

    async fn take_leads(&self, drafts: &[LeadDraft]) -> Result<Vec<Taken>, HandleError> {
        let rows = self.handle.create_leads(&self.scope, drafts).await?;
        let taken = rows.into_iter().map(|row| match row {
            LeadRow::Created(_) => Taken::Inserted,
            LeadRow::Duplicate { .. } => Taken::Duplicate,
            LeadRow::Refused(errors) => Taken::Refused(errors),
        });
        Ok(taken.collect())
    }

    async fn take_entries(
        &self,
        campaign: CampaignId,
        first: u32,
        drafts: &[EntryDraft],
    ) -> Result<Vec<Taken>, HandleError> {
        let uploaded = self.handle.upload_entries(&self.scope, campaign, first, drafts).await?;
        let mut refused: BTreeMap<u32, Vec<FieldError>> = uploaded.refused.into_iter().collect();
        let taken = (first..)
            .zip(drafts)
            .map(|(position, _)| match refused.remove(&position) {
                Some(errors) => Taken::Refused(errors),
                None if uploaded.known.contains(&position) => Taken::Duplicate,
                None => Taken::Inserted,
            });
        Ok(taken.collect())
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
    target: Target,
    row_bytes_max: usize,
    batches: &tokio::sync::mpsc::Sender<Result<Batch, String>>,
) -> Vec<String> {
    let opened = File::open(path).map_err(|error| format!("the file cannot be read: {error}"));
    let done = opened.and_then(|file| match target {
        Target::Leads(device) => {
            let mut reader = LeadReader::new(file, device, row_bytes_max)?;
            pass_on(|| Some(reader.next_row()?.map(Draft::Lead)), batches);
            Ok(reader.left_out())
        }
        Target::Entries { .. } => {
            let mut reader = EntryReader::new(file, row_bytes_max)?;
            pass_on(|| Some(reader.next_row()?.map(Draft::Entry)), batches);
            Ok(reader.left_out())
        }
    });
    done.unwrap_or_else(|message| {
        let _ = batches.blocking_send(Err(message));
        Vec::new()
    })
}

/// Sends all rows on, batch by batch.
fn pass_on(
    mut next_row: impl FnMut() -> Option<Row<Draft>>,
    batches: &tokio::sync::mpsc::Sender<Result<Batch, String>>,
) {
    loop {
        let mut batch = Batch {
            bytes_read: 0,
            rows: Vec::with_capacity(BATCH),
        };
        while batch.rows.len() < BATCH
            && let Some(row) = next_row()
        {
            batch.bytes_read = row.bytes_read;
            batch.rows.push(row);
        }
        // Nobody listens any more when the import was ended.
        if batch.rows.is_empty() || batches.blocking_send(Ok(batch)).is_err() {
            return;
        }
    }
}
