use std::collections::HashSet;

/// A set of names that is counted together with those of other nodes: exact while it is small, else a `HyperLogLog` (Flajolet et al., 2007) of
/// 2^16 registers, whose standard error is 0.4 %.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sketch {
    /// The hashes of the names.
    Few(HashSet<u64>),
    /// The registers.
    Many(Box<[u8]>),
}

/// The largest exact set: 8 bytes a name are less than the registers up to here.
const MAX_FEW: usize = 8_192;
const INDEX_BITS: u32 = 16;
pub(super) const REGISTERS: usize = 1 << INDEX_BITS;

impl Default for Sketch {
    fn default() -> Self {
        Self::Few(HashSet::new())
    }
}

impl Sketch {
    /// The set of these names.
    pub fn of<'a>(names: impl Iterator<Item = &'a str>) -> Self {
        let mut sketch = Self::default();
        names.for_each(|name| sketch.add(name));
        sketch
    }

    /// Adds a name.
    pub fn add(&mut self, name: &str) {
        self.insert(hash(name));
    }

    /// Adds the names of another set.
    pub fn merge(&mut self, other: Self) {
        match (&mut *self, other) {
            (_, Self::Few(hashes)) => {
                for hash in hashes {
                    self.insert(hash);
                }
            }
            (Self::Many(registers), Self::Many(others)) => {
                registers.iter_mut().zip(others).for_each(|(register, other)| *register = other.max(*register));
            }
            (Self::Few(_), many @ Self::Many(_)) => {
                let few = std::mem::replace(self, many);
                self.merge(few);
            }
        }
    }

    /// How many names there are.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate"
    )]
    pub fn count(&self) -> u64 {
        let registers = match self {
            Self::Few(hashes) => return hashes.len() as u64,
            Self::Many(registers) => registers,
        };
        let m = REGISTERS as f64;
        let sum: f64 = registers.iter().map(|register| (-f64::from(*register)).exp2()).sum();
        let estimate = 0.7213 / (1.0 + 1.079 / m) * m * m / sum;
        let empty: usize = registers.iter().map(|register| usize::from(*register == 0)).sum();
        if estimate <= 2.5 * m && empty > 0 {
            return (m * (m / empty as f64).ln()).round() as u64;
        }
        estimate.round() as u64
    }

    fn insert(&mut self, hash: u64) {
        match self {
            Self::Few(hashes) => {
                hashes.insert(hash);
                if hashes.len() > MAX_FEW {
                    let hashes = std::mem::take(hashes);
                    *self = Self::Many(vec![0; REGISTERS].into());
                    self.merge(Self::Few(hashes));
                }
            }
            Self::Many(registers) => {
                let index = (hash >> (64 - INDEX_BITS)) as usize;
                let rank = (hash << INDEX_BITS).leading_zeros().min(64 - INDEX_BITS) + 1;
                registers[index] = registers[index].max(u8::try_from(rank).unwrap_or(u8::MAX));
            }
        }
    }
}

/// FNV-1a with the finalizer of `MurmurHash3`: all nodes must agree.
fn hash(text: &str) -> u64 {
    let hash = text
        .bytes()
        .fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(names: std::ops::Range<u32>) -> Sketch {
        let names: Vec<_> = names.map(|number| format!("user-{number}")).collect();
        Sketch::of(names.iter().map(String::as_str))
    }

    #[test]
    fn few_names_are_counted_exactly_however_they_overlap() {
        let mut all = sketch(0..1_000);
        all.merge(sketch(500..1_500));
        assert_eq!(all.count(), 1_500);
    }

    #[test]
    fn many_names_are_counted_within_one_percent() {
        for (first, second, count) in [(0..20_000, 10_000..30_000, 30_000), (0..300_000, 299_999..300_100, 300_100)] {
            let mut all = sketch(first);
            all.merge(sketch(second));
            let error = all.count().abs_diff(count);
            assert!(error <= count / 100, "{error} of {count}");
        }
        let mut few = sketch(0..10);
        few.merge(sketch(0..20_000));
        assert!(few.count().abs_diff(20_000) <= 200);
    }
}
