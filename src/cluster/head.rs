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
}

/// Where the number of the retained value stands.
const RETAINED: std::ops::Range<usize> = 17..25;

impl Head {
    /// Its length in bytes.
    pub(super) const LEN: usize = RETAINED.end;

    /// Divides a frame from a channel into its head and the rest. `None`: it is too short to be one.
    pub(super) fn split(frame: &[u8]) -> Option<(Self, &[u8])> {
        let (head, body) = frame.split_at_checked(Self::LEN)?;
        let number =
            |from: usize| head[from..from + 8].iter().fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Some((Self { version: head[0], origin: number(1), number: number(9), retained: number(17) }, body))
    }

    pub(super) fn write(&self, frame: &mut Vec<u8>) {
        frame.push(self.version);
        frame.extend_from_slice(&self.origin.to_be_bytes());
        frame.extend_from_slice(&self.number.to_be_bytes());
        frame.extend_from_slice(&self.retained.to_be_bytes());
    }

    /// What is before and after the number of the retained value in a frame, for the engine to put one in.
    pub(super) fn around_retained(frame: &[u8]) -> (&[u8], &[u8]) {
        (&frame[..RETAINED.start], &frame[RETAINED.end..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_was_written() {
        let head = Head { version: 7, origin: u64::MAX - 1, number: 0x0102_0304_0506_0708, retained: 9 };
        let mut frame = Vec::new();
        head.write(&mut frame);
        frame.extend_from_slice(b"rest");
        assert_eq!(Head::split(&frame), Some((head, &b"rest"[..])));
        assert_eq!(Head::split(&frame[..Head::LEN - 1]), None);
        assert_eq!(Head::around_retained(&frame), (&frame[..17], &b"rest"[..]));
    }
}
