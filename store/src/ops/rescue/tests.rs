use super::heap::{Heap, Told};
use super::write::write_disk;
use super::*;
use crate::codec::encode_frame;
use crate::disk::OpenMode;
use crate::disk::sim::{Fault, SimDisk};
use crate::format::codec;
use crate::format::entry::PackKind;
use crate::format::envelope::{self, EnvelopeKind};
use crate::format::pack::{BLOCK_BYTES, FRAME_HEADER_BYTES, HEADER_BYTES, TRAILER_BYTES};
use crate::geometry::Compression;
use crate::id::{Hash, PackName, SessionId};
use crate::manifest::Child;
use crate::manifest::build::Builder;
use crate::object::memory::MemoryObjects;
use crate::pack::writer::PackBuilder;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const C: usize = 4096;
/// Clusters of the disk, in frames of 8.
const CLUSTERS: u32 = 40;

fn name(n: u32) -> PackName {
    let (opened_at, nonce) = (3, 0xfeed);
    let session = SessionId { opened_at, nonce };
    PackName { session, n }
}

/// Noise, unlike all others.
fn noise(n: u32) -> Vec<u8> {
    let mut out = vec![0; C];
    let mut hasher = blake3::Hasher::new();
    hasher.update(&n.to_le_bytes());
    hasher.finalize_xof().fill(&mut out);
    out
}

fn pack(n: u32, kind: PackKind, frames: &[&[Vec<u8>]], compression: Compression) -> Vec<u8> {
    let mut builder = PackBuilder::new(Uid([1; 16]), name(n), kind, C as u32);
    for items in frames {
        let items: Vec<&[u8]> = items.iter().map(|i| &i[..]).collect();
        let hashes: Vec<Hash> = items.iter().map(|i| Hash::of(i)).collect();
        builder.push(&encode_frame(kind, &items, compression), &hashes);
    }
    builder.seal().bytes
}

fn record(n: u8, content: Content) -> SnapshotRecord {
    SnapshotRecord {
        uid: Uid([n; 16]),
        device: Uid([7; 16]),
        id: vec![b'0' + n],
        name: b"snap".to_vec(),
        date_sec: 1,
        date_nsec: 0,
        vm_clock_nsec: 0,
        icount: None,
        vm_state: None,
        content,
        group: None,
        parent: None,
        extra: Vec::new(),
        labels: BTreeMap::new(),
    }
}

fn record_copy(record: &SnapshotRecord) -> Vec<u8> {
    envelope::seal(
        EnvelopeKind::Record,
        0,
        Hash([0; 32]),
        &codec::encode(record),
    )
    .0
}

/// A disk in two packs, of clusters and of nodes. There is no log and no store.json.
struct Bench {
    objects: MemoryObjects,
    clusters: Vec<Vec<u8>>,
    content: Content,
}

impl Bench {
    fn new(clusters: Vec<Vec<u8>>, compression: Compression) -> Self {
        let mut nodes: Vec<Vec<u8>> = Vec::new();
        let mut builder = Builder::new(clusters.len() as u64);
        let mut sink = |_, bytes| {
            nodes.push(bytes);
            Ok(())
        };
        for cluster in &clusters {
            let child = Child::Hash(Hash::of(cluster));
            builder.push(child, 1, &mut sink).unwrap();
        }
        let root = builder.finish(&mut sink).unwrap();
        let content = Content {
            size: (clusters.len() * C) as u64,
            root,
        };
        let copy = record_copy(&record(1, content));
        let bench = Self {
            objects: MemoryObjects::new(),
            clusters,
            content,
        };
        let frames: Vec<&[Vec<u8>]> = bench.clusters.chunks(8).collect();
        bench.put(0, pack(0, PackKind::Clusters, &frames, compression));
        let frames = [&nodes[..2], &nodes[2..], &[copy]];
        bench.put(1, pack(1, PackKind::Nodes, &frames, compression));
        bench
    }

    /// What does not compress.
    fn of_noise() -> Self {
        Self::new((0..CLUSTERS).map(noise).collect(), Compression::None)
    }

    fn put(&self, n: u32, bytes: Vec<u8>) {
        self.objects.set_at_rest(&name(n).key(), Some(bytes));
    }

    fn bytes(&self, n: u32) -> Vec<u8> {
        self.objects.dump()[&name(n).key()].clone()
    }

    fn heap(&self) -> (Heap<'_>, Told) {
        Heap::read(&self.objects, Some(C as u32), &Progress::default()).unwrap()
    }

    /// Clusters that are lost. All others must be right.
    fn lost(&self) -> BTreeSet<u64> {
        let (disk, path) = (SimDisk::new(1), Path::new("/disk.raw"));
        let progress = Progress::default();
        let lost = write_disk(&self.heap().0, self.content, &disk, path, &progress).unwrap();
        self.check(&disk, path, &lost)
    }

    fn check(&self, disk: &SimDisk, path: &Path, lost: &[Range<u64>]) -> BTreeSet<u64> {
        let clusters = |r: &Range<u64>| r.start / C as u64..r.end / C as u64;
        let lost: BTreeSet<u64> = lost.iter().flat_map(clusters).collect();
        let file = disk.open(path, OpenMode::Read).unwrap();
        for (n, cluster) in (0u64..).zip(&self.clusters) {
            let mut read = vec![0; C];
            file.read_at(n * C as u64, &mut read).unwrap();
            let wanted = if lost.contains(&n) {
                &vec![0; C]
            } else {
                cluster
            };
            assert!(read == *wanted, "cluster {n}");
        }
        lost
    }

    /// Flips single bits of a pack; each time so much at most may be lost.
    fn flip_each(&self, n: u32, range: impl Iterator<Item = usize>, may_lose: usize) {
        let whole = self.bytes(n);
        for at in range {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            self.put(n, bytes);
            let lost = self.lost();
            assert!(lost.len() <= may_lose, "byte {at} of pack {n}: {lost:?}");
        }
        self.put(n, whole);
    }

    /// Where the frames of raw packs begin.
    fn frames(&self, n: u32) -> Vec<usize> {
        let bytes = self.bytes(n);
        let magic = crate::format::pack::FRAME_MAGIC;
        let end = bytes.len() - TRAILER_BYTES;
        (0..end)
            .filter(|at| bytes[*at..].starts_with(&magic))
            .collect()
    }
}

#[test]
fn a_whole_store_is_saved_and_nothing_is_said() {
    for compression in [Compression::None, Compression::Zstd(3)] {
        let bench = Bench::new((0..CLUSTERS).map(noise).collect(), compression);
        let (heap, told) = bench.heap();
        assert_eq!(
            (told.damage, told.packs, told.records.len()),
            (vec![], 2, 1)
        );
        drop(heap);
        assert!(bench.lost().is_empty());
    }
}

#[test]
fn thirteen_flipped_bytes_in_noise_cost_thirteen_clusters() {
    let bench = Bench::of_noise();
    let mut bytes = bench.bytes(0);
    let frames = bench.frames(0);
    let mut flipped = BTreeSet::new();
    for n in (0..CLUSTERS as usize).step_by(3).take(13) {
        bytes[frames[n / 8] + FRAME_HEADER_BYTES + n % 8 * C + 1234] ^= 4;
        flipped.insert(n as u64);
    }
    bench.put(0, bytes);
    assert_eq!(bench.lost(), flipped);
}

#[test]
fn clusters_before_the_damage_of_a_compressed_frame_are_saved() {
    // Longer than a block of zstd, which comes out whole or not at all.
    let clusters: Vec<Vec<u8>> = (0..80).map(|n| [noise(n), vec![0; C]].concat()).collect();
    let clusters = clusters.iter().map(|c| c[C / 2..][..C].to_vec()).collect();
    let bench = Bench::new(clusters, Compression::Zstd(3));
    let all = bench.clusters.clone();
    let mut bytes = pack(0, PackKind::Clusters, &[&all], Compression::Zstd(3));
    let at = bytes.len() * 2 / 3;
    bytes[at] ^= 1;
    bench.put(0, bytes);
    let lost = bench.lost();
    assert!(!lost.is_empty() && lost.first() >= Some(&32), "{lost:?}");
}

#[test]
fn flipped_bits_of_headers_tables_and_trailers_lose_nothing() {
    let bench = Bench::of_noise();
    for n in [0, 1] {
        let (frames, len) = (bench.frames(n), bench.bytes(n).len());
        let table = len - TRAILER_BYTES - BLOCK_BYTES;
        bench.flip_each(n, 0..HEADER_BYTES, 0);
        let of_frame = |at: &usize| *at..*at + FRAME_HEADER_BYTES;
        bench.flip_each(n, frames.iter().flat_map(of_frame), 0);
        let head = table..table + 24 + 12 * frames.len();
        bench.flip_each(n, head.chain((table..len).step_by(61)), 0);
        bench.flip_each(n, len - TRAILER_BYTES..len, 0);
    }
    // Lengths of nodes, which only their pack has.
    let first = bench.frames(1)[0] + FRAME_HEADER_BYTES;
    bench.flip_each(1, first..first + 8, 0);
}

#[test]
fn a_header_and_a_frame_flipped_together_lose_what_the_frame_does() {
    let bench = Bench::of_noise();
    let (frames, whole) = (bench.frames(0), bench.bytes(0));
    for first in [0, HEADER_BYTES - 1] {
        let mut bytes = whole.clone();
        bytes[first] ^= 1;
        // Also the first, by which one might tell what the pack holds.
        for frame in &frames {
            bytes[frame + FRAME_HEADER_BYTES + 9] ^= 1;
        }
        bench.put(0, bytes);
        assert_eq!(bench.lost(), (0..5).map(|frame| frame * 8).collect());
    }
}

#[test]
fn a_pack_without_trailer_and_table_loses_what_the_damage_does() {
    let bench = Bench::of_noise();
    let mut bytes = bench.bytes(0);
    bytes[bench.frames(0)[1] + FRAME_HEADER_BYTES + C + 9] ^= 1;
    // Not the last cluster either: it is cut.
    let end = bench.frames(0)[4] + FRAME_HEADER_BYTES + 8 * C - 1;
    bytes.truncate(end);
    bench.put(0, bytes);
    assert_eq!(bench.lost(), [9, 39].into());
}

/// A cluster of a guest that has a store on its disk, or wants to look like it.
fn with_planted(record: &SnapshotRecord) -> Vec<u8> {
    let copy = record_copy(record);
    let frame = encode_frame(PackKind::Nodes, &[&copy], Compression::None);
    let mut cluster = noise(77);
    cluster[8..8 + frame.bytes.len()].copy_from_slice(&frame.bytes);
    cluster
}

#[test]
fn frames_that_a_guest_wrote_do_not_decide_what_a_pack_holds() {
    let forged = record(
        9,
        Content {
            size: 1 << 20,
            root: Hash([5; 32]),
        },
    );
    let mut clusters: Vec<Vec<u8>> = (0..CLUSTERS).map(noise).collect();
    clusters[3] = with_planted(&forged);
    let bench = Bench::new(clusters, Compression::None);
    let mut bytes = bench.bytes(0);
    bytes[20] ^= 1;
    bench.put(0, bytes.clone());
    assert!(bench.lost().is_empty());
    let (_, told) = bench.heap();
    let uids: Vec<Uid> = told.records.iter().map(|r| r.uid).collect();
    assert_eq!(uids, [Uid([1; 16])], "a guest makes no snapshots");
    assert_eq!(told.damage.len(), 1, "its header: {:?}", told.damage);
    // Nor where the frame that it lies in is damaged and the walk looks for the next one.
    bytes[bench.frames(0)[0] + FRAME_HEADER_BYTES + 9] ^= 1;
    bench.put(0, bytes);
    assert_eq!(bench.lost(), [0].into());
    assert_eq!(bench.heap().1.records.len(), 1);
}

/// `rescue` with nothing but packs: the cluster size comes from them, the snapshots from their copies.
fn rescued(bench: &Bench, disk: &SimDisk) -> Rescued {
    let out = Path::new("/out");
    rescue(&bench.objects, disk, out, &Progress::default()).unwrap()
}

#[test]
fn the_cluster_size_is_told_by_any_pack_that_has_a_header() {
    // The packs that come first have none.
    let bench = Bench::of_noise();
    let mut bytes = bench.bytes(0);
    bytes[0] ^= 1;
    bench.put(0, bytes);
    let disk = SimDisk::new(1);
    let saved = rescued(&bench, &disk).saved;
    assert_eq!((saved.len(), &saved[0].lost[..]), (1, &[][..]));
    bench.check(&disk, &saved[0].path, &saved[0].lost);
}

#[test]
fn the_cluster_size_is_told_by_frames_where_no_pack_has_a_header() {
    let bench = Bench::of_noise();
    for n in [0, 1] {
        let mut bytes = bench.bytes(n);
        bytes[0] ^= 1;
        bench.put(n, bytes);
    }
    let (heap, told) = Heap::read(&bench.objects, None, &Progress::default()).unwrap();
    assert_eq!((heap.cluster_bytes(), told.records.len()), (C as u32, 0));
    let (disk, path) = (SimDisk::new(1), Path::new("/disk.raw"));
    let lost = write_disk(&heap, bench.content, &disk, path, &Progress::default()).unwrap();
    assert!(bench.check(&disk, path, &lost).is_empty());
}

#[test]
fn a_frame_is_read_once_for_all_its_clusters() {
    let reads = Arc::new(AtomicU64::new(0));
    let counted = reads.clone();
    let bench = Bench::of_noise();
    let gate = move |call: &str, _: &str| {
        counted.fetch_add(u64::from(call == "get"), Ordering::Relaxed);
        Ok(())
    };
    let objects = bench.objects.clone().with_gate(Arc::new(gate));
    let progress = Progress::default();
    let (heap, _) = Heap::read(&objects, Some(C as u32), &progress).unwrap();
    reads.store(0, Ordering::Relaxed);
    let (disk, path) = (SimDisk::new(1), Path::new("/disk.raw"));
    let lost = write_disk(&heap, bench.content, &disk, path, &progress).unwrap();
    assert!(lost.is_empty());
    // Five frames of clusters, two of nodes.
    assert_eq!(reads.load(Ordering::Relaxed), 7);
}

#[test]
fn another_copy_is_taken_where_the_first_is_damaged() {
    let bench = Bench::of_noise();
    let whole = bench.bytes(0);
    let frames: Vec<&[Vec<u8>]> = bench.clusters.chunks(8).collect();
    bench.put(2, pack(2, PackKind::Clusters, &frames, Compression::None));
    let mut bytes = whole.clone();
    for frame in bench.frames(0) {
        bytes[frame + FRAME_HEADER_BYTES + 7] ^= 1;
    }
    bench.put(0, bytes);
    assert!(bench.lost().is_empty());
    // Damaged after it was looked at: it is still listed as good.
    bench.put(0, whole);
    let (heap, _) = bench.heap();
    bench.put(0, vec![0; 10]);
    let (disk, path) = (SimDisk::new(1), Path::new("/disk.raw"));
    let lost = write_disk(&heap, bench.content, &disk, path, &Progress::default()).unwrap();
    assert!(bench.check(&disk, path, &lost).is_empty());
}

/// A bench with records of three snapshots; the second comes between those that can be written.
fn with_three(second: Content) -> Bench {
    let bench = Bench::of_noise();
    let first = record(2, second);
    let copies = [record_copy(&first), record_copy(&record(3, bench.content))];
    bench.put(5, pack(5, PackKind::Nodes, &[&copies], Compression::None));
    bench
}

#[test]
fn a_disk_that_cannot_be_written_is_lost_and_the_others_are_saved() {
    let bench = with_three(Bench::of_noise().content);
    // Calls of a disk that goes well, until the second is made: its folder, then its file.
    let disk = SimDisk::new(1);
    let one = Bench::of_noise();
    assert_eq!(rescued(&one, &disk).saved.len(), 1);
    let calls = disk.calls();
    for later in 1..6 {
        let disk = SimDisk::new(1);
        disk.fail_call(calls + later, Fault::Eio);
        let rescued = rescued(&bench, &disk);
        let failed: Vec<bool> = rescued
            .saved
            .iter()
            .map(|s| s.unwritten.is_some())
            .collect();
        if failed == [false; 3] {
            continue;
        }
        assert_eq!(failed, [false, true, false], "call {later}");
        let second = &rescued.saved[1];
        assert_eq!(second.lost, std::slice::from_ref(&(0..bench.content.size)));
        let why = second.unwritten.as_ref().unwrap();
        assert!(
            why.contains("/out/") && rescued.damage.contains(why),
            "{why}"
        );
        let there = disk.snapshot_paths().contains(&second.path);
        assert!(!there, "half a disk looks like a whole one");
        for n in [0, 2] {
            assert!(rescued.saved[n].lost.is_empty());
            bench.check(&disk, &rescued.saved[n].path, &[]);
        }
    }
}

#[test]
fn a_full_target_stops_and_leaves_no_half_disk() {
    let bench = with_three(Bench::of_noise().content);
    let disk = SimDisk::new(1);
    disk.set_space(bench.content.size * 3 / 2);
    let out = Path::new("/out");
    let full = rescue(&bench.objects, &disk, out, &Progress::default()).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    assert!(full.what_next().is_some_and(|hint| hint.contains("stays")));
    assert_eq!(disk.snapshot_paths().len(), 1, "the first is whole");
}

#[test]
fn a_file_that_is_too_long_is_no_full_target() {
    let io = |kind| Error::io("resizing", std::io::Error::from(kind));
    let content = Bench::of_noise().content;
    let after = |e| lost_or_why(Err(e), content, Path::new("/out/x.raw"));
    let (lost, why) = after(io(std::io::ErrorKind::FileTooLarge)).unwrap();
    assert_eq!(lost, std::slice::from_ref(&(0..content.size)));
    assert!(why.is_some_and(|why| why.contains("too large")));
    let full = after(io(std::io::ErrorKind::StorageFull)).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    let stop = after(Error::new(ErrorKind::Cancelled, "stopped")).unwrap_err();
    assert_eq!(stop.kind(), ErrorKind::Cancelled);
}

#[test]
fn a_record_that_claims_an_endless_disk_takes_no_space_and_is_lost() {
    let claimed = Content {
        size: crate::limits::DISK_BYTES_MAX,
        root: Bench::of_noise().content.root,
    };
    let bench = with_three(claimed);
    let disk = SimDisk::new(1);
    let rescued = rescued(&bench, &disk);
    let sizes: Vec<u64> = rescued
        .saved
        .iter()
        .map(|s| s.lost.iter().map(|r| r.end - r.start).sum())
        .collect();
    assert_eq!(sizes, [0, claimed.size, 0]);
    bench.check(&disk, &rescued.saved[2].path, &[]);
}

#[test]
fn names_from_a_damaged_store_stay_in_their_folder() {
    assert_eq!(tame(b"../../etc/passwd"), ".._.._etc_passwd");
    assert_eq!(tame(b".."), "_..");
    assert_eq!(tame(b""), "_");
    assert_eq!(tame(b"root\n"), "root_");
}
