//! C programs over the installed library: every function, three releases in one process, memory errors.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use support::{ERAS, Installed, capi, has, install, ok, source, version};

#[track_caller]
fn done(program: &mut Command) {
    assert_eq!(ok(program), "done\n");
}

#[test]
fn a_program_uses_every_function_of_a_release_of_each_era() {
    if !has("every", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    for release in ERAS {
        let program = installed.shared(&[source("every.c")], &[&version(release)], release);
        done(Command::new(program).arg(installed.empty(&format!("work-{release}"))));
    }
}

#[test]
fn a_cpp_program_uses_every_function_too() {
    if !has("every", &["g++", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    for release in ["100", "402", "1101"] {
        let program = installed.path(release);
        let mut compiler = Command::new("g++");
        compiler
            .args(["-std=c++17", "-x", "c++"])
            .args(["-Wall", "-Wextra", "-Werror"])
            .arg(version(release))
            .arg(source("every.c"))
            .args(["-x", "none"])
            .args(installed.pkg_config(&["--cflags", "--libs"]))
            .arg(format!("-Wl,-rpath,{}/lib", installed.prefix().display()))
            .arg("-o")
            .arg(&program);
        ok(&mut compiler);
        done(Command::new(program).arg(installed.empty(&format!("work-{release}"))));
    }
}

#[test]
fn the_static_library_needs_nothing_of_ours_at_run_time() {
    if !has("static", &["cc", "pkg-config", "ldd"]) {
        return;
    }
    let installed = Installed::new();
    let program = installed.path("every");
    let libraries = installed.pkg_config(&["--static", "--libs-only-l"]);
    let mut compiler = Command::new("cc");
    compiler
        .arg("-std=c11")
        .arg(source("every.c"))
        .args(installed.pkg_config(&["--cflags"]))
        .arg(installed.prefix().join("lib/libstillpoint.a"))
        .args(libraries.iter().filter(|l| *l != "-lstillpoint"))
        .arg("-o")
        .arg(&program);
    ok(&mut compiler);
    assert!(!ok(Command::new("ldd").arg(&program)).contains("stillpoint"));
    done(Command::new(program).arg(installed.empty("work")));
}

#[test]
fn three_releases_live_in_one_process() {
    if !has("together", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    let mut objects = vec![source("together.c")];
    for release in ["203", "402", "600"] {
        let object = installed.path(&format!("{release}.o"));
        let mut compiler = Command::new("cc");
        compiler
            .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-c"])
            .arg(version(release))
            .args(["create", "finds", "lists"].map(|f| format!("-DPART_{f}=v{release}_{f}")))
            .arg(source("part.c"))
            .args(installed.pkg_config(&["--cflags"]))
            .arg("-o")
            .arg(&object);
        ok(&mut compiler);
        objects.push(object);
    }
    done(&mut Command::new(installed.shared(
        &objects,
        &[],
        "together",
    )));
}

#[test]
fn threads_with_machines_of_their_own_do_not_meet() {
    if !has("threads", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    let options = ["-pthread", "-fsanitize=address"];
    let program = installed.shared(&[source("threads.c")], &options, "threads");
    done(&mut Command::new(program));
}

#[test]
fn a_stale_handle_never_acts_on_another_disk() {
    if !has("race", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    let program = installed.shared(&[source("race.c")], &["-pthread"], "race");
    done(&mut Command::new(program));
}

#[test]
fn a_call_after_fork_fails_and_does_not_hang() {
    if !has("fork", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    let program = installed.shared(&[source("fork.c")], &[], "fork");
    done(Command::new(program).arg(installed.empty("work")));
}

#[test]
fn error_objects_behave_as_qemus() {
    if !has("error", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    let qemus = installed.prefix().join("include/stillpoint/qemu");
    let include = format!("-I{}", qemus.display());
    // The address of data is another matter in each.
    for how in [&["-fPIE", "-pie"][..], &["-fno-pie", "-no-pie"]] {
        let options = [how, &[&include, "-fsanitize=address"]].concat();
        let program = installed.shared(&[source("error.c")], &options, "error");
        let plain = Command::new(&program).output().expect("it runs");
        let said = String::from_utf8_lossy(&plain.stderr);
        assert_eq!(plain.stdout, b"done\n", "{said}");
        let text = "Failed to load snapshot: No such file or directory\n";
        assert_eq!(said, format!("disk 7: {text}Make 'nix' first.\n"));
        for (argument, code) in [("abort", None), ("fatal", Some(1)), ("direct", Some(1))] {
            let ended = Command::new(&program).arg(argument).output();
            let ended = ended.expect("it runs");
            let said = String::from_utf8_lossy(&ended.stderr);
            assert!(said.contains(text) && ended.stdout.is_empty(), "{said}");
            assert_eq!(ended.status.code(), code, "{argument}: {said}");
        }
    }
}

#[test]
fn the_symbols_without_a_header_are_those_of_the_seed() {
    if !has("bare", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    // Data of a library is reached in another way from each.
    for options in [&["-fPIE", "-pie"][..], &["-fno-pie", "-no-pie"], &["-fPIC"]] {
        let program = installed.shared(&[source("bare.c")], options, "bare");
        done(&mut Command::new(program));
    }
}

#[test]
fn valgrind_finds_nothing() {
    if !has("valgrind", &["cc", "pkg-config", "valgrind"]) {
        return;
    }
    let installed = Installed::new();
    for release in ["107", "402", "600"] {
        let program = installed.shared(&[source("every.c")], &[&version(release)], release);
        // What threads that still wait for work hold is only "possibly" lost.
        done(
            Command::new("valgrind")
                .args(["--quiet", "--error-exitcode=99", "--leak-check=full"])
                .args(["--errors-for-leak-kinds=definite,indirect"])
                .arg("--show-leak-kinds=definite,indirect")
                .arg(program)
                .arg(installed.empty(&format!("work-{release}"))),
        );
    }
}

#[test]
fn the_address_sanitizer_finds_nothing() {
    if !has("sanitizer", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    for release in ["107", "402", "600"] {
        let options = [
            "-fsanitize=address,undefined",
            "-fno-sanitize-recover=all",
            &version(release),
        ];
        let program = installed.shared(&[source("every.c")], &options, release);
        done(
            Command::new(program)
                .env("ASAN_OPTIONS", "detect_leaks=1")
                .arg(installed.empty(&format!("work-{release}"))),
        );
    }
}

#[test]
fn the_example_runs_and_the_readme_shows_it() {
    let example = capi().join("examples/snapshot.c");
    let text = fs::read_to_string(&example).expect("the example");
    let readme = fs::read_to_string(capi().join("../README.md")).expect("the README");
    let shown = readme.split("```c\n").nth(1).expect("the README shows it");
    let shown = shown.split("```").next().expect("the block ends");
    for line in shown.lines().filter(|l| !l.trim().is_empty()) {
        assert!(text.contains(line.trim()), "{line:?} is not in the example");
    }
    if !has("example", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    let program = installed.shared(&[example], &[], "snapshot");
    let image = installed.path("disk.raw");
    fs::write(&image, vec![7; 65_536]).expect("it can be written");
    let mut run = Command::new(program);
    run.arg(installed.path("store")).arg(&image);
    assert_eq!(ok(&mut run), "made monday, id 1\n1\tmonday\n");
    let again = run.output().expect("it runs");
    assert_eq!(again.status.code(), Some(1));
    assert!(!again.stderr.is_empty());
}

/// Runs the example on a new store in that folder.
fn example(installed: &Installed, program: &Path, folder: &str) -> Command {
    let folder = installed.empty(folder);
    let image = folder.join("disk.raw");
    fs::write(&image, vec![7; 65_536]).expect("it can be written");
    let mut run = Command::new(program);
    run.arg(folder.join("store"))
        .arg(image)
        .env_remove("LD_LIBRARY_PATH");
    run
}

#[test]
fn a_program_of_the_installed_library_starts_as_the_readme_says() {
    let readme = fs::read_to_string(capi().join("../README.md")).expect("the README");
    assert!(readme.contains("PKG_CONFIG_PATH=PREFIX/lib/pkgconfig LD_LIBRARY_PATH=PREFIX/lib`"));
    if !has("example", &["cc", "pkg-config"]) {
        return;
    }
    let installed = Installed::new();
    let program = installed.path("snapshot");
    let mut compiler = Command::new("cc");
    compiler
        .arg(capi().join("examples/snapshot.c"))
        .args(installed.pkg_config(&["--cflags", "--libs"]))
        .arg("-o")
        .arg(&program);
    ok(&mut compiler);
    let without = example(&installed, &program, "without").output();
    assert!(!without.expect("the loader runs").status.success());
    let mut with = example(&installed, &program, "with");
    with.env("LD_LIBRARY_PATH", installed.prefix().join("lib"));
    assert_eq!(ok(&mut with), "made monday, id 1\n1\tmonday\n");
}

/// What the script says, and whether it ran an ldconfig that looks at that folder. The real one would change this machine.
fn install_where_ldconfig_looks_at(
    installed: &Installed,
    folder: &Path,
    name: &str,
) -> (String, bool) {
    let bin = installed.empty(name);
    let (ldconfig, ran) = (bin.join("ldconfig"), bin.join("ran"));
    let text = format!(
        "#!/bin/sh\n[ $# -gt 0 ] || {{ : > {}; exit; }}\necho {}: '(from conf:1)'\n",
        ran.display(),
        folder.display()
    );
    fs::write(&ldconfig, text).expect("it can be written");
    ok(Command::new("chmod").arg("+x").arg(&ldconfig));
    let path = std::env::var("PATH").expect("there is one");
    let mut install = install(&installed.prefix());
    install.env("PATH", format!("{}:{path}", bin.display()));
    let output = install.output().expect("the script runs");
    assert!(output.status.success());
    (
        String::from_utf8_lossy(&output.stderr).into_owned(),
        ran.exists(),
    )
}

#[test]
fn installing_runs_ldconfig_where_it_looks_and_else_says_what_programs_need() {
    let installed = Installed::new();
    let lib = installed.prefix().join("lib");
    let lib = lib.canonicalize().expect("it is there");
    let (said, ran) = install_where_ldconfig_looks_at(&installed, &lib, "here");
    assert!(ran && !said.contains("LD_LIBRARY_PATH"), "{said}");
    let (said, ran) = install_where_ldconfig_looks_at(&installed, Path::new("/usr/lib"), "there");
    assert!(!ran && said.contains("LD_LIBRARY_PATH="), "{said}");
}

/// Names of functions that a header of ours declares for the library.
fn declared(header: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(header).expect("the header");
    let outside = text
        .lines()
        .filter(|l| !l.starts_with(' ') && l.contains('('));
    let names = outside.filter_map(|line| {
        let name = line.split('(').next()?.rsplit([' ', '*']).next()?;
        name.starts_with("stillpoint_").then(|| name.to_owned())
    });
    // The inline one is the header's own.
    names
        .filter(|n| n != "stillpoint_snapshot_load_tmp")
        .collect()
}

#[test]
fn the_library_exports_what_the_header_declares_and_the_seeds_names() {
    if !has("symbols", &["nm"]) {
        return;
    }
    let installed = Installed::new();
    let header = installed
        .prefix()
        .join("include/stillpoint/block-snapshot.h");
    let mut nm = Command::new("nm");
    nm.args(["-D", "--defined-only"])
        .arg(installed.prefix().join("lib/libstillpoint.so"));
    let mut exported: BTreeSet<String> = ok(&mut nm)
        .lines()
        .filter_map(|l| l.split_whitespace().nth(2).map(str::to_owned))
        .collect();
    let bare = fs::read_to_string(source("bare.c")).expect("the source");
    // The one of the seed's names that is no function, and what `errp` may be.
    for object in [
        "internal_snapshot_opts",
        "stillpoint_error_abort",
        "stillpoint_error_fatal",
    ] {
        assert!(exported.remove(object), "{object}");
    }
    let (ours, seeds): (BTreeSet<_>, BTreeSet<_>) = exported
        .into_iter()
        .partition(|n| n.starts_with("stillpoint_"));
    assert_eq!(ours, declared(&header));
    assert!(ours.len() > 50);
    assert_eq!(seeds.len(), 18, "{seeds:?}");
    for name in seeds {
        assert!(bare.contains(&format!("{name}(")), "{name}");
    }
}

#[test]
fn the_program_of_every_function_uses_every_function() {
    let header = capi().join("include/stillpoint/block-snapshot.h");
    let header_text = fs::read_to_string(&header).expect("the header");
    let program = fs::read_to_string(source("every.c")).expect("the source");
    let inline = header_text
        .lines()
        .filter(|l| l.starts_with("static inline "));
    let inline = inline.filter_map(|l| l.split('(').next()?.rsplit([' ', '*']).next());
    // What inline functions call is used through them.
    let through = |n: &String| {
        n.starts_with("stillpoint_bdrv_")
            || [
                "error_free",
                "error_get_pretty",
                "error_get_class",
                "load_tmp_argument",
            ]
            .iter()
            .any(|f| *n == format!("stillpoint_{f}"))
            || n == "stillpoint_internal_snapshot_opts"
    };
    let names = declared(&header).into_iter().filter(|n| !through(n));
    let mut all: BTreeSet<String> = inline.map(str::to_owned).collect();
    all.extend(names);
    assert!(all.len() > 50);
    for name in all {
        assert!(program.contains(&format!("{name}(")), "{name} is not used");
    }
}
