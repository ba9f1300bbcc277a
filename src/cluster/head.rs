use super::Kept;

/// The version of the frames that this node sends, and the oldest that it understands.
pub(super) const VERSION: u8 = if cfg!(feature = "unknown-bus-version") { 200 } else { 1 };
pub(super) const MIN_VERSION: u8 = VERSION;

/// What a frame begins with, in all versions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) version: u8,
    /// The incarnation of the node that sent it.
    pub(super) origin: u64,
    /// Its number there.
    pub(super) number: u64,
    /// The number of the retained value that it brings; 0: none.
    pub(super) retained: u64,
    /// The sequence of the room's history, and the number there of the message that it brings; 0: none.
    pub(super) sequence: u64,
    pub(super) kept: u64,
}

/// Where the numbers stand that the engine puts in.
const NUMBERS: std::ops::Range<usize> = 17..41;

impl Head {
    /// Its length in bytes.
    pub(super) const LEN: usize = NUMBERS.end;

    /// Divides a frame from a channel into its head and the rest. `None`: it is too short to be one.
    pub(super) fn split(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (head, body) = frame.split_at_checked(Self::LEN)?;
        let number =
            |from: usize| head[from..from + 8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        let head = Self {
            version: head[0],
            origin: number(1),
            number: number(9),
            retained: number(17),
            sequence: number(25),
            kept: number(33),
        };
        Some((head, body))
    }

    pub(super) fn write(&self, frame: &mut Vec<u8>) {
        frame.push(self.version);
        for number in [self.origin, self.number, self.retained, self.sequence, self.kept] {
            frame.extend_from_slice(&number.to_be_bytes());
        }
    }

    /// The head of a frame that brings nothing that the engine keeps.
    pub(super) fn plain(version: u8, origin: u64, number: u64) -> Self {
        Self { version, origin, number, retained: 0, sequence: 0, kept: 0 }
    }

    /// The place in the room's history of the message that it brings, if it brings one.
    pub(super) fn kept(&self) -> Option<Kept> {
        (self.kept != 0).then_some(Kept { sequence: self.sequence, number: self.kept })
    }

    /// What is before and after the numbers in a frame that the engine puts in.
    pub(super) fn around_numbers(frame: &[u8]) -> (&[u8], &[u8]) {
        (&frame[..NUMBERS.start], &frame[NUMBERS.end..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = Head { retained: 9, sequence: 10, kept: 11, ..Head::plain(7, u64::MAX - 1, 0x0102_0304_0506_0708) };
        let mut frame = Vec::new();
        head.write(&mut frame);
        frame.extend_from_slice(b"rest");
        assert_eq!(Head::split(&frame), Some((head, &b"rest"[..])));
        assert_eq!(Head::split(&frame[..Head::LEN - 1]), None);
        assert_eq!(Head::around_numbers(&frame), (&frame[..17], &b"rest"[..]));
    }
}
