//! `still import`.

use crate::commands::checksums::{checksums, lines_of_checksums, lines_of_left_out};
use crate::commands::create::table_of;
use crate::context::Context;
use crate::output::escape::escape;
use crate::output::table::{Align, Table};
use crate::output::{Answer, Report, units};
use crate::report::{Imported, LeftOut, Planned, PlannedState};
use crate::views;
use clap::{Args, ValueEnum};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;
use stillpoint_api::{ImportHistory, System};
use stillpoint_migrate::qcow2::{ChainMode, Gate};
use stillpoint_migrate::{Format, Opened, Options, Wanted};
use stillpoint_store::disk::real::RealDisk;
use stillpoint_store::{Error, Result};

/// Arguments of `import`.
#[derive(Debug, Args)]
#[command(after_help = "\
A qcow2 image comes with its snapshots: ids, names, dates, clocks and VM state stay what they were, and the image's active state
becomes the device's head. Snapshots and head are there together or not at all; an import that was cut off is repeated.
Other images become a device with one snapshot. No other file is opened than those you name.

Examples:
  still import golden.raw --device golden --name v1
  still import web1.qcow2 --device web1
  still import web1.qcow2 --device web1 --snapshots monday,id:3 --verify
  still import overlay.qcow2 --device web2 --allow-backing base.qcow2 --chain snapshots
  still import old.img --format raw --device old --dry-run
  still import - --device web3")]
pub struct Arguments {
    /// Image to read; - is standard input
    image: PathBuf,
    /// Name of the device to make
    #[arg(long, value_name = "D")]
    device: String,
    /// Make a snapshot of the image's present state, of this name [default: the store chooses one; none where the image has
    /// snapshots of its own]
    #[arg(long, value_name = "SNAP")]
    name: Option<String>,
    /// Format of the image, as qemu-img calls it [default: what its bytes say]
    #[arg(long, value_name = "F")]
    format: Option<String>,
    /// Which of the image's own snapshots to take: all, none, or names (NAME, name:N, id:N)
    #[arg(
        long,
        value_name = "all|none|NAME,...",
        value_delimiter = ',',
        default_value = "all"
    )]
    snapshots: Vec<String>,
    /// What becomes of a backing chain: part of every state, or a snapshot a file
    #[arg(long, value_enum, default_value_t = Chain::Flatten, value_name = "flatten|snapshots")]
    chain: Chain,
    /// A backing or data file, or a folder with such, that the image may name; may be given several times
    #[arg(long, value_name = "PATH")]
    allow_backing: Vec<PathBuf>,
    /// A file with the passphrase of an encrypted image, which is then read through qemu-nbd
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Say what would be read, and import nothing
    #[arg(long)]
    dry_run: bool,
    /// Read everything back from the store afterwards and compare it with the image
    #[arg(long, conflicts_with = "dry_run")]
    verify: bool,
    /// Say the BLAKE3 hash of every state, as b3sum does of a raw image of it
    #[arg(long, conflicts_with = "dry_run")]
    checksums: bool,
}

/// What becomes of a backing chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Chain {
    Flatten,
    Snapshots,
}

/// Imports.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let since = Instant::now();
    let options = options(arguments)?;
    let system = context.open()?;
    let _line = context.watch("import");
    let spool = spool(&arguments.image)?;
    let path = spool.as_ref().map_or(&*arguments.image, |file| file.path());
    let opened = stillpoint_migrate::open(&RealDisk, path, &options)?;
    if arguments.dry_run {
        return plan(arguments, &opened, &system).map(Answer::of);
    }
    call(arguments, &opened, &system, context, since).map(Answer::of)
}

fn call(
    arguments: &Arguments,
    opened: &Opened,
    system: &System,
    context: &Context,
    since: Instant,
) -> Result<Imported> {
    let import = ImportHistory {
        history: &*opened.history,
        device: &arguments.device,
        name: arguments.name.as_deref(),
    };
    let made = system.import_history(&import, &context.progress)?;
    let kept = made.kept(&*opened.history);
    if arguments.verify {
        system.compare_history(&kept, &*opened.history, &context.progress)?;
    }
    let checksums = if arguments.checksums {
        checksums(system, &kept, &context.progress)?
    } else {
        Vec::new()
    };
    Ok(Imported {
        device: arguments.device.clone(),
        format: opened.format.to_string(),
        snapshots: made.snapshots.iter().map(views::created_snapshot).collect(),
        head_bytes: made.head.size,
        head_stored_bytes: made.head_counts.stored,
        left_out: left_out(opened),
        verified: arguments.verify,
        checksums,
        seconds: since.elapsed().as_secs_f64(),
    })
}

fn plan(arguments: &Arguments, opened: &Opened, system: &System) -> Result<Planned> {
    let estimates = system.estimate_history(&*opened.history)?;
    let names = opened.history.earlier().iter();
    let names = names.map(|e| Some(stillpoint_api::text(&e.name)));
    let named = names.chain(std::iter::once(arguments.name.clone()));
    let state = |(name, e): (Option<String>, &stillpoint_api::Estimate)| PlannedState {
        snapshot: name,
        size_bytes: e.size,
        read_bytes: e.read,
        vm_state_bytes: e.vm_state,
    };
    Ok(Planned {
        device: arguments.device.clone(),
        format: opened.format.to_string(),
        states: named.zip(&estimates).map(state).collect(),
        read_bytes: estimates.iter().map(|e| e.read + e.vm_state).sum(),
        left_out: left_out(opened),
    })
}

fn left_out(opened: &Opened) -> Vec<LeftOut> {
    let one = |l: &stillpoint_migrate::LeftOut| LeftOut {
        what: l.what.to_owned(),
        why: l.why.clone(),
    };
    opened.left_out.iter().map(one).collect()
}

fn options(arguments: &Arguments) -> Result<Options> {
    let mut gate = Gate::closed();
    for path in &arguments.allow_backing {
        let folder = path.is_dir();
        if folder {
            gate.allow_folder(&RealDisk, path)?;
        } else {
            gate.allow_file(&RealDisk, path)?;
        }
    }
    Ok(Options {
        format: arguments.format.as_deref().map(Format::named).transpose()?,
        snapshots: wanted(&arguments.snapshots),
        chain: match arguments.chain {
            Chain::Flatten => ChainMode::Flatten,
            Chain::Snapshots => ChainMode::Snapshots,
        },
        gate,
        secret: arguments.secret_file.clone(),
    })
}

/// `all` and `none` alone are words; a snapshot that is called so is `name:all`.
fn wanted(names: &[String]) -> Wanted {
    match names {
        [one] if one == "all" => Wanted::All,
        [one] if one == "none" => Wanted::None,
        names => Wanted::Named(names.to_vec()),
    }
}

/// Standard input in a temporary file: images are read here and there.
fn spool(image: &Path) -> Result<Option<tempfile::NamedTempFile>> {
    if image != Path::new("-") {
        return Ok(None);
    }
    let failed = |e| Error::io("keeping standard input in a temporary file", e);
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    let mut input = std::io::stdin().lock();
    std::io::copy(&mut input, &mut file).map_err(failed)?;
    file.flush().map_err(failed)?;
    Ok(Some(file))
}

impl Report for Imported {
    fn text(&self) -> String {
        let (table, _, of_snapshots) = table_of(&self.snapshots);
        let stored = of_snapshots + self.head_stored_bytes;
        let verified = if self.verified {
            ", read back and the same"
        } else {
            ""
        };
        format!(
            "{table}{}{}imported {} as {} in {}: {}, {} stored{verified}\n",
            lines_of_checksums(&self.checksums),
            lines_of_left_out(&self.left_out),
            self.format,
            escape(&self.device),
            units::seconds(self.seconds),
            units::number_of(self.snapshots.len() as u64, "snapshot"),
            units::size(stored),
        )
    }
}

impl Report for Planned {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            ("STATE", Align::Left),
            ("SIZE", Align::Right),
            ("READ", Align::Right),
            ("VM STATE", Align::Right),
        ]);
        for state in &self.states {
            table.row(&[
                state.snapshot.clone().unwrap_or_else(|| "(present)".into()),
                units::size(state.size_bytes),
                units::size(state.read_bytes),
                units::size(state.vm_state_bytes),
            ]);
        }
        format!(
            "{}{}would import {} as {}: {} to read, the store grows by less\n",
            table.text(),
            lines_of_left_out(&self.left_out),
            self.format,
            escape(&self.device),
            units::size(self.read_bytes),
        )
    }

    fn is_answer(&self) -> bool {
        true
    }
}
