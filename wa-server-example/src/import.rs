//! Imports of leads and of campaign recipients: a file is read in the background, in batches, with its progress kept in the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
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
/// How often a running import moves its record, also while it waits for rows or for the database.
pub const BEAT_EVERY: Duration = Duration::from_secs(20);
/// How long the record of an import may stand still before whatever runs it is taken for dead: 2 min.
pub const STANDS_STILL: Duration = Duration::from_secs(120);
/// What is said of an import whose record stands still.
pub const BROKEN_OFF: &str =
    "the import was stopped before its end, with the server or command that ran it; run it again";
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
    /// Reads the file to its end, until it is cancelled, or until the file or the store gives up; `progress` sees the record after
    /// each batch. The record tells what happened.
    ///
    /// # Errors
    /// The record could not be kept.
    pub async fn run(
        self,
        record: ImportRecord,
        progress: impl FnMut(&ImportRecord) + Send,
    ) -> Result<ImportRecord, StoreError> {
        let path = self.path.clone();
        self.run_from(move || File::open(path), record, progress).await
    }

    async fn run_from<R: Read>(
        self,
        open: impl FnOnce() -> io::Result<R> + Send + 'static,
        mut record: ImportRecord,
        mut progress: impl FnMut(&ImportRecord) + Send,
    ) -> Result<ImportRecord, StoreError> {
        // One batch waits while another is committed, so that memory does not grow with the file.
        let (sender, mut batches) = mpsc::channel(1);
        let (target, row_bytes_max) = (self.target, self.row_bytes_max);
        let reading = tokio::task::spawn_blocking(move || read(open, target, row_bytes_max, &sender));
        let mut end = ImportState::Done;
        let mut tried = 0;
        while let Some(batch) = self.beating(&record.clone(), batches.recv()).await {
            if self.cancel.load(Ordering::Relaxed) {
                end = ImportState::Cancelled;
                break;
            }
            record.bytes_read = batch.bytes_read;
            record.rows += batch.rows.len() as u64;
            let before = record.clone();
            let refusals = match self.beating(&before, self.take(batch, &mut tried, &mut record)).await {
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
            };
            record.updated_at = self.clock.wall();
            self.store.put_import(&record, &refusals).await?;
            progress(&record);
        }
        drop(batches);
        let read = reading.await;
        if end == ImportState::Done {
            match read {
                Ok(Ok(left_out)) => {
                    record.bytes_read = record.bytes_total.unwrap_or(record.bytes_read);
                    if !left_out.is_empty() {
                        record.message = Some(format!(
                            "columns that are not known were left out: {}",
                            left_out.join(", ")
                        ));
                    }
                }
                Ok(Err(Unread::File(message))) => {
                    record.message = Some(message);
                    end = ImportState::Failed;
                }
                Ok(Err(Unread::Rest(error))) => {
                    tracing::error!(%error, import = %record.id, "the file of an import could not be read to its end");
                    record.message = Some(broken_after(record.rows, &error));
                    end = ImportState::Failed;
                }
                Err(error) => {
                    tracing::error!(%error, import = %record.id, "the reader of an import ended");
                    record.message = Some(broken_after(record.rows, &"its reader failed"));
                    end = ImportState::Failed;
                }
            }
        }
        record.state = end;
        record.updated_at = self.clock.wall();
        self.store.put_import(&record, &[]).await?;
        progress(&record);
        Ok(record)
    }

    /// Moves the record on now and again while something is under way. A beat that has begun is waited for, so that none comes
    /// after what is put next.
    async fn beating<T>(&self, record: &ImportRecord, work: impl Future<Output = T>) -> T {
        let (done, mut ended) = tokio::sync::oneshot::channel::<()>();
        let work = async {
            let result = work.await;
            drop(done);
            result
        };
        let beats = async {
            loop {
                let next = self.clock.monotonic() + BEAT_EVERY;
                tokio::select! {
                    _ = &mut ended => return,
                    () = self.clock.sleep_until(next) => {}
                }
                let record = ImportRecord {
                    updated_at: self.clock.wall(),
                    ..record.clone()
                };
                if let Err(error) = self.store.put_import(&record, &[]).await {
                    tracing::warn!(%error, import = %record.id, "the record of an import could not be moved");
                }
            }
        };
        tokio::join!(work, beats).0
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

/// Why a file was not read to its end.
enum Unread {
    /// It cannot be read at all.
    File(String),
    /// What comes after the rows that were passed on cannot be read.
    Rest(io::Error),
}

fn broken_after(rows: u64, reason: &dyn std::fmt::Display) -> String {
    let reason: String = reason.to_string().chars().take(REASON_CHARS_MAX).collect();
    format!("the file could not be read on after {rows} rows, which stay: {reason}; run it again")
}

/// Reads the file on a thread that may block; gives the names of columns that were left out.
fn read<R: Read>(
    open: impl FnOnce() -> io::Result<R>,
    target: Target,
    row_bytes_max: usize,
    batches: &mpsc::Sender<Batch>,
) -> Result<Vec<String>, Unread> {
    let file = open().map_err(|error| Unread::File(format!("the file cannot be read: {error}")))?;
    match target {
        Target::Leads(device) => {
            let mut reader = LeadReader::new(file, device, row_bytes_max).map_err(Unread::File)?;
            let next_row = || Ok(reader.next_row()?.map(|row| row.map(Draft::Lead)));
            pass_on(next_row, batches).map_err(Unread::Rest)?;
            Ok(reader.left_out())
        }
        Target::Entries { .. } => {
            let mut reader = EntryReader::new(file, row_bytes_max).map_err(Unread::File)?;
            let next_row = || Ok(reader.next_row()?.map(|row| row.map(Draft::Entry)));
            pass_on(next_row, batches).map_err(Unread::Rest)?;
            Ok(reader.left_out())
        }
    }
}

/// Sends all rows on, batch by batch; also those before the place where the file cannot be read on.
fn pass_on(
    mut next_row: impl FnMut() -> io::Result<Option<Row<Draft>>>,
    batches: &mpsc::Sender<Batch>,
) -> io::Result<()> {
    let mut read_on = Ok(());
    while read_on.is_ok() {
        let mut batch = Batch {
            bytes_read: 0,
            rows: Vec::with_capacity(BATCH),
        };
        while batch.rows.len() < BATCH {
            match next_row() {
                Ok(Some(row)) => {
                    batch.bytes_read = row.bytes_read;
                    batch.rows.push(row);
                }
                Ok(None) => break,
                Err(error) => {
                    read_on = Err(error);
                    break;
                }
            }
        }
        // Nobody listens any more when the import was ended.
        if batch.rows.is_empty() || batches.blocking_send(batch).is_err() {
            break;
        }
    }
    read_on
}

#[cfg(test)]
mod tests {
    use wa_core::engine::config::EngineConfig;
    use wa_core::engine::core::EngineBuilder;
    use wa_core::id::{IdSource, UserId};
    use wa_core::simulation::{Timeline, VirtualClock};
    use wa_core::store::{ImportStore as _, MemoryStore};

    use super::*;

    struct World {
        timeline: Arc<Timeline>,
        store: Arc<MemoryStore>,
        import: Import,
        record: ImportRecord,
    }

    async fn world() -> World {
        let timeline = Timeline::new();
        let clock = Arc::new(VirtualClock::new(
            Arc::clone(&timeline),
            Timestamp::from_millis(1_700_000_000_000),
        ));
        let store = Arc::new(MemoryStore::new());
        let config = EngineConfig::new("test");
        let core = EngineBuilder::new(store.clone(), clock.clone(), config)
            .open()
            .await
            .unwrap();
        let (ids, now) = (IdSource::from_entropy(), clock.wall());
        let scope = RequestScope::user(UserId::new(&ids, now));
        let record = record(ImportId::new(&ids, now), &scope, "leads.csv", 1_000_000, now);
        store.put_import(&record, &[]).await.unwrap();
        let import = Import {
            handle: Handle::new(core),
            store: store.clone(),
            clock,
            scope,
            target: Target::Leads(LeadDevice::default()),
            row_bytes_max: 1_000,
            path: PathBuf::new(),
            cancel: Arc::default(),
        };
        World {
            timeline,
            store,
            import,
            record,
        }
    }

    /// A file of so many leads that breaks after them.
    fn leads(count: u32) -> io::Cursor<Vec<u8>> {
        let rows: String = (0..count).map(|n| format!("01234{n:05}\n")).collect();
        io::Cursor::new(format!("phone\n{rows}").into_bytes())
    }

    /// What comes after the rows that can be read.
    struct Then<F>(io::Cursor<Vec<u8>>, F);

    impl<F: FnMut() -> io::Result<usize>> Read for Then<F> {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => (self.1)(),
                read => Ok(read),
            }
        }
    }

    #[tokio::test]
    async fn a_file_that_breaks_half_way_fails_its_import_which_tells_how_many_rows_were_taken() {
        let World {
            import, record, store, ..
        } = world().await;
        let (scope, id) = (import.scope.clone(), record.id);
        let file = Then(leads(1_200), || Err(io::Error::other("the disk is gone")));
        let done = import.run_from(|| Ok(file), record, |_| {}).await.unwrap();
        assert_eq!(
            (done.state, done.rows, done.inserted),
            (ImportState::Failed, 1_200, 1_200)
        );
        let message = done.message.as_deref().unwrap();
        assert!(
            message.contains("1200 rows") && message.contains("the disk is gone"),
            "{message}"
        );
        assert!(done.bytes_read < 1_000_000);
        assert_eq!(store.import(&scope, id).await.unwrap(), done);
    }

    #[tokio::test]
    async fn a_reader_that_panics_fails_its_import() {
        let World { import, record, .. } = world().await;
        let file = Then(leads(600), || panic!("a defect"));
        let done = import.run_from(|| Ok(file), record, |_| {}).await.unwrap();
        assert_eq!((done.state, done.rows), (ImportState::Failed, 500));
        assert!(done.message.unwrap().contains("500 rows"));
    }

    #[tokio::test]
    async fn an_import_that_waits_for_its_file_beats() {
        let World {
            import,
            record,
            store,
            timeline,
        } = world().await;
        let (scope, id) = (import.scope.clone(), record.id);
        let (go_on, wait) = std::sync::mpsc::channel::<()>();
        let file = Then(leads(600), move || {
            let _ = wait.recv();
            Ok(0)
        });
        let running = tokio::spawn(import.run_from(|| Ok(file), record, |_| {}));
        let look = async || store.import(&scope, id).await.unwrap();
        while look().await.rows < 500 {
            tokio::task::yield_now().await;
        }
        let waits_since = look().await.updated_at;
        for _ in 0..100 {
            timeline.advance();
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        let now = look().await;
        assert_eq!((now.state, now.rows), (ImportState::Running, 500));
        assert!(
            now.updated_at.since(waits_since) >= 50 * BEAT_EVERY,
            "{:?}",
            now.updated_at
        );
        drop(go_on);
        let done = running.await.unwrap().unwrap();
        assert_eq!((done.state, done.rows), (ImportState::Done, 600));
    }
}
