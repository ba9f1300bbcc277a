//! The generated code of `proto/`, and its descriptors for reflection.

/// `bugle.v1`, the public API.
#[expect(clippy::pedantic, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("bugle.v1");
}

/// The descriptors of `bugle.v1` and of what it imports, with its comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
