//! `still completions`.

use crate::arguments::Cli;
use crate::output::Answer;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, for a user's bash:
  still completions bash > ~/.local/share/bash-completion/completions/still")]
pub struct Arguments {
    /// Which shell
    shell: Shell,
}

/// The script.
pub fn run(arguments: &Arguments) -> Answer {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "still", &mut script);
    Answer::Raw(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_know_the_verbs() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let Answer::Raw(script) = run(&Arguments { shell }) else {
                panic!("not a script")
            };
            let script = String::from_utf8(script).expect("scripts are text");
            assert!(script.contains("rebuild-index"), "{shell}");
        }
    }
}
