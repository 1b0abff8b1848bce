//! `still list`.

use crate::context::Context;
use crate::output::table::{Align, Table};
use crate::output::{Answer, Report, time, units};
use crate::report::{Snapshot, Snapshots};
use crate::views;
use clap::Args;
use stillpoint_store::Result;

/// Arguments of `list`.
#[derive(Debug, Args)]
#[command(after_help = "\
GROUP is the same for snapshots that one operation made; --json has it in full.

Example:
  still list --device web1")]
pub struct Arguments {
    /// Only this device
    #[arg(long, value_name = "D")]
    device: Option<String>,
}

/// Lists.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    call(arguments.device.as_deref(), context).map(Answer::of)
}

fn call(device: Option<&str>, context: &Context) -> Result<Snapshots> {
    let snapshots = context.open()?.list(device)?;
    Ok(Snapshots {
        snapshots: snapshots.iter().map(views::snapshot).collect(),
    })
}

impl Report for Snapshots {
    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        if self.snapshots.is_empty() {
            "no snapshots\n".into()
        } else {
            table(&self.snapshots)
        }
    }
}

/// Characters of a group's uid that tell it from the others of a list.
const GROUP_CHARS: usize = 8;

/// Snapshots as a table; columns of the group and the VM only where there is one.
pub fn table(snapshots: &[Snapshot]) -> String {
    let grouped = snapshots.iter().any(|s| s.group.is_some());
    let mut columns = vec![
        ("DEVICE", Align::Left),
        ("ID", Align::Right),
        ("NAME", Align::Left),
        ("DATE (UTC)", Align::Left),
        ("SIZE", Align::Right),
    ];
    let has_vm = |s: &Snapshot| s.vm_state_bytes > 0 || s.vm_clock_nsec > 0;
    let (vm, icount) = (
        snapshots.iter().any(has_vm),
        snapshots.iter().any(|s| s.icount.is_some()),
    );
    if vm {
        columns.extend([("VM STATE", Align::Right), ("VM CLOCK", Align::Right)]);
    }
    if icount {
        columns.push(("ICOUNT", Align::Right));
    }
    if grouped {
        columns.push(("GROUP", Align::Left));
    }
    let mut table = Table::new(&columns);
    for s in snapshots {
        let size = units::size(s.size_bytes);
        let (device, name) = (s.device.clone(), s.name.clone());
        let mut cells = vec![device, s.id.clone(), name, s.date.table(), size];
        if vm {
            let state = units::size(s.vm_state_bytes);
            cells.extend([state, time::vm_clock(s.vm_clock_nsec)]);
        }
        if icount {
            cells.push(s.icount.map_or("-".into(), units::count));
        }
        if grouped {
            let short = |group: &String| group.chars().take(GROUP_CHARS).collect();
            cells.push(s.group.as_ref().map_or("-".into(), short));
        }
        table.row(&cells);
    }
    table.text()
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::output::time::Time;

    pub fn sample(name: &str) -> Snapshot {
        Snapshot {
            device: "web1".into(),
            id: "1".into(),
            name: name.into(),
            uid: "00ff".into(),
            date: Time {
                sec: 1_700_000_000,
                nsec: 5_000_000,
            },
            size_bytes: 4 << 30,
            vm_state_bytes: 0,
            vm_clock_nsec: 0,
            icount: None,
            group: None,
            parent: None,
        }
    }

    #[test]
    fn a_name_cannot_fake_a_row() {
        let list = Snapshots {
            snapshots: vec![sample("a\nweb1  2")],
        };
        assert_eq!(
            list.text(),
            "DEVICE  ID  NAME        DATE (UTC)              SIZE\n\
             web1     1  a\\nweb1  2  2023-11-14 22:13:20  4.0 GiB\n"
        );
    }

    #[test]
    fn vm_columns_stand_where_a_vm_was_saved() {
        let mut saved = sample("b");
        saved.vm_state_bytes = 1 << 20;
        saved.vm_clock_nsec = 61_000_000_000;
        let text = table(&[sample("a"), saved]);
        assert!(text.contains("VM CLOCK"), "{text}");
        assert!(text.contains("1.0 MiB  00:01:01.000"), "{text}");
    }

    #[test]
    fn instructions_stand_where_a_vm_counted_them() {
        let mut counted = sample("b");
        counted.icount = Some(77);
        let text = table(&[sample("a"), counted]);
        assert!(
            text.contains("ICOUNT") && !text.contains("VM CLOCK"),
            "{text}"
        );
        assert!(text.ends_with("  77\n") && text.contains("  -\n"), "{text}");
    }

    #[test]
    fn json_times_are_rfc_3339() {
        let json = serde_json::to_value(sample("a")).expect("it serialises");
        assert_eq!(json["date"], "2023-11-14T22:13:20.005Z");
        assert_eq!(json["icount"], serde_json::Value::Null);
    }

    #[test]
    fn what_one_operation_made_is_seen_to_be_one_group() {
        let mut grouped = sample("b");
        grouped.group = Some("0123456789abcdef".into());
        let text = table(&[sample("a"), grouped]);
        assert!(text.contains("4.0 GiB  -\n"), "{text}");
        assert!(text.ends_with("4.0 GiB  01234567\n"), "{text}");
    }
}
