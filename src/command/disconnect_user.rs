use super::{Commands, Error};
use crate::auth::{Caller, Right};
use crate::message::{CloseCode, CloseReason, ConnectionId, UserId};

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
    pub fn disconnect_user(&self, caller: &Caller, command: DisconnectUser) -> Result<usize, Error> {
        caller.may(Right::Disconnect)?;
        let reason = if command.reason.is_empty() {
            CloseCode::Disconnected.into()
        } else {
            CloseReason::new(CloseCode::Disconnected, command.reason)
        };
        Ok(self.delivery.disconnect_user(&command.user, &reason, &command.except))
    }
}
