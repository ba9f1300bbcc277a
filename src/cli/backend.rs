use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::Failure;

/// Which server to call, and as whom.
#[derive(Args)]
pub struct Backend {
    /// Where Bugle listens for gRPC.
    #[arg(long, value_name = "URL", env = "BUGLE_SERVER", default_value = "http://127.0.0.1:50051")]
    server: String,
    /// The API key to call with; better given as the variable, which other users of the machine cannot see.
    #[arg(long, value_name = "KEY", env = "BUGLE_API_KEY", hide_env_values = true)]
    api_key: SecretString,
}

/// Longer than the longest that a call waits for acknowledgements.
const CALL_TIMEOUT: Duration = Duration::from_secs(90);

/// Calls that carry the API key.
pub type AuthorizedChannel = InterceptedService<Channel, ApiKey>;

impl Backend {
    /// Connects at once, so that a server which is not there is told apart from one that refuses.
    pub async fn connect(&self) -> Result<AuthorizedChannel, Failure> {
        let api_key = ApiKey::new(&self.api_key)?;
        let endpoint = endpoint(&self.server)?;
        let channel =
            endpoint.connect().await.map_err(|source| Failure::Unreachable { server: self.server.clone(), source })?;
        Ok(InterceptedService::new(channel, api_key))
    }
}

fn endpoint(server: &str) -> Result<Endpoint, Failure> {
    let refuse = || Failure::Server(server.to_owned());
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
    fn new(key: &SecretString) -> Result<Self, Failure> {
        let key = key.expose_secret();
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::ApiKey);
        }
        let mut value: MetadataValue<Ascii> = format!("Bearer {key}").parse().map_err(|_| Failure::ApiKey)?;
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
            let failure = endpoint(server).err().unwrap_or_else(|| panic!("{server:?} is taken"));
            assert_eq!(failure.exit_code(), 64);
        }
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_not_repeated() {
        for key in ["", "schlüssel", "two words", "line\nline"] {
            let failure = ApiKey::new(&key.into()).err().unwrap();
            assert!(key.is_empty() || !failure.report().contains(key));
            assert_eq!(failure.exit_code(), 64);
        }
    }

    #[test]
    fn calls_carry_the_key_as_a_bearer_token() {
        let request = ApiKey::new(&"k3y".into()).unwrap().call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer k3y");
        assert!(!format!("{request:?}").contains("k3y"));
    }
}
