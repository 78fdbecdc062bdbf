//! A folder that is gone when a demonstration or a measurement ends.

use std::path::{Path, PathBuf};

use wa_core::id::IdSource;
use wa_core::time::Timestamp;

/// A folder of its own for one run; dropping it removes it with all that is in it.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new folder among the temporary files of this machine, with what it is for in its name.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn new(purpose: &str, ids: &IdSource, now: Timestamp) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("wa-{purpose}-{}", ids.uuid(now)));
        // Fails when it exists, so what is removed later is nothing but what was made here.
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What cannot be removed is left to the cleaning of temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
