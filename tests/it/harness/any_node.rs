//! A connection to several nodes, of which each call uses any one.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll},
};

use tonic::{
    body::Body,
    transport::{Channel, Endpoint, Error},
};
use tower::{Service, ServiceExt};

/// One or more channels. Cheap to clone.
#[derive(Clone)]
pub struct AnyNode(Vec<Channel>);

impl AnyNode {
    pub async fn connect(nodes: &[SocketAddr]) -> Self {
        let mut channels = Vec::new();
        for grpc in nodes {
            let endpoint = Endpoint::from_shared(format!("http://{grpc}")).expect("an address makes a URI");
            channels.push(endpoint.connect().await.expect("the gRPC port is open"));
        }
        Self(channels)
    }
}

impl Service<http::Request<Body>> for AnyNode {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(any_of(&self.0).clone().oneshot(request))
    }
}

/// Any one of them.
pub fn any_of<T>(all: &[T]) -> &T {
    let random = RandomState::new().build_hasher().finish();
    let count = u64::try_from(all.len()).expect("there are few");
    &all[usize::try_from(random % count).expect("there are few")]
}
