//! A server as a process of its own, on the database of a run.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::sync::oneshot;

use super::{Failure, Scratch, process};
use crate::settings::Database;
use crate::web::loopback::LoopbackPorts;

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(60);

/// A running server; dropping it ends it at once.
#[derive(Debug)]
pub(super) struct ServerChild(Child);

impl ServerChild {
    /// Starts this program as a server whose devices are linked to a simulated WhatsApp, without pauses between messages.
    ///
    /// # Errors
    /// It does not listen within a minute.
    pub async fn start(scratch: &Scratch, ports: LoopbackPorts) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .arg("serve")
            .env_clear()
            .env("DATA_DIR", scratch.folder.path())
            .env("PORT", "0")
            .env("LOG", "error")
            .env("PACING", "unpaced")
            .env("ERROR_RATE_PERCENT", "0")
            .env("WHATSAPP_LOOPBACK", format!("{},{}", ports.clients, ports.media))
            .current_dir(scratch.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        if let Database::Postgres(database) = scratch.database() {
            command
                .env("DATABASE_URL", database.url.expose_secret())
                .env("DATABASE_SCHEMA", database.schema);
        }
        let mut server = Self(command.spawn()?);
        let stdout = server.0.stdout.take().ok_or("the server has no standard output")?;
        let (found, listening) = oneshot::channel();
        // Reads on to the end: a server that writes into a full pipe would stand still.
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("Listening on ")
                    && let Some(found) = found.take()
                {
                    let _ = found.send(());
                }
            }
        });
        match tokio::time::timeout(START_MAX, listening).await {
            Ok(Ok(())) => Ok(server),
            Ok(Err(_)) => Err("the server has ended before it listened".into()),
            Err(_) => Err("the server does not listen".into()),
        }
    }

    /// Its own memory, in bytes: without the pages of the program's file, which the system can drop at any time.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn memory(&self) -> Result<u64, Failure> {
        process::own_memory(self.0.id()).ok_or_else(|| "the memory of a process cannot be read on this system".into())
    }

    /// Processor time so far.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn processor_time(&self) -> Result<Duration, Failure> {
        process::processor_time(self.0.id())
            .ok_or_else(|| "the processor time of a process cannot be read on this system".into())
    }

    /// Lets it finish what it does.
    ///
    /// # Errors
    /// It cannot be told, or it ends with a failure.
    pub fn stop(mut self) -> Result<(), Failure> {
        let told = Command::new("kill")
            .arg("-TERM")
            .arg(self.0.id().to_string())
            .status()?;
        if !told.success() {
            return Err("the server could not be told to stop".into());
        }
        let ended = self.0.wait()?;
        if ended.success() {
            Ok(())
        } else {
            Err(format!("the server ended with {ended}").into())
        }
    }
}

impl Drop for ServerChild {
    fn drop(&mut self) {
        // Nothing is left to end where it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
