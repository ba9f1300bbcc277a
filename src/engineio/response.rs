//! Responses of the service.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::Response;
use http_body::{Body as HttpBody, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::reply;

pin_project! {
    /// The response of the engine or of the inner service.
    #[project = ResponseFutureProjection]
    pub enum ResponseFuture<F> {
        /// The engine's.
        Engine { answer: Pin<Box<dyn Future<Output = Response<reply::Body>> + Send>> },
        /// The inner service's.
        Inner { #[pin] answer: F },
    }
}

impl<F, R, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<ResponseBody<R>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            ResponseFutureProjection::Engine { answer } => {
                answer.as_mut().poll(cx).map(|response| Ok(response.map(|body| ResponseBody::Engine { body })))
            }
            ResponseFutureProjection::Inner { answer } => {
                answer.poll(cx).map_ok(|response| response.map(|body| ResponseBody::Inner { body }))
            }
        }
    }
}

pin_project! {
    /// A body of the engine or of the inner service.
    #[project = ResponseBodyProjection]
    pub enum ResponseBody<B> {
        /// The engine's.
        Engine { #[pin] body: reply::Body },
        /// The inner service's.
        Inner { #[pin] body: B },
    }
}

impl<B: HttpBody<Data = Bytes>> HttpBody for ResponseBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project() {
            ResponseBodyProjection::Engine { body } => body.poll_frame(cx).map_err(|never| match never {}),
            ResponseBodyProjection::Inner { body } => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Engine { body } => body.is_end_stream(),
            Self::Inner { body } => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Engine { body } => body.size_hint(),
            Self::Inner { body } => body.size_hint(),
        }
    }
}
