use std::time::Duration;

use clap::Args;

use super::{
    ConfigFile, Failure,
    banner::{DEV_USER, banner},
    check_config::checked,
    keep_files_private, print, token,
};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{Config, DevMode};
use crate::message::{Fault, UserId};
use crate::telemetry;

/// Once the server has stopped, calls that block have this long to return. A disk that hangs does not keep the process from ending.
const LAST_CALLS: Duration = Duration::from_millis(300);

/// `bugle serve`.
#[derive(Args)]
pub struct Serve {
    #[command(flatten)]
    file: ConfigFile,
    /// For trying things out: nothing needs to be configured, keys and a token are made at start and printed, pages of any loopback
    /// origin may connect, and nothing may listen beyond loopback.
    #[arg(long)]
    dev: bool,
}

impl Serve {
    /// Runs the server until it is stopped.
    pub fn execute(self) -> Result<(), Failure> {
        keep_files_private();
        let prepared = self.prepare()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(Failure::Runtime)?;
        let ended = runtime.block_on(start(prepared));
        runtime.shutdown_timeout(LAST_CALLS);
        ended
    }

    /// The configuration, without fault, and with what `--dev` adds to it.
    fn prepare(&self) -> Result<Prepared, Failure> {
        let mut reading = Config::read(self.file.path.as_deref())?;
        let dev = self.dev.then(|| reading.config.complete_for_dev());
        let (config, warnings) = checked(reading, self.dev)?;
        let Some(mut dev) = dev else {
            return Ok(Prepared { config, dev: None, warnings });
        };
        let user = UserId::new(DEV_USER).map_err(Failure::User)?;
        dev.token = token::for_dev(&config, &user, Duration::from_hours(24))?;
        Ok(Prepared { config, dev: Some(dev), warnings })
    }
}

/// What a server is started with.
struct Prepared {
    config: Config,
    dev: Option<DevMode>,
    /// To be logged.
    warnings: Vec<Fault>,
}

async fn start(prepared: Prepared) -> Result<(), Failure> {
    let Prepared { config, dev, warnings } = prepared;
    // Held until the end: what was logged is in the files once it is dropped.
    let _files = telemetry::start_logs(&config.log)?;
    for Fault { key, problem } in warnings {
        tracing::warn!(config.key = key, "{problem}");
    }
    let any_loopback_origin = dev.as_ref().is_some_and(|dev| dev.any_loopback_origin);
    let app = App::new(config.clone(), Clock::system(), any_loopback_origin)?;
    // Before it says that it listens: it may be stopped from then on.
    app.watch_signals()?;
    let lifecycle = app.lifecycle().clone();
    let listening = app.listen().await?;
    if let Some(dev) = dev
        && !lifecycle.is_stopping()
    {
        print(&banner(&listening.addresses(), &config, &dev))?;
    }
    Ok(listening.run().await?)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::auth::Tokens;

    fn serve(dev: bool) -> Serve {
        Serve { file: ConfigFile { path: None }, dev }
    }

    #[test]
    fn dev_needs_no_configuration_and_its_token_is_good_for_a_day() {
        let Prepared { config, dev, .. } = serve(true).prepare().unwrap();
        let token = dev.unwrap().token.unwrap();
        let clock = Clock::system();
        let identity = Tokens::new(&config.auth, Vec::new(), clock.clone())
            .ok()
            .unwrap()
            .verify(Some(token.expose_secret()))
            .unwrap();
        assert_eq!(identity.user.as_str(), DEV_USER);
        let hours = identity.expires_at.duration_since(clock.now()).as_hours();
        assert!((23..=24).contains(&hours), "{hours}");
    }

    #[test]
    fn without_dev_keys_are_wanted() {
        let failure = serve(false).prepare().err().unwrap();
        let report = failure.report();
        assert!(report.contains("auth.jwt.keys") && report.contains("grpc.api_keys"), "{report}");
        assert_eq!(failure.exit_code(), 64);
    }

    #[test]
    fn a_file_that_is_not_there_is_bad_configuration() {
        let serve = Serve { file: ConfigFile { path: Some(PathBuf::from("/nowhere/bugle.toml")) }, dev: true };
        assert_eq!(serve.prepare().err().unwrap().exit_code(), 64);
    }
}
