//! The program `still`: arguments in, one verb of the engine, a report out.

mod arguments;
mod changed;
mod commands;
mod context;
mod exit;
mod output;
mod report;
mod server;
mod signals;
mod size;
mod views;

use arguments::Cli;
use clap::Parser;
use commands::qemu_img;
use context::Context;
use exit::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words = match qemu_img::split(std::env::args_os().collect()) {
        Ok(words) => words,
        Err(error) => return output::error::bare(&error).into(),
    };
    let mut cli = match Cli::try_parse_from(words.head) {
        Ok(cli) => cli,
        Err(error) => return output::error::usage(&error).into(),
    };
    if let Some(tail) = words.tail {
        cli.json |= tail.wants_json();
        cli.command = arguments::Command::QemuImg(qemu_img::Verb::Snapshot(tail));
    }
    let context = Context::of(&cli);
    // Without the handler a signal ends the process at once, which every verb survives too.
    let _ = signals::watch(context.progress.clone());
    match commands::run(cli.command, &context) {
        Ok(answer) => output::print(&answer, &context),
        Err(error) => output::error::print(&error, &context),
    }
    .into()
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}
