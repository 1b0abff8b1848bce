//! Images out: one disk with any set of its snapshots, their VM state and all their fields, in one pass over the data.
//!
//! ```text
//! source        what a caller brings: ranges of each state, and bytes by key
//! cells         ranges -> clusters of this image, each with a name for what is in it
//! plan          all states side by side: what is the same in several is one cluster, and one table
//! data          clusters read, compressed in parallel, written
//! leftover      what a writer that was cut off has left of them in the file
//! space         where clusters go and how often they are referred to
//! finish        what is known only at the end: L1 tables, snapshots, refcounts, header
//! ```
//!
//! All states are walked together, by their position in the disk, so that memory does not grow with the disk except for two
//! bytes a cluster and 8 bytes an L2 table and state. The header is written when everything else is on the medium: until
//! then the file is no image.

mod cells;
mod data;
mod finish;
mod leftover;
mod plan;
mod sink;
mod source;
mod space;

use super::geometry::{CLUSTER_BITS, L1_ENTRIES_MAX};
use super::header::SNAPSHOTS_MAX;
use super::{Compression, Geometry, Snapshot};
use stillpoint_store::disk::DiskFile;
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

pub use source::{Content, Key, Part, Piece, Pieces, Source};

pub(super) const DOING: &str = "writing a qcow2 image";
const SECTOR: u64 = 512;

/// How the image is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// 2 or 3.
    pub version: u32,
    /// Logarithm of the cluster size in bytes, 9 to 21.
    pub cluster_bits: u32,
    /// Logarithm of the bits of a refcount, 6 at most; 4 in version 2. What is referred to more often than half of
    /// what they can count is stored again, so that QEMU can apply every snapshot.
    pub refcount_order: u32,
    /// How clusters are compressed, and the library's level; those that do not shrink stay as they are.
    pub compression: Option<(Compression, u32)>,
    /// Compressed clusters that are remembered to be shared with equal ones elsewhere on the disk, about 30 bytes each. Equal
    /// ones in the same place of several states are shared in any case, and plain ones only there.
    pub remember: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            version: 3,
            cluster_bits: 16,
            refcount_order: 4,
            compression: None,
            remember: 1_800_000,
        }
    }
}

/// What is to be in the image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Draft {
    /// Bytes of the disk in its active state; becomes whole sectors of 512 bytes.
    pub size: u64,
    /// Snapshots in the order of the table. Those without a disk size have the active one.
    pub snapshots: Vec<Snapshot>,
}

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes of clusters and tables among them that were in the file already.
    pub kept_bytes: u64,
    /// Clusters that were read from the source.
    pub read_clusters: u64,
    /// Those of them that were stored compressed.
    pub compressed_clusters: u64,
    /// Those of them that turned out to be zeros, and were not stored.
    pub zero_clusters: u64,
}

/// Writes the image to `file`. Durable when it returns; what an error leaves is no image. A file that is not empty was left by
/// such an error, or is taken for that: what the image has at the same place is kept, and the image is the same as in an
/// empty file. `progress` counts bytes of clusters that were read, and those that went into the file.
pub fn write(
    file: &dyn DiskFile,
    draft: &Draft,
    options: &Options,
    source: &dyn Source,
    progress: &Progress,
) -> Result<Written> {
    let shape = Shape::new(draft, options)?;
    let mut planner = plan::Planner::new(file, &shape, source)?;
    planner.run(progress)?;
    planner.finish(draft)
}

fn invalid(why: impl Into<String>) -> Error {
    Error::invalid(DOING, why)
}

/// Sizes that follow from draft and options, checked.
#[derive(Debug, Clone)]
struct Shape {
    options: Options,
    geometry: Geometry,
    /// The active state, then the snapshots.
    states: Vec<StateShape>,
    /// How often a cluster is referred to at most: half of what a refcount can say where that is more than one, since QEMU
    /// adds the references of a snapshot that it applies before it takes away those of the state before.
    refs_max: u16,
}

#[derive(Debug, Clone, Copy)]
struct StateShape {
    size: u64,
    /// Where VM state starts, and its bytes.
    vm_start: u64,
    vm_size: u64,
    l1_entries: u64,
}

impl Shape {
    fn new(draft: &Draft, options: &Options) -> Result<Self> {
        check_options(options)?;
        let Some(geometry) = Geometry::new(options.cluster_bits, false) else {
            return Err(invalid(format!(
                "clusters of 2^{} bytes",
                options.cluster_bits
            )));
        };
        if draft.snapshots.len() > SNAPSHOTS_MAX as usize {
            let why = format!("{} snapshots, {SNAPSHOTS_MAX} fit", draft.snapshots.len());
            return Err(Error::new(ErrorKind::LimitExceeded, DOING).detail(why));
        }
        let mut states = vec![StateShape::new(draft.size, 0, geometry)?];
        for snapshot in &draft.snapshots {
            snapshot.check()?;
            let size = snapshot.disk_size.unwrap_or(draft.size);
            if options.version == 2 {
                check_version_2(snapshot, size == draft.size)?;
            }
            states.push(StateShape::new(size, snapshot.vm_state_size, geometry)?);
        }
        let bits = 1_u32 << options.refcount_order;
        let refs_max = (u16::MAX >> 16_u32.saturating_sub(bits) >> 1).max(1);
        Ok(Self {
            options: *options,
            geometry,
            states,
            refs_max,
        })
    }

    fn cluster_bytes(&self) -> u64 {
        self.geometry.cluster_bytes()
    }
}

impl StateShape {
    fn new(size: u64, vm_size: u64, geometry: Geometry) -> Result<Self> {
        let too_large = || {
            let why = format!("a disk of {size} bytes with {vm_size} bytes of VM state");
            let error = Error::new(ErrorKind::LimitExceeded, DOING).detail(why);
            error.hint("larger clusters allow larger disks")
        };
        let size = size
            .checked_next_multiple_of(SECTOR)
            .ok_or_else(too_large)?;
        let (disk, vm) = (geometry.tables_for(size), geometry.tables_for(vm_size));
        let l1_entries = (disk + vm).max(1);
        if l1_entries > L1_ENTRIES_MAX || size > i64::MAX as u64 {
            return Err(too_large());
        }
        Ok(Self {
            size,
            vm_start: disk * geometry.table_span(),
            vm_size,
            l1_entries,
        })
    }
}

fn check_options(options: &Options) -> Result<()> {
    let Options { version, .. } = *options;
    if version != 2 && version != 3 {
        return Err(invalid(format!("there is no version {version} of qcow2")));
    }
    if !CLUSTER_BITS.contains(&options.cluster_bits) || options.refcount_order > 6 {
        return Err(invalid("no image has such clusters or refcounts"));
    }
    let zstd = matches!(options.compression, Some((Compression::Zstd, _)));
    if version == 2 && (zstd || options.refcount_order != 4) {
        let why = "version 2 has neither zstd nor refcounts of another width than 16 bits";
        return Err(invalid(why).hint("write version 3"));
    }
    Ok(())
}

/// Programs that know version 2 only do not read the fields that these would need.
fn check_version_2(snapshot: &Snapshot, same_size: bool) -> Result<()> {
    let name = String::from_utf8_lossy(&snapshot.name);
    let why = if !same_size {
        "has a disk of another size"
    } else if u32::try_from(snapshot.vm_state_size).is_err() {
        "has more than 4 GiB of VM state"
    } else {
        return Ok(());
    };
    let why = format!("snapshot {name:?} {why}, which version 2 cannot say");
    Err(invalid(why).hint("write version 3"))
}
