//! `leads`: CSV in and out.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Subcommand;
use indicatif::{ProgressBar, ProgressStyle};
use wa_core::domain::access::RequestScope;
use wa_core::id::{DeviceId, IdSource, ImportId};
use wa_core::store::{ImportState, LeadFilter, PAGE_MAX, PageRequest};

use super::{Failure, Offline, say};
use crate::csv_file::encode;
use crate::import::{Import, Target, record};
use crate::lead_csv::{LeadDevice, LeadSheet};
use crate::password;
use crate::settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum LeadsCommand {
    /// Import leads from a CSV file; rows that are there already are counted, refused ones are listed.
    Import {
        /// The file.
        file: PathBuf,
        /// The login of the user whose leads they are.
        #[arg(long)]
        user: String,
        /// The id of the device of leads whose row names none.
        #[arg(long)]
        device: Option<DeviceId>,
        /// Where to write the refused rows as CSV; to the terminal when it is not given.
        #[arg(long)]
        refused: Option<PathBuf>,
    },
    /// Export the leads of a user as CSV.
    Export {
        /// The file, which is replaced once all is written; the terminal when it is not given.
        file: Option<PathBuf>,
        /// The login of the user.
        #[arg(long)]
        user: String,
    },
}

/// Refused rows shown in the terminal.
const SHOWN_MAX: usize = 20;

pub(super) async fn run(command: LeadsCommand, settings: Settings) -> Result<(), Failure> {
    let offline = Offline::open(settings).await?;
    match command {
        LeadsCommand::Import {
            file,
            user,
            device,
            refused,
        } => import(&offline, file, &user, device, refused).await,
        LeadsCommand::Export { file, user } => export(&offline, file, &user).await,
    }
}

async fn import(
    offline: &Offline,
    file: PathBuf,
    user: &str,
    device: Option<DeviceId>,
    refused: Option<PathBuf>,
) -> Result<(), Failure> {
    let scope = offline.scope(user).await?;
    if let Some(device) = device {
        let found = offline.store.device(&scope, device).await;
        found.map_err(|_| format!("{user} has no device {device}"))?;
    }
    let size = std::fs::metadata(&file)
        .map_err(|error| format!("{} cannot be read: {error}", file.display()))?
        .len();
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let id = ImportId::new(&IdSource::from_entropy(), offline.now());
    let bar = ProgressBar::new(size).with_style(ProgressStyle::with_template(
        "{bar:30} {bytes}/{total_bytes} {msg} {eta} left",
    )?);
    let cancel = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&cancel);
    let listening = tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            asked.store(true, std::sync::atomic::Ordering::Relaxed);
        }
    });
    let import = Import {
        handle: offline.handle().await?,
        store: Arc::clone(&offline.store),
        clock: Arc::new(offline.clock.clone()),
        scope: scope.clone(),
        target: Target::Leads(LeadDevice {
            device_id: device,
            alone: false,
        }),
        row_bytes_max: offline.settings.import_row_bytes_max,
        path: file,
        cancel,
    };
    let first = record(id, &scope, &name, size, offline.now());
    let done = import
        .run(first, |record| {
            bar.set_position(record.bytes_read);
            bar.set_message(format!(
                "{} new, {} there already, {} refused,",
                record.inserted, record.duplicates, record.refused
            ));
        })
        .await?;
    bar.finish_and_clear();
    listening.abort();
    say(&format!(
        "{} rows: {} new, {} there already, {} refused",
        done.rows, done.inserted, done.duplicates, done.refused
    ));
    if let Some(message) = &done.message {
        say(message);
    }
    report(offline, &scope, id, refused).await?;
    match done.state {
        ImportState::Done => Ok(()),
        ImportState::Cancelled => Err("stopped; what was read stays".into()),
        _ => Err("the import could not be finished".into()),
    }
}

async fn report(offline: &Offline, scope: &RequestScope, id: ImportId, file: Option<PathBuf>) -> Result<(), Failure> {
    let mut out = file.map(std::fs::File::create).transpose()?;
    if let Some(out) = &mut out {
        out.write_all(b"line,field,reason\n")?;
    }
    let mut after = 0;
    let mut shown = 0;
    loop {
        let rows = offline.store.import_refusals(scope, id, after, PAGE_MAX).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        after = last.line;
        if let Some(out) = &mut out {
            let rows: Vec<_> = rows
                .iter()
                .map(|row| vec![row.line.to_string(), row.field.clone(), row.reason.clone()])
                .collect();
            out.write_all(&encode(&rows))?;
            continue;
        }
        for row in rows {
            if shown == SHOWN_MAX {
                say("… more; name a file by --refused to get them all");
                return Ok(());
            }
            say(&format!("line {}: {}", row.line, row.reason));
            shown += 1;
        }
    }
}

/// A file that takes its place only when it is whole: until then it is written beside it, and removed when it is not finished.
struct NewFile {
    file: BufWriter<File>,
    beside: PathBuf,
    place: PathBuf,
}

impl NewFile {
    fn create(place: PathBuf) -> std::io::Result<Self> {
        // What a link leads to is replaced, and not the link.
        let place = place.canonicalize().unwrap_or(place);
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let beside = place.with_file_name(format!("{name}.{}.part", password::token()));
        let mut options = File::options();
        options.write(true).create_new(true);
        // People's numbers are their owner's to read, unless the file before was open to others.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&beside)?;
        if let Ok(before) = place.metadata() {
            file.set_permissions(before.permissions())?;
        }
        Ok(Self {
            file: BufWriter::new(file),
            beside,
            place,
        })
    }

    fn finish(mut self) -> std::io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().sync_all()?;
        std::fs::rename(&self.beside, &self.place)
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // Once it has taken its place there is nothing left beside it.
        let _ = std::fs::remove_file(&self.beside);
    }
}

async fn export(offline: &Offline, file: Option<PathBuf>, user: &str) -> Result<(), Failure> {
    let scope = offline.scope(user).await?;
    let Some(place) = file else {
        write_leads(offline, &scope, &mut std::io::stdout(), &ProgressBar::hidden()).await?;
        return Ok(());
    };
    let total = offline.store.lead_count(&scope, &LeadFilter::default()).await?;
    let bar = ProgressBar::new(total);
    let unwritable = |error| format!("{} cannot be written: {error}", place.display());
    // Devices and pipes have no content that could be lost, and nothing may be put beside them.
    let written = if std::fs::metadata(&place).is_ok_and(|known| !known.is_file()) {
        let mut file = File::options().write(true).open(&place).map_err(unwritable)?;
        write_leads(offline, &scope, &mut file, &bar).await?
    } else {
        let mut new = NewFile::create(place.clone()).map_err(unwritable)?;
        let written = write_leads(offline, &scope, &mut new.file, &bar).await?;
        new.finish().map_err(unwritable)?;
        written
    };
    bar.finish_and_clear();
    say(&format!("{written} leads written"));
    Ok(())
}

/// Writes the leads with their header; gives how many there were.
async fn write_leads(
    offline: &Offline,
    scope: &RequestScope,
    out: &mut impl Write,
    bar: &ProgressBar,
) -> Result<u64, Failure> {
    let filter = LeadFilter::default();
    let sheet = LeadSheet::of(&*offline.store, scope, &filter).await?;
    out.write_all(&encode(&[sheet.header()]))?;
    let mut written = 0;
    let mut request = PageRequest::first(PAGE_MAX);
    loop {
        let page = offline.store.leads(scope, &filter, &request).await?;
        let rows: Vec<_> = page.rows.iter().map(|lead| sheet.row(lead)).collect();
        out.write_all(&encode(&rows))?;
        written += rows.len() as u64;
        bar.inc(rows.len() as u64);
        match page.next {
            Some(next) => request = PageRequest::after(next, PAGE_MAX),
            None => break,
        }
    }
    out.flush()?;
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_stays_as_it_is_until_the_new_one_is_whole() {
        let folder = std::env::temp_dir().join(format!("wa-export-{}", password::token()));
        std::fs::create_dir(&folder).unwrap();
        let place = folder.join("leads.csv");
        std::fs::write(&place, "of yesterday").unwrap();
        let read = || std::fs::read_to_string(&place).unwrap();
        let mut broken = NewFile::create(place.clone()).unwrap();
        broken.file.write_all(b"half").unwrap();
        drop(broken);
        assert_eq!(read(), "of yesterday");
        let mut whole = NewFile::create(place.clone()).unwrap();
        whole.file.write_all(b"of today").unwrap();
        whole.file.flush().unwrap();
        assert_eq!(read(), "of yesterday");
        whole.finish().unwrap();
        assert_eq!(read(), "of today");
        assert_eq!(
            std::fs::read_dir(&folder).unwrap().count(),
            1,
            "nothing is left beside it"
        );
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
