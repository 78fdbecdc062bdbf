//! Whether the server lives, and whether it is ready.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::envelope::{Envelope, Nothing, Reply};
use super::error::{ApiError, ApiResult};
use super::extract::{Locked, Open};

/// Which program this is.
#[derive(Debug, Serialize, ToSchema)]
pub struct HealthView {
    /// `ok`.
    pub status: &'static str,
    /// The version.
    #[schema(example = "0.1.0")]
    pub version: &'static str,
    /// What it was built from: commit or build number, when the build gave one in `BUILD_ID`.
    pub build: &'static str,
    /// Since when it runs.
    pub started_at: String,
}

/// What it was built from.
pub(super) const BUILD: &str = match option_env!("BUILD_ID") {
    Some(id) => id,
    None => "local",
};

/// How long the database may take to say that it is ready; whoever asks does not wait long either.
const READY_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new().routes(routes!(health)).routes(routes!(ready))
}

/// The server lives.
#[utoipa::path(get, path = "/health", tag = "running",
    responses((status = 200, description = "It lives", body = Envelope<HealthView>)))]
async fn health(open: Open) -> ApiResult<HealthView> {
    let view = HealthView {
        status: "ok",
        version: env!("CARGO_PKG_VERSION"),
        build: BUILD,
        started_at: open.started_at.to_string(),
    };
    Ok(Reply::ok("ok", view))
}

/// The server is ready: its database answers and is at the newest schema.
#[utoipa::path(get, path = "/ready", tag = "running",
    responses((status = 200, description = "It is ready", body = Envelope<Nothing>)))]
async fn ready(open: Open) -> ApiResult<Nothing> {
    let not_ready = || ApiError::unavailable("the database is not ready");
    match tokio::time::timeout(READY_WITHIN, open.store.ready()).await {
        Ok(Ok(())) => Ok(Reply::done("ready")),
        Ok(Err(error)) => {
            tracing::warn!(?error, "not ready");
            Err(not_ready())
        }
        Err(_) => {
            tracing::warn!("not ready: the database does not answer in time");
            Err(not_ready())
        }
    }
}
