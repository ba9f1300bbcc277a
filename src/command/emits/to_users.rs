use super::{
    Commands, EmitRequest, Error,
    emit::{audit_refusal, idempotency_key, refusal},
    sent::{Kind, Sent},
};
use crate::auth::Caller;
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
    /// may use the idempotency key meanwhile. Acknowledgements are awaited when it is sent to all.
    pub async fn emit_to_users(&self, caller: &Caller, command: EmitToUsers) -> Result<Vec<(UserId, Receipt)>, Error> {
        let EmitToUsers { users, mut request } = command;
        self.wrap_as_configured(&mut request.emit);
        let key = idempotency_key(caller, &request);
        let event = request.emit.event.clone();
        for user in &users {
            let audience = Audience::User(user.clone());
            request.emit.audience = audience.clone();
            let checked = self.check_for(caller, &request.emit, &audience, key.as_ref());
            checked.inspect_err(|error| audit_refusal(&caller.name, Some(&audience), Some(&event), error))?;
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
        self.delivery.check_capacity(&request.emit, &users).map_err(refusal).inspect_err(audit_whole)?;
        self.count_emits(caller, u32::try_from(users.len()).unwrap_or(u32::MAX)).inspect_err(audit_whole)?;
        request.emit.alone = false;
        request.emit.ack = request.emit.ack.map(|ack| ack.one_of(users.len()).into());
        let mut all = Vec::with_capacity(users.len());
        for user in users {
            let (mut request, key) = (request.clone(), key.clone());
            request.emit.audience = Audience::User(user.clone());
            let kind = Kind::of(&request.emit);
            match Sent::run(kind, |sent| self.emit_counted(caller, request, key, Ok(()), sent)).await {
                Sent::Answered(Err(error)) => return Err(error),
                sent @ (Sent::Answered(Ok(_)) | Sent::Waits(_) | Sent::Placed(..)) => all.push((user, sent)),
            }
            // Many users with large payloads take a while, in which others have their turn.
            tokio::task::yield_now().await;
        }
        let mut receipts = Vec::with_capacity(all.len());
        for (user, sent) in all {
            receipts.push((user, sent.answer().await?));
        }
        Ok(receipts)
    }
}
