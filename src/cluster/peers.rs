//! The lease of this node, and the peers that have one.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use jiff::Timestamp;
use prost::Message;
use redis::Cmd;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::{
    BusError, Engine,
    head::{MIN_VERSION, VERSION},
    live_peers::{Generation, Known, LivePeers},
    publisher::subscribers,
    shard::{Client, Shard},
};
use crate::proto::bus::v1;
use crate::telemetry;

/// A node whose clock is further off than this says so.
const MAX_SKEW_MS: i64 = 1_000;

/// What a heartbeat tells: the engine's time in ms, whether the lease was still there, of the engine's generation, the live peers, and
/// the incarnation and the peer of each whose lease has ended.
type Heartbeat = (i64, i64, Told, Vec<Vec<u8>>, Vec<Vec<u8>>);

/// Of a generation: its name, whether it began because the engine stood still, whether it has settled, the number of the last change of the
/// peers, and of the last one that all of them have seen.
type Told = (String, u8, u8, u64, u64);

/// What this node knows of its lease and its peers.
#[derive(Default)]
struct Lease {
    /// The engine's generation in which this incarnation has its lease.
    registered: Option<String>,
    /// The one in which this process last had a lease.
    last: Option<String>,
    /// The change of the peers at which it got it, at the latest.
    joined: u64,
    /// The last change of the peers that this node has seen.
    seen: u64,
    is_skewed: bool,
    /// The last heartbeat failed.
    is_away: bool,
    peers: LivePeers,
}

impl Lease {
    fn note_skew(&mut self, engine_ms: i64) {
        #[expect(clippy::disallowed_methods, reason = "what is compared is the system's clock")]
        let skew_ms = engine_ms - Timestamp::now().as_millisecond();
        telemetry::clock_skew(skew_ms);
        let is_skewed = skew_ms.abs() > MAX_SKEW_MS;
        if is_skewed && !self.is_skewed {
            tracing::warn!(skew_ms, "the clocks of this node and of the engine differ by more than a second");
        }
        self.is_skewed = is_skewed;
    }
}

/// Another process has this node's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NameTaken;

impl Shard {
    /// Renews the lease, again and again. Ends if another process has this node's name.
    pub(super) async fn heartbeat_loop(self: Arc<Self>) {
        let mut ticks = interval(self.config.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lease = Lease::default();
        let mut name_lost_since = None;
        let mut connected = self.engine.watch();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = self.heartbeat_now.notified() => {}
                // Another engine may have another clock, and may not know this node.
                _ = connected.changed() => {}
            }
            if self.is_leaving.load(Ordering::Acquire) {
                return;
            }
            if self.index == 0 && self.has_lost_name(&mut name_lost_since).await {
                tracing::error!(
                    cluster.node = self.config.node_name(),
                    "another process has this node's name: give each node its own cluster.node"
                );
                return;
            }
            let was_away = lease.is_away;
            match self.heartbeat(&mut lease).await {
                Ok(()) => lease.is_away = false,
                Err(error) => {
                    lease.is_away = true;
                    self.set_whole(false);
                    tracing::debug!(%error, "no heartbeat");
                }
            }
            if was_away && !lease.is_away && self.is_ready() {
                // What could not be read meanwhile is read now.
                self.recovered(false);
            }
        }
    }

    /// Whether another process has this node's name, for as long as a lease.
    async fn has_lost_name(&self, since: &mut Option<Instant>) -> bool {
        match self.hold_name().await {
            Ok(Ok(())) | Err(_) => {
                *since = None;
                false
            }
            Ok(Err(NameTaken)) => since.get_or_insert_with(Instant::now).elapsed() > self.config.lease,
        }
    }

    /// Takes or renews this node's name.
    pub(super) async fn hold_name(&self) -> Result<Result<(), NameTaken>, BusError> {
        let key = self.engine.name("node", &self.config.node_name());
        let mut hold = Engine::function("hold_name", &[&key]);
        hold.arg(hex(self.holder)).arg(milliseconds(self.config.lease));
        let is_ours: i64 = self.engine.run(&hold).await?;
        Ok(if is_ours == 1 { Ok(()) } else { Err(NameTaken) })
    }

    async fn heartbeat(&self, lease: &mut Lease) -> Result<(), BusError> {
        let connected = self.engine.connected()?;
        let (connection, call) = (connected.generation, self.heartbeat_call(lease, connected.may_kill));
        let asked = Instant::now();
        let answer = self.engine.run_over(connected, &call).await?;
        if asked.elapsed() > self.config.deadline {
            // This node stood still meanwhile: the answer is of a time that is long over.
            return Err(BusError::Unanswered);
        }
        let (time_ms, known, told, peers, ended): Heartbeat = answer;
        self.clock.set(asked, Instant::now(), time_ms, self.config.deadline);
        lease.note_skew(time_ms);
        if known == 0 {
            // Other nodes took this one for dead, and no longer wait for its answers.
            tracing::warn!(cluster.redis = self.engine.masked(), "this node's lease has ended: it takes another one");
            lease.registered = None;
            *self.known.lock() = Arc::new(Known::none());
            self.renew_incarnation();
            self.fenced.notify_one();
            self.heartbeat_now.notify_one();
        } else {
            *self.renewed.lock() = Some(asked);
            let peers: Vec<_> = peers.iter().filter_map(|peer| v1::Peer::decode(&**peer).ok()).collect();
            self.note_versions(&peers);
            let count = self.note_peers(lease, peers, told, (connection, asked));
            self.heartbeat_done.notify_waiters();
            let mut ready = redis::cmd("PUBSUB");
            ready.arg("NUMSUB").arg(self.engine.single("ready"));
            let ready = subscribers(&self.engine.query(&ready).await?);
            telemetry::peers(count, ready);
            self.set_whole(self.is_ready() && ready >= count as u64 && !lease.peers.misses_some());
        }
        self.remove_ended(&ended).await
    }

    /// Notes who the peers are, and returns how many there are. `(connection, asked)`: over which connection, and when, this node asked.
    fn note_peers(
        &self,
        lease: &mut Lease,
        peers: Vec<v1::Peer>,
        (name, stood_still, has_settled, change, seen_by_all): Told,
        (connection, asked): (u64, Instant),
    ) -> usize {
        let has_settled = has_settled != 0;
        let told = (lease.registered.as_ref() == Some(&name)).then_some(lease.seen);
        if told.is_none() {
            lease.registered = Some(name.clone());
            lease.last = Some(name.clone());
            lease.joined = change;
        }
        let generation = Generation { name, stood_still: stood_still != 0, has_settled };
        let peers = peers.into_iter().map(|peer| (peer.incarnation, peer.node));
        let live = lease.peers.seen(peers, generation, asked, self.config.lease);
        let count = usize::try_from(live.values().sum::<u64>()).unwrap_or(usize::MAX);
        let channels = live.into_iter().map(|(name, count)| (self.ready_channel(&name), count)).collect();
        let (misses_some, until) = (lease.peers.misses_some(), asked + self.config.lease);
        *self.known.lock() = Arc::new(Known { channels, misses_some, connection, until });
        self.live.store(count, Ordering::Relaxed);
        lease.seen = change;
        if told != Some(change) {
            // Who has come waits until all have told that they know.
            self.heartbeat_now.notify_one();
        }
        if has_settled && told.is_some() && seen_by_all >= lease.joined {
            self.is_counted.store(true, Ordering::Release);
        }
        count
    }

    /// Has the engine close the connections of peers whose lease is over, and removes these peers then: until both is done they count as live.
    async fn remove_ended(&self, ended: &[Vec<u8>]) -> Result<(), BusError> {
        for [incarnation, peer] in ended.as_chunks().0 {
            // One that is none of ours is removed, too.
            let peer = v1::Peer::decode(&**peer).unwrap_or_default();
            tracing::warn!(cluster.node = peer.node, "the lease of a node has ended");
            let id = u64::try_from(peer.client_id).unwrap_or_default();
            self.kill(&Client { id, run_id: peer.run_id.into() }).await?;
            let [peers, values, seen, _, back] = &self.peer_keys();
            let mut remove = Engine::function("remove_peer", &[peers, values, seen, back]);
            remove.arg(incarnation);
            self.engine.run::<i64>(&remove).await?;
        }
        Ok(())
    }

    /// The leases, the values beside them, what each peer has seen, the engine's generation, and who is back in it.
    fn peer_keys(&self) -> [String; 5] {
        ["peers", "peer", "seen", "engine", "back"].map(|kind| self.engine.single(kind))
    }

    /// `may_kill`: the engine closes the connections that this node has lost.
    fn heartbeat_call(&self, lease: &Lease, may_kill: bool) -> Cmd {
        let client = self.client.lock().clone();
        let own = v1::Peer {
            node: self.config.node_name(),
            incarnation: self.incarnation(),
            min_version: MIN_VERSION.into(),
            max_version: VERSION.into(),
            client_id: client.as_ref().map_or(0, |client| i64::try_from(client.id).unwrap_or_default()),
            run_id: client.map(|client| client.run_id.to_string()).unwrap_or_default(),
        };
        let [peers, values, seen, engine, back] = &self.peer_keys();
        let mut call = Engine::function("heartbeat", &[peers, values, seen, engine, back]);
        call.arg(hex(self.incarnation())).arg(milliseconds(self.config.lease)).arg(own.encode_to_vec());
        let [registered, last] = [&lease.registered, &lease.last].map(|name| name.as_deref().unwrap_or_default());
        call.arg(registered).arg(lease.seen).arg(peers).arg(last).arg(u8::from(self.is_ready() && may_kill));
        // By then each live peer has renewed its lease.
        call.arg(milliseconds(self.config.lease + self.config.heartbeat));
        call
    }

    fn note_versions(&self, peers: &[v1::Peer]) {
        let newest = peers.iter().map(|peer| u8::try_from(peer.max_version).unwrap_or(u8::MAX)).min();
        self.version.store(newest.unwrap_or(VERSION).clamp(MIN_VERSION, VERSION), Ordering::Relaxed);
    }

    /// Ends the lease: other nodes no longer wait for this one.
    pub(super) async fn leave(&self) {
        self.is_leaving.store(true, Ordering::Release);
        let [peers, values, seen, _, back] = &self.peer_keys();
        let name = self.engine.name("node", &self.config.node_name());
        let mut leave = Engine::function("leave", &[peers, values, seen, back, &name]);
        leave.arg(hex(self.incarnation())).arg(hex(self.holder));
        self.set_ready(false);
        let client = self.client.lock().take();
        if let Some(client) = client {
            let _ = self.kill(&client).await;
        }
        let _ = self.engine.run::<i64>(&leave).await;
        // The subscribing connection's task may wait for a join.
        self.rooms.requested.notify_one();
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// As keys and values of the engine have it.
fn hex(number: u64) -> String {
    format!("{number:016x}")
}
