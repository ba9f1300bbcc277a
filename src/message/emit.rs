use std::{fmt, sync::Arc, time::Duration};

use super::{AckRequest, ConnectionId, EventName, Payload, RoomName, UserId};

/// Whom an emit is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Audience {
    /// Every connection of a user.
    User(UserId),
    /// Every connection in a room.
    Room(RoomName),
    /// Every connection.
    Everyone,
}

impl Audience {
    /// The audience that a room stands for: `user:42` is user 42, `everyone` is everyone.
    pub fn of_room(room: RoomName) -> Self {
        if room.is_everyone() {
            return Self::Everyone;
        }
        match room.user().map(UserId::new) {
            Some(Ok(user)) => Self::User(user),
            Some(Err(_)) | None => Self::Room(room),
        }
    }

    /// The room whose members the audience is.
    pub fn room(&self) -> RoomName {
        match self {
            Self::User(user) => RoomName::of_user(user),
            Self::Room(room) => room.clone(),
            Self::Everyone => RoomName::everyone(),
        }
    }

    /// The name in logs and metrics.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Room(_) => "room",
            Self::Everyone => "everyone",
        }
    }
}

/// By the name of its room: `user:42`, `listing:7`, `everyone`.
impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.room().fmt(f)
    }
}

/// Who of the audience is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exceptions {
    /// These connections.
    pub connections: Vec<ConnectionId>,
    /// All connections of these users.
    pub users: Vec<UserId>,
    /// All connections in these rooms.
    pub rooms: Vec<RoomName>,
}

impl Exceptions {
    /// Whether nobody is left out.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty() && self.users.is_empty() && self.rooms.is_empty()
    }
}

/// One instruction to send an event to an audience.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_excessive_bools, reason = "the API has nearly as many")]
pub struct Emit {
    /// Whom it is for.
    pub audience: Audience,
    /// Who of them is left out.
    pub except: Exceptions,
    /// What the devices listen for.
    pub event: EventName,
    /// The event's argument.
    pub payload: Payload,
    /// A full queue loses the event instead of the connection.
    pub volatile: bool,
    /// Wrap the payload as `{ event, timestamp, data }`.
    pub envelope: bool,
    /// Keep the payload as the room's last value of this event.
    pub retain: bool,
    /// Keep the message in the room's mailbox, on disk, before it is sent.
    pub store: bool,
    /// How long the message is worth delivering; none: as long as it is kept.
    pub ttl: Option<Duration>,
    /// A later emit of this event to this audience with the same key takes this one's place.
    pub collapse_key: Option<Arc<str>>,
    /// The devices are asked for acknowledgements. Most emits ask for none, and are to be small.
    pub ack: Option<Box<AckRequest>>,
    /// No others come along with it, in whose company it could be written.
    pub alone: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_room_is_the_user() {
        let audience = |room| Audience::of_room(RoomName::new(room).unwrap());
        assert_eq!(audience("user:42"), Audience::User(UserId::new("42").unwrap()));
        assert_eq!(audience("everyone"), Audience::Everyone);
        assert_eq!(audience("users"), Audience::Room(RoomName::new("users").unwrap()));
        assert_eq!(audience("user:42").room().as_str(), "user:42");
    }
}
