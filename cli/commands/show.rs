//! `still show`.

use crate::commands::device;
use crate::context::Context;
use crate::output::table::pairs;
use crate::output::{Answer, Report, time, units};
use crate::report::{Details, Device, Snapshot};
use crate::views;
use clap::Args;
use stillpoint_api::SnapshotRef;
use stillpoint_store::Result;
use stillpoint_store::ops::stats::Extents;

/// Arguments of `show`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  still show web1
  still show web1@monday")]
pub struct Arguments {
    /// Device, or snapshot of a device
    #[arg(value_name = "D[@SNAP]")]
    target: String,
}

/// Shows.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    call(&arguments.target, context).map(Answer::of)
}

fn call(target: &str, context: &Context) -> Result<Details> {
    let system = context.open()?;
    let name = SnapshotRef::parse(target)?.device;
    let device = system.device(&name)?;
    let (content, snapshot) = if let (false, None) = (target.contains('@'), device.head) {
        (None, None)
    } else {
        let (content, snapshot) = system.resolve(target)?;
        (Some(content), snapshot)
    };
    let extents = match content {
        Some(content) => system.store().extents(content)?,
        None => Extents::default(),
    };
    Ok(Details {
        device: views::device(&device),
        snapshot: snapshot.as_ref().map(views::snapshot),
        root: content.map(|c| c.root.to_string()),
        data_bytes: extents.data,
        zero_bytes: extents.zero,
        hole_bytes: extents.hole,
        labels: snapshot.map(|s| s.labels).unwrap_or_default(),
    })
}

impl Report for Details {
    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        let d = &self.device;
        let mut lines = vec![("device", d.name.clone())];
        lines.extend(match &self.snapshot {
            Some(snapshot) => of_snapshot(snapshot),
            None => of_head(d),
        });
        if let Some(root) = &self.root {
            lines.extend([
                ("root", root.clone()),
                ("data", units::size(self.data_bytes)),
                ("zeros", units::size(self.zero_bytes)),
                ("holes", units::size(self.hole_bytes)),
            ]);
        }
        let labels = self
            .labels
            .iter()
            .map(|(k, v)| ("label", format!("{k}={v}")));
        lines.extend(labels);
        pairs(&lines)
    }
}

fn of_head(d: &Device) -> Vec<(&'static str, String)> {
    let image = d
        .attachment
        .as_ref()
        .map_or("-".into(), |a| a.image.clone());
    vec![
        ("uid", d.uid.clone()),
        ("state", device::state(d).into()),
        ("image", image),
        ("size", d.size_bytes.map_or("-".into(), units::size)),
        ("snapshots", units::count(d.snapshots)),
    ]
}

fn of_snapshot(s: &Snapshot) -> Vec<(&'static str, String)> {
    let mut lines = vec![
        ("name", s.name.clone()),
        ("id", s.id.clone()),
        ("uid", s.uid.clone()),
        ("date", s.date.rfc3339()),
        ("size", units::size(s.size_bytes)),
    ];
    if s.vm_state_bytes > 0 || s.vm_clock_nsec > 0 {
        lines.push(("VM state", units::size(s.vm_state_bytes)));
        lines.push(("VM clock", time::vm_clock(s.vm_clock_nsec)));
    }
    let optional = [
        ("icount", s.icount.map(units::count)),
        ("group", s.group.clone()),
        ("parent", s.parent.clone()),
    ];
    lines.extend(
        optional
            .into_iter()
            .filter_map(|(label, value)| Some((label, value?))),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::list;

    #[test]
    fn a_snapshot_is_shown_in_full() {
        let device = Device {
            name: "web1".into(),
            uid: "d0".into(),
            attachment: None,
            size_bytes: Some(4 << 30),
            snapshots: 1,
            goto_unfinished: false,
            volume: false,
        };
        let details = Details {
            device,
            snapshot: Some(list::tests::sample("monday")),
            root: Some("beef".into()),
            data_bytes: 1 << 30,
            zero_bytes: 0,
            hole_bytes: 3 << 30,
            labels: [("why".to_owned(), "upgrade\x07".to_owned())].into(),
        };
        assert_eq!(
            details.text(),
            "device  web1\nname    monday\nid      1\nuid     00ff\n\
             date    2023-11-14T22:13:20.005Z\nsize    4.0 GiB\nroot    beef\n\
             data    1.0 GiB\nzeros   0 B\nholes   3.0 GiB\nlabel   why=upgrade\\u{7}\n"
        );
    }
}
