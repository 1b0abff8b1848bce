//! `transaction` of internal snapshots. Those of one name are one group, made at one instant, all or none; where names differ,
//! what had been made is deleted again when one fails, as QEMU does it.

use super::snapshot::{Wanted, create_group};
use super::{Answer, Arguments, Monitor, QmpError};
use serde_json::{Value, json};
use stillpoint_store::progress::Progress;
use tracing::warn;

/// Most actions at once.
const ACTIONS: usize = 1024;

pub fn transaction(monitor: &Monitor, mut arguments: Arguments) -> Answer {
    let actions = arguments.list("actions")?;
    let actions = actions.ok_or_else(|| super::super::arguments::missing("actions"))?;
    // One completion mode has no meaning without jobs.
    arguments.ignore(&["properties"]);
    arguments.end()?;
    if actions.len() > ACTIONS {
        return Err(QmpError::new(format!("More than {ACTIONS} actions")));
    }
    let wanted = actions.into_iter().map(action);
    let wanted: Vec<Wanted> = wanted.collect::<Result<_, _>>()?;
    for (n, one) in wanted.iter().enumerate() {
        one.check(monitor)?;
        let same = |other: &Wanted| other.device == one.device && other.name == one.name;
        if wanted[..n].iter().any(same) {
            let Wanted { device, name } = one;
            let desc = format!("Snapshot with name '{name}' already exists on device '{device}'");
            return Err(QmpError::new(desc));
        }
    }
    make(monitor, wanted)?;
    Ok(json!({}))
}

fn action(value: Value) -> Result<Wanted, QmpError> {
    let Value::Object(map) = value else {
        return Err(QmpError::new(
            "Invalid parameter type for 'actions[]', expected: object",
        ));
    };
    let mut action = Arguments::new(map);
    let kind = action.needs("type")?;
    if kind != "blockdev-snapshot-internal-sync" {
        let desc = format!(
            "Invalid parameter '{kind}': only internal snapshots can be in a transaction here"
        );
        return Err(QmpError::new(desc));
    }
    let data = action.object("data")?;
    action.end()?;
    Wanted::take(data)
}

/// Groups of one name each, in the order of their first actions.
fn make(monitor: &Monitor, wanted: Vec<Wanted>) -> Result<(), QmpError> {
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for Wanted { device, name } in wanted {
        match groups.iter_mut().find(|(group, _)| *group == name) {
            Some((_, devices)) => devices.push(device),
            None => groups.push((name, vec![device])),
        }
    }
    for (n, (name, devices)) in groups.iter().enumerate() {
        let Err(error) = create_group(monitor, name, devices.clone()) else {
            continue;
        };
        for (name, devices) in &groups[..n] {
            // Not to be stopped with the server.
            let progress = Progress::default();
            let selector = format!("name:{name}");
            let undone = monitor
                .system()
                .delete(&selector, devices, false, &progress);
            if let Err(e) = undone {
                warn!(snapshot = name, error = %e, "a snapshot of a failed transaction stays");
            }
        }
        return Err(error);
    }
    Ok(())
}
