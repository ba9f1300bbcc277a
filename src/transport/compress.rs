use http::Response;
use http_body::Body;
use tower::util::MapResponseLayer;
use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, predicate::SizeAbove},
};

/// An extension of a response: how many bytes its body had before it may have been compressed, which does not change that it is in memory.
#[derive(Clone, Copy)]
pub(crate) struct PlainBytes(pub(crate) u64);

type Compression<B> = (CompressionLayer<SizeAbove>, MapResponseLayer<fn(Response<B>) -> Response<B>>);

/// Returns layers that compress responses of at least `from` bytes with gzip for clients that accept it, or `None` if `from`
/// is 0. A response without a body, such as the one that opens a WebSocket, is left as it is.
pub fn compression<B: Body>(from: u64) -> Option<Compression<B>> {
    // Each response is made for one device and fetched once, so a better compression costs more time than it saves.
    let compress = || CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(from));
    (from > 0).then(|| (compress(), MapResponseLayer::new(note_plain_bytes as fn(_) -> _)))
}

fn note_plain_bytes<B: Body>(mut response: Response<B>) -> Response<B> {
    let bytes = response.body().size_hint().lower();
    response.extensions_mut().insert(PlainBytes(bytes));
    response
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, header::CONTENT_ENCODING};
    use http_body_util::{BodyExt, Full};
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;

    #[tokio::test]
    async fn a_compressed_answer_tells_how_large_it_was() {
        let service = service_fn(async |_: Request<()>| {
            Ok::<_, Infallible>(Response::new(Full::new(bytes::Bytes::from(vec![b'x'; 5_000]))))
        });
        let service = compression(1_000).unwrap().layer(service);
        let request = Request::builder().header("accept-encoding", "gzip").body(()).unwrap();
        let response = service.oneshot(request).await.unwrap();
        assert_eq!(response.headers()[CONTENT_ENCODING], "gzip");
        assert_eq!(response.extensions().get().map(|PlainBytes(bytes)| *bytes), Some(5_000));
        assert!(response.into_body().collect().await.unwrap().to_bytes().len() < 1_000);
    }
}
