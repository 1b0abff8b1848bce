//! One verb a file: its arguments, its one call into the engine, its report as text.

mod checksums;
pub mod completions;
pub mod create;
pub mod delete;
pub mod demo;
pub mod device;
pub mod diff;
pub mod eras;
pub mod export;
pub mod find;
pub mod gc;
pub mod goto;
pub mod import;
pub mod init;
pub mod list;
pub mod man;
pub mod mount;
pub mod qemu_img;
pub mod rebuild_index;
pub mod receive;
pub mod rescue;
pub mod send;
pub mod serve;
pub mod show;
pub mod stats;
pub mod summary;
pub mod sync;
pub mod upgrade;
pub mod verify;
pub mod volume;

use crate::arguments::Command;
use crate::context::Context;
use crate::output::Answer;
use stillpoint_store::{Error, ErrorKind, Result};

/// Runs the verb.
pub fn run(command: Command, context: &Context) -> Result<Answer> {
    match command {
        Command::Init(arguments) => init::run(&arguments, context),
        Command::Demo(arguments) => demo::run(&arguments, context),
        Command::Device(verb) => device::run(&verb, context),
        Command::Create(arguments) => create::run(&arguments, context),
        Command::List(arguments) => list::run(&arguments, context),
        Command::Show(arguments) => show::run(&arguments, context),
        Command::Find(arguments) => find::run(&arguments, context),
        Command::Diff(arguments) => diff::run(&arguments, context),
        Command::Goto(arguments) => goto::run(&arguments, context),
        Command::Delete(arguments) => delete::run(&arguments, context),
        Command::Import(arguments) => import::run(&arguments, context),
        Command::Export(arguments) => export::run(&arguments, context),
        Command::Verify(arguments) => verify::run(&arguments, context),
        Command::Volume(verb) => volume::run(&verb, context),
        Command::Gc(arguments) => gc::run(arguments, context),
        Command::Stats(arguments) => stats::run(&arguments, context),
        Command::Serve(arguments) => serve::run(&arguments, context),
        Command::Mount(arguments) => mount::run(&arguments, context),
        Command::RebuildIndex(arguments) => rebuild_index::run(arguments, context),
        Command::Rescue(arguments) => rescue::run(&arguments, context),
        Command::Sync(arguments) => sync::run(&arguments, context),
        Command::SyncPeer(verb) => sync::run_peer(&verb, context),
        Command::Send(arguments) => send::run(&arguments, context),
        Command::Receive(arguments) => receive::run(&arguments, context),
        Command::Summary(arguments) => summary::run(&arguments, context),
        Command::Upgrade(arguments) => upgrade::run(arguments, context),
        Command::QemuImg(verb) => qemu_img::run(&verb, context),
        Command::Eras(arguments) => eras::run(&arguments, context),
        Command::Completions(arguments) => Ok(completions::run(&arguments)),
        Command::Man(arguments) => man::run(&arguments),
    }
}

/// Refuses formats that this version has no code for.
fn only_raw(doing: &'static str, format: &str) -> Result<()> {
    if format == "raw" {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, doing)
        .detail(format!("the format {format} is not supported yet, raw is"))
        .hint("`still import` takes it in as a device without an image"))
}
