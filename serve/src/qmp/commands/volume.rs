//! Volumes: made, resized, removed and handed over through the server that has them open.

use super::{Answer, Arguments, Monitor, QmpError};
use serde_json::json;
use stillpoint_api::VolumeSource;

/// `size` for an empty one, or `from` for a clone.
pub fn create(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let name = arguments.needs("name")?;
    let (size, from) = (arguments.number("size")?, arguments.text("from")?);
    arguments.end()?;
    let source = match (size, &from) {
        (Some(size), None) => VolumeSource::Empty(size),
        (None, Some(from)) => VolumeSource::From(from),
        _ => return Err(QmpError::new("Either 'size' or 'from' is needed")),
    };
    let volumes = monitor.shelf().volumes().all();
    let progress = monitor.progress();
    let made = monitor
        .system()
        .volume_create_on(volumes, &name, source, progress)?;
    Ok(json!({ "device": name, "uid": made.uid.to_string(), "size_bytes": made.size }))
}

pub fn resize(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let name = arguments.needs("name")?;
    let size = arguments.number("size")?;
    let size = size.ok_or_else(|| super::super::arguments::missing("size"))?;
    arguments.end()?;
    let (system, volumes) = (monitor.system(), monitor.shelf().volumes());
    let uid = system.volume_named(&name)?;
    // Growing takes nothing from anybody.
    let grows = system.device(&name)?.size.is_some_and(|now| size >= now);
    let _claim = volumes.claim(&[uid], grows)?;
    volumes.all().resize(&uid, size, monitor.progress())?;
    Ok(json!({ "device": name, "size_bytes": size }))
}

pub fn remove(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let name = arguments.needs("name")?;
    arguments.end()?;
    let (system, volumes) = (monitor.system(), monitor.shelf().volumes());
    let uid = system.volume_named(&name)?;
    let _claim = volumes.claim(&[uid], false)?;
    volumes.all().remove(&uid)?;
    volumes.forget(&uid);
    let gone = system.store().refresh()?.device(&uid).is_none();
    Ok(json!({ "device": name, "device_removed": gone }))
}

pub fn hand_over(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let name = arguments.needs("name")?;
    arguments.end()?;
    let (system, volumes) = (monitor.system(), monitor.shelf().volumes());
    let uid = system.volume_named(&name)?;
    let _claim = volumes.claim(&[uid], false)?;
    volumes.all().hand_over(&uid, monitor.progress())?;
    volumes.forget(&uid);
    Ok(json!({ "device": name }))
}

/// Stores what was written to a volume, so that the store has all of it.
pub fn absorb(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let name = arguments.needs("device")?;
    arguments.end()?;
    let uid = monitor.system().volume_named(&name)?;
    let volumes = monitor.shelf().volumes().all();
    let contents = volumes.absorb(&[uid], monitor.progress())?;
    let content = contents.first();
    Ok(json!({
        "device": name,
        "root": content.map(|c| c.root.to_string()),
        "size_bytes": content.map(|c| c.size),
    }))
}
