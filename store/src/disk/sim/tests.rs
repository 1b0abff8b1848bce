use super::*;
use crate::ErrorKind;
use crate::disk::Extent;

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}

fn whole(disk: &SimDisk, name: &str) -> Result<Vec<u8>> {
    let file = disk.open(&path(name), OpenMode::Read)?;
    let mut bytes = vec![0xEE; file.len()? as usize];
    let n = file.read_at(0, &mut bytes)?;
    assert_eq!(n, bytes.len());
    Ok(bytes)
}

/// A durable file `/a` of three sectors of 1, of which an unsynced write made 2.
fn rewritten() -> Result<SimDisk> {
    let disk = SimDisk::new(1);
    let file = disk.open(&path("/a"), OpenMode::CreateNew)?;
    file.write_at(0, &[1; 1536])?;
    file.sync()?;
    disk.sync_folder(&path("/"))?;
    file.write_at(0, &[2; 1536])?;
    Ok(disk)
}

#[test]
fn what_was_synced_survives_every_crash() -> Result<()> {
    let disk = rewritten()?;
    disk.open(&path("/a"), OpenMode::Write)?.sync()?;
    for mode in CrashMode::ALL {
        assert_eq!(whole(&disk.restart(mode), "/a")?, [2; 1536], "{mode:?}");
    }
    Ok(())
}

#[test]
fn each_mode_keeps_of_an_unsynced_write_what_it_says() -> Result<()> {
    let disk = rewritten()?;
    let left = |mode| whole(&disk.restart(mode), "/a");
    assert_eq!(left(CrashMode::NothingUnsynced)?, [1; 1536]);
    assert_eq!(left(CrashMode::AllUnsynced)?, [2; 1536]);
    assert_eq!(left(CrashMode::DataBeforeNames)?, [2; 1536]);
    assert_eq!(left(CrashMode::NamesBeforeData)?, [1; 1536]);
    let torn = left(CrashMode::TornLast)?;
    assert_ne!(torn, [2; 1536], "the last write is never whole");
    assert!(
        torn.chunks(512)
            .all(|sector| sector == [1; 512] || sector == [2; 512])
    );
    assert!(
        torn.is_sorted_by(|a, b| a >= b),
        "the first sectors are the kept ones"
    );
    Ok(())
}

#[test]
fn a_random_crash_mixes_sectors_and_repeats_itself() -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let run = || {
            let disk = SimDisk::new(seed);
            let file = disk.open(&path("/a"), OpenMode::CreateNew)?;
            disk.sync_folder(&path("/"))?;
            file.write_at(100, &[7; 2000])?;
            whole(&disk.restart(CrashMode::Random), "/a")
        };
        let bytes = run()?;
        assert_eq!(bytes, run()?, "the same seed gives the same crash");
        seen.insert(bytes);
    }
    assert!(seen.contains(&Vec::new()), "sometimes nothing is left");
    assert!(
        seen.len() > 4,
        "sectors are lost one by one: {}",
        seen.len()
    );
    Ok(())
}

#[test]
fn names_need_the_sync_of_their_folder() -> Result<()> {
    let disk = SimDisk::new(3);
    disk.create_folders(&path("/d/e"))?;
    let file = disk.open(&path("/d/e/f"), OpenMode::CreateNew)?;
    file.write_at(0, b"x")?;
    file.sync()?;
    disk.sync_folder(&path("/d/e"))?;
    disk.sync_folder(&path("/"))?;
    let without_d = disk.restart(CrashMode::DataBeforeNames);
    assert_eq!(
        without_d.snapshot_paths(),
        Vec::<PathBuf>::new(),
        "/d was not synced"
    );
    let after = disk.restart(CrashMode::AllUnsynced);
    assert_eq!(after.snapshot_paths(), [path("/d/e/f")]);
    assert!(after.link(&path("/d/e/f"), &path("/d/g"))?);
    after.remove(&path("/d/e/f"))?;
    assert_eq!(
        after.restart(CrashMode::NothingUnsynced).snapshot_paths(),
        [path("/d/e/f")]
    );
    assert_eq!(
        after.restart(CrashMode::AllUnsynced).snapshot_paths(),
        [path("/d/g")]
    );
    Ok(())
}

#[test]
fn a_name_may_survive_without_its_contents() -> Result<()> {
    let disk = SimDisk::new(4);
    let file = disk.open(&path("/a"), OpenMode::CreateNew)?;
    file.write_at(0, &[1; 5000])?;
    disk.rename(&path("/a"), &path("/b"))?;
    let bytes = whole(&disk.restart(CrashMode::NamesBeforeData), "/b")?;
    assert!(bytes.is_empty() || bytes == [0; 5000]);
    Ok(())
}

#[test]
fn from_the_crash_on_every_call_fails() -> Result<()> {
    let disk = SimDisk::new(5);
    let file = disk.open(&path("/a"), OpenMode::CreateNew)?;
    file.write_at(0, b"one")?;
    disk.crash_at(3);
    assert!(file.write_at(0, b"two").is_err());
    assert!(file.read_at(0, &mut [0; 3]).is_err());
    assert!(disk.list(&path("/")).is_err());
    assert!(disk.remove(&path("/a")).is_err());
    assert!(disk.has_crashed());
    let after = disk.restart(CrashMode::AllUnsynced);
    assert_eq!(whole(&after, "/a")?, b"two");
    assert_eq!(after.calls(), 0);
    Ok(())
}

#[test]
fn a_failed_sync_loses_what_it_was_for() -> Result<()> {
    let disk = SimDisk::new(6);
    let file = disk.open(&path("/a"), OpenMode::CreateNew)?;
    file.write_at(0, b"one")?;
    disk.fail_call(disk.calls() + 1, Fault::Eio);
    assert!(file.sync().is_err());
    file.sync()?;
    disk.fail_call(disk.calls() + 1, Fault::Eio);
    assert!(disk.sync_folder(&path("/")).is_err());
    disk.sync_folder(&path("/"))?;
    assert_eq!(whole(&disk, "/a")?, b"one");
    assert!(
        disk.restart(CrashMode::AllUnsynced)
            .snapshot_paths()
            .is_empty()
    );
    Ok(())
}

#[test]
fn a_lying_sync_makes_nothing_durable() -> Result<()> {
    let disk = SimDisk::new(7);
    disk.lie(Lie::FileSync, "/a");
    disk.lie(Lie::FolderSync, "/d");
    disk.create_folders(&path("/d"))?;
    for name in ["/a", "/b", "/d/c"] {
        let file = disk.open(&path(name), OpenMode::CreateNew)?;
        file.write_at(0, b"x")?;
        file.sync()?;
    }
    disk.sync_folder(&path("/d"))?;
    disk.sync_folder(&path("/"))?;
    let after = disk.restart(CrashMode::NothingUnsynced);
    assert_eq!(after.snapshot_paths(), [path("/a"), path("/b")]);
    assert_eq!(
        (whole(&after, "/a")?.len(), whole(&after, "/b")?.len()),
        (0, 1)
    );
    Ok(())
}

#[test]
fn a_full_disk_takes_writes_only_where_space_was_reserved() -> Result<()> {
    let disk = SimDisk::new(8);
    disk.set_space(5 * 4096);
    let reserve = disk.open(&path("/reserve"), OpenMode::CreateNew)?;
    reserve.allocate(3 * 4096)?;
    let other = disk.open(&path("/other"), OpenMode::CreateNew)?;
    other.write_at(0, &[1; 2 * 4096])?;
    assert_eq!(disk.free_space(), Some(0));
    let full = other.write_at(2 * 4096, b"x").expect_err("no space");
    assert_eq!(full.kind(), ErrorKind::NoSpace);
    other.write_at(4096, &[2; 4096])?;
    disk.rename(&path("/reserve"), &path("/used"))?;
    reserve.write_at(0, &[3; 3 * 4096])?;
    reserve.set_len(4096)?;
    assert_eq!(disk.free_space(), Some(2 * 4096));
    disk.remove(&path("/other"))?;
    assert_eq!(disk.free_space(), Some(2 * 4096), "it is still open");
    drop(other);
    assert_eq!(disk.free_space(), Some(4 * 4096));
    let after = disk.restart(CrashMode::AllUnsynced);
    assert_eq!(after.free_space(), Some(4 * 4096));
    Ok(())
}

#[test]
fn a_huge_hole_costs_nothing_and_is_reported() -> Result<()> {
    let disk = SimDisk::new(9);
    let file = disk.open(&path("/a"), OpenMode::CreateNew)?;
    file.set_len(1 << 40)?;
    file.write_at(1 << 30, &[1; 10_000])?;
    assert_eq!(
        file.extent(0)?,
        Extent {
            start: 0,
            end: 1 << 30,
            data: false
        }
    );
    let data = Extent {
        start: 1 << 30,
        end: (1 << 30) + 3 * 4096,
        data: true,
    };
    assert_eq!(file.extent(1 << 30)?, data);
    file.punch((1 << 30) + 5, 1 << 40)?;
    assert_eq!(
        file.extent(data.end)?,
        Extent {
            start: data.end,
            end: 1 << 40,
            data: false
        }
    );
    let mut bytes = [9; 8];
    file.read_at(1 << 30, &mut bytes)?;
    assert_eq!(bytes, [1, 1, 1, 1, 1, 0, 0, 0]);
    file.set_len((1 << 30) + 2)?;
    file.set_len(1 << 40)?;
    file.read_at(1 << 30, &mut bytes)?;
    assert_eq!(bytes, [1, 1, 0, 0, 0, 0, 0, 0]);
    Ok(())
}

#[test]
fn damage_at_rest_is_done_to_what_survives_too() -> Result<()> {
    let disk = SimDisk::new(10);
    for name in ["/a", "/b", "/c"] {
        let file = disk.open(&path(name), OpenMode::CreateNew)?;
        file.write_at(0, name.as_bytes())?;
        file.sync()?;
    }
    disk.sync_folder(&path("/"))?;
    disk.flip_bit("/a", 1, 0);
    disk.truncate("/b", 1);
    disk.swap("/a", "/b");
    disk.remove_at_rest("/c");
    let check = |disk: &SimDisk| {
        assert_eq!(disk.snapshot_paths(), [path("/a"), path("/b")]);
        assert_eq!(
            (whole(disk, "/b")?, whole(disk, "/a")?),
            (b"/`".to_vec(), b"/".to_vec())
        );
        Ok(())
    };
    check(&disk)?;
    check(&disk.restart(CrashMode::NothingUnsynced))
}

#[test]
fn reads_fail_as_asked_and_recover() -> Result<()> {
    let disk = SimDisk::new(11);
    let file = disk.open(&path("/a"), OpenMode::CreateNew)?;
    file.write_at(0, b"abcd")?;
    disk.fail_reads("/a", ReadFault::Eio, 1);
    disk.fail_reads("/a", ReadFault::Short, 1);
    let mut buf = [0; 4];
    assert_eq!(
        file.read_at(0, &mut buf).expect_err("asked for").kind(),
        ErrorKind::Io
    );
    assert_eq!(file.read_at(0, &mut buf)?, 2);
    assert_eq!(file.read_at(0, &mut buf)?, 4);
    Ok(())
}

#[test]
fn locks_are_by_open_file_and_end_with_it() -> Result<()> {
    let disk = SimDisk::new(12);
    let one = disk.open(&path("/a"), OpenMode::CreateNew)?;
    let two = disk.open(&path("/a"), OpenMode::Read)?;
    assert!(one.try_lock_shared()? && two.try_lock_shared()?);
    assert!(!one.try_lock()?);
    drop(two);
    assert!(one.try_lock()?);
    let two = disk.open(&path("/a"), OpenMode::Read)?;
    assert!(!two.try_lock()? && !two.try_lock_shared()?);
    let after = disk.restart(CrashMode::AllUnsynced);
    assert!(after.open(&path("/a"), OpenMode::Read)?.try_lock()?);
    Ok(())
}

#[test]
fn a_read_only_disk_refuses_to_change() -> Result<()> {
    let disk = SimDisk::new(13);
    disk.open(&path("/a"), OpenMode::CreateNew)?;
    disk.set_read_only(true);
    assert!(!disk.is_writable(&path("/")));
    let error = disk.remove(&path("/a")).expect_err("read-only");
    assert_eq!(error.kind(), ErrorKind::ReadOnly);
    assert!(disk.open(&path("/a"), OpenMode::Write).is_err());
    disk.open(&path("/a"), OpenMode::Read)?;
    Ok(())
}
