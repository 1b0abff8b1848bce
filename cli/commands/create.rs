//! `still create`.

use crate::changed::{self, Changed};
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::table::{Align, Table};
use crate::output::{Answer, Report, units};
use crate::report::{Created, CreatedSnapshot, CreatedVmState};
use crate::server::{self, Server};
use crate::views;
use clap::Args;
use serde_json::{Value, json};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::Instant;
use stillpoint_api::{Create, VmBytes, VmState};
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::disk::{Disk, DiskFile, OpenMode};
use stillpoint_store::{Error, ErrorKind, Result};

/// Arguments of `create`.
#[derive(Debug, Args)]
#[command(after_help = "\
All snapshots of a group exist, or none does.

A change map is QEMU's dirty bitmap of the disk, as NBD shows it, begun or cleared at the device's last snapshot or later
goto, or before. What it leaves out is taken from that snapshot; of the rest 1 % is read as an audit, and one difference
there makes create read everything. So does a device whose last snapshot was deleted, and a map without any change, which
a plain map of a full image cannot be told from. With the bitmap exported under the name web1 (QMP block-export-add with
\"bitmaps\": [\"since-monday\"], or qemu-nbd -B since-monday):

  qemu-img map --output=json --image-opts driver=nbd,server.type=unix,\
    server.path=/run/web1.sock,export=web1,\
    x-dirty-bitmap=qemu:dirty-bitmap:since-monday > map.json

Examples:
  still create monday
  still create before-upgrade --device web1 --device db1
  still create tuesday --device web1 --changed map.json --since monday
  still create paused --vm-state ram.bin --vm-clock 61000000000

VM state goes to one device of the group: the first whose image may be written, unless --vm-device names another.")]
pub struct Arguments {
    /// Name of the snapshot [default: the store chooses one]
    name: Option<String>,
    /// Only this device; may be given again
    #[arg(long = "device", value_name = "D")]
    devices: Vec<String>,
    /// Read only what this map of a dirty bitmap says has changed; see below
    #[arg(long, value_name = "MAP")]
    changed: Option<PathBuf>,
    /// The snapshot at which the bitmap of --changed was begun or cleared: refused when the image comes from another
    #[arg(long, value_name = "SNAP", requires = "changed")]
    since: Option<String>,
    /// File with the VM's saved state, stored with the snapshot; - is standard input
    #[arg(long, value_name = "FILE")]
    vm_state: Option<PathBuf>,
    /// Device of the group that the VM state goes to
    #[arg(long, value_name = "D", requires = "vm_state")]
    vm_device: Option<String>,
    /// Time since the VM booted, nanoseconds
    #[arg(
        long,
        value_name = "NSEC",
        default_value_t = 0,
        hide_default_value = true
    )]
    vm_clock: u64,
    /// Instructions that the VM has counted
    #[arg(long, value_name = "N")]
    icount: Option<u64>,
}

/// Makes the group.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let mut changed = arguments
        .changed
        .as_deref()
        .map(changed::read)
        .transpose()?;
    if changed.take_if(|map| map.ranges.is_empty()).is_some() && !context.quiet {
        eprintln!(
            "still: the change map has no change in it, as the plain map of a full image: everything is read"
        );
    }
    let _line = context.watch("create");
    call(arguments, changed.as_ref(), context).map(Answer::of)
}

fn call(arguments: &Arguments, changed: Option<&Changed>, context: &Context) -> Result<Created> {
    let since = Instant::now();
    let create = Create {
        name: arguments.name.clone(),
        devices: arguments.devices.clone(),
        changed: changed.map(ranges),
        since: arguments.since.clone(),
        vm_clock_nsec: arguments.vm_clock,
        icount: arguments.icount,
    };
    let system = context.open()?;
    if let Some(server) = Server::of_volumes(&context.store, &system, &arguments.devices)? {
        let vm_state = arguments.vm_state.as_deref().map(opened).transpose()?;
        let vm = (vm_state.as_deref(), arguments.vm_device.as_deref());
        return through(server, &create, vm, since);
    }
    let mut stdin = std::io::stdin().lock();
    let vm_state = arguments.vm_state.as_deref().map(|file| VmState {
        device: arguments.vm_device.clone(),
        bytes: if file == Path::new("-") {
            VmBytes::Stream(&mut stdin)
        } else {
            VmBytes::File(file)
        },
    });
    let made = system.create_with(&create, vm_state, &context.progress)?;
    if made.devices.iter().any(|d| d.counts.audit_failed) && !context.quiet {
        eprintln!("still: the change map was wrong: everything was read");
    }
    Ok(views::created(&made, since))
}

/// VM state as this process has it open: the server reads that file whatever it sees under the file's name, if there is any.
fn opened(file: &Path) -> Result<Box<dyn DiskFile>> {
    if file != Path::new("-") {
        let opened = RealDisk.open(file, OpenMode::Read);
        return opened.map_err(|e| e.of("VM state"));
    }
    let failed = |e| Error::io("keeping VM state in a temporary file", e);
    let mut kept = tempfile::tempfile().map_err(failed)?;
    let copied = std::io::copy(&mut std::io::stdin().lock(), &mut kept);
    copied.map_err(|e| Error::io("reading VM state", e))?;
    Ok(RealDisk::adopt(kept, Path::new("VM state")))
}

/// The name of an open file for another process.
fn name_for_others(file: &dyn DiskFile) -> Option<String> {
    let fd = file.as_real()?.as_raw_fd();
    Some(format!("/proc/{}/fd/{fd}", std::process::id()))
}

/// The same by the server that has the volumes open.
fn through(
    mut server: Server,
    create: &Create,
    (vm_state, vm_device): (Option<&dyn DiskFile>, Option<&str>),
    since: Instant,
) -> Result<Created> {
    if create.changed.is_some() {
        return Err(Error::new(ErrorKind::Unsupported, "making a snapshot")
            .detail("the server that has the volumes open knows what was written to them")
            .hint("leave --changed out, or name a device that is no volume"));
    }
    let arguments = json!({
        "name": create.name,
        "devices": create.devices,
        "vm-clock": create.vm_clock_nsec,
        "icount": create.icount,
        "vm-state": vm_state.and_then(name_for_others),
        "vm-device": vm_device,
    });
    let made = server.execute("x-stillpoint-create", &server::without_nulls(arguments))?;
    let text = |value: &Value, field: &str| value[field].as_str().unwrap_or_default().to_owned();
    let number = |value: &Value, field: &str| value[field].as_u64().unwrap_or_default();
    let snapshots = made["snapshots"].as_array().into_iter().flatten();
    let snapshots = snapshots.map(|s| CreatedSnapshot {
        device: text(s, "device"),
        id: text(s, "id"),
        name: text(s, "name"),
        uid: text(s, "uid"),
        size_bytes: number(s, "size_bytes"),
        read_bytes: number(s, "read_bytes"),
        new_bytes: number(s, "new_bytes"),
        stored_bytes: number(s, "stored_bytes"),
        vm_state: s["vm_state"].is_object().then(|| CreatedVmState {
            size_bytes: number(&s["vm_state"], "size_bytes"),
            new_bytes: number(&s["vm_state"], "new_bytes"),
            stored_bytes: number(&s["vm_state"], "stored_bytes"),
        }),
    });
    Ok(Created {
        group: made["group"].as_str().map(ToOwned::to_owned),
        snapshots: snapshots.collect(),
        seconds: since.elapsed().as_secs_f64(),
    })
}

/// What the map says has changed, and all that it does not speak of.
fn ranges(changed: &Changed) -> Vec<Range<u64>> {
    let said = changed
        .ranges
        .iter()
        .map(|(start, length)| *start..start + length);
    said.chain(std::iter::once(changed.covered_bytes..u64::MAX))
        .collect()
}

impl Report for Created {
    fn text(&self) -> String {
        let (table, read, stored) = table_of(&self.snapshots);
        let name = self.snapshots.first().map_or("", |snapshot| &snapshot.name);
        let devices = units::number_of(self.snapshots.len() as u64, "device");
        let took = units::seconds(self.seconds);
        format!(
            "{table}created {} on {devices} in {took}: {} read, {} stored\n",
            escape(name),
            units::size(read),
            units::size(stored)
        )
    }
}

/// Snapshots as a table, with what was read and stored for all of them.
pub fn table_of(snapshots: &[CreatedSnapshot]) -> (String, u64, u64) {
    let mut table = Table::new(&[
        ("DEVICE", Align::Left),
        ("ID", Align::Right),
        ("NAME", Align::Left),
        ("SIZE", Align::Right),
        ("READ", Align::Right),
        ("NEW", Align::Right),
        ("STORED", Align::Right),
    ]);
    let (mut read, mut stored) = (0, 0);
    let mut vm_states = String::new();
    for snapshot in snapshots {
        read += snapshot.read_bytes;
        stored += snapshot.stored_bytes;
        table.row(&[
            snapshot.device.clone(),
            snapshot.id.clone(),
            snapshot.name.clone(),
            units::size(snapshot.size_bytes),
            units::size(snapshot.read_bytes),
            units::size(snapshot.new_bytes),
            units::size(snapshot.stored_bytes),
        ]);
        if let Some(vm) = &snapshot.vm_state {
            stored += vm.stored_bytes;
            vm_states.extend([format!(
                "VM state on {}: {}, {} new, {} stored\n",
                escape(&snapshot.device),
                units::size(vm.size_bytes),
                units::size(vm.new_bytes),
                units::size(vm.stored_bytes)
            )]);
        }
    }
    (table.text() + &vm_states, read, stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Created {
        let snapshot = |device: &str, id: &str| CreatedSnapshot {
            device: device.into(),
            id: id.into(),
            name: "monday".into(),
            uid: "00ff".into(),
            size_bytes: 4 << 30,
            read_bytes: 1 << 30,
            new_bytes: 3 << 20,
            stored_bytes: 1 << 20,
            vm_state: None,
        };
        let snapshots = vec![snapshot("web1", "1"), snapshot("db", "12")];
        Created {
            group: Some("ab".into()),
            snapshots,
            seconds: 3.21,
        }
    }

    #[test]
    fn people_see_what_was_saved() {
        assert_eq!(
            sample().text(),
            "DEVICE  ID  NAME       SIZE     READ      NEW   STORED\n\
             web1     1  monday  4.0 GiB  1.0 GiB  3.0 MiB  1.0 MiB\n\
             db      12  monday  4.0 GiB  1.0 GiB  3.0 MiB  1.0 MiB\n\
             created monday on 2 devices in 3.2 s: 2.0 GiB read, 2.0 MiB stored\n"
        );
    }

    #[test]
    fn vm_state_is_told_apart_from_disks() {
        let mut created = sample();
        created.snapshots[1].vm_state = Some(CreatedVmState {
            size_bytes: 2 << 30,
            new_bytes: 8 << 20,
            stored_bytes: 4 << 20,
        });
        let text = created.text();
        let line = "VM state on db: 2.0 GiB, 8.0 MiB new, 4.0 MiB stored\n";
        assert!(text.contains(line), "{text}");
        assert!(text.ends_with("2.0 GiB read, 6.0 MiB stored\n"), "{text}");
        let json = serde_json::to_value(&created).expect("it serialises");
        assert_eq!(json["snapshots"][1]["vm_state"]["stored_bytes"], 4 << 20);
        assert_eq!(json["snapshots"][0]["vm_state"], serde_json::Value::Null);
    }

    #[test]
    fn programs_get_integers() {
        let json = serde_json::to_value(sample()).expect("it serialises");
        assert_eq!(json["group"], "ab");
        assert_eq!(json["snapshots"][1]["device"], "db");
        assert_eq!(json["snapshots"][1]["read_bytes"], 1_073_741_824);
        assert_eq!(json["snapshots"][1]["stored_bytes"], 1_048_576);
    }
}
