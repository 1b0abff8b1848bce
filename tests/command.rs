//! The program as a shell sees it: exit codes, the two outputs, pipes.

use std::io::Read;
use std::process::{Command, Output, Stdio};

fn still() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_still"));
    command.env_remove("STILL_STORE").stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    still()
        .args(arguments)
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("output is text")
}

#[test]
fn usage_is_exit_2_and_says_so_on_stderr() {
    let output = run(&["goto"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    assert!(
        text(&output.stderr).contains("Usage: still goto"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn with_json_usage_is_a_document_on_stdout_and_nothing_else() {
    let output = run(&["--json", "goto"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.is_empty());
    let document: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("one JSON document");
    assert_eq!(document["error"]["kind"], "usage");
}

#[test]
fn help_and_version_are_answers() {
    for flag in ["--help", "--version"] {
        let output = run(&[flag]);
        assert_eq!(output.status.code(), Some(0), "{flag}");
        assert!(
            !output.stdout.is_empty() && output.stderr.is_empty(),
            "{flag}"
        );
    }
}

#[test]
fn a_geometry_that_no_store_can_have_is_usage() {
    let output = run(&["init", "--cluster-size", "5000"]);
    assert_eq!(output.status.code(), Some(2));
    let stderr = text(&output.stderr);
    assert!(
        stderr.starts_with("still: checking the store's geometry: cluster size 5000"),
        "{stderr}"
    );
}

#[test]
fn a_change_map_that_is_not_there_is_named_and_fails() {
    let output = run(&[
        "--json",
        "create",
        "monday",
        "--changed",
        "/nowhere/map.json",
    ]);
    assert_eq!(output.status.code(), Some(1));
    let document: serde_json::Value =
        serde_json::from_slice(&output.stdout).expect("one JSON document");
    let error = &document["error"];
    assert_eq!(error["message"], "reading the change map /nowhere/map.json");
    assert!(
        error["causes"][0]
            .as_str()
            .is_some_and(|why| why.contains("No such file")),
        "{error}"
    );
}

#[test]
fn json_and_an_image_cannot_share_stdout() {
    let output = run(&["--json", "export", "web1", "-"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = still()
        .args(["completions", "zsh"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    // Closed before the first byte is taken: the script is larger than nothing, so the write must fail.
    drop(child.stdout.take());
    let status = child.wait().expect("it ends");
    let mut stderr = String::new();
    child
        .stderr
        .take()
        .expect("piped")
        .read_to_string(&mut stderr)
        .expect("text");
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
}
