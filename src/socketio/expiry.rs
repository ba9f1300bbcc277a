use std::sync::Arc;

use engineioxide::session::Session;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{closing::own_event, device::Device, edge::Edge};
use crate::auth::ExpiryDue;
use crate::command::Admission;
use crate::message::{CloseCode, EventName};

/// Sessions that are looked at in a row.
const AT_ONCE: usize = 256;

impl Edge {
    /// Looks at all devices' tokens whenever the time of day has jumped: their alarms were set by the time before. It does not end.
    pub(super) async fn follow_clock(self: Arc<Self>) {
        let mut jumps = self.deps.clock_jumps.clone();
        loop {
            jumps.next().await;
            let sessions = self.engine().map(|engine| engine.open_sessions()).unwrap_or_default();
            for some in sessions.chunks(AT_ONCE) {
                for session in some {
                    if let Some(device) = session.context::<Device>() {
                        device.watch_token(session);
                    }
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

impl Device {
    /// Does what is due about the device's token, and sets the session's alarm for what comes next: the notice that the token is about to
    /// expire, and the end of the connection.
    pub(super) fn watch_token(&self, session: &Session) {
        let looked = self.current(|admitted| {
            let expires_at = admitted.identity.expires_at;
            let (due, next) = self.edge.deps.expiry.due(expires_at, &mut admitted.told_of);
            // Under the lock, so that the last alarm that is set is that of the newest token.
            session.set_alarm(next);
            (due, expires_at, admitted.admission.clone())
        });
        match looked {
            None | Some((ExpiryDue::Nothing, ..)) => {}
            Some((ExpiryDue::Notice, expires_at, admission)) => self.tell_of_expiry(&admission, expires_at),
            Some((ExpiryDue::Close, _, admission)) => admission.close(&CloseCode::Expired.into()),
        }
    }

    fn tell_of_expiry(&self, admission: &Arc<Admission>, expires_at: Timestamp) {
        let leeway = SignedDuration::try_from(self.edge.deps.expiry.leeway).unwrap_or_default();
        let expires_at = expires_at.checked_sub(leeway).unwrap_or(expires_at);
        let body = json!({ "expiresAt": format!("{expires_at:.3}") });
        // If the queue is full, the next emit finds that out.
        admission.try_send(own_event(EventName::own("bugle:token_expiring"), &body));
    }
}
