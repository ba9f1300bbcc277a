use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::message::{Audience, Receipt};

/// How long a key is remembered.
pub(super) const REMEMBERED: Duration = Duration::from_mins(5);
/// The acknowledgements in the receipts take up this much together, in bytes; past it the oldest keys go first.
const MAX_ACK_BYTES: usize = 64 * 1024 * 1024;
/// Keys that one sweep forgets without giving others a chance to use the map.
const SWEEP_STEP: usize = 1_000;

/// Remembers what was answered under an idempotency key, so that a repetition is answered the same. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Idempotency {
    max_keys: usize,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    entries: HashMap<Scope, Arc<Entry>>,
    by_age: VecDeque<(Instant, Scope)>,
    ack_bytes: usize,
}

struct Entry {
    since: Instant,
    request_hash: RequestHash,
    state: Mutex<State>,
    /// Notified when the state changes.
    changed: Notify,
}

#[derive(Default)]
struct State {
    progress: Progress,
    /// The entry's part of `Known::ack_bytes`.
    ack_bytes: usize,
    is_forgotten: bool,
}

#[derive(Clone, Default)]
enum Progress {
    /// None runs: the next claim is the first.
    #[default]
    Idle,
    Running,
    /// It is published, and its acknowledgements are awaited.
    Published(Receipt),
    Done(Receipt),
}

/// Where a key holds: two backends, or two audiences, may use the same one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Scope {
    /// The name of the API key.
    pub caller: Arc<str>,
    /// Whom the emit is for.
    pub audience: Audience,
    /// The idempotency key.
    pub key: Arc<str>,
}

/// A digest of what was asked for.
pub type RequestHash = [u8; 32];

/// The key was used for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyReused;

/// What is known of a key.
pub enum Claimed {
    /// Nothing: the caller is the first, and runs the emit.
    First(Claim),
    /// The first one runs: wait for it, and claim again.
    Running(FirstEmit),
    /// The first one is published, with this receipt, and its acknowledgements are awaited.
    Published(Receipt, FirstEmit),
    /// The first one was answered with this receipt.
    Done(Receipt),
}

/// The right to run the first emit under a key. If it is dropped before the emit was published, the next caller is the first.
pub struct Claim {
    known: Arc<Mutex<Known>>,
    entry: Arc<Entry>,
}

/// The first emit under a key, which somebody else runs.
pub struct FirstEmit(Arc<Entry>);

impl Idempotency {
    /// Remembers up to so many keys; past it the oldest go first.
    pub fn new(max_keys: usize) -> Self {
        Self { max_keys, known: Arc::default() }
    }

    /// Claims a key, or says what is known of it. A key is looked up before others are forgotten to make room for it.
    pub fn claim(&self, scope: &Scope, request_hash: RequestHash) -> Result<Claimed, KeyReused> {
        let entry = self.entry(scope, request_hash);
        if entry.request_hash != request_hash {
            return Err(KeyReused);
        }
        let mut state = entry.state.lock();
        let progress = state.progress.clone();
        if matches!(progress, Progress::Idle) {
            state.progress = Progress::Running;
        }
        drop(state);
        Ok(match progress {
            Progress::Idle => Claimed::First(Claim { known: self.known.clone(), entry }),
            Progress::Running => Claimed::Running(FirstEmit(entry)),
            Progress::Published(receipt) => Claimed::Published(receipt, FirstEmit(entry)),
            Progress::Done(receipt) => Claimed::Done(receipt),
        })
    }

    /// Whether the key was used for something else.
    pub fn is_reused(&self, scope: &Scope, request_hash: RequestHash) -> bool {
        let entry = self.known.lock().entries.get(scope).cloned();
        entry.is_some_and(|entry| entry.since.elapsed() < REMEMBERED && entry.request_hash != request_hash)
    }

    /// Forgets some of the keys whose time is over. True if more may be left.
    pub fn sweep(&self) -> bool {
        self.known.lock().forget(usize::MAX, SWEEP_STEP)
    }

    fn entry(&self, scope: &Scope, request_hash: RequestHash) -> Arc<Entry> {
        let (mut known, now) = (self.known.lock(), Instant::now());
        if let Some(entry) = known.entries.get(scope)
            && now - entry.since < REMEMBERED
        {
            return entry.clone();
        }
        known.forget(self.max_keys, usize::MAX);
        let entry = Entry { since: now, request_hash, state: Mutex::default(), changed: Notify::new() };
        let entry = Arc::new(entry);
        known.by_age.push_back((now, scope.clone()));
        known.entries.insert(scope.clone(), entry.clone());
        entry
    }
}

impl Known {
    /// Forgets up to `max_steps` keys that are too old, or too many for one more. True if it stopped early.
    fn forget(&mut self, max_keys: usize, max_steps: usize) -> bool {
        let now = Instant::now();
        for _ in 0..max_steps {
            let are_too_many = self.by_age.len() >= max_keys || self.ack_bytes > MAX_ACK_BYTES;
            let is_over = |(since, _): &mut (Instant, Scope)| are_too_many || now - *since >= REMEMBERED;
            let Some((_, scope)) = self.by_age.pop_front_if(is_over) else {
                return false;
            };
            if let Some(entry) = self.entries.remove(&scope) {
                let mut state = entry.state.lock();
                state.is_forgotten = true;
                self.ack_bytes -= std::mem::take(&mut state.ack_bytes);
            }
        }
        true
    }
}

impl Claim {
    /// Notes that the emit is published: repetitions get this receipt once its acknowledgements are known.
    pub fn published(&self, receipt: &Receipt) {
        self.set(Progress::Published(receipt.clone()));
    }

    /// Notes the emit's answer.
    pub fn done(self, receipt: &Receipt) {
        let bytes = receipt.acks.as_ref().map_or(0, |acks| acks.size());
        self.set(Progress::Done(receipt.clone()));
        if bytes > 0 {
            let mut known = self.known.lock();
            let mut state = self.entry.state.lock();
            if !state.is_forgotten {
                state.ack_bytes = bytes;
                known.ack_bytes += bytes;
            }
            drop(state);
            known.forget(usize::MAX, usize::MAX);
        }
    }

    fn set(&self, progress: Progress) {
        self.entry.state.lock().progress = progress;
        self.entry.changed.notify_waiters();
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let progress = self.entry.state.lock().progress.clone();
        match progress {
            // It was refused, or given up.
            Progress::Running => self.set(Progress::Idle),
            // Nobody waits for its acknowledgements any more.
            Progress::Published(receipt) => self.set(Progress::Done(receipt)),
            Progress::Idle | Progress::Done(_) => {}
        }
    }
}

impl FirstEmit {
    /// Waits until it is published, or refused or given up.
    pub async fn settled(&self) {
        self.changed_from(|progress| matches!(progress, Progress::Running)).await;
    }

    /// Waits for its answer. `None`: it was refused, or given up.
    pub async fn receipt(&self) -> Option<Receipt> {
        self.changed_from(|progress| matches!(progress, Progress::Running | Progress::Published(_))).await;
        match &self.0.state.lock().progress {
            Progress::Done(receipt) | Progress::Published(receipt) => Some(receipt.clone()),
            Progress::Idle | Progress::Running => None,
        }
    }

    async fn changed_from(&self, waits: impl Fn(&Progress) -> bool) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            // Before the state is read: a change in between is not missed.
            changed.as_mut().enable();
            if !waits(&self.0.state.lock().progress) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::message::{Ack, AckOutcome, Acks, ConnectionId, MessageId, UserId};

    fn scope(key: &str) -> Scope {
        Scope { caller: "test".into(), audience: Audience::everyone(), key: key.into() }
    }

    fn receipt() -> Receipt {
        Receipt::new(MessageId::at(Timestamp::UNIX_EPOCH))
    }

    fn first(idempotency: &Idempotency, key: &str) -> Claim {
        match idempotency.claim(&scope(key), [1; 32]) {
            Ok(Claimed::First(claim)) => claim,
            Ok(_) | Err(_) => panic!("it is known"),
        }
    }

    fn known(idempotency: &Idempotency, key: &str) -> Option<Receipt> {
        match idempotency.claim(&scope(key), [1; 32]) {
            Ok(Claimed::Done(receipt)) => Some(receipt),
            Ok(_) | Err(_) => None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_repetition_gets_the_first_receipt_for_five_minutes() {
        let (idempotency, receipt) = (Idempotency::new(10), receipt());
        first(&idempotency, "k").done(&receipt);
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(known(&idempotency, "k"), Some(receipt));
        tokio::time::advance(Duration::from_secs(2)).await;
        drop(first(&idempotency, "k"));
    }

    #[test]
    fn another_request_under_the_same_key_is_refused() {
        let idempotency = Idempotency::new(10);
        first(&idempotency, "k").done(&receipt());
        assert_eq!(idempotency.claim(&scope("k"), [2; 32]).err(), Some(KeyReused));
        assert!(idempotency.is_reused(&scope("k"), [2; 32]) && !idempotency.is_reused(&scope("k"), [1; 32]));
    }

    #[tokio::test]
    async fn a_concurrent_repetition_waits_for_the_first_and_takes_over_if_that_is_given_up() {
        let idempotency = Idempotency::new(10);
        let claim = first(&idempotency, "k");
        let Ok(Claimed::Running(running)) = idempotency.claim(&scope("k"), [1; 32]) else { panic!("it runs") };
        let mut settled = Box::pin(running.settled());
        assert!(futures_util::poll!(settled.as_mut()).is_pending());
        drop(claim);
        settled.await;
        first(&idempotency, "k").done(&receipt());
    }

    #[tokio::test]
    async fn a_repetition_of_a_published_emit_has_its_receipt_at_once_and_its_acknowledgements_later() {
        for is_awaited in [true, false] {
            let (idempotency, receipt) = (Idempotency::new(10), receipt());
            let claim = first(&idempotency, "k");
            claim.published(&receipt);
            let Ok(Claimed::Published(early, running)) = idempotency.claim(&scope("k"), [1; 32]) else {
                panic!("it is published")
            };
            assert_eq!(early, receipt);
            let mut answer = Box::pin(running.receipt());
            assert!(futures_util::poll!(answer.as_mut()).is_pending());
            if is_awaited {
                claim.done(&receipt);
            } else {
                drop(claim);
            }
            assert_eq!(answer.await, Some(receipt));
        }
    }

    fn acknowledged(reply: usize) -> Receipt {
        let ack = Ack {
            user: UserId::new("42").unwrap(),
            connection: ConnectionId::random(),
            outcome: AckOutcome::Replied(Some("x".repeat(reply).into())),
            elapsed: Duration::ZERO,
        };
        Receipt { acks: Some(Arc::new(Acks { list: vec![ack], replied: 1 })), ..receipt() }
    }

    #[test]
    fn the_bytes_of_acknowledgements_are_bounded_and_the_oldest_keys_go_first() {
        let idempotency = Idempotency::new(10);
        for key in ["a", "b", "c"] {
            first(&idempotency, key).done(&acknowledged(MAX_ACK_BYTES / 3));
        }
        assert_eq!(known(&idempotency, "a"), None);
        assert!(known(&idempotency, "c").is_some());
        let bytes = idempotency.known.lock().ack_bytes;
        assert!((MAX_ACK_BYTES / 3 * 2..=MAX_ACK_BYTES).contains(&bytes), "{bytes}");
    }

    #[test]
    fn the_oldest_keys_go_first_when_there_are_too_many_and_a_known_one_makes_none_go() {
        let idempotency = Idempotency::new(2);
        for key in ["a", "b"] {
            first(&idempotency, key).done(&receipt());
        }
        assert!(known(&idempotency, "a").is_some() && known(&idempotency, "b").is_some());
        first(&idempotency, "c").done(&receipt());
        assert_eq!(known(&idempotency, "a"), None, "and now it is the newest");
        assert_eq!(idempotency.known.lock().entries.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sweep_forgets_a_bounded_number_of_keys_at_a_time() {
        let idempotency = Idempotency::new(usize::MAX);
        for number in 0..=SWEEP_STEP {
            first(&idempotency, &number.to_string()).done(&receipt());
        }
        assert!(!idempotency.sweep());
        tokio::time::advance(REMEMBERED).await;
        assert!(idempotency.sweep() && idempotency.known.lock().entries.len() == 1);
        assert!(!idempotency.sweep() && idempotency.known.lock().entries.is_empty());
    }
}
