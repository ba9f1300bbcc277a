use std::time::Duration;

use engineioxide::{
    DisconnectReason,
    session::{Ending, Session},
};
use serde_json::json;
use socketioxide::extract::SocketRef;
use transport::{Outgoing, Rejected, WriteMode};

use super::{device::Device, encoding::with_frames};
use crate::hub::Frame;
use crate::message::{CloseCode, CloseReason, EventName, Payload};
use crate::telemetry;

/// The time that a device has to leave by itself after it was told to.
const GRACE: Duration = Duration::from_millis(500);
/// The time that a device that was refused, or has left, has to end its transport by itself.
pub(super) const IDLE_GRACE: Duration = Duration::from_secs(1);

impl Device {
    /// Tells a device that is live why its connection is closed, if its queue has room, and ends the transport soon after; at once if it
    /// has none, or if devices are not told of this reason. No event follows.
    pub(super) fn tell_of_close(&self, session: &Session, generation: u32, socket: &SocketRef, reason: &CloseReason) {
        if self.say_farewell(session, generation, reason).is_err() {
            telemetry::closed_unannounced();
            session.end_after(Duration::ZERO, Ending::Abort, DisconnectReason::ClosingServer);
            return;
        }
        if reason.code == CloseCode::Disconnected {
            // The client takes this as "io server disconnect" and does not come back by itself. It fails if the session has ended.
            let _ = socket.clone().disconnect();
        }
        session.end_after(GRACE, Ending::Cut, DisconnectReason::ClosingServer);
    }

    /// An error: the device is not told. No event follows in either case.
    fn say_farewell(&self, session: &Session, generation: u32, reason: &CloseReason) -> Result<(), Rejected> {
        if !reason.code.is_announced() {
            session.end_proof();
            return Err(Rejected::Ended);
        }
        with_frames(&farewell(reason), session.protocol(), None, |frames| {
            let (is_exempt, is_last, bounds) = (false, true, self.edge.bounds());
            let outgoing = Outgoing { frames, generation, is_exempt, is_last, unproven: None, bounds };
            session.deliver(&outgoing, WriteMode::Batched)
        })
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
