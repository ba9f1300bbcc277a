//! How a backend reaches a server: one connection, and an API key in each call.

use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{self, Channel, Endpoint},
};

/// Longer than the longest that a call waits for acknowledgements.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// Calls that carry the API key.
pub type AuthorizedChannel = InterceptedService<Channel, ApiKey>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This is no address to call.
    #[error("{0:?} is no server to call: give http://HOST:PORT, without a path; TLS is not built into this command")]
    Server(String),
    /// The API key cannot be sent.
    #[error("the API key has characters that no key has: blanks, control characters or others than ASCII")]
    ApiKey,
    /// Nobody answers.
    #[error("no Bugle answers at {server}: see that `bugle serve` runs there, or name another one with --server")]
    Unreachable {
        /// Where it was looked for.
        server: String,
        /// What happened.
        source: transport::Error,
    },
}

/// Connects at once, so that a server which is not there is told apart from one that refuses.
pub async fn connect(server: &str, api_key: &SecretString) -> Result<AuthorizedChannel, Error> {
    let api_key = ApiKey::new(api_key)?;
    let endpoint = endpoint(server)?;
    let channel =
        endpoint.connect().await.map_err(|source| Error::Unreachable { server: server.to_owned(), source })?;
    Ok(InterceptedService::new(channel, api_key))
}

fn endpoint(server: &str) -> Result<Endpoint, Error> {
    let refuse = || Error::Server(server.to_owned());
    let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let endpoint = Endpoint::from_shared(url).map_err(|_| refuse())?;
    let uri = endpoint.uri();
    if uri.scheme_str() != Some("http") || uri.host().is_none_or(str::is_empty) || uri.path().len() > 1 {
        return Err(refuse());
    }
    Ok(endpoint.connect_timeout(Duration::from_secs(5)).timeout(CALL_TIMEOUT))
}

/// Puts the API key into each call.
#[derive(Clone)]
pub struct ApiKey(MetadataValue<Ascii>);

impl ApiKey {
    fn new(key: &SecretString) -> Result<Self, Error> {
        let key = key.expose_secret();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::ApiKey);
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {key}").parse().map_err(|_| Error::ApiKey)?;
        value.set_sensitive(true);
        Ok(Self(value))
    }
}

impl Interceptor for ApiKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_http_urls_and_the_scheme_may_be_left_out() {
        for server in
            ["http://127.0.0.1:50051", "127.0.0.1:50051", "http://bugle.internal", "http://[::1]:1/", "localhost:1"]
        {
            assert!(endpoint(server).is_ok(), "{server}");
        }
        for server in ["https://bugle.example", "", "http://", "http://bugle/path", "ftp://bugle", "a b"] {
            assert!(matches!(endpoint(server), Err(Error::Server(_))), "{server:?} is taken");
        }
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_not_repeated() {
        for key in ["", "schlüssel", "two words", "line\nline"] {
            let error = ApiKey::new(&key.into()).err().unwrap();
            assert!(key.is_empty() || !error.to_string().contains(key));
        }
    }

    #[test]
    fn calls_carry_the_key_as_a_bearer_token() {
        let request = ApiKey::new(&"k3y".into()).unwrap().call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer k3y");
        assert!(!format!("{request:?}").contains("k3y"));
    }
}
