//! `still goto`.

use crate::context::Context;
use crate::output::escape::escape;
use crate::output::table::{Align, Table};
use crate::output::{Answer, Report, units};
use crate::report::{Gone, GoneDevice};
use crate::server::Server;
use clap::Args;
use serde_json::{Value, json};
use std::time::Instant;
use stillpoint_api::{GotoReport, WentDevice};
use stillpoint_store::Result;
use stillpoint_store::format::entry::GotoResult;

/// Arguments of `goto`.
#[derive(Debug, Args)]
#[command(after_help = "\
The present state is stored first, so that a goto that fails is undone. After a crash the devices are marked:
--finish goes on, --undo goes back.

Examples:
  still goto monday
  still goto monday --device web1
  still goto --undo")]
pub struct Arguments {
    /// Snapshot to go to: name, name:N, id:N or id:N,name:N
    #[arg(value_name = "SNAP", required_unless_present_any = ["finish", "undo"])]
    snapshot: Option<String>,
    /// Only this device; may be given again
    #[arg(long = "device", value_name = "D", conflicts_with_all = ["finish", "undo"])]
    devices: Vec<String>,
    /// Finish a goto that was interrupted
    #[arg(long, conflicts_with_all = ["snapshot", "undo"])]
    finish: bool,
    /// Undo a goto that was interrupted
    #[arg(long, conflicts_with = "snapshot")]
    undo: bool,
}

/// Goes.
pub fn run(arguments: &Arguments, context: &Context) -> Result<Answer> {
    let _line = context.watch("goto");
    let gone = match &arguments.snapshot {
        Some(snapshot) => go(snapshot, &arguments.devices, context),
        None if arguments.finish => finish(context),
        None => undo(context),
    };
    gone.map(Answer::of)
}

fn go(snapshot: &str, devices: &[String], context: &Context) -> Result<Gone> {
    let since = Instant::now();
    let system = context.open()?;
    if let Some(server) = Server::of_volumes(&context.store, &system, devices)? {
        return through(server, snapshot, devices, since);
    }
    let went = system.goto(snapshot, devices, &context.progress)?;
    Ok(gone("went", Some(snapshot), &went, since))
}

/// The same by the server that has the volumes open.
fn through(mut server: Server, snapshot: &str, devices: &[String], since: Instant) -> Result<Gone> {
    let mut arguments = json!({ "snapshot": snapshot });
    if !devices.is_empty() {
        arguments["devices"] = json!(devices);
    }
    let went = server.execute("x-stillpoint-goto", arguments)?;
    let number = |value: &Value, field: &str| value[field].as_u64().unwrap_or_default();
    let devices = went["devices"].as_array().into_iter().flatten();
    let devices = devices.map(|d| GoneDevice {
        device: d["device"].as_str().unwrap_or_default().to_owned(),
        size_bytes: number(d, "size_bytes"),
        read_bytes: number(d, "read_bytes"),
        written_bytes: number(d, "written_bytes"),
    });
    Ok(Gone {
        action: "went",
        snapshot: Some(snapshot.into()),
        devices: devices.collect(),
        seconds: since.elapsed().as_secs_f64(),
    })
}

fn finish(context: &Context) -> Result<Gone> {
    let since = Instant::now();
    let went = context
        .open()?
        .goto_resume(GotoResult::Done, &context.progress)?;
    Ok(gone("finished", None, &went, since))
}

fn undo(context: &Context) -> Result<Gone> {
    let since = Instant::now();
    let went = context
        .open()?
        .goto_resume(GotoResult::Undone, &context.progress)?;
    Ok(gone("undone", None, &went, since))
}

fn gone(action: &'static str, snapshot: Option<&str>, went: &GotoReport, since: Instant) -> Gone {
    let device = |w: &WentDevice| GoneDevice {
        device: w.device.clone(),
        size_bytes: w.size,
        read_bytes: w.read,
        written_bytes: w.written,
    };
    Gone {
        action,
        snapshot: snapshot.map(Into::into),
        devices: went.devices.iter().map(device).collect(),
        seconds: since.elapsed().as_secs_f64(),
    }
}

impl Report for Gone {
    fn text(&self) -> String {
        let mut table = Table::new(&[
            ("DEVICE", Align::Left),
            ("SIZE", Align::Right),
            ("READ", Align::Right),
            ("WRITTEN", Align::Right),
        ]);
        for device in &self.devices {
            table.row(&[
                device.device.clone(),
                units::size(device.size_bytes),
                units::size(device.read_bytes),
                units::size(device.written_bytes),
            ]);
        }
        let to = self
            .snapshot
            .as_ref()
            .map(|to| format!(" to {}", escape(to)));
        let took = units::seconds(self.seconds);
        format!(
            "{}{}{} with {} in {took}\n",
            table.text(),
            self.action,
            to.unwrap_or_default(),
            units::number_of(self.devices.len() as u64, "device")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_how_little_was_written() {
        let device = GoneDevice {
            device: "web1".into(),
            size_bytes: 4 << 30,
            read_bytes: 1 << 30,
            written_bytes: 40 << 20,
        };
        let gone = Gone {
            action: "went",
            snapshot: Some("monday".into()),
            devices: vec![device],
            seconds: 0.5,
        };
        assert_eq!(
            gone.text(),
            "DEVICE     SIZE     READ   WRITTEN\nweb1    4.0 GiB  1.0 GiB  40.0 MiB\n\
             went to monday with 1 device in 500 ms\n"
        );
    }
}
