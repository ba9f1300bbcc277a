use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use uuid::Uuid;

use super::keys::millis;
use crate::cluster::{BusError, Engine, Shards, encode_receipt};
use crate::lifecycle::Lifecycle;
use crate::message::Receipt;

/// From how many bytes on a receipt counts as large.
const LARGE_RECEIPT: usize = 1_024;
/// The large receipts at one engine take up this much together, in bytes; past it the oldest keys go first.
const MAX_RECEIPT_BYTES: usize = 64 << 20;
/// The pause before an answer is noted again that could not be.
const RETRY: Duration = Duration::from_millis(250);
/// Leases that one call renews.
const RENEWED_AT_ONCE: usize = 500;

/// The names of an engine's list of keys by age, and of the sizes of large receipts.
pub(super) fn ages_and_sizes(engine: &Engine) -> [String; 2] {
    [engine.name("ages", "i"), engine.name("sizes", "i")]
}

/// The claims of this node. Each holds a lease, which is renewed while the claim lives.
pub(super) struct Claims {
    pub(super) shards: Shards,
    pub(super) lifecycle: Lifecycle,
    pub(super) lease: Duration,
    live: Mutex<HashMap<Uuid, LiveClaim>>,
}

struct LiveClaim {
    shard: usize,
    key: String,
    renewed: Instant,
}

/// The right to run the first emit under a key. If it is dropped before the emit was published, the next claim is the first, with the same
/// message id.
pub struct SharedClaim {
    claims: Arc<Claims>,
    shard: usize,
    key: String,
    token: Uuid,
    /// Whether nothing is to be released: it was answered, or was not granted.
    is_over: bool,
}

#[derive(Clone, Copy)]
enum Progress {
    Published,
    Done,
}

impl Claims {
    /// Claims whose leases are renewed until the claims, or what has made them, are dropped.
    pub(super) fn new(shards: Shards, lifecycle: Lifecycle, lease: Duration) -> Arc<Self> {
        let claims = Arc::new(Self { shards, lifecycle, lease, live: Mutex::default() });
        claims.lifecycle.spawn(renew(Arc::downgrade(&claims), lease / 5));
        claims
    }

    /// A claim that is asked for. If it is dropped before the engine's answer is known, it is released.
    pub(super) fn new_claim(self: &Arc<Self>, shard: usize, key: String) -> SharedClaim {
        let token = Uuid::new_v4();
        self.live.lock().insert(token, LiveClaim { shard, key: key.clone(), renewed: Instant::now() });
        SharedClaim { claims: self.clone(), shard, key, token, is_over: false }
    }

    /// The claims at an engine whose leases are to be renewed.
    fn due(&self, shard: usize) -> Vec<(Uuid, String)> {
        let now = Instant::now();
        let mut live = self.live.lock();
        let is_due = |claim: &LiveClaim| claim.shard == shard && now - claim.renewed >= self.lease / 5;
        let due = live.iter_mut().filter(|(_, claim)| is_due(claim));
        due.map(|(token, claim)| {
            claim.renewed = now;
            (*token, claim.key.clone())
        })
        .collect()
    }

    async fn renew_due(&self, shard: usize, engine: &Engine) {
        for claims in self.due(shard).chunks(RENEWED_AT_ONCE) {
            let keys: Vec<_> = claims.iter().map(|(_, key)| key.as_str()).collect();
            let mut call = Engine::function("renew_claims", &keys);
            call.arg(millis(self.lease));
            for (token, _) in claims {
                call.arg(&token.as_bytes()[..]);
            }
            if let Err(error) = engine.run::<()>(&call).await {
                tracing::debug!(%error, "leases of idempotency keys were not renewed");
            }
        }
    }
}

async fn renew(claims: Weak<Claims>, pause: Duration) {
    let mut tick = interval(pause);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let Some(lifecycle) = claims.upgrade().map(|claims| claims.lifecycle.clone()) else { return };
        let is_stopping = lifecycle.is_stopping();
        tokio::select! {
            _ = tick.tick() => {}
            () = lifecycle.stopping(), if !is_stopping => {}
        }
        let Some(claims) = claims.upgrade() else { return };
        if lifecycle.is_stopping() && claims.live.lock().is_empty() {
            return;
        }
        let engines = claims.shards.all().iter().enumerate();
        join_all(engines.map(|(shard, engine)| claims.renew_due(shard, engine))).await;
    }
}

impl SharedClaim {
    /// The claim's name at the engine.
    pub(super) fn token(&self) -> &[u8] {
        &self.token.as_bytes()[..]
    }

    /// Notes that the engine has not granted it.
    pub(super) fn was_refused(mut self) {
        self.is_over = true;
    }

    fn engine(&self) -> &Engine {
        &self.claims.shards.all()[self.shard]
    }

    /// Notes that the emit is published: repetitions get this receipt once its acknowledgements are known. If the caller gives up, it is noted
    /// all the same.
    pub async fn published(&self, receipt: &Receipt) -> Result<(), BusError> {
        self.note(Progress::Published, receipt).await
    }

    /// Notes the emit's answer: a repetition that is claimed after this finds it. If the caller gives up, or the engine does not answer, it is
    /// noted all the same, if possible before the lease ends.
    pub async fn done(mut self, receipt: &Receipt) -> Result<(), BusError> {
        self.is_over = true;
        self.note(Progress::Done, receipt).await
    }

    fn note(&self, progress: Progress, receipt: &Receipt) -> impl Future<Output = Result<(), BusError>> + use<> {
        let [ages, sizes] = ages_and_sizes(self.engine());
        let mut call = Engine::function("note_claim", &[&self.key, &ages, &sizes]);
        call.arg(self.token()).arg(progress.as_str()).arg(encode_receipt(receipt));
        call.arg(millis(self.claims.lease)).arg(LARGE_RECEIPT).arg(MAX_RECEIPT_BYTES);
        let (engine, claims) = (self.engine().clone(), self.claims.clone());
        self.claims.lifecycle.detach(async move {
            let noted = engine.run::<()>(&call).await;
            if noted.is_err() && matches!(progress, Progress::Done) {
                let lifecycle = claims.lifecycle.clone();
                lifecycle.spawn(async move {
                    let until = Instant::now() + claims.lease;
                    while Instant::now() < until && engine.run::<()>(&call).await.is_err() {
                        sleep(RETRY).await;
                    }
                });
            }
            noted
        })
    }
}

impl Progress {
    /// The state in the engine.
    fn as_str(self) -> &'static str {
        match self {
            Self::Published => "p",
            Self::Done => "d",
        }
    }
}

impl Drop for SharedClaim {
    fn drop(&mut self) {
        self.claims.live.lock().remove(&self.token);
        if self.is_over {
            return;
        }
        let mut call = Engine::function("release_claim", &[&self.key]);
        call.arg(self.token());
        let engine = self.engine().clone();
        self.claims.lifecycle.spawn(async move {
            // If this fails, the lease ends.
            let _ = engine.run::<()>(&call).await;
        });
    }
}
