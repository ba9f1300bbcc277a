use std::{
    collections::{BTreeMap, HashMap, HashSet},
    time::Duration,
};

use tokio::time::Instant;

#[cfg(test)]
use super::broken::{Rule, is_broken};

/// The peers whose connections a receipt must not leave out.
///
/// The engine has the leases. When its generation changes (it restarted, it is another engine, or it stood still) it may lack peers that are
/// about to come back. The peers that were known before count until the generation has settled: by then each live peer has renewed its lease. A
/// node that does not know the earlier peers (it has just started, or had no lease) may miss some until then. After the engine stood still, every
/// node may: the engine may count connections of ready peers that these peers have given up. That generation has settled as soon as all peers have
/// had the engine close those.
#[derive(Default)]
pub(super) struct LivePeers {
    /// The names of those that had a lease.
    known: HashSet<String>,
    /// Those of generations before, until this one has settled.
    remembered: HashSet<String>,
    /// The engine's, when this node last renewed its lease there, which it asked for then.
    last: Option<(String, Instant)>,
    misses_some: bool,
}

/// What a heartbeat tells of the engine's generation.
pub(super) struct Generation {
    pub(super) name: String,
    /// It began because the engine stood still.
    pub(super) stood_still: bool,
    /// All peers from before have come back, or are dead.
    pub(super) has_settled: bool,
}

/// The peers, as a receipt sees them.
#[derive(Debug)]
pub(super) struct Known {
    /// The channels to which they are subscribed while they are ready, each with how many have its name.
    pub(super) channels: Vec<(String, u64)>,
    /// There may be others.
    pub(super) misses_some: bool,
    /// The connection by which the engine told.
    pub(super) connection: u64,
    /// Until then no peer takes connections without being known to this node.
    pub(super) until: Instant,
}

impl Known {
    /// Before the first heartbeat.
    pub(super) fn none() -> Self {
        Self { channels: Vec::new(), misses_some: true, connection: 0, until: Instant::now() }
    }

    /// How many names must be ready for a receipt to be complete, if the engine has just told of that over this connection: more than there
    /// are, if not all may be known.
    pub(super) fn live(&self, connection: u64) -> u64 {
        // An engine that forbids `CLIENT KILL` may still count a node as ready that has no lease.
        let misses_some = self.misses_some || self.connection != connection || Instant::now() >= self.until;
        self.channels.len() as u64 + u64::from(misses_some)
    }
}

impl LivePeers {
    /// Notes who has a lease, by incarnation and name, and returns the names of the live peers, each with how many have it. `asked`: when this
    /// node asked for it.
    pub(super) fn seen(
        &mut self,
        peers: impl Iterator<Item = (u64, String)>,
        generation: Generation,
        asked: Instant,
        lease: Duration,
    ) -> BTreeMap<String, u64> {
        let mut live = BTreeMap::new();
        // Two processes may have one name for a while.
        for name in peers.collect::<HashMap<_, _>>().into_values() {
            *live.entry(name).or_default() += 1;
        }
        let names: HashSet<_> = live.keys().cloned().collect();
        let Generation { name, stood_still, has_settled } = generation;
        let last = self.last.as_ref();
        if last.is_none_or(|(last, _)| *last != name) {
            // Peers that came without this node's knowledge waited until its lease was over.
            let knew_all = !self.misses_some && last.is_some_and(|(_, renewed)| renewed.elapsed() < lease);
            self.misses_some = stood_still || !knew_all;
            self.remembered.extend(std::mem::take(&mut self.known));
        }
        if has_settled {
            self.remembered.clear();
            self.misses_some = false;
        }
        #[cfg(test)]
        if is_broken(Rule::OutageKeepsPeers) {
            self.remembered.clear();
        }
        self.last = Some((name, asked));
        self.known = names;
        for name in &self.remembered {
            live.entry(name.clone()).or_insert(1);
        }
        live
    }

    /// Whether there may be peers that [`LivePeers::seen`] does not tell of.
    pub(super) fn misses_some(&self) -> bool {
        #[cfg(test)]
        if is_broken(Rule::UnknownPeersCount) {
            return false;
        }
        self.misses_some
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const LEASE: Duration = Duration::from_secs(5);
    const BEAT: Duration = Duration::from_secs(1);

    /// What a heartbeat tells: the generation's name, and who has a lease.
    fn seen(peers: &mut LivePeers, name: &str, has_settled: bool, list: &str) -> usize {
        let list = list.chars().map(|name| (u64::from(name), String::from(name)));
        let stood_still = name.ends_with('!');
        let generation = Generation { name: name.to_owned(), stood_still, has_settled };
        peers.seen(list, generation, Instant::now(), LEASE).len()
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_lease_has_ended_is_not_live() {
        let mut peers = LivePeers::default();
        assert_eq!(seen(&mut peers, "1", true, "abc"), 3);
        advance(BEAT).await;
        assert_eq!(seen(&mut peers, "1", true, "ab"), 2);
        assert!(!peers.misses_some());
    }

    #[tokio::test(start_paused = true)]
    async fn peers_from_before_an_outage_count_until_they_are_back_or_the_new_generation_has_settled() {
        let mut peers = LivePeers::default();
        seen(&mut peers, "1", true, "abc");
        advance(BEAT).await;
        assert_eq!(seen(&mut peers, "2", false, "a"), 3);
        assert!(!peers.misses_some(), "all were known");
        advance(BEAT).await;
        assert_eq!(seen(&mut peers, "3", false, "ab"), 3, "another outage");
        advance(BEAT).await;
        assert_eq!(seen(&mut peers, "3", false, "ab"), 3, "one is back");
        assert_eq!(seen(&mut peers, "3", true, "ab"), 2, "the other is not");
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_node_misses_peers_until_the_generation_has_settled() {
        let mut peers = LivePeers::default();
        seen(&mut peers, "1", false, "a");
        assert!(peers.misses_some());
        advance(BEAT).await;
        seen(&mut peers, "2", false, "a");
        assert!(peers.misses_some(), "it did not know all before the next outage");
        advance(BEAT).await;
        seen(&mut peers, "2", true, "ab");
        assert!(!peers.misses_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_had_no_lease_before_an_outage_misses_peers() {
        let mut peers = LivePeers::default();
        seen(&mut peers, "1", true, "ab");
        advance(LEASE).await;
        seen(&mut peers, "2", false, "a");
        assert!(peers.misses_some());
    }

    #[tokio::test(start_paused = true)]
    async fn no_node_trusts_the_counts_of_an_engine_that_stood_still() {
        let mut peers = LivePeers::default();
        seen(&mut peers, "1", true, "ab");
        advance(BEAT).await;
        seen(&mut peers, "2!", false, "ab");
        assert!(peers.misses_some());
        seen(&mut peers, "2!", true, "ab");
        assert!(!peers.misses_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_receipt_is_not_complete_without_a_lease_or_by_another_connection_than_the_heartbeat_s() {
        let channels = vec![("a".to_owned(), 1), ("b".to_owned(), 1)];
        let known = Known { channels, misses_some: false, connection: 7, until: Instant::now() + LEASE };
        assert_eq!(known.live(7), 2);
        assert_eq!(known.live(8), 3);
        advance(LEASE).await;
        assert_eq!(known.live(7), 3);
        assert_eq!(Known::none().live(0), 1);
    }
}
