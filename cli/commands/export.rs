//! `still export`.

use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::Exported;
use crate::server::Server;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Instant;
use stillpoint_api::{Kept, Output, System, Which};
use stillpoint_migrate::qcow2::{self, ChainMode, Gate};
use stillpoint_migrate::{Format, Wanted, write_foreign, write_qcow2};
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::format::entry::Content;
use stillpoint_store::{Error, ErrorKind, Result};

/// The level that qemu-img uses.
const ZLIB_LEVEL: u32 = 6;
/// The level that qemu-img uses.
const ZSTD_LEVEL: u32 = 3;

/// Arguments of `export`.
#[derive(Debug, Args)]
#[command(after_help = "\
Every cluster is checked against its hash before it is written; holes stay holes. The file appears under its name
when it is whole.

Examples:
  still export web1@monday web1.raw
  still export web1@monday - | zstd > web1.raw.zst
  still export web1 web1.qcow2 --format qcow2 --snapshots all --compress zstd
  still export web1@monday old.qcow2 --format qcow2 --snapshots id:1,id:2 --verify
  still export --vm-state web1@paused ram.bin")]
pub struct Arguments {
    /// Device, or snapshot of a device
    #[arg(value_name = "D[@SNAP]")]
    target: String,
    /// Image to write, which must not exist; - is standard output, for raw
    file: PathBuf,
    /// Format of the image, as qemu-img calls it
    #[arg(long, value_name = "F", default_value = "raw")]
    format: String,
    /// Snapshots to put into the image itself: all or names (NAME, name:N, id:N); only qcow2 holds any
    #[arg(long, value_name = "all|NAME,...", value_delimiter = ',')]
    snapshots: Vec<String>,
    /// Compress a qcow2 image
    #[arg(long, value_enum, value_name = "zlib|zstd")]
    compress: Option<Compress>,
    /// Cluster size of a qcow2 image
    #[arg(long, value_name = "N", default_value = "64K", value_parser = crate::size::parse_u32)]
    cluster_size: u32,
    /// Read the file back afterwards and compare it with the store
    #[arg(long, conflicts_with = "vm_state")]
    verify: bool,
    /// Write the snapshot's saved VM state instead of its disk
    #[arg(long)]
    vm_state: bool,
}

/// How clusters are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compress {
    Zlib,
    Zstd,
}

const DOING: &str = "exporting";

/// Exports.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let format = Format::named(&arguments.format)?;
    check(arguments, format)?;
    let to_stdout = arguments.file == Path::new("-");
    if to_stdout && context.json {
        return Err(Error::invalid(
            DOING,
            "the image and --json both want standard output",
        ));
    }
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Error::invalid(DOING, "standard output is a terminal")
            .hint("give a file, or pipe the image to a program"));
    }
    let _line = context.watch("export");
    if to_stdout {
        let mut out = std::io::stdout().lock();
        export(
            arguments,
            Output::Stream(&mut out),
            &context.open()?,
            context,
        )?;
        return Ok(Answer::Raw(Vec::new()));
    }
    call(arguments, format, context).map(Answer::of)
}

/// Refuses what the format cannot do.
fn check(arguments: &Arguments, format: Format) -> Result<()> {
    let unsupported = |why: String, hint: &'static str| {
        let error = Error::new(ErrorKind::Unsupported, DOING);
        Err(error.detail(why).hint(hint))
    };
    if format != Format::Qcow2 {
        if !arguments.snapshots.is_empty() {
            let why = format!("a {format} image cannot hold snapshots");
            return unsupported(why, "export each of them to a file of its own, or as qcow2");
        }
        if arguments.compress.is_some() {
            let why = format!("--compress is for qcow2, not for {format}");
            return unsupported(why, "add --format qcow2");
        }
    }
    if format != Format::Raw {
        if arguments.vm_state {
            return Err(Error::invalid(
                DOING,
                "VM state has no format: it is written as it is",
            ));
        }
        if arguments.file == Path::new("-") {
            let why = format!("a {format} image is not written from its start to its end");
            return unsupported(why, "name a file; raw images go to standard output");
        }
    }
    Ok(())
}

fn call(arguments: &Arguments, format: Format, context: &Context) -> Result<Exported> {
    let since = Instant::now();
    let system = context.open()?;
    let (written, kept) = match format {
        Format::Raw => {
            let done = export(arguments, Output::File(&arguments.file), &system, context)?;
            let written = context.progress.bytes_done.load(Ordering::Relaxed);
            (written, vec![present(arguments, done.content)])
        }
        Format::Qcow2 => qcow2(arguments, &system, context)?,
        Format::Foreign(name) => foreign(arguments, name, &system)?,
    };
    if arguments.verify {
        let options = stillpoint_migrate::Options {
            format: Some(format),
            snapshots: Wanted::All,
            chain: ChainMode::Flatten,
            gate: Gate::closed(),
            secret: None,
        };
        let opened = stillpoint_migrate::open(&RealDisk, &arguments.file, &options)?;
        system.compare_history(&kept, &*opened.history, &context.progress)?;
    }
    let (present, snapshots) = kept
        .split_last()
        .ok_or_else(|| Error::invalid(DOING, "nothing"))?;
    Ok(Exported {
        target: arguments.target.clone(),
        part: if arguments.vm_state {
            "vm_state"
        } else {
            "disk"
        },
        file: arguments.file.display().to_string(),
        format: format.to_string(),
        snapshots: snapshots.iter().map(|s| s.name.clone()).collect(),
        size_bytes: present.disk.size,
        written_bytes: written,
        verified: arguments.verify,
        seconds: since.elapsed().as_secs_f64(),
    })
}

fn present(arguments: &Arguments, disk: Content) -> Kept {
    Kept {
        name: arguments.target.clone(),
        disk,
        vm_state: None,
    }
}

/// Bytes of the file, and what is in it.
fn qcow2(arguments: &Arguments, system: &System, context: &Context) -> Result<(u64, Vec<Kept>)> {
    let which = match &arguments.snapshots[..] {
        [] => Which::None,
        [one] if one == "all" => Which::All,
        names => Which::Named(names),
    };
    let (active, records) = system.states(&arguments.target, which)?;
    let options = qcow2::write::Options {
        cluster_bits: arguments.cluster_size.trailing_zeros(),
        compression: arguments.compress.map(|compress| match compress {
            Compress::Zlib => (qcow2::Compression::Zlib, ZLIB_LEVEL),
            Compress::Zstd => (qcow2::Compression::Zstd, ZSTD_LEVEL),
        }),
        ..qcow2::write::Options::default()
    };
    if !arguments.cluster_size.is_power_of_two() {
        return Err(Error::invalid(DOING, "a cluster size is a power of two"));
    }
    let (store, progress) = (system.store(), &context.progress);
    let mut file_bytes = 0;
    system.write_new(&arguments.file, &mut |file, _| {
        let done = write_qcow2(store, active, &records, file, &options, progress)?;
        file_bytes = done.file_bytes;
        Ok(())
    })?;
    let kept = records.iter().map(|r| Kept {
        name: stillpoint_api::text(&r.name),
        disk: r.content,
        vm_state: r.vm_state,
    });
    let kept = kept.chain([present(arguments, active)]).collect();
    Ok((file_bytes, kept))
}

/// The same through qemu-img.
fn foreign(arguments: &Arguments, format: &str, system: &System) -> Result<(u64, Vec<Kept>)> {
    if format == "luks" {
        return Err(Error::new(ErrorKind::Unsupported, DOING)
            .detail("no encrypted image is written")
            .hint("export as raw, and encrypt with `qemu-img convert`"));
    }
    let (active, _) = system.states(&arguments.target, Which::None)?;
    let mut file_bytes = 0;
    system.write_new(&arguments.file, &mut |file, path| {
        write_foreign(system.store(), active, format, path)?;
        file_bytes = file.len()?;
        file.sync()
    })?;
    Ok((file_bytes, vec![present(arguments, active)]))
}

fn export(
    arguments: &Arguments,
    output: Output<'_>,
    system: &System,
    context: &Context,
) -> Result<stillpoint_api::Exported> {
    let (target, progress) = (&arguments.target, &context.progress);
    let named = std::slice::from_ref(target);
    // A volume as it is now: the server that has it open stores first what was written to it.
    if !arguments.vm_state
        && let Some(mut server) = Server::of_volumes(&context.store, &system, named)?
    {
        let absorbed = json!({ "device": target });
        server.execute("x-stillpoint-volume-absorb", absorbed)?;
        let head = system.device(target)?.head;
        let head = head.ok_or_else(|| Error::invalid(DOING, "nothing was ever written to it"))?;
        return system.export_content(head, output, progress);
    }
    if arguments.vm_state {
        system.export_vm_state(target, output, progress)
    } else {
        system.export(target, output, progress)
    }
}

impl Report for Exported {
    fn text(&self) -> String {
        let took = units::seconds(self.seconds);
        let with = match self.snapshots.len() as u64 {
            0 => String::new(),
            n => format!(" with {}", units::number_of(n, "snapshot")),
        };
        let verified = if self.verified {
            ", read back and the same"
        } else {
            ""
        };
        format!(
            "exported {}{with} to {}: {}, {} written in {took}{verified}\n",
            escape(&self.target),
            escape(&self.file),
            units::size(self.size_bytes),
            units::size(self.written_bytes)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_went_where() {
        let exported = Exported {
            target: "web1@monday".into(),
            part: "disk",
            file: "web1.raw".into(),
            format: "raw".into(),
            snapshots: Vec::new(),
            size_bytes: 4 << 30,
            written_bytes: 1 << 30,
            verified: false,
            seconds: 61.0,
        };
        assert_eq!(
            exported.text(),
            "exported web1@monday to web1.raw: 4.0 GiB, 1.0 GiB written in 1 min 1 s\n"
        );
    }
}
