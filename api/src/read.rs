//! Snapshots read without going to them: views, and VM state as a stream.

use crate::disk::{Exported, Output};
use crate::select::SnapshotRef;
use crate::system::System;
use std::io::Write;
use stillpoint_store::format::entry::Content;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::id::Uid;
use stillpoint_store::ops::view::View;
use stillpoint_store::progress::Progress;
use stillpoint_store::{Error, ErrorKind, Result};

/// Bytes of decoded frames that a view keeps. Views that are to share a budget come from one `Store::reader`.
pub const VIEW_CACHE_BYTES: usize = 64 << 20;

/// What of a snapshot is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Part {
    /// The disk.
    #[default]
    Disk,
    /// The saved VM state.
    VmState,
}

impl System {
    /// A view of a snapshot, or of the present contents of a device without an image: bytes at any position, from many
    /// threads, while the device's image is not touched. gc leaves alone what it shows while it lives.
    ///
    /// ```
    /// use stillpoint_api::{Create, OpenOptions, Part, System};
    /// # use stillpoint_api::store::geometry::Geometry;
    /// # use stillpoint_api::store::progress::Progress;
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let (store, image) = (folder.path().join("store"), folder.path().join("web1.raw"));
    /// # std::fs::write(&image, vec![1; 100_000])?;
    /// # System::init(&store, Geometry::DEFAULT)?;
    /// # let system = System::open(&store, OpenOptions::default())?;
    /// # let progress = Progress::default();
    /// # system.device_add("web1", &image, "raw", false)?;
    /// # let monday = Create { name: Some("monday".into()), ..Create::default() };
    /// system.create(&monday, &progress)?;
    /// std::fs::remove_file(&image)?; // nobody needs it for this
    ///
    /// let view = system.view("web1@monday", Part::Disk)?;
    /// let mut tail = [0; 8];
    /// assert_eq!(view.read_at(99_995, &mut tail)?, 5);
    /// assert_eq!(tail, [1, 1, 1, 1, 1, 0, 0, 0]);
    /// for extent in view.extents(0, u64::MAX)? {
    ///     let extent = extent?;
    ///     println!("{} bytes of {:?} at {}", extent.length, extent.kind, extent.start);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn view(&self, reference: &str, part: Part) -> Result<View<'_>> {
        let content = self.content_of(reference, part)?;
        self.store.view(content, VIEW_CACHE_BYTES)
    }

    /// The contents that a reference means. `NotFound` for the VM state of a snapshot without any.
    pub fn content_of(&self, reference: &str, part: Part) -> Result<Content> {
        if part == Part::Disk {
            return self.resolve(reference).map(|(content, _)| content);
        }
        let parsed = SnapshotRef::parse(reference)?;
        let catalog = self.store.refresh()?;
        let device = crate::select::device(&catalog, &parsed.device)?;
        let selector = parsed.snapshot.ok_or_else(|| {
            Error::invalid(
                "reading VM state",
                format!("{reference:?} names no snapshot"),
            )
            .hint("name one, as in DEVICE@SNAPSHOT")
        })?;
        part_of(&selector.get(&catalog, device)?.record, part)
    }

    /// The same of a snapshot known by its uid.
    pub fn content_of_uid(&self, uid: Uid, part: Part) -> Result<Content> {
        let catalog = self.store.refresh()?;
        let snapshot = catalog.snapshot(&uid).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("looking for snapshot {uid}"))
                .detail("there is none of that uid, or it was deleted")
        })?;
        part_of(&snapshot.record, part)
    }

    /// Writes the VM state of a snapshot, as `export` does a disk.
    pub fn export_vm_state(
        &self,
        reference: &str,
        output: Output<'_>,
        progress: &Progress,
    ) -> Result<Exported> {
        let content = self.content_of(reference, Part::VmState)?;
        self.export_content(content, output, progress)
    }

    /// Streams the VM state of a snapshot, verified, and returns what it is.
    pub fn read_vm_state(
        &self,
        reference: &str,
        out: &mut dyn Write,
        progress: &Progress,
    ) -> Result<Content> {
        let content = self.content_of(reference, Part::VmState)?;
        self.store.restore_stream(content, out, progress)?;
        Ok(content)
    }
}

fn part_of(record: &SnapshotRecord, part: Part) -> Result<Content> {
    match part {
        Part::Disk => Ok(record.content),
        Part::VmState => record.vm_state.ok_or_else(|| {
            let name = crate::view::text(&record.name);
            Error::new(ErrorKind::NotFound, "reading VM state")
                .detail(format!("snapshot {name:?} has none on this device"))
                .hint("`still list` shows where VM state is: one device of a group has it")
        }),
    }
}
