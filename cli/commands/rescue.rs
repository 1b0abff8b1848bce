//! `still rescue`.

use crate::context::Context;
use crate::exit::Exit;
use crate::output::escape::escape;
use crate::output::table::{Align, Table};
use crate::output::{Answer, Report, units};
use crate::report::{Rescued, RescuedImage};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Instant;
use stillpoint_store::Result;
use stillpoint_store::ops::rescue::Saved;

/// Arguments of `rescue`.
#[derive(Debug, Args)]
#[command(after_help = "\
Reads a store that will not open, and changes nothing in it. Exit code 4 when something could not be read.
Snapshots that were deleted come back where their bytes are still there; their state is \"deleted\".
Needs memory of 16 bytes a cluster stored: 2 GiB for 1 TiB of different data in clusters of 8 KiB.

Example:
  still rescue /mnt/usb/saved --store /srv/disks")]
pub struct Arguments {
    /// Folder to write the images to: empty, or made if it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Rescues.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let _line = context.watch("rescue");
    call(&arguments.folder, context).map(Answer::of)
}

fn call(folder: &Path, context: &Context) -> Result<Rescued> {
    let since = Instant::now();
    let rescued = stillpoint_api::rescue(&context.store, folder, &context.progress)?;
    let image = |saved: &Saved| RescuedImage {
        device: saved.device.clone().unwrap_or_default(),
        snapshot: stillpoint_api::text(&saved.record.name),
        part: if saved.vm_state { "vm_state" } else { "disk" },
        file: saved.path.display().to_string(),
        size_bytes: size_of(saved),
        missing_bytes: saved.lost.iter().map(|r| r.end - r.start).sum(),
        written: saved.unwritten.is_none(),
        unlisted: saved.unlisted,
    };
    let mut rescued = rescued;
    rescued.saved.sort_by_cached_key(|s| {
        let r = &s.record;
        (s.device.clone(), r.date_sec, r.date_nsec, r.id.clone())
    });
    Ok(Rescued {
        images: rescued.saved.iter().map(image).collect(),
        unreadable: rescued.damage,
        seconds: since.elapsed().as_secs_f64(),
    })
}

fn size_of(saved: &Saved) -> u64 {
    let vm_state = saved.record.vm_state.filter(|_| saved.vm_state);
    vm_state.unwrap_or(saved.record.content).size
}

impl Report for Rescued {
    fn exit(&self) -> Exit {
        let mut images = self.images.iter();
        let whole = images.all(|image| image.missing_bytes == 0 && image.written);
        if whole && self.unreadable.is_empty() {
            Exit::Done
        } else {
            Exit::Corrupt
        }
    }

    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        let mut table = Table::new(&[
            ("DEVICE", Align::Left),
            ("SNAPSHOT", Align::Left),
            ("SIZE", Align::Right),
            ("MISSING", Align::Right),
            ("STATE", Align::Left),
            ("FILE", Align::Left),
        ]);
        for image in &self.images {
            table.row(&[
                image.device.clone(),
                image.snapshot.clone(),
                units::size(image.size_bytes),
                units::size(image.missing_bytes),
                if image.unlisted { "deleted" } else { "listed" }.into(),
                if image.written {
                    image.file.clone()
                } else {
                    "not written".into()
                },
            ]);
        }
        let mut text = table.text();
        for part in &self.unreadable {
            text.extend(["unreadable: ", &escape(part), "\n"]);
        }
        let took = units::seconds(self.seconds);
        let written = self.images.iter().filter(|image| image.written).count();
        let images = units::number_of(written as u64, "image");
        text + &format!("wrote {images} in {took}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rescue_with_gaps_is_no_success() {
        let image = |missing_bytes| RescuedImage {
            device: "web1".into(),
            snapshot: "monday".into(),
            part: "disk",
            file: "web1@monday.raw".into(),
            size_bytes: 4096,
            missing_bytes,
            written: true,
            unlisted: missing_bytes > 0,
        };
        let mut rescued = Rescued {
            images: vec![image(0)],
            unreadable: vec![],
            seconds: 1.0,
        };
        assert_eq!(rescued.exit(), Exit::Done);
        rescued.unreadable.push("log/00000000000000000007".into());
        assert_eq!(rescued.exit(), Exit::Corrupt);
        rescued.unreadable.clear();
        rescued.images.push(image(4096));
        assert_eq!(rescued.exit(), Exit::Corrupt);
        let text = rescued.text();
        assert!(text.contains("0 B  listed   web1@"), "{text}");
        assert!(text.contains("4.0 KiB  deleted  web1@"), "{text}");
        assert!(rescued.text().ends_with("wrote 2 images in 1.0 s\n"));
        rescued.images[0].written = false;
        rescued.images.pop();
        assert_eq!(rescued.exit(), Exit::Corrupt);
        let text = rescued.text();
        assert!(
            text.contains("not written") && text.contains("wrote 0 images"),
            "{text}"
        );
    }
}
