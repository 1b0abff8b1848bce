//! Sessions: opened and ended by entries, alive while their lock is held.

use super::{Durability, Log};
use crate::error::Result;
use crate::format::entry::{Op, SessionKind};
use crate::id::SessionId;
use crate::object::{Lease, Purse};

/// A session that this process opened. Dropping it without closing releases its lock, after which anybody may end it.
pub struct Session {
    id: SessionId,
    counter: u64,
    _lease: Box<dyn Lease>,
}

impl Session {
    pub(super) fn new(id: SessionId, lease: Box<dyn Lease>) -> Self {
        Self {
            id,
            counter: 1,
            _lease: lease,
        }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.id
    }

    pub(super) fn next_counter(&self) -> u64 {
        self.counter + 1
    }

    pub(super) fn count(&mut self, counter: u64) {
        self.counter = counter;
    }
}

impl Log {
    /// Ends a session by an entry of its own.
    pub fn close(&self, mut session: Session, purse: Purse) -> Result<()> {
        let closed = self.commit(&mut session, purse, Durability::Later, &mut |_| {
            Ok(vec![Op::Close])
        });
        if closed.is_ok() {
            self.ended(session);
        }
        closed.map(|_| ())
    }

    /// Gives up the lock of a session that an entry has closed.
    pub fn ended(&self, session: Session) {
        let id = session.id();
        drop(session);
        // A lock file that stays is removed by whoever next looks for dead sessions.
        self.local.forget(id).unwrap_or_default();
    }

    /// Ends the sessions whose processes have died: those whose lock can be taken. Death is never inferred from a clock
    /// or from silence.
    pub fn expire_dead(&self) -> Result<Vec<SessionId>> {
        let catalog = self.refresh()?;
        let mut expired = Vec::new();
        for (id, _) in catalog.sessions() {
            let Some(lease) = self.local.hold(*id)? else {
                continue;
            };
            let op = Op::Expire { session: *id };
            // ORDER: the lock is held until the entry is in the log, so that nobody takes the session for alive.
            self.commit_alone(SessionKind::Gc, Purse::Reserve, &mut |_, _| {
                Ok(vec![op.clone()])
            })?;
            drop(lease);
            self.local.forget(*id)?;
            expired.push(*id);
        }
        Ok(expired)
    }
}
