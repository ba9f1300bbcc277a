//! The `bugle` binary.

fn main() {}
