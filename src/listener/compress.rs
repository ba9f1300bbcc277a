use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, predicate::SizeAbove},
};

/// Compresses answers of `from` bytes or more for clients that accept it (gzip); none if `from` is 0. An answer without a
/// body, such as a WebSocket's, stays as it is.
pub fn compression(from: u64) -> Option<CompressionLayer<SizeAbove>> {
    // Answers are made for one device and fetched once: what a better compression saves, it costs in time.
    let layer = || CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(from));
    (from > 0).then(layer)
}
