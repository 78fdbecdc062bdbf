//! `GET /health` and the lead webhook of the server beside a bare axum handler that inserts the same row into the same kind of
//! database, both on loopback in this process, in turn.
//!
//! `cargo bench -p wa-server-example --bench http [-- quick]`

#![allow(missing_docs, clippy::print_stdout, reason = "a program that prints its results")]

mod bare;
mod client;
mod full;

use std::path::{Path, PathBuf};

use wa_core::domain::device::Device;
use wa_core::domain::platform::Platform;
use wa_core::id::{DeviceId, IdSource, UserId};
use wa_core::store::{Change, ChangeSet, Store, WriteClass};
use wa_core::time::{Clock, SystemClock};
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use self::bare::Bare;
use self::client::{Load, Request};
use self::full::Full;

const CONNECTIONS: usize = 64;
const RUNS: usize = 3;

/// A folder that goes away with its value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("wa-bench-http-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Whose lead every call brings.
#[derive(Debug, Clone, Copy)]
struct Owner {
    user: UserId,
    device: DeviceId,
}

/// A database with one device.
async fn database(file: &Path, ids: &IdSource, clock: &SystemClock) -> Owner {
    std::fs::create_dir_all(file.parent().expect("the file is in a folder")).expect("the folder can be made");
    let now = clock.wall();
    let store = SqliteStore::open(SqliteOptions::file(file))
        .await
        .expect("the database opens");
    let owner = Owner {
        user: UserId::new(ids, now),
        device: DeviceId::new(ids, now),
    };
    let device = Device::new(owner.device, owner.user, "device", Platform::STUB, now);
    let set = ChangeSet::one(Change::InsertDevice(Box::new(device)));
    store
        .commit(set, WriteClass::Api, now)
        .await
        .expect("the device is there");
    store.close().await;
    owner
}

/// A call of the webhook with a number that was not used before.
fn webhook(owner: Owner, number: usize) -> Request {
    let body = format!(
        r#"{{"name":"Ali bin Abu","phone":"+6012{number:07}","user_id":"{}","device_id":"{}"}}"#,
        owner.user, owner.device
    );
    Request::post("/webhook/lead/create", &body)
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let quick = std::env::args().any(|word| word == "quick");
    let (looks, leads) = if quick { (5_000, 500) } else { (50_000, 5_000) };
    let (folder, ids, clock) = (Folder::new(), IdSource::from_entropy(), SystemClock::new());
    let (full_file, bare_file) = (folder.0.join("full/app.db"), folder.0.join("bare/app.db"));
    let full_owner = database(&full_file, &ids, &clock).await;
    let bare_owner = database(&bare_file, &ids, &clock).await;
    let full = Full::start(&full_file).await;
    let bare = Bare::start(&bare_file).await;
    println!("{CONNECTIONS} connections, {RUNS} runs in turn; medians");
    let mut health = [Load::default(), Load::default()];
    for _ in 0..RUNS {
        for (load, address) in health.iter_mut().zip([full.address(), bare.address()]) {
            let requests = vec![Request::get("/health"); looks];
            load.add(client::run(&clock, address, CONNECTIONS, requests).await);
        }
    }
    tell("GET /health", looks, &health);
    let mut hooks = [Load::default(), Load::default()];
    for run in 0..RUNS {
        let sides = [(full.address(), full_owner), (bare.address(), bare_owner)];
        for (load, (address, owner)) in hooks.iter_mut().zip(sides) {
            let requests = (run * leads..(run + 1) * leads).map(|number| webhook(owner, number));
            load.add(client::run(&clock, address, CONNECTIONS, requests.collect()).await);
        }
    }
    tell("lead webhook", leads, &hooks);
    full.stop().await;
    bare.stop();
    for file in [&full_file, &bare_file] {
        assert_eq!(bare::leads_in(file).await, RUNS * leads, "every call has left a row");
    }
}

fn tell(name: &str, requests: usize, [full, bare]: &[Load; 2]) {
    println!(
        "{name:14} {requests} requests: server {full}, bare handler {bare}; {:.0} % of its rate",
        full.rate() / bare.rate() * 100.0
    );
}
