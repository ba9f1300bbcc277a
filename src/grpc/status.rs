use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt};

use crate::command::{Error, Violation};
use crate::proto::v1::{EmitError, emit_error};

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::InvalidArgument(violations) => {
                let violations: Vec<_> =
                    violations.into_iter().map(|v| FieldViolation::new(v.field, v.description)).collect();
                Status::with_error_details(Code::InvalidArgument, message, ErrorDetails::with_bad_request(violations))
            }
            Error::ResourceExhausted { retry_after, .. } => {
                let details = ErrorDetails::with_retry_info(Some(retry_after));
                Status::with_error_details(Code::ResourceExhausted, message, details)
            }
            Error::Unauthenticated(_) => Status::unauthenticated(message),
            Error::PermissionDenied(_) => Status::permission_denied(message),
            Error::NotFound(_) => Status::not_found(message),
            Error::FailedPrecondition(_) => Status::failed_precondition(message),
            Error::Unavailable(_) => Status::unavailable(message),
            Error::DeadlineExceeded => Status::deadline_exceeded(message),
        }
    }
}

/// The code that the API promises for one that the library gives by itself, before a service sees the request: no service
/// answers with these.
pub(super) fn promised(code: Code) -> Code {
    match code {
        // A message that is too large.
        Code::OutOfRange => Code::ResourceExhausted,
        // A message that cannot be decoded.
        Code::Internal | Code::DataLoss => Code::InvalidArgument,
        // The caller's deadline.
        Code::Cancelled => Code::DeadlineExceeded,
        Code::Ok
        | Code::Unknown
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::Unimplemented
        | Code::Unavailable
        | Code::Unauthenticated => code,
    }
}

/// A refusal as the result of one emit among several.
pub(super) fn emit_error_of(error: Error) -> EmitError {
    use emit_error::Code;

    let message = error.to_string();
    let (code, violations, retry_after) = match error {
        Error::InvalidArgument(violations) => (Code::InvalidArgument, violations, None),
        Error::ResourceExhausted { retry_after, .. } => (Code::ResourceExhausted, Vec::new(), Some(retry_after)),
        // A call without a key comes to no emit.
        Error::Unauthenticated(_) | Error::PermissionDenied(_) => (Code::PermissionDenied, Vec::new(), None),
        Error::NotFound(_) => (Code::NotFound, Vec::new(), None),
        Error::FailedPrecondition(_) => (Code::FailedPrecondition, Vec::new(), None),
        Error::Unavailable(_) => (Code::Unavailable, Vec::new(), None),
        Error::DeadlineExceeded => (Code::DeadlineExceeded, Vec::new(), None),
    };
    let violation = |v: Violation| emit_error::Violation { field: v.field, description: v.description };
    EmitError {
        code: code.into(),
        message,
        violations: violations.into_iter().map(violation).collect(),
        retry_after: retry_after.and_then(|after| after.try_into().ok()),
    }
}
