use bytes::Bytes;

use super::{Opcode, Violation, frame_of};

/// The longest payload of a control frame, in bytes (RFC 6455, section 5.5).
pub(super) const MAX_CONTROL: usize = 125;
/// The longest reason of a close frame, in bytes: its payload begins with the code.
const MAX_REASON: usize = MAX_CONTROL - 2;

/// Why the peer closes the connection (RFC 6455, section 7.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseFrame {
    /// The status code: 1000–1003, 1007–1014 or 3000–4999.
    pub code: u16,
    /// The reason, at most 123 bytes. The peer chose it.
    pub reason: String,
}

impl CloseFrame {
    /// Reads the payload of a close frame. An empty one is valid, and says nothing.
    pub(super) fn parse(payload: &[u8]) -> Result<Option<Self>, Violation> {
        let (&[high, low], reason) = match payload.split_first_chunk::<2>() {
            Some(parts) => parts,
            None if payload.is_empty() => return Ok(None),
            None => return Err(Violation::Protocol("a close frame has a payload of one byte")),
        };
        let code = u16::from_be_bytes([high, low]);
        if !may_be_received(code) {
            return Err(Violation::Protocol("a close frame has a code that is reserved or out of range"));
        }
        let reason = std::str::from_utf8(reason).map_err(|_| Violation::NotUtf8)?;
        Ok(Some(Self { code, reason: reason.to_owned() }))
    }
}

/// Returns whether a peer may send the code. 1004 is reserved; 1005, 1006 and 1015 are never sent (section 7.4.1); 1012–1014
/// are registered with IANA.
fn may_be_received(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Returns a close frame. The reason is cut to at most 123 bytes, at a character's boundary.
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_REASON)];
    frame_of(Opcode::Close, &code.to_be_bytes(), &[reason.as_bytes()])
}
