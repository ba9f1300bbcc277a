use std::{sync::Arc, time::Instant};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Appended, Error, NewMessage, append::append_all, database::Database};
use crate::telemetry;

/// No more is added to a transaction of so many messages: the disk would take more at one time, but the first would wait for the last.
const BATCH: usize = 128;
const BATCH_BYTES: usize = 4 << 20;

/// Messages for the writer, in order, and where its answer goes.
pub(super) struct Request {
    messages: Vec<NewMessage>,
    now_ms: i64,
    answer: Answer,
}

type Answer = oneshot::Sender<Result<Vec<Appended>, Error>>;

impl Request {
    pub(super) fn new(
        messages: Vec<NewMessage>,
        now_ms: i64,
    ) -> (Self, oneshot::Receiver<Result<Vec<Appended>, Error>>) {
        let (answer, answered) = oneshot::channel();
        (Self { messages, now_ms, answer }, answered)
    }
}

/// Writes what comes, all that waits at once: while one transaction runs, the next one gathers.
pub(super) async fn run(database: Database, mut requests: mpsc::Receiver<Request>, closed: CancellationToken) {
    loop {
        let first = tokio::select! {
            first = requests.recv() => first,
            () = closed.cancelled(), if !requests.is_closed() => {
                requests.close();
                continue;
            }
        };
        let Some(first) = first else {
            return;
        };
        let (mut messages, mut answers, mut bytes) = (Vec::new(), Vec::new(), 0);
        let mut next = Some(first);
        while let Some(Request { messages: more, now_ms, answer }) = next {
            answers.push((answer, more.len()));
            bytes += more.iter().map(NewMessage::bytes).sum::<usize>();
            messages.extend(more.into_iter().map(|message| (message, now_ms)));
            let has_room = messages.len() < BATCH && bytes < BATCH_BYTES;
            next = if has_room { requests.try_recv().ok() } else { None };
        }
        answer_all(answers, write_all(&database, messages).await);
    }
}

async fn write_all(database: &Database, messages: Vec<(NewMessage, i64)>) -> Result<Vec<Appended>, Error> {
    let (begun, count) = (Instant::now(), messages.len());
    let written = write(database, messages).await;
    match &written {
        Ok(_) => {
            database.note(true);
            telemetry::stored(count, begun.elapsed());
        }
        Err(Error::Unreachable) => {}
        Err(error) => {
            tracing::warn!(%error, error.cause = error.cause(), messages.count = count, "the store does not write");
            database.note(false);
        }
    }
    written
}

fn answer_all(answers: Vec<(Answer, usize)>, written: Result<Vec<Appended>, Error>) {
    let mut written = written.map(Vec::into_iter);
    for (answer, count) in answers {
        let own = match &mut written {
            Ok(appended) => Ok(appended.by_ref().take(count).collect()),
            Err(error) => Err(error.clone()),
        };
        // The caller may be gone.
        let _ = answer.send(own);
    }
}

async fn write(database: &Database, messages: Vec<(NewMessage, i64)>) -> Result<Vec<Appended>, Error> {
    let epoch: Arc<str> = database.epoch().await?;
    database.write(move |connection| Box::pin(async move { append_all(connection, &epoch, &messages).await })).await
}
