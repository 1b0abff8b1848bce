//! What a receiver has, for a sender that cannot ask it: its snapshots and their roots, exactly, and its clusters in a filter.
//! Or exactly which clusters it still needs.

use super::filter::{Encoder, Filter, RICE_BITS, Range};
use crate::wire::message::{Have, Message};
use crate::wire::plan::Known;
use crate::wire::stream::Raw;
use crate::wire::{Incoming, Outgoing, Preamble, Purpose, Side};
use std::io::{Read, Write};
use stillpoint_store::geometry::Geometry;
use stillpoint_store::id::Hash;
use stillpoint_store::progress::Progress;
use stillpoint_store::store::Store;
use stillpoint_store::{Error, Result};

/// A filter begins: how many hashes it was made for, u64, and how many bits a remainder has, u32.
const FILTER: u8 = 32;
/// Bytes of the filter.
const BITS: u8 = 33;
/// How many values the filter has, u64.
const FILTER_END: u8 = 34;
/// Hashes of clusters that are needed, sorted.
const NEED: u8 = 35;
/// Nothing follows.
const LAST: u8 = 36;

const READING: &str = "reading a summary";
/// Hashes sorted at a time: 64 MiB of values. Each pass reads the tables of all packs.
const PASS: u64 = 8 << 20;
/// Bytes of the filter in one message.
const PART_BYTES: usize = 1 << 20;
/// Hashes in one message.
const PART_HASHES: usize = 1 << 15;
/// LIMIT: bytes of a filter: of 2^30 clusters, 8 TiB of them at 8 KiB.
const FILTER_BYTES_MAX: usize = 4 << 30;
/// LIMIT: hashes that are needed.
const NEED_MAX: usize = crate::wire::intake::MISSING_MAX;

/// LIMIT: roots of contents, beyond which no more are taken.
const ROOTS_MAX: usize = 4 << 20;

/// What a receiver has; see the module.
#[derive(Debug, Clone)]
pub struct Summary {
    preamble: Preamble,
    known: Known,
    clusters: Clusters,
}

#[derive(Debug, Clone)]
enum Clusters {
    Has(Filter),
    Needs(Vec<Hash>),
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summarized {
    /// Clusters that the store has.
    pub clusters: u64,
    /// Bytes of the summary.
    pub bytes: u64,
}

impl Summary {
    /// Reads one; every length is checked.
    pub fn read(from: impl Read) -> Result<Self> {
        let (preamble, mut incoming) = Incoming::begin(from)?;
        preamble.expect(Purpose::Summary)?;
        let mut known = Known::default();
        let mut need = Vec::new();
        let mut filter = None;
        loop {
            let raw = incoming.read()?;
            match raw.kind {
                FILTER if filter.is_none() => filter = Some(read_filter(&raw, &mut incoming)?),
                NEED => {
                    let (hashes, rest) = raw.payload.as_chunks::<32>();
                    if !rest.is_empty() || need.len() + hashes.len() > NEED_MAX {
                        return Err(bad("more clusters are needed than a summary can say"));
                    }
                    need.extend(hashes.iter().map(|h| Hash(*h)));
                }
                LAST => break,
                _ => match Message::decode(raw)? {
                    // Snapshots that are there are sent all the same: who has one passes it over.
                    Message::Have(have) if known.roots.len() <= ROOTS_MAX => {
                        known.roots.extend(have.roots);
                    }
                    Message::Have(_) => return Err(bad("it names more contents than it may")),
                    other => return Err(other.out_of_turn()),
                },
            }
        }
        incoming.end()?;
        if !need.is_sorted() || (filter.is_some() && !need.is_empty()) {
            return Err(bad("its list of clusters is not one"));
        }
        let clusters = filter.map_or(Clusters::Needs(need), Clusters::Has);
        Ok(Self {
            preamble,
            known,
            clusters,
        })
    }

    /// The roots of its contents.
    pub fn known(&self) -> &Known {
        &self.known
    }

    /// Whether the cluster is to be sent.
    pub fn lacks(&self, hash: &Hash) -> bool {
        match &self.clusters {
            Clusters::Has(filter) => !filter.holds(hash),
            Clusters::Needs(need) => need.binary_search(hash).is_ok(),
        }
    }

    /// Refuses a store of another cluster size.
    pub fn check_clusters(&self, ours: Geometry) -> Result<()> {
        self.preamble.check_clusters(ours, Side::Sender)
    }
}

fn read_filter<R: Read>(head: &Raw, incoming: &mut Incoming<R>) -> Result<Filter> {
    let head: [u8; 12] = head.payload[..]
        .try_into()
        .map_err(|_| bad("its head is another"))?;
    let (count, bits) = head.split_at(8);
    if bits != RICE_BITS.to_le_bytes() {
        return Err(bad("its filter is of another kind"));
    }
    let count = u64_of(count)?;
    let mut bytes = Vec::new();
    loop {
        let raw = incoming.read()?;
        match raw.kind {
            BITS if bytes.len() + raw.payload.len() <= FILTER_BYTES_MAX => {
                bytes.extend_from_slice(&raw.payload);
            }
            FILTER_END => {
                return Filter::new(Range::new(count)?, bytes, u64_of(&raw.payload)?);
            }
            _ => return Err(bad("its list of clusters is not one")),
        }
    }
}

fn u64_of(bytes: &[u8]) -> Result<u64> {
    let bytes: [u8; 8] = bytes
        .try_into()
        .map_err(|_| bad("a number has another size"))?;
    Ok(u64::from_le_bytes(bytes))
}

fn bad(why: &str) -> Error {
    Error::corrupt(READING, why)
}

/// Writes the summary of what the store has.
pub fn write_summary(store: &Store, out: impl Write, progress: &Progress) -> Result<Summarized> {
    let mut out = begin(store, out)?;
    for have in Known::of(&*store.refresh()?) {
        put_have(&mut out, have)?;
    }
    let mut clusters = 0;
    store.each_stored(&mut |_| clusters += 1)?;
    let range = Range::new(clusters)?;
    out.put(
        FILTER,
        0,
        &[&clusters.to_le_bytes()[..], &RICE_BITS.to_le_bytes()].concat(),
    )?;
    let mut encoder = Encoder::default();
    let passes = clusters.div_ceil(PASS).max(1);
    for pass in 0..passes {
        progress.check()?;
        let mut values = Vec::new();
        let mine = |hash: &Hash| {
            let top = u64::from(u32::from_be_bytes([
                hash.0[0], hash.0[1], hash.0[2], hash.0[3],
            ]));
            (top * passes) >> 32 == pass
        };
        store.each_stored(&mut |hash| {
            if mine(hash) {
                values.push(range.value(hash));
            }
        })?;
        values.sort_unstable();
        for value in values {
            encoder.push(value);
            if encoder.len() >= PART_BYTES {
                out.put(BITS, 0, &encoder.take())?;
            }
        }
    }
    let (rest, count) = encoder.finish();
    out.put(BITS, 0, &rest)?;
    out.put(FILTER_END, 0, &count.to_le_bytes())?;
    end(out, clusters)
}

/// Writes which clusters the store needs, sorted, so that what it has received can be completed.
pub fn write_need(store: &Store, needed: &[Hash], out: impl Write) -> Result<Summarized> {
    let mut out = begin(store, out)?;
    // ORDER: the snapshots that are there are none of what is needed, but their contents are what it builds on.
    for have in Known::of(&*store.refresh()?) {
        put_have(&mut out, have)?;
    }
    for part in needed.chunks(PART_HASHES) {
        let bytes: Vec<u8> = part.iter().flat_map(|h| h.0).collect();
        out.put(NEED, 0, &bytes)?;
    }
    end(out, needed.len() as u64)
}

fn begin<W: Write>(store: &Store, out: W) -> Result<Outgoing<W>> {
    let preamble = Preamble {
        purpose: Purpose::Summary,
        store: store.id(),
        id: store.new_uid(),
        geometry: store.geometry(),
    };
    Outgoing::begin(out, &preamble)
}

fn put_have<W: Write>(out: &mut Outgoing<W>, have: Have) -> Result<()> {
    let (kind, payload) = Message::Have(have).encode();
    out.put(kind, 0, &payload)
}

fn end<W: Write>(mut out: Outgoing<W>, clusters: u64) -> Result<Summarized> {
    out.put(LAST, 0, &[])?;
    out.flush()?;
    let bytes = out.bytes();
    Ok(Summarized { clusters, bytes })
}
