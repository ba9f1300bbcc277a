use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::util::MapResponseLayer;
use tower_http::{
    CompressionLevel,
    compression::{CompressionBody, CompressionLayer, predicate::SizeAbove},
};

/// An extension of a response: how many bytes its body had before it may have been compressed, which does not change that it is in memory.
#[derive(Clone, Copy)]
pub(crate) struct PlainBytes(pub(crate) u64);

type MapResponse<A, B> = MapResponseLayer<fn(Response<A>) -> Response<B>>;
type Compression<B> =
    (MapResponse<CompressionBody<B>, Yielding<CompressionBody<B>>>, CompressionLayer<SizeAbove>, MapResponse<B, B>);

/// Returns layers that compress responses of at least `from` bytes with gzip for clients that accept it, or `None` if `from`
/// is 0. A response without a body, such as the one that opens a WebSocket, is left as it is.
pub fn compression<B: Body>(from: u64) -> Option<Compression<B>> {
    // Each response is made for one device and fetched once, so a better compression costs more time than it saves.
    let compress = || CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(from));
    (from > 0).then(|| (MapResponseLayer::new(yielding as _), compress(), MapResponseLayer::new(note_plain_bytes as _)))
}

fn note_plain_bytes<B: Body>(mut response: Response<B>) -> Response<B> {
    let bytes = response.body().size_hint().lower();
    response.extensions_mut().insert(PlainBytes(bytes));
    response
}

fn yielding<B>(response: Response<B>) -> Response<Yielding<B>> {
    response.map(|body| Yielding { body, has_worked: false })
}

pin_project! {
    /// A body that lets other tasks run after each of its frames, since compressing takes time.
    pub struct Yielding<B> {
        #[pin]
        body: B,
        has_worked: bool,
    }
}

impl<B: Body> Body for Yielding<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        if std::mem::take(this.has_worked) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let frame = ready!(this.body.poll_frame(cx));
        *this.has_worked = true;
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, future::poll_fn, pin::pin};

    use bytes::Bytes;
    use futures_util::FutureExt;
    use http::{Request, header::CONTENT_ENCODING};
    use http_body_util::Full;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_compressed_answer_tells_its_size_and_comes_piece_by_piece() {
        // Numbers from one end to the other do not become much smaller.
        let plain: Bytes =
            (0..20_000_u32).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let size = plain.len() as u64;
        let service = service_fn(move |_: Request<()>| {
            let response = Response::new(Full::new(plain.clone()));
            async { Ok::<_, Infallible>(response) }
        });
        let request = Request::builder().header("accept-encoding", "gzip").body(()).unwrap();
        let response = compression(1_000).unwrap().layer(service).oneshot(request).await.unwrap();
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(response.extensions().get().map(|PlainBytes(bytes)| *bytes), Some(size));
        let mut body = pin!(response.into_body());
        let mut pieces = 0;
        loop {
            let mut frame = pin!(poll_fn(|cx| body.as_mut().poll_frame(cx)));
            if pieces > 0 {
                assert!(frame.as_mut().now_or_never().is_none(), "others have their turn");
            }
            match frame.await {
                Some(frame) => assert!(frame.unwrap().into_data().unwrap().len() <= 8 * 1024),
                None => break,
            }
            pieces += 1;
        }
        assert!(pieces > 5, "{pieces}");
    }
}
