//! A private Redis of a test: on a socket in a temporary folder, which keeps nothing.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A Redis; stopped and removed when it is dropped.
pub struct RedisServer {
    folder: PathBuf,
    process: Option<Child>,
}

impl RedisServer {
    pub fn start() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "wa-redis-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).unwrap();
        let mut server = Self { folder, process: None };
        server.restart();
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Starts it again after it was killed.
    pub fn restart(&mut self) {
        let process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--dir"])
            .arg(&self.folder)
            .arg("--unixsocket")
            .arg(self.socket())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.process =
            Some(process.expect("the tests need Redis: apt-get install redis-server, or run ./test.sh, which does"));
        for _ in 0..500 {
            if UnixStream::connect(self.socket()).is_ok() {
                return;
            }
            // Another process is waited for, which tells nobody that it is ready.
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("redis does not answer");
    }

    /// Ends it as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
            let _ = std::fs::remove_file(self.socket());
        }
    }

    /// In the place of one that was killed, closes so many connections as soon as they are made.
    pub async fn refuse(&self, times: usize) {
        let listener = tokio::net::UnixListener::bind(self.socket()).unwrap();
        for _ in 0..times {
            drop(listener.accept().await.unwrap());
        }
        std::fs::remove_file(self.socket()).unwrap();
    }

    pub fn url(&self) -> String {
        format!("redis+unix://{}", self.socket().display())
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
