use std::sync::Arc;

use http::{HeaderValue, Method, header, request::Parts};
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};

use super::{ClientAddress, Origins, Proxies, TcpPeer};

/// Which web pages may send the requests that devices send, on every path.
#[derive(Clone)]
pub struct Pages {
    origins: Arc<Origins>,
    proxies: Arc<Proxies>,
}

impl Pages {
    /// Allows pages of these origins. What `proxies` say of a request's host and client counts.
    pub fn new(origins: Origins, proxies: Proxies) -> Self {
        Self { origins: Arc::new(origins), proxies: Arc::new(proxies) }
    }

    /// Returns whether the request has no origin or an allowed one. A request without a [`TcpPeer`] is refused.
    pub fn allow(&self, request: &Parts) -> bool {
        let Some(TcpPeer(peer)) = request.extensions.get().copied() else {
            return false;
        };
        self.origins.allow(&request.headers, self.proxies.host(peer, &request.headers))
    }

    /// Returns the client's address, or `None` if the request has no [`TcpPeer`].
    pub fn client_address(&self, request: &Parts) -> Option<ClientAddress> {
        let TcpPeer(peer) = request.extensions.get().copied()?;
        Some(self.proxies.client_address(peer, &request.headers))
    }

    /// Returns a layer that answers preflight requests and adds the CORS headers to responses (Fetch standard, section 3.3).
    pub fn cors(&self) -> CorsLayer {
        let pages = self.clone();
        CorsLayer::new()
            .allow_origin(AllowOrigin::predicate(move |_: &HeaderValue, parts: &Parts| pages.allow(parts)))
            .allow_credentials(true)
            .allow_methods([Method::GET, Method::POST])
            .allow_headers(AllowHeaders::mirror_request())
            .expose_headers([header::RETRY_AFTER])
    }
}
