use bytes::Bytes;

use super::Opcode;

const FIN: u8 = 0x80;
/// The length byte that announces a 16-bit length.
pub(super) const LENGTH_16: u8 = 126;
/// The length byte that announces a 64-bit length.
pub(super) const LENGTH_64: u8 = 127;

/// Returns a complete, unmasked frame with this payload.
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    frame_of(opcode, payload, &[])
}

/// Returns a complete, unmasked frame whose payload is the concatenation of `first` and `rest`. It allocates once.
pub fn frame_of(opcode: Opcode, first: &[u8], rest: &[&[u8]]) -> Bytes {
    let payload_len = first.len() + rest.iter().map(|part| part.len()).sum::<usize>();
    let mut frame = Vec::with_capacity(header_length(payload_len) + payload_len);
    put_header(&mut frame, opcode, payload_len);
    frame.extend_from_slice(first);
    for part in rest {
        frame.extend_from_slice(part);
    }
    frame.into()
}

/// Appends the header of a complete, unmasked frame whose payload has `payload_len` bytes. The length has its minimal encoding.
pub fn put_header(frame: &mut Vec<u8>, opcode: Opcode, payload_len: usize) {
    frame.push(FIN | opcode as u8);
    if let Ok(short @ 0..LENGTH_16) = u8::try_from(payload_len) {
        frame.push(short);
    } else if let Ok(length) = u16::try_from(payload_len) {
        frame.push(LENGTH_16);
        frame.extend_from_slice(&length.to_be_bytes());
    } else {
        frame.push(LENGTH_64);
        frame.extend_from_slice(&(payload_len as u64).to_be_bytes());
    }
}

/// Returns how many bytes [`put_header`] appends: 2, 4 or 10.
pub fn header_length(payload_len: usize) -> usize {
    match payload_len {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    }
}

/// Returns the opcode and the payload of a frame that [`frame`], [`frame_of`] or [`close_frame`](super::close_frame) made. The
/// payload shares the frame's memory.
///
/// # Panics
///
/// If `frame` is not such a frame.
pub fn split(frame: &Bytes) -> (Opcode, Bytes) {
    let opcode = Opcode::from_first_byte(frame[0]).expect("frames made here have a known opcode");
    let header = match frame[1] {
        LENGTH_64 => 10,
        LENGTH_16 => 4,
        _ => 2,
    };
    (opcode, frame.slice(header..))
}
