//! The leases of nodes at the engine in memory, and which nodes receipts must count.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{
    super::broken::{Rule, is_broken},
    memory::{State, bulk, integer, milliseconds},
    node::LEASE,
};

/// As `peers.lua` has it.
pub(super) struct Generation {
    run: u64,
    name: String,
    since_ms: i64,
    /// When the first peer came in it.
    heard_ms: i64,
    renewed_ms: i64,
    stood_still: bool,
    is_first: bool,
    is_whole: bool,
    change: u64,
    /// By incarnation: the change at which it came, and the last one that it has seen.
    seen: BTreeMap<Vec<u8>, (u64, u64)>,
    back: BTreeSet<Vec<u8>>,
}

/// Whether receipts must count a node.
#[derive(Clone, Copy, Default)]
pub(super) struct Contact {
    pub(super) renewed: Option<Instant>,
    /// When the node last did.
    reached: Option<Instant>,
    /// It was not renewed since the engine is back: the node had no chance.
    pub(super) is_prolonged: bool,
    /// Since when they must, if they must while it has a lease.
    counts_since: Option<Instant>,
    is_serving: bool,
    /// When the process began; none: with all else.
    began: Option<Instant>,
}

impl State {
    /// Whether receipts of a process that began then must count a node, and had to at the time of the emit.
    ///
    /// One is excused: it is younger than an engine that lost its data, and was there before any process that had a lease there. It cannot
    /// tell such an engine from one that never had nodes. That the engine is older than a lease then takes another fault.
    pub(super) fn must_count(&self, node: usize, began: Instant, then: Instant) -> bool {
        let Contact { renewed, is_prolonged, counts_since, .. } = self.contacts[node];
        if is_prolonged && began >= self.empty_since && self.met_at.is_none_or(|met_at| then <= met_at) {
            return false;
        }
        let has_lease = renewed.is_some_and(|renewed| renewed.elapsed() < LEASE);
        has_lease && counts_since.is_some_and(|since| since < then)
    }

    /// When a node last renewed its lease itself.
    pub(super) fn reached(&self, node: usize) -> Option<Instant> {
        self.contacts[node].reached
    }

    /// A new process takes connections from now on. Receipts must count them, unless it could not wait until all peers knew it.
    pub(super) fn serves(&mut self, node: usize, is_counted: bool) {
        let contact = &mut self.contacts[node];
        contact.is_serving = true;
        contact.counts_since = is_counted.then(Instant::now);
    }

    /// A process of the node is new.
    pub(super) fn forget_contact(&mut self, node: usize) {
        self.contacts[node] = Contact { began: Some(Instant::now()), ..Contact::default() };
    }

    pub(super) fn remove_peer(&mut self, incarnation: &[u8]) {
        self.peers.remove(incarnation);
        if let Some(generation) = &mut self.generation {
            generation.seen.remove(incarnation);
            generation.back.remove(incarnation);
        }
    }

    /// As `peers.lua` does it.
    fn generation(&mut self, own: &[u8], (lease, settled): (i64, i64), last_in: &[u8]) -> &mut Generation {
        let (now, run) = (self.now_ms(), self.starts);
        let others = self.peers.keys().any(|peer| peer != own);
        let had_lease = |name: &str| !last_in.is_empty() && last_in != name.as_bytes();
        let has_stood_still = |last: &Generation| {
            (now - last.renewed_ms).abs() > lease / 2 && (others || last.renewed_ms - last.since_ms < settled)
        };
        let begins = match &self.generation {
            None if !had_lease("") => Some((self.began_ms, false, true, false)),
            None => Some((now, false, false, false)),
            Some(last) if last.run != run || last.is_first && had_lease(&last.name) => Some((now, false, false, false)),
            Some(last) if has_stood_still(last) => {
                Some((now, true, false, last.is_whole || last.renewed_ms - last.heard_ms >= settled))
            }
            Some(_) => None,
        };
        if let Some((since_ms, stood_still, is_first, is_whole)) = begins {
            let change = self.generation.as_ref().map_or(0, |last| last.change);
            let name = format!("{run}:{now}:{stood_still}{is_first}");
            let (heard_ms, renewed_ms, seen, back) = (now, now, BTreeMap::new(), BTreeSet::new());
            self.generation = Some(Generation {
                run,
                name,
                since_ms,
                heard_ms,
                renewed_ms,
                stood_still,
                is_first,
                is_whole,
                change,
                seen,
                back,
            });
        }
        let generation = self.generation.as_mut().unwrap();
        generation.renewed_ms = now;
        generation
    }

    /// As `peers.lua` does it.
    pub(super) fn heartbeat(&mut self, node: usize, arguments: &[Vec<u8>]) -> Vec<u8> {
        let [own, lease, value, registered, seen, channel, last, is_ready, settled] = arguments else {
            panic!("{arguments:?}")
        };
        if self.contacts[node].began.is_none_or(|began| began < self.empty_since) {
            self.met_at.get_or_insert_with(Instant::now);
        }
        let (now, lease, settled) = (self.now_ms(), milliseconds(lease), milliseconds(settled));
        let generation = self.generation(own, (lease, settled), last);
        let since = generation.since_ms;
        let has_lease = |end: i64| (if end <= now + 2 * lease { end } else { 0 }).max(since + lease) > now;
        let registers = *registered != generation.name.as_bytes();
        let is_known = registers || self.peers.get(own).is_some_and(|(end, _)| has_lease(*end));
        if is_known {
            self.peers.insert(own.clone(), (now + lease, value.clone()));
            let generation = self.generation.as_mut().unwrap();
            let is_ready = is_ready == b"1";
            let may_be_back = !registers || is_broken(Rule::WhoRegistersIsNotBack);
            let came_back = generation.stood_still && is_ready && may_be_back && generation.back.insert(own.clone());
            if !registers {
                generation.seen.get_mut(own).unwrap().1 = u64::try_from(milliseconds(seen)).unwrap();
            } else if !generation.seen.contains_key(own) {
                generation.change += 1;
                generation.seen.insert(own.clone(), (generation.change, 0));
                self.publish(channel, own);
            }
            if came_back && self.are_back() {
                self.publish(channel, own);
            }
            self.note_renewed(node, own, settled);
        }
        let generation = self.generation.as_ref().unwrap();
        let told = [
            b"*5\r\n".to_vec(),
            bulk(generation.name.as_bytes()),
            integer(generation.stood_still.into()),
            integer(self.has_settled(settled).into()),
            integer(generation.change),
            integer(generation.seen_by_all()),
        ];
        let over = self.peers.iter().filter(|(_, (end, _))| !has_lease(*end));
        let ended = over.flat_map(|(peer, (_, value))| [peer.clone(), value.clone()]).collect();
        let array = |values: Vec<Vec<u8>>| {
            let head = format!("*{}\r\n", values.len()).into_bytes();
            std::iter::once(head).chain(values.iter().map(|value| bulk(value))).collect::<Vec<_>>().concat()
        };
        let live = self.peers.values().map(|(_, value)| value.clone()).collect();
        let head = [b"*5\r\n".to_vec(), integer(u64::try_from(now).unwrap()), integer(is_known.into())].concat();
        [head, told.concat(), array(live), array(ended)].concat()
    }

    fn are_back(&self) -> bool {
        let generation = self.generation.as_ref().unwrap();
        generation.stood_still && generation.is_whole && self.peers.keys().all(|peer| generation.back.contains(peer))
    }

    fn has_settled(&self, settled_ms: i64) -> bool {
        self.are_back() || self.now_ms() - self.generation.as_ref().unwrap().since_ms >= settled_ms
    }

    /// Notes that a node has renewed its lease. After a lease has ended, receipts may leave the node out until all peers know it again.
    fn note_renewed(&mut self, node: usize, own: &[u8], settled: i64) {
        let generation = self.generation.as_ref().unwrap();
        let is_known = self.has_settled(settled) && generation.seen_by_all() >= generation.seen[own].0;
        let contact = &mut self.contacts[node];
        if contact.renewed.is_some_and(|renewed| renewed.elapsed() >= LEASE) {
            contact.counts_since = None;
        }
        (contact.renewed, contact.is_prolonged) = (Some(Instant::now()), false);
        contact.reached = contact.renewed;
        if is_known && contact.is_serving {
            contact.counts_since.get_or_insert_with(Instant::now);
        }
    }
}

impl Generation {
    fn seen_by_all(&self) -> u64 {
        self.seen.values().map(|(_, seen)| *seen).min().unwrap_or(self.change)
    }
}
