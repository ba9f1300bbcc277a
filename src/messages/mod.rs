//! Direct messages: what users write to each other, with history, read receipts and typing indicators. Off unless `[messages] enabled = true`.
//!
//! A message is stored with its entries in both users' mailboxes, see `store/direct`, and published to the devices of both. That it was read or
//! deleted is published to the devices that are connected; others read it over REST. Here are the rules of the domain; who asks, and by which token
//! or key, is the business of `command`.
//!
//! Not here: encryption, attachments, groups, calls and search.

mod config;
pub use config::{Config, EventNames, FieldNames, Policy};

mod error;
pub use error::{Error, Field};

mod wire;
pub use wire::{ConversationBody, MessageBody};

mod send;
pub use send::{SendMessage, Sent};

mod lists;

mod reading;

mod deleting;

mod typing;

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use self::typing::Typists;
use crate::delivery::Delivery;
use crate::lifecycle::Lifecycle;
use crate::limits::Meters;
use crate::message::{Audience, ConnectionId, Emit, EventName, Exceptions, Fault, Invalid, Payload, UserId};
use crate::store::{DirectRetention, Store};

/// The longest text, in characters (Unicode scalar values).
pub const MAX_CONTENT: usize = 4_000;
/// The longest page of a list.
pub const MAX_PAGE: u32 = 100;
/// The largest offset of a page. What is farther back is reached by what it is before.
pub const MAX_OFFSET: u32 = 10_000;

/// Runs what is asked of direct messages. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Messages {
    inner: Arc<Inner>,
}

struct Inner {
    delivery: Delivery,
    store: Store,
    config: Config,
    events: Events,
    sends: Meters<UserId>,
    conversations: Meters<(UserId, UserId)>,
    typists: Typists,
    lifecycle: Lifecycle,
    /// The sender of events, in the place of an API key.
    caller: Arc<str>,
}

/// The events that devices get.
struct Events {
    received: EventName,
    read: EventName,
    deleted: EventName,
    typing_start: EventName,
    typing_stop: EventName,
}

impl Events {
    fn new(names: &EventNames) -> Result<Self, Invalid> {
        Ok(Self {
            received: EventName::new(&names.received)?,
            read: EventName::new(&names.read)?,
            deleted: EventName::new(&names.deleted)?,
            typing_start: EventName::new(&names.typing_start)?,
            typing_stop: EventName::new(&names.typing_stop)?,
        })
    }
}

impl Messages {
    /// Messages in this store. Fails if an event has no good name, which the configuration's check has told of before.
    pub fn new(config: Config, delivery: Delivery, store: Store, lifecycle: Lifecycle) -> Result<Self, Fault> {
        let events =
            Events::new(&config.events).map_err(|invalid| Fault::new("messages.events", invalid.to_string()))?;
        let (sends, conversations) = (Meters::new(config.rate), Meters::new(config.conversation_rate));
        let (typists, caller) = (Typists::default(), Arc::from("messages"));
        let inner = Inner { delivery, store, config, events, sends, conversations, typists, lifecycle, caller };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// `[messages]`.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// Sends an event to the devices of a user that are connected. Nothing is kept of it.
    async fn tell(&self, user: &UserId, event: &EventName, payload: Payload, except: Option<ConnectionId>) {
        let except = Exceptions { connections: except.into_iter().collect(), ..Exceptions::default() };
        let emit = Emit { except, ..Emit::plain(Audience::user(user), event.clone(), payload) };
        if let Err(error) = self.inner.delivery.publish_after_stored(&self.inner.caller, emit).await {
            tracing::warn!(%error, event.name = %event, "devices are not told what became of a direct message");
        }
    }
}

impl Config {
    /// How long messages are kept. `None`: there are none.
    pub fn retention(&self) -> Option<DirectRetention> {
        let Self { max_age, max_messages, .. } = *self;
        self.enabled.then_some(DirectRetention { max_age, max_messages })
    }
}

/// A time as devices are told it: RFC 3339 with milliseconds, UTC.
fn time_text(ms: i64) -> String {
    format!("{:.3}", Timestamp::from_millisecond(ms).unwrap_or_default())
}

/// How long a device types without another sign of it.
const TYPING: Duration = Duration::from_secs(5);
