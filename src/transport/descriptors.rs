use std::io;

use crate::Share;

/// The most descriptors that are kept back for files and outgoing connections; it is at most an eighth of the free ones.
const MAX_KEPT_BACK: usize = 64;
/// How many connections the admin listener may always have.
const MIN_ADMIN: usize = 8;
const MAX_ADMIN: usize = 64;
const MAX_GRPC: usize = 1024;

/// The file descriptors that a process may still open, to be divided between its listeners at start, so that none of them can
/// take what another needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    free: usize,
}

/// How many connections each listener may have.
#[derive(Clone)]
pub struct Shares {
    /// The admin listener's: a sixteenth of the free descriptors, at least 8 and at most 64.
    pub admin: Share,
    /// The gRPC listener's: a quarter of the free descriptors, at most 1,024.
    pub grpc: Share,
    /// The devices' listener's: the rest, at least 1.
    pub devices: Share,
}

impl Descriptors {
    /// Counts what is free below `soft_limit` (`RLIMIT_NOFILE`) when `open` descriptors are open.
    pub fn new(soft_limit: u64, open: usize) -> Self {
        // A limit beyond the address space is none.
        let limit = usize::try_from(soft_limit).unwrap_or(usize::MAX);
        Self { free: limit.saturating_sub(open) }
    }

    /// Divides them. A part is kept back: 64, or an eighth if that is less.
    pub fn divide(self) -> Shares {
        let kept_back = MAX_KEPT_BACK.min(self.free / 8);
        let admin = MAX_ADMIN.min(self.free / 16).max(MIN_ADMIN);
        let grpc = MAX_GRPC.min(self.free / 4);
        let devices = self.free.saturating_sub(kept_back + admin + grpc).max(1);
        Shares { admin: Share::new(admin), grpc: Share::new(grpc), devices: Share::new(devices) }
    }
}

/// Returns how many file descriptors the process has open.
pub fn open_descriptors() -> io::Result<usize> {
    let directory = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    // The directory's own descriptor is among them.
    Ok(std::fs::read_dir(directory)?.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shares of admin, gRPC and devices.
    fn divided(limit: u64, open: usize) -> [usize; 3] {
        let Shares { admin, grpc, devices } = Descriptors::new(limit, open).divide();
        [admin, grpc, devices].map(|share| share.max())
    }

    #[test]
    fn a_small_table_is_divided_by_proportion() {
        assert_eq!(divided(300, 20), [17, 70, 280 - 35 - 17 - 70]);
    }

    #[test]
    fn a_large_table_goes_to_the_devices() {
        assert_eq!(divided(1_048_576, 100), [64, 1024, 1_048_476 - 64 - 64 - 1024]);
        assert_eq!(divided(u64::MAX, 0)[..2], [64, 1024]);
    }

    #[test]
    fn the_admin_listener_and_the_devices_have_places_in_a_tiny_table() {
        assert_eq!(divided(20, 10), [8, 2, 1]);
        assert_eq!(divided(5, 10), [8, 0, 1]);
    }

    #[test]
    fn the_open_descriptors_are_counted() {
        let before = open_descriptors().unwrap();
        assert!((3..10_000).contains(&before), "{before}");
    }
}
