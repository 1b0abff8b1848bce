//! The shell sessions in `docs/API.md`, and those of README that need nothing but a store, go as they are written there.

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

/// README's block of lines that has `what` in it.
fn block_with(what: &str) -> String {
    let readme = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
    let readme = std::fs::read_to_string(readme).expect("the readme");
    let blocks = readme.split("```");
    let block = blocks.skip(1).step_by(2).find(|block| block.contains(what));
    let block = block.unwrap_or_else(|| panic!("no block with {what:?}"));
    block
        .strip_prefix("sh\n")
        .expect("it is for a shell")
        .to_owned()
}

#[test]
fn the_vm_state_of_the_readme_comes_back_after_its_tour() {
    let home = Home::new();
    for name in ["web1", "db1"] {
        let image = format!("{name}.raw");
        std::fs::write(home.path(&image), name).expect("a small file");
        home.ok(&["device", "add", name, &image]);
    }
    std::fs::write(home.path("ram.bin"), vec![7; 100_000]).expect("a small file");
    let script = format!(
        "set -e; resume() {{ cat > resumed; }}; still() {{ '{}' --store store \"$@\"; }}\n{}",
        env!("CARGO_BIN_EXE_still"),
        block_with("resume-the-vm").replace("resume-the-vm", "resume")
    );
    let mut shell = std::process::Command::new("sh");
    run(shell.current_dir(home.path("")).args(["-c", &script])).code(0);
    let resumed = std::fs::read(home.path("resumed")).expect("it was resumed");
    assert_eq!(resumed, vec![7; 100_000]);
}
