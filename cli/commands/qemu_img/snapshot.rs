//! `still qemu-img snapshot`.

use super::getopt::{Item, Spec, scan};
use super::say::{self, Usage};
use super::{NAME, pass_on};
use crate::arguments::Cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{Answer, Report};
use crate::report::{ImgFailed, ImgSnapshot, ImgSnapshots};
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use stillpoint_api::compat::qcow2::Qcow2;
use stillpoint_api::compat::{
    Flags, Graph, ICOUNT_NONE, ImgAction, ImgOutput, Node, QemuSnapshotInfo, Release, StoreTable,
    bdrv_snapshot_list, img_snapshot,
};
use stillpoint_api::{DeviceView, System};
use stillpoint_store::world::Moment;
use stillpoint_store::{Error, ErrorKind, Result};

/// The release, where the command line names none.
const RELEASE: &str = "STILL_QEMU_VERSION";

/// What follows `qemu-img snapshot`, as it was written: it is read by getopt's rules, not by clap's, with the options that
/// clap's definition has.
#[derive(Debug, Default)]
pub struct Arguments {
    /// The words.
    pub words: Vec<OsString>,
    /// The whole command line, of a program that was called as qemu-img.
    pub program: Option<Vec<OsString>>,
}

impl FromArgMatches for Arguments {
    fn from_arg_matches(_: &ArgMatches) -> std::result::Result<Self, clap::Error> {
        Ok(Self::default())
    }

    fn update_from_arg_matches(&mut self, _: &ArgMatches) -> std::result::Result<(), clap::Error> {
        Ok(())
    }
}

impl clap::Args for Arguments {
    fn augment_args(command: clap::Command) -> clap::Command {
        let action = |id: &'static str, short, help: &'static str| {
            let arg = Arg::new(id).short(short).long(id).help(help);
            arg.value_name("SNAPSHOT")
                .value_parser(clap::value_parser!(OsString))
        };
        command
            .arg(flag("list", 'l', "List the snapshots"))
            .arg(action("apply", 'a', "Put the image back to a snapshot, given by id or else by name"))
            .arg(action("create", 'c', "Make a snapshot of that name; others may have it"))
            .arg(action("delete", 'd', "Delete a snapshot, given as the release has it: by name from 4.0 on"))
            .arg(
                Arg::new("qemu-version")
                    .long("qemu-version")
                    .value_name("RELEASE")
                    .env(RELEASE)
                    .hide_env_values(true)
                    .help("Behave as this QEMU release, 1.0 to 11.1 [default: 4.2]"),
            )
            .arg(flag("force-share", 'U', "Taken as qemu-img takes it: only with -l"))
            .arg(Arg::new("format").short('f').long("format").value_name("FMT").help("Taken and not used, from 10.1 on"))
            .arg(Arg::new("object").long("object").value_name("OBJDEF").help("Taken and not used"))
            .arg(Arg::new("image-opts").long("image-opts").action(ArgAction::SetTrue).help("FILE is options; its file.filename counts"))
            .arg(
                Arg::new("file")
                    .value_name("FILE")
                    .value_hint(clap::ValueHint::FilePath)
                    .value_parser(clap::value_parser!(OsString))
                    .help("Image of a device, or name of a device"),
            )
            .override_usage("still qemu-img snapshot [OPTIONS] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] FILE")
            .after_help(AFTER_HELP)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

const AFTER_HELP: &str = "\
Output, messages and exit codes (0 or 1) are those of the release; what the store has to add comes on lines of its own.
Called as qemu-img it passes every image that is not the store's on to the real qemu-img.

Examples:
  still qemu-img snapshot -c monday web1.raw
  still qemu-img snapshot -l web1
  still qemu-img snapshot --qemu-version 10.0 -a monday web1.raw";

fn flag(id: &'static str, short: char, help: &'static str) -> Arg {
    let arg = Arg::new(id).short(short).long(id).help(help);
    arg.action(ArgAction::SetTrue)
}

/// One of the four actions, with its argument byte for byte.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    List,
    Apply(Vec<u8>),
    Create(Vec<u8>),
    Delete(Vec<u8>),
}

/// What a command line asks for.
#[derive(Debug, Default)]
struct Asked {
    release: Release,
    action: Option<Action>,
    words: Vec<OsString>,
    force_share: bool,
    image_opts: bool,
    help: bool,
    store: Option<PathBuf>,
    json: bool,
    usage: Option<Usage>,
}

/// Does what the words ask for, or passes them on.
pub fn run(arguments: Arguments, context: &Context) -> Result<Answer> {
    let asked = interpret(&scan(&spec(), &arguments.words))?;
    let context = Context {
        store: asked.store.clone().unwrap_or_else(|| context.store.clone()),
        json: context.json || asked.json,
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
    if let (Some(words), true) = (&arguments.program, opened.is_others()) {
        let error = pass_on::exec(words);
        if error.kind() != ErrorKind::NotFound {
            return Err(error);
        }
    }
    Ok(match asking.answer(opened, &context) {
        Answer::Program { err, exit, .. } if context.json && exit != Exit::Done => {
            let message = String::from_utf8_lossy(&err);
            Answer::of(ImgFailed::new(message.trim_end(), Vec::new(), None))
        }
        answer => answer,
    })
}

/// The options of clap's definition.
fn spec() -> Spec {
    let mut cli = Cli::command();
    cli.build();
    let command = cli
        .find_subcommand(NAME)
        .and_then(|c| c.find_subcommand("snapshot"));
    Spec::of(command.expect("the grammar has the verb"))
}

fn interpret(items: &[Item]) -> Result<Asked> {
    let mut asked = Asked {
        release: release(items)?,
        ..Asked::default()
    };
    let flags = asked.release.flags();
    for item in items {
        let refused = asked.take(item, &flags);
        asked.usage = asked.usage.take().or(refused);
    }
    if asked.words.len() != 1 {
        asked.usage.get_or_insert(Usage::NotOneFile);
    }
    Ok(asked)
}

fn release(items: &[Item]) -> Result<Release> {
    let named = items.iter().rev().find_map(|item| match item {
        Item::Option { id, value, .. } if id == "qemu-version" => value.clone(),
        _ => None,
    });
    let named = named.or_else(|| std::env::var_os(RELEASE).filter(|v| !v.is_empty()));
    named.map_or(Ok(Release::DEFAULT), |v| v.to_string_lossy().parse())
}

impl Asked {
    fn take(&mut self, item: &Item, flags: &Flags) -> Option<Usage> {
        let (id, long, value, written) = match item {
            Item::Word(word) => {
                self.words.push(word.clone());
                return None;
            }
            Item::Unknown(written) => return Some(Usage::Unknown(written.clone())),
            Item::Missing(written) => return Some(Usage::Missing(written.clone())),
            Item::Option {
                id,
                long,
                value,
                written,
            } => (id.as_str(), *long, value.as_deref(), written),
        };
        let bytes = || value.unwrap_or_default().as_bytes().to_vec();
        let action = match id {
            "list" => Action::List,
            "apply" => Action::Apply(bytes()),
            "create" => Action::Create(bytes()),
            "delete" => Action::Delete(bytes()),
            "format" if !flags.img_long_actions => return Some(Usage::Unknown(written.clone())),
            _ => {
                match id {
                    "force-share" => self.force_share = true,
                    "image-opts" => self.image_opts = true,
                    "help" => self.help = true,
                    "json" => self.json = true,
                    "store" => self.store = value.map(PathBuf::from),
                    _ => {}
                }
                return None;
            }
        };
        if long && !flags.img_long_actions {
            return Some(Usage::Unknown(written.clone()));
        }
        if self.action.is_some() {
            return Some(Usage::Mixed);
        }
        self.action = Some(action);
        None
    }

    /// The file that the word names: itself, or what `--image-opts` finds in it.
    fn file(&self, word: &OsStr) -> OsString {
        if !self.image_opts {
            return word.to_owned();
        }
        let options = word.as_bytes().split(|b| *b == b',');
        let name = options
            .filter_map(|o| {
                o.strip_prefix(b"file.filename=")
                    .or_else(|| o.strip_prefix(b"filename="))
            })
            .next_back();
        OsString::from_vec(name.unwrap_or_default().to_vec())
    }
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

impl Opened {
    fn is_others(&self) -> bool {
        matches!(self, Self::Others(_))
    }
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
        if self.asked.help {
            return say::help(Exit::Done, Vec::new());
        }
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
            let listed = context.json && action == ImgAction::List;
            let list = listed.then(|| bdrv_snapshot_list(release, &mut graph, bs));
            Ok((output, list.and_then(std::result::Result::ok)))
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
        list: Option<Vec<QemuSnapshotInfo>>,
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
            None => ("none", None),
            Some(Action::List) => ("list", None),
            Some(Action::Apply(name)) => ("apply", Some(name)),
            Some(Action::Create(name)) => ("create", Some(name)),
            Some(Action::Delete(name)) => ("delete", Some(name)),
        };
        Answer::of(ImgSnapshots {
            qemu_version: self.asked.release.to_string(),
            device: device.name.clone(),
            action,
            snapshot: snapshot.map(|name| crate::output::escape::bytes_to_text(name)),
            snapshots: list.map(|list| list.iter().map(snapshot_of).collect()),
        })
    }
}

fn snapshot_of(sn: &QemuSnapshotInfo) -> ImgSnapshot {
    let text = crate::output::escape::bytes_to_text;
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
