use std::{error::Error, io, iter};

use humantime_serde::re::humantime::format_duration;
use tonic::Status;
use tonic_types::StatusExt;

use super::{FAILED, USAGE};
use crate::app;
use crate::auth::{MintError, TokenRefused};
use crate::bench;
use crate::client;
use crate::config::ConfigError;
use crate::message::Invalid;
use crate::proto::code_name;
use crate::telemetry::LogError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// There is no configuration, or it has faults.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// `--user` is no user id.
    #[error("the user {0}")]
    User(Invalid),
    /// `--ttl` ends after the calendar does.
    #[error("the token's time to live is too long")]
    Ttl(#[source] jiff::Error),
    /// No key is there to sign a token with.
    #[error(
        "the configuration has no such key to sign with: tokens are minted with the secret of an HS algorithm, \
         of [[auth.jwt.keys]] or --secret"
    )]
    NoSigningKey,
    /// The key cannot sign.
    #[error("the token cannot be minted")]
    Mint(#[from] MintError),
    /// The token would not be taken.
    #[error("the token is refused ({})", .0.reason())]
    TokenRefused(#[source] TokenRefused),
    /// There is no connection to the server.
    #[error(transparent)]
    Client(#[from] client::Error),
    /// A server was given without what it takes to use it.
    #[error("--server takes {option} too, or the variable {variable}, which is missing, empty or not UTF-8")]
    Missing {
        /// What is missing.
        option: &'static str,
        /// Where it can stand as well.
        variable: &'static str,
    },
    /// `bugle bench` with nothing to measure.
    #[error("give a load, or --nodes N: see bugle bench --help")]
    NoLoad,
    /// The payload is not JSON.
    #[error("the payload {0}")]
    Payload(Invalid),
    /// The server refused the call.
    #[error("{}", refusal(.0))]
    Refused(Status),
    /// The server answered what the protocol does not allow.
    #[error("the server's answer lacks {0}: it may be of another version")]
    Incomplete(&'static str),
    /// A bench has no figures.
    #[error(transparent)]
    Bench(bench::Error),
    /// A bench has figures, and not all is well.
    #[error("{0}")]
    Lost(String),
    /// This program is not found again.
    #[error("cannot find this program, to run it as the server")]
    Program(#[source] io::Error),
    /// Someone stopped it.
    #[error("stopped before the end")]
    Interrupted,
    /// Standard input cannot be read.
    #[error("cannot read standard input")]
    Input(#[source] io::Error),
    /// Standard output cannot be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// Logs cannot be written as configured.
    #[error("logging did not start")]
    Logs(#[from] LogError),
    /// No new epoch was begun, as far as is known.
    #[error("bugle store new-epoch has failed")]
    Store(#[source] app::Error),
    /// The server did not start, or a part of it died.
    #[error("the server failed")]
    App(#[from] app::Error),
    /// There is no async runtime.
    #[error("cannot start the runtime")]
    Runtime(#[source] io::Error),
}

impl Failure {
    /// The code that the process ends with.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Config(error) => match error {
                ConfigError::Unreadable { .. } | ConfigError::Syntax { .. } | ConfigError::Faults(_) => USAGE,
                ConfigError::Sources(_) | ConfigError::Unwritable(_) => FAILED,
            },
            Self::Logs(error) => match error {
                LogError::Level(_) | LogError::Directory { .. } | LogError::Audit { .. } => USAGE,
                LogError::Thread(_) | LogError::Twice(_) => FAILED,
            },
            Self::Mint(error) => mint_code(error),
            Self::Client(error) => match error {
                client::Error::Server(_) | client::Error::ApiKey => USAGE,
                client::Error::Unreachable { .. } => FAILED,
            },
            Self::Bench(error) => bench_code(error),
            Self::User(_)
            | Self::Ttl(_)
            | Self::NoSigningKey
            | Self::Payload(_)
            | Self::NoLoad
            | Self::Missing { .. } => USAGE,
            Self::TokenRefused(_)
            | Self::Lost(_)
            | Self::Program(_)
            | Self::Interrupted
            | Self::Refused(_)
            | Self::Incomplete(_)
            | Self::Input(_)
            | Self::Output(_)
            | Self::Store(_)
            | Self::App(_)
            | Self::Runtime(_) => FAILED,
        }
    }

    /// The failure and what it came from, a line each.
    pub fn report(&self) -> String {
        let mut lines = vec![self.to_string()];
        lines.extend(iter::successors(self.source(), |&error| error.source()).map(ToString::to_string));
        // Some libraries wrap an error in one that says the same.
        lines.dedup();
        lines.join("\n  ")
    }
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

impl From<bench::Error> for Failure {
    fn from(error: bench::Error) -> Self {
        if let bench::Error::Refused(status) = error { Self::Refused(*status) } else { Self::Bench(error) }
    }
}

fn mint_code(error: &MintError) -> u8 {
    match error {
        MintError::NoSecretAlgorithm(_) | MintError::Secret(_) => USAGE,
        MintError::Sign(_) => FAILED,
    }
}

fn bench_code(error: &bench::Error) -> u8 {
    match error {
        bench::Error::Descriptors { .. } | bench::Error::Url(..) => USAGE,
        bench::Error::Mint(error) => mint_code(error),
        bench::Error::Limit(_)
        | bench::Error::Unknown { .. }
        | bench::Error::Prepare { .. }
        | bench::Error::Start(_)
        | bench::Error::Engine(_)
        | bench::Error::EngineStart(_)
        | bench::Error::Peers { .. }
        | bench::Error::NoTime(_)
        | bench::Error::Client(_)
        | bench::Error::Missing { .. }
        | bench::Error::Admin { .. }
        | bench::Error::Connect { .. }
        | bench::Error::Refused(_)
        | bench::Error::WarmUp { .. }
        | bench::Error::Latency(_)
        | bench::Error::Caller(_)
        | bench::Error::Rate(_) => FAILED,
    }
}

/// The code, the message, and the details that help.
fn refusal(status: &Status) -> String {
    let refusal = format!("{}: {}", code_name(status.code()), status.message());
    let violations = status.get_details_bad_request().into_iter().flat_map(|details| details.field_violations);
    let delay = status.get_details_retry_info().and_then(|details| details.retry_delay);
    iter::once(refusal)
        .chain(violations.map(|violation| format!("{}: {}", violation.field, violation.description)))
        .chain(delay.map(|delay| format!("try again in {}", format_duration(delay))))
        .collect::<Vec<_>>()
        .join("\n  ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::Code;
    use tonic_types::ErrorDetails;

    use super::*;
    use crate::message::Fault;

    #[test]
    fn a_refusal_shows_code_message_and_violations() {
        let mut details = ErrorDetails::with_bad_request_violation("event", "is empty: give 1 to 256 bytes");
        details.set_retry_info(Some(Duration::from_secs(2)));
        let status = Status::with_error_details(Code::InvalidArgument, "the request is wrong", details);
        let failure = Failure::from(status);
        assert_eq!(
            failure.report(),
            "INVALID_ARGUMENT: the request is wrong\n  event: is empty: give 1 to 256 bytes\n  try again in 2s"
        );
        assert_eq!(failure.exit_code(), 1);
    }

    #[test]
    fn faults_are_listed_and_end_with_64() {
        let faults = vec![Fault::new("drain.pace", "is 0"), Fault::new("log.level", "is empty")];
        let failure = Failure::from(ConfigError::Faults(faults));
        assert_eq!(failure.report(), "the configuration is not usable:\n  drain.pace: is 0\n  log.level: is empty");
        assert_eq!(failure.exit_code(), 64);
    }

    #[test]
    fn causes_follow_line_by_line() {
        let failure = Failure::Output(io::Error::other("the disk is full"));
        assert_eq!(failure.report(), "cannot write to standard output\n  the disk is full");
    }
}
