use std::sync::Arc;

use super::Error;
use crate::auth::Tokens;
use crate::command::{self, Commands, Rules};
use crate::config::Config;
use crate::delivery::Delivery;
use crate::lifecycle::Lifecycle;
use crate::messages::Messages;
use crate::store::Store;

/// What Bugle can be asked to do.
pub(super) fn commands(
    config: &Config,
    delivery: Delivery,
    store: Option<Store>,
    (tokens, rules): (Arc<Tokens>, Rules),
    lifecycle: Lifecycle,
) -> Result<Commands, Error> {
    let (limits, envelopes) = (&config.limits, &*config.envelopes);
    let messages = store
        .clone()
        .filter(|_| config.messages.enabled)
        .map(|store| Messages::new(config.messages.clone(), delivery.clone(), store, lifecycle.clone()));
    let messages = messages.transpose().map_err(|fault| Error::Faults(vec![fault]))?;
    Ok(Commands::new(command::Deps { delivery, store, messages, tokens, rules, limits, envelopes, lifecycle }))
}
