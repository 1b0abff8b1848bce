//! Log lines of a server, on standard error.

use super::LogFormat;
use tracing::Level;

/// From now on what `tracing` is told goes to standard error; only warnings and errors if `quiet`.
pub fn start(format: LogFormat, quiet: bool) {
    let level = if quiet { Level::WARN } else { Level::INFO };
    let builder = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    // Only one command runs in a process, so nobody else has set it.
    let _ = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
}
