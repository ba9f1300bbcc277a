//! What can be measured.

pub mod costs;
pub mod half_open;
pub mod memory;
pub mod order;
pub mod stalled;
pub mod stored;
