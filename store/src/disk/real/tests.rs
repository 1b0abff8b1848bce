use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn bytes_come_back_and_reading_stops_at_the_end() -> Result<()> {
    let dir = folder();
    let path = dir.path().join("f");
    let file = RealDisk.open(&path, OpenMode::CreateNew)?;
    file.write_at(3, b"abc")?;
    file.sync()?;
    RealDisk.sync_folder(dir.path())?;
    for mode in [OpenMode::Read, OpenMode::ReadImage] {
        let mut buf = [9; 8];
        assert_eq!(RealDisk.open(&path, mode)?.read_at(1, &mut buf)?, 5);
        assert_eq!(&buf[..5], b"\0\0abc");
    }
    Ok(())
}

#[test]
fn create_new_does_not_open_what_is_there() -> Result<()> {
    let dir = folder();
    let path = dir.path().join("sub/f");
    RealDisk.create_folders(path.parent().expect("has one"))?;
    RealDisk.open(&path, OpenMode::CreateNew)?;
    let again = RealDisk
        .open(&path, OpenMode::CreateNew)
        .err()
        .map(|e| e.kind());
    assert_eq!(again, Some(crate::ErrorKind::AlreadyExists));
    Ok(())
}

#[test]
fn extents_cover_the_file_and_a_punched_range_reads_as_zeros() -> Result<()> {
    let dir = folder();
    let file = RealDisk.open(&dir.path().join("f"), OpenMode::CreateNew)?;
    file.write_at(0, &vec![7; 3 << 20])?;
    file.punch(1 << 20, 2 << 20)?;
    file.punch((3 << 20) - 100, u64::MAX)?;
    assert_eq!(file.len()?, 3 << 20);
    let mut buf = vec![1; 3 << 20];
    assert_eq!(file.read_at(0, &mut buf)?, 3 << 20);
    let mut expected = vec![7; 3 << 20];
    expected[1 << 20..2 << 20].fill(0);
    expected[(3 << 20) - 100..].fill(0);
    assert!(buf == expected);
    let mut at = 0;
    while at < 3 << 20 {
        let extent = file.extent(at)?;
        assert_eq!(extent.start, at);
        assert!(extent.end > at && extent.end <= 3 << 20);
        if !extent.data {
            assert!(
                buf[at as usize..extent.end as usize]
                    .iter()
                    .all(|b| *b == 0)
            );
        }
        at = extent.end;
    }
    assert_eq!(
        file.extent(3 << 20)?,
        Extent {
            start: 3 << 20,
            end: 3 << 20,
            data: false
        }
    );
    Ok(())
}

#[test]
fn zeros_are_written_where_nothing_else_works() -> Result<()> {
    let dir = folder();
    let path = dir.path().join("f");
    let file = RealFile::open(&path, OpenMode::CreateNew)?;
    file.write_at(0, &vec![7; ZEROS * 2 + 5])?;
    file.write_zeros(1, ZEROS as u64 * 2 + 4)?;
    let mut buf = vec![1; ZEROS * 2 + 5];
    file.read_at(0, &mut buf)?;
    assert_eq!((buf[0], buf[ZEROS * 2 + 4]), (7, 7));
    assert!(buf[1..ZEROS * 2 + 4].iter().all(|b| *b == 0));
    Ok(())
}

#[test]
fn an_allocated_file_is_that_long() -> Result<()> {
    let dir = folder();
    let file = RealDisk.open(&dir.path().join("f"), OpenMode::CreateNew)?;
    file.write_at(0, b"x")?;
    file.allocate(1 << 20)?;
    assert_eq!(file.len()?, 1 << 20);
    file.allocate(10)?;
    assert_eq!(file.len()?, 1 << 20);
    Ok(())
}

#[test]
fn a_link_does_not_replace() -> Result<()> {
    let dir = folder();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    RealDisk.open(&a, OpenMode::CreateNew)?.write_at(0, b"a")?;
    assert!(RealDisk.link(&a, &b)?);
    assert!(!RealDisk.link(&a, &b)?);
    RealDisk.remove(&a)?;
    RealDisk.remove(&a)?;
    assert_eq!(RealDisk.list(dir.path())?, ["b"]);
    assert_eq!(
        RealDisk.list(&dir.path().join("none"))?,
        Vec::<String>::new()
    );
    RealDisk.remove_folder(dir.path())?;
    assert_eq!(RealDisk.kind(&b)?, FileKind::File);
    Ok(())
}

#[test]
fn a_lock_is_held_by_one_open_file_until_it_is_dropped() -> Result<()> {
    let dir = folder();
    let path = dir.path().join("lock");
    let one = RealDisk.open(&path, OpenMode::CreateNew)?;
    let two = RealDisk.open(&path, OpenMode::Write)?;
    assert!(one.try_lock()?);
    assert!(!two.try_lock()?);
    assert!(!two.try_lock_shared()?);
    let copy = one.as_real().expect("a real file").try_clone();
    drop(one);
    assert!(two.try_lock()?, "even where a copy lives on");
    drop(copy);
    Ok(())
}

#[test]
fn a_replaced_file_is_not_named_any_more() -> Result<()> {
    let dir = folder();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let file = RealDisk.open(&a, OpenMode::CreateNew)?;
    assert!(file.is_still_named()?);
    let before = file.stamp()?;
    file.write_at(0, b"x")?;
    assert_ne!(before, file.stamp()?);
    RealDisk.open(&b, OpenMode::CreateNew)?;
    RealDisk.rename(&b, &a)?;
    assert!(!file.is_still_named()?);
    RealDisk.remove(&a)?;
    assert!(!file.is_still_named()?);
    Ok(())
}

#[test]
fn a_file_with_a_second_name_or_behind_a_link_is_not_ours_alone() -> Result<()> {
    let dir = folder();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let file = RealDisk.open(&a, OpenMode::CreateNew)?;
    assert!(file.is_ours_alone()?);
    assert!(RealDisk.link(&a, &b)?);
    assert!(!file.is_ours_alone()?);
    RealDisk.remove(&b)?;
    assert!(file.is_ours_alone()?);
    std::os::unix::fs::symlink(&a, &b).expect("a new link");
    let linked = RealDisk.open(&b, OpenMode::Write)?;
    assert!(linked.is_still_named()? && !linked.is_ours_alone()?);
    RealDisk.remove(&a)?;
    assert!(!file.is_ours_alone()?);
    Ok(())
}

#[test]
fn a_fifo_is_refused_and_does_not_block() -> Result<()> {
    let dir = folder();
    let path = dir.path().join("fifo");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0)
        .map_err(|e| Error::io("making a FIFO", e.into()))?;
    assert_eq!(RealDisk.kind(&path)?, FileKind::Fifo);
    for mode in [OpenMode::Read, OpenMode::Write, OpenMode::ReadImage] {
        let error = RealDisk.open(&path, mode).err().expect("refused");
        assert_eq!(error.kind(), crate::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("fifo"));
    }
    Ok(())
}

#[test]
fn errors_name_operation_and_path() {
    let path = Path::new("/nowhere/at/all");
    let error = RealDisk
        .open(path, OpenMode::Read)
        .err()
        .expect("nothing there");
    assert_eq!(error.kind(), crate::ErrorKind::NotFound);
    assert_eq!(error.to_string(), "opening /nowhere/at/all");
    assert!(RealDisk.sync_folder(path).is_err());
    assert!(!RealDisk.is_writable(path));
}
