//! A qcow2 file: every state of it is mapped, read and, where it is small, written anew, which must read the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::io::Read;
use std::path::Path;
use stillpoint_migrate::Result;
use stillpoint_migrate::qcow2::write::{Options, write};
use stillpoint_migrate::qcow2::{Copy, Gate, Image, State};
use stillpoint_store::disk::sim::SimDisk;
use stillpoint_store::disk::{Disk, OpenMode};
use stillpoint_store::progress::Progress;

/// What is read of a state, and copied at most.
const READ_BYTES: u64 = 256 << 10;

fuzz_target!(|data: &[u8]| {
    let disk = SimDisk::new(1);
    let path = Path::new("/a");
    let file = disk
        .open(path, OpenMode::CreateNew)
        .expect("nothing is there");
    file.write_at(0, data).expect("there is space");
    drop(file);
    let Ok(image) = Image::open(&disk, path, &Gate::closed()) else {
        return;
    };
    let mut all = walk(&image, image.active(), data.len());
    for n in 0..image.top().snapshots().len().min(50) {
        let state = image.snapshot(n);
        if let (Ok(new), Ok(old)) = (image.active(), &state) {
            let changes = new.changes(old).expect("they are of one file");
            assert!(changes.count() <= data.len(), "changes are between entries");
        }
        all &= walk(&image, state, data.len());
    }
    let small = image.active().is_ok_and(|state| state.size() < READ_BYTES);
    if all && small && image.top().snapshots().len() < 50 {
        // What cannot be written, such as disks that are too large, gives an error.
        let _refused = rewrite(&disk, &image);
    }
});

/// True when all of a state could be read.
fn walk(image: &Image, state: Result<State>, file_bytes: usize) -> bool {
    let Ok(state) = state else {
        return false;
    };
    let (mut end, mut fine, mut steps) = (0, true, 0);
    let mut left = READ_BYTES;
    for mapped in image.map(&state, 0..u64::MAX) {
        let Ok(mapped) = mapped.map(|m| m.mapped) else {
            return false;
        };
        assert!(
            mapped.start == end && mapped.len > 0,
            "{mapped:?} after {end}"
        );
        end = mapped.end();
        steps += 1;
        let mut buf = vec![0; mapped.len.min(left) as usize];
        left -= buf.len() as u64;
        fine &= image.read(&state, mapped.start, &mut buf).is_ok();
    }
    assert_eq!(end, state.size(), "a disk is mapped to its end");
    // An entry of 8 bytes, extended ones with 32 subclusters in 16.
    assert!(steps <= 2 * file_bytes + 2, "{steps} ranges");
    let mut vm = state.read_vm_state().take(READ_BYTES);
    let read = std::io::copy(&mut vm, &mut std::io::sink());
    if let Ok(n) = read {
        assert_eq!(n, state.vm_state_size().min(READ_BYTES));
    }
    fine && read.is_ok() && state.vm_state_size() < READ_BYTES && end < READ_BYTES
}

fn rewrite(disk: &SimDisk, image: &Image) -> Result<()> {
    let path = Path::new("/b");
    let file = disk.open(path, OpenMode::CreateNew)?;
    let source = Copy::new(image)?;
    write(
        &*file,
        &source.draft(),
        &Options::default(),
        &source,
        &Progress::default(),
    )?;
    drop(file);
    let copy = Image::open(disk, path, &Gate::closed()).expect("we wrote it");
    let (old, new) = (image.active()?, copy.active().expect("we wrote it"));
    let mut before = vec![0; old.size() as usize];
    let mut after = before.clone();
    image.read(&old, 0, &mut before)?;
    copy.read(&new, 0, &mut after).expect("we wrote it");
    assert!(before == after, "the copy differs");
    assert_eq!(image.top().snapshots().len(), copy.top().snapshots().len());
    Ok(())
}
