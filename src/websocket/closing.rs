use std::time::Duration;

use transport::websocket::{CloseFrame, Ended, Opcode, Violation, WebSocket, close_frame, frame as control_frame};

use crate::auth::{InvalidToken, TokenRefused};
use crate::limits::LimitExceeded;
use crate::message::{CloseCode, CloseReason};

/// How long a device has to take leave by itself.
const GRACE: Duration = Duration::from_millis(500);

const DRAINING: u16 = 1001;
const PROTOCOL: u16 = 1002;
const NOT_UTF8: u16 = 1007;
const POLICY: u16 = 1008;
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
pub(super) fn limit_met(limit: LimitExceeded) -> CloseFrame {
    let code = match limit {
        LimitExceeded::Total | LimitExceeded::Address | LimitExceeded::User => TRY_AGAIN_LATER,
        LimitExceeded::AddressConnects(_) | LimitExceeded::UserConnects(_) => RATE,
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
pub(super) fn complaint(ended: &Ended) -> Option<CloseFrame> {
    match ended {
        // Devices that go away without a word, as apps do that are killed, are among these.
        Ended::Failed(_) | Ended::Cut | Ended::Closed(_) => None,
        Ended::Violation(Violation::TooLarge) => Some(too_large()),
        Ended::Violation(Violation::NotUtf8) => Some(frame(NOT_UTF8, "the text is not UTF-8")),
        Ended::Violation(violation @ Violation::Protocol(_)) => Some(frame(PROTOCOL, &violation.to_string())),
        Ended::ControlFlood => Some(frame(POLICY, &ended.to_string())),
    }
}

fn frame(code: u16, reason: &str) -> CloseFrame {
    CloseFrame { code, reason: reason.to_owned() }
}

/// Sends what is queued and the close frame, and waits a moment for the device's. False if the device did not even take ours.
pub(super) async fn leave(socket: &mut WebSocket, frame: &CloseFrame) -> bool {
    socket.leave(Some(close_frame(frame.code, &frame.reason)), GRACE).await
}

/// Answers the close frame that the device has sent.
pub(super) async fn part(socket: &mut WebSocket, close: Option<&CloseFrame>) {
    let answer = close.map_or_else(|| control_frame(Opcode::Close, &[]), |close| close_frame(close.code, ""));
    socket.leave(Some(answer), GRACE).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(reason: &CloseReason) -> Option<(u16, String)> {
        farewell(reason).map(|frame| (frame.code, frame.reason))
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
}
