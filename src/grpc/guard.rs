use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response, header::AUTHORIZATION};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};
use transport::{PlaceHandle, Throttle};

use super::status::promised;
use crate::auth::{ApiKeys, Caller, KeyRefused};
use crate::command::Error;
use crate::proto::code_name;
use crate::telemetry::{self, audit};

/// When a call arrived.
#[derive(Clone, Copy)]
pub(super) struct Received(pub(super) Instant);

/// Set once a call's refusal is in the audit log, with more than the guard knows of it.
#[derive(Clone, Default)]
pub(super) struct Audited(Arc<AtomicBool>);

impl Audited {
    /// Takes note that the commands have told of the call's refusal.
    pub(super) fn set<T>(request: &tonic::Request<T>) -> impl FnOnce(&Error) + use<T> {
        let audited = request.extensions().get::<Self>().cloned().unwrap_or_default();
        move |_| audited.0.store(true, Ordering::Relaxed)
    }
}

/// Who makes a call, as the guard found out.
pub(super) fn caller<T>(request: &tonic::Request<T>) -> Result<Arc<Caller>, Status> {
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    caller.ok_or_else(|| Status::unauthenticated("the call has no API key"))
}

/// A call that was let through.
struct Admitted {
    caller: Arc<Caller>,
    audited: Audited,
    _permit: OwnedSemaphorePermit,
}

/// Lets calls with a known API key through, so many at a time, and counts all.
#[derive(Clone)]
pub(super) struct GuardLayer {
    api_keys: Arc<ApiKeys>,
    calls: Arc<Semaphore>,
    /// For each reason.
    log: Arc<[Throttle; 3]>,
}

impl GuardLayer {
    pub(super) fn new(api_keys: ApiKeys, max_calls: usize) -> Self {
        let calls = Arc::new(Semaphore::new(max_calls));
        Self { api_keys: Arc::new(api_keys), calls, log: Arc::default() }
    }

    /// Whose a request is.
    fn authenticate(&self, request: &Request<Body>) -> Result<Arc<Caller>, Error> {
        let key = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes);
        let caller = self.api_keys.authenticate(key).inspect_err(|refused| self.log_refusal(*refused))?;
        if let Some(place) = request.extensions().get::<PlaceHandle>() {
            place.known();
        }
        Ok(caller)
    }

    fn log_refusal(&self, refused: KeyRefused) {
        if let Some(suppressed) = self.log[refused as usize].permit() {
            tracing::warn!(refusal.reason = %refused, suppressed, "refused a gRPC call");
        }
        telemetry::refused("grpc", "api_key");
    }

    /// Marks a request as its caller's, or says why not.
    fn admit(&self, caller: Arc<Caller>, request: &mut Request<Body>) -> Result<Admitted, Error> {
        let permit = self.calls.clone().try_acquire_owned().map_err(|_| Error::ResourceExhausted {
            message: "limits.grpc_calls is met: too many calls at one time".into(),
            retry_after: Duration::from_secs(1),
        })?;
        let audited = Audited::default();
        request.extensions_mut().insert(caller.clone());
        request.extensions_mut().insert(audited.clone());
        request.extensions_mut().insert(Received(Instant::now()));
        Ok(Admitted { caller, audited, _permit: permit })
    }
}

impl Admitted {
    /// Puts the call into the audit log, if it was refused and is not there yet.
    fn audit(&self, method: Method, headers: &HeaderMap) {
        if self.audited.0.load(Ordering::Relaxed) {
            return;
        }
        if let Some(status) = Status::from_header_map(headers).filter(|status| is_refusal(status.code())) {
            audit_refusal(method, Some(&self.caller), &status);
        }
    }
}

/// Whether a code says that a call may not be made, or not so, or not now.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Unavailable
            | Code::Unauthenticated
    )
}

fn audit_refusal(method: Method, caller: Option<&Caller>, status: &Status) {
    audit::refused(&audit::RefusedCall {
        api_key: caller.map(|caller| &*caller.name),
        method: Some(method.name()),
        code: code_name(status.code()),
        reason: status.message(),
        ..audit::RefusedCall::default()
    });
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guard<S>;

    fn layer(&self, inner: S) -> Guard<S> {
        Guard { guard: self.clone(), inner }
    }
}

#[derive(Clone)]
pub(super) struct Guard<S> {
    guard: GuardLayer,
    inner: S,
}

impl<S> Service<Request<Body>> for Guard<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let method = Method::of(request.uri().path());
        let caller = self.guard.authenticate(&request);
        let known = caller.as_ref().ok().cloned();
        match caller.and_then(|caller| self.guard.admit(caller, &mut request)) {
            Ok(admitted) => {
                // The library watches over it too, from farther out: it would say CANCELLED, and nobody would count it.
                let deadline = deadline(request.headers());
                let answer = self.inner.call(request);
                Box::pin(async move {
                    let mut response = match in_time(deadline, answer).await {
                        Some(answer) => answer?,
                        None => Status::from(Error::DeadlineExceeded).into_http(),
                    };
                    let code = settle(response.headers_mut());
                    admitted.audit(method, response.headers());
                    telemetry::grpc_answered(method.name(), code_name(code));
                    Ok(response)
                })
            }
            Err(error) => {
                let status = Status::from(error);
                audit_refusal(method, known.as_deref(), &status);
                telemetry::grpc_answered(method.name(), code_name(status.code()));
                Box::pin(async move { Ok(status.into_http()) })
            }
        }
    }
}

/// A method that we have: strangers do not get to make up labels.
#[derive(Clone, Copy)]
struct Method(&'static str);

impl Method {
    fn of(path: &str) -> Self {
        const OURS: [&str; 32] = [
            "/bugle.v1.Mailbox/GetRetained",
            "/bugle.v1.Mailbox/ListMessages",
            "/bugle.v1.Mailbox/CountUnread",
            "/bugle.v1.Mailbox/MarkRead",
            "/bugle.v1.Mailbox/DeleteMessages",
            "/bugle.v1.Messages/SendMessage",
            "/bugle.v1.Messages/ListConversations",
            "/bugle.v1.Messages/ListMessages",
            "/bugle.v1.Messages/MarkRead",
            "/bugle.v1.Messages/DeleteMessage",
            "/bugle.v1.Messages/EraseUser",
            "/bugle.v1.Messages/AllowConversation",
            "/bugle.v1.Messages/ForbidConversation",
            "/bugle.v1.Messages/BlockUser",
            "/bugle.v1.Messages/UnblockUser",
            "/bugle.v1.Notify/EmitToUser",
            "/bugle.v1.Notify/EmitToUsers",
            "/bugle.v1.Notify/EmitToRoom",
            "/bugle.v1.Notify/Broadcast",
            "/bugle.v1.Notify/EmitBatch",
            "/bugle.v1.Notify/EmitStream",
            "/bugle.v1.Notify/DisconnectUser",
            "/bugle.v1.Presence/GetUser",
            "/bugle.v1.Presence/GetUsers",
            "/bugle.v1.Presence/ListUsers",
            "/bugle.v1.Presence/GetStats",
            "/bugle.v1.Rooms/JoinRoom",
            "/bugle.v1.Rooms/LeaveRoom",
            "/bugle.v1.Rooms/AllowRoom",
            "/bugle.v1.Rooms/ForbidRoom",
            "/bugle.v1.Rooms/ListRooms",
            "/bugle.v1.Rooms/GetRoom",
        ];
        Self(OURS.into_iter().find(|known| *known == path).unwrap_or("/other"))
    }

    fn name(self) -> &'static str {
        &self.0[1..]
    }
}

/// Gives the code of an answer, after setting right what the library says in other words than the API.
fn settle(headers: &mut HeaderMap) -> Code {
    const STATUS: &str = "grpc-status";
    let Some(status) = headers.get(STATUS) else {
        return Code::Ok;
    };
    let code = Code::from_bytes(status.as_bytes());
    let promised = promised(code);
    if promised != code {
        headers.insert(STATUS, HeaderValue::from(promised as i32));
    }
    promised
}

/// When the caller will have waited long enough (`grpc-timeout`: up to eight digits and a unit). What does not read so counts as
/// not said.
fn deadline(headers: &HeaderMap) -> Option<Instant> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount = digits.parse().ok()?;
    let patience = match unit {
        "H" => Duration::from_hours(amount),
        "M" => Duration::from_mins(amount),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    };
    Instant::now().checked_add(patience)
}

/// An answer in time; none if the deadline came first.
async fn in_time<F: Future>(deadline: Option<Instant>, answer: F) -> Option<F::Output> {
    match deadline {
        Some(deadline) => timeout_at(deadline, answer).await.ok(),
        None => Some(answer.await),
    }
}
