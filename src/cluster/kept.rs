use crate::message::Position;

/// The place of a message in the history of a room that several nodes share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The sequence: another one after each restart of the engine.
    pub sequence: u64,
    /// Its number there; 0: before all.
    pub number: u64,
}

impl Kept {
    /// As devices are told it.
    pub fn position(&self) -> Position {
        Position::new(format!("{:016x}", self.sequence).into(), self.number)
    }

    /// Reads what [`Kept::position`] wrote. `None`: it is a place in no shared history.
    pub fn of(position: &Position) -> Option<Self> {
        let sequence = u64::from_str_radix(&position.epoch, 16).ok()?;
        let kept = Self { sequence, number: position.number };
        // Not "+1", nor "1".
        (kept.position() == *position).then_some(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_was_written_and_no_other_text_is_one() {
        let kept = Kept { sequence: 0xAB, number: 7 };
        assert_eq!(kept.position().to_string(), "00000000000000ab.7");
        assert_eq!(Kept::of(&kept.position()), Some(kept));
        for epoch in ["", "ab", "+0000000000000ab", "00000000000000AB", "000000000000000000ab"] {
            assert_eq!(Kept::of(&Position::new(epoch.into(), 7)), None, "{epoch:?}");
        }
    }
}
