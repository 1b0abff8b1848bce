//! `still volume create`, `volume resize`, `volume move`, `volume remove`.

use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::VolumeChanged;
use crate::server::{self, Server};
use crate::size;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use stillpoint_api::VolumeSource;
use stillpoint_store::Result;

/// What to do with volumes.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
A volume is a disk that lives in the store and is written to. create, goto, delete, list and export work on it as on any device.

Examples:
  still volume create vm1 --from golden@v1
  still volume create data --size 1T")]
pub enum Verb {
    /// Make a volume: empty, or a clone of a device or snapshot, at once whatever its size
    Create(CreateArguments),
    /// Change the size of a volume
    Resize(ResizeArguments),
    /// Let another host have a volume, or take one
    Move(MoveArguments),
    /// Remove a volume and what no snapshot has of it; its snapshots stay
    Remove(RemoveArguments),
}

/// Arguments of `volume create`.
#[derive(Debug, Args)]
#[command(after_help = "\
A clone shares everything with what it is made of, which may be deleted meanwhile.

Examples:
  still volume create vm1 --from golden@v1
  still volume create vm2 --from vm1
  still volume create data --size 1T")]
pub struct CreateArguments {
    /// Name of the device to make
    #[arg(value_name = "D")]
    name: String,
    /// Bytes of an empty volume
    #[arg(
        long,
        value_name = "N",
        value_parser = size::parse,
        required_unless_present = "from",
        conflicts_with = "from"
    )]
    size: Option<u64>,
    /// Device or snapshot that it begins as
    #[arg(long, value_name = "D[@SNAP]")]
    from: Option<String>,
}

/// Arguments of `volume resize`.
#[derive(Debug, Args)]
#[command(after_help = "\
What a volume grows by reads as zeros. To shrink it gives up what lies behind the new end.

Example:
  still volume resize data 2T")]
pub struct ResizeArguments {
    /// Volume
    #[arg(value_name = "D")]
    name: String,
    /// Bytes that it is to have
    #[arg(value_name = "N", value_parser = size::parse)]
    size: u64,
}

/// Arguments of `volume move`.
#[derive(Debug, Args)]
#[command(after_help = "\
What was written to a volume since its last snapshot is in files of one host. Without --take it is stored, and whichever host
uses the volume next has it. With --take, on a host that the volume was not moved to, the volume goes on as it is in the store:
for when the other host, or its files, are gone.

Examples:
  still volume move data
  still volume move data --take")]
pub struct MoveArguments {
    /// Volume
    #[arg(value_name = "D")]
    name: String,
    /// Take the volume as it is in the store, and give up what another host wrote since
    #[arg(long)]
    take: bool,
}

/// Arguments of `volume remove`.
#[derive(Debug, Args)]
#[command(after_help = "\
What was written since the last snapshot is lost. Without snapshots the device goes too.

Example:
  still volume remove data")]
pub struct RemoveArguments {
    /// Volume
    #[arg(value_name = "D")]
    name: String,
}

/// Runs one of them.
pub fn run(verb: &Verb, context: &Context) -> Result<Answer> {
    // The server of the store has volumes open; taking one from another host is not its affair.
    if !matches!(verb, Verb::Move(MoveArguments { take: true, .. }))
        && let Some(server) = Server::of(&context.store)?
    {
        return through(server, verb).map(Answer::of);
    }
    let system = context.open()?;
    let progress = &*context.progress;
    let changed = match verb {
        Verb::Create(CreateArguments { name, size, from }) => {
            let _line = context.watch("volume create");
            let source = match from {
                Some(from) => VolumeSource::From(from),
                None => VolumeSource::Empty(size.unwrap_or(0)),
            };
            let made = system.volume_create(name, source, progress)?;
            VolumeChanged {
                volume: name.clone(),
                action: "created",
                uid: Some(made.uid.to_string()),
                size_bytes: Some(made.size),
                from: from.clone(),
            }
        }
        Verb::Resize(ResizeArguments { name, size }) => {
            let _line = context.watch("volume resize");
            system.volume_resize(name, *size, progress)?;
            VolumeChanged {
                size_bytes: Some(*size),
                ..changed("resized", name)
            }
        }
        Verb::Move(MoveArguments { name, take: true }) => {
            system.volume_take(name)?;
            changed("took", name)
        }
        Verb::Move(MoveArguments { name, .. }) => {
            let _line = context.watch("volume move");
            system.volume_hand_over(name, progress)?;
            changed("handed over", name)
        }
        Verb::Remove(RemoveArguments { name }) => {
            let gone = system.volume_remove(name)?;
            changed(removal(gone), name)
        }
    };
    Ok(Answer::of(changed))
}

/// The same by the server of the store.
fn through(mut server: Server, verb: &Verb) -> Result<VolumeChanged> {
    let mut ask = |command: &str, arguments: Value| {
        let command = format!("x-stillpoint-volume-{command}");
        server.execute(&command, server::without_nulls(arguments))
    };
    Ok(match verb {
        Verb::Create(CreateArguments { name, size, from }) => {
            let made = ask(
                "create",
                json!({ "name": name, "size": size, "from": from }),
            )?;
            VolumeChanged {
                uid: made["uid"].as_str().map(ToOwned::to_owned),
                size_bytes: made["size_bytes"].as_u64(),
                from: from.clone(),
                ..changed("created", name)
            }
        }
        Verb::Resize(ResizeArguments { name, size }) => {
            ask("resize", json!({ "name": name, "size": size }))?;
            VolumeChanged {
                size_bytes: Some(*size),
                ..changed("resized", name)
            }
        }
        Verb::Move(MoveArguments { name, .. }) => {
            ask("move", json!({ "name": name }))?;
            changed("handed over", name)
        }
        Verb::Remove(RemoveArguments { name }) => {
            let removed = ask("remove", json!({ "name": name }))?;
            changed(removal(removed["device_removed"] == true), name)
        }
    })
}

/// What was done to a volume whose device went, or stays with its snapshots.
fn removal(gone: bool) -> &'static str {
    if gone {
        "removed"
    } else {
        "removed all but snapshots of"
    }
}

fn changed(action: &'static str, volume: &str) -> VolumeChanged {
    VolumeChanged {
        volume: volume.into(),
        action,
        uid: None,
        size_bytes: None,
        from: None,
    }
}

impl Report for VolumeChanged {
    fn text(&self) -> String {
        let size = self.size_bytes.map(units::size);
        let size = size.map(|size| format!(": {size}")).unwrap_or_default();
        let from = self.from.as_ref().map(|from| format!(" from {from}"));
        let from = from.unwrap_or_default();
        escape(&format!("{} {}{size}{from}", self.action, self.volume)) + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_volume_is_told_with_its_size_and_source() {
        let made = VolumeChanged {
            size_bytes: Some(1 << 40),
            from: Some("golden@v1".into()),
            ..changed("created", "vm1")
        };
        assert_eq!(made.text(), "created vm1: 1.0 TiB from golden@v1\n");
        assert_eq!(changed("removed", "vm1").text(), "removed vm1\n");
    }
}
