//! What the user sees: reports as text or JSON on stdout, errors and progress on stderr.

pub mod error;
pub mod escape;
pub mod progress;
pub mod table;
pub mod time;
pub mod units;

use crate::context::Context;
use crate::exit::Exit;
use serde::Serialize;
use std::io::{self, Write};

/// What a verb has to say, for people and, through serde, for programs.
pub trait Report: Serialize {
    /// For people; lines end with a newline.
    fn text(&self) -> String;
    /// How the process ends, where a report can be bad news.
    fn exit(&self) -> Exit {
        Exit::Done
    }
    /// True where the report is what was asked for, so that `--quiet` must not swallow it.
    fn is_answer(&self) -> bool {
        false
    }
}

/// A report of any type.
pub trait AnyReport {
    /// For people.
    fn text(&self) -> String;
    /// For programs.
    fn json(&self) -> serde_json::Result<serde_json::Value>;
    /// See [`Report::exit`].
    fn exit(&self) -> Exit;
    /// See [`Report::is_answer`].
    fn is_answer(&self) -> bool;
}

impl<R: Report> AnyReport for R {
    fn text(&self) -> String {
        Report::text(self)
    }
    fn json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
    fn exit(&self) -> Exit {
        Report::exit(self)
    }
    fn is_answer(&self) -> bool {
        Report::is_answer(self)
    }
}

/// What a verb leaves to print.
pub enum Answer {
    /// A report.
    Report(Box<dyn AnyReport>),
    /// Bytes for stdout as they are; none when the verb has written there itself.
    Raw(Vec<u8>),
    /// What another program would have printed, and how it would have ended.
    Program {
        /// Standard output.
        out: Vec<u8>,
        /// Standard error.
        err: Vec<u8>,
        /// Exit code.
        exit: Exit,
    },
}

impl Answer {
    /// An answer of `report`.
    pub fn of(report: impl Report + 'static) -> Self {
        Self::Report(Box::new(report))
    }
}

/// Prints the answer as the context wants it. Bad news end the process with their own code, whatever became of the output:
/// `still verify | head -1` has found what it has found.
pub fn print(answer: &Answer, context: &Context) -> Exit {
    let own = match answer {
        Answer::Raw(_) => Exit::Done,
        Answer::Program { exit, .. } => *exit,
        Answer::Report(report) => report.exit(),
    };
    match (write(answer, context), own) {
        (Err(error), Exit::Done) => stdout_failed(&error),
        (Err(error), _) => {
            stdout_failed(&error);
            own
        }
        (Ok(()), _) => own,
    }
}

fn write(answer: &Answer, context: &Context) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match answer {
        Answer::Raw(bytes) => out.write_all(bytes)?,
        Answer::Program { out: text, err, .. } => {
            out.write_all(text)?;
            out.flush()?;
            // An error that cannot be printed still ends the process with its code.
            let _ = io::stderr().write_all(err);
        }
        Answer::Report(report) if context.json => {
            serde_json::to_writer_pretty(&mut out, &report.json()?)?;
            writeln!(out)?;
        }
        Answer::Report(report) if report.is_answer() || !context.quiet => {
            out.write_all(report.text().as_bytes())?;
        }
        Answer::Report(_) => {}
    }
    out.flush()
}

/// Standard output failed. A reader that has seen enough (`still list | head -1`) is no failure.
fn stdout_failed(error: &io::Error) -> Exit {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Exit::Done;
    }
    // Nothing is left to complain to when stderr fails too.
    let _ = writeln!(io::stderr(), "still: writing to standard output: {error}");
    Exit::Failed
}
