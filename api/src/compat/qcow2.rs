//! What QEMU's qcow2 driver made of a table of snapshots: ids, which snapshot an argument means, refusals. The table
//! itself is behind a trait: the store's, or one in memory.

use crate::compat::driver::{Driver, DriverError, DriverResult, Op};
use crate::compat::eras::{CallerId, Flags, IdParse};
use crate::compat::errno;
use crate::compat::info::{ICOUNT_NONE, IdStr, QemuSnapshotInfo};
use stillpoint_store::id::Uid;

/// Entries of a table at most, where releases limit them.
const ENTRIES_MAX: usize = 65_536;
/// Bytes of a table at most, likewise.
const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Bytes of an entry before its extra data.
const ENTRY_HEADER_BYTES: u64 = 40;

/// An entry of a table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Which one: ids and names need not be unique.
    pub uid: Uid,
    /// What callers see of it.
    pub info: QemuSnapshotInfo,
    /// Bytes of the disk then.
    pub disk_size: u64,
    /// Bytes of extra data that nobody knows.
    pub unknown_extra: u64,
}

/// Decides the id of a new snapshot from the entries that there are at the moment that counts.
pub type ChooseId<'a> = &'a mut dyn FnMut(&[Entry]) -> DriverResult<IdStr>;

/// A table of snapshots and the disk that it belongs to.
pub trait Table: Send {
    /// The format's name, for messages.
    fn format_name(&self) -> &str;

    /// The image has an external data file.
    fn has_data_file(&self) -> bool {
        false
    }

    /// The disk's size cannot change while it has snapshots: a version 2 image, or a block device.
    fn has_fixed_size(&self) -> bool {
        false
    }

    /// All entries in the order of their making.
    fn entries(&mut self) -> DriverResult<Vec<Entry>>;

    /// Adds a snapshot of the disk and of the first `info.vm_state_size` bytes of active VM state, at the table's end.
    fn put(&mut self, info: &QemuSnapshotInfo, id: ChooseId<'_>) -> DriverResult<IdStr>;

    /// Makes disk, size and active VM state those of the snapshot.
    fn restore(&mut self, uid: Uid) -> DriverResult<()>;

    /// Removes the snapshot.
    fn remove(&mut self, uid: Uid) -> DriverResult<()>;

    /// The snapshot that reads are of from now on, if any: what it holds stays readable whatever becomes of it.
    fn show(&mut self, _of: Option<Uid>) -> DriverResult<()> {
        Ok(())
    }

    /// Bytes of the disk.
    fn size(&mut self) -> DriverResult<u64>;

    /// Reads the disk, or that of the snapshot shown; what lies beyond its end is zeros.
    fn read_at(&mut self, of: Option<Uid>, at: u64, into: &mut [u8]) -> DriverResult<()>;

    /// Writes active VM state.
    fn write_vmstate(&mut self, at: u64, bytes: &[u8]) -> DriverResult<()>;

    /// Reads active VM state, or that of the snapshot shown; what was never written is zeros.
    fn read_vmstate(&mut self, of: Option<Uid>, at: u64, into: &mut [u8]) -> DriverResult<()>;

    /// Bytes of active VM state, or of that of the snapshot shown.
    fn vmstate_len(&mut self, of: Option<Uid>) -> DriverResult<u64>;

    /// Forgets the active VM state.
    fn discard_vmstate(&mut self) -> DriverResult<()>;
}

/// A qcow2 image, or what behaves like one.
pub struct Qcow2<T> {
    table: T,
    shown: Option<Uid>,
}

impl<T: Table> Qcow2<T> {
    /// A driver over the table.
    pub fn new(table: T) -> Self {
        Self { table, shown: None }
    }

    /// The table.
    pub fn table(&mut self) -> &mut T {
        &mut self.table
    }

    fn check_data_file(&self, flags: &Flags) -> DriverResult<()> {
        if flags.data_file_refusal && self.table.has_data_file() {
            return Err(DriverError::errno(errno::ENOTSUP));
        }
        Ok(())
    }

    fn first(&mut self, id: Option<&[u8]>, name: Option<&[u8]>) -> DriverResult<Option<Entry>> {
        let is = |e: &Entry| {
            id.is_none_or(|id| e.info.id_str.as_bytes() == id)
                && name.is_none_or(|name| e.info.name.as_bytes() == name)
        };
        Ok(self.table.entries()?.into_iter().find(is))
    }

    /// Over the whole table as id, and only then as name.
    fn id_then_name(&mut self, text: &[u8]) -> DriverResult<Option<Entry>> {
        match self.first(Some(text), None)? {
            Some(entry) => Ok(Some(entry)),
            None => self.first(None, Some(text)),
        }
    }

    fn check_size(&mut self, flags: &Flags, entry: &Entry) -> DriverResult<()> {
        let size = self.table.size()?;
        if entry.disk_size == size || (flags.goto_resize && !self.table.has_fixed_size()) {
            return Ok(());
        }
        let (then, why) = (
            entry.disk_size,
            if flags.goto_resize {
                "and cannot be resized"
            } else {
                "which this release cannot load"
            },
        );
        let report = format!("the snapshot is of {then} bytes, the image has {size}, {why}");
        Err(DriverError {
            report: Some(report.into_bytes()),
            ..DriverError::errno(errno::ENOTSUP)
        })
    }
}

impl<T: Table> Driver for Qcow2<T> {
    fn format_name(&self) -> &str {
        self.table.format_name()
    }

    fn has(&self, _op: Op) -> bool {
        true
    }

    fn create(&mut self, flags: &Flags, sn: &mut QemuSnapshotInfo) -> DriverResult<()> {
        self.check_data_file(flags)?;
        let mut info = *sn;
        if !flags.icount {
            info.icount = ICOUNT_NONE;
        }
        if !flags.vm_state_size_wide {
            info.vm_state_size &= u64::from(u32::MAX);
        }
        let wanted = sn.id_str;
        let name_bytes = info.name.as_bytes().len() as u64;
        sn.id_str = self.table.put(&info, &mut |entries| {
            check_room(flags, entries, name_bytes)?;
            choose_id(flags, entries, wanted)
        })?;
        if flags.create_discards_vmstate {
            self.table.discard_vmstate()?;
        }
        Ok(())
    }

    fn goto(&mut self, flags: &Flags, id_or_name: &[u8]) -> DriverResult<()> {
        self.check_data_file(flags)?;
        let entry = self.id_then_name(id_or_name)?;
        let entry = entry.ok_or_else(|| DriverError::errno(errno::ENOENT))?;
        self.check_size(flags, &entry)?;
        self.shown = None;
        self.table.show(None)?;
        self.table.restore(entry.uid)
    }

    fn delete(
        &mut self,
        flags: &Flags,
        id: Option<&[u8]>,
        name: Option<&[u8]>,
    ) -> DriverResult<()> {
        self.check_data_file(flags)?;
        let missing = || DriverError::new(errno::ENOENT, "Can't find the snapshot");
        let entry = self.first(id, name)?.ok_or_else(missing)?;
        self.table.remove(entry.uid)
    }

    fn list(&mut self, flags: &Flags) -> DriverResult<Vec<QemuSnapshotInfo>> {
        self.check_data_file(flags)?;
        let seen = |e: Entry| {
            let mut info = e.info;
            if !flags.icount {
                info.icount = ICOUNT_NONE;
            }
            if !flags.vm_state_size_wide {
                info.vm_state_size &= u64::from(u32::MAX);
            }
            info
        };
        Ok(self.table.entries()?.into_iter().map(seen).collect())
    }

    fn load_tmp(&mut self, _: &Flags, id: Option<&[u8]>, name: Option<&[u8]>) -> DriverResult<()> {
        let missing = || DriverError::new(errno::ENOENT, "Can't find snapshot");
        let entry = self.first(id, name)?.ok_or_else(missing)?;
        self.table.show(Some(entry.uid))?;
        self.shown = Some(entry.uid);
        Ok(())
    }

    fn save_vmstate(&mut self, at: u64, bytes: &[u8]) -> DriverResult<()> {
        self.table.write_vmstate(at, bytes)
    }

    fn load_vmstate(&mut self, at: u64, into: &mut [u8]) -> DriverResult<()> {
        self.table.read_vmstate(self.shown, at, into)
    }

    fn vmstate_len(&mut self) -> DriverResult<u64> {
        self.table.vmstate_len(self.shown)
    }

    fn size(&mut self) -> DriverResult<u64> {
        self.table.size()
    }

    fn read_at(&mut self, at: u64, into: &mut [u8]) -> DriverResult<()> {
        self.table.read_at(self.shown, at, into)
    }
}

/// -EFBIG for a table that the release could not write.
fn check_room(flags: &Flags, entries: &[Entry], name_bytes: u64) -> DriverResult<()> {
    if !flags.table_limits {
        return Ok(());
    }
    let extra = u64::from(flags.extra_written);
    let bytes = |id: u64, name: u64, unknown: u64| {
        (ENTRY_HEADER_BYTES + extra + unknown + id + name).next_multiple_of(8)
    };
    let of = |e: &Entry| {
        let (id, name) = (e.info.id_str.as_bytes(), e.info.name.as_bytes());
        bytes(id.len() as u64, name.len() as u64, e.unknown_extra)
    };
    // The new id has 20 digits at most.
    let all = entries.iter().map(of).sum::<u64>() + bytes(20, name_bytes, 0);
    if entries.len() >= ENTRIES_MAX || all > TABLE_BYTES_MAX {
        return Err(DriverError::errno(errno::EFBIG));
    }
    Ok(())
}

fn choose_id(flags: &Flags, entries: &[Entry], wanted: IdStr) -> DriverResult<IdStr> {
    match flags.caller_id {
        CallerId::Used(taken) if !wanted.is_empty() => {
            if entries.iter().any(|e| e.info.id_str == wanted) {
                return Err(DriverError::errno(taken));
            }
            Ok(wanted)
        }
        _ => Ok(next_id(flags.id_parse, entries)),
    }
}

/// The highest id and one, in the arithmetic of the release. What is no number counts as 0.
fn next_id(parse: IdParse, entries: &[Entry]) -> IdStr {
    let ids = entries.iter().map(|e| strtoul(e.info.id_str.as_bytes()));
    let next = match parse {
        IdParse::Int => {
            let highest = ids.map(|id| (id as u32).cast_signed()).fold(0, i32::max);
            highest.wrapping_add(1).to_string()
        }
        IdParse::UnsignedLong => ids.fold(0, u64::max).wrapping_add(1).to_string(),
    };
    IdStr::new(next.as_bytes())
}

/// C's `strtoul(text, NULL, 10)`: blanks, a sign, digits as far as they go; the highest number for what is higher.
fn strtoul(text: &[u8]) -> u64 {
    let blank = |b: &u8| b.is_ascii_whitespace() || *b == 0x0b;
    let start = text.iter().position(|b| !blank(b)).unwrap_or(text.len());
    let (negative, digits) = match &text[start..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] | rest => (false, rest),
    };
    let mut digits = digits.iter().take_while(|b| b.is_ascii_digit());
    let number = digits.try_fold(0u64, |n, digit| {
        n.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    });
    match number {
        Some(n) if negative => n.wrapping_neg(),
        Some(n) => n,
        None => u64::MAX,
    }
}
