//! A server over a simulated WhatsApp, which can be stopped and started again.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use wa_core::id::DeviceId;
use wa_core::store::{AppStore, PageRequest};
use wa_loopback::{Listener, Loopback, Options, Person};
use wa_server_example::assemble::{Ports, Server};
use wa_server_example::password;
use wa_server_example::settings::{Settings, Source};
use wa_store_postgres::PostgresStore;
use wa_store_sqlite::{SqliteOptions, SqliteStore};

use crate::postgres::{Schema, Server as Postgres};
use crate::support::{Client, settings};

/// Nothing here takes longer, unless something is broken.
pub const LIMIT: Duration = Duration::from_secs(60);

/// How often something is looked at that tells nobody when it changes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What `look` finds, which is asked from time to time.
pub async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    let search = async {
        loop {
            ticks.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    match tokio::time::timeout(LIMIT, search).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

/// Where rows are kept.
pub enum Database {
    Sqlite,
    Postgres(Schema),
}

/// A folder that is gone when it is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The server with what it stands on.
pub struct Site {
    pub whatsapp: Loopback,
    _listener: Listener,
    folder: Folder,
    database: Database,
    source: Source,
    server: Option<Server>,
}

impl Site {
    pub async fn open(database: Database) -> Self {
        let whatsapp = Loopback::start(Options::new());
        let listener = whatsapp.listen().await.unwrap();
        let ports = format!("{},{}", listener.websocket_port(), listener.media_port());
        let folder = std::env::temp_dir().join(format!("wa-linking-test-{}", password::token()));
        std::fs::create_dir(&folder).unwrap();
        let folder = Folder(folder);
        let source = settings()
            .with("DATA_DIR", folder.0.to_str().unwrap())
            .with("WHATSAPP_LOOPBACK", ports);
        let source = match &database {
            Database::Sqlite => source.with("DATABASE_URL", format!("sqlite:{}", file(&folder).display())),
            Database::Postgres(schema) => source
                .with("DATABASE_URL", Postgres::shared().url())
                .with("DATABASE_SCHEMA", schema.name()),
        };
        let mut site = Self {
            whatsapp,
            _listener: listener,
            folder,
            database,
            source,
            server: None,
        };
        site.start().await;
        site
    }

    async fn start(&mut self) {
        let settings = Settings::read(&self.source).unwrap();
        // The folder is free when the last task of the server before has ended.
        let ports = until("the folder to be free", async || Ports::open(&settings).await.ok()).await;
        self.server = Some(Server::start(settings, ports).await.unwrap());
    }

    /// Stops the server and starts another one on the same data.
    pub async fn restart(&mut self) {
        self.server.take().unwrap().stop().await;
        self.start().await;
    }

    /// A user who is logged in.
    pub async fn ann(&self) -> Client {
        Client::login_at(self.server.as_ref().unwrap().address(), "ann").await
    }

    /// A person with a phone that is connected.
    pub async fn person(&self, digits: &str) -> Person {
        let person = self.whatsapp.person(digits, "Sales").await.unwrap();
        person.connect().await.unwrap();
        person
    }

    /// How many values the database keeps of the session of a device.
    pub async fn session_rows(&self, device: &str) -> usize {
        let store: Arc<dyn AppStore> = match &self.database {
            Database::Sqlite => Arc::new(
                SqliteStore::open(SqliteOptions::file(file(&self.folder)))
                    .await
                    .unwrap(),
            ),
            Database::Postgres(schema) => Arc::new(PostgresStore::open(schema.options()).await.unwrap()),
        };
        let device: DeviceId = device.parse().unwrap();
        let page = PageRequest::first(1_000);
        store.scan_session(device, b"", &page).await.unwrap().rows.len()
    }
}

fn file(folder: &Folder) -> PathBuf {
    folder.0.join("wa.db")
}

/// Creates a device that waits to be linked.
pub async fn create(user: &Client, name: &str) -> String {
    let body = json!({"name": name, "platform": "whatsapp_web"});
    let device = user.post("/api/devices", body).await.ok();
    assert_eq!(device["status"], "offline");
    device["id"].as_str().unwrap().to_owned()
}

pub async fn device(user: &Client, id: &str) -> Value {
    user.get(&format!("/api/devices/{id}")).await.ok()
}

/// Waits until a device is online, and gives it.
pub async fn online(user: &Client, id: &str) -> Value {
    until("the device to be online", async || {
        let device = device(user, id).await;
        (device["status"] == "online").then_some(device)
    })
    .await
}

/// Tells a device to do something, and gives the answer.
pub async fn tell(user: &Client, id: &str, what: &str) -> Value {
    let command = user.post(&format!("/api/devices/{id}/{what}"), json!({})).await.ok();
    let command_id = command["command_id"].as_str().or(command["id"].as_str()).unwrap();
    let path = format!("/api/devices/{id}/commands/{command_id}");
    if command["state"] != "waiting" {
        return command;
    }
    until(what, async || {
        let command = user.get(&path).await.ok();
        (command["state"] != "waiting").then_some(command)
    })
    .await
}
