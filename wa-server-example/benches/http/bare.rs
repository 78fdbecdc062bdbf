//! The least that could do the same: two handlers and one connection, without checks, limits, log or engine.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use uuid::Uuid;
use wa_core::id::{IdSource, LeadId};
use wa_core::time::{Clock, SystemClock};

/// A server of two bare handlers.
pub struct Bare {
    address: SocketAddr,
    task: JoinHandle<()>,
}

struct Shared {
    connection: Mutex<SqliteConnection>,
    ids: IdSource,
    clock: SystemClock,
}

#[derive(Deserialize)]
struct LeadBody {
    name: String,
    phone: String,
    user_id: Uuid,
    device_id: Uuid,
}

async fn connect(file: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(file)
        .foreign_keys(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .disable_statement_logging()
        .connect()
        .await
        .expect("the database opens")
}

/// How many leads a database has.
pub async fn leads_in(file: &Path) -> usize {
    let mut connection = connect(file).await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM leads")
        .fetch_one(&mut connection)
        .await
        .expect("the rows are counted");
    connection.close().await.expect("the database closes");
    usize::try_from(count).expect("a small number")
}

impl Bare {
    pub async fn start(file: &Path) -> Self {
        let shared = Shared {
            connection: Mutex::new(connect(file).await),
            ids: IdSource::from_entropy(),
            clock: SystemClock::new(),
        };
        let router = Router::new()
            .route("/health", get(async || Json(json!({"status": "ok"}))))
            .route("/webhook/lead/create", post(create))
            .with_state(Arc::new(shared));
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("loopback can be listened on");
        let address = listener.local_addr().expect("the listener has an address");
        let serve = async move { axum::serve(listener, router).await.expect("the server serves") };
        Self {
            address,
            task: tokio::spawn(serve),
        }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn stop(self) {
        self.task.abort();
    }
}

async fn create(State(shared): State<Arc<Shared>>, Json(body): Json<LeadBody>) -> Json<Value> {
    let now = shared.clock.wall();
    let id = LeadId::new(&shared.ids, now);
    let mut connection = shared.connection.lock().await;
    sqlx::query(
        "INSERT INTO leads (id, user_id, device_id, name, name_key, phone, niches, triggers, tags, target_status, journey,
            pipeline_status, created_at, updated_at, version)
        VALUES (?1, ?2, ?3, ?4, lower(?4), ?5, '', '', '', 1, '', '', ?6, ?6, 1)",
    )
    .bind(id.as_bytes().as_slice())
    .bind(body.user_id.as_bytes().as_slice())
    .bind(body.device_id.as_bytes().as_slice())
    .bind(&body.name)
    .bind(&body.phone)
    .bind(now.as_millis())
    .execute(&mut *connection)
    .await
    .expect("the row goes in");
    Json(json!({"lead_id": id.to_string(), "name": body.name, "phone": body.phone}))
}
