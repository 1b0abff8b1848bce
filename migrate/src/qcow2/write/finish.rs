//! What is known only at the end: L1 tables, the snapshot table, refcounts, the header.

use super::super::Snapshot;
use super::super::entry::COPIED;
use super::super::header::{COMPRESSION_TYPE, Extent, MAGIC, REFCOUNT_TABLE_BYTES_MAX, V2_BYTES};
use super::super::snapshot::TABLE_BYTES_MAX;
use super::plan::Planner;
use super::{Compression, DOING, Draft, Shape, Written};
use stillpoint_store::{Error, ErrorKind, Result};

/// Bytes of our header of version 3.
const V3_BYTES: usize = 112;

/// Where the header says that things are.
struct Places {
    l1: u64,
    snapshots: Extent,
    refcount_table: u64,
    refcount_clusters: u64,
}

impl Planner<'_> {
    /// Writes the rest. Everything is on the medium before the header is, and the header before this returns.
    pub fn finish(mut self, draft: &Draft) -> Result<Written> {
        // What follows is little, and leaves holes.
        self.sink.cut()?;
        let l1: Vec<Extent> = (0..self.l1.len())
            .map(|state| self.write_l1(state))
            .collect::<Result<_>>()?;
        let snapshots = self.write_snapshots(draft, &l1[1..])?;
        let (refcount_table, refcount_clusters) = self.write_refcounts()?;
        self.sink.flush()?;
        let file = self.sink.file();
        file.set_len(self.space.bytes())?;
        file.sync()?;
        let places = Places {
            l1: l1[0].offset,
            snapshots,
            refcount_table,
            refcount_clusters,
        };
        file.write_at(0, &header(self.shape, &places))?;
        file.sync()?;
        self.written.file_bytes = self.space.bytes();
        self.written.kept_bytes = self.sink.kept();
        Ok(self.written)
    }

    fn write_l1(&mut self, state: usize) -> Result<Extent> {
        let count = self.shape.states[state].l1_entries;
        let clusters = (count * 8).div_ceil(self.shape.cluster_bytes());
        let offset = self.space.take(clusters, 1);
        let table = std::mem::take(&mut self.l1[state]);
        let flagged = |word: u64| match self.space.refs_at(word) {
            1 if state == 0 && word != 0 => word | COPIED,
            _ => word,
        };
        // What comes after the last entry in use stays a hole.
        let bytes: Vec<u8> = table
            .iter()
            .flat_map(|word| flagged(*word).to_be_bytes())
            .collect();
        if !bytes.is_empty() {
            self.sink.put(offset, &bytes)?;
        }
        Ok(Extent { offset, count })
    }

    fn write_snapshots(&mut self, draft: &Draft, l1: &[Extent]) -> Result<Extent> {
        if draft.snapshots.is_empty() {
            return Ok(Extent::default());
        }
        let mut table = Vec::new();
        for ((snapshot, l1), shape) in draft.snapshots.iter().zip(l1).zip(&self.shape.states[1..]) {
            let placed = Snapshot {
                l1: *l1,
                disk_size: Some(shape.size),
                ..snapshot.clone()
            };
            placed.encode(shape.size, &mut table);
            if table.len() as u64 > TABLE_BYTES_MAX {
                let why = "the snapshot table becomes longer than 64 MiB";
                return Err(Error::new(ErrorKind::LimitExceeded, DOING).detail(why));
            }
        }
        let clusters = (table.len() as u64).div_ceil(self.shape.cluster_bytes());
        let offset = self.space.take(clusters, 1);
        self.sink.put(offset, &table)?;
        Ok(Extent {
            offset,
            count: draft.snapshots.len() as u64,
        })
    }

    /// Refcount blocks and their table, which count themselves.
    fn write_refcounts(&mut self) -> Result<(u64, u64)> {
        let cluster = self.shape.cluster_bytes();
        let bits = 1_u64 << self.shape.options.refcount_order;
        let per_block = cluster * 8 / bits;
        let used = self.space.clusters();
        let (mut blocks, mut tables) = (0, 0);
        // Grows until it covers itself; each round adds far less than the one before.
        loop {
            let need = (used + blocks + tables).div_ceil(per_block);
            let need_tables = (need * 8).div_ceil(cluster);
            if (need, need_tables) == (blocks, tables) {
                break;
            }
            (blocks, tables) = (need, need_tables);
        }
        if tables * cluster > REFCOUNT_TABLE_BYTES_MAX {
            let why = format!("{used} clusters need a refcount table that is too long");
            let error = Error::new(ErrorKind::LimitExceeded, DOING).detail(why);
            return Err(error.hint("use larger clusters"));
        }
        let first = self.space.take(blocks, 1);
        let table = self.space.take(tables, 1);
        let refs = self.space.refs();
        for (n, part) in refs.chunks(per_block as usize).enumerate() {
            let block = encode_refs(part, bits as usize, cluster as usize);
            self.sink.put(first + n as u64 * cluster, &block)?;
        }
        let entries = (0..blocks).map(|n| first + n * cluster);
        let mut bytes: Vec<u8> = entries.flat_map(u64::to_be_bytes).collect();
        bytes.resize((tables * cluster) as usize, 0);
        self.sink.put(table, &bytes)?;
        Ok((table, tables))
    }
}

/// A refcount block: counts of whole bytes are big-endian, smaller ones fill bytes from the lowest bit.
fn encode_refs(refs: &[u16], bits: usize, cluster: usize) -> Vec<u8> {
    let mut block = vec![0; cluster];
    for (n, count) in refs.iter().enumerate() {
        if bits >= 16 {
            let end = (n + 1) * bits / 8;
            block[end - 2..end].copy_from_slice(&count.to_be_bytes());
        } else {
            // Counts are not above what the bits can hold.
            block[n * bits / 8] |= (*count as u8) << (n * bits % 8);
        }
    }
    block
}

fn header(shape: &Shape, places: &Places) -> Vec<u8> {
    let options = &shape.options;
    let active = &shape.states[0];
    let zstd = matches!(options.compression, Some((Compression::Zstd, _)));
    let mut bytes = Vec::with_capacity(V3_BYTES);
    bytes.extend(MAGIC);
    bytes.extend(options.version.to_be_bytes());
    bytes.extend([0; 12]);
    bytes.extend(options.cluster_bits.to_be_bytes());
    bytes.extend(active.size.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend((active.l1_entries as u32).to_be_bytes());
    bytes.extend(places.l1.to_be_bytes());
    bytes.extend(places.refcount_table.to_be_bytes());
    bytes.extend((places.refcount_clusters as u32).to_be_bytes());
    bytes.extend((places.snapshots.count as u32).to_be_bytes());
    bytes.extend(places.snapshots.offset.to_be_bytes());
    debug_assert_eq!(bytes.len(), V2_BYTES);
    if options.version >= 3 {
        let incompatible = if zstd { COMPRESSION_TYPE } else { 0 };
        bytes.extend(incompatible.to_be_bytes());
        bytes.extend([0; 16]);
        bytes.extend(options.refcount_order.to_be_bytes());
        bytes.extend((V3_BYTES as u32).to_be_bytes());
        bytes.extend([u8::from(zstd), 0, 0, 0, 0, 0, 0, 0]);
    }
    // No extensions.
    bytes.extend([0; 8]);
    bytes
}
