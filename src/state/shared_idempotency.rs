use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    idempotency::{REMEMBERED, RequestHash, Scope},
    keys::{SWEEP_STEP, digest, millis, shard_of, share, sweep},
    shared_claim::{Claims, SharedClaim, ages_and_sizes},
};
use crate::cluster::{BusError, Engine, Shards, decode_receipt};
use crate::lifecycle::Lifecycle;
use crate::message::{MessageId, Receipt};

/// How long the claim of a node that is gone, or paused, keeps others from running the emit.
const LEASE: Duration = Duration::from_secs(5);
/// Keys that are looked at in one round trip.
const KEYS_PER_LOOK: usize = 512;
/// The pauses before a key is looked up again, from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const MAX_PAUSE: Duration = Duration::from_millis(50);

/// Remembers what was answered under an idempotency key: [`Idempotency`](super::Idempotency), shared by all nodes. A key is at the engine of the
/// audience's room. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct SharedIdempotency {
    claims: Arc<Claims>,
    max_keys: usize,
}

/// What is known of a key.
pub enum SharedClaimed {
    /// Nothing: the caller is the first, and runs the emit under this message id: its own, or the one of a caller that gave up or is gone and may
    /// have sent it.
    First(SharedClaim, MessageId),
    /// The first one runs, here or at another node.
    Running,
    /// The first one is published, with this receipt, and its acknowledgements are awaited.
    Published(Receipt),
    /// The first one was answered with this receipt.
    Done(Receipt),
    /// The key was used for something else.
    Reused,
}

/// The first emit under a key, whose acknowledgements another call awaits, here or at another node.
#[derive(Clone, Debug)]
pub struct FirstElsewhere {
    /// The key.
    pub scope: Scope,
    /// What was asked for.
    pub request_hash: RequestHash,
    /// By then that call has its answer.
    pub until: Instant,
}

impl SharedIdempotency {
    /// Remembers up to so many keys, of which one engine has its part; past it the oldest go first. Claims are renewed, and noted, in tasks of
    /// `lifecycle`.
    pub fn new(shards: Shards, max_keys: usize, lifecycle: Lifecycle) -> Self {
        Self::with_lease(shards, max_keys, lifecycle, LEASE)
    }

    pub(super) fn with_lease(shards: Shards, max_keys: usize, lifecycle: Lifecycle, lease: Duration) -> Self {
        let max_keys = share(max_keys, &shards);
        Self { claims: Claims::new(shards, lifecycle, lease), max_keys }
    }

    /// Claims a key for an emit with this message id, or says what is known of the key. A key is looked up before others are forgotten to make
    /// room for it. If the caller gives up, a granted claim is released.
    pub async fn claim(
        &self,
        scope: &Scope,
        request_hash: RequestHash,
        message_id: MessageId,
    ) -> Result<SharedClaimed, BusError> {
        let (shard, key) = self.place(scope);
        let engine = self.engine(shard);
        let [ages, sizes] = ages_and_sizes(engine);
        let mut call = Engine::function("claim_key", &[&key, &ages, &sizes]);
        let claim = self.claims.new_claim(shard, key);
        call.arg(&request_hash[..]).arg(message_id.as_bytes()).arg(claim.token());
        call.arg(millis(self.claims.lease)).arg(millis(REMEMBERED)).arg(self.max_keys);
        let answer: Vec<Vec<u8>> = engine.run(&call).await?;
        let claimed = match known(&answer)? {
            Known::First(message_id) => return Ok(SharedClaimed::First(claim, message_id)),
            Known::Running => SharedClaimed::Running,
            Known::Published(receipt) => SharedClaimed::Published(receipt),
            Known::Done(receipt) => SharedClaimed::Done(receipt),
            Known::Reused => SharedClaimed::Reused,
            // Only a look says this.
            Known::Idle => return Err(BusError::Refused),
        };
        claim.was_refused();
        Ok(claimed)
    }

    /// Claims a key, and claims it again while another caller runs the first emit, until then. If it runs still, the answer is
    /// [`SharedClaimed::Running`], and the caller is told to come again.
    pub async fn claim_or_wait(
        &self,
        scope: &Scope,
        request_hash: RequestHash,
        message_id: MessageId,
        until: Instant,
    ) -> Result<SharedClaimed, BusError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let claim = self.claim(scope, request_hash, message_id);
            let claimed = timeout_at(until, claim).await.unwrap_or(Err(BusError::Unanswered))?;
            if !matches!(claimed, SharedClaimed::Running) || Instant::now() + pause > until {
                return Ok(claimed);
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Waits for the answer of an emit that is published, and whose acknowledgements are awaited. It comes when the first caller has it, or is
    /// gone. `None`: the emit was given up, or is forgotten, or it was not told in time, or this node stops.
    pub async fn answer(&self, first: &FirstElsewhere) -> Option<Receipt> {
        tokio::select! {
            answer = timeout_at(first.until, self.answer_at_any_time(first)) => answer.ok().flatten(),
            () = self.claims.lifecycle.stopping() => None,
        }
    }

    async fn answer_at_any_time(&self, first: &FirstElsewhere) -> Option<Receipt> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.look(&first.scope, first.request_hash).await {
                // The engine may come back in time.
                Ok(Known::Running | Known::Published(_)) | Err(_) => {}
                Ok(Known::Done(receipt)) => return Some(receipt),
                Ok(Known::First(_) | Known::Idle | Known::Reused) => return None,
            }
            sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Which of these keys were used for something else than this, in few round trips.
    pub async fn reused(&self, scopes: &[Scope], request_hash: RequestHash) -> Result<Vec<bool>, BusError> {
        let places: Vec<_> = scopes.iter().map(|scope| self.place(scope)).collect();
        let looks = self.claims.shards.all().iter().enumerate().map(|(shard, engine)| {
            let there = places.iter().enumerate().filter(move |(_, (place, _))| *place == shard);
            reused_at(engine, there.map(|(index, (_, key))| (index, key.as_str())).collect(), request_hash)
        });
        let mut reused = vec![false; scopes.len()];
        for index in try_join_all(looks).await?.into_iter().flatten() {
            reused[index] = true;
        }
        Ok(reused)
    }

    /// Forgets some of the keys whose time is over. True if more may be left. Any node may call this at any time.
    pub async fn sweep(&self) -> Result<bool, BusError> {
        sweep(&self.claims.shards, |engine| {
            let [ages, sizes] = &ages_and_sizes(engine);
            let mut call = Engine::function("sweep_keys", &[ages, sizes]);
            call.arg(millis(REMEMBERED)).arg(SWEEP_STEP);
            call
        })
        .await
    }

    async fn look(&self, scope: &Scope, request_hash: RequestHash) -> Result<Known, BusError> {
        let (shard, key) = self.place(scope);
        let mut call = Engine::function("look_at_key", &[&key]);
        self.engine(shard).run::<Vec<Vec<u8>>>(call.arg(&request_hash[..])).await.and_then(|answer| known(&answer))
    }

    /// The shard of a key, and its name there.
    fn place(&self, scope: &Scope) -> (usize, String) {
        let room = scope.audience.room();
        let shard = shard_of(&self.claims.shards, room);
        (shard, self.engine(shard).name("i", &digest(&[&scope.caller, room.as_str(), &scope.key])))
    }

    fn engine(&self, shard: usize) -> &Engine {
        &self.claims.shards.all()[shard]
    }
}

/// Of these keys, each with its index, those that were used for something else. The value of a key begins with what was asked for.
async fn reused_at(
    engine: &Engine,
    keys: Vec<(usize, &str)>,
    request_hash: RequestHash,
) -> Result<Vec<usize>, BusError> {
    let mut reused = Vec::new();
    for keys in keys.chunks(KEYS_PER_LOOK) {
        let mut look = redis::Pipeline::with_capacity(keys.len());
        for (_, key) in keys {
            look.getrange(*key, 0, isize::try_from(request_hash.len()).unwrap_or(isize::MAX) - 1);
        }
        let hashes: Vec<Vec<u8>> = engine.query_all(&look).await?;
        let others = keys.iter().zip(hashes).filter(|(_, hash)| !hash.is_empty() && hash[..] != request_hash);
        reused.extend(others.map(|((index, _), _)| index));
    }
    Ok(reused)
}

/// What the engine says of a key.
enum Known {
    First(MessageId),
    Running,
    Published(Receipt),
    Done(Receipt),
    Idle,
    Reused,
}

fn known(answer: &[Vec<u8>]) -> Result<Known, BusError> {
    let receipt = |bytes: &[u8]| decode_receipt(bytes).ok_or(BusError::Refused);
    match answer {
        [state, id] if state == b"first" => MessageId::from_bytes(id).map(Known::First).ok_or(BusError::Refused),
        [state, bytes] if state == b"published" => receipt(bytes).map(Known::Published),
        [state, bytes] if state == b"done" => receipt(bytes).map(Known::Done),
        [state] if state == b"running" => Ok(Known::Running),
        [state] if state == b"reused" => Ok(Known::Reused),
        [state] if state == b"idle" => Ok(Known::Idle),
        _ => Err(BusError::Refused),
    }
}
