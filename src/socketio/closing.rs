use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{Method, Uri},
};
use serde_json::json;
use socketioxide::{ProtocolVersion, TransportType, extract::SocketRef, socket::Sid};
use tower::ServiceExt;

use super::{Edge, connection::SocketConnection, session::Wire};
use crate::hub::{Connection, Frame, Haste};
use crate::listener::StreamHandle;
use crate::message::{CloseCode, CloseReason, EventName, Payload};
use crate::telemetry;

/// How long a device has to take leave by itself.
const GRACE: Duration = Duration::from_millis(500);

impl SocketConnection {
    /// Tells the device why, if its queue has room, and ends the transport soon after; at once if it has none.
    pub(super) fn end(&self, reason: &CloseReason) {
        let told = reason.code != CloseCode::Unready && self.enqueue(&farewell(reason), Haste::Soon).is_ok();
        let Some(socket) = self.detach_for(reason) else {
            return;
        };
        let leaving = Leaving::new(self.edge.clone(), self.wire.clone(), &socket);
        if !told {
            telemetry::closed_unannounced();
            leaving.abort();
            return;
        }
        if reason.code == CloseCode::Disconnected {
            // The client takes this as "io server disconnect" and does not come back by itself. It fails on a full queue
            // alone, and there was room a moment ago; if it does, the cut comes all the same.
            let _ = socket.disconnect();
        }
        let lifecycle = self.edge.parameters.lifecycle.clone();
        lifecycle.spawn(async move {
            tokio::time::sleep(GRACE).await;
            leaving.cut();
        });
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

/// Ends a session's transport, whichever it is then.
pub(super) struct Leaving {
    edge: Arc<Edge>,
    wire: Arc<Wire>,
    sid: Sid,
    protocol: ProtocolVersion,
    may_poll: bool,
}

impl Leaving {
    pub(super) fn new(edge: Arc<Edge>, wire: Arc<Wire>, socket: &SocketRef) -> Self {
        // A session that polls now may have upgraded by the time it is cut, but never the other way round.
        let may_poll = socket.transport_type() == TransportType::Polling;
        Self { edge, wire, sid: socket.id, protocol: socket.protocol(), may_poll }
    }

    /// Lets go of the transport once what is on its way has left.
    pub(super) fn cut(self) {
        self.end(StreamHandle::cut);
    }

    /// Throws away what is on its way.
    pub(super) fn abort(self) {
        self.end(StreamHandle::abort);
    }

    fn end(self, end: fn(&StreamHandle)) {
        if let Some(stream) = &self.wire.stream {
            end(stream);
        }
        if let Some(stream) = self.edge.upgrades.get(&self.sid) {
            end(&stream);
        }
        if self.may_poll {
            self.close_polling(end);
        }
    }

    /// A polling session has no stream of its own. What ends it is a close packet from its client, so we post one in
    /// its name; the next request gets `Session ID unknown`.
    fn close_polling(self, end: fn(&StreamHandle)) {
        let Some(service) = self.edge.service.get().cloned() else {
            return;
        };
        let (version, packet) = match self.protocol {
            ProtocolVersion::V4 => ("3", "1:1"),
            ProtocolVersion::V5 => ("4", "1"),
        };
        let path = &self.edge.parameters.config.path;
        let uri = format!("{path}/?EIO={version}&transport=polling&sid={}", self.sid);
        let mut request = Request::new(Body::from(packet));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri.parse().unwrap_or_else(|_| Uri::from_static("/"));
        let lifecycle = self.edge.parameters.lifecycle.clone();
        lifecycle.spawn(async move {
            // An error says that the session has ended already, or upgraded.
            let _ = service.oneshot(request).await;
            // An upgrade that found the session just before it ended has its stream here by now, and the library would keep that.
            if let Some(stream) = self.edge.upgrades.get(&self.sid) {
                end(&stream);
            }
        });
    }
}
