//! The shell sessions in `docs/API.md` go as they are written there.

mod support;

use std::os::unix::fs::symlink;
use support::{Home, masked, run};

/// A command and what it prints.
type Step = (String, String);

fn steps(guide: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in guide.lines() {
        match (line, line.strip_prefix("$ ")) {
            ("```console", _) => inside = true,
            ("```", _) => inside = false,
            (_, Some(command)) if inside => steps.push((command.into(), String::new())),
            _ if inside => {
                let (_, prints) = steps.last_mut().expect("a session begins with a command");
                prints.push_str(line);
                prints.push('\n');
            }
            _ => {}
        }
    }
    steps
}

#[test]
fn the_sessions_in_the_guide_go_as_written() {
    let guide = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/API.md");
    let steps = steps(&std::fs::read_to_string(guide).expect("the guide"));
    assert!(steps.len() >= 12, "the sessions are not where they were");
    let home = Home::empty();
    let bin = home.path("programs");
    std::fs::create_dir(&bin).expect("a new folder");
    symlink(env!("CARGO_BIN_EXE_still"), bin.join("still")).expect("a new link");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::iter::once(bin).chain(std::env::split_paths(&path));
    let path = std::env::join_paths(path).expect("plain paths");
    for (command, prints) in steps {
        let mut shell = std::process::Command::new("sh");
        shell
            .current_dir(home.path(""))
            .env_remove("STILL_STORE")
            .env_remove("STILL_QEMU_VERSION")
            .env("PATH", &path)
            .args(["-c", &command]);
        let ran = run(&mut shell);
        let said = format!("{}{}", ran.text(), ran.err);
        assert_eq!(masked(&said), masked(&prints), "{}", ran.story());
    }
}
