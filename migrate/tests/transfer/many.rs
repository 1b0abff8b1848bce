//! So many snapshots that one message cannot tell what became of them.

use crate::host::{C, Host, disk};
use crate::sync::sync;
use stillpoint_api::ImportHistory;
use stillpoint_migrate::Result;
use stillpoint_migrate::sync::Give;
use stillpoint_migrate::wire::outcome::TAKEN_MAX;
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::disk::{Disk, DiskFile, OpenMode};
use stillpoint_store::format::entry::{Op, SessionKind};
use stillpoint_store::history::{Earlier, History, Ranges};
use stillpoint_store::object::Purse;
use stillpoint_store::progress::Progress;
use stillpoint_store::world::Moment;

/// A disk that never changed.
struct Still {
    path: std::path::PathBuf,
    earlier: Vec<Earlier>,
}

impl History for Still {
    fn earlier(&self) -> &[Earlier] {
        &self.earlier
    }

    fn disk(&self, _: usize) -> Result<Box<dyn DiskFile + '_>> {
        RealDisk.open(&self.path, OpenMode::Read)
    }

    fn vm_state(&self, _: usize) -> Result<Option<Box<dyn DiskFile + '_>>> {
        Ok(None)
    }

    fn base(&self, state: usize) -> Result<Option<usize>> {
        Ok(state.checked_sub(1))
    }

    fn changes(&self, _: usize, _: usize) -> Result<Ranges<'_>> {
        Ok(Box::new(std::iter::empty()))
    }

    fn check_unchanged(&self) -> Result<()> {
        Ok(())
    }
}

fn import(host: &Host, device: &str, count: usize) {
    let path = host.image(device);
    std::fs::write(&path, disk(0..2)).unwrap();
    let earlier = |n: usize| Earlier {
        id: n.to_string().into_bytes(),
        name: vec![b'n'; 200],
        date: Moment { sec: 1, nsec: 1 },
        vm_clock_nsec: 0,
        icount: None,
        extra: Vec::new(),
    };
    let history = Still {
        path,
        earlier: (0..count).map(earlier).collect(),
    };
    let import = ImportHistory {
        history: &history,
        device,
        name: None,
    };
    host.system
        .import_history(&import, &Progress::default())
        .unwrap();
}

#[test]
fn more_snapshots_than_a_message_can_tell_of_come_and_go() {
    let (from, to) = (Host::new(1), Host::new(2));
    from.save("d", "first", &disk(0..3));
    sync(&from, &to, &Give::default());
    // Nine megabytes of names.
    let count = 40_000;
    assert!(count > 2 * TAKEN_MAX);
    import(&from, "e", count);
    let came = sync(&from, &to, &Give::default()).outcome;
    assert_eq!(came.snapshots.len(), count);
    assert_eq!(from.records(), to.records());
    // Deleted there as well, all at once.
    let all = from.records().into_iter();
    let gone = all.filter(|r| r.content.size == 2 * C as u64);
    let ops: Vec<Op> = gone.map(|r| Op::DeleteSnapshot { uid: r.uid }).collect();
    let store = from.store();
    store
        .commit(
            SessionKind::Writer,
            Purse::Reserve,
            &mut |_| Ok(ops.clone()),
        )
        .unwrap();
    let mirror = Give {
        mirror: true,
        ..Give::default()
    };
    let went = sync(&from, &to, &mirror).outcome;
    assert_eq!(went.deleted.len(), count);
    assert_eq!(from.records(), to.records());
    to.verify();
}
