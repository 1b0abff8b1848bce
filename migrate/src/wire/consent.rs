//! What a receiver lets the sender plan: the one who asked for a transfer decides, not the one who answers.

use super::intake::DOING;
use super::message::Plan;
use stillpoint_store::{Error, ErrorKind, Result};

/// See the module. By default nothing is deleted and all that comes is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consent {
    /// Whatever it says: it is the sender who was asked for the sync.
    Any,
    /// This.
    Only(Plan),
}

impl Default for Consent {
    fn default() -> Self {
        Self::Only(Plan::default())
    }
}

impl Consent {
    /// Refuses another plan.
    pub fn check(self, plan: Plan) -> Result<()> {
        match self {
            Self::Only(only) if only != plan => {
                let does = match (plan.mirror, plan.dry_run) {
                    (false, false) => "bring snapshots",
                    (true, false) => "bring snapshots and delete others",
                    (false, true) => "only compare",
                    (true, true) => "only compare, and say what it would delete",
                };
                let why = format!("the sender means to {does}, which nobody asked for");
                Err(Error::new(ErrorKind::Refused, DOING).detail(why))
            }
            Self::Any | Self::Only(_) => Ok(()),
        }
    }
}
