//! The server of this store, if there is one: what is asked of volumes goes through it, since it has them open.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use stillpoint_api::System;
use stillpoint_serve::listen::{Address, connect, control_of};
use stillpoint_serve::qmp::kind_named;
use stillpoint_store::{Error, ErrorKind, Result};

/// Longest answer, in bytes. Lists of snapshots may be long.
const ANSWER_MAX: u64 = 256 << 20;

/// A connection to the server.
pub struct Server {
    stream: BufReader<UnixStream>,
}

impl Server {
    /// The server of the store in that folder; `None` where none runs.
    pub fn of(store: &Path) -> Result<Option<Self>> {
        let Address::Unix(path) = control_of(store) else {
            return Ok(None);
        };
        // No socket, or one that a dead server left.
        let Ok(stream) = connect(&path) else {
            return Ok(None);
        };
        let mut server = Self {
            stream: BufReader::new(stream),
        };
        server.message()?;
        server.execute("qmp_capabilities", &json!({}))?;
        Ok(Some(server))
    }

    /// The same if one of the devices is a volume; of all devices where none is named.
    pub fn of_volumes(store: &Path, system: &System, devices: &[String]) -> Result<Option<Self>> {
        let meant = |name: &String| devices.is_empty() || devices.contains(name);
        let all = system.devices()?;
        if all.iter().any(|d| d.volume && meant(&d.name)) {
            return Self::of(store);
        }
        Ok(None)
    }

    /// Does a command of the control socket.
    pub fn execute(&mut self, command: &str, arguments: &Value) -> Result<Value> {
        let mut message = json!({ "execute": command, "arguments": arguments }).to_string();
        message.push('\n');
        let sent = self.stream.get_mut().write_all(message.as_bytes());
        sent.map_err(|e| Error::io("asking the server of the store", e))?;
        loop {
            let mut answer = self.message()?;
            if let Some(value) = answer.get_mut("return") {
                return Ok(value.take());
            }
            if let Some(error) = answer.get("error") {
                return Err(failed(error));
            }
        }
    }

    fn message(&mut self) -> Result<Value> {
        let doing = "listening to the server of the store";
        let mut line = String::new();
        // A server that says more than any has to say is none; its line is cut, and so nonsense.
        let mut bounded = (&mut self.stream).take(ANSWER_MAX);
        let read = bounded.read_line(&mut line);
        if read.map_err(|e| Error::io(doing, e))? == 0 {
            return Err(Error::new(ErrorKind::Io, doing)
                .detail("it has gone")
                .hint("what was asked may have been done: look before you repeat it"));
        }
        serde_json::from_str(&line)
            .map_err(|e| Error::new(ErrorKind::Io, doing).detail(format!("it said nonsense: {e}")))
    }
}

/// Without fields that are null: the other side knows none that are.
pub fn without_nulls(mut arguments: Value) -> Value {
    if let Some(map) = arguments.as_object_mut() {
        map.retain(|_, value| !value.is_null());
    }
    arguments
}

fn failed(error: &Value) -> Error {
    let own = &error["x-stillpoint"];
    let kind = own["kind"].as_str().and_then(kind_named);
    let desc = error["desc"].as_str().unwrap_or("it says nothing more");
    let failed = Error::new(
        kind.unwrap_or(ErrorKind::Io),
        "through the server of the store",
    );
    let failed = failed.detail(desc);
    match own["hint"].as_str() {
        Some(hint) => failed.hint(hint.to_owned()),
        None => failed,
    }
}
