//! The document of all routes, and a page to read it.

use std::sync::LazyLock;

use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use sha2::{Digest, Sha256};
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::security::{
    ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme,
};
use utoipa::openapi::{ContentBuilder, Info, OpenApi, OpenApiBuilder, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::COOKIE;
use super::envelope::Envelope;
use super::error::{ErrorResults, FieldProblem};
use super::extract::{Locked, Open};

/// Routes that anybody may call; each is public by intention, and a test tries all others without a login.
pub const PUBLIC: [(&str, &str); 12] = [
    ("GET", "/health"),
    ("GET", "/ready"),
    ("GET", "/metrics"),
    ("GET", "/api/openapi.json"),
    ("GET", "/api/docs"),
    ("POST", "/api/login"),
    ("POST", "/api/auth/login"),
    ("POST", "/api/register"),
    ("POST", "/webhook/lead/create"),
    ("POST", "/hook/{token}/{kind}"),
    ("GET", "/hook/{token}/{kind}"),
    ("GET", "/media/{token}"),
];

/// A document without routes.
pub(super) fn blank() -> OpenApi {
    let mut info = Info::new("WhatsApp campaigns", env!("CARGO_PKG_VERSION"));
    info.description = Some(
        "Every answer has the shape `{status, code, message, results}`; errors name the fields in `results.fields`. Lists \
         come in pages: pass `next` of one page as `cursor` of the following one. Log in by `POST /api/login`, which sets a \
         cookie, or send HTTP basic auth."
            .to_owned(),
    );
    OpenApiBuilder::new().info(info).build()
}

/// The document of all routes.
#[must_use]
pub fn document() -> &'static OpenApi {
    static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(|| {
        let mut document = super::router::table().to_openapi();
        finish(&mut document);
        document
    });
    &DOCUMENT
}

/// All operations of the document with method and path.
#[must_use]
pub fn operations() -> Vec<(&'static str, String)> {
    document()
        .paths
        .paths
        .iter()
        .flat_map(|(path, item)| {
            METHODS
                .iter()
                .filter(|(_, of)| of(item).is_some())
                .map(|(method, _)| (*method, path.clone()))
        })
        .collect()
}

type OperationOf = fn(&PathItem) -> Option<&Operation>;

const METHODS: [(&str, OperationOf); 5] = [
    ("GET", |item| item.get.as_ref()),
    ("POST", |item| item.post.as_ref()),
    ("PUT", |item| item.put.as_ref()),
    ("PATCH", |item| item.patch.as_ref()),
    ("DELETE", |item| item.delete.as_ref()),
];

/// Adds what holds for all routes, so that no handler has to repeat it: login, errors, ids in paths.
fn finish(document: &mut OpenApi) {
    let components = document.components.get_or_insert_default();
    let schemas = [
        (Envelope::<ErrorResults>::name(), Envelope::<ErrorResults>::schema()),
        (ErrorResults::name(), ErrorResults::schema()),
        (FieldProblem::name(), FieldProblem::schema()),
    ];
    for (name, schema) in schemas {
        components.schemas.insert(name.into_owned(), schema);
    }
    components.add_security_scheme(
        "cookie",
        SecurityScheme::ApiKey(ApiKey::Cookie(ApiKeyValue::new(COOKIE))),
    );
    let basic = HttpBuilder::new().scheme(HttpAuthScheme::Basic).build();
    components.add_security_scheme("basic", SecurityScheme::Http(basic));
    let error = ResponseBuilder::new()
        .description("An error; `code` says which, `results.fields` which fields")
        .content(
            "application/json",
            ContentBuilder::new()
                .schema(Some(Ref::from_schema_name(Envelope::<ErrorResults>::name())))
                .build(),
        )
        .build();
    let uuid = ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Uuid)))
        .build();
    let text = ObjectBuilder::new().schema_type(Type::String).build();
    for (path, item) in &mut document.paths.paths {
        let segments: Vec<&str> = path
            .split('/')
            .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        let operations = [
            ("GET", &mut item.get),
            ("POST", &mut item.post),
            ("PUT", &mut item.put),
            ("PATCH", &mut item.patch),
            ("DELETE", &mut item.delete),
        ];
        for (method, operation) in operations {
            let Some(operation) = operation else { continue };
            // Two methods of one path, and two names of one handler, need different ids.
            operation.operation_id = Some(format!("{} {path}", method.to_lowercase()));
            operation
                .responses
                .responses
                .entry("default".to_owned())
                .or_insert_with(|| RefOr::T(error.clone()));
            if !PUBLIC.contains(&(method, path.as_str())) {
                operation.security = Some(vec![
                    SecurityRequirement::new("cookie", Vec::<String>::new()),
                    SecurityRequirement::new("basic", Vec::<String>::new()),
                ]);
            }
            let parameters = operation.parameters.get_or_insert_default();
            for name in &segments {
                let named = |parameter: &RefOr<Parameter>| matches!(parameter, RefOr::T(one) if one.name == *name);
                if !parameters.iter().any(named) {
                    let schema = if name.ends_with("id") { &uuid } else { &text };
                    parameters.push(
                        ParameterBuilder::new()
                            .name(*name)
                            .parameter_in(ParameterIn::Path)
                            .required(Required::True)
                            .schema(Some(schema.clone()))
                            .build()
                            .into(),
                    );
                }
            }
        }
    }
}

pub(super) fn routes() -> OpenApiRouter<Locked> {
    OpenApiRouter::new().routes(routes!(openapi_json)).routes(routes!(docs))
}

/// This document.
#[utoipa::path(get, path = "/api/openapi.json", tag = "running",
    responses((status = 200, description = "The document", content_type = "application/json", body = serde_json::Value)))]
async fn openapi_json(_open: Open) -> Response {
    static JSON: LazyLock<String> =
        LazyLock::new(|| document().to_json().expect("a document that was built can be written"));
    ([(header::CONTENT_TYPE, "application/json")], JSON.as_str()).into_response()
}

const SCRIPT: &str = include_str!("docs.js");
const STYLE: &str = include_str!("docs.css");

/// A page that shows the document; it needs nothing from elsewhere.
#[utoipa::path(get, path = "/api/docs", tag = "running",
    responses((status = 200, description = "The page", content_type = "text/html", body = String)))]
async fn docs(_open: Open) -> Response {
    static PAGE: LazyLock<(String, String)> = LazyLock::new(|| {
        let digest = |text: &str| base64::engine::general_purpose::STANDARD.encode(Sha256::digest(text.as_bytes()));
        let policy = format!(
            "default-src 'none'; connect-src 'self'; script-src 'sha256-{}'; style-src 'sha256-{}'; \
             frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
            digest(SCRIPT),
            digest(STYLE)
        );
        let page = format!(
            "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>API</title>\
             <style>{STYLE}</style></head><body><header><h1>API</h1>\
             <input id=\"find\" type=\"search\" placeholder=\"Find a route\" aria-label=\"Find a route\"></header>\
             <main id=\"main\"><p>Loading…</p></main><script>{SCRIPT}</script></body></html>"
        );
        (policy, page)
    });
    let (policy, page) = &*PAGE;
    (
        [(header::CONTENT_SECURITY_POLICY, policy.as_str())],
        Html(page.as_str()),
    )
        .into_response()
}
