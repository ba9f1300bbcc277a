use std::{borrow::Cow, sync::Arc};

use super::{Admission, Commands};
use crate::auth::{Identity, TokenRefused};
use crate::delivery::{Connection, Resume};
use crate::limits::{ConnectionEvents, LimitExceeded};
use crate::message::{RoomName, UserId};

impl Commands {
    /// Tells who a device is, by its token.
    pub fn identify_device(&self, token: Option<&str>) -> Result<Identity, TokenRefused> {
        self.tokens.verify(token)
    }

    /// How much a new connection of this user may send.
    pub fn events_of(&self, user: &UserId) -> ConnectionEvents {
        self.events.connection(user.clone())
    }

    /// Lets a device in, into the rooms of its token and those that backends put its user into. `resume`: what it says it has seen before;
    /// of the rooms that it names it is in those again that its events could join.
    pub async fn connect_device(
        &self,
        identity: &Identity,
        connection: Arc<dyn Connection>,
        resume: Option<&Resume>,
    ) -> Result<Arc<Admission>, LimitExceeded> {
        self.connects.take(&identity.user).map_err(LimitExceeded::UserConnects)?;
        let mut rooms = Cow::Borrowed(&*identity.rooms);
        if let Some(resume) = resume {
            let is_new = |room: &&RoomName| !identity.rooms.contains(room) && self.may_stay(identity, room);
            let joined = resume.rooms().filter(is_new).take(self.rooms_per_connection).cloned().collect::<Vec<_>>();
            rooms.to_mut().extend(joined);
        }
        self.delivery.admit(identity.user.clone(), &rooms, connection, resume).await
    }
}
