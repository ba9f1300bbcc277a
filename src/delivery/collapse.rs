use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{
    Delivery,
    emit::{Accepted, Refused},
};
use crate::message::{EventName, Receipt, RoomName};

/// `[collapse]`: of emits that follow each other quickly under one key, the first goes at once and then the last of each window.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct CollapseConfig {
    /// How long a window is.
    #[serde(with = "humantime_serde")]
    pub window: Duration,
    /// Keys with an open window at one time.
    pub max_keys: usize,
}

/// The open windows.
pub(super) struct Collapse {
    config: CollapseConfig,
    windows: Mutex<HashMap<Key, Option<Accepted>>>,
}

/// What a window is for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    room: RoomName,
    event: EventName,
    name: Arc<str>,
}

impl Collapse {
    pub(super) fn new(config: CollapseConfig) -> Self {
        Self { config, windows: Mutex::default() }
    }

    /// Gives the emit back if it opens a window, and so goes at once; else it waits for the window's end.
    fn offer(&self, key: &Key, accepted: Accepted) -> Result<Option<Accepted>, Refused> {
        let mut windows = self.windows.lock();
        let full = windows.len() >= self.config.max_keys;
        match windows.entry(key.clone()) {
            Entry::Occupied(mut window) => {
                window.insert(Some(accepted));
                Ok(None)
            }
            Entry::Vacant(_) if full => Err(Refused::CollapseFull { retry_after: self.config.window }),
            Entry::Vacant(window) => {
                window.insert(None);
                Ok(Some(accepted))
            }
        }
    }

    /// The emit that waits for the window's end; then another window follows. If none waits, the window closes.
    fn next(&self, key: &Key) -> Option<Accepted> {
        match self.windows.lock().entry(key.clone()) {
            Entry::Occupied(mut window) => {
                let waiting = window.get_mut().take();
                if waiting.is_none() {
                    window.remove();
                }
                waiting
            }
            Entry::Vacant(_) => None,
        }
    }
}

impl Delivery {
    /// Sends an emit with a collapse key, or lets it wait.
    pub(super) async fn collapse(&self, accepted: Accepted, name: Arc<str>) -> Result<Receipt, Refused> {
        let key = Key { room: accepted.emit.audience.room(), event: accepted.emit.event.clone(), name };
        let message_id = accepted.message_id;
        match self.inner.collapse.offer(&key, accepted)? {
            None => Ok(Receipt { deferred: true, ..Receipt::new(message_id) }),
            Some(accepted) => {
                let receipt = self.send(accepted).await;
                let delivery = self.clone();
                self.inner.lifecycle.spawn(async move { delivery.keep_window(&key).await });
                receipt
            }
        }
    }

    async fn keep_window(&self, key: &Key) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.inner.collapse.config.window) => {}
                // Nothing that waits is lost to a stop.
                () = self.inner.lifecycle.stopping() => {}
            }
            let Some(accepted) = self.inner.collapse.next(key) else {
                return;
            };
            if let Err(refused) = self.send(accepted).await {
                tracing::warn!(error = %refused, event.name = %key.event, "a deferred emit could not be sent");
            }
        }
    }
}
