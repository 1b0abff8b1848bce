//! `still qemu-img snapshot`.

use super::arguments::Arguments;
use super::asked::{Action, Asked, interpret, spec};
use super::getopt::scan;
use super::{pass_on, say};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Answer, Report};
use crate::report::{ImgFailed, ImgSnapshot, ImgSnapshots};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use stillpoint_api::compat::qcow2::Qcow2;
use stillpoint_api::compat::{
    Failure, Flags, Graph, ICOUNT_NONE, ImgAction, ImgOutput, Node, QemuSnapshotInfo, StoreTable,
    bdrv_snapshot_list, img_snapshot,
};
use stillpoint_api::{DeviceView, System};
use stillpoint_store::world::Moment;
use stillpoint_store::{Error, ErrorKind, Result};

/// Does what the words ask for, or passes them on.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let mut asked = interpret(&scan(&spec(), &arguments.words));
    let unknown_release = asked.unknown_release.take();
    let context = Context {
        store: asked.store.clone().unwrap_or_else(|| context.store.clone()),
        json: context.json,
        // Standard error is qemu-img's.
        quiet: true,
        progress: context.progress.clone(),
    };
    let asking = Asking {
        flags: asked.release.flags(),
        file: asked.words.first().map(|word| asked.file(word)),
        called: arguments.program.is_some(),
        asked,
    };
    let opened = asking.open(&context);
    if let (Some(words), true) = (&arguments.program, asking.may_be_others(&opened)) {
        let error = pass_on::exec(words);
        if error.kind() != ErrorKind::NotFound {
            return Err(error);
        }
    }
    match unknown_release {
        // qemu-img has no other exit code for a failure than 1.
        Some(e) if asking.called => return Ok(say::failed(chain(&e).join(": ").as_bytes())),
        Some(e) => return Err(e),
        None => {}
    }
    Ok(match asking.answer(opened, &context) {
        Answer::Program { err, exit, .. } if context.json && exit != Exit::Done => {
            let message = String::from_utf8_lossy(&err);
            Answer::of(ImgFailed::new(message.trim_end(), Vec::new(), None))
        }
        answer => answer,
    })
}

/// What the store makes of the file.
enum Opened {
    /// It is this device.
    Device(Arc<System>, DeviceView),
    /// It is none of the store's; why.
    Others(Option<Error>),
    /// The store cannot be asked.
    Failed(Error),
}

struct Asking {
    asked: Asked,
    flags: Flags,
    file: Option<OsString>,
    /// Called as qemu-img.
    called: bool,
}

impl Asking {
    fn open(&self, context: &Context) -> Opened {
        let Some(file) = &self.file else {
            return Opened::Others(None);
        };
        let system = match context.open() {
            Ok(system) => Arc::new(system),
            Err(e) if e.kind() == ErrorKind::NotFound => return Opened::Others(Some(e)),
            Err(e) => return Opened::Failed(e),
        };
        match self.find(&system, file) {
            Ok(Some(device)) => Opened::Device(system, device),
            Ok(None) => Opened::Others(None),
            Err(e) => Opened::Failed(e),
        }
    }

    /// Where the store cannot be asked, a file that is there is not to be kept from the real program, which does no harm to
    /// an image of the store: it is raw, and has no snapshots there.
    fn may_be_others(&self, opened: &Opened) -> bool {
        match opened {
            Opened::Device(..) => false,
            Opened::Others(_) => true,
            Opened::Failed(_) => self.file.as_ref().is_some_and(|f| Path::new(f).exists()),
        }
    }

    /// By the path of its image first. For a program called qemu-img a file goes before a device that is called like it.
    fn find(&self, system: &System, file: &OsStr) -> Result<Option<DeviceView>> {
        if let Some(device) = system.device_of_image(Path::new(file))? {
            return Ok(Some(device));
        }
        if self.called && Path::new(file).exists() {
            return Ok(None);
        }
        let all = system.devices()?;
        Ok(all.into_iter().find(|d| OsStr::new(&d.name) == file))
    }

    fn answer(&self, opened: Opened, context: &Context) -> Answer {
        if let Some(usage) = &self.asked.usage {
            return say::usage(&self.flags, usage);
        }
        let file = self.file.clone().unwrap_or_default();
        let writes = !matches!(self.asked.action, None | Some(Action::List));
        if self.asked.force_share && writes {
            let why = "force-share=on can only be used with read-only images";
            return say::failed(format!("Could not open '{}': {why}", file.display()).as_bytes());
        }
        match opened {
            Opened::Device(system, device) => self.act(system, &device, context),
            Opened::Others(_) if !Path::new(&file).exists() => {
                say::no_such_file(&self.flags, &file)
            }
            Opened::Others(error) => {
                let store = context.store.display();
                let why = match error {
                    Some(_) => format!("there is no store {store}\n  hint: --store names it"),
                    None => format!(
                        "no device of the store {store} has that image or name\n  \
                         hint: `still device add NAME IMAGE` attaches an image"
                    ),
                };
                say::cannot_open(&file, &why)
            }
            Opened::Failed(error) => say::cannot_open(&file, &chain(&error).join(": ")),
        }
    }

    fn act(&self, system: Arc<System>, device: &DeviceView, context: &Context) -> Answer {
        let done = StoreTable::open(system, &device.name).and_then(|table| {
            let table = table.with_progress(context.progress.clone());
            let mut node = Node::new(&device.name, Box::new(Qcow2::new(table))).implicit();
            node.read_only = device.read_only;
            let mut graph = Graph::new();
            let bs = graph.add(node)?;
            graph.add_backend(&device.name, Some(bs));
            let action = match &self.asked.action {
                None => ImgAction::None,
                Some(Action::List) => ImgAction::List,
                Some(Action::Apply(name)) => ImgAction::Apply(name),
                Some(Action::Create(name)) => ImgAction::Create(name),
                Some(Action::Delete(name)) => ImgAction::Delete(name),
            };
            let release = self.asked.release;
            let output = img_snapshot(release, &mut graph, bs, action, now(), &local_offset);
            let lists = match action {
                ImgAction::None => self.flags.img_lists_by_default,
                action => action == ImgAction::List,
            };
            let list = (context.json && lists).then(|| bdrv_snapshot_list(release, &mut graph, bs));
            Ok((output, list))
        });
        match done {
            Ok((output, list)) if context.json => self.report(device, output, list),
            Ok((output, _)) => told(output),
            Err(e) => say::failed(chain(&e).join(": ").as_bytes()),
        }
    }

    fn report(
        &self,
        device: &DeviceView,
        output: ImgOutput,
        list: Option<std::result::Result<Vec<QemuSnapshotInfo>, Failure>>,
    ) -> Answer {
        if let Some(failure) = output.failure.filter(|_| output.exit != 0) {
            let message = String::from_utf8_lossy(&output.stderr);
            let cause = failure.cause.as_ref();
            return Answer::of(ImgFailed::new(
                message.trim_end(),
                cause.map(chain).unwrap_or_default(),
                cause.and_then(Error::what_next),
            ));
        }
        let (action, snapshot) = match &self.asked.action {
            None if list.is_some() => ("list", None),
            None => ("none", None),
            Some(Action::List) => ("list", None),
            Some(Action::Apply(name)) => ("apply", Some(name)),
            Some(Action::Create(name)) => ("create", Some(name)),
            Some(Action::Delete(name)) => ("delete", Some(name)),
        };
        let failed = list.as_ref().and_then(|list| list.as_ref().err());
        let causes = failed.and_then(|failure| failure.cause.as_ref()).map(chain);
        let list = list.and_then(std::result::Result::ok);
        Answer::of(ImgSnapshots {
            qemu_version: self.asked.release.to_string(),
            device: device.name.clone(),
            action,
            snapshot: snapshot.map(|name| stillpoint_api::text(name)),
            snapshots: list.map(|list| list.iter().map(snapshot_of).collect()),
            causes: causes.unwrap_or_default(),
        })
    }
}

fn snapshot_of(sn: &QemuSnapshotInfo) -> ImgSnapshot {
    let text = stillpoint_api::text;
    ImgSnapshot {
        id: text(sn.id_str.as_bytes()),
        name: text(sn.name.as_bytes()),
        vm_state_size: sn.vm_state_size,
        date_sec: sn.date_sec,
        date_nsec: sn.date_nsec,
        vm_clock_sec: sn.vm_clock_nsec / 1_000_000_000,
        vm_clock_nsec: sn.vm_clock_nsec % 1_000_000_000,
        icount: Some(sn.icount).filter(|n| *n != ICOUNT_NONE),
    }
}

/// The release's lines, then what the store has to say about a failure, which QEMU had no words for.
fn told(output: ImgOutput) -> Answer {
    let exit = if output.exit == 0 {
        Exit::Done
    } else {
        Exit::Failed
    };
    let mut err = output.stderr;
    if let Some(cause) = output.failure.and_then(|f| f.cause) {
        for line in chain(&cause) {
            let line = crate::output::escape::escape(&line);
            err.extend(format!("  because: {line}\n").into_bytes());
        }
        if let Some(hint) = cause.what_next() {
            let hint = crate::output::escape::escape(hint);
            err.extend(format!("  hint: {hint}\n").into_bytes());
        }
    }
    Answer::Program {
        out: output.stdout,
        err,
        exit,
    }
}

/// An error and its causes.
fn chain(error: &Error) -> Vec<String> {
    let first: &dyn std::error::Error = error;
    std::iter::successors(Some(first), |e| e.source())
        .map(ToString::to_string)
        .collect()
}

fn now() -> Moment {
    // Before 1970 is 1970.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Moment {
        sec: now.as_secs(),
        nsec: now.subsec_nanos(),
    }
}

/// What `TZ` or the system says; UTC for what no calendar holds.
fn local_offset(sec: u64) -> i64 {
    let at = Timestamp::from_second(sec.cast_signed());
    let zone = TimeZone::system();
    at.map_or(0, |at| zone.to_offset(at).seconds().into())
}

impl Report for ImgSnapshots {
    fn is_answer(&self) -> bool {
        true
    }

    /// Only asked for as JSON: as text the release's own output is printed.
    fn text(&self) -> String {
        String::new()
    }
}

impl Report for ImgFailed {
    fn is_answer(&self) -> bool {
        true
    }

    fn exit(&self) -> Exit {
        Exit::Failed
    }

    fn text(&self) -> String {
        String::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stillpoint_store::geometry::Geometry;

    #[test]
    fn a_list_that_could_not_be_had_says_why_in_its_document() {
        let folder = tempfile::tempdir().expect("a folder");
        System::init(folder.path(), Geometry::DEFAULT).expect("it is empty");
        let system = System::open(folder.path(), stillpoint_api::OpenOptions::default());
        let system = system.expect("it was just made");
        let size = stillpoint_api::VolumeSource::Empty(4096);
        let progress = stillpoint_store::progress::Progress::default();
        let made = system.volume_create("disk", size, &progress);
        made.expect("the name is free");
        let asking = Asking {
            asked: Asked {
                action: Some(Action::List),
                ..Asked::default()
            },
            flags: stillpoint_api::compat::Release::DEFAULT.flags(),
            file: None,
            called: false,
        };
        let failed = Failure {
            ret: -5,
            error: None,
            first_bad: None,
            cause: Some(Error::corrupt("reading the log", "entry 7 is torn")),
        };
        let device = system.device("disk").expect("it was just made");
        let Answer::Report(report) =
            asking.report(&device, ImgOutput::default(), Some(Err(failed)))
        else {
            panic!("no document");
        };
        let document = report.json().expect("plain words");
        assert!(document["snapshots"].is_null());
        let why = document["causes"][0].as_str().expect("a text");
        assert!(why.contains("entry 7 is torn"), "{why}");
    }
}
