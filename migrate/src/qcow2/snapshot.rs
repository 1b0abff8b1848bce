//! Entries of the snapshot table <-> bytes. Pure.

use super::bytes::{be16, be32, be64};
use super::geometry::L1_ENTRIES_MAX;
use super::header::Extent;
use stillpoint_store::{Error, Result};

/// Bytes of an entry before its extra data.
const FIXED_BYTES: usize = 40;
/// Extra data that has a meaning: 64-bit VM state size, disk size, icount.
const KNOWN_EXTRA_BYTES: usize = 24;
/// QEMU 4.2 and later read no longer extra data.
const EXTRA_BYTES_MAX: usize = 1024;
/// QEMU opens no longer snapshot table.
pub(super) const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Where the instruction count would be, if there is none.
const NO_ICOUNT: u64 = u64::MAX;

/// An internal snapshot, with all that its entry says. Ids and names are bytes: nothing promises UTF-8, or that they differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Its L1 table. The writer makes its own.
    pub l1: Extent,
    /// Id, mostly a decimal number.
    pub id: Vec<u8>,
    /// Name that a user chose.
    pub name: Vec<u8>,
    /// Seconds since 1970, UTC.
    pub date_sec: u32,
    /// Nanoseconds of that second; not checked to be below 10^9.
    pub date_nsec: u32,
    /// VM clock since boot, in nanoseconds.
    pub vm_clock_nsec: u64,
    /// Bytes of VM state; 0: none.
    pub vm_state_size: u64,
    /// Instruction count; `None` where it was not recorded.
    pub icount: Option<u64>,
    /// Bytes of the disk then; `None` in entries of QEMU before 1.1: as large as it is now.
    pub disk_size: Option<u64>,
    /// Extra data after what is known, kept as it is.
    pub unknown_extra: Vec<u8>,
}

fn bad(why: impl Into<String>) -> Error {
    Error::corrupt("reading the snapshot table", why)
}

fn cut_off() -> Error {
    bad("an entry is cut off")
}

impl Snapshot {
    /// Bytes of an entry by its first 40, without padding behind it; at most 40 + 1024 + 2 * 65535.
    pub(super) fn entry_bytes(fixed: &[u8]) -> Result<usize> {
        let half = |at| be16(fixed, at).map(usize::from).ok_or_else(cut_off);
        let extra = be32(fixed, 36).ok_or_else(cut_off)? as usize;
        if extra > EXTRA_BYTES_MAX {
            return Err(bad(format!("extra data of {extra} bytes"))
                .hint("`qemu-img check -r all` trims it, and loses what it says"));
        }
        Ok(FIXED_BYTES + extra + half(12)? + half(14)?)
    }

    /// Decodes an entry of exactly `entry_bytes` bytes.
    pub(super) fn decode(entry: &[u8]) -> Result<Self> {
        let word = |at| be64(entry, at).ok_or_else(cut_off);
        let half = |at| be32(entry, at).ok_or_else(cut_off);
        let id_len = usize::from(be16(entry, 12).ok_or_else(cut_off)?);
        let extra_end = FIXED_BYTES + half(36)? as usize;
        let extra = entry.get(FIXED_BYTES..extra_end).ok_or_else(cut_off)?;
        let names = &entry[extra_end..];
        let (id, name) = names.split_at_checked(id_len).ok_or_else(cut_off)?;
        let snapshot = Self {
            l1: Extent {
                offset: word(0)?,
                count: u64::from(half(8)?),
            },
            id: id.to_vec(),
            name: name.to_vec(),
            date_sec: half(16)?,
            date_nsec: half(20)?,
            vm_clock_nsec: word(24)?,
            vm_state_size: be64(extra, 0).unwrap_or(u64::from(half(32)?)),
            icount: be64(extra, 16).filter(|n| *n != NO_ICOUNT),
            disk_size: be64(extra, 8),
            unknown_extra: extra.get(KNOWN_EXTRA_BYTES..).unwrap_or_default().to_vec(),
        };
        if snapshot.l1.count > L1_ENTRIES_MAX {
            return Err(bad(format!("an L1 table of {} entries", snapshot.l1.count)));
        }
        Ok(snapshot)
    }

    /// Appends the entry, padded before to 8 bytes, with the sizes that this snapshot has.
    pub(super) fn encode(&self, disk_size: u64, table: &mut Vec<u8>) {
        table.resize(table.len().next_multiple_of(8), 0);
        let small = u32::try_from(self.vm_state_size).unwrap_or(0);
        let extra = KNOWN_EXTRA_BYTES + self.unknown_extra.len();
        table.extend(self.l1.offset.to_be_bytes());
        table.extend((self.l1.count as u32).to_be_bytes());
        table.extend((self.id.len() as u16).to_be_bytes());
        table.extend((self.name.len() as u16).to_be_bytes());
        table.extend(self.date_sec.to_be_bytes());
        table.extend(self.date_nsec.to_be_bytes());
        table.extend(self.vm_clock_nsec.to_be_bytes());
        table.extend(small.to_be_bytes());
        table.extend((extra as u32).to_be_bytes());
        table.extend(self.vm_state_size.to_be_bytes());
        table.extend(self.disk_size.unwrap_or(disk_size).to_be_bytes());
        table.extend(self.icount.unwrap_or(NO_ICOUNT).to_be_bytes());
        table.extend(&self.unknown_extra);
        table.extend(&self.id);
        table.extend(&self.name);
    }

    /// Refuses what an entry cannot hold.
    pub(super) fn check(&self) -> Result<()> {
        let limits = [
            ("id", self.id.len(), usize::from(u16::MAX)),
            ("name", self.name.len(), usize::from(u16::MAX)),
            (
                "extra data",
                self.unknown_extra.len(),
                EXTRA_BYTES_MAX - KNOWN_EXTRA_BYTES,
            ),
        ];
        for (what, len, max) in limits {
            if len > max {
                let name = String::from_utf8_lossy(&self.name);
                let why = format!("the {what} of snapshot {name:?} has {len} bytes, {max} fit");
                return Err(Error::invalid("writing a qcow2 snapshot", why));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        Snapshot {
            l1: Extent {
                offset: 65536,
                count: 3,
            },
            id: b"7".to_vec(),
            name: b"before \xff".to_vec(),
            date_sec: 5,
            date_nsec: 6,
            vm_clock_nsec: 7,
            vm_state_size: 8 << 32,
            icount: None,
            disk_size: Some(9),
            unknown_extra: b"what is to come".to_vec(),
        }
    }

    #[test]
    fn an_entry_reads_as_it_was_written() {
        let icount = Some(u64::MAX - 1);
        for whole in [
            snapshot(),
            Snapshot {
                icount,
                ..snapshot()
            },
        ] {
            let mut table = vec![0; 3];
            whole.encode(9, &mut table);
            let entry = &table[8..];
            assert_eq!(Snapshot::entry_bytes(entry).unwrap(), entry.len());
            assert_eq!(Snapshot::decode(entry).unwrap(), whole);
            for cut in 0..entry.len() - whole.name.len() {
                assert!(Snapshot::decode(&entry[..cut]).is_err());
            }
        }
    }

    #[test]
    fn short_extra_data_leaves_out_what_was_not_known_then() {
        let mut table = Vec::new();
        snapshot().encode(9, &mut table);
        let mut old = table[..FIXED_BYTES].to_vec();
        old[32..36].copy_from_slice(&77_u32.to_be_bytes());
        old[36..40].fill(0);
        old.extend(b"7old");
        let old = Snapshot::decode(&old).unwrap();
        assert_eq!(
            (old.vm_state_size, old.disk_size, old.icount),
            (77, None, None)
        );
        assert_eq!((old.id, old.name), (b"7".to_vec(), b"old".to_vec()));
    }
}
