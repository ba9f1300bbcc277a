//! WebSocket frames (RFC 6455), as far as a device needs them.

/// A frame from the server.
pub struct Frame<'a> {
    /// What kind it is.
    pub opcode: u8,
    /// What it carries.
    pub payload: &'a [u8],
    /// How many bytes the frame takes up.
    pub length: usize,
}

/// The opcode of a text.
pub const TEXT: u8 = 1;
/// The opcode of the last frame.
pub const CLOSE: u8 = 8;
/// The opcode of a question whether one is there.
pub const PING: u8 = 9;
/// The opcode of its answer.
pub const PONG: u8 = 10;

/// The frame that `bytes` begins with, if all of it is there.
pub fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&opcode, &short_length) = (bytes.first()?, bytes.get(1)?);
    let (head, length): (usize, usize) = match short_length & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(length)),
    };
    let payload = bytes.get(head..head.checked_add(length)?)?;
    Some(Frame { opcode: opcode & 0x0f, payload, length: head + length })
}

/// A frame as a client sends it. The mask is zero, which is a mask too.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const LAST: u8 = 0x80;
    const MASKED: u8 = 0x80;
    const LONGEST_SHORT: u8 = 125;
    const TWO_BYTES_FOLLOW: u8 = 126;
    const EIGHT_BYTES_FOLLOW: u8 = 127;
    let mut frame = vec![LAST | opcode];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ ..=LONGEST_SHORT), _) => frame.push(MASKED | length),
        (_, Ok(length)) => {
            frame.push(MASKED | TWO_BYTES_FOLLOW);
            frame.extend(length.to_be_bytes());
        }
        (_, Err(_)) => {
            frame.push(MASKED | EIGHT_BYTES_FOLLOW);
            frame.extend((payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a server sends it: without a mask.
    fn unmasked(length: usize) -> Vec<u8> {
        let frame = masked(TEXT, &vec![b'x'; length]);
        let mask_at = frame.len() - length - 4;
        let mut bytes = [&frame[..mask_at], &frame[mask_at + 4..]].concat();
        bytes[1] &= 0x7f;
        bytes
    }

    #[test]
    fn frames_of_each_length_are_read_as_they_are_written() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let bytes = unmasked(length);
            let frame = first(&bytes).unwrap();
            assert_eq!((frame.opcode, frame.payload.len(), frame.length), (TEXT, length, bytes.len()));
        }
    }

    #[test]
    fn a_frame_that_is_not_all_there_is_waited_for() {
        for length in [0, 125, 126, 65_536] {
            let bytes = unmasked(length);
            assert!((0..bytes.len()).all(|there| first(&bytes[..there]).is_none()));
        }
    }
}
