//! Everything that Bugle can be asked to do, one file each, whoever asks: what may be done, by whom, within which limits.

mod error;
pub use error::{Error, Violation};

mod emit;
pub use emit::EmitRequest;

mod envelopes;
pub use envelopes::EnvelopeConfig;

mod emit_to_users;
pub use emit_to_users::EmitToUsers;

mod emit_batch;
mod emit_stream;

mod disconnect_user;
pub use disconnect_user::DisconnectUser;

mod presence;

mod join_room;
pub use join_room::JoinRoom;

mod leave_room;
mod list_rooms;

mod connect_device;

mod refresh_token;
pub use refresh_token::RefreshRefused;

// What edges get and give through commands.
pub use crate::delivery::{Admission, ConnectionInfo, Page, RoomUsers, Stats};

use std::sync::Arc;

use crate::auth::Tokens;
use crate::delivery::Delivery;
use crate::limits::{self, ClientEvents, Meters};
use crate::message::{EventPattern, UserId};

/// Runs commands. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Commands {
    delivery: Delivery,
    tokens: Arc<Tokens>,
    max_payload: usize,
    envelopes: Arc<[EventPattern]>,
    emits: Arc<Meters<Arc<str>>>,
    connects: Arc<Meters<UserId>>,
    client_events: Arc<ClientEvents>,
}

impl Commands {
    /// Commands over this delivery, for devices with these tokens.
    pub fn new(
        delivery: Delivery,
        tokens: Arc<Tokens>,
        limits: &limits::Config,
        envelopes: Vec<EnvelopeConfig>,
    ) -> Self {
        let envelopes = envelopes.into_iter().flat_map(|entry| entry.events).collect();
        Self {
            delivery,
            tokens,
            max_payload: limits.max_payload,
            envelopes,
            emits: Arc::new(Meters::new(limits.emits_per_api_key)),
            connects: Arc::new(Meters::new(limits.connects_per_user)),
            client_events: ClientEvents::new(limits),
        }
    }
}
