//! The rules of the house that no compiler knows: who may name what, who may import whom, how long things get. A rule that
//! must give way is changed here, with its reason beside it.

use std::fs;
use std::path::Path;

/// A source file: its path from the root of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

/// Longest file, tests apart: what one reads in one go.
const LINES_MAX: usize = 600;
/// Widest line. rustfmt keeps code at 100 and leaves comments alone.
const COLUMNS_MAX: usize = 130;

/// Where each of these stands in the code of the engine, and nowhere else in it.
const NAMED_ONLY_IN: [(&str, &[&str]); 10] = [
    ("sled::", &["index/sled.rs"]),
    ("zstd::", &["codec.rs"]),
    ("bincode::", &["format/codec.rs"]),
    ("nix::", &["image/lock.rs"]),
    // The disk; the folders of sled, which is on no other disk; the files whose descriptors locks are taken on.
    (
        "std::fs",
        &[
            "disk/mod.rs",
            "disk/real.rs",
            "image/lock.rs",
            "index/seal.rs",
            "index/slot.rs",
        ],
    ),
    // Packs are written behind the ingest; sled's compactor is waited for.
    (
        "std::thread",
        &["index/sled.rs", "ops/ingest/writer.rs", "ops/sink.rs"],
    ),
    ("rayon::ThreadPoolBuilder", &["index/sled.rs"]),
    // The clock is an argument; sled's compactor is waited for no longer than that.
    ("std::time", &["index/sled.rs", "world.rs"]),
    ("std::env", &[]),
    ("println!", &[]),
];

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    let parts = [
        "api", "benches", "capi", "cli", "fuzz", "migrate", "nbd", "serve", "store", "tests",
    ];
    let mut folders: Vec<_> = parts.iter().map(|part| root.join(part)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("it can be listed").path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("it can be read");
                let path = path.strip_prefix(root).expect("it is below");
                let path = path.display().to_string();
                all.push(Source { path, text });
            }
        }
    }
    assert!(all.len() > 100, "the sources are not where they were");
    all
}

impl Source {
    /// Nothing of it is in the program: tests, and what the tests of all crates share.
    fn is_test(&self) -> bool {
        let parts: Vec<&str> = self.path.split('/').collect();
        let shared = ["conformance.rs", "laws.rs", "shelf.rs", "tests.rs"];
        parts
            .iter()
            .any(|part| ["tests", "sim", "fuzz", "benches"].contains(part))
            || parts.last().is_some_and(|name| shared.contains(name))
    }

    /// The path within the engine's sources.
    fn in_store(&self) -> Option<&str> {
        self.path.strip_prefix("store/src/")
    }

    /// Lines of code with their numbers: without comments, and without the tests at the end.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let lines: Vec<&str> = self.text.lines().collect();
        let tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1] == "mod tests {";
        let end = lines.windows(2).position(tests).unwrap_or(lines.len());
        let numbered = (1..).zip(lines).take(end);
        numbered.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }
}

/// Whether the line names `what` itself, not a module of ours of that name or something that ends like it.
fn names(line: &str, what: &str) -> bool {
    line.match_indices(what).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':'))
    })
}

/// Fails with everything that was found, a line each.
#[track_caller]
fn none(found: &[String], rule: &str) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn what_the_engine_stands_on_is_named_in_one_place_each() {
    let mut found = Vec::new();
    let mut met = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let Some(path) = source.in_store() else {
            continue;
        };
        for (n, line) in source.code() {
            for (what, files) in NAMED_ONLY_IN.iter().filter(|(what, _)| names(line, what)) {
                met.push((*what, path.to_string()));
                if !files.contains(&path) {
                    found.push(format!("{}:{n} names {what}, {files:?} may", source.path));
                }
            }
        }
    }
    for (what, files) in NAMED_ONLY_IN {
        let gone = files
            .iter()
            .filter(|f| !met.contains(&(what, f.to_string())));
        found.extend(gone.map(|f| format!("{f} names {what} no more: take it off the list")));
    }
    none(&found, "go through the file that is there for it");
}

/// As `NAMED_ONLY_IN`, of formats of others and of what carries snapshots from store to store.
const MIGRATE_NAMED_ONLY_IN: [(&str, &[&str]); 7] = [
    ("zstd::", &["qcow2/codec.rs"]),
    ("flate2::", &["qcow2/codec.rs"]),
    ("std::fs", &[]),
    (
        "std::thread",
        &[
            // A view of the store ends before the threads of a server do: it is read by threads of its own.
            "foreign/write.rs",
            // Streams are read ahead; the receiver never waits to write; the sender's walk is ahead of the answers.
            "sync/give.rs",
            "sync/take.rs",
            "wire/ahead.rs",
        ],
    ),
    // Who waits for the other side notices that he was asked to stop.
    ("std::time", &["wire/ahead.rs"]),
    ("std::env", &[]),
    ("println!", &[]),
];

#[test]
fn migration_goes_through_the_doors_too() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let Some(path) = source.path.strip_prefix("migrate/src/") else {
            continue;
        };
        for (n, line) in source.code() {
            let named = MIGRATE_NAMED_ONLY_IN.iter();
            for (what, files) in named.filter(|(what, _)| names(line, what)) {
                if !files.contains(&path) {
                    found.push(format!("{}:{n} names {what}, {files:?} may", source.path));
                }
            }
        }
    }
    none(&found, "go through the file that is there for it");
}

#[test]
fn nothing_but_tests_unwraps() {
    let mut found = Vec::new();
    for source in sources().iter().filter(|s| !s.is_test()) {
        let unwraps = source.code().filter(|(_, line)| line.contains(".unwrap()"));
        found.extend(unwraps.map(|(n, _)| format!("{}:{n}", source.path)));
    }
    none(
        &found,
        "return the error, or expect(\"why it cannot fail\")",
    );
}

/// The engine's modules from the lowest to the highest, from the table in its `lib.rs`.
fn layers(lib: &str) -> Vec<&str> {
    let table = lib.split("```text").nth(1).expect("lib.rs has a table");
    let table = table.split("```").next().expect("the table ends");
    let rows = table.lines().filter_map(|line| line.strip_prefix("//! "));
    rows.flat_map(|row| row.split("  ").next().unwrap_or_default().split(' '))
        .filter(|word| !word.is_empty())
        .collect()
}

/// What a file of the engine imports from above its own module.
fn upward_imports(source: &Source, layers: &[&str]) -> Vec<String> {
    let rank = |module: &str| layers.iter().position(|layer| *layer == module);
    let module = source
        .in_store()
        .and_then(|path| path.split(['/', '.']).next());
    let Some(own) = module.and_then(rank) else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for (n, line) in source.code() {
        let imported = line.split("crate::").skip(1).filter_map(|rest| {
            let end = rest.find(|c: char| !c.is_lowercase() && c != '_');
            rank(&rest[..end.unwrap_or(rest.len())])
        });
        for up in imported.filter(|rank| *rank > own) {
            let (from, to) = (layers[up], layers[own]);
            found.push(format!("{}:{n} imports {from} into {to}", source.path));
        }
    }
    found
}

#[test]
fn modules_of_the_engine_import_only_downwards() {
    let sources = sources();
    let lib = sources.iter().find(|s| s.in_store() == Some("lib.rs"));
    let lib = &lib.expect("the engine has a lib.rs").text;
    let layers = layers(lib);
    let rank = |module: &str| layers.iter().position(|layer| *layer == module);
    let mut found = Vec::new();
    for module in lib.lines().filter_map(|line| line.strip_prefix("pub mod ")) {
        let module = module.trim_end_matches(';');
        if rank(module).is_none() {
            found.push(format!("store/src/lib.rs: {module} is not in the table"));
        }
    }
    for source in sources.iter().filter(|s| !s.is_test()) {
        found.extend(upward_imports(source, &layers));
    }
    none(
        &found,
        "import only what is further up in the table of store/src/lib.rs",
    );
}

#[test]
fn files_and_lines_are_short_enough_to_be_read() {
    let mut found = Vec::new();
    for source in &sources() {
        let lines = source.code().map(|(n, _)| n).last().unwrap_or(0);
        if lines > LINES_MAX && !source.is_test() {
            found.push(format!("{}: {lines} lines, make two of it", source.path));
        }
        for (n, line) in (1..).zip(source.text.lines()) {
            let columns = line.chars().count();
            if columns > COLUMNS_MAX {
                found.push(format!("{}:{n}: {columns} columns", source.path));
            }
        }
    }
    none(&found, "nobody reads on");
}

#[test]
fn the_rules_here_find_what_breaks_them() {
    assert!(names("use sled::Db;", "sled::") && names("std::fs::read(x)", "std::fs"));
    assert!(!names("use super::sled::Pages;", "sled::") && !names("unsled::x", "sled::"));
    let text = "//! zstd::\nfn a() {}\n#[cfg(test)]\nmod tests {\n x.unwrap();\n}\n".to_string();
    let path = "store/src/a.rs".to_string();
    let source = Source { path, text };
    assert!(source.code().eq([(2, "fn a() {}")]) && !source.is_test());
    let lib = "//! ```text\n//! error id   pure\n//! ops     verbs\n//! ```\n";
    assert_eq!(layers(lib), ["error", "id", "ops"]);
    let text = "use crate::ops::gc;\nuse crate::error::Error;\n".to_string();
    let path = "store/src/id.rs".to_string();
    let found = upward_imports(&Source { path, text }, &layers(lib));
    assert_eq!(found, ["store/src/id.rs:1 imports ops into id"]);
}
