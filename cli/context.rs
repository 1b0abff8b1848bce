//! What every verb is given: the store, how to speak, and the progress that it shares with the screen.

use crate::arguments::Cli;
use crate::output::progress::Line;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use stillpoint_api::{OpenOptions, System};
use stillpoint_store::Result;
use stillpoint_store::progress::Progress;

/// See the module.
pub struct Context {
    /// Folder of the store.
    pub store: PathBuf,
    /// One JSON document on stdout, nothing else.
    pub json: bool,
    /// Answers and errors only.
    pub quiet: bool,
    /// Counters of the operation under way, and its stop button.
    pub progress: Arc<Progress>,
}

impl Context {
    /// The context that the command line asks for.
    pub fn of(cli: &Cli) -> Self {
        Self {
            store: cli.store.clone(),
            json: cli.json,
            quiet: cli.quiet,
            progress: Arc::new(Progress::default()),
        }
    }

    /// Opens the store. Lines that are no errors go to stderr.
    pub fn open(&self) -> Result<System> {
        self.open_at(&self.store)
    }

    /// The same with the store in another folder.
    pub fn open_at(&self, store: &Path) -> Result<System> {
        let quiet = self.quiet;
        let say = move |line: &str| {
            if !quiet {
                eprintln!("still: {}", crate::output::escape::escape(line));
            }
        };
        System::open(
            store,
            OpenOptions {
                say: Arc::new(say),
                ..OpenOptions::default()
            },
        )
    }

    /// The same for a server: lines go to its log.
    pub fn open_logged(&self) -> Result<System> {
        let say = |line: &str| tracing::info!("{line}");
        System::open(
            &self.store,
            OpenOptions {
                say: Arc::new(say),
                ..OpenOptions::default()
            },
        )
    }

    /// Draws progress on stderr until the value is dropped, if somebody looks.
    pub fn watch(&self, verb: &'static str) -> Option<Line> {
        let wanted = !self.quiet && !self.json && std::io::stderr().is_terminal();
        wanted.then(|| Line::start(self.progress.clone(), verb))
    }
}
