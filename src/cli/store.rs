use clap::Subcommand;

use super::{ConfigFile, Failure, check_config::checked, keep_files_private, print};
use crate::app;
use crate::config::Config;

/// `bugle store`.
#[derive(Subcommand)]
pub enum Store {
    /// Tell every device that comes back that it may have missed something: after a backup was restored in a way that Bugle cannot notice. Bugle
    /// must not run meanwhile.
    NewEpoch {
        #[command(flatten)]
        file: ConfigFile,
    },
}

impl Store {
    /// Changes the store that the configuration names.
    pub async fn execute(self) -> Result<(), Failure> {
        let Self::NewEpoch { file } = self;
        keep_files_private();
        let (config, _) = checked(Config::read(file.path.as_deref())?, false)?;
        app::begin_new_epoch(&config).await.map_err(Failure::Store)?;
        print("the store begins a new epoch: devices that come back are told that they may have missed something\n")
    }
}
