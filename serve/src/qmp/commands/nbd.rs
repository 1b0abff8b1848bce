//! An NBD server that a client starts, and its exports. `still serve --nbd` serves everything and needs none of this.

use super::{Answer, Arguments, Monitor, QmpError, not_found};
use crate::listen::Address;
use crate::nbd::ChosenExport;
use serde_json::{Value, json};
use stillpoint_nbd::codec::OptionError;
use stillpoint_store::Error;

/// Addresses as `SocketAddressLegacy` has them, `{type, data: {...}}`, or flat.
fn address(mut arguments: Arguments) -> Result<Address, QmpError> {
    let kind = arguments.needs("type")?;
    let mut data = match arguments.object("data") {
        Ok(data) => data,
        Err(_) => std::mem::take(&mut arguments),
    };
    arguments.end()?;
    let text = match kind.as_str() {
        "unix" => format!("unix:{}", data.needs("path")?),
        "inet" => {
            let (host, port) = (data.needs("host")?, data.needs("port")?);
            let host = if host.contains(':') {
                format!("[{host}]")
            } else {
                host
            };
            format!("tcp:{host}:{port}")
        }
        _ => {
            let desc = format!("Parameter 'type' does not accept value '{kind}'");
            return Err(QmpError::new(desc));
        }
    };
    data.end()?;
    text.parse().map_err(|e: Error| e.into())
}

pub fn start(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let address = address(arguments.object("addr")?)?;
    let most = arguments.number("max-connections")?;
    if arguments.text("tls-creds")?.is_some() {
        let desc = "TLS is for the server that `still serve --tls-certificates` starts";
        return Err(QmpError::new(desc));
    }
    arguments.end()?;
    // Zero is no limit; there is always one here.
    let most = most.filter(|n| *n > 0).map(|n| n.min(4096) as usize);
    monitor.nbd().start(&address, most)?;
    Ok(json!({}))
}

pub fn stop(monitor: &Monitor, arguments: Arguments) -> Answer {
    arguments.end()?;
    needs_server(monitor)?;
    for export in monitor.nbd().stop() {
        monitor.tell("BLOCK_EXPORT_DELETED", &json!({ "id": export.id }));
    }
    Ok(json!({}))
}

fn needs_server(monitor: &Monitor) -> Result<(), QmpError> {
    if monitor.nbd().is_running() {
        return Ok(());
    }
    Err(QmpError::new("NBD server not running"))
}

pub fn add(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let device = arguments.needs("device")?;
    let name = arguments.text("name")?.unwrap_or_else(|| device.clone());
    let description = arguments.text("description")?.unwrap_or_default();
    let writable = arguments.flag("writable")?;
    // Every bitmap there is is offered to every client.
    arguments.text("bitmap")?;
    arguments.end()?;
    let export = ChosenExport {
        id: name.clone(),
        name,
        target: device,
        description,
        writable,
    };
    // QEMU's older command takes the wish back without a word where it cannot be.
    let read_only = read_only(monitor, &export, &export.target)?;
    let writable = writable && !read_only;
    put(monitor, ChosenExport { writable, ..export })
}

pub fn export_add(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let kind = arguments.needs("type")?;
    if kind != "nbd" {
        let desc = format!("Parameter 'type' does not accept value '{kind}'");
        return Err(QmpError::new(desc));
    }
    let (id, target) = (arguments.needs("id")?, arguments.needs("node-name")?);
    let name = arguments.text("name")?.unwrap_or_else(|| target.clone());
    let description = arguments.text("description")?.unwrap_or_default();
    let writable = arguments.flag("writable")?;
    // Bitmaps and depths are offered to every client; the rest is of QEMU's insides.
    arguments.ignore(&[
        "bitmaps",
        "allocation-depth",
        "writethrough",
        "iothread",
        "fixed-iothread",
    ]);
    arguments.end()?;
    let export = ChosenExport {
        id,
        name,
        target,
        description,
        writable,
    };
    if read_only(monitor, &export, "")? && writable {
        return Err(QmpError::new("Cannot export read-only node as writable"));
    }
    put(monitor, export)
}

/// `device` is by which name it was asked for besides that of a node.
fn read_only(monitor: &Monitor, export: &ChosenExport, device: &str) -> Result<bool, QmpError> {
    let asked = monitor.nbd().is_read_only(&export.target);
    asked.map_err(|e| match e.kind {
        OptionError::Unknown => not_found(monitor.release(), device, &export.target),
        _ => QmpError::new(e.message),
    })
}

fn put(monitor: &Monitor, export: ChosenExport) -> Answer {
    needs_server(monitor)?;
    monitor.nbd().add(export).map_err(QmpError::new)?;
    Ok(json!({}))
}

pub fn remove(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let name = arguments.needs("name")?;
    arguments.text("mode")?;
    arguments.end()?;
    take(monitor, &name, |e| e.name == name)
}

pub fn export_del(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let id = arguments.needs("id")?;
    arguments.text("mode")?;
    arguments.end()?;
    take(monitor, &id, |e| e.id == id)
}

fn take(monitor: &Monitor, called: &str, is: impl Fn(&ChosenExport) -> bool) -> Answer {
    let Some(export) = monitor.nbd().remove(is) else {
        return Err(QmpError::new(format!("Export '{called}' is not found")));
    };
    monitor.tell("BLOCK_EXPORT_DELETED", &json!({ "id": export.id }));
    Ok(json!({}))
}

pub fn query(monitor: &Monitor, arguments: Arguments) -> Answer {
    arguments.end()?;
    let info = |e: ChosenExport| json!({ "id": e.id, "type": "nbd", "node-name": e.target, "shutting-down": false });
    let all: Value = monitor.nbd().list().into_iter().map(info).collect();
    Ok(all)
}
