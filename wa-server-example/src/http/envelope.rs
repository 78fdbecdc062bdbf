//! The one shape of every answer: `{status, code, message, results}`.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

/// The shape of every answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Envelope<T> {
    /// The HTTP status again.
    #[schema(example = 200)]
    pub status: u16,
    /// What happened, stable, for programs.
    #[schema(example = "SUCCESS")]
    pub code: String,
    /// What happened, for people.
    pub message: String,
    /// What was asked for.
    pub results: T,
}

/// Nothing to tell beside the message.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct Nothing {}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Listed<T> {
    /// The rows.
    pub items: Vec<T>,
    /// The `cursor` of the next page; `null` when this was the last.
    pub next: Option<String>,
}

impl<T> Listed<T> {
    /// A page of a store, its rows shown by a function.
    pub fn of<R, K: ToString>(page: wa_core::store::Page<R, K>, show: impl FnMut(R) -> T) -> Self {
        Self {
            items: page.rows.into_iter().map(show).collect(),
            next: page.next.map(|key| key.to_string()),
        }
    }
}

/// A successful answer.
#[derive(Debug)]
pub struct Reply<T> {
    status: StatusCode,
    code: &'static str,
    message: String,
    results: T,
}

impl<T: Serialize> Reply<T> {
    /// 200 `SUCCESS`.
    pub fn ok(message: impl Into<String>, results: T) -> Self {
        Self {
            status: StatusCode::OK,
            code: "SUCCESS",
            message: message.into(),
            results,
        }
    }

    /// 202 `ACCEPTED`: it goes on in the background.
    pub fn accepted(message: impl Into<String>, results: T) -> Self {
        Self {
            status: StatusCode::ACCEPTED,
            code: "ACCEPTED",
            message: message.into(),
            results,
        }
    }

    /// The same with other results.
    pub fn map<U: Serialize>(self, results: impl FnOnce(T) -> U) -> Reply<U> {
        Reply {
            status: self.status,
            code: self.code,
            message: self.message,
            results: results(self.results),
        }
    }

    /// The same with another code.
    #[must_use]
    pub fn code(self, code: &'static str) -> Self {
        Self { code, ..self }
    }
}

impl Reply<Nothing> {
    /// 200 `SUCCESS` without results.
    pub fn done(message: impl Into<String>) -> Self {
        Self::ok(message, Nothing {})
    }
}

impl<T: Serialize> IntoResponse for Reply<T> {
    fn into_response(self) -> Response {
        let body = Envelope {
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            message: self.message,
            results: self.results,
        };
        (self.status, Json(body)).into_response()
    }
}
