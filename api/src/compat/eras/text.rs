//! The table as text: for `still eras` and as a document.

use super::{AXES, Axis, ERAS, Era, Step};
use crate::compat::release::Release;
use std::fmt::Write as _;

/// `still eras`: the eras, and every axis with its values, and why where it is not imitated.
pub fn overview() -> String {
    let mut out = String::new();
    for era in ERAS {
        line(
            &mut out,
            &format!("{:6} {:9} {}", era.key, era.range(), era.starts),
        );
    }
    for axis in AXES {
        line(&mut out, "");
        line(&mut out, &format!("{}: {}", axis.name, axis.about));
        for (range, text) in axis.ranges() {
            line(&mut out, &format!("  {range:10} {text}"));
        }
        not_imitated(&mut out, axis);
    }
    out
}

fn not_imitated(out: &mut String, axis: &Axis) {
    if let Some(why) = axis.not_imitated {
        line(out, &format!("  not imitated: {why}"));
    }
}

/// `still eras A`: what the axes are at a release.
pub fn of_release(release: Release) -> String {
    let era = Era::of(release);
    let mut out = String::new();
    line(
        &mut out,
        &format!("QEMU {release}, era {} ({})", era.key, era.range()),
    );
    for axis in AXES {
        let note = axis.not_imitated.map_or("", |_| " (not imitated)");
        let (name, value) = (axis.name, axis.value(release));
        line(&mut out, &format!("  {name:24} {value}{note}"));
    }
    out
}

/// `still eras A B`: what differs between two releases. Empty where nothing does.
pub fn between(a: Release, b: Release) -> String {
    let mut out = String::new();
    for axis in AXES {
        let (before, after) = (axis.value(a), axis.value(b));
        if before != after {
            line(&mut out, &format!("{}: {}", axis.name, axis.about));
            line(&mut out, &format!("  {a:10} {before}"));
            line(&mut out, &format!("  {b:10} {after}"));
            not_imitated(&mut out, axis);
        }
    }
    out
}

/// `docs/ERAS.md`.
pub fn markdown() -> String {
    let mut out = String::new();
    line(&mut out, INTRODUCTION);
    line(&mut out, "## Eras\n");
    line(
        &mut out,
        "| era | releases | what starts with it |\n|---|---|---|",
    );
    for era in ERAS {
        let row = format!(
            "| `{}` | {} | {} |",
            era.key,
            era.range(),
            plain(era.starts)
        );
        line(&mut out, &row);
    }
    line(&mut out, "\n## Axes\n");
    line(
        &mut out,
        &format!("In bold: {}, the default.\n", Release::DEFAULT),
    );
    line(
        &mut out,
        "| axis | what it decides | releases |\n|---|---|---|",
    );
    for axis in AXES {
        let now = axis.step(Release::DEFAULT);
        let one = |((range, text), step): ((String, &str), &Step)| {
            let bold = if std::ptr::eq(step, now) { "**" } else { "" };
            format!("{bold}{range}: {}{bold}", plain(text))
        };
        let ranges = axis.ranges().into_iter().zip(axis.steps);
        let values: Vec<String> = ranges.map(one).collect();
        let note = |why| format!("<br>*Not imitated: {}*", plain(why));
        let about = plain(axis.about) + &axis.not_imitated.map_or_else(String::new, note);
        let name = axis.name;
        let row = format!("| `{name}` | {about} | {} |", values.join("<br>"));
        line(&mut out, &row);
    }
    out
}

/// What would be emphasis is an asterisk.
fn plain(text: &str) -> String {
    text.replace('*', "\\*")
}

const INTRODUCTION: &str = "\
# QEMU releases

How the snapshot API differed from release to release. `api/src/compat` and `still qemu-img` behave so, but where an axis
says that it is not imitated. Made from the table in `api/src/compat/eras/table.rs`, which a test compares with this page;
`still eras` prints it, `still eras 4.2 6.0` what differs. Most axes move on other releases than the eras, so code asks an
axis, never a version.
";

fn line(out: &mut String, text: &str) {
    // Writing to a string does not fail.
    writeln!(out, "{text}").unwrap_or_default();
}
