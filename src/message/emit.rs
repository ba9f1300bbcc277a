use std::{fmt, sync::Arc, time::Duration};

use super::{AckRequest, ConnectionId, EventName, Invalid, Payload, RoomName, UserId};

/// Whom an emit is for: the connections of a room. `user:42` is user 42, `everyone` is everyone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Audience(RoomName);

/// What kind of room an audience is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AudienceKind {
    /// Every connection of a user.
    User,
    /// Every connection in a room.
    Room,
    /// Every connection.
    Everyone,
}

impl Audience {
    /// Every connection of a user.
    pub fn user(user: &UserId) -> Self {
        Self(RoomName::of_user(user))
    }

    /// Every connection of the user with this id.
    pub fn user_id(id: &str) -> Result<Self, Invalid> {
        RoomName::of_user_id(id).map(Self)
    }

    /// Every connection in a room.
    pub fn of_room(room: RoomName) -> Self {
        Self(room)
    }

    /// Every connection.
    pub fn everyone() -> Self {
        Self(RoomName::everyone())
    }

    /// The room whose members the audience is.
    pub fn room(&self) -> &RoomName {
        &self.0
    }

    /// What kind of room it is.
    pub fn kind(&self) -> AudienceKind {
        match () {
            () if self.0.is_everyone() => AudienceKind::Everyone,
            () if self.0.is_users() => AudienceKind::User,
            () => AudienceKind::Room,
        }
    }
}

impl AudienceKind {
    /// The name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Room => "room",
            Self::Everyone => "everyone",
        }
    }
}

/// By the name of its room: `user:42`, `listing:7`, `everyone`.
impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
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

    /// What they take up, in bytes.
    pub fn bytes(&self) -> usize {
        let rooms = self.rooms.iter().map(|room| size_of::<RoomName>() + room.as_str().len());
        size_of_val(&*self.connections) + bytes_of_users(&self.users) + rooms.sum::<usize>()
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

impl Emit {
    /// An emit without options.
    pub fn plain(audience: Audience, event: EventName, payload: Payload) -> Self {
        Self {
            audience,
            except: Exceptions::default(),
            event,
            payload,
            volatile: false,
            envelope: false,
            retain: false,
            store: false,
            ttl: None,
            collapse_key: None,
            ack: None,
            alone: true,
        }
    }

    /// About what it takes up while it waits, in bytes.
    pub fn bytes(&self) -> usize {
        let texts =
            [self.audience.room().as_str(), self.event.as_str(), self.collapse_key.as_deref().unwrap_or_default()];
        let texts: usize = texts.iter().map(|text| text.len()).sum();
        size_of::<Self>() + texts + self.payload.len() + self.except.bytes()
    }
}

/// What users' ids take up, in bytes.
pub fn bytes_of_users(users: &[UserId]) -> usize {
    users.iter().map(|user| size_of::<UserId>() + user.as_str().len()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_room_is_the_user() {
        let kind = |room| Audience::of_room(RoomName::new(room).unwrap()).kind();
        assert_eq!(kind("user:42"), AudienceKind::User);
        assert_eq!(kind("everyone"), AudienceKind::Everyone);
        assert_eq!(kind("users"), AudienceKind::Room);
        let user = Audience::user(&UserId::new("42").unwrap());
        assert_eq!((user.room().as_str(), Audience::user_id("42").unwrap()), ("user:42", user.clone()));
    }
}
