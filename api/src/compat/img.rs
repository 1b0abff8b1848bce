//! What `qemu-img snapshot` did to an open image and printed, by release.

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
use crate::compat::{create::create, errno};
use stillpoint_store::world::Moment;

/// One of the four actions, with its argument byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImgAction {
    /// `-l`.
    List,
    /// `-a`: goes to the snapshot of that id, or else of that name.
    Apply(Vec<u8>),
    /// `-c`: makes one of that name, cut to 255 bytes.
    Create(Vec<u8>),
    /// `-d`: deletes one; what the argument is taken for is the release's.
    Delete(Vec<u8>),
}

/// What the program printed, and how it ended.
#[derive(Debug, Default)]
pub struct ImgOutput {
    /// Standard output.
    pub out: Vec<u8>,
    /// Standard error, each line beginning with `qemu-img: `.
    pub err: Vec<u8>,
    /// Why it failed; the exit code is 1 then, and otherwise 0.
    pub failure: Option<Failure>,
}

impl ImgOutput {
    /// The exit code.
    pub fn code(&self) -> u8 {
        u8::from(self.failure.is_some())
    }
}

/// Does it. No action lists from 10.1 on and does nothing before. A snapshot bears the moment `now`, to the microsecond,
/// and an instruction count of 0, which is not the same as none. Durable when this returns.
pub fn img_snapshot(
    release: Release,
    graph: &mut Graph,
    bs: NodeId,
    action: Option<&ImgAction>,
    now: Moment,
    offset: UtcOffset<'_>,
) -> ImgOutput {
    let flags = release.flags();
    let done = match action {
        None if !flags.img_lists_by_default => return ImgOutput::default(),
        None | Some(ImgAction::List) => {
            // What cannot be listed is an empty list here, in every release.
            let all = list(&flags, graph, bs).unwrap_or_default();
            return ImgOutput {
                out: snapshot_list(release, &all, offset),
                ..ImgOutput::default()
            };
        }
        Some(ImgAction::Create(name)) => make(&flags, graph, bs, name, now),
        Some(ImgAction::Apply(name)) => {
            let gone = goto(&flags, graph, bs, name);
            gone.map_err(|e| (line("apply", name, &text(flags.img_apply_text, &e)), e))
        }
        Some(ImgAction::Delete(name)) => remove(&flags, graph, bs, name),
    };
    let reports = graph.take_reports().into_iter();
    let mut err: Vec<u8> = reports
        .flat_map(|r| [b"qemu-img: ", &r[..], b"\n"].concat())
        .collect();
    let failure = done.err().map(|(line, failure)| {
        err.extend(line);
        failure
    });
    ImgOutput {
        out: Vec::new(),
        err,
        failure,
    }
}

/// A failure with the line that the program printed for it.
type Told = (Vec<u8>, Failure);

fn make(
    flags: &Flags,
    graph: &mut Graph,
    bs: NodeId,
    name: &[u8],
    now: Moment,
) -> Result<(), Told> {
    let mut sn = QemuSnapshotInfo {
        date_sec: now.sec as u32,
        date_nsec: now.nsec / 1000 * 1000,
        icount: 0,
        ..QemuSnapshotInfo::named(name)
    };
    let made = create(flags, graph, bs, &mut sn);
    made.map_err(|e| (line("create", name, &text(flags.img_create_text, &e)), e))
}

fn remove(flags: &Flags, graph: &mut Graph, bs: NodeId, name: &[u8]) -> Result<(), Told> {
    let removed = match flags.img_delete_key {
        ImgDeleteKey::IdOrName => delete(flags, graph, bs, Some(name), None),
        ImgDeleteKey::IdThenName => delete_by_id_or_name(flags, graph, bs, name),
        ImgDeleteKey::Name => match find(flags, graph, bs, name) {
            Ok(sn) => {
                let (id, name) = (sn.id_str.as_bytes(), sn.name.as_bytes());
                delete(flags, graph, bs, Some(id), Some(name))
            }
            Err(e) => return Err((line("delete", name, b"snapshot not found"), e)),
        },
    };
    removed.map_err(|e| (line("delete", name, &text(flags.img_delete_text, &e)), e))
}

/// The failure in the release's words.
fn text(form: ImgText, failure: &Failure) -> Vec<u8> {
    let object = || match &failure.error {
        Some(error) => error.message.clone(),
        None => failure.errno_text().into_bytes(),
    };
    match form {
        ImgText::Number => format!("{} ({})", failure.ret, failure.errno_text()).into_bytes(),
        ImgText::Strerror => errno::text(-failure.ret).into_bytes(),
        ImgText::ErrpInParentheses => [b"(", &object()[..], b")"].concat(),
        ImgText::Errp => object(),
    }
}

fn line(verb: &str, name: &[u8], text: &[u8]) -> Vec<u8> {
    let lead = format!("qemu-img: Could not {verb} snapshot '");
    [lead.as_bytes(), name, b"': ", text, b"\n"].concat()
}
