use super::{
    CloseFrame, Event, Opcode, Violation,
    header::{Header, PartialHeader, unmask},
    message::Message,
};

/// Reads a client's frames from bytes that arrive in any portions.
///
/// Between frames it owns no memory on the heap; inside one it owns what has arrived of the message, never what a header
/// announces.
#[derive(Debug)]
pub struct FrameReader {
    max_message: usize,
    stage: Stage,
    /// The data message that has begun.
    message: Option<Message>,
    /// What has arrived of a control frame's payload, at most 125 bytes.
    control: Vec<u8>,
}

#[derive(Debug)]
enum Stage {
    Header(PartialHeader),
    Payload {
        header: Header,
        arrived: u64,
    },
    /// A violation was found: there is no next frame.
    Failed(Violation),
}

impl FrameReader {
    /// Creates a reader that refuses messages of more than `max_message` bytes, all fragments together.
    pub fn new(max_message: usize) -> Self {
        let stage = Stage::Header(PartialHeader::default());
        Self { max_message, stage, message: None, control: Vec::new() }
    }

    /// Changes the largest message, in bytes, from the next frame on.
    pub fn set_max_message(&mut self, bytes: usize) {
        self.max_message = bytes;
    }

    /// Takes bytes from `input` up to the end of the next event and returns it; or takes all of `input` and returns `None`.
    /// After a violation, each call returns the same one.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        self.advance(input).inspect_err(|violation| {
            (self.message, self.control) = (None, Vec::new());
            self.stage = Stage::Failed(*violation);
        })
    }

    /// Returns the capacity of its buffers, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.control.capacity() + self.message.as_ref().map_or(0, Message::capacity)
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        loop {
            match &mut self.stage {
                Stage::Failed(violation) => return Err(*violation),
                Stage::Header(partial) => {
                    let Some(header) = partial.read(input)? else {
                        return Ok(None);
                    };
                    self.begin(&header)?;
                    self.stage = Stage::Payload { header, arrived: 0 };
                }
                Stage::Payload { header, arrived } => {
                    let is_control = header.opcode.is_control();
                    let payload = match &mut self.message {
                        Some(message) if !is_control => message.payload(),
                        _ => &mut self.control,
                    };
                    take(payload, header, arrived, input);
                    let is_complete = *arrived == header.length;
                    let (opcode, is_final) = (header.opcode, header.is_final);
                    if is_complete {
                        self.stage = Stage::Header(PartialHeader::default());
                        if let Some(event) = self.end(opcode, is_final)? {
                            return Ok(Some(event));
                        }
                    } else {
                        if !is_control && let Some(message) = &mut self.message {
                            message.check_so_far()?;
                        }
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Checks a header against the frames before it, and begins its message if it is the first.
    fn begin(&mut self, header: &Header) -> Result<(), Violation> {
        if header.opcode.is_control() {
            return Ok(());
        }
        Message::check_order(self.message.as_ref(), header.opcode)?;
        let message = self.message.get_or_insert_with(|| Message::new(header.opcode == Opcode::Text));
        let free = self.max_message.saturating_sub(message.len());
        if usize::try_from(header.length).is_ok_and(|length| length <= free) {
            return message.note_fragment(header.length);
        }
        Err(Violation::TooLarge)
    }

    /// Ends a frame whose payload is complete. Returns the event that it completes.
    fn end(&mut self, opcode: Opcode, is_final: bool) -> Result<Option<Event>, Violation> {
        let event = match opcode {
            Opcode::Ping => Event::Ping(std::mem::take(&mut self.control).into()),
            Opcode::Pong => Event::Pong(std::mem::take(&mut self.control).into()),
            Opcode::Close => Event::Close(CloseFrame::parse(&std::mem::take(&mut self.control))?),
            Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                if !is_final {
                    return self.message.as_mut().map_or(Ok(()), Message::check_so_far).map(|()| None);
                }
                return self.message.take().map(Message::finish).transpose();
            }
        };
        Ok(Some(event))
    }
}

/// Moves what is there of a frame's payload from `input` to `payload`, and unmasks it.
fn take(payload: &mut Vec<u8>, header: &Header, arrived: &mut u64, input: &mut &[u8]) {
    let missing = usize::try_from(header.length - *arrived).unwrap_or(usize::MAX);
    let (taken, rest) = input.split_at(missing.min(input.len()));
    *input = rest;
    let start = payload.len();
    if payload.capacity() - start < taken.len() {
        // It grows in doubles, but never past the end of the frame: one that arrives whole gets exactly the memory that it needs.
        payload.reserve_exact(taken.len().max(start.min(missing)));
    }
    payload.extend_from_slice(taken);
    unmask(&mut payload[start..], header.key, *arrived);
    *arrived += taken.len() as u64;
}
