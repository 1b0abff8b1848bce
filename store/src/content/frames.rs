//! Decoded frames, kept within a budget of bytes. Who comes for a frame that is being decoded waits for it, so that it is
//! decoded once.
//!
//! A frame may be there in part, its first clusters: what a single cold read decodes. Who comes for more of it gets it
//! decoded whole, since a second visit promises a third.

use crate::codec::DecodedFrame;
use crate::error::Result;
use crate::id::{Hash, PackName};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A pack and the offset of a frame in it. Names of packs are never used twice, so it means the same bytes forever.
pub type FrameKey = (PackName, u32);

/// Decodes the first clusters of a frame, so many of them or as many as it has.
pub type Load<'a> = &'a mut dyn FnMut(usize) -> Result<DecodedFrame>;

/// A frame in memory, which remembers what was proven of it: its bytes do not change any more.
#[derive(Debug)]
pub struct KeptFrame {
    frame: DecodedFrame,
    /// Hash of each item, once it was computed.
    hashes: Box<[OnceLock<Hash>]>,
}

impl KeptFrame {
    fn new(frame: DecodedFrame) -> Self {
        let hashes = (0..frame.items()).map(|_| OnceLock::new()).collect();
        Self { frame, hashes }
    }

    /// How many items there are.
    pub fn items(&self) -> usize {
        self.hashes.len()
    }

    /// Item `i` if there is one and its bytes have this hash.
    pub fn proven(&self, i: usize, hash: &Hash) -> Option<&[u8]> {
        let bytes = self.frame.item(i)?;
        let own = self.hashes.get(i)?.get_or_init(|| Hash::of(bytes));
        (own == hash).then_some(bytes)
    }

    fn bytes(&self) -> usize {
        self.frame.data().len() + size_of_val(&*self.hashes)
    }
}

/// See the module. All calls may come from several threads.
#[derive(Debug)]
pub struct FrameCache {
    budget: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<FrameKey, Entry>,
    /// By the time of the last visit: the first goes first.
    visits: BTreeMap<u64, FrameKey>,
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    slot: Arc<Mutex<Slot>>,
    visit: u64,
    bytes: usize,
}

/// Locked while the frame is being decoded.
#[derive(Debug, Default)]
struct Slot {
    frame: Option<Arc<KeptFrame>>,
    whole: bool,
}

impl Slot {
    fn holds(&self, item: usize) -> Option<Arc<KeptFrame>> {
        let frame = self.frame.as_ref()?;
        (self.whole || item < frame.items()).then(|| frame.clone())
    }
}

impl FrameCache {
    /// Empty. What is being read is not counted: a frame a thread.
    pub fn new(budget: usize) -> Self {
        Self {
            budget,
            state: Mutex::default(),
        }
    }

    /// Bytes of decoded frames that are kept now.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// The frame with at least `item`, unless it is shorter. `load` is called when it is not there, for `first` clusters the
    /// first time and for all of them later.
    pub fn get(
        &self,
        key: FrameKey,
        item: usize,
        first: usize,
        load: Load<'_>,
    ) -> Result<Arc<KeptFrame>> {
        let slot = self.lock().visit(key);
        let mut held = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(frame) = held.holds(item) {
            return Ok(frame);
        }
        let wanted = if held.frame.is_none() {
            first.max(item + 1)
        } else {
            usize::MAX
        };
        match load(wanted) {
            Ok(frame) => {
                let frame = Arc::new(KeptFrame::new(frame));
                held.whole = frame.items() < wanted;
                held.frame = Some(frame.clone());
                drop(held);
                self.lock().weigh(key, &slot, frame.bytes(), self.budget);
                Ok(frame)
            }
            Err(e) => {
                drop(held);
                self.forget(key);
                Err(e)
            }
        }
    }

    /// The frame with `item`, if it is there and nobody is at work on it.
    pub fn held(&self, key: FrameKey, item: usize) -> Option<Arc<KeptFrame>> {
        let mut state = self.lock();
        let slot = state.entries.get(&key)?.slot.clone();
        let frame = slot.try_lock().ok()?.holds(item)?;
        state.visit(key);
        Some(frame)
    }

    /// Drops a frame that turned out to be bad.
    pub fn forget(&self, key: FrameKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The slot of a frame, made if need be, and now the one that was visited last.
    fn visit(&mut self, key: FrameKey) -> Arc<Mutex<Slot>> {
        self.clock += 1;
        let visit = self.clock;
        let entry = self.entries.entry(key).or_insert_with(|| Entry {
            slot: Arc::default(),
            visit,
            bytes: 0,
        });
        self.visits.remove(&entry.visit);
        entry.visit = visit;
        self.visits.insert(visit, key);
        entry.slot.clone()
    }

    /// Counts what was decoded, and lets the oldest go until it fits.
    fn weigh(&mut self, key: FrameKey, slot: &Arc<Mutex<Slot>>, bytes: usize, budget: usize) {
        // It may have been let go meanwhile; then nobody else finds it, and it is not counted.
        let entry = self.entries.get_mut(&key);
        if let Some(entry) = entry.filter(|e| Arc::ptr_eq(&e.slot, slot)) {
            self.bytes = self.bytes - entry.bytes + bytes;
            entry.bytes = bytes;
        }
        while self.bytes > budget
            && let Some((_, oldest)) = self.visits.first_key_value()
        {
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: FrameKey) {
        if let Some(gone) = self.entries.remove(&key) {
            self.visits.remove(&gone.visit);
            self.bytes -= gone.bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{decode_clusters, encode_frame};
    use crate::error::{Error, ErrorKind};
    use crate::format::entry::PackKind;
    use crate::geometry::Compression;
    use crate::id::SessionId;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const CLUSTER: usize = 4096;
    /// What it costs to keep one.
    const KEPT: usize = CLUSTER + size_of::<OnceLock<Hash>>();

    fn key(offset: u32) -> FrameKey {
        let session = SessionId {
            opened_at: 1,
            nonce: 1,
        };
        (PackName { session, n: 0 }, offset)
    }

    /// Decodes a frame of `items` clusters.
    fn decode(items: usize, wanted: usize) -> Result<DecodedFrame> {
        let data = vec![7u8; items * CLUSTER];
        let all: Vec<&[u8]> = data.chunks(CLUSTER).collect();
        let frame = encode_frame(PackKind::Clusters, &all, Compression::None);
        decode_clusters(CLUSTER as u32, &frame.bytes, wanted, Vec::new())
    }

    #[test]
    fn a_frame_is_decoded_in_part_first_then_whole_then_never_again() {
        let cache = FrameCache::new(1 << 20);
        let mut asked = Vec::new();
        for item in [1, 0, 5, 3, 7, 9] {
            let mut load = |wanted| {
                asked.push(wanted);
                decode(8, wanted)
            };
            let frame = cache.get(key(0), item, 1, &mut load).unwrap();
            assert_eq!(item < frame.items(), item < 8);
        }
        assert_eq!(asked, [2, usize::MAX]);
    }

    #[test]
    fn an_item_is_given_to_those_who_know_its_hash_each_time() {
        let cache = FrameCache::new(1 << 20);
        let frame = cache.get(key(0), 0, 4, &mut |n| decode(4, n)).unwrap();
        let (right, wrong) = (Hash::of(&[7; CLUSTER]), Hash::of(&[8; CLUSTER]));
        for _ in 0..2 {
            assert_eq!(frame.proven(3, &wrong), None);
            assert_eq!(frame.proven(3, &right), Some(&[7; CLUSTER][..]));
            assert_eq!(frame.proven(4, &right), None);
        }
    }

    #[test]
    fn what_is_held_is_had_without_decoding_and_stays_longer_for_it() {
        let cache = FrameCache::new(2 * KEPT);
        for offset in [1, 2] {
            cache.get(key(offset), 0, 1, &mut |n| decode(1, n)).unwrap();
        }
        assert!(cache.held(key(1), 0).is_some());
        assert!(cache.held(key(1), 1).is_none() && cache.held(key(3), 0).is_none());
        cache.get(key(3), 0, 1, &mut |n| decode(1, n)).unwrap();
        assert!(cache.held(key(1), 0).is_some() && cache.held(key(2), 0).is_none());
    }

    #[test]
    fn readers_of_one_frame_decode_it_once() {
        let cache = FrameCache::new(1 << 20);
        let (decoded, all_there) = (AtomicUsize::new(0), Barrier::new(8));
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    all_there.wait();
                    let mut load = |wanted| {
                        decoded.fetch_add(1, Ordering::Relaxed);
                        decode(8, wanted)
                    };
                    cache.get(key(0), 3, 4, &mut load).unwrap();
                });
            }
        });
        assert_eq!(decoded.into_inner(), 1);
    }

    #[test]
    fn what_was_not_visited_for_longest_goes_first() {
        let cache = FrameCache::new(3 * KEPT);
        let mut loads = 0;
        let mut get = |offset| {
            let mut load = |wanted| {
                loads += 1;
                decode(1, wanted)
            };
            cache.get(key(offset), 0, 1, &mut load).unwrap();
            assert!(cache.bytes() <= 3 * KEPT);
            loads
        };
        for offset in [1, 2, 3] {
            get(offset);
        }
        assert_eq!(get(1), 3, "still there");
        assert_eq!(get(4), 4, "2 goes");
        assert_eq!((get(1), get(3)), (4, 4));
        assert_eq!(get(2), 5);
        assert_eq!(get(4), 6, "it was the oldest");
    }

    #[test]
    fn a_frame_over_the_budget_is_served_and_not_kept() {
        let cache = FrameCache::new(CLUSTER);
        let frame = cache.get(key(0), 1, 1, &mut |wanted| decode(8, wanted));
        assert_eq!(frame.unwrap().items(), 2);
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn a_failure_is_everybodys_own_and_leaves_nothing() {
        let cache = FrameCache::new(1 << 20);
        let mut fail = |_| Err(Error::corrupt("decoding", "a test"));
        let failed = cache.get(key(0), 0, 1, &mut fail).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Corrupt);
        assert!(cache.lock().entries.is_empty() && cache.lock().visits.is_empty());
        assert!(cache.get(key(0), 0, 1, &mut |n| decode(1, n)).is_ok());
    }
}
