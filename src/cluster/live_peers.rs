use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

#[cfg(test)]
use super::broken::{Rule, is_broken};

/// The peers whose connections a receipt must not leave out.
///
/// The engine knows who has a lease. After a time without it (it restarted, lost its data, or stood still, or this node did) it may not know
/// peers that are about to come back: those that were known before count for one lease longer.
#[derive(Default)]
pub(super) struct LivePeers {
    /// The names of those that had a lease.
    known: HashSet<String>,
    last_seen: Option<Instant>,
    /// Known before the engine was away, until then.
    remembered: Option<(HashSet<String>, Instant)>,
}

impl LivePeers {
    /// Notes who has a lease, by incarnation and name, and returns the names of the live peers, each with how many have it. `is_new`: the
    /// engine is another one, or began anew.
    pub(super) fn seen(
        &mut self,
        peers: impl Iterator<Item = (u64, String)>,
        is_new: bool,
        lease: Duration,
    ) -> BTreeMap<String, u64> {
        let now = Instant::now();
        let mut live = BTreeMap::new();
        // Two processes may have one name for a while.
        for name in peers.collect::<HashMap<_, _>>().into_values() {
            *live.entry(name).or_default() += 1;
        }
        let names: HashSet<_> = live.keys().cloned().collect();
        let was_away = self.last_seen.is_some_and(|last_seen| is_new || now - last_seen > lease / 2);
        #[cfg(test)]
        let was_away = was_away && !is_broken(Rule::OutageKeepsPeers);
        if was_away {
            let mut remembered = std::mem::take(&mut self.known);
            remembered.extend(self.remembered.take().into_iter().flat_map(|(names, _)| names));
            self.remembered = Some((remembered, now + lease));
        }
        self.remembered.take_if(|(_, until)| *until <= now);
        self.last_seen = Some(now);
        self.known = names;
        // The lease of one that is known may be from before, and end before the peer is back.
        for name in self.remembered.iter().flat_map(|(names, _)| names) {
            live.entry(name.clone()).or_insert(1);
        }
        live
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LEASE: Duration = Duration::from_secs(5);
    const BEAT: Duration = Duration::from_secs(1);

    fn seen(peers: &mut LivePeers, list: impl Iterator<Item = (u64, String)>, is_new: bool, lease: Duration) -> usize {
        peers.seen(list, is_new, lease).len()
    }

    fn names(list: &str) -> impl Iterator<Item = (u64, String)> {
        list.chars().map(|name| (u64::from(name), String::from(name)))
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_lease_has_ended_is_not_live() {
        let mut peers = LivePeers::default();
        assert_eq!(seen(&mut peers, names("abc"), true, LEASE), 3);
        advance(BEAT).await;
        assert_eq!(seen(&mut peers, names("ab"), false, LEASE), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn peers_from_before_an_outage_count_until_they_are_back_or_a_lease_has_passed() {
        for is_new in [true, false] {
            let mut peers = LivePeers::default();
            seen(&mut peers, names("abc"), true, LEASE);
            advance(if is_new { BEAT } else { 3 * BEAT }).await;
            assert_eq!(seen(&mut peers, names("a"), is_new, LEASE), 3);
            advance(BEAT).await;
            assert_eq!(seen(&mut peers, names("ab"), false, LEASE), 3, "one is back");
            for _ in 0..5 {
                advance(BEAT).await;
                seen(&mut peers, names("ab"), false, LEASE);
            }
            assert_eq!(seen(&mut peers, names("ab"), false, LEASE), 2, "the other is not");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_lease_is_from_before_an_outage_counts_for_one_lease_longer() {
        let mut peers = LivePeers::default();
        seen(&mut peers, names("ab"), true, LEASE);
        advance(4 * BEAT).await;
        assert_eq!(seen(&mut peers, names("ab"), true, LEASE), 2);
        advance(BEAT).await;
        assert_eq!(seen(&mut peers, names("a"), false, LEASE), 2, "it is about to come back");
    }
}
