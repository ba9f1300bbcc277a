use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::{body::Body, server::NamedService, service::Routes};
use tower::Service;

use super::notify;
use crate::proto::v1::notify_server::NotifyServer;

type Notify = NotifyServer<notify::Service>;

/// All services. Emits, of which there are many, reach theirs directly: the router for the others puts each request and each response
/// into boxes of its own.
#[derive(Clone)]
pub(super) struct Services {
    pub(super) notify: Notify,
    pub(super) others: Routes,
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<<Notify as Service<Request<Body>>>::Future, <Routes as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Neither of them ever makes a request wait.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_for(request.uri().path(), Notify::NAME) {
            Either::Left(self.notify.call(request))
        } else {
            Either::Right(self.others.call(request))
        }
    }
}

/// Whether a path (`/bugle.v1.Notify/EmitToUser`) names a method of this service.
fn is_for(path: &str, service: &str) -> bool {
    path.strip_prefix('/').and_then(|path| path.strip_prefix(service)).is_some_and(|method| method.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_its_service_exactly() {
        assert!(is_for("/bugle.v1.Notify/EmitToUser", Notify::NAME));
        for path in ["/bugle.v1.Notify", "/bugle.v1.NotifyAll/Emit", "bugle.v1.Notify/EmitToUser", "/", ""] {
            assert!(!is_for(path, Notify::NAME), "{path:?}");
        }
    }
}
