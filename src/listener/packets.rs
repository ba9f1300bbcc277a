/// Counts the Socket.IO packets that pass in what a library writes to a WebSocket, and tells where its frames begin (RFC 6455, section
/// 5.2; frames of a server have no mask).
#[derive(Debug, Default)]
pub struct PacketCounter {
    stage: Stage,
    count: u64,
}

#[derive(Debug, Default)]
enum Stage {
    /// HTTP, which is nobody's business here.
    #[default]
    Http,
    /// The response that agrees to the upgrade: so much of its beginning and of its end has passed.
    Response {
        begun: usize,
        matched: usize,
    },
    /// A frame's header, and what the payload begins with.
    Header {
        read: [u8; LONGEST],
        length: usize,
    },
    Payload {
        left: u64,
    },
}

const BEGIN_OF_RESPONSE: &[u8] = b"HTTP/1.1 101 ";
const END_OF_RESPONSE: &[u8] = b"\r\n\r\n";
/// What a payload begins with: the type of Engine.IO's packet and that of Socket.IO's.
const TYPES: usize = 2;
const LONGEST: usize = 10 + TYPES;
const TEXT: u8 = 1;
const BINARY: u8 = 2;

impl PacketCounter {
    /// What passes next is the response that agrees to an upgrade, and then frames.
    pub fn expect_upgrade(&mut self) {
        *self = Self { stage: Stage::Response { begun: 0, matched: 0 }, count: 0 };
    }

    /// Packets that have begun to pass: CONNECT, EVENT, ACK and the binary kinds of the latter two, and each attachment.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether no frame has passed in part.
    pub fn is_between_frames(&self) -> bool {
        matches!(self.stage, Stage::Header { length: 0, .. })
    }

    /// These bytes pass.
    pub fn pass(&mut self, mut bytes: &[u8]) {
        while let Some(&byte) = bytes.first() {
            let mut taken = 1;
            match &mut self.stage {
                Stage::Http => return,
                // Another response, to an earlier request, or to one that is not agreed to.
                Stage::Response { begun, .. } if BEGIN_OF_RESPONSE.get(*begun).is_some_and(|begin| *begin != byte) => {
                    self.stage = Stage::Http;
                    return;
                }
                Stage::Response { begun, matched } => {
                    *begun += 1;
                    *matched = match byte {
                        byte if byte == END_OF_RESPONSE[*matched] => *matched + 1,
                        byte => usize::from(byte == END_OF_RESPONSE[0]),
                    };
                    if *matched == END_OF_RESPONSE.len() {
                        self.stage = Stage::between();
                    }
                }
                Stage::Header { read, length } => {
                    read[*length] = byte;
                    *length += 1;
                    if let Some(frame) = Frame::parse(&read[..*length]) {
                        self.count += u64::from(frame.is_packet);
                        self.stage = Stage::payload(frame.left);
                    }
                }
                Stage::Payload { left } => {
                    let rest = usize::try_from(*left).unwrap_or(usize::MAX);
                    taken = rest.min(bytes.len());
                    *left -= taken as u64;
                    let left = *left;
                    self.stage = Stage::payload(left);
                }
            }
            bytes = &bytes[taken..];
        }
    }
}

impl Stage {
    fn between() -> Self {
        Self::Header { read: [0; LONGEST], length: 0 }
    }

    fn payload(left: u64) -> Self {
        if left == 0 { Self::between() } else { Self::Payload { left } }
    }
}

/// A frame of which enough was read.
struct Frame {
    is_packet: bool,
    left: u64,
}

impl Frame {
    fn parse(read: &[u8]) -> Option<Self> {
        let (&first, &short) = (read.first()?, read.get(1)?);
        let (header, length) = match short & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes(read.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(read.get(2..10)?.try_into().ok()?)),
            length => (2, u64::from(length)),
        };
        let opcode = first & 0x0f;
        // A pong has what a device has chosen.
        let types = if opcode == TEXT { length.min(TYPES as u64) } else { 0 };
        let begun = read.get(header..)?;
        if (begun.len() as u64) < types {
            return None;
        }
        let is_packet = opcode == BINARY || (opcode == TEXT && is_packet(begun));
        Some(Self { is_packet, left: length - types })
    }
}

/// Whether a text is a packet of Socket.IO that is counted.
fn is_packet(text: &[u8]) -> bool {
    matches!(text, [b'4', b'0' | b'2' | b'3' | b'5' | b'6', ..])
}

/// How many packets there are in the answer to a poll, of version 4 of Engine.IO.
pub fn polled_packets(body: &[u8]) -> u64 {
    const SEPARATOR: u8 = 0x1e;
    let packets =
        body.split(|byte| *byte == SEPARATOR).filter(|packet| is_packet(packet) || packet.first() == Some(&b'b'));
    packets.count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![0x80 | opcode];
        match u16::try_from(payload.len()).unwrap() {
            length @ 0..126 => frame.push(u8::try_from(length).unwrap()),
            length => {
                frame.push(126);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend(payload);
        frame
    }

    fn session() -> Vec<u8> {
        let large = format!(r#"42["e","{}"]"#, "x".repeat(70_00));
        let frames: [(u8, &[u8]); 11] = [
            (1, br#"0{"sid":"1"}"#),
            (1, b"2"),
            (1, br#"40{"sid":"2"}"#),
            (1, br#"42["e",1]"#),
            (1, large.as_bytes()),
            (1, br#"451-["e",{"_placeholder":true,"num":0}]"#),
            (2, b""),
            (1, b"430[]"),
            (10, b"42"),
            (10, b"4"),
            (8, b"42"),
        ];
        let response = b"HTTP/1.1 101 Switching Protocols\r\nA: b\r\n\r\n".to_vec();
        frames.iter().fold(response, |bytes, (opcode, payload)| [bytes, frame(*opcode, payload)].concat())
    }

    #[test]
    fn packets_are_counted_however_the_bytes_are_cut() {
        let session = session();
        for size in [1, 2, 3, 7, 100, session.len()] {
            let mut counter = PacketCounter::default();
            counter.pass(b"HTTP/1.1 200 OK\r\n\r\n");
            counter.expect_upgrade();
            session.chunks(size).for_each(|bytes| counter.pass(bytes));
            assert_eq!(counter.count(), 6, "in pieces of {size}");
            assert!(counter.is_between_frames());
        }
    }

    #[test]
    fn a_response_that_does_not_agree_is_followed_by_no_frames() {
        let mut counter = PacketCounter::default();
        counter.expect_upgrade();
        counter.pass(b"HTTP/1.1 200 OK\r\n\r\n\x81\x0242");
        assert!(!counter.is_between_frames());
        assert_eq!(counter.count(), 0);
    }

    #[test]
    fn the_middle_of_a_frame_is_no_place_between_frames() {
        let mut counter = PacketCounter::default();
        assert!(!counter.is_between_frames());
        counter.expect_upgrade();
        counter.pass(b"HTTP/1.1 101 Switching Protocols\r\n\r\n");
        assert!(counter.is_between_frames());
        let frame = frame(1, br#"42["e",1]"#);
        for byte in &frame[..frame.len() - 1] {
            counter.pass(std::slice::from_ref(byte));
            assert!(!counter.is_between_frames());
        }
        counter.pass(&frame[frame.len() - 1..]);
        assert!(counter.is_between_frames());
    }

    #[test]
    fn polls_bring_packets_between_separators() {
        assert_eq!(polled_packets(b"2"), 0);
        assert_eq!(polled_packets(b"40{\"sid\":\"1\"}\x1e42[\"e\"]\x1e2\x1e451-[\"e\"]\x1ebAQID"), 4);
        assert_eq!(polled_packets(b""), 0);
    }
}
