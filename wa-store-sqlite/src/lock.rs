//! The lock on the data folder: proof that no other process uses the database.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// Why the data folder could not be locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// Another process holds the lock.
    #[error("the data folder {} is in use by process {}", folder.display(), holder.as_deref().unwrap_or("(unknown)"))]
    Held {
        /// The folder.
        folder: PathBuf,
        /// The id of the process that holds it, as it wrote it down.
        holder: Option<String>,
    },
    /// The lock file could not be made or locked.
    #[error("the lock file {} cannot be used", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// An exclusive lock on a data folder, held until it is dropped or the process ends, however it ends.
///
/// The operating system keeps the lock, not the file: a file left behind by a crash locks nothing. Give it to
/// [`SqliteOptions::lock`](crate::SqliteOptions::lock): only a store that was opened with the lock on the folder of its file may
/// take devices back from dead nodes at once.
#[derive(Debug)]
pub struct DataLock {
    file: File,
    folder: PathBuf,
}

impl DataLock {
    /// The name of the lock file in the folder.
    pub const FILE_NAME: &'static str = "wa.lock";

    /// Locks a folder, which is created if it is missing, and writes the id of this process into the lock file.
    ///
    /// # Errors
    /// [`LockError::Held`] names the process that holds the lock; [`LockError::Io`] when the file cannot be used.
    pub fn acquire(folder: impl AsRef<Path>) -> Result<Self, LockError> {
        let path = folder.as_ref().join(Self::FILE_NAME);
        let failed = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        create_private_folder(folder.as_ref()).map_err(failed)?;
        let folder = folder.as_ref().canonicalize().map_err(failed)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // The longest process id has 20 digits; whatever else is in the file is not read.
                let read = Read::by_ref(&mut file).take(32).read_to_string(&mut text);
                let holder = text.trim();
                let known = read.is_ok() && !holder.is_empty() && holder.bytes().all(|byte| byte.is_ascii_digit());
                return Err(LockError::Held {
                    folder,
                    holder: known.then(|| holder.to_owned()),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .and_then(|()| file.sync_all());
        written.map_err(failed)?;
        Ok(Self { file, folder })
    }

    /// The locked folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the lock covers a database file.
    pub(crate) fn covers(&self, file: &Path) -> bool {
        let folder = match file.parent() {
            Some(folder) if folder.as_os_str().is_empty() => Path::new("."),
            Some(folder) => folder,
            None => return false,
        };
        folder.canonicalize().is_ok_and(|folder| folder == self.folder)
    }
}

impl Drop for DataLock {
    fn drop(&mut self) {
        // Closing the file would do as well; the file itself stays, because removing it would race with the next process.
        let _ = self.file.unlock();
    }
}

/// Creates a folder that only its owner may read, unless it is there.
pub(crate) fn create_private_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() {
        return Ok(());
    }
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}
