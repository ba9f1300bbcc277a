//! What devices may do by sending events: what `[[client_events]]` says, and nothing else.

mod config;
pub use config::{AllowedRooms, ClientEventConfig, RelayConfig, ReplyConfig};

mod argument;
mod rule;
mod text;

use std::{collections::HashMap, time::Duration};

use serde_json::{Map, Value, value::RawValue};

use self::{
    argument::Argument,
    rule::{Action, Message, Reader, Recipient, Rooms, Rule},
    text::Values,
};
use super::{Admission, Commands, Error, messages::MessageEvent};
use crate::auth::{Identity, Place, Template};
use crate::delivery::{DirectAnswer, Granted};
use crate::message::{Audience, Emit, Exceptions, Fault, Payload, RoomName, UserId};
use crate::messages;

/// The most rooms that one event is about: several come of a claim or a role that is a list.
const MAX_ROOMS: usize = 64;

/// The rules for devices' events.
pub struct Rules(HashMap<String, Rule>);

/// Why a device's event came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventRefused {
    /// It is in no rule.
    #[error("no rule allows this event")]
    Unknown,
    /// Its argument is not what the rule takes.
    #[error("{0}")]
    Argument(String),
    /// The device may not do this.
    #[error("{0}")]
    Forbidden(&'static str),
    /// What it asks for is wrong, not there, or cannot be had now: as a backend would be told.
    #[error("{0}")]
    Command(#[from] Error),
    /// The connection has joined as many rooms by events as it may.
    #[error("the connection has joined {0} rooms, which is the most (limits.rooms_per_connection): leave some first")]
    TooManyRooms(usize),
}

impl EventRefused {
    /// The code in the acknowledgement, in logs and in metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown_event",
            Self::Argument(_) => "invalid_argument",
            Self::Forbidden(_) => "forbidden",
            Self::TooManyRooms(_) => "too_many_rooms",
            Self::Command(error) => match error {
                Error::InvalidArgument(_) => "invalid_argument",
                Error::PermissionDenied(_) | Error::Unauthenticated(_) => "forbidden",
                Error::NotFound(_) => "not_found",
                Error::FailedPrecondition(_) => "conflict",
                Error::ResourceExhausted { .. } => "rate",
                Error::Unavailable(_) | Error::DeadlineExceeded => "unavailable",
            },
        }
    }
}

impl EventRefused {
    /// When to try again, if it passes.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Command(Error::ResourceExhausted { retry_after, .. }) => Some(*retry_after),
            Self::Unknown | Self::Argument(_) | Self::Forbidden(_) | Self::Command(_) | Self::TooManyRooms(_) => None,
        }
    }
}

impl Rules {
    /// Reads the rules, or finds all that is wrong with them. `on_connect`: the templates of `auth.rooms`, whose rooms no event
    /// joins or leaves; what is wrong with those is not told here.
    pub fn new(configs: &[ClientEventConfig], on_connect: &[String]) -> Result<Self, Vec<Fault>> {
        let on_connect: Vec<_> =
            on_connect.iter().filter_map(|text| Template::parse(text, Place::Connect).ok()).collect();
        let (mut rules, mut faults) = (HashMap::new(), Vec::new());
        for (index, config) in configs.iter().enumerate() {
            let key = format!("client_events[{index}]");
            let mut reader = Reader { key, on_connect: &on_connect, faults: Vec::new() };
            let rule = reader.read(config);
            faults.append(&mut reader.faults);
            if let Some(first) = configs[..index].iter().position(|other| other.event == config.event) {
                let problem = format!("is that of client_events[{first}]: one rule for each event");
                faults.push(Fault::new(format!("{}.event", reader.key), problem));
            }
            rules.extend(rule.map(|rule| (config.event.clone(), rule)));
        }
        if faults.is_empty() { Ok(Self(rules)) } else { Err(faults) }
    }

    /// The same, with the events of direct messages, if there are any.
    #[must_use]
    pub fn with_messages(mut self, config: &messages::Config) -> Self {
        if config.enabled {
            let claims: Vec<_> = Some(config.claim.clone()).filter(|claim| !claim.is_empty()).into_iter().collect();
            for (name, event) in MessageEvent::all(&config.events) {
                let rule = Rule {
                    roles: Vec::new(),
                    action: Some(Action::Message(event)),
                    reply: None,
                    wanted: Vec::new(),
                    claims: claims.clone(),
                };
                self.0.insert(name.to_owned(), rule);
            }
        }
        self
    }

    /// The claims that the rules name.
    pub fn claims(&self) -> Vec<String> {
        self.0.values().flat_map(|rule| rule.claims.iter().cloned()).collect()
    }
}

impl Commands {
    /// Does what a device asked for by an event. Only the first argument counts. Returns what its acknowledgement says besides
    /// `ok: true`. `answer` acknowledges a direct message in the order of the device's events, if that can be done.
    pub async fn client_event(
        &self,
        admission: &Admission,
        identity: &Identity,
        event: &str,
        argument: Option<&RawValue>,
        answer: Option<DirectAnswer>,
    ) -> Result<Map<String, Value>, EventRefused> {
        let rule = self.rules.0.get(event).ok_or(EventRefused::Unknown)?;
        if !rule.is_for(identity) {
            return Err(EventRefused::Forbidden("the token has none of the roles that the rule wants"));
        }
        if let Some(Action::Message(event)) = rule.action {
            return self.message_event(admission, identity, event, argument, answer).await;
        }
        // Read only where something is taken from it: it is a stranger's.
        let argument = Argument::parse(argument.filter(|_| !rule.wanted.is_empty()))?;
        rule.wanted.iter().try_for_each(|wanted| argument.check(wanted))?;
        let values = Values { identity, argument: &argument };
        match &rule.action {
            Some(Action::Join(rooms)) => self.join_by_event(admission, &values, rooms).await?,
            Some(Action::Leave(template)) => {
                for room in made(template.rooms(|placeholder| values.texts(placeholder), MAX_ROOMS))? {
                    admission.leave(&room);
                }
            }
            Some(Action::Relay(recipient, message)) => self.relay(admission, &values, recipient, message).await?,
            Some(Action::Message(_)) | None => {}
        }
        if let Some(reply) = &rule.reply {
            admission.send(reply.event.clone(), reply.payload(&values));
        }
        Ok(Map::new())
    }

    async fn join_by_event(
        &self,
        admission: &Admission,
        values: &Values<'_>,
        rooms: &Rooms,
    ) -> Result<(), EventRefused> {
        let names = made(rooms.template.rooms(|placeholder| values.texts(placeholder), MAX_ROOMS))?;
        for room in &names {
            self.allow(admission, values.identity, room, rooms.allowed).await?;
        }
        let (present, max) = (admission.rooms(), self.rooms_per_connection);
        let more = names.iter().filter(|room| !present.contains(room)).count();
        // Where the token and backends have put it does not count.
        if more > 0 && admission.rooms_by_events() + more > max {
            return Err(EventRefused::TooManyRooms(max));
        }
        for room in names {
            admission.join(&room).await;
            // A ForbidRoom in between took the right away, but did not see that this connection joined by an event.
            if let Err(refused) = self.allow(admission, values.identity, &room, rooms.allowed).await {
                admission.leave(&room);
                return Err(refused);
            }
        }
        Ok(())
    }

    async fn relay(
        &self,
        admission: &Admission,
        values: &Values<'_>,
        recipient: &Recipient,
        message: &Message,
    ) -> Result<(), EventRefused> {
        let audiences = match recipient {
            Recipient::User(text) => {
                let user = Audience::user_id(&text.text(values));
                vec![user.map_err(|_| EventRefused::Forbidden(NOT_MADE))?]
            }
            Recipient::Rooms(rooms) => {
                let names = made(rooms.template.any_rooms(|placeholder| values.texts(placeholder), MAX_ROOMS))?;
                for room in &names {
                    self.allow(admission, values.identity, room, rooms.allowed).await?;
                }
                names.into_iter().map(Audience::of_room).collect()
            }
        };
        let payload = message.payload(values);
        let alone = audiences.len() == 1;
        for audience in audiences {
            self.send_on(admission, audience, message, payload.clone(), alone).await;
        }
        Ok(())
    }

    async fn send_on(
        &self,
        admission: &Admission,
        audience: Audience,
        message: &Message,
        payload: Payload,
        alone: bool,
    ) {
        let except = Exceptions { connections: vec![admission.id()], ..Exceptions::default() };
        let mut emit = Emit { except, alone, ..Emit::plain(audience, message.event.clone(), payload) };
        self.wrap_as_configured(&mut emit);
        self.relay_emit(emit).await;
    }

    async fn allow(
        &self,
        admission: &Admission,
        identity: &Identity,
        room: &RoomName,
        allowed: AllowedRooms,
    ) -> Result<(), EventRefused> {
        let (is_allowed, problem) = match allowed {
            AllowedRooms::Any => return Ok(()),
            AllowedRooms::Joined => (admission.is_in(room), "the connection is not in the room"),
            AllowedRooms::Granted => (
                identity.may_join(room) || self.delivery.is_allowed(&identity.user, room).await,
                "neither the token nor a backend gives this user the right to the room",
            ),
        };
        if is_allowed { Ok(()) } else { Err(EventRefused::Forbidden(problem)) }
    }

    /// The rooms that a user has the right to join by `AllowRoom`, if any event joins rooms.
    pub(super) async fn granted(&self, user: &UserId) -> Granted {
        let joins =
            |rule: &Rule| matches!(&rule.action, Some(Action::Join(rooms)) if rooms.allowed == AllowedRooms::Granted);
        if !self.rules.0.values().any(joins) {
            return Granted::default();
        }
        self.delivery.granted(user).await
    }

    /// Whether an event would still let a device with this token into a room that it is in.
    pub(super) fn may_stay(&self, identity: &Identity, granted: &Granted, room: &RoomName) -> bool {
        self.rules.0.values().filter(|rule| rule.is_for(identity)).any(|rule| match &rule.action {
            Some(Action::Join(rooms)) => {
                rooms.template.could_make(room, |placeholder| identity.values_of(placeholder), MAX_ROOMS)
                    && (rooms.allowed == AllowedRooms::Any || identity.may_join(room) || granted.has(room))
            }
            Some(Action::Leave(_) | Action::Relay(..) | Action::Message(_)) | None => false,
        })
    }
}

impl Rule {
    fn is_for(&self, identity: &Identity) -> bool {
        self.roles.is_empty() || self.roles.iter().any(|role| identity.roles.iter().any(|own| **own == **role))
    }
}

const NOT_MADE: &str = "of this token and argument no room or user can be made";

fn made<E>(rooms: Result<Vec<RoomName>, E>) -> Result<Vec<RoomName>, EventRefused> {
    rooms.ok().filter(|rooms| !rooms.is_empty()).ok_or(EventRefused::Forbidden(NOT_MADE))
}

#[cfg(test)]
mod tests;
