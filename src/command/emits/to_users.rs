use super::{
    Commands, EmitRequest, Error,
    emit::{audit_refusal, completed, idempotency_key, key_reused, refusal},
};
use crate::auth::Caller;
use crate::delivery::Publishing;
use crate::message::{Audience, Receipt, UserId};
use crate::telemetry;

/// One event for several users.
#[derive(Clone, Debug)]
pub struct EmitToUsers {
    /// The users.
    pub users: Vec<UserId>,
    /// What to send them; its audience is replaced by each user.
    pub request: EmitRequest,
}

impl Commands {
    /// Sends an event to each user, in order. Nothing is sent unless it can be sent to all, as far as can be told before: another call
    /// may use the idempotency key meanwhile, and the store may refuse some users' emits after others were sent. Acknowledgements are awaited when it is sent to all.
    pub async fn emit_to_users(&self, caller: &Caller, command: EmitToUsers) -> Result<Vec<(UserId, Receipt)>, Error> {
        let EmitToUsers { users, mut request } = command;
        self.wrap_as_configured(&mut request.emit);
        let key = idempotency_key(caller, &request);
        let event = request.emit.event.clone();
        let audit_one = |user: &UserId, error: &Error| {
            audit_refusal(&caller.name, Some(&Audience::user(user)), Some(&event), error);
        };
        for user in &users {
            request.emit.audience = Audience::user(user);
            self.check_for(caller, &request.emit).inspect_err(|error| audit_one(user, error))?;
            // So many checks take a while, in which others get a chance to run.
            tokio::task::coop::consume_budget().await;
        }
        let audit_whole = |error: &Error| {
            telemetry::audit::refused(&telemetry::audit::RefusedCall {
                api_key: Some(&caller.name),
                method: Some("EmitToUsers"),
                event: Some(event.as_str()),
                code: error.code(),
                reason: &error.to_string(),
                ..Default::default()
            });
        };
        if let Some(key) = &key {
            let reused = self.delivery.first_reused(&request.emit, &users, key).await.map_err(Error::from);
            if let Some(user) = reused.inspect_err(audit_whole)? {
                let error = key_reused();
                audit_one(user, &error);
                return Err(error);
            }
        }
        let capacity = self.delivery.check_capacity(&request.emit, &users).await;
        capacity.map_err(refusal).inspect_err(audit_whole)?;
        self.count_emits(caller, u32::try_from(users.len()).unwrap_or(u32::MAX)).inspect_err(audit_whole)?;
        request.emit.alone = false;
        request.emit.ack = request.emit.ack.map(|ack| ack.one_of(users.len()).into());
        let mut all = Vec::with_capacity(users.len());
        for user in users {
            let (mut request, key) = (request.clone(), key.clone());
            request.emit.audience = Audience::user(&user);
            match self.begin_counted(caller, request, key, Ok(())) {
                Publishing::Done(Err(error)) => return Err(error),
                emitting @ (Publishing::Done(Ok(_)) | Publishing::Pending(..)) => all.push((user, emitting)),
            }
            // Many users with large payloads take a while, in which others get a chance to run.
            tokio::task::yield_now().await;
        }
        let mut emitted = Vec::with_capacity(all.len());
        for (user, emitting) in all {
            emitted.push((user, emitting.done().await));
        }
        let mut receipts = Vec::with_capacity(emitted.len());
        for (user, emitted) in emitted {
            receipts.push((user, completed(emitted).await?));
        }
        Ok(receipts)
    }
}
