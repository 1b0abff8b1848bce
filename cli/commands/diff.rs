//! `still diff`.

use crate::context::Context;
use crate::output::table::{Align, Table};
use crate::output::{Answer, Report, units};
use crate::report::{ChangedExtent, Diff};
use clap::Args;
use stillpoint_store::Result;
use stillpoint_store::ops::diff::ExtentKind;

/// Arguments of `diff`.
#[derive(Debug, Args)]
#[command(after_help = "\
Costs what differs, not the size of the disk: equal parts are equal hashes.

Example:
  still diff web1@monday web1@tuesday")]
pub struct Arguments {
    /// Snapshot to compare with
    #[arg(value_name = "D@A")]
    from: String,
    /// Snapshot to describe
    #[arg(value_name = "D@B")]
    to: String,
}

/// Compares.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    call(&arguments.from, &arguments.to, context).map(Answer::of)
}

fn call(from: &str, to: &str, context: &Context) -> Result<Diff> {
    let extents = context.open()?.diff(from, to)?;
    let changed_bytes = extents.iter().map(|e| e.length).sum();
    let extent = |e: stillpoint_store::ops::diff::ChangedExtent| ChangedExtent {
        start: e.start,
        length: e.length,
        kind: match e.kind {
            ExtentKind::Data => "data",
            ExtentKind::Zero => "zero",
            ExtentKind::Hole => "hole",
        }
        .into(),
    };
    let extents = extents.into_iter().map(extent).collect();
    Ok(Diff {
        from: from.into(),
        to: to.into(),
        changed_bytes,
        extents,
    })
}

impl Report for Diff {
    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        let columns = [
            ("START", Align::Right),
            ("LENGTH", Align::Right),
            ("NOW", Align::Left),
        ];
        let mut table = Table::new(&columns);
        for extent in &self.extents {
            table.row(&[
                extent.start.to_string(),
                extent.length.to_string(),
                extent.kind.clone(),
            ]);
        }
        if self.extents.is_empty() {
            return "equal\n".into();
        }
        let extents = units::number_of(self.extents.len() as u64, "extent");
        format!(
            "{}{extents}, {} differ\n",
            table.text(),
            units::size(self.changed_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::ChangedExtent;

    #[test]
    fn offsets_are_exact_and_the_sum_is_readable() {
        let extent = |start, length, kind: &str| ChangedExtent {
            start,
            length,
            kind: kind.into(),
        };
        let mut diff = Diff {
            from: "web1@a".into(),
            to: "web1@b".into(),
            changed_bytes: 81_920,
            extents: vec![extent(0, 16384, "data"), extent(1_048_576, 65536, "hole")],
        };
        assert_eq!(
            diff.text(),
            "  START  LENGTH  NOW\n      0   16384  data\n1048576   65536  hole\n\
             2 extents, 80.0 KiB differ\n"
        );
        diff.extents.clear();
        assert_eq!(diff.text(), "equal\n");
    }
}
