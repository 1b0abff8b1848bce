//! Images of odd lengths, vast ones, and what is none.

use crate::support::{C, letter};
use crate::{Bench, says, simulated, text};
use std::fs;
use std::path::Path;
use std::process::Command;
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::disk::{Disk, OpenMode};
use stillpoint_api::store::progress::Progress;
use stillpoint_api::{Create, ErrorKind, Import, Output, System};

fn takes(bench: &Bench, system: &System, image: &Path) {
    let device = image.file_stem().unwrap().to_str().unwrap();
    system.device_add(device, image, "raw", false).unwrap();
    let one = Create {
        name: Some("s".into()),
        devices: vec![device.into()],
        ..Create::default()
    };
    system.create(&one, &Progress::default()).unwrap();
    let out = bench.path("out.raw");
    system
        .export(
            &format!("{device}@s"),
            Output::File(&out),
            &Progress::default(),
        )
        .unwrap();
    assert_eq!(
        fs::read(&out).unwrap(),
        fs::read(image).unwrap(),
        "{device}"
    );
    fs::remove_file(out).unwrap();
}

#[test]
fn images_of_any_length_are_taken() {
    let bench = Bench::new();
    let system = bench.open();
    for len in [
        0,
        1,
        511,
        512,
        513,
        C - 1,
        C,
        C + 1,
        256 * C,
        256 * C + 1,
        300 * C - 7,
    ] {
        let image = bench.path(&format!("of-{len}.raw"));
        let bytes: Vec<u8> = (0..=255).cycle().flat_map(letter).take(len).collect();
        fs::write(&image, bytes).unwrap();
        takes(&bench, &system, &image);
    }
    assert!(
        system
            .store()
            .verify(&Progress::default())
            .unwrap()
            .is_good()
    );
}

/// A few bytes in a sea of holes: what they cost is what they are.
fn check_vast(system: &System, disk: &dyn Disk, image: &Path, out: &Path, len: u64) {
    let places = [0, 3 << 40, len - 9];
    let file = disk.open(image, OpenMode::Write).unwrap();
    file.set_len(len).unwrap();
    for at in places {
        file.write_at(at, b"in a sea").unwrap();
    }
    drop(file);
    let import = Import {
        image,
        device: "vast",
        name: Some("s"),
    };
    let made = system.import(&import, &Progress::default()).unwrap();
    assert_eq!(made.devices[0].content.size, len);
    assert!(
        made.devices[0].counts.read <= 16 * 65_536,
        "holes were read: {:?}",
        made.devices[0].counts
    );
    system
        .export("vast", Output::File(out), &Progress::default())
        .unwrap();
    let file = disk.open(out, OpenMode::Read).unwrap();
    assert_eq!(file.len().unwrap(), len);
    for at in places {
        let mut bytes = [0; 8];
        file.read_at(at, &mut bytes).unwrap();
        assert_eq!(&bytes, b"in a sea");
    }
    let hole = file.extent(1 << 40).unwrap();
    assert!(!hole.data && hole.end > 2 << 40, "{hole:?}");
    assert!(
        system
            .store()
            .totals(&Progress::default())
            .unwrap()
            .stored_bytes
            < 100_000
    );
}

#[test]
fn sparse_images_of_many_terabytes_cost_what_is_in_them() {
    let bench = Bench::new();
    let system = bench.open();
    let image = bench.path("vast.raw");
    let file = fs::File::create(&image).unwrap();
    let len = (9 << 40) + 12_345;
    if let Err(e) = file.set_len(len) {
        eprintln!(
            "SKIPPED: the file system of {} has no such large files: {e}",
            image.display()
        );
        return;
    }
    check_vast(&system, &RealDisk, &image, &bench.path("out.raw"), len);
}

#[test]
fn sixteen_terabytes_of_holes_are_nothing_on_any_disk() {
    let (system, disk) = simulated();
    let (image, out) = (Path::new("/vast.raw"), Path::new("/out.raw"));
    drop(disk.open(image, OpenMode::CreateNew).unwrap());
    check_vast(&system, &disk, image, out, 16 << 40);
}

#[test]
fn what_is_no_image_is_refused() {
    let bench = Bench::new();
    let system = bench.open();
    let fifo = bench.path("fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .unwrap()
            .success()
    );
    let folder = bench.path("folder");
    fs::create_dir(&folder).unwrap();
    let link = bench.path("link");
    std::os::unix::fs::symlink("nowhere", &link).unwrap();
    let cases: [(&Path, ErrorKind, &str); 5] = [
        (&fifo, ErrorKind::InvalidInput, "a FIFO"),
        (&folder, ErrorKind::InvalidInput, "a folder"),
        (
            Path::new("/dev/null"),
            ErrorKind::InvalidInput,
            "a character device",
        ),
        (&link, ErrorKind::NotFound, "No such file"),
        (&bench.path("none"), ErrorKind::NotFound, "No such file"),
    ];
    for (path, kind, words) in cases {
        says(
            system.device_add("d", path, "raw", false),
            kind,
            &[text(path), words],
        );
        let import = Import {
            image: path,
            device: "d",
            name: None,
        };
        says(
            system.import(&import, &Progress::default()),
            kind,
            &[text(path), words],
        );
    }
    assert!(system.devices().unwrap().is_empty());
}

#[test]
fn an_image_is_attached_once() {
    let bench = Bench::with_two();
    let system = bench.open();
    let image = bench.path("d.raw");
    says(
        system.device_add("e", &image, "raw", false),
        ErrorKind::AlreadyExists,
        &["\"e\"", "that of device \"d\""],
    );
    let link = bench.path("link.raw");
    std::os::unix::fs::symlink(&image, &link).unwrap();
    says(
        system.device_add("e", &link, "raw", false),
        ErrorKind::AlreadyExists,
        &["that of device \"d\""],
    );
    bench.image("e.raw", 0..1);
    says(
        system.device_add("d", &bench.path("e.raw"), "raw", false),
        ErrorKind::AlreadyExists,
        &["\"d\""],
    );
    says(
        system.device_add("e", &bench.path("e.raw"), "vhdx", false),
        ErrorKind::Unsupported,
        &["\"vhdx\""],
    );
    system
        .device_add("e", &bench.path("e.raw"), "raw", true)
        .unwrap();
    let one = Create {
        name: Some("s".into()),
        devices: vec!["e".into()],
        changed: None,
        ..Create::default()
    };
    system.create(&one, &Progress::default()).unwrap();
    let went = system.goto("s", &["e".into()], &Progress::default());
    says(went, ErrorKind::ReadOnly, &["\"e\"", "read-only"]);
}
