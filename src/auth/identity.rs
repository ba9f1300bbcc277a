use std::{borrow::Cow, sync::Arc};

use jiff::Timestamp;

use super::{
    InvalidToken,
    claims::Claims,
    template::{Placeholder, Template, TooManyRooms},
};
use crate::message::{RoomName, UserId};

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

    let values_of = |placeholder: &Placeholder| match placeholder {
        Placeholder::User => vec![Cow::Borrowed(user.as_str())],
        Placeholder::Role => roles.iter().map(|role| Cow::Borrowed(&**role)).collect(),
        Placeholder::Claim(name) => claims.texts(name).collect(),
    };
    let mut places = MAX_ROOMS;
    for template in templates {
        let made = template.rooms(values_of, places).map_err(|TooManyRooms| InvalidToken::RoomTemplate)?;
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
