use bytes::Bytes;

use super::{Event, Opcode, Violation};

/// How many empty fragments one message may have. Those with a payload are bounded by the message's length.
const MAX_EMPTY_FRAGMENTS: u16 = 4096;

/// A data message whose last frame has not arrived in full.
#[derive(Debug)]
pub(super) struct Message {
    is_text: bool,
    payload: Vec<u8>,
    /// The length of the prefix of `payload` that is known to be UTF-8.
    checked: usize,
    empty_fragments: u16,
}

impl Message {
    pub(super) fn new(is_text: bool) -> Self {
        Self { is_text, payload: Vec::new(), checked: 0, empty_fragments: 0 }
    }

    pub(super) fn payload(&mut self) -> &mut Vec<u8> {
        &mut self.payload
    }

    pub(super) fn len(&self) -> usize {
        self.payload.len()
    }

    pub(super) fn capacity(&self) -> usize {
        self.payload.capacity()
    }

    /// Counts a fragment of this length.
    pub(super) fn note_fragment(&mut self, length: u64) -> Result<(), Violation> {
        self.empty_fragments += u16::from(length == 0);
        if self.empty_fragments > MAX_EMPTY_FRAGMENTS {
            return Err(Violation::Protocol("a message has too many empty fragments"));
        }
        Ok(())
    }

    /// Checks what has arrived of a text, so that one that cannot become UTF-8 any more is refused at once. A character
    /// whose end has not arrived is checked again with the bytes that follow.
    pub(super) fn check_so_far(&mut self) -> Result<(), Violation> {
        if !self.is_text {
            return Ok(());
        }
        match std::str::from_utf8(&self.payload[self.checked..]) {
            Ok(_) => self.checked = self.payload.len(),
            Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
            Err(_) => return Err(Violation::NotUtf8),
        }
        Ok(())
    }

    /// Returns the complete message.
    pub(super) fn finish(self) -> Result<Event, Violation> {
        if self.is_text {
            return String::from_utf8(self.payload).map(Event::Text).map_err(|_| Violation::NotUtf8);
        }
        Ok(Event::Binary(Bytes::from(self.payload)))
    }

    /// Returns whether a frame of this opcode may come now, if `current` is the message that has begun (section 5.4).
    pub(super) fn check_order(current: Option<&Self>, opcode: Opcode) -> Result<(), Violation> {
        match (opcode, current) {
            (Opcode::Continuation, None) => Err(Violation::Protocol("a continuation frame continues no message")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                Err(Violation::Protocol("a message begins before the one before it has ended"))
            }
            _ => Ok(()),
        }
    }
}
