use std::{fmt, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use engineioxide_core::ProtocolVersion;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use http_body_util::BodyExt;

use crate::{
    payload,
    reason::DisconnectReason,
    reply::{Body, RequestError, respond},
    request::is_binary,
    session::{Carrier, Ending, Session},
};

/// Packets that one POST may bring.
const MAX_PACKETS: usize = 10_000;

/// Takes the packets of a POST.
pub(crate) async fn post<B>(session: Arc<Session>, request: Request<B>) -> Response<Body>
where
    B: HttpBody + Unpin,
    B::Error: fmt::Debug,
{
    let is_binary = is_binary(&request);
    if is_binary && session.protocol() == ProtocolVersion::V4 {
        session.close(DisconnectReason::TransportError);
        return RequestError::BadRequest.response();
    }
    let posting = match Posting::begin(&session) {
        Ok(posting) => posting,
        Err(Busy::Posting) => {
            session.close(DisconnectReason::MultipleHttpPollingError);
            return RequestError::BadRequest.response();
        }
        Err(Busy::Upgraded) => return RequestError::BadRequest.response(),
    };
    let max_bytes = usize::try_from(session.engine.config().max_payload).unwrap_or(usize::MAX);
    let body = tokio::select! {
        body = read(request.into_body(), max_bytes) => body,
        () = session.closed() => Err(RequestError::UnknownSession),
    };
    let body = match body {
        Ok(body) => body,
        Err(refusal) => {
            // What the device has sent is lost, so the session must not go on as if nothing had happened.
            session.close(DisconnectReason::TransportError);
            return refusal.response();
        }
    };
    let received = payload::decode(session.protocol(), is_binary, body, MAX_PACKETS)
        .map_err(|_| DisconnectReason::PacketParsingError)
        .and_then(|packets| packets.into_iter().try_for_each(|packet| session.receive(packet)));
    posting.finish();
    match received {
        Ok(()) | Err(DisconnectReason::TransportClose) => {
            if received.is_err() {
                session.close(DisconnectReason::TransportClose);
            }
            // As Node's server answers it.
            respond(StatusCode::OK, HeaderValue::from_static("text/html"), Bytes::from_static(b"ok"))
        }
        Err(reason) => {
            session.close(reason);
            RequestError::BadRequest.response()
        }
    }
}

/// Reads a body of at most `max_bytes`.
async fn read<B>(mut body: B, max_bytes: usize) -> Result<Bytes, RequestError>
where
    B: HttpBody + Unpin,
{
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(RequestError::TooLarge);
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        // The server's bodies fail when they do not arrive in time.
        let Ok(frame) = frame else { return Err(RequestError::TooSlow) };
        if let Ok(mut data) = frame.into_data() {
            if read.len() + data.remaining() > max_bytes {
                return Err(RequestError::TooLarge);
            }
            read.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
    }
    Ok(read.freeze())
}

/// The one POST that a session may send at a time. Dropped before its end, its packets are lost, and the session ends.
struct Posting<'a> {
    session: &'a Session,
    is_over: bool,
}

/// Why a session takes no POST.
enum Busy {
    Posting,
    Upgraded,
}

impl<'a> Posting<'a> {
    fn begin(session: &'a Session) -> Result<Self, Busy> {
        match &mut session.lock().carrier {
            Carrier::Polling(polling) if polling.is_posting => return Err(Busy::Posting),
            Carrier::Polling(polling) => polling.is_posting = true,
            Carrier::WebSocket(_) => return Err(Busy::Upgraded),
        }
        Ok(Self { session, is_over: false })
    }

    fn finish(mut self) {
        self.is_over = true;
    }
}

impl Drop for Posting<'_> {
    fn drop(&mut self) {
        if let Carrier::Polling(polling) = &mut self.session.lock().carrier {
            polling.is_posting = false;
            polling.wake_switching();
        }
        if !self.is_over {
            self.session.end_after(Duration::ZERO, Ending::Cut, DisconnectReason::TransportError);
        }
    }
}
