//! Every item of every pack, found again by its hash: without log, index or tables, and of damaged frames too.
//!
//! LIMIT: memory is 16 bytes an item and some 40 a frame: 2 GiB for 1 TiB of different data in clusters of 8 KiB, 256 MiB
//! in clusters of 64 KiB. Beside that a few packs while they are scanned, and a budget of decoded frames.

use crate::codec::{DecodedFrame, decode_remains};
use crate::content::frames::FrameCache;
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::PackKind;
use crate::format::manifest::Node;
use crate::format::pack::{FRAME_HEADER_BYTES, FrameHeader, FrameRef, HEADER_BYTES, PackHeader};
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, PackName, SessionId};
use crate::limits::{CLUSTER_BYTES_MAX, CLUSTER_BYTES_MIN, PACK_BYTES_MAX};
use crate::log::salvage::read_record;
use crate::manifest::NodeSource;
use crate::object::{Objects, get_exact, get_whole};
use crate::pack::scan::{Found, Scanned, Scanner};
use crate::progress::Progress;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Packs that are read at a time: 64 MiB each at most.
const PACKS_AT_ONCE: usize = 4;
/// Decoded bytes of node frames that are kept: neighbours in a tree mostly lie in one frame.
const NODE_CACHE_BYTES: usize = 64 << 20;

/// Where a copy of an item may be. There is one for each item of each pack, so it is small: half of a half of the hash is
/// enough to look for it, and the whole hash decides when it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    key: u64,
    /// Its frame among all. Frames are numbered in the order in which they are stored.
    pub(super) frame: u32,
    /// Its position in the frame.
    pub(super) item: u16,
}

const _: () = assert!(size_of::<Place>() == 16);

/// A frame, good or damaged.
#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Its pack among those read.
    pack: u32,
    at: FrameRef,
    /// As the scan had it: of a damaged frame perhaps not the one that is stored.
    header: FrameHeader,
}

/// See the module.
pub(super) struct Heap<'a> {
    objects: &'a dyn Objects,
    cluster_bytes: u32,
    /// One without a readable header is there twice, as either kind.
    packs: Vec<(PackName, PackKind)>,
    frames: Vec<Frame>,
    /// Sorted.
    places: Vec<Place>,
    nodes: FrameCache,
}

/// What else the packs told.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Copies of snapshot records.
    pub(super) records: Vec<SnapshotRecord>,
    /// Damage met.
    pub(super) damage: Vec<String>,
    /// Packs read.
    pub(super) packs: u64,
}

/// What a scan of a pack as one of `kind` found.
struct PackFound {
    kind: PackKind,
    frames: Vec<(FrameRef, FrameHeader)>,
    /// With the number of the frame among those here.
    places: Vec<Place>,
    records: Vec<SnapshotRecord>,
    /// Extents that are no good frame.
    damaged: Vec<(u32, u32)>,
    good_bytes: u64,
}

impl<'a> Heap<'a> {
    /// Reads all packs. `cluster_bytes` is that of store.json, where that can be read.
    pub(super) fn read(
        objects: &'a dyn Objects,
        cluster_bytes: Option<u32>,
        progress: &Progress,
    ) -> Result<(Self, Told)> {
        let names = pack_names(objects)?;
        let cluster_bytes = match cluster_bytes {
            Some(bytes) => bytes,
            None => cluster_bytes_of(objects, &names, progress)?,
        };
        let mut heap = Self {
            objects,
            cluster_bytes,
            packs: Vec::new(),
            frames: Vec::new(),
            places: Vec::new(),
            nodes: FrameCache::new(NODE_CACHE_BYTES),
        };
        let mut told = Told::default();
        for names in names.chunks(PACKS_AT_ONCE) {
            let scan = |name: &PackName| {
                progress.check()?;
                Ok((*name, scan_pack(objects, *name, cluster_bytes)))
            };
            let scanned: Vec<_> = names.par_iter().map(scan).collect::<Result<_>>()?;
            for (name, found) in scanned {
                told.packs += 1;
                match found {
                    Ok(found) => heap.add(name, found, &mut told),
                    Err(e) => told.damage.push(e.to_string()),
                }
            }
        }
        heap.places.par_sort_unstable();
        Ok((heap, told))
    }

    /// Bytes of a cluster; 0 when nothing tells.
    pub(super) fn cluster_bytes(&self) -> u32 {
        self.cluster_bytes
    }

    fn add(&mut self, name: PackName, found: Vec<PackFound>, told: &mut Told) {
        // Read as the wrong kind everything looks damaged.
        let right = found.iter().max_by_key(|f| f.good_bytes);
        for (offset, bytes) in right.into_iter().flat_map(|f| &f.damaged) {
            let pack = self.objects.describe(&name.key());
            let damage = format!("reading {pack} at byte {offset}: {bytes} bytes are damaged");
            told.damage.push(damage);
        }
        for found in found {
            let (pack, first) = (self.packs.len() as u32, self.frames.len() as u32);
            self.packs.push((name, found.kind));
            let frame = |(at, header)| Frame { pack, at, header };
            self.frames.extend(found.frames.into_iter().map(frame));
            let numbered = |p: Place| Place {
                frame: first + p.frame,
                ..p
            };
            self.places.extend(found.places.into_iter().map(numbered));
            told.records.extend(found.records);
        }
    }

    /// The first copy of what has the hash; `place` with the numbers that follow gives the others.
    pub(super) fn first_copy(&self, hash: &Hash) -> usize {
        let key = key_of(hash);
        self.places.partition_point(|p| p.key < key)
    }

    /// Place number `copy`, if it is one of what has the hash.
    pub(super) fn place(&self, copy: usize, hash: &Hash) -> Option<Place> {
        let place = self.places.get(copy)?;
        (place.key == key_of(hash)).then_some(*place)
    }

    /// What can be read and decoded of a frame. Nothing of it is proved.
    pub(super) fn frame(&self, number: u32) -> Option<DecodedFrame> {
        let frame = self.frames.get(number as usize)?;
        let (name, kind) = self.packs[frame.pack as usize];
        // LIMIT: the scan found so many bytes there, in a pack.
        let mut bytes = vec![0; frame.at.bytes as usize];
        let offset = u64::from(frame.at.offset);
        get_exact(self.objects, &name.key(), offset, &mut bytes).ok()?;
        decode_remains(kind, self.cluster_bytes, &frame.header, &bytes)
    }

    /// An item of a node pack that has the hash, wherever a good copy is.
    fn node_bytes(&self, hash: &Hash) -> Option<Vec<u8>> {
        let copies = (self.first_copy(hash)..).map_while(|copy| self.place(copy, hash));
        copies.into_iter().find_map(|place| {
            let frame = self.frames.get(place.frame as usize)?;
            let (name, kind) = self.packs[frame.pack as usize];
            if kind != PackKind::Nodes {
                return None;
            }
            let mut load = |_| {
                let gone = || Error::corrupt("reading a frame of manifest nodes", "it is gone");
                self.frame(place.frame).ok_or_else(gone)
            };
            let item = usize::from(place.item);
            let frame = self
                .nodes
                .get((name, frame.at.offset), item, usize::MAX, &mut load)
                .ok()?;
            frame.proven(item, hash).map(<[u8]>::to_vec)
        })
    }
}

impl NodeSource for Heap<'_> {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        let bytes = self.node_bytes(hash).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "reading a manifest node")
                .detail(format!("{hash} is lost"))
        })?;
        Node::decode(&bytes).map(Arc::new)
    }
}

fn key_of(hash: &Hash) -> u64 {
    let mut key = [0; 8];
    key.copy_from_slice(&hash.0[..8]);
    u64::from_be_bytes(key)
}

fn pack_names(objects: &dyn Objects) -> Result<Vec<PackName>> {
    let mut names = Vec::new();
    for folder in objects.list_folders("packs")? {
        let Ok(session) = folder.parse::<SessionId>() else {
            continue;
        };
        let files = objects.list_after(&format!("packs/{folder}"), "")?;
        let numbers = files.iter().filter_map(|file| file.parse().ok());
        names.extend(numbers.map(|n| PackName { session, n }));
    }
    Ok(names)
}

/// The cluster size without store.json: what most headers of packs say or, where none can be read, most first frames.
fn cluster_bytes_of(objects: &dyn Objects, names: &[PackName], progress: &Progress) -> Result<u32> {
    let (mut headers, mut frames) = (BTreeMap::new(), BTreeMap::new());
    for name in names {
        progress.check()?;
        let mut bytes = [0; HEADER_BYTES + FRAME_HEADER_BYTES];
        if objects.get(&name.key(), 0, &mut bytes).is_err() {
            continue;
        }
        let (header, frame) = bytes.split_at(HEADER_BYTES);
        if let Ok(header) = PackHeader::decode(header) {
            *headers.entry(header.cluster_bytes).or_insert(0u64) += 1;
        } else if let Some(bytes) = cluster_bytes_of_frame(frame) {
            *frames.entry(bytes).or_insert(0u64) += 1;
        }
    }
    let said_by_most = |said: BTreeMap<u32, u64>| said.into_iter().max_by_key(|(_, n)| *n);
    let said = said_by_most(headers).or_else(|| said_by_most(frames));
    Ok(said.map_or(0, |(bytes, _)| bytes))
}

/// Nodes are no power of two long.
fn cluster_bytes_of_frame(header: &[u8]) -> Option<u32> {
    let header = FrameHeader::decode(header).ok()?;
    let (items, decoded) = (u32::from(header.items), header.decoded);
    let bytes = decoded / items;
    let possible = bytes.is_power_of_two()
        && (CLUSTER_BYTES_MIN..=CLUSTER_BYTES_MAX).contains(&bytes)
        && bytes * items == decoded;
    possible.then_some(bytes)
}

/// Frame by frame. Without its header a pack may be of either kind, and a guest may have written what looks like the frames
/// of the other: it is read as both.
fn scan_pack(objects: &dyn Objects, name: PackName, cluster_bytes: u32) -> Result<Vec<PackFound>> {
    let bytes = get_whole(objects, &name.key(), u64::from(PACK_BYTES_MAX))?;
    let header = bytes
        .get(..HEADER_BYTES)
        .and_then(|header| PackHeader::decode(header).ok());
    let kinds = match &header {
        Some(header) => &[header.kind][..],
        None => &[PackKind::Clusters, PackKind::Nodes],
    };
    let scan = |kind| PackFound::of(&bytes, name, kind, cluster_bytes);
    let mut found: Vec<PackFound> = kinds.iter().copied().map(scan).collect();
    if header.is_none() {
        for found in &mut found {
            // What a guest wrote may look like a record too, and nothing would prove it: nobody asks for it by its hash.
            found.records.clear();
            found
                .damaged
                .insert(0, (0, bytes.len().min(HEADER_BYTES) as u32));
        }
    }
    Ok(found)
}

impl PackFound {
    fn of(bytes: &[u8], name: PackName, kind: PackKind, cluster_bytes: u32) -> Self {
        let mut pack = Self {
            kind,
            frames: Vec::new(),
            places: Vec::new(),
            records: Vec::new(),
            damaged: Vec::new(),
            good_bytes: 0,
        };
        for scanned in Scanner::new(bytes, name, kind, cluster_bytes) {
            match scanned {
                Scanned::Damaged { offset, bytes } => pack.damaged.push((offset, bytes)),
                Scanned::Remains(found) => pack.add(&found),
                Scanned::Frame(found) => {
                    pack.good_bytes += u64::from(found.at.bytes);
                    pack.add(&found);
                }
            }
        }
        pack
    }

    fn add(&mut self, found: &Found) {
        let frame = self.frames.len() as u32;
        self.frames.push((found.at, found.header));
        for item in 0..found.frame.items() {
            let Some(data) = found.frame.item(item) else {
                continue;
            };
            let key = key_of(&Hash::of(data));
            let item = item as u16;
            self.places.push(Place { key, frame, item });
            if self.kind == PackKind::Nodes {
                self.records.extend(read_record(data));
            }
        }
    }
}
