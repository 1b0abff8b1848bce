//! `still eras`.

use crate::context::Context;
use crate::output::{Answer, Report};
use crate::report::{Era, EraAxis, EraChange, EraStep, EraValue, Eras, ErasBetween, ErasOf};
use clap::Args;
use stillpoint_api::compat::Release;
use stillpoint_api::compat::eras::{self, AXES, ERAS};
use stillpoint_store::Result;

/// Arguments of `eras`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  still eras
  still eras 4.2
  still eras 2.11 6.0")]
pub struct Arguments {
    /// A QEMU release, 1.0 to 11.1: how it behaved
    #[arg(value_name = "A")]
    first: Option<String>,
    /// Another: what differs between the two
    #[arg(value_name = "B")]
    second: Option<String>,
}

/// Prints the table, or a part of it.
pub fn run(arguments: &Arguments, _context: &Context) -> Result<Answer> {
    match (&arguments.first, &arguments.second) {
        (Some(a), Some(b)) => Ok(Answer::of(between(a.parse()?, b.parse()?))),
        (Some(a), None) => Ok(Answer::of(of_release(a.parse()?))),
        _ => Ok(Answer::of(table())),
    }
}

fn table() -> Eras {
    let era = |e: &eras::Era| Era {
        key: e.key,
        first: e.first.to_string(),
        last: e.last().to_string(),
        starts: e.starts,
    };
    let axis = |a: &eras::Axis| EraAxis {
        name: a.name,
        about: a.about,
        steps: a.steps.iter().map(step).collect(),
        not_imitated: a.not_imitated,
    };
    Eras {
        default: Release::DEFAULT.to_string(),
        eras: ERAS.iter().map(era).collect(),
        axes: AXES.iter().map(axis).collect(),
    }
}

fn step(step: &eras::Step) -> EraStep {
    EraStep {
        from: step.from.to_string(),
        value: step.text,
    }
}

fn of_release(release: Release) -> ErasOf {
    let value = |a: &eras::Axis| EraValue {
        name: a.name,
        value: a.value(release),
        not_imitated: a.not_imitated,
    };
    ErasOf {
        release: release.to_string(),
        era: eras::Era::of(release).key,
        axes: AXES.iter().map(value).collect(),
        text: eras::of_release(release),
    }
}

fn between(a: Release, b: Release) -> ErasBetween {
    let differs = |axis: &&eras::Axis| axis.value(a) != axis.value(b);
    let change = |axis: &eras::Axis| EraChange {
        name: axis.name,
        about: axis.about,
        values: [axis.value(a), axis.value(b)],
        not_imitated: axis.not_imitated,
    };
    ErasBetween {
        releases: [a.to_string(), b.to_string()],
        axes: AXES.iter().filter(differs).map(change).collect(),
        text: eras::between(a, b),
    }
}

impl Report for Eras {
    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        eras::overview()
    }
}

impl Report for ErasOf {
    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        self.text.clone()
    }
}

impl Report for ErasBetween {
    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        if self.text.is_empty() {
            let [a, b] = &self.releases;
            return format!("{a} and {b} behave alike\n");
        }
        self.text.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_two_releases_is_said_for_both() {
        let report = between(
            "2.10".parse().expect("known"),
            "2.11".parse().expect("known"),
        );
        assert!(report.axes.iter().any(|a| a.name == "goto_bitmap_refusal"));
        let text = Report::text(&report);
        assert!(
            text.contains("  2.10       allowed\n  2.11       -EBUSY\n"),
            "{text}"
        );
    }

    #[test]
    fn releases_that_behave_alike_say_so() {
        let release: Release = "10.2".parse().expect("known");
        let report = between(release, "11.0".parse().expect("known"));
        assert_eq!(Report::text(&report), "10.2 and 11.0 behave alike\n");
    }

    #[test]
    fn the_table_has_every_axis_for_people_and_for_programs() {
        let table = table();
        let text = Report::text(&table);
        for axis in &table.axes {
            assert!(
                text.contains(&format!("\n{}: ", axis.name)),
                "{}",
                axis.name
            );
        }
        assert_eq!(table.axes.len(), AXES.len());
        let told = table.axes.iter().filter_map(|a| a.not_imitated);
        for why in told {
            assert!(
                text.contains(&format!("\n  not imitated: {why}\n")),
                "{why}"
            );
        }
        let json = serde_json::to_string(&table).expect("plain words");
        assert!(json.contains("\"not_imitated\":\"a store keeps it, in every release\""));
    }
}
