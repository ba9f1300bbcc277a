use std::{
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use tokio::time::{Sleep, sleep};

/// So many bytes are read at a stretch, and then none for so long. A call's key is among the first.
const STRETCH: usize = 16 * 1024;
const PAUSE: Duration = Duration::from_millis(10);

/// How fast a connection is read that is not known: so that what it asks is answered before more is read of it, and nothing is read
/// while it does not take its answers.
#[derive(Default)]
pub(crate) struct Pace {
    read: usize,
    pause: Option<Pin<Box<Sleep>>>,
    is_blocked: bool,
    reader: Option<Waker>,
}

impl Pace {
    /// Ready: it may be read.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_blocked {
            self.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if self.read >= STRETCH {
            ready!(self.pause.get_or_insert_with(|| Box::pin(sleep(PAUSE))).as_mut().poll(cx));
            *self = Self::default();
        }
        Poll::Ready(())
    }

    /// So many bytes more were read.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.read = self.read.saturating_add(bytes);
    }

    /// Whether the connection took what was written last.
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
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
        },
        task::Wake,
    };

    use futures_util::FutureExt;
    use tokio::time::Instant;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn may_be_read(pace: &mut Pace) {
        poll_fn(|cx| pace.poll(cx)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_stretch_is_followed_by_a_pause() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        for _ in 0..3 {
            for _ in 0..2 {
                assert!(may_be_read(&mut pace).now_or_never().is_some());
                pace.count(STRETCH / 2);
            }
            may_be_read(&mut pace).await;
        }
        assert_eq!(begun.elapsed(), 3 * PAUSE);
    }

    #[test]
    fn nothing_is_read_while_answers_are_not_taken() {
        let mut pace = Pace::default();
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
