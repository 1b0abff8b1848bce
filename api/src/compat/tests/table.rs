//! The table of eras itself.

use super::{r, releases};
use crate::compat::eras::{
    self, AXES, Axis, ByIdOrName, CallerId, DeviceFilter, ERAS, Era, GroupDeleteKey,
    GroupDeleteRet, GroupResult, IdParse, ImgDeleteKey, ImgText, Layout, SavevmOrder,
};
use crate::compat::release::Release;
use std::path::{Path, PathBuf};

#[test]
fn every_axis_begins_at_1_0_and_only_goes_forward() {
    for axis in AXES {
        assert_eq!(axis.steps[0].from, Release::FIRST, "{}", axis.name);
        let known = |from| Release::all().any(|release| release == from);
        assert!(axis.steps.iter().all(|s| known(s.from)), "{}", axis.name);
        let rising = axis
            .steps
            .windows(2)
            .all(|w| w[0].from < w[1].from && w[0].text != w[1].text);
        assert!(rising, "{}", axis.name);
    }
}

#[test]
fn every_flag_is_an_axis_and_every_axis_a_flag() {
    let debug = format!("{:#?}", Release::DEFAULT.flags());
    let field = |line: &str| Some(line.strip_prefix("    ")?.split_once(':')?.0.to_owned());
    let fields: Vec<String> = debug
        .lines()
        .filter_map(field)
        .filter(|f| !f.starts_with(' '))
        .collect();
    let axes: Vec<&str> = imitated().map(|a| a.name).collect();
    assert_eq!(fields.len(), axes.len());
    assert!(
        fields.iter().all(|f| axes.contains(&f.as_str())),
        "{fields:?}"
    );
}

fn imitated() -> impl Iterator<Item = &'static Axis> {
    AXES.iter().filter(|a| a.not_imitated.is_none())
}

/// A flag that nobody asks says of a release what nothing here does.
#[test]
fn every_flag_is_asked_outside_of_the_table() {
    let mut code = String::new();
    for folder in ["src", "../cli"] {
        gather(
            Path::new(env!("CARGO_MANIFEST_DIR")).join(folder),
            &mut code,
        );
    }
    for axis in imitated() {
        let end = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
        let asked = ["flags.", "flags()."].iter().any(|of| {
            let question = format!("{of}{}", axis.name);
            code.split(&question).skip(1).any(end)
        });
        assert!(asked, "{} is a flag that nobody asks", axis.name);
    }
}

/// Adds the code below a folder that is neither the table nor a test.
fn gather(path: PathBuf, code: &mut String) {
    for entry in std::fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.is_dir() && !["eras", "tests"].contains(&name) {
            gather(path, code);
        } else if path.extension().is_some_and(|e| e == "rs") && name != "tests.rs" {
            let text = std::fs::read_to_string(&path).unwrap();
            code.push_str(text.split("#[cfg(test)]").next().unwrap());
        }
    }
}

/// Also that no step was given another axis's setter: then two releases would differ in a flag whose axis says nothing.
#[test]
fn a_flag_changes_exactly_where_its_axis_has_a_step() {
    let fields = |release: Release| -> Vec<String> {
        let debug = format!("{:?}", release.flags());
        let inner = debug
            .trim_start_matches("Flags { ")
            .trim_end_matches(" }")
            .to_owned();
        inner.split(", ").map(ToOwned::to_owned).collect()
    };
    for release in Release::all() {
        let Some(before) = release.previous() else {
            continue;
        };
        let (old, new) = (fields(before), fields(release));
        let changed = old.iter().zip(&new).filter(|(a, b)| a != b);
        let mut changed: Vec<&str> = changed.filter_map(|(a, _)| a.split(':').next()).collect();
        let steps = imitated().filter(|a| a.steps.iter().any(|s| s.from == release));
        let mut steps: Vec<&str> = steps.map(|a| a.name).collect();
        changed.sort_unstable();
        steps.sort_unstable();
        assert_eq!(changed, steps, "{release}");
    }
}

/// The column "At 4.2" of the reference.
#[test]
fn the_default_era_is_what_the_reference_says() {
    let f = Release::DEFAULT.flags();
    assert!(f.group_api && f.find_public && f.find_id_name && f.delete_takes_name);
    assert!(f.load_tmp_full && f.goto_errp && f.goto_error_wins && f.goto_bitmap_refusal);
    assert!(f.data_file_refusal && f.create_discards_vmstate && f.table_limits);
    assert!(f.vm_state_size_wide && f.hmp_partial_lists && f.options && f.img_mix_message);
    assert!(!f.group_devices_param && !f.find_by_id && !f.goto_resize && !f.fallback_primary);
    assert!(!f.can_needs_writable && !f.icount && !f.savevm_cleanup);
    assert!(!f.qmp_jobs && !f.img_lists_by_default && !f.monitor_full_stop);
    assert_eq!(f.group_result, GroupResult::FirstBad);
    assert_eq!(f.group_delete_ret, GroupDeleteRet::Driver);
    assert_eq!(f.group_delete_key, GroupDeleteKey::Found);
    assert_eq!(f.device_filter, DeviceFilter::F);
    assert_eq!(f.delete_by_id_or_name, ByIdOrName::Absent);
    assert_eq!(f.caller_id, CallerId::Overwritten);
    assert_eq!(f.id_parse, IdParse::UnsignedLong);
    assert_eq!(f.extra_written, 16);
    let told = |name: &str| {
        AXES.iter()
            .find(|a| a.name == name)
            .unwrap()
            .value(r("4.2"))
    };
    let facts = [
        "l1_sanity",
        "extra_limit",
        "extra_unknown_kept",
        "delete_drain",
    ]
    .map(told);
    let drained = "delete, in a drained section";
    assert_eq!(facts, ["yes", "1024 bytes", "kept", drained]);
    assert_eq!(told("qmp_internal_sync"), "present");
    assert_eq!(f.savevm_order, SavevmOrder::DeleteFirst);
    assert_eq!(f.list_layout, Layout::L4_1);
    assert_eq!(f.img_delete_key, ImgDeleteKey::Name);
    assert_eq!(f.img_create_text, ImgText::Number);
    assert_eq!(
        (f.img_apply_text, f.img_delete_text),
        (ImgText::Errp, ImgText::Errp)
    );
}

#[test]
fn eras_cover_all_releases_in_the_ranges_of_the_reference() {
    let ranges: Vec<String> = ERAS
        .iter()
        .map(|e| format!("{} {}", e.key, e.range()))
        .collect();
    assert_eq!(
        ranges,
        [
            "Q1_0 1.0-1.5",
            "Q1_6 1.6",
            "Q1_7 1.7",
            "Q2_0 2.0-2.4",
            "Q2_5 2.5-2.10",
            "Q2_11 2.11-3.1",
            "Q4_0 4.0-4.1",
            "Q4_2 4.2-5.0",
            "Q5_1 5.1",
            "Q5_2 5.2",
            "Q6_0 6.0-10.0",
            "Q10_1 10.1-11.1",
        ]
    );
    for release in Release::all() {
        let era = Era::of(release);
        assert!((era.first..=era.last()).contains(&release), "{release}");
    }
}

/// 4.0 and 4.1 share the default's header and differ from it; 5.0 differs from 4.2 in its columns alone.
#[test]
fn differences_between_releases_are_told() {
    let told = eras::between(r("4.1"), r("4.2"));
    for axis in ["device_filter", "extra_unknown_kept", "extra_limit"] {
        assert!(told.contains(axis), "{told}");
    }
    let header = |line: &&str| !line.starts_with(' ');
    assert_eq!(told.lines().filter(header).count(), 3, "{told}");
    assert_eq!(
        told.matches("\n  not imitated: a store ").count(),
        2,
        "{told}"
    );
    let told = eras::between(r("4.0"), r("4.1"));
    assert!(
        told.starts_with("list_layout: ") && told.lines().count() == 3,
        "{told}"
    );
    assert_eq!(eras::between(r("2.7"), r("2.8")), "");
    assert_eq!(eras::between(r("6.0"), r("6.2")), "");
}

#[test]
fn every_release_can_be_told_of() {
    for release in releases("1.0", "11.1") {
        let text = eras::of_release(release);
        assert_eq!(text.lines().count(), AXES.len() + 1, "{release}");
    }
    assert!(AXES.iter().all(|a| eras::overview().contains(a.name)));
}

/// `STILL_WRITE_DOCS=1 cargo nextest run -p stillpoint-api the_page` writes it.
#[test]
fn the_page_in_docs_is_what_the_table_gives() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/ERAS.md");
    if std::env::var_os("STILL_WRITE_DOCS").is_some() {
        std::fs::write(page, eras::markdown()).unwrap();
    }
    assert_eq!(std::fs::read_to_string(page).unwrap(), eras::markdown());
}
