//! Disks with earlier states, from anywhere: what changes are taken in as is what the whole would have been.

#![expect(
    clippy::unwrap_used,
    reason = "a test says what went wrong by its panic"
)]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::disk::{Disk, DiskFile, OpenMode};
use stillpoint_api::store::history::{Earlier, History, Ranges};
use stillpoint_api::store::progress::Progress;
use stillpoint_api::store::world::Moment;
use stillpoint_api::{
    Error, ErrorKind, Import, ImportHistory, ImportedHistory, OpenOptions, Result, System, Which,
};
use support::{Dice, GEOMETRY};

/// States that are files, each with the one that it is based on.
struct Files {
    folder: PathBuf,
    earlier: Vec<Earlier>,
    bases: Vec<Option<usize>>,
    vm_states: Vec<bool>,
    spoilt: bool,
}

impl Files {
    fn path(&self, state: usize) -> PathBuf {
        self.folder.join(format!("state{state}"))
    }

    fn open(path: &Path) -> Result<Box<dyn DiskFile>> {
        RealDisk.open(path, OpenMode::Read)
    }
}

impl History for Files {
    fn earlier(&self) -> &[Earlier] {
        &self.earlier
    }

    fn disk(&self, state: usize) -> Result<Box<dyn DiskFile + '_>> {
        Self::open(&self.path(state)).map(|file| file as Box<dyn DiskFile + '_>)
    }

    fn vm_state(&self, state: usize) -> Result<Option<Box<dyn DiskFile + '_>>> {
        if !self.vm_states[state] {
            return Ok(None);
        }
        self.disk(state).map(Some)
    }

    fn base(&self, state: usize) -> Result<Option<usize>> {
        Ok(self.bases[state])
    }

    /// Blocks of 512 bytes that differ, and what only one of the two has.
    fn changes(&self, state: usize, base: usize) -> Result<Ranges<'_>> {
        let (new, old) = (
            fs::read(self.path(state)).unwrap(),
            fs::read(self.path(base)).unwrap(),
        );
        let mut ranges = Vec::new();
        for (n, block) in new.chunks(512).enumerate() {
            let at = n * 512;
            if old.get(at..at + block.len()) != Some(block) {
                ranges.push(Ok(at as u64..(at + block.len()) as u64));
            }
        }
        Ok(Box::new(ranges.into_iter()))
    }

    fn check_unchanged(&self) -> Result<()> {
        if self.spoilt {
            return Err(Error::new(ErrorKind::Busy, "reading the image"));
        }
        Ok(())
    }
}

fn store(folder: &Path) -> System {
    System::init(&folder.join("store"), GEOMETRY).unwrap();
    System::open(&folder.join("store"), OpenOptions::default()).unwrap()
}

fn earlier(n: usize) -> Earlier {
    Earlier {
        id: format!("{}", n * 3 + 1).into_bytes(),
        name: format!("s{n}").into_bytes(),
        date: Moment {
            sec: 7 + n as u64,
            nsec: 9,
        },
        vm_clock_nsec: n as u64,
        icount: Some(n as u64),
        extra: vec![n as u8; n],
    }
}

/// States that grow, shrink and change here and there.
fn made_up(folder: &Path, dice: &mut Dice, count: usize) -> Files {
    let mut states: Vec<Vec<u8>> = Vec::new();
    let mut bases = Vec::new();
    for n in 0..=count {
        let base = (n > 0).then(|| dice.below(n));
        let mut bytes = base.map_or_else(|| vec![0; 300_000], |b| states[b].clone());
        for _ in 0..8 {
            let len = 1 + dice.below(20_000);
            let at = dice.below(bytes.len());
            let end = bytes.len().min(at + len);
            let byte = dice.below(4) as u8;
            bytes[at..end].fill(byte);
        }
        if dice.one_in(2) {
            bytes.resize(200_000 + dice.below(200_000), dice.below(3) as u8);
        }
        fs::write(folder.join(format!("state{n}")), &bytes).unwrap();
        states.push(bytes);
        bases.push(base);
    }
    Files {
        folder: folder.to_owned(),
        earlier: (0..count).map(earlier).collect(),
        bases,
        vm_states: (0..=count).map(|n| n < count && n % 2 == 1).collect(),
        spoilt: false,
    }
}

fn import(system: &System, history: &Files, name: Option<&str>) -> Result<ImportedHistory> {
    let import = ImportHistory {
        history,
        device: "d",
        name,
    };
    system.import_history(&import, &Progress::default())
}

#[test]
fn changes_make_the_manifest_that_the_whole_disk_has() {
    for seed in 0..8 {
        let folder = tempfile::tempdir().unwrap();
        let history = made_up(folder.path(), &mut Dice::new(seed), 6);
        let system = store(folder.path());
        let made = import(&system, &history, None).unwrap();
        let kept = made.kept(&history);
        system
            .compare_history(&kept, &history, &Progress::default())
            .unwrap();
        for (state, kept) in kept.iter().enumerate() {
            let whole = Import {
                image: &history.path(state),
                device: &format!("whole{state}"),
                name: None,
            };
            let whole = system.import(&whole, &Progress::default()).unwrap();
            assert_eq!(
                whole.devices[0].content, kept.disk,
                "seed {seed}, state {state}"
            );
        }
        let (head, records) = system.states("d", Which::All).unwrap();
        assert_eq!(head, kept[6].disk);
        for (n, record) in records.iter().enumerate() {
            let fields = Earlier {
                id: record.id.clone(),
                name: record.name.clone(),
                date: Moment {
                    sec: record.date_sec,
                    nsec: record.date_nsec,
                },
                vm_clock_nsec: record.vm_clock_nsec,
                icount: record.icount,
                extra: record.extra.clone(),
            };
            assert_eq!(fields, earlier(n));
            let parent = history.bases[n].map(|base| records[base].uid);
            assert_eq!(record.parent, parent);
        }
        assert_eq!(records.len(), 6, "nothing but what the image had");
    }
}

#[test]
fn the_present_state_gets_an_id_of_its_own_also_beside_the_last_number_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let system = store(folder.path());
    let mut history = made_up(folder.path(), &mut Dice::new(8), 3);
    history.earlier[1].id = u64::MAX.to_string().into_bytes();
    history.earlier[2].id = b"".to_vec();
    import(&system, &history, Some("present")).unwrap();
    let ids: Vec<Vec<u8>> = system
        .list_raw("d")
        .unwrap()
        .into_iter()
        .map(|s| s.id)
        .collect();
    assert_eq!(ids, [&b"1"[..], b"18446744073709551615", b"2", b"3"]);
}

#[test]
fn an_image_that_changed_meanwhile_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = made_up(folder.path(), &mut Dice::new(1), 3);
    history.spoilt = true;
    let system = store(folder.path());
    let error = import(&system, &history, None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(system.devices().unwrap().is_empty());
    history.spoilt = false;
    import(&system, &history, None).unwrap();
    assert_eq!(system.list(Some("d")).unwrap().len(), 3);
}

#[test]
fn what_the_device_has_already_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = made_up(folder.path(), &mut Dice::new(2), 2);
    let system = store(folder.path());
    let made = import(&system, &history, Some("now")).unwrap();
    let names: Vec<&str> = made.snapshots.iter().map(|s| &*s.name).collect();
    let ids: Vec<&str> = made.snapshots.iter().map(|s| &*s.id).collect();
    assert_eq!((names, ids), (vec!["s0", "s1", "now"], vec!["1", "4", "5"]));
    let again = import(&system, &history, None).unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    history.earlier[0].id = b"10".to_vec();
    history.earlier[0].name = b"other".to_vec();
    history.earlier[1] = history.earlier[0].clone();
    let clash = import(&system, &history, Some("now")).unwrap_err();
    assert_eq!(clash.kind(), ErrorKind::AlreadyExists);
    // Two of one name and id, as QEMU allows them.
    import(&system, &history, None).unwrap();
    assert_eq!(system.list(Some("d")).unwrap().len(), 5);
}

#[test]
fn what_a_record_has_no_room_for_is_refused_before_anything_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = made_up(folder.path(), &mut Dice::new(4), 3);
    let system = store(folder.path());
    // Whoever reads it finds it changed.
    history.spoilt = true;
    for (id, name, extra) in [(128, 1, 0), (1, 256, 0), (1, 1, 1025)] {
        history.earlier[1].id = vec![b'7'; id];
        history.earlier[1].name = vec![b'n'; name];
        history.earlier[1].extra = vec![0; extra];
        let error = import(&system, &history, None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains("name \"n"), "{error}");
    }
    assert!(system.devices().unwrap().is_empty());
}

#[test]
fn a_byte_that_differs_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let history = made_up(folder.path(), &mut Dice::new(3), 2);
    let system = store(folder.path());
    let made = import(&system, &history, None).unwrap();
    let mut bytes = fs::read(history.path(1)).unwrap();
    bytes[100_000] ^= 1;
    fs::write(history.path(1), bytes).unwrap();
    let kept = made.kept(&history);
    let error = system
        .compare_history(&kept, &history, &Progress::default())
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    let said = error.to_string();
    assert!(said.contains("s1") && said.contains("100000"), "{said}");
}
