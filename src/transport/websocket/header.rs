use super::{
    Opcode, Violation,
    close::MAX_CONTROL,
    encode::{LENGTH_16, LENGTH_64},
};

/// The longest header of a masked frame, in bytes: two, a 64-bit length and the masking key.
const MAX_HEADER: usize = 14;
const FIN: u8 = 0x80;
const RSV: u8 = 0x70;
const MASKED: u8 = 0x80;

/// The beginning of a header whose end has not arrived.
#[derive(Debug, Default)]
pub(super) struct PartialHeader {
    bytes: [u8; MAX_HEADER],
    filled: u8,
}

/// The header of a masked frame (RFC 6455, section 5.2).
#[derive(Debug)]
pub(super) struct Header {
    pub(super) opcode: Opcode,
    /// Whether it is the last frame of its message.
    pub(super) is_final: bool,
    pub(super) key: [u8; 4],
    /// The announced length of the payload, in bytes; below 2^63.
    pub(super) length: u64,
}

impl PartialHeader {
    /// Takes the header's bytes from `input`. Returns the header once it is complete, or `None` when `input` is used up. The
    /// first two bytes are checked as soon as both are there.
    pub(super) fn read(&mut self, input: &mut &[u8]) -> Result<Option<Header>, Violation> {
        if !self.fill(2, input) {
            return Ok(None);
        }
        let [first, second, ..] = self.bytes;
        let opcode = check(first, second)?;
        let extended = match second & !MASKED {
            LENGTH_64 => 8,
            LENGTH_16 => 2,
            _ => 0,
        };
        if !self.fill(2 + extended + 4, input) {
            return Ok(None);
        }
        let (length, key) = self.bytes[2..2 + extended + 4].split_at(extended);
        let length = match length.len() {
            0 => u64::from(second & !MASKED),
            _ => length.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if length >> 63 != 0 {
            return Err(Violation::Protocol("the most significant bit of a length is set"));
        }
        let key = [key[0], key[1], key[2], key[3]];
        self.filled = 0;
        Ok(Some(Header { opcode, is_final: first & FIN != 0, key, length }))
    }

    /// Takes bytes from `input` until `wanted` are here. Returns whether they are.
    fn fill(&mut self, wanted: usize, input: &mut &[u8]) -> bool {
        let filled = usize::from(self.filled);
        let (taken, rest) = input.split_at(wanted.saturating_sub(filled).min(input.len()));
        self.bytes[filled..filled + taken.len()].copy_from_slice(taken);
        *input = rest;
        // At most MAX_HEADER.
        self.filled += u8::try_from(taken.len()).unwrap_or_default();
        usize::from(self.filled) >= wanted
    }
}

/// Checks what the first two bytes say, apart from the rules of fragments, which depend on the frames before.
fn check(first: u8, second: u8) -> Result<Opcode, Violation> {
    if first & RSV != 0 {
        return Err(Violation::Protocol("an RSV bit is set, and no extension was negotiated"));
    }
    let Some(opcode) = Opcode::from_first_byte(first) else {
        return Err(Violation::Protocol("a frame has a reserved opcode"));
    };
    if second & MASKED == 0 {
        return Err(Violation::Protocol("a client's frame is not masked"));
    }
    if opcode.is_control() {
        if first & FIN == 0 {
            return Err(Violation::Protocol("a control frame is fragmented"));
        }
        if usize::from(second & !MASKED) > MAX_CONTROL {
            return Err(Violation::Protocol("a control frame is longer than 125 bytes"));
        }
    }
    Ok(opcode)
}

/// Removes the mask from `payload`, whose first byte is number `offset` of its frame (RFC 6455, section 5.3).
pub(super) fn unmask(payload: &mut [u8], mut key: [u8; 4], offset: u64) {
    // Below 4.
    key.rotate_left((offset & 3) as usize);
    let (words, tail) = payload.as_chunks_mut::<4>();
    let word_key = u32::from_ne_bytes(key);
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ word_key).to_ne_bytes();
    }
    for (byte, key) in tail.iter_mut().zip(key) {
        *byte ^= key;
    }
}
