use super::{Commands, EmitRequest, Error};
use crate::auth::Caller;
use crate::message::{Audience, Receipt, UserId};

/// One event for several users.
#[derive(Clone, Debug)]
pub struct EmitToUsers {
    /// The users.
    pub users: Vec<UserId>,
    /// What to send them; its audience is replaced by each user.
    pub request: EmitRequest,
}

impl Commands {
    /// Sends an event to each user, in order. Nothing is sent unless it can be sent to all.
    pub async fn emit_to_users(&self, caller: &Caller, command: EmitToUsers) -> Result<Vec<(UserId, Receipt)>, Error> {
        self.check(&command.request.emit)?;
        let mut receipts = Vec::with_capacity(command.users.len());
        for user in command.users {
            let mut request = command.request.clone();
            request.emit.audience = Audience::User(user.clone());
            receipts.push((user, self.emit(caller, request).await?));
        }
        Ok(receipts)
    }
}
