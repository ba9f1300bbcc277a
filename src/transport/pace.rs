use std::{
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, sleep_until},
};
use tokio_util::sync::PollSemaphore;

/// Connections that may have one of their first [`EARLY_TURNS`] at a time, and those that may have a later one: new connections do not wait
/// for old ones.
const EARLY_AT_A_TIME: usize = 8;
const LATER_AT_A_TIME: usize = 2;
/// Enough for a client that sends its settings, waits for the server's, and then calls.
const EARLY_TURNS: u32 = 4;
/// Bytes that are read in one turn. A call's key is usually among the first.
const TURN_BYTES: usize = 1_024;
/// How long a turn lasts.
const TURN: Duration = Duration::from_millis(10);

/// Limits how many of a listener's unknown connections are read at a time: their calls are answered before more are read, and they do
/// not take the whole processor.
#[derive(Clone)]
pub(crate) struct Turns {
    early: Arc<Semaphore>,
    later: Arc<Semaphore>,
}

/// Says when an unknown connection may be read: in its turns, and not while the kernel has no room for its answers.
pub(crate) struct Pace {
    turns: PollSemaphore,
    /// Where the connection waits after its early turns.
    later: Arc<Semaphore>,
    turns_had: u32,
    turn: Option<Turn>,
    /// The last answer was not taken.
    is_blocked: bool,
    /// Waits until it is.
    reader: Option<Waker>,
}

struct Turn {
    bytes: usize,
    end: Instant,
}

impl Default for Turns {
    fn default() -> Self {
        let semaphore = |at_a_time| Arc::new(Semaphore::new(at_a_time));
        Self { early: semaphore(EARLY_AT_A_TIME), later: semaphore(LATER_AT_A_TIME) }
    }
}

impl Pace {
    pub(crate) fn new(Turns { early, later }: Turns) -> Self {
        Self { turns: PollSemaphore::new(early), later, turns_had: 0, turn: None, is_blocked: false, reader: None }
    }

    /// Returns how many bytes may be read. For a connection that has something to read: each call may begin a turn.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.is_blocked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let turn = self.turn.take().filter(|turn| turn.bytes > 0 && Instant::now() < turn.end);
        let turn = match turn {
            Some(turn) => turn,
            None => ready!(self.poll_turn(cx)),
        };
        Poll::Ready(self.turn.insert(turn).bytes)
    }

    #[expect(clippy::disallowed_methods, reason = "the task ends with the turn")]
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        let permit = ready!(self.turns.poll_acquire(cx));
        self.turns_had = self.turns_had.saturating_add(1);
        if self.turns_had == EARLY_TURNS {
            self.turns = PollSemaphore::new(self.later.clone());
        }
        let end = Instant::now() + TURN;
        tokio::spawn(async move {
            sleep_until(end).await;
            drop(permit);
        });
        Poll::Ready(Turn { bytes: TURN_BYTES, end })
    }

    /// Takes bytes that were read off the turn.
    pub(crate) fn count(&mut self, bytes: usize) {
        if let Some(turn) = &mut self.turn {
            turn.bytes -= bytes;
        }
    }

    /// Notes whether the connection took what was written last.
    pub(crate) fn written(&mut self, was_taken: bool) {
        self.is_blocked = !was_taken;
        if let Some(reader) = self.reader.take_if(|_| was_taken) {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicUsize, Ordering},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn allowed(pace: &mut Pace) -> usize {
        poll_fn(|cx| pace.poll(cx)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_so_many_bytes_and_so_long_and_few_have_one() {
        let (turns, begun) = (Turns::default(), Instant::now());
        let mut paces: Vec<_> = (0..=EARLY_AT_A_TIME).map(|_| Pace::new(turns.clone())).collect();
        for pace in &mut paces[..EARLY_AT_A_TIME] {
            assert_eq!(allowed(pace).await, TURN_BYTES);
            pace.count(TURN_BYTES - 1);
            assert_eq!(allowed(pace).await, 1);
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert_eq!(allowed(&mut paces[EARLY_AT_A_TIME]).await, TURN_BYTES);
        assert!(begun.elapsed() >= TURN);
        // What was left of the first turn is gone with it.
        assert_eq!(allowed(&mut paces[0]).await, TURN_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_does_not_wait_for_those_that_stay() {
        let turns = Turns::default();
        let mut stays = Pace::new(turns.clone());
        for _ in 0..EARLY_TURNS as usize + LATER_AT_A_TIME {
            allowed(&mut stays).await;
            stays.count(TURN_BYTES);
        }
        let begun = Instant::now();
        allowed(&mut Pace::new(turns.clone())).await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
        allowed(&mut stays).await;
        assert!(begun.elapsed() >= TURN);
    }

    #[tokio::test(start_paused = true)]
    async fn who_leaves_while_it_waits_takes_no_turn() {
        let turns = Turns::default();
        let begun = Instant::now();
        let mut paces: Vec<_> = (0..100).map(|_| Pace::new(turns.clone())).collect();
        for pace in &mut paces {
            let _ = futures_util::poll!(std::pin::pin!(allowed(pace)));
        }
        drop(paces);
        allowed(&mut Pace::new(turns)).await;
        assert!(begun.elapsed() <= TURN + Duration::from_millis(1));
    }

    #[tokio::test]
    async fn nothing_is_read_while_answers_are_not_taken() {
        let mut pace = Pace::new(Turns::default());
        pace.written(false);
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(woken.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(pace.poll(&mut cx).is_pending());
        pace.written(false);
        assert_eq!(woken.0.load(Ordering::Relaxed), 0);
        pace.written(true);
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert!(pace.poll(&mut cx).is_ready());
    }
}
