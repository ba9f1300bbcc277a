//! WebSocket frames (RFC 6455), as far as a device needs them.

/// A frame from the server.
pub struct Frame<'a> {
    pub opcode: u8,
    pub payload: &'a [u8],
    /// How many bytes the frame takes up.
    pub length: usize,
}

pub const TEXT: u8 = 1;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The frame that `bytes` begins with, if all of it is there.
pub fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    let (&opcode, &short_length) = (bytes.first()?, bytes.get(1)?);
    let (head, length) = match short_length & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(length)),
    };
    let payload = bytes.get(head..head + length)?;
    Some(Frame { opcode: opcode & 0x0f, payload, length: head + length })
}

/// A frame as a client sends it. The mask is zero, which is a mask too.
pub fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const LAST: u8 = 0x80;
    const MASKED: u8 = 0x80;
    const LONGEST_SHORT: usize = 125;
    const LENGTH_FOLLOWS: u8 = 0x7e;
    let mut frame = vec![LAST | opcode];
    let length = u16::try_from(payload.len()).expect("a device says little");
    if payload.len() <= LONGEST_SHORT {
        frame.push(MASKED | length.to_be_bytes()[1]);
    } else {
        frame.push(MASKED | LENGTH_FOLLOWS);
        frame.extend(length.to_be_bytes());
    }
    frame.extend([0; 4]);
    frame.extend(payload);
    frame
}
