use std::time::Duration;

use engineioxide::{DisconnectReason, session::Ending};
use serde_json::json;

use super::connection::SocketConnection;
use crate::hub::{Connection, Frame, Haste};
use crate::message::{CloseCode, CloseReason, EventName, Payload};
use crate::telemetry;

/// The time that a device has to leave by itself after it was told to.
const GRACE: Duration = Duration::from_millis(500);
/// The time that a device that was refused, or has left, has to end its transport by itself.
pub(super) const IDLE_GRACE: Duration = Duration::from_secs(1);

impl SocketConnection {
    /// Tells the device why, if its queue has room, and ends the transport soon after; at once if it has none.
    pub(super) fn end(&self, reason: &CloseReason) {
        let is_told = reason.code != CloseCode::Unready && self.enqueue(&farewell(reason), Haste::Soon).is_ok();
        let Some(socket) = self.detach_for(reason) else {
            return;
        };
        if !is_told {
            telemetry::closed_unannounced();
            self.session.end_after(Duration::ZERO, Ending::Abort, DisconnectReason::ClosingServer);
            return;
        }
        if reason.code == CloseCode::Disconnected {
            // The client takes this as "io server disconnect" and does not come back by itself. It fails if the session has ended.
            let _ = socket.disconnect();
        }
        self.session.end_after(GRACE, Ending::Cut, DisconnectReason::ClosingServer);
    }
}

fn farewell(reason: &CloseReason) -> Frame {
    let body = json!({ "code": reason.code.as_str(), "reason": &*reason.text, "retry": reason.code.retry() });
    own_event(EventName::own("bugle:disconnect"), &body)
}

/// One of Bugle's own events.
pub(super) fn own_event(name: EventName, body: &serde_json::Value) -> Frame {
    let payload = serde_json::value::to_raw_value(body).map_or(Payload::None, |raw| Payload::Json(raw.into()));
    Frame::new(name, payload)
}
