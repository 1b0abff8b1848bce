//! Snapshots as jobs. There is no machine here, so none is stopped and no state of one saved: `snapshot-load` goes to
//! snapshots of disks alone too, which QEMU refuses because its machine would go on over other disks.

use super::{Answer, device};
use crate::qmp::arguments::Arguments;
use crate::qmp::error::QmpError;
use crate::qmp::monitor::Monitor;
use serde_json::json;
use std::sync::Arc;
use stillpoint_api::Create;

/// What a job is to do, once it is known that it can be begun.
type Work = Box<dyn FnOnce(&Monitor) -> Result<(), QmpError> + Send>;

struct Wanted {
    id: String,
    tag: String,
    devices: Vec<String>,
}

impl Wanted {
    fn take(arguments: &mut Arguments) -> Result<Self, QmpError> {
        let devices = arguments.texts("devices")?;
        Ok(Self {
            id: arguments.needs("job-id")?,
            tag: arguments.needs("tag")?,
            devices: devices.ok_or_else(|| super::super::arguments::missing("devices"))?,
        })
    }

    /// The checks of the job itself: what fails here is the job's error, not the command's.
    fn check(&self, monitor: &Monitor, vmstate: Option<&str>) -> Result<(), QmpError> {
        for name in &self.devices {
            device(monitor, name)?;
        }
        if let Some(vmstate) = vmstate.filter(|v| !self.devices.iter().any(|d| d == v)) {
            let desc = format!("vmstate block device '{vmstate}' does not exist");
            return Err(QmpError::new(desc));
        }
        Ok(())
    }

    fn how_many_have_it(&self, monitor: &Monitor) -> Result<usize, QmpError> {
        let mut have = 0;
        for name in &self.devices {
            let all = monitor.system().list_raw(name)?;
            have += usize::from(all.iter().any(|s| s.name == self.tag.as_bytes()));
        }
        Ok(have)
    }

    fn selector(&self) -> String {
        format!("name:{}", self.tag)
    }
}

pub fn save(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let wanted = Wanted::take(&mut arguments)?;
    let vmstate = arguments.needs("vmstate")?;
    arguments.end()?;
    let id = wanted.id.clone();
    start(
        monitor,
        &id,
        "snapshot-save",
        Box::new(move |monitor| {
            wanted.check(monitor, Some(&vmstate))?;
            if wanted.how_many_have_it(monitor)? > 0 {
                let desc = format!(
                    "Snapshot '{}' already exists in one or more devices",
                    wanted.tag
                );
                return Err(QmpError::new(desc));
            }
            let create = Create {
                name: Some(wanted.tag),
                devices: wanted.devices,
                ..Create::default()
            };
            monitor.create(&create, None).map(|_| ())
        }),
    )
}

pub fn load(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let wanted = Wanted::take(&mut arguments)?;
    let vmstate = arguments.needs("vmstate")?;
    arguments.end()?;
    let id = wanted.id.clone();
    start(
        monitor,
        &id,
        "snapshot-load",
        Box::new(move |monitor| {
            wanted.check(monitor, Some(&vmstate))?;
            if wanted.how_many_have_it(monitor)? < wanted.devices.len() {
                let desc = format!(
                    "Snapshot '{}' does not exist in one or more devices",
                    wanted.tag
                );
                return Err(QmpError::new(desc));
            }
            monitor
                .goto(&wanted.selector(), &wanted.devices, true)
                .map(|_| ())
        }),
    )
}

pub fn delete(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let wanted = Wanted::take(&mut arguments)?;
    arguments.end()?;
    let id = wanted.id.clone();
    start(
        monitor,
        &id,
        "snapshot-delete",
        Box::new(move |monitor| {
            wanted.check(monitor, None)?;
            let progress = monitor.progress();
            let mut with = Vec::new();
            for name in &wanted.devices {
                let all = monitor.system().list_raw(name)?;
                if all.iter().any(|s| s.name == wanted.tag.as_bytes()) {
                    with.push(name.clone());
                }
            }
            // One that is nowhere is deleted already, as QEMU sees it.
            if with.is_empty() {
                return Ok(());
            }
            let selector = wanted.selector();
            monitor.system().delete(&selector, &with, false, progress)?;
            Ok(())
        }),
    )
}

/// Begins a job; the rest is told by events.
fn start(monitor: &Monitor, id: &str, kind: &'static str, work: Work) -> Answer {
    monitor.jobs().create(id, kind)?;
    tell(monitor, id, "created");
    let (own, name) = (monitor.myself(), id.to_owned());
    let run = move || {
        run(&own, &name, work);
        own.jobs().over(&name);
    };
    let named = std::thread::Builder::new().name("qmp-job".to_owned());
    if let Err(e) = named.spawn(run) {
        monitor.jobs().step(id, "concluded");
        monitor.jobs().over(id);
        monitor.jobs().dismiss(id)?;
        return Err(QmpError::new(format!("starting a thread: {e}")));
    }
    Ok(json!({}))
}

fn run(monitor: &Arc<Monitor>, id: &str, work: Work) {
    tell(monitor, id, "running");
    let own: &Monitor = monitor;
    // A panic is the job's failure and nobody else's.
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(own)));
    match done.unwrap_or_else(|_| Err(QmpError::new("the job panicked"))) {
        Ok(()) => {
            tell(monitor, id, "waiting");
            tell(monitor, id, "pending");
        }
        Err(error) => {
            monitor.jobs().fail(id, &error);
            tell(monitor, id, "aborting");
        }
    }
    tell(monitor, id, "concluded");
}

fn tell(monitor: &Monitor, id: &str, status: &'static str) {
    monitor.jobs().step(id, status);
    monitor.tell("JOB_STATUS_CHANGE", &json!({ "id": id, "status": status }));
}

pub fn query(monitor: &Monitor, arguments: Arguments) -> Answer {
    arguments.end()?;
    Ok(monitor.jobs().list())
}

pub fn dismiss(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let id = arguments.needs("id")?;
    arguments.end()?;
    monitor.jobs().dismiss(&id)?;
    monitor.tell("JOB_STATUS_CHANGE", &json!({ "id": id, "status": "null" }));
    Ok(json!({}))
}
