//! Everything that Bugle can be asked to do, a file per service: what may be done, by whom, within which limits.

mod error;
pub use error::{Error, Violation};

mod emits;
pub use emits::{Answer, EmitRequest, EmitStream, EmitToUsers, EnvelopeConfig};

mod rooms;
pub use rooms::JoinRoom;

mod presence;

mod mailbox;
pub use mailbox::{DeleteMessages, ListMessages, ListedMessage, MarkRead, MessagePage};

mod messages;
pub use messages::{Erased, MAX_READ_IDS, MessageDevice, MessageEvent, NewMessage, parse_before};

mod devices;
pub use devices::{DeviceRefused, DisconnectUser, RefreshRefused};

mod client_events;
pub use client_events::{AllowedRooms, ClientEventConfig, EventRefused, RelayConfig, ReplyConfig, Rules};

// What edges get and give through commands.
pub use crate::delivery::{Admission, DirectAnswer, Resume};
pub use crate::messages::{FieldNames, MAX_PAGE as MAX_DIRECT_PAGE, SendMessage, Sent};
pub use crate::store::{Before, Conversation, DirectPage, Of};

use std::sync::Arc;

use crate::auth::Tokens;
use crate::delivery::Delivery;
use crate::lifecycle::Lifecycle;
use crate::limits::{self, ClientEvents, Meters};
use crate::message::{EventPattern, UserId};
use crate::messages::Messages;
use crate::store::Store;

/// Runs commands. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Commands {
    delivery: Delivery,
    store: Option<Store>,
    messages: Option<Messages>,
    tokens: Arc<Tokens>,
    rules: Arc<Rules>,
    max_payload: usize,
    rooms_per_connection: usize,
    envelopes: Arc<[EventPattern]>,
    emits: Arc<Meters<Arc<str>>>,
    connects: Arc<Meters<UserId>>,
    events: Arc<ClientEvents>,
    lifecycle: Lifecycle,
    /// The sender of devices' events, in the place of an API key.
    devices: Arc<str>,
}

/// What commands work with.
pub struct Deps<'a> {
    /// Delivers what is sent, and knows who is there.
    pub delivery: Delivery,
    /// The mailboxes, if there are any.
    pub store: Option<Store>,
    /// Direct messages, if there are any.
    pub messages: Option<Messages>,
    /// Tells who devices are.
    pub tokens: Arc<Tokens>,
    /// What devices' events do.
    pub rules: Rules,
    /// `[limits]`.
    pub limits: &'a limits::Config,
    /// `[[envelopes]]`.
    pub envelopes: &'a [EnvelopeConfig],
    /// Runs what is to be completed even if its caller disconnects.
    pub lifecycle: Lifecycle,
}

impl Commands {
    /// Wires the commands.
    pub fn new(deps: Deps<'_>) -> Self {
        let Deps { delivery, store, messages, tokens, rules, limits, envelopes, lifecycle } = deps;
        Self {
            delivery,
            store,
            messages,
            tokens,
            rules: Arc::new(rules),
            max_payload: limits.max_payload,
            rooms_per_connection: limits.rooms_per_connection as usize,
            envelopes: envelopes.iter().flat_map(|entry| entry.events.iter().cloned()).collect(),
            emits: Arc::new(Meters::new(limits.emits_per_api_key)),
            connects: Arc::new(Meters::new(limits.connects_per_user)),
            events: ClientEvents::new(limits),
            lifecycle,
            devices: "devices".into(),
        }
    }
}
