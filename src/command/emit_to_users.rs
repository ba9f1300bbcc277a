use super::{Commands, EmitRequest, Error, emit::refused};
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
        let EmitToUsers { users, request } = command;
        let for_user = |user: &UserId| {
            let mut request = request.clone();
            request.emit.audience = Audience::User(user.clone());
            request
        };
        for user in &users {
            let mut request = for_user(user);
            let checked = self.check_request(caller, &mut request);
            checked
                .inspect_err(|error| refused(caller, Some(&request.emit.audience), Some(&request.emit.event), error))?;
        }
        let count = u32::try_from(users.len()).unwrap_or(u32::MAX);
        self.count_emits(caller, count).inspect_err(|error| refused(caller, None, Some(&request.emit.event), error))?;
        let mut receipts = Vec::with_capacity(users.len());
        for user in users {
            let receipt = self.emit_counted(caller, for_user(&user), Ok(())).await?;
            receipts.push((user, receipt));
        }
        Ok(receipts)
    }
}
