//! Open files: clients must not take those that the store needs, or reads would fail for everybody.

use rustix::process::{Resource, getrlimit, setrlimit};

/// For the store, the index, volumes and the control socket.
const OWN: u64 = 512;
/// What a connection of a client has open.
const OF_A_CONNECTION: u64 = 4;

/// Asks for as many as the system allows, and answers how many connections leave enough for the store, if that is fewer than
/// are wanted.
pub fn connections_at_most(wanted: usize) -> usize {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused the limit stays what it was.
    let _ = setrlimit(Resource::Nofile, limit);
    fitting(wanted, getrlimit(Resource::Nofile).current)
}

/// `None` is no limit.
fn fitting(wanted: usize, limit: Option<u64>) -> usize {
    let Some(limit) = limit else { return wanted };
    let room = limit.saturating_sub(OWN) / OF_A_CONNECTION;
    wanted.min(usize::try_from(room).unwrap_or(usize::MAX).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_needs_is_left() {
        assert_eq!(fitting(256, None), 256);
        assert_eq!(fitting(256, Some(1 << 20)), 256);
        assert_eq!(fitting(256, Some(1024)), 128);
        assert_eq!(fitting(256, Some(100)), 1);
    }
}
