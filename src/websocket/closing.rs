use std::{collections::VecDeque, time::Duration};

use futures_util::{SinkExt, StreamExt};
use tokio::time::{Instant, timeout_at};
use tokio_tungstenite::tungstenite::{
    Error,
    error::{CapacityError, ProtocolError},
    protocol::CloseFrame,
};

use super::{Socket, connection::message};
use crate::auth::{InvalidToken, TokenRefused};
use crate::limits::Refused;
use crate::message::{CloseCode, CloseReason, Payload};

/// How long a device has to take leave by itself.
const GRACE: Duration = Duration::from_millis(500);
/// What a close frame has room for besides its code (RFC 6455, section 5.5).
const MAX_REASON: usize = 123;

const DRAINING: u16 = 1001;
const PROTOCOL: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const TOO_LARGE: u16 = 1009;
const TRY_AGAIN_LATER: u16 = 1013;
const TOKEN: u16 = 4401;
const NOT_ALLOWED: u16 = 4403;
const NO_AUTH_IN_TIME: u16 = 4408;
const SLOW: u16 = 4409;
const RATE: u16 = 4429;

/// What a device is told whose token is no good, or no more.
pub(super) fn invalid_token() -> String {
    TokenRefused::Invalid(InvalidToken::Expired).to_string()
}

/// Tells a device that its token is refused.
pub(super) fn token_refused(refused: TokenRefused) -> CloseFrame {
    frame(TOKEN, &refused.to_string())
}

/// Tells a device that it has not said who it is for too long.
pub(super) fn no_auth_in_time() -> CloseFrame {
    frame(NO_AUTH_IN_TIME, "no authentication in time")
}

/// Tells a device that a limit was met of which only its token told.
pub(super) fn limit_met(limit: Refused) -> CloseFrame {
    let code = match limit {
        Refused::Total | Refused::Address | Refused::User => TRY_AGAIN_LATER,
        Refused::AddressConnects(_) | Refused::UserConnects(_) => RATE,
    };
    frame(code, &limit.to_string())
}

/// Tells a device why Bugle closes its connection; nothing if it is not told.
pub(super) fn farewell(reason: &CloseReason) -> Option<CloseFrame> {
    match reason.code {
        CloseCode::Disconnected => Some(frame(NOT_ALLOWED, &reason.text)),
        CloseCode::Expired => Some(frame(TOKEN, &invalid_token())),
        CloseCode::Token => Some(frame(TOKEN, &reason.text)),
        CloseCode::Slow => Some(frame(SLOW, &reason.text)),
        CloseCode::Rate => Some(frame(RATE, &reason.text)),
        CloseCode::Draining => Some(frame(DRAINING, &reason.text)),
        CloseCode::Unready => None,
    }
}

/// Tells a device that it sent more than is taken.
pub(super) fn too_large() -> CloseFrame {
    frame(TOO_LARGE, "the message is too large")
}

/// Tells a device what is wrong with what it sent; nothing if the stream itself has failed.
pub(super) fn complaint(error: &Error) -> Option<CloseFrame> {
    match error {
        // Devices that go away without a word, as apps do that are killed, are among these.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Io(_)
        | Error::Tls(_)
        | Error::WriteBufferFull(_)
        | Error::Url(_)
        | Error::Http(_)
        | Error::HttpFormat(_) => None,
        Error::Capacity(CapacityError::MessageTooLong { .. }) => Some(too_large()),
        Error::Utf8(_) => Some(frame(NOT_UTF8, "the text is not UTF-8")),
        Error::Capacity(CapacityError::TooManyHeaders) | Error::Protocol(_) | Error::AttackAttempt => {
            Some(frame(PROTOCOL, "the message is malformed"))
        }
    }
}

fn frame(code: u16, reason: &str) -> CloseFrame {
    let end = (0..=reason.len().min(MAX_REASON)).rev().find(|end| reason.is_char_boundary(*end)).unwrap_or(0);
    CloseFrame { code: code.into(), reason: reason[..end].into() }
}

/// Sends what is left and the close frame, and waits a moment for the device's. False if the device did not even take ours.
pub(super) async fn leave(socket: &mut Socket, rest: VecDeque<Payload>, frame: CloseFrame) -> bool {
    let deadline = Instant::now() + GRACE;
    let told = timeout_at(deadline, async {
        for payload in rest {
            socket.feed(message(payload)).await?;
        }
        socket.close(Some(frame)).await
    });
    let told = matches!(told.await, Ok(Ok(())));
    if told {
        finish(socket, deadline).await;
    }
    told
}

/// Answers the close frame that the device has sent.
pub(super) async fn part(socket: &mut Socket) {
    finish(socket, Instant::now() + GRACE).await;
}

/// Reads on until the device is done: a stream that is closed with something unread loses what is on its way out.
async fn finish(socket: &mut Socket, deadline: Instant) {
    let _ = timeout_at(deadline, async { while let Some(Ok(_)) = socket.next().await {} }).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reason: &CloseReason) -> Option<(u16, String)> {
        farewell(reason).map(|frame| (frame.code.into(), frame.reason.as_str().to_owned()))
    }

    #[test]
    fn every_end_has_its_code() {
        for (code, expected) in [
            (CloseCode::Disconnected, 4403),
            (CloseCode::Expired, 4401),
            (CloseCode::Token, 4401),
            (CloseCode::Slow, 4409),
            (CloseCode::Rate, 4429),
            (CloseCode::Draining, 1001),
        ] {
            assert_eq!(told(&code.into()).unwrap().0, expected, "{code:?}");
        }
        assert_eq!(told(&CloseCode::Unready.into()), None);
        assert_eq!(told(&CloseCode::Expired.into()).unwrap().1, "Invalid or expired token");
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let reason = |text: String| told(&CloseReason::new(CloseCode::Disconnected, text)).unwrap().1;
        assert_eq!(reason("a".repeat(200)).len(), 123);
        assert_eq!(reason("é".repeat(100)), "é".repeat(61));
        assert_eq!(reason("short".to_owned()), "short");
    }
}
