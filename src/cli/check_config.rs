use clap::Args;

use super::{ConfigFile, Failure, print};
use crate::auth::{ApiKeys, Tokens};
use crate::clock::Clock;
use crate::config::{Config, Reading};
use crate::message::Fault;

/// `bugle check-config`.
#[derive(Args)]
pub struct CheckConfig {
    #[command(flatten)]
    file: ConfigFile,
    /// Print the effective configuration as TOML, with secrets masked.
    #[arg(long)]
    print: bool,
}

impl CheckConfig {
    /// Looks at everything, whatever else is wrong.
    pub fn execute(self) -> Result<(), Failure> {
        let (config, warnings) = checked(Config::read(self.file.path.as_deref())?, false)?;
        for warning in warnings {
            eprintln!("bugle: warning: {warning}");
        }
        if self.print { print(&config.to_toml()?) } else { print("The configuration is good.\n") }
    }
}

/// The configuration, if nothing at all is wrong with it, and what is to be told of it all the same.
pub fn checked(mut reading: Reading, dev: bool) -> Result<(Config, Vec<Fault>), Failure> {
    let of_values = reading.config.faults(dev);
    reading.add(of_values);
    let of_keys = key_faults(&reading.config);
    reading.add(of_keys);
    let warnings = reading.warnings();
    Ok((reading.complete()?, warnings))
}

/// What only `auth` can tell: about the keys that sign tokens, the rooms, the API keys and their scopes.
fn key_faults(config: &Config) -> Vec<Fault> {
    let of_tokens = Tokens::new(&config.auth, Vec::new(), Clock::system()).err();
    let of_api_keys = ApiKeys::new(&config.grpc.api_keys).err();
    of_tokens.into_iter().chain(of_api_keys).flatten().collect()
}
