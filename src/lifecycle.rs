//! The life of the process: which tasks run, how they are asked to stop, and what happens when one dies.
//!
//! A stop is soft first: readiness goes down, running calls finish, devices are sent away. At the deadline, or at a second
//! signal, it is hard: what still runs is dropped.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, resume_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use serde::{Deserialize, Serialize};
use tokio::{
    runtime::Handle,
    signal::unix::{SignalKind, signal},
    sync::oneshot,
};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

/// `[drain]`: how devices are sent away when the server stops.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Connections closed per second, so that their return does not fall on the other nodes at once.
    pub pace: u32,
    /// When whatever is left is dropped, counted from the signal.
    #[serde(with = "humantime_serde")]
    pub deadline: Duration,
}

/// Starts tasks and stops them. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    soft: CancellationToken,
    hard: CancellationToken,
    tasks: TaskTracker,
    ready: AtomicBool,
    death: Mutex<Option<&'static str>>,
}

impl Lifecycle {
    /// Nothing runs yet, and nothing is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs a task that may end at any time, such as one connection's. A hard stop drops it.
    #[expect(clippy::disallowed_methods, reason = "this is the tracker")]
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        if self.inner.hard.is_cancelled() {
            return;
        }
        let task = Stoppable { task, stopped: self.inner.hard.clone().cancelled_owned() };
        tokio::spawn(self.inner.tasks.track_future(task));
    }

    /// Runs a task without which the server is of no use. If it panics, or ends before a stop was asked for, the
    /// server stops with failure.
    pub fn spawn_vital<F>(&self, name: &'static str, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let guard = VitalGuard { name, lifecycle: self.clone() };
        self.spawn(async move {
            let _guard = guard;
            task.await;
        });
    }

    /// Runs work to completion even if who awaits it gives up. If the work panics, so does who awaits it. A hard stop drops the work, and then this
    /// never ends: who awaits it goes the same way.
    pub fn detach<T, F>(&self, work: F) -> impl Future<Output = T> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        self.spawn(async move {
            // Who asked may be gone.
            let _ = answer.send(AssertUnwindSafe(work).catch_unwind().await);
        });
        async move {
            match answered.await {
                Ok(done) => done.unwrap_or_else(|panic| resume_unwind(panic)),
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// The same, but with a task of its own only once who awaits it gives up. The work stands still while the returned future is not
    /// polled, so nothing may wait for it then.
    pub fn complete<T: Send + 'static>(&self, work: BoxFuture<'static, T>) -> impl Future<Output = T> + Send + use<T> {
        Completing { work: Some(work), lifecycle: self.clone() }
    }

    /// Everything listens: readiness goes up.
    pub fn set_ready(&self) {
        self.inner.ready.store(true, Ordering::SeqCst);
    }

    /// Whether the server listens and has not been asked to stop.
    pub fn is_ready(&self) -> bool {
        self.inner.ready.load(Ordering::SeqCst) && !self.is_stopping()
    }

    /// Asks everything to come to an end.
    pub fn stop(&self) {
        self.inner.soft.cancel();
    }

    /// Drops whatever still runs.
    pub fn stop_hard(&self) {
        self.inner.soft.cancel();
        self.inner.hard.cancel();
    }

    /// Whether a stop was asked for.
    pub fn is_stopping(&self) -> bool {
        self.inner.soft.is_cancelled()
    }

    /// Waits until a stop is asked for.
    pub async fn stopping(&self) {
        self.inner.soft.cancelled().await;
    }

    /// Waits for the hard stop.
    pub async fn stopping_hard(&self) {
        self.inner.hard.cancelled().await;
    }

    /// Waits until every task has ended.
    pub async fn ended(&self) {
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    /// The vital task that died, if one did.
    pub fn death(&self) -> Option<&'static str> {
        *self.inner.death.lock()
    }

    /// Turns SIGTERM and SIGINT into a soft stop, and a second one into the hard stop.
    pub fn watch_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let lifecycle = self.clone();
        self.spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let tasks_ended = lifecycle.inner.tasks.clone();
            let name = tokio::select! {
                name = next() => name,
                () = lifecycle.stopping() => "a vital task's death",
            };
            tracing::info!(signal.name = name, "stopping");
            lifecycle.stop();
            tokio::select! {
                name = next() => {
                    tracing::warn!(signal.name = name, "stopping at once");
                    lifecycle.stop_hard();
                }
                () = others_ended(&tasks_ended) => {}
            }
        });
        Ok(())
    }
}

pin_project! {
    /// A task, or the hard stop if that comes first. Written out, since an async block that is given a task keeps room for it
    /// several times, and each connection has some.
    struct Stoppable<F> {
        #[pin]
        task: F,
        #[pin]
        stopped: WaitForCancellationFutureOwned,
    }
}

impl<F: Future<Output = ()>> Future for Stoppable<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        match this.task.poll(cx) {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => this.stopped.poll(cx),
        }
    }
}

/// Work that is finished even if this is dropped.
struct Completing<T: Send + 'static> {
    /// Taken at its end, and while it is polled: work that panicked is not to be polled again.
    work: Option<BoxFuture<'static, T>>,
    lifecycle: Lifecycle,
}

impl<T: Send + 'static> Future for Completing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for Completing<T> {
    fn drop(&mut self) {
        // Without a runtime the process ends.
        if let Some(work) = self.work.take()
            && Handle::try_current().is_ok()
        {
            self.lifecycle.spawn(async move {
                work.await;
            });
        }
    }
}

/// Waits until the task that waits is the last one.
async fn others_ended(tasks: &TaskTracker) {
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while tasks.len() > 1 {
        tick.tick().await;
    }
}

struct VitalGuard {
    name: &'static str,
    lifecycle: Lifecycle,
}

impl Drop for VitalGuard {
    fn drop(&mut self) {
        if self.lifecycle.is_stopping() && !std::thread::panicking() {
            return;
        }
        tracing::error!(task.name = self.name, "a vital task died: stopping with failure");
        self.lifecycle.inner.death.lock().get_or_insert(self.name);
        self.lifecycle.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_death_of_a_vital_task_stops_with_failure() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn_vital("worker", async { panic!("as tests do") });
        lifecycle.stopping().await;
        assert_eq!(lifecycle.death(), Some("worker"));
    }

    #[tokio::test]
    async fn a_vital_task_may_end_once_a_stop_was_asked_for() {
        let lifecycle = Lifecycle::new();
        let task = lifecycle.clone();
        lifecycle.spawn_vital("worker", async move { task.stopping().await });
        lifecycle.stop();
        lifecycle.ended().await;
        assert_eq!(lifecycle.death(), None);
    }

    #[tokio::test]
    async fn detached_work_runs_to_completion_though_nobody_awaits_it() {
        let lifecycle = Lifecycle::new();
        runs_to_completion(|work| Box::pin(lifecycle.detach(work))).await;
        runs_to_completion(|work| Box::pin(lifecycle.complete(work))).await;
    }

    #[tokio::test]
    async fn who_awaits_detached_work_that_panics_does_not_wait_for_ever() {
        let detached = Lifecycle::new().detach(async { panic!("as tests do") });
        assert!(AssertUnwindSafe(detached).catch_unwind().await.is_err_and(|panic| panic.is::<&str>()));
    }

    async fn runs_to_completion(begin: impl FnOnce(BoxFuture<'static, ()>) -> BoxFuture<'static, ()>) {
        let ((go_on, waits), (done, is_done)) = (oneshot::channel::<()>(), oneshot::channel());
        let mut awaited = begin(Box::pin(async move {
            let _ = waits.await;
            done.send(()).expect("the test waits");
        }));
        assert!(futures_util::poll!(awaited.as_mut()).is_pending());
        drop(awaited);
        go_on.send(()).expect("the work waits");
        is_done.await.expect("it is done");
    }

    #[tokio::test]
    async fn completed_work_has_no_task_while_it_is_awaited() {
        let lifecycle = Lifecycle::new();
        assert_eq!(lifecycle.complete(Box::pin(async { 1 })).await, 1);
        let mut panics = Box::pin(lifecycle.complete(Box::pin(async { panic!("as tests do") })));
        let polled = std::panic::AssertUnwindSafe(async { panics.as_mut().await }).catch_unwind().await;
        assert!(polled.is_err(), "the panic comes to who awaits it");
        drop(panics);
        assert_eq!(lifecycle.inner.tasks.len(), 0);
    }

    #[tokio::test]
    async fn a_hard_stop_drops_what_runs() {
        let lifecycle = Lifecycle::new();
        lifecycle.spawn(std::future::pending());
        lifecycle.stop_hard();
        lifecycle.ended().await;
    }

    #[test]
    fn readiness_goes_down_with_the_soft_stop() {
        let lifecycle = Lifecycle::new();
        assert!(!lifecycle.is_ready());
        lifecycle.set_ready();
        assert!(lifecycle.is_ready());
        lifecycle.stop();
        assert!(!lifecycle.is_ready());
    }
}
