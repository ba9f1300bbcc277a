use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    InvalidToken,
    claims::Claims,
    placeholder::Placeholder,
    template::{Template, TooManyRooms},
};
use crate::message::{RoomName, RoomPattern, UserId};

/// The most rooms that `auth.rooms` makes of one token.
pub const MAX_ROOMS: usize = 256;

/// Who a device is, by its token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The user's roles, at most 64, each once.
    pub roles: Vec<Arc<str>>,
    /// Every room that the connection joins, each once: the user's, those of the roles, everyone's and at most 256 by
    /// `auth.rooms`.
    pub rooms: Vec<RoomName>,
    /// From this moment on the token is refused: its `exp`, and the leeway after it.
    pub expires_at: Timestamp,
    /// The rooms that the token lets its device join by an event.
    pub(super) allowed_rooms: Box<[RoomPattern]>,
    /// The claims that the rules for devices' events name.
    pub(super) claims: Claims,
}

impl Identity {
    /// Whether the token lets its device join this room by an event.
    pub fn may_join(&self, room: &RoomName) -> bool {
        !room.is_reserved() && self.allowed_rooms.iter().any(|pattern| pattern.matches(room.as_str()))
    }

    /// What the token says of a placeholder: the user, the roles, the texts and integers of a claim.
    pub fn values_of(&self, placeholder: &Placeholder) -> Vec<Cow<'_, str>> {
        values_of(placeholder, &self.user, &self.roles, &self.claims)
    }

    /// A claim that the rules for devices' events name, as it is in the token.
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.claims.find(name)
    }
}

fn values_of<'a>(
    placeholder: &Placeholder,
    user: &'a UserId,
    roles: &'a [Arc<str>],
    claims: &'a Claims,
) -> Vec<Cow<'a, str>> {
    match placeholder {
        Placeholder::User => vec![Cow::Borrowed(user.as_str())],
        Placeholder::Role => roles.iter().map(|role| Cow::Borrowed(&**role)).collect(),
        Placeholder::Claim(name) => claims.texts(name).collect(),
        Placeholder::Argument(_) => Vec::new(),
    }
}

/// The rooms of a user with these roles and claims.
pub fn rooms(
    templates: &[Template],
    user: &UserId,
    roles: &[Arc<str>],
    claims: &Claims,
) -> Result<Vec<RoomName>, InvalidToken> {
    let mut rooms = vec![RoomName::of_user(user)];
    for role in roles {
        rooms.push(RoomName::of_role(role).map_err(|_| InvalidToken::RoleClaim)?);
    }
    rooms.push(RoomName::everyone());

    let mut places = MAX_ROOMS;
    for template in templates {
        let made = template
            .rooms(|placeholder| values_of(placeholder, user, roles, claims), places)
            .map_err(|TooManyRooms| InvalidToken::RoomTemplate)?;
        places -= made.len();
        for room in made {
            if !rooms.contains(&room) {
                rooms.push(room);
            }
        }
    }
    rooms.shrink_to_fit();
    Ok(rooms)
}
