use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

use crate::auth::Caller;
use crate::command::{Error, Violation};
use crate::telemetry::audit;

/// An answer that says why not: `{ "error": { "code", "message", "violations" } }`.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    error: Body,
    /// In whole seconds.
    retry_after: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Body {
    code: &'static str,
    message: String,
    violations: Vec<Field>,
}

#[derive(Debug, Serialize)]
struct Field {
    field: String,
    description: String,
}

impl ApiError {
    /// A request that comes to no command, because of its form.
    pub(super) fn of(status: StatusCode, message: impl Into<String>) -> Self {
        let error = Body { code: "invalid_argument", message: message.into(), violations: Vec::new() };
        Self { status, error, retry_after: None }
    }
}

impl ApiError {
    /// Puts the refusal into the audit log: of what no command tells of by itself.
    pub(super) fn audited(self, caller: Option<&Caller>, endpoint: &str) -> Self {
        audit::refused(&audit::RefusedCall {
            api_key: caller.map(|caller| &*caller.name),
            method: Some(endpoint),
            code: &self.error.code.to_ascii_uppercase(),
            reason: &self.error.message,
            ..audit::RefusedCall::default()
        });
        self
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let mut violations = Vec::new();
        let mut retry_after = None;
        let (status, code) = match error {
            Error::InvalidArgument(fields) => {
                violations = fields.into_iter().map(Field::from).collect();
                (StatusCode::BAD_REQUEST, "invalid_argument")
            }
            Error::Unauthenticated(_) => (StatusCode::UNAUTHORIZED, "unauthenticated"),
            Error::PermissionDenied(_) => (StatusCode::FORBIDDEN, "permission_denied"),
            Error::NotFound(_) => (StatusCode::NOT_FOUND, "not_found"),
            Error::FailedPrecondition(_) => (StatusCode::BAD_REQUEST, "failed_precondition"),
            Error::ResourceExhausted { retry_after: after, .. } => {
                retry_after = Some(after.as_secs() + u64::from(after.subsec_nanos() > 0));
                (StatusCode::TOO_MANY_REQUESTS, "resource_exhausted")
            }
            Error::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            Error::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, "deadline_exceeded"),
        };
        Self { status, error: Body { code, message, violations }, retry_after }
    }
}

impl From<Violation> for Field {
    fn from(violation: Violation) -> Self {
        let Violation { field, description } = violation;
        Self { field, description }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        #[derive(Serialize)]
        struct Envelope {
            error: Body,
        }
        let mut response = (self.status, Json(Envelope { error: self.error })).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
