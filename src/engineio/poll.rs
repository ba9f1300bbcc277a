use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use tokio::time::{Instant, sleep};
use transport::{AnswerFate, ReportFate};

use crate::{
    frame::{packet, polled},
    payload,
    reason::DisconnectReason,
    reply::{Body, RequestError, respond},
    session::{Carrier, Session, State},
};

/// The time in which a device whose poll was cancelled polls again.
const POLLS_AGAIN_WITHIN: Duration = Duration::from_secs(2);
/// A poll that meets another one waits for so long: a cancelled one may be noticed after the next has come.
const OVERLAP_GRACE: Duration = Duration::from_millis(100);
/// During an upgrade a poll is held for so long, the next twice as long, and so on: the device pauses polling once it has
/// the answer to its probe, and one that never gets it must not be kept busy.
const FIRST_RELEASE: Duration = Duration::from_millis(50);
const LAST_RELEASE: Duration = Duration::from_secs(5);

/// Answers a poll, once there is something to answer. `reports`: the server reports the fate of answers.
pub(crate) async fn poll(session: Arc<Session>, reports: bool) -> Response<Body> {
    let held = match HeldPoll::begin(&session) {
        Err(Overlap) => {
            sleep(OVERLAP_GRACE).await;
            HeldPoll::begin(&session)
        }
        begun => begun,
    };
    let Ok(held) = held else {
        session.close(DisconnectReason::MultipleHttpPollingError);
        return RequestError::BadRequest.response();
    };
    let Answer { frames, id } = held.await;
    let packets: Vec<_> = frames.iter().map(polled).collect();
    let (content_type, body) = payload::encode(session.protocol(), session.supports_binary, &packets);
    let mut response = respond(StatusCode::OK, HeaderValue::from_static(content_type), body);
    if let Some(id) = id {
        let fate = Fate { session, id, is_known: AtomicBool::new(false) };
        if reports {
            response.extensions_mut().insert(ReportFate(Arc::new(fate)));
        } else {
            fate.taken();
        }
    }
    response
}

/// Another poll of the session is being answered.
struct Overlap;

/// A poll that waits. Dropped before its end it was cancelled.
struct HeldPoll {
    session: Arc<Session>,
    is_over: bool,
}

/// What a poll is answered. Without an id it holds nothing that must not be lost.
struct Answer {
    frames: Vec<Bytes>,
    id: Option<u64>,
}

impl HeldPoll {
    fn begin(session: &Arc<Session>) -> Result<Self, Overlap> {
        let mut state = session.lock();
        let is_held_back = state.is_probed;
        state.timers.poll_by = None;
        let Carrier::Polling(polling) = &mut state.carrier else {
            return Ok(Self { session: session.clone(), is_over: false });
        };
        if std::mem::replace(&mut polling.is_answering, true) {
            return Err(Overlap);
        }
        if is_held_back {
            state.release_later();
            session.arm_locked(&state);
        }
        Ok(Self { session: session.clone(), is_over: false })
    }

    /// The answer, if there is one by now. By polling again the device has proven what earlier answers carried.
    fn answer(&mut self, cx: &mut Context<'_>) -> Poll<Answer> {
        let mut state = self.session.lock();
        let State { carrier, closed, .. } = &mut *state;
        let Carrier::Polling(polling) = carrier else {
            return Poll::Ready(Answer { frames: vec![packet("6")], id: None });
        };
        if let Some(reason) = closed {
            let last = if *reason == DisconnectReason::TransportClose { "6" } else { "1" };
            let frames = polling.drain().into_iter().chain([packet(last)]).collect();
            return Poll::Ready(Answer { frames, id: None });
        }
        if !polling.is_settling() {
            polling.ledger.prove(polling.fetched);
            if !polling.is_empty() {
                let max_bytes = usize::try_from(self.session.engine.config().max_payload).unwrap_or(usize::MAX);
                let (id, frames) = polling.take(max_bytes);
                return Poll::Ready(Answer { frames, id: Some(id) });
            }
            if std::mem::take(&mut polling.is_released) {
                // Nothing waits, so this takes nothing but a number: that the answer was lost is to be seen, too.
                let (id, _) = polling.take(0);
                return Poll::Ready(Answer { frames: vec![packet("6")], id: Some(id) });
            }
        }
        polling.held = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Future for HeldPoll {
    type Output = Answer;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answer> {
        let answer = self.answer(cx);
        self.is_over = answer.is_ready();
        answer
    }
}

impl Drop for HeldPoll {
    fn drop(&mut self) {
        let mut state = self.session.lock();
        state.timers.release = None;
        let Carrier::Polling(polling) = &mut state.carrier else {
            return;
        };
        polling.held = None;
        polling.is_answering = false;
        polling.last_polled = Instant::now();
        polling.is_released = false;
        if polling.is_settling() {
            // On a slow line it takes long. The device's time begins with the fate of the answer.
            state.timers.poll_by = None;
            return;
        }
        let within = if self.is_over { self.session.polls_within() } else { POLLS_AGAIN_WITHIN };
        self.session.expect_poll(&mut state, within);
    }
}

impl Session {
    /// The session ends unless the device polls in this time.
    pub(crate) fn expect_poll(&self, state: &mut State, within: Duration) {
        if state.closed.is_none() {
            state.timers.poll_by = Some(Instant::now() + within);
            self.arm_locked(state);
        }
    }

    /// The time from the answer to a poll to the next one: on a slow line the device may still be receiving it.
    pub(crate) fn polls_within(&self) -> Duration {
        self.engine.config().ping_timeout.max(POLLS_AGAIN_WITHIN)
    }
}

impl State {
    /// The held poll is answered after a while, whether there is something or not.
    pub(crate) fn release_later(&mut self) {
        let hold = FIRST_RELEASE.saturating_mul(1 << self.releases.min(16)).min(LAST_RELEASE);
        self.releases += 1;
        self.timers.release = Some(Instant::now() + hold);
    }
}

/// Learns what became of an answer.
struct Fate {
    session: Arc<Session>,
    id: u64,
    is_known: AtomicBool,
}

impl Fate {
    fn settle(&self, is_taken: bool) {
        if self.is_known.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.session.lock();
        let Carrier::Polling(polling) = &mut state.carrier else {
            return;
        };
        let is_waited_for = polling.is_answering;
        if polling.settle(self.id, is_taken) && !is_waited_for {
            let within = if is_taken { self.session.polls_within() } else { POLLS_AGAIN_WITHIN };
            self.session.expect_poll(&mut state, within);
        }
    }
}

impl AnswerFate for Fate {
    fn taken(&self) {
        self.settle(true);
    }

    fn lost(&self) {
        self.settle(false);
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        self.settle(false);
    }
}
