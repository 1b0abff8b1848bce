//! `qemu-img snapshot`: what each action does, prints and exits with, on a node that is already open.

use crate::compat::create::create;
use crate::compat::delete::{delete, delete_by_id_or_name};
use crate::compat::dump::{UtcOffset, snapshot_list};
use crate::compat::eras::{Flags, ImgDeleteKey, ImgText};
use crate::compat::failure::Failure;
use crate::compat::find::find;
use crate::compat::goto::goto;
use crate::compat::graph::{Graph, NodeId};
use crate::compat::info::QemuSnapshotInfo;
use crate::compat::list::list;
use crate::compat::release::Release;
use stillpoint_store::world::Moment;

/// What is asked for. Arguments are bytes, as a shell passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImgAction<'a> {
    /// Neither: the image is opened, or from 10.1 on listed.
    None,
    /// `-l`.
    List,
    /// `-a`: an id, or else a name, in every release.
    Apply(&'a [u8]),
    /// `-c`: a name, which others may have.
    Create(&'a [u8]),
    /// `-d`: see the axis `img_delete_key`.
    Delete(&'a [u8]),
}

/// What the program leaves behind.
#[derive(Debug, Default)]
pub struct ImgOutput {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error, lines of the driver's before the program's own.
    pub stderr: Vec<u8>,
    /// 0 or 1.
    pub exit: u8,
    /// What failed, with what the store said.
    pub failure: Option<Failure>,
}

/// Does it. `now` is the date of a snapshot that is made, `offset` the local time zone of those that are listed.
pub fn img_snapshot(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    action: ImgAction<'_>,
    now: Moment,
    offset: UtcOffset<'_>,
) -> ImgOutput {
    let flags = release.flags();
    let (doing, name, text, done) = match action {
        ImgAction::None if !flags.img_lists_by_default => return ImgOutput::default(),
        ImgAction::None | ImgAction::List => return listed(release, graph, bs, offset),
        ImgAction::Create(name) => {
            let done = create_now(&flags, graph, bs, name, now);
            ("create", name, flags.img_create_text, done)
        }
        ImgAction::Apply(name) => {
            let done = goto(&flags, graph, bs, name);
            ("apply", name, flags.img_apply_text, done)
        }
        ImgAction::Delete(name) => {
            let done = delete_one(&flags, graph, bs, name);
            ("delete", name, flags.img_delete_text, done)
        }
    };
    let mut out = ImgOutput::default();
    for line in graph.take_reports() {
        out.stderr
            .extend([b"qemu-img: ", &line[..], b"\n"].concat());
    }
    if let Err(failed) = done {
        let start = format!("qemu-img: Could not {doing} snapshot '");
        let why = worded(text, &failed);
        out.stderr
            .extend([start.as_bytes(), name, b"': ", &why[..], b"\n"].concat());
        out.exit = 1;
        out.failure = Some(failed);
    }
    out
}

/// An image that cannot be listed has no snapshots, as far as the program is concerned.
fn listed(release: Release, graph: &mut Graph, bs: NodeId, offset: UtcOffset<'_>) -> ImgOutput {
    match list(&release.flags(), graph, bs) {
        Ok(all) => ImgOutput {
            stdout: snapshot_list(release, &all, offset),
            ..ImgOutput::default()
        },
        Err(failed) => ImgOutput {
            failure: Some(failed),
            ..ImgOutput::default()
        },
    }
}

fn create_now(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    name: &[u8],
    now: Moment,
) -> Result<(), Failure> {
    let mut sn = QemuSnapshotInfo {
        date_sec: now.sec as u32,
        date_nsec: now.nsec / 1000 * 1000,
        // The program zeroes the whole entry, so that there is a count, and it is 0.
        icount: 0,
        ..QemuSnapshotInfo::named(name)
    };
    create(flags, graph, bs, &mut sn)
}

fn delete_one(flags: &Flags, graph: &mut Graph, bs: NodeId, name: &[u8]) -> Result<(), Failure> {
    match flags.img_delete_key {
        ImgDeleteKey::IdOrName => delete(flags, graph, bs, Some(name), None),
        ImgDeleteKey::IdThenName => delete_by_id_or_name(flags, graph, bs, name),
        ImgDeleteKey::Name => {
            let missing = |e: Failure| Failure {
                cause: e.cause,
                ..Failure::new(-e.ret, "snapshot not found")
            };
            let found = find(flags, graph, bs, name).map_err(missing)?;
            let (id, name) = (found.id_str.as_bytes(), found.name.as_bytes());
            delete(flags, graph, bs, Some(id), Some(name))
        }
    }
}

fn worded(text: ImgText, failed: &Failure) -> Vec<u8> {
    let errno = failed.errno_text();
    let errp = || {
        let error = failed.error.as_ref();
        error.map_or_else(|| errno.clone().into_bytes(), |e| e.message.clone())
    };
    match text {
        ImgText::Number => format!("{} ({errno})", failed.ret).into_bytes(),
        ImgText::Strerror => errno.into_bytes(),
        ImgText::ErrpInParentheses => [b"(", &errp()[..], b")"].concat(),
        ImgText::Errp => errp(),
    }
}
