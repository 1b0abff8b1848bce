//! `still stats`.

use crate::context::Context;
use crate::output::table::{Align, Table, pairs};
use crate::output::{Answer, Report, units};
use crate::report::{Stats, TargetStats};
use clap::Args;
use std::collections::BTreeSet;
use stillpoint_api::System;
use stillpoint_store::Result;
use stillpoint_store::id::Uid;

/// Arguments of `stats`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  still stats
  still stats web1@monday web1@tuesday")]
pub struct Arguments {
    /// Also say what these hold, and what deleting each alone and all together would free
    #[arg(value_name = "D[@SNAP]")]
    targets: Vec<String>,
}

/// Counts.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let _line = context.watch("stats");
    call(&arguments.targets, context).map(Answer::of)
}

fn call(targets: &[String], context: &Context) -> Result<Stats> {
    let system = context.open()?;
    let totals = system.store().totals(&context.progress)?;
    let mut named = Vec::new();
    let mut all = BTreeSet::new();
    for target in targets {
        let (content, snapshot) = system.resolve(target)?;
        let own: BTreeSet<_> = snapshot.iter().map(|s| s.uid).collect();
        all.extend(own.iter().copied());
        named.push(TargetStats {
            target: target.clone(),
            size_bytes: content.size,
            data_bytes: system.store().extents(content)?.data,
            freed_if_deleted_bytes: freed_by(&system, &own, context)?,
        });
    }
    let freed = match named.as_slice() {
        [one] => one.freed_if_deleted_bytes,
        _ => freed_by(&system, &all, context)?,
    };
    Ok(Stats {
        devices: totals.devices,
        snapshots: totals.snapshots,
        packs: totals.packs,
        clusters: totals.clusters,
        size_bytes: totals.disk_bytes,
        data_bytes: totals.data_bytes,
        unique_bytes: totals.clusters * u64::from(system.store().geometry().cluster_bytes),
        stored_bytes: totals.stored_bytes,
        dead_bytes: totals.dead_bytes,
        targets: named,
        freed_if_deleted_bytes: freed,
    })
}

/// What the snapshots alone hold, as `delete --dry-run` says it: without what is dead anyway. A head is no snapshot.
fn freed_by(system: &System, uids: &BTreeSet<Uid>, context: &Context) -> Result<Option<u64>> {
    if uids.is_empty() {
        return Ok(None);
    }
    let held = system.store().held_by(uids, &context.progress)?;
    Ok(Some(held.would_free.saturating_sub(held.garbage)))
}

impl Report for Stats {
    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        let mut text = pairs(&[
            ("devices", units::count(self.devices)),
            ("snapshots", units::count(self.snapshots)),
            ("disks", units::size(self.size_bytes)),
            ("data in them", units::size(self.data_bytes)),
            ("different data", ratio(self.unique_bytes, self.data_bytes)),
            ("stored", ratio(self.stored_bytes, self.data_bytes)),
            ("dead", units::size(self.dead_bytes)),
            ("clusters", units::count(self.clusters)),
            ("packs", units::count(self.packs)),
        ]);
        let mut table = Table::new(&[
            ("TARGET", Align::Left),
            ("SIZE", Align::Right),
            ("DATA", Align::Right),
            ("FREED IF DELETED", Align::Right),
        ]);
        for target in &self.targets {
            table.row(&[
                target.target.clone(),
                units::size(target.size_bytes),
                units::size(target.data_bytes),
                target
                    .freed_if_deleted_bytes
                    .map_or("-".into(), units::size),
            ]);
        }
        text.push_str(&table.text());
        if let Some(bytes) = self
            .freed_if_deleted_bytes
            .filter(|_| self.targets.len() > 1)
        {
            text.extend(["all of them: ", &units::size(bytes), " freed\n"]);
        }
        text
    }
}

/// "120 MiB (1 / 12.3 of the data)".
fn ratio(part: u64, whole: u64) -> String {
    let size = units::size(part);
    if part == 0 || whole <= part {
        return size;
    }
    format!("{size} (1 / {:.1} of the data)", whole as f64 / part as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(targets: Vec<TargetStats>) -> Stats {
        Stats {
            devices: 2,
            snapshots: 12,
            packs: 3,
            clusters: 40_000,
            size_bytes: 48 << 30,
            data_bytes: 12 << 30,
            unique_bytes: 2 << 30,
            stored_bytes: 1 << 30,
            dead_bytes: 0,
            freed_if_deleted_bytes: Some(3 << 20),
            targets,
        }
    }

    #[test]
    fn savings_are_seen_at_a_glance() {
        let text = sample(vec![]).text();
        assert!(
            text.contains("stored          1.0 GiB (1 / 12.0 of the data)\n"),
            "{text}"
        );
        assert!(!text.contains("freed"), "{text}");
    }

    #[test]
    fn a_set_may_free_more_than_its_members() {
        let target = |name: &str| TargetStats {
            target: name.into(),
            size_bytes: 4 << 30,
            data_bytes: 1 << 30,
            freed_if_deleted_bytes: (name != "web1").then_some(1 << 20),
        };
        let text = sample(vec![target("web1@a"), target("web1")]).text();
        assert!(text.contains("1.0 GiB           1.0 MiB\n"), "{text}");
        assert!(text.contains("1.0 GiB                 -\n"), "{text}");
        let text = sample(vec![target("web1@a"), target("web1@b")]).text();
        assert!(text.ends_with("all of them: 3.0 MiB freed\n"), "{text}");
    }
}
