//! What the engine takes from outside apart from storage: time, randomness, its own name. Never decides about safety.

use std::time::{SystemTime, UNIX_EPOCH};

/// A moment: seconds and nanoseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    /// Seconds.
    pub sec: u64,
    /// Nanoseconds of that second.
    pub nsec: u32,
}

/// Clock, dice and name.
pub trait World: Send + Sync {
    /// Now.
    fn now(&self) -> Moment;
    /// 16 random bytes.
    fn random(&self) -> [u8; 16];
    /// Host and process, for people.
    fn label(&self) -> String;
}

/// The real ones.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealWorld;

impl World for RealWorld {
    fn now(&self) -> Moment {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Moment {
            sec: since.as_secs(),
            nsec: since.subsec_nanos(),
        }
    }

    fn random(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system has random numbers");
        bytes
    }

    fn label(&self) -> String {
        format!("pid {}", std::process::id())
    }
}
