//! The engine: its sessions, and what a server can add to the registry's API.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Once, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dashmap::DashMap;
use engineioxide_core::{Sid, Str};
use http::{Request, request::Parts};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::{Flushers, QueuedBytes, Spawn, Wheel};

use crate::{
    config::EngineIoConfig,
    handler::EngineIoHandler,
    reason::DisconnectReason,
    session::{Host, Link, Session},
    socket::Socket,
};

pub use crate::session::{Observer, Verdict};

/// The sessions of a server. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

/// An engine that this does not keep alive: for what the engine itself keeps, as its observer and the library's handlers.
#[derive(Clone)]
pub struct WeakEngine(Weak<Inner>);

struct Inner {
    config: EngineIoConfig,
    sessions: DashMap<Sid, Arc<Session>>,
    open: AtomicUsize,
    wheel: Wheel<Sid>,
    has_started: Once,
    linker: Box<dyn Linker>,
    attachment: OnceLock<Attachment>,
    /// Used when nothing is attached.
    inline: OnceLock<Flushers>,
}

/// What a server adds to the engine.
pub struct Attachment {
    /// Sees what the sessions do.
    pub observer: Arc<dyn Observer>,
    /// The time from the opening of a session to its first message. `None`: any.
    pub speak_within: Option<Duration>,
    /// While more bytes than this wait for a device, nothing is read from its WebSocket.
    pub max_unread_backlog: usize,
    /// Write queues.
    pub flushers: Flushers,
    /// Runs a task per WebSocket.
    pub spawn: Spawn,
    /// Runs a task without which no session can go on.
    pub spawn_vital: Spawn,
    /// Sessions end when this is cancelled.
    pub done: CancellationToken,
}

/// Makes links.
trait Linker: Send + Sync {
    fn link(&self, session: Arc<Session>) -> Arc<dyn Link>;
}

struct LinkTo<H: EngineIoHandler> {
    handler: Arc<H>,
    socket: Arc<Socket<H::Data>>,
}

struct LinkerTo<H> {
    handler: Arc<H>,
    no_request: Arc<Parts>,
}

impl<H: EngineIoHandler> Linker for LinkerTo<H> {
    fn link(&self, session: Arc<Session>) -> Arc<dyn Link> {
        let socket = Arc::new(Socket::new(session, self.no_request.clone()));
        self.handler.clone().on_connect(socket.clone());
        Arc::new(LinkTo { handler: self.handler.clone(), socket })
    }
}

impl<H: EngineIoHandler> Link for LinkTo<H> {
    fn message(&self, text: Str) {
        self.handler.on_message(text, self.socket.clone());
    }

    fn binary(&self, data: Bytes) {
        self.handler.on_binary(data, self.socket.clone());
    }

    fn disconnect(&self, reason: DisconnectReason) {
        self.handler.on_disconnect(self.socket.clone(), reason);
    }
}

impl Engine {
    pub(crate) fn new<H: EngineIoHandler>(handler: Arc<H>, config: EngineIoConfig) -> Self {
        Self(Arc::new(Inner {
            config,
            sessions: DashMap::new(),
            open: AtomicUsize::new(0),
            wheel: Wheel::default(),
            has_started: Once::new(),
            linker: Box::new(LinkerTo { handler, no_request: Arc::new(Request::new(()).into_parts().0) }),
            attachment: OnceLock::new(),
            inline: OnceLock::new(),
        }))
    }

    /// Attaches a server, before the first request. False: there is one already.
    pub fn attach(&self, attachment: Attachment) -> bool {
        self.0.attachment.set(attachment).is_ok()
    }

    /// Returns a reference that does not keep the engine alive.
    pub fn downgrade(&self) -> WeakEngine {
        WeakEngine(Arc::downgrade(&self.0))
    }

    /// A session that has not ended.
    pub fn session(&self, id: Sid) -> Option<Arc<Session>> {
        self.0.sessions.get(&id).map(|session| session.clone())
    }

    /// Sessions that have not ended.
    pub fn sessions(&self) -> usize {
        self.0.open.load(Ordering::Relaxed)
    }

    /// All sessions that have not ended.
    pub fn open_sessions(&self) -> Vec<Arc<Session>> {
        self.0.sessions.iter().map(|session| session.clone()).collect()
    }

    pub(crate) fn config(&self) -> &EngineIoConfig {
        &self.0.config
    }

    /// The engine as its sessions have it.
    pub(crate) fn host(&self) -> Arc<dyn Host> {
        self.0.clone()
    }

    pub(crate) fn flushers(&self) -> &Flushers {
        self.0.flushers()
    }

    /// Runs a task.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(task);
        match self.0.attachment.get() {
            Some(attachment) => (attachment.spawn)(task),
            None => spawn_untracked(task),
        }
    }

    /// Registers a session.
    pub(crate) fn admit(&self, session: Arc<Session>) {
        let engine = self.clone();
        self.0.has_started.call_once(|| {
            let driven = engine.clone();
            let wheel = Box::pin(async move { driven.drive_wheel().await });
            match engine.0.attachment.get() {
                Some(attachment) => (attachment.spawn_vital)(wheel),
                None => spawn_untracked(wheel),
            }
        });
        self.0.open.fetch_add(1, Ordering::Relaxed);
        self.0.sessions.insert(session.id(), session);
    }

    /// Does what is due, until the server is done; then the sessions that are left end.
    async fn drive_wheel(&self) {
        let done = self.0.attachment.get().map(|attachment| attachment.done.clone()).unwrap_or_default();
        loop {
            let due = tokio::select! {
                () = done.cancelled() => break,
                due = self.0.wheel.due() => due,
            };
            let ((tick, due), now) = (due, Instant::now());
            for session in due.into_iter().filter_map(|id| self.session(id)) {
                session.fire(tick, now);
            }
        }
        for session in self.open_sessions() {
            session.close(DisconnectReason::ClosingServer);
        }
    }
}

impl WeakEngine {
    /// The engine, while its services or its sessions keep it.
    pub fn upgrade(&self) -> Option<Engine> {
        self.0.upgrade().map(Engine)
    }
}

impl Inner {
    fn flushers(&self) -> &Flushers {
        match self.attachment.get() {
            Some(attachment) => &attachment.flushers,
            None => self.inline.get_or_init(|| Flushers::inline(QueuedBytes::new(u64::MAX))),
        }
    }
}

impl Host for Inner {
    fn config(&self) -> &EngineIoConfig {
        &self.config
    }

    fn wheel(&self) -> &Wheel<Sid> {
        &self.wheel
    }

    fn observer(&self) -> Option<&dyn Observer> {
        self.attachment.get().map(|attachment| &*attachment.observer)
    }

    fn speak_within(&self) -> Option<Duration> {
        self.attachment.get()?.speak_within
    }

    fn max_unread_backlog(&self) -> usize {
        self.attachment.get().map_or(usize::MAX, |attachment| attachment.max_unread_backlog)
    }

    fn queued(&self) -> &Arc<QueuedBytes> {
        self.flushers().queued()
    }

    fn forget(&self, id: Sid) {
        if self.sessions.remove(&id).is_some() {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn link(&self, session: Arc<Session>) -> Arc<dyn Link> {
        self.linker.link(session)
    }
}

#[expect(clippy::disallowed_methods, reason = "a server that wants its tasks tracked attaches a way to spawn")]
fn spawn_untracked(task: Pin<Box<dyn Future<Output = ()> + Send>>) {
    tokio::spawn(task);
}
