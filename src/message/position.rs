use std::{fmt, str::FromStr, sync::Arc};

use super::Invalid;

/// A message's place in its room's sequence. For whoever is outside it is the text `epoch.number`, and opaque.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Whose number it is: a sequence that was begun anew has another one.
    pub epoch: Arc<str>,
    /// The first message has 1; 0 is before all.
    pub number: u64,
}

/// The longest epoch, in bytes.
const MAX_EPOCH: usize = 64;

impl Position {
    /// The place with this number in an epoch.
    pub fn new(epoch: Arc<str>, number: u64) -> Self {
        Self { epoch, number }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

impl FromStr for Position {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("is not a position: give one as it came with a message");
        let (epoch, number) = text.rsplit_once('.').ok_or_else(invalid)?;
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        if epoch.is_empty() || epoch.len() > MAX_EPOCH || !is_number {
            return Err(invalid());
        }
        // Databases count with a sign.
        let number = number.parse().ok().filter(|number| i64::try_from(*number).is_ok()).ok_or_else(invalid)?;
        Ok(Self { epoch: epoch.into(), number })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_written() {
        for text in ["a.0", "4f1d2c.17", "a.b.9223372036854775807"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_position_is_refused() {
        for text in
            ["", ".", "a", "a.", ".1", "a.-1", "a.+1", "a.1.5x", "a.9223372036854775808", "a.99999999999999999999"]
        {
            assert!(text.parse::<Position>().is_err(), "{text:?}");
        }
        assert!(format!("{}.1", "e".repeat(65)).parse::<Position>().is_err());
    }
}
