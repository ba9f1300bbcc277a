use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{sync::OnceCell, time::Instant};

use crate::message::{Audience, Receipt};

/// How long a key is remembered.
const KEPT: Duration = Duration::from_mins(5);
/// What the acknowledgements in the receipts may take up together, in bytes; past it the oldest keys go first.
const MAX_ACK_BYTES: usize = 64 * 1024 * 1024;
/// No acknowledgements are counted for a key that is forgotten.
const FORGOTTEN: usize = usize::MAX;

/// Remembers what was answered under an idempotency key, so that a repetition can be answered the same.
pub struct Idempotency {
    max_entries: usize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    answers: HashMap<Scope, Arc<Answer>>,
    by_age: VecDeque<(Instant, Scope)>,
    ack_bytes: usize,
}

struct Answer {
    since: Instant,
    request_hash: Fingerprint,
    receipt: OnceCell<Receipt>,
    /// What its acknowledgements count for, as long as it is known. Changed under the lock of all that is known.
    ack_bytes: AtomicUsize,
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

/// What was asked for, as a digest.
pub type Fingerprint = [u8; 32];

/// The key was used for something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyReused;

impl Idempotency {
    /// Remembers up to so many keys; past it the oldest go first.
    pub fn new(max_entries: usize) -> Self {
        Self { max_entries, known: Mutex::default() }
    }

    /// Gives the receipt of the first emit in this scope, marked as a duplicate, or runs `emit` as the first one. While the first
    /// one runs, the others wait; if it is given up or refused, the next one runs.
    pub async fn get_or_run<F, E>(&self, scope: Scope, request_hash: Fingerprint, emit: F) -> Result<Receipt, E>
    where
        F: Future<Output = Result<Receipt, E>>,
        E: From<KeyReused>,
    {
        let answer = self.answer(scope, request_hash);
        if answer.request_hash != request_hash {
            return Err(KeyReused.into());
        }
        let mut first = false;
        let receipt = answer.receipt.get_or_try_init(|| {
            first = true;
            emit
        });
        let receipt = receipt.await?.clone();
        if first && let Some(acks) = &receipt.acks {
            self.known.lock().weigh(&answer, acks.size());
        }
        // A first one here may repeat one from before a restart.
        Ok(Receipt { duplicate: !first || receipt.duplicate, ..receipt })
    }

    /// Forgets the keys whose time is over.
    pub fn sweep(&self) {
        self.known.lock().forget(usize::MAX);
    }

    /// Whether the key was used for something else.
    pub fn is_reused(&self, scope: &Scope, request_hash: Fingerprint) -> bool {
        self.known
            .lock()
            .answers
            .get(scope)
            .is_some_and(|answer| answer.since.elapsed() < KEPT && answer.request_hash != request_hash)
    }

    /// Whether the key was used.
    pub fn knows(&self, scope: &Scope) -> bool {
        self.known.lock().answers.contains_key(scope)
    }

    fn answer(&self, scope: Scope, request_hash: Fingerprint) -> Arc<Answer> {
        let mut known = self.known.lock();
        known.forget(self.max_entries);
        if let Some(answer) = known.answers.get(&scope) {
            return answer.clone();
        }
        let answer = Arc::new(Answer {
            since: Instant::now(),
            request_hash,
            receipt: OnceCell::new(),
            ack_bytes: AtomicUsize::new(0),
        });
        known.by_age.push_back((answer.since, scope.clone()));
        known.answers.insert(scope, answer.clone());
        answer
    }
}

impl Known {
    /// Forgets what is too old, and one more if that leaves no room.
    fn forget(&mut self, max: usize) {
        let now = Instant::now();
        while let Some((since, _)) = self.by_age.front()
            && (now - *since >= KEPT || self.by_age.len() >= max || self.ack_bytes > MAX_ACK_BYTES)
            && let Some((_, scope)) = self.by_age.pop_front()
            && let Some(answer) = self.answers.remove(&scope)
        {
            self.ack_bytes -= answer.ack_bytes.swap(FORGOTTEN, Relaxed);
        }
    }

    /// Counts the acknowledgements of an answer that is known.
    fn weigh(&mut self, answer: &Answer, bytes: usize) {
        if answer.ack_bytes.load(Relaxed) != FORGOTTEN {
            answer.ack_bytes.store(bytes, Relaxed);
            self.ack_bytes += bytes;
            self.forget(usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::message::{Ack, AckOutcome, Acks, ConnectionId, MessageId, UserId};

    fn scope(key: &str) -> Scope {
        Scope { caller: "test".into(), audience: Audience::Everyone, key: key.into() }
    }

    async fn emit(idempotency: &Idempotency, key: &str, request_hash: u8) -> Result<Receipt, KeyReused> {
        idempotency
            .get_or_run(scope(key), [request_hash; 32], async {
                Ok(Receipt::new(MessageId::at(Timestamp::UNIX_EPOCH)))
            })
            .await
    }

    #[tokio::test(start_paused = true)]
    async fn a_repetition_is_answered_with_the_first_receipt_for_five_minutes() {
        let idempotency = Idempotency::new(10);
        let first = emit(&idempotency, "k", 1).await.unwrap();
        assert!(!first.duplicate);
        tokio::time::advance(Duration::from_secs(299)).await;
        assert_eq!(emit(&idempotency, "k", 1).await, Ok(Receipt { duplicate: true, ..first }));
        tokio::time::advance(Duration::from_secs(2)).await;
        let later = emit(&idempotency, "k", 1).await.unwrap();
        assert!(!later.duplicate && later.message_id != first.message_id);
    }

    #[tokio::test]
    async fn another_request_under_the_same_key_is_refused() {
        let idempotency = Idempotency::new(10);
        emit(&idempotency, "k", 1).await.unwrap();
        assert_eq!(emit(&idempotency, "k", 2).await, Err(KeyReused));
    }

    #[tokio::test]
    async fn a_concurrent_repetition_waits_for_the_first_and_takes_over_if_that_is_given_up() {
        let idempotency = Idempotency::new(10);
        let mut first = Box::pin(idempotency.get_or_run::<_, KeyReused>(scope("k"), [1; 32], std::future::pending()));
        let mut second = Box::pin(emit(&idempotency, "k", 1));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(first);
        assert!(!second.await.unwrap().duplicate);
    }

    fn acknowledged(reply: usize) -> Receipt {
        let ack = Ack {
            user: UserId::new("42").unwrap(),
            connection: ConnectionId::random(),
            outcome: AckOutcome::Replied(Some("x".repeat(reply).into())),
            elapsed: Duration::ZERO,
        };
        let acks = Some(Acks { list: vec![ack], replied: 1 }.into());
        Receipt { acks, ..Receipt::new(MessageId::at(Timestamp::UNIX_EPOCH)) }
    }

    #[tokio::test]
    async fn the_oldest_keys_are_forgotten_when_their_acknowledgements_take_too_much() {
        let idempotency = Idempotency::new(1_000);
        for key in 0..100 {
            let receipt = async { Ok::<_, KeyReused>(acknowledged(1024 * 1024)) };
            idempotency.get_or_run(scope(&key.to_string()), [1; 32], receipt).await.unwrap();
        }
        let bytes = || idempotency.known.lock().ack_bytes;
        assert!((60 << 20..=MAX_ACK_BYTES).contains(&bytes()), "{}", bytes());
        assert!(!emit(&idempotency, "0", 1).await.unwrap().duplicate);
        let last = emit(&idempotency, "99", 1).await.unwrap();
        assert!(last.duplicate && last.acks.is_some());
        let mut known = idempotency.known.lock();
        known.forget(0);
        assert_eq!((known.ack_bytes, known.answers.len()), (0, 0));
    }

    #[tokio::test]
    async fn the_oldest_key_is_forgotten_when_there_are_too_many() {
        let idempotency = Idempotency::new(2);
        for key in ["a", "b", "c"] {
            emit(&idempotency, key, 1).await.unwrap();
        }
        assert!(emit(&idempotency, "c", 1).await.unwrap().duplicate);
        assert!(!emit(&idempotency, "a", 1).await.unwrap().duplicate);
        assert_eq!(idempotency.known.lock().answers.len(), 2);
    }
}
