//! A disk of a store with some of its snapshots as what the qcow2 writer takes. Clusters keep their hashes as names, so that
//! what is the same in several states is read and stored once.

use crate::qcow2::write::{
    Content as Bytes, Draft, Key, Options, Part, Piece, Pieces, Source, Written, write,
};
use crate::qcow2::{Extent, Snapshot};
use std::sync::Arc;
use stillpoint_store::disk::DiskFile;
use stillpoint_store::format::entry::Content;
use stillpoint_store::format::manifest::Child;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::Hash;
use stillpoint_store::ops::view::{ClusterRun, Reader, View};
use stillpoint_store::progress::Progress;
use stillpoint_store::store::Store;
use stillpoint_store::{Error, Result};

/// Bytes of decoded frames that are kept meanwhile.
const CACHE_BYTES: usize = 96 << 20;
/// What follows a cluster is wanted next, as a rule: its frame is decoded once.
const WHOLE_FRAME: usize = 1 << 20;

/// See the module.
struct Stored<'a> {
    cluster_bytes: usize,
    reader: Arc<Reader<'a>>,
    active: View<'a>,
    /// Disk, and VM state where there is one.
    snapshots: Vec<(View<'a>, Option<View<'a>>)>,
}

/// Writes `active` as a qcow2 image with the snapshots in `records`, oldest first; see `write`.
pub fn write_qcow2(
    store: &Store,
    active: Content,
    records: &[SnapshotRecord],
    file: &dyn DiskFile,
    options: &Options,
    progress: &Progress,
) -> Result<Written> {
    let draft = Draft {
        size: active.size,
        snapshots: records.iter().map(snapshot).collect::<Result<_>>()?,
    };
    let source = Stored::new(store, active, records)?;
    write(file, &draft, options, &source, progress)
}

fn snapshot(record: &SnapshotRecord) -> Result<Snapshot> {
    let date_sec = u32::try_from(record.date_sec).map_err(|_| {
        let name = String::from_utf8_lossy(&record.name);
        let why = format!("snapshot {name:?} is of a year after 2106, which qcow2 cannot say");
        Error::invalid("writing a qcow2 image", why).hint("leave it out with --snapshots")
    })?;
    Ok(Snapshot {
        l1: Extent::default(),
        id: record.id.clone(),
        name: record.name.clone(),
        date_sec,
        date_nsec: record.date_nsec,
        vm_clock_nsec: record.vm_clock_nsec,
        vm_state_size: record.vm_state.map_or(0, |vm| vm.size),
        icount: record.icount,
        disk_size: Some(record.content.size),
        unknown_extra: record.extra.clone(),
    })
}

impl<'a> Stored<'a> {
    /// One pin for all of it.
    fn new(store: &'a Store, active: Content, records: &[SnapshotRecord]) -> Result<Self> {
        let reader = store.reader(CACHE_BYTES)?;
        let of_snapshots = records
            .iter()
            .flat_map(|r| std::iter::once(r.content).chain(r.vm_state));
        let contents: Vec<Content> = std::iter::once(active).chain(of_snapshots).collect();
        let mut views = reader.views(&contents)?.into_iter();
        let missing = || Error::invalid("writing a qcow2 image", "a state is missing");
        let active = views.next().ok_or_else(missing)?;
        let mut snapshots = Vec::with_capacity(records.len());
        for record in records {
            let disk = views.next().ok_or_else(missing)?;
            let vm_state = record.vm_state.and_then(|_| views.next());
            snapshots.push((disk, vm_state));
        }
        Ok(Self {
            cluster_bytes: store.geometry().cluster_bytes as usize,
            reader,
            active,
            snapshots,
        })
    }
}

fn piece(run: ClusterRun) -> Piece {
    Piece {
        start: run.start,
        len: run.length,
        content: match run.child {
            Child::Hole => Bytes::Hole,
            Child::Zero => Bytes::Zero,
            Child::Hash(hash) => Bytes::Data {
                key: Key(hash.0),
                offset: 0,
            },
        },
    }
}

impl Source for Stored<'_> {
    fn pieces(&self, part: Part) -> Result<Pieces<'_>> {
        let missing = || Error::invalid("writing a qcow2 image", "there is no such state");
        let view = match part {
            Part::Active => &self.active,
            Part::Disk(n) => &self.snapshots.get(n).ok_or_else(missing)?.0,
            Part::VmState(n) => {
                let (_, vm_state) = self.snapshots.get(n).ok_or_else(missing)?;
                vm_state.as_ref().ok_or_else(missing)?
            }
        };
        Ok(Box::new(view.cluster_runs()?.map(|run| run.map(piece))))
    }

    fn read(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<()> {
        let from = offset as usize;
        let to = from + buf.len();
        self.reader
            .read_cluster(Hash(key.0), WHOLE_FRAME, &mut |bytes| {
                if let Some(bytes) = bytes.get(from..to) {
                    buf.copy_from_slice(bytes);
                }
            })
    }

    /// Told of whole clusters of the store; the last of a disk ends in zeros.
    fn is(&self, key: &Key, offset: u64, bytes: &[u8]) -> bool {
        let rest = self.cluster_bytes.checked_sub(bytes.len());
        let (0, Some(rest)) = (offset, rest) else {
            return false;
        };
        let hash = if rest == 0 {
            Hash::of(bytes)
        } else {
            Hash::of(&[bytes, &vec![0; rest]].concat())
        };
        hash == Hash(key.0)
    }
}
