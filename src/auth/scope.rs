use crate::message::{Audience, Invalid};

/// What a backend may do besides emitting: each is a scope of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// `presence`: ask who is online.
    Presence,
    /// `rooms`: make users join and leave rooms, and list them.
    Rooms,
    /// `disconnect`: end a user's connections.
    Disconnect,
    /// `mailbox`: read and change stored messages.
    Mailbox,
}

impl Right {
    const ALL: [Self; 4] = [Self::Presence, Self::Rooms, Self::Disconnect, Self::Mailbox];

    /// The scope's name in the configuration.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Presence => "presence",
            Self::Rooms => "rooms",
            Self::Disconnect => "disconnect",
            Self::Mailbox => "mailbox",
        }
    }
}

/// An API key that may not do what was asked: which key, and the scope that it would need.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MissingScope(pub String);

/// One entry of an API key's `scopes`.
#[derive(Debug, PartialEq, Eq)]
pub enum Scope {
    /// `emit`: to anybody.
    Emit,
    /// `emit:user`: to single users.
    EmitToUsers,
    /// `emit:room:PATTERN`: to the rooms that match, of which a user's and everyone's are none.
    EmitToRooms(Pattern),
    /// `emit:broadcast`: to everyone.
    EmitToEveryone,
    /// Anything else than emitting.
    Right(Right),
}

impl Scope {
    /// Reads a scope as it stands in the configuration.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if let Some(pattern) = text.strip_prefix("emit:room:") {
            return Pattern::parse(pattern).map(Self::EmitToRooms);
        }
        match text {
            "emit" => Ok(Self::Emit),
            "emit:user" => Ok(Self::EmitToUsers),
            "emit:broadcast" => Ok(Self::EmitToEveryone),
            _ => Right::ALL.into_iter().find(|right| right.as_str() == text).map(Self::Right).ok_or_else(|| {
                let rights = Right::ALL.map(Right::as_str).join(", ");
                Invalid::new(format!("is none of emit, emit:user, emit:room:PATTERN, emit:broadcast, {rights}"))
            }),
        }
    }

    /// Whether an emit to this audience is within the scope.
    pub fn covers(&self, audience: &Audience) -> bool {
        match (self, audience) {
            (Self::Emit, _) | (Self::EmitToUsers, Audience::User(_)) | (Self::EmitToEveryone, Audience::Everyone) => {
                true
            }
            (Self::EmitToRooms(pattern), Audience::Room(room)) => pattern.matches(room.as_str()),
            (Self::EmitToUsers | Self::EmitToRooms(_) | Self::EmitToEveryone | Self::Right(_), _) => false,
        }
    }
}

/// The scope that an emit to this audience needs, for people.
pub fn needed(audience: &Audience) -> String {
    match audience {
        Audience::User(_) => "the scope `emit:user`".to_owned(),
        Audience::Room(room) => format!("the scope `emit:room:{room}`, or one with a pattern that matches"),
        Audience::Everyone => "the scope `emit:broadcast`".to_owned(),
    }
}

/// Room names, with `*` for any text, the empty one too.
#[derive(Debug, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("has no pattern: write emit:room:* for all rooms"));
        }
        if text.starts_with("user:") {
            return Err(Invalid::new("matches no room: emitting to a user's room needs emit:user"));
        }
        if text == "everyone" {
            return Err(Invalid::new("matches no room: emitting to everyone needs emit:broadcast"));
        }
        Ok(Self(text.to_owned()))
    }

    fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return self.0 == name;
        };
        let Some(name) = name.strip_prefix(first) else {
            return false;
        };
        let (middle, last) = rest.rsplit_once('*').unwrap_or(("", rest));
        let Some(mut name) = name.strip_suffix(last) else {
            return false;
        };
        // What the leftmost match leaves is the most that there can be for the next piece.
        middle.split('*').all(|piece| match name.split_once(piece) {
            Some((_, left)) => {
                name = left;
                true
            }
            None => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        let matches = |pattern: &str, name: &str| Pattern::parse(pattern).unwrap().matches(name);
        let yes = [
            ("*", "a"),
            ("*", "a:b:c"),
            ("lobby", "lobby"),
            ("listing:*", "listing:1:bids"),
            ("listing:*", "listing:"),
            ("*:news", "org:1:news"),
            ("org:*:news", "org:1:news"),
            ("org:*:*:news", "org:1:2:news"),
            ("a*b*c*d", "a-b-b-c-d-d"),
            ("a**b", "ab"),
            ("a*é*", "aéé"),
        ];
        for (pattern, name) in yes {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        let no = [
            ("lobby", "lobby2"),
            ("listing:*", "listings:1"),
            ("*:news", "org:news:1"),
            ("org:*:news", "org:news"),
            ("a*a", "a"),
            ("a*b*b", "ab"),
            ("a*c*b*d", "a-b-c-d"),
            ("Lobby", "lobby"),
        ];
        for (pattern, name) in no {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn scopes_that_mean_nothing_are_refused_with_what_would_be_right() {
        let refusal = |text: &str| Scope::parse(text).unwrap_err().to_string();
        let all = "is none of emit, emit:user, emit:room:PATTERN, emit:broadcast, presence, rooms, disconnect, mailbox";
        for text in ["", "Emit", "emit:", "emit:room", "emit:users", "admin", " emit"] {
            assert_eq!(refusal(text), all, "{text}");
        }
        assert_eq!(refusal("emit:room:"), "has no pattern: write emit:room:* for all rooms");
        assert_eq!(refusal("emit:room:user:*"), "matches no room: emitting to a user's room needs emit:user");
        assert_eq!(refusal("emit:room:everyone"), "matches no room: emitting to everyone needs emit:broadcast");
    }
}
