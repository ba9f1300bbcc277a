use std::sync::Arc;

use super::{Admission, Commands, Error, emits::audit_refusal};
use crate::auth::{Caller, Identity, Right, TokenRefused};
use crate::delivery::{Connection, Resume};
use crate::limits::{ConnectionEvents, LimitExceeded};
use crate::message::{Audience, CloseCode, CloseReason, ConnectionId, OfNodes, RoomName, UserId};
use crate::telemetry::audit;

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
        let event_rooms: Vec<_> = match resume {
            None => Vec::new(),
            Some(resume) => {
                let granted = self.granted(&identity.user).await;
                let is_joined =
                    |room: &&RoomName| !identity.rooms.contains(room) && self.may_stay(identity, &granted, room);
                resume.rooms().filter(is_joined).take(self.rooms_per_connection).cloned().collect()
            }
        };
        let resume = resume.map(|resume| (resume, &*event_rooms));
        let admission = self.delivery.admit(identity.user.clone(), &identity.rooms, connection, resume).await?;
        // A ForbidRoom in between took the right away, but did not see this connection in the room.
        if !event_rooms.is_empty() {
            let granted = self.granted(&identity.user).await;
            for room in event_rooms.iter().filter(|room| !self.may_stay(identity, &granted, room)) {
                admission.leave(room);
            }
        }
        Ok(admission)
    }
}

/// Why a live connection keeps its old token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RefreshRefused {
    /// The new token is no good.
    #[error("{0}")]
    Token(TokenRefused),
    /// The new token is another user's.
    #[error("the token names another user")]
    OtherUser,
}

impl Commands {
    /// Replaces a live connection's token: the rooms that only the old one gave are left, those of the new one joined. Rooms
    /// that the device joined by an event are left unless it still might.
    pub async fn refresh_token(
        &self,
        admission: &Admission,
        old: &Identity,
        token: Option<&str>,
    ) -> Result<Identity, RefreshRefused> {
        let new = self.tokens.verify(token).map_err(RefreshRefused::Token)?;
        if new.user != old.user {
            return Err(RefreshRefused::OtherUser);
        }
        let granted = self.granted(&new.user).await;
        let may_stay = |room: &RoomName| self.may_stay(&new, &granted, room);
        self.delivery.replace_rooms(admission, &old.rooms, &new.rooms, may_stay).await;
        Ok(new)
    }
}

/// Closes the connections of a user.
#[derive(Clone, Debug)]
pub struct DisconnectUser {
    /// Whose.
    pub user: UserId,
    /// Why, for the devices; empty: nothing particular.
    pub reason: String,
    /// Those that stay.
    pub except: Vec<ConnectionId>,
}

impl Commands {
    /// Closes the connections of a user and says how many that were. Official clients do not come back by themselves.
    pub async fn disconnect_user(&self, caller: &Caller, command: DisconnectUser) -> Result<OfNodes<usize>, Error> {
        let audience = Audience::user(&command.user);
        let allowed = caller.may(Right::Disconnect).map_err(Error::from);
        allowed.inspect_err(|error| audit_refusal(&caller.name, Some(&audience), None, error))?;
        let reason = if command.reason.is_empty() {
            CloseCode::Disconnected.into()
        } else {
            CloseReason::new(CloseCode::Disconnected, command.reason)
        };
        let disconnected = self.delivery.disconnect_user(&command.user, &reason, &command.except).await?;
        audit::user_disconnected(&caller.name, &audience, &reason.text, disconnected.answer);
        Ok(disconnected)
    }
}

/// Why a device does not get what it asks for over HTTP.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeviceRefused {
    /// Its token is no good.
    #[error("{0}")]
    Token(TokenRefused),
    /// The room is not one of the token's.
    #[error("this room is not one of the token's")]
    NotYourRoom,
    /// What it asks for is wrong, not there, or cannot be had now: as a backend would be told.
    #[error("{0}")]
    Error(Error),
}

impl From<TokenRefused> for DeviceRefused {
    fn from(refused: TokenRefused) -> Self {
        Self::Token(refused)
    }
}

impl From<Error> for DeviceRefused {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

impl Commands {
    /// Who a device is, and which of its token's rooms it means; without a room, its user's.
    pub(super) async fn identify_device_in(
        &self,
        token: Option<&str>,
        room: Option<&str>,
    ) -> Result<(Identity, RoomName), DeviceRefused> {
        let identity = self.identify_device(token)?;
        let rooms = self.delivery.rooms_of(&identity.user, &identity.rooms).await;
        let room = match room {
            None => RoomName::of_user(&identity.user),
            Some(name) => rooms.into_iter().find(|room| room.as_str() == name).ok_or(DeviceRefused::NotYourRoom)?,
        };
        Ok((identity, room))
    }
}
