use std::{
    collections::VecDeque,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::{
    Commands, EmitRequest, Error,
    emit::{Emitted, audit_refusal},
    sequencer::{Sequenced, Sequencer},
};
use crate::auth::Caller;
use crate::delivery::{Place, Publishing};
use crate::lifecycle::Lifecycle;
use crate::message::{Receipt, RoomName};

/// Nothing is read while this many emits of a stream, or this many bytes of them, are unanswered. The last one may exceed the bytes.
const MAX_IN_FLIGHT: usize = 1_024;
const MAX_IN_FLIGHT_BYTES: usize = 4 << 20;

/// An emit's tag, and what became of it.
pub type Answer<T> = (T, Result<Receipt, Error>);

/// An emit of a stream, in its order.
struct StreamEmit<T> {
    tag: T,
    request: EmitRequest,
}

/// An emit that has begun.
struct Unfinished<T> {
    tag: T,
    room: RoomName,
    place: Place,
    bytes: usize,
}

/// Emits that are read, sent and answered. Nothing is read while too many are unanswered: the caller's flow control is the backpressure.
pub struct EmitStream<T, S, E> {
    commands: Commands,
    caller: Arc<Caller>,
    emits: Option<S>,
    sequencer: Sequencer<StreamEmit<T>>,
    running: FuturesUnordered<BoxFuture<'static, (Unfinished<T>, Emitted)>>,
    /// Sent, and not acknowledged by all devices.
    acknowledging: FuturesUnordered<BoxFuture<'static, (T, usize, Receipt)>>,
    answers: VecDeque<Answer<T>>,
    in_flight: usize,
    in_flight_bytes: usize,
    lifecycle: Lifecycle,
    /// Wakes the stream when the server stops.
    stopping: BoxFuture<'static, ()>,
    failure: Option<E>,
}

impl<T> Sequenced for StreamEmit<T> {
    fn room(&self) -> &RoomName {
        self.request.emit.audience.room()
    }

    fn is_stored(&self) -> bool {
        self.request.emit.store
    }
}

impl<T> StreamEmit<T> {
    fn bytes(&self) -> usize {
        self.request.emit.bytes()
    }
}

impl Commands {
    /// Sends events as they come: those to one room in their order, answers as they are ready. Each emit has a tag of the
    /// caller's, which comes back with its answer. When the server stops, nothing more is read, and once all that was read is answered
    /// the stream ends with an error.
    pub fn emit_stream<T, S, E>(&self, caller: Arc<Caller>, emits: S, lifecycle: Lifecycle) -> EmitStream<T, S, E> {
        EmitStream {
            commands: self.clone(),
            caller,
            emits: Some(emits),
            sequencer: Sequencer::new(),
            running: FuturesUnordered::new(),
            acknowledging: FuturesUnordered::new(),
            answers: VecDeque::new(),
            in_flight: 0,
            in_flight_bytes: 0,
            stopping: Box::pin({
                let lifecycle = lifecycle.clone();
                async move { lifecycle.stopping().await }
            }),
            lifecycle,
            failure: None,
        }
    }
}

impl<T, S, E> Stream for EmitStream<T, S, E>
where
    T: Send + Unpin + 'static,
    S: Stream<Item = Result<(T, Result<EmitRequest, Error>), E>> + Unpin,
    E: From<Error> + Unpin,
{
    type Item = Result<Answer<T>, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(answer) = self.answers.pop_front() {
                return Poll::Ready(Some(Ok(answer)));
            }
            if self.poll_running(cx) {
                continue;
            }
            if !self.may_read() {
                let is_over = self.emits.is_none() && self.in_flight == 0;
                return if is_over { Poll::Ready(self.failure.take().map(Err)) } else { Poll::Pending };
            }
            ready!(self.poll_read(cx));
        }
    }
}

impl<T, S, E> EmitStream<T, S, E>
where
    T: Send + 'static,
    S: Stream<Item = Result<(T, Result<EmitRequest, Error>), E>> + Unpin,
    E: From<Error>,
{
    fn may_read(&self) -> bool {
        self.emits.is_some() && self.in_flight < MAX_IN_FLIGHT && self.in_flight_bytes < MAX_IN_FLIGHT_BYTES
    }

    /// Looks after what has begun. True if some of it is finished.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.running.is_empty()
            && let Poll::Ready(Some((unfinished, emitted))) = self.running.poll_next_unpin(cx)
        {
            let Unfinished { tag, room, place, bytes } = unfinished;
            self.sequencer.finished(&room, place);
            self.answer(tag, bytes, emitted);
            while let Some(emit) = self.sequencer.next(&room) {
                self.begin(emit);
            }
            return true;
        }
        if !self.acknowledging.is_empty()
            && let Poll::Ready(Some((tag, bytes, receipt))) = self.acknowledging.poll_next_unpin(cx)
        {
            self.finish(tag, bytes, Ok(receipt));
            return true;
        }
        false
    }

    /// Reads one emit, or the end.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(emits) = &mut self.emits else {
            return Poll::Ready(());
        };
        if self.lifecycle.is_stopping() {
            self.end(Some(E::from(stopping())));
            return Poll::Ready(());
        }
        let Poll::Ready(read) = emits.poll_next_unpin(cx) else {
            ready!(self.stopping.as_mut().poll(cx));
            self.end(Some(E::from(stopping())));
            return Poll::Ready(());
        };
        match read {
            Some(Ok((tag, Ok(request)))) => self.accept(tag, request),
            Some(Ok((tag, Err(error)))) => {
                audit_refusal(&self.caller.name, None, None, &error);
                self.answers.push_back((tag, Err(error)));
            }
            Some(Err(error)) => self.end(Some(error)),
            None => self.end(None),
        }
        Poll::Ready(())
    }

    fn end(&mut self, failure: Option<E>) {
        self.emits = None;
        self.failure = failure;
    }

    fn accept(&mut self, tag: T, mut request: EmitRequest) {
        request.emit.alone = false;
        let emit = StreamEmit { tag, request };
        self.in_flight += 1;
        self.in_flight_bytes += emit.bytes();
        if let Some(emit) = self.sequencer.offer(emit) {
            self.begin(emit);
        }
    }

    fn begin(&mut self, emit: StreamEmit<T>) {
        let bytes = emit.bytes();
        let StreamEmit { tag, request } = emit;
        let room = request.emit.audience.room().clone();
        let (place, emitting) = match self.commands.begin_emit(&self.caller, request) {
            Publishing::Done(emitted) => return self.answer(tag, bytes, emitted),
            Publishing::Pending(place, emitting) => (place, emitting),
        };
        self.sequencer.began(room.clone(), place);
        let unfinished = Unfinished { tag, room, place, bytes };
        self.running.push(Box::pin(async move { (unfinished, emitting.await) }));
    }

    fn answer(&mut self, tag: T, bytes: usize, emitted: Emitted) {
        match emitted {
            Ok((receipt, Some(acks))) => {
                self.acknowledging.push(Box::pin(async move { (tag, bytes, acks.complete(receipt).await) }));
            }
            Ok((receipt, None)) => self.finish(tag, bytes, Ok(receipt)),
            Err(error) => self.finish(tag, bytes, Err(error)),
        }
    }

    fn finish(&mut self, tag: T, bytes: usize, result: Result<Receipt, Error>) {
        self.in_flight -= 1;
        self.in_flight_bytes -= bytes;
        self.answers.push_back((tag, result));
    }
}

fn stopping() -> Error {
    Error::Unavailable(
        "the server is stopping: what has an answer was sent, the rest was not and can be sent again".into(),
    )
}
