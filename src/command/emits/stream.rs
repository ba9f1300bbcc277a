use std::{collections::HashMap, convert::Infallible, pin::Pin, sync::Arc, task::Poll};

use futures_util::{
    Stream, StreamExt,
    stream::{self, FuturesUnordered},
};
use tokio::{sync::oneshot, task::unconstrained};

use super::{Commands, EmitRequest, Error, emit::audit_refusal};
use crate::auth::Caller;
use crate::delivery::SentSignal;
use crate::lifecycle::Lifecycle;
use crate::message::{Receipt, RoomName};

/// How many emits of a stream may be unanswered.
const MAX_IN_FLIGHT: usize = 1_024;

type Answer<T> = (T, Result<Receipt, Error>);
type Sending<T> = Pin<Box<dyn Future<Output = (Ticket, Answer<T>)> + Send>>;

/// The last emit to a room.
struct Last {
    number: u64,
    done: oneshot::Receiver<Infallible>,
    /// It has its place among the stored messages of the room already.
    has_place: bool,
}

/// What a later emit to the same room waits for.
struct Ticket {
    room: RoomName,
    number: u64,
    /// Goes when the emit is answered, or, if that waits for acknowledgements, when it is sent.
    _done: Option<SentSignal>,
}

impl Commands {
    /// Sends events as they come: those to one room in their order, answers as they are ready. Each emit has a tag of the
    /// caller's, which comes back with its answer. When the server stops, nothing more is read, and once all that was read is answered
    /// the stream ends with an error.
    pub fn emit_stream<T, S, E>(
        &self,
        caller: Arc<Caller>,
        emits: S,
        lifecycle: Lifecycle,
    ) -> impl Stream<Item = Result<Answer<T>, E>> + Send + use<T, S, E>
    where
        T: Send + 'static,
        S: Stream<Item = Result<(T, Result<EmitRequest, Error>), E>> + Send + Unpin + 'static,
        E: From<Error> + Send + 'static,
    {
        let pipeline = Pipeline {
            commands: self.clone(),
            caller,
            emits: Some(emits),
            lifecycle,
            in_flight: FuturesUnordered::new(),
            last_in_room: HashMap::new(),
            count: 0,
            failure: None,
        };
        stream::unfold(pipeline, async |mut pipeline| pipeline.next().await.map(|item| (item, pipeline)))
    }
}

struct Pipeline<T, S, E> {
    commands: Commands,
    caller: Arc<Caller>,
    emits: Option<S>,
    lifecycle: Lifecycle,
    in_flight: FuturesUnordered<Sending<T>>,
    last_in_room: HashMap<RoomName, Last>,
    count: u64,
    failure: Option<E>,
}

impl<T, S, E> Pipeline<T, S, E>
where
    T: Send + 'static,
    S: Stream<Item = Result<(T, Result<EmitRequest, Error>), E>> + Send + Unpin + 'static,
    E: From<Error> + Send + 'static,
{
    async fn next(&mut self) -> Option<Result<Answer<T>, E>> {
        loop {
            let may_read = self.emits.is_some() && self.in_flight.len() < MAX_IN_FLIGHT;
            if !may_read && self.in_flight.is_empty() {
                return self.failure.take().map(Err);
            }
            tokio::select! {
                biased;
                Some((ticket, answer)) = self.in_flight.next() => {
                    self.finish(&ticket);
                    return Some(Ok(answer));
                }
                () = self.lifecycle.stopping(), if may_read => self.end(Some(E::from(Error::Unavailable(
                    "the server is stopping: what has an answer was sent, the rest was not and can be sent again".into(),
                )))),
                read = next_of(&mut self.emits), if may_read => match read {
                    Some(Ok((tag, Ok(request)))) => {
                        if let Some(answer) = self.begin(tag, request).await {
                            return Some(Ok(answer));
                        }
                    }
                    Some(Ok((tag, Err(error)))) => {
                        audit_refusal(&self.caller.name, None, None, &error);
                        return Some(Ok((tag, Err(error))));
                    }
                    Some(Err(error)) => self.end(Some(error)),
                    None => self.end(None),
                },
            }
        }
    }

    fn end(&mut self, failure: Option<E>) {
        self.emits = None;
        self.failure = failure;
    }

    /// Sends an event at once, or after the one before it in its room. Gives the answer if there was nothing to wait for.
    async fn begin(&mut self, tag: T, mut request: EmitRequest) -> Option<Answer<T>> {
        request.emit.alone = false;
        let room = request.emit.audience.room();
        let is_stored = request.emit.store;
        // Those that are stored are written together, and keep the order in which they began.
        let before =
            self.last_in_room.remove(&room).filter(|last| !(is_stored && last.has_place)).map(|last| last.done);
        let must_wait = before.is_some();
        let (commands, caller) = (self.commands.clone(), self.caller.clone());
        let (done, wait) = oneshot::channel();
        let (sent, done) = if request.emit.ack.is_some() { (Some(done), None) } else { (None, Some(done)) };
        let mut sending = Box::pin(async move {
            if let Some(before) = before {
                // An error is all that it can be.
                let _ = before.await;
            }
            commands.emit_telling(&caller, request, sent).await
        });
        // Not to be put off, as what has done much lately may be: it would lose its place.
        if !must_wait && let Poll::Ready(result) = futures_util::poll!(unconstrained(sending.as_mut())) {
            return Some((tag, result));
        }
        self.count += 1;
        let ticket = Ticket { room: room.clone(), number: self.count, _done: done };
        self.last_in_room.insert(room, Last { number: self.count, done: wait, has_place: is_stored && !must_wait });
        self.in_flight.push(Box::pin(async move { (ticket, (tag, sending.await)) }));
        None
    }

    fn finish(&mut self, ticket: &Ticket) {
        let last = self.last_in_room.get(&ticket.room).is_some_and(|last| last.number == ticket.number);
        if last {
            self.last_in_room.remove(&ticket.room);
        }
    }
}

async fn next_of<S: Stream + Unpin>(stream: &mut Option<S>) -> Option<S::Item> {
    match stream {
        Some(stream) => stream.next().await,
        None => None,
    }
}
