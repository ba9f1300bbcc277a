//! The reader of WebSocket frames (RFC 6455): it finds the same events however the bytes arrive, and no message exceeds
//! its limit.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use transport::websocket::{Event, FrameReader, Violation};

#[derive(Arbitrary, Debug)]
struct Input {
    max_message: u16,
    /// The sizes of the portions in which the bytes arrive, again and again.
    portions: [u8; 3],
    frames: Vec<Frame>,
    rest: Vec<u8>,
}

/// A frame that is mostly valid. Random bytes are masked and of a known opcode too seldom to get far.
#[derive(Arbitrary, Debug)]
struct Frame {
    first_byte: u8,
    keep_first_byte: bool,
    mask: [u8; 4],
    payload: Vec<u8>,
    is_text: bool,
}

impl Frame {
    fn write(&self, bytes: &mut Vec<u8>) {
        const OPCODES: [u8; 8] = [0x00, 0x01, 0x02, 0x80, 0x81, 0x82, 0x89, 0x8a];
        let opcode = OPCODES[usize::from(self.first_byte) % OPCODES.len()];
        bytes.push(if self.keep_first_byte { self.first_byte } else { opcode });
        match self.payload.len() {
            short @ ..126 => bytes.push(0x80 | u8::try_from(short).unwrap_or_default()),
            long => {
                bytes.push(0x80 | 126);
                bytes.extend(u16::try_from(long).unwrap_or_default().to_be_bytes());
            }
        }
        bytes.extend(self.mask);
        let payload = String::from_utf8_lossy(&self.payload);
        let payload = if self.is_text { &payload.as_bytes()[..self.payload.len()] } else { &self.payload };
        bytes.extend(payload.iter().zip(self.mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    }
}

fn read<'a>(max: usize, portions: impl Iterator<Item = &'a [u8]>) -> (Vec<Event>, Option<Violation>) {
    let mut reader = FrameReader::new(max);
    let mut events = Vec::new();
    for mut portion in portions {
        loop {
            match reader.read(&mut portion) {
                Ok(Some(event)) => events.push(event),
                Ok(None) => break assert!(portion.is_empty(), "it stopped before the end of its input"),
                Err(violation) => {
                    assert_eq!(
                        reader.read(&mut &b"\x81\x80\0\0\0\0"[..]),
                        Err(violation),
                        "it went on after a violation"
                    );
                    return (events, Some(violation));
                }
            }
        }
    }
    (events, None)
}

fuzz_target!(|input: Input| {
    let mut bytes = Vec::new();
    input.frames.iter().for_each(|frame| frame.write(&mut bytes));
    bytes.extend(&input.rest);

    let max = usize::from(input.max_message);
    let whole = read(max, [&*bytes].into_iter());
    let mut rest = &*bytes;
    let sizes = input.portions.iter().map(|size| usize::from(*size).max(1)).cycle();
    let portions = sizes.map_while(|size| {
        let (portion, after) = rest.split_at(size.min(rest.len()));
        rest = after;
        (!portion.is_empty()).then_some(portion)
    });
    assert_eq!(read(max, portions), whole);

    for event in whole.0 {
        match event {
            Event::Text(text) => assert!(text.len() <= max),
            Event::Binary(data) => assert!(data.len() <= max),
            Event::Ping(data) | Event::Pong(data) => assert!(data.len() <= 125),
            Event::Close(_) => {}
        }
    }
});
