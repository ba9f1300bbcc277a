use super::{Commands, Error, emit::audit_refusal};
use crate::auth::{Caller, Right};
use crate::message::{Audience, CloseCode, CloseReason, ConnectionId, UserId};
use crate::telemetry::audit;

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
        let audience = Audience::User(command.user.clone());
        let allowed = caller.may(Right::Disconnect).map_err(Error::from);
        allowed.inspect_err(|error| audit_refusal(&caller.name, Some(&audience), None, error))?;
        let reason = if command.reason.is_empty() {
            CloseCode::Disconnected.into()
        } else {
            CloseReason::new(CloseCode::Disconnected, command.reason)
        };
        let disconnected = self.delivery.disconnect_user(&command.user, &reason, &command.except);
        audit::user_disconnected(&caller.name, &audience, &reason.text, disconnected);
        Ok(disconnected)
    }
}
