use tower_http::{
    CompressionLevel,
    compression::{CompressionLayer, predicate::SizeAbove},
};

/// Returns a layer that compresses responses of at least `from` bytes with gzip for clients that accept it, or `None` if `from`
/// is 0. A response without a body, such as the one that opens a WebSocket, is left as it is.
pub fn compression(from: u64) -> Option<CompressionLayer<SizeAbove>> {
    // Each response is made for one device and fetched once, so a better compression costs more time than it saves.
    let layer = || CompressionLayer::new().quality(CompressionLevel::Fastest).compress_when(SizeAbove::new(from));
    (from > 0).then(layer)
}
