//! The header against the compilers, and its prototypes against the table of eras.

mod support;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use stillpoint_api::compat::Release;
use stillpoint_api::compat::eras::{ByIdOrName, GroupResult};
use support::{STRICT, capi, has, version};

fn header() -> String {
    let path = capi().join("include/stillpoint/block-snapshot.h");
    fs::read_to_string(path).expect("the header")
}

/// The number of a release in the header.
fn number(release: Release) -> String {
    (u32::from(release.major()) * 100 + u32::from(release.minor())).to_string()
}

/// Compiles a text that includes the header, without writing anything.
fn compile(compiler: &[&str], release: &str, text: &str) -> Output {
    let mut child = Command::new(compiler[0])
        .args(&compiler[1..])
        .args(STRICT)
        .arg("-fsyntax-only")
        .arg("-I")
        .arg(capi().join("include"))
        .arg("-I")
        .arg(capi().join("include/stillpoint/qemu"))
        .args((!release.is_empty()).then(|| version(release)))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the compiler starts");
    let mut stdin = child.stdin.take().expect("it is piped");
    stdin.write_all(text.as_bytes()).expect("it reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

#[track_caller]
fn compiles(compiler: &[&str], release: &str, text: &str) {
    let output = compile(compiler, release, text);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{release}: {said}\n{text}");
}

const C11: [&str; 4] = ["cc", "-std=c11", "-x", "c"];
const CPP17: [&str; 4] = ["g++", "-std=c++17", "-x", "c++"];
const INCLUDE: &str = "#include <stillpoint/block-snapshot.h>\n";

#[test]
fn the_header_compiles_alone_as_c11_and_cpp17_for_every_release() {
    if !has("header", &["cc", "g++"]) {
        return;
    }
    for release in Release::all() {
        for compiler in [C11, CPP17] {
            compiles(&compiler, &number(release), INCLUDE);
        }
    }
    // Without a version it is the seed's.
    let text = format!("{INCLUDE}_Static_assert(STILLPOINT_QEMU_VERSION == 402, \"\");\n");
    compiles(&C11, "", &text);
}

#[test]
fn a_version_that_is_no_release_does_not_compile() {
    if !has("header", &["cc"]) {
        return;
    }
    let known: Vec<String> = Release::all().map(number).collect();
    let all = (90..1300).map(|n: u32| n.to_string());
    let odd = all.filter(|n| !known.contains(n));
    // Those next to a release are where a slip would be.
    let near = |n: &String| {
        let n: u32 = n.parse().expect("a number");
        known.contains(&(n - 1).to_string()) || known.contains(&(n + 1).to_string())
    };
    let mut refused = 0;
    for release in odd
        .filter(near)
        .chain(["0", "4", "40200"].map(String::from))
    {
        let output = compile(&C11, &release, INCLUDE);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{release} compiles");
        assert!(said.contains("is no QEMU release"), "{release}: {said}");
        refused += 1;
    }
    assert!(refused > 12);
}

/// Functions with their types at a release, as the flags have them; `None` where there is none.
fn prototypes(release: Release) -> Vec<(&'static str, Option<&'static str>)> {
    let f = release.flags();
    let when = |yes: bool, t| yes.then_some(t);
    let or = |yes: bool, a, b| Some(if yes { a } else { b });
    let listed = f.group_api && f.group_result == GroupResult::Errp;
    let group = |old, new| when(f.group_api, if listed { new } else { old });
    let by_id_or_name = match f.delete_by_id_or_name {
        ByIdOrName::Absent => None,
        ByIdOrName::Void => Some("void (*)(BS, S, E)"),
        ByIdOrName::Int => Some("int (*)(BS, S, E)"),
    };
    let all_goto = if f.goto_errp {
        "int (*)(S, BAD, E)"
    } else {
        "int (*)(S, BAD)"
    };
    vec![
        ("bdrv_can_snapshot", Some("int (*)(BS)")),
        ("bdrv_snapshot_create", Some("int (*)(BS, SN)")),
        (
            "bdrv_snapshot_find",
            when(f.find_public, "int (*)(BS, SN, S)"),
        ),
        (
            "bdrv_snapshot_find_by_id_and_name",
            when(f.find_id_name, "bool (*)(BS, S, S, SN, E)"),
        ),
        (
            "bdrv_snapshot_goto",
            or(f.goto_errp, "int (*)(BS, S, E)", "int (*)(BS, S)"),
        ),
        (
            "bdrv_snapshot_delete",
            or(
                f.delete_takes_name,
                "int (*)(BS, S, S, E)",
                "int (*)(BS, S)",
            ),
        ),
        ("bdrv_snapshot_delete_by_id_or_name", by_id_or_name),
        ("bdrv_snapshot_list", Some("int (*)(BS, SN *)")),
        (
            "bdrv_snapshot_load_tmp",
            or(f.load_tmp_full, "int (*)(BS, S, S, E)", "int (*)(BS, S)"),
        ),
        (
            "bdrv_snapshot_load_tmp_by_id_or_name",
            when(f.load_tmp_full, "int (*)(BS, S, E)"),
        ),
        (
            "bdrv_all_can_snapshot",
            group("bool (*)(BAD)", "bool (*)(bool, L, E)"),
        ),
        (
            "bdrv_all_delete_snapshot",
            group("int (*)(S, BAD, E)", "int (*)(S, bool, L, E)"),
        ),
        (
            "bdrv_all_goto_snapshot",
            group(all_goto, "int (*)(S, bool, L, E)"),
        ),
        (
            "bdrv_all_find_snapshot",
            when(f.group_api && !listed, "int (*)(S, BAD)"),
        ),
        (
            "bdrv_all_has_snapshot",
            when(listed, "int (*)(S, bool, L, E)"),
        ),
        (
            "bdrv_all_create_snapshot",
            group(
                "int (*)(SN, BS, uint64_t, BAD)",
                "int (*)(SN, BS, uint64_t, bool, L, E)",
            ),
        ),
        (
            "bdrv_all_find_vmstate_bs",
            group("BS (*)(void)", "BS (*)(S, bool, L, E)"),
        ),
        ("bdrv_snapshots", when(f.block_h, "BS (*)(void)")),
        ("bdrv_is_snapshot", when(f.block_h, "int (*)(BS)")),
        (
            "bdrv_snapshot_dump",
            when(f.block_h, "char *(*)(char *, int, SN)"),
        ),
    ]
}

/// A text that compiles only if the header has exactly these functions, types and constants.
fn probe(release: Release) -> String {
    let f = release.flags();
    let mut text = INCLUDE.to_owned();
    text.push_str(
        "typedef BlockDriverState *BS; typedef BlockDriverState **BAD; typedef Error **E;\n",
    );
    text.push_str("typedef const char *S; typedef QEMUSnapshotInfo *SN;\n");
    if f.group_devices_param {
        text.push_str("typedef strList *L;\n");
    }
    for (n, (name, prototype)) in prototypes(release).into_iter().enumerate() {
        let line = match prototype {
            Some(t) => {
                format!("extern {};\n", t.replace("(*)", &format!("(*p{n})")))
                    + &t.replace("(*)", &format!("(*p{n})"))
                    + &format!(" = {name};\n")
            }
            // A name that is taken cannot be one of a type.
            None => format!("typedef char {name};\n"),
        };
        text.push_str(&line);
    }
    let wide = if f.vm_state_size_wide { 8 } else { 4 };
    let size = if f.icount { 416 } else { 408 };
    let asserts = [
        format!("sizeof(QEMUSnapshotInfo) == {size}"),
        format!("sizeof(((SN)0)->vm_state_size) == {wide}"),
        "sizeof(((SN)0)->id_str) == 128 && sizeof(((SN)0)->name) == 256".into(),
    ];
    for assert in asserts {
        text.extend(["_Static_assert(", &assert, ", \"\");\n"]);
    }
    let defined = if f.options { "!defined" } else { "defined" };
    for option in ["BASE", "ID", "NAME"] {
        text.extend(["#if ", defined, "(SNAPSHOT_OPT_", option, ")\n"]);
        text.extend(["#error ", option, "\n#endif\n"]);
    }
    text
}

#[test]
fn prototypes_and_types_are_those_of_the_table_of_eras_in_every_release() {
    if !has("header", &["cc"]) {
        return;
    }
    for release in Release::all() {
        compiles(&C11, &number(release), &probe(release));
    }
}

#[test]
fn a_prototype_of_another_era_is_noticed() {
    if !has("header", &["cc"]) {
        return;
    }
    let (old, new): (Release, Release) = ("4.2".parse().unwrap(), "6.0".parse().unwrap());
    for (compiled_for, probed) in [(old, new), (new, old)] {
        let output = compile(&C11, &number(compiled_for), &probe(probed));
        assert!(!output.status.success());
    }
}

#[test]
fn code_that_includes_qemus_own_headers_compiles_as_it_is() {
    if !has("header", &["cc", "g++"]) {
        return;
    }
    let text = r#"
#include "block/snapshot.h"
#include "qapi/error.h"
int revert(BlockDriverState *bs, const char *name, Error **errp);
int revert(BlockDriverState *bs, const char *name, Error **errp)
{
    Error *local_err = NULL;
    int ret = bdrv_snapshot_goto(bs, name, &local_err);
    if (local_err) {
        error_append_hint(&local_err, "Try '%s'.\n", "again");
        error_prepend(&local_err, "%s: ", name);
        error_propagate(errp, local_err);
    } else if (ret < 0) {
        error_setg_errno(errp, -ret, "going to '%s'", name);
    }
    bdrv_snapshot_delete(bs, NULL, name, &error_abort);
    if (!bs) {
        error_setg(&error_fatal, "no node");
    }
    error_report_err(error_copy(local_err));
    error_free_or_abort(&local_err);
    return ret;
}
"#;
    compiles(&C11, "402", text);
    // Of other releases what they have in common.
    let text = "#include \"qapi/error.h\"\nvoid f(Error **errp);\n\
        void f(Error **errp) { error_propagate(errp, NULL); }\n";
    for release in Release::all() {
        compiles(&C11, &number(release), text);
        compiles(&CPP17, &number(release), text);
    }
}

/// An object, whose address is a constant.
#[test]
fn the_options_are_what_the_seed_declares() {
    if !has("header", &["cc", "g++"]) {
        return;
    }
    let text = format!(
        "{INCLUDE}extern QemuOptsList internal_snapshot_opts;\n\
         QemuOptsList *use(void);\n\
         QemuOptsList *use(void) {{ return &internal_snapshot_opts; }}\n\
         extern QemuOptsList *lists[];\n\
         QemuOptsList *lists[] = {{ &internal_snapshot_opts, NULL }};\n"
    );
    for release in ["200", "402", "1101"] {
        compiles(&C11, release, &text);
    }
    let text = format!("{INCLUDE}QemuOptsList *list = &internal_snapshot_opts;\n");
    compiles(&CPP17, "402", &text);
}

#[test]
fn the_text_for_people_names_every_era() {
    let header = header();
    let line = header.lines().find(|l| l.starts_with("Eras begin with"));
    let line = line.expect("the error says where eras begin");
    for era in stillpoint_api::compat::eras::ERAS {
        assert!(line.contains(&number(era.first)), "{}", era.key);
    }
}
