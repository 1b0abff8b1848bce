//! The store's side: a raw image, and `qemu-img snapshot` as a call or as the program.

use crate::Said;
use crate::support::{real_release, run};
use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use stillpoint_api::System;
use stillpoint_api::compat::{Graph, ImgAction, NodeId, Release, img_snapshot};
use stillpoint_api::store::disk::real::RealDisk;
use stillpoint_api::store::geometry::Geometry;
use stillpoint_api::store::index::memory::MemoryHome;
use stillpoint_api::store::object::memory::MemoryObjects;
use stillpoint_api::store::store::{Doors, Store};
use stillpoint_api::store::world::{RealWorld, World};

/// As which the real program behaves, whichever it is.
fn release() -> Release {
    static REAL: OnceLock<Release> = OnceLock::new();
    *REAL.get_or_init(real_release)
}

pub trait Ours {
    fn snapshot(&mut self, action: &str, name: &OsStr) -> Said;

    fn image(&self) -> &Path;

    fn open(&self) -> File {
        let file = File::options().write(true).open(self.image());
        file.expect("the image is there")
    }

    fn size(&self) -> u64 {
        self.open().metadata().expect("it has a size").len()
    }

    fn write(&mut self, at: u64, bytes: &[u8]) {
        self.open().write_all_at(bytes, at).expect("there is room");
    }

    fn resize(&mut self, size: u64) {
        self.open().set_len(size).expect("there is room");
    }
}

/// In one of the two ways.
pub fn new(folder: &Path, size: u64, through_program: bool) -> Box<dyn Ours> {
    let image = folder.join("ours.raw");
    let file = File::create_new(&image).expect("a new image");
    file.set_len(size).expect("it can grow");
    if through_program {
        let program = Program {
            folder: folder.into(),
            image,
        };
        program.ok(&["init"]);
        program.ok(&["device", "add", "disk", "ours.raw"]);
        Box::new(program)
    } else {
        Box::new(Call::new(image))
    }
}

/// Calls what the program calls, on a store in memory.
struct Call {
    graph: Graph,
    bs: NodeId,
    image: PathBuf,
}

impl Call {
    fn new(image: PathBuf) -> Self {
        let objects = MemoryObjects::new();
        let file = Store::create(&objects, &RealWorld, Geometry::DEFAULT);
        let file = file.expect("there is no store yet");
        let doors = Doors {
            objects: Arc::new(objects.clone()),
            local: Arc::new(objects),
            index: Arc::new(MemoryHome::new(file.id)),
            world: Arc::new(RealWorld),
            say: Arc::new(|_| {}),
        };
        let system = System::with(doors, Arc::new(RealDisk)).expect("it was just made");
        let added = system.device_add("disk", &image, "raw", false);
        added.expect("the image can be opened");
        let mut graph = Graph::new();
        let bs = graph.add_device(&Arc::new(system), "disk");
        let bs = bs.expect("it was just added");
        Self { graph, bs, image }
    }
}

impl Ours for Call {
    fn snapshot(&mut self, action: &str, name: &OsStr) -> Said {
        let name = name.as_bytes();
        let action = match action {
            "-c" => ImgAction::Create(name),
            "-a" => ImgAction::Apply(name),
            "-d" => ImgAction::Delete(name),
            _ => ImgAction::List,
        };
        let (graph, now) = (&mut self.graph, RealWorld.now());
        let done = img_snapshot(release(), graph, self.bs, action, now, &|_| 0);
        Said::new(done.exit.into(), &done.stdout, &done.stderr)
    }

    fn image(&self) -> &Path {
        &self.image
    }
}

/// The program, on a store of files.
struct Program {
    folder: PathBuf,
    image: PathBuf,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_still"));
        command
            .env_remove("STILL_STORE")
            .env_remove("STILL_QEMU_VERSION")
            .env("TZ", "UTC")
            .current_dir(&self.folder);
        command
    }

    fn ok(&self, arguments: &[&str]) {
        run(self.command().args(arguments)).code(0);
    }
}

impl Ours for Program {
    fn snapshot(&mut self, action: &str, name: &OsStr) -> Said {
        let mut command = self.command();
        let release = release().to_string();
        command.args(["qemu-img", "snapshot", "--qemu-version", &release, action]);
        if action != "-l" {
            command.arg(name);
        }
        let output = command.arg("ours.raw").output().expect("it runs");
        let code = output.status.code().expect("it ends by itself");
        Said::new(code, &output.stdout, &output.stderr)
    }

    fn image(&self) -> &Path {
        &self.image
    }
}
