//! The gateway as its callers see it: backends over gRPC, devices over Socket.IO.

#[allow(dead_code, unused_imports, reason = "the tests that use the rest come with the server")]
mod harness;

mod console;
mod main_job;
