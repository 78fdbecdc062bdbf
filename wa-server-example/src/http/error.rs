//! Errors as callers see them: the envelope with a stable code, and the fields that are wrong.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use wa_core::engine::handle::HandleError;
use wa_core::plan::FieldError;
use wa_core::store::{StoreError, StoreErrorKind};

use super::envelope::Envelope;

/// One field that cannot be taken as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct FieldProblem {
    /// The field.
    #[schema(example = "phone")]
    pub field: String,
    /// What kind of wrong it is, stable, for programs.
    #[schema(example = "invalid")]
    pub code: String,
    /// What was expected.
    #[schema(example = "phone must not be empty")]
    pub message: String,
}

impl From<&FieldError> for FieldProblem {
    fn from(error: &FieldError) -> Self {
        // The words of the lead webhook are whole sentences that its callers know.
        let whole = error.expected.starts_with(char::is_uppercase);
        Self {
            field: error.field.to_string(),
            code: super::view::word(&error.code),
            message: if whole {
                error.expected.clone()
            } else {
                error.to_string()
            },
        }
    }
}

/// The `results` of an error.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct ErrorResults {
    /// The fields that are wrong; empty when it is not about fields.
    pub fields: Vec<FieldProblem>,
}

/// An error of a request.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    fields: Vec<FieldProblem>,
    retry_after_s: Option<u64>,
}

/// What handlers give.
pub type ApiResult<T> = Result<super::envelope::Reply<T>, ApiError>;

impl ApiError {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            fields: Vec::new(),
            retry_after_s: None,
        }
    }

    /// 400 `BAD_REQUEST`: it cannot be read.
    pub fn unreadable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BAD_REQUEST", message)
    }

    /// 400 `BAD_REQUEST` about one field.
    pub fn unreadable_field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let message = message.into();
        let mut error = Self::unreadable(message.clone());
        error.fields.push(FieldProblem {
            field: field.into(),
            code: "invalid".to_owned(),
            message,
        });
        error
    }

    /// 400 `VALIDATION_ERROR` about one field; `expected` completes a sentence that begins with its name.
    pub fn field(field: impl Into<String>, code: &str, expected: impl std::fmt::Display) -> Self {
        let field = field.into();
        Self::fields(vec![FieldProblem {
            message: format!("{field} {expected}"),
            field,
            code: code.to_owned(),
        }])
    }

    /// 400 `VALIDATION_ERROR` about fields.
    #[must_use]
    pub fn fields(fields: Vec<FieldProblem>) -> Self {
        let message = fields
            .iter()
            .map(|field| field.message.as_str())
            .collect::<Vec<_>>()
            .join("; ");
        Self {
            fields,
            ..Self::new(StatusCode::BAD_REQUEST, "VALIDATION_ERROR", message)
        }
    }

    /// The same with another message; the fields stay.
    #[must_use]
    pub fn saying(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// The same about fields of a part, such as `steps[0]`.
    #[must_use]
    pub fn within(mut self, part: &str) -> Self {
        for problem in &mut self.fields {
            problem.message = format!("{part}.{}", problem.message);
            problem.field = format!("{part}.{}", problem.field);
        }
        if !self.fields.is_empty() {
            let messages: Vec<_> = self.fields.iter().map(|field| field.message.as_str()).collect();
            self.message = messages.join("; ");
        }
        self
    }

    /// 401 `UNAUTHORIZED`.
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "UNAUTHORIZED", message)
    }

    /// 403 `FORBIDDEN`.
    pub fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "FORBIDDEN", message)
    }

    /// 404 `NOT_FOUND`.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NOT_FOUND", message)
    }

    /// 404 `NOT_FOUND` for a thing that the user does not have.
    #[must_use]
    pub fn no_such(entity: &str) -> Self {
        Self::not_found(format!("there is no such {entity}"))
    }

    /// 405 `METHOD_NOT_ALLOWED`.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "METHOD_NOT_ALLOWED",
            "this method is not allowed here",
        )
    }

    /// 409 `CONFLICT`.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "CONFLICT", message)
    }

    /// 413 `PAYLOAD_TOO_LARGE`.
    #[must_use]
    pub fn too_large(bytes_max: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "PAYLOAD_TOO_LARGE",
            format!("the body may have at most {bytes_max} bytes"),
        )
    }

    /// 413 `PAYLOAD_TOO_LARGE` about one part of a form.
    #[must_use]
    pub fn too_large_part(name: &str, bytes_max: u64) -> Self {
        let mut error = Self::too_large(bytes_max);
        error.message = format!("{name} must have at most {bytes_max} bytes");
        error.fields.push(FieldProblem {
            field: name.to_owned(),
            code: "too_long".to_owned(),
            message: error.message.clone(),
        });
        error
    }

    /// 429 `TOO_MANY_REQUESTS`, with the seconds to wait.
    #[must_use]
    pub fn too_many(retry_after: std::time::Duration) -> Self {
        Self {
            retry_after_s: Some(retry_after.as_secs().max(1)),
            ..Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "TOO_MANY_REQUESTS",
                "too many requests: try again later",
            )
        }
    }

    /// 503 `SERVICE_UNAVAILABLE`.
    pub fn unavailable(message: impl Into<String>) -> Self {
        Self {
            retry_after_s: Some(1),
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, "SERVICE_UNAVAILABLE", message)
        }
    }

    /// 500 `INTERNAL_SERVER_ERROR`; the cause goes to the log, not to the caller.
    pub fn internal(cause: &dyn std::fmt::Display) -> Self {
        tracing::error!(%cause, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "INTERNAL_SERVER_ERROR",
            "the server could not do it; the log says why",
        )
    }

    /// The status.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error.kind {
            StoreErrorKind::NotFound => Self::no_such(error.entity),
            StoreErrorKind::Conflict => {
                Self::conflict(format!("{}: changed in the meantime or already there", error.entity))
            }
            StoreErrorKind::Unavailable => {
                tracing::warn!(?error, "the store did not answer");
                Self::unavailable("the database did not answer in time: try again")
            }
            StoreErrorKind::Unsupported => Self::new(
                StatusCode::NOT_IMPLEMENTED,
                "NOT_IMPLEMENTED",
                "this database does not support it",
            ),
            _ => Self::internal(&format_args!("{error:?}")),
        }
    }
}

impl From<HandleError> for ApiError {
    fn from(error: HandleError) -> Self {
        match error {
            HandleError::Invalid(fields) => Self::fields(fields.iter().map(Into::into).collect()),
            HandleError::NotFound { entity } => Self::no_such(entity),
            HandleError::Store(error) => error.into(),
            error => Self::conflict(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = Envelope {
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            message: self.message,
            results: ErrorResults { fields: self.fields },
        };
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Cookie realm=\"wa\""),
            );
        }
        response
    }
}
