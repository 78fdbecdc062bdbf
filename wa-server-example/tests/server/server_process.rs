//! The server as a process of its own, on a folder of its own.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use tokio::sync::oneshot;
use tokio::time::{Duration, timeout};
use wa_core::id::IdSource;
use wa_core::time::{Clock, SystemClock};

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(60);

/// A folder that is gone with the test.
#[derive(Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// A new, empty one.
    pub fn new() -> Self {
        let name = IdSource::from_entropy().uuid(SystemClock::new().wall());
        let path = std::env::temp_dir().join(format!("wa-test-{name}"));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &std::path::Path {
        &self.0
    }

    /// The database in it.
    pub fn database(&self) -> PathBuf {
        self.0.join("wa.db")
    }

    /// Runs a command line on it to its end.
    pub fn command(&self, settings: &[(&str, &str)], words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_wa-server-example"))
            .env_clear()
            .env("DATA_DIR", &self.0)
            .env("LOG", "error")
            .envs(settings.iter().copied())
            .args(words)
            .current_dir(&self.0)
            .output()
            .unwrap()
    }

    /// The log of all servers that ran on it.
    pub fn log(&self) -> PathBuf {
        self.0.join("server.log")
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.log()).unwrap_or_default();
            let lines: Vec<_> = log.lines().collect();
            let from = lines.len().saturating_sub(40);
            println!("the last lines of the server's log:\n{}", lines[from..].join("\n"));
        }
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running server; dropping it kills it.
#[derive(Debug)]
pub struct ServerProcess {
    child: Child,
    address: SocketAddr,
}

impl ServerProcess {
    /// Starts the binary on a folder and waits until it listens.
    pub async fn start(data: &DataDir, settings: &[(&str, &str)]) -> Self {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(data.log())
            .unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_wa-server-example"));
        command
            .env_clear()
            .env("DATA_DIR", &data.0)
            .env("PORT", "0")
            .env("LOG", "warn")
            .envs(settings.iter().copied())
            .current_dir(&data.0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (found, listening) = oneshot::channel();
        // Reads on to the end: a server that writes into a full pipe would stand still.
        std::thread::spawn(move || {
            let mut found = Some(found);
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("Listening on http://")
                    && let Some(found) = found.take()
                {
                    let _ = found.send(address.trim().parse::<SocketAddr>());
                }
            }
        });
        // Kills the server also when it does not listen.
        let mut server = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let listening = timeout(START_MAX, listening).await.expect("the server listens in time");
        server.address = listening.expect("the server listens before it ends").unwrap();
        server
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The most memory of its own that it ever had: without the pages of the program's file, which the kernel can drop at any time
    /// and which are more than 40 MB of a debug build.
    pub fn memory_peak_kib(&self) -> u64 {
        self.status_kib("VmHWM:") - self.status_kib("RssFile:")
    }

    /// The memory of its own that it has now.
    pub fn memory_kib(&self) -> u64 {
        self.status_kib("VmRSS:") - self.status_kib("RssFile:")
    }

    fn status_kib(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches("kB").trim().parse().unwrap()
    }

    /// Sends it a signal by name, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{name}"))
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Ends it as `kill -9` does, at once and without a chance to tidy up.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        self.end();
    }
}
