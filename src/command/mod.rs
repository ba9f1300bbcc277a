//! Everything that Bugle can be asked to do, a file per service: what may be done, by whom, within which limits.

mod error;
pub use error::{Error, Violation};

mod emits;
pub use emits::{EmitRequest, EmitToUsers, EnvelopeConfig};

mod rooms;
pub use rooms::JoinRoom;

mod presence;

mod mailbox;
pub use mailbox::{DeleteMessages, ListMessages, ListedMessage, MarkRead, MessagePage};

mod devices;
pub use devices::{DeviceRefused, DisconnectUser, RefreshRefused};

mod client_events;
pub use client_events::{AllowedRooms, ClientEventConfig, EventRefused, RelayConfig, ReplyConfig, Rules};

// What edges get and give through commands.
pub use crate::delivery::{Admission, ConnectionInfo, Page, Resume, RoomUsers, Stats};

use std::sync::Arc;

use crate::auth::Tokens;
use crate::delivery::Delivery;
use crate::limits::{self, ClientEvents, Meters};
use crate::message::{EventPattern, UserId};
use crate::store::Store;

/// Runs commands. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Commands {
    delivery: Delivery,
    store: Option<Store>,
    tokens: Arc<Tokens>,
    rules: Arc<Rules>,
    max_payload: usize,
    rooms_per_connection: usize,
    envelopes: Arc<[EventPattern]>,
    emits: Arc<Meters<Arc<str>>>,
    connects: Arc<Meters<UserId>>,
    events: Arc<ClientEvents>,
}

impl Commands {
    /// Commands over this delivery and this store, if there is one, for devices with these tokens, whose events do what these rules say.
    pub fn new(
        delivery: Delivery,
        store: Option<Store>,
        tokens: Arc<Tokens>,
        rules: Rules,
        limits: &limits::Config,
        envelopes: &[EnvelopeConfig],
    ) -> Self {
        Self {
            delivery,
            store,
            tokens,
            rules: Arc::new(rules),
            max_payload: limits.max_payload,
            rooms_per_connection: limits.rooms_per_connection as usize,
            envelopes: envelopes.iter().flat_map(|entry| entry.events.iter().cloned()).collect(),
            emits: Arc::new(Meters::new(limits.emits_per_api_key)),
            connects: Arc::new(Meters::new(limits.connects_per_user)),
            events: ClientEvents::new(limits),
        }
    }
}
