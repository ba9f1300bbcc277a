use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use transport::Origins;

use super::{Console, refusal::ApiError};
use crate::auth::Caller;
use crate::command::Error;
use crate::telemetry;

/// Lets a request through to the endpoints, marked as its caller's, before any of its body is read.
pub(super) async fn admit(State(console): State<Arc<Console>>, mut request: Request, next: Next) -> Response {
    match console.check(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err((caller, refused)) => refused.audited(caller.as_deref(), "console").into_response(),
    }
}

impl Console {
    /// Whose a request is; or why it is refused, and whose it is if that is known.
    fn check(&self, request: &Request) -> Result<Arc<Caller>, (Option<Arc<Caller>>, ApiError)> {
        let caller = self.authenticate(request).map_err(|error| (None, ApiError::from(error)))?;
        if request.method() == Method::POST && !is_json(request.headers()) {
            let message = "the content-type must be application/json";
            return Err((Some(caller), ApiError::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)));
        }
        if self.lifecycle.is_stopping() {
            let message = "the server is stopping: nothing was done, and it can be asked again";
            return Err((Some(caller), Error::Unavailable(message.into()).into()));
        }
        Ok(caller)
    }

    fn authenticate(&self, request: &Request) -> Result<Arc<Caller>, Error> {
        let headers = request.headers();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // The page itself is the one page that may ask, so no configured origin counts.
        if !Origins::default().allow(headers, host) {
            telemetry::refused("console", "origin");
            return Err(Error::PermissionDenied("pages of another origin may not ask the console".into()));
        }
        let caller = self.api_keys.authenticate(headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes));
        caller.map_err(|refused| {
            tracing::warn!(refusal.reason = %refused, "refused a request to the console");
            telemetry::refused("console", "api_key");
            refused.into()
        })
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}
