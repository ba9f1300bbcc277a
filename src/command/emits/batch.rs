use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};

use super::{
    Commands, EmitRequest, Error,
    emit::{Emitted, audit_refusal, completed},
    sequencer::{Sequenced, Sequencer},
};
use crate::auth::Caller;
use crate::delivery::{Place, Publishing};
use crate::message::{Receipt, RoomName};

/// An emit of a batch, by its index.
struct BatchEmit {
    index: usize,
    request: EmitRequest,
}

impl Sequenced for BatchEmit {
    fn room(&self) -> &RoomName {
        self.request.emit.audience.room()
    }

    fn is_stored(&self) -> bool {
        self.request.emit.store
    }
}

/// A batch that is being sent.
struct Batch<'a> {
    commands: &'a Commands,
    caller: &'a Caller,
    sequencer: Sequencer<BatchEmit>,
    running: FuturesUnordered<BoxFuture<'static, (usize, RoomName, Place, Emitted)>>,
    emitted: Vec<Option<Emitted>>,
}

impl Commands {
    /// Sends several events: those to one room in their order; stored ones are written together. One that is refused, here or before, stops no
    /// other. Acknowledgements are awaited when all are sent.
    pub async fn emit_batch(
        &self,
        caller: &Caller,
        requests: Vec<Result<EmitRequest, Error>>,
    ) -> Vec<Result<Receipt, Error>> {
        let asking = requests.iter().flatten().filter(|request| request.emit.ack.is_some()).count();
        let emitted = requests.iter().map(|_| None).collect();
        let (sequencer, running) = (Sequencer::new(), FuturesUnordered::new());
        let mut batch = Batch { commands: self, caller, sequencer, running, emitted };
        for (index, request) in requests.into_iter().enumerate() {
            match request {
                Ok(mut request) => {
                    request.emit.alone = false;
                    request.emit.ack = request.emit.ack.map(|ack| ack.one_of(asking).into());
                    batch.offer(BatchEmit { index, request });
                }
                Err(error) => {
                    audit_refusal(&caller.name, None, None, &error);
                    batch.emitted[index] = Some(Err(error));
                }
            }
            // A large batch takes a while, in which others get a chance to run.
            tokio::task::coop::consume_budget().await;
        }
        batch.run().await;
        let mut results = Vec::with_capacity(batch.emitted.len());
        for emitted in batch.emitted.into_iter().flatten() {
            results.push(completed(emitted).await);
        }
        results
    }
}

impl Batch<'_> {
    fn offer(&mut self, emit: BatchEmit) {
        if let Some(emit) = self.sequencer.offer(emit) {
            self.begin(emit);
        }
    }

    fn begin(&mut self, BatchEmit { index, request }: BatchEmit) {
        let room = request.emit.audience.room().clone();
        let (place, emitting) = match self.commands.begin_emit(self.caller, request) {
            Publishing::Done(emitted) => {
                self.emitted[index] = Some(emitted);
                return;
            }
            Publishing::Pending(place, emitting) => (place, emitting),
        };
        self.sequencer.began(room.clone(), place);
        self.running.push(Box::pin(async move { (index, room, place, emitting.await) }));
    }

    async fn run(&mut self) {
        while let Some((index, room, place, emitted)) = self.running.next().await {
            self.emitted[index] = Some(emitted);
            self.sequencer.finished(&room, place);
            while let Some(emit) = self.sequencer.next(&room) {
                self.begin(emit);
            }
        }
    }
}
