//! What can be saved from a damaged store: no index, no log that must be whole, no table that must be readable. Every
//! pack file is read, every snapshot that any entry, checkpoint or record copy tells of is written out, and what is lost
//! of it is named.

use crate::codec::decode_frame;
use crate::content::fetch::Sink;
use crate::content::resolve::Location;
use crate::disk::{Disk, OpenMode};
use crate::error::{Error, ErrorKind, Result};
use crate::format::entry::{Content, PackKind};
use crate::format::manifest::{Child, Node};
use crate::format::pack::{HEADER_BYTES, PackHeader};
use crate::format::snapshot::SnapshotRecord;
use crate::id::{Hash, PackName, PackNumber, SessionId, Uid};
use crate::index::{Key, key_of};
use crate::limits::PACK_BYTES_MAX;
use crate::log::salvage::{Salvaged, read_record, salvage};
use crate::manifest::NodeSource;
use crate::manifest::walk::{Piece, Walker};
use crate::object::{Objects, get_whole};
use crate::ops::sink::FileSink;
use crate::pack::reader::read_frame;
use crate::pack::scan::{Scanned, Scanner};
use crate::progress::Progress;
use crate::store::read_store_file;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One disk that was written out.
#[derive(Debug)]
pub struct Saved {
    /// What it is.
    pub record: SnapshotRecord,
    /// It is the snapshot's VM state, not its disk.
    pub vm_state: bool,
    /// Its device's name, where it is known.
    pub device: Option<String>,
    /// Where it was written.
    pub path: PathBuf,
    /// Byte ranges that no pack yields; holes in the file.
    pub lost: Vec<Range<u64>>,
    /// The log no longer lists it: it may have been deleted on purpose.
    pub unlisted: bool,
}

/// What was found and written.
#[derive(Debug, Default)]
pub struct Rescued {
    /// Disks, in the order in which they were written.
    pub saved: Vec<Saved>,
    /// Damage met in log, checkpoints and packs.
    pub damage: Vec<String>,
    /// Packs read.
    pub packs: u64,
}

/// Every item of every pack by the first half of its hash: 40 bytes an item.
struct Heap<'a> {
    objects: &'a dyn Objects,
    cluster_bytes: u32,
    packs: Vec<(PackName, PackKind)>,
    places: Vec<(Key, Location)>,
}

/// Writes every snapshot that can be found into `out`, a folder that is empty or not there yet, as
/// `<device>/<id>-<name>.raw`, its VM state beside it as `.vmstate`. Nothing in the store is changed.
pub fn rescue(
    objects: &dyn Objects,
    disk: &dyn Disk,
    out: &Path,
    progress: &Progress,
) -> Result<Rescued> {
    let mut rescued = Rescued::default();
    // Without store.json the cluster size is in every pack's header.
    let cluster_bytes = match read_store_file(objects) {
        Ok(file) => Some(file.geometry.cluster_bytes),
        Err(e) => {
            rescued.damage.push(e.to_string());
            None
        }
    };
    let mut salvaged = salvage(objects, &mut rescued.damage)?;
    let heap = Heap::read(
        objects,
        cluster_bytes,
        &mut salvaged,
        &mut rescued,
        progress,
    )?;
    let mut taken = BTreeMap::new();
    for (uid, record) in &salvaged.records {
        progress.check()?;
        let device = salvaged.devices.get(&record.device).cloned();
        let unlisted = !salvaged.listed.contains(uid);
        let parts = [(false, Some(record.content)), (true, record.vm_state)];
        for (vm_state, content) in parts {
            let Some(content) = content else { continue };
            let path = unused(out, device.as_deref(), record, vm_state, &mut taken);
            let lost = heap.write(content, disk, &path, progress)?;
            rescued.saved.push(Saved {
                record: record.clone(),
                vm_state,
                device: device.clone(),
                path,
                lost,
                unlisted,
            });
        }
    }
    Ok(rescued)
}

impl<'a> Heap<'a> {
    fn read(
        objects: &'a dyn Objects,
        cluster_bytes: Option<u32>,
        salvaged: &mut Salvaged,
        rescued: &mut Rescued,
        progress: &Progress,
    ) -> Result<Self> {
        let mut heap = Self {
            objects,
            cluster_bytes: cluster_bytes.unwrap_or_default(),
            packs: Vec::new(),
            places: Vec::new(),
        };
        for folder in objects.list_folders("packs")? {
            let Ok(session) = folder.parse::<SessionId>() else {
                continue;
            };
            for file in objects.list_after(&format!("packs/{folder}"), "")? {
                progress.check()?;
                let Ok(n) = file.parse() else { continue };
                let name = PackName { session, n };
                rescued.packs += 1;
                if let Err(e) = heap.add(name, salvaged, &mut rescued.damage) {
                    rescued.damage.push(e.to_string());
                }
            }
        }
        heap.places.sort_unstable();
        Ok(heap)
    }

    /// Frame by frame: no table is needed, and what is damaged is passed over.
    fn add(
        &mut self,
        name: PackName,
        salvaged: &mut Salvaged,
        damage: &mut Vec<String>,
    ) -> Result<()> {
        let bytes = get_whole(self.objects, &name.key(), u64::from(PACK_BYTES_MAX))?;
        let number = PackNumber(self.packs.len() as u32);
        let header = bytes
            .get(..HEADER_BYTES)
            .and_then(|header| PackHeader::decode(header).ok());
        if let (Some(header), 0) = (&header, self.cluster_bytes) {
            self.cluster_bytes = header.cluster_bytes;
        }
        let kind = header.map_or_else(|| self.kind_of_frames(name, &bytes), |h| h.kind);
        self.packs.push((name, kind));
        for found in Scanner::new(&bytes, name, kind, self.cluster_bytes) {
            match found {
                Scanned::Damaged { offset, bytes } => {
                    let pack = self.objects.describe(&name.key());
                    damage.push(format!(
                        "reading {pack} at byte {offset}: {bytes} bytes are damaged"
                    ));
                }
                Scanned::Frame { at, frame } => {
                    for (item, data) in frame.iter().enumerate() {
                        let place = Location::new(number, at, item as u16);
                        self.places.push((key_of(&Hash::of(data)), place));
                        if let Some(record) = read_record(data).filter(|_| kind == PackKind::Nodes)
                        {
                            salvaged.add(record);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// What a pack without a header holds: frames of one kind are none of the other.
    fn kind_of_frames(&self, name: PackName, bytes: &[u8]) -> PackKind {
        let mut found = Scanner::new(bytes, name, PackKind::Nodes, self.cluster_bytes);
        if found.any(|found| matches!(found, Scanned::Frame { .. })) {
            PackKind::Nodes
        } else {
            PackKind::Clusters
        }
    }

    /// An item that has the hash, wherever a good copy is.
    fn item(&self, hash: &Hash) -> Option<Vec<u8>> {
        let key = key_of(hash);
        let from = self.places.partition_point(|(k, _)| *k < key);
        let copies = self.places[from..].iter().take_while(|(k, _)| *k == key);
        for (_, at) in copies {
            let (name, kind) = self.packs[at.pack.0 as usize];
            let Ok(bytes) = read_frame(self.objects, name, at.frame()) else {
                continue;
            };
            let Ok(frame) = decode_frame(kind, self.cluster_bytes, &bytes) else {
                continue;
            };
            if let Some(item) = frame
                .item(usize::from(at.item))
                .filter(|b| Hash::of(b) == *hash)
            {
                return Some(item.to_vec());
            }
        }
        None
    }

    /// Writes a disk, leaving holes where it is lost; returns these.
    fn write(
        &self,
        content: Content,
        disk: &dyn Disk,
        path: &Path,
        progress: &Progress,
    ) -> Result<Vec<Range<u64>>> {
        if let Some(folder) = path.parent() {
            disk.create_folders(folder)?;
        }
        let file = disk.open(path, OpenMode::CreateNew)?;
        file.set_len(content.size)?;
        let size = u64::from(self.cluster_bytes.max(crate::limits::CLUSTER_BYTES_MIN));
        let clusters = content.size.div_ceil(size);
        let mut lost: Vec<Range<u64>> = Vec::new();
        let mut lose = |from: u64, to: u64| {
            let range = from * size..(to * size).min(content.size);
            match lost.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => lost.push(range),
            }
        };
        Progress::add(&progress.bytes_total, content.size);
        let walk = |sink: &FileSink<'_>| -> Result<()> {
            let mut at = 0;
            let Ok(mut walker) = Walker::new(self, content.root, clusters) else {
                lose(0, clusters);
                return Ok(());
            };
            while let Some(piece) = walker.next() {
                progress.check()?;
                let next = walker.position();
                match piece {
                    Ok(p) => self.write_piece(&p, sink, content.size, size, &mut lose)?,
                    // The walk goes on behind what the unreadable node covers.
                    Err(_) => lose(at, next),
                }
                Progress::add(&progress.bytes_done, (next - at) * size);
                at = next;
            }
            Ok(())
        };
        FileSink::with(&*file, size, content.size, walk)?;
        Ok(lost)
    }

    fn write_piece(
        &self,
        piece: &Piece,
        sink: &FileSink<'_>,
        len: u64,
        size: u64,
        lose: &mut dyn FnMut(u64, u64),
    ) -> Result<()> {
        let end = |cluster: u64| (cluster * size).min(len);
        match piece {
            Piece::Uniform {
                first,
                count,
                child: Child::Zero,
            } => sink.put_zeros(first * size, end(first + count)),
            Piece::Uniform { .. } => Ok(()),
            Piece::Leaf { first, node, count } => {
                for i in 0..*count {
                    let at = first + i;
                    match node.child(i as usize) {
                        Child::Hole => {}
                        Child::Zero => sink.put_zeros(at * size, end(at + 1))?,
                        Child::Hash(hash) => match self.item(&hash) {
                            Some(bytes) => sink.put(at, &bytes)?,
                            None => lose(at, at + 1),
                        },
                    }
                }
                Ok(())
            }
        }
    }
}

impl NodeSource for Heap<'_> {
    fn node(&self, hash: &Hash) -> Result<Arc<Node>> {
        let bytes = self.item(hash).ok_or_else(|| {
            Error::new(ErrorKind::Corrupt, "reading a manifest node")
                .detail(format!("{hash} is lost"))
        })?;
        Node::decode(&bytes).map(Arc::new)
    }
}

/// `<device>/<id>-<name>.raw` with everything that is no letter, digit, dot or dash made `_`, and a number where that is
/// taken. Names come from a damaged store: nothing in them may lead elsewhere.
fn unused(
    out: &Path,
    device: Option<&str>,
    record: &SnapshotRecord,
    vm_state: bool,
    taken: &mut BTreeMap<PathBuf, Uid>,
) -> PathBuf {
    let folder = tame(
        device
            .map_or_else(|| format!("device-{}", record.device), Into::into)
            .as_bytes(),
    );
    let stem = format!("{}-{}", tame(&record.id), tame(&record.name));
    let kind = if vm_state { "vmstate" } else { "raw" };
    let mut path = out.join(&folder).join(format!("{stem}.{kind}"));
    let mut n = 1;
    while taken.contains_key(&path) {
        n += 1;
        path = out.join(&folder).join(format!("{stem}.{n}.{kind}"));
    }
    taken.insert(path.clone(), record.uid);
    path
}

fn tame(bytes: &[u8]) -> String {
    let keep = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_') || *b == b'.';
    let text: String = bytes
        .iter()
        .take(100)
        .map(|b| if keep(b) { char::from(*b) } else { '_' })
        .collect();
    // A name of dots alone is a place.
    if text.chars().all(|c| c == '.') {
        format!("_{text}")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::tame;

    #[test]
    fn names_from_a_damaged_store_stay_in_their_folder() {
        assert_eq!(tame(b"../../etc/passwd"), ".._.._etc_passwd");
        assert_eq!(tame(b".."), "_..");
        assert_eq!(tame(b""), "_");
        assert_eq!(tame(b"root\n"), "root_");
    }
}
