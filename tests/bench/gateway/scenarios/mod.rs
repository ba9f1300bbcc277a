//! What can be measured.

pub mod costs;
pub mod growth;
pub mod half_open;
pub mod marks;
pub mod memory;
pub mod order;
pub mod replays;
pub mod soak;
pub mod stalled;
pub mod stops;
pub mod stored;
