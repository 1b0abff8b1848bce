//! `still device add`, `device list`, `device attach`, `device detach`, `device remove`.

use crate::commands::only_raw;
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::table::{Align, Table};
use crate::output::{Answer, Report, units};
use crate::report::{Device, DeviceChanged, Devices};
use crate::views;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use stillpoint_store::Result;

/// What to do with devices.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Example:
  still device add web1 web1.raw
  still device list")]
pub enum Verb {
    /// Give an image a name to snapshot it by
    Add(AddArguments),
    /// List the devices
    #[command(after_help = "Example:\n  still device list --json")]
    List,
    /// Give a device another image; its snapshots stay
    Attach(AttachArguments),
    /// Take the image from a device, so that create leaves it out; its snapshots stay
    Detach(DetachArguments),
    /// Remove a device that has no snapshots; the image itself is not touched
    Remove(RemoveArguments),
}

/// Arguments of `device add`.
#[derive(Debug, Args)]
#[command(after_help = "\
The image stays where it is and is locked, as QEMU locks it, while it is read or written.

Example:
  still device add web1 /var/lib/images/web1.raw")]
pub struct AddArguments {
    #[command(flatten)]
    given: Given,
}

// No doc comment: clap would take it for the verb's.
#[derive(Debug, Args)]
struct Given {
    /// Name of the device
    name: String,
    /// Image file or block device
    image: PathBuf,
    /// Format of the image; raw is the only one so far
    #[arg(long, value_name = "F", default_value = "raw")]
    format: String,
    /// Never write to the image: goto is refused
    #[arg(long)]
    read_only: bool,
}

/// Arguments of `device attach`.
#[derive(Debug, Args)]
#[command(after_help = "\
For an image that moved, or a store that came from another host. What the image holds is not looked at: the next create
reads all of it, and a goto writes what differs.

Example:
  still device attach web1 /srv/images/web1.raw")]
pub struct AttachArguments {
    #[command(flatten)]
    given: Given,
}

/// Arguments of `device detach`.
#[derive(Debug, Args)]
#[command(after_help = "\
The image need not be there any more. Going to a snapshot with --device makes it the device's contents in the store.

Example:
  still device detach web1")]
pub struct DetachArguments {
    /// Name of the device
    name: String,
}

/// Arguments of `device remove`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  still device remove web1")]
pub struct RemoveArguments {
    /// Name of the device
    name: String,
}

/// Runs one of them.
pub fn run(verb: &Verb, context: &Context) -> Result<Answer> {
    match verb {
        Verb::Add(AddArguments { given }) => {
            only_raw("adding a device", &given.format)?;
            let Given {
                name,
                image,
                format,
                read_only,
            } = given;
            context
                .open()?
                .device_add(name, image, format, *read_only)?;
            Ok(Answer::of(changed("added", name, Some(image))))
        }
        Verb::List => list(context).map(Answer::of),
        Verb::Attach(AttachArguments { given }) => {
            only_raw("attaching an image", &given.format)?;
            let Given {
                name,
                image,
                format,
                read_only,
            } = given;
            context
                .open()?
                .device_attach(name, image, format, *read_only)?;
            Ok(Answer::of(changed("attached", name, Some(image))))
        }
        Verb::Detach(DetachArguments { name }) => {
            context.open()?.device_detach(name)?;
            Ok(Answer::of(changed("detached", name, None)))
        }
        Verb::Remove(RemoveArguments { name }) => {
            context.open()?.device_remove(name)?;
            Ok(Answer::of(changed("removed", name, None)))
        }
    }
}

fn changed(action: &'static str, device: &str, image: Option<&PathBuf>) -> DeviceChanged {
    DeviceChanged {
        device: device.into(),
        action,
        image: image.map(|image| image.display().to_string()),
    }
}

fn list(context: &Context) -> Result<Devices> {
    let devices = context.open()?.devices()?;
    Ok(Devices {
        devices: devices.iter().map(views::device).collect(),
    })
}

impl Report for DeviceChanged {
    fn text(&self) -> String {
        let image = self
            .image
            .as_ref()
            .map(|image| format!(": {image}"))
            .unwrap_or_default();
        escape(&format!("{} {}{image}", self.action, self.device)) + "\n"
    }
}

impl Report for Devices {
    fn is_answer(&self) -> bool {
        true
    }

    fn text(&self) -> String {
        let mut table = Table::new(&[
            ("DEVICE", Align::Left),
            ("SIZE", Align::Right),
            ("SNAPSHOTS", Align::Right),
            ("STATE", Align::Left),
            ("IMAGE", Align::Left),
        ]);
        for device in &self.devices {
            table.row(&[
                device.name.clone(),
                device.size_bytes.map_or("-".into(), units::size),
                units::count(device.snapshots),
                state(device).into(),
                device
                    .attachment
                    .as_ref()
                    .map_or("-".into(), |a| a.image.clone()),
            ]);
        }
        if self.devices.is_empty() {
            "no devices\n".into()
        } else {
            table.text()
        }
    }
}

/// The device's state in one or two words.
pub fn state(device: &Device) -> &'static str {
    match &device.attachment {
        _ if device.goto_unfinished => "goto unfinished",
        Some(attachment) if attachment.read_only => "read-only",
        Some(_) => "attached",
        None if device.volume => "volume",
        None => "in store",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Attachment;

    #[test]
    fn an_unfinished_goto_is_seen_in_the_list() {
        let attachment = Attachment {
            image: "/a\nb".into(),
            format: "raw".into(),
            read_only: true,
        };
        let mut device = Device {
            name: "web1".into(),
            uid: "0".into(),
            attachment: Some(attachment),
            size_bytes: None,
            snapshots: 2,
            goto_unfinished: false,
            volume: false,
        };
        assert_eq!(state(&device), "read-only");
        device.goto_unfinished = true;
        assert_eq!(
            Devices {
                devices: vec![device]
            }
            .text(),
            "DEVICE  SIZE  SNAPSHOTS  STATE            IMAGE\n\
             web1       -          2  goto unfinished  /a\\nb\n"
        );
    }
}
