//! A server on loopback and clients for it.

use std::cell::Cell;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use wa_core::domain::content::MediaKind;
use wa_core::store::AppStore;
use wa_core::transport::{Capabilities, MediaLimit, StubTransport};
use wa_server_example::assemble::{Ports, Server, open_for_server, transports};
use wa_server_example::password;
use wa_server_example::settings::{Settings, Source};

use crate::clock::MovedClock;
use crate::postgres::{Schema, Server as Postgres};

pub const PASSWORD: &str = "correct horse";

/// A folder that is gone when it is dropped.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

thread_local! {
    static ON_POSTGRES: Cell<bool> = const { Cell::new(false) };
}

/// Runs a test whose servers run on Postgres, each in a schema of its own.
pub fn on_postgres(test: impl FnOnce()) {
    ON_POSTGRES.set(true);
    test();
}

/// Runs tests of this module on Postgres as well.
macro_rules! also_on_postgres {
    ($($test:ident),+ $(,)?) => {
        mod on_postgres {
            $(
                #[test]
                fn $test() {
                    crate::support::on_postgres(super::$test);
                }
            )+
        }
    };
}

/// A running server.
pub struct Running {
    folder: Folder,
    pub server: Server,
    _schema: Option<Schema>,
    pub clock: Arc<MovedClock>,
    pub transport: Arc<StubTransport>,
    pub store: Arc<dyn AppStore>,
}

pub fn settings() -> Source {
    Source::default()
        .with("PORT", "0")
        .with("DATABASE_URL", "sqlite::memory:")
        .with("DASHBOARD_USERNAME", "boss")
        .with("DASHBOARD_PASSWORD", PASSWORD)
        .with("APP_BASIC_AUTH", format!("ann:{PASSWORD},ben:{PASSWORD}"))
        .with("PACING", "unpaced")
        .with("NODE_NAME", "test")
}

impl Running {
    pub async fn start() -> Self {
        Self::with(settings()).await
    }

    pub async fn with(source: Source) -> Self {
        Self::on(source, StubTransport::new()).await
    }

    /// One whose devices carry pictures.
    pub async fn with_pictures(source: Source) -> Self {
        let mut capabilities = Capabilities::text(65_536);
        capabilities.media.push(MediaLimit {
            kind: MediaKind::Image,
            mimes: vec!["image/jpeg", "image/png"],
            size_max_bytes: 16 * 1024 * 1024,
            caption_max: 1_024,
            by_url: false,
            by_bytes: true,
        });
        Self::on(source, StubTransport::new().with_capabilities(capabilities)).await
    }

    async fn on(source: Source, transport: StubTransport) -> Self {
        let clock = Arc::new(MovedClock::default());
        let folder = std::env::temp_dir().join(format!("wa-server-test-{}", password::token()));
        let source = source.with("DATA_DIR", folder.to_str().unwrap());
        let folder = Folder(folder);
        let schema = ON_POSTGRES.get().then(Schema::new);
        let source = match &schema {
            Some(schema) => source
                .with("DATABASE_URL", Postgres::shared().url())
                .with("DATABASE_SCHEMA", schema.name()),
            None => source,
        };
        let settings = Settings::read(&source).unwrap();
        let (store, shared) = open_for_server(&settings).await.unwrap();
        let transport = Arc::new(transport);
        let mut transports = transports(&settings).unwrap();
        transports.push(transport.clone());
        let ports = Ports {
            store: Arc::clone(&store),
            shared,
            clock: clock.clone(),
            transports,
        };
        let server = Server::start(settings, ports).await.unwrap();
        Self {
            folder,
            server,
            _schema: schema,
            clock,
            transport,
            store,
        }
    }

    /// The data folder.
    pub fn folder(&self) -> &std::path::Path {
        &self.folder.0
    }

    /// The names of files of imports that were not removed.
    pub fn spooled(&self) -> Vec<PathBuf> {
        files_within(&self.folder().join("imports"))
    }

    /// What `ask` finds, which is asked again after every event of the engine.
    pub async fn until<T>(&self, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
        let mut events = self.server.bus().listen();
        loop {
            if let Some(found) = ask().await {
                return found;
            }
            assert!(events.next().await.is_some(), "the server is gone");
            // One look serves all that happened before it.
            while events.try_next().is_some() {}
        }
    }

    /// The progress of a campaign when it is completed; its numbers add up at every look.
    pub async fn completed(&self, user: &Client, path: &str) -> Value {
        self.until(async || {
            let progress = user.get(&format!("{path}/progress")).await.ok();
            let total = &progress["numbers"]["total"];
            let sum: u64 = ["done", "failed", "skipped", "unknown", "cancelled", "remaining"]
                .iter()
                .map(|name| total[name].as_u64().unwrap())
                .sum();
            assert_eq!(total["should"], sum);
            (progress["numbers"]["status"] == "completed").then_some(progress)
        })
        .await
    }

    /// Somebody who is not logged in.
    pub fn anybody(&self) -> Client {
        Client {
            address: self.server.address(),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
            auth: Auth::None,
        }
    }

    /// Somebody with basic auth.
    pub fn basic(&self, login: &str) -> Client {
        Client {
            auth: Auth::Basic(login.to_owned(), PASSWORD.to_owned()),
            ..self.anybody()
        }
    }

    /// Somebody who logged in.
    pub async fn login(&self, login: &str) -> Client {
        let anybody = self.anybody();
        let answer = anybody
            .post("/api/login", json!({"login": login, "password": PASSWORD}))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        Client {
            auth: Auth::Cookie(answer.cookie()),
            ..anybody
        }
    }
}

/// The files of a folder and of all folders in it.
pub fn files_within(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    files
}

#[derive(Clone)]
enum Auth {
    None,
    Basic(String, String),
    Cookie(String),
}

/// A client of the server.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub http: reqwest::Client,
    auth: Auth,
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
    pub body: Value,
}

impl Answer {
    /// The value of the session cookie that was set.
    pub fn cookie(&self) -> String {
        let set = self.headers["set-cookie"].to_str().unwrap();
        set.split(';').next().unwrap().to_owned()
    }

    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.body["message"].as_str().unwrap_or_default()
    }

    /// The names of the fields that are wrong.
    pub fn fields(&self) -> Vec<&str> {
        let fields = self.body["results"]["fields"].as_array();
        fields
            .map(|all| all.iter().filter_map(|one| one["field"].as_str()).collect())
            .unwrap_or_default()
    }

    #[track_caller]
    pub fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        self.body["results"].clone()
    }
}

impl Client {
    /// Somebody who logged in at a server in another process.
    pub async fn login_at(address: SocketAddr, login: &str) -> Self {
        let anybody = Self::at(address);
        let answer = anybody
            .post("/api/login", json!({"login": login, "password": PASSWORD}))
            .await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        Self {
            auth: Auth::Cookie(answer.cookie()),
            ..anybody
        }
    }

    /// Somebody who is not logged in, at a server in another process.
    pub fn at(address: SocketAddr) -> Self {
        Self {
            address,
            http: wa_server_example::loopback::http_client(),
            auth: Auth::None,
        }
    }

    /// The same client without its login.
    pub fn anonymous(self) -> Self {
        Self {
            auth: Auth::None,
            ..self
        }
    }

    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", self.address));
        match &self.auth {
            Auth::None => request,
            Auth::Basic(login, password) => request.basic_auth(login, Some(password)),
            Auth::Cookie(cookie) => request.header("cookie", cookie),
        }
    }

    /// A request for a live connection.
    pub fn websocket(&self, path: &str) -> tokio_tungstenite::tungstenite::handshake::client::Request {
        use base64::Engine as _;
        use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
        let mut request = format!("ws://{}{path}", self.address).into_client_request().unwrap();
        let (name, value) = match &self.auth {
            Auth::None => return request,
            Auth::Basic(login, password) => {
                let pair = base64::engine::general_purpose::STANDARD.encode(format!("{login}:{password}"));
                ("authorization", format!("Basic {pair}"))
            }
            Auth::Cookie(cookie) => ("cookie", cookie.clone()),
        };
        request.headers_mut().insert(name, value.parse().unwrap());
        request
    }

    pub async fn send(request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Answer {
            status,
            headers,
            text,
            body,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Self::send(self.request(Method::GET, path)).await
    }

    pub async fn call(&self, method: Method, path: &str, body: Value) -> Answer {
        Self::send(self.request(method, path).json(&body)).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, body).await
    }
}
