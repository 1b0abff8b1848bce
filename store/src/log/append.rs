//! Adding an entry: fold to the end, validate on exactly that state, create the next slot; when somebody else has it,
//! fold theirs and try the next.
//!
//! ORDER: an entry is put only when all before it are durable, whoever wrote them: a crash never leaves a gap, so that one
//! is always damage. An entry that is acknowledged is durable itself.

use super::fold::read_entry;
use super::{LOG, Log, Session, State, entry_key};
use crate::catalog::{Catalog, Invalid};
use crate::error::{Error, ErrorKind, Result};
use crate::format::codec;
use crate::format::entry::{Entry, Op, SessionKind};
use crate::format::envelope::{self, EnvelopeKind};
use crate::id::{Hash, PackName, Sequence, SessionId};
use crate::limits::ENTRY_BYTES_MAX;
use crate::object::{Purse, Put, get_whole};
use std::fmt;
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

/// An entry that is being put.
struct Tried<'a> {
    seq: Sequence,
    entry: &'a Entry,
    checksum: Hash,
    bytes: &'a [u8],
}

/// Who has a slot.
enum Slot {
    /// This entry; `clean`: by the first try, whose answer came.
    Ours { clean: bool },
    /// Another.
    Theirs,
}

/// What became of an entry.
enum Standing {
    /// It takes effect.
    Counted,
    /// It never will: the slot was another's, or dead.
    Dead,
    /// Nobody can tell.
    Unclear,
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
            self.make_durable_in(&mut state)?;
            let Some((entry, lease)) = self.entry(&mut author, seq, &catalog, ops)? else {
                continue;
            };
            let (bytes, checksum) = Self::encode(seq, &catalog, &entry)?;
            let (next, valid) = catalog.apply(checksum, &entry, self.options.rules);
            if let Err(why) = valid {
                drop(lease);
                self.drop_lock(&author, entry.session);
                return Err(refused(&entry, why));
            }
            // Whatever becomes of this try, no other bytes get its counter.
            if let Author::Open(session) = &mut author {
                session.count(entry.counter);
            }
            let put = Tried {
                seq,
                entry: &entry,
                checksum,
                bytes: &bytes,
            };
            let standing = match self.create(&put, purse)? {
                Slot::Theirs => Standing::Dead,
                Slot::Ours { clean } => self
                    .standing(&mut state, &put, clean)
                    .map_err(|e| unclear(seq, Some(e)))?,
            };
            match standing {
                Standing::Counted => {}
                Standing::Unclear => return Err(unclear(seq, None)),
                Standing::Dead => {
                    drop(lease);
                    self.drop_lock(&author, entry.session);
                    continue;
                }
            }
            if state.catalog.seq() < seq {
                state.catalog = Arc::new(next);
            }
            let session = lease.map(|lease| Session::new(entry.session, lease));
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
        // After a reload the state is a later one, and the checkpoint that was due is there.
        if seq.is_multiple_of(self.options.checkpoint_every) && state.catalog.seq() == seq {
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

    fn encode(seq: Sequence, catalog: &Catalog, entry: &Entry) -> Result<(Vec<u8>, Hash)> {
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
    fn create(&self, put: &Tried<'_>, purse: Purse) -> Result<Slot> {
        let key = entry_key(put.seq);
        let mut tries = 0;
        loop {
            let failed = match self.objects.put_new(&key, &[put.bytes], purse) {
                Ok(Put::Created) => return Ok(Slot::Ours { clean: tries == 0 }),
                Ok(Put::Exists) => None,
                // Refused before anything was done: nothing is unclear, unless an earlier try was.
                Err(e) if e.kind() != ErrorKind::Io && tries == 0 => return Err(e),
                Err(e) => Some(e),
            };
            match get_whole(&*self.objects, &key, ENTRY_BYTES_MAX) {
                Ok(there) if there == put.bytes => return Ok(Slot::Ours { clean: false }),
                Ok(_) => return Ok(Slot::Theirs),
                Err(e) if e.kind() == ErrorKind::NotFound && tries < UNCLEAR_TRIES => tries += 1,
                Err(e) => return Err(unclear(put.seq, Some(failed.unwrap_or(e)))),
            }
        }
    }

    /// What became of the entry that won its slot. Without a checkpoint above it counts. With one, the slot may have been
    /// a dead one, left free below a trimmed log; then the entry is removed, and the state is that of the checkpoint.
    fn standing(&self, state: &mut State, put: &Tried<'_>, clean: bool) -> Result<Standing> {
        let rules = self.options.rules;
        if !rules.look_for_checkpoint || !self.has_checkpoint_from(put.seq)? {
            return Ok(Standing::Counted);
        }
        self.reload(state)?;
        let last = state.catalog.session(&put.entry.session).map(|s| s.counter);
        let counted = match last {
            Some(last) if rules.counter_newer => last >= put.entry.counter,
            // Ended, by this entry or by another.
            _ => left_trace(put.entry, &state.catalog) || self.is_chained(put, &state.catalog)?,
        };
        if counted {
            return Ok(Standing::Counted);
        }
        // An entry that counted and cannot be traced was trimmed, and trimming goes upwards: one that is still there,
        // while the chain above it is not, never counted. One that was put twice may have counted the first time.
        if (last.is_none() || !rules.counter_newer) && !(clean && self.still_there(put)?) {
            return Ok(Standing::Unclear);
        }
        self.objects.delete(&entry_key(put.seq))?;
        self.objects.sync(LOG)?;
        Ok(Standing::Dead)
    }

    /// Whether the chain leads from the entry to the tip of `catalog`, which was loaded afresh.
    fn is_chained(&self, put: &Tried<'_>, catalog: &Catalog) -> Result<bool> {
        let mut checksum = put.checksum;
        for seq in put.seq + 1..=catalog.seq() {
            match read_entry(&*self.objects, seq) {
                Ok(Some(read)) if read.previous == checksum => checksum = read.checksum,
                Err(e) if e.kind() != ErrorKind::Corrupt => return Err(e),
                _ => return Ok(false),
            }
        }
        Ok(checksum == catalog.tip())
    }

    fn still_there(&self, put: &Tried<'_>) -> Result<bool> {
        match get_whole(&*self.objects, &entry_key(put.seq), ENTRY_BYTES_MAX) {
            Ok(there) => Ok(there == put.bytes),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Whether the catalog has something whose name only this entry can have brought.
fn left_trace(entry: &Entry, catalog: &Catalog) -> bool {
    let session = entry.session;
    entry.ops.iter().any(|op| match op {
        Op::PutSnapshot { record, .. } => catalog.snapshot(&record.uid).is_some(),
        Op::Publish { packs: new } | Op::Compact { new, .. } => new
            .iter()
            .any(|p| catalog.pack(&PackName { session, n: p.n }).is_some()),
        Op::GotoBegin { record } => catalog.gotos().any(|g| g.uid == record.uid),
        // Only who holds the volume moves it, and never back to where it was.
        Op::PutVolume {
            uid,
            expect,
            volume: Some(new),
            ..
        } => {
            let now = catalog.device(uid).and_then(|d| d.volume);
            *expect != Some(new.point()) && now.is_some_and(|v| v.point() == new.point())
        }
        _ => false,
    })
}

/// Whether the entry of a commit that failed may be in the log all the same.
pub fn is_unclear(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<Unclear>)
}

/// The source of an error after which nobody knows.
#[derive(Debug)]
struct Unclear(Option<Error>);

impl fmt::Display for Unclear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the answer of the store was lost")
    }
}

impl std::error::Error for Unclear {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.as_ref().map(|e| e as _)
    }
}

fn unclear(seq: Sequence, cause: Option<Error>) -> Error {
    let kind = cause.as_ref().map_or(ErrorKind::Busy, Error::kind);
    Error::new(kind, "committing to the log")
        .detail(format!("whether entry {seq} was written is unclear"))
        .source(Unclear(cause))
        .hint("look with `still list` whether it was, then try again")
}

fn refused(entry: &Entry, why: Invalid) -> Error {
    let (kind, doing, hint) = match why {
        Invalid::SessionNotOpen(_) => (
            ErrorKind::Busy,
            "the session was ended by somebody else while working",
            "nothing was changed; try again",
        ),
        // No other moment makes these valid.
        Invalid::Malformed(_) => (
            ErrorKind::InvalidInput,
            "the format cannot hold it",
            "nothing was changed",
        ),
        Invalid::HasSnapshots(_)
        | Invalid::DeviceInGoto(_)
        | Invalid::IsVolume(_)
        | Invalid::HasImage(_) => (
            ErrorKind::Refused,
            "the store changed meanwhile",
            "nothing was changed; `still device list` shows the device's state",
        ),
        _ => (
            ErrorKind::Busy,
            "the store changed meanwhile",
            "nothing was changed; try again",
        ),
    };
    Error::new(
        kind,
        format!("committing to the log ({doing}, session {})", entry.session),
    )
    .detail(why.to_string())
    .source(why)
    .hint(hint)
}
