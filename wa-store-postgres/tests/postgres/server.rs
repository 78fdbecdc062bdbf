//! Private Postgres servers of the tests, and a schema of its own for each test.
//!
//! All tests of a run share one server, also where each runs in a process of its own: the first that needs it starts it. Every process
//! holds a shared lock as long as it lives, whatever becomes of its tests; a keeper, started with the server, stops it and removes its
//! folder when nobody has held that lock for a while.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::PostgresOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const SETTINGS: &str = "
listen_addresses = ''
max_connections = 400
log_min_messages = warning
";

/// Nothing of the tests has to outlive a crash of the machine.
const FORGETFUL: &str = "
shared_buffers = 128MB
fsync = off
full_page_writes = off
autovacuum = off
wal_level = minimal
max_wal_senders = 0
max_wal_size = 2GB
checkpoint_timeout = 1h
";

/// As a machine of this size would have it, with everything that keeps what was committed.
const DURABLE: &str = "
shared_buffers = 1GB
max_wal_size = 4GB
fsync = on
synchronous_commit = on
full_page_writes = on
";

/// Stops the server when nobody has held the lock of its users for five seconds, or the folder is gone.
const KEEPER: &str = r#"
idle=0
while sleep 1; do
    [ -d "$1/data" ] || exit 0
    exec 8>"$1/start.lock" 9>"$1/users.lock"
    flock -x 8
    if flock -n -x 9; then idle=$((idle + 1)); else idle=0; fi
    if [ "$idle" -ge 5 ]; then
        $2 pg_ctl -D "$1/data" -m immediate -w stop
        rm -rf "$1"
        exit 0
    fi
    exec 8>&- 9>&-
done
"#;

/// The newest of the programs of Postgres: in PATH, or where Debian puts them.
fn programs() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .map(|versions| versions.flatten().map(|version| version.path().join("bin")).collect())
        .unwrap_or_default();
    folders.sort_by_key(|folder| {
        let version = folder
            .parent()
            .and_then(|folder| folder.file_name()?.to_str()?.parse::<u32>().ok());
        std::cmp::Reverse(version)
    });
    let found = std::env::split_paths(&path).chain(folders).find(|folder| {
        ["initdb", "pg_ctl", "postgres"]
            .iter()
            .all(|program| folder.join(program).exists())
    });
    found.expect("the tests need Postgres, 14 or newer: apt-get install postgresql, or run ./test.sh, which does")
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0)
}

/// What a command line begins with to run as somebody who may run Postgres, which refuses root.
const fn as_postgres(root: bool) -> &'static [&'static str] {
    if root {
        &["runuser", "-u", "postgres", "--"]
    } else {
        &[]
    }
}

fn run(programs: &Path, program: &str, arguments: &[&str]) {
    let program = programs.join(program).display().to_string();
    let line: Vec<&str> = as_postgres(is_root())
        .iter()
        .copied()
        .chain([program.as_str()])
        .collect();
    let output = Command::new(line[0])
        .args(&line[1..])
        .args(arguments)
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A server in a folder.
pub struct Server {
    folder: PathBuf,
    programs: PathBuf,
    /// Removed and stopped when it is dropped, where nobody shares it.
    own: bool,
}

impl Server {
    /// The server that all tests share.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<(Server, File)> = OnceLock::new();
        let (server, _in_use) = SHARED.get_or_init(|| {
            // One for each work tree, so that work trees do not disturb each other.
            let name = env!("CARGO_MANIFEST_DIR")
                .bytes()
                .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
                    (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
                });
            let server = Self::at(std::env::temp_dir().join(format!("wa-postgres-{name:016x}")), false);
            let in_use = loop {
                std::fs::create_dir_all(&server.folder).unwrap();
                let starting = server.lock_file("start.lock");
                starting.lock().unwrap();
                // The keeper may have removed the folder, with this file, just before.
                if !server.folder.join("start.lock").exists() {
                    continue;
                }
                let in_use = server.lock_file("users.lock");
                in_use.lock_shared().unwrap();
                if !server.answers() {
                    server.init(FORGETFUL);
                    server.start();
                    server.keep();
                }
                break in_use;
            };
            (server, in_use)
        });
        server
    }

    /// A server of its own, which may be stopped.
    pub fn own() -> Self {
        Self::own_with(FORGETFUL)
    }

    /// A server of its own that loses nothing.
    pub fn durable() -> Self {
        Self::own_with(DURABLE)
    }

    fn own_with(settings: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("wa-postgres-{}-{number}", std::process::id());
        let server = Self::at(std::env::temp_dir().join(name), true);
        server.init(settings);
        server.start();
        server
    }

    fn at(folder: PathBuf, own: bool) -> Self {
        Self {
            folder,
            programs: programs(),
            own,
        }
    }

    fn lock_file(&self, name: &str) -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        options.open(self.folder.join(name)).unwrap()
    }

    fn data(&self) -> String {
        self.folder.join("data").display().to_string()
    }

    fn init(&self, settings: &str) {
        for name in ["data", "socket"] {
            let folder = self.folder.join(name);
            let _ = std::fs::remove_dir_all(&folder);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
            if is_root() {
                let given = Command::new("chown").arg("postgres").arg(&folder).status().unwrap();
                assert!(given.success());
            }
        }
        let data = self.data();
        let arguments = [
            "-D",
            &data,
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-sync",
        ];
        run(&self.programs, "initdb", &arguments);
        let socket = self.folder.join("socket");
        let settings = format!("{SETTINGS}{settings}unix_socket_directories = '{}'\n", socket.display());
        let file = self.folder.join("data/postgresql.auto.conf");
        std::fs::write(file, settings).unwrap();
    }

    pub fn start(&self) {
        let (data, log) = (self.data(), self.folder.join("socket/log").display().to_string());
        run(
            &self.programs,
            "pg_ctl",
            &["-D", &data, "-l", &log, "-w", "-t", "60", "start"],
        );
    }

    /// Stops it as a crash would.
    pub fn crash(&self) {
        run(
            &self.programs,
            "pg_ctl",
            &["-D", &self.data(), "-m", "immediate", "-w", "stop"],
        );
    }

    fn answers(&self) -> bool {
        std::os::unix::net::UnixStream::connect(self.folder.join("socket/.s.PGSQL.5432")).is_ok()
    }

    /// Starts the keeper, which outlives this process.
    #[allow(clippy::zombie_processes, reason = "nobody waits for what lives longer")]
    fn keep(&self) {
        let pg_ctl = as_postgres(is_root()).join(" ");
        let path = format!(
            "{}:{}",
            self.programs.display(),
            std::env::var("PATH").unwrap_or_default()
        );
        let keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .arg(&self.folder)
            .arg(format!("{pg_ctl} env PATH={path}"))
            .env("PATH", &path)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        keeper.expect("the shell starts");
    }

    /// The folder of its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub fn url(&self) -> String {
        let socket = self.socket().display().to_string().replace('/', "%2F");
        format!("postgres://postgres@{socket}/postgres")
    }

    pub async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.own {
            // It may be stopped already.
            let stop = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.crash()));
            drop(stop);
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

/// A schema of the shared server, dropped with this.
pub struct Schema(String);

impl Schema {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        Server::shared();
        Self(format!(
            "t_{}_{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ))
    }

    pub fn name(&self) -> &str {
        &self.0
    }

    pub fn options(&self) -> PostgresOptions {
        PostgresOptions::url(Server::shared().url())
            .schema(&self.0)
            .connections(8)
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let drop = AssertSqlSafe(format!("DROP SCHEMA IF EXISTS {} CASCADE", self.0));
        let work = async move {
            let mut connection = Server::shared().connect().await;
            // Whatever a test left running holds locks.
            sqlx::query("SET lock_timeout = '20s'")
                .execute(&mut connection)
                .await
                .unwrap();
            let _ = sqlx::query(drop).execute(&mut connection).await;
        };
        // The runtime of the test is in the middle of something else.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let _ = std::thread::spawn(move || runtime.block_on(work)).join();
    }
}
