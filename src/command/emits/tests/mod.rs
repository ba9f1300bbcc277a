//! A sequencer, and whole streams, against models of what order promises.

mod sequencer;
mod stream;
