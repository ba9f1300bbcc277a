//! The generated code of `proto/`, and its descriptors for reflection.

/// `bugle.v1`, the public API.
#[expect(clippy::pedantic, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("bugle.v1");
}

/// `bugle.bus.v1`, frames between nodes. Not public.
pub mod bus {
    /// Version 1.
    #[expect(clippy::pedantic, missing_docs, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("bugle.bus.v1");
    }
}

/// The descriptors of `bugle.v1` and of what it imports, with its comments.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// A code's name, as gRPC's documents write it.
pub fn code_name(code: tonic::Code) -> &'static str {
    match code {
        tonic::Code::Ok => "OK",
        tonic::Code::Cancelled => "CANCELLED",
        tonic::Code::Unknown => "UNKNOWN",
        tonic::Code::InvalidArgument => "INVALID_ARGUMENT",
        tonic::Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        tonic::Code::NotFound => "NOT_FOUND",
        tonic::Code::AlreadyExists => "ALREADY_EXISTS",
        tonic::Code::PermissionDenied => "PERMISSION_DENIED",
        tonic::Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        tonic::Code::FailedPrecondition => "FAILED_PRECONDITION",
        tonic::Code::Aborted => "ABORTED",
        tonic::Code::OutOfRange => "OUT_OF_RANGE",
        tonic::Code::Unimplemented => "UNIMPLEMENTED",
        tonic::Code::Internal => "INTERNAL",
        tonic::Code::Unavailable => "UNAVAILABLE",
        tonic::Code::DataLoss => "DATA_LOSS",
        tonic::Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
