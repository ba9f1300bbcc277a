use std::sync::Arc;

use super::{Admission, Commands};
use crate::auth::{Identity, TokenRefused};
use crate::delivery::Connection;
use crate::limits::{ConnectionEvents, Refused};
use crate::message::UserId;

impl Commands {
    /// Tells who a device is, by its token.
    pub fn identify_device(&self, token: Option<&str>) -> Result<Identity, TokenRefused> {
        self.tokens.verify(token)
    }

    /// How much a new connection of this user may send.
    pub fn events_of(&self, user: &UserId) -> ConnectionEvents {
        self.events.connection(user.clone())
    }

    /// Lets a device in, into the rooms of its token and those that backends put its user into.
    pub async fn connect_device(
        &self,
        identity: &Identity,
        connection: Arc<dyn Connection>,
    ) -> Result<Arc<Admission>, Refused> {
        self.connects.take(&identity.user).map_err(Refused::UserConnects)?;
        self.delivery.admit(identity.user.clone(), &identity.rooms, connection).await
    }
}
