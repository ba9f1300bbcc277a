use clap::Args;
use secrecy::SecretString;

use super::Failure;
use crate::client;

pub use crate::client::AuthorizedChannel;

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

impl Backend {
    /// Connects at once, so that a server which is not there is told apart from one that refuses.
    pub async fn connect(&self) -> Result<AuthorizedChannel, Failure> {
        Ok(client::connect(&self.server, &self.api_key).await?)
    }
}
