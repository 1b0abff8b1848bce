//! `still man`: hidden, for packagers.

use crate::arguments::Cli;
use crate::output::Answer;
use clap::{Args, CommandFactory};
use std::path::{Path, PathBuf};
use stillpoint_store::{Error, Result};

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  still man /usr/local/share/man/man1")]
pub struct Arguments {
    /// Folder to write still.1, still-create.1 and so on to
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes the pages.
pub fn run(arguments: &Arguments) -> Result<Answer> {
    generate(&arguments.folder)?;
    Ok(Answer::Raw(Vec::new()))
}

fn generate(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|e| Error::io("writing the manual pages to", e).at(folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_gets_its_page() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        generate(folder.path()).expect("pages are written");
        for page in ["still.1", "still-create.1", "still-device-add.1"] {
            let text = std::fs::read_to_string(folder.path().join(page)).expect(page);
            assert!(text.contains(".TH"), "{page}");
        }
    }
}
