//! `still verify`.

use crate::context::Context;
use crate::exit::Exit;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::{Damage, Touched, Verified};
use clap::Args;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::time::Instant;
use stillpoint_api::{Part, System};
use stillpoint_store::Result;

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
One that was interrupted goes on where it stopped. Exit code 4 when damage was found.

Examples:
  still verify
  still verify web1@monday")]
pub struct Arguments {
    /// Only these devices and snapshots [default: the whole store]
    #[arg(value_name = "D[@SNAP]")]
    targets: Vec<String>,
}

/// Verifies.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let _line = context.watch("verify");
    call(&arguments.targets, context).map(Answer::of)
}

fn call(targets: &[String], context: &Context) -> Result<Verified> {
    let since = Instant::now();
    let system = context.open()?;
    let mut verified = if targets.is_empty() {
        of_store(&system, context)?
    } else {
        of_targets(&system, targets, context)?
    };
    verified.seconds = since.elapsed().as_secs_f64();
    Ok(verified)
}

fn of_store(system: &System, context: &Context) -> Result<Verified> {
    let report = system.store().verify(&context.progress)?;
    let mut damage = Vec::new();
    for pack in report.bad_packs {
        let place = pack.key;
        damage.extend(pack.errors.into_iter().map(|(offset, why)| Damage {
            place: place.clone(),
            offset: Some(offset),
            why,
            touches: Vec::new(),
        }));
    }
    let snapshots = system.list(None)?;
    for bad in report.bad_snapshots {
        let snapshot = snapshots.iter().find(|s| s.uid == bad.uid);
        let target = snapshot.map_or_else(
            || bad.uid.to_string(),
            |s| format!("{}@{}", s.device, s.name),
        );
        let parts = [("disk", bad.extents), ("vm_state", bad.vm_extents)];
        let lost_of = |(part, extents)| lost(target.clone(), part, extents);
        damage.extend(
            parts
                .into_iter()
                .filter(|(_, e)| !e.is_empty())
                .map(lost_of),
        );
    }
    let devices = system.devices()?;
    for bad in report.bad_contents {
        let device = devices.iter().find(|d| d.uid == bad.device);
        let target = device.map_or_else(|| bad.device.to_string(), |d| d.name.clone());
        damage.push(lost(target, "disk", bad.extents));
    }
    Ok(Verified {
        checked: report.snapshots,
        objects: report.items,
        read_bytes: report.bytes,
        resumed_bytes: report.bytes_remembered,
        damage,
        seconds: 0.0,
    })
}

fn of_targets(system: &System, targets: &[String], context: &Context) -> Result<Verified> {
    let size = u64::from(system.store().geometry().cluster_bytes);
    let mut damage = Vec::new();
    for target in targets {
        let (content, snapshot) = system.resolve(target)?;
        let mut parts = vec![("disk", content)];
        if let Some(snapshot) = snapshot.filter(|s| s.vm_state_size > 0) {
            parts.push((
                "vm_state",
                system.content_of_uid(snapshot.uid, Part::VmState)?,
            ));
        }
        for (part, content) in parts {
            let bad = system.store().check_disk(content, &context.progress)?;
            if !bad.is_empty() {
                let clusters = bad.iter().map(|d| d.cluster).collect();
                let extents = merged(clusters, size, content.size);
                damage.push(lost(target.clone(), part, extents));
            }
        }
    }
    let read_bytes = context.progress.bytes_done.load(Ordering::Relaxed);
    let (checked, objects) = (targets.len() as u64, read_bytes / size);
    Ok(Verified {
        checked,
        objects,
        read_bytes,
        resumed_bytes: 0,
        damage,
        seconds: 0.0,
    })
}

/// The clusters as ranges of bytes of a disk, in order, none touching the next.
fn merged(mut clusters: Vec<u64>, size: u64, disk_bytes: u64) -> Vec<Range<u64>> {
    clusters.sort_unstable();
    let mut extents: Vec<Range<u64>> = Vec::new();
    for cluster in clusters {
        let range = cluster * size..((cluster + 1) * size).min(disk_bytes);
        match extents.last_mut() {
            Some(last) if last.end >= range.start => last.end = range.end,
            _ => extents.push(range),
        }
    }
    extents
}

fn lost(target: String, part: &'static str, extents: Vec<Range<u64>>) -> Damage {
    let touched = |e: Range<u64>| Touched {
        target: target.clone(),
        part,
        start: e.start,
        length: e.end - e.start,
    };
    let touches = extents.into_iter().map(touched).collect();
    let place = match part {
        "vm_state" => format!("{target}, VM state"),
        _ => target,
    };
    Damage {
        place,
        offset: None,
        why: "no good copy of some clusters is left".into(),
        touches,
    }
}

impl Report for Verified {
    fn exit(&self) -> Exit {
        if self.damage.is_empty() {
            Exit::Done
        } else {
            Exit::Corrupt
        }
    }

    fn is_answer(&self) -> bool {
        !self.damage.is_empty()
    }

    fn text(&self) -> String {
        let took = units::seconds(self.seconds);
        let verdict = match self.damage.len() as u64 {
            0 => "all good".into(),
            n => format!("DAMAGE in {}", units::number_of(n, "place")),
        };
        let damage: String = self.damage.iter().map(of_damage).collect();
        let way_out = if self.damage.is_empty() { "" } else { WAY_OUT };
        format!(
            "{damage}verified {} ({} hashes, {} read) in {took}: {verdict}\n{way_out}",
            units::number_of(self.checked, "snapshot"),
            units::count(self.objects),
            units::size(self.read_bytes),
        )
    }
}

/// What verify noted is not believed from now on; see `content::suspects` in the engine.
const WAY_OUT: &str = "  hint: `still create` or `still import` of an image that still holds what is lost stores it again, \
for older snapshots too;\n        `still gc` then removes the damage. `still rescue` writes out what is readable\n";

fn of_damage(damage: &Damage) -> String {
    let offset = damage
        .offset
        .map(|offset| format!(" at byte {offset}"))
        .unwrap_or_default();
    let mut text = escape(&format!("{}{offset}: {}", damage.place, damage.why)) + "\n";
    for touched in &damage.touches {
        let line = format!(
            "{}: bytes {} + {}",
            touched.target, touched.start, touched.length
        );
        text.extend(["  touches ", &escape(&line), "\n"]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_that_are_lost_are_one_extent() {
        assert_eq!(
            merged(vec![9, 3, 1, 2], 4096, 40_000),
            [4096..16384, 36864..40_000]
        );
    }

    #[test]
    fn damage_is_named_with_what_it_touches_and_ends_with_4() {
        let mut verified = Verified {
            checked: 2,
            objects: 1000,
            read_bytes: 1 << 30,
            resumed_bytes: 0,
            damage: vec![],
            seconds: 1.0,
        };
        assert_eq!(
            verified.text(),
            "verified 2 snapshots (1,000 hashes, 1.0 GiB read) in 1.0 s: all good\n"
        );
        assert_eq!(verified.exit(), Exit::Done);
        let touched = Touched {
            part: "disk",
            target: "web1@a".into(),
            start: 16384,
            length: 4096,
        };
        verified.damage.push(Damage {
            place: "packs/0-0/000001".into(),
            offset: Some(64),
            why: "wrong checksum".into(),
            touches: vec![touched],
        });
        assert_eq!(
            verified.text(),
            "packs/0-0/000001 at byte 64: wrong checksum\n  \
             touches web1@a: bytes 16384 + 4096\n\
             verified 2 snapshots (1,000 hashes, 1.0 GiB read) in 1.0 s: DAMAGE in 1 place\n"
                .to_owned()
                + WAY_OUT
        );
        assert_eq!(verified.exit(), Exit::Corrupt);
        assert!(verified.is_answer());
    }
}
