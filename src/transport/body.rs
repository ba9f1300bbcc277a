use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{Part, UnderWay};

/// How long a body that is being read may go without a byte.
pub const BYTE_WITHIN: Duration = Duration::from_secs(10);
/// How long reading a body may take in all.
pub const BODY_WITHIN: Duration = Duration::from_mins(1);

type BoxError = Box<dyn Error + Send + Sync>;

pin_project! {
    /// A request's body that has to arrive in time: a byte every 10 s ([`BYTE_WITHIN`]), all of it in 60 s ([`BODY_WITHIN`]).
    ///
    /// Only the time counts in which a reader waits for the body, so a reader that pauses does not end it. Its bytes count as
    /// [`UnderWay`] until the body is dropped.
    pub struct Body<B = Incoming> {
        #[pin]
        inner: B,
        // Made when the reader first has to wait.
        timer: Option<Pin<Box<Sleep>>>,
        // Since when the reader waits for the next frame.
        waiting_since: Option<Instant>,
        waited: Duration,
        has_ended: bool,
        under_way: Option<UnderWay>,
        arrived: usize,
        part: Option<Part>,
    }
}

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// No byte arrived for [`BYTE_WITHIN`].
    #[error("no byte of the request's body arrived for {} s", BYTE_WITHIN.as_secs())]
    Stalled,
    /// The body took longer than [`BODY_WITHIN`].
    #[error("the request's body did not arrive within {} s", BODY_WITHIN.as_secs())]
    Overdue,
    /// The body could not be read: usually because the client disconnected.
    #[error("the request's body could not be read")]
    Read(#[source] BoxError),
}

impl BodyError {
    /// Returns whether the client was too slow. Status 408 says that.
    pub fn is_deadline(&self) -> bool {
        matches!(self, Self::Stalled | Self::Overdue)
    }

    /// Returns the body's error that `error` is or was caused by, or `None`. Layers between the body and its reader wrap its
    /// errors.
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        let mut current = Some(error);
        while let Some(error) = current {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            current = error.source();
        }
        None
    }
}

impl<B> Body<B> {
    /// Wraps a body. `under_way` counts its bytes.
    pub fn new(inner: B, under_way: Option<UnderWay>) -> Self {
        Self {
            inner,
            timer: None,
            waiting_since: None,
            waited: Duration::ZERO,
            has_ended: false,
            under_way,
            arrived: 0,
            part: None,
        }
    }
}

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.project();
        if *this.has_ended {
            return Poll::Ready(None);
        }
        let Poll::Ready(frame) = this.inner.poll_frame(cx) else {
            let since = *this.waiting_since.get_or_insert_with(Instant::now);
            let error = ready!(poll_deadline(this.timer, since, *this.waited, cx));
            *this.has_ended = true;
            metrics::counter!("transport_bodies_timed_out_total").increment(1);
            return Poll::Ready(Some(Err(error)));
        };
        if let Some(since) = this.waiting_since.take() {
            *this.waited += since.elapsed();
        }
        *this.has_ended = !matches!(frame, Some(Ok(_)));
        if let (Some(Ok(frame)), Some(under_way)) = (&frame, &*this.under_way) {
            *this.arrived += frame.data_ref().map_or(0, Bytes::len);
            under_way.hold(this.part, *this.arrived);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(|error| BodyError::Read(error.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.has_ended || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Waits for the earlier deadline of a reader that waits since `since` and had waited for `waited` before.
fn poll_deadline(
    timer: &mut Option<Pin<Box<Sleep>>>,
    since: Instant,
    waited: Duration,
    cx: &mut Context<'_>,
) -> Poll<BodyError> {
    let (stalled, overdue) = (since + BYTE_WITHIN, since + BODY_WITHIN.saturating_sub(waited));
    let deadline = stalled.min(overdue);
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
    if timer.deadline() != deadline {
        timer.as_mut().reset(deadline);
    }
    timer.as_mut().poll(cx).map(|()| if overdue < stalled { BodyError::Overdue } else { BodyError::Stalled })
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::poll_fn, io, sync::Arc};

    use http_body::Body as _;
    use tokio::time::sleep;

    use super::*;
    use crate::{Flushers, QueuedBytes, Strangers, Stream, Unfinished};

    /// A body that waits before each of its frames.
    struct Script {
        frames: VecDeque<(Duration, Result<Frame<Bytes>, io::Error>)>,
        timer: Option<Pin<Box<Sleep>>>,
    }

    impl http_body::Body for Script {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
            let Some((wait, _)) = self.frames.front() else {
                return Poll::Ready(None);
            };
            let wait = *wait;
            if !wait.is_zero() {
                ready!(self.timer.get_or_insert_with(|| Box::pin(sleep(wait))).as_mut().poll(cx));
                self.timer = None;
            }
            Poll::Ready(self.frames.pop_front().map(|(_, frame)| frame))
        }
    }

    fn body(frames: impl IntoIterator<Item = (u64, Result<&'static str, io::Error>)>) -> Pin<Box<Body<Script>>> {
        let frame = |(wait, data): (u64, Result<&'static str, io::Error>)| {
            (Duration::from_secs(wait), data.map(|data| Frame::data(Bytes::from(data))))
        };
        Box::pin(Body::new(Script { frames: frames.into_iter().map(frame).collect(), timer: None }, None))
    }

    async fn next(body: &mut Pin<Box<Body<Script>>>) -> Option<Result<Bytes, BodyError>> {
        let frame = poll_fn(|cx| body.as_mut().poll_frame(cx)).await;
        frame.map(|frame| frame.map(|frame| frame.into_data().unwrap()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_in_time_is_passed_on() {
        let mut body = body([(0, Ok("a")), (9, Ok("b")), (9, Ok("c"))]);
        for expected in ["a", "b", "c"] {
            assert_eq!(next(&mut body).await.unwrap().unwrap(), expected);
        }
        assert!(next(&mut body).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_ended_after_10_s() {
        let start = Instant::now();
        let mut body = body([(1, Ok("a")), (11, Ok("b"))]);
        assert!(next(&mut body).await.unwrap().is_ok());
        let error = next(&mut body).await.unwrap().unwrap_err();
        assert!(matches!(error, BodyError::Stalled) && error.is_deadline(), "{error:?}");
        assert_eq!(error.to_string(), "no byte of the request's body arrived for 10 s");
        assert_eq!(start.elapsed().as_secs(), 11);
        assert!(next(&mut body).await.is_none());
        assert!(body.is_end_stream());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_trickles_is_ended_after_60_s() {
        let start = Instant::now();
        let mut body = body((0..100).map(|_| (9, Ok("a"))));
        let mut frames = 0;
        let error = loop {
            match next(&mut body).await.unwrap() {
                Ok(_) => frames += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, BodyError::Overdue), "{error:?}");
        assert_eq!((frames, start.elapsed().as_secs()), (6, 60));
    }

    #[tokio::test(start_paused = true)]
    async fn the_time_of_a_reader_that_does_not_read_does_not_count() {
        let mut body = body([(5, Ok("a")), (5, Ok("b")), (5, Ok("c"))]);
        for _ in 0..3 {
            assert!(next(&mut body).await.unwrap().is_ok());
            tokio::time::advance(Duration::from_secs(100)).await;
        }
        assert!(next(&mut body).await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn no_timer_is_made_for_a_body_that_is_there() {
        let mut body = body([(0, Ok("a")), (0, Ok("b"))]);
        while next(&mut body).await.is_some() {}
        assert!(body.timer.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_connection_is_not_a_deadlines() {
        let mut body = body([(0, Err(io::ErrorKind::ConnectionReset.into()))]);
        let error = next(&mut body).await.unwrap().unwrap_err();
        assert!(!error.is_deadline());
        assert!(next(&mut body).await.is_none());
    }

    #[test]
    fn an_error_is_found_below_others() {
        let wrapped = layer_error(BodyError::Stalled);
        assert!(BodyError::find(&wrapped).is_some_and(BodyError::is_deadline));
        assert!(BodyError::find(&io::Error::other("else")).is_none());
    }

    /// An error of another layer with this source.
    fn layer_error(source: BodyError) -> impl Error {
        #[derive(Debug, thiserror::Error)]
        #[error("a layer failed")]
        struct Layer(#[source] BodyError);
        Layer(source)
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_count_until_the_body_is_dropped() {
        let (strangers, unfinished) = (Strangers::unlimited(), Unfinished::new("key", usize::MAX));
        let stranger = Arc::new(strangers.enter(None, || {}));
        let stream = Stream::other(tokio::io::duplex(1).0, &Flushers::inline(QueuedBytes::new(u64::MAX)));
        let under_way = UnderWay::new(unfinished.clone(), unfinished.clone(), stranger, stream.handle());
        let frames = [2_000, 3_000].map(|size| (Duration::ZERO, Ok(Frame::data(Bytes::from(vec![0; size])))));
        let script = Script { frames: frames.into(), timer: None };
        let mut body = Box::pin(Body::new(script, Some(under_way)));
        while next(&mut body).await.is_some() {}
        assert_eq!((strangers.body_bytes(), unfinished.total()), (5_000, 5_000));
        drop(body);
        assert_eq!((strangers.body_bytes(), unfinished.total()), (0, 0));
    }
}
