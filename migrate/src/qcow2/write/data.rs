//! Clusters that are to be stored: read and compressed by all threads, or found in the file, placed and written in order.

use super::super::codec::Encoder;
use super::super::entry::ZERO;
use super::cells::{Id, Recipes, Stretch};
use super::leftover::Trail;
use super::sink::Sink;
use super::source::Source;
use super::space::Space;
use super::{Shape, Written, invalid};
use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, OnceLock, PoisonError};
use stillpoint_store::Result;

/// Bytes to be stored.
struct Job {
    id: Id,
    recipe: Vec<Stretch>,
    places: Vec<u32>,
}

/// Where on the disk they are, in some states.
struct Place {
    refs: u16,
    word: u64,
}

/// What became of it.
pub(super) enum Stored {
    Zeros,
    Plain(Vec<u8>),
    Compressed(Vec<u8>),
}

/// Clusters that were not stored yet.
///
/// Equal clusters are read and compressed once wherever they are. Compressed, they are stored once too. A plain cluster is
/// shared only by states that have it in the same place: where one state has two references to it, QEMU leaves a wrong flag
/// behind when a guest writes to one of the two, and `qemu-img check` calls that a corruption.
#[derive(Default)]
pub(super) struct Batch {
    jobs: Vec<Job>,
    places: Vec<Place>,
    by_id: HashMap<Id, usize>,
    by_place: HashMap<(Id, u64), u32>,
}

/// What became of a batch.
#[derive(Default)]
pub(super) struct Words {
    /// L2 entries, by the numbers that `Batch::add` gave.
    pub of_places: Vec<u64>,
    /// L2 entries that may be used again, anywhere.
    pub reusable: Vec<(Id, u64)>,
    /// Clusters that were read.
    pub read: u64,
}

impl Batch {
    /// Clusters that wait.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Adds `refs` references to a cluster at byte `at` of the disk; a number that stands for its L2 entry.
    pub fn add(&mut self, id: Id, at: u64, refs: u16, refs_max: u16, recipes: &Recipes) -> u32 {
        let waiting = self.by_place.get(&(id, at)).copied();
        if let Some(n) = waiting
            && let Some(place) = self.places.get_mut(n as usize)
            && let Some(sum) = place.refs.checked_add(refs).filter(|sum| *sum <= refs_max)
        {
            place.refs = sum;
            return n;
        }
        let n = self.places.len() as u32;
        self.places.push(Place { refs, word: 0 });
        self.by_place.insert((id, at), n);
        let job = *self.by_id.entry(id).or_insert_with(|| {
            let recipe = recipes.get(&id).cloned().unwrap_or_default();
            let places = Vec::new();
            self.jobs.push(Job { id, recipe, places });
            self.jobs.len() - 1
        });
        self.jobs[job].places.push(n);
        n
    }

    /// Stores all that waits.
    pub fn store(
        &mut self,
        shape: &Shape,
        source: &dyn Source,
        space: &mut Space,
        sink: &mut Sink<'_>,
        written: &mut Written,
    ) -> Result<Words> {
        let Self { jobs, places, .. } = &mut *self;
        let made = match sink.leftover() {
            Some(leftover) => {
                found_or_made(jobs, shape, source, leftover.trail(&shape.options, space))
            }
            None => jobs
                .par_iter()
                .map_init(|| Maker::new(shape, source), Maker::make)
                .collect(),
        };
        let mut words = Words {
            read: jobs.len() as u64,
            ..Words::default()
        };
        for (job, stored) in jobs.iter().zip(made) {
            let reusable = match stored? {
                Stored::Zeros => {
                    written.zero_clusters += 1;
                    let word = zero_word(shape);
                    job.places
                        .iter()
                        .for_each(|n| places[*n as usize].word = word);
                    Some(word)
                }
                Stored::Plain(bytes) => {
                    for n in &job.places {
                        let place = &mut places[*n as usize];
                        place.word = space.take(1, place.refs);
                        sink.put(place.word, &bytes)?;
                    }
                    None
                }
                Stored::Compressed(bytes) => {
                    written.compressed_clusters += 1;
                    let mut word = None;
                    for n in &job.places {
                        let place = &mut places[*n as usize];
                        place.word = match word {
                            Some(word) if space.share(word, place.refs) => word,
                            _ => put_compressed(&bytes, place.refs, space, sink)?,
                        };
                        word = Some(place.word);
                    }
                    word
                }
            };
            words.reusable.extend(reusable.map(|word| (job.id, word)));
        }
        written.read_clusters += words.read;
        words.of_places = places.iter().map(|place| place.word).collect();
        *self = Self::default();
        Ok(words)
    }
}

fn put_compressed(bytes: &[u8], refs: u16, space: &mut Space, sink: &mut Sink<'_>) -> Result<u64> {
    let len = bytes.len() as u64;
    let at = space.take_compressed(len, refs);
    sink.put(at, bytes)?;
    Ok(space.compressed_word(at, len))
}

/// The L2 entry of zeros. Version 2 has none but that of nothing, which reads the same without a backing file.
pub(super) fn zero_word(shape: &Shape) -> u64 {
    if shape.options.version >= 3 { ZERO } else { 0 }
}

/// Reads and compresses; one a thread.
struct Maker<'a> {
    source: &'a dyn Source,
    cluster: usize,
    encoder: Option<Encoder>,
}

impl<'a> Maker<'a> {
    fn new(shape: &Shape, source: &'a dyn Source) -> Self {
        let compression = shape.options.compression;
        Self {
            source,
            cluster: shape.cluster_bytes() as usize,
            encoder: compression.and_then(|(c, level)| Encoder::new(c, level)),
        }
    }

    fn make(&mut self, job: &Job) -> Result<Stored> {
        let mut bytes = vec![0; self.cluster];
        let mut at = 0;
        for stretch in &job.recipe {
            match stretch {
                Stretch::Zeros(len) => at += *len as usize,
                Stretch::Data { key, offset, len } => {
                    let end = at + *len as usize;
                    self.source.read(key, *offset, &mut bytes[at..end])?;
                    at = end;
                }
            }
        }
        if is_zero(&bytes) {
            return Ok(Stored::Zeros);
        }
        if let Some(encoder) = &mut self.encoder {
            // Shorter than a cluster by at least a byte, which the entry's count of sectors needs.
            let mut out = vec![0; self.cluster - 1];
            if let Some(len) = encoder.encode(&bytes, &mut out) {
                out.truncate(len);
                return Ok(Stored::Compressed(out));
            }
        }
        Ok(Stored::Plain(bytes))
    }
}

/// One thread follows the trail from the first job on, and the others make those from the last on, until they meet: this takes
/// no longer than to make all, however fast compression is.
fn found_or_made(
    jobs: &[Job],
    shape: &Shape,
    source: &dyn Source,
    mut trail: Trail<'_>,
) -> Vec<Result<Stored>> {
    let slots: Vec<OnceLock<Result<Stored>>> = jobs.iter().map(|_| OnceLock::new()).collect();
    let left = Mutex::new(0..jobs.len());
    let claim = |end: fn(&mut Range<usize>) -> Option<usize>| {
        end(&mut left.lock().unwrap_or_else(PoisonError::into_inner))
    };
    // Each number is claimed once, so that its slot is empty.
    let fill = |n: usize, stored| drop(slots[n].set(stored));
    let make_from_the_last = |maker: &mut Maker<'_>| {
        while let Some(n) = claim(Range::next_back) {
            fill(n, maker.make(&jobs[n]));
        }
    };
    let mut follow = || {
        let mut maker = Maker::new(shape, source);
        while let Some(n) = claim(Range::next) {
            let (recipe, places) = (&jobs[n].recipe, jobs[n].places.len());
            let found = trail.next(recipe, places, source).transpose();
            let lost = found.is_none();
            fill(n, found.unwrap_or_else(|| maker.make(&jobs[n])));
            if lost {
                break;
            }
        }
        make_from_the_last(&mut maker);
    };
    rayon::scope(|scope| {
        for _ in 1..rayon::current_num_threads() {
            scope.spawn(|_| make_from_the_last(&mut Maker::new(shape, source)));
        }
        follow();
    });
    let missing = || Err(invalid("a cluster was lost"));
    let slots = slots.into_iter();
    slots
        .map(|slot| slot.into_inner().unwrap_or_else(missing))
        .collect()
}

pub(super) fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    words.iter().all(|word| *word == [0; 64]) && rest.iter().all(|b| *b == 0)
}
