//! Adding an entry: fold to the end, validate on exactly that state, create the next slot; when somebody else has it,
//! fold theirs and try the next.
//!
//! ORDER: an entry that is acknowledged is durable, and with it all before it, whoever wrote them.

use super::fate::{Fate, Slot, unclear};
use super::{Log, Session, State, entry_key};
use crate::catalog::{Catalog, Invalid};
use crate::error::{Error, ErrorKind, Result};
use crate::format::codec;
use crate::format::entry::{Entry, Op, SessionKind};
use crate::format::envelope::{self, EnvelopeKind};
use crate::id::{Hash, Sequence, SessionId};
use crate::limits::ENTRY_BYTES_MAX;
use crate::object::{Purse, Put, get_whole};
use std::sync::Arc;

/// Times that the same bytes are put at the same slot while the answer is unclear.
const UNCLEAR_TRIES: usize = 5;

/// When a commit returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Once it survives a crash.
    Now,
    /// Once it is in the log: for entries that nothing is acknowledged or deleted on.
    Later,
}

/// What an entry says in a state: asked again for each state that it is tried on.
pub type Plan<'a> = &'a mut dyn FnMut(&Catalog) -> Result<Vec<Op>>;

/// Why the ops were not valid in the state that they met, if that is what the error is about.
pub fn invalid(error: &Error) -> Option<&Invalid> {
    std::error::Error::source(error).and_then(|source| source.downcast_ref())
}

/// Who appends: a session that is open, or one that the entry opens at its own sequence.
enum Author<'a> {
    Open(&'a mut Session),
    New { kind: SessionKind, close: bool },
}

/// An entry that won its slot.
struct Won {
    session: Option<Session>,
    catalog: Arc<Catalog>,
}

impl Log {
    /// Opens a session with an entry that has the ops of `plan` besides. Not durable when this returns: nothing is
    /// acknowledged on the strength of it.
    pub fn open_session(&self, kind: SessionKind, purse: Purse, plan: Plan<'_>) -> Result<Session> {
        let won = self.append(
            Author::New { kind, close: false },
            purse,
            Durability::Later,
            plan,
        )?;
        won.session
            .ok_or_else(|| Error::new(ErrorKind::Busy, "opening a session"))
    }

    /// Adds an entry of an open session.
    pub fn commit(
        &self,
        session: &mut Session,
        purse: Purse,
        durability: Durability,
        plan: Plan<'_>,
    ) -> Result<Arc<Catalog>> {
        self.append(Author::Open(session), purse, durability, plan)
            .map(|won| won.catalog)
    }

    /// Adds one durable entry that opens a session, has the ops of `plan` and closes it.
    pub fn commit_alone(
        &self,
        kind: SessionKind,
        purse: Purse,
        plan: &mut dyn FnMut(&Catalog, SessionId) -> Result<Vec<Op>>,
    ) -> Result<Arc<Catalog>> {
        let own = SessionId {
            opened_at: 0,
            nonce: 0,
        };
        let mut plan = |catalog: &Catalog| plan(catalog, own);
        let author = Author::New { kind, close: true };
        self.append(author, purse, Durability::Now, &mut plan)
            .map(|won| won.catalog)
    }

    fn append(
        &self,
        mut author: Author<'_>,
        purse: Purse,
        durability: Durability,
        plan: Plan<'_>,
    ) -> Result<Won> {
        if self.objects.is_read_only() {
            return Err(Error::new(ErrorKind::ReadOnly, "writing to the store")
                .at(self.objects.describe(""))
                .detail("the folder cannot be written"));
        }
        let mut state = self.state();
        loop {
            self.fold_on(&mut state)?;
            let catalog = state.catalog.clone();
            let seq = catalog.seq() + 1;
            let ops = plan(&catalog)?;
            let Some((entry, lease)) = self.entry(&mut author, seq, &catalog, ops)? else {
                continue;
            };
            let (bytes, checksum) = self.encode(seq, &catalog, &entry)?;
            let (next, valid) = catalog.apply(checksum, &entry, self.options.rules);
            if let Err(why) = valid {
                drop(lease);
                self.drop_lock(&author, entry.session);
                return Err(refused(&entry, why));
            }
            let slot = self.create(seq, &bytes, purse)?;
            let fate = self.fate(&mut state, seq, &entry, slot)?;
            if fate != Fate::Counted {
                drop(lease);
                self.drop_lock(&author, entry.session);
                // A session that nobody has used can be opened again; what else it did may have been done.
                let is_new = matches!(author, Author::New { close: false, .. });
                if fate == Fate::Unclear && !is_new {
                    return Err(unclear());
                }
                continue;
            }
            if state.catalog.seq() < seq {
                state.catalog = Arc::new(next);
            }
            let session = match author {
                Author::Open(session) => {
                    session.count(entry.counter);
                    None
                }
                Author::New { .. } => lease.map(|lease| Session::new(entry.session, lease)),
            };
            return self.won(&mut state, seq, durability, session);
        }
    }

    fn won(
        &self,
        state: &mut State,
        seq: Sequence,
        durability: Durability,
        session: Option<Session>,
    ) -> Result<Won> {
        if durability == Durability::Now {
            self.make_durable_in(state)?;
        }
        if seq.is_multiple_of(self.options.checkpoint_every) {
            self.write_checkpoint(state);
        }
        Ok(Won {
            session,
            catalog: state.catalog.clone(),
        })
    }

    /// The entry for this slot. `None`: the session's name was taken, try again.
    #[expect(
        clippy::type_complexity,
        reason = "an entry and the lock that goes with it"
    )]
    fn entry(
        &self,
        author: &mut Author<'_>,
        seq: Sequence,
        catalog: &Catalog,
        ops: Vec<Op>,
    ) -> Result<Option<(Entry, Option<Box<dyn crate::object::Lease>>)>> {
        match author {
            Author::Open(session) => {
                let (id, counter) = (session.id(), session.next_counter());
                Ok(Some((
                    Entry {
                        session: id,
                        counter,
                        base: catalog.seq(),
                        ops,
                    },
                    None,
                )))
            }
            Author::New { kind, close } => {
                let random = self.world.random();
                let nonce = u64::from_le_bytes(random[..8].try_into().expect("eight of sixteen"));
                let id = SessionId {
                    opened_at: seq,
                    nonce,
                };
                // ORDER: the lock is held before anybody can read that the session is open, else it looks dead.
                let lease = if *close { None } else { self.local.hold(id)? };
                if lease.is_none() && !*close {
                    return Ok(None);
                }
                let open = Op::Open {
                    kind: *kind,
                    label: self.world.label(),
                };
                let end = close.then_some(Op::Close);
                let ops = std::iter::once(open).chain(ops).chain(end).collect();
                Ok(Some((
                    Entry {
                        session: id,
                        counter: 1,
                        base: catalog.seq(),
                        ops,
                    },
                    lease,
                )))
            }
        }
    }

    fn drop_lock(&self, author: &Author<'_>, id: SessionId) {
        if matches!(author, Author::New { close: false, .. }) {
            // A lock file that stays is removed by whoever next looks for dead sessions.
            self.local.forget(id).unwrap_or_default();
        }
    }

    fn encode(&self, seq: Sequence, catalog: &Catalog, entry: &Entry) -> Result<(Vec<u8>, Hash)> {
        let (bytes, checksum) = envelope::seal(
            EnvelopeKind::Entry,
            seq,
            catalog.tip(),
            &codec::encode(entry),
        );
        if bytes.len() as u64 > ENTRY_BYTES_MAX {
            return Err(Error::new(ErrorKind::LimitExceeded, "writing a log entry")
                .detail(format!("it would have {} bytes", bytes.len())));
        }
        Ok((bytes, checksum))
    }

    /// Whose the slot is. While the answer is unclear the same bytes are put at the same key, until somebody owns it.
    fn create(&self, seq: Sequence, bytes: &[u8], purse: Purse) -> Result<Slot> {
        let key = entry_key(seq);
        let mut tries = 0;
        loop {
            let failed = match self.objects.put_new(&key, &[bytes], purse) {
                Ok(Put::Created) => {
                    let (ours, clear) = (true, tries == 0);
                    return Ok(Slot { ours, clear });
                }
                Ok(Put::Exists) => None,
                // Refused before anything was done: nothing is unclear.
                Err(e) if !matches!(e.kind(), ErrorKind::Io) => return Err(e),
                Err(e) => Some(e),
            };
            match get_whole(&*self.objects, &key, ENTRY_BYTES_MAX) {
                Ok(there) => {
                    let (ours, clear) = (there == bytes, tries == 0);
                    return Ok(Slot { ours, clear });
                }
                Err(e) if e.kind() == ErrorKind::NotFound && tries < UNCLEAR_TRIES => tries += 1,
                Err(e) => {
                    let why = "whether the entry was written is unclear; look with `still list`";
                    return Err(failed.unwrap_or(e).detail(why));
                }
            }
        }
    }
}

fn refused(entry: &Entry, why: Invalid) -> Error {
    let doing = match why {
        Invalid::SessionNotOpen(_) => "the session was ended by somebody else while working",
        _ => "the store changed meanwhile",
    };
    Error::new(
        ErrorKind::Busy,
        format!("committing to the log ({doing}, session {})", entry.session),
    )
    .detail(why.to_string())
    .source(why)
    .hint("nothing was changed; try again")
}
