use crate::message::{Audience, AudienceKind, Invalid, RoomPattern, UserId};

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
    EmitToRooms(RoomPattern),
    /// `emit:broadcast`: to everyone.
    EmitToEveryone,
    /// `messages`, `messages:PATTERN`: to act for the users that match in direct messages.
    Messages(RoomPattern),
    /// Anything else than emitting.
    Right(Right),
}

/// Rooms that need another scope are refused with what they need.
fn emit_rooms(pattern: &str) -> Result<RoomPattern, Invalid> {
    if pattern.is_empty() {
        return Err(Invalid::new("has no pattern: write emit:room:* for all rooms"));
    }
    if pattern.starts_with("user:") {
        return Err(Invalid::new("matches no room: emitting to a user's room needs emit:user"));
    }
    if pattern == "everyone" {
        return Err(Invalid::new("matches no room: emitting to everyone needs emit:broadcast"));
    }
    RoomPattern::new(pattern)
}

impl Scope {
    /// Reads a scope as it stands in the configuration.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if let Some(pattern) = text.strip_prefix("emit:room:") {
            return emit_rooms(pattern).map(Self::EmitToRooms);
        }
        if let Some(pattern) = text.strip_prefix("messages:") {
            return RoomPattern::new(pattern).map(Self::Messages);
        }
        match text {
            "messages" => RoomPattern::new("*").map(Self::Messages),
            "emit" => Ok(Self::Emit),
            "emit:user" => Ok(Self::EmitToUsers),
            "emit:broadcast" => Ok(Self::EmitToEveryone),
            _ => Right::ALL.into_iter().find(|right| right.as_str() == text).map(Self::Right).ok_or_else(|| {
                let rights = Right::ALL.map(Right::as_str).join(", ");
                Invalid::new(format!("is none of emit, emit:user, emit:room:PATTERN, emit:broadcast, messages, messages:PATTERN, {rights}"))
            }),
        }
    }

    /// Whether an emit to this audience is within the scope.
    pub fn covers(&self, audience: &Audience) -> bool {
        match (self, audience.kind()) {
            (Self::Emit, _)
            | (Self::EmitToUsers, AudienceKind::User)
            | (Self::EmitToEveryone, AudienceKind::Everyone) => true,
            (Self::EmitToRooms(pattern), AudienceKind::Room) => pattern.matches(audience.room().as_str()),
            (
                Self::EmitToUsers | Self::EmitToRooms(_) | Self::EmitToEveryone | Self::Messages(_) | Self::Right(_),
                _,
            ) => false,
        }
    }

    /// Whether it lets a backend act for this user in direct messages.
    pub fn covers_user(&self, user: &UserId) -> bool {
        matches!(self, Self::Messages(pattern) if pattern.matches(user.as_str()))
    }
}

/// The scope that an emit to this audience needs, for people.
pub fn needed(audience: &Audience) -> String {
    match audience.kind() {
        AudienceKind::User => "the scope `emit:user`".to_owned(),
        AudienceKind::Room => format!("the scope `emit:room:{audience}`, or one with a pattern that matches"),
        AudienceKind::Everyone => "the scope `emit:broadcast`".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_that_mean_nothing_are_refused_with_what_would_be_right() {
        let refusal = |text: &str| Scope::parse(text).unwrap_err().to_string();
        let all = "is none of emit, emit:user, emit:room:PATTERN, emit:broadcast, messages, messages:PATTERN, presence, rooms, disconnect, mailbox";
        for text in ["", "Emit", "emit:", "emit:room", "emit:users", "admin", " emit"] {
            assert_eq!(refusal(text), all, "{text}");
        }
        assert_eq!(refusal("emit:room:"), "has no pattern: write emit:room:* for all rooms");
        assert_eq!(refusal("emit:room:user:*"), "matches no room: emitting to a user's room needs emit:user");
        assert_eq!(refusal("emit:room:everyone"), "matches no room: emitting to everyone needs emit:broadcast");
    }
}
