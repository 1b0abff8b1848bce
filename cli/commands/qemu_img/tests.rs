//! getopt's rules, and that clap's definition and they read alike what both can read.

use super::getopt::{Item, Spec, scan};
use crate::arguments::Cli;
use clap::{CommandFactory, Parser};
use std::ffi::OsString;

fn command() -> clap::Command {
    let mut cli = Cli::command();
    cli.build();
    let verb = cli.find_subcommand("qemu-img").expect("a verb");
    verb.find_subcommand("snapshot").expect("a verb").clone()
}

/// Options as `id=value` or `id`, words as they are, problems as `?written` and `!written`.
fn read(line: &str) -> String {
    let words: Vec<OsString> = line.split(' ').map(Into::into).collect();
    let shown = |item: Item| match item {
        Item::Word(word) => word.display().to_string(),
        Item::Unknown(written) => format!("?{written}"),
        Item::Missing(written) => format!("!{written}"),
        Item::Option {
            id,
            value: Some(value),
            ..
        } => format!("{id}={}", value.display()),
        Item::Option { id, .. } => id,
    };
    let items = scan(&Spec::of(&command()), &words).into_iter();
    items.map(shown).collect::<Vec<_>>().join(" ")
}

#[test]
fn options_are_bundled_abbreviated_and_anywhere() {
    for (line, items) in [
        ("-l disk", "list disk"),
        ("disk -l", "disk list"),
        ("-lq disk", "list quiet disk"),
        ("-cname disk", "create=name disk"),
        ("-lcname disk", "list create=name disk"),
        ("-c -l disk", "create=-l disk"),
        ("--create=a=b disk", "create=a=b disk"),
        ("--create a disk", "create=a disk"),
        ("--cr a disk", "create=a disk"),
        ("--image disk", "image-opts disk"),
        ("-l -- -disk", "list -disk"),
        ("-", "-"),
        ("-z disk", "?-z disk"),
        ("--fo disk", "?--fo disk"),
        ("--list=x disk", "?--list disk"),
        ("disk -c", "disk !-c"),
        ("disk --create", "disk !--create"),
    ] {
        assert_eq!(read(line), items, "{line}");
    }
}

#[test]
fn clap_reads_alike_what_it_can_read() {
    for line in [
        "-l disk",
        "disk -c name",
        "--apply name disk",
        "-d name --qemu-version 3.1 disk",
        "-U -l --image-opts disk",
        "--object secret -f raw -l disk",
    ] {
        let command = command().no_binary_name(true);
        let matches = command.try_get_matches_from(line.split(' '));
        let matches = matches.unwrap_or_else(|e| panic!("{line}: {e}"));
        let given = |id: &clap::Id| {
            let from = matches.value_source(id.as_str());
            from == Some(clap::parser::ValueSource::CommandLine)
        };
        let mut clap: Vec<String> = matches
            .ids()
            .filter(|id| given(id))
            .map(ToString::to_string)
            .collect();
        let is_word = |piece: &&str| *piece == "disk";
        let ours = read(line);
        let id = |piece: &str| piece.split('=').next().unwrap_or_default().to_owned();
        let mut ours: Vec<String> = ours
            .split(' ')
            .map(|p| if is_word(&p) { "file".into() } else { id(p) })
            .collect();
        clap.sort();
        ours.sort();
        assert_eq!(clap, ours, "{line}");
        let whole = format!("still qemu-img snapshot {line}");
        Cli::try_parse_from(whole.split(' ')).unwrap_or_else(|e| panic!("{whole}: {e}"));
    }
}

#[test]
fn only_what_is_ours_is_taken_from_clap() {
    let words = |line: &str| line.split(' ').map(OsString::from).collect();
    let split = |line| super::split(words(line)).expect("nothing is passed on");
    let ours = split("still --store x -q qemu-img snapshot -l --json disk");
    assert_eq!(ours.head.len(), 6);
    assert_eq!(ours.tail.expect("it is ours").words.len(), 3);
    for line in [
        "still list",
        "still create qemu-img snapshot",
        "still qemu-img help",
        "still --store qemu-img snapshot",
        "still",
    ] {
        assert!(split(line).tail.is_none(), "{line}");
    }
}
