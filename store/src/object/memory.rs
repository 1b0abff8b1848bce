//! Objects in memory, for tests: always durable, shared by as many "processes" as a test wants, with gates before and
//! after each call.

use super::{Lease, Local, Objects, Purse, Put};
use crate::error::{Error, ErrorKind, Result};
use crate::id::SessionId;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Called with the name of the call and its key, folder, session or note. May wait, so that actors are interleaved as a
/// test likes, and may fail.
pub type Gate = Arc<dyn Fn(&str, &str) -> Result<()> + Send + Sync>;

#[derive(Default)]
struct Contents {
    objects: BTreeMap<String, Arc<[u8]>>,
    /// Session to the lease that holds it.
    leases: BTreeMap<SessionId, Holder>,
    notes: BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Holder {
    handle: u64,
    lease: u64,
}

type Shared = Arc<Mutex<Contents>>;

fn lock(contents: &Shared) -> MutexGuard<'_, Contents> {
    contents.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Numbers handles and leases of this process.
static NUMBER: AtomicU64 = AtomicU64::new(0);

fn number() -> u64 {
    NUMBER.fetch_add(1, Ordering::Relaxed)
}

/// See the module. Clones are the same handle.
#[derive(Clone)]
pub struct MemoryObjects {
    contents: Shared,
    handle: u64,
    before: Option<Gate>,
    after: Option<Gate>,
}

impl Default for MemoryObjects {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryObjects {
    /// An empty store.
    pub fn new() -> Self {
        Self {
            contents: Shared::default(),
            handle: number(),
            before: None,
            after: None,
        }
    }

    /// This handle with a gate before each call: where it fails, the call does not happen.
    #[must_use]
    pub fn with_gate(mut self, gate: Gate) -> Self {
        self.before = Some(gate);
        self
    }

    /// This handle with a gate after each call that succeeded: where it fails, the call has happened and its answer is
    /// lost.
    #[must_use]
    pub fn with_reply_gate(mut self, gate: Gate) -> Self {
        self.after = Some(gate);
        self
    }

    /// Another process on the same bytes: its own leases, no gates.
    #[must_use]
    pub fn fork_handle(&self) -> Self {
        let contents = self.contents.clone();
        Self {
            contents,
            handle: number(),
            before: None,
            after: None,
        }
    }

    /// Releases the leases of this handle and its clones, as the death of a process does.
    pub fn kill(&self) {
        lock(&self.contents)
            .leases
            .retain(|_, holder| holder.handle != self.handle);
    }

    /// Keys and bytes of all objects.
    pub fn dump(&self) -> BTreeMap<String, Vec<u8>> {
        let contents = lock(&self.contents);
        contents
            .objects
            .iter()
            .map(|(key, bytes)| (key.clone(), bytes.to_vec()))
            .collect()
    }

    /// Changes, adds or removes bytes behind everybody's back.
    pub fn set_at_rest(&self, key: &str, bytes: Option<Vec<u8>>) {
        let mut contents = lock(&self.contents);
        match bytes {
            Some(bytes) => contents.objects.insert(key.to_owned(), bytes.into()),
            None => contents.objects.remove(key),
        };
    }

    fn call<T>(
        &self,
        call: &str,
        key: &str,
        act: impl FnOnce(&mut Contents) -> Result<T>,
    ) -> Result<T> {
        if let Some(gate) = &self.before {
            gate(call, key)?;
        }
        // Gates run without the lock: they may wait for other actors.
        let done = act(&mut lock(&self.contents))?;
        if let Some(gate) = &self.after {
            gate(call, key)?;
        }
        Ok(done)
    }
}

fn find<'a>(contents: &'a Contents, doing: &'static str, key: &str) -> Result<&'a Arc<[u8]>> {
    let none = || Error::new(ErrorKind::NotFound, doing).at(format!("memory:{key}"));
    contents.objects.get(key).ok_or_else(none)
}

/// What the keys under a folder are called there.
fn names<'a>(contents: &'a Contents, folder: &str) -> impl Iterator<Item = &'a str> {
    let prefix = if folder.is_empty() {
        String::new()
    } else {
        format!("{folder}/")
    };
    let from = contents.objects.range(prefix.clone()..);
    from.map_while(move |(key, _)| key.strip_prefix(prefix.as_str()))
}

impl Objects for MemoryObjects {
    fn get(&self, key: &str, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.call("get", key, |contents| {
            let bytes = find(contents, "reading", key)?;
            let rest = &bytes[bytes
                .len()
                .min(usize::try_from(offset).unwrap_or(usize::MAX))..];
            let n = rest.len().min(buf.len());
            buf[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        })
    }

    fn size(&self, key: &str) -> Result<u64> {
        self.call("size", key, |contents| {
            Ok(find(contents, "reading", key)?.len() as u64)
        })
    }

    fn put_new(&self, key: &str, parts: &[&[u8]], _purse: Purse) -> Result<Put> {
        self.call("put_new", key, |contents| {
            if contents.objects.contains_key(key) {
                return Ok(Put::Exists);
            }
            contents
                .objects
                .insert(key.to_owned(), parts.concat().into());
            Ok(Put::Created)
        })
    }

    fn list_after(&self, folder: &str, after: &str) -> Result<Vec<String>> {
        self.call("list_after", folder, |contents| {
            let here = names(contents, folder).filter(|name| !name.contains('/') && *name > after);
            Ok(here.map(str::to_owned).collect())
        })
    }

    fn list_folders(&self, folder: &str) -> Result<Vec<String>> {
        self.call("list_folders", folder, |contents| {
            let inner = names(contents, folder).filter_map(|name| name.split_once('/'));
            let found: BTreeSet<String> = inner.map(|(first, _)| first.to_owned()).collect();
            Ok(found.into_iter().collect())
        })
    }

    fn delete(&self, key: &str) -> Result<()> {
        self.call("delete", key, |contents| {
            contents.objects.remove(key);
            Ok(())
        })
    }

    fn sync(&self, folder: &str) -> Result<()> {
        self.call("sync", folder, |_| Ok(()))
    }

    fn refill(&self) -> Result<()> {
        self.call("refill", "", |_| Ok(()))
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn describe(&self, key: &str) -> String {
        format!("memory:{key}")
    }
}

struct MemoryLease {
    contents: Shared,
    session: SessionId,
    holder: Holder,
}

impl Lease for MemoryLease {}

impl Drop for MemoryLease {
    fn drop(&mut self) {
        // After `kill` the session may be somebody else's.
        let mut contents = lock(&self.contents);
        if contents.leases.get(&self.session) == Some(&self.holder) {
            contents.leases.remove(&self.session);
        }
    }
}

impl Local for MemoryObjects {
    fn hold(&self, session: SessionId) -> Result<Option<Box<dyn Lease>>> {
        let holder = Holder {
            handle: self.handle,
            lease: number(),
        };
        let got = self.call("hold", &session.to_string(), |contents| {
            Ok(*contents.leases.entry(session).or_insert(holder) == holder)
        })?;
        let lease = MemoryLease {
            contents: self.contents.clone(),
            session,
            holder,
        };
        Ok(got.then(|| Box::new(lease) as Box<dyn Lease>))
    }

    fn forget(&self, session: SessionId) -> Result<()> {
        self.call("forget", &session.to_string(), |contents| {
            contents.leases.remove(&session);
            Ok(())
        })
    }

    fn note(&self, name: &str) -> Option<Vec<u8>> {
        self.call("note", name, |contents| {
            Ok(contents.notes.get(name).cloned())
        })
        .ok()
        .flatten()
    }

    fn put_note(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.call("put_note", name, |contents| {
            contents.notes.insert(name.to_owned(), bytes.to_vec());
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::conformance;

    #[test]
    fn memory_conforms() -> Result<()> {
        conformance::check_objects(&MemoryObjects::new())?;
        let store = MemoryObjects::new();
        conformance::check_local(&store, &store.fork_handle())
    }

    #[test]
    fn a_killed_handle_holds_nothing_and_its_lease_cannot_free_anothers() -> Result<()> {
        let dead = MemoryObjects::new();
        let heir = dead.fork_handle();
        let session = SessionId {
            opened_at: 1,
            nonce: 2,
        };
        let lost = dead.hold(session)?.expect("free");
        assert!(heir.hold(session)?.is_none());
        dead.kill();
        let held = heir.hold(session)?.expect("its holder died");
        drop(lost);
        assert!(dead.fork_handle().hold(session)?.is_none());
        drop(held);
        assert!(dead.fork_handle().hold(session)?.is_some());
        Ok(())
    }

    #[test]
    fn a_gate_stops_a_call_and_a_reply_gate_loses_its_answer() -> Result<()> {
        let store = MemoryObjects::new();
        let refuse: Gate = Arc::new(|call, key| {
            let hit = call == "put_new" && key == "log/1";
            if hit {
                Err(Error::new(ErrorKind::Io, "testing"))
            } else {
                Ok(())
            }
        });
        let stopped = store.fork_handle().with_gate(refuse.clone());
        assert!(stopped.put_new("log/1", &[b"x"], Purse::Free).is_err());
        assert_eq!(store.list_after("log", "")?, Vec::<String>::new());
        let unclear = store.fork_handle().with_reply_gate(refuse);
        assert!(unclear.put_new("log/1", &[b"x"], Purse::Free).is_err());
        assert_eq!(store.list_after("log", "")?, ["1"]);
        Ok(())
    }
}
