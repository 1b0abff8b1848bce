//! What commands work on: the store, its devices, and who is to hear of what happens.

use super::arguments::Arguments;
use super::clients::Clients;
use super::commands;
use super::error::{Class, QmpError};
use super::jobs::Jobs;
use super::message;
use crate::nbd::{NbdServers, StoreExports};
use crate::shelf::Shelf;
use serde_json::{Value, json};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use stillpoint_api::compat::Release;
use stillpoint_api::{Create, Created, GotoReport, System, VmState};
use stillpoint_store::id::Uid;
use stillpoint_store::progress::Progress;
use tracing::info;

/// See the module.
pub struct Monitor {
    shelf: Arc<Shelf>,
    release: Release,
    nbd: NbdServers,
    clients: Clients,
    jobs: Jobs,
    /// Of all commands and jobs; nobody looks at the counters.
    progress: Progress,
    /// For the threads of jobs.
    myself: Weak<Self>,
}

impl Monitor {
    /// Over the disks of a shelf, behaving as a release of QEMU.
    pub fn new(shelf: Arc<Shelf>, exports: Arc<StoreExports>, release: Release) -> Arc<Self> {
        Arc::new_cyclic(|myself| Self {
            nbd: NbdServers::new(exports),
            shelf,
            release,
            clients: Clients::default(),
            jobs: Jobs::default(),
            progress: Progress::default(),
            myself: myself.clone(),
        })
    }

    /// For a thread that outlives the command that started it. There is only this one way to make a monitor.
    pub(super) fn myself(&self) -> Arc<Self> {
        self.myself.upgrade().expect("who calls this holds it")
    }

    /// A group of snapshots; all volumes of it at one instant, while clients write.
    pub(super) fn create(
        &self,
        create: &Create,
        vm_state: Option<VmState<'_>>,
    ) -> Result<Created, QmpError> {
        let volumes = self.shelf.volumes().all();
        let made = self
            .system()
            .create_on(volumes, create, vm_state, self.progress());
        Ok(made?)
    }

    /// Disks put back. Refused where a client writes to one of them, unless it is forced.
    pub(super) fn goto(
        &self,
        snapshot: &str,
        devices: &[String],
        force: bool,
    ) -> Result<GotoReport, QmpError> {
        let system = self.system();
        let found = system.find(snapshot, devices)?;
        let of = system.devices()?;
        let volumes = of.iter().filter(|d| d.volume);
        let volumes = volumes.filter(|d| found.iter().any(|s| s.device == d.name));
        let volumes: Vec<Uid> = volumes.map(|d| d.uid).collect();
        let open = self.shelf.volumes();
        let _claim = open.claim(&volumes, force)?;
        Ok(system.goto_on(open.all(), snapshot, devices, self.progress())?)
    }

    /// The store and its devices.
    pub fn system(&self) -> &'static System {
        self.shelf.system()
    }

    pub(super) fn shelf(&self) -> &Arc<Shelf> {
        &self.shelf
    }

    pub(super) fn release(&self) -> Release {
        self.release
    }

    pub(super) fn nbd(&self) -> &NbdServers {
        &self.nbd
    }

    pub(super) fn clients(&self) -> &Clients {
        &self.clients
    }

    pub(super) fn jobs(&self) -> &Jobs {
        &self.jobs
    }

    /// What a client hears first.
    pub(super) fn greeting(&self) -> Value {
        json!({ "QMP": { "version": self.version(), "capabilities": [] } })
    }

    pub(super) fn version(&self) -> Value {
        let (major, minor) = (self.release.major(), self.release.minor());
        json!({
            "qemu": { "major": major, "minor": minor, "micro": 0 },
            "package": concat!("stillpoint ", env!("CARGO_PKG_VERSION")),
        })
    }

    /// Does a command that stands alone.
    pub(super) fn execute(&self, name: &str, arguments: Arguments) -> Result<Value, QmpError> {
        let Some(command) = commands::find(name, self.release) else {
            let desc = format!("The command {name} has not been found");
            return Err(QmpError::of(Class::CommandNotFound, desc));
        };
        let since = Instant::now();
        let done = (command.run)(self, arguments);
        let seconds = since.elapsed().as_secs_f64();
        match &done {
            Ok(_) => info!(command = name, seconds, "done"),
            Err(e) => info!(command = name, seconds, error = e.desc(), "failed"),
        }
        done
    }

    /// Tells all clients.
    pub(super) fn tell(&self, event: &str, data: &Value) {
        self.clients.tell(&message::event(event, data));
    }

    /// By which what goes on is stopped when the server stops.
    pub(super) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Ends the servers that clients have started, and what still goes on: at the next good place, so that it is whole or not at
    /// all. What guests wrote is made durable after this, and must not wait for somebody's long job.
    pub(super) fn end(&self) {
        self.progress.stop();
        self.nbd.stop();
        while self.jobs.any_at_work() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
