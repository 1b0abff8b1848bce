//! An image as what the writer takes: qcow2 to qcow2, without a store.

use super::write::{Content, Draft, Key, Part, Piece, Pieces, Source};
use super::{Image, Kind, Link, Mapped, Snapshot, State};
use stillpoint_store::{Error, Result};

/// See the module. Keys are places in the files of the chain.
pub struct Copy<'a> {
    image: &'a Image,
    active: State,
    snapshots: Vec<State>,
}

/// Bytes of a raw file that have one key.
const RAW_BYTES: u64 = 64 << 10;

impl<'a> Copy<'a> {
    /// Of the image with all its snapshots, flattened: what comes from its chain is in the copy.
    pub fn new(image: &'a Image) -> Result<Self> {
        let count = image.top().snapshots().len();
        let snapshots = (0..count).map(|n| image.snapshot(n));
        Ok(Self {
            image,
            active: image.active()?,
            snapshots: snapshots.collect::<Result<_>>()?,
        })
    }

    /// What the copy has in it.
    pub fn draft(&self) -> Draft {
        let fields = self.image.top().snapshots().iter();
        let sized = |(fields, state): (&Snapshot, &State)| Snapshot {
            disk_size: Some(state.size()),
            ..fields.clone()
        };
        Draft {
            size: self.active.size(),
            snapshots: fields.zip(&self.snapshots).map(sized).collect(),
        }
    }

    /// What has one key in a link.
    fn unit(&self, link: usize) -> u64 {
        match &self.image.links()[link] {
            Link::Qcow2(state) => state.layer().geometry().cluster_bytes(),
            Link::Raw { .. } => RAW_BYTES,
        }
    }

    /// Plain ranges are cut at clusters of the file, so that one cluster has one key in all states.
    fn cut(&self, link: usize, mapped: Mapped) -> impl Iterator<Item = Piece> {
        let unit = self.unit(link);
        let mut at = 0;
        std::iter::from_fn(move || {
            let rest = mapped.len - at;
            if rest == 0 {
                return None;
            }
            let (len, content) = match mapped.kind {
                Kind::Zero => (rest, Content::Zero),
                Kind::Unallocated => (rest, Content::Hole),
                Kind::Data { host } => {
                    let host = host + at;
                    let key = key(link, host - host % unit, 0);
                    let offset = host % unit;
                    (rest.min(unit - offset), Content::Data { key, offset })
                }
                Kind::Compressed { host, len } => {
                    let key = key(link, host, len);
                    let offset = (mapped.start + at) % unit;
                    (rest, Content::Data { key, offset })
                }
            };
            let start = mapped.start + at;
            at += len;
            Some(Piece {
                start,
                len,
                content,
            })
        })
    }

    fn disk(&self, state: &State) -> Pieces<'_> {
        let all = self.image.map(state, 0..state.size());
        Box::new(all.flat_map(|mapped| {
            let mapped = mapped.map(|m| self.cut(m.link, m.mapped));
            split(mapped)
        }))
    }
}

/// The pieces, or the one error.
fn split(pieces: Result<impl Iterator<Item = Piece>>) -> impl Iterator<Item = Result<Piece>> {
    let (pieces, error) = match pieces {
        Ok(pieces) => (Some(pieces), None),
        Err(error) => (None, Some(Err(error))),
    };
    pieces.into_iter().flatten().map(Ok).chain(error)
}

/// `len` is 0 for plain clusters.
fn key(link: usize, host: u64, len: u64) -> Key {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(link as u64).to_le_bytes());
    key[8..16].copy_from_slice(&host.to_le_bytes());
    key[16..24].copy_from_slice(&len.to_le_bytes());
    Key(key)
}

impl Source for Copy<'_> {
    fn pieces(&self, part: Part) -> Result<Pieces<'_>> {
        let missing = || Error::invalid("copying a qcow2 image", "there is no such snapshot");
        Ok(match part {
            Part::Active => self.disk(&self.active),
            Part::Disk(n) => self.disk(self.snapshots.get(n).ok_or_else(missing)?),
            Part::VmState(n) => {
                let state = self.snapshots.get(n).ok_or_else(missing)?;
                let all = state.map_vm_state(0..state.vm_state_size());
                Box::new(all.flat_map(|mapped| split(mapped.map(|m| self.cut(0, m)))))
            }
        })
    }

    fn read(&self, key: &Key, offset: u64, buf: &mut [u8]) -> Result<()> {
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&key.0[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let (link, host, len) = (word(0) as usize, word(8), word(16));
        let kind = match len {
            0 => Kind::Data {
                host: host + offset,
            },
            len => Kind::Compressed { host, len },
        };
        // Of a compressed cluster only the offset in it counts.
        let mapped = Mapped {
            start: offset,
            len: buf.len() as u64,
            kind,
        };
        self.image.read_mapped(link, &mapped, buf)
    }
}
