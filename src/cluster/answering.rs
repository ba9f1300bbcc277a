//! The answers of this node to others. Those that come while a round trip is under way go out together in the next one.

use std::{collections::HashMap, mem, sync::Arc};

use parking_lot::Mutex;
use prost::Message;
use redis::Pipeline;
use tokio::sync::Notify;

use super::{
    answer_codec::{self, Reply},
    frame::{AckPart, Answer},
    shard::Shard,
};
use crate::proto::bus::v1;

/// Answers that wait to be published, by the incarnation that they are for.
#[derive(Default)]
pub(super) struct Outbox {
    waiting: Mutex<HashMap<u64, Vec<v1::Answer>>>,
    filled: Notify,
}

/// Answers one frame. If it is dropped without an answer, the node that asks hears nothing, and says so.
pub struct Responder {
    shard: Arc<Shard>,
    origin: u64,
    number: u64,
}

impl Responder {
    pub(super) fn new(shard: Arc<Shard>, origin: u64, number: u64) -> Self {
        Self { shard, origin, number }
    }

    /// Answers. If acknowledgements follow, the returned value takes them.
    pub fn answer(self, answer: Answer) -> AckResponder {
        self.send(Reply::Answer(answer));
        AckResponder(self)
    }

    fn send(&self, reply: Reply) {
        // An emit that was published along with another one needs no answer.
        if self.number == 0 {
            return;
        }
        // Its own frames a node answers without the engine.
        if self.origin == self.shard.incarnation() {
            self.shard.pending.answered(self.number, reply);
            return;
        }
        let answer = answer_codec::encode(self.number, reply);
        self.shard.outbox.waiting.lock().entry(self.origin).or_default().push(answer);
        self.shard.outbox.filled.notify_one();
    }
}

/// Sends the acknowledgements of an emit after its answer.
pub struct AckResponder(Responder);

impl AckResponder {
    /// Sends them.
    pub fn acknowledged(self, acks: AckPart) {
        self.0.send(Reply::Acks(acks));
    }
}

impl Shard {
    /// Publishes answers, again and again. Those that the engine does not take are lost: the nodes that wait for them say that they are partial.
    pub(super) async fn answer_loop(self: Arc<Self>) {
        loop {
            let waiting = mem::take(&mut *self.outbox.waiting.lock());
            if waiting.is_empty() {
                self.outbox.filled.notified().await;
                continue;
            }
            let mut commands = Pipeline::with_capacity(waiting.len());
            for (origin, answers) in waiting {
                let answers = v1::Answers { answers }.encode_to_vec();
                commands.cmd("PUBLISH").arg(self.channel_of(origin)).arg(answers).ignore();
            }
            if let Err(error) = self.engine.query_all::<()>(&commands).await {
                tracing::debug!(%error, "answers to other nodes are lost");
            }
        }
    }
}
