//! One client's conversation.

use super::clients::Out;
use super::error::{Class, QmpError};
use super::framer::{Framer, Lost};
use super::message::{self, Request};
use super::monitor::Monitor;
use serde_json::{Value, json};
use std::io::Read;
use std::os::unix::net::UnixStream;

/// Talks until the client leaves, and to the last answer.
pub fn talk(monitor: &Monitor, number: u64, stream: &UnixStream) -> std::io::Result<()> {
    let (out, writer) = Out::start(stream.try_clone()?)?;
    out.send(message::line(&monitor.greeting()));
    let session = Session {
        monitor,
        number,
        out,
        negotiated: false,
    };
    let read = session.read(stream);
    // Its queue ends with its last user.
    monitor.clients().leave(number);
    // It only writes.
    let _ = writer.join();
    read
}

struct Session<'a> {
    monitor: &'a Monitor,
    number: u64,
    out: Out,
    negotiated: bool,
}

impl Session<'_> {
    fn read(mut self, mut stream: &UnixStream) -> std::io::Result<()> {
        let mut framer = Framer::default();
        let mut bytes = [0; 4096];
        loop {
            let n = match stream.read(&mut bytes) {
                Ok(0) => return Ok(()),
                Ok(n) => n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            for byte in &bytes[..n] {
                let goes_on = match framer.push(*byte) {
                    Ok(None) => true,
                    Ok(Some(message)) => self.handle(&message),
                    Err(lost) => {
                        self.lost(lost);
                        false
                    }
                };
                if !goes_on {
                    return Ok(());
                }
            }
        }
    }

    /// `false` when the client is gone.
    fn handle(&mut self, message: &[u8]) -> bool {
        let greeted = self.negotiated;
        let (id, done) = match message::parse(message) {
            Ok(mut request) => (request.id.take(), self.perform(request)),
            Err(bad) => (bad.id, Err(bad.error)),
        };
        let sent = self.out.send(message::answer(id, done));
        if self.negotiated && !greeted {
            self.monitor
                .clients()
                .negotiated(self.number, self.out.clone());
        }
        sent
    }

    fn perform(&mut self, request: Request) -> Result<Value, QmpError> {
        let negotiation = request.command == "qmp_capabilities";
        let not_now = |desc: &str| Err(QmpError::of(Class::CommandNotFound, desc));
        match (self.negotiated, negotiation) {
            (false, true) => {
                let mut arguments = request.arguments;
                // There is none to enable.
                if let Some(name) = arguments.texts("enable")?.unwrap_or_default().first() {
                    let desc = format!("Capability {name} not available");
                    return Err(QmpError::new(desc));
                }
                arguments.end()?;
                self.negotiated = true;
                Ok(json!({}))
            }
            (false, false) => not_now("Expecting capabilities negotiation with 'qmp_capabilities'"),
            (true, true) => {
                not_now("Capabilities negotiation is already complete, command ignored")
            }
            (true, false) => self.monitor.execute(&request.command, request.arguments),
        }
    }

    fn lost(&self, lost: Lost) {
        let desc = match lost {
            Lost::TooLong => "JSON token size limit exceeded",
            Lost::TooDeep => "JSON nesting depth limit exceeded",
        };
        self.out
            .send(message::answer(None, Err(QmpError::new(desc))));
    }
}
