//! The one table of routes.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tower_http::cors::{AllowOrigin, CorsLayer};
use utoipa_axum::router::OpenApiRouter;

use super::extract::Locked;
use super::{
    auth, campaigns, chats, devices, forecasts, gateway_hooks, health, history, imports, layers, lead_webhook, leads,
    linking, live, messages, metrics, openapi, pictures, sequence_contacts, sequences, suppressions, templates, users,
    workers,
};
use crate::app::App;

/// All routes but those that serve the document of the routes.
pub(super) fn table() -> OpenApiRouter<Locked> {
    OpenApiRouter::with_openapi(openapi::blank())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(auth::routes())
        .merge(users::routes())
        .merge(devices::routes())
        .merge(linking::routes())
        .merge(leads::routes())
        .merge(history::routes())
        .merge(imports::routes())
        .merge(lead_webhook::routes())
        .merge(suppressions::routes())
        .merge(campaigns::routes())
        .merge(sequences::routes())
        .merge(sequence_contacts::routes())
        .merge(forecasts::routes())
        .merge(templates::routes())
        .merge(messages::routes())
        .merge(chats::routes())
        .merge(pictures::routes())
        .merge(gateway_hooks::routes())
        .merge(workers::routes())
        .merge(live::routes())
        .merge(openapi::routes())
}

/// The router over what requests share.
pub fn router(app: Arc<App>) -> Router {
    let state = Locked::new(Arc::clone(&app));
    let (router, _) = table().split_for_parts();
    let router = router.fallback(layers::not_found).layer(from_fn(layers::envelope_405));
    let router = match cors(&app) {
        Some(cors) => router.layer(cors),
        None => router,
    };
    router
        .layer(from_fn_with_state(state.clone(), layers::around))
        .with_state(state)
}

fn cors(app: &App) -> Option<CorsLayer> {
    use axum::http::{Method, header};
    let origins: Vec<_> = app
        .settings
        .cors_origins
        .iter()
        .filter_map(|origin| origin.parse().ok())
        .collect();
    (!origins.is_empty()).then(|| {
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_credentials(true)
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
            .allow_headers([header::CONTENT_TYPE, header::AUTHORIZATION])
            .expose_headers([layers::REQUEST_ID, header::CONTENT_DISPOSITION])
    })
}
