use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use engineioxide::{
    DisconnectReason, Str,
    engine::{Observer, Verdict},
    session::{Ending, Session},
};

use super::{
    attachments::{Attachments, COMPLETE_WITHIN, Progress},
    closing::IDLE_GRACE,
    connect::log_refusal,
    device::Device,
    edge::Edge,
    packet::{Inspected, Kind, Rewrite, inspect},
};
use crate::telemetry;

/// Packets to other namespaces than `/` that one session may send: each is answered.
const MAX_FOREIGN_PACKETS: u32 = 32;

/// Sees each packet of a device before the library does, and the end of each session.
pub(super) struct Watch(pub(super) Arc<Edge>);

impl Observer for Watch {
    fn text(&self, session: &Session, text: &Str) -> Verdict {
        let Some(device) = session.context::<Device>() else {
            return Verdict::Pass;
        };
        // The library ends the session for most of it, but waits for the attachments of a malformed event.
        let Ok(Inspected { kind, namespace, rewrite }) = inspect(text) else {
            return Verdict::Close(DisconnectReason::PacketParsingError);
        };
        if namespace != "/" && !device.allows_foreign_packet(MAX_FOREIGN_PACKETS) {
            return bound_exceeded("foreign_packets");
        }
        match kind {
            Kind::BinaryEvent { attachments } | Kind::BinaryAck { attachments } => {
                let progress = self.attachments(session, &device, |pending| pending.announce(attachments, text.len()));
                if let Some(end) = follow(session, progress) {
                    return end;
                }
            }
            Kind::Connect if namespace == "/" => {
                if !device.announce() {
                    log_refusal(&device, "second_connect");
                    return Verdict::Close(DisconnectReason::TransportError);
                }
                // socketioxide ignores a CONNECT while it finishes the one before: the session must not stay open for ever.
                session.end_if_idle(Some(self.0.deps.accepted_within));
            }
            Kind::Disconnect if namespace == "/" => leave(session, &device),
            Kind::Connect | Kind::Disconnect | Kind::Event | Kind::Ack | Kind::ConnectError => {}
        }
        match rewrite {
            Rewrite::Unneeded => Verdict::Pass,
            Rewrite::Unescaped(text) | Rewrite::Marked(text) => Verdict::Replace(text.into()),
        }
    }

    fn binary(&self, session: &Session, data: &Bytes) -> Verdict {
        let Some(device) = session.context::<Device>() else {
            return Verdict::Pass;
        };
        let max_bytes = self.0.deps.config.max_message;
        let progress = self.attachments(session, &device, |pending| pending.take(data.len(), max_bytes));
        follow(session, progress).unwrap_or_default()
    }

    fn alarm(&self, session: &Session) {
        if let Some(device) = session.context::<Device>() {
            device.watch_token(session);
        }
    }

    fn closed(&self, session: &Session, reason: &DisconnectReason) {
        if let Some(admitted) = session.context::<Device>().and_then(|device| device.end()) {
            admitted.ended(reason_name(reason));
        }
    }
}

impl Watch {
    /// Notes a packet or an attachment, and counts what its packet holds until it is complete.
    fn attachments(
        &self,
        session: &Session,
        device: &Device,
        note: impl FnOnce(&mut Attachments) -> Progress,
    ) -> Option<Progress> {
        let (progress, bytes, mut part) = device.attachments(note)?;
        self.0.deps.unfinished.hold(&mut part, bytes, Some(device.address), || {
            let (edge, id) = (self.0.clone(), session.id());
            move || {
                if let Some((session, _)) = edge.device(id) {
                    session.end_after(Duration::ZERO, Ending::Abort, DisconnectReason::TransportError);
                }
            }
        });
        device.keep_part(part);
        Some(progress)
    }
}

/// Ends a session for what it sent as binary, or sees to it that the rest of that comes in time. `progress`: None without a device.
fn follow(session: &Session, progress: Option<Progress>) -> Option<Verdict> {
    match progress {
        Some(Progress::Incomplete) => session.set_deadline(Some(COMPLETE_WITHIN)),
        Some(Progress::Complete) => session.set_deadline(None),
        Some(Progress::TooMuch) => return Some(bound_exceeded("attachments")),
        Some(Progress::Unannounced) | None => return Some(Verdict::Close(DisconnectReason::PacketParsingError)),
    }
    None
}

/// The device has left the namespace. Official clients then end the transport, or connect again; it is cut if neither happens.
fn leave(session: &Session, device: &Device) {
    session.end_if_idle(Some(IDLE_GRACE));
    if let Some(admitted) = device.leave() {
        admitted.ended("left");
    }
}

/// Ends a session that went past a bound.
fn bound_exceeded(bound: &'static str) -> Verdict {
    tracing::info!(bound.name = bound, "a device exceeded a bound: its session ends");
    telemetry::refused("socketio", bound);
    Verdict::Close(DisconnectReason::PacketParsingError)
}

/// A reason's name in logs and metrics.
fn reason_name(reason: &DisconnectReason) -> &'static str {
    match reason {
        DisconnectReason::TransportClose => "transport_close",
        DisconnectReason::TransportError => "transport_error",
        DisconnectReason::MultipleHttpPollingError => "several_polls",
        DisconnectReason::PacketParsingError => "malformed_packet",
        DisconnectReason::HeartbeatTimeout => "ping_timeout",
        DisconnectReason::ClosingServer => "draining",
    }
}
