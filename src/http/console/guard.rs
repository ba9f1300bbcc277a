use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Console, refusal::Refused};
use crate::auth::Caller;
use crate::command::Error;
use crate::listener::Origins;
use crate::telemetry;

/// Lets a request through to the endpoints, marked as its caller's, before any of its body is read.
pub(super) async fn admit(State(console): State<Arc<Console>>, mut request: Request, next: Next) -> Response {
    match console.check(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(refused) => refused.into_response(),
    }
}

impl Console {
    fn check(&self, request: &Request) -> Result<Arc<Caller>, Refused> {
        let headers = request.headers();
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        // The page itself is the one page that may ask, so no configured origin counts.
        if !Origins::default().allow(headers, host) {
            telemetry::refused("console", "origin");
            return Err(Refused::from(Error::PermissionDenied(
                "pages of another origin may not ask the console".into(),
            )));
        }
        let caller = self.api_keys.authenticate(headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes));
        let caller = caller.map_err(|refused| {
            tracing::warn!(refusal.reason = %refused, "refused a request to the console");
            telemetry::refused("console", "api_key");
            Error::from(refused)
        })?;
        if request.method() == Method::POST && !is_json(headers) {
            let message = "the content-type must be application/json";
            return Err(Refused::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
        }
        if self.lifecycle.is_stopping() {
            return Err(Refused::from(Error::Unavailable(
                "the server is stopping: nothing was done, and it can be asked again".into(),
            )));
        }
        Ok(caller)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}
