//! What an export would write, and what it leaves behind.

use super::{Arguments, wanted};
use crate::commands::checksums::lines_of_left_out;
use crate::output::escape::escape;
use crate::output::table::{Align, Table};
use crate::output::{Report, units};
use crate::report::{LeftOut, PlannedExport, PlannedExportState};
use stillpoint_api::{SnapshotView, System, Which};
use stillpoint_migrate::Format;
use stillpoint_store::Result;
use stillpoint_store::format::entry::Content;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::ops::diff::ExtentKind;

/// A view of the manifest alone needs no cache of clusters.
const NO_CACHE: usize = 0;

/// Looks at manifests only.
pub fn plan(arguments: &Arguments, format: Format, system: &System) -> Result<PlannedExport> {
    let (kept, records) = wanted(arguments, system)?;
    let mut states = Vec::with_capacity(kept.len());
    let mut all = 0;
    for (n, state) in kept.iter().enumerate() {
        let before = n.checked_sub(1).map(|n| kept[n].disk);
        let vm_state_bytes = state.vm_state.map_or(0, |vm| vm.size);
        let data_bytes = data_of(system, state.disk, before)?;
        all += data_bytes + vm_state_bytes;
        states.push(PlannedExportState {
            name: state.name.clone(),
            size_bytes: state.disk.size,
            data_bytes,
            vm_state_bytes,
        });
    }
    Ok(PlannedExport {
        target: arguments.target.clone(),
        format: format.to_string(),
        states,
        data_bytes: all,
        left_out: left_out(arguments, format, system, &records)?,
    })
}

/// Data of a disk that the one before has not in the same place.
fn data_of(system: &System, disk: Content, before: Option<Content>) -> Result<u64> {
    let store = system.store();
    let mut bytes = 0;
    let mut add = |kind: ExtentKind, length: u64| {
        if kind == ExtentKind::Data {
            bytes += length;
        }
    };
    if let Some(before) = before {
        let changed = store.diff(before, disk)?;
        changed.iter().for_each(|e| add(e.kind, e.length));
        return Ok(bytes);
    }
    for extent in store.view(disk, NO_CACHE)?.extents(0, disk.size)? {
        let extent = extent?;
        add(extent.kind, extent.length);
    }
    Ok(bytes)
}

/// What the store has of the device and the image has not. A raw image is bytes, and nobody expects more of it.
pub fn left_out(
    arguments: &Arguments,
    format: Format,
    system: &System,
    records: &[SnapshotRecord],
) -> Result<Vec<LeftOut>> {
    let mut left_out = Vec::new();
    if format == Format::Raw {
        return Ok(left_out);
    }
    let mut add = |what: &str, why: String| {
        let what = what.to_owned();
        left_out.push(LeftOut { what, why });
    };
    let (_, of_device) = system.states(&arguments.target, Which::All)?;
    let (all, inside) = (of_device.len(), records.len());
    if all > inside {
        let why = match format {
            Format::Qcow2 => format!("{} of {all} are not in it", all - inside),
            _ => format!("{all} of the device: a {format} image holds none"),
        };
        add("snapshots", why);
    }
    let views = system.list(None)?;
    let is_inside = |v: &&SnapshotView| records.iter().any(|r| r.uid == v.uid);
    let with_others = |v: &&SnapshotView| {
        let of_group = |o: &SnapshotView| o.group == v.group && o.device != v.device;
        v.group.is_some() && views.iter().any(of_group)
    };
    let grouped = views.iter().filter(is_inside).filter(with_others).count();
    if grouped > 0 {
        let why =
            format!("{grouped} of the snapshots were made together with those of other devices");
        add("groups", why);
    }
    let inside = views.iter().filter(is_inside);
    let labelled = inside.filter(|v| !v.labels.is_empty()).count();
    if labelled > 0 {
        add("labels", format!("{labelled} of the snapshots have some"));
    }
    Ok(left_out)
}

impl Report for PlannedExport {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            ("STATE", Align::Left),
            ("SIZE", Align::Right),
            ("DATA", Align::Right),
            ("VM STATE", Align::Right),
        ]);
        for state in &self.states {
            table.row(&[
                state.name.clone(),
                units::size(state.size_bytes),
                units::size(state.data_bytes),
                units::size(state.vm_state_bytes),
            ]);
        }
        format!(
            "{}{}would export {} as {}: at most {}, before compression\n",
            table.text(),
            lines_of_left_out(&self.left_out),
            escape(&self.target),
            self.format,
            units::size(self.data_bytes),
        )
    }

    fn is_answer(&self) -> bool {
        true
    }
}
