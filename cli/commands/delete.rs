//! `still delete`.

use crate::context::Context;
use crate::output::escape::escape;
use crate::output::table::{Align, Table};
use crate::output::{Answer, Report, units};
use crate::report::{Deleted, DeletedSnapshot};
use clap::Args;
use stillpoint_store::Result;

/// Arguments of `delete`.
#[derive(Debug, Args)]
#[command(after_help = "\
Deleting frees nothing by itself; still gc does.

Example:
  still delete monday --dry-run")]
pub struct Arguments {
    /// Snapshot to delete: name, name:N, id:N or id:N,name:N
    #[arg(value_name = "SNAP")]
    snapshot: String,
    /// Only on this device; may be given again
    #[arg(long = "device", value_name = "D")]
    devices: Vec<String>,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
}

/// Deletes.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    call(
        &arguments.snapshot,
        &arguments.devices,
        arguments.dry_run,
        context,
    )
    .map(Answer::of)
}

fn call(snap: &str, devices: &[String], dry_run: bool, context: &Context) -> Result<Deleted> {
    let system = context.open()?;
    let deleted = system.delete(snap, devices, dry_run, &context.progress)?;
    let of = |name: &String| {
        deleted
            .snapshots
            .iter()
            .filter(|s| s.device == *name)
            .count() as u64
    };
    let mut kept_by_heads = Vec::new();
    for d in system.devices()? {
        let deleted_here = of(&d.name);
        let left = d.snapshots
            - if dry_run {
                deleted_here.min(d.snapshots)
            } else {
                0
            };
        if deleted_here > 0 && left == 0 && d.head.is_some() {
            kept_by_heads.push(d.name);
        }
    }
    let snapshot = |s: &stillpoint_api::DeletedSnapshot| DeletedSnapshot {
        device: s.device.clone(),
        id: s.id.clone(),
        name: s.name.clone(),
    };
    Ok(Deleted {
        dry_run,
        snapshots: deleted.snapshots.iter().map(snapshot).collect(),
        kept_by_heads,
        reclaimable_bytes: deleted.frees,
    })
}

impl Report for Deleted {
    fn is_answer(&self) -> bool {
        self.dry_run
    }

    fn text(&self) -> String {
        let columns = [
            ("DEVICE", Align::Left),
            ("ID", Align::Right),
            ("NAME", Align::Left),
        ];
        let mut table = Table::new(&columns);
        for snapshot in &self.snapshots {
            table.row(&[
                snapshot.device.clone(),
                snapshot.id.clone(),
                snapshot.name.clone(),
            ]);
        }
        let what = units::number_of(self.snapshots.len() as u64, "snapshot");
        let lead = if self.dry_run {
            "would delete"
        } else {
            "deleted"
        };
        let frees = self
            .reclaimable_bytes
            .map(|n| format!(", gc --all would then free {} more", units::size(n)));
        let mut text = format!(
            "{}{lead} {what}{}\n",
            table.text(),
            frees.unwrap_or_default()
        );
        for device in &self.kept_by_heads {
            let device = escape(device);
            let remove = format!("`still device remove {device}`");
            text.extend(["  hint: what ", &device, " holds now stays stored; "]);
            text.extend([&remove, " lets go of it\n"]);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dry_run_is_told_from_the_deed() {
        let snapshot = DeletedSnapshot {
            device: "web1".into(),
            id: "1".into(),
            name: "monday".into(),
        };
        let mut deleted = Deleted {
            dry_run: true,
            snapshots: vec![snapshot],
            kept_by_heads: vec![],
            reclaimable_bytes: Some(1 << 20),
        };
        assert_eq!(
            deleted.text(),
            "DEVICE  ID  NAME\nweb1     1  monday\n\
             would delete 1 snapshot, gc --all would then free 1.0 MiB more\n"
        );
        assert!(deleted.is_answer());
        deleted.dry_run = false;
        deleted.reclaimable_bytes = None;
        assert!(deleted.text().ends_with("\ndeleted 1 snapshot\n"));
        deleted.kept_by_heads.push("web1".into());
        assert!(deleted.text().contains("`still device remove web1`"));
    }
}
