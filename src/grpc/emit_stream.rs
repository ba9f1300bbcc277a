use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_util::{Stream, StreamExt};
use tonic::{Code, Status};
use transport::Throttle;

use crate::proto::code_name;
use crate::telemetry;

/// The responses of an `EmitStream`. That it ended otherwise than with OK is counted and logged, not each one of many.
pub(super) struct Responses<S> {
    stream: S,
    api_key: Arc<str>,
    log: Arc<Throttle>,
    has_ended: bool,
}

impl<S> Responses<S> {
    pub(super) fn new(stream: S, api_key: Arc<str>, log: Arc<Throttle>) -> Self {
        Self { stream, api_key, log, has_ended: false }
    }

    fn broke(&self, code: Code, reason: &str) {
        let code = code_name(code);
        telemetry::grpc_stream_ended(code);
        if let Some(suppressed) = self.log.permit() {
            tracing::warn!(api_key.name = %self.api_key, grpc.code = code, reason, suppressed, "an EmitStream broke");
        }
    }
}

impl<T, S: Stream<Item = Result<T, Status>> + Unpin> Stream for Responses<S> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let response = ready!(self.stream.poll_next_unpin(cx));
        match &response {
            Some(Ok(_)) => {}
            Some(Err(status)) => {
                self.has_ended = true;
                self.broke(status.code(), status.message());
            }
            None => self.has_ended = true,
        }
        Poll::Ready(response)
    }
}

impl<S> Drop for Responses<S> {
    fn drop(&mut self) {
        // HTTP/2 drops the responses, and asks for no more, when the other side is gone.
        if !self.has_ended {
            self.broke(Code::Cancelled, "the caller cancelled it, or its connection ended");
        }
    }
}
