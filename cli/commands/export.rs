//! `still export`.

mod plan;

use crate::commands::checksums::{checksums, lines_of_checksums, lines_of_left_out};
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::{Answer, Report, units};
use crate::report::{Exported, LeftOut};
use crate::server::Server;
use clap::{Args, ValueEnum};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use stillpoint_api::{Begin, Kept, Output, System, Which};
use stillpoint_migrate::qcow2::{self, ChainMode, Gate};
use stillpoint_migrate::{Format, Wanted, write_foreign, write_qcow2};
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::format::entry::Content;
use stillpoint_store::format::snapshot::SnapshotRecord;
use stillpoint_store::{Error, ErrorKind, Result};

/// The level that qemu-img uses.
const ZLIB_LEVEL: u32 = 6;
/// The level that qemu-img uses.
const ZSTD_LEVEL: u32 = 3;

/// Arguments of `export`.
#[derive(Debug, Args)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a flag of the command"
)]
#[command(after_help = "\
Every cluster is checked against its hash before it is written; holes stay holes. The file appears under its name
when it is whole. An export of a raw or qcow2 image (not an encrypted one) that was interrupted leaves FILE.still-part: the same
command goes on with it. One that fails, as on a full disk, leaves nothing.

Examples:
  still export web1@monday web1.raw
  still export web1@monday - | zstd > web1.raw.zst
  still export web1 web1.qcow2 --format qcow2 --snapshots all --compress zstd
  still export web1@monday old.qcow2 --format qcow2 --snapshots id:1,id:2 --verify
  still export web1@monday ancient.qcow2 --format qcow2 --compat 0.10
  still export web1 - --format qcow2 --compress zstd | ssh other 'cat > web1.qcow2'
  still export web1 web1.luks --format luks --secret-file passphrase
  still export web1 web1.qcow2 --format qcow2 --secret-file passphrase
  still export --vm-state web1@paused ram.bin")]
pub struct Arguments {
    /// Device, or snapshot of a device
    #[arg(value_name = "D[@SNAP]")]
    target: String,
    /// Image to write, which must not exist; - is standard output: an image that is not raw is made in a temporary file before
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
    /// Version of a qcow2 image, as qemu-img calls it: 0.10 (version 2, for programs before 2012) or 1.1 (version 3)
    #[arg(long, value_enum, value_name = "0.10|1.1", default_value = "1.1")]
    compat: Compat,
    /// Width of the refcounts of a qcow2 image: 1, 2, 4, 8, 16, 32 or 64; 16 with --compat 0.10
    #[arg(long, value_name = "BITS", default_value_t = 16)]
    refcount_bits: u32,
    /// Read the file back afterwards and compare it with the store
    #[arg(long, conflicts_with = "vm_state")]
    verify: bool,
    /// Say the BLAKE3 hash of every state, as b3sum does of a raw image of it
    #[arg(long, conflicts_with = "vm_state")]
    checksums: bool,
    /// Say what would be written, and write nothing
    #[arg(long, conflicts_with_all = ["vm_state", "verify", "checksums"])]
    dry_run: bool,
    /// A file with the passphrase that encrypts a luks or qcow2 image
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
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

/// Versions of qcow2, by the QEMU release that brought them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Compat {
    #[value(name = "0.10")]
    V2,
    #[value(name = "1.1")]
    V3,
}

const DOING: &str = "exporting";

/// Exports.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let format = Format::named(&arguments.format)?;
    check(arguments, format)?;
    if arguments.dry_run {
        let system = context.open()?;
        return plan::plan(arguments, format, &system).map(Answer::of);
    }
    let to_stdout = arguments.file == Path::new("-");
    if to_stdout && context.json {
        return Err(Error::invalid(
            DOING,
            "the image and --json both want standard output",
        ));
    }
    if to_stdout && (arguments.checksums || arguments.verify && format == Format::Raw) {
        let why = "what goes to standard output is neither read back nor told of there";
        return Err(Error::invalid(DOING, why).hint("export to a file"));
    }
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(Error::invalid(DOING, "standard output is a terminal")
            .hint("give a file, or pipe the image to a program"));
    }
    let _line = context.watch("export");
    match (to_stdout, format) {
        (false, _) => call(arguments, &arguments.file, format, context).map(Answer::of),
        (true, Format::Raw) => {
            let mut out = std::io::stdout().lock();
            let (output, system) = (Output::Stream(&mut out), context.open()?);
            export(arguments, output, &system, context)?;
            Ok(Answer::Raw(Vec::new()))
        }
        (true, _) => by_file(arguments, format, context),
    }
}

/// To standard output by way of a temporary file: such an image is not written from its start to its end.
fn by_file(arguments: &Arguments, format: Format, context: &Context) -> Result<Answer> {
    let failed = |e| Error::io("writing the image to standard output", e);
    let folder = tempfile::tempdir().map_err(|e| Error::io("making a temporary folder", e))?;
    let path = folder.path().join("image");
    // What would be gone on with goes with the folder.
    let forgotten = |e: Error| match e.kind() {
        ErrorKind::Cancelled => Error::new(ErrorKind::Cancelled, "stopped as asked"),
        _ => e,
    };
    call(arguments, &path, format, context).map_err(forgotten)?;
    let mut image = std::fs::File::open(&path).map_err(failed)?;
    let mut out = std::io::stdout().lock();
    std::io::copy(&mut image, &mut out).map_err(failed)?;
    out.flush().map_err(failed)?;
    Ok(Answer::Raw(Vec::new()))
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
        if arguments.compat != Compat::V3 || arguments.refcount_bits != 16 {
            let why = format!("--compat and --refcount-bits are for qcow2, not for {format}");
            return unsupported(why, "add --format qcow2");
        }
    }
    if format != Format::Raw && arguments.vm_state {
        let why = "VM state has no format: it is written as it is";
        return Err(Error::invalid(DOING, why));
    }
    match (format, &arguments.secret_file) {
        (Format::Foreign("luks"), None) => {
            let why = "a luks image needs a passphrase".to_owned();
            unsupported(why, "name a file with it: --secret-file FILE")
        }
        (Format::Foreign("luks"), Some(_)) | (_, None) => Ok(()),
        (Format::Qcow2, Some(_)) => {
            let plain = arguments.snapshots.is_empty()
                && arguments.compress.is_none()
                && arguments.compat == Compat::V3
                && arguments.refcount_bits == 16
                && arguments.cluster_size == 64 << 10;
            if plain {
                return Ok(());
            }
            let why = "qemu-img writes the encrypted ones, without snapshots, compression or another layout";
            unsupported(why.to_owned(), "leave those out, or --secret-file")
        }
        (_, Some(_)) => {
            let why = format!("no {format} image is written encrypted");
            unsupported(why, "--secret-file is for --format luks and qcow2")
        }
    }
}

fn call(arguments: &Arguments, file: &Path, format: Format, context: &Context) -> Result<Exported> {
    let since = Instant::now();
    let system = context.open()?;
    let done = write(arguments, file, format, &system, context)?;
    let kept = &done.states;
    if arguments.verify {
        let options = stillpoint_migrate::Options {
            format: Some(format),
            snapshots: Wanted::All,
            chain: ChainMode::Flatten,
            gate: Gate::closed(),
            secret: arguments.secret_file.clone(),
        };
        let opened = stillpoint_migrate::open(&RealDisk, file, &options)?;
        system.compare_history(kept, &*opened.history, &context.progress)?;
    }
    let checksums = if arguments.checksums {
        checksums(&system, kept, &context.progress)?
    } else {
        Vec::new()
    };
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
        written_bytes: done.bytes,
        kept_bytes: done.kept,
        verified: arguments.verify,
        checksums,
        left_out: done.left_out,
        seconds: since.elapsed().as_secs_f64(),
    })
}

/// What an image is made of.
struct Written {
    /// Bytes of the file.
    bytes: u64,
    /// Bytes that an export that was cut off had written.
    kept: u64,
    states: Vec<Kept>,
    left_out: Vec<LeftOut>,
}

/// Writes the image.
fn write(
    arguments: &Arguments,
    file: &Path,
    format: Format,
    system: &System,
    context: &Context,
) -> Result<Written> {
    if format == Format::Raw {
        let done = export(arguments, Output::File(file), system, context)?;
        return Ok(Written {
            bytes: done.written,
            kept: done.kept,
            states: vec![present(arguments, done.content)],
            left_out: Vec::new(),
        });
    }
    settle(arguments, system, context)?;
    let (states, records) = wanted(arguments, system)?;
    let active = states.last().map(|present| present.disk);
    let active = active.ok_or_else(|| Error::invalid(DOING, "nothing"))?;
    let (bytes, kept) = match format {
        Format::Foreign(name) => (foreign(arguments, file, name, active, system)?, 0),
        Format::Qcow2 if arguments.secret_file.is_some() => {
            (foreign(arguments, file, "qcow2", active, system)?, 0)
        }
        _ => qcow2(arguments, file, (active, &records), system, context)?,
    };
    Ok(Written {
        bytes,
        kept,
        states,
        left_out: plan::left_out(arguments, format, system, &records)?,
    })
}

/// A volume is exported as it is now: what was written to it is stored first, by the server that has it open if there is one.
fn settle(arguments: &Arguments, system: &System, context: &Context) -> Result<()> {
    let devices = system.devices()?;
    let mut volumes = devices.iter().filter(|d| d.volume);
    let Some(volume) = volumes.find(|d| d.name == arguments.target) else {
        return Ok(());
    };
    match Server::of(&context.store)? {
        Some(mut server) => {
            let device = json!({ "device": volume.name });
            server
                .execute("x-stillpoint-volume-absorb", &device)
                .map(|_| ())
        }
        None => system
            .volumes()?
            .absorb(&[volume.uid], &context.progress)
            .map(|_| ()),
    }
}

fn present(arguments: &Arguments, disk: Content) -> Kept {
    Kept {
        name: arguments.target.clone(),
        disk,
        vm_state: None,
    }
}

/// The states that go out, the exported one last, and the snapshots among them.
fn wanted(arguments: &Arguments, system: &System) -> Result<(Vec<Kept>, Vec<SnapshotRecord>)> {
    let which = match &arguments.snapshots[..] {
        [] => Which::None,
        [one] if one == "all" => Which::All,
        names => Which::Named(names),
    };
    let (active, records) = system.states(&arguments.target, which)?;
    let kept = records.iter().map(|r| Kept {
        name: stillpoint_api::text(&r.name),
        disk: r.content,
        vm_state: r.vm_state,
    });
    let kept = kept.chain([present(arguments, active)]).collect();
    Ok((kept, records))
}

/// Bytes that were written, and those that the file had already.
fn qcow2(
    arguments: &Arguments,
    to: &Path,
    (active, records): (Content, &[SnapshotRecord]),
    system: &System,
    context: &Context,
) -> Result<(u64, u64)> {
    let options = qcow2::write::Options {
        version: match arguments.compat {
            Compat::V2 => 2,
            Compat::V3 => 3,
        },
        refcount_order: arguments.refcount_bits.trailing_zeros(),
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
    if !arguments.refcount_bits.is_power_of_two() {
        let why = "the width of refcounts is a power of two";
        return Err(Error::invalid(DOING, why));
    }
    if arguments.refcount_bits == 1 && !records.is_empty() {
        let why = "QEMU applies no snapshots of an image with refcounts of 1 bit";
        return Err(Error::invalid(DOING, why).hint("--refcount-bits 2 is enough"));
    }
    let (store, progress) = (system.store(), &context.progress);
    let mut bytes = (0, 0);
    system.write_new(to, Begin::WhereItWas, &mut |file, _| {
        let done = write_qcow2(store, active, records, file, &options, progress)?;
        bytes = (done.file_bytes - done.kept_bytes, done.kept_bytes);
        Ok(())
    })?;
    Ok(bytes)
}

/// The same through qemu-img.
fn foreign(
    arguments: &Arguments,
    to: &Path,
    format: &str,
    active: Content,
    system: &System,
) -> Result<u64> {
    let secret = arguments.secret_file.as_deref();
    let mut file_bytes = 0;
    system.write_new(to, Begin::Anew, &mut |file, path| {
        write_foreign(system.store(), active, format, secret, path)?;
        file_bytes = file.len()?;
        file.sync()
    })?;
    Ok(file_bytes)
}

fn export(
    arguments: &Arguments,
    output: Output<'_>,
    system: &System,
    context: &Context,
) -> Result<stillpoint_api::Exported> {
    let (target, progress) = (&arguments.target, &context.progress);
    if arguments.vm_state {
        return system.export_vm_state(target, output, progress);
    }
    settle(arguments, system, context)?;
    let (content, _) = system.resolve(target)?;
    system.export_content(content, output, progress)
}

impl Report for Exported {
    fn text(&self) -> String {
        let took = units::seconds(self.seconds);
        let with = match self.snapshots.len() as u64 {
            0 => String::new(),
            n => format!(" with {}", units::number_of(n, "snapshot")),
        };
        let kept = match self.kept_bytes {
            0 => String::new(),
            n => format!(" over {} of the export before", units::size(n)),
        };
        let verified = if self.verified {
            ", read back and the same"
        } else {
            ""
        };
        format!(
            "{}{}exported {}{with} to {}: {}, {} written{kept} in {took}{verified}\n",
            lines_of_checksums(&self.checksums),
            lines_of_left_out(&self.left_out),
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
            kept_bytes: 0,
            verified: false,
            checksums: Vec::new(),
            left_out: Vec::new(),
            seconds: 61.0,
        };
        assert_eq!(
            exported.text(),
            "exported web1@monday to web1.raw: 4.0 GiB, 1.0 GiB written in 1 min 1 s\n"
        );
        let second = Exported {
            kept_bytes: 2 << 30,
            ..exported
        };
        let said = "1.0 GiB written over 2.0 GiB of the export before in 1 min 1 s\n";
        assert!(second.text().ends_with(said), "{}", second.text());
    }
}
