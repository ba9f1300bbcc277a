use std::{
    borrow::Borrow,
    fmt,
    sync::{Arc, LazyLock},
};

/// The longest user id, room name or event name, in bytes.
const MAX_NAME: usize = 256;

/// Says what is wrong with a value and what would be right. It does not repeat the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(String);

impl Invalid {
    /// What is wrong, to be read after the field's name: "is empty".
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

fn check(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(format!("is empty: give 1 to {MAX_NAME} bytes")));
    }
    if text.len() > MAX_NAME {
        let length = text.len();
        return Err(Invalid::new(format!("has {length} bytes: at most {MAX_NAME} are allowed")));
    }
    // Nearly all names are of printable ASCII.
    if text.bytes().all(|byte| (b' '..0x7F).contains(&byte)) {
        return Ok(());
    }
    if let Some((offset, _)) = text.char_indices().find(|(_, c)| c.is_control()) {
        return Err(Invalid::new(format!("has a control character at byte {offset}")));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text of it.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// Whoever a token names: 1 to 256 bytes without control characters.
    UserId
}

name! {
    /// A named set of connections: 1 to 256 bytes without control characters.
    RoomName
}

name! {
    /// What a device listens for: 1 to 256 bytes without control characters, and none of the names that Socket.IO or Bugle
    /// keeps for itself.
    EventName
}

impl UserId {
    /// Checks the text.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        check(text)?;
        Ok(Self(text.into()))
    }
}

impl RoomName {
    /// What the names of users' rooms begin with.
    pub const USER: &str = "user:";
    const ROLE: &str = "role:";
    const EVERYONE: &str = "everyone";

    /// Checks the text. The prefix of a user's or a role's room does not count towards the length.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        let own = [Self::USER, Self::ROLE].into_iter().find_map(|prefix| text.strip_prefix(prefix));
        check(own.unwrap_or(text))?;
        Ok(Self(text.into()))
    }

    /// The room of all connections of the user with this id.
    pub fn of_user_id(id: &str) -> Result<Self, Invalid> {
        check(id)?;
        Ok(Self([Self::USER, id].concat().into()))
    }

    /// The room of all connections of a user.
    pub fn of_user(user: &UserId) -> Self {
        // Each emit to a user asks for it, and formatting takes ten times as long.
        Self([Self::USER, user.as_str()].concat().into())
    }

    /// The room of all connections with a role.
    pub fn of_role(role: &str) -> Result<Self, Invalid> {
        check(role)?;
        Ok(Self(format!("{}{role}", Self::ROLE).into()))
    }

    /// The room of all connections.
    pub fn everyone() -> Self {
        // One text for all: each device is in it.
        static NAME: LazyLock<RoomName> = LazyLock::new(|| RoomName(RoomName::EVERYONE.into()));
        NAME.clone()
    }

    /// Whose room this is, when it is a user's.
    pub fn user(&self) -> Option<&str> {
        self.0.strip_prefix(Self::USER)
    }

    /// Whether this is a user's room.
    pub fn is_users(&self) -> bool {
        self.0.len() > Self::USER.len() && self.0.starts_with(Self::USER)
    }

    /// Whether this is the room of all connections.
    pub fn is_everyone(&self) -> bool {
        &*self.0 == Self::EVERYONE
    }

    /// Whether Bugle alone decides who is in this room.
    pub fn is_reserved(&self) -> bool {
        self.is_everyone() || self.0.starts_with(Self::USER) || self.0.starts_with(Self::ROLE)
    }
}

impl EventName {
    /// Checks the name of an event that a backend emits.
    pub fn new(text: &str) -> Result<Self, Invalid> {
        check(text)?;
        if RESERVED_EVENTS.contains(&text) {
            return Err(Invalid::new("is one of Socket.IO's own events: choose another name"));
        }
        if text.starts_with(OWN_EVENTS) {
            return Err(Invalid::new("begins with `bugle:`, which is for Bugle's own events: choose another name"));
        }
        Ok(Self(text.into()))
    }

    /// Checks the name of an event that another node sends, which may be one of Bugle's own.
    pub fn of_peer(text: &str) -> Result<Self, Invalid> {
        if text.starts_with(OWN_EVENTS) { check(text).map(|()| Self::own(text)) } else { Self::new(text) }
    }

    /// The name of one of Bugle's own events, or of the welcome event.
    pub fn own(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether this is one of Bugle's own events: no backend emits it.
    pub fn is_own(&self) -> bool {
        self.0.starts_with(OWN_EVENTS)
    }
}

/// The names that a Socket.IO client gives to events of its own, so that no emit can be told from them.
const RESERVED_EVENTS: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];
const OWN_EVENTS: &str = "bugle:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_refused_with_what_is_wrong() {
        let refusal = |text: &str| UserId::new(text).unwrap_err().to_string();
        assert_eq!(refusal(""), "is empty: give 1 to 256 bytes");
        assert_eq!(refusal(&"é".repeat(129)), "has 258 bytes: at most 256 are allowed");
        assert_eq!(refusal("ab\ncd"), "has a control character at byte 2");
        assert!(UserId::new(&"a".repeat(256)).is_ok());
    }

    #[test]
    fn reserved_events_are_refused() {
        for name in RESERVED_EVENTS.into_iter().chain(["bugle:", "bugle:disconnect"]) {
            assert!(EventName::new(name).is_err(), "{name}");
        }
        assert!(EventName::new("connected").is_ok());
    }

    #[test]
    fn reserved_rooms_are_known() {
        for name in ["everyone", "user:42", "role:admin"] {
            assert!(RoomName::new(name).unwrap().is_reserved(), "{name}");
        }
        assert!(!RoomName::new("users").unwrap().is_reserved());
        assert_eq!(RoomName::new("user:42").unwrap().user(), Some("42"));
        assert!(RoomName::new("user:").is_err(), "nobody's room");
    }
}
