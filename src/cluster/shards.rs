use std::sync::Arc;

use secrecy::ExposeSecret;

use super::{Config, address::Address, engine::Engine};
use crate::message::RoomName;

/// The engines, over which rooms are spread by their names. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Shards(Arc<[Engine]>);

impl Shards {
    /// The engines of the configuration, none of which is connected yet. `None`: an address is wrong, or there is none.
    pub(super) fn new(config: &Config) -> Option<Self> {
        let engine = |url: &secrecy::SecretString| {
            let url = url.expose_secret();
            let address = Address::parse(url).ok()?;
            Some(Engine::new(address, Address::masked(url), &config.prefix, config.deadline))
        };
        let engines: Option<Vec<_>> = config.redis.iter().map(engine).collect();
        engines.filter(|engines| !engines.is_empty()).map(|engines| Self(engines.into()))
    }

    /// One engine in memory.
    #[cfg(test)]
    pub(super) fn in_memory(config: &Config, dialer: super::model::Dialer) -> Self {
        Self([Engine::new(Address::of(dialer), "memory".to_owned(), &config.prefix, config.deadline)].into())
    }

    /// Connected engines.
    #[cfg(test)]
    pub(crate) async fn connected(config: &Config) -> Option<Self> {
        let shards = Self::new(config)?;
        for engine in shards.all() {
            engine.connect(1).await.ok()?;
        }
        Some(shards)
    }

    /// The engine that has everything of a room.
    pub fn of(&self, room: &RoomName) -> &Engine {
        &self.0[self.index_of(room)]
    }

    /// Which one that is.
    pub fn index_of(&self, room: &RoomName) -> usize {
        if self.0.len() == 1 { 0 } else { jump_hash(hash(room.as_str()), self.0.len()) }
    }

    /// All engines, in the order of the configuration.
    pub fn all(&self) -> &[Engine] {
        &self.0
    }
}

/// FNV-1a of 64 bits: all nodes must agree, whatever their version.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Jump consistent hash (Lamping and Veach, 2014): with one bucket more, only the keys of the new one move.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "as published"
)]
fn jump_hash(mut key: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0_usize, 0_usize);
    while next < buckets {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket + 1) as f64 * ((1_u64 << 31) as f64 / ((key >> 33) + 1) as f64)) as usize;
    }
    bucket
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rooms_are_spread_evenly_and_one_shard_more_moves_only_its_own() {
        let rooms: Vec<_> = (0..10_000).map(|number| hash(&format!("user:{number}"))).collect();
        for buckets in 1..8 {
            let mut counts = vec![0_usize; buckets];
            for room in &rooms {
                let before = jump_hash(*room, buckets);
                counts[before] += 1;
                let after = jump_hash(*room, buckets + 1);
                assert!(after == before || after == buckets);
            }
            let fair = rooms.len() / buckets;
            assert!(counts.iter().all(|count| count.abs_diff(fair) < fair / 5), "{counts:?}");
        }
    }
}
